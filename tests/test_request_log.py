"""The log of what was asked: whole lines whatever the disk does, answers that never wait for it, and its reader."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from faults import resize, small_disk, wait_until
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from catdog.base.errors import UserError
from catdog.feedback import log_files, log_losses, log_queue, log_writer, request_log, user_feedback
from catdog.feedback.log_writer import Writer

VERSION, CLASSES, WIDTH = "catdog/3", ("cat", "dog"), 6
NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)


@contextmanager
def writing(folder: Path, **options: object) -> Iterator[Writer]:
    writer = Writer(folder, version=VERSION, classes=CLASSES, **options)
    try:
        yield writer
    finally:
        writer.close()


def identity(number: int) -> str:
    return uuid.UUID(int=number).hex


def photograph(number: int) -> bytes:
    return f"the bytes of photograph {number}".encode()


def sha256(number: int) -> str:
    return hashlib.sha256(photograph(number)).hexdigest()


def put(writer: Writer, *numbers: int, width: int = WIDTH, images: list[bytes] | None = None, **fields) -> None:
    """Log an answer to a photograph for each of these numbers, by which all of it can be told."""
    given = {"label": "dog", "probability": 0.9, "familiarity": 0.5, "model_version": VERSION} | fields
    writer.put(
        images or [photograph(number) for number in numbers],
        [{**given, "id": identity(number)} for number in numbers],
        [np.full(width, number, np.float32) for number in numbers],
        milliseconds=12.345,
    )


def ids(folder: Path) -> list[int]:
    return [uuid.UUID(entry.id).int for entry in request_log.entries(folder)]


def lost(writer: Writer) -> dict[tuple[str, str], int]:
    return {key: number for key, number in writer.losses.counts().items() if number}


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def today(monkeypatch) -> list[datetime]:
    """`today[0]` is what the writer's clock says."""
    now = [NOON]
    monkeypatch.setattr(log_writer, "clock", lambda: now[0])
    return now


# ---- what is written ------------------------------------------------------------------------------------------------


def test_a_line_and_features_for_each_photograph_and_nothing_else(tmp_path, today):
    log = tmp_path / "some" / "log"
    with writing(log) as writer:
        put(writer, 1, 2)
        put(writer, 3, label="unsure", probability=0.4, familiarity=None)
        assert writer.flush(5)
        assert (writer.written, lost(writer)) == (3, {})
    lines = [json.loads(line) for line in (log / "2026-11-27.jsonl").read_text().splitlines()]
    assert lines[2] == {
        "time": "2026-11-27T12:00:00.000Z",
        "id": identity(3),
        "sha256": sha256(3),
        "version": VERSION,
        "label": "unsure",
        "probability": 0.4,
        "familiarity": None,
        "milliseconds": 12.3,
    }
    assert [entry._asdict() for entry in request_log.entries(log)] == lines
    names, features = request_log.features(log)
    assert names == [identity(number) for number in (1, 2, 3)]
    assert (features.dtype, features.tolist()) == (np.float32, [[number] * WIDTH for number in (1, 2, 3)])
    assert [name for name, _ in [request_log.features(log, newest=2)]] == [names[1:]]
    written = {path.relative_to(log).as_posix() for path in log.rglob("*") if path.is_file()}
    features_file = f"features/2026-11-27.catdog-3.{WIDTH}.f16"
    assert written == {".gitignore", ".lock", "log.json", "2026-11-27.jsonl", features_file}
    assert b"the bytes" not in b"".join((log / name).read_bytes() for name in written)
    modes = {path.stat().st_mode & 0o777 for path in [log, *log.rglob("*")] if path.is_dir()}
    assert modes == {0o700}
    assert {(log / name).stat().st_mode & 0o777 for name in written} == {0o600}


def test_features_are_of_one_version(tmp_path):
    with writing(tmp_path) as writer:
        put(writer, 1)
        put(writer, 2, model_version="catdog/4", width=3)
        put(writer, 3, model_version="catdog-4", width=3)  # in the same file
        put(writer, 4, model_version="catdog/4", width=3)
    names, features = request_log.features(tmp_path)
    assert (names, features.tolist()) == ([identity(2), identity(4)], [[2] * 3, [4] * 3])
    assert request_log.features(tmp_path, VERSION)[0] == [identity(1)]
    names, features = request_log.features(tmp_path, "catdog/9")
    assert (names, features.shape) == ([], (0, 0))


