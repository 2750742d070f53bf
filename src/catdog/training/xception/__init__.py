"""The borrowed network: weights, frozen features, the head and its recipe."""
