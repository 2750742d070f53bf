import base64
import io
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT
from PIL import Image
from test_prepare import BAD

from catdog.answers import classifier
from catdog.evaluation import difference, doubt, report, scoring, spread
from catdog.pictures.style import NAMES

KNOBS = {"answer_accuracy": 0.995, "confidence": 0.95, "unfamiliar": 0.01}
EVIL = '<script>alert(1)</script>"><img src=x onerror=alert(1)>/Cat & Dog'


class Page(HTMLParser):
    """What a browser would find: tags with attributes, and the text outside style."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.words, self.open = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def attributes(self, name):
        return [attrs[name] for _, attrs in self.tags if name in attrs]


AGREEMENT = {
    "engine": "OpenVINO, bfloat16",
    "other_engine": "Keras, float32",
    "photographs": 187,
    "largest_difference": 0.0321,
    "mean_difference": 0.0043,
    "flips": 3,
}


def doubted(labels, probabilities):
    given = classifier.decide(probabilities, None, threshold=0.5, sureness=0.9123, unfamiliar=None)
    return doubt.measure(labels, given, confidence=0.95) | {"corrupted_unsure": 0.234, "corrupted_neither": 0.345}


@pytest.fixture
def content(tmp_path):
    random = np.random.default_rng(0)
    labels = np.tile([0, 1], 100)
    separations = {"cnn": 0.7, "xception": 3}
    probabilities = {
        model: 1 / (1 + np.exp(-random.normal(size=200) - separation * (2 * labels - 1)))
        for model, separation in separations.items()
    }
    options = {"threshold": 0.5, "confidence": 0.95, "resamples": 200, "seed": 0}
    costs = {"parameters": 1234567, "file_bytes": 5.5e6, "milliseconds_per_photograph": 7.25, "temperature": 1.37}
    evaluation = {
        m: scoring.score(labels, p, threshold=0.5)
        | {"intervals": scoring.intervals(labels, p, **options), "train_seconds": 185.0}
        | costs
        | {"uncalibrated_log_loss": 0.987, "uncalibrated_calibration_error": 0.0876, "relative_time": 6.54}
        | {"sureness": 0.9123, "doubt": doubted(labels, p), "agreement": AGREEMENT}
        for m, p in probabilities.items()
    }
    seeds = {7: evaluation["xception"], 8: {"accuracy": 0.98765, "log_loss": 0.04321}}
    evaluation["spread"] = {"cnn": {"deviation": {"accuracy": 0.0086}}, "xception": spread.summarised(seeds)}
    evaluation["difference"] = difference.compare(
        labels,
        *probabilities.values(),
        **options,
        names=("CNN", "Xception"),
        spread=[spread.of_accuracy(measured) for measured in evaluation["spread"].values()],
    )
    history = pd.DataFrame(
        {"epoch": [1, 2], "image_size": 64, "val_loss": [1.0, 0.5], "val_accuracy": [0.6, 0.9], "seconds": 20.0}
    )
    Image.new("RGB", (8, 8), "red").save(tmp_path / "curves.png")
    return {
        "evaluation": evaluation,
        "data": {
            "source": {"kind": "folder", "path": "/photos/cats", "sha256": "ab" * 32},
            "counts": {
                "train": {"cat": 700, "dog": 701},
                "val": {"cat": 99, "dog": 98},
                "test": {"cat": 100, "dog": 100},
            },
            "reasons": {"truncated": 3, "a new reason": 4},
            "files": 1805,
            "kept": 1798,
            "sizes": {
                "cat": {
                    "photographs": 901,
                    "width": [90, 1234.5, 5000],
                    "height": [80, 300, 400],
                    "aspect": [0.5, 1, 2],
                },
                "dog": {"photographs": 904, "width": [1, 2, 3], "height": [4, 5, 6], "aspect": [0.25, 0.4, 0.5]},
            },
            "groups": {"near_duplicates": 1200, "largest": 3},
        },
        "histories": {"cnn": history, "xception": history},
        "pictures": {"curves": tmp_path / "curves.png", "roc": tmp_path / "missing.png"},
        "params": {
            "augment": {"cutmix": {"probability": 0.5}},
            "base": {"seed": 7, "classes": ["cat", "dog"]},
            "train_cnn": {"dropout": 0.2},
            "evaluate": dict(KNOBS),
            "new": {"knob": 31},
        },
        "lineage": {
            "commit": "0123abcd",
            "dirty": True,
            "digests": {"data/prepared/test.arrow": "91f2"},
            "runs": {
                "CNN": {"run_id": "r1", "link": "http://127.0.0.1:5000/#/run"},
                "Xception": {"run_id": "r2", "link": "javascript:alert(1)"},
            },
            "versions": {"Keras": "3.15.1"},
            "machine": {"cores": 2},
        },
    }


def name_first_class(content, name):
    content["params"]["base"]["classes"][0] = name
    for by_class in (content["data"]["sizes"], *content["data"]["counts"].values()):
        by_class[name] = by_class.pop("cat")


def rendered(content, tmp_path):
    path = tmp_path / "reports" / "comparison.html"
    report.render(path, **content)
    assert [p.name for p in path.parent.iterdir()] == ["comparison.html"], "nothing half-written is left"
    page = Page(path.read_text(encoding="utf-8"))
    assert page.open == [], "every tag is closed"
    return page


def test_nothing_comes_from_elsewhere(content, tmp_path):
    page = rendered(content, tmp_path)
    assert {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed", "base"} == set()
    assert page.attributes("srcset") == []
    assert "@import" not in (tmp_path / "reports" / "comparison.html").read_text()
    assert "url(" not in (tmp_path / "reports" / "comparison.html").read_text()
    sources = page.attributes("src")
    assert len(sources) == 1, "the missing picture is left out"
    prefix, encoded = sources[0].split(",")
    assert prefix == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as shown, Image.open(tmp_path / "curves.png") as drawn:
        assert np.array_equal(np.asarray(shown.convert("RGB")), np.asarray(drawn.convert("RGB")))
    assert all(attrs.get("alt") for tag, attrs in page.tags if tag == "img")


def test_the_source_comes_first_then_the_verdict(content, tmp_path):
    text = rendered(content, tmp_path).text
    body = text[text.index("Photographs:") :]
    assert body.startswith("Photographs: folder · /photos/cats · sha256 abababababab · 1,798 photographs")
    difference = content["evaluation"]["difference"]
    assert difference["better"] == "second"
    assert difference["headline"] in body[:250]
    assert "of 200 test photographs right: that is beyond chance, both of photographs and of training." in body
    assert difference["words"] in body
    assert "Drawings" not in text


def test_metrics_and_intervals_are_in_the_table(content, tmp_path):
    text = rendered(content, tmp_path).text
    for model in NAMES:
        metrics = content["evaluation"][model]
        low, high = metrics["intervals"]["accuracy"]
        assert f"{100 * metrics['accuracy']:.1f} % {100 * low:.1f}–{100 * high:.1f}" in text
        assert f"{metrics['log_loss']:.3f}" in text
    for number in ("3 min 5 s", "1,234,567", "5.5 MB", "7.2 ms", "1.37", "6.54", "0.987", "8.8 %"):
        assert text.count(number) >= 2, number
    assert "CNN takes 3 min 5 s to train, 7.2 ms for each photograph and a file of 5.5 MB; Xception takes" in text
    assert "Time to 95 % of its best until validation accuracy was that far 3 min 5 s 3 min 5 s" in text


def test_the_spread_of_training_is_told_by_seed(content, tmp_path):
    text = rendered(content, tmp_path).text
    accuracy, log_loss = (content["evaluation"]["xception"][key] for key in ("accuracy", "log_loss"))
    deviation = abs(accuracy - 0.98765) / np.sqrt(2)
    assert "CNN, 0.86 points (evaluate.cnn_seed_deviation);" in text
    assert f"Xception, {100 * deviation:.2f} points (over 2 seeds)." in text
    assert f"Seed 7 the model compared here {100 * accuracy:.2f} % {log_loss:.4f} Seed 8 98.77 % 0.0432 Mean" in text
    assert f"Standard deviation {100 * deviation:.2f} % " in text
    assert "Trained anew from other random numbers" in text


def test_a_spread_that_was_not_measured_is_told_with_the_reason(content, tmp_path):
    content["evaluation"]["spread"] = {"cnn": {}, "xception": {}}
    text = rendered(content, tmp_path).text
    assert "CNN, not measured (evaluate.cnn_seed_deviation is null);" in text
    assert "Xception, not measured (one seed alone, or blocks that were fine-tuned)." in text
    assert "Seed 7" not in text


def test_doubt_is_told_with_intervals_and_what_was_asked_for(content, tmp_path):
    text = rendered(content, tmp_path).text
    promised = "a class needs a probability of 91.2 % for answers that are right 99.5 % of the time"
    assert f"CNN: {promised} (with 95 % confidence, by the validation photographs)." in text
    assert f"Xception: {promised}" in text
    cells = {"answered": "photographs that get a class", "answered_accuracy": "of those given"}
    for key, meaning in cells.items():
        both = [content["evaluation"][model]["doubt"] for model in NAMES]
        told = [
            f"{100 * d[key]:.1f} % {100 * d['intervals'][key][0]:.1f}–{100 * d['intervals'][key][1]:.1f}" for d in both
        ]
        assert f"{meaning} {' '.join(told)}" in text
    assert (
        "Unsure, corrupted of photographs that were blurred, noisy, dark, compressed or cropped 23.4 % 23.4 %" in text
    )
    assert "Neither, corrupted likewise 34.5 % 34.5 %" in text


def test_a_level_that_no_photographs_could_show_and_none_asked_for_are_told_apart(content, tmp_path):
    content["evaluation"]["cnn"]["sureness"] = None
    text = rendered(content, tmp_path).text
    assert "CNN: the validation photographs show no level of sureness that gives answers that are right 99.5 %" in text
    assert "Xception: a class needs" in text
    content["evaluation"]["xception"]["sureness"] = None
    content["params"]["evaluate"] |= {"answer_accuracy": None, "unfamiliar": None}
    text = rendered(content, tmp_path).text
    for name in NAMES.values():
        assert f"{name}: it answers however sure it is (evaluate.answer_accuracy is null)." in text
    assert "no level of sureness" not in text


def test_what_another_engine_would_answer_is_told(content, tmp_path):
    text = rendered(content, tmp_path).text
    assert "CNN was judged by OpenVINO, bfloat16, Xception was judged by OpenVINO, bfloat16." in text
    assert "The largest differences to Keras, float32:" in text
    assert "Photographs asked about 187 187" in text
    assert "Largest difference of a probability 3.2 % 3.2 %" in text
    assert "Other verdicts photographs that get the other class 3 3" in text


def test_data_and_lineage_are_told(content, tmp_path):
    page = rendered(content, tmp_path)
    assert "1,805 files were met, 1,798 kept and 7 refused" in page.text
    assert "train 700 701 1,401" in page.text
    assert "test 100 100 200 all 899 899 1,798" in page.text
    assert "a new reason 4" in page.text
    assert "truncated the end of the file is missing 3" in page.text
    assert "Photographs measured refused copies included 901 904" in page.text
    assert "1,234 90–5,000 2 1–3" in page.text
    assert "1.00 0.50–2.00 0.40 0.25–0.50" in page.text
    assert "Groups of near duplicates each in one split, so no test is of what was learnt 1,200" in page.text
    assert "Photographs in the largest 3" in page.text
    assert "sha256 " + "ab" * 32 in page.text
    assert "git commit 0123abcd , with uncommitted changes" in page.text
    assert "data/prepared/test.arrow 91f2" in page.text
    assert "dropout 0.2" in page.text
    assert "new knob 31" in page.text, "any section is shown"
    assert page.attributes("href") == ["http://127.0.0.1:5000/#/run"], "javascript: is no link"
    assert "r2" in page.text


def test_the_pictures_of_the_data_name_the_classes(content, tmp_path):
    for key in ("sizes", "photographs_0", "photographs_1", "refused", "near_duplicates"):
        content["pictures"][key] = content["pictures"]["curves"]
    name_first_class(content, "{0} & cat")
    page = rendered(content, tmp_path)
    data = page.text[page.text.index(" Data ") :]
    assert "Training photographs: {0} & cat : A sample" in data
    assert "Training photographs: dog : A sample" in data
    headings = (
        "Sizes and shapes",
        "Training photographs: {0}",
        "Training photographs: dog",
        "Refused :",
        "Near duplicates :",
    )
    assert [data.index(heading) for heading in headings] == sorted(data.index(heading) for heading in headings)


def test_every_reason_of_prepare_has_a_meaning():
    template = report.TEMPLATE.read_text()
    assert all(f'"{reason.split(":")[0]}": "' in template for _, reason in BAD.values())


def test_drawings_are_announced(content, tmp_path):
    content["data"]["source"] = {"kind": "drawn"}
    page = rendered(content, tmp_path)
    assert "Drawings, not photographs: drawn · 1,798 drawings" in page.text
    assert "alert" in page.attributes("role")
    assert "Every number and picture on this page is of drawings" in page.text


def test_no_winner_is_made_of_chance(content, tmp_path):
    labels = np.tile([0, 1], 100)
    same = labels * 0.8 + 0.1
    content["evaluation"]["difference"] = difference.compare(
        labels, same, same, threshold=0.5, confidence=0.95, resamples=100, seed=0, names=("CNN", "Xception")
    )
    text = rendered(content, tmp_path).text
    assert "CNN and Xception cannot be told apart" in text
    assert "beyond chance" not in text


def test_hostile_names_are_only_text(content, tmp_path):
    content["data"]["source"]["path"] = EVIL
    content["data"]["reasons"] = {EVIL: 1}
    content["params"]["train_cnn"]["weights"] = EVIL
    content["lineage"]["machine"] = {EVIL: EVIL}
    content["lineage"]["runs"]["CNN"] = {"run_id": EVIL, "link": "http://x/" + EVIL}
    content["pictures"]["photographs_0"] = content["pictures"]["curves"]
    name_first_class(content, EVIL)
    page = rendered(content, tmp_path)
    assert page.text.count(EVIL) >= 5
    assert page.attributes("onerror") == []
    assert [tag for tag, _ in page.tags if tag == "script"] == []


def test_a_report_of_little_is_still_a_report(content, tmp_path):
    content["pictures"], content["data"]["reasons"] = {}, {}
    content["data"].pop("sizes")
    content["data"].pop("groups")
    for model in NAMES:
        for key in ("parameters", "temperature"):
            content["evaluation"][model].pop(key)
    text = rendered(content, tmp_path).text
    assert "Xception is better" in text
    assert "Parameters 1,234,567" not in text
    assert "Temperature" not in text


def test_nothing_is_shown_that_evaluate_does_not_depend_on(content, tmp_path, knobs):
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["evaluate"]
    content["params"] = knobs.model_dump(include=set(stage["params"]))
    words = set(rendered(content, tmp_path).text.split())
    assert {"bootstrap", "learning_rate"} <= words
    assert words & {"promote", "strategy", *knobs.promote.model_dump()} == set()
