"""Training input: our decoded, freshly varied batches against image_dataset_from_directory with augmentation layers.

Photographs per second that `fit` can take with no model behind it. Keras reads JPEG files of the same photographs at
the same size and varies them in tf.data, once decoding in every epoch and once with `cache()` behind the decoding; ours
decodes once per size, before the first epoch. Then, at each size of params.yaml: our input alone, the CNN's training
step alone, both together in `fit`, and for what share of its time that `fit` waits for a batch.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import common
import numpy as np
from common import Figure

from catdog.base import params, paths
from catdog.base.errors import run

SIDE = 128  # pixels, of the comparison
GOAL = 3
AMOUNT, ROTATION = 0.2, 12 / 360  # of Keras' layers: a fraction, and a fraction of a full turn


def main() -> None:
    given = common.arguments(__doc__, rounds=3)
    import tensorflow as tf

    from catdog.training.cnn import recipe

    p = params.load()
    count = 256 if given.quick else 1024
    sizes = sorted({*p.train_cnn.image_sizes, SIDE})
    model = recipe.compiled(p, photographs=count)
    model.train_on_batch(
        np.zeros((2, sizes[0], sizes[0], 3), np.uint8), np.zeros((2, 1))
    )  # metrics that `fit` asks for
    step = tf.function(model.train_step, reduce_retracing=True)
    with tempfile.TemporaryDirectory() as folder:
        inputs = our_inputs(p, sizes=sizes, count=count, folder=Path(folder))
        waits: dict[int, list[float]] = {size: [] for size in sizes}
        arms: dict[str, Callable[[], object]] = dict(keras_inputs(model, p, count=count, folder=Path(folder)))
        for size in sizes:
            arms[f"input {size} px"] = lambda size=size: fit(model, inputs[size](), step=None)
            arms[f"step {size} px"] = on_random(step, size=size, batch_size=p.train_cnn.batch_size, count=count)
            arms[f"fit {size} px"] = lambda size=size: waits[size].append(fit(model, inputs[size](), step=step))
        seconds = common.in_turns(arms, rounds=given.rounds)

    rates = {name: common.median_rate(taken, count) for name, taken in seconds.items()}
    ours = rates[f"input {SIDE} px"]
    figures = [
        Figure("ours", f"ours, {SIDE} px, {p.train_cnn.batch_size} a batch", ours, "photographs/s", "measured"),
        Figure("keras", "Keras, decoding in every epoch", rates["keras"], "photographs/s", "measured"),
        Figure("keras_cached", "Keras, cache() behind decoding", rates["keras cached"], "photographs/s", "measured"),
        Figure("ratio", "ours against Keras decoding", ours / rates["keras"], "x", "measured", goal=GOAL),
        Figure("ratio_cached", "ours against Keras cached", ours / rates["keras cached"], "x", "measured", goal=GOAL),
    ]
    for size in sizes:
        waited = zip(waits[size][1:], seconds[f"fit {size} px"], strict=True)  # the first is of the round to warm up
        headroom = rates[f"input {size} px"] / rates[f"step {size} px"]
        share = statistics.median(wait / whole for wait, whole in waited)
        figures += [
            *(
                Figure(f"{name}_{size}", f"{what}, {size} px", rates[f"{name} {size} px"], "photographs/s", "measured")
                for name, what in (("input", "input alone"), ("step", "step alone"), ("fit", "both in fit"))
            ),
            Figure(f"headroom_{size}", f"input against step, {size} px", headroom, "x", "measured", goal=1),
            Figure(f"waiting_{size}", f"fit waits for input, {size} px", share, "of its time", "measured"),
        ]
    notes = [
        f"An epoch has {count:,} photographs here. Ours draws photographs and written variants alike, and begins each "
        "epoch with an empty queue: the first batch's wait weighs more here than in a whole epoch.",
        "Input and step share the cores, so that fit is slower than the step alone even where it never waits.",
        "Ours applies the transforms of params.yaml, Keras the six of its layers that come closest: colours, "
        "aspect and erasing are ours alone.",
    ]
    common.leave("input_pipeline", figures, notes=notes, seconds=seconds, quick=given.quick)


def our_inputs(p: params.Params, *, sizes: list[int], count: int, folder: Path) -> dict[int, Callable[[], Any]]:
    """At each size, a function to the batches of an epoch of `count` photographs, another epoch at each call."""
    from catdog.training.cnn import recipe

    knobs = p.train_cnn.model_copy(update={"image_sizes": sizes, "epochs": [1] * len(sizes)})
    phases = recipe.phases(
        p.model_copy(update={"train_cnn": knobs}),
        train=common.sample(paths.TRAIN, count, folder),
        augmented=common.sample(paths.AUGMENTED_TRAIN, count, folder, per_photograph=p.augment.variants),
        val=common.sample(paths.VAL, 1, folder),
    )

    def epochs(phase: Any) -> Callable[[], Any]:
        batches_of, _ = phase.load()
        number = iter(range(1, 1_000_000))
        return lambda: batches_of(next(number))

    return {phase.image_size: epochs(phase) for phase in phases}


def keras_inputs(
    model: Any, p: params.Params, *, count: int, folder: Path
) -> Iterator[tuple[str, Callable[[], object]]]:
    """Arms that take an epoch of what `image_dataset_from_directory` gives, decoding afresh and cached."""
    import keras
    import tensorflow as tf
    from keras import layers

    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")  # as people write it; the network before it may be in bfloat16
    augmentation = [
        layers.RandomFlip("horizontal"),
        layers.RandomRotation(ROTATION),
        layers.RandomZoom(AMOUNT),
        layers.RandomTranslation(AMOUNT / 2, AMOUNT / 2),
        layers.RandomBrightness(AMOUNT),
        layers.RandomContrast(AMOUNT),
    ]
    keras.config.set_dtype_policy(policy)

    def vary(images: Any, labels: Any) -> tuple[Any, Any]:
        for layer in augmentation:
            images = layer(images, training=True)
        return images, labels

    decoded = keras.utils.image_dataset_from_directory(
        common.write_folders(common.sample(paths.TRAIN, count, folder), folder / "files"),
        label_mode="binary",
        image_size=(SIDE, SIDE),
        batch_size=p.train_cnn.batch_size,
        verbose=False,
    )
    for name, source in (("keras", decoded), ("keras cached", decoded.cache())):
        batches = source.map(vary, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
        yield name, lambda batches=batches: fit(model, batches, step=None)


def fit(model: Any, batches: Any, *, step: Callable[[Any], Any] | None) -> float:
    """`model.fit` over `batches` with `step` in place of its own, or with none: the seconds that it waited for them."""
    waited = 0.0

    def train_function(iterator: Any) -> Any:
        nonlocal waited
        started = time.perf_counter()
        batch = next(iterator)
        waited += time.perf_counter() - started
        return step(batch) if step else {}

    model.train_function = train_function
    model.fit(batches, shuffle=False, verbose=0)
    return waited


def on_random(step: Callable[[Any], Any], *, size: int, batch_size: int, count: int) -> Callable[[], object]:
    """An arm that takes the steps of `count` photographs on one random batch, in memory."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    pixels = tf.constant(rng.integers(0, 256, (batch_size, size, size, 3), dtype=np.uint8))
    batch = pixels, tf.constant(rng.integers(0, 2, (batch_size, 1)), tf.float32)

    def take() -> None:
        for _ in range(count // batch_size):
            found = step(batch)
        float(found["log_loss"])

    return take


if __name__ == "__main__":
    run(main)
