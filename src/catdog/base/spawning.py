"""Processes that are started anew: on how many cores, and without what the script that was started imports."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def main_unnoticed() -> Iterator[None]:
    """Keep processes that start meanwhile from importing the script that was started, and all that it imports.

    They would, for functions of its own; for prepare that is a second of CPU in every worker.
    """
    main = sys.modules["__main__"]
    kept: dict[str, object] = {name: vars(main).pop(name) for name in ("__file__", "__spec__") if name in vars(main)}
    main.__spec__ = None
    try:
        yield
    finally:
        vars(main).update(kept)
