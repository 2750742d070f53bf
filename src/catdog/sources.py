"""Where photographs come from: what to fetch into data/raw, and what stands there, archives read in place."""

import bz2
import errno
import fcntl
import functools
import gzip
import hashlib
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from rich.console import Console
from rich.panel import Panel

from catdog import drawings as drawn
from catdog import files
from catdog.errors import UserError
from catdog.progress import track

MAX_BYTES = 256 << 20  # of one photograph's file


@dataclass(frozen=True)
class Public:
    """An archive of cats and dogs at a public address; without a `sha256`, the first one seen is held to."""

    address: str
    size: int
    sha256: str | None = None


PUBLIC = {
    "petimages": Public(
        "https://download.microsoft.com/download/3/e/1/3e1c3f21-ecdb-4869-8368-6deba77b919f/kagglecatsanddogs_5340.zip",
        size=824_887_076,
        sha256="b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9",
    ),
    "filtered": Public("https://storage.googleapis.com/mledu-datasets/cats_and_dogs_filtered.zip", size=68_606_236),
}
AUTO_SECONDS = 10
_WORDS = ("auto", "drawn", *PUBLIC)
_CHOICES = f"expected {', '.join(_WORDS)}, or a path to a folder of class folders, a zip or a tar"

_WORK = ".fetch"

# ---- fetching -------------------------------------------------------------------------------------------------------


def check(source: str) -> None:
    """Raises UserError unless `source` is something that `fetch` can be asked for."""
    if source not in _WORDS:
        _kind(source)


def ensure(source: str, raw: Path, *, classes: list[str], drawings: int, seed: int) -> None:
    """`fetch` where `raw` holds no photographs; those that stand there are never touched."""
    with _alone(raw):
        _finish(raw)
        empty = not _visible(raw)
        record = _record(raw)
    if empty:
        fetch(source, raw, classes=classes, drawings=drawings, seed=seed)
        return
    held = record.get("kind" if record.get("kind") in _WORDS else "path", "photographs of your own")
    if source not in ("auto", held):
        note = f"note: {raw} holds {held}, used as they are; to have {source} instead: catdog fetch {source}"
        Console(stderr=True).print(note, highlight=False, soft_wrap=True)


def fetch(source: str, raw: Path, *, classes: list[str], drawings: int, seed: int) -> None:
    """Bring photographs into `raw`, in place of what an earlier fetch brought; nothing happens if they are there.

    Files are linked where the file system can, else copied. What is under way lies in a hidden folder of `raw`, and a
    fetch that was killed is gone on with by the next one.

    Args:
        source: `auto`, `drawn`, `petimages`, `filtered`, or a path (one with the name of a word: `./drawn`).
        drawings: how many `drawn` makes, of both classes together, from `seed`.

    Raises:
        UserError: no such source, files in `raw` that fetch did not bring, no connection, no photographs of a class.
    """
    from catdog.download import Unavailable  # takes a quarter of a second, and workers come here only to read

    bring = functools.partial(_bring, raw=raw, classes=classes, drawings=drawings, seed=seed)
    check(source)
    try:
        with _alone(raw):
            _finish(raw)
            _refuse_own(raw, source)
            if source != "auto":
                bring(source)
                return
            try:
                bring("filtered", patience=AUTO_SECONDS)
            except Unavailable as error:
                _say_drawn(str(error))
                bring("drawn")
    except OSError as error:
        raise UserError(f"{error.filename or raw}: {error.strerror or error}") from None


def _bring(
    source: str, *, raw: Path, classes: list[str], drawings: int, seed: int, patience: float | None = None
) -> None:
    old = _record(raw)
    wanted: dict[str, str | int]
    if source == "drawn":
        wanted = {"kind": source, "path": source, "drawings": drawings, "seed": seed}
    elif source in PUBLIC:
        wanted = {"kind": source, "address": PUBLIC[source].address}
    else:
        wanted = {"kind": _kind(source), "path": source}
    if source in _WORDS:
        classes = _cat_and_dog(classes, source)
    if _stands(raw, old, wanted):
        return

    new = raw / _WORK / "new"
    shutil.rmtree(new, ignore_errors=True)  # of a fetch that was killed
    new.mkdir(parents=True)
    checksums = old.get("checksums", {})
    if source == "drawn":
        item = new / source
        drawn.write(item, count=drawings, seed=seed, classes=classes)
    elif source in PUBLIC:
        item = _download(PUBLIC[source], new, checksums, patience=patience)
    else:
        item = _link(Path(source).expanduser(), new, raw)

    count = len(_list(new, classes, where=source))
    size, sha256 = _digest(item)
    if source in PUBLIC and PUBLIC[source].sha256 is None:
        checksums = checksums | {PUBLIC[source].address: sha256}
    record = wanted | {"size": size, "sha256": sha256, "files": count}
    record |= {"checksums": checksums} if checksums else {}
    files.write_json(raw / _WORK / _RECORD, record | {"contents": _visible(new)})
    _finish(raw)