def test_features_beyond_float16_are_the_largest_there_are(tmp_path):
    with writing(tmp_path) as writer:
        put(writer, 10**6)
    assert (request_log.features(tmp_path)[1] == np.finfo(np.float16).max).all()


def test_photographs_are_kept_whole_once_a_day(tmp_path, today):
    with writing(tmp_path, photographs=True) as writer:
        put(writer, 1, 2, 1)
        put(writer, 2)
        writer.flush(5)
        today[0] += timedelta(days=1)
        put(writer, 1, 3)
    kept = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("photographs/*/*"))
    assert kept == sorted(
        [f"photographs/2026-11-27/{sha256(number)}" for number in (1, 2)]
        + [f"photographs/2026-11-28/{sha256(number)}" for number in (1, 3)]
    )
    assert all((tmp_path / name).stat().st_mode & 0o777 == 0o600 for name in kept)
    newest = request_log.last_photographs(tmp_path, 10)
    assert [path.read_bytes() for path in newest] == [photograph(number) for number in (3, 1, 2)]
    assert request_log.last_photographs(tmp_path, 2) == newest[:2]
    newest[0].write_bytes(b"half")
    assert request_log.photograph(tmp_path, sha256(3)) is None
    assert request_log.last_photographs(tmp_path, 10) == newest[1:]
    (tmp_path / kept[-1]).unlink(), (tmp_path / kept[-2]).unlink()
    assert request_log.photograph(tmp_path, sha256(1)) == tmp_path / f"photographs/2026-11-27/{sha256(1)}"
    assert request_log.photograph(tmp_path, "../../log.json") is None


def test_days_are_those_of_utc_when_the_answer_was_given(tmp_path, today):
    today[0] = datetime(2026, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)
    with writing(tmp_path) as writer:
        put(writer, 1)
        today[0] += timedelta(milliseconds=2)
        put(writer, 2)
        assert writer.flush(5)
        today[0] -= timedelta(milliseconds=2)  # threads do not put in the order of their clocks
        put(writer, 3)
    assert log_files.days(tmp_path) == ["2026-12-31", "2027-01-01"]
    assert ids(tmp_path) == [1, 3, 2]
    assert sorted(request_log.features(tmp_path)[0]) == [identity(number) for number in (1, 2, 3)]


# ---- within a size --------------------------------------------------------------------------------------------------


def test_the_oldest_days_go_before_the_limit_is_exceeded(tmp_path, today):
    (tmp_path / "feedback.jsonl").write_text("what was said stays\n")
    with writing(tmp_path, megabytes=1, photographs=True) as writer:
        for number in range(12):
            put(writer, number, images=[os.urandom(200_000)])
            assert writer.flush(5)
            assert size(tmp_path) <= 1 << 20
            today[0] += timedelta(days=1)
        assert lost(writer) == {}
    days = [f"2026-12-{day:02}" for day in (5, 6, 7, 8)]
    assert log_files.days(tmp_path) == days
    assert sorted(path.name for path in (tmp_path / "photographs").iterdir()) == days
    assert [path.name.partition(".")[0] for path in sorted((tmp_path / "features").iterdir())] == days
    assert len(request_log.last_photographs(tmp_path, 100)) == 4
    assert (tmp_path / "feedback.jsonl").exists()


def test_of_the_only_day_photographs_are_dropped_first_and_then_lines(tmp_path, today, capsys):
    with writing(tmp_path, megabytes=1, photographs=True) as writer:
        for number in range(30):
            # A line with 4,000 bytes of features, and a photograph of 50,000.
            put(writer, number, width=2000, images=[os.urandom(50_000)])
            assert writer.flush(5)
        photographs, lines = lost(writer)["photograph", "size"], 30
        assert lost(writer) == {("photograph", "size"): photographs}
        assert ids(tmp_path) == list(range(30))
        assert len(list(tmp_path.glob("photographs/*/*"))) == 30 - photographs
        while not lost(writer).get(("line", "size")):
            put(writer, lines, width=2000, images=[b"small"])
            assert writer.flush(5)
            lines += 1
        assert size(tmp_path) <= 1 << 20
    assert ids(tmp_path) == list(range(lines - 1))
    assert "--log-megabytes is reached" in capsys.readouterr().err


