"""The network of our own, and its recipe."""
