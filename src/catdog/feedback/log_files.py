"""The files of a request log: written whole or not at all, a set for each day, all of them within a size.

    2026-11-27.jsonl                          a line for each photograph answered on that day, in UTC
    features/2026-11-27.catdog-3.2048.f16     records: 16 bytes of an answer's id, then its 2048 features in float16
    photographs/2026-11-27/<sha256>           the photographs as they were sent, if they are kept
    feedback.jsonl                            what clients said of answers
    log.json                                  the classes of each version that answered

Here every file is called by its name below the log's folder. That folder is never made anew: where a disk was taken
away, nothing should fill the one that it was mounted on.
"""

import errno
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from catdog.base import files

FEEDBACK, ABOUT = "feedback.jsonl", "log.json"
ID_BYTES = 16
_DAY = r"(\d{4}-\d\d-\d\d)"
_LINES = re.compile(rf"{_DAY}\.jsonl")
_FEATURES = re.compile(rf"features/{_DAY}\.([^/]*)\.(\d+)\.f16")
_PHOTOGRAPH = re.compile(rf"photographs/{_DAY}/[^/]+")
_PART = ".part"  # as `files.replacing` calls what is not yet whole
_COUNT_AGAIN = 60.0  # seconds after which it is looked whether somebody made room


def lines(day: str) -> str:
    return f"{day}.jsonl"


def features(day: str, version: str, width: int) -> str:
    return f"features/{day}.{_plain(version)}.{width}.f16"


def photograph(day: str, sha256: str) -> str:
    return f"photographs/{day}/{sha256}"


def record_bytes(width: int) -> int:
    """Of an id and so many features."""
    return ID_BYTES + 2 * width


def days(folder: Path) -> list[str]:
    """Those that have lines, oldest first."""
    return sorted(match[1] for match in map(_LINES.fullmatch, _names(folder)) if match)


def photograph_days(folder: Path) -> list[str]:
    """Those that have photographs, oldest first."""
    return sorted(name for name in _names(folder / "photographs") if re.fullmatch(_DAY, name))


def feature_files(folder: Path, version: str) -> list[tuple[str, int]]:
    """Names and widths of the files with a version's features, oldest first."""
    found = map(_FEATURES.fullmatch, (f"features/{name}" for name in _names(folder / "features")))
    return sorted((match[0], int(match[3])) for match in found if match and match[2] == _plain(version))


def classes(folder: Path) -> dict[str, list[str]]:
    """The names of both classes by version, as far as the log knows them."""
    try:
        known = files.read_json(folder / ABOUT)["classes"]
        return {version: [str(name) for name in names] for version, names in known.items() if len(names) == 2}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def _plain(version: str) -> str:
    return version.replace("/", "-")


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []


# ---- writing --------------------------------------------------------------------------------------------------------


def append(folder: Path, name: str, data: bytes, *, record: int = 0, sync: bool = False) -> int:
    """Append all of `data`, or nothing; what a kill had cut off at the end is mended first.

    Args:
        record: bytes of each record, of which an incomplete last one is removed; 0: lines, of which it is ended.
        sync: return only when the disk has it.

    Returns:
        By how many bytes the file grew.

    Raises:
        OSError: the disk is full, or can't be written for another reason.
    """
    _make_parents(folder, name)
    file = os.open(folder / name, files.TO_APPEND, 0o600)
    try:
        before = os.fstat(file).st_size
        whole = before - before % record if record else before
        if whole < before:
            os.ftruncate(file, whole)
        elif not record and before:
            os.lseek(file, before - 1, os.SEEK_SET)
            if os.read(file, 1) != b"\n":
                data = b"\n" + data
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(file, left) :]
            if sync:
                os.fsync(file)
        except OSError:
            with suppress(OSError):
                os.ftruncate(file, whole)
            raise
    finally:
        os.close(file)
    if sync:
        files.sync_folder((folder / name).parent)  # where a new file is entered
    return whole + len(data) - before


def write(folder: Path, name: str, data: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        OSError: it can't be written.
    """
    _make_parents(folder, name)
    with files.replacing(folder / name) as part, open(part, "wb", opener=_private) as file:
        file.write(data)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _make_parents(folder: Path, name: str) -> None:
    for parent in reversed(Path(name).parents[:-1]):
        (folder / parent).mkdir(mode=0o700, exist_ok=True)
    if not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))


# ---- room -----------------------------------------------------------------------------------------------------------


class Room:
    """How much may still be written. The oldest days make place; what belongs to none stays.

    Feedback is not counted: it has a share of its own.
    """

    def __init__(self, folder: Path, *, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._sizes: Counter[str] | None = None  # bytes of each day, and of the rest, ""
        self._counted_at = 0.0

    def make(self, size: int, *, share: float, needed: set[str]) -> bool:
        """Whether `size` more bytes fit into a share of the limit, once the oldest days are gone.

        Args:
            needed: days that do not go.

        Raises:
            OSError: a day can't be removed.
        """
        sizes = self._sizes or self._count()
        while sizes.total() + size > self._limit * share:
            if other := sorted(sizes.keys() - needed - {""}):
                _remove(self._folder, other[0])
                del sizes[other[0]]
            elif time.monotonic() - self._counted_at > _COUNT_AGAIN:
                sizes = self._count()
            else:
                return False
        return True

    def note(self, day: str, size: int) -> None:
        """That a day grew by `size` bytes."""
        if self._sizes is not None:
            self._sizes[day] += size

    def _count(self) -> Counter[str]:
        self._counted_at = time.monotonic()
        self._sizes = Counter()
        for day, path in _files(self._folder):
            with suppress(FileNotFoundError):
                self._sizes[day] += path.lstat().st_size
        return self._sizes


def remove_parts(folder: Path) -> None:
    """Remove what a kill kept from becoming whole."""
    for _, path in _files(folder):
        if path.name.endswith(_PART):
            path.unlink(missing_ok=True)


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Each file but feedback, with its day; "": it belongs to none."""
    for place, _, names in os.walk(folder):
        for path in (Path(place, name) for name in names):
            name = path.relative_to(folder).as_posix()
            match = _LINES.fullmatch(name) or _FEATURES.fullmatch(name) or _PHOTOGRAPH.fullmatch(name)
            if name != FEEDBACK:
                yield match[1] if match else "", path


def _remove(folder: Path, day: str) -> None:
    for path in [path for of, path in _files(folder) if of == day]:
        path.unlink(missing_ok=True)
    with suppress(OSError):  # it has none, or something that is not ours
        (folder / "photographs" / day).rmdir()
