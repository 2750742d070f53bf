"""What stands in data/raw, and how it gets there. 'Photographs' are a few bytes here: nothing in `sources` decodes."""

import functools
import hashlib
import io
import json
import os
import pickle
import signal
import socket
import stat
import string
import subprocess
import sys
import tarfile
import time
import zipfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_download import Site

from catdog.base import download
from catdog.base.errors import UserError
from catdog.preparation import archives, fetching, sources
from catdog.preparation.drawn import drawings

CLASSES = ["cat", "dog"]
FILES = {"Cat/1.jpg": b"tom", "Cat/2.jpg": b"kitty", "Dog/1.jpg": b"rex", "Dog/10.jpg": b"fido", "Dog/2.jpg": b"lassie"}


@pytest.fixture
def raw(tmp_path):
    raw = tmp_path / "data" / "raw"
    raw.mkdir(parents=True)
    (raw / "README.md").write_text("what goes here")
    (raw / ".gitkeep").touch()
    return raw


def folder(path: Path, contents=FILES) -> Path:
    for name, data in contents.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def zipped(path: Path, contents=FILES, compression=zipfile.ZIP_STORED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return path


def tarred(path: Path, contents=FILES, mode="w", extra=()) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, data in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in extra:
            archive.addfile(info)
    return path


def fetch(source, raw: Path, classes=None) -> None:
    fetching.fetch(str(source), raw, classes=classes or CLASSES, drawings=40, seed=3)


def listed(raw: Path, classes=None) -> dict[str, int | None]:
    return {f.source: f.label for f in sources.list_files(raw, classes or CLASSES)}


def problems(raw: Path) -> dict[str, str]:
    return {f.source: f.problem for f in sources.list_files(raw, CLASSES) if f.problem}


def tree(raw: Path) -> dict[str, bytes]:
    return {p.relative_to(raw).as_posix(): p.read_bytes() for p in sorted(raw.rglob("*")) if p.is_file()}


# ---- listing and reading ----


@pytest.mark.parametrize("prefix", ["", "pets/", "a/b/c/"])
def test_a_folder_of_class_folders(raw, prefix):
    folder(raw / prefix)
    met = sources.list_files(raw, CLASSES)
    assert [f.source for f in met] == [prefix + name for name in sorted(FILES)]
    assert [f.label for f in met] == [0, 0, 1, 1, 1]
    assert [sources.read(f) for f in met] == [FILES[f.source.removeprefix(prefix)] for f in met]


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.tgz", "x.tar.bz2", "x.tar.xz", "deep/x.ZIP"])
def test_archives_are_read_in_place(raw, name):
    if name.lower().endswith("zip"):
        zipped(raw / name, compression=zipfile.ZIP_DEFLATED)
    else:
        tarred(raw / name, mode="w:" + {"tgz": "gz", "tar": ""}.get(ending := name.rpartition(".")[2], ending))
    before = tree(raw)
    met = sources.list_files(raw, CLASSES)
    assert [f.source for f in met] == [f"{name}/{inside}" for inside in sorted(FILES)]
    assert [f.label for f in met] == [0, 0, 1, 1, 1]
    assert [sources.read(f) for f in reversed(met)] == [FILES[n] for n in sorted(FILES, reverse=True)]
    assert tree(raw) == before


def test_worker_processes_read_the_same_both_forked_and_spawned(raw):
    many = {f"{('Cat', 'Dog')[i % 2]}/{i}.jpg": b"%d" % i * (i + 1) for i in range(300)}
    zipped(raw / "a.zip", many)
    tarred(raw / "b.tar.gz", many, "w:gz")
    met = sources.list_files(raw, CLASSES)
    expected = [many[f.source.partition("/")[2]] for f in met]
    assert [sources.read(f) for f in met[:5]] == expected[:5]  # leaves the archive open here, before the fork
    for method in ("fork", "spawn"):
        with ProcessPoolExecutor(3, get_context(method)) as pool:
            assert list(pool.map(sources.read, met, chunksize=7)) == expected


def test_a_file_is_small_to_pickle(raw):
    zipped(raw / "x.zip")
    assert len(pickle.dumps(sources.list_files(raw, CLASSES)[0])) < 500


def test_an_archive_that_is_replaced_is_read_anew(raw):
    zipped(raw / "x.zip")
    assert sources.read(sources.list_files(raw, CLASSES)[0]) == b"tom"
    zipped(raw / "new.zip", {**FILES, "Cat/1.jpg": b"another tom"}).replace(raw / "x.zip")
    assert sources.read(sources.list_files(raw, CLASSES)[0]) == b"another tom"


def test_litter_and_hidden_files_are_passed_over(raw):
    litter = ["__MACOSX/Cat/._1.jpg", "Cat/.DS_Store", "Dog/Thumbs.db", ".git/Cat/x.jpg", "Cat/._2.jpg", "desktop.ini"]
    contents = FILES | dict.fromkeys(litter, b"")
    folder(raw, contents)
    zipped(raw / "x.zip", contents)
    tarred(raw / "y.tar", {f"./{name}": data for name, data in contents.items()})
    assert set(listed(raw)) == {prefix + name for prefix in ("", "x.zip/", "y.tar/") for name in FILES}


def test_files_that_are_no_photographs_are_listed_all_the_same(raw):
    folder(raw, FILES | {"notes.txt": b"", "Cat/README.md": b"", "birds/1.jpg": b""})
    met = listed(raw)
    assert met["notes.txt"] is None
    assert met["birds/1.jpg"] is None
    assert met["Cat/README.md"] == 0
    assert "README.md" not in met


def test_the_nearest_folder_decides_and_an_archive_counts_as_one(raw):
    folder(raw, {"dogs/Cat/1.jpg": b"", "cats/old/2.jpg": b"", "dog/3.jpg": b""})
    zipped(raw / "Dogs.zip", {"4.jpg": b"", "cat/5.jpg": b""})
    assert listed(raw) == {
        "Dogs.zip/4.jpg": 1,
        "Dogs.zip/cat/5.jpg": 0,
        "cats/old/2.jpg": 0,
        "dog/3.jpg": 1,
        "dogs/Cat/1.jpg": 0,
    }


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
    stems = {sources._plain(w).removesuffix("e").removesuffix("y").removesuffix("i") for w in (name, other)}
    if len(stems) == 2:
        assert sources.match(name, [other]) is None


@pytest.mark.parametrize(
    ("name", "label"),
    [("tabby_cat", 0), ("Tabby-Cats", 0), ("tabbycat", None), ("cat", None), ("buses", 1), ("BUS", 1), ("abus", None)],
)
def test_class_names_of_several_words(name, label):
    assert sources.match(name, ["tabby cat", "bus"]) == label


def test_an_exact_name_goes_before_a_plural():
    assert sources.match("buses", ["bus", "buses"]) == 1


EVIL = ["/etc/Cat/1.jpg", "../../Cat/2.jpg", "Cat/../../../3.jpg", "C:/Cat/4.jpg", "Cat/.."]


def test_zip_members_with_unsafe_names_are_listed_refused_and_never_written(raw):
    zipped(raw / "x.zip", FILES | dict.fromkeys([*EVIL, "..\\..\\Cat\\5.jpg", "Cat\\6.jpg"], b"evil"))
    before = tree(raw.parent.parent)
    refused = problems(raw)
    assert len(refused) == 6
    assert set(refused.values()) == {"unsafe name: it leads out of the archive"}
    for f in sources.list_files(raw, CLASSES):
        if f.problem:
            with pytest.raises(sources.BadMember, match="unsafe name"):
                sources.read(f)
        elif f.source == "x.zip/Cat/6.jpg":
            assert (f.label, sources.read(f)) == (0, b"evil")
    assert tree(raw.parent.parent) == before


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_tar_members_that_are_no_files_are_listed_and_refused(raw):
    extra = [
        special("Cat/link.jpg", tarfile.SYMTYPE, "/etc/passwd"),
        special("Cat/hard.jpg", tarfile.LNKTYPE, "Cat/1.jpg"),
        special("Cat/null.jpg", tarfile.CHRTYPE),
        special("Cat/disk.jpg", tarfile.BLKTYPE),
        special("Cat/pipe.jpg", tarfile.FIFOTYPE),
        special("Cat/folder", tarfile.DIRTYPE),
    ]
    tarred(raw / "x.tar", FILES | dict.fromkeys(EVIL, b"evil"), extra=extra)
    refused = problems(raw)
    assert len(refused) == 10
    assert refused["x.tar/Cat/link.jpg"] == refused["x.tar/Cat/hard.jpg"] == "not a file: a link"
    assert refused["x.tar/Cat/null.jpg"] == refused["x.tar/Cat/pipe.jpg"] == "not a file: a device"
    assert "x.tar/Cat/folder" not in refused
    for f in sources.list_files(raw, CLASSES):
        if f.problem:
            with pytest.raises(sources.BadMember):
                sources.read(f)


@pytest.mark.parametrize(
    ("kind", "what"), [(stat.S_IFLNK, "a link"), (stat.S_IFCHR, "a device"), (stat.S_IFIFO, "a device")]
)
def test_a_link_and_a_device_in_a_zip_are_refused(raw, kind, what):
    with zipfile.ZipFile(raw / "x.zip", "w") as archive:
        for name, data in FILES.items():
            archive.writestr(name, data)
        info = zipfile.ZipInfo("Cat/link.jpg")
        info.external_attr = (kind | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    assert problems(raw) == {"x.zip/Cat/link.jpg": f"not a file: {what}"}


def test_a_name_met_twice_is_listed_twice_and_the_later_counts(raw):
    tarred(raw / "x.tar", FILES | {"./Cat/1.jpg": b"later"})
    met = {f.source: f for f in sources.list_files(raw, CLASSES)}
    assert len(met) == len(FILES) + 1
    assert met["x.tar/Cat/1.jpg#2"].problem.startswith("replaced")
    assert sources.read(met["x.tar/Cat/1.jpg"]) == b"later"


def test_archives_inside_archives_and_unknown_archives_are_refused_one_by_one(raw):
    zipped(raw / "x.zip", FILES | {"Cat/more.zip": b"PK", "Cat/more.rar": b"Rar!"})
    folder(raw, {"Cat/rest.7z": b"7z"})
    assert {source: problem.partition(":")[0] for source, problem in problems(raw).items()} == {
        "Cat/rest.7z": "archive of an unknown kind",
        "x.zip/Cat/more.rar": "archive of an unknown kind",
        "x.zip/Cat/more.zip": "archive inside an archive",
    }


def test_a_tar_that_ends_in_a_zip_is_a_tar(raw):
    inner = zipped(raw.parent / "inner.zip", {"a": b"b"}).read_bytes()
    tarred(raw / "x.tar", FILES | {"z.zip": inner})
    assert len(sources.list_files(raw, CLASSES)) == len(FILES) + 1


def test_a_member_with_a_bad_checksum_or_too_large_is_refused_alone(raw, monkeypatch):
    path = zipped(raw / "x.zip", FILES | {"Cat/big.jpg": b"x" * 2000})
    path.write_bytes(path.read_bytes().replace(b"lassie", b"lasSie"))
    monkeypatch.setattr(archives, "MAX_BYTES", 1000)
    bad = {}
    for f in sources.list_files(raw, CLASSES):
        try:
            assert sources.read(f) == FILES[f.member]
        except sources.BadMember as error:
            bad[f.member] = str(error)
    assert set(bad) == {"Dog/2.jpg", "Cat/big.jpg"}
    assert bad["Dog/2.jpg"].startswith("damaged: Bad CRC-32")
    assert bad["Cat/big.jpg"].startswith("too large")


class Stream(io.RawIOBase):
    """What can be written to and not be sought in, so that sizes and checksums come after the data."""

    def __init__(self):
        self.data = b""

    def writable(self):
        return True

    def write(self, data):
        self.data += bytes(data)
        return len(data)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("kind", ["plain", "streamed", "after a program", "zip64", "with comments"])
def test_zips_of_every_kind_are_read_as_zipfile_reads_them(raw, method, kind):
    contents = {name: data * 99 for name, data in FILES.items()} | {"Cat/none.jpg": b"", "Cat/é.jpg": os.urandom(5000)}
    stream = Stream() if kind == "streamed" else io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in contents.items():
            info = zipfile.ZipInfo(name)
            info.compress_type, info.extra = method, b"\xca\xfe\2\0hi" if kind == "with comments" else b""
            info.comment = b"a cat" if kind == "with comments" else b""
            with archive.open(info, "w", force_zip64=kind == "zip64") as member:
                member.write(data)
    packed = stream.data if kind == "streamed" else stream.getvalue()
    (raw / "x.zip").write_bytes(b"MZ a program" + packed if kind == "after a program" else packed)
    met = sources.list_files(raw, CLASSES)
    assert {f.member: sources.read(f) for f in met} == contents


def refusals(raw: Path) -> dict[str, str]:
    found = {}
    for f in sources.list_files(raw, CLASSES):
        try:
            sources.read(f)
        except sources.BadMember as error:
            found[f.member] = str(error)
    return found


def test_a_zips_member_that_is_not_where_it_should_be_is_refused_alone(raw):
    path = zipped(raw / "x.zip")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"PK\3\4", b"PK\3\5", 1))
    assert refusals(raw) == {"Cat/1.jpg": "damaged: nothing where the archive's list has it"}


