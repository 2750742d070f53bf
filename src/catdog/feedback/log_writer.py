"""The writer of a request log: whoever answers puts answers into a queue, and one thread writes them."""

import hashlib
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from filelock import BaseFileLock, FileLock, Timeout

from catdog.base.errors import UserError
from catdog.feedback import log_files
from catdog.feedback.log_losses import Losses
from catdog.feedback.log_queue import Item, Queue

# Shares of the limit up to which photographs are kept, and lines written. The rest is for feedback.
_PHOTOGRAPHS, _LINES = 0.80, 0.95
_LARGEST = float(np.finfo(np.float16).max)


def clock() -> datetime:
    return datetime.now(UTC)


def stamp(moment: datetime) -> str:
    """Such as 2026-11-27T18:30:12.345Z."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Writer:
    """A request log that is written to; no other process may write to its folder.

    What does not fit into the queue, or can't be written, is dropped and counted: answers never wait for the disk.
    Lines that were written survive a kill of this process; a power cut may take the last ones.

    Attributes:
        folder: the log.
        feedback_bytes: how large the file of what clients say may become.
        losses: what was dropped.
        written: lines, since this was opened.
    """

    def __init__(
        self, folder: Path, *, version: str, classes: Sequence[str], megabytes: int = 1024, photographs: bool = False
    ) -> None:
        """Open a log, and make its folder where there is none.

        Args:
            megabytes: that all of it may take (of 2^20 bytes).
            photographs: whether these are kept too.

        Raises:
            UserError: the folder can't be written, or another server logs there.
        """
        self._lock = _locked(folder)
        limit = megabytes << 20
        self.folder, self.feedback_bytes = folder, int(limit * (1 - _LINES))
        self.losses, self.written = Losses(folder), 0
        self._version, self._classes, self._photographs = version, [*classes], photographs
        self._room, self._described = log_files.Room(folder, limit=limit), False
        self._queue = Queue(self.losses)
        self._thread = threading.Thread(target=self._work, name="request log", daemon=True)
        self._thread.start()

    def put(
        self,
        images: list[bytes],
        answers: list[dict[str, Any]],
        features: Sequence[np.ndarray],
        *,
        milliseconds: float,
    ) -> None:
        """Log the answers to a request; it returns at once.

        Args:
            images: the photographs' bytes, as they were sent.
            answers: with the columns of `serving.COLUMNS`.
            features: float (k,) for each.
            milliseconds: that the request took.
        """
        now = clock()
        each = zip(images, answers, features, strict=True)
        self._queue.put([self._item(*one, now=now, milliseconds=milliseconds) for one in each])

    def flush(self, seconds: float) -> bool:
        """Wait until all that was put so far is written, or dropped. False: it took longer."""
        return self._queue.wait(seconds)

    def close(self, seconds: float = 3.0) -> None:
        """Write what is in the queue, for so long at most, and let others write to the folder."""
        self._queue.close()
        self._thread.join(seconds)
        if self._thread.is_alive():
            self.losses.count("line", "queue", self._queue.left)
        else:
            self._lock.release()
        self.losses.tell_last(0.5)

    def _item(
        self, image: bytes, answer: dict[str, Any], features: np.ndarray, *, now: datetime, milliseconds: float
    ) -> Item:
        sha256, day = hashlib.sha256(image).hexdigest(), now.date().isoformat()
        line = {
            "time": stamp(now),
            "id": answer["id"],
            "sha256": sha256,
            "version": answer["model_version"],
            "label": answer["label"],
            "probability": answer["probability"],
            "familiarity": answer["familiarity"],
            "milliseconds": round(milliseconds, 1),
        }
        return Item(
            day=day,
            line=json.dumps(line).encode() + b"\n",
            features=log_files.features(day, answer["model_version"], len(features)),
            record=bytes.fromhex(answer["id"]) + np.clip(features, -_LARGEST, _LARGEST).astype("<f2").tobytes(),
            sha256=sha256,
            photograph=image if self._photographs else b"",
        )

    # ---- the thread

    def _work(self) -> None:
        with suppress(OSError):
            log_files.remove_parts(self.folder)
        self._describe()
        while items := self._queue.take():
            for day in sorted({item.day for item in items}):
                of_day = [item for item in items if item.day == day]
                try:
                    self._write(day, of_day)
                except Exception as error:  # a fault of ours costs lines, never the writer
                    self.losses.count("line", "disk", len(of_day), error=error)
            self._queue.finish(items)

    def _write(self, day: str, items: list[Item]) -> None:
        """Write answers of one day. The lines come last, so that what they name is there."""
        self._describe()
        needed = {day, clock().date().isoformat()}
        for item in items:
            if item.photograph:
                self._keep(item, needed)
        with self._counting("line", len(items)):
            size = sum(len(item.line) + len(item.record) for item in items)
            if not self._room.make(size, share=_LINES, needed=needed):
                self.losses.count("line", "size", len(items))
                return
            for name in dict.fromkeys(item.features for item in items):
                records = [item.record for item in items if item.features == name]
                with self._counting("features", len(records)):
                    self._append(day, name, b"".join(records), record=len(records[0]))
            self._append(day, log_files.lines(day), b"".join(item.line for item in items))
            self.written += len(items)

    def _append(self, day: str, name: str, data: bytes, *, record: int = 0) -> None:
        self._room.note(day, log_files.append(self.folder, name, data, record=record))

    def _keep(self, item: Item, needed: set[str]) -> None:
        """Keep a photograph, once a day."""
        name = log_files.photograph(item.day, item.sha256)
        with self._counting("photograph", 1):
            if (self.folder / name).exists():
                return
            if not self._room.make(len(item.photograph), share=_PHOTOGRAPHS, needed=needed):
                self.losses.count("photograph", "size")
                return
            log_files.write(self.folder, name, item.photograph)
            self._room.note(item.day, len(item.photograph))

    def _describe(self) -> None:
        """Write the classes of this version; where that fails, the next lines are another occasion."""
        about = self.folder / log_files.ABOUT
        if self._described and about.exists():
            return
        known = {**log_files.classes(self.folder), self._version: self._classes}
        with suppress(OSError):
            log_files.write(self.folder, log_files.ABOUT, json.dumps({"classes": known}, indent=2).encode() + b"\n")
            log_files.write(self.folder, ".gitignore", b"# What clients sent is no part of a project.\n*\n")
            self._described = True

    @contextmanager
    def _counting(self, what: str, number: int) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.losses.count(what, "disk", number, error=error)


def _locked(folder: Path) -> BaseFileLock:
    """A lock on a folder, which is made if need be. It ends with this process, even if that is killed."""
    lock = FileLock(folder / ".lock", mode=0o600, thread_local=False)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except OSError as error:
        why = "another server does" if isinstance(error, Timeout) else error.strerror or error
        raise UserError(f"can't log to {folder}: {why}: name another folder with --log") from None
    return lock