def _finish(raw: Path) -> None:
    """Put what lies ready in the place of what was there was; killed anywhere in here, it goes on the next time."""
    work = raw / _WORK
    if not (work / _RECORD).exists():
        return
    record = files.read_json(work / _RECORD)
    item = _item(record)
    if (work / "new" / item).exists():
        (work / "old").mkdir(exist_ok=True)
        for name in {item, _item(_record(raw))} - {""}:
            if (raw / name).exists():
                (raw / name).rename(work / "old" / name)
        files.write_json(work / "record.json", record)
        (work / "record.json").replace(raw / _RECORD)
        (work / "new" / item).rename(raw / item)
    for folder in ("old", "new", "download"):
        shutil.rmtree(work / folder, ignore_errors=True)
    shutil.rmtree(work)


def _stands(raw: Path, record: dict, wanted: dict) -> bool:
    if any(record.get(key) != value for key, value in wanted.items()) or record["contents"] != _visible(raw):
        return False
    known = record["size"], record["sha256"]
    item = raw / _item(record)
    if _digest(item) != known:
        return False
    if wanted["kind"] not in ("folder", "zip", "tar"):
        return True
    path = Path(wanted["path"]).expanduser()
    return path.samefile(item) or _digest(path) == known


def _download(public: Public, folder: Path, checksums: dict[str, str], *, patience: float | None) -> Path:
    from catdog import download

    if patience is not None:
        download.reach(public.address, seconds=patience)
    name = public.address.rsplit("/", 1)[-1]
    target = folder.parent / "download" / name
    sha256 = public.sha256 or checksums.get(public.address)
    download.download(public.address, target, size=public.size, sha256=sha256)
    if sha256 is None and not _whole_zip(target):
        target.unlink()
        raise download.Unavailable(f"{public.address} gave something that is not a whole zip archive; try again later")
    target.rename(folder / name)
    return folder / name


def _whole_zip(archive: Path) -> bool:
    try:
        with zipfile.ZipFile(archive) as opened:
            return opened.testzip() is None
    except _FAULTS:
        return False


def _link(path: Path, folder: Path, raw: Path) -> Path:
    here, there = path.resolve(), raw.resolve()
    if here.is_relative_to(there) or there.is_relative_to(here):
        raise UserError(
            f"{path} and {raw} lie one within the other: move the photographs elsewhere, or leave them there"
        )
    item = folder / _name(here)
    if path.is_file():
        _link_file(here, item)
        return item
    names = _visible(path, follow_links=True)
    for name in track(names, total=len(names), what=f"linking {path}"):
        (item / name).parent.mkdir(parents=True, exist_ok=True)
        _link_file((path / name).resolve(), item / name)
    item.mkdir(exist_ok=True)
    return item


def _link_file(original: Path, target: Path) -> None:
    try:
        target.hardlink_to(original)
    except OSError:  # another file system, or one without links
        shutil.copy2(original, target)


def _name(path: Path) -> str:
    """What `path` is called in data/raw, where it has to be visible and, if an archive, known for one."""
    name = path.name.lstrip(".")
    if not name or _hidden(name) or name in (_README, _RECORD):
        name = "photographs"
    if path.is_file() and not _ARCHIVE.search(name):
        name += ".zip" if _is_zip(path) else ".tar"
    return name


def _kind(source: str) -> str:
    try:
        path = Path(source).expanduser()
        if source and path.is_dir():
            return "folder"
        if not path.is_file():
            raise UserError(f"no such source: {source or 'none given'}; {_CHOICES}")
        if not _is_zip(path) and not tarfile.is_tarfile(path):
            raise UserError(f"{source} is neither a zip nor a tar (gz, bz2 or xz); {_CHOICES}")
        return "zip" if _is_zip(path) else "tar"
    except _FAULTS as error:
        raise UserError(f"{source} cannot be read: {_one_line(error)}") from None


def _cat_and_dog(classes: list[str], source: str) -> list[str]:
    """`classes`, that of cats first."""
    found = {match(name, ["cat", "dog"]): name for name in classes}
    if set(found) != {0, 1}:
        raise UserError(
            f"{source} holds cats and dogs, base.classes says {' and '.join(classes)}: "
            "put photographs of your own into data/raw, or give a path to them"
        )
    return [found[0], found[1]]


