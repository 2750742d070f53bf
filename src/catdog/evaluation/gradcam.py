"""Where a model looks: Grad-CAM (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391) for both networks.

Both average their last maps into features. So the gradient of a verdict to a map is its gradient to the feature,
spread evenly over the map.
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
        pixels: uint8 (n, side, side, 3), RGB, of at least one photograph.
        second: bool (n,): whether the class in question is the second one.

    Returns:
        float32 (n, height, width) of the last maps: 0 is nothing, 1 the most in this photograph. All 0 where nothing
        speaks for the class.
    """
    starts = range(0, len(pixels), _BATCH)
    return np.concatenate([_maps(model, pixels[i : i + _BATCH], second[i : i + _BATCH]) for i in starts])


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """An RGB image, uint8 (height, width, 3), under its heat map, float (h, w) in 0..1: the redder, the more."""
    size = image.shape[1], image.shape[0]
    heat = np.clip(cv2.resize(heat.astype(np.float32), size, interpolation=cv2.INTER_CUBIC), 0, 1)
    colours = cv2.cvtColor(cv2.applyColorMap((255 * heat).astype(np.uint8), cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    opacity = _MOST_OPAQUE * heat[..., None]
    return np.round((1 - opacity) * image + opacity * colours).astype(np.uint8)


def _maps(model: keras.Model, pixels: np.ndarray, second: np.ndarray) -> np.ndarray:
    import tensorflow as tf

    trunk, tail, kernel = _parts(model)
    last = trunk(tf.cast(tf.constant(pixels), tf.float32))
    features = tf.reduce_mean(last, axis=(1, 2))
    with tf.GradientTape() as tape:
        tape.watch(features)
        # The sigmoid is left out: where it is sure, its gradient vanishes.
        logits = tail(features, training=False) @ tf.constant(kernel)
    weights = tape.gradient(logits, features).numpy() * np.where(second, 1, -1)[:, None]
    heat = np.maximum(np.einsum("nhwk,nk->nhw", last.numpy(), weights), 0)
    most = heat.max(axis=(1, 2), keepdims=True)
    return np.divide(heat, most, out=np.zeros_like(heat), where=most > 0)


@functools.lru_cache(maxsize=2)  # for both models: to build the parts takes longer than a photograph does
def _parts(model: keras.Model) -> tuple[Any, keras.Model, np.ndarray]:
    """From pixels to the last maps; from their averages to the input of the last layer; the kernel of that layer."""
    if "average" in [layer.name for layer in model.layers]:  # the CNN
        average, last = model.get_layer("average"), model.get_layer("probability")
        return keras.Model(model.inputs, average.input), keras.Model(average.output, last.input), last.kernel.numpy()
    base, head = model.get_layer("xception"), model.get_layer("head")
    inner, last = keras.Model(base.inputs, base.layers[-1].input), head.get_layer("probability")
    rescale = model.get_layer("rescale")
    return lambda x: inner(rescale(x), training=False), keras.Model(head.inputs, last.input), last.kernel.numpy()
