"""How photographs get into data/raw: whole or not at all, whatever happens meanwhile."""

import functools
import hashlib
import os
import signal
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from test_download import Site
from test_sources import CLASSES, FILES, encrypted, folder, listed, packed, tarred, tree, zipped

from catdog.base import download
from catdog.base.errors import UserError
from catdog.preparation import fetching, sources, staging
from catdog.preparation.drawn import drawings

NOTES = {"README.md": b"what goes here", ".gitkeep": b""}
TWO = {"Cat/1.jpg": b"tom", "Dog/1.jpg": b"rex"}


@pytest.fixture
def raw(tmp_path):
    return folder(tmp_path / "data/raw", NOTES)


@pytest.fixture
def pets(tmp_path):
    return folder(tmp_path / "pets")


def fetch(source, raw: Path, classes=CLASSES, seed=3) -> None:
    fetching.fetch(str(source), raw, classes=classes, drawings=8, seed=seed)


ensure = functools.partial(fetching.ensure, classes=CLASSES, drawings=8, seed=3)


def top(raw: Path) -> list[str]:
    return sorted(path.name for path in raw.iterdir())


def test_fetch_a_folder_links_its_files(raw, pets):
    fetch(folder(pets, {"README.md": b"", ".hidden": b""}), raw)
    assert listed(raw) == {f"pets/{name}": int(name.startswith("Dog")) for name in FILES}
    assert all((raw / "pets" / name).samefile(pets / name) for name in FILES)
    assert sources.read_record(raw)["contents"] == [f"pets/{name}" for name in sorted(FILES)]
    lines = "".join(f"{hashlib.sha256(FILES[name]).hexdigest()}  {name}\n" for name in sorted(FILES))
    assert sources.describe(raw) == {
        "kind": "folder",
        "path": f"{pets.parent.name}/pets",
        "size": sum(map(len, FILES.values())),
        "sha256": hashlib.sha256(lines.encode()).hexdigest(),
        "files": len(FILES),
    }


@pytest.mark.parametrize(("name", "kind"), [("x.zip", "zip"), ("x.tar.gz", "tar"), ("noname", "zip")])
def test_fetch_an_archive_links_it(raw, tmp_path, name, kind):
    path = tarred(tmp_path / name) if kind == "tar" else zipped(tmp_path / name)
    fetch(path, raw)
    assert (raw / (name if "." in name else name + ".zip")).samefile(path)
    assert sources.describe(raw) == {
        "kind": kind,
        "path": f"{path.parent.name}/{path.name}",
        "size": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "files": len(FILES),
    }


def test_fetch_copies_where_the_file_system_cannot_link(raw, pets, monkeypatch):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
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
    assert not any(path.is_symlink() for path in raw.rglob("*"))


@pytest.mark.parametrize("name", ["pets", "x.zip"])
def test_fetching_the_same_again_changes_nothing(raw, tmp_path, name):
    path = packed(tmp_path / name)
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
        fetch(folder(Path("pets")), Path("data/raw"))
        trees.append(tree(Path("data/raw")))
    assert trees[0] == trees[1]


def test_what_changed_at_the_path_is_brought_anew(raw, pets):
    fetch(pets, raw)
    first = sources.describe(raw)
    folder(pets, {"Cat/3.jpg": b"felix"})
    (pets / "Cat/1.jpg").unlink()
    fetch(pets, raw)
    assert set(listed(raw)) == {f"pets/{name}" for name in {*FILES, "Cat/3.jpg"} - {"Cat/1.jpg"}}
    (pets / "Cat/2.jpg").write_bytes(b"in place, so through the link too")
    fetch(pets, raw)
    assert sources.describe(raw)["kind"] == "folder"
    assert sources.describe(raw)["sha256"] != first["sha256"]


def test_another_source_replaces_what_was_fetched_and_not_the_original(raw, pets, tmp_path):
    archive = zipped(tmp_path / "x.zip")
    for source in (pets, archive, pets):
        fetch(source, raw)
        assert top(raw) == sorted([*NOTES, "source.json", source.name])
    assert tree(pets) == FILES
    assert archive.exists()


@pytest.mark.parametrize("own", ["Cat/mine.jpg", "mine.zip", "pets/Cat/mine.jpg"])
def test_a_persons_own_files_are_never_touched(raw, pets, tmp_path, own):
    fetch(pets, raw)
    before = tree(folder(raw, {own: b"mine"}))
    with pytest.raises(UserError, match=f"holds files of your own .{own}.: move them away before fetching"):
        fetch(zipped(tmp_path / "x.zip"), raw)
    assert tree(raw) == before