def test_a_zips_member_that_ends_early_or_says_the_wrong_size_is_refused_alone(raw):
    path = zipped(raw / "x.zip", {name: data * 99 for name, data in FILES.items()}, zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\1\2")
    for at, change in ((20, -3), (24, 3)):  # sizes packed and unpacked, in the archive's list
        changed = bytearray(data)
        size = int.from_bytes(data[entry + at : entry + at + 4], "little") + change
        changed[entry + at : entry + at + 4] = size.to_bytes(4, "little")
        path.write_bytes(changed)
        assert list(refusals(raw)) == ["Cat/1.jpg"]
        assert refusals(raw)["Cat/1.jpg"].startswith("damaged: ")


def test_an_unknown_compression_is_refused_alone(raw):
    path = zipped(raw / "x.zip")
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02")
    data[entry + 10 : entry + 12] = (9).to_bytes(2, "little")  # deflate64
    path.write_bytes(data)
    assert list(problems(raw).values()) == ["unknown compression: method 9 of zip"]


def test_a_file_that_vanishes_is_told(raw):
    folder(raw)
    met = sources.list_files(raw, CLASSES)
    (raw / "Cat/1.jpg").unlink()
    with pytest.raises(sources.BadMember, match="damaged"):
        sources.read(met[0])


def encrypt(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-700])


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.tar.xz"])
@pytest.mark.parametrize(
    "harm", [cut, lambda p: p.write_bytes(b"<html>sign in first</html>"), lambda p: p.write_bytes(b"")]
)
def test_damaged_archives_are_told_in_one_line(raw, name, harm):
    large = FILES | {"Cat/large.jpg": os.urandom(3000)}
    path = zipped(raw / name, large) if name.endswith("zip") else tarred(raw / name, large, "w:" + name[6:])
    if name == "x.tar":  # pads to 10,240 bytes; cut within the last file
        path.write_bytes(path.read_bytes()[:8192])
    harm(path)
    with pytest.raises(
        UserError, match=r"x\.\S+ cannot be read as an archive .*: make it or download it again$"
    ) as caught:
        sources.list_files(raw, CLASSES)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("end", range(512, 5 * 1024 + 1, 512))
