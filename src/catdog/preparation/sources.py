"""What stands in data/raw: every file, its class, and where it all came from."""

import functools
import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from catdog.base import files
from catdog.base.errors import UserError
from catdog.preparation.archives import ARCHIVE, BadMember, File, foreign, hidden, members, printable, read

README, RECORD = "README.md", "source.json"


__all__ = ["BadMember", "File", "describe", "list_files", "match", "read"]


def list_files(raw: Path, classes: list[str]) -> list[File]:
    """Every file under `raw`, by source; the members of archives in place of the archives.

    A file's class is that of the nearest folder (or archive) above it whose name is a class's: without case, plural or
    not, spaces, hyphens and underscores alike. Hidden files and what operating systems leave about are passed over.

    Raises:
        UserError: no photographs, none of one class, or an archive that cannot be read.
    """
    return labelled(raw, classes, where=str(raw))


def labelled(folder: Path, classes: list[str], *, where: str) -> list[File]:
    label = _labeller(classes)
    met = sorted((replace(f, label=label(f.source.rpartition("/")[0])) for f in _met(folder)), key=lambda f: f.source)
    names = " and ".join(classes)
    if not met:
        raise UserError(
            f"{where} holds no photographs: put a folder for each of {names} there, or an archive of them, "
            "or run: catdog fetch SOURCE"
        )
    there = {f.label for f in met if not f.problem}
    missing = [name for index, name in enumerate(classes) if index not in there]
    if missing:
        folders = Counter(f.source.rpartition("/")[0] or "no folder" for f in met)
        found = ", ".join(f"{name} ({count:,} files)" for name, count in folders.most_common(5))
        more = f" and {len(folders) - 5:,} more folders" if len(folders) > 5 else ""
        raise UserError(
            f"{where} holds no photographs of {' or '.join(missing)}: expected folders named {names} (base.classes), "
            f"found {found}{more}"
        )
    return met


def match(name: str, classes: list[str]) -> int | None:
    """Which of `classes` a folder or archive of this name holds; the very name goes before a plural."""
    name, plain = _plain(ARCHIVE.sub("", name)), [_plain(c) for c in classes]
    if name in plain:
        return plain.index(name)
    return next((i for i, c in enumerate(plain) if name in _plurals(c) or c in _plurals(name)), None)


def describe(raw: Path) -> dict:
    """What stands in `raw`, hashed anew: `kind`, `address` or `path`, `size` (bytes), `sha256` and `files`.

    `kind` is `drawn`, `petimages`, `filtered`, `folder`, `zip` or `tar` while all is as `fetch` left it, else `own`.
    The sha256 is that of the archive; of loose files, that of the lines `<sha256>  <path>` by path.
    """
    record = read_record(raw)
    contents = visible(raw)
    if record and contents == record["contents"]:
        size, sha256 = digest(raw / item_of(record))
        if (size, sha256) == (record["size"], record["sha256"]):
            return {key: record[key] for key in ("kind", "address", "path", "size", "sha256", "files") if key in record}
    size, sha256 = _digest_all(raw, contents)
    path = "/".join(raw.absolute().parts[-2:])
    return {"kind": "own", "path": path, "size": size, "sha256": sha256, "files": sum(1 for _ in _met(raw))}


def read_record(raw: Path) -> dict:
    """What fetch wrote down about what it brought, or nothing."""
    try:
        record = files.read_json(raw / RECORD)
        return record if {"kind", "size", "sha256", "files", "contents"} <= set(record) else {}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError):
        raise UserError(f"{raw / RECORD} is damaged: delete it") from None


def item_of(record: dict) -> str:
    """The one file or folder in data/raw that a fetch made."""
    return record["contents"][0].split("/")[0] if record.get("contents") else ""


def _met(folder: Path) -> Iterator[File]:
    for name in visible(folder):
        path = folder / name
        if ARCHIVE.search(name):
            yield from members(path, printable(name))
        else:
            yield File(printable(name), None, None, str(path), problem=foreign(name))


def visible(folder: Path, *, follow_links: bool = False) -> list[str]:
    """The paths of the files in `folder`, relative to it, sorted; without hidden ones, litter and fetch's own notes."""
    found = []
    for here, folders, names in os.walk(folder, followlinks=follow_links, onerror=_raise):
        top = Path(here)
        prefix = "" if top == folder else top.relative_to(folder).as_posix() + "/"
        folders[:] = [name for name in folders if not hidden(name)]
        for name in [name for name in folders if (top / name).is_symlink()]:
            if not follow_links:
                raise UserError(
                    f"{top / name} is a link to a folder, whose changes DVC would not see: remove it, and run "
                    f"catdog fetch {(top / name).resolve()}"
                )
            if _leads_back(top / name, folder):
                folders.remove(name)
        for name in names:
            if hidden(name) or (not prefix and name in (README, RECORD)):
                continue
            if not (top / name).is_file():
                raise UserError(f"{top / name} is a broken link or no ordinary file: remove it")
            found.append(prefix + name)
    return sorted(found)


def _raise(error: OSError) -> None:
    raise UserError(f"{error.filename} cannot be read: {error.strerror}")


def _leads_back(link: Path, folder: Path) -> bool:
    target = link.resolve()
    above = [link.parent, *(p for p in link.parent.parents if p.is_relative_to(folder))]
    return any(p.resolve().is_relative_to(target) for p in above)


def _labeller(classes: list[str]) -> Callable[[str], int | None]:
    @functools.cache
    def label(folder: str) -> int | None:
        return next((c for name in reversed(folder.split("/")) if (c := match(name, classes)) is not None), None)

    return label


def _plain(name: str) -> str:
    return " ".join(re.split(r"[\s_-]+", unicodedata.normalize("NFKC", name).casefold())).strip()


def _plurals(name: str) -> set[str]:
    return {name + "s", name + "es"} | ({name[:-1] + "ies"} if name.endswith("y") else set())


def digest(path: Path) -> tuple[int, str]:
    return _digest_all(path, visible(path, follow_links=True)) if path.is_dir() else _digest_file(path)


def _digest_all(folder: Path, names: Iterable[str]) -> tuple[int, str]:
    total, digest = 0, hashlib.sha256()
    for name in names:
        size, sha256 = _digest_file(folder / name)
        total += size
        digest.update(f"{sha256}  {name}\n".encode("utf-8", "surrogateescape"))
    return total, digest.hexdigest()


def _digest_file(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        return os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()
