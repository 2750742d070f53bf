"""Test accuracy of the CNN as served, over several seeds, on a part of the training photographs: mean, spread, minutes.

Only `base.seed` differs: weights, order, variants of every epoch and dropout follow from it, the photographs are the
same. Each training goes on from its last epoch, and each result is kept, so a bench that was interrupted goes on; other
knobs, photographs or code start it afresh.
"""

import argparse
import os
import shutil
import statistics
from pathlib import Path
from typing import Any

import common
import numpy as np
from common import Figure

from catdog.base import files, params, paths
from catdog.base.errors import run
from catdog.photographs import shards

FOLDER = paths.CHECKPOINTS / "seeds"
GOAL = 0.9
EPOCHS = [8, 14, 10, 5]  # five minutes for 2,400 photographs; validating takes a fifth of them, so there are fewer


def main() -> None:
    given = arguments()
    p = params.load(given.params)
    p = p.model_copy(update={"train_cnn": p.train_cnn.model_copy(update={"epochs": given.epochs})})
    found = [one(p, seed=seed, photographs=given.photographs) for seed in range(given.seeds)]
    accuracies, minutes = ([each[key] for each in found] for key in ("test_accuracy", "minutes"))
    deviation = statistics.stdev(accuracies) if len(found) > 1 else 0.0
    figures = [
        *(
            Figure(f"seed_{seed}", f"test accuracy, seed {seed} ({minutes[seed]:.1f} min)", value, "", "measured")
            for seed, value in enumerate(accuracies)
        ),
        Figure("mean", "mean", statistics.mean(accuracies), "", "measured", goal=GOAL),
        Figure("deviation", "standard deviation (n - 1)", deviation, "", "measured"),
        Figure("minutes", "minutes each", statistics.mean(minutes), "min", "measured"),
    ]
    notes = [
        f"{found[0]['photographs']:,} training photographs; {found[0]['test_photographs']:,} test photographs.",
        f"knobs of {given.params.name}: {p.train_cnn.model_dump_json()}",
    ]
    seconds = {"training": [60 * value for value in minutes]}
    common.leave("seeds", figures, notes=notes, seconds=seconds, quick=False)
    shutil.rmtree(FOLDER)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=common.positive, default=5, help="how many, from 0 on (%(default)s)")
    parser.add_argument("--photographs", type=common.positive, default=2400, help="to train on (%(default)s)")
    parser.add_argument(
        "--epochs",
        type=common.positive,
        nargs="+",
        default=EPOCHS,
        metavar="N",
        help="at each image size (%(default)s)",
    )
    parser.add_argument("--params", type=Path, default=paths.PARAMS, help="knobs to train with (%(default)s)")
    given = parser.parse_args()
    given.params = given.params.resolve()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before anything imports TensorFlow
    os.chdir(paths.root())
    return given


def one(p: params.Params, *, seed: int, photographs: int) -> dict[str, float]:
    """Train with one seed and measure on the test photographs, or give what was found before."""
    from catdog.training.cnn import recipe
    from catdog.training.loop import fingerprint, fitting
    from catdog.training.loop.checkpoints import Checkpoint

    p = p.model_copy(update={"base": p.base.model_copy(update={"seed": seed})})
    depends = fingerprint.of("train_cnn", p, also=f"{files.md5(paths.TEST)}-{photographs}")
    kept = FOLDER / f"{seed}.json"
    if kept.exists() and (known := files.read_json(kept))["depends"] == depends:
        return known

    variants = len(shards.Shard(paths.AUGMENTED_TRAIN)) // len(shards.Shard(paths.TRAIN))
    train = common.sample(paths.TRAIN, photographs, FOLDER)
    augmented = common.sample(paths.AUGMENTED_TRAIN, photographs, FOLDER, per_photograph=variants)
    val, test = shards.Shard(paths.VAL), shards.Shard(paths.TEST)
    model = recipe.compiled(p, photographs=len(train))
    result = fitting.fit(
        model,
        recipe.phases(p, train=train, augmented=augmented, val=val),
        patience=p.train_cnn.patience,
        checkpoint=Checkpoint(FOLDER / f"{seed}.npz", fingerprint=depends),
        on_epoch=lambda row: None,
    )
    found = {
        "depends": depends,
        "test_accuracy": accuracy(recipe.plain(model, p.train_cnn), test, p),
        "minutes": result.seconds / 60,
        "photographs": len(train),
        "test_photographs": len(test),
    }
    files.write_json(kept, found)
    (FOLDER / f"{seed}.npz").unlink()
    return found


def accuracy(model: Any, shard: shards.Shard, p: params.Params) -> float:
    """Of the model as it is served, but for the engine."""
    from catdog.answers import asking
    from catdog.training.loop import batches

    pixels = batches.Pixels([shard], size=p.train_cnn.image_sizes[-1], what="decoding test")
    parts = np.array_split(pixels.array, range(asking.BATCH, len(shard), asking.BATCH))
    answers = asking.joined(asking.by_keras(model, mirrored=p.evaluate.cnn_mirrored).stream(parts))
    return float(np.mean((answers.logits >= 0) == pixels.labels))


if __name__ == "__main__":
    run(main)
