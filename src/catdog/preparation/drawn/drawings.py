"""Cats and dogs drawn by code: the offline sample, so that the whole pipeline runs without a network.

An animal is a skeleton of tapered limbs in three dimensions, posed, turned, seen through a camera and lit, in front of
a background from `scenery`. What tells the classes apart is shape alone: a cat has upright pointed ears, a short
muzzle, slit pupils, whiskers and a long thin tail; a dog a long muzzle, a big nose, mostly hanging ears, round pupils
and a stouter tail. Coats, light, places and backgrounds are drawn from the same distributions for both.
"""

from pathlib import Path

import cv2
import numpy as np

from catdog.base import progress
from catdog.base.errors import UserError
from catdog.photographs import parallel
from catdog.preparation.drawn import animals, rendering, scenery

_JPEG_QUALITY = 90


def draw(label: int, seed: int, side: int = 320) -> np.ndarray:
    """One picture of a cat (label 0) or a dog (label 1): uint8 RGB, its short side `side` pixels, its shape by `seed`.

    The same label, seed and side give the same picture.
    """
    rng = np.random.default_rng([label, seed])
    choices = animals.scene(label, rng, side=side)
    width, height = choices.width, choices.height
    animal = animals.animal(choices)
    view = animals.frame(choices, animal)
    limbs = animal.body + animal.head
    left, top, right, bottom = (max(int(edge), 0) for edge in view.bounds(limbs))
    horizon = int(np.clip(min(bottom, height) * rng.uniform(0.45, 0.85), 0.25 * height, 0.85 * height))
    shape = (int(height * animals.BEHIND), int(width * animals.BEHIND), int(horizon * animals.BEHIND))
    ground = scenery.BACKDROPS[choices.backdrop](rng, *shape)
    ground = cv2.GaussianBlur(ground, (0, 0), choices.focus * shape[1])
    ground = cv2.resize(ground, (width, height))
    picture = scenery.dim(ground, rendering.shadow(choices, limbs, view))

    relief = rendering.sculpt(rng, choices, limbs, view)
    there = np.s_[max(top - 9, 0) : bottom + 9, max(left - 9, 0) : right + 9]
    colour, cover = rendering.paint(
        rng, choices, rendering.Relief(*(layer[there] for layer in relief)), animals.HEAD * view.scale
    )
    behind = picture[there].astype(np.float32)
    picture[there] = cv2.add(behind, cv2.multiply(colour - behind, cv2.merge([cover] * 3)), dtype=cv2.CV_8U)
    rendering.draw_eyes(picture, choices, animal, relief, view)
    rendering.draw_lines(rng, picture, choices, animal, relief, view)
    if choices.front:
        picture = scenery.in_front(rng, picture, choices.front, face=view.bounds(animal.head))
    picture = scenery.lens(rng, picture)
    return picture[:, ::-1].copy() if choices.mirror else picture


def write(folder: Path, count: int, seed: int, classes: list[str], workers: int | None = None) -> list[Path]:
    """Fill `folder/<class>/<class>-00001.jpg` and so on with `count` pictures, half of each class, on all cores.

    The bytes depend on `seed` alone, never on `workers` (default: one for each core). Where `count` is odd the first
    class has one more. Files of the same name are overwritten.

    Returns:
        The paths written, class by class, in order.

    Raises:
        UserError: the folder can't be written to, or a worker was killed.
    """
    jobs = []
    for label, name in enumerate(classes):
        for number in range(1, (count + 1 - label) // 2 + 1):
            jobs.append((folder / name / f"{name}-{number:05}.jpg", label, seed, number))
    try:
        for name in classes:
            (folder / name).mkdir(parents=True, exist_ok=True)
        written = parallel.chunked_map(_write_one, jobs, workers=workers)
        return list(progress.track(written, total=len(jobs), what="drawing"))
    except OSError as error:
        raise UserError(f"cannot write drawings to {folder}: {error.strerror}; free or choose another folder") from None


def _write_one(job: tuple[Path, int, int, int]) -> Path:
    # A large block, freed at once, makes glibc keep memory from one picture to the next: a fifth of the time.
    np.empty(30 << 20, np.uint8)
    path, label, seed, number = job
    picture = draw(label, seed=seed * 1_000_003 + number)
    _, jpeg = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    path.write_bytes(jpeg.tobytes())
    return path
