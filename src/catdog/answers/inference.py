"""Many photographs at once: a whole shard, or with the quickest engine of this machine."""

from collections.abc import Callable

import keras
import numpy as np

from catdog.answers import classifier
from catdog.base.progress import track
from catdog.photographs import parallel, photos, shards
from catdog.training.loop.precision import resolve
from catdog.training.xception import engines

_BATCH = 4 * classifier.BATCH  # engines work on several of their own batches at a time
_ENGINE_BATCH = 16


def on_shard(
    shard: shards.Shard, *, side: int, probabilities: Callable[[np.ndarray], np.ndarray], what: str = "predicting"
) -> np.ndarray:
    """A model's probabilities for the photographs of a shard, float64 (n,). Threads decode ahead.

    Args:
        side: of the model's square input (pixels).
        probabilities: the model, from uint8 (n, side, side, 3) to float64 (n,).
        what: shown with the progress.
    """

    def decode(index: int) -> np.ndarray:
        return photos.pixels(shard.jpeg(index), side)

    decoded = parallel.threaded(decode, range(len(shard)), ahead=2 * _BATCH)
    batches = parallel.chunks(track(decoded, total=len(shard), what=what), _BATCH)
    return np.concatenate([np.empty(0), *(probabilities(np.stack(batch)) for batch in batches)])


def quickest(model: keras.Model, *, precision: str) -> Callable[[np.ndarray], np.ndarray]:
    """The quickest function here that does what a model does: uint8 (n, side, side, 3) to probabilities, float64 (n,).

    For trials and calibration, which need many answers; a model is judged by its own. On a processor Xception is
    several times as fast as in Keras. bfloat16 moves an answer by a hundredth at most (bench/feature_agreement.py).
    """
    if "xception" not in [layer.name for layer in model.layers]:
        return classifier.in_batches(model)
    base, head = model.get_layer("xception"), model.get_layer("head")
    build = engines.BUILD[engines.name()]
    run = build(base, image_size=model.input_shape[1], precision=resolve(precision), batch_size=_ENGINE_BATCH)

    def probabilities(pixels: np.ndarray) -> np.ndarray:
        features = list(run(pixels[start : start + _ENGINE_BATCH] for start in range(0, len(pixels), _ENGINE_BATCH)))
        return np.asarray(head(np.concatenate(features), training=False), np.float64)[:, 0]

    return probabilities
