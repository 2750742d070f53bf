"""What people decide about photographs: the file, what prepare makes of it, and what evaluate says of it."""

import codecs
import hashlib
import json

import numpy as np
import pandas as pd
import pytest
from conftest import jpeg
from hypothesis import given
from hypothesis import strategies as st
from test_prepare import PLANTED, error, project, run

from catdog.answers.classifier import Judged
from catdog.base.errors import UserError
from catdog.evaluation import corrected
from catdog.photographs import shards
from catdog.preparation import corrections

CLASSES = ["cat", "dog"]
HEADER = "id,decision,by,when,why"
IDS = ["a" * 64, "b" * 64, "c" * 64]


def load(path, text: str | bytes) -> dict[str, corrections.Decision]:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return corrections.load(path, CLASSES)


# ---- the file -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("corrections") / "corrections.csv"


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=12)
ROWS = st.lists(
    st.tuples(st.sampled_from(IDS), st.sampled_from([*CLASSES, "neither", "as filed"]), WORDS, WORDS), max_size=8
)


@given(ROWS, st.sampled_from(",;\t"), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.booleans(), st.booleans())
def test_the_last_row_of_an_id_counts_however_the_file_was_saved(path, rows, separator, end, bom, last_end, upper):
    def cell(text: str) -> str:
        return '"' + text.replace('"', '""') + '"'

    lines = [HEADER.replace(",", separator)]
    for identity, word, by, why in rows:
        cells = [identity.upper() if upper else identity, word.upper() if upper else word, cell(by), "", cell(why)]
        lines += ["", separator.join(cells)]  # an empty line means nothing
    data = end.join(lines).encode() + end.encode() * last_end
    decisions = load(path, (codecs.BOM_UTF8 if bom else b"") + data)
    assert {identity: d.decision for identity, d in decisions.items()} == {row[0]: row[1] for row in rows}
    for number, (identity, *_) in enumerate(rows):
        if identity not in [row[0] for row in rows[number + 1 :]]:
            assert decisions[identity].line == 3 + 2 * number


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"{HEADER}\n{IDS[0]},cat,,,\nxyz,dog,,,\n", "line 3: the id should be 64 hexadecimal digits"),
        (f"{HEADER}\n\n{IDS[0]},horse,,,\n", "line 3: the decision should be cat, dog, neither or as filed. Received"),
        (f'{HEADER}\n{IDS[0]},cat,,,"two\nlines"\n{IDS[1]},,,,\n', "line 4: the decision should be"),
        (f"id,by\n{IDS[0]},me\n", "line 1: no column 'decision'"),
        (f"{HEADER}\n{IDS[0]}\n", "line 2: the decision should be"),
        (f"{HEADER}\n".encode() + b"\xe9,\n", "line 2: not UTF-8"),
        (f"{HEADER}\n{IDS[0]},d", "line 2: the decision should be"),  # cut off
    ],
)
def test_what_is_wrong_is_one_line_that_names_the_line(path, text, problem):
    with pytest.raises(UserError) as refused:
        load(path, text)
    assert f"corrections.csv, {problem}" in str(refused.value)
    assert "\n" not in str(refused.value)


@given(st.binary(max_size=300))
def test_no_bytes_whatever_crash_it(path, data):
    message = ""
    try:
        load(path, data)
    except UserError as refused:
        message = str(refused)
    assert "\n" not in message


def test_no_file_is_no_decision(tmp_path):
    assert corrections.load(tmp_path / "none.csv", CLASSES) == {}
    assert load(tmp_path / "empty.csv", "") == load(tmp_path / "header.csv", f"{HEADER}\n") == {}


# ---- prepare --------------------------------------------------------------------------------------------------------


def sha(name: str) -> str:
    return hashlib.sha256(PLANTED[name]).hexdigest()


