"""Whole or not at all: what is fetched is put together in a hidden folder of data/raw, and then moved into place."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from catdog.base import files
from catdog.base.errors import UserError
from catdog.base.progress import track
from catdog.preparation.sources import RECORD, brought, item_of, read_record, visible

_WORK = ".fetch"


@contextmanager
def alone(raw: Path) -> Iterator[None]:
    """Hold off other fetches into `raw`, and first move into place what a killed one left complete.

    The lock goes with the process, however that ends.

    Raises:
        UserError: another fetch is under way, or `raw` can't be written to.
    """
    try:
        raw.mkdir(parents=True, exist_ok=True)
        folder = os.open(raw, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _finish(raw)
            yield
        finally:
            os.close(folder)
    except BlockingIOError:
        raise UserError(f"another fetch into {raw} is under way: wait for it") from None
    except OSError as error:
        raise UserError(f"{error.filename or raw}: {error.strerror or error}") from None


@contextmanager
def staged(raw: Path) -> Iterator[Path]:
    """An empty folder to put one file or folder together in, for `commit`. If there is no commit, it is removed."""
    work = raw / _WORK
    new = work / "new"
    shutil.rmtree(new, ignore_errors=True)  # of a fetch that was killed
    new.mkdir(parents=True)
    try:
        yield new
    finally:
        if not (work / RECORD).exists():
            shutil.rmtree(new, ignore_errors=True)
            _remove_if_empty(work / "download")
            _remove_if_empty(work)


def downloads(raw: Path) -> Path:
    """The folder for downloads into `raw`, where a broken one is kept."""
    return raw / _WORK / "download"


def commit(raw: Path, record: dict) -> None:
    """Put what was staged in the place of what an earlier fetch brought, and `record` beside it."""
    files.write_json(raw / _WORK / RECORD, record | {"contents": visible(raw / _WORK / "new")})
    _finish(raw)


def _finish(raw: Path) -> None:
    # If it is killed anywhere in here, the next call goes on.
    work = raw / _WORK
    if not (work / RECORD).exists():
        _remove_if_empty(work)
        return
    if own_files(raw):  # put there since the fetch was killed
        shutil.rmtree(work)
        return
    record = files.read_json(work / RECORD)
    item = item_of(record)
    if (work / "new" / item).exists():
        (work / "old").mkdir(exist_ok=True)
        for name in {item, item_of(read_record(raw))} - {""}:
            if (raw / name).exists():
                (raw / name).rename(work / "old" / name)
        files.write_json(work / "record.json", record)
        (work / "record.json").replace(raw / RECORD)
        (work / "new" / item).rename(raw / item)
    for folder in ("old", "new", "download"):  # before the record, without which the rest would stay
        shutil.rmtree(work / folder, ignore_errors=True)
    shutil.rmtree(work)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def own_files(raw: Path) -> list[str]:
    """The files in `raw` that no fetch brought."""
    fetched = set(read_record(raw).get("contents", ()))
    return [name for name in brought(raw) if name not in fetched]


def link_file(original: Path, target: Path) -> None:
    """Link `target` to `original`, or copy it where the file system can't link."""
    try:
        target.hardlink_to(original)
    except OSError:
        shutil.copy2(original, target)


def link_files(folder: Path, target: Path, names: list[str]) -> None:
    """`link_file` for the files of `folder` that `names` lists, into the folder `target`."""
    target.mkdir(exist_ok=True)
    for name in track(names, total=len(names), what="linking photographs"):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        link_file((folder / name).resolve(), target / name)