def test_what_is_not_as_it_was_fetched_is_described_as_ones_own(raw, pets):
    fetch(pets, raw)
    fetched = sources.describe(raw)
    folder(raw, {"Cat/mine.jpg": b"mine"})
    own = sources.describe(raw)
    assert (own["kind"], own["path"], own["files"]) == ("own", "data/raw", fetched["files"] + 1)
    assert own["size"] == fetched["size"] + len(b"mine")
    folder(raw, {"Cat/mine.jpg": b"MINE"})
    assert sources.describe(raw)["sha256"] != own["sha256"]
    (raw / "Cat/mine.jpg").unlink()
    assert sources.describe(raw) == fetched
    (raw / "pets/Cat/1.jpg").unlink()
    assert sources.describe(raw)["kind"] == "own"


CHOICES = "auto, drawn, petimages, filtered, or a path"
UNUSABLE = [
    *((name, f"no such source.*{CHOICES}") for name in ("", "petimage", "/no/such/folder", "no.zip")),
    *((name, "one within the other") for name in (".", "data", "data/raw")),
    *((word, r"base\.classes says car and bus") for word in ("drawn", "auto", "petimages", "filtered")),
    ("text", f"neither a zip nor a tar .*{CHOICES}"),
    ("birds", "birds holds no photographs of car or bus"),
    ("x.zip", r"x\.zip is encrypted \(Dog/2\.jpg\): make it again without a password"),
]


@pytest.mark.parametrize(("source", "message"), UNUSABLE)
def test_a_source_that_cannot_be_used_leaves_what_was_there(raw, pets, tmp_path, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path, {"text": b"no archive", "birds/parrot/1.jpg": b""})
    encrypted(tmp_path / "x.zip")
    fetch(pets, raw)
    before = tree(raw)
    with pytest.raises(UserError, match=message):
        fetch(source, raw, classes=["car", "bus"])
    assert tree(raw) == before
    assert not (raw / ".fetch").exists()


def test_drawn_depends_on_number_and_seed_alone(raw, tmp_path):
    fetch("drawn", raw)
    assert list(listed(raw).values()) == [0] * 4 + [1] * 4
    described = sources.describe(raw)
    assert (described["kind"], described["path"], described["files"]) == ("drawn", "drawn", 8)
    before = tree(raw)
    fetch("drawn", raw)
    assert tree(raw) == before
    fetch("drawn", tmp_path / "again", classes=["dog", "cat"])  # a cat stays a cat
    assert sources.describe(tmp_path / "again") == described
    fetch("drawn", raw, seed=4)
    assert sources.describe(raw)["sha256"] != described["sha256"]


def test_ensure_fetches_into_an_empty_folder_only(raw, pets, capsys):
    ensure(str(pets), raw)
    assert len(listed(raw)) == len(FILES)
    before = tree(raw)
    ensure(str(pets), raw)
    ensure("auto", raw)
    assert "note" not in capsys.readouterr().err
    ensure("drawn", raw)
    assert f"already holds {pets}, which is used; for drawn instead: catdog fetch drawn" in capsys.readouterr().err
    assert tree(raw) == before


def test_in_a_copy_that_dvc_made_the_photographs_are_those_of_the_project(tmp_path, pets, monkeypatch):
    project, copy = tmp_path / "project", tmp_path / "project/.dvc/tmp/exps/one"
    for root in (project, copy):
        folder(root, {"data/raw/README.md": b"", "dvc.yaml": b""})
    monkeypatch.chdir(project)
    fetch(pets, Path("data/raw"))
    expected = sources.describe(Path("data/raw"))
    monkeypatch.chdir(copy)
    monkeypatch.setenv("DVC_ROOT", str(project))
    ensure("auto", Path("data/raw"))
    assert sources.describe(Path("data/raw")) == expected
    assert expected["kind"] == "folder"


def test_two_fetches_at_once_do_not_mix(raw, pets):
    with staging.alone(raw), pytest.raises(UserError, match=r"another fetch into .* is under way"):
        fetch(pets, raw)
    fetch(pets, raw)


def test_a_file_in_the_way_and_a_damaged_record_are_errors(raw, pets):
    folder(raw, {"source.json": b"{", "file": b""})
    with pytest.raises(UserError, match=r"source\.json is damaged: delete it"):
        fetch(pets, raw)
    with pytest.raises(UserError, match=r"file: (Not a directory|File exists)"):
        fetch(pets, raw / "file")


def test_dvc_sees_what_changes_and_nothing_else(raw, pets, tmp_path, monkeypatch):
    """Why folders are linked file by file: DVC looks through a link to a file, but not through one to a folder."""
    monkeypatch.chdir(tmp_path)
    elsewhere = folder(tmp_path / "elsewhere")
    fetch(pets, raw)
    (raw / "linked").symlink_to(elsewhere)
    (tmp_path / "dvc.yaml").write_text("stages: {prepare: {cmd: 'true', deps: [data/raw]}}")

    def dvc(*words: str) -> str:
        return subprocess.check_output([sys.executable, "-m", "dvc", *words], text=True)

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


