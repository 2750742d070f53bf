"""The whole train_xception stage against Keras' guide "Transfer learning & fine-tuning" with its Xception frozen.

The guide sends every photograph through Xception again in each of its 20 epochs, in float32 and behind augmentation
layers; our stage does so once, then trains a head on the features. Ours is what the last run of the pipeline recorded.
The guide's epoch is timed on some photographs and extrapolated, at its own 150 px and at our size. Our features are
timed in turns with it, so that a busy machine slows both. Our whole stage then runs once more, at the guide's size.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import numpy as np
from common import Figure

from catdog.base import files, params, paths
from catdog.base.errors import UserError, run
from catdog.photographs import photos, shards

# https://keras.io/guides/transfer_learning in the version that logs 20 epochs
SIDE, BATCH, EPOCHS = 150, 32, 20
ACCURACY = 0.971  # of its frozen model on validation photographs after the last epoch
GOAL = 40


def main() -> None:
    given = common.arguments(__doc__, rounds=3)
    from catdog.training.loop import precision
    from catdog.training.xception import engines, weights

    try:
        recorded = files.read_json(paths.train_metrics("xception"))
        accuracy = files.read_json(paths.EVALUATION)["xception"]["accuracy"]
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} not found: run `dvc repro`") from None
    p = params.load()
    t = p.train_xception
    train = shards.Shard(paths.TRAIN)
    photographs, val = len(train), len(shards.Shard(paths.VAL))
    own, larger = f"guide {SIDE} px", f"guide {t.image_size} px"
    counts = {"ours": 64, own: 2 * BATCH} if given.quick else {"ours": 256, own: 6 * BATCH}
    counts[larger] = 2 * BATCH

    model, _ = weights.load_xception(t.weights, image_size=t.image_size)
    policy = precision.resolve(t.precision)
    compute = engines.BUILD[engines.name()](model, image_size=t.image_size, precision=policy)

    def features() -> None:
        indices = range(min(counts["ours"], photographs))
        pixels = [photos.pixels(train.jpeg(index), t.image_size) for index in indices]
        list(compute(np.stack(pixels[start : start + 16]) for start in range(0, len(pixels), 16)))

    arms = {
        "ours": features,
        own: guide_epoch(model, train, side=SIDE, count=counts[own]),
        larger: guide_epoch(model, train, side=t.image_size, count=counts[larger]),
    }
    seconds = common.in_turns(arms, rounds=given.rounds)
    rates = {name: common.median_rate(seconds[name], counts[name]) for name in arms}

    small, small_accuracy = our_stage(p, side=SIDE, count=counts["ours"] if given.quick else None)

    ours = recorded["seconds"]
    beside = (photographs + val) / rates["ours"] + recorded["seconds_training"]
    figures = [
        Figure(
            "rate_ours", f"our features, {t.image_size} px, with decoding", rates["ours"], "photographs/s", "measured"
        ),
        Figure("ours", "ours: features of train and val, and the head", ours, "s", "recorded"),
        Figure("beside", "the same at the rate of this run", beside, "s", "extrapolated"),
    ]
    for name in (own, larger):
        key = name.removeprefix("guide ").replace(" ", "_")
        theirs = EPOCHS * photographs / rates[name]
        figures += [
            Figure(f"rate_{key}", f"{name}, training", rates[name], "photographs/s", "measured"),
            Figure(f"guide_{key}", f"{name}, {EPOCHS} epochs", theirs, "s", "extrapolated"),
            Figure(f"ratio_{key}", f"{name} against ours", theirs / ours, "x", "extrapolated", goal=GOAL),
            Figure(
                f"beside_{key}", "the same with our rate of this run", theirs / beside, "x", "extrapolated", goal=GOAL
            ),
        ]
    theirs = EPOCHS * photographs / rates[own]
    figures += [
        Figure("small", f"ours at the guide's {SIDE} px, the whole stage", small, "s", "measured"),
        Figure("ratio_small", f"{own} against ours at {SIDE} px", theirs / small, "x", "extrapolated", goal=GOAL),
        Figure(
            "accuracy_small", f"ours at {SIDE} px, on test photographs", small_accuracy, "of 1", "measured", ACCURACY
        ),
        Figure("accuracy_guide", "guide, frozen, on validation photographs", ACCURACY, "of 1", "published"),
        Figure("accuracy_ours", "ours, on test photographs", accuracy, "of 1", "recorded", goal=ACCURACY),
    ]
    notes = [
        f"Extrapolated: the guide's measured rate, {EPOCHS} epochs of {photographs:,} photographs each. Its decoding "
        "and its validation after each epoch are left out, ours are counted.",
        "The guide's accuracy is of its own size and its own split of the same collection; at our size it has none.",
    ]
    common.leave("xception", figures, notes=notes, seconds=seconds, quick=given.quick)


def our_stage(p: params.Params, *, side: int, count: int | None) -> tuple[float, float]:
    """Seconds of our stage at `side` pixels, features of train and val and the head, and its accuracy on test.

    `count`: of so many photographs of each split alone.
    """
    from catdog.training.loop.checkpoints import Checkpoint
    from catdog.training.xception import features, recipe, weights

    knobs = p.train_xception.model_copy(update={"image_size": side})
    p = p.model_copy(update={"train_xception": knobs})
    with tempfile.TemporaryDirectory(prefix="catdog-bench-") as name:
        folder = Path(name)
        splits = [shards.Shard(path) for path in (paths.TRAIN, paths.VAL, paths.TEST)]
        if count:
            splits = [common.sample(shard.path, count, folder) for shard in splits]
        train, val, test = splits
        base, origin = weights.load_xception(knobs.weights, image_size=side)

        def extract(*of: shards.Shard) -> np.ndarray:
            given = {"weights_digest": origin["sha256"], "image_size": side, "precision": knobs.precision}
            return features.extract(list(of), model=base, folder=folder, **given).rows

        started = time.perf_counter()
        to_train, to_validate = recipe.with_labels(extract(train, val), [train], val)
        head, _ = recipe.train_head(
            p,
            train=to_train,
            val=to_validate,
            photographs=len(train),
            checkpoint=Checkpoint(folder / "head.npz", fingerprint="bench"),
            on_epoch=lambda row: None,
        )
        seconds = time.perf_counter() - started
        probabilities = head.predict(extract(test), verbose=0)[:, 0]
        return seconds, float(np.mean((probabilities >= p.evaluate.threshold) == test.labels))


def guide_epoch(xception: Any, train: shards.Shard, *, side: int, count: int) -> Callable[[], object]:
    """The guide's training of `count` photographs, which lie decoded in memory as its cached dataset has them."""
    import keras
    import tensorflow as tf
    from keras import layers

    keras.config.set_dtype_policy("float32")
    base = keras.applications.Xception(include_top=False, weights=None, input_shape=(side, side, 3))
    base.set_weights(xception.get_weights())
    base.trainable = False
    inputs = keras.Input((side, side, 3))
    x = layers.RandomRotation(0.1)(layers.RandomFlip("horizontal")(inputs))
    x = base(layers.Rescaling(1 / 127.5, offset=-1)(x), training=False)
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, layers.Dense(1)(x))
    model.compile(
        keras.optimizers.Adam(),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy()],
    )
    pixels = np.stack([photos.pixels(train.jpeg(index), side) for index in range(count)]).astype(np.float32)
    labels = train.labels[:count, None].astype(np.float32)
    batches = tf.data.Dataset.from_tensor_slices((pixels, labels)).batch(BATCH).prefetch(tf.data.AUTOTUNE)
    return lambda: model.fit(batches, shuffle=False, verbose=0)


if __name__ == "__main__":
    run(main)
