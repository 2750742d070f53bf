"""Every file met becomes a finding, on all cores: a photograph in its standard form, or the reason why not."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np

from catdog.photographs import parallel, photos, shards
from catdog.preparation import archives, fingerprints


@dataclass(frozen=True)
class Settings:
    image_size: int
    min_side: int
    max_megapixels: float


@dataclass(slots=True)
class Finding:
    """One file met, and what prepare comes to say about it.

    `reason` is empty where the photograph is kept. `jpeg` is the standard form, and `fingerprint` what near copies are
    found by, on their way from a worker to the spool; `spooled` is their row there. `group` and `split` are settled
    when every file is known.
    """

    source: str
    label: int | None
    id: str = ""
    width: int | None = None
    height: int | None = None
    format: str = ""
    jpeg: bytes | None = None
    fingerprint: bytes | None = None
    reason: str = ""
    spooled: int = -1
    group: str = ""
    split: str = ""


def spool(findings: Iterable[Finding], path: Path) -> list[Finding]:
    """Put the pixels of `findings` aside into a shard at `path`, and their fingerprints beside it.

    Returns the findings without them, in order.
    """
    settled: list[Finding] = []

    def rows(beside: IO[bytes]) -> Iterator[shards.Row]:
        count = 0
        for finding in findings:
            settled.append(finding)
            if finding.jpeg is not None and finding.fingerprint is not None and finding.label is not None:
                yield shards.Row(finding.id, finding.source, finding.label, finding.jpeg, finding.id)
                beside.write(finding.fingerprint)
                finding.jpeg, finding.fingerprint, finding.spooled = None, None, count
                count += 1

    with _beside(path).open("wb") as beside:
        shards.write(path, rows(beside))
    return settled


def spooled_fingerprints(path: Path) -> np.ndarray:
    """`fingerprints.RECORD` (photographs,): those of the spool at `path`, row by row, memory-mapped."""
    file = _beside(path)
    return np.memmap(file, fingerprints.RECORD, "r") if file.stat().st_size else np.empty(0, fingerprints.RECORD)


def remove(path: Path) -> None:
    """Remove the spool at `path`, whatever of it is there."""
    for file in (path, _beside(path)):
        file.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_suffix(".fingerprints")


def unspool(findings: list[Finding], path: Path, split: str) -> Iterator[shards.Row]:
    """The rows of one split, by id, so that any stretch of a shard is a fair sample of both classes."""
    spooled = shards.Shard(path)
    for f in sorted((f for f in findings if f.split == split), key=lambda f: f.id):
        yield shards.Row(f.id, f.source, int(f.label or 0), spooled.jpeg(f.spooled), f.group)


def inspect(files: Iterable[archives.File], settings: Settings, *, workers: int | None = None) -> Iterator[Finding]:
    """A finding for each of `files`, in their order, on all cores."""
    return parallel.chunked_map(partial(inspect_file, settings=settings), files, workers=workers, rescue=_crashed)


def inspect_file(file: archives.File, settings: Settings) -> Finding:
    """What `file` is, whatever its bytes are."""
    finding = Finding(source=file.source, label=file.label)
    if file.problem:
        finding.reason = file.problem
        return finding
    try:
        data = archives.read(file)
        finding.id = hashlib.sha256(data).hexdigest()
        if file.label is None:
            raise photos.Unreadable("unknown class")
        photo = photos.standardise(
            data,
            image_size=settings.image_size,
            min_side=settings.min_side,
            max_megapixels=settings.max_megapixels,
        )
    except (photos.Unreadable, archives.BadMember) as error:
        finding.reason = str(error)
        return finding
    finding.width, finding.height, finding.format, finding.jpeg = photo.width, photo.height, photo.format, photo.jpeg
    finding.fingerprint = fingerprints.of(photo.image).tobytes()
    return finding


def _crashed(file: archives.File) -> Finding:
    return Finding(source=file.source, label=file.label, reason="damaged: crashes the decoder")
