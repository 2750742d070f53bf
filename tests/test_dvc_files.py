"""What a full disk leaves of DVC's own files: `dvc repro` goes on, and says what to do where a person has to."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from catdog.base import dvc_files

LOCK = Path(".dvc/tmp/rwlock")
PIPELINE = """
stages:
  copy:
    cmd: python -c "import shutil; shutil.copy('in', 'out'); shutil.copy('.dvc/tmp/rwlock', 'rwlock')"
    deps: [in]
    outs: [out]
"""
HOLD = "from dvc.repo import Repo\nwith Repo('.').lock:\n    print('held', flush=True)\n    input()"
GARBAGE = [
    b"",
    b"\0" * 200,
    b"\xff\xfe\x81",
    b"5",
    b"[]",
    b"null",
    b"nan",
    b"[" * 9999,
    b'{"write": 5}',
    b'{"other": {}}',
]
GARBAGE += [b'{"other": {}}', b'{"read": {"/x": [{"pid": "one"}]}}', b"Disk full"]


def dvc(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "dvc", *arguments], capture_output=True, text=True)


def catdog(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "catdog", *arguments], capture_output=True, text=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A small pipeline after a run; `rwlock` is what DVC's lock was while the stage ran."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder := tmp_path_factory.mktemp("pipeline"))
        subprocess.run(["git", "init", "-q"], check=True)
        assert dvc("init", "-q").returncode == 0
        Path("dvc.yaml").write_text(PIPELINE)
        Path("in").write_text("1")
        assert dvc("repro").returncode == 0
    return folder


@pytest.fixture
def pipeline(made, tmp_path, monkeypatch) -> Iterator[bytes]:
    shutil.copytree(made, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return Path("rwlock").read_bytes()


def mended(content: bytes) -> bool:
    LOCK.write_bytes(content)
    dvc_files.mend(Path())
    assert not LOCK.exists() or LOCK.read_bytes() == content
    return not LOCK.exists()


def test_every_part_of_the_lock_that_a_full_disk_leaves_is_mended(pipeline):
    assert pipeline.count(b'"pid": ') == 3
    for length in range(len(pipeline) + 1):  # the whole of it names a DVC that is dead
        assert mended(pipeline[:length]), pipeline[:length]
    for content in GARBAGE:
        assert mended(content), content
    for content in (b"{}", b'{"read": {}}'):  # as a DVC leaves it that came to its end
        assert not mended(content)
    LOCK.unlink(missing_ok=True)
    dvc_files.mend(Path())
    dvc_files.mend(Path("nowhere"))


@pytest.mark.parametrize("content", [b"", b'{"write": {"/x', b'{"other": {}}', b"\xff\xfe\x81"])
def test_what_dvc_refuses_it_takes_again_after_any_command(pipeline, content):
    Path("in").write_text("2")
    LOCK.write_bytes(content)
    assert dvc("repro").returncode != 0
    ended = catdog("mend")
    assert (ended.returncode, ended.stdout) == (0, "")
    assert ended.stderr == "notice: a DVC that was cut off left .dvc/tmp/rwlock; it is removed\n"
    done = dvc("repro")
    assert done.returncode == 0, done.stderr
    assert Path("out").read_text() == "2"
    assert catdog("mend").stderr == ""


@contextmanager
def at_work() -> Iterator[None]:
    """A process that holds DVC's lock of this project."""
    with subprocess.Popen([sys.executable, "-c", HOLD], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout.readline() == "held\n"
        try:
            yield
        finally:
            process.communicate("\n")


def test_while_a_dvc_is_at_work_nothing_is_touched(pipeline):
    with at_work():
        for content in (pipeline, pipeline[:50], b"", b"{}"):
            assert not mended(content)
    assert mended(b"")


def test_a_dvc_that_waits_for_its_stage_holds_no_lock_and_is_known_by_its_number(pipeline):
    alive = pipeline.replace(pipeline.split(b'"pid": ')[1].split(b",")[0], str(os.getpid()).encode())
    assert not mended(alive)
    assert not mended(alive[:-9])
    # A process that began after the lock was written has only the number of the one that wrote it.
    LOCK.write_bytes(alive)
    os.utime(LOCK, (1e9, 1e9))
    dvc_files.mend(Path())
    assert not LOCK.exists()


def test_a_record_that_was_cut_off_is_put_back(pipeline):
    whole = Path("dvc.lock").read_bytes()
    assert catdog("mend").stderr == ""  # and keeps it
    for content in (b"", whole[:30], b"\xff\xfe\x81", b"\0" * len(whole)):
        Path("dvc.lock").write_bytes(content)
        ended = catdog("mend")
        assert ended.returncode == 0, ended.stderr
        assert ended.stderr.startswith("notice: dvc.lock can't be read, so it is as it was before")
        assert ended.stderr.count("\n") == 1
        assert Path("dvc.lock").read_bytes() == whole
        assert Path(".dvc/tmp/dvc.lock.unreadable").read_bytes() == content
    assert "up to date" in dvc("repro").stdout


def test_a_record_of_which_none_was_kept_is_made_again_from_the_cache(pipeline):
    Path(".dvc/tmp/dvc.lock.kept").unlink(missing_ok=True)
    Path("dvc.lock").write_bytes(Path("dvc.lock").read_bytes()[:30])
    assert catdog("mend").returncode == 0
    assert not Path("dvc.lock").exists()
    assert "skipping run" in dvc("repro").stdout


def test_a_record_stays_where_there_is_no_room_to_put_it_back(pipeline, monkeypatch):
    dvc_files.mend_record(Path.cwd())
    cut = Path("dvc.lock").read_bytes()[:30]
    Path("dvc.lock").write_bytes(cut)

    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(dvc_files.files, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):  # not that a DVC is at work
        dvc_files.mend_record(Path.cwd())
    assert Path("dvc.lock").read_bytes() == cut


def test_a_record_in_conflict_or_of_a_dvc_at_work_is_left_alone(pipeline):
    whole = Path("dvc.lock").read_bytes()
    Path("dvc.lock").write_bytes(b"<<<<<<< HEAD\n" + whole)
    ended = catdog("mend")
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert ended.stderr.startswith("error: dvc.lock can't be read: it holds a conflict of git")
    Path("dvc.lock").write_bytes(whole[:30])
    with subprocess.Popen([sys.executable, "-c", HOLD], stdin=-1, stdout=-1, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        ended = catdog("mend")
        holder.communicate("\n")
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: dvc.lock can't be read, and a DVC is at work")
    assert Path("dvc.lock").read_bytes() == whole[:30]


@pytest.mark.parametrize("file", [".dvc/tmp/lock", ".dvc/tmp/rwlock.lock", ".dvc/tmp/btime"])
def test_other_files_of_dvc_may_be_cut_off(pipeline, file):
    Path(file).write_bytes(b"\xff")
    Path("in").write_text("3")
    assert dvc("repro").returncode == 0


def test_make_mends_before_it_runs_dvc():
    makefile = (Path(__file__).parents[1] / "Makefile").read_text()
    for target in ("run", "sweep"):
        recipe = makefile.split(f"\n{target}: env")[1].split("\n\n")[0]
        assert recipe.index("@catdog mend\n") < recipe.index("@dvc ")
