"""A tiny training, the same wherever it runs: photographs of one colour each, and a CNN of three layers."""

import os
import signal
from pathlib import Path

import numpy as np

from catdog import params as knobs
from catdog import photos, shards
from catdog.progress import EpochBar

REPOSITORY = Path(__file__).parents[1]
VARIANTS = 2
CHECKPOINT = Path("cnn.npz")
_CHANGES = {
    "prepare": {"image_size": 32},
    # Without it a photograph comes through unchanged, so that a test can tell which one it is.
    "augment": {"variants": VARIANTS, "flip": 0.0, "rotation": 0.0, "zoom": 0.0, "shift": 0.0}
    | {"brightness": 0.0, "contrast": 0.0},
    "train_cnn": {"filters": [4, 6], "image_sizes": [16, 24], "epochs": [2, 3], "patience": 3, "batch_size": 8}
    | {"precision": "float32", "learning_rate": 0.02},
    "train_xception": {"image_size": 71, "hidden": 8, "epochs": 3, "patience": 3, "batch_size": 4}
    | {"fine_tune_epochs": 2, "fine_tune_learning_rate": 0.001},
    "evaluate": {"bootstrap": 100},
}


def params(**changes: dict) -> knobs.Params:
    """params.yaml of the project, made small; `changes` by section."""
    p = knobs.load(REPOSITORY / "params.yaml")
    values = p.model_dump()
    for part in (_CHANGES, changes):
        for section, knob in part.items():
            values[section] |= knob
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


def _grey(colour: int) -> np.ndarray:
    return np.full((32, 32, 3), colour, np.uint8)


def train(*, kill: tuple[int, int] | None = None, fingerprint: str = "one", **changes: dict):
    """Train the CNN in the current folder, going on from a checkpoint there.

    Args:
        kill: epoch and batch after which the process ends as by `kill -9`.

    Returns:
        The model, the result, and the rows that `on_epoch` was given.
    """
    from catdog import cnn_training, training
    from catdog.checkpoints import Checkpoint

    if kill:
        training.EpochBar = _deadly(*kill)
    p = params(**changes)
    sizes = {"train": 20, "augmented": 40, "val": 10}
    data = {name: noise(Path(f"{name}.arrow"), count, seed=count) for name, count in sizes.items()}
    model = cnn_training.network(p, photographs=20)
    phases = cnn_training.phases(p, **data)
    told: list[dict] = []
    checkpoint = Checkpoint(CHECKPOINT, fingerprint=fingerprint)
    result = training.fit(model, phases, patience=p.train_cnn.patience, checkpoint=checkpoint, on_epoch=told.append)
    return model, result, told


def _deadly(epoch: int, batch: int) -> type:
    class Deadly(EpochBar):
        def start(self, epoch: int, phase: str, steps: int) -> None:
            self.epoch = epoch

        def step(self, done: int, logs: object = None) -> None:
            if (self.epoch, done) == (epoch, batch):
                os.kill(os.getpid(), signal.SIGKILL)

    return Deadly
