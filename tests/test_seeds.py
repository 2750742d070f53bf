"""The spread of training: heads of further seeds, kept, killed and gone on with, and what evaluate makes of them."""

from pathlib import Path

import keras
import numpy as np
import pytest
import training_fixtures
from training_fixtures import params

from catdog.answers import form
from catdog.answers.classifier import probability
from catdog.base import paths
from catdog.base.progress import EpochBar
from catdog.evaluation import calibration, scoring, spread
from catdog.training.loop import checkpoints, fitting
from catdog.training.xception import recipe, seeds

COUNT, WIDTH = 40, 6
FEATURES = np.random.default_rng(0).exponential(size=(COUNT, WIDTH)).astype(np.float32)  # as Xception's, none negative
LABELS = np.arange(COUNT, dtype=np.int8) % 2
FEATURES[:, 0] += LABELS
P = params(train_xception={"seeds": 3, "epochs": 2, "learning_rate": 0.03})
GIVEN = {"train": (FEATURES, LABELS), "val": (FEATURES[:20], LABELS[:20]), "photographs": COUNT}


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trained(p=P) -> tuple[dict[int, seeds.Head], float]:
    with checkpoints.kept("xception", "one") as checkpoint:
        return seeds.train(p, **GIVEN, checkpoint=lambda seed: checkpoint(f"xception_seed_{seed}"))


def assert_same(one: dict[int, seeds.Head], other: dict[int, seeds.Head]) -> None:
    assert one.keys() == other.keys()
    for ours, theirs in zip(one.values(), other.values(), strict=True):
        np.testing.assert_array_equal(ours.val_logits, theirs.val_logits)
        for weights, its_weights in zip(ours.weights, theirs.weights, strict=True):
            np.testing.assert_array_equal(weights, its_weights)


# ---- training -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("knobs", "expected"), [({}, [8, 9]), ({"seeds": 1}, []), ({"seeds": 3, "fine_tune_blocks": 1}, [])]
)
def test_the_seeds_count_on_from_that_of_the_model(knobs, expected):
    assert list(seeds.further(params(base={"seed": 7}, train_xception={"seeds": 3} | knobs))) == expected


def test_each_seed_is_another_training_whose_head_says_what_keras_says(here):
    heads, seconds = trained()
    assert list(heads) == [8, 9]
    assert (heads[8].val_logits != heads[9].val_logits).any()
    assert 0 < seconds < 60
    assert list(paths.CHECKPOINTS.iterdir()) == []
    checkpoint = checkpoints.Checkpoint(Path("one.npz"), fingerprint="")
    alone, _ = recipe.train_head(P, **GIVEN, checkpoint=checkpoint, on_epoch=lambda row: None, seed=9)
    for weights, known in zip(alone.get_weights(), heads[9].weights, strict=True):
        np.testing.assert_array_equal(weights, known)
    said = alone.predict(FEATURES[:20], verbose=0)[:, 0]
    assert probability(heads[9].val_logits, 1) == pytest.approx(said, abs=1e-6)


def test_killed_in_its_second_seed_it_goes_on_as_if_it_had_not(here, monkeypatch):
    undisturbed, _ = trained()
    start = EpochBar.start

    def deadly(self, epoch: int, phase: str, steps: int) -> None:
        start(self, epoch, phase, steps)
        if (epoch, phase) == (2, "head, seed 9"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EpochBar, "start", deadly)
        with pytest.raises(KeyboardInterrupt):
            trained()
    done: list[tuple[str, int]] = []
    epoch = fitting._epoch
    monkeypatch.setattr(fitting, "_epoch", lambda *a: done.append((a[1].name, a[2])) or epoch(*a))
    heads, _ = trained()
    assert done == [("head, seed 9", 2)]
    assert_same(heads, undisturbed)


