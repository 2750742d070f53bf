"""The training loop: what it records, what it keeps, and that a kill costs an epoch and changes nothing."""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import training_fixtures
from training_fixtures import CHECKPOINT, REPOSITORY, params

from catdog.base import files, paths
from catdog.base.errors import UserError
from catdog.training.loop import batches, fingerprint, fitting
from catdog.training.loop.checkpoints import Checkpoint, State
from catdog.training.xception import recipe

COLUMNS = ["epoch", "image_size", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate"]
TIMES = ["seconds", "photographs_per_second"]
FEATURES = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
LABELS = (FEATURES[:, 0] > 0).astype(np.int8)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A training from beginning to end: its weights, its result, and what `on_epoch` was told."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("undisturbed"))
        model, result, told = training_fixtures.train()
        return model.get_weights(), result, told


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def small(learning_rate: float = 0.05) -> keras.Model:
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1, activation="sigmoid")])
    model.compile(keras.optimizers.SGD(learning_rate), loss="binary_crossentropy", metrics=fitting.metrics())
    return model


def phase(epochs: int, **other) -> fitting.Phase:
    def load():
        def of_epoch(epoch: int) -> batches.FeatureBatches:
            return batches.FeatureBatches(FEATURES, LABELS, variants=0, batch_size=8, seed=7, epoch=epoch)

        return of_epoch, batches.InOrder(FEATURES, LABELS, batch_size=40)

    known = {"name": "at 64 px", "image_size": 64, "load": load, "photographs": 40, "steps": 5}
    return fitting.Phase(epochs=epochs, **(known | other))


def fit(model: keras.Model, phases: list[fitting.Phase], *, patience: int = 9, fingerprint: str = "one"):
    told: list[dict] = []
    checkpoint = Checkpoint(CHECKPOINT, fingerprint=fingerprint)
    return fitting.fit(model, phases, patience=patience, checkpoint=checkpoint, on_epoch=told.append), told


# ---- what is recorded, what is kept ---------------------------------------------------------------------------------


def test_the_history_has_a_row_for_each_epoch_counted_across_phases(undisturbed):
    _, result, told = undisturbed
    assert list(result.history.columns) == COLUMNS + TIMES
    assert result.history["epoch"].tolist() == [1, 2, 3, 4, 5]
    assert result.history["image_size"].tolist() == [16, 16, 24, 24, 24]
    assert result.history.to_dict("records") == told
    assert result.history["learning_rate"].nunique() == 5
    assert 0 < result.history["seconds"].sum() <= result.seconds


def test_the_best_weights_are_those_of_the_lowest_val_loss_at_the_last_size(here):
    def val(labels):
        return replace(phase(3), load=lambda: (phase(3).load()[0], batches.InOrder(FEATURES, labels, batch_size=40)))

    # Against labels turned round, every step of learning makes val_loss worse.
    model = small(1.0)
    result, _ = fit(model, [replace(val(LABELS), image_size=32, keep_best=False), val(1 - LABELS)])
    losses = result.history["val_loss"].to_numpy()
    assert losses[3:].argmin() == 0
    assert losses[:3].max() < losses[3:].min()
    assert result.best_epoch == 4
    kept = model.evaluate(batches.InOrder(FEATURES, 1 - LABELS, batch_size=40), verbose=0, return_dict=True)
    assert kept["log_loss"] == pytest.approx(losses[3], abs=1e-6)


def test_training_stops_when_patience_is_at_an_end_at_the_last_size_alone(here):
    # Nothing is learned at a rate of 0, so no epoch is better than the first of its size.
    result, _ = fit(small(0.0), [phase(4, keep_best=False), phase(9)], patience=2)
    assert result.history["epoch"].tolist() == list(range(1, 8))
    assert result.best_epoch == 5


