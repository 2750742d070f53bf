"""Tars: where each member's data is, whatever the headers say, and compressed ones inflated to a bounded size."""

import bz2
import errno
import functools
import gzip
import lzma
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from catdog.base.errors import UserError

MAX_INFLATED, MAX_RATIO = 512 << 20, 100  # a compressed tar may inflate to this size, or to so many times its own
DISK_RESERVE = 512 << 20  # bytes that stay free where it is inflated
_MAX_NAME = 1 << 20  # of a header that holds a long name or attributes
_XZ_MEMORY = 256 << 20  # xz -9 needs 65 MiB; a header can ask for 4 GiB
_PIECE = 1 << 20
_BLOCK = tarfile.BLOCKSIZE
_EARLY = "it is damaged or ends too early"
_ABOUT_THE_NEXT = (
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    *(tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE),
)


class Member(NamedTuple):
    """`kind` is `file`, `folder`, `link`, `sparse` or `device`; offset and size are of the data, in bytes."""

    name: str
    kind: str
    offset: int
    size: int


def is_tar(archive: Path) -> bool:
    """Whether to read it as a tar rather than as a zip."""
    # By content first: zipfile.is_zipfile takes a tar whose last member is a zip for a zip.
    with archive.open("rb") as file:
        head = file.read(512)
    if head[257:262] == b"ustar" or is_compressed(archive):
        return True
    return not head.startswith(b"PK") and archive.suffix.lower() != ".zip"


def members(file: BinaryIO) -> Iterator[Member]:
    """The members of an uncompressed tar, in its order.

    tarfile's own reader loops on negative sizes in some Pythons, and believes any size of a name. This takes time in
    proportion to what it reads, and memory for one header (1 MiB at most).

    Raises:
        tarfile.TarError, ValueError: damaged, or no tar.
    """
    end, offset, name, attributes = file.seek(0, os.SEEK_END), 0, "", dict[str, str]()
    while any(block := _read(file, offset, _BLOCK)):
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        offset += _BLOCK
        if header.type in _ABOUT_THE_NEXT:
            if not 0 <= header.size <= _MAX_NAME:
                raise tarfile.ReadError(f"a name or attribute of {header.size:,} bytes")
            data = _read(file, offset, header.size)
            offset += _whole_blocks(header.size)
            if header.type == tarfile.GNUTYPE_LONGNAME:
                name = _text(data.split(b"\0", 1)[0])
            elif header.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
                attributes = _attributes(data)
            continue
        sparse = header.type == tarfile.GNUTYPE_SPARSE
        more = sparse and block[482]
        while more:  # blocks that go on with the map of a sparse file
            more = _read(file, offset, _BLOCK)[504]
            offset += _BLOCK
        size = int(attributes.get("size", header.size))
        if size < 0:
            raise tarfile.ReadError("a member of negative size")
        sparse |= any(key.startswith("GNU.sparse.") for key in attributes)
        name = name or attributes.get("GNU.sparse.name") or attributes.get("path") or header.name
        yield Member(name, "sparse" if sparse else _kind(header), offset, size)
        if header.isreg() or header.type not in tarfile.SUPPORTED_TYPES:
            offset += _whole_blocks(size)
            if offset > end:
                raise tarfile.ReadError(_EARLY)
        name, attributes = "", {}


def is_compressed(archive: Path) -> bool:
    """Whether it begins like gzip, bzip2 or xz."""
    return _pieces_of(archive) is not None


def inflated(archive: Path) -> Path:
    """The uncompressed tar: `archive` itself, or a temporary copy of it, made once in each process.

    Raises:
        UserError: it grows beyond MAX_RATIO times its size and MAX_INFLATED, or there is no room for it.
        OSError, EOFError, lzma.LZMAError: damaged.
    """
    if pieces := _pieces_of(archive):
        status = archive.stat()
        return _inflated(archive, pieces, (status.st_ino, status.st_size, status.st_mtime_ns))
    return archive


@functools.cache
def _inflated(archive: Path, pieces: Callable[[Path], Iterator[bytes]], stamp: tuple) -> Path:
    folder = _scratch().name
    limit = max(MAX_INFLATED, MAX_RATIO * archive.stat().st_size)
    no_room = UserError(f"no room in {folder} to inflate {archive}: set TMPDIR to a folder with room")
    descriptor, name = tempfile.mkstemp(suffix=".tar", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            for piece in pieces(archive):
                file.write(piece)
                if file.tell() > limit:
                    raise UserError(
                        f"{archive} inflates to more than {limit >> 20:,} MiB and {MAX_RATIO} times its size, "
                        "as photographs never do: unpack it yourself if you trust it"
                    )
                if shutil.disk_usage(folder).free < DISK_RESERVE:
                    raise no_room
    except BaseException as error:
        Path(name).unlink()
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise no_room from None
        raise
    return Path(name)


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="catdog-")  # removed when the process ends


def _pieces_of(archive: Path) -> Callable[[Path], Iterator[bytes]] | None:
    with archive.open("rb") as file:
        head = file.read(_BLOCK)
    if head[257:262] == b"ustar":  # its first member's name may begin like any of these
        return None
    return next((pieces for magic, pieces in _COMPRESSED.items() if head.startswith(magic)), None)


def _gzip(archive: Path) -> Iterator[bytes]:
    with gzip.open(archive) as file:
        yield from iter(functools.partial(file.read, _PIECE), b"")


def _bzip2(archive: Path) -> Iterator[bytes]:
    with bz2.open(archive) as file:
        yield from iter(functools.partial(file.read, _PIECE), b"")


def _xz(archive: Path) -> Iterator[bytes]:
    # lzma.open has no limit on memory. A file may be several streams, with zeros between them.
    with archive.open("rb") as file:
        data = file.read(_PIECE)
        while data:
            decompressor = lzma.LZMADecompressor(memlimit=_XZ_MEMORY)
            while not decompressor.eof:
                yield decompressor.decompress(data, _PIECE)
                data = b""
                if decompressor.needs_input and not decompressor.eof and not (data := file.read(_PIECE)):
                    raise EOFError(_EARLY)
            data = decompressor.unused_data
            while not (data := data.lstrip(b"\0")) and (data := file.read(_PIECE)):
                pass


_COMPRESSED = {b"\x1f\x8b": _gzip, b"BZh": _bzip2, b"\xfd7z": _xz}


def _read(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    data = file.read(size)
    if len(data) < size:
        raise tarfile.ReadError(_EARLY)
    return data


def _whole_blocks(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _attributes(data: bytes) -> dict[str, str]:
    """Of a PAX header: records `<length of the record> <key>=<value>` and a line feed."""
    attributes, at = {}, 0
    while at < len(data) and data[at]:
        length, _, _ = data[at : at + 20].partition(b" ")
        end = at + int(length)
        key, equals, value = data[at + len(length) + 1 : end].partition(b"=")
        if not equals or end > len(data):
            raise tarfile.ReadError("a damaged attribute")
        attributes[_text(key)] = _text(value[:-1])
        at = end
    return attributes


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _kind(header: tarfile.TarInfo) -> str:
    if header.isdir():
        return "folder"
    if header.issym() or header.islnk():
        return "link"
    return "file" if header.isreg() else "device"
