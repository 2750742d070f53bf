"""Answers that wait to be written to a request log: bounded in number and bytes, and nobody waits to put one in."""

import threading
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from catdog.feedback.log_losses import Losses

MOST_ITEMS, MOST_BYTES = 4096, 32 << 20  # with what is being written; more is dropped
_BATCH = 256  # items
_GATHER = 0.1  # seconds in which items are gathered, to be written in one go


class Item(NamedTuple):
    """An answer to be written.

    Attributes:
        features: the name of the file of its features, and `record` what is appended there.
        photograph: its bytes; empty if they are not kept.
    """

    day: str
    line: bytes
    features: str
    record: bytes
    sha256: str
    photograph: bytes

    @property
    def size(self) -> int:
        return len(self.line) + len(self.record) + len(self.photograph)


class Queue:
    """For many threads that put items in, and one that takes them out."""

    def __init__(self, losses: Losses) -> None:
        self._losses = losses
        self._changed = threading.Condition()  # of all that follows
        self._items: deque[Item] = deque()
        self._bytes = 0
        self._accepted = self._finished = 0  # items, since the beginning
        self._wanted = 0  # so many of them are waited for
        self._closed = False

    def put(self, items: Iterable[Item]) -> None:
        """Put items in, at once; what has no room is dropped and counted, photographs before lines."""
        with self._changed:
            was_empty = not self._items
            for item in items:
                self._accept(item)
            if was_empty or self._urgent():
                self._changed.notify_all()

    def _accept(self, item: Item) -> None:
        room = MOST_BYTES - self._bytes
        if self._closed or self.left >= MOST_ITEMS or item.size - len(item.photograph) > room:
            self._losses.count("line", "queue")
            return
        if item.size > room:
            self._losses.count("photograph", "queue")
            item = item._replace(photograph=b"")
        self._items.append(item)
        self._bytes += item.size
        self._accepted += 1

    def take(self) -> list[Item]:
        """What is to be written now, in order: at least one item, or none once it is closed and empty.

        Each is followed by `finish`.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed)
            self._changed.wait_for(self._urgent, _GATHER)
            return [self._items.popleft() for _ in range(min(len(self._items), _BATCH))]

    def _urgent(self) -> bool:
        waited_for = self._closed or self._finished < self._wanted
        return waited_for or 2 * len(self._items) > MOST_ITEMS or 2 * self._bytes > MOST_BYTES

    def finish(self, items: list[Item]) -> None:
        """That items which were taken out are written, or dropped."""
        with self._changed:
            self._bytes -= sum(item.size for item in items)
            self._finished += len(items)
            self._changed.notify_all()

    def wait(self, seconds: float) -> bool:
        """Wait until all that was put in so far is finished. False: it took longer."""
        with self._changed:
            wanted = self._wanted = self._accepted
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._finished >= wanted, seconds)

    def close(self) -> None:
        """Take no more items."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def left(self) -> int:
        """How many items are not finished."""
        return self._accepted - self._finished
