"""Tracked image classification: the library behind the stages in `src/` and the `catdog` command."""
