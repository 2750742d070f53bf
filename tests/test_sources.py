"""What stands in data/raw: folders and archives of a few bytes, since nothing here decodes a photograph."""

import io
import os
import pickle
import stat
import string
import tarfile
import zipfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from catdog.base import names
from catdog.base.errors import UserError
from catdog.preparation import archives, sources

CLASSES = ["cat", "dog"]
FILES = {"Cat/1.jpg": b"tom", "Cat/2.jpg": b"kitty", "Dog/1.jpg": b"rex", "Dog/10.jpg": b"fido", "Dog/2.jpg": b"lassie"}
LARGE = {name: data * 99 for name, data in FILES.items()}


@pytest.fixture
def raw(tmp_path):
    return folder(tmp_path / "data/raw", {"README.md": b"what goes here", ".gitkeep": b""})


def folder(path: Path, contents=FILES) -> Path:
    for name, data in contents.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def zipped(path: Path, contents=FILES, compression=zipfile.ZIP_DEFLATED, extra=()) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
        for info in extra:
            archive.writestr(info, b"/etc/passwd")
    return path


def tarred(path: Path, contents=FILES, extra=()) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = path.suffix.removeprefix(".")
    with tarfile.open(path, "w:" + {"tar": "", "tgz": "gz"}.get(suffix, suffix)) as archive:
        for name, data in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in extra:
            archive.addfile(info)
    return path


def packed(path: Path, contents=FILES) -> Path:
    """A folder, or an archive if it is named like one."""
    if not archives.ARCHIVE.search(path.name):
        return folder(path, contents)
    return zipped(path, contents) if path.suffix.lower() == ".zip" else tarred(path, contents)


def listed(raw: Path) -> dict[str, int | None]:
    return {file.source: file.label for file in sources.list_files(raw, CLASSES)}


def refusals(raw: Path) -> dict[str, str]:
    """Why files can't be read, by source; all others are."""
    reasons = {}
    for file in sources.list_files(raw, CLASSES):
        try:
            assert isinstance(archives.read(file), bytes)
        except archives.BadMember as error:
            reasons[file.source] = str(error)
    return reasons


