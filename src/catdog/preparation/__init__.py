"""From whatever stands in data/raw to checked, deduplicated, split photographs."""
