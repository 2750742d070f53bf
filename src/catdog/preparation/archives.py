"""Zip and tar archives, read in place: their members, and the bytes of each."""

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

from catdog.base.errors import UserError, first_line

MAX_BYTES = 256 << 20  # of one photograph's file
ARCHIVE = re.compile(r"\.(zip|tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz))$", re.IGNORECASE)
_OTHER_ARCHIVE = re.compile(r"\.(7z|rar|zst|tzst|lz4|gz|bz2|xz)$", re.IGNORECASE)
_COMPRESSED: dict[bytes, Callable] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # before a member of a zip: signature, ..., lengths of name and extra field
_LITTER = {"__macosx", "thumbs.db", "desktop.ini"}
# What the standard library raises on archives that are damaged, by accident or on purpose.
FAULTS = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, tarfile.TarError),
    *(OSError, EOFError, ValueError, LookupError, RuntimeError, MemoryError),
)


class BadMember(Exception):
    """Why a file's bytes can't be read, in words: `category` or `category: detail`."""


class Packed(NamedTuple):
    """How a zip stores a member: its compression method, its size once unpacked (bytes), and its checksum."""

    method: int
    size: int
    crc: int


@dataclass(frozen=True, slots=True)
class File:
    """A file in data/raw, loose or in an archive.

    Attributes:
        source: its path inside data/raw, unique; an archive's name stands in it like a folder's.
        label: the index of its class; None if no folder above it has the name of one.
        archive: None for a loose file, whose path is then `member`.
        problem: why it can never be read, if so.
        offset, size: in bytes, of its data in a tar; in a zip, of its header and of its data as stored.
        packed: in a zip only.
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
    """The bytes of `file`. Each process keeps the archive open, and needs no list of its members.

    Raises:
        BadMember: they can't be read, or don't have the archive's checksum.
    """
    if file.problem:
        raise BadMember(file.problem)
    try:
        if file.archive is None:
            path = Path(file.member)
            if (size := path.stat().st_size) > MAX_BYTES:
                raise BadMember(_too_large(size))
            return path.read_bytes()
        offset = file.offset
        if file.packed:
            header = _LOCAL_HEADER.unpack(_part(file.archive, offset, _LOCAL_HEADER.size))
            if header[0] != b"PK\3\4":
                raise BadMember("damaged: nothing where the archive's list has it")
            offset += _LOCAL_HEADER.size + sum(header[1:])
        data = _part(file.archive, offset, file.size)
        return _unpacked(data, file.packed) if file.packed else data
    except FAULTS as error:
        raise BadMember(f"damaged: {first_line(error)}") from None


def members(archive: Path, name: str) -> list[File]:
    """The files in a zip or tar, in its order, their sources under `name`, without labels.

    Raises:
        UserError: it is encrypted, or can't be read as an archive.
    """
    try:
        listed = _zip_members(archive, name) if is_zip(archive) else _tar_members(archive, name)
    except FAULTS as error:
        advice = "make it or download it again"
        raise UserError(f"{archive} cannot be read as an archive ({first_line(error)}): {advice}") from None
    last = {file.source: index for index, file in enumerate(listed)}
    taken = set(last)
    for index, file in enumerate(listed):
        if last[file.source] != index:
            number = 2
            while (source := f"{file.source}#{number}") in taken:
                number += 1
            taken.add(source)
            problem = "replaced: the archive holds a later file of this name"
            listed[index] = replace(file, source=source, problem=problem)
    return listed


@functools.lru_cache(maxsize=8)
def _open(archive: Path, stamp: tuple) -> BinaryIO:
    return archive.open("rb")


def _part(archive: Path, offset: int, size: int) -> bytes:
    # Not by seeking: threads, and processes that were forked, share the file's position.
    data = os.pread(_open(archive, _stamp(archive)).fileno(), size, offset)
    if len(data) < size:
        raise BadMember("damaged: the archive ends within it")
    return data


def _unpacked(data: bytes, packed: Packed) -> bytes:
    # ZipFile itself would read the list of all members, 0.6 kB each, in every worker.
    info = zipfile.ZipInfo()
    info.compress_type, info.compress_size, info.file_size, info.CRC = packed.method, len(data), packed.size, packed.crc
    with zipfile.ZipExtFile(io.BytesIO(data), "r", info) as unpacking:
        unpacked = unpacking.read()
    if len(unpacked) < packed.size:
        raise BadMember("damaged: its data ends early")
    return unpacked


def _stamp(archive: Path) -> tuple:
    """Differs once the file is replaced, so that nothing cached outlives it."""
    status = archive.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def is_zip(archive: Path) -> bool:
    """Whether to read it as a zip rather than as a tar."""
    # By content first: zipfile.is_zipfile takes a tar whose last member is a zip for a zip.
    with archive.open("rb") as file:
        head = file.read(512)
    if head[257:262] == b"ustar" or head[:2] in _COMPRESSED:
        return False
    return head.startswith(b"PK") or archive.suffix.lower() == ".zip"


def _zip_members(archive: Path, prefix: str) -> list[File]:
    with zipfile.ZipFile(archive) as opened:
        infos = opened.infolist()
    listed = []
    for info in infos:
        name = info.filename.replace("\\", "/")  # old Windows programs write backslashes, against the standard
        if info.is_dir() or _is_litter(name):
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
        source = f"{prefix}/{_tidy(name)}"
        place = info.header_offset, info.compress_size, Packed(info.compress_type, info.file_size, info.CRC)
        listed.append(File(source, None, archive, info.filename, problem, *place))
    return listed


def _tar_members(archive: Path, prefix: str) -> list[File]:
    with archive.open("rb") as file:
        opener = _COMPRESSED.get(file.read(2))
    if opener:
        archive = _inflated(archive, opener, _stamp(archive))
    listed = []
    with tarfile.open(archive, "r:") as opened:
        for info in opened:
            if info.isdir() or _is_litter(info.name):
                continue
            problem = _unsafe(info.name) or _nested(info.name)
            if info.issym() or info.islnk():
                problem = "not a file: a link"
            elif info.issparse():
                problem = "not a file: sparse"
            elif not info.isfile():
                problem = "not a file: a device"
            elif info.size > MAX_BYTES:
                problem = _too_large(info.size)
            source = f"{prefix}/{_tidy(info.name)}"
            listed.append(File(source, None, archive, info.name, problem, info.offset_data, info.size))
        # To tarfile, a damaged header or a file cut short looks like the archive's end, which is a block of zeros.
        with archive.open("rb") as file:
            file.seek(opened.offset)
            end = file.read(tarfile.BLOCKSIZE)
        if len(end) < tarfile.BLOCKSIZE or any(end):
            raise tarfile.ReadError("it is damaged or ends too early")
    return listed


@functools.cache
def _inflated(archive: Path, opener: Callable, stamp: tuple) -> Path:
    """A compressed tar, inflated, since it can only be read from its beginning; once in each process."""
    descriptor, name = tempfile.mkstemp(suffix=".tar", dir=_scratch().name)
    try:
        with os.fdopen(descriptor, "wb") as inflated, opener(archive, "rb") as compressed:
            shutil.copyfileobj(compressed, inflated, 1 << 20)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        advice = "set TMPDIR to a folder with room"
        raise UserError(f"no room in {_scratch().name} to inflate {archive}: {advice}") from None
    return Path(name)


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="catdog-")  # removed when the process ends


def _is_litter(name: str) -> bool:
    return any(hidden(part) and part not in (".", "..") for part in name.split("/"))


def hidden(name: str) -> bool:
    """Whether a file or folder is passed over: hidden, or left about by an operating system."""
    return name.startswith(".") or name.lower() in _LITTER


def _unsafe(name: str) -> str:
    leads_out = name.startswith("/") or ".." in name.split("/") or re.match("[A-Za-z]:", name)
    return "unsafe name: it leads out of the archive" if leads_out or not _tidy(name) else ""


def foreign(name: str) -> str:
    """The problem of an archive of a kind that can't be read; empty for other files."""
    return "archive of an unknown kind: make it a zip or a tar" if _OTHER_ARCHIVE.search(name) else ""


def _nested(name: str) -> str:
    return "archive inside an archive: unpack the outer one" if ARCHIVE.search(name) else foreign(name)


def _too_large(size: int) -> str:
    return f"too large: {size >> 20:,} MiB, the limit is {MAX_BYTES >> 20}"


def _tidy(name: str) -> str:
    return printable("/".join(part for part in name.split("/") if part not in ("", ".")))


def printable(name: str) -> str:
    """A file name as text. Python has lone surrogates for bytes that are not UTF-8; these become backslash escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