def tree(raw: Path) -> dict[str, bytes]:
    return {p.relative_to(raw).as_posix(): p.read_bytes() for p in sorted(raw.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(
    "name", ["", "a", "a/b/c", "x.zip", "x.tar", "x.tar.gz", "x.tgz", "x.tar.bz2", "x.tar.xz", "a/x.ZIP"]
)
def test_folders_and_archives_are_read_in_place(raw, name):
    packed(raw / name)
    before = tree(raw)
    files = sources.list_files(raw, CLASSES)
    assert [file.source for file in files] == [f"{name}/{inside}".lstrip("/") for inside in sorted(FILES)]
    assert [file.label for file in files] == [0, 0, 1, 1, 1]
    assert [archives.read(file) for file in reversed(files)] == [FILES[n] for n in sorted(FILES, reverse=True)]
    assert tree(raw) == before


def test_worker_processes_read_the_same_both_forked_and_spawned(raw):
    many = {f"{('Cat', 'Dog')[i % 2]}/{i}.jpg": b"%d" % i * (i + 1) for i in range(300)}
    packed(raw / "a.zip", many)
    packed(raw / "b.tar.gz", many)
    files = sources.list_files(raw, CLASSES)
    assert len(pickle.dumps(files[0])) < 500
    expected = [many[file.source.partition("/")[2]] for file in files]
    assert [archives.read(file) for file in files[:5]] == expected[:5]  # leaves the archive open here, before the fork
    for method in ("fork", "spawn"):
        with ProcessPoolExecutor(3, get_context(method)) as pool:
            assert list(pool.map(archives.read, files, chunksize=7)) == expected


def test_an_archive_that_is_replaced_is_read_anew(raw):
    for name in (b"tom", b"another tom"):
        zipped(raw.parent / "new.zip", FILES | {"Cat/1.jpg": name}).replace(raw / "x.zip")
        assert archives.read(sources.list_files(raw, CLASSES)[0]) == name


def test_litter_and_hidden_files_are_passed_over(raw):
    litter = ["__MACOSX/Cat/._1.jpg", "Cat/.DS_Store", "Dog/Thumbs.db", ".git/Cat/x.jpg", "Cat/._2.jpg", "desktop.ini"]
    contents = FILES | dict.fromkeys(litter, b"")
    folder(raw, contents)
    zipped(raw / "x.zip", contents)
    tarred(raw / "y.tar", {f"./{name}": data for name, data in contents.items()})
    assert set(listed(raw)) == {prefix + name for prefix in ("", "x.zip/", "y.tar/") for name in FILES}


def test_the_nearest_folder_or_archive_decides_and_what_is_of_no_class_is_listed_too(raw):
    expected = {
        "Cat/README.md": 0,
        "Dogs.zip/4.jpg": 1,
        "Dogs.zip/cat/5.jpg": 0,
        "birds/1.jpg": None,
        "cats/old/2.jpg": 0,
        "dog/3.jpg": 1,
        "dogs/Cat/1.jpg": 0,
        "notes.txt": None,
    }
    zipped(raw / "Dogs.zip", {"4.jpg": b"", "cat/5.jpg": b""})
    folder(raw, {name: b"" for name in expected if not name.startswith("Dogs")})
    assert listed(raw) == expected
    assert list(listed(raw)) == sorted(expected)


word = st.text(string.ascii_letters + "éüñßж", min_size=2, max_size=8).filter(lambda w: not w.lower().endswith("s"))


@given(word, st.sampled_from([str, str.upper, str.lower, str.title, str.swapcase]), st.booleans(), st.booleans())
@example("Fly", str.upper, True, False)
@example("bus", str.title, True, False)
def test_class_names_match_without_case_and_number(name, case, plural, class_is_plural):
    def many(w):
        if w.lower().endswith("y"):
            return w[:-1] + "ies"
        return w + ("es" if w.lower().endswith(("s", "x", "ch", "sh")) else "s")

    folder_name = case(many(name) if plural else name)
    class_name = many(name) if class_is_plural else name
    if class_is_plural and plural:
        folder_name = case(class_name)
    assert sources.match(folder_name, ["something else", class_name]) == 1


@given(word, word)
def test_other_names_do_not_match(name, other):
    stems = {names.plain(w).removesuffix("e").removesuffix("y").removesuffix("i") for w in (name, other)}
    if len(stems) == 2:
        assert sources.match(name, [other]) is None


def test_class_names_of_several_words_and_in_plural():
    expected = {"tabby_cat": 0, "Tabby-Cats": 0, "tabbycat": None, "cat": None, "buses": 1, "BUS": 1, "abus": None}
    assert {name: sources.match(name, ["tabby cat", "bus"]) for name in expected} == expected
    assert sources.match("buses", ["bus", "buses"]) == 1, "an equal name goes before a plural"


EVIL = ["/etc/Cat/1.jpg", "../../Cat/2.jpg", "Cat/../../../3.jpg", "C:/Cat/4.jpg", "Cat/.."]
LINK, DEVICE, UNSAFE = "not a file: a link", "not a file: a device", "unsafe name: it leads out of the archive"


def test_zip_members_that_are_unsafe_or_no_files_are_refused_and_never_written(raw):
    kinds = {"link": stat.S_IFLNK, "null": stat.S_IFCHR, "pipe": stat.S_IFIFO}
    extra = [zipfile.ZipInfo(f"Cat/{name}") for name in kinds]
    for info, kind in zip(extra, kinds.values(), strict=True):
        info.external_attr = (kind | 0o777) << 16
    names = [*EVIL, "..\\..\\Cat\\5.jpg", "Cat\\6.jpg"]
    zipped(raw / "x.zip", FILES | dict.fromkeys(names, b"evil"), extra=extra)
    before = tree(raw.parent.parent)
    reasons = refusals(raw)
    assert [reasons.pop(f"x.zip/Cat/{name}") for name in kinds] == [LINK, DEVICE, DEVICE]
    assert [*reasons.values()] == [UNSAFE] * 6
    assert listed(raw)["x.zip/Cat/6.jpg"] == 0
    assert tree(raw.parent.parent) == before


def test_tar_members_that_are_unsafe_or_no_files_are_refused(raw):
    links = {"link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE}
    devices = {"null": tarfile.CHRTYPE, "disk": tarfile.BLKTYPE, "pipe": tarfile.FIFOTYPE}
    kinds = links | devices | {"folder": tarfile.DIRTYPE}
    extra = [tarfile.TarInfo(f"Cat/{name}") for name in kinds]
    for info, kind in zip(extra, kinds.values(), strict=True):
        info.type, info.linkname = kind, "Cat/1.jpg"
    tarred(raw / "x.tar", FILES | dict.fromkeys(EVIL, b"evil"), extra=extra)
    reasons = refusals(raw)
    assert {reasons.pop(f"x.tar/Cat/{name}") for name in links} == {LINK}
    assert {reasons.pop(f"x.tar/Cat/{name}") for name in devices} == {DEVICE}
    assert [*reasons.values()] == [UNSAFE] * 5
    assert "x.tar/Cat/folder" not in listed(raw)


def test_of_two_members_of_one_name_the_later_counts_and_both_are_listed(raw):
    tarred(raw / "x.tar", FILES | {"./Cat/1.jpg": b"later"})
    files = {file.source: file for file in sources.list_files(raw, CLASSES)}
    assert len(files) == len(FILES) + 1
    assert files["x.tar/Cat/1.jpg#2"].problem.startswith("replaced")
    assert archives.read(files["x.tar/Cat/1.jpg"]) == b"later"


def test_archives_inside_archives_and_unknown_archives_are_refused_one_by_one(raw):
    zipped(raw / "x.zip", FILES | {"Cat/more.zip": b"PK", "Cat/more.rar": b"Rar!"})
    inner = zipped(raw.parent / "inner.zip", {"a": b"b"}).read_bytes()
    tarred(raw / "y.tar", FILES | {"z.zip": inner})  # it ends like a zip
    folder(raw, {"Cat/rest.7z": b"7z"})
    assert {source: reason.partition(":")[0] for source, reason in refusals(raw).items()} == {
        "Cat/rest.7z": "archive of an unknown kind",
        "x.zip/Cat/more.rar": "archive of an unknown kind",
        "x.zip/Cat/more.zip": "archive inside an archive",
        "y.tar/z.zip": "archive inside an archive",
    }


class Unseekable(io.BytesIO):
    """A zip written to it has its sizes and checksums after the data."""

    def tell(self):
        raise OSError


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("kind", ["plain", "streamed", "after a program", "zip64", "with comments"])
def test_zips_of_every_kind_are_read_as_zipfile_reads_them(raw, method, kind):
    contents = LARGE | {"Cat/none.jpg": b"", "Cat/é.jpg": os.urandom(5000)}
    stream = Unseekable() if kind == "streamed" else io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in contents.items():
            info = zipfile.ZipInfo(name)
            info.compress_type, info.extra = method, b"\xca\xfe\2\0hi" if kind == "with comments" else b""
            info.comment = b"a cat" if kind == "with comments" else b""
            with archive.open(info, "w", force_zip64=kind == "zip64") as member:
                member.write(data)
    (raw / "x.zip").write_bytes((b"MZ a program" if kind == "after a program" else b"") + stream.getvalue())
    assert {file.member: archives.read(file) for file in sources.list_files(raw, CLASSES)} == contents


@pytest.mark.parametrize(
    ("header", "at", "change", "reason"),
    [
        (b"PK\3\4", 3, 1, "damaged: nothing where the archive's list has it"),
        (b"PK\1\2", 10, 1, "unknown compression: method 9 of zip"),  # deflate64
        (b"PK\1\2", 16, 1, "damaged: Bad CRC-32"),
        (b"PK\1\2", 20, -3, "damaged: "),  # the size, packed and unpacked
        (b"PK\1\2", 24, 3, "damaged: "),
    ],
)
def test_a_damaged_member_of_a_zip_is_refused_alone(raw, header, at, change, reason):
    path = zipped(raw / "x.zip", LARGE)
    data = bytearray(path.read_bytes())
    at += data.index(header)
    data[at] = (data[at] + change) % 256
    path.write_bytes(data)
    [(source, received)] = refusals(raw).items()
    assert source == "x.zip/Cat/1.jpg"
    assert received.startswith(reason)


@pytest.mark.parametrize("name", ["pets", "x.zip", "x.tar"])
def test_a_file_that_is_too_large_is_refused_alone(raw, name, monkeypatch):
    packed(raw / name, FILES | {"Cat/big.jpg": b"x" * 2000})
    monkeypatch.setattr(archives, "MAX_BYTES", 1000)
    [(source, reason)] = refusals(raw).items()
    assert source == f"{name}/Cat/big.jpg"
    assert reason.startswith("too large")


def test_a_file_that_vanishes_is_damaged(raw):
    file = sources.list_files(folder(raw), CLASSES)[0]
    (raw / "Cat/1.jpg").unlink()
    with pytest.raises(archives.BadMember, match="damaged"):
        archives.read(file)


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.tar.xz"])
def test_a_damaged_archive_is_a_one_line_error(raw, name):
    whole = packed(raw / name, FILES | {"Cat/large.jpg": os.urandom(3000)}).read_bytes()
    # This tar has members of two blocks, and one of seven: it is cut between them, and within one.
    ends = range(512, 17 * 512 + 1, 512) if name == "x.tar" else [-700]
    for damaged in [b"", b"<html>sign in first</html>", *(whole[:end] for end in ends)]:
        (raw / name).write_bytes(damaged)
        with pytest.raises(UserError, match=r"cannot be read as an archive .*: make it or download it") as raised:
            sources.list_files(raw, CLASSES)
        assert "\n" not in str(raised.value)


def encrypted(path: Path) -> Path:
    data = bytearray(zipped(path).read_bytes())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    return path


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(["x.zip", "x.tar", "x.tar.gz"]), data=st.data())
def test_whatever_happens_to_an_archive_every_file_is_read_or_has_its_one_line(raw, name, data):
    content = bytearray(packed(raw / name, LARGE).read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[at] = data.draw(st.integers(0, 255))
    (raw / name).write_bytes(content)
    try:
        lines = [*refusals(raw).values()]
    except UserError as error:
        lines = [str(error)]
    (raw / name).unlink()
    assert not any("\n" in line for line in lines)


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        ("", [], "holds no photographs: put a folder for each of cat and dog there"),
        ("", ["Cat/1.jpg"], r"no photographs of dog: expected folders named cat and dog .* found Cat \(1 files\)"),
        ("", ["a/1.jpg", "2.jpg"], r"no photographs of cat or dog: .* found .*(a|no folder) \(1 files\)"),
        ("", [f"{i}/1.jpg" for i in range(9)], r"and 4 more folders$"),
        ("x.zip", ["cat/1.jpg", "dog/../../1.jpg"], "no photographs of dog"),  # since that one is refused
    ],
)
def test_an_error_about_missing_classes_says_which_folders_there_are(raw, name, contents, message):
    packed(raw / name, dict.fromkeys(contents, b""))
    with pytest.raises(UserError, match=message) as raised:
        sources.list_files(raw, CLASSES)
    assert str(raw) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_links_and_pipes_in_raw(raw, tmp_path):
    folder(raw)
    elsewhere = folder(tmp_path / "elsewhere", {"dog.jpg": b"linked"})
    (raw / "Dog" / "linked.jpg").symlink_to(elsewhere / "dog.jpg")
    [linked] = [file for file in sources.list_files(raw, CLASSES) if file.source == "Dog/linked.jpg"]
    assert archives.read(linked) == b"linked"
    odd = raw / "Dog" / "odd"
    for make, message in [
        (lambda: odd.symlink_to("nowhere"), "odd is a broken link"),
        (lambda: odd.symlink_to(elsewhere), "odd is a link to a folder, whose changes DVC would not see"),
        (lambda: os.mkfifo(odd), "no ordinary file"),
    ]:
        make()
        with pytest.raises(UserError, match=message):
            sources.list_files(raw, CLASSES)
        odd.unlink()


def test_names_that_are_not_utf8_can_be_written_down_and_read(raw):
    folder(raw)
    try:
        Path(os.fsdecode(bytes(raw) + b"/Cat/caf\xe9.jpg")).write_bytes(b"latin")
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    tarred(raw / "x.tar", {os.fsdecode(b"Cat/caf\xe9.jpg"): b"latin"})
    odd = [file for file in sources.list_files(raw, CLASSES) if "caf" in file.source]
    assert [file.source.encode() for file in odd] == [b"Cat/caf\\xe9.jpg", b"x.tar/Cat/caf\\xe9.jpg"]
    assert [archives.read(file) for file in odd] == [b"latin"] * 2
