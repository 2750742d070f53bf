"""Decisions in data/corrections.csv, a row each: on disk before the next is asked for, and undone to the byte."""

import codecs
import csv
import errno
import getpass
import io
import os
import re
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from catdog.base import files
from catdog.base.errors import UserError
from catdog.base.text import printable
from catdog.preparation import corrections
from catdog.preparation.corrections import COLUMNS, Decision

_ID = re.compile("[0-9a-f]{64}")


class Written(NamedTuple):
    """What became of a decision.

    Attributes:
        row: what was added to the file, by which it can be undone; empty where nothing was.
        before: the decision that counted for the photograph until then.
    """

    row: bytes
    before: Decision | None


class _Form(NamedTuple):
    """How a file is written: its columns (none where it has no header yet), what parts them, and what ends a line."""

    columns: list[str]
    delimiter: str
    end: str


def user() -> str:
    """The name of the user who runs this."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container may run under a user id without a name
        return "unknown"


def append(
    path: Path, identity: str, decision: str, *, by: str, why: str, classes: list[str], replace: bool = False
) -> Written:
    """Write what was decided on a photograph; it is on disk once this returns.

    The file keeps its form: byte order mark, columns, delimiter, line ends. Nothing is written where the photograph has
    this very decision already, or, without `replace`, any: so a retried or a second request doubles nothing.

    Args:
        identity: sha256 of the photograph's file, in hex.
        decision: one of the classes, `corrections.NEITHER` or `corrections.AS_FILED`.

    Raises:
        UserError: the file is not as it should be, or the disk is full; then it is as before.
    """
    if not _ID.fullmatch(identity) or decision not in (*classes, corrections.NEITHER, corrections.AS_FILED):
        raise ValueError(f"no decision on a photograph: {identity!r}, {decision!r}")
    when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    cells = {"id": identity, "decision": decision, "by": by, "when": when, "why": why}
    with _held(path):
        before = corrections.load(path, classes).get(identity)
        if before and (before.decision == decision or not replace):
            return Written(b"", before)
        old = path.read_bytes() if path.exists() else b""
        beginning, row = _added(path, old, cells)
        _write(path, beginning + row, size=len(old))
        if not old:
            files.sync_folder(path.parent)
        return Written(row, before)


def undo(path: Path, row: bytes) -> None:
    """Take back a row that `append` wrote; no other row changes.

    Raises:
        UserError: the file does not hold it any more as it was written, or the disk fails; then nothing changes.
    """
    edited = UserError(f"{path} was edited meanwhile: this can't be undone here; remove its line there")
    if not path.is_file():
        raise edited
    with _held(path):
        data = path.read_bytes()
        at = data.rfind(row)
        if at < 0 or data[:at][-1:] not in (b"\n", b"\r"):
            raise edited
        if at + len(row) == len(data):
            with path.open("r+b") as file:
                file.truncate(at)
                os.fsync(file.fileno())
        else:  # rows came after it
            with files.replacing(path.resolve()) as part, part.open("wb") as new:
                new.write(data[:at] + data[at + len(row) :])
                new.flush()
                os.fsync(new.fileno())


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """No other process decides meanwhile. The lock is of a file beside: this one is replaced by others."""
    file = path.resolve()
    try:
        with FileLock(file.with_name(f".{file.name}.lock")):
            yield
    except OSError as error:
        problem = error.strerror or str(error)
        raise UserError(f"{path}: {problem}: nothing was changed; see to it, and try again") from None


def _write(path: Path, data: bytes, *, size: int) -> None:
    """Add `data` to a file of `size` bytes, made where it is missing: all of it and for good, or nothing."""
    file = os.open(path, files.TO_APPEND, 0o666)
    try:
        if os.write(file, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(file)
    except OSError:
        os.ftruncate(file, size)
        raise
    finally:
        os.close(file)


def _added(path: Path, old: bytes, cells: dict[str, str]) -> tuple[bytes, bytes]:
    """What to add to a file that holds `old`: what has to stand before the row, such as a header, and the row.

    Raises:
        UserError: the row would be read as a part of the one before.
    """
    form = _form(old)
    beginning = "" if not old.strip(codecs.BOM_UTF8) or old.endswith((b"\n", b"\r")) else form.end
    if not form.columns:
        form = form._replace(columns=[*COLUMNS])
        beginning += _line([*COLUMNS], form)
    # Each cell on one line: a line end in it would make a row of two lines.
    row = [printable(cells.get(column, "")).strip() for column in form.columns]
    line = _line(row, form)
    if _last_row(old + (beginning + line).encode()) != row:
        raise UserError(f"{path}: a quotation mark is not closed in its last row: close it, and try again")
    return beginning.encode(), line.encode()


def _line(cells: list[str], form: _Form) -> str:
    line = io.StringIO()
    csv.writer(line, delimiter=form.delimiter, lineterminator=form.end).writerow(cells)
    return line.getvalue()


def _form(data: bytes) -> _Form:
    text = data.decode("utf-8-sig")
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)  # as `corrections.load` has it
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    columns = next((row for row in rows if any(cell.strip() for cell in row)), [])
    end = re.search("\r\n|\n|\r", text)
    return _Form([column.strip().lower() for column in columns], delimiter, end[0] if end else "\n")


def _last_row(data: bytes) -> list[str]:
    text = data.decode("utf-8-sig")
    try:
        return deque(csv.reader(io.StringIO(text, newline=""), delimiter=_form(data).delimiter), maxlen=1)[0]
    except csv.Error:
        return []
