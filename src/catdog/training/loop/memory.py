"""Peak memory of a stretch of work."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

_SECONDS = 0.5  # between looks


@dataclass
class Peak:
    """`bytes` is the most so far."""

    bytes: int = 0


@contextmanager
def watched() -> Iterator[Peak]:
    """Watch this process and its children until the end: memory with no file behind it.

    What is mapped from files, as photographs and features are, is the system's to drop when it needs the room, so it
    does not count. Where the system does not tell the two apart, as on macOS, all that is resident does.
    """
    peak, done = Peak(), threading.Event()

    def look() -> None:
        while True:
            peak.bytes = max(peak.bytes, _private_bytes())
            if done.wait(_SECONDS):
                return

    watch = threading.Thread(target=look, daemon=True)
    watch.start()
    try:
        yield peak
    finally:
        done.set()
        watch.join()


def _private_bytes() -> int:
    process = psutil.Process()
    total = 0
    for each in (process, *process.children(recursive=True)):
        try:
            memory = each.memory_info()
        except psutil.Error:  # it has just ended
            continue
        total += memory.rss - getattr(memory, "shared", 0)
    return total
