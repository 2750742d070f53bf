"""How accuracy holds on corrupted photographs: five kinds of corruption, each at three strengths.

After Hendrycks and Dietterich 2019, https://arxiv.org/abs/1903.12261, with what photographs of pets really suffer.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from catdog.answers.asking import BATCH, Asked, joined
from catdog.answers.classifier import DOUBTS, Classifier, Judged
from catdog.base import cluster, parallel
from catdog.base.progress import track
from catdog.evaluation import scoring
from catdog.photographs import photos
from catdog.photographs.shards import Shard
from catdog.pictures import style
from catdog.pictures.style import COLOURS, NAMES

STRENGTHS = (1, 2, 3)

Corrupt = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
Trial = tuple[str, int]  # kind and strength
_Item = tuple[bytes, str, str, int]  # a photograph, its id, and the trial


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
        models: each with a network of its own: all are asked at the same time.
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
    asked = _ask(shard, chosen, trials, models)
    for (kind, strength), of_models in track(
        zip(trials, asked, strict=True), total=len(trials), what="corrupted photographs"
    ):
        for name, of_model in of_models.items():
            judged = models[name].judge(of_model)
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


def _ask(
    shard: Shard, rows: list[int], trials: list[Trial], models: dict[str, Classifier]
) -> Iterator[dict[str, Asked]]:
    """What each model says of these photographs, trial by trial, on the cluster if one is named."""
    batches = list(parallel.chunks(rows, BATCH))
    items = ([(shard.jpeg(row), shard.ids[row], *trial) for row in batch] for trial in trials for batch in batches)
    if cluster.named() and all(model.network.portable for model in models.values()):
        answers = cluster.map_chunks(partial(_of_batch, list(models.values())), items)
    else:
        answers = _here(items, list(models.values()))
    for _ in trials:
        by_model = zip(*itertools.islice(answers, len(batches)), strict=True)
        yield {name: joined(parts) for name, parts in zip(models, by_model, strict=True)}


def _here(items: Iterable[list[_Item]], models: list[Classifier]) -> Iterator[list[Asked]]:
    """It is one stream through all trials and both networks: while they compute, the next batches are made on threads,
    and a network waits neither for the end of a trial nor for the other one.
    """
    make = partial(_pixels, sides=[model.side for model in models])
    pixels = parallel.threaded(make, items, ahead=2 * parallel.cores())
    streams = [
        model.network.stream(map(itemgetter(place), of_all))
        for place, (model, of_all) in enumerate(zip(models, itertools.tee(pixels, len(models)), strict=True))
    ]
    # Batch by batch in turns: the other network has its next batches under way meanwhile.
    return map(list, zip(*streams, strict=True))


def _of_batch(models: list[Classifier], items: list[_Item]) -> list[Asked]:
    pixels = _pixels(items, sides=[model.side for model in models])
    return [model.ask(of_model) for model, of_model in zip(models, pixels, strict=True)]


def _pixels(items: list[_Item], *, sides: list[int]) -> list[np.ndarray]:
    """A batch of corrupted photographs for networks of these sides, uint8 (items, side, side, 3) each."""
    jpegs = [corrupted(jpeg, id, kind=kind, strength=strength) for jpeg, id, kind, strength in items]
    return [np.stack([photos.pixels(jpeg, side) for jpeg in jpegs]) for side in sides]
