"""A request log as it is read: what a served model was asked, what it answered, and what is in doubt about that.

`log_files` has its files, `log_writer` writes it. It may be read while a server writes to it.
"""

import json
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from catdog.answers.classifier import NEITHER, UNSURE
from catdog.base import files
from catdog.base.errors import UserError
from catdog.feedback import log_files

_ID, _SHA256 = re.compile(r"[0-9a-f]{32}"), re.compile(r"[0-9a-f]{64}")
_BLOCK = 1 << 20  # bytes that are searched at a time


class Entry(NamedTuple):
    """A photograph that was answered.

    Attributes:
        time: when, in UTC, such as 2026-11-27T18:30:12.345Z.
        id: of the answer.
        sha256: of the photograph's bytes.
        version: that answered, such as catdog/3.
        label: a class, `unsure` or `neither`.
        probability: of the second class.
        familiarity: None where the version has no profile.
        milliseconds: that the server took for the whole request, which may have held more photographs.
    """

    time: str
    id: str
    sha256: str
    version: str
    label: str
    probability: float
    familiarity: float | None
    milliseconds: float


class Said(NamedTuple):
    """What a client said of an answer: `label` is a class or `neither`; `answered` is what the label had been."""

    time: str
    id: str
    sha256: str
    label: str
    answered: str


class Doubted(NamedTuple):
    """A photograph that a person should look at.

    Attributes:
        label: of its newest answer, as `probability` and `familiarity` are.
        leans: the likelier class; empty if the log does not know the names of the classes.
        feedback: what a client said of it last; empty if nothing.
        path: of the photograph; None if it was not kept.
    """

    sha256: str
    label: str
    leans: str
    probability: float
    familiarity: float | None
    feedback: str
    path: Path | None


def entries(folder: Path) -> Iterator[Entry]:
    """All that was answered, oldest first. Lines that are none are passed over; a notice says how many.

    Raises:
        UserError: the folder is no log.
    """
    check(folder)
    return _entries(folder)


def check(folder: Path) -> None:
    """Refuse what is no log.

    Raises:
        UserError: the folder is none.
    """
    if not (folder / log_files.ABOUT).is_file() and not log_files.days(folder):
        raise UserError(f"{folder} is no log of answers: name the folder that was given to `catdog serve --log`")


def _entries(folder: Path) -> Iterator[Entry]:
    unread = 0
    for day in log_files.days(folder):
        for line in _lines(folder / log_files.lines(day)):
            if entry := _entry(line):
                yield entry
            else:
                unread += 1
    if unread:
        print(f"notice: {folder}: lines that can't be read, and are passed over: {unread}", file=sys.stderr)


def features(folder: Path, version: str | None = None, *, newest: int | None = None) -> tuple[list[str], np.ndarray]:
    """The features of a version's answers, oldest first: the answers' ids, and float32 (n, k).

    Args:
        version: such as catdog/3; None: the one that answered last.
        newest: of so many answers at most. All of them may take twice the memory that the log takes on disk.

    Raises:
        UserError: the folder is no log.
    """
    answered = list(entries(folder))
    if version is None and answered:
        version = answered[-1].version
    ids = dict.fromkeys(entry.id for entry in answered if entry.version == version)
    wanted = {bytes.fromhex(name): place for place, name in enumerate(list(ids)[-newest:] if newest else ids)}
    found = log_files.feature_files(folder, version or "")
    width = found[-1][1] if found else 0
    rows, there = np.empty((len(wanted), width), np.float32), np.zeros(len(wanted), bool)
    for name in [name for name, of in found if of == width]:
        names, numbers = _records(folder / name, width)
        for place, row in zip(map(wanted.get, names), numbers, strict=True):
            if place is not None:
                rows[place], there[place] = row, True
    return [name.hex() for name, place in wanted.items() if there[place]], rows[there]


def _records(path: Path, width: int) -> tuple[list[bytes], np.ndarray]:
    """The ids and the features, float16 (n, width), of a file; a record that was cut off is left out."""
    size = log_files.record_bytes(width)
    try:
        data = path.read_bytes()
    except FileNotFoundError:  # its day had to go
        data = b""
    records = np.frombuffer(data[: len(data) - len(data) % size], np.uint8).reshape(-1, size)
    names = records[:, : log_files.ID_BYTES].tobytes()
    numbers = np.ascontiguousarray(records[:, log_files.ID_BYTES :]).view("<f2")
    return [names[start : start + log_files.ID_BYTES] for start in range(0, len(names), log_files.ID_BYTES)], numbers