def _refuse_own(raw: Path, source: str) -> None:
    fetched = set(_record(raw).get("contents", ()))
    own = [name for name in _visible(raw) if name not in fetched]
    if own:
        more = f" and {len(own) - 1:,} more" if len(own) > 1 else ""
        raise UserError(f"{raw} holds files of your own ({own[0]}{more}): move them away before fetching {source}")


def _say_drawn(reason: str) -> None:
    Console(stderr=True).print(
        Panel(
            f"{reason}\n\nSo cats and dogs are DRAWN instead. Figures from drawings say nothing about photographs.\n"
            "With photographs of your own:  catdog fetch PATH",
            title="No photographs",
            border_style="bold yellow",
        ),
        highlight=False,
    )


def _record(raw: Path) -> dict:
    """What fetch wrote down about what it brought, or nothing."""
    try:
        record = files.read_json(raw / _RECORD)
        return record if {"kind", "size", "sha256", "files", "contents"} <= set(record) else {}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError):
        raise UserError(f"{raw / _RECORD} is damaged: delete it") from None


def _item(record: dict) -> str:
    """The one file or folder in data/raw that a fetch made."""
    return record["contents"][0].split("/")[0] if record.get("contents") else ""


def _digest(path: Path) -> tuple[int, str]:
    return _digest_all(path, _visible(path, follow_links=True)) if path.is_dir() else _digest_file(path)


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


@contextmanager
def _alone(raw: Path) -> Iterator[None]:
    """One fetch at a time. The lock goes with the process, however that ends."""
    raw.mkdir(parents=True, exist_ok=True)
    folder = os.open(raw, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another fetch into {raw} is under way: wait for it") from None
        yield
    finally:
        os.close(folder)


# ---- what stands in data/raw ----------------------------------------------------------------------------------------

_README, _RECORD = "README.md", "source.json"
_LITTER = {"__macosx", "thumbs.db", "desktop.ini"}
_ARCHIVE = re.compile(r"\.(zip|tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz))$", re.IGNORECASE)
_OTHER_ARCHIVE = re.compile(r"\.(7z|rar|zst|tzst|lz4|gz|bz2|xz)$", re.IGNORECASE)
_COMPRESSED: dict[bytes, Callable] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)

# What the standard library raises on archives that are damaged, or made to look so.
_ZIP_FAULTS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error)
_FAULTS = (*_ZIP_FAULTS, tarfile.TarError, OSError, EOFError, ValueError, LookupError, RuntimeError, MemoryError)


class BadMember(Exception):
    """Why a file's bytes cannot be had, as `category` or `category: detail`, for a person to read."""


@dataclass(frozen=True)
class File:
    """One file met.

    `source` is its path inside data/raw, unique; an archive's name stands in it like a folder's. `label` is the index
    of its class, None where no folder above it is named after one. `problem`, where there is one, is why it will never
    be read. The rest is for `read`: `archive` (None: `member` is a path), in a tar the `offset` and `size` in bytes.
    """

    source: str
    label: int | None
    archive: Path | None
    member: str
    problem: str = ""
    offset: int = -1
    size: int = -1


def list_files(raw: Path, classes: list[str]) -> list[File]:
    """Every file under `raw`, by source; the members of archives in place of the archives.

    A file's class is that of the nearest folder (or archive) above it whose name is a class's: without case, plural or
    not, spaces, hyphens and underscores alike. Hidden files and what operating systems leave about are passed over.

    Raises:
        UserError: no photographs, none of one class, or an archive that cannot be read.
    """
    return _list(raw, classes, where=str(raw))


def read(file: File) -> bytes:
    """The bytes of `file`; archives stay open, and quick to read from, in each process.

    Raises:
        BadMember: they cannot be had, or are not what the archive's checksum says.
    """
    if file.problem:
        raise BadMember(file.problem)
    try:
        if file.archive is None:
            return _read_plain(Path(file.member))
        if file.offset >= 0:
            tar = _open_tar(str(file.archive), _stamp(file.archive))
            data = os.pread(tar.fileno(), file.size, file.offset)
            if len(data) < file.size:
                raise BadMember("damaged: the archive ends within it")
            return data
        # A process that is forked shares the file's position with its parent, so each opens the archive for itself.
        return _open_zip(str(file.archive), _stamp(file.archive), os.getpid()).read(file.member)
    except _FAULTS as error:
        raise BadMember(f"damaged: {_one_line(error)}") from None


