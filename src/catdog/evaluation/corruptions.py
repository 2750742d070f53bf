"""How accuracy holds when photographs get worse: a fixed set of corruptions, each at three strengths.

After Hendrycks and Dietterich 2019, https://arxiv.org/abs/1903.12261, with what photographs of pets really suffer.
"""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from catdog.base.progress import track
from catdog.evaluation import scoring
from catdog.photographs import parallel, photos
from catdog.photographs.shards import Shard
from catdog.pictures import style

STRENGTHS = (1, 2, 3)
_CHUNK = 128
# By strength: deviation of the Gaussian as a share of the short side; of the noise, of 255; light that is left; quality
# of the JPEG; share of the side that a crop, anywhere, leaves.
_BLUR, _NOISE, _LIGHT = (0.01, 0.02, 0.04), (15, 30, 60), (0.5, 0.25, 0.12)
_QUALITY, _LEFT = (25, 12, 5), (0.8, 0.6, 0.45)

Answers = Callable[[np.ndarray], np.ndarray]


def blur(image: np.ndarray, strength: int, rng: np.random.Generator) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), _BLUR[strength - 1] * min(image.shape[:2]))


def noise(image: np.ndarray, strength: int, rng: np.random.Generator) -> np.ndarray:
    grain = rng.standard_normal(image.shape, np.float32) * _NOISE[strength - 1]
    return np.clip(image + grain, 0, 255).astype(np.uint8)


def dark(image: np.ndarray, strength: int, rng: np.random.Generator) -> np.ndarray:
    return np.round(image * _LIGHT[strength - 1]).astype(np.uint8)


def jpeg(image: np.ndarray, strength: int, rng: np.random.Generator) -> np.ndarray:
    options = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY[strength - 1]]
    # Colours in another order are compressed a little otherwise, so they are put into that of a file.
    squeezed = cv2.imencode(".jpg", image[..., ::-1], options)[1]
    return np.asarray(cv2.imdecode(squeezed, cv2.IMREAD_COLOR))[..., ::-1]


def crop(image: np.ndarray, strength: int, rng: np.random.Generator) -> np.ndarray:
    height, width = (max(1, round(_LEFT[strength - 1] * length)) for length in image.shape[:2])
    top, left = rng.integers(image.shape[0] - height + 1), rng.integers(image.shape[1] - width + 1)
    return image[top : top + height, left : left + width]


KINDS: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "blur": blur,
    "noise": noise,
    "dark": dark,
    "jpeg": jpeg,
    "crop": crop,
}


def corrupted(photograph: bytes, id: str, *, kind: str, strength: int) -> bytes:
    """A photograph in standard form, made worse: a JPEG again. What is random in it follows from `id` alone."""
    seed = int.from_bytes(hashlib.sha256(f"{id}-{kind}-{strength}".encode()).digest()[:8], "big")
    image = KINDS[kind](photos.decode(photograph), strength, np.random.default_rng(seed))
    return photos.encode(np.ascontiguousarray(image))


@dataclass(frozen=True)
class Worse:
    """How models fare on photographs made worse.

    Attributes:
        table: columns corruption, strength (0: as they are), model, photographs, accuracy, low, high (Wilson's
            interval).
        shares: by model, float64 (photographs,): of the worse versions of each photograph, the share judged right.
    """

    table: pd.DataFrame
    shares: dict[str, np.ndarray]

    def robustness(self, model: str) -> float:
        """Mean accuracy of a model over all corruptions and strengths."""
        return float(self.shares[model].mean())

    def interval(self, model: str, *, confidence: float, resamples: int, seed: int) -> list[float]:
        """[low, high] of `robustness`: percentile bootstrap over photographs, each with all of its worse versions."""
        shares = self.shares[model]
        drawn = scoring.resampled(len(shares), resamples=resamples, seed=seed)
        means = np.concatenate([weights @ shares / len(shares) for weights in drawn])
        return np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()


def measure(
    shard: Shard, *, count: int, models: dict[str, tuple[int, Answers]], threshold: float, confidence: float
) -> Worse:
    """Have models judge the photographs of a shard as they are, and made worse in every way.

    Args:
        count: photographs at most; the first by id, which is as good as at random, and always the same.
        models: side of the square that each takes, and what it answers: uint8 (n, side, side, 3) to probabilities.
    """
    rows = sorted(range(len(shard)), key=lambda row: shard.ids[row])[:count]
    labels = shard.labels[rows] == 1
    trials = [("none", 0)] + [(kind, strength) for kind in KINDS for strength in STRENGTHS]
    found = []
    rights: dict[str, list[np.ndarray]] = {name: [] for name in models}
    with ThreadPoolExecutor(parallel.cores()) as pool:
        for kind, strength in track(trials, total=len(trials), what="worse photographs"):

            def photograph(row: int, kind: str = kind, strength: int = strength) -> bytes:
                jpeg = shard.jpeg(row)
                return corrupted(jpeg, shard.ids[row], kind=kind, strength=strength) if strength else jpeg

            jpegs = list(pool.map(photograph, rows))
            for name, (side, answers) in models.items():
                told = np.concatenate([answers(pixels) for pixels in _pixels(jpegs, side, pool)])
                right = (told >= threshold) == labels
                if strength:
                    rights[name].append(right)
                low, high = scoring.wilson(int(right.sum()), len(rows), confidence)
                found.append((kind, strength, name, len(rows), right.mean(), low, high))
    columns = ["corruption", "strength", "model", "photographs", "accuracy", "low", "high"]
    shares = {name: np.mean(each, axis=0) for name, each in rights.items()}
    return Worse(pd.DataFrame(found, columns=columns), shares)


def draw(table: pd.DataFrame, path: Path, *, names: dict[str, str], colours: dict[str, str], note: str = "") -> None:
    """Accuracy against strength, a panel for each corruption, on one scale."""
    figure, panels = style.panels(len(KINDS), size=(12, 3.2), note=note)
    plain, worse = table[table["strength"] == 0], table[table["strength"] > 0]
    for axes, kind in zip(panels, KINDS, strict=True):
        for model, colour in colours.items():
            rows = pd.concat([part[part["model"] == model] for part in (plain, worse[worse["corruption"] == kind])])
            axes.plot(rows["strength"], rows["accuracy"], color=colour, lw=2, marker="o", ms=4)
            axes.fill_between(rows["strength"], rows["low"], rows["high"], color=colour, alpha=0.15, lw=0)
        axes.set_ylim(min(0.5, table["low"].min()), 1)
        axes.set_xticks([0, *STRENGTHS], ["as is", *map(str, STRENGTHS)])
        style.percent_axes(axes.yaxis)
        style.title(axes, kind if kind != "jpeg" else "JPEG")
    style.legend(figure, [(colour, "o", names[model]) for model, colour in colours.items()])
    style.save(figure, path)


def _pixels(jpegs: list[bytes], side: int, pool: ThreadPoolExecutor) -> Iterator[np.ndarray]:
    for start in range(0, len(jpegs), _CHUNK):
        yield np.stack(list(pool.map(lambda jpeg: photos.pixels(jpeg, side), jpegs[start : start + _CHUNK])))
