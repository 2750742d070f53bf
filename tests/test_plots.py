import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from catdog.answers import classifier
from catdog.evaluation import calibration, difference, doubt, plots, scoring, tradeoffs
from catdog.photographs import photos, shards
from catdog.pictures import sheets, style, wording

CLASSES = ["cat", "dog"]


def a_history(epochs=6):
    epoch = np.arange(1, epochs + 1)
    return pd.DataFrame(
        {
            "epoch": epoch,
            "image_size": np.where(epoch <= 3, 64, 96),
            "train_loss": 1 / epoch,
            "train_accuracy": 1 - 0.5 / epoch,
            "val_loss": 1.1 / epoch,
            "val_accuracy": 1 - 0.6 / epoch,
            "learning_rate": 0.001,
            "seconds": 3.0,
            "photographs_per_second": 100.0,
        }
    )


def drawn_by(name, path, *, epochs=6, separation=1.0):
    """Draw the plot `name` of two made-up models."""
    random = np.random.default_rng(0)
    labels = np.tile([0, 1], 40)
    options = {"threshold": 0.5, "confidence": 0.95, "resamples": 100, "seed": 0}
    probabilities, evaluation = {}, {}
    for model in style.NAMES:
        probabilities[model] = 1 / (1 + np.exp(-random.normal(size=80) - separation * (2 * labels - 1)))
        evaluation[model] = scoring.score(labels, probabilities[model], threshold=0.5) | {
            "intervals": scoring.intervals(labels, probabilities[model], **options),
            "train_seconds": 60.0,
            "temperature": 1.2,
            "uncalibrated_calibration_error": 0.01,
            "doubt": doubt.measure(labels, decided(probabilities[model]), confidence=0.95),
        }
    evaluation["difference"] = difference.compare(labels, *probabilities.values(), **options)
    histories = dict.fromkeys(probabilities, a_history(epochs))

    match name:
        case "curves":
            plots.curves(histories, path)
        case "roc" | "precision_recall":
            tables = {model: tradeoffs.table(name, labels, p) for model, p in probabilities.items()}
            resampled = {"confidence": 0.95, "resamples": 20, "seed": 0}
            bands = {model: tradeoffs.band(name, labels, p, **resampled) for model, p in probabilities.items()}
            plots.tradeoff(name, tables, bands, evaluation, path)
        case "confusions":
            counted = {"threshold": 0.5, "classes": CLASSES}
            tables = {model: scoring.confusion_table(labels, p, **counted) for model, p in probabilities.items()}
            plots.confusions(tables, path, classes=CLASSES)
        case "reliability":
            bins = {m: calibration.reliability_table(labels, p, confidence=0.95) for m, p in probabilities.items()}
            plots.reliability(bins, bins, evaluation, path, note="Drawings")
        case "doubt":
            tables = {model: curve(labels, p) for model, p in probabilities.items()}
            doubt.draw(tables, evaluation, path, wanted=0.995, note="Drawings")
        case "cost":
            plots.cost(evaluation, histories, path)
        case "comparison":
            plots.comparison(evaluation, histories, path, note="Drawings")


def decided(probabilities):
    """The labels that a model gives that wants to be 80 % sure."""
    return classifier.decide(probabilities, None, threshold=0.5, sureness=0.8, unfamiliar=None)


def curve(labels, probabilities):
    sure, right = doubt.sureness(probabilities, threshold=0.5), (probabilities >= 0.5) == labels
    return doubt.risk_coverage(sure, right, confidence=0.95)


def the_pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def has_colour(path, colour):
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return bool((np.abs(the_pixels(path) - wanted).max(axis=2) < 4).any())


PLOTS = ["curves", "roc", "precision_recall", "confusions", "reliability", "doubt", "cost", "comparison"]


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_shows_both_models_and_has_the_same_bytes_each_time(name, tmp_path):
    one, other = tmp_path / "folder" / "one.png", tmp_path / "other.png"
    drawn_by(name, one)
    drawn_by(name, other)
    assert one.read_bytes() == other.read_bytes()
    assert "Software" not in Image.open(one).info
    assert Image.open(one).width >= 600
    assert has_colour(one, style.COLOURS["cnn"]) or name == "confusions"
    assert has_colour(one, style.COLOURS["xception"]) or name == "confusions"
    assert [p.name for p in one.parent.iterdir()] == ["one.png"], "nothing half-written is left"


@pytest.mark.parametrize("name", PLOTS)
@pytest.mark.parametrize(("epochs", "separation"), [(1, 20.0), (2, -20.0)])
def test_a_plot_stands_the_extremes(name, epochs, separation, tmp_path):
    drawn_by(name, tmp_path / "x.png", epochs=epochs, separation=separation)
    assert Image.open(tmp_path / "x.png").width >= 600


