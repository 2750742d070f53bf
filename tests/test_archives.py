"""Archives that lie, each made here: what they unpack to, and the memory and time it takes, has bounds."""

import bz2
import errno
import functools
import gzip
import io
import json
import lzma
import os
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from catdog.base import errors
from catdog.base.errors import UserError
from catdog.preparation import archives, tars

MIB = 1 << 20
STORED, DEFLATED, BZIP2, LZMA = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA

# ---- lies of zips ---------------------------------------------------------------------------------------------------


@functools.cache
def deflated(size: int) -> bytes:
    """A deflate stream of zeros, a whole number of MiB, without the time that compressing them takes."""
    compressor = zlib.compressobj(9, wbits=-15)
    piece = compressor.compress(bytes(MIB)) + compressor.flush(zlib.Z_FULL_FLUSH)
    return piece * (size // MIB) + compressor.flush()


@functools.cache
def zeros_in_bzip2(size: int) -> bytes:
    return bz2.compress(bytes(size), 1)


@functools.cache
def lzma_member(size: int, dictionary: int = MIB) -> bytes:
    """Zeros as a zip's member has them."""
    settings = {"id": lzma.FILTER_LZMA1, "preset": 0, "dict_size": MIB}
    data = lzma.compress(bytes(size), lzma.FORMAT_RAW, filters=[settings])
    return struct.pack("<HHBI", 1, 5, 3 + 9 * 5 * 2, dictionary) + data


class Entry(NamedTuple):
    """A member of a zip, and what the zip's list says of it where that is another thing."""

    data: bytes
    method: int = STORED
    name: str = "cat/1.jpg"
    size: int | None = None
    packed: int | None = None
    crc: int = 0
    offset: int | None = None


def write_zip(path: Path, entries: list[Entry]) -> Path:
    body, directory = bytearray(), bytearray()
    for entry in entries:
        name, size = entry.name.encode(), len(entry.data) if entry.size is None else entry.size
        packed = len(entry.data) if entry.packed is None else entry.packed
        about = struct.pack("<HHHHHIIIHH", 20, 0, entry.method, 0, 33, entry.crc, packed, size, len(name), 0)
        offset = len(body) if entry.offset is None else entry.offset
        directory += b"PK\1\2" + struct.pack("<H", 20) + about + struct.pack("<HHHII", 0, 0, 0, 0, offset) + name
        if entry.offset is None:
            body += b"PK\3\4" + about + name + entry.data
    end = struct.pack("<HHHHIIH", 0, 0, *[len(entries) % 65536] * 2, len(directory), len(body), 0)
    path.write_bytes(body + directory + b"PK\5\6" + end)
    return path


def quoted(count: int) -> list[Entry]:
    """Members each of whose data begins with the headers of all that follow, down to one that is large."""
    body = b""
    for index in reversed(range(count)):
        name = f"cat/{index}.jpg".encode()
        kernel = deflated(MIB) if not body else b"\0" + struct.pack("<HH", len(body), len(body) ^ 0xFFFF) + body
        header = struct.pack("<HHHHHIIIHH", 20, 0, DEFLATED, 0, 33, 0, len(kernel), MIB, len(name), 0)
        body = b"PK\3\4" + header + name + kernel
    first = Entry(body[39:], DEFLATED, "cat/0.jpg", MIB)
    starts = [i for i in range(len(body)) if body.startswith(b"PK\3\4", i)]
    return [
        first,
        *(Entry(b"", DEFLATED, f"cat/{i}.jpg", MIB, len(body) - s - 39, 0, s) for i, s in enumerate(starts) if i),
    ]


MORE, EARLY = "damaged: it holds more than the archive's list says", "damaged: its data ends early"
INTO = "damaged: its data runs into that of another file"
ZIPS: dict[str, tuple[Callable[[], list[Entry]], set[str]]] = {
    "deflate that says 1,000 bytes": (lambda: [Entry(deflated(1900 * MIB), DEFLATED, size=1000)], {MORE}),
    "bzip2 that says 1,000 bytes": (lambda: [Entry(zeros_in_bzip2(300 * MIB), BZIP2, size=1000)], {MORE}),
    "lzma that says 1,000 bytes": (lambda: [Entry(lzma_member(300 * MIB), LZMA, size=1000)], {MORE}),
    "deflate that says nothing": (lambda: [Entry(deflated(1900 * MIB), DEFLATED, size=0)], {MORE}),
    "bzip2 that says nothing": (lambda: [Entry(zeros_in_bzip2(300 * MIB), BZIP2, size=0)], {MORE}),
    "lzma with a dictionary of 4 GiB": (
        lambda: [Entry(lzma_member(1000, dictionary=2**32 - 1), LZMA, size=1000, crc=zlib.crc32(bytes(1000)))],
        {"1000 bytes"},
    ),
    "lzma without its settings": (
        lambda: [Entry(b"\1", LZMA, size=10)],
        {"damaged: unpack requires a buffer of 9 bytes"},
    ),
    "lzma with settings that cannot be": (
        lambda: [Entry(struct.pack("<HHBI", 1, 5, 255, 9) + b"x" * 9, LZMA, size=10)],
        {"damaged: Internal error"},
    ),
    "stored that says more": (
        lambda: [Entry(b"tom", size=200 * MIB)],
        {"too large: more than 1,100 times what is packed"},
    ),
    "stored that says a little more": (lambda: [Entry(b"tom", size=4)], {EARLY}),
    "deflate that says more": (lambda: [Entry(deflated(MIB), DEFLATED, size=MIB + 9)], {EARLY}),
    "more packed than there is": (
        lambda: [Entry(b"tom", DEFLATED, packed=200 * MIB)],
        {"damaged: the archive ends within it"},
    ),
    "a place that is not there": (
        lambda: [Entry(b"tom", offset=2**32 - 2)],
        {"damaged: the archive ends within it"},
    ),
    "a size of 4 GiB": (lambda: [Entry(b"tom", size=2**32 - 2)], {"too large: 4,095 MiB, the limit is 256"}),
    "more in less than a photograph is": (
        lambda: [Entry(zeros_in_bzip2(45 * MIB), BZIP2, f"{i}", 45 * MIB) for i in range(2000)],
        {"too large: more than 1,100 times what is packed"},
    ),
    "one packed member under 2,000 names": (
        lambda: [
            Entry(deflated(200 * MIB), DEFLATED, "0", 200 * MIB),
            *(Entry(b"", DEFLATED, str(i), 200 * MIB, len(deflated(200 * MIB)), 0, 0) for i in range(1, 2000)),
        ],
        {INTO},
    ),
    "each quoting the headers of the next": (lambda: quoted(100), {INTO, "damaged: Bad CRC-32"}),
    "100,000 of one name": (
        lambda: [Entry(b"", name="cat/1.jpg")] * 100_000,
        {"replaced: the archive holds a later file of this name", "0 bytes"},
    ),
    "a list of 65 MiB": (
        lambda: [Entry(b"", name="x" * 40_000, offset=0)] * 1750,
        {"error: x.zip has a list of members of 66 MiB, the limit is 64: make several archives of it"},
    ),
}

READ = """
import json, re, resource, sys
from dataclasses import replace
from pathlib import Path
from catdog.base import errors
from catdog.base.errors import UserError
from catdog.preparation import archives

def peak():
    # Not ru_maxrss of this process: it begins at that of the process that started it.
    own = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]
    return max(int(own), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) << 10

def read(files):
    for file in files:
        try:
            yield f"{len(archives.read(file))} bytes"
        except archives.BadMember as error:
            yield str(error)

def inspect(files):
    from catdog.preparation import inspection
    settings = inspection.Settings(image_size=299, min_side=16, max_megapixels=64)
    for finding in inspection.inspect((replace(file, label=0) for file in files), settings, workers=2):
        yield finding.reason

if __name__ == "__main__":
    how = {"read": read, "inspect": inspect}[sys.argv[2]]
    list(how([]))
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
    before = peak()
    try:
        told = set(how(archives.members(Path(sys.argv[1]), "")))
    except UserError as error:
        told = {f"error: {error}"}
    print(json.dumps({"told": sorted(told), "grown": peak() - before}))
"""


def told(archive: Path, *, how: str = "read", memory: int, seconds: float = 60) -> set[str]:
    """What becomes of the members of an archive, in a process of its own, with this much more memory at most."""
    script = archive.parent / "read.py"
    script.write_text(READ)
    command = [sys.executable, str(script), str(archive), how]
    environment = {"PYTHONPATH": str(ROOT / "src"), "TMPDIR": str(archive.parent), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=environment)
    assert done.returncode == 0, done.stderr
    assert not list(archive.parent.glob("catdog-*"))  # nothing inflated is left
    result = json.loads(done.stdout)
    assert result["grown"] < memory, f"{result['grown'] / MIB:.0f} MiB"
    return {line.replace(f"{archive.parent}/", "") for line in result["told"]}


@pytest.mark.parametrize("lie", ZIPS)
def test_a_zip_that_lies_is_not_believed(lie, tmp_path):
    make, expected = ZIPS[lie]
    assert told(write_zip(tmp_path / "x.zip", make()), memory=128 * MIB) == expected


@pytest.mark.parametrize("how", ["read", "inspect"])
def test_zips_that_lie_are_not_believed_by_any_reader(how, tmp_path):
    lies = [ZIPS[f"{method} that says 1,000 bytes"][0]()[0] for method in ("deflate", "bzip2", "lzma")]
    entries = [lies[i % 3]._replace(name=f"cat/{i}.jpg") for i in range(60)]
    assert told(write_zip(tmp_path / "x.zip", entries), how=how, memory=192 * MIB) == {MORE}


def test_what_is_just_within_the_limit_takes_three_times_that(tmp_path):
    size = archives.MAX_BYTES - MIB
    entry = Entry(deflated(size), DEFLATED, size=size, crc=zlib.crc32(bytes(size)))
    assert told(write_zip(tmp_path / "x.zip", [entry]), memory=3 * archives.MAX_BYTES) == {f"{size} bytes"}


def test_a_list_of_members_that_is_mostly_a_hole_is_refused(tmp_path):
    path = tmp_path / "x.zip"
    with path.open("wb") as file:
        file.truncate(4 << 30)
        file.seek(3 << 30)
        file.write(b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, 3 << 30, 0, 0))
        file.truncate()
    assert "has a list of members of 3,072 MiB" in str(told(path, memory=64 * MIB))


