"""What stands in data/raw: every file, its class, and where it all came from."""

import functools
import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from catdog.base import files
from catdog.base.errors import UserError
from catdog.base.names import forms, plain
from catdog.preparation.archives import ARCHIVE, File, foreign, hidden, members, printable

README, RECORD = "README.md", "source.json"
REVIEWED = "reviewed"  # a folder: photographs that served answers were about, and a person decided on


def list_files(folder: Path, classes: list[str], *, where: str = "") -> list[File]:
    """Every file under `folder`, by source; of an archive, its members.

    A file's class is that of the nearest folder or archive above it that is named after a class. Case, plural forms,
    and the difference between spaces, hyphens and underscores don't matter. Hidden files, and what operating systems
    leave about, are passed over.

    Args:
        where: what errors call the folder; by default its path.

    Raises:
        UserError: no photographs, none of one class, or an archive that can't be read.
    """
    where = where or str(folder)
    label = functools.cache(lambda parent: _label(parent, classes))
    listed = [replace(file, label=label(_folder(file))) for file in _files(folder, visible(folder))]
    listed.sort(key=lambda file: file.source)
    names = " and ".join(classes)
    if not listed:
        raise UserError(
            f"{where} holds no photographs: put a folder for each of {names} there, or an archive of them, "
            "or run: catdog fetch SOURCE"
        )
    labels = {file.label for file in listed if not file.problem}
    if missing := [name for index, name in enumerate(classes) if index not in labels]:
        folders = Counter(_folder(file) or "no folder" for file in listed)
        counts = ", ".join(f"{name} ({count:,} files)" for name, count in folders.most_common(5))
        more = f" and {len(folders) - 5:,} more folders" if len(folders) > 5 else ""
        raise UserError(
            f"{where} holds no photographs of {' or '.join(missing)}: expected folders named {names} (base.classes), "
            f"found {counts}{more}"
        )
    return listed


def match(name: str, classes: list[str]) -> int | None:
    """The index of the class that a folder or archive is named after; an equal name goes before a plural."""
    name, known = plain(ARCHIVE.sub("", name)), [plain(c) for c in classes]
    if name in known:
        return known.index(name)
    return next((i for i, c in enumerate(known) if name in forms(c)), None)


def describe(raw: Path) -> dict:
    """Where the files in `raw` are from: `kind`, `address` or `path`, `size` (bytes), `sha256` and `files` (a count).

    `kind` is `drawn`, `petimages`, `filtered`, `folder`, `zip` or `tar` as long as everything is as `fetch` left it,
    which is found out by hashing it; else it is `own`. The sha256 is that of the archive, or for loose files that of
    the lines `<sha256>  <path>`, by path. What review added to them is not counted. Of a path only its end is told:
    metrics and reports are committed, and where it began is of this machine alone.
    """
    record = read_record(raw)
    if is_unchanged(raw, record):
        told = {key: record[key] for key in ("kind", "address", "path", "size", "sha256", "files") if key in record}
        return told | ({"path": _end(Path(told["path"]))} if "path" in told else {})
    names = brought(raw)
    size, sha256 = _digest_all(raw, names)
    return {
        "kind": "own",
        "path": _end(raw.absolute()),
        "size": size,
        "sha256": sha256,
        "files": sum(1 for _ in _files(raw, names)),
    }


def _end(path: Path) -> str:
    """A file's or folder's name and that of the folder that it is in."""
    return "/".join([part for part in path.expanduser().parts if part not in ("/", "..", ".")][-2:])


def read_record(raw: Path) -> dict:
    """What `fetch` recorded of what it brought; empty if it brought nothing."""
    try:
        record = files.read_json(raw / RECORD)
        return record if {"kind", "size", "sha256", "files", "contents"} <= set(record) else {}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError):
        raise UserError(f"{raw / RECORD} is damaged: delete it") from None


def is_unchanged(raw: Path, record: dict) -> bool:
    """Whether `raw` holds just what `record` says, hashed anew."""
    if not record or record["contents"] != brought(raw):
        return False
    return digest(raw / item_of(record)) == (record["size"], record["sha256"])


