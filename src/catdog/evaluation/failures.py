"""Where the models fail: sheets of mistakes and disagreements, with what each model looked at, and a table of them."""

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from catdog.answers import gradcam
from catdog.base import files, paths
from catdog.photographs import photos
from catdog.photographs.shards import Shard
from catdog.pictures import sheets
from catdog.pictures.style import NAMES

_SHOWN = 12  # photographs on a sheet
_CELL = 120  # pixels


@dataclass(frozen=True)
class Failures:
    """The verdicts of both models on the photographs of a shard.

    Attributes:
        probabilities: of the second class, float64 (n,), by model.
        evidence: what speaks for the second class by place, (n, height, width), by model.
        note: stands on each sheet, in red.
    """

    shard: Shard
    probabilities: dict[str, np.ndarray]
    evidence: dict[str, np.ndarray]
    classes: list[str]
    threshold: float
    note: str = ""

    def wrong(self, name: str) -> np.ndarray:
        """bool (n,): whether the model's verdict is wrong."""
        return (self.probabilities[name] >= self.threshold) != (self.shard.labels == 1)

    def doubt(self, name: str) -> np.ndarray:
        """float64 (n,): the probability that the model gives to the other class than the photograph's own."""
        return np.abs(self.shard.labels - self.probabilities[name])


def draw(failures: Failures) -> dict[str, Path]:
    """Draw the sheets and write the table; returns the sheets by the names that the report has for them."""
    pictures = [*(mistakes(failures, name) for name in NAMES), disagreements(failures)]
    files.write_text(paths.MISTAKES, table(failures).to_csv(index=False))
    return {path.stem: path for path in pictures}


def table(failures: Failures) -> pd.DataFrame:
    """Each photograph that a model gets wrong, the surest mistakes first.

    Columns id, source, label, a probability for each model, wrong (the models that are, as `cnn xception`).
    """
    shard = failures.shard
    wrong = pd.DataFrame({name: failures.wrong(name) for name in NAMES})
    photographs = pd.DataFrame(
        {
            "id": shard.ids,
            "source": shard.sources,
            "label": np.array(failures.classes)[shard.labels],
            **failures.probabilities,
            "wrong": [" ".join(wrong.columns[row]) for row in wrong.to_numpy()],
        }
    )
    doubt = np.max([failures.doubt(name) for name in NAMES], axis=0)
    return photographs.iloc[_by_doubt(wrong.any(axis=1).to_numpy(), doubt)]


def mistakes(failures: Failures, name: str) -> Path:
    """A sheet of the mistakes that model `name` was surest of."""
    rows = _by_doubt(failures.wrong(name), failures.doubt(name))
    count = f"{len(rows):,} mistake{'s' if len(rows) != 1 else ''}"
    count += f", {_SHOWN} shown" if len(rows) > _SHOWN else ""
    title = f"{NAMES[name]}: {count}, the surest first"
    return _sheet(failures, dict.fromkeys(rows[:_SHOWN], ""), paths.PLOTS / f"mistakes_{name}.png", title=title)


def disagreements(failures: Failures) -> Path:
    """A sheet of photographs that one model gets right and the other wrong, some of either kind."""
    headings: dict[int, str] = {}
    counts = []
    for wrong, right in itertools.permutations(NAMES, 2):
        rows = _by_doubt(failures.wrong(wrong) & ~failures.wrong(right), failures.doubt(wrong))
        headings |= dict.fromkeys(rows[: _SHOWN // 2], f"\n{NAMES[right]} alone is right")
        counts.append(f"{NAMES[right]} alone right on {len(rows):,}")
    title = f"Disagreements: {', '.join(counts)}"
    return _sheet(failures, headings, paths.PLOTS / "disagreements.png", title=title)


def _by_doubt(photographs: np.ndarray, doubt: np.ndarray) -> list[int]:
    """The rows of those of the `photographs`, bool (n,), from the greatest doubt down."""
    rows = np.flatnonzero(photographs)
    return rows[np.argsort(-doubt[rows], kind="stable")].tolist()


def _sheet(failures: Failures, headings: dict[int, str], path: Path, *, title: str) -> Path:
    """Draw the photographs whose rows are the keys of `headings`, each with what both models looked at."""
    shard, rows = failures.shard, list(headings)
    heats = {name: _heats(failures, name, rows) for name in NAMES} if rows else {}
    blocks = []
    for place, row in enumerate(rows):
        image = photos.decode(shard.jpeg(row))
        overlays = [gradcam.overlay(image, heats[name][place]) for name in NAMES]
        verdicts = [f"{NAMES[name]}\n{_verdict(failures, name, row)}" for name in NAMES]
        heading = f"labelled {failures.classes[shard.labels[row]]}{headings[row]}"
        blocks.append(sheets.Block([image, *overlays], [sheets.tail(shard.sources[row]), *verdicts], heading))
    sheets.block_sheet(blocks, path, title=title, note=failures.note, cell=_CELL)
    return path


def _heats(failures: Failures, name: str, rows: list[int]) -> np.ndarray:
    second = failures.probabilities[name][rows] >= failures.threshold
    return gradcam.heat(failures.evidence[name][rows], second=second)


def _verdict(failures: Failures, name: str, row: int) -> str:
    probability = failures.probabilities[name][row]
    second = bool(probability >= failures.threshold)
    return f"{failures.classes[second]}, {100 * (probability if second else 1 - probability):.1f} %"
