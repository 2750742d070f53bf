"""Every file gets its row: in order, the bad with the reason why, wherever it lies."""

import csv
import io
import json
import os
import subprocess
import sys
import tempfile
import unicodedata
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from hypothesis import example, given, settings
from hypothesis import strategies as st
from served_fixtures import brightness, random_profile
from test_archives import MORE, ZIPS, write_zip
from test_photos import WARNED_OF, reason

from catdog.answers import asking, inference
from catdog.answers.classifier import Classifier
from catdog.base.errors import UserError
from catdog.base.text import printable
from catdog.commands import prediction
from catdog.photographs import photos, shards
from catdog.preparation import archives

SIDE = 32


def photograph(brightness: int, *, width: int = 90, height: int = 70) -> bytes:
    rng = np.random.default_rng(brightness)
    image = np.clip(brightness + rng.integers(-20, 20, (height, width, 3)), 0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", image)[1].tobytes()


def test_rows_keep_the_order_of_files_beyond_one_batch(tmp_path):
    levels = list(range(30, 230, 2))
    np.random.default_rng(0).shuffle(levels)
    for index, level in enumerate(levels):
        (tmp_path / f"{index:03}.jpg").write_bytes(photograph(level))
    batches: list[int] = []
    rows = list(prediction.predict([tmp_path], model=brightness(batches)))
    assert [Path(row.path).name for row in rows] == [f"{i:03}.jpg" for i in range(100)]
    assert [row.probability * 255 for row in rows] == pytest.approx(levels, abs=3)
    assert all(row.label == ("dog" if row.probability >= 0.5 else "cat") and row.error == "" for row in rows)
    assert batches == [16] * 6 + [4]


def test_bad_files_get_a_reason_and_do_not_shift_the_others(tmp_path):
    good = {"a.jpg": 40, "c.jpg": 200, "e.jpg": 90}
    for name, level in good.items():
        (tmp_path / name).write_bytes(photograph(level))
    (tmp_path / "b.jpg").write_bytes(b"")
    (tmp_path / "d.txt").write_text("not a photograph")
    (tmp_path / "f.jpg").write_bytes(photograph(50)[:-300])
    (tmp_path / "g.zip").write_bytes(b"PK not a zip")
    (tmp_path / "h.jpg").symlink_to("nowhere")
    rows = {Path(row.path).name: row for row in prediction.predict([tmp_path], model=brightness())}
    assert list(rows) == ["a.jpg", "b.jpg", "c.jpg", "d.txt", "e.jpg", "f.jpg", "g.zip", "h.jpg"]
    for name, level in good.items():
        assert rows[name].probability * 255 == pytest.approx(level, abs=3)
    assert rows["b.jpg"] == (str(tmp_path / "b.jpg"), "", None, None, "empty")
    assert rows["d.txt"].error == "not an image"
    assert rows["f.jpg"].error == "truncated"
    assert "cannot be read as an archive" in rows["g.zip"].error
    assert rows["h.jpg"].error == "not found"


def test_files_folders_and_archives_in_the_order_given(tmp_path):
    folder = tmp_path / "folder" / "deep"
    folder.mkdir(parents=True)
    (folder / "x.jpg").write_bytes(photograph(60))
    (folder / ".hidden").write_bytes(b"")
    single = tmp_path / "single.png"
    single.write_bytes(photograph(120))
    archive = tmp_path / "archive.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("inside/y.jpg", photograph(180))
        opened.writestr("inside/z.jpg", b"nothing")
    given = [archive, single, tmp_path / "missing.jpg", tmp_path / "folder"]
    rows = list(prediction.predict(given, model=brightness()))
    assert [Path(row.path).relative_to(tmp_path).as_posix() for row in rows] == [
        "archive.zip/inside/y.jpg",
        "archive.zip/inside/z.jpg",
        "single.png",
        "missing.jpg",
        "folder/deep/x.jpg",
    ]
    assert [row.error for row in rows] == ["", "not an image", "", "not found", ""]


def test_an_archive_stays_open_while_it_is_read(tmp_path, monkeypatch):
    """Threads that open one at the same moment have a file each, of which one is kept."""
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as opened:
        opened.writestr("a.jpg", photograph(180))
    monkeypatch.setattr(archives, "_open", archives._open.__wrapped__)  # none is kept
    assert [row.error for row in prediction.predict([tmp_path], model=brightness())] == [""]


def test_a_folder_that_cannot_be_read_gets_a_row(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.jpg").write_bytes(photograph(60))
    scandir = os.scandir

    def refusing(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    rows = list(prediction.predict([tmp_path], model=brightness()))
    assert [(Path(row.path).name, row.error) for row in rows] == [
        ("a.jpg", ""),
        ("closed", "folder can't be read: Permission denied"),
    ]


def test_a_threshold_of_ones_own(tmp_path):
    (tmp_path / "a.jpg").write_bytes(photograph(180))
    labels = [next(iter(prediction.predict([tmp_path], model=brightness(), threshold=t))).label for t in (0.9, 0.1)]
    assert labels == ["cat", "dog"]


def test_nothing_but_bad_files_never_reaches_the_model(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    batches: list[int] = []
    assert [row.error for row in prediction.predict([tmp_path], model=brightness(batches))] == ["empty"]
    assert batches == []


@pytest.mark.parametrize("count", [0, 1, 16, 17, 256, 257])
def test_any_number_of_photographs_is_answered(tmp_path, count):
    for index in range(count):
        (tmp_path / f"{index:03}.jpg").write_bytes(photograph(30 + index % 200, width=40, height=40))
    batches: list[int] = []
    rows = list(prediction.predict([tmp_path], model=brightness(batches)))
    assert [Path(row.path).name for row in rows] == [f"{index:03}.jpg" for index in range(count)]
    assert [row.probability * 255 for row in rows] == pytest.approx([30 + i % 200 for i in range(count)], abs=3)
    assert sum(batches) == count
    assert set(batches[:-1]) <= {16}


@pytest.mark.parametrize(
    "bad", [{0}, {39}, {0, 1, 2}, {15}, {16}, set(range(16)), set(range(10, 30)), set(range(1, 40))]
)
def test_bad_files_first_last_and_between_keep_their_places(tmp_path, bad):
    for index in range(40):
        data = b"nothing" if index in bad else photograph(40 + 4 * index, width=40, height=40)
        (tmp_path / f"{index:02}.jpg").write_bytes(data)
    rows = list(prediction.predict([tmp_path], model=brightness()))
    assert [Path(row.path).name for row in rows] == [f"{index:02}.jpg" for index in range(40)]
    assert [row.error for row in rows] == ["not an image" if index in bad else "" for index in range(40)]
    assert all((row.label == "") == (row.probability is None) == bool(row.error) for row in rows)
    given = {index: row.probability for index, row in enumerate(rows) if row.probability is not None}
    assert {index: p * 255 for index, p in given.items()} == pytest.approx(
        {index: 40 + 4 * index for index in range(40) if index not in bad}, abs=3
    )


def test_what_prepare_refuses_as_damaged_is_refused(tmp_path):
    for index, (data, _) in enumerate(WARNED_OF.values()):
        (tmp_path / f"{index}.jpg").write_bytes(data)
    rows = list(prediction.predict([tmp_path], model=brightness()))
    assert [row.error for row in rows] == [reason(data) for data, _ in WARNED_OF.values()]
    assert [bool(row.label) for row in rows] == [not row.error for row in rows]
    assert sum(row.error.startswith("damaged: ") for row in rows) >= 4


def test_doubt_has_rows_of_its_own_and_a_threshold_stands_beside_it(tmp_path):
    levels = [40, 110, 150, 215]
    for level in levels:
        (tmp_path / f"{level:03}.jpg").write_bytes(photograph(level))

    def labels(threshold: float | None = None, **doubt: float) -> list[str]:
        return [row.label for row in prediction.predict([tmp_path], model=brightness(**doubt), threshold=threshold)]

    assert labels() == ["cat", "cat", "dog", "dog"]
    assert labels(sureness=0.7) == ["cat", "unsure", "unsure", "dog"]
    assert labels(sureness=0.7, threshold=0.1) == ["unsure", "unsure", "unsure", "dog"]
    profile = random_profile(1)
    rows = list(prediction.predict([tmp_path], model=brightness(profile=profile)))
    assert all(0 <= row.familiarity <= 1 for row in rows)
    assert labels(profile=profile, unfamiliar=1.01, sureness=0.7) == ["neither"] * 4
    assert [row.probability for row in rows] == [
        row.probability for row in prediction.predict([tmp_path], model=brightness(profile=profile, unfamiliar=1.01))
    ]


def test_only_a_few_batches_are_decoded_ahead(tmp_path):
    for index in range(320):
        (tmp_path / f"{index:03}.jpg").write_bytes(photograph(100, width=40, height=40))
    model, decoded = brightness(), []

    class Counting(Classifier):
        def pixels(self, data: bytes) -> np.ndarray:
            decoded.append(1)
            return super().pixels(data)

    rows = prediction.predict([tmp_path], model=Counting(**vars(model)))
    next(rows)
    assert len(decoded) <= (prediction._BATCHES_AHEAD + 1) * asking.BATCH
    assert len(list(rows)) == 319


ROWS = [
    prediction.Prediction("a.jpg", "dog", 0.75, 0.5, ""),
    prediction.Prediction("b.jpg", "unsure", 0.6, None, ""),
    prediction.Prediction('odd "name", with commas.jpg', "", None, None, "empty"),
]


def test_rows_as_csv_and_parquet(tmp_path):
    text = io.StringIO()
    prediction.write(ROWS, text)
    assert list(csv.reader(io.StringIO(text.getvalue()))) == [
        ["path", "label", "probability", "familiarity", "error"],
        ["a.jpg", "dog", "0.750000", "0.500000", ""],
        ["b.jpg", "unsure", "0.600000", "", ""],
        ['odd "name", with commas.jpg', "", "", "", "empty"],
    ]
    prediction.save(ROWS, tmp_path / "new" / "rows.csv")
    assert (tmp_path / "new" / "rows.csv").read_text() == text.getvalue()
    prediction.save(ROWS, tmp_path / "rows.parquet")
    table = pd.read_parquet(tmp_path / "rows.parquet")
    assert list(table.columns) == ["path", "label", "probability", "familiarity", "error"]
    assert table["probability"].tolist()[:2] == [0.75, 0.6]
    assert table["familiarity"].tolist()[0] == 0.5
    assert table[["probability", "familiarity"]].isna().to_numpy().tolist() == [[False] * 2, [False, True], [True] * 2]


def test_an_interrupted_file_does_not_appear(tmp_path):
    def broken():
        yield ROWS[0]
        raise KeyboardInterrupt

    for name in ("rows.csv", "rows.parquet"):
        with pytest.raises(KeyboardInterrupt):
            prediction.save(broken(), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_and_an_unknown_ending(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/rows\.csv can't be written"):
        prediction.save(ROWS, tmp_path / "file" / "rows.csv")
    with pytest.raises(UserError, match=r"should end in \.csv or \.parquet"):
        prediction.save(ROWS, tmp_path / "rows.txt")


def test_what_a_model_says_of_a_shard(tmp_path):
    made = [
        shards.Row(f"{i:02}", f"{i}.jpg", i % 2, photos.standardise(photograph(40 + 4 * i), image_size=64).jpeg, f"{i}")
        for i in range(40)
    ]
    shards.write(tmp_path / "test.arrow", made)
    shard = shards.Shard(tmp_path / "test.arrow")
    model = brightness()
    asked = inference.on_shard(shard, model.network, side=model.side)
    assert model.probabilities(asked) * 255 == pytest.approx([40 + 4 * i for i in range(40)], abs=3)
    assert asked.features[:, 0] == pytest.approx(model.probabilities(asked))
    assert asked.evidence.shape == (40, model.side, model.side)
    some = inference.on_shard(shard, model.network, side=model.side, rows=[7, 3, 30])
    assert some.logits == pytest.approx(asked.logits[[7, 3, 30]])


# ---- names of every kind --------------------------------------------------------------------------------------------

FORMULAS = "=+-@＝＋－＠\t\r\n"
UNSAFE = {"Cc", "Cs", "Zl", "Zp"}  # categories of Unicode: control, half a character, line and paragraph separators


def as_csv(rows: list[prediction.Prediction]) -> list[list[str]]:
    text = io.StringIO()
    prediction.write(rows, text)
    read = list(csv.reader(io.StringIO(text.getvalue(), newline="")))
    assert len(pd.read_csv(io.StringIO(text.getvalue()))) == len(read) - 1 == len(text.getvalue().splitlines()) - 1
    text.getvalue().encode()
    return read[1:]


steering = st.sampled_from(
    [*FORMULAS, "'", '"', ",", ";", "\x1b[2J", "\x85", "\u2028", "\u202e", "\0", "\udcff", "\\x1b", "é"]
)
anything = st.lists(steering | st.text(max_size=3), max_size=8).map("".join)


numbers = st.floats(0, 1) | st.none()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(anything, anything, numbers, numbers, anything), max_size=8))
@example([("=cmd|' /C calc'!A0", "", None, None, "@SUM(1)"), ("a\rb", "", None, None, "a\x1b]0;x\x07")])
@example([("", "", None, None, "")])
def test_any_text_is_as_many_rows_and_none_is_a_formula_or_steers_a_terminal(made):
    rows = [prediction.Prediction(*row) for row in made]
    read = as_csv(rows)
    assert len(read) == len(rows)
    for row, (path, *others) in zip(rows, read, strict=True):
        for cell in (path, *others):
            assert not cell.startswith(tuple(FORMULAS))
            assert not any(unicodedata.category(c) in UNSAFE for c in cell)
        assert path[path.startswith("'") :] == printable(row.path)  # one apostrophe, if any, is not the name's


@given(anything)
def test_what_is_printable_stays_as_it_is(text):
    assert printable(printable(text)) == printable(text)
    if text.isprintable():
        assert printable(text) == text


file_names = st.lists(steering | st.text(max_size=2), min_size=1, max_size=6).map("".join)


def possible(name: str) -> bool:
    try:
        return 0 < len(os.fsencode(name)) < 200 and not name.startswith(".") and not set(name) & set("/\0")
    except UnicodeEncodeError:
        return False


@settings(max_examples=50, deadline=None)
@given(st.sets(file_names.filter(possible), max_size=6))
def test_any_file_names_are_as_many_rows_and_parquet_has_them_as_they_are(names):
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            (Path(folder) / name).write_bytes(b"")
        rows = list(prediction.predict([Path(folder)], model=brightness()))
        assert len(as_csv(rows)) == len(names)
        prediction.save(rows, Path(folder) / "rows.parquet")
        exact = {f"{folder}/{name}" for name in names if name.isprintable()}
        paths = pd.read_parquet(Path(folder) / "rows.parquet")["path"]
    assert len(paths) == len(names)
    assert exact <= set(paths)


@pytest.mark.parametrize("name", ["-a\x1b[2J.zip", "=b\r.jpg", "c\udce9.tar"])
def test_names_given_from_the_folder_that_they_are_in(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(b"nothing of the kind")
    [[path, _, _, _, error]] = as_csv(list(prediction.predict([Path(name)], model=brightness())))
    assert path == ("'" if name[0] in "-=" else "") + printable(name)
    assert not any(unicodedata.category(c) in UNSAFE for c in error)


# ---- links ----------------------------------------------------------------------------------------------------------


def test_folders_behind_links_are_read_once_and_what_is_passed_over_gets_a_row(tmp_path):
    elsewhere, album = tmp_path / "elsewhere", tmp_path / "above" / "album"
    for folder in (elsewhere, album / "b"):
        folder.mkdir(parents=True)
        (folder / "x.jpg").write_bytes(photograph(60))
    for link, target in {
        "a/elsewhere": elsewhere,
        "again": elsewhere,
        "b/back": album,
        "b/up": tmp_path / "above",
        "lost": tmp_path / "nowhere",
        "round": album / "round",
    }.items():
        (album / link).parent.mkdir(exist_ok=True)
        (album / link).symlink_to(target)
    rows = prediction.predict([album], model=brightness())
    found = {Path(row.path).relative_to(album).as_posix(): row.error.replace(str(album), "album") for row in rows}
    assert found == {
        "a/elsewhere/x.jpg": "",
        "again": "the same folder as album/a/elsewhere: not read again",
        "b/back": "the same folder as album: not read again",
        "b/up": "a link to a folder above: not followed",
        "b/x.jpg": "",
        "lost": "not found",
        "round": "can't be read: Too many levels of symbolic links",
    }


def test_links_that_double_the_ways_to_a_folder_at_every_level_end(tmp_path):
    for level in range(40):
        (tmp_path / str(level)).mkdir()
    for level in range(39):
        for way in ("a", "b"):
            (tmp_path / str(level) / way).symlink_to(tmp_path / str(level + 1))
    (tmp_path / "39" / "x.jpg").write_bytes(photograph(60))
    rows = list(prediction.predict([tmp_path / "0"], model=brightness()))
    assert [row.error for row in rows if row.path.endswith("x.jpg")] == [""]
    assert len(rows) == 40


# ---- archives that lie ----------------------------------------------------------------------------------------------

PREDICT = """
import json, re, sys
from pathlib import Path
sys.path.insert(0, TESTS)
from catdog.commands import cli, prediction
from catdog.tracking import opening
from served_fixtures import brightness
opening.load = lambda *_, **__: brightness()
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
before = peak()
try:
    cli.main()
finally:
    print(json.dumps(peak() - before), file=sys.stderr)
"""


def test_catdog_predict_unpacks_no_more_than_an_archive_says(tmp_path):
    lies = [ZIPS[f"{method} that says 1,000 bytes"][0]()[0] for method in ("deflate", "bzip2", "lzma")]
    path = write_zip(tmp_path / "x.zip", [lies[i % 3]._replace(name=f"{i}.jpg") for i in range(30)])
    code = PREDICT.replace("TESTS", repr(str(ROOT / "tests")))
    command = [sys.executable, "-c", code, "predict", str(path), "--out", str(tmp_path / "rows.csv")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert "none of these could be read as a photograph" in done.stderr
    assert set(pd.read_csv(tmp_path / "rows.csv")["error"]) == {MORE}
    [grown] = [json.loads(line) for line in done.stderr.splitlines() if line.isdigit()]
    assert grown < 200 << 10  # KiB