def describe(raw: Path) -> dict:
    """What stands in `raw`, hashed anew: `kind`, `address` or `path`, `size` (bytes), `sha256` and `files`.

    `kind` is `drawn`, `petimages`, `filtered`, `folder`, `zip` or `tar` while all is as `fetch` left it, else `own`.
    The sha256 is that of the archive; of loose files, that of the lines `<sha256>  <path>` by path.
    """
    record = _record(raw)
    contents = _visible(raw)
    if record and contents == record["contents"]:
        size, sha256 = _digest(raw / _item(record))
        if (size, sha256) == (record["size"], record["sha256"]):
            return {key: record[key] for key in ("kind", "address", "path", "size", "sha256", "files") if key in record}
    size, sha256 = _digest_all(raw, contents)
    path = "/".join(raw.absolute().parts[-2:])
    return {"kind": "own", "path": path, "size": size, "sha256": sha256, "files": sum(1 for _ in _met(raw))}


def _list(folder: Path, classes: list[str], *, where: str) -> list[File]:
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


def _met(folder: Path) -> Iterator[File]:
    for name in _visible(folder):
        path = folder / name
        if _ARCHIVE.search(name):
            yield from _members(path, _printable(name))
        else:
            yield File(_printable(name), None, None, str(path), problem=_foreign(name))


def _visible(folder: Path, *, follow_links: bool = False) -> list[str]:
    """The paths of the files in `folder`, relative to it, sorted; without hidden ones, litter and fetch's own notes."""
    found = []
    for here, folders, names in os.walk(folder, followlinks=follow_links, onerror=_raise):
        top = Path(here)
        folders[:] = [name for name in folders if not _hidden(name)]
        for name in [name for name in folders if (top / name).is_symlink()]:
            if not follow_links:
                raise UserError(
                    f"{top / name} is a link to a folder, whose changes DVC would not see: remove it, and run "
                    f"catdog fetch {(top / name).resolve()}"
                )
            if _leads_back(top / name, folder):
                folders.remove(name)
        for name in names:
            inside = (top / name).relative_to(folder).as_posix()
            if _hidden(name) or inside in (_README, _RECORD):
                continue
            if not (top / name).is_file():
                raise UserError(f"{top / name} is a broken link or no ordinary file: remove it")
            found.append(inside)
    return sorted(found)


def _raise(error: OSError) -> None:
    raise UserError(f"{error.filename} cannot be read: {error.strerror}")


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LITTER


def _leads_back(link: Path, folder: Path) -> bool:
    target = link.resolve()
    above = [link.parent, *(p for p in link.parent.parents if p.is_relative_to(folder))]
    return any(p.resolve().is_relative_to(target) for p in above)


def _labeller(classes: list[str]) -> Callable[[str], int | None]:
    @functools.cache
    def label(folder: str) -> int | None:
        return next((c for name in reversed(folder.split("/")) if (c := match(name, classes)) is not None), None)

    return label


def match(name: str, classes: list[str]) -> int | None:
    """Which of `classes` a folder or archive of this name holds; the very name goes before a plural."""
    name, plain = _plain(_ARCHIVE.sub("", name)), [_plain(c) for c in classes]
    if name in plain:
        return plain.index(name)
    return next((i for i, c in enumerate(plain) if name in _plurals(c) or c in _plurals(name)), None)


def _plain(name: str) -> str:
    return " ".join(re.split(r"[\s_-]+", unicodedata.normalize("NFKC", name).casefold())).strip()


def _plurals(name: str) -> set[str]:
    return {name + "s", name + "es"} | ({name[:-1] + "ies"} if name.endswith("y") else set())


# ---- archives -------------------------------------------------------------------------------------------------------


def _members(archive: Path, shown: str) -> list[File]:
    try:
        met = _zip_members(archive) if _is_zip(archive) else _tar_members(archive)
    except _FAULTS as error:
        raise UserError(
            f"{archive} cannot be read as an archive ({_one_line(error)}): make it or download it again"
        ) from None
    last = {f.source: index for index, f in enumerate(met)}
    taken = set(last)
    for index, f in enumerate(met):
        if last[f.source] != index:
            count = 2
            while f"{f.source}#{count}" in taken:
                count += 1
            taken.add(f"{f.source}#{count}")
            met[index] = replace(
                f, source=f"{f.source}#{count}", problem="replaced: the archive holds a later file of this name"
            )
    return [replace(f, source=f"{shown}/{f.source}") for f in met]


@functools.lru_cache(maxsize=8)
def _open_tar(archive: str, stamp: tuple) -> BinaryIO:
    return Path(archive).open("rb")