# ---- downloads ----


@pytest.fixture
def site(tmp_path, monkeypatch):
    body = zipped(tmp_path / "site.zip", FILES | {"Cat/large.jpg": os.urandom(2_000_000)}, zipfile.ZIP_STORED)
    monkeypatch.setattr(download, "_PAUSE", 0.01)
    with Site(body.read_bytes()) as site:
        for name in ("filtered", "petimages"):
            monkeypatch.setitem(fetching.PUBLIC, name, fetching.Public(site.address, len(site.body)))
        yield site


@pytest.mark.parametrize(
    ("source", "kind"), [("filtered", "filtered"), ("petimages", "petimages"), ("auto", "filtered")]
)
def test_a_download_is_described_and_not_repeated(raw, site, source, kind):
    fetch(source, raw)
    assert sources.describe(raw) == {
        "kind": kind,
        "address": site.address,
        "size": len(site.body),
        "sha256": hashlib.sha256(site.body).hexdigest(),
        "files": len(FILES) + 1,
    }
    before, received = tree(raw), site.sent
    fetch(source, raw)
    assert tree(raw) == before
    assert site.sent == received
    assert top(raw) == sorted([*NOTES, "file.zip", "source.json"])


def test_the_checksum_is_pinned_once_seen_even_after_other_fetches(raw, site, pets):
    fetch("filtered", raw)
    fetch(pets, raw)
    site.change(site.body.replace(b"lassie", b"lasSie"))
    for source in ("filtered", "auto"):
        with pytest.raises(UserError, match="no longer the file it was"):
            fetch(source, raw)
    assert sources.describe(raw)["kind"] == "folder"


def test_a_checksum_known_beforehand_is_held_to(raw, site, monkeypatch):
    monkeypatch.setitem(fetching.PUBLIC, "petimages", fetching.Public(site.address, len(site.body), "0" * 64))
    with pytest.raises(UserError, match="no longer the file it was"):
        fetch("petimages", raw)


def test_a_broken_download_leaves_what_was_there_and_is_gone_on_with(raw, site, pets):
    fetch(pets, raw)
    site.cuts = [500_000, 0, 0, 0, 0]
    with pytest.raises(UserError, match="cannot download"):
        fetch("filtered", raw)
    assert sources.describe(raw)["kind"] == "folder"
    assert len(listed(raw)) == len(FILES)
    sent = site.sent
    fetch("filtered", raw)
    assert sources.describe(raw)["kind"] == "filtered"
    assert site.sent - sent < len(site.body) - 400_000
    assert not (raw / ".fetch").exists()


def test_a_download_that_is_no_whole_zip_is_not_taken(raw, site):
    site.change(site.body.replace(b"lassie", b"lasSie"))
    with pytest.raises(UserError, match="not a whole zip archive"):
        fetch("filtered", raw)
    assert not list(raw.rglob("*.zip"))


@pytest.fixture
def quick_drawings(monkeypatch):
    def write(folder_: Path, *, count: int, seed: int, classes: list[str]) -> None:
        folder(folder_, {f"{name}/1.jpg": b"%d" % seed for name in classes})

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
    printed = capsys.readouterr().err
    assert "DRAWN" in printed
    assert "╭" in printed
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

        for name in ("mkdir", "rename", "replace", "hardlink_to", "unlink", "write_bytes"):
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
    pets, archive = folder(tmp_path / "pets", TWO), zipped(tmp_path / "x.zip")
    old, new = (archive, pets) if first == "zip" else (pets, archive)
    clean = tmp_path / "clean"
    fetch(new, clean)
    was_killed, steps = True, 0
    while was_killed:
        raw = tmp_path / f"raw{steps}"
        fetch(old, raw)
        was_killed = killed_after(steps, new, raw)
        whole = [set(sources.read_record(each)["contents"]) for each in (raw, clean)]
        assert {name for name in tree(raw) if not name.startswith((".fetch", "source.json"))} in (*whole, set()), steps
        ensure("drawn", raw)  # goes on with it instead of starting its own
        assert sources.describe(raw)["kind"] in ("zip", "folder"), steps
        fetch(new, raw)
        assert tree(raw) == tree(clean), steps
        assert not (raw / ".fetch").exists()
        steps += 1
    assert steps > 9


def test_own_files_put_there_after_a_fetch_was_killed_are_safe(tmp_path, pets):
    raw, steps = tmp_path / "raw", 0
    while not (raw / ".fetch" / "source.json").exists():
        killed_after(steps, pets, raw)
        steps += 1
    mine = {"pets/Cat/mine.jpg": b"mine", "pets/Dog/mine.jpg": b"mine"}
    ensure("drawn", folder(raw, mine))
    assert sources.describe(raw)["kind"] == "own"
    assert tree(raw) == mine