@contextmanager
def unchanged(raw: Path) -> Iterator[None]:
    """Make sure that `raw` stays as it is meanwhile: then what is said of it in the end holds for what was read.

    Raises:
        UserError: a file came, went or was replaced.
    """
    before = _stamps(raw)
    yield
    after = _stamps(raw)
    if changed := sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name)):
        more = f" and {len(changed) - 1:,} more" if len(changed) > 1 else ""
        what = f"{raw} changed while it was read ({printable(changed[0])}{more})"
        raise UserError(f"{what}: run it again when nothing else writes there")


def _stamps(raw: Path) -> dict[str, tuple[int, ...]]:
    stamps: dict[str, tuple[int, ...]] = {}
    for name in visible(raw):
        with suppress(FileNotFoundError):  # gone since it was listed
            status = (raw / name).stat()
            stamps[name] = status.st_ino, status.st_size, status.st_mtime_ns
    return stamps


def item_of(record: dict) -> str:
    """The one file or folder that a fetch made in data/raw."""
    return record["contents"][0].split("/")[0] if record.get("contents") else ""


def _files(folder: Path, names: list[str]) -> Iterator[File]:
    for name in names:
        path = folder / name
        if ARCHIVE.search(name):
            yield from members(path, printable(name))
        else:
            yield File(printable(name), None, None, str(path), problem=foreign(name))


def brought(raw: Path) -> list[str]:
    """What of `visible` a person or a fetch brought, and not review."""
    return [name for name in visible(raw) if not name.startswith(f"{REVIEWED}/")]


def visible(folder: Path, *, follow_links: bool = False) -> list[str]:
    """The paths of the files in `folder`, relative to it, sorted; no hidden ones, no README or record at its top.

    Raises:
        UserError: a broken link, something that is not a file, a link to a folder unless `follow_links`.
    """
    listed = []
    for parent, folders, names in os.walk(folder, followlinks=follow_links, onerror=_raise):
        top = Path(parent)
        prefix = "" if top == folder else top.relative_to(folder).as_posix() + "/"
        folders[:] = [name for name in folders if not hidden(name)]
        for link in [top / name for name in folders if (top / name).is_symlink()]:
            if not follow_links:
                raise UserError(
                    f"{link} is a link to a folder, whose changes DVC would not see: remove it, and run "
                    f"catdog fetch {link.resolve()}"
                )
            if _leads_back(link, folder):
                folders.remove(link.name)
        for name in names:
            if hidden(name) or prefix + name in (README, RECORD):
                continue
            if not (top / name).is_file():
                raise UserError(f"{top / name} is a broken link or no ordinary file: remove it")
            listed.append(prefix + name)
    return sorted(listed)


def _raise(error: OSError) -> None:
    raise UserError(f"{error.filename} cannot be read: {error.strerror}")


def _leads_back(link: Path, folder: Path) -> bool:
    target = link.resolve()
    return any(parent.resolve().is_relative_to(target) for parent in link.parents if parent.is_relative_to(folder))


def _label(folder: str, classes: list[str]) -> int | None:
    labels = (match(name, classes) for name in reversed(folder.split("/")))
    return next((label for label in labels if label is not None), None)


def _folder(file: File) -> str:
    return file.source.rpartition("/")[0]


def digest(path: Path) -> tuple[int, str]:
    """The size (bytes) and sha256 of a file, or of all files of a folder."""
    if path.is_dir():
        return _digest_all(path, visible(path, follow_links=True))
    return path.stat().st_size, files.sha256(path)


def _digest_all(folder: Path, names: list[str]) -> tuple[int, str]:
    size, digest = 0, hashlib.sha256()
    for name in names:
        size += (folder / name).stat().st_size
        digest.update(f"{files.sha256(folder / name)}  {name}\n".encode("utf-8", "surrogateescape"))
    return size, digest.hexdigest()
