"""Zip and tar archives, read in place: their members, and the bytes of each."""

import bz2
import errno
import functools
import io
import itertools
import lzma
import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

from catdog.base.errors import UserError, first_line
from catdog.preparation import remote, tars

MAX_BYTES = 256 << 20  # of one photograph's file
MAX_MEMBERS = 1_000_000  # of an archive; each takes about 0.5 kB of memory
MAX_LIST = 64 << 20  # bytes of a zip's list of members, from which zipfile makes some fifteen times as many
ARCHIVE = re.compile(r"\.(zip|tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz))$", re.IGNORECASE)
_OTHER_ARCHIVE = re.compile(r"\.(7z|rar|zst|tzst|lz4|gz|bz2|xz)$", re.IGNORECASE)
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_MAX_RATIO, _RATIO_FROM = 1_100, 1 << 20  # of a zip's member of that size or more; deflate reaches 1,032
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # before a member of a zip: signature, ..., lengths of name and extra field
_LITTER = {"__macosx", "thumbs.db", "desktop.ini"}
# What the standard library raises on archives that are damaged, by accident or on purpose.
FAULTS = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, tarfile.TarError),
    *(OSError, EOFError, ValueError, LookupError, RuntimeError, MemoryError),
)
_OF_THE_MACHINE = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}  # no fault of the file: others would fail as well


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
        archive: None for a loose file, whose path or address is then `member`.
        problem: why it can never be read, if so.
        offset, size: in bytes, of its data in a tar; in a zip, of its header and of its data as stored.
        packed: in a zip only.
        data: its bytes, where it came from another machine.
    """

    source: str
    label: int | None
    archive: Path | None
    member: str
    problem: str = ""
    offset: int = -1
    size: int = -1
    packed: Packed | None = None
    data: bytes | None = None


def read(file: File) -> bytes:
    """The bytes of `file`. Each process keeps the archive open, and needs no list of its members.

    The archive's list is not believed: no more is unpacked than it says, and never more than MAX_BYTES. Memory stays
    below three times that plus the packed size, whatever the archive holds.

    Raises:
        BadMember: they can't be read, or don't have the archive's checksum.
        OSError: this machine has no more memory or open files.
    """
    if file.problem:
        raise BadMember(file.problem)
    if file.data is not None:
        return file.data
    try:
        if remote.is_address(file.member):
            data = remote.read(file.member, most=MAX_BYTES + 1)
            if len(data) > MAX_BYTES:
                raise BadMember(_too_large(len(data)))
            return data
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
        if getattr(error, "errno", None) in _OF_THE_MACHINE:
            raise
        raise BadMember(f"damaged: {first_line(error)}") from None


def members(archive: Path, name: str) -> list[File]:
    """The files in a zip or tar, in its order, their sources under `name`, without labels.

    Raises:
        UserError: it is encrypted, or can't be read as an archive.
    """
    try:
        listed = _tar_members(archive, name) if tars.is_tar(archive) else _zip_members(archive, name)
    except FAULTS as error:
        advice = "make it or download it again"
        raise UserError(f"{archive} cannot be read as an archive ({first_line(error)}): {advice}") from None
    if len(listed) > MAX_MEMBERS:
        raise _too_many(archive)
    last = {file.source: index for index, file in enumerate(listed)}
    taken, numbers = set(last), Counter[str]()
    for index, file in enumerate(listed):
        if last[file.source] != index:
            while True:
                numbers[file.source] += 1
                if (source := f"{file.source}#{numbers[file.source] + 1}") not in taken:
                    break
            taken.add(source)
            problem = "replaced: the archive holds a later file of this name"
            listed[index] = replace(file, source=source, problem=problem)
    return listed


def _too_many(archive: Path) -> UserError:
    return UserError(f"{archive} holds more than {MAX_MEMBERS:,} members: make several archives of it")


@functools.lru_cache(maxsize=8)
def _open(archive: Path, stamp: tuple) -> BinaryIO:
    return archive.open("rb")


def _part(archive: Path, offset: int, size: int) -> bytes:
    stamp = _stamp(archive)
    if not 0 <= offset <= offset + size <= stamp[1]:  # before memory is taken for it
        raise BadMember("damaged: the archive ends within it")
    # Not by seeking: threads, and processes that were forked, share the file's position.
    file = _open(archive, stamp)  # held here: what two threads open at the same moment is kept of one alone
    data = os.pread(file.fileno(), size, offset)
    if len(data) < size:
        raise BadMember("damaged: the archive ends within it")
    return data


def _unpacked(data: bytes, packed: Packed) -> bytes:
    # zipfile would unpack all of it before it compares sizes, and read the list of all members in every worker.
    most = min(packed.size, MAX_BYTES) + 1
    match packed.method:
        case zipfile.ZIP_DEFLATED:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, most)
        case zipfile.ZIP_BZIP2:
            data = bz2.BZ2Decompressor().decompress(data, most) if data else data
        case zipfile.ZIP_LZMA:
            data = _from_lzma(data, most)
    if len(data) > packed.size:
        raise BadMember("damaged: it holds more than the archive's list says")
    if len(data) < packed.size:
        raise BadMember("damaged: its data ends early")
    if zlib.crc32(data) != packed.crc:
        raise BadMember("damaged: Bad CRC-32")
    return data


def _from_lzma(data: bytes, most: int) -> bytes:
    # Version, length of the properties, then lc, lp and pb in one byte, and the size of the dictionary.
    _, length, shape, dictionary = struct.unpack("<HHBI", data[:9])
    options = {"lc": shape % 9, "lp": shape // 9 % 5, "pb": shape // 45}
    # It is taken from memory at once, and can ask for 4 GiB; no more is of use than there is to unpack.
    settings = {"id": lzma.FILTER_LZMA1, "dict_size": min(max(dictionary, 4096), max(most, 4096)), **options}
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[settings]).decompress(data[4 + length :], most)


def _stamp(archive: Path) -> tuple:
    """Differs once the file is replaced, so that nothing cached outlives it."""
    status = archive.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


class _Listed(io.FileIO):
    """A zip that zipfile may read the list of members from, which it takes whole and at any size."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_LIST:
            raise UserError(
                f"{self.name} has a list of members of {size >> 20:,} MiB, the limit is {MAX_LIST >> 20}: "
                "make several archives of it"
            )
        return super().read(size) or b""


