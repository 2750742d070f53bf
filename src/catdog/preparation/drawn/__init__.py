"""The offline sample: cats and dogs drawn from a seed."""
