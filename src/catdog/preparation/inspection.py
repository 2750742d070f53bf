"""Every file becomes a finding, on all cores: a photograph in its standard form, or the reason why it is refused."""

import hashlib
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np

from catdog.base import parallel
from catdog.base.errors import UserError
from catdog.photographs import photos, shards
from catdog.preparation import archives, fingerprints, travel


@dataclass(frozen=True)
class Settings:
    image_size: int
    min_side: int
    max_megapixels: float


@dataclass(slots=True)
class Finding:
    """A file, and what prepare finds out about it.

    Attributes:
        id: sha256 of its bytes, in hex; empty if they can't be read.
        width, height, format: as in the file, upright.
        jpeg, fingerprint: the standard form, and `fingerprints.RECORD` as bytes; only until they are spooled.
        filed: the class by its folder, where a person decided on another.
        decision, by: what a person decided, and who; see `corrections`.
        reason: why it is refused; empty if it is kept.
        spooled: its row in the spool, or -1.
        group, split: set once all files are known.
    """

    source: str
    label: int | None
    id: str = ""
    width: int | None = None
    height: int | None = None
    format: str = ""
    jpeg: bytes | None = None
    fingerprint: bytes | None = None
    filed: int | None = None
    decision: str = ""
    by: str = ""
    reason: str = ""
    spooled: int = -1
    group: str = ""
    split: str = ""


def spool(findings: Iterable[Finding], path: Path) -> list[Finding]:
    """Move the pixels of `findings` to a shard at `path`, and their fingerprints to a file beside it.

    So memory holds few of them at a time. Returns the findings without them, in order.
    """
    spooled: list[Finding] = []

    def rows(beside: IO[bytes]) -> Iterator[shards.Row]:
        row = checksum = 0
        for finding in findings:
            spooled.append(finding)
            if finding.jpeg is not None and finding.fingerprint is not None and finding.label is not None:
                yield shards.Row(finding.id, finding.source, finding.label, finding.jpeg, finding.id)
                beside.write(finding.fingerprint)
                checksum = zlib.crc32(finding.fingerprint, checksum)
                finding.jpeg, finding.fingerprint, finding.spooled = None, None, row
                row += 1
        beside.write(checksum.to_bytes(4))

    with _beside(path).open("wb") as beside:
        shards.write(path, rows(beside))
    return spooled


def spooled_fingerprints(path: Path) -> np.ndarray:
    """`fingerprints.RECORD` (photographs,), memory-mapped: a fingerprint for each row of the spool at `path`.

    Raises:
        UserError: they are not those that were written.
    """
    file = np.memmap(_beside(path), np.uint8, "r")
    records, checksum = file[:-4], int.from_bytes(file[-4:].tobytes())
    if zlib.crc32(records.data) != checksum:
        raise UserError(f"{_beside(path)} was damaged on disk while prepare ran: run it again")
    return records.view(fingerprints.RECORD)


@contextmanager
def room(folder: Path) -> Iterator[Path]:
    """The path of a spool in `folder`, for as long as it is needed."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".spool.arrow"  # always the same, so that a run replaces what a killed one left
    try:
        yield path
    finally:
        for file in (path, _beside(path)):
            file.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_suffix(".fingerprints")


def unspool(findings: list[Finding], pixels: shards.Shard) -> Iterator[shards.Row]:
    """The rows of `findings`, by id, so that any part of a shard is a fair sample of both classes.

    Args:
        pixels: the spool.
    """
    for f in sorted(findings, key=lambda f: f.id):
        yield shards.Row(f.id, f.source, int(f.label or 0), pixels.jpeg(f.spooled), f.group)


def inspect(files: Iterable[archives.File], settings: Settings, *, workers: int | None = None) -> Iterator[Finding]:
    """A finding for each of `files`, in their order, on all cores."""
    look = partial(inspect_file, settings=settings)
    return parallel.chunked_map(look, files, workers=workers, rescue=_crashed, travel=travel.FILES)


def inspect_file(file: archives.File, settings: Settings) -> Finding:
    """What `file` is; its bytes may be anything."""
    finding = Finding(file.source, file.label)
    try:
        data = archives.read(file)
        finding.id = hashlib.sha256(data).hexdigest()
        if file.label is None:
            raise photos.Unreadable("unknown class")
        photo = photos.standardise(data, **asdict(settings))
    except (photos.Unreadable, archives.BadMember) as error:
        finding.reason = str(error)
        return finding
    finding.width, finding.height, finding.format, finding.jpeg = photo.width, photo.height, photo.format, photo.jpeg
    finding.fingerprint = fingerprints.of(photo.image).tobytes()
    return finding


def _crashed(file: archives.File) -> Finding:
    return Finding(file.source, file.label, reason="damaged: crashes the decoder")