SERVED, UNDECIDED = jpeg(200), jpeg(201)
DECIDED = {
    "Cat/0.jpg": "dog",
    "Cat/misnamed.jpg": "as filed",
    "Dog/near-1.jpg": "neither",
    "Dog/50.jpg": "neither",
    "Cat/both.jpg": "dog",
    "Cat/either.jpg": "neither",
    "Cat/twin-1.jpg": "dog",
    "Cat/empty.jpg": "cat",
}


@pytest.fixture(scope="module")
def before_and_after(tmp_path_factory):
    """Manifests of the same photographs, without decisions and with some; and the folder after."""
    folder = project(tmp_path_factory.mktemp("corrections") / "project", PLANTED)
    assert run("prepare", folder).returncode == 0
    read = {"keep_default_na": False, "dtype": str}
    before = pd.read_csv(folder / "data/prepared/manifest.csv", **read).set_index("source")
    rows = [f"{sha(name)},{decision},me,2026-01-01T00:00:00Z,looked\n" for name, decision in DECIDED.items()]
    rows += [f"{hashlib.sha256(SERVED).hexdigest()},cat,me,,\n", f"{sha('Cat/1.jpg')},dog,you,,\n"]
    rows += [f"{sha('Cat/1.jpg')},cat,me,,second thoughts\n"]
    (folder / "data/corrections.csv").write_text(f"{HEADER}\n" + "".join(rows))
    for name, data in {"dog/served.jpg": SERVED, "dog/undecided.jpg": UNDECIDED}.items():
        path = folder / "data/raw/reviewed" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    done = run("prepare", folder)
    assert done.returncode == 0, done.stderr
    return before, pd.read_csv(folder / "data/prepared/manifest.csv", **read).set_index("source"), folder


def test_decisions_count_and_no_split_moves(before_and_after):
    before, after, _ = before_and_after
    assert list(after.loc["Cat/0.jpg", ["label", "filed", "decision", "by"]]) == ["dog", "cat", "dog", "me"]
    assert list(after.loc["Cat/1.jpg", ["label", "filed", "decision"]]) == ["cat", "cat", "cat"]
    assert list(after.loc["Cat/misnamed.jpg", ["label", "decision", "reason"]]) == ["cat", "as filed", ""]
    for name in ("Dog/near-1.jpg", "Dog/50.jpg", "Cat/either.jpg"):
        assert after.loc[name, "reason"] == "set aside: neither, decided by me"
    # The class was decided on, so there is no conflict any more; one of two files with the same bytes is enough.
    assert list(after.loc["Cat/both.jpg", ["label", "reason"]]) == ["dog", ""]
    assert after.loc["Dog/both.jpg", "reason"].startswith("duplicate")
    assert list(after.loc["Dog/either.jpg", ["label", "reason"]]) == ["dog", ""]
    kept = before[before["reason"] == ""]
    assert (after.loc[kept.index, "split"] == kept["split"]).all()
    assert (after.loc[kept.index, "group"] == kept["group"]).all()
    assert list(after.loc["reviewed/dog/served.jpg", ["label", "filed", "reason"]]) == ["cat", "dog", ""]
    assert (
        after.loc["reviewed/dog/undecided.jpg", "reason"] == "not reviewed: data/corrections.csv has no decision on it"
    )


def test_decisions_are_counted_and_those_set_aside_kept_apart(before_and_after):
    _, after, folder = before_and_after
    metrics = json.loads((folder / "metrics/data.json").read_text())
    counted = metrics["corrections"]
    relabelled = after[(after["reason"] == "") & (after["label"] != after["filed"])]
    assert set(relabelled.index) == {"Cat/0.jpg", "Cat/twin-1.jpg", "Cat/both.jpg", "reviewed/dog/served.jpg"}
    assert (counted["decisions"], counted["relabelled"], counted["set_aside"], counted["as_filed"]) == (10, 4, 3, 1)
    assert sum(counted[f"relabelled_{split}"] for split in ("train", "val", "test")) == 4
    assert counted["sha256"] == hashlib.sha256((folder / "data/corrections.csv").read_bytes()).hexdigest()
    aside = shards.Shard(folder / "data/prepared/neither.arrow")
    assert set(aside.sources) == {"Dog/near-1.jpg", "Dog/50.jpg", "Cat/either.jpg"}
    labels = {}
    for split in ("train", "val", "test"):
        shard = shards.Shard(folder / f"data/prepared/{split}.arrow")
        assert not set(aside.ids) & set(shard.ids)
        labels |= dict(zip(shard.sources, shard.labels, strict=True))
    assert (labels["Cat/0.jpg"], labels["reviewed/dog/served.jpg"]) == (1, 0)
    # What review adds is no other source.
    assert metrics["source"]["files"] == len(after) - 2


