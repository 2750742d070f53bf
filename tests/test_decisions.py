"""data/corrections.csv: every decision once, on disk when it is acknowledged, taken back to the byte; or one line."""

import errno
import hashlib
import os
import random
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from faults import small_disk
from hypothesis import example, given, settings
from hypothesis import strategies as st

from catdog.base.errors import UserError
from catdog.feedback import decisions
from catdog.preparation import corrections

CLASSES = ["cat", "dog"]
WORDS = [*CLASSES, corrections.NEITHER, corrections.AS_FILED]
IDS = [hashlib.sha256(bytes([number])).hexdigest() for number in range(4)]
HEADER = b"id,decision,by,when,why\n"
ROW = f"{IDS[3]},dog,ann,2026-11-01T10:00:00Z,".encode()
# What a person may have made of the file: missing, empty, saved by a spreadsheet, by an editor that ends no last line.
BEGINNINGS = [
    None,
    b"",
    b"\xef\xbb\xbf",
    b"\n\n",
    HEADER,
    HEADER + ROW + b"sure",
    b"\xef\xbb\xbf" + HEADER.replace(b"\n", b"\r\n") + ROW + b'"two\r\nlines"\r\n',
    b"\xef\xbb\xbf" + (HEADER + ROW + b"sure\n").replace(b",", b";"),
    HEADER.replace(b",", b"\t"),
    f"Why,WHEN,collection,id,note,Decision,by\nseen,,old,{IDS[3]},,Dog,ann".encode(),
]


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "data/corrections.csv"


def append(file: Path, identity: str, decision: str, *, by: str = "ann", why: str = "suspect", replace: bool = False):
    return decisions.append(file, identity, decision, by=by, why=why, classes=CLASSES, replace=replace)


def counted(file: Path) -> dict[str, str]:
    return {identity: row.decision for identity, row in corrections.load(file, CLASSES).items()}


WORDS_OF_A_PERSON = st.text(max_size=8)
DECIDED = st.tuples(st.sampled_from(IDS), st.sampled_from(WORDS), WORDS_OF_A_PERSON, WORDS_OF_A_PERSON, st.booleans())
UNDONE = st.integers(0, 30)  # the number of a row
ACTIONS = st.lists(st.one_of(DECIDED, UNDONE), max_size=12)


@settings(max_examples=60, deadline=None)  # each decision waits for the disk
@given(beginning=st.sampled_from(BEGINNINGS), actions=ACTIONS)
@example(beginning=HEADER, actions=[(IDS[0], "dog", '"', "\r\n;,\t", False), (IDS[0], "cat", "\x1b\ud800", "=1", True)])
def test_whatever_is_decided_and_undone_is_what_is_read(beginning, actions):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "corrections.csv"
        if beginning is not None:
            file.write_bytes(beginning)
        rows = [(identity, decision, b"") for identity, decision in counted(file).items()]
        for action in actions:
            standing = {identity: decision for identity, decision, _ in rows}
            if isinstance(action, int):
                if own := [row for row in rows if row[2]]:
                    row = own[action % len(own)]
                    decisions.undo(file, row[2])
                    # The same words within a second are the same bytes. Of such, the last goes.
                    del rows[len(rows) - 1 - rows[::-1].index(row)]
            else:
                identity, decision, by, why, replace = action
                before = file.read_bytes() if file.exists() else b""
                written = append(file, identity, decision, by=by, why=why, replace=replace)
                assert (written.before.decision if written.before else None) == standing.get(identity)
                if identity in standing and (not replace or standing[identity] == decision):
                    assert (written.row, file.read_bytes()) == (b"", before)
                else:
                    rows.append((identity, decision, written.row))
                    assert file.read_bytes().startswith(before)
                    assert file.read_bytes().endswith(written.row)
            assert counted(file) == {identity: decision for identity, decision, _ in rows}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (None, HEADER + b"ID,dog,ann,WHEN,suspect\n"),
        (HEADER, HEADER + b"ID,dog,ann,WHEN,suspect\n"),
        (HEADER + ROW, HEADER + ROW + b"\nID,dog,ann,WHEN,suspect\n"),
        (
            b"\xef\xbb\xbfwhy;collection;id;by;decision\r\n",
            b"\xef\xbb\xbfwhy;collection;id;by;decision\r\nsuspect;;ID;ann;dog\r\n",
        ),
    ],
)
def test_the_file_keeps_its_form(file, old, new):
    file.parent.mkdir()
    if old:
        file.write_bytes(old)
    written = append(file, IDS[0], "dog")
    when = corrections.load(file, CLASSES)[IDS[0]].when.encode()
    assert file.read_bytes() == new.replace(b"ID", IDS[0].encode()).replace(b"WHEN", when)
    decisions.undo(file, written.row)
    assert file.read_bytes() == new[: new.rindex(b"ID" if b"ID,dog" in new else b"suspect;")]