def test_a_training_that_diverges_is_told_in_one_line(here):
    features = np.full_like(FEATURES, np.nan)
    load = phase(1).load()[0], batches.InOrder(features, LABELS, batch_size=40)
    with pytest.raises(UserError, match=r"val_loss is nan in epoch 1: .* learning_rate"):
        fit(small(), [phase(1, load=lambda: load)])
    assert not CHECKPOINT.exists()


def test_two_processes_train_the_same_to_the_last_bit(here, undisturbed):
    kept, whole, _ = undisturbed
    ended = elsewhere(
        "import numpy, training_fixtures\n"
        "model, result, _ = training_fixtures.train()\n"
        "numpy.savez('weights', *model.get_weights())\n"
        "result.history.to_pickle('history')"
    )
    assert ended.returncode == 0, ended.stderr
    pd.testing.assert_frame_equal(pd.read_pickle("history")[COLUMNS], whole.history[COLUMNS], check_exact=True)
    with np.load("weights.npz") as weights:
        for ours, theirs in zip(weights.values(), kept, strict=True):
            np.testing.assert_array_equal(ours, theirs)


# ---- going on after a kill ------------------------------------------------------------------------------------------


def assert_same(weights: list[np.ndarray], result: fitting.Result, undisturbed) -> None:
    kept, whole, _ = undisturbed
    pd.testing.assert_frame_equal(result.history[COLUMNS], whole.history[COLUMNS], rtol=1e-6, atol=1e-6)
    assert result.best_epoch == whole.best_epoch
    for ours, theirs in zip(weights, kept, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


def elsewhere(code: str) -> subprocess.CompletedProcess:
    """Run `code` in a process of its own, in the current folder."""
    path = {"PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.run([sys.executable, "-c", code], env=os.environ | path, capture_output=True, text=True)


def killed(after: tuple[int, int]) -> None:
    """Train in a process of its own that is killed."""
    ended = elsewhere(f"import training_fixtures; training_fixtures.train(after={after})")
    assert ended.returncode == -signal.SIGKILL, ended.stderr


def interrupted(after: tuple[int, int]) -> None:
    def die() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training_fixtures.train(after=after, die=die)


@pytest.mark.parametrize(("end", "after"), [(interrupted, (2, 1)), (killed, (4, 2))])
def test_a_training_ended_in_the_middle_of_an_epoch_goes_on_as_if_it_had_not(
    here, monkeypatch, undisturbed, end, after
):
    end(after)
    done = epochs_trained(monkeypatch)
    model, result, told = training_fixtures.train()
    assert done == list(range(after[0], 6))
    assert [row["epoch"] for row in told] == [1, 2, 3, 4, 5]
    assert_same(model.get_weights(), result, undisturbed)
    # The time that the killed process took is counted.
    assert result.seconds > result.history["seconds"].sum()


def test_a_training_killed_after_its_last_epoch_is_not_run_again(here, monkeypatch):
    first = small()
    result, _ = fit(first, [phase(3)])
    monkeypatch.setattr(fitting, "_epoch", None)
    again = small()
    repeated, told = fit(again, [phase(3)])
    pd.testing.assert_frame_equal(repeated.history, result.history)
    assert [row["epoch"] for row in told] == [1, 2, 3]
    np.testing.assert_array_equal(again.get_weights()[0], first.get_weights()[0])


def test_early_stopping_outlasts_a_kill(here, monkeypatch):
    phases = [phase(9), phase(2)]
    result, _ = fit(small(0.0), phases, patience=2)
    monkeypatch.setattr(fitting, "_epoch", None)
    repeated, _ = fit(small(0.0), phases, patience=2)
    assert repeated.history["epoch"].tolist() == result.history["epoch"].tolist() == [1, 2, 3]


def epochs_trained(monkeypatch) -> list[int]:
    """The epochs that are really trained from now on."""
    trained_: list[int] = []
    epoch = fitting._epoch
    monkeypatch.setattr(fitting, "_epoch", lambda *a: trained_.append(a[2]) or epoch(*a))
    return trained_


def test_another_fingerprint_starts_afresh(here, monkeypatch):
    fit(small(), [phase(2)])
    done = epochs_trained(monkeypatch)
    fit(small(), [phase(2)], fingerprint="two")
    assert done == [1, 2]


def test_a_damaged_checkpoint_starts_afresh_and_says_so(here, monkeypatch, capsys):
    fit(small(), [phase(2)])
    CHECKPOINT.write_bytes(CHECKPOINT.read_bytes()[:-100])
    done = epochs_trained(monkeypatch)
    fit(small(), [phase(2)])
    assert done == [1, 2]
    assert f"{CHECKPOINT} is damaged, so the training starts afresh" in capsys.readouterr().err


def test_no_single_damaged_byte_is_taken_for_a_good_checkpoint(here):
    fit(small(), [phase(1)])
    good = CHECKPOINT.read_bytes()
    model = small()
    model.optimizer.build(model.trainable_variables)
    whole = Checkpoint(CHECKPOINT, fingerprint="one").restore(model)
    index = good.index(b"PK\x01\x02")  # of the archive, where the names of its arrays stand
    rng = np.random.default_rng(0)
    for position in [*rng.integers(0, len(good), 100), *rng.integers(index, len(good), 100)]:
        damaged = bytearray(good)
        damaged[position] ^= 0xFF
        CHECKPOINT.write_bytes(damaged)
        found = Checkpoint(CHECKPOINT, fingerprint="one").restore(model)
        if found:  # a byte that the archive does not need, such as a date
            assert replace(found, best_weights=[]) == replace(whole, best_weights=[])
            np.testing.assert_array_equal(found.best_weights[0], whole.best_weights[0])


def test_a_checkpoint_is_replaced_whole_or_not_at_all(here, monkeypatch):
    model = small()
    model.optimizer.build(model.trainable_variables)
    checkpoint = Checkpoint(CHECKPOINT, fingerprint="one")
    checkpoint.save(model, State(epoch=1))
    with CHECKPOINT.open("rb") as opened:
        before = CHECKPOINT.read_bytes()
        checkpoint.save(model, State(epoch=2))
        # Whoever has the old one open goes on reading the old one: the new one took its name, not its place.
        assert opened.read() == before != CHECKPOINT.read_bytes()

    def half(file, **arrays) -> None:
        file.write(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", half)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(model, State(epoch=3))
    assert Checkpoint(CHECKPOINT, fingerprint="one").restore(model).epoch == 2
    assert list(here.iterdir()) == [here / CHECKPOINT]


@pytest.fixture
def project(here) -> Path:
    """All that dvc.yaml has a training depend on, in the current folder."""
    shutil.copy(REPOSITORY / "dvc.yaml", "dvc.yaml")
    shutil.copytree(REPOSITORY / "src", "src")
    for path in (paths.TRAIN, paths.AUGMENTED_TRAIN, paths.VAL):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"photographs")
    files.write_json(paths.DATA_METRICS, {"source": {"kind": "folder", "sha256": "ab"}})
    return here


@pytest.mark.parametrize(
    "edited",
    [
        "src/train_cnn.py",
        "src/catdog/training/cnn/network.py",
        "src/catdog/training/loop/fitting.py",
        "src/catdog/photographs/photos.py",
        "data/augmented/train.arrow",
    ],
)
def test_what_dvc_calls_another_training_has_another_fingerprint(project, edited):
    before = fingerprint.of("train_cnn", params())
    with Path(edited).open("a") as file:
        file.write("# edited\n")
    assert fingerprint.of("train_cnn", params()) != before


@pytest.mark.parametrize(
    "edited",
    [
        "src/catdog/commands/demo.py",
        "src/catdog/tracking/serving.py",
        "src/catdog/base/errors.py",
        "src/catdog/training/xception/network.py",
        "src/catdog/training/cnn/.network.py.swp",
    ],
)
def test_what_dvc_calls_the_same_training_keeps_its_fingerprint(project, edited):
    before = fingerprint.of("train_cnn", params())
    with Path(edited).open("a") as file:
        file.write("# edited\n")
    assert fingerprint.of("train_cnn", params()) == before


def test_the_fingerprint_follows_params_source_and_weights(project):
    one = fingerprint.of("train_cnn", params())
    assert fingerprint.of("train_cnn", params(evaluate={"threshold": 0.4}, train_xception={"dropout": 0.1})) == one
    others = [
        fingerprint.of("train_cnn", params(train_cnn={"dropout": 0.3})),
        fingerprint.of("train_cnn", params(base={"seed": 8})),
        fingerprint.of("train_cnn", params(), also="other weights"),
    ]
    files.write_json(paths.DATA_METRICS, {"source": {"kind": "folder", "sha256": "cd"}})
    assert fingerprint.of("train_cnn", params()) == one
    files.write_json(paths.DATA_METRICS, {"source": {"kind": "drawn", "sha256": "ab"}})
    others.append(fingerprint.of("train_cnn", params()))
    assert len({one, *others}) == 5


# ---- Xception -------------------------------------------------------------------------------------------------------


def test_the_head_learns_and_a_second_training_is_the_same(here):
    p = params(train_xception={"epochs": 5, "learning_rate": 0.03, "hidden": 0})
    features = np.exp(FEATURES)  # as Xception's, never negative
    twice = np.concatenate([features, np.repeat(features, 2, axis=0)])
    labels = np.concatenate([LABELS, np.repeat(LABELS, 2)])
    heads = []
    for name in ("one", "two"):
        checkpoint = Checkpoint(Path(name), fingerprint="")
        head, result = recipe.train_head(
            p,
            train=(twice, labels),
            val=(features, LABELS),
            photographs=40,
            checkpoint=checkpoint,
            on_epoch=lambda row: None,
        )
        heads.append(head)
    assert result.history["val_accuracy"].iloc[-1] > 0.7
    assert result.history["val_loss"].is_monotonic_decreasing
    np.testing.assert_array_equal(heads[0].get_weights()[0], heads[1].get_weights()[0])


@pytest.mark.parametrize("better", [True, False])
def test_fine_tuning_counts_on_and_keeps_the_head_where_it_was_better(here, better):
    """With a small network in place of Xception: its last block is trained, under the same names."""
    from catdog.training.xception import network

    keras.utils.set_random_seed(0)
    inputs = keras.Input((71, 71, 3))
    x = keras.layers.SeparableConv2D(4, 3, strides=8, activation="relu", name="block14_sepconv1")(inputs)
    base = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    p = params(train_xception={"hidden": 0, "fine_tune_blocks": 1, "fine_tune_learning_rate": 0.01})
    head = network.head(p.train_xception, features=4)
    model = network.xception(base, head, image_size=71)
    train, val = (training_fixtures.noise(Path(f"{n}.arrow"), n, seed=n) for n in (12, 6))
    before = model.get_weights()
    rows = [{"epoch": e, "image_size": 71, "val_loss": 9.0 if better else 0.0, "val_accuracy": 0.5} for e in (1, 2, 3)]
    of_head = fitting.Result(history=pd.DataFrame(rows), best_epoch=1, seconds=5.0)
    result = recipe.fine_tune(
        p,
        model,
        base,
        of_head,
        train=[train],
        val=val,
        checkpoint=Checkpoint(CHECKPOINT, fingerprint=""),
        on_epoch=rows.append,
    )
    assert [row["epoch"] for row in rows] == result.history["epoch"].tolist() == [1, 2, 3, 4, 5]
    assert result.seconds > 5
    moved = any((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))
    assert (result.best_epoch > 3, moved) == (better, better)