def test_room_that_somebody_else_makes_is_found(tmp_path, today, monkeypatch):
    monkeypatch.setattr(log_files, "_COUNT_AGAIN", 0.2)
    (tmp_path / "large").write_bytes(bytes(1 << 20))
    with writing(tmp_path, megabytes=1) as writer:
        put(writer, 1)
        writer.flush(5)
        assert lost(writer) == {("line", "size"): 1}
        (tmp_path / "large").unlink()
        time.sleep(0.3)
        put(writer, 2)
    assert ids(tmp_path) == [2]


# ---- a disk that fails ----------------------------------------------------------------------------------------------


def test_a_disk_that_hangs_holds_up_nobody_and_each_loss_is_counted(tmp_path, monkeypatch, capsys):
    go, append = threading.Event(), log_files.append
    monkeypatch.setattr(log_files, "append", lambda *args, **options: go.wait(30) and append(*args, **options))
    monkeypatch.setattr(log_queue, "MOST_ITEMS", 50)
    longest = 0.0
    with writing(tmp_path) as writer:
        for number in range(200):
            started = time.perf_counter()
            put(writer, number)
            longest = max(longest, time.perf_counter() - started)
        assert not writer.flush(0.2)
        go.set()
        assert writer.flush(10)
        assert lost(writer) == {("line", "queue"): 150}
        assert writer.written == 50
    assert ids(tmp_path) == list(range(50))
    assert longest < 0.2
    wait_until(lambda: not writer.losses._telling.is_alive())
    first, last = capsys.readouterr().err.splitlines()  # the first loss, and at the end all of them
    assert first == (f"notice: answers go on, but the log in {tmp_path} misses 1 x line (the disk is too slow)")
    assert last.endswith("misses 150 x line (the disk is too slow)")


def test_photographs_that_wait_have_a_bound_and_make_way_for_lines(tmp_path, monkeypatch):
    go, write = threading.Event(), log_files.write
    monkeypatch.setattr(
        log_files,
        "write",
        lambda log, name, data: ("photographs" not in name or go.wait(30)) and write(log, name, data),
    )
    monkeypatch.setattr(log_queue, "MOST_BYTES", 1_000_000)
    with writing(tmp_path, photographs=True) as writer:
        for number in range(20):
            put(writer, number, images=[bytes([number]) * 200_000])
        go.set()
        assert writer.flush(10)
        assert lost(writer) == {("photograph", "queue"): 16}
    assert ids(tmp_path) == list(range(20))
    assert len(request_log.last_photographs(tmp_path, 100)) == 4


