"""Where a model looks: Grad-CAM (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391) as a picture."""

import cv2
import numpy as np

_MOST_OPAQUE = 0.6


def heat(evidence: np.ndarray, *, second: np.ndarray) -> np.ndarray:
    """What speaks for a class, by place, for each of n photographs.

    Args:
        evidence: (n, height, width), as `asking.Asked` has it.
        second: bool (n,): whether the class in question is the second one.

    Returns:
        float32 (n, height, width): 0 is nothing, 1 the most in this photograph. All 0 where nothing speaks for it.
    """
    heat = np.maximum(evidence * np.where(second, 1, -1)[:, None, None], 0).astype(np.float32)
    most = heat.max(axis=(1, 2), keepdims=True)
    return np.divide(heat, most, out=np.zeros_like(heat), where=most > 0)


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """An RGB image, uint8 (height, width, 3), under its heat map, float (h, w) in 0..1: the redder, the more."""
    size = image.shape[1], image.shape[0]
    heat = np.clip(cv2.resize(heat.astype(np.float32), size, interpolation=cv2.INTER_CUBIC), 0, 1)
    colours = cv2.cvtColor(cv2.applyColorMap((255 * heat).astype(np.uint8), cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    opacity = _MOST_OPAQUE * heat[..., None]
    return np.round((1 - opacity) * image + opacity * colours).astype(np.uint8)
