"""How accuracy holds on corrupted photographs: five kinds of corruption, each at three strengths.

After Hendrycks and Dietterich 2019, https://arxiv.org/abs/1903.12261, with what photographs of pets really suffer.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from catdog.answers.asking import BATCH, joined
from catdog.answers.classifier import DOUBTS, Classifier, Judged
from catdog.base.progress import track
from catdog.evaluation import scoring
from catdog.photographs import parallel, photos
from catdog.photographs.shards import Shard
from catdog.pictures import style
from catdog.pictures.style import COLOURS, NAMES

STRENGTHS = (1, 2, 3)

Corrupt = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


def blur(image: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), deviation * min(image.shape[:2]))


def noise(image: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    grain = rng.standard_normal(image.shape, np.float32) * deviation
    return np.clip(image + grain, 0, 255).astype(np.uint8)


def dark(image: np.ndarray, light: float, rng: np.random.Generator) -> np.ndarray:
    return np.round(image * light).astype(np.uint8)


def jpeg(image: np.ndarray, quality: float, rng: np.random.Generator) -> np.ndarray:
    # OpenCV wants blue first. In the other order a photograph is compressed differently.
    encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(quality)])[1]
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))[..., ::-1]


def crop(image: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    height, width = (max(1, round(share * length)) for length in image.shape[:2])
    top, left = rng.integers(image.shape[0] - height + 1), rng.integers(image.shape[1] - width + 1)
    return image[top : top + height, left : left + width]


# What corrupts, and how much at each strength.
KINDS: dict[str, tuple[Corrupt, tuple[float, ...]]] = {
    "blur": (blur, (0.01, 0.02, 0.04)),  # standard deviation, as a share of the short side
    "noise": (noise, (15, 30, 60)),  # standard deviation, of 255
    "dark": (dark, (0.5, 0.25, 0.12)),  # share of the light that is left
    "jpeg": (jpeg, (25, 12, 5)),  # quality, of 100
    "crop": (crop, (0.8, 0.6, 0.45)),  # share of each side that is left, anywhere in the photograph
}


def corrupted(photograph: bytes, id: str, *, kind: str, strength: int) -> bytes:
    """A corrupted photograph, from and to a JPEG in standard form. What is random in it follows from `id` alone."""
    corrupt, amounts = KINDS[kind]
    seed = int.from_bytes(hashlib.sha256(f"{id}-{kind}-{strength}".encode()).digest()[:8], "big")
    image = corrupt(photos.decode(photograph), amounts[strength - 1], np.random.default_rng(seed))
    return photos.encode(np.ascontiguousarray(image))


@dataclass(frozen=True)
class Corrupted:
    """How models fare on corrupted photographs.

    Attributes:
        table: columns corruption, strength (0: none), model, photographs, accuracy, low, high (Wilson's interval),
            unsure and neither (shares that get no class).
        shares: by model, float64 (photographs,): of each photograph's corrupted versions, the share that the model
            gets right.
    """

    table: pd.DataFrame
    shares: dict[str, np.ndarray]

    def robustness(self, model: str) -> float:
        """The mean accuracy of a model over all corruptions and strengths."""
        return float(self.shares[model].mean())

    def doubt(self, model: str) -> dict[str, float]:
        """The shares that get no class, over all corruptions and strengths."""
        rows = self.table[(self.table["model"] == model) & (self.table["strength"] > 0)]
        return {f"corrupted_{label}": float(rows[label].mean()) for label in DOUBTS.values()}


def measure(
    shard: Shard, *, count: int, models: dict[str, Classifier], plain: dict[str, Judged], confidence: float
) -> Corrupted:
    """Ask models about the photographs of a shard, corrupted in every way.

    Args:
        count: photographs at most.
        plain: what the models say of all photographs as they are.
    """
    chosen = shard.sample(count)
    labels = shard.labels[chosen] == 1
    results: list[tuple] = []
    rights: dict[str, list[np.ndarray]] = {name: [] for name in models}

    def note(kind: str, strength: int, name: str, probabilities: np.ndarray, given: np.ndarray) -> np.ndarray:
        right = (probabilities >= models[name].threshold) == labels
        low, high = scoring.wilson(right.sum(), len(right), confidence)
        shares = [(given == doubt).mean() for doubt in DOUBTS]
        results.append((kind, strength, name, len(right), right.mean(), low, high, *shares))
        return right

    for name in models:
        note("none", 0, name, plain[name].probabilities[chosen], plain[name].labels[chosen])
    trials = [(kind, strength) for kind in KINDS for strength in STRENGTHS]
    for kind, strength in track(trials, total=len(trials), what="corrupted photographs"):
        jpegs = list(parallel.threaded(partial(_version, shard, kind=kind, strength=strength), chosen, ahead=4 * BATCH))
        for name, model in models.items():
            pixels = parallel.threaded(partial(photos.pixels, size=model.side), jpegs, ahead=4 * BATCH)
            asked = joined(model.network.stream(map(np.stack, parallel.chunks(pixels, BATCH))))
            judged = model.judge(asked)
            rights[name].append(note(kind, strength, name, judged.probabilities, judged.labels))
    columns = ["corruption", "strength", "model", "photographs", "accuracy", "low", "high", *DOUBTS.values()]
    shares = {name: np.mean(by_trial, axis=0) for name, by_trial in rights.items()}
    return Corrupted(pd.DataFrame(results, columns=columns), shares)


def draw(table: pd.DataFrame, path: Path, *, note: str = "") -> None:
    """Accuracy against strength, a panel for each corruption, on one scale."""
    figure, panels = style.panels(len(KINDS), size=(12, 3.2), note=note)
    for axes, kind in zip(panels, KINDS, strict=True):
        for model, rows in table[table["corruption"].isin(["none", kind])].groupby("model", sort=False):
            colour = COLOURS[str(model)]
            axes.plot(rows["strength"], rows["accuracy"], color=colour, lw=2, marker="o", ms=4)
            axes.fill_between(rows["strength"], rows["low"], rows["high"], color=colour, alpha=0.15, lw=0)
        axes.set_ylim(min(0.5, table["low"].min()), 1)
        axes.set_xticks([0, *STRENGTHS], ["as is", *map(str, STRENGTHS)])
        style.percent_axes(axes.yaxis)
        style.title(axes, kind if kind != "jpeg" else "JPEG")
    style.legend(figure, [(COLOURS[model], "o", NAMES[model]) for model in NAMES])
    style.save(figure, path)


def _version(shard: Shard, row: int, *, kind: str, strength: int) -> bytes:
    return corrupted(shard.jpeg(row), shard.ids[row], kind=kind, strength=strength)
