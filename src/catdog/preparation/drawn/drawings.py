"""Cats and dogs drawn by code: the offline sample, so that the whole pipeline runs without a network.

A posed animal of round limbs is lit and seen before a background out of focus. Shape alone tells the classes apart:
coats, light, places and backgrounds are sampled from the same distributions for both.
"""

from pathlib import Path

import cv2
import numpy as np

from catdog.base import parallel, progress
from catdog.base.errors import UserError
from catdog.preparation.drawn import animals, painting


def draw(label: int, seed: int, side: int = 320) -> np.ndarray:
    """One picture of a cat (label 0) or a dog (label 1): uint8 RGB, its short side `side` pixels, its shape by `seed`.

    The same label, seed and side give the same picture.
    """
    rng = np.random.default_rng([label, seed])
    aspect = rng.choice([2 / 3, 3 / 4, 4 / 5, 1.0, 5 / 4, 4 / 3, 3 / 2])
    width, height = round(side * max(aspect, 1)), round(side * max(1 / aspect, 1))
    limbs, head = animals.sample(label, rng)
    limbs[..., 1] *= -1  # rows count downwards

    framing = rng.choice(["head", "bust", "whole"], p=[0.4, 0.35, 0.25])
    framed = limbs if framing == "whole" else limbs[head:]
    low = (framed[..., :2] - framed[..., 3:4]).min(axis=(0, 1))
    size = (framed[..., :2] + framed[..., 3:4]).max(axis=(0, 1)) - low
    if framing == "bust":
        size[1] *= 1.75
    scale = rng.uniform(0.6, 1) * float(min((width, height) / size))
    limbs[..., :4] *= scale
    limbs[..., :2] += rng.random(2) * ((width, height) - size * scale) - low * scale
    limbs[..., 3] = np.maximum(limbs[..., 3], 0.6)  # even a whisker is as wide as a pixel

    ground = min(limbs[..., 1].max(), height)
    horizon = int(np.clip(ground * rng.uniform(0.45, 0.85), 0.25 * height, 0.85 * height))
    picture = painting.background(rng, height, width, horizon)
    painting.paint(rng, picture, limbs, skull=animals.HEAD * scale)
    picture = painting.develop(rng, picture)
    return picture[:, ::-1].copy() if rng.random() < 0.5 else picture


def write(folder: Path, count: int, seed: int, classes: list[str], workers: int | None = None) -> list[Path]:
    """Fill `folder/<class>/<class>-00001.jpg` and so on with `count` pictures, half of each class, on all cores.

    The bytes depend on `seed` alone, never on `workers` (default: one for each core). Where `count` is odd the first
    class has one more. Files of the same name are overwritten.

    Returns:
        The paths written, class by class, in order.

    Raises:
        UserError: the folder can't be written to, or a worker was killed.
    """
    try:
        jobs = []
        for label, name in enumerate(classes):
            (folder / name).mkdir(parents=True, exist_ok=True)
            for number in range(1, (count + 1 - label) // 2 + 1):
                jobs.append((folder / name / f"{name}-{number:05}.jpg", label, seed, number))
        written = parallel.chunked_map(_write_one, jobs, workers=workers)
        return list(progress.track(written, total=len(jobs), what="drawing"))
    except OSError as error:
        raise UserError(f"cannot write drawings to {folder}: {error.strerror}; free or choose another folder") from None


def _write_one(job: tuple[Path, int, int, int]) -> Path:
    # A large block, freed at once, makes glibc keep memory from one picture to the next: two fifths of the time.
    np.empty(30 << 20, np.uint8)
    path, label, seed, number = job
    picture = draw(label, seed=seed * 1_000_003 + number)
    _, jpeg = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    path.write_bytes(jpeg.tobytes())
    return path