def test_a_tar_cut_between_two_members_is_damaged_too(raw, end):
    path = tarred(raw / "x.tar")  # five members of two blocks each
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(UserError, match="cannot be read"):
        sources.list_files(raw, CLASSES)


def test_an_encrypted_archive_is_told(raw):
    encrypt(zipped(raw / "x.zip"))
    with pytest.raises(UserError, match=r"x\.zip is encrypted \(Dog/2\.jpg\): make it again without a password"):
        sources.list_files(raw, CLASSES)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(["x.zip", "x.tar", "x.tar.gz"]), data=st.data())
def test_whatever_happens_to_an_archive_every_file_is_read_or_told(raw, kind, data):
    path = raw / kind
    large = {name: content * 50 for name, content in FILES.items()}
    _ = zipped(path, large, zipfile.ZIP_DEFLATED) if kind == "x.zip" else tarred(path, large, "w:" + kind[6:])
    content = bytearray(path.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[at] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    said = []
    try:
        for f in sources.list_files(raw, CLASSES):
            try:
                assert isinstance(sources.read(f), bytes)
            except sources.BadMember as error:
                said.append(str(error))
    except UserError as error:
        said.append(str(error))
    assert not any("\n" in line for line in said)


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        ({}, "holds no photographs: put a folder for each of cat and dog there"),
        ({"Cat/1.jpg": b""}, r"no photographs of dog: expected folders named cat and dog .* found Cat \(1 files\)"),
        ({"a/1.jpg": b"", "2.jpg": b""}, r"no photographs of cat or dog: .* found .*(a|no folder) \(1 files\)"),
        ({f"{i}/1.jpg": b"" for i in range(9)}, r"and 4 more folders$"),
    ],
)
def test_missing_classes_are_told_with_what_was_found(raw, contents, said):
    folder(raw, contents)
    with pytest.raises(UserError, match=said) as caught:
        sources.list_files(raw, CLASSES)
    assert str(raw) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_class_of_nothing_but_refused_members_counts_as_missing(raw):
    zipped(raw / "x.zip", {"cat/1.jpg": b"", "dog/../../1.jpg": b""})
    with pytest.raises(UserError, match="no photographs of dog"):
        sources.list_files(raw, CLASSES)