def test_what_a_full_disk_took_of_a_line_is_cut_back(tmp_path, monkeypatch, capsys):
    full, write = [False], os.write

    def half(file: int, data: bytes) -> int:
        if full[0] and len(data) > 20:
            return write(file, data[: len(data) // 2])
        if full[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data)

    monkeypatch.setattr(log_files.os, "write", half)
    with writing(tmp_path) as writer:
        put(writer, 1)
        assert writer.flush(5)
        before = size(tmp_path)
        full[0] = True
        put(writer, 2, 3)
        assert writer.flush(5)
        assert size(tmp_path) == before
        assert lost(writer) == {("line", "disk"): 2, ("features", "disk"): 2}
        full[0] = False
        put(writer, 4)
    assert ids(tmp_path) == [1, 4]
    assert request_log.features(tmp_path)[0] == [identity(1), identity(4)]
    assert "misses 2 x features (the disk fails: No space left on device)" in capsys.readouterr().err


def test_on_a_full_disk_nothing_is_half_written_and_with_room_it_goes_on(tmp_path):
    with small_disk(tmp_path / "disk", kilobytes=400) as disk:
        with writing(disk / "log", photographs=True) as writer:
            for number in range(60):
                put(writer, number, images=[os.urandom(20_000)])
                assert writer.flush(5)
            missing = lost(writer)
            resize(disk, kilobytes=4000)
            put(writer, 99)
        log = disk / "log"
        known = ids(log)
        assert missing["photograph", "disk"] > 0
        assert len(known) == 61 - missing.get(("line", "disk"), 0)
        assert known[-1] == 99
        assert not list(log.rglob("*.part"))
        kept = list(log.glob("photographs/*/*"))
        assert len(kept) == 61 - missing["photograph", "disk"]
        assert all(hashlib.sha256(path.read_bytes()).hexdigest() == path.name for path in kept)
        with small_disk(tmp_path / "full", kilobytes=8) as full:  # it starts, and answers, even there
            (full / "filled").write_bytes(bytes(shutil.disk_usage(full).free))
            with writing(full / "log") as writer:
                put(writer, 1)
                assert writer.flush(5)
                assert lost(writer)["line", "disk"] == 1


def test_a_folder_that_is_taken_away_is_not_made_again(tmp_path):
    log = tmp_path / "log"
    with writing(log, photographs=True) as writer:
        put(writer, 1)
        assert writer.flush(5)
        shutil.rmtree(log)
        put(writer, 2)
        assert writer.flush(5)
        assert not log.exists()
        assert lost(writer) == {(what, "disk"): 1 for what in ("line", "features", "photograph")}
        log.mkdir()
        put(writer, 3)
    assert ids(log) == [3]
    assert log_files.classes(log) == {VERSION: ["cat", "dog"]}


def test_losses_are_told_once_a_minute_at_most(tmp_path, monkeypatch, capsys):
    clock = [100.0]
    monkeypatch.setattr(log_losses.time, "monotonic", lambda: clock[0])
    losses = log_losses.Losses(tmp_path)

    def count() -> list[str]:
        losses.count("line", "queue")
        losses._telling.join()
        return capsys.readouterr().err.splitlines()

    assert len(count()) == 1
    for _ in range(100):
        clock[0] += 0.59
        assert count() == []
    clock[0] += 2
    assert [line.partition("misses ")[2] for line in count()] == ["102 x line (the disk is too slow)"]


def test_whoever_does_not_read_stderr_holds_up_nobody(tmp_path, monkeypatch):
    go = threading.Event()

    class Full:
        def write(self, text: str) -> None:
            go.wait(30)

    monkeypatch.setattr(sys, "stderr", Full())
    losses = log_losses.Losses(tmp_path)
    started = time.monotonic()
    for _ in range(100):
        losses.count("line", "queue")
    losses.tell_last(0.1)
    assert time.monotonic() - started < 1
    go.set()


# ---- what is cut off ------------------------------------------------------------------------------------------------


@hypothesis_settings(max_examples=25, deadline=None)
@given(before=st.integers(1, 4), cut=st.tuples(st.floats(0, 1), st.floats(0, 1)), after=st.integers(1, 3))
def test_a_log_cut_off_anywhere_is_gone_on_with(before, cut, after):
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder)
        with writing(log) as writer:
            put(writer, *range(before))
        lines, features = next(log.glob("*-*.jsonl")), next(log.glob("features/*"))
        kept = {}
        for path, share in zip((lines, features), cut, strict=True):
            data = path.read_bytes()
            kept[path] = data[: round(share * len(data))]
            path.write_bytes(kept[path])
        with writing(log) as writer:
            put(writer, *range(100, 100 + after))
        # A line that lost nothing but its end is whole.
        whole = [n for n in range(before) if f'"id": "{identity(n)}"'.encode() in kept[lines]]
        whole = [n for n in whole if kept[lines].split(b"\n")[n].endswith(b"}")]
        assert ids(log) == [*whole, *range(100, 100 + after)]
        recorded = len(kept[features]) // log_files.record_bytes(WIDTH)
        names, numbers = request_log.features(log)
        known = [n for n in (*whole, *range(100, 100 + after)) if n < recorded or n >= 100]
        assert names == [identity(n) for n in known]
        assert numbers[:, 0].tolist() == known


CHILD = """
import sys, numpy as np, uuid
from pathlib import Path
from catdog.feedback.log_writer import Writer
writer = Writer(Path(sys.argv[1]), version="catdog/3", classes=("cat", "dog"), photographs=True)
for number in range(10**6):
    answer = {"id": uuid.UUID(int=number).hex, "label": "dog", "probability": 0.9, "familiarity": 0.5}
    features = np.full(300, number % 1000, np.float32)
    writer.put([b"%d" % number * 3000], [answer | {"model_version": "catdog/3"}], [features], milliseconds=1)
    if number % 100 == 0:
        print(number, flush=True)
        writer.flush(5)
"""


@pytest.mark.parametrize("seconds", [0.3, 0.61])
def test_a_kill_while_it_is_written_takes_the_last_lines_at_most(tmp_path, seconds, capsys):
    log = tmp_path / "log"
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(log)], stdout=subprocess.PIPE, text=True)
    wait_until(lambda: list(log.glob("*-*.jsonl")))
    time.sleep(seconds)
    child.kill()
    assert child.stdout is not None
    put_in = int(child.stdout.read().split()[-1])
    with writing(log, photographs=True) as writer:
        put(writer, 2_000_000, width=300)
    *known, last = ids(log)
    assert last == 2_000_000
    assert known == list(range(len(known)))  # none is missing but the last ones
    assert len(known) > put_in - 100
    said = capsys.readouterr().err
    assert said == "" or said.endswith("lines that can't be read, and are passed over: 1\n")
    names, features = request_log.features(log)
    assert names == [identity(number) for number in (*known, last)]
    assert features[:-1, 0].tolist() == [number % 1000 for number in known]
    kept = list(log.glob("photographs/*/*"))
    assert len(kept) >= len(known)
    assert all(hashlib.sha256(path.read_bytes()).hexdigest() == path.name for path in kept)


