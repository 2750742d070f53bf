"""What clients say of answers: kept beside the log of these, for a person to look at; nothing is trained on it."""

import errno
import json
from pathlib import Path
from typing import NamedTuple

from catdog.feedback import log_files, log_writer, request_log


class Noted(NamedTuple):
    """What was kept; `new` is False if the same had been said already."""

    id: str
    label: str
    answered: str
    new: bool


def note(folder: Path, *, id: str, label: str, most: int) -> Noted | None:
    """Keep what a client says of an answer: on the disk when this returns. None: the log has no such answer.

    What is said last counts. For one thread at a time.

    Args:
        most: bytes that the file of all that was said may have.

    Raises:
        OSError: the disk can't be written, or `most` is reached.
    """
    entry = request_log.find(folder, id)
    if entry is None:
        return None
    before = [row.label for row in request_log.said(folder, id)]
    new = before[-1:] != [label]
    now = log_writer.stamp(log_writer.clock())
    row = request_log.Said(time=now, id=id, sha256=entry.sha256, label=label, answered=entry.label)
    line = json.dumps(row._asdict()).encode() + b"\n" if new else b""
    path = folder / log_files.FEEDBACK
    if new and (path.stat().st_size if path.exists() else 0) + len(line) > most:
        raise OSError(errno.ENOSPC, "the share of the log that is for feedback is used up")
    log_files.append(folder, log_files.FEEDBACK, line, sync=True)  # also the same once more is on the disk now
    return Noted(id, label, entry.label, new)