def photograph(folder: Path, sha256: str) -> Path | None:
    """The file of a photograph, whole; None if the log did not keep it."""
    for day in reversed(log_files.photograph_days(folder)):
        path = folder / log_files.photograph(day, sha256)
        with suppress(FileNotFoundError):
            if _SHA256.fullmatch(sha256) and files.sha256(path) == sha256:
                return path
    return None


def last_photographs(folder: Path, count: int) -> list[Path]:
    """The files of the last `count` different photographs that were answered and kept, newest first, all of them whole.

    Their names are their sha256.

    Raises:
        UserError: the folder is no log.
    """
    check(folder)
    met: set[str] = set()
    found: list[Path] = []
    for entry in _newest_first(folder):
        if len(found) == count:
            break
        if entry.sha256 not in met and (path := photograph(folder, entry.sha256)):
            found.append(path)
        met.add(entry.sha256)
    return found


def _newest_first(folder: Path) -> Iterator[Entry]:
    for day in reversed(log_files.days(folder)):
        for line in reversed([*_lines(folder / log_files.lines(day))]):
            if entry := _entry(line):
                yield entry


def find(folder: Path, id: str) -> Entry | None:
    """The answer of this id."""
    if not _ID.fullmatch(id):
        return None
    for day in reversed(log_files.days(folder)):
        for line in _lines_with(folder / log_files.lines(day), id.encode()):
            entry = _entry(line)
            if entry and entry.id == id:
                return entry
    return None


def said(folder: Path, id: str | None = None) -> Iterator[Said]:
    """What clients said, oldest first: of one answer, or of all."""
    path = folder / log_files.FEEDBACK
    for line in _lines(path) if id is None else _lines_with(path, id.encode()):
        try:
            read = json.loads(line)
            row = Said(*(read[name] for name in Said._fields))
        except (ValueError, LookupError, TypeError, RecursionError):
            continue
        if all(isinstance(value, str) for value in row) and id in (None, row.id):
            yield row


def doubted(folder: Path, *, sureness: float) -> list[Doubted]:
    """The photographs whose newest answer should be looked at by a person, each once.

    First those of which a client said otherwise, then `neither`, then `unsure`, then those whose likelier class has a
    probability under `sureness`; of each kind the least sure first.

    Raises:
        UserError: the folder is no log.
    """
    newest = {entry.sha256: entry for entry in entries(folder)}
    feedback = {row.sha256: row.label for row in said(folder)}
    classes = log_files.classes(folder)
    found: list[tuple[int, float, Doubted]] = []
    for sha256, entry in newest.items():
        word, sure = feedback.get(sha256, ""), max(entry.probability, 1 - entry.probability)
        if word and word != entry.label and entry.label != UNSURE:
            kind = 0
        elif entry.label in (NEITHER, UNSURE):
            kind = 1 if entry.label == NEITHER else 2
        elif sure < sureness:
            kind = 3
        else:
            continue
        names = classes.get(entry.version)
        leans = names[entry.probability >= 0.5] if names else ""
        path = photograph(folder, sha256)
        doubt = Doubted(sha256, entry.label, leans, entry.probability, entry.familiarity, word, path)
        found.append((kind, sure, doubt))
    return [doubt for _, _, doubt in sorted(found, key=lambda each: (each[0], each[1], each[2].sha256))]


# ---- lines ----------------------------------------------------------------------------------------------------------


def _lines(path: Path) -> Iterator[bytes]:
    """Those of a file that are not empty; none if it is gone."""
    try:
        with path.open("rb") as file:
            yield from (line for line in file if line.strip())
    except FileNotFoundError:
        return


def _lines_with(path: Path, word: bytes) -> Iterator[bytes]:
    """Those that hold `word`, without a look at each line of a large file."""
    try:
        with path.open("rb") as file:
            rest = b""
            while block := file.read(_BLOCK):
                block = rest + block
                end = block.rfind(b"\n") + 1
                if block.find(word, 0, end) >= 0:
                    yield from (line for line in block[:end].splitlines() if word in line)
                rest = block[end:]
            if word in rest:
                yield rest
    except FileNotFoundError:
        return


def _entry(line: bytes) -> Entry | None:
    """None if a line is no entry."""
    try:
        read = json.loads(line)
        entry = Entry(*(read[name] for name in Entry._fields))
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    texts = all(isinstance(text, str) for text in (entry.time, entry.id, entry.sha256, entry.version, entry.label))
    if not texts or not _ID.fullmatch(entry.id) or not _SHA256.fullmatch(entry.sha256):
        return None
    shares = [entry.probability] if entry.familiarity is None else [entry.probability, entry.familiarity]
    numbers = all(isinstance(share, int | float) and 0 <= share <= 1 for share in shares)
    return entry if numbers and isinstance(entry.milliseconds, int | float) else None
