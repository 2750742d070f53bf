"""Time to 90 % and 95 % validation accuracy: our CNN against Keras' example "Image classification from scratch".

Ours is what the last run of the pipeline recorded. The example's network, input and optimizer are set up as published
and timed on photographs of our training shard; that rate, over as many epochs of all our photographs as its published
log needs, is an extrapolation. Our own epochs are timed in turns with it, so that a busy machine slows both.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import pandas as pd
from common import Figure

from catdog.base import files, params, paths
from catdog.base.errors import UserError, run
from catdog.photographs import shards

# https://keras.io/examples/vision/image_classification_from_scratch as of November 2022. Its log is the better one:
# with Adam at 3e-4 and dropout 0.25, as since Keras 3, a published log reaches 90 % at epoch 8 and 95 % never.
SIDE, BATCH, RATE = 180, 128, 1e-3
EPOCHS_TO = {0.90: 7, 0.95: 22}  # of val_accuracy, by its published log
BEST = 0.9575  # of its 25 epochs
GOAL = 20


def main() -> None:
    given = common.arguments(__doc__, rounds=3)
    try:
        history, recorded = pd.read_csv(paths.history("cnn")), files.read_json(paths.train_metrics("cnn"))
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} not found: run `dvc repro`") from None
    photographs = len(shards.Shard(paths.TRAIN))
    ours_count, theirs_count = (128, BATCH) if given.quick else (512, 2 * BATCH)

    with tempfile.TemporaryDirectory() as folder:
        arms = our_epochs(history, count=ours_count, folder=Path(folder))
        arms["example"] = example_epoch(count=theirs_count, folder=Path(folder))
        seconds = common.in_turns(arms, rounds=given.rounds)
    rates = {
        name: common.median_rate(seconds[name], theirs_count if name == "example" else ours_count) for name in arms
    }

    # Decoding and checkpoints lie between the epochs. All of it is counted, however early the accuracy is reached.
    between = recorded["seconds"] - history["seconds"].sum()
    figures = [
        *(
            Figure(f"rate_{name}", f"training, {name}", rate, "photographs/s", "measured")
            for name, rate in rates.items()
        ),
        Figure("between", "ours, outside the epochs", between, "s", "recorded"),
    ]
    for target, their_epochs in EPOCHS_TO.items():
        theirs = their_epochs * photographs / rates["example"]
        epochs = epochs_to(history, target)
        name = f"{target:.0%}"
        figures.append(
            Figure(f"example_{name}", f"example to {name}, epoch {their_epochs}", theirs, "s", "extrapolated")
        )
        if epochs is None:
            print(f"our last run does not reach {name}")
            continue
        until = history.head(epochs)
        ours = until["seconds"].sum() + between
        beside = sum(photographs / rates[f"ours {size} px"] for size in until["image_size"]) + between
        figures += [
            Figure(f"ours_{name}", f"ours to {name}, epoch {epochs}", ours, "s", "recorded"),
            Figure(f"ratio_{name}", f"example against ours, to {name}", theirs / ours, "x", "extrapolated", goal=GOAL),
            Figure(
                f"beside_{name}", "the same with our rates of this run", theirs / beside, "x", "extrapolated", goal=GOAL
            ),
        ]
    figures += [
        Figure("example_best", "example, best val_accuracy", BEST, "of 1", "published"),
        Figure("ours_best", "ours, best val_accuracy", history["val_accuracy"].max(), "of 1", "recorded"),
    ]
    notes = [
        f"Extrapolated: the example's measured rate over {photographs:,} photographs an epoch. Its published epochs "
        "have 18,728; its validation after each epoch is left out, ours is counted.",
        "Ours is without the augment stage, which writes the variants before training.",
    ]
    common.leave("cnn", figures, notes=notes, seconds=seconds, quick=given.quick)


def epochs_to(history: pd.DataFrame, accuracy: float) -> int | None:
    """The first epoch, from 1, whose val_accuracy is that; None where there is none."""
    reached = (history["val_accuracy"] >= accuracy).to_numpy()
    return int(reached.argmax()) + 1 if reached.any() else None


def our_epochs(history: pd.DataFrame, *, count: int, folder: Path) -> dict[str, Callable[[], object]]:
    """Our training of `count` photographs at each image size of the last run, its input included."""
    from catdog.training.cnn import recipe

    p = params.load()
    sizes = history.groupby("image_size").size()
    knobs = p.train_cnn.model_copy(update={"image_sizes": sizes.index.tolist(), "epochs": sizes.tolist()})
    p = p.model_copy(update={"train_cnn": knobs})
    train = common.sample(paths.TRAIN, count, folder)
    augmented = common.sample(paths.AUGMENTED_TRAIN, count, folder, per_photograph=p.augment.variants)
    val = common.sample(paths.VAL, 1, folder)
    model = recipe.compiled(p, photographs=count)

    def arm(phase: Any) -> Callable[[], object]:
        batches_of, _ = phase.load()
        return lambda: model.fit(batches_of(1), shuffle=False, verbose=0)

    phases = recipe.phases(p, train=train, augmented=augmented, val=val)
    return {f"ours {phase.image_size} px": arm(phase) for phase in phases}


def example_epoch(*, count: int, folder: Path) -> Callable[[], object]:
    """The example's training of `count` photographs, from files in class folders."""
    import keras
    import tensorflow as tf
    from keras import layers

    keras.config.set_dtype_policy("float32")
    augmentation = [layers.RandomFlip("horizontal"), layers.RandomRotation(0.1)]

    def vary(images: Any, labels: Any) -> tuple[Any, Any]:
        for layer in augmentation:
            images = layer(images)
        return images, labels

    files_ = common.write_folders(common.sample(paths.TRAIN, count, folder), folder / "files")
    batches = keras.utils.image_dataset_from_directory(files_, image_size=(SIDE, SIDE), batch_size=BATCH, verbose=False)
    batches = batches.map(vary, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
    model = example_network()
    model.compile(
        keras.optimizers.Adam(RATE),
        loss=keras.losses.BinaryCrossentropy(),
        metrics=[keras.metrics.BinaryAccuracy()],
    )
    return lambda: model.fit(batches, shuffle=False, verbose=0)


def example_network() -> Any:
    """A small Xception: a stem, three blocks of two separable convolutions around a residual, one more, the verdict."""
    import keras
    from keras import layers

    inputs = keras.Input((SIDE, SIDE, 3))
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.Conv2D(128, 3, strides=2, padding="same")(x)
    x = layers.Activation("relu")(layers.BatchNormalization()(x))
    for filters in (256, 512, 728):
        shortcut = layers.Conv2D(filters, 1, strides=2, padding="same")(x)
        for _ in range(2):
            x = layers.SeparableConv2D(filters, 3, padding="same")(layers.Activation("relu")(x))
            x = layers.BatchNormalization()(x)
        x = layers.add([layers.MaxPooling2D(3, strides=2, padding="same")(x), shortcut])
    x = layers.SeparableConv2D(1024, 3, padding="same")(x)
    x = layers.Activation("relu")(layers.BatchNormalization()(x))
    x = layers.Dropout(0.5)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))


if __name__ == "__main__":
    run(main)
