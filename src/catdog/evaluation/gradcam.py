"""Where a model looks: Grad-CAM (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391) for both networks.

Both average their last maps into features, so the gradient of the verdict to a map is the gradient to its feature,
spread evenly.
"""

import functools
from typing import Any

import cv2
import keras
import numpy as np

_BATCH = 8
_MOST_OPAQUE = 0.6


def maps(model: keras.Model, pixels: np.ndarray, *, second: np.ndarray) -> np.ndarray:
    """What speaks for a class, by place, for each photograph.

    Args:
        model: a saved CNN or Xception of this project.
        pixels: uint8 (n, side, side, 3), RGB.
        second: bool (n,): whether it is the second class that is asked about, or the first.

    Returns:
        float32 (n, height, width) of the last maps, 0 (nothing) to 1 (the most in this photograph); all 0 where
        nothing speaks for that class.
    """
    parts = [
        _maps(model, pixels[start : start + _BATCH], second[start : start + _BATCH])
        for start in range(0, len(pixels), _BATCH)
    ]
    return np.concatenate(parts) if parts else np.empty((0, 1, 1), np.float32)


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """uint8 (height, width, 3) RGB with `heat`, float (h, w) in 0..1, laid over it: the redder, the more."""
    size = image.shape[1], image.shape[0]
    heat = np.clip(cv2.resize(heat.astype(np.float32), size, interpolation=cv2.INTER_CUBIC), 0, 1)
    colours = cv2.cvtColor(cv2.applyColorMap((255 * heat).astype(np.uint8), cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    opacity = _MOST_OPAQUE * heat[..., None]
    return np.round((1 - opacity) * image + opacity * colours).astype(np.uint8)


def _maps(model: keras.Model, pixels: np.ndarray, second: np.ndarray) -> np.ndarray:
    import tensorflow as tf

    trunk, tail, verdict = _parts(model)
    last = trunk(tf.cast(tf.constant(pixels), tf.float32))
    features = tf.reduce_mean(last, axis=(1, 2))
    with tf.GradientTape() as tape:
        tape.watch(features)
        # The sigmoid is left out: where it is sure, its gradient vanishes.
        logits = tail(features, training=False) @ tf.constant(verdict)
    weights = tape.gradient(logits, features).numpy() * np.where(second, 1, -1)[:, None]
    heat = np.maximum(np.einsum("nhwk,nk->nhw", last.numpy(), weights), 0)
    most = heat.max(axis=(1, 2), keepdims=True)
    return np.divide(heat, most, out=np.zeros_like(heat), where=most > 0)


@functools.lru_cache(maxsize=2)  # both models; building the parts takes longer than a photograph does
def _parts(model: keras.Model) -> tuple[Any, keras.Model, np.ndarray]:
    """From pixels to the last maps; from their averages to the last layer's input; that layer's kernel."""
    names = [layer.name for layer in model.layers]
    if "average" in names:  # the CNN
        average, last = model.get_layer("average"), model.get_layer("probability")
        return keras.Model(model.inputs, average.input), keras.Model(average.output, last.input), last.kernel.numpy()
    base, head = model.get_layer("xception"), model.get_layer("head")
    inner, last = keras.Model(base.inputs, base.layers[-1].input), head.get_layer("probability")
    rescale = model.get_layer("rescale")
    return lambda x: inner(rescale(x), training=False), keras.Model(head.inputs, last.input), last.kernel.numpy()
