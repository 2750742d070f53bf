"""What a request log misses: counted by reason, and told on stderr, once a minute at most."""

import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from catdog.base.text import printable

_WHY = {"queue": "the disk is too slow", "disk": "the disk fails", "size": "--log-megabytes is reached"}
KINDS = [(what, why) for what in ("line", "features", "photograph") for why in _WHY]
_SECONDS = 60.0  # between two notices


class Losses:
    """Counts what is dropped; many threads may do so at a time, and none waits for whoever reads stderr."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._lock = folder, threading.Lock()
        self._counts = Counter(dict.fromkeys(KINDS, 0))
        self._failure = ""  # of the disk, the last one
        self._told: dict[tuple[str, str], int] = dict(self._counts)
        self._tell_from, self._telling = 0.0, threading.Thread()

    def count(self, what: str, why: str, number: int = 1, *, error: Exception | None = None) -> None:
        """Count `number` times one of KINDS."""
        with self._lock:
            self._counts[what, why] += number
            if error:
                self._failure = getattr(error, "strerror", None) or str(error) or type(error).__name__
            if time.monotonic() >= self._tell_from and not self._telling.is_alive():
                self._tell()

    def counts(self) -> dict[tuple[str, str], int]:
        """Of each of KINDS."""
        with self._lock:
            return dict(self._counts)

    def tell_last(self, seconds: float) -> None:
        """Tell at the end what was not told yet, and wait so long at most until it is."""
        with self._lock:
            if self._told != self._counts and not self._telling.is_alive():
                self._tell()
        if self._telling.is_alive():
            self._telling.join(seconds)

    def _tell(self) -> None:
        self._tell_from, self._told = time.monotonic() + _SECONDS, dict(self._counts)
        told = [
            f"{number} x {what} ({_WHY[why]}{f': {self._failure}' if why == 'disk' else ''})"
            for (what, why), number in self._counts.items()
            if number
        ]
        message = printable(f"notice: answers go on, but the log in {self._folder} misses {', '.join(told)}")
        # By a thread of its own: stderr may be a pipe from which nobody reads.
        self._telling = threading.Thread(target=print, args=(message,), kwargs={"file": sys.stderr}, daemon=True)
        with suppress(RuntimeError):  # there are too many threads
            self._telling.start()
