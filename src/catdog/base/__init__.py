"""Knobs, paths, errors, files and digests, downloads, progress: no result follows from it."""
