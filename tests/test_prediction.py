"""Every file gets its row: in order, the bad with the reason why, wherever it lies."""

import csv
import io
import os
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from catdog.answers import classifier, inference
from catdog.answers.classifier import Classifier
from catdog.base.errors import UserError
from catdog.commands import prediction
from catdog.photographs import photos, shards

SIDE = 32


def photograph(brightness: int, *, width: int = 90, height: int = 70) -> bytes:
    rng = np.random.default_rng(brightness)
    image = np.clip(brightness + rng.integers(-20, 20, (height, width, 3)), 0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", image)[1].tobytes()


def brightness_model(batches: list[int] | None = None) -> Classifier:
    """Its probability is the mean brightness, so that each answer tells which photograph it is for."""

    def probabilities(pixels: np.ndarray) -> np.ndarray:
        assert pixels.dtype == np.uint8
        assert pixels.shape[1:] == (SIDE, SIDE, 3)
        if batches is not None:
            batches.append(len(pixels))
        return pixels.mean(axis=(1, 2, 3)) / 255

    return Classifier(("cat", "dog"), image_size=64, side=SIDE, threshold=0.5, probabilities=probabilities)


def test_rows_keep_the_order_of_files_beyond_one_batch(tmp_path):
    levels = list(range(30, 230, 2))
    np.random.default_rng(0).shuffle(levels)
    for index, level in enumerate(levels):
        (tmp_path / f"{index:03}.jpg").write_bytes(photograph(level))
    batches: list[int] = []
    rows = list(prediction.predict([tmp_path], model=brightness_model(batches)))
    assert [Path(row.path).name for row in rows] == [f"{i:03}.jpg" for i in range(100)]
    assert [row.probability * 255 for row in rows] == pytest.approx(levels, abs=3)
    assert all(row.label == ("dog" if row.probability >= 0.5 else "cat") and row.error == "" for row in rows)
    assert batches == [32, 32, 32, 4]


def test_bad_files_get_a_reason_and_do_not_shift_the_others(tmp_path):
    good = {"a.jpg": 40, "c.jpg": 200, "e.jpg": 90}
    for name, level in good.items():
        (tmp_path / name).write_bytes(photograph(level))
    (tmp_path / "b.jpg").write_bytes(b"")
    (tmp_path / "d.txt").write_text("not a photograph")
    (tmp_path / "f.jpg").write_bytes(photograph(50)[:-300])
    (tmp_path / "g.zip").write_bytes(b"PK not a zip")
    (tmp_path / "h.jpg").symlink_to("nowhere")
    rows = {Path(row.path).name: row for row in prediction.predict([tmp_path], model=brightness_model())}
    assert list(rows) == ["a.jpg", "b.jpg", "c.jpg", "d.txt", "e.jpg", "f.jpg", "g.zip", "h.jpg"]
    for name, level in good.items():
        assert rows[name].probability * 255 == pytest.approx(level, abs=3)
    assert rows["b.jpg"] == (str(tmp_path / "b.jpg"), "", None, "empty")
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
    rows = list(prediction.predict(given, model=brightness_model()))
    assert [Path(row.path).relative_to(tmp_path).as_posix() for row in rows] == [
        "archive.zip/inside/y.jpg",
        "archive.zip/inside/z.jpg",
        "single.png",
        "missing.jpg",
        "folder/deep/x.jpg",
    ]
    assert [row.error for row in rows] == ["", "not an image", "", "not found", ""]


def test_a_folder_that_cannot_be_read_gets_a_row(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.jpg").write_bytes(photograph(60))
    scandir = os.scandir

    def refusing(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    rows = list(prediction.predict([tmp_path], model=brightness_model()))
    assert [(Path(row.path).name, row.error) for row in rows] == [
        ("a.jpg", ""),
        ("closed", "folder can't be read: Permission denied"),
    ]


def test_a_threshold_of_ones_own(tmp_path):
    (tmp_path / "a.jpg").write_bytes(photograph(180))
    labels = [
        next(iter(prediction.predict([tmp_path], model=brightness_model(), threshold=t))).label for t in (0.9, 0.1)
    ]
    assert labels == ["cat", "dog"]


def test_nothing_but_bad_files_never_reaches_the_model(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    batches: list[int] = []
    assert [row.error for row in prediction.predict([tmp_path], model=brightness_model(batches))] == ["empty"]
    assert batches == []


def test_only_a_few_batches_are_decoded_ahead(tmp_path):
    for index in range(320):
        (tmp_path / f"{index:03}.jpg").write_bytes(photograph(100, width=40, height=40))
    model, decoded = brightness_model(), []

    class Counting(Classifier):
        def pixels(self, data: bytes) -> np.ndarray:
            decoded.append(1)
            return super().pixels(data)

    rows = prediction.predict([tmp_path], model=Counting(**vars(model)))
    next(rows)
    assert len(decoded) <= 4 * classifier.BATCH
    assert len(list(rows)) == 319


ROWS = [
    prediction.Prediction("a.jpg", "dog", 0.75, ""),
    prediction.Prediction('odd "name", with commas.jpg', "", None, "empty"),
]


def test_rows_as_csv_and_parquet(tmp_path):
    text = io.StringIO()
    prediction.write(ROWS, text)
    assert list(csv.reader(io.StringIO(text.getvalue()))) == [
        ["path", "label", "probability", "error"],
        ["a.jpg", "dog", "0.750000", ""],
        ['odd "name", with commas.jpg', "", "", "empty"],
    ]
    prediction.save(ROWS, tmp_path / "new" / "rows.csv")
    assert (tmp_path / "new" / "rows.csv").read_text() == text.getvalue()
    prediction.save(ROWS, tmp_path / "rows.parquet")
    table = pd.read_parquet(tmp_path / "rows.parquet")
    assert list(table.columns) == ["path", "label", "probability", "error"]
    assert table["probability"].tolist()[0] == 0.75
    assert np.isnan(table["probability"].tolist()[1])


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
    model = brightness_model()
    answers = inference.on_shard(shard, side=model.side, probabilities=model.probabilities)
    assert answers * 255 == pytest.approx([40 + 4 * i for i in range(40)], abs=3)