def test_more_members_than_are_taken_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 1000)
    write_zip(tmp_path / "x.zip", [Entry(b"", name=str(i)) for i in range(1001)])
    with tarfile.open(tmp_path / "x.tgz", "w:gz") as tar:
        for index in range(1001):
            tar.addfile(tarfile.TarInfo(str(index)))
    for name in ("x.zip", "x.tgz"):
        with pytest.raises(UserError, match="more than 1,000 members: make several archives of it"):
            archives.members(tmp_path / name, "x")


# ---- lies of tars ---------------------------------------------------------------------------------------------------


def header(name: str = "cat/1.jpg", size: int = 0, kind: bytes = tarfile.REGTYPE, *, extended: bool = False) -> bytes:
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT)[:512])
    # As octal digits, or in base 256 with its sign.
    block[124:136] = b"%011o\0" % size if 0 <= size < 8**11 else b"\xff" + size.to_bytes(11, "big", signed=True)
    if size >= 8**11:
        block[124] = 0x80
    block[482] = extended
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 8 * 32 + sum(block[156:]))
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def attributes(data: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    return header("pax", len(data), kind) + padded(data)


def record(key: str, value: str) -> bytes:
    rest = f" {key}={value}\n".encode()
    length = len(rest) + len(str(len(rest)))
    return str(length + (len(str(length)) > len(str(len(rest))))).encode() + rest


def zeros_in_gzip(size: int) -> bytes:
    return b"\x1f\x8b\x08" + bytes(7) + deflated(size)


def in_xz_that_asks_for_4_gib() -> bytes:
    data = bytearray(lzma.compress(bytes(MIB), preset=0))
    end = 12 + (data[12] + 1) * 4
    data[16] = 40
    data[end - 4 : end] = struct.pack("<I", zlib.crc32(data[12 : end - 4]))
    return bytes(data)


END, DAMAGED = bytes(1024), "cannot be read as an archive"
WHOLE = header(size=3) + padded(b"tom")
TARS: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "gzip": ("x.tar.gz", lambda: zeros_in_gzip(4_000 * MIB), "inflates to more than 512 MiB"),
    "bzip2": ("x.tbz2", lambda: zeros_in_bzip2(45 * MIB) * 100, "inflates to more than 512 MiB and 100 times its size"),
    "xz": ("x.tar.xz", lambda: lzma.compress(bytes(64 * MIB), preset=0) * 50, "inflates to more than 512 MiB"),
    "a dictionary of 4 GiB": ("x.tar.xz", in_xz_that_asks_for_4_gib, "Memory usage limit exceeded"),
    "gzip in gzip": ("x.tar.gz", lambda: gzip.compress(gzip.compress(WHOLE + END)), DAMAGED),
    "negative": ("x.tar", lambda: header(size=-1024) + WHOLE + END, "a member of negative size"),
    "negative, back to itself": ("x.tar", lambda: WHOLE + header(size=-512) + END, "a member of negative size"),
    "negative, of a name": ("x.tar", lambda: header(size=-512, kind=b"L") + WHOLE + END, "a name or attribute of -512"),
    "negative, sparse": ("x.tar", lambda: header(size=-512, kind=b"S") + WHOLE + END, "a member of negative size"),
    "negative, by an attribute": ("x.tar", lambda: attributes(record("size", "-512")) + WHOLE + END, "negative size"),
    "no size": ("x.tar", lambda: attributes(record("size", "x")) + WHOLE + END, "invalid literal"),
    "5,000 digits": ("x.tar", lambda: attributes(record("size", "9" * 5000)) + WHOLE + END, "Exceeds the limit"),
    "longer than the tar": ("x.tar", lambda: header(size=2**40) + padded(b"tom") + END, "damaged or ends too early"),
    "longer than any number of a file": (
        "x.tar",
        lambda: attributes(record("size", "9" * 40)) + WHOLE + END,
        "damaged or ends too early",
    ),
    "longer, by an attribute": (
        "x.tar",
        lambda: attributes(record("size", str(10**18))) + WHOLE + END,
        "damaged or ends too early",
    ),
    "a name of 1 GiB": (
        "x.tgz",
        lambda: gzip.compress(header(size=2**30, kind=b"L")),
        "a name or attribute of 1,073,7",
    ),
    "attributes of 1 GiB": (
        "x.tgz",
        lambda: gzip.compress(header(size=2**30, kind=b"x")),
        "a name or attribute of 1,0",
    ),
    "digits for an attribute": ("x.tar", lambda: attributes(b"1" * MIB) + WHOLE + END, "a damaged attribute"),
    "attributes of no length": ("x.tar", lambda: attributes(b"0 a=b\n" * 9) + WHOLE + END, "a damaged attribute"),
    "names of names": ("x.tar", lambda: header(size=0, kind=b"L") * 50_000 + WHOLE + END, "3 bytes"),
    "attributes for all": (
        "x.tgz",
        lambda: gzip.compress((attributes(record("a", "b") * 5000, b"g") + WHOLE) * 500 + END),
        "3 bytes",
    ),
    "sparse without end": ("x.tar", lambda: header(kind=b"S", extended=True) + bytes([1] * 512) * 9000, "too early"),
    "sparse": (
        "x.tar",
        lambda: header("cat/0.jpg", kind=b"S", extended=True) + bytes(512) + WHOLE + END,
        "not a file: sparse",
    ),
    "sparse, by attributes": (
        "x.tar",
        lambda: attributes(record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0")) + WHOLE + END,
        "not a file: sparse",
    ),
    "a first name like bzip2": ("x.tar", lambda: header("BZh/cat.jpg", 3) + padded(b"tom") + END, "3 bytes"),
}


@pytest.mark.parametrize("lie", TARS)
def test_a_tar_that_lies_is_not_believed(lie, tmp_path):
    name, make, expected = TARS[lie]
    (tmp_path / name).write_bytes(make())
    received = told(tmp_path / name, memory=160 * MIB)
    assert received
    assert any(expected in line for line in received), received
    rest = {line for line in received if expected not in line}
    assert rest <= {"3 bytes", "replaced: the archive holds a later file of this name"}


def test_where_the_disk_would_be_full_nothing_is_inflated(tmp_path, monkeypatch):
    (tmp_path / "x.tgz").write_bytes(gzip.compress(WHOLE + END))
    monkeypatch.setattr(tars, "DISK_RESERVE", 1 << 60)
    before = sorted(Path(tempfile.gettempdir()).glob("catdog-*/*"))
    with pytest.raises(UserError, match=r"no room in .* to inflate .*x\.tgz: set TMPDIR to a folder with room"):
        archives.members(tmp_path / "x.tgz", "x")
    assert sorted(Path(tempfile.gettempdir()).glob("catdog-*/*")) == before
    monkeypatch.undo()
    assert len(archives.members(tmp_path / "x.tgz", "x")) == 1


def test_streams_one_after_the_other_are_one_tar(tmp_path):
    tar = WHOLE + END
    for name, compress in {"x.tgz": gzip.compress, "x.tbz": bz2.compress, "x.txz": lzma.compress}.items():
        between = bytes(4) if name == "x.txz" else b""
        (tmp_path / name).write_bytes(compress(tar[:700]) + between + compress(tar[700:]) + between)
        [file] = archives.members(tmp_path / name, "x")
        assert archives.read(file) == b"tom"


names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=120)
kinds = st.sampled_from([tarfile.REGTYPE, tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    st.lists(st.tuples(names, kinds, st.binary(max_size=1500)), max_size=6),
)
def test_members_are_where_tarfile_finds_them(form, contents):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form, errors="surrogateescape") as tar:
        for name, kind, data in contents:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "elsewhere" * 20
            info.size = len(data) if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(data))
    stream.seek(0)
    with tarfile.open(fileobj=stream) as tar:
        expected = [(info.name, info.isreg(), info.offset_data, info.size) for info in tar]
    received = [
        (m.name.rstrip("/") if m.kind == "folder" else m.name, m.kind == "file", m.offset, m.size)
        for m in tars.members(stream)
    ]
    assert received == expected


@pytest.mark.parametrize("lack", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_what_the_machine_lacks_is_no_fault_of_a_photograph(lack, tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(b"x")
    file = archives.File("a.jpg", 0, None, str(tmp_path / "a.jpg"))

    def fails(path):
        raise OSError(lack, os.strerror(lack), str(path))

    monkeypatch.setattr(Path, "read_bytes", fails)
    with pytest.raises(OSError, match=os.strerror(lack)) as raised:
        archives.read(file)
    assert os.strerror(lack) in (errors.of_the_machine(raised.value) or "")