@functools.lru_cache(maxsize=8)
def _open_zip(archive: str, stamp: tuple, process: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(archive)


def _stamp(archive: Path) -> tuple:
    """Changes when another file stands there, so that nothing cached outlives it."""
    status = archive.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _read_plain(path: Path) -> bytes:
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise BadMember(_too_large(size))
    return path.read_bytes()


def _is_zip(archive: Path) -> bool:
    # By content first: a tar whose last member is a zip would pass for one with zipfile.is_zipfile.
    with archive.open("rb") as file:
        head = file.read(512)
    if head[257:262] == b"ustar" or head[:2] in _COMPRESSED:
        return False
    return head.startswith(b"PK") or archive.suffix.lower() == ".zip"


def _zip_members(archive: Path) -> list[File]:
    with zipfile.ZipFile(archive) as opened:
        infos = [info for info in opened.infolist() if not info.is_dir()]
    met = []
    for info in infos:
        # Old Windows programs write backslashes, against the standard.
        name = info.filename.replace("\\", "/")
        if _passed_over(name):
            continue
        if info.flag_bits & 1:
            raise UserError(f"{archive} is encrypted ({info.filename}): make it again without a password")
        problem = _unsafe(name) or _nested(name)
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            problem = "not a file: a link" if kind == stat.S_IFLNK else "not a file: a device"
        elif info.compress_type not in _ZIP_METHODS:
            problem = f"unknown compression: method {info.compress_type} of zip"
        elif info.file_size > MAX_BYTES:
            problem = _too_large(info.file_size)
        met.append(File(_tidy(name), None, archive, info.filename, problem=problem))
    return met


def _tar_members(archive: Path) -> list[File]:
    archive = _uncompressed(archive)
    met = []
    with tarfile.open(archive, "r:") as opened:
        for info in opened:
            if info.isdir() or _passed_over(info.name):
                continue
            problem = _unsafe(info.name) or _nested(info.name)
            if info.issym() or info.islnk():
                problem = "not a file: a link"
            elif info.isdev() or not info.isfile() or info.issparse():
                problem = "not a file: sparse" if info.issparse() else "not a file: a device"
            elif info.size > MAX_BYTES:
                problem = _too_large(info.size)
            met.append(File(_tidy(info.name), None, archive, info.name, problem, info.offset_data, info.size))
        # tarfile takes a damaged header, and the end of a file cut short, for the end of the archive.
        with archive.open("rb") as file:
            file.seek(opened.offset)
            end = file.read(tarfile.BLOCKSIZE)
        if len(end) < tarfile.BLOCKSIZE or any(end):
            raise tarfile.ReadError("it is damaged or ends too early")
    return met


def _uncompressed(archive: Path) -> Path:
    with archive.open("rb") as file:
        opener = _COMPRESSED.get(file.read(2))
    return _inflated(str(archive), opener, _stamp(archive)) if opener else archive


@functools.cache
def _inflated(archive: str, opener: Callable, stamp: tuple) -> Path:
    """A compressed tar can only be read from its beginning, so it is inflated once for all of this process's life."""
    descriptor, name = tempfile.mkstemp(suffix=".tar", dir=_scratch().name)
    try:
        with os.fdopen(descriptor, "wb") as inflated, opener(archive, "rb") as compressed:
            shutil.copyfileobj(compressed, inflated, 1 << 20)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise UserError(
            f"no room in {_scratch().name} to inflate {archive}: set TMPDIR to a folder with room"
        ) from None
    return Path(name)


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="catdog-")  # goes when the process ends


def _passed_over(name: str) -> bool:
    return any(_hidden(part) and part not in (".", "..") for part in name.split("/"))


def _unsafe(name: str) -> str:
    leads_out = name.startswith("/") or ".." in name.split("/") or re.match("[A-Za-z]:", name)
    return "unsafe name: it leads out of the archive" if leads_out or not _tidy(name) else ""


def _foreign(name: str) -> str:
    return "archive of an unknown kind: make it a zip or a tar" if _OTHER_ARCHIVE.search(name) else ""


def _nested(name: str) -> str:
    return "archive inside an archive: unpack the outer one" if _ARCHIVE.search(name) else _foreign(name)


def _too_large(size: int) -> str:
    return f"too large: {size >> 20:,} MiB, the limit is {MAX_BYTES >> 20}"


def _tidy(name: str) -> str:
    return _printable("/".join(part for part in name.split("/") if part not in ("", ".")))


def _printable(name: str) -> str:
    # File names are bytes; those that are not UTF-8 come as lone surrogates, which no text file takes.
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