def test_what_is_saved_is_read_as_it_was_and_is_the_same_file_twice(here):
    heads, _ = trained()
    seeds.save(Path("one.npz"), heads)
    seeds.save(Path("two.npz"), heads)
    assert Path("one.npz").read_bytes() == Path("two.npz").read_bytes()
    assert_same(seeds.load(Path("one.npz")), heads)


def test_a_saved_model_names_nothing_of_its_training(here):
    inputs = keras.Input((71, 71, 3))
    maps = keras.layers.Conv2D(WIDTH, 3, activation="relu")(inputs)
    base = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(maps), name="xception")
    checkpoint = checkpoints.Checkpoint(Path("one.npz"), fingerprint="")
    head, _ = recipe.train_head(P, **GIVEN, checkpoint=checkpoint, on_epoch=lambda row: None)
    model = recipe.joined(params(train_xception={"image_size": 71}), base, head)
    model.save("model.keras")
    pixels = np.random.default_rng(1).integers(0, 256, (2, 71, 71, 3)).astype(np.float32)
    read = form.read(Path("model.keras"))
    assert read.predict(pixels, verbose=0) == pytest.approx(model.predict(pixels, verbose=0))
    assert head.compiled
    assert not any(layer.compiled for layer in read.layers if isinstance(layer, keras.Model))


# ---- evaluation -----------------------------------------------------------------------------------------------------


@pytest.fixture
def left(here) -> dict[int, seeds.Head]:
    """What a training leaves: the heads of further seeds, and the validation photographs."""
    heads, _ = trained()
    seeds.save(paths.model("xception") / paths.SEEDS_FILE, heads)
    training_fixtures.noise(paths.VAL, 20, seed=1)
    return heads


def test_every_seed_is_measured_as_it_would_be_served(left):
    served = {"accuracy": 0.5, "log_loss": 0.9, "brier": 0.1}
    measured = spread.measure(P, LABELS, FEATURES, served=served)["xception"]
    assert list(measured["seeds"]) == ["7", "8", "9"]
    assert measured["seeds"]["7"] == {"accuracy": 0.5, "log_loss": 0.9}
    for seed, head in left.items():
        temperature = calibration.temperature(LABELS[:20], head.val_logits)
        logits = seeds.logits(P.train_xception, head.weights, FEATURES)
        expected = scoring.score(LABELS, probability(logits, temperature), threshold=P.evaluate.threshold)
        assert measured["seeds"][str(seed)] == {key: expected[key] for key in ("accuracy", "log_loss")}
    accuracies = [metrics["accuracy"] for metrics in measured["seeds"].values()]
    assert measured["mean"]["accuracy"] == pytest.approx(np.mean(accuracies))
    assert measured["deviation"]["accuracy"] == pytest.approx(np.std(accuracies, ddof=1))
    assert spread.of_accuracy(measured) == measured["deviation"]["accuracy"]


def test_many_photographs_are_asked_about_in_parts(here, monkeypatch):
    heads, _ = trained(params(train_xception={"seeds": 2, "epochs": 1}))
    monkeypatch.setattr(seeds, "_BATCH", 7)
    again = seeds.logits(P.train_xception, heads[8].weights, FEATURES[:20])
    assert again == pytest.approx(heads[8].val_logits, abs=1e-5)


def test_a_spread_that_was_not_measured_is_none(left):
    served = {"accuracy": 0.5, "log_loss": 0.9}
    tuned = spread.measure(P, LABELS, None, served=served)  # blocks were trained, and features are those no more
    assert tuned["xception"] == {}
    (paths.model("xception") / paths.SEEDS_FILE).unlink()
    alone = spread.measure(params(evaluate={"cnn_seed_deviation": None}), LABELS, FEATURES, served=served)
    assert alone == {"cnn": {}, "xception": {}}
    assert spread.of_accuracy(alone["xception"]) is None
    known = spread.measure(params(evaluate={"cnn_seed_deviation": 0.004}), LABELS, FEATURES, served=served)
    assert spread.of_accuracy(known["cnn"]) == 0.004
