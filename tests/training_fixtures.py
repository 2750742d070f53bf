"""A tiny training, the same wherever it runs: photographs of one colour each, and a CNN of three layers."""

import functools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import mlflow
import numpy as np
import pytest
import yaml

from catdog.base import params as knobs
from catdog.base.progress import EpochBar
from catdog.photographs import augmentation, photos, shards
from catdog.tracking import store

REPOSITORY = Path(__file__).parents[1]
VARIANTS = 2
CHECKPOINT = Path("cnn.npz")
_CHANGES = {
    "prepare": {"image_size": 32},
    # Without it a photograph comes through unchanged, so that a test can tell which one it is.
    "augment": {"variants": VARIANTS}
    | {
        name: {"probability": 0.0}
        for name in augmentation.EVERY_EPOCH + augmentation.TRAINING_ONLY + augmentation.WRITTEN_ONLY
    },
    "train_cnn": {"filters": [4, 6], "image_sizes": [16, 24], "epochs": [2, 3], "patience": 3, "batch_size": 8}
    | {"precision": "float32", "learning_rate": 0.02},
    "train_xception": {"image_size": 71, "hidden": 8, "dropout": 0.4, "epochs": 3, "patience": 3, "batch_size": 4}
    | {"fine_tune_epochs": 2, "fine_tune_learning_rate": 0.001, "seeds": 2},
    "evaluate": {"bootstrap": 100, "corrupted": 4},
}


def params(**changes: dict) -> knobs.Params:
    """params.yaml of the project, made small; `changes` by section."""
    p = knobs.load(REPOSITORY / "params.yaml")
    values = p.model_dump()
    for part in (_CHANGES, changes):
        for section, knobs_ in part.items():
            for name, value in knobs_.items():
                values[section][name] = values[section][name] | value if isinstance(value, dict) else value
    return knobs.Params.model_validate(values)


def shard(path: Path, colours: list[int], *, per_photograph: int = 1) -> shards.Shard:
    """A shard of grey photographs, one per entry of `colours`; label 1 where the photograph's number is odd."""
    rows = [
        shards.Row(f"id{i}", f"{i}.jpg", i // per_photograph % 2, photos.encode(_grey(colour)), f"group{i}")
        for i, colour in enumerate(colours)
    ]
    shards.write(path, rows)
    return shards.Shard(path)


def noise(path: Path, count: int, *, seed: int) -> shards.Shard:
    """A shard of random pictures, those of label 1 somewhat redder."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        picture = rng.integers(0, 200, (32, 32, 3), dtype=np.uint8)
        picture[..., 0] += np.uint8(40 * (i % 2))
        rows.append(shards.Row(f"{seed}-{i}", f"{i}.jpg", i % 2, photos.encode(picture), f"{seed}-{i}"))
    shards.write(path, rows)
    return shards.Shard(path)


def small_xception() -> Any:
    """A small network in place of Xception's, averaged to five features, under the head that is trained on these."""
    import keras
    from keras import layers

    from catdog.training.xception import network

    keras.utils.set_random_seed(1)
    inputs = keras.Input((24, 24, 3))
    maps = layers.Conv2D(5, 3, activation="relu")(inputs)
    base = keras.Model(inputs, layers.GlobalAveragePooling2D()(maps), name="xception")
    head = network.head(params().train_xception, features=5)
    return network.xception(base, head, image_size=24)


def _grey(colour: int) -> np.ndarray:
    return np.full((32, 32, 3), colour, np.uint8)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def train(
    *,
    after: tuple[int, int] = (0, 0),
    die: Callable[[], None] = kill,
    p: knobs.Params | None = None,
    start: list[np.ndarray] | None = None,
):
    """Train the CNN in the current folder, going on from a checkpoint there.

    Args:
        after: epoch and batch after which to `die`.
        start: the weights to start with, in place of random ones.

    Returns:
        The model, the result, and the rows that `on_epoch` was given.
    """
    from catdog.training.cnn import recipe
    from catdog.training.loop import fitting
    from catdog.training.loop.checkpoints import Checkpoint

    class Deadly(EpochBar):
        def start(self, epoch: int, phase: str, steps: int) -> None:
            super().start(epoch, phase, steps)
            self.epoch = epoch

        def step(self, batch: int, logs: object = None) -> None:
            if (self.epoch, batch) == after:
                die()

    p = p or params()
    sizes = {"train": 20, "augmented": 40, "val": 10}
    data = {name: noise(Path(f"{name}.arrow"), count, seed=count) for name, count in sizes.items()}
    model = recipe.compiled(p, photographs=20)
    if start is not None:
        model.set_weights(start)
    phases = recipe.phases(p, **data)
    told: list[dict] = []
    checkpoint = Checkpoint(CHECKPOINT, fingerprint="one")
    with mock.patch.object(fitting, "EpochBar", Deadly):
        result = fitting.fit(model, phases, patience=p.train_cnn.patience, checkpoint=checkpoint, on_epoch=told.append)
    return model, result, told


@contextmanager
def writes_its_outputs_alone(stage: str) -> Iterator[None]:
    """Fail if `stage`, run meanwhile in the current folder, writes a file that dvc.yaml has not among its outputs."""
    entry = yaml.safe_load(Path("dvc.yaml").read_text())["stages"][stage]
    listed = [out if isinstance(out, str) else next(iter(out)) for out in [*entry["outs"], *entry["metrics"]]]
    allowed = (*listed, "data/checkpoints", "mlflow.db", "mlruns", ".git/", "src/")

    def state() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in Path().rglob("*") if path.is_file()}

    before = state()
    yield
    written = [path for path, time in state().items() if before.get(path) != time]
    assert [path for path in written if not path.startswith(allowed)] == []


@contextmanager
def tracked(folder: Path) -> Iterator[mlflow.MlflowClient]:
    """A project in `folder` with a store of its own, under git and without MLflow's variables in the environment."""
    before = mlflow.get_tracking_uri()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in [name for name in os.environ if name.startswith(("MLFLOW_", "DVC_"))]:
            patch.delenv(name)
        shutil.copy(Path(_empty_store().name) / "mlflow.db", folder / "mlflow.db")
        for name in ("params.yaml", "dvc.yaml"):
            shutil.copy(REPOSITORY / name, name)
        shutil.copytree(REPOSITORY / "src", "src", ignore=shutil.ignore_patterns("__pycache__"))
        for command in (["init", "-q"], ["add", "params.yaml", "dvc.yaml", "src"], ["commit", "-qm", "start"]):
            subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *command], check=True)
        yield store.connect()
        mlflow.set_tracking_uri(before)
        # MLflow sets it for its children.
        os.environ.pop("MLFLOW_TRACKING_URI", None)


@functools.cache
def _empty_store() -> tempfile.TemporaryDirectory:
    # The tables take seconds to make, so they are made once.
    folder = tempfile.TemporaryDirectory()
    mlflow.MlflowClient(f"sqlite:///{folder.name}/mlflow.db").search_experiments()
    return folder
