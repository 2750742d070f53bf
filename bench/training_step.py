"""Where the time of the CNN's training step goes, and how near it comes to the processor's matrix products.

The step is that of `fit` on one batch in memory, at each size of params.yaml. Its share of the peak is its floating
point operations (three times those of the forward pass, whose convolutions alone count) per second, of those of the
fastest of large matrix products in the same number format. Operators are timed by oneDNN itself, one at a time, in a
process of their own; what is left of such a step is TensorFlow's and Python's.
"""

import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from typing import Any

import common
import features
import numpy as np
from common import Figure

from catdog.base import params
from catdog.base.errors import run

SIDE = 128  # pixels, of the profile and of the goal
GOAL = 0.45
STEPS = 10
ROUNDS = 3  # of the profile
KINDS = {
    "convolution forward_training": "forward",
    "convolution backward_data": "gradients of maps",
    "convolution backward_weights": "gradients of filters, as convolutions",
    "matmul undef": "gradients of filters, as matrix products",
    "batch_normalization forward_training": "batch normalization",
    "batch_normalization backward": "batch normalization",
    "pooling forward_training": "pooling",
    "pooling backward_data": "pooling",
    "reorder undef": "layouts of filters",
}


def main() -> None:
    if sys.argv[1:] == ["--profiled"]:
        profiled()
        return
    given = common.arguments(__doc__, rounds=5)
    from catdog.training.cnn import network, recipe
    from catdog.training.loop import precision

    p = params.load()
    t = p.train_cnn
    sizes = sorted({*t.image_sizes, SIDE})
    model = recipe.compiled(p, photographs=10_000)
    products = features.matrix_products(precision.resolve(t.precision))
    arms: dict[str, Any] = {f"step {size}": steps(model, size=size, batch_size=t.batch_size) for size in sizes}
    seconds = common.in_turns(arms | products, rounds=given.rounds)
    peak = max(
        common.median_rate(seconds[name], 2 * features.PRODUCTS * features.SIDE**3)
        for name in products
        if name.endswith("bfloat16") == (precision.resolve(t.precision) == "mixed_bfloat16")
    )
    figures = [Figure("peak", "matrix products, at most", peak / 1e12, "TFLOP/s", "measured")]
    for size in sizes:
        flops = 3 * 2 * features.multiply_adds(network.cnn(t, image_size=size))
        rate = common.median_rate(seconds[f"step {size}"], STEPS * t.batch_size)
        share = rate * flops / peak
        figures += [
            Figure(f"rate_{size}", f"training step, {size} px", rate, "photographs/s", "measured"),
            Figure(f"share_{size}", "of the peak", share, "of 1", "measured", goal=GOAL if size == SIDE else None),
        ]
    by_kind, whole = operators()
    figures += [
        *(
            Figure(f"profile_{kind}", f"{kind}, {SIDE} px", taken / whole, "of the step", "measured")
            for kind, taken in by_kind.most_common()
        ),
        Figure("profile_rest", f"the rest, {SIDE} px", 1 - by_kind.total() / whole, "of the step", "measured"),
    ]
    notes = [f"Batches of {t.batch_size}; the profiled step takes {1000 * whole / STEPS:,.0f} ms."]
    common.leave("training_step", figures, notes=notes, seconds=seconds, quick=given.quick)


def steps(model: Any, *, size: int, batch_size: int) -> Any:
    """An arm that takes STEPS steps by `fit` on one random batch."""
    import keras

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (batch_size, size, size, 3), dtype=np.uint8)
    labels = rng.integers(0, 2, (batch_size, 1)).astype(np.float32)

    class Same(keras.utils.PyDataset):
        def __len__(self) -> int:
            return STEPS

        def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            return pixels, labels

    batches = Same()
    return lambda: model.fit(batches, shuffle=False, verbose=0)


def operators() -> tuple[Counter[str], float]:
    """Seconds of each kind of operator in STEPS steps, and of these steps, in a process that oneDNN tells of."""
    environment = os.environ | {"ONEDNN_VERBOSE": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    told = subprocess.run(
        [sys.executable, __file__, "--profiled"], env=environment, capture_output=True, text=True, check=True
    )
    counted = told.stdout.rpartition("begin\n")[2]
    by_kind: Counter[str] = Counter()
    for line in counted.splitlines():
        fields = line.split(",")
        if fields[:3] == ["onednn_verbose", "v1", "primitive"]:
            by_kind[KINDS.get(f"{fields[5]} {fields[7]}", "other operators")] += float(fields[-1]) / 1000 / ROUNDS
    return by_kind, float(counted.splitlines()[-1])


def profiled() -> None:
    """Print what oneDNN tells of STEPS steps at SIDE, then their seconds."""
    import tensorflow as tf

    tf.config.threading.set_inter_op_parallelism_threads(1)  # else operators run beside each other
    from catdog.training.cnn import recipe

    p = params.load()
    arm = steps(recipe.compiled(p, photographs=10_000), size=SIDE, batch_size=p.train_cnn.batch_size)
    arm()
    print("begin", flush=True)
    taken = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        arm()
        taken.append(time.perf_counter() - started)
    print(statistics.mean(taken), flush=True)


if __name__ == "__main__":
    run(main)