# ---- one server a log -----------------------------------------------------------------------------------------------


def test_a_second_server_is_refused_until_the_first_has_ended(tmp_path):
    with writing(tmp_path), pytest.raises(UserError, match="another server does: name another folder with --log"):
        Writer(tmp_path, version=VERSION, classes=CLASSES)
    with writing(tmp_path) as writer:
        put(writer, 1)
        writer.close()  # twice is once
    assert ids(tmp_path) == [1]


def test_a_log_that_can_not_be_opened_is_told_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "log"):
        with pytest.raises(UserError, match=r"^can't log to .*: name another folder with --log$"):
            Writer(folder, version=VERSION, classes=CLASSES)


def test_what_comes_after_the_end_is_counted(tmp_path):
    with writing(tmp_path) as writer:
        put(writer, 1)
    put(writer, 2)
    assert lost(writer) == {("line", "queue"): 1}
    assert ids(tmp_path) == [1]


# ---- reading --------------------------------------------------------------------------------------------------------


def test_what_is_no_log_is_told(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        for read in (request_log.entries, request_log.features, lambda log: request_log.last_photographs(log, 3)):
            with pytest.raises(UserError, match="is no log of answers: name the folder that was given to"):
                read(folder)
    with writing(tmp_path) as writer:
        assert writer.flush(5)
    assert ids(tmp_path) == []  # a log, in which there is nothing yet
    assert request_log.features(tmp_path)[1].shape == (0, 0)
    assert request_log.doubted(tmp_path, sureness=1.0) == []


@pytest.mark.parametrize(
    "change",
    [{"id": "../x"}, {"id": 7}, {"sha256": "../../../etc/passwd"}, {"probability": float("nan")}, {"probability": "1"},
     {"probability": 1.5}, {"familiarity": -1}, {"time": None}, {"label": ["dog"]}, {"milliseconds": "1"}],
)  # fmt: skip
def test_lines_that_are_none_are_passed_over_and_counted(tmp_path, capsys, change):
    with writing(tmp_path) as writer:
        put(writer, 1, 2)
    [file] = tmp_path.glob("*-*.jsonl")
    first, second = file.read_bytes().splitlines()
    wrong = json.dumps(json.loads(first) | change).encode()
    file.write_bytes(b"\n".join([first, b"\xff\0" * 9, b"[" * 9999, b"7", b"", wrong, second[:-9], second, b'{"ti']))
    assert ids(tmp_path) == [1, 2]
    assert capsys.readouterr().err.endswith("lines that can't be read, and are passed over: 6\n")


@hypothesis_settings(max_examples=50, deadline=None)
@given(
    lines=st.lists(st.sampled_from([b"", b"x", b"id", b"say id twice: id", b"i", b"d", b"abcdefghij"])),
    end=st.booleans(),
)
def test_a_word_is_found_in_every_line_that_has_it(lines, end):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(request_log, "_BLOCK", 5)
        path = Path(folder) / "lines"
        path.write_bytes(b"\n".join(lines) + b"\n" * end)
        found = [line.rstrip(b"\n") for line in request_log._lines_with(path, b"id")]
        assert found == [line for line in lines if b"id" in line]


# ---- what clients say -----------------------------------------------------------------------------------------------


def note(folder: Path, number: int, label: str, *, most: int = 10_000) -> user_feedback.Noted | None:
    return user_feedback.note(folder, id=identity(number), label=label, most=most)


def test_what_is_said_last_counts_and_the_same_twice_is_once(tmp_path, today):
    with writing(tmp_path) as writer:
        put(writer, 1, 2)
    assert note(tmp_path, 3, "cat") is None
    assert user_feedback.note(tmp_path, id=sha256(1)[:32], label="cat", most=100) is None
    assert not (tmp_path / "feedback.jsonl").exists()
    expected = [("cat", True), ("cat", False), ("dog", True), ("cat", True), ("cat", False)]
    for label, new in expected:
        assert note(tmp_path, 1, label) == (identity(1), label, "dog", new)
    rows = [json.loads(line) for line in (tmp_path / "feedback.jsonl").read_text().splitlines()]
    assert [row["label"] for row in rows] == ["cat", "dog", "cat"]
    assert rows[0] == {
        "time": "2026-11-27T12:00:00.000Z",
        "id": identity(1),
        "sha256": sha256(1),
        "label": "cat",
        "answered": "dog",
    }
    assert (tmp_path / "feedback.jsonl").stat().st_mode & 0o777 == 0o600
    with (tmp_path / "feedback.jsonl").open("ab") as file:
        file.write(b'{"time": "2026-11')  # a kill
    assert note(tmp_path, 2, "neither") == (identity(2), "neither", "dog", True)
    assert [row.label for row in request_log.said(tmp_path)] == ["cat", "dog", "cat", "neither"]


def test_what_could_not_be_synced_was_not_said(tmp_path, monkeypatch):
    with writing(tmp_path) as writer:
        put(writer, 1)
    assert note(tmp_path, 1, "dog")
    before = (tmp_path / "feedback.jsonl").read_bytes()

    def fail(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(log_files.os, "fsync", fail)
        with pytest.raises(OSError, match="No space left"):
            note(tmp_path, 1, "cat")
    assert (tmp_path / "feedback.jsonl").read_bytes() == before
    with pytest.raises(OSError, match="the share of the log that is for feedback"):
        note(tmp_path, 1, "cat", most=len(before) + 10)
    assert note(tmp_path, 1, "cat") == (identity(1), "cat", "dog", True)


def test_the_list_of_doubt(tmp_path, today):
    with writing(tmp_path, photographs=True) as writer:
        put(writer, 1, label="dog", probability=0.97)
        put(writer, 2, label="cat", probability=0.01)  # sure, and nobody says otherwise
        put(writer, 3, label="unsure", probability=0.45)
        put(writer, 4, label="neither", probability=0.9, familiarity=0.001)
        put(writer, 5, label="dog", probability=0.8)
        put(writer, 6, label="cat", probability=0.3)
        put(writer, 7, label="dog", probability=0.99)
        put(writer, 8, label="neither", probability=0.2)  # and later it is known
        writer.flush(5)
        today[0] += timedelta(days=1)
        put(writer, 108, images=[photograph(8)], label="cat", probability=0.02)
        put(writer, 9, label="unsure", probability=0.5, model_version="catdog/2")  # of classes that nobody noted
    for number, label in ((1, "cat"), (3, "dog"), (2, "cat"), (7, "neither"), (7, "dog"), (6, "dog")):
        note(tmp_path, number, label)
    found = request_log.doubted(tmp_path, sureness=0.85)
    assert [(each.sha256, each.feedback) for each in found] == [
        (sha256(6), "dog"),  # said otherwise, the least sure first
        (sha256(1), "cat"),
        (sha256(4), ""),
        (sha256(9), ""),
        (sha256(3), "dog"),
        (sha256(5), ""),
    ]
    assert [each.leans for each in found] == ["cat", "dog", "dog", "", "cat", "dog"]
    assert [each.label for each in found] == ["cat", "dog", "neither", "unsure", "unsure", "dog"]
    assert found[2][3:5] == (0.9, 0.001)
    assert found[1].path == tmp_path / "photographs/2026-11-27" / sha256(1)
    shutil.rmtree(tmp_path / "photographs")
    assert {each.path for each in request_log.doubted(tmp_path, sureness=0.85)} == {None}
