"""`catdog predict` on files, against the forward pass alone of the same model on pixels in memory.

Predict reads, checks, decodes and shrinks each file while the model computes; both get the same photographs. Needs the
models of a run of the pipeline.
"""

import tempfile
from functools import partial
from pathlib import Path

import common
import numpy as np
import zipped
from common import Figure

from catdog.answers import classifier
from catdog.base import params, paths
from catdog.base.errors import UserError, run
from catdog.commands import prediction
from catdog.training.loop import memory

GOAL = 0.9
COUNTS = {"cnn": 1200, "xception": 120}


def main() -> None:
    given = zipped.arguments(__doc__, default="cats-and-dogs-originals-600.zip", rounds=5)
    p = params.load()
    figures, seconds = [], {}
    with tempfile.TemporaryDirectory(prefix="catdog-bench-") as folder:
        for name, count in COUNTS.items():
            count = 32 if given.quick else count
            raw = Path(folder) / name
            zipped.unpack(given.zip, raw, count=count)
            files = sorted(raw.glob("*/*"))
            model = classifier.load(
                paths.model(name) / paths.MODEL_FILE,
                classes=p.base.classes,
                image_size=p.prepare.image_size,
                threshold=p.evaluate.threshold,
            )
            pixels = np.stack([model.pixels(file.read_bytes()) for file in files])
            arms = {
                f"{name}, forward": partial(model.probabilities, pixels),
                f"{name}, predict": partial(predicted, files, model=model),
            }
            taken = common.in_turns(arms, rounds=given.rounds)
            seconds |= taken
            forward, whole = (common.median_rate(taken[arm], count) for arm in arms)
            figures += [
                Figure(f"{name}_forward", f"{name}, forward pass alone", forward, "photographs/s", "measured"),
                Figure(f"{name}_predict", f"{name}, catdog predict", whole, "photographs/s", "measured"),
                Figure(f"{name}_ratio", f"{name}, predict against forward", whole / forward, "of 1", "measured", GOAL),
            ]
            few, many = (peak(files[:part], model=model) for part in (count // 4, count))
            what = f"{name}, memory of {count // 4} files against {count}"
            figures.append(Figure(f"{name}_memory", what, few / many, "of 1", "measured", GOAL))
    notes = ["Loading the model is not timed. Memory: the most with no file behind it, the model's included."]
    common.leave("prediction", figures, notes=notes, seconds=seconds, quick=given.quick)


def peak(files: list[Path], *, model: classifier.Classifier) -> int:
    with memory.watched() as most:
        predicted(files, model=model)
    return most.bytes


def predicted(files: list[Path], *, model: classifier.Classifier) -> None:
    wrong = [row for row in prediction.predict(files, model=model) if row.error]
    if wrong:
        raise UserError(f"{wrong[0].path}: {wrong[0].error}")


if __name__ == "__main__":
    run(main)