def test_links_in_raw(raw, tmp_path):
    folder(raw)
    elsewhere = folder(tmp_path / "elsewhere", {"dog.jpg": b"linked"})
    (raw / "Dog" / "linked.jpg").symlink_to(elsewhere / "dog.jpg")
    linked = next(f for f in sources.list_files(raw, CLASSES) if f.source == "Dog/linked.jpg")
    assert sources.read(linked) == b"linked"
    (raw / "Dog" / "broken.jpg").symlink_to("nowhere")
    with pytest.raises(UserError, match="broken link"):
        sources.list_files(raw, CLASSES)
    (raw / "Dog" / "broken.jpg").unlink()
    (raw / "more").symlink_to(elsewhere)
    with pytest.raises(UserError, match="more is a link to a folder, whose changes DVC would not see"):
        sources.list_files(raw, CLASSES)


def test_a_pipe_does_not_hang_anything(raw):
    folder(raw)
    os.mkfifo(raw / "Cat" / "pipe.jpg")
    with pytest.raises(UserError, match="no ordinary file"):
        sources.list_files(raw, CLASSES)


def test_names_that_are_not_utf8_can_be_written_down_and_read(raw):
    folder(raw)
    try:
        Path(os.fsdecode(bytes(raw) + b"/Cat/caf\xe9.jpg")).write_bytes(b"latin")
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    tarred(raw / "x.tar", {os.fsdecode(b"Cat/caf\xe9.jpg"): b"latin"})
    odd = [f for f in sources.list_files(raw, CLASSES) if "caf" in f.source]
    assert [f.source.encode() for f in odd] == [b"Cat/caf\\xe9.jpg", b"x.tar/Cat/caf\\xe9.jpg"]
    assert [sources.read(f) for f in odd] == [b"latin"] * 2


# ---- fetching ----


def record(raw: Path) -> dict:
    return json.loads((raw / "source.json").read_text())