def test_a_row_tells_who_when_and_why_on_one_line(file):
    append(file, IDS[0], "cat", by='Ann "A", Zoë\n', why="suspect, 0.031 sure of its label")
    row = corrections.load(file, CLASSES)[IDS[0]]
    assert (row.by, row.why) == ('Ann "A", Zoë\\n', "suspect, 0.031 sure of its label")
    assert len(row.when) == 20
    assert row.when.startswith("20")
    assert row.when.endswith("Z")
    assert file.read_bytes().count(b"\n") == 2
    with pytest.raises(ValueError, match="no decision on a photograph"):
        append(file, "id7", "cat")
    with pytest.raises(ValueError, match="no decision on a photograph"):
        append(file, IDS[1], "horse")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (HEADER + b"nobody,dog,,,\n", "line 2: the id should be 64 hexadecimal digits"),
        (HEADER + ROW + b'"open\n', "a quotation mark is not closed"),
        (b"\xff\xfe", "not UTF-8"),
        (b"a,b\n", "no column 'decision'"),
    ],
)
def test_a_file_edited_into_nonsense_is_one_line_and_stays(file, content, problem):
    file.parent.mkdir()
    file.write_bytes(content)
    with pytest.raises(UserError, match=problem) as told:
        append(file, IDS[0], "dog")
    assert "\n" not in str(told.value)
    assert file.read_bytes() == content


def test_what_somebody_edited_meanwhile_is_not_undone(file):
    first, second = append(file, IDS[0], "dog"), append(file, IDS[1], "cat")
    edited = file.read_bytes().replace(b",dog,", b",cat,")
    file.write_bytes(edited)
    with pytest.raises(UserError, match="was edited meanwhile"):
        decisions.undo(file, first.row)
    assert file.read_bytes() == edited
    decisions.undo(file, second.row)
    with pytest.raises(UserError, match="was edited meanwhile"):
        decisions.undo(file, second.row)
    file.unlink()
    with pytest.raises(UserError, match="was edited meanwhile"):
        decisions.undo(file, first.row)
    assert not file.exists()


def test_many_at_once_double_nothing(file):
    """Of four who decide on the same photographs, one is the first to each; who undoes his own harms no other's."""
    ids, kept, undone = [hashlib.sha256(str(n).encode()).hexdigest() for n in range(12)], [], []

    def person(number: int) -> None:
        for identity in random.Random(number).sample(ids, len(ids)):
            written = append(file, identity, CLASSES[number % 2], by=f"person {number}")
            if written.row and number == 0:
                decisions.undo(file, written.row)
                undone.append(identity)
            elif written.row:
                kept.append((identity, f"person {number}"))

    people = [threading.Thread(target=person, args=(number,)) for number in range(4)]
    for each in people:
        each.start()
    for each in people:
        each.join()
    assert sorted(kept) == sorted((row.id, row.by) for row in corrections.load(file, CLASSES).values())
    assert len(file.read_bytes().splitlines()) == 1 + len(kept)
    assert {*ids} == {identity for identity, _ in kept} | {*undone}


# ---- faults ---------------------------------------------------------------------------------------------------------


def test_a_full_disk_takes_no_part_of_a_row(tmp_path):
    with small_disk(tmp_path / "disk", kilobytes=64) as disk:
        file = disk / "corrections.csv"
        file.write_bytes(HEADER + ROW + b"x" * (4096 - len(HEADER + ROW)))  # a page, and no end of line
        append(file, IDS[0], "dog", why="y" * 4000)
        written = append(file, IDS[1], "dog", why="z" * (4 * 4096 - file.stat().st_size - 300))
        filler = disk / "filler"
        filler.write_bytes(bytes(64 * 1024 - 4 * 4096 - 4096))
        before = file.read_bytes()
        with pytest.raises(UserError, match="No space left on device: nothing was changed") as told:
            append(file, IDS[2], "cat", why="w" * 20_000)
        assert "\n" not in str(told.value)
        assert file.read_bytes() == before
        decisions.undo(file, written.row)  # what is the last can be undone even there
        filler.unlink()
        append(file, IDS[2], "cat", why="w" * 20_000)
        assert counted(file) == {IDS[3]: "dog", IDS[0]: "dog", IDS[2]: "cat"}


@pytest.mark.parametrize("fault", ["short", "write", "fsync"])
def test_a_failing_disk_takes_no_part_of_a_row(file, monkeypatch, fault):
    append(file, IDS[0], "dog")
    before, write = file.read_bytes(), os.write

    def failing(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    if fault == "short":
        monkeypatch.setattr(os, "write", lambda to, data: write(to, data[:30]))
    else:
        monkeypatch.setattr(os, fault, failing)
    with pytest.raises(UserError, match=r"corrections.csv: (No space left on device|Input/output error): nothing"):
        append(file, IDS[1], "cat")
    monkeypatch.undo()
    assert file.read_bytes() == before
    append(file, IDS[1], "cat")
    assert counted(file) == {IDS[0]: "dog", IDS[1]: "cat"}


DECIDING = """
import hashlib, itertools, sys
from pathlib import Path
from catdog.feedback import decisions
for number in itertools.count():
    identity = hashlib.sha256(str(number).encode()).hexdigest()
    written = decisions.append(Path(sys.argv[1]), identity, "cat", by="ann", why="suspect", classes=["cat", "dog"])
    if number % 3 == 1:
        decisions.undo(Path(sys.argv[1]), written.row)
        print("undone", identity, flush=True)
    else:
        print("decided", identity, flush=True)
"""


def test_a_kill_loses_nothing_that_was_acknowledged(file):
    with subprocess.Popen([sys.executable, "-c", DECIDING, str(file)], stdout=subprocess.PIPE, text=True) as deciding:
        assert deciding.stdout
        said = [deciding.stdout.readline() for _ in range(50)]
        deciding.kill()
        said += [line for line in deciding.stdout if line.endswith("\n")]
    acknowledged = {line.split()[1] for line in said if line.startswith("decided")}
    undone = {line.split()[1] for line in said if line.startswith("undone")}
    found = set(counted(file))
    assert acknowledged <= found
    assert not undone & found
    assert len(found - acknowledged) <= 1  # written, but killed before it was told
