"""Parts of the test photographs, corrupted photographs, labels in doubt."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from served_fixtures import brightness
from training_fixtures import noise

from catdog.answers import asking, familiarity, inference
from catdog.answers.classifier import Classifier
from catdog.evaluation import corruptions, scoring, slices, suspects
from catdog.photographs import photos, shards


@pytest.fixture
def shard(tmp_path):
    return noise(tmp_path / "test.arrow", 60, seed=0)


def test_slices_hold_every_photograph_once_and_their_accuracy(tmp_path):
    rows = []
    for i in range(60):
        colour = (40, 40, 40) if i < 30 else (250, 200, 150)
        rows.append(
            shards.Row(f"{i}", f"{i}.jpg", i % 2, photos.encode(np.full((30, 40, 3), colour, np.uint8)), f"{i}")
        )
    shards.write(tmp_path / "test.arrow", rows)
    manifest = pd.DataFrame({"id": [f"{i}" for i in range(60)], "width": [400] * 40 + [200] * 20, "height": 300})
    described = slices.describe(shards.Shard(tmp_path / "test.arrow"), manifest, classes=["cat", "dog"])
    right = {"cnn": np.arange(60) >= 15, "xception": np.ones(60, bool)}
    table = slices.table(described, right, confidence=0.95)
    for _, rows_of in table.groupby(["property", "model"]):
        assert rows_of["photographs"].sum() == 60
    cnn = table[table["model"] == "cnn"].set_index(["property", "slice"])
    assert cnn.loc[("colour", "none (grey)"), "accuracy"] == 0.5
    assert cnn.loc[("colour", "colour"), "accuracy"] == 1
    assert cnn.loc[("shape", "portrait"), "photographs"] == 20
    row = cnn.loc[("colour", "none (grey)")]
    assert [row["low"], row["high"]] == scoring.wilson(15, 30, 0.95)
    slices.draw(table, tmp_path / "slices.png")
    assert (tmp_path / "slices.png").stat().st_size > 5000


@pytest.mark.parametrize("kind", corruptions.KINDS)
def test_the_stronger_the_further_from_the_photograph_and_the_same_again(kind):
    ramp = np.linspace(30, 220, 96).astype(np.uint8)
    image = np.stack([np.add.outer(ramp // 2, ramp // 2)] * 3, axis=2)
    image[::7] = 255 - image[::7]
    jpeg, away = photos.encode(image), []
    for strength in corruptions.STRENGTHS:
        made = corruptions.corrupted(jpeg, "id", kind=kind, strength=strength)
        assert made == corruptions.corrupted(jpeg, "id", kind=kind, strength=strength)
        away.append(np.abs(photos.pixels(made, 64).astype(int) - photos.pixels(jpeg, 64)).mean())
    assert away[0] > 0.5
    assert away == sorted(away)


def measured(shard: shards.Shard, models: dict[str, Classifier]) -> corruptions.Corrupted:
    """What the models say of twenty photographs, corrupted and as they are."""
    plain = {name: m.judge(inference.on_shard(shard, m.network, side=m.side)) for name, m in models.items()}
    return corruptions.measure(shard, count=20, models=models, plain=plain, confidence=0.95)


def test_accuracy_on_corrupted_photographs_is_counted(shard, tmp_path):
    always, bright = brightness(threshold=0.0), brightness(threshold=50 / 255)
    asked = {"cnn": always, "xception": bright}
    corrupted = measured(shard, asked)
    table = corrupted.table
    assert len(table) == 2 * 16
    assert (table["photographs"] == 20).all()
    ids = sorted(shard.ids)[:20]
    ones = np.mean([shard.labels[shard.ids.index(id)] for id in ids])
    assert (table[table["model"] == "cnn"]["accuracy"] == ones).all()
    for model in asked:
        mean = table[(table["model"] == model) & (table["strength"] > 0)]["accuracy"].mean()
        assert corrupted.robustness(model) == pytest.approx(mean)
    dark = table[(table["model"] == "xception") & (table["corruption"] == "dark") & (table["strength"] == 3)]
    assert dark["accuracy"].tolist() == [1 - ones]
    assert (table[["unsure", "neither"]] == 0).all(axis=None)
    corruptions.draw(table, tmp_path / "corruptions.png")
    assert (tmp_path / "corruptions.png").stat().st_size > 5000


def test_a_network_gets_all_corruptions_in_one_stream_and_each_answer_counts_in_its_place(shard, monkeypatch):
    models = {"cnn": brightness(threshold=0.5), "xception": brightness(threshold=0.45)}
    plain = {name: m.judge(inference.on_shard(shard, m.network, side=m.side)) for name, m in models.items()}
    stream, streams = asking.Network.stream, []
    monkeypatch.setattr(asking.Network, "stream", lambda self, batches: streams.append(self) or stream(self, batches))
    found = corruptions.measure(shard, count=20, models=models, plain=plain, confidence=0.95)
    assert streams == [model.network for model in models.values()]

    rows = shard.sample(20)
    trials = [(kind, strength) for kind in corruptions.KINDS for strength in corruptions.STRENGTHS]
    for name, model in models.items():
        right = np.empty((len(trials), len(rows)), bool)
        for trial, (kind, strength) in enumerate(trials):
            for place, row in enumerate(rows):
                made = corruptions.corrupted(shard.jpeg(row), shard.ids[row], kind=kind, strength=strength)
                given = model.judge(model.ask(photos.pixels(made, model.side)[None])).labels
                right[trial, place] = given[0] == shard.labels[row]
        assert found.shares[name].tolist() == right.mean(axis=0).tolist()
        of_model = found.table[(found.table["model"] == name) & (found.table["strength"] > 0)]
        assert list(zip(of_model["corruption"], of_model["strength"], strict=True)) == trials
        assert of_model["accuracy"].tolist() == right.mean(axis=1).tolist()
        assert 0 < right.mean() < 1


def test_doubt_about_corrupted_photographs_is_counted_beside_accuracy(shard):
    # No photograph is as close as those that it was tuned on.
    profile = familiarity.Profile(
        np.ones((1, 1), np.float16),
        np.array(["id"]),
        np.zeros((2, 1)),
        np.zeros((2, 0, 1), np.float16),
        np.array([2.0]),
    )
    asked = {"cnn": brightness(sureness=0.65), "xception": brightness(profile=profile, unfamiliar=0.01)}
    plain, doubtful = measured(shard, dict.fromkeys(asked, brightness())), measured(shard, asked)
    assert doubtful.table["accuracy"].tolist() == plain.table["accuracy"].tolist()
    assert doubtful.doubt("xception") == {"corrupted_unsure": 0.0, "corrupted_neither": 1.0}
    # At a quarter of the light every photograph is surely dark, and as they are none is.
    cnn = doubtful.table[doubtful.table["model"] == "cnn"].set_index(["corruption", "strength"])
    assert cnn.loc[("dark", 2), "unsure"] == 0
    assert cnn.loc[("none", 0), "unsure"] == 1
    shares = cnn.loc[[place for place in cnn.index if place[1] > 0], "unsure"]
    assert doubtful.doubt("cnn") == {"corrupted_unsure": pytest.approx(shares.mean()), "corrupted_neither": 0.0}


def test_the_interval_of_robustness_counts_photographs_and_not_their_versions():
    # Every photograph is judged alike in all of its versions, so twenty versions tell no more than one.
    shares = np.array([1.0] * 160 + [0.0] * 40)
    interval = scoring.mean_interval(shares, confidence=0.95, resamples=4000, seed=1)
    assert interval == pytest.approx(stats.norm.interval(0.95, 0.8, np.sqrt(0.8 * 0.2 / 200)), abs=0.01)
    again = scoring.mean_interval(shares, confidence=0.95, resamples=4000, seed=1)
    assert again.tolist() == interval.tolist()


def test_planted_wrong_labels_are_found(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 2
    features = np.abs(rng.normal(size=(400, 40)) + 4 * labels[:, None] * (np.arange(40) < 5)).astype(np.float32)
    wrong = rng.choice(400, 12, replace=False)
    given = labels.copy()
    given[wrong] = 1 - given[wrong]
    sure = suspects.confidence(features, given, [f"{i}" for i in range(400)], seed=0)
    assert len(set(np.argsort(sure)[:20]) & set(wrong)) >= 10

    whole = noise(tmp_path / "train.arrow", 20, seed=1)
    doubted = np.full(20, 0.9)
    doubted[[4, 7]] = 0.2, 0.1
    table = suspects.table({"train": whole}, doubted, classes=["cat", "dog"])
    assert table[["source", "label"]].to_numpy().tolist() == [["7.jpg", "dog"], ["4.jpg", "cat"]]
    left = suspects.table({"train": whole}, doubted, classes=["cat", "dog"], decided={whole.ids[7]})
    assert left["source"].tolist() == ["4.jpg"]
    suspects.draw(table, [whole], tmp_path / "suspects.png")
    suspects.draw(table.head(0), [whole], tmp_path / "none.png")
    assert (tmp_path / "suspects.png").stat().st_size > (tmp_path / "none.png").stat().st_size
