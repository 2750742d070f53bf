"""Archives, read in place: their members, and the bytes of each."""

import bz2
import errno
import functools
import gzip
import io
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

from catdog.base.errors import UserError

MAX_BYTES = 256 << 20  # of one photograph's file
ARCHIVE = re.compile(r"\.(zip|tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz))$", re.IGNORECASE)
_OTHER_ARCHIVE = re.compile(r"\.(7z|rar|zst|tzst|lz4|gz|bz2|xz)$", re.IGNORECASE)
_COMPRESSED: dict[bytes, Callable] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a zip's member: signature, ..., length of its name, of what is extra
_LITTER = {"__macosx", "thumbs.db", "desktop.ini"}
# What the standard library raises on archives that are damaged, or made to look so.
_ZIP_FAULTS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error)
FAULTS = (*_ZIP_FAULTS, tarfile.TarError, OSError, EOFError, ValueError, LookupError, RuntimeError, MemoryError)


class BadMember(Exception):
    """Why a file's bytes cannot be had, as `category` or `category: detail`, for a person to read."""


class Packed(NamedTuple):
    """How a zip holds a member: its method of compression, size in bytes when unpacked, and checksum."""

    method: int
    size: int
    crc: int


@dataclass(frozen=True, slots=True)
class File:
    """One file met.

    `source` is its path inside data/raw, unique; an archive's name stands in it like a folder's. `label` is the index
    of its class, None where no folder above it is named after one. `problem`, where there is one, is why it will never
    be read. The rest is for `read`: `archive` (None: `member` is a path), and there `offset` and `size` in bytes, of
    its data in a tar, of its header and its data as `packed` in a zip.
    """

    source: str
    label: int | None
    archive: Path | None
    member: str
    problem: str = ""
    offset: int = -1
    size: int = -1
    packed: Packed | None = None


def read(file: File) -> bytes:
    """The bytes of `file`; an archive stays open, and no list of its members is needed, in each process.

    Raises:
        BadMember: they cannot be had, or are not what the archive's checksum says.
    """
    if file.problem:
        raise BadMember(file.problem)
    try:
        if file.archive is None:
            return _read_plain(Path(file.member))
        archive = _open(str(file.archive), _stamp(file.archive))
        offset = file.offset
        if file.packed:
            header = _LOCAL_HEADER.unpack(_part(archive, offset, _LOCAL_HEADER.size))
            if header[0] != b"PK\3\4":
                raise BadMember("damaged: nothing where the archive's list has it")
            offset += _LOCAL_HEADER.size + sum(header[1:])
        data = _part(archive, offset, file.size)
        return _unpacked(data, file.packed) if file.packed else data
    except FAULTS as error:
        raise BadMember(f"damaged: {one_line(error)}") from None


def members(archive: Path, shown: str) -> list[File]:
    try:
        met = _zip_members(archive, shown) if is_zip(archive) else _tar_members(archive, shown)
    except FAULTS as error:
        raise UserError(
            f"{archive} cannot be read as an archive ({one_line(error)}): make it or download it again"
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
    return met


@functools.lru_cache(maxsize=8)
def _open(archive: str, stamp: tuple) -> BinaryIO:
    return Path(archive).open("rb")


def _part(archive: BinaryIO, offset: int, size: int) -> bytes:
    # Threads, and processes that were forked, share the file's position, so it is neither used nor changed.
    data = os.pread(archive.fileno(), size, offset)
    if len(data) < size:
        raise BadMember("damaged: the archive ends within it")
    return data


def _unpacked(data: bytes, packed: Packed) -> bytes:
    # ZipFile itself would want the whole list of members, 0.6 kB each, in every worker.
    info = zipfile.ZipInfo()
    info.compress_type, info.compress_size, info.file_size, info.CRC = packed.method, len(data), packed.size, packed.crc
    with zipfile.ZipExtFile(io.BytesIO(data), "r", info) as unpacking:
        unpacked = unpacking.read()
    if len(unpacked) < packed.size:
        raise BadMember("damaged: its data ends early")
    return unpacked


def _stamp(archive: Path) -> tuple:
    """Changes when another file stands there, so that nothing cached outlives it."""
    status = archive.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _read_plain(path: Path) -> bytes:
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise BadMember(_too_large(size))
    return path.read_bytes()


def is_zip(archive: Path) -> bool:
    # By content first: a tar whose last member is a zip would pass for one with zipfile.is_zipfile.
    with archive.open("rb") as file:
        head = file.read(512)
    if head[257:262] == b"ustar" or head[:2] in _COMPRESSED:
        return False
    return head.startswith(b"PK") or archive.suffix.lower() == ".zip"


def _zip_members(archive: Path, shown: str) -> list[File]:
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
        elif (size := max(info.file_size, info.compress_size)) > MAX_BYTES:
            problem = _too_large(size)
        packed = Packed(info.compress_type, info.file_size, info.CRC)
        source = f"{shown}/{_tidy(name)}"
        met.append(File(source, None, archive, info.filename, problem, info.header_offset, info.compress_size, packed))
    return met


def _tar_members(archive: Path, shown: str) -> list[File]:
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
            source = f"{shown}/{_tidy(info.name)}"
            met.append(File(source, None, archive, info.name, problem, info.offset_data, info.size))
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
    return any(hidden(part) and part not in (".", "..") for part in name.split("/"))


def hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LITTER


def _unsafe(name: str) -> str:
    leads_out = name.startswith("/") or ".." in name.split("/") or re.match("[A-Za-z]:", name)
    return "unsafe name: it leads out of the archive" if leads_out or not _tidy(name) else ""


def foreign(name: str) -> str:
    return "archive of an unknown kind: make it a zip or a tar" if _OTHER_ARCHIVE.search(name) else ""


def _nested(name: str) -> str:
    return "archive inside an archive: unpack the outer one" if ARCHIVE.search(name) else foreign(name)


def _too_large(size: int) -> str:
    return f"too large: {size >> 20:,} MiB, the limit is {MAX_BYTES >> 20}"


def _tidy(name: str) -> str:
    return printable("/".join(part for part in name.split("/") if part not in ("", ".")))


def printable(name: str) -> str:
    # File names are bytes; those that are not UTF-8 come as lone surrogates, which no text file takes.
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
