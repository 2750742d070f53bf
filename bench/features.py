"""Photographs per second through the frozen Xception: our engine, against Keras' `predict` in float32.

Both get the same decoded photographs, at the size of params.yaml. Then the same against what the processor can do at
most: the fastest of large matrix products through TensorFlow and OpenVINO, in the number format that our engine uses.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import common
import numpy as np
from common import Figure

from catdog.base import params, paths
from catdog.base.errors import UserError, run
from catdog.photographs import photos, shards

BATCH = 16  # the engine's own, as features.extract has it
PREDICT_BATCH = 32  # the default of `predict`
SIDE, PRODUCTS = 4096, 4  # square matrices of the peak, and how many products one call computes in a row


def main() -> None:
    given = common.arguments(__doc__, rounds=5)
    from catdog.training.loop import precision
    from catdog.training.xception import engines, weights

    t = params.load().train_xception
    ours_count, theirs_count = (32, 32) if given.quick else (256, 64)
    shard = shards.Shard(paths.TRAIN)
    if len(shard) < ours_count:
        raise UserError(f"{paths.TRAIN} has {len(shard)} photographs, {ours_count} are needed: prepare more")
    pixels = np.stack([photos.pixels(shard.jpeg(i), t.image_size) for i in range(ours_count)])
    few = pixels[:theirs_count].astype(np.float32) / 127.5 - 1

    model, _ = weights.load_xception(t.weights, image_size=t.image_size)
    policy, engine = precision.resolve(t.precision), engines.name()
    compute = engines.BUILD[engine](model, image_size=t.image_size, precision=policy)
    products = {f"peak: {key}": product for key, product in matrix_products(policy).items()}
    arms: dict[str, Callable[[], object]] = {
        "ours": lambda: list(compute(batches(pixels))),
        "keras": lambda: model.predict(few, batch_size=PREDICT_BATCH, verbose=0),
        **products,
    }
    seconds = common.in_turns(arms, rounds=given.rounds)

    rates = {
        "ours": common.median_rate(seconds["ours"], ours_count),
        "keras": common.median_rate(seconds["keras"], theirs_count),
    }
    flops = 2 * multiply_adds(model)
    tera = {
        key.removeprefix("peak: "): common.median_rate(seconds[key], 2 * PRODUCTS * SIDE**3) / 1e12 for key in products
    }
    formats = {"ours": "bfloat16" if policy == "mixed_bfloat16" else "float32", "keras": "float32"}
    peaks = {name: max(v for key, v in tera.items() if key.endswith(formats[name])) for name in formats}
    names = {"ours": f"ours ({engine}, {policy})", "keras": "keras predict (float32)"}
    size = f"{t.image_size} px"
    figures = [
        *(Figure(n, f"{names[n]}, {size}", rates[n], "photographs/s", "measured") for n in rates),
        Figure("ratio", "ours against keras", rates["ours"] / rates["keras"], "x", "measured", goal=2),
        Figure("difference", "features differ by", differ(compute, model, pixels[:BATCH]), "of their norm", "measured"),
        Figure("gflop", f"Xception, {size}", flops / 1e9, "GFLOP/photograph", "counted"),
        *(Figure(f"peak_{k}", f"{SIDE} x {SIDE} product, {k}", v, "TFLOP/s", "measured") for k, v in tera.items()),
        *(
            Figure(
                f"{n}_of_peak",
                f"{names[n]}, of the {formats[n]} peak",
                rates[n] * flops / 1e12 / peaks[n],
                "of 1",
                "measured",
            )
            for n in rates
        ),
    ]
    notes = [
        "Decoding is in neither: it runs on threads beside the network in our stage.",
        "FLOPs are twice the multiply-adds of convolutions. A depthwise one has too few per byte to come near the "
        "peak of a matrix product.",
    ]
    common.leave("features", figures, notes=notes, seconds=seconds, quick=given.quick)


def batches(pixels: np.ndarray) -> Iterator[np.ndarray]:
    return (pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH))


def differ(compute: Any, model: Any, pixels: np.ndarray) -> float:
    """How far our features are from Keras' own, so that no speed is bought with wrong ones."""
    [ours] = compute([pixels])
    theirs = model.predict(pixels.astype(np.float32) / 127.5 - 1, verbose=0)
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def multiply_adds(model: Any) -> int:
    """Of all convolutions of `model`, for one photograph."""
    from keras import layers

    total = 0
    for layer in model.layers:
        if not isinstance(layer, layers.Conv2D | layers.SeparableConv2D):
            continue
        pixels, channels = math.prod(layer.output.shape[1:3]), layer.input.shape[-1]
        window = math.prod(layer.kernel_size)
        if isinstance(layer, layers.SeparableConv2D):
            total += pixels * channels * (window + layer.filters)
        else:
            total += pixels * channels * window * layer.filters
    return total


def matrix_products(policy: str) -> dict[str, Callable[[], object]]:
    """`PRODUCTS` products of square matrices by each library and number format."""
    # Of this spread a product has entries of the same spread again.
    square = np.random.default_rng(0).standard_normal((SIDE, SIDE), np.float32) / np.float32(SIDE**0.5)
    formats = ["float32", "bfloat16"] if policy == "mixed_bfloat16" else ["float32"]
    return {f"tensorflow {name}": with_tensorflow(square, name) for name in formats} | {
        f"openvino {name}": with_openvino(square, name) for name in formats
    }


def with_tensorflow(square: np.ndarray, name: str) -> Callable[[], object]:
    import tensorflow as tf

    matrix = tf.constant(square, getattr(tf, name))

    @tf.function
    def products(x: Any) -> Any:
        for _ in range(PRODUCTS):
            x = tf.matmul(x, matrix)
        return tf.reduce_max(x)

    return lambda: products(matrix).numpy()


def with_openvino(square: np.ndarray, name: str) -> Callable[[], object]:
    import openvino
    from openvino import opset13 as ops

    x = left = ops.parameter(list(square.shape), np.float32)
    matrix = ops.constant(square)
    for _ in range(PRODUCTS):
        x = ops.matmul(x, matrix, False, False)
    largest = ops.reduce_max(x, np.array([0, 1]))
    hints = {"INFERENCE_PRECISION_HINT": "bf16" if name == "bfloat16" else "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(openvino.Model([largest], [left]), "CPU", hints)
    request = compiled.create_infer_request()
    request.set_input_tensor(openvino.Tensor(square))
    return request.infer


if __name__ == "__main__":
    run(main)