def test_calibration_is_told_before_and_after(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(style, "legend", lambda figure, entries, **_: told.extend(entries))
    drawn_by("reliability", tmp_path / "x.png")
    words = [text for *_, text in told if text.startswith("CNN")]
    assert len(words) == 1
    assert re.fullmatch(r"CNN: off by 1\.0 %, then [\d.]+ % \(temperature 1\.20\)", words[0])


def test_where_each_model_answers_is_told_and_what_was_asked_for(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(style, "legend", lambda axes, entries, **_: told.extend(text for *_, text in entries))
    labels, probabilities = np.tile([0, 1], 50), np.tile([0.1, 0.95], 50)
    probabilities[:20] = 0.3  # ten wrong, twenty unsure
    metrics = {m: {"doubt": doubt.measure(labels, decided(probabilities), confidence=0.95)} for m in style.NAMES}
    tables = dict.fromkeys(style.NAMES, curve(labels, probabilities))
    doubt.draw(tables, metrics, tmp_path / "x.png", wanted=0.995)
    words = "answers 80.0 %, right 100.0 % of the time"
    assert told == [f"CNN: {words}", f"Xception: {words}", "asked for: 99.5 %"]
    told.clear()
    doubt.draw(tables, metrics, tmp_path / "x.png", wanted=None)
    assert told == [f"CNN: {words}", f"Xception: {words}"]


def test_a_note_is_written_in_red(tmp_path):
    for note in ("", "Drawings"):
        plots.curves({"cnn": a_history()}, tmp_path / "x.png", note=note)
        assert has_colour(tmp_path / "x.png", "#b42318") == bool(note)


def test_a_sheet_shows_every_image_in_its_colour_and_shape(tmp_path):
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0)]
    images = [np.full((20, 40, 3), colour, np.uint8) for colour in colours]
    blocks = [sheets.Block(images, ["a", "b", "a very long name " * 5, "кот\né"])]
    path, again = tmp_path / "sheet.png", tmp_path / "again.png"
    for file in (path, again):
        sheets.block_sheet(blocks, file, title="t", columns=3, cell=100)
    sheet = the_pixels(path)
    for colour in colours:
        rows, columns = np.nonzero((sheet == colour).all(axis=2))
        assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (50, 100)
    assert path.read_bytes() == again.read_bytes()


def test_a_sheet_of_nothing_says_so(tmp_path):
    sheets.block_sheet([], tmp_path / "none.png", title="Mistakes")
    assert Image.open(tmp_path / "none.png").height > 50


def test_a_long_caption_keeps_both_ends():
    font = sheets._font(14)
    shown = sheets._shortened("PetImages/Dog/a-long-name-of-a-file-1234.jpg", font, 170)
    assert shown.startswith("PetIm")
    assert shown.endswith("1234.jpg")
    assert font.getlength(shown) <= 170
    assert sheets._shortened("short", font, 170) == "short"


def test_variants_stand_beside_their_own_original(tmp_path):
    def row(number, shade):
        jpeg = photos.encode(np.full((30, 30, 3), shade, np.uint8))
        return shards.Row(id=str(number), source=f"{number}.jpg", label=0, image=jpeg, group="g")

    shards.write(tmp_path / "train.arrow", [row(0, 40), row(1, 200)])
    shards.write(tmp_path / "variants.arrow", [row(0, 60), row(0, 80), row(1, 180), row(1, 160)])
    originals, variants = shards.Shard(tmp_path / "train.arrow"), shards.Shard(tmp_path / "variants.arrow")
    sheets.variants_sheet(originals, variants, tmp_path / "x.png", shown=8)
    line = the_pixels(tmp_path / "x.png")[100, :, 0]
    inside = [int(line[12 + 182 * column + 85]) for column in range(6)]
    assert inside == pytest.approx([40, 60, 80, 200, 180, 160], abs=3)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.44, "0.4 s"), (42, "42 s"), (59.99, "60 s"), (60, "1 min"), (185, "3 min 5 s"), (7800, "2 h 10 min")],
)
def test_duration(seconds, words):
    assert wording.duration(seconds) == words


def test_percent_never_says_100_of_less():
    assert [wording.percent(x) for x in (0.5, 0.97312, 0.9996, 1)] == ["50.0 %", "97.3 %", "99.96 %", "100.0 %"]


def test_megabytes_and_milliseconds():
    assert [wording.megabytes(x) for x in (13_658_360, 3.5e8, 1.28e9)] == ["13.7 MB", "350 MB", "1.3 GB"]
    assert [wording.milliseconds(x) for x in (7.25, 67.2)] == ["7.2 ms", "67 ms"]


def test_what_every_stage_draws_with_is_light_to_import():
    heavy = {"tensorflow", "mlflow", "matplotlib", "pandas", "scipy"}
    code = f"import sys, catdog.pictures.style; print(*({heavy} & set(sys.modules)))"
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert imported.stdout.strip() == ""
