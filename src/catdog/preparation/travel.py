"""How a file gets to another machine: by its path, where that sees the same files, or else with its bytes."""

from dataclasses import replace
from pathlib import Path

from catdog.base.cluster import Travel
from catdog.preparation import archives, remote


def _placed(file: archives.File) -> archives.File:
    if remote.is_address(file.member):
        return file
    if file.archive:
        return replace(file, archive=file.archive.absolute())
    return replace(file, member=str(Path(file.member).absolute()))


def _stamp(file: archives.File) -> tuple[int, int] | None:
    try:  # an address has none, here as there
        status = (file.archive or Path(file.member)).stat()
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns


def _carried(file: archives.File) -> archives.File:
    try:
        return replace(file, data=archives.read(file))
    except archives.BadMember as error:
        return replace(file, problem=str(error))


FILES = Travel(placed=_placed, stamp=_stamp, carried=_carried)
