"""A trained model asked about a photograph: from a file's bytes to a verdict."""
