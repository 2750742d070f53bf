"""Which devices train: what is taken, what is refused, and that two devices train as one does."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest
from training_fixtures import params

from catdog.base.errors import UserError
from catdog.base.params import load
from catdog.training.cnn import recipe
from catdog.training.loop import batches, strategies

# A processor as two devices. TensorFlow takes that in before it does anything else, so in a process of its own.
TWO_DEVICES = """
    import json
    import tensorflow as tf

    [cpu] = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

    import numpy as np
    import training_fixtures
    from catdog.training.loop import strategies

    class Stop(Exception):
        pass

    def stop():
        raise Stop

    def train(name, strategy, **interruption):
        small = training_fixtures.params
        training_fixtures.params = lambda: small(train={"strategy": strategy})
        try:
            model, result, _ = training_fixtures.train(**interruption)
        except Stop:
            return
        finally:
            training_fixtures.params = small
        np.savez(name, *model.get_weights())
        copies = [variable.value.values for variable in model.variables if "moving" in variable.path
                  and strategies.replicas(model) > 1]
        told = {
            "devices": strategies.replicas(model),
            "history": result.history.to_dict("list"),
            "apart": max([float(np.abs(a - b).max()) for a, b in copies], default=0.0),
        }
        training_fixtures.Path(name).with_suffix(".json").write_text(json.dumps(told))

    train("whole", "mirrored")
    training_fixtures.CHECKPOINT.unlink()
    train("", "mirrored", after=(4, 1), die=stop)
    checkpoint = training_fixtures.CHECKPOINT.read_bytes()
    train("resumed", "mirrored")
    training_fixtures.CHECKPOINT.write_bytes(checkpoint)
    train("moved", "auto")
"""


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """What trainings of the tiny CNN gave, by name: their `history`, their `weights`, and how they were shared."""
    folder = tmp_path_factory.mktemp("devices")
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(TWO_DEVICES)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    found = {}
    for name in ("whole", "resumed", "moved"):
        with np.load(folder / f"{name}.npz") as weights:
            found[name] = json.loads((folder / f"{name}.json").read_text()) | {"weights": list(weights.values())}
    return found


FIGURES = ["epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate"]


def test_two_devices_learn(trainings):
    whole = trainings["whole"]
    assert whole["devices"] == 2
    assert whole["history"]["epoch"] == [1, 2, 3, 4, 5]
    assert whole["history"]["train_loss"][-1] < 0.75 * whole["history"]["train_loss"][0]
    assert all(np.isfinite(weight).all() for weight in whole["weights"])


def test_two_devices_have_the_same_moving_statistics(trainings):
    assert trainings["whole"]["apart"] == 0


def test_a_training_on_two_devices_goes_on_as_if_it_had_not_been_interrupted(trainings):
    for key in FIGURES:
        np.testing.assert_allclose(trainings["resumed"]["history"][key], trainings["whole"]["history"][key], atol=1e-6)
    for ours, theirs in zip(trainings["resumed"]["weights"], trainings["whole"]["weights"], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_a_training_on_two_devices_goes_on_with_one(trainings):
    moved, whole = trainings["moved"], trainings["whole"]
    assert moved["devices"] == 1  # auto: two CPUs are no two GPUs
    for key in FIGURES:
        np.testing.assert_array_equal(moved["history"][key][:3], whole["history"][key][:3])
    assert moved["history"]["train_loss"][3:] == pytest.approx(whole["history"]["train_loss"][3:], rel=0.1)


@pytest.mark.parametrize("count", [1, 2, 7, 8])
def test_even_batches_hold_every_row_and_no_share_is_empty(count):
    rows = np.arange(count, dtype=np.float32)
    data = batches.InOrder(rows[:, None], rows, batch_size=5)
    even = strategies.EvenBatches(data, replicas=3)
    found = [even[index] for index in range(len(even))]
    assert all(len(labels) % 3 == 0 for _, labels in found)
    assert all((inputs == labels).all() for inputs, labels in found)
    labels = np.concatenate([labels for _, labels in found])[even.originals(), 0]
    np.testing.assert_array_equal(labels, rows)


def test_one_device_is_keras_itself():
    for strategy in ("auto", "one"):
        model = recipe.compiled(params(train={"strategy": strategy}), photographs=8)
        assert strategies.replicas(model) == 1
        assert not hasattr(model.variables[0].value, "values")


@pytest.mark.parametrize("gpus", [0, 1, 2])
def test_auto_shares_from_two_gpus_on(monkeypatch, gpus):
    monkeypatch.setattr(strategies, "_devices", lambda kind: ["gpu"] * gpus if kind == "GPU" else ["cpu"])
    monkeypatch.setattr(strategies, "_mirrored", lambda: keras.backend)
    monkeypatch.setattr(keras.backend, "scope", lambda: "shared", raising=False)
    assert (strategies.scope("auto") == "shared") == (gpus > 1)
    assert strategies.scope("one") != "shared"
    assert strategies.scope("mirrored") == "shared"


def test_another_backend_can_not_mirror(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(UserError, match="mirrored needs Keras on TensorFlow or JAX: set KERAS_BACKEND"):
        strategies.scope("mirrored")
    with strategies.scope("auto"):
        pass


def test_any_other_is_refused_with_what_there_is(tmp_path):
    text = (Path(__file__).parents[1] / "params.yaml").read_text()
    assert "strategy: auto" in text
    (tmp_path / "params.yaml").write_text(text.replace("strategy: auto", "strategy: multi_worker"))
    with pytest.raises(UserError, match=r"train.strategy should be 'auto', 'one' or 'mirrored'. Received: 'multi_w"):
        load(tmp_path / "params.yaml")