def test_fetch_a_folder_links_its_files(raw, tmp_path):
    pets = folder(tmp_path / "pets", FILES | {"README.md": b"", ".hidden": b""})
    fetch(pets, raw)
    assert listed(raw) == {f"pets/{name}": int(name.startswith("Dog")) for name in FILES}
    assert all((raw / "pets" / name).samefile(pets / name) for name in FILES)
    assert record(raw)["contents"] == [f"pets/{name}" for name in sorted(FILES)]
    lines = "".join(f"{hashlib.sha256(FILES[name]).hexdigest()}  {name}\n" for name in sorted(FILES))
    assert sources.describe(raw) == {
        "kind": "folder",
        "path": str(pets),
        "size": sum(map(len, FILES.values())),
        "sha256": hashlib.sha256(lines.encode()).hexdigest(),
        "files": len(FILES),
    }


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz", "noname"])
def test_fetch_an_archive_links_it(raw, tmp_path, name):
    path = tarred(tmp_path / name, mode="w:gz") if "tar" in name else zipped(tmp_path / name)
    fetch(path, raw)
    there = raw / (name if "." in name else name + ".zip")
    assert there.samefile(path)
    described = sources.describe(raw)
    assert described["kind"] == ("tar" if "tar" in name else "zip")
    assert described["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (described["size"], described["files"]) == (path.stat().st_size, len(FILES))


def test_fetch_copies_where_the_file_system_cannot_link(raw, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    pets = folder(tmp_path / "pets")
    fetch(pets, raw)
    assert not (raw / "pets/Cat/1.jpg").samefile(pets / "Cat/1.jpg")
    assert len(listed(raw)) == len(FILES)


def test_links_inside_a_fetched_folder_are_followed_but_not_in_circles(raw, tmp_path):
    pets = folder(tmp_path / "pets", {"Cat/1.jpg": b"tom"})
    pool = folder(tmp_path / "pool", {"1.jpg": b"rex"})
    (pets / "Dog").symlink_to(pool)
    (pool / "round").symlink_to(pets)
    (pets / "Cat" / "up").symlink_to("..")
    fetch(pets, raw)
    assert listed(raw) == {"pets/Cat/1.jpg": 0, "pets/Dog/1.jpg": 1}
    assert not any(p.is_symlink() for p in raw.rglob("*"))


@pytest.mark.parametrize("source", ["folder", "zip"])
def test_fetching_the_same_again_changes_nothing(raw, tmp_path, source):
    path = {"folder": folder(tmp_path / "pets"), "zip": zipped(tmp_path / "x.zip")}[source]
    fetch(path, raw)
    before, stamps = tree(raw), {p: p.stat().st_mtime_ns for p in raw.rglob("*")}
    fetch(path, raw)
    assert tree(raw) == before
    assert {p: p.stat().st_mtime_ns for p in raw.rglob("*")} == stamps


def test_fetching_the_same_on_another_machine_gives_the_same_bytes(tmp_path, monkeypatch):
    trees = []
    for machine in ("a", "b"):
        (tmp_path / machine).mkdir()
        monkeypatch.chdir(tmp_path / machine)
        folder(Path("pets"))
        fetch("pets", Path("data/raw"))
        trees.append(tree(Path("data/raw")))
    assert trees[0] == trees[1]


def test_what_changed_at_the_path_is_brought_anew(raw, tmp_path):
    pets = folder(tmp_path / "pets")
    fetch(pets, raw)
    first = sources.describe(raw)
    folder(pets, {"Cat/3.jpg": b"felix"})
    (pets / "Cat/1.jpg").unlink()
    fetch(pets, raw)
    assert "pets/Cat/3.jpg" in listed(raw)
    assert "pets/Cat/1.jpg" not in listed(raw)
    (pets / "Cat/2.jpg").write_bytes(b"in place, so through the link too")
    fetch(pets, raw)
    assert sources.describe(raw)["kind"] == "folder"
    assert sources.describe(raw)["sha256"] != first["sha256"]


def test_another_source_replaces_what_was_fetched_and_not_the_original(raw, tmp_path):
    pets, archive = folder(tmp_path / "pets"), zipped(tmp_path / "x.zip")
    fetch(pets, raw)
    fetch(archive, raw)
    assert sorted(p.name for p in raw.iterdir()) == [".gitkeep", "README.md", "source.json", "x.zip"]
    assert tree(pets) == FILES
    fetch(pets, raw)
    assert sorted(p.name for p in raw.iterdir()) == [".gitkeep", "README.md", "pets", "source.json"]
    assert archive.exists()


@pytest.mark.parametrize("own", ["Cat/mine.jpg", "mine.zip", "pets/Cat/mine.jpg"])
def test_a_persons_own_files_are_never_touched(raw, tmp_path, own):
    fetch(folder(tmp_path / "pets"), raw)
    folder(raw, {own: b"mine"})
    before = tree(raw)
    with pytest.raises(UserError, match=f"holds files of your own .{own}.: move them away before fetching"):
        fetch(zipped(tmp_path / "x.zip"), raw)
    assert tree(raw) == before


def test_own_files_are_described_as_such(raw, tmp_path):
    folder(raw)
    own = sources.describe(raw)
    assert (own["kind"], own["path"], own["files"]) == ("own", "data/raw", len(FILES))
    assert own["size"] == sum(map(len, FILES.values()))
    (raw / "Cat/1.jpg").write_bytes(b"TOM")
    assert sources.describe(raw)["sha256"] != own["sha256"]


def test_changed_after_a_fetch_it_is_no_longer_what_was_fetched(raw, tmp_path):
    fetch(folder(tmp_path / "pets"), raw)
    folder(raw, {"Cat/mine.jpg": b"mine"})
    assert sources.describe(raw)["kind"] == "own"
    (raw / "Cat/mine.jpg").unlink()
    assert sources.describe(raw)["kind"] == "folder"
    (raw / "pets/Cat/1.jpg").unlink()
    assert sources.describe(raw)["kind"] == "own"


def test_a_source_without_a_class_leaves_what_was_there(raw, tmp_path):
    fetch(folder(tmp_path / "pets"), raw)
    before = tree(raw)
    birds = folder(tmp_path / "birds", {"parrot/1.jpg": b""})
    with pytest.raises(UserError, match=r"birds holds no photographs of cat or dog"):
        fetch(birds, raw)
    encrypt(zipped(tmp_path / "x.zip"))
    with pytest.raises(UserError, match="encrypted"):
        fetch(tmp_path / "x.zip", raw)
    assert tree(raw) == before
    assert not (raw / ".fetch").exists()
    fetch(tmp_path / "pets", raw)
    assert len(listed(raw)) == len(FILES)


@pytest.mark.parametrize("source", ["", "petimage", "/no/such/folder", "no.zip"])
def test_unknown_sources_fail_at_once_and_name_the_choices(raw, source):
    for attempt in (lambda: fetching.check(source), lambda: fetch(source, raw)):
        with pytest.raises(UserError, match=r"no such source.*auto, drawn, petimages, filtered, or a path"):
            attempt()


def test_check_takes_what_fetch_takes(tmp_path):
    for source in ("auto", "drawn", "petimages", "filtered"):
        fetching.check(source)
    fetching.check(str(folder(tmp_path / "pets")))
    fetching.check(str(zipped(tmp_path / "x")))
    fetching.check(str(tarred(tmp_path / "y", mode="w:xz")))
    (tmp_path / "z.txt").write_text("no archive")
    with pytest.raises(UserError, match="neither a zip nor a tar"):
        fetching.check(str(tmp_path / "z.txt"))


def test_raw_is_not_fetched_into_itself(raw, tmp_path):
    folder(raw.parent / "pets")
    for source in (raw, raw.parent, tmp_path):
        with pytest.raises(UserError, match="one within the other"):
            fetch(source, raw)


def test_drawn_depends_on_number_and_seed_alone(raw, tmp_path):
    fetch("drawn", raw)
    met = sources.list_files(raw, CLASSES)
    assert [sum(f.label == label for f in met) for label in (0, 1)] == [20, 20]
    described = sources.describe(raw)
    assert (described["kind"], described["path"], described["files"]) == ("drawn", "drawn", 40)
    before = tree(raw)
    fetch("drawn", raw)
    assert tree(raw) == before
    fetching.fetch("drawn", tmp_path / "again", classes=["dog", "cat"], drawings=40, seed=3)  # a cat stays a cat
    assert sources.describe(tmp_path / "again") == described
    fetching.fetch("drawn", raw, classes=CLASSES, drawings=40, seed=4)
    assert sources.describe(raw)["sha256"] != described["sha256"]


def test_cats_and_dogs_do_not_stand_for_other_classes(raw):
    for source in ("drawn", "auto", "petimages", "filtered"):
        with pytest.raises(UserError, match=r"base\.classes says car and bus"):
            fetch(source, raw, classes=["car", "bus"])


def test_ensure_fetches_into_an_empty_folder_only(raw, tmp_path, capsys):
    ensure = functools.partial(fetching.ensure, raw=raw, classes=CLASSES, drawings=40, seed=3)
    pets = folder(tmp_path / "pets")
    ensure(str(pets))
    assert len(listed(raw)) == len(FILES)
    before = tree(raw)
    ensure(str(pets))
    ensure("auto")
    assert "note" not in capsys.readouterr().err
    ensure("drawn")
    assert f"already holds {pets}, which is used; for drawn instead: catdog fetch drawn" in capsys.readouterr().err
    assert tree(raw) == before


def test_in_a_copy_that_dvc_made_the_photographs_are_those_of_the_project(tmp_path, monkeypatch):
    project, copy = tmp_path / "project", tmp_path / "project/.dvc/tmp/exps/one"
    for root in (project, copy):
        (root / "data/raw").mkdir(parents=True)
        (root / "data/raw/README.md").touch()
        (root / "dvc.yaml").touch()
    monkeypatch.chdir(project)
    fetch(folder(tmp_path / "pets"), Path("data/raw"))
    expected = sources.describe(Path("data/raw"))
    monkeypatch.chdir(copy)
    monkeypatch.setenv("DVC_ROOT", str(project))
    fetching.ensure("auto", Path("data/raw"), classes=CLASSES, drawings=40, seed=3)
    assert sources.describe(Path("data/raw")) == expected
    assert expected["kind"] == "folder"


def test_two_fetches_at_once_do_not_mix(raw, tmp_path):
    with fetching._alone(raw), pytest.raises(UserError, match=r"another fetch into .* is under way"):
        fetch(folder(tmp_path / "pets"), raw)
    fetch(tmp_path / "pets", raw)


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path):
    (tmp_path / "data").write_text("a file")
    with pytest.raises(UserError, match=r"data: (Not a directory|File exists)"):
        fetch(folder(tmp_path / "pets"), tmp_path / "data")


def test_own_files_put_there_after_a_fetch_was_killed_are_safe(tmp_path):
    raw, pets = tmp_path / "raw", folder(tmp_path / "pets")
    while_killing = 0
    while not (raw / ".fetch" / "source.json").exists():
        killed_after(while_killing, pets, raw)
        while_killing += 1
    folder(raw, {"pets/Cat/mine.jpg": b"mine", "pets/Dog/mine.jpg": b"mine"})
    fetching.ensure("drawn", raw, classes=CLASSES, drawings=40, seed=3)
    assert sources.describe(raw)["kind"] == "own"
    assert tree(raw) == {"pets/Cat/mine.jpg": b"mine", "pets/Dog/mine.jpg": b"mine"}


def test_dvc_sees_what_changes_and_nothing_else(tmp_path, monkeypatch):
    """Why folders are linked file by file: DVC looks through a link to a file, but not through one to a folder."""
    monkeypatch.chdir(tmp_path)
    raw, pets, elsewhere = Path("data/raw"), folder(Path("pets")), folder(Path("elsewhere"))
    fetch(pets, raw)
    (raw / "linked").symlink_to(elsewhere.resolve())
    (tmp_path / "dvc.yaml").write_text("stages: {prepare: {cmd: 'true', deps: [data/raw]}}")

    def dvc(*words: str) -> str:
        done = subprocess.run([sys.executable, "-m", "dvc", *words], capture_output=True, text=True, check=True)
        return done.stdout

    dvc("init", "--no-scm", "-q")
    dvc("repro", "-q")
    folder(elsewhere, {"Cat/3.jpg": b"unseen"})
    assert "up to date" in dvc("status")
    (raw / "linked").unlink()
    fetch(pets, raw)
    assert "up to date" in dvc("status")
    folder(pets, {"Cat/3.jpg": b"felix"})
    fetch(pets, raw)
    assert "modified" in dvc("status")


def test_a_damaged_record_is_told(raw, tmp_path):
    (raw / "source.json").write_text("{")
    with pytest.raises(UserError, match=r"source\.json is damaged: delete it"):
        fetch(folder(tmp_path / "pets"), raw)


# ---- downloads ----


@pytest.fixture
def site(tmp_path, monkeypatch):
    body = zipped(tmp_path / "site.zip", FILES | {"Cat/large.jpg": os.urandom(2_000_000)}).read_bytes()
    monkeypatch.setattr(download, "_PAUSE", 0.01)
    with Site(body) as site:
        for name in ("filtered", "petimages"):
            monkeypatch.setitem(fetching.PUBLIC, name, fetching.Public(site.address, len(body)))
        yield site


@pytest.mark.parametrize("name", ["filtered", "petimages"])
def test_a_download_is_described_and_not_repeated(raw, site, name):
    fetch(name, raw)
    assert sources.describe(raw) == {
        "kind": name,
        "address": site.address,
        "size": len(site.body),
        "sha256": hashlib.sha256(site.body).hexdigest(),
        "files": len(FILES) + 1,
    }
    before, asked = tree(raw), len(site.ranges)
    fetch(name, raw)
    assert tree(raw) == before
    assert len(site.ranges) == asked
    assert sorted(p.name for p in raw.iterdir()) == [".gitkeep", "README.md", "file.zip", "source.json"]


def test_the_checksum_is_pinned_once_seen_even_after_other_fetches(raw, site, tmp_path):
    fetch("filtered", raw)
    fetch(folder(tmp_path / "pets"), raw)
    site.change(site.body.replace(b"lassie", b"lasSie"))
    with pytest.raises(UserError, match="no longer the file it was"):
        fetch("filtered", raw)
    with pytest.raises(UserError, match="no longer the file it was"):
        fetch("auto", raw)
    assert sources.describe(raw)["kind"] == "folder"


def test_a_checksum_known_beforehand_is_held_to(raw, site, monkeypatch):
    monkeypatch.setitem(fetching.PUBLIC, "petimages", fetching.Public(site.address, len(site.body), "0" * 64))
    with pytest.raises(UserError, match="no longer the file it was"):
        fetch("petimages", raw)


def test_a_download_that_is_no_whole_zip_is_not_taken(raw, site):
    site.change(site.body.replace(b"lassie", b"lasSie"))
    with pytest.raises(UserError, match="not a whole zip archive"):
        fetch("filtered", raw)
    assert not list(raw.rglob("*.zip"))


def test_auto_takes_filtered_where_it_can_be_reached(raw, site):
    fetch("auto", raw)
    assert sources.describe(raw)["kind"] == "filtered"
    asked = len(site.ranges)
    fetch("auto", raw)
    assert len(site.ranges) == asked


@pytest.fixture
def quick_drawings(monkeypatch):
    def write(folder: Path, *, count: int, seed: int, classes: list[str]) -> None:
        for name in classes:
            (folder / name).mkdir(parents=True)
            (folder / name / "1.jpg").write_bytes(b"%d" % seed)

    monkeypatch.setattr(drawings, "write", write)


@pytest.mark.parametrize("trouble", ["refused", "404", "sign-in page", "breaks off"])
def test_auto_draws_where_filtered_cannot_be_had_and_says_so(raw, site, trouble, quick_drawings, capsys):
    match trouble:
        case "refused":
            site.server.server_close()
        case "404":
            site.statuses = [404]
        case "sign-in page":
            site.change(b"<html>sign in</html>")
        case "breaks off":
            site.cuts = [0, 500_000, *[0] * 9]
    fetch("auto", raw)
    assert sources.describe(raw)["kind"] == "drawn"
    said = capsys.readouterr().err
    assert "DRAWN" in said
    assert "╭" in said
    if trouble == "404":  # and when the network is back, it is filtered's turn
        fetch("auto", raw)
        assert sources.describe(raw)["kind"] == "filtered"


def test_auto_gives_up_on_a_silent_server(raw, monkeypatch, quick_drawings):
    monkeypatch.setattr(fetching, "AUTO_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/x.zip"
        monkeypatch.setitem(fetching.PUBLIC, "filtered", fetching.Public(address, 5))
        fetch("auto", raw)
    assert sources.describe(raw)["kind"] == "drawn"


def test_the_public_addresses_are_what_they_are_known_to_be():
    assert fetching.PUBLIC["petimages"].size == 824_887_076
    assert fetching.PUBLIC["petimages"].address.endswith("/kagglecatsanddogs_5340.zip")
    assert fetching.PUBLIC["filtered"].address == (
        "https://storage.googleapis.com/mledu-datasets/cats_and_dogs_filtered.zip"
    )
    assert fetching.AUTO_SECONDS <= 10


# ---- killed ----


def killed_after(steps: int, source: Path, raw: Path) -> bool:
    """Fetch in a process that is killed before it changes anything on disk for the `steps`-th time, counting from 0."""
    child = os.fork()
    if child == 0:
        left = steps

        def counted(function):
            def step(*args, **kwargs):
                nonlocal left
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*args, **kwargs)

            return step

        for name in ("mkdir", "rename", "replace", "hardlink_to", "unlink", "write_text"):
            setattr(Path, name, counted(getattr(Path, name)))
        os.rmdir, os.unlink = counted(os.rmdir), counted(os.unlink)
        try:
            fetch(source, raw)
        finally:
            os._exit(sys.exc_info()[0] is not None)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return status != 0


@pytest.mark.parametrize("first", ["zip", "folder"])
def test_killed_at_any_step_then_again_ends_the_same(tmp_path, first):
    pets, archive = folder(tmp_path / "pets", {"Cat/1.jpg": b"tom", "Dog/1.jpg": b"rex"}), zipped(tmp_path / "x.zip")
    old, new = (archive, pets) if first == "zip" else (pets, archive)
    clean = tmp_path / "clean"
    fetch(new, clean)
    steps = 0
    while True:
        raw = tmp_path / f"raw{steps}"
        fetch(old, raw)
        was_killed = killed_after(steps, new, raw)
        half_done = {k for k in tree(raw) if not k.startswith(".fetch")}
        assert {k for k in half_done if k != "source.json"} in (
            set(record(raw)["contents"]),
            set(sources.read_record(clean)["contents"]),
            set(),
        ), steps
        fetch(new, raw)
        assert tree(raw) == tree(clean), steps
        assert not (raw / ".fetch").exists()
        if not was_killed:
            break
        steps += 1
    assert steps > 8


@pytest.mark.parametrize("steps", range(4, 14, 3))
def test_prepare_goes_on_with_a_killed_fetch_instead_of_starting_its_own(tmp_path, steps):
    pets, raw = folder(tmp_path / "pets", {"Cat/1.jpg": b"tom", "Dog/1.jpg": b"rex"}), tmp_path / "raw"
    fetch(zipped(tmp_path / "x.zip"), raw)
    killed_after(steps, pets, raw)
    fetching.ensure("drawn", raw, classes=CLASSES, drawings=40, seed=3)
    assert sources.describe(raw)["kind"] in ("zip", "folder")


def test_killed_while_downloading_then_again(raw, site, tmp_path):
    fetch(folder(tmp_path / "pets"), raw)
    site.pause = 0.02
    code = (
        "from pathlib import Path; from catdog.preparation import fetching; import sys;"
        f"fetching.PUBLIC['filtered'] = fetching.Public({site.address!r}, {len(site.body)});"
        "fetching.fetch('filtered', Path(sys.argv[1]), classes=['cat', 'dog'], drawings=40, seed=3)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, raw])
    part = raw / ".fetch/download/file.zip.part"
    end = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size > 500_000):
        assert time.monotonic() < end
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert sources.describe(raw)["kind"] == "folder"
    assert len(listed(raw)) == len(FILES)
    site.pause, sent = 0, site.sent
    fetch("filtered", raw)
    assert sources.describe(raw)["kind"] == "filtered"
    assert site.sent - sent < len(site.body) - 400_000
    assert not (raw / ".fetch").exists()


def test_killed_while_drawing_then_again(raw):
    code = (
        "from pathlib import Path; from catdog.preparation import fetching; import sys;"
        "fetching.fetch('drawn', Path(sys.argv[1]), classes=['cat', 'dog'], drawings=4000, seed=3)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, raw], start_new_session=True)
    end = time.monotonic() + 30
    while not list(raw.rglob("*.jpg")):
        assert time.monotonic() < end
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (raw / "drawn").exists()
    assert not (raw / "source.json").exists()
    fetch("drawn", raw)
    assert len(listed(raw)) == 40
    assert not (raw / ".fetch").exists()
    assert sources.describe(raw)["files"] == 40