def _zip_members(archive: Path, prefix: str) -> list[File]:
    with _Listed(archive) as file, zipfile.ZipFile(file) as opened:
        infos = opened.infolist()
    entangled = _entangled(infos)
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
        elif size >= _RATIO_FROM and size > _MAX_RATIO * info.compress_size:
            problem = f"too large: more than {_MAX_RATIO:,} times what is packed"
        elif info.header_offset in entangled:
            problem = "damaged: its data runs into that of another file"
        source = f"{prefix}/{_tidy(name)}"
        place = info.header_offset, info.compress_size, Packed(info.compress_type, info.file_size, info.CRC)
        listed.append(File(source, None, archive, info.filename, problem, *place))
    return listed


def _entangled(infos: list[zipfile.ZipInfo]) -> set[int]:
    """The offsets of members whose data runs into another's: so a few bytes can be listed as any amount."""
    spans = sorted((i.header_offset, i.header_offset + _LOCAL_HEADER.size + i.compress_size) for i in infos)
    return {start for (start, end), (following, _) in itertools.pairwise(spans) if end > following}


def _tar_members(archive: Path, prefix: str) -> list[File]:
    inflated = tars.inflated(archive)
    listed = []
    with inflated.open("rb") as file:
        for count, member in enumerate(tars.members(file)):
            if count == MAX_MEMBERS:
                raise _too_many(archive)
            if member.kind == "folder" or _is_litter(member.name):
                continue
            problem = _unsafe(member.name) or _nested(member.name)
            if member.kind != "file":
                problem = "not a file: sparse" if member.kind == "sparse" else f"not a file: a {member.kind}"
            elif member.size > MAX_BYTES:
                problem = _too_large(member.size)
            source = f"{prefix}/{_tidy(member.name)}"
            listed.append(File(source, None, inflated, member.name, problem, member.offset, member.size))
    return listed


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
