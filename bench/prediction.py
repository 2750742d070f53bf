"""`catdog predict` on files, against the forward pass alone of the same engine, and against Keras' own batches of 32.

Predict reads, checks, decodes and shrinks each file while the model computes; the others have the pixels in memory. All
get the same photographs. Needs the models of a run of the pipeline, in the registry.
"""

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import common
import numpy as np
import zipped
from common import Figure

from catdog.answers import asking, form
from catdog.answers.classifier import Classifier
from catdog.base import parallel, paths
from catdog.base.errors import UserError, run
from catdog.commands import prediction
from catdog.tracking import opening, store, versions
from catdog.training.loop import memory

GOAL = 0.9
COUNTS = {"cnn": 1600, "xception": 192}
KERAS_BATCH = 32


def main() -> None:
    given = zipped.arguments(__doc__, default="cats-and-dogs-originals-600.zip", rounds=3)
    figures, seconds = [], {}
    with tempfile.TemporaryDirectory(prefix="catdog-bench-") as folder:
        for name, count in COUNTS.items():
            count = 32 if given.quick else count
            raw = Path(folder) / name
            zipped.unpack(given.zip, raw, count=count)
            files = sorted(raw.glob("*/*"))
            model = newest(name)
            pixels = decoded(files, model=model)
            keras = form.read(paths.model(name) / paths.MODEL_FILE)
            arms = {
                f"{name}, decode": partial(decoded, files, model=model),
                f"{name}, forward": partial(forward, pixels, model=model),
                f"{name}, predict": partial(predicted, files, model=model),
                f"{name}, keras": partial(usual_way, keras, pixels, mirrored=model.network.mirrored),
            }
            taken = common.in_turns(arms, rounds=given.rounds)
            seconds |= taken
            decode, bare, whole, usual = (common.median_rate(taken[arm], count) for arm in arms)
            figures += [
                Figure(f"{name}_decode", f"{name}, decoding alone, on threads", decode, "photographs/s", "measured"),
                Figure(f"{name}_forward", f"{name}, forward pass alone", bare, "photographs/s", "measured"),
                Figure(f"{name}_predict", f"{name}, catdog predict", whole, "photographs/s", "measured"),
                Figure(f"{name}_keras", f"{name}, Keras, {KERAS_BATCH} at once", usual, "photographs/s", "measured"),
                Figure(f"{name}_ratio", f"{name}, predict against forward", whole / bare, "of 1", "measured", GOAL),
                Figure(
                    f"{name}_slower",
                    f"{name}, predict against the slower of decoding and forward",
                    whole / min(decode, bare),
                    "of 1",
                    "measured",
                    GOAL,
                ),
                Figure(f"{name}_against_keras", f"{name}, predict against Keras", whole / usual, "x", "measured", 2),
            ]
            few, many = (peak(files[:part], model=model) for part in (count // 4, count))
            what = f"{name}, memory of {count // 4} files against {count}"
            figures.append(Figure(f"{name}_memory", what, few / many, "of 1", "measured", GOAL))
    notes = ["Loading the model is not timed. Memory: the most with no file behind it, the model's included."]
    common.leave("prediction", figures, notes=notes, seconds=seconds, quick=given.quick)


def newest(name: str) -> Classifier:
    """The newest version of one model, as every command opens it."""
    known = versions.of(store.connect(), versions.NAMES[name])
    if not known:
        raise UserError(f"{versions.NAMES[name]} has no version here: run the pipeline first (dvc repro)")
    return opening.load(versions.uri(max(known, key=lambda version: int(version.version))))


def batches(pixels: np.ndarray) -> Iterator[np.ndarray]:
    return (pixels[start : start + asking.BATCH] for start in range(0, len(pixels), asking.BATCH))


def decoded(files: list[Path], *, model: Classifier) -> np.ndarray:
    return np.stack(list(parallel.threaded(lambda file: model.pixels(file.read_bytes()), files, ahead=64)))


def forward(pixels: np.ndarray, *, model: Classifier) -> None:
    for _ in model.network.stream(batches(pixels)):
        pass


def usual_way(keras: Any, pixels: np.ndarray, *, mirrored: bool) -> None:
    """Keras asked for the same answers: about mirror images too where the model is."""
    for view in [pixels, pixels[:, :, ::-1]] if mirrored else [pixels]:
        keras.predict(view.astype(np.float32), KERAS_BATCH, verbose=0)


def peak(files: list[Path], *, model: Classifier) -> int:
    with memory.watched() as most:
        predicted(files, model=model)
    return most.bytes


def predicted(files: list[Path], *, model: Classifier) -> None:
    wrong = [row for row in prediction.predict(files, model=model) if row.error]
    if wrong:
        raise UserError(f"{wrong[0].path}: {wrong[0].error}")


if __name__ == "__main__":
    run(main)
