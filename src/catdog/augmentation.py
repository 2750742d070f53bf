"""Seeded variants of a photograph: the same seed gives the same bytes on any number of workers."""

import hashlib
from collections.abc import Iterator
from functools import partial

import cv2
import numpy as np

from catdog import parallel, params, photos, shards


def variants(
    shard: shards.Shard, policy: params.Augment, *, seed: int, workers: int | None = None
) -> Iterator[shards.Row]:
    """`policy.variants` rows for each photograph of `shard`, one after the other, under the photograph's own id."""
    rows = (shard.row(index) for index in range(len(shard)))
    made = parallel.chunked_map(partial(variants_of, policy=policy, seed=seed), rows, workers=workers)
    return (row for group in made for row in group)


def variants_of(row: shards.Row, policy: params.Augment, *, seed: int) -> list[shards.Row]:
    image = photos.decode(row.image)
    return [
        row._replace(image=photos.encode(vary(image, policy, _generator(row.id, seed=seed, variant=k))))
        for k in range(policy.variants)
    ]


def vary(image: np.ndarray, policy: params.Augment, rng: np.random.Generator, *, size: int | None = None) -> np.ndarray:
    """One variant of an RGB photograph, uint8 (height, width, 3); of the same size, or squashed to `size` x `size`."""
    height, width = image.shape[:2]
    out = (width, height) if size is None else (size, size)
    # What comes in from outside is a mirror image of the border: no black corners to learn from.
    motion = _motion((width, height), out, policy, rng)
    moved = cv2.warpAffine(image, motion, out, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return cv2.LUT(moved, _levels(policy, rng))


def _motion(
    size: tuple[int, int], out: tuple[int, int], policy: params.Augment, rng: np.random.Generator
) -> np.ndarray:
    """Mirror, rotation, zoom and shift about the middle as one 2 x 3 matrix, so that pixels are interpolated once."""
    width, height = size
    mirror = -1.0 if rng.random() < policy.flip else 1.0
    zoom = float(np.exp(rng.uniform(-1, 1) * np.log1p(policy.zoom)))
    centre = ((width - 1) / 2, (height - 1) / 2)
    matrix = np.asarray(cv2.getRotationMatrix2D(centre, rng.uniform(-1, 1) * policy.rotation, zoom), np.float64)
    matrix[:, 2] += rng.uniform(-1, 1, 2) * policy.shift * size
    if mirror < 0:
        matrix[:, 2] += matrix[:, 0] * (width - 1)
        matrix[:, 0] *= -1
    # Pixel centres of the one size onto those of the other.
    scale = np.array(out) / size
    matrix *= scale[:, None]
    matrix[:, 2] += (scale - 1) / 2
    return matrix


def _levels(policy: params.Augment, rng: np.random.Generator) -> np.ndarray:
    """Contrast about the middle grey, then brightness, as a table of 256 entries."""
    contrast = 1 + rng.uniform(-1, 1) * policy.contrast
    brightness = 1 + rng.uniform(-1, 1) * policy.brightness
    levels = ((np.arange(256) - 128) * contrast + 128) * brightness
    return np.clip(np.round(levels), 0, 255).astype(np.uint8)


def _generator(photograph: str, *, seed: int, variant: int) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}:{photograph}:{variant}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))