def test_an_id_of_no_photograph_is_an_error_unless_it_says_of_which(tmp_path):
    folder = project(
        tmp_path / "project", {f"{name}/{n}.jpg": jpeg(n + 50 * (name == "dog")) for name in CLASSES for n in range(12)}
    )
    (folder / "data/corrections.csv").write_text(
        f"{HEADER},collection\n{IDS[0]},cat,,,,others.zip\n\n{IDS[1]},cat,,,\n"
    )
    done = run("prepare", folder)
    assert f"data/corrections.csv, line 4: no photograph here has the id {IDS[1][:12]}" in error(done)
    assert not (folder / "data/prepared/manifest.csv").exists()
    (folder / "data/corrections.csv").write_text(f"{HEADER},collection\n{IDS[0]},cat,,,,others.zip\n")
    assert run("prepare", folder).returncode == 0
    assert json.loads((folder / "metrics/data.json").read_text())["corrections"]["decisions"] == 1


# ---- evaluate -------------------------------------------------------------------------------------------------------


def shard(path, labels: list[int], first: int) -> shards.Shard:
    rows = [
        shards.Row(f"{first + n}", f"{first + n}.jpg", label, b"", f"{first + n}") for n, label in enumerate(labels)
    ]
    shards.write(path, rows)
    return shards.Shard(path)


def judged(probabilities: list[float], labels: list[int]) -> Judged:
    return Judged(np.array(probabilities), None, np.array(labels))


def test_the_test_as_it_was_filed(tmp_path):
    test, aside = shard(tmp_path / "test.arrow", [0, 1, 1, 0], 0), shard(tmp_path / "aside.arrow", [0, 1], 10)
    filed = ["cat", "cat", "dog", "cat", "cat", "dog"]  # the second test photograph is a dog, as was decided
    manifest = pd.DataFrame({"id": [*test.ids, *aside.ids], "split": ["test"] * 5 + ["train"], "filed": filed})
    manifest["decision"] = [None, "dog", None, "as filed", "neither", "neither"]
    known = {"classes": CLASSES, "threshold": 0.5, "aside": aside}
    result = corrected.as_filed(
        manifest, test, judged([0.1, 0.9, 0.9, 0.1], []), judged_aside=judged([0.2, 0.3], []), **known
    )
    assert (result["photographs"], result["changed"], result["accuracy"]) == (5, 2, pytest.approx(4 / 5))
    assert result["log_loss"] == pytest.approx(-np.log([0.9, 0.1, 0.9, 0.9, 0.8]).mean())
    assert corrected.decided(manifest) == {"1", "3", "10", "11"}
    unchanged = manifest.assign(filed=["cat", "dog", "dog", "cat", "cat", "dog"], split="train")
    unchanged.loc[:3, "split"] = "test"
    assert corrected.as_filed(unchanged, test, judged([0.1] * 4, []), judged_aside=judged([0.1] * 2, []), **known) == {}


def test_how_many_of_those_set_aside_are_answered_with_neither():
    assert corrected.neither(None, confidence=0.95) == {}
    result = corrected.neither(judged([0.1, 0.2, 0.3, 0.9], [0, 3, 3, 2]), confidence=0.95)
    assert (result["set_aside"], result["set_aside_neither"]) == (4, 0.5)
    low, high = result["intervals"]["set_aside_neither"]
    assert 0 < low < 0.5 < high < 1
