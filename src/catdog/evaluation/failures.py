"""Where the models fail: sheets of mistakes and disagreements, with what each model looked at, and a table of them."""

from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from catdog.base import files, paths
from catdog.evaluation import gradcam
from catdog.evaluation.plots import NAMES
from catdog.photographs import photos
from catdog.photographs.shards import Shard
from catdog.pictures import sheets

_SHOWN = 12  # photographs on a sheet
_CELL = 120  # pixels


@dataclass(frozen=True)
class Failures:
    """Verdicts on the photographs of a shard, to be shown.

    Attributes:
        probabilities: of the second class, float64 (n,), by model.
        models: the saved models, by name; asked only about the photographs that are shown.
    """

    shard: Shard
    probabilities: dict[str, np.ndarray]
    models: dict[str, keras.Model]
    classes: list[str]
    threshold: float
    note: str = ""

    def wrong(self, name: str) -> np.ndarray:
        """bool (n,)"""
        return (self.probabilities[name] >= self.threshold) != (self.shard.labels == 1)

    def doubt(self, name: str) -> np.ndarray:
        """float64 (n,): the probability that the model gave to what the photograph is not."""
        return np.abs(self.shard.labels - self.probabilities[name])


def draw(failures: Failures) -> dict[str, Path]:
    """Draw the sheets and write the table; returns the sheets by the name under which the report shows them."""
    pictures = {f"mistakes_{name}": paths.PLOTS / f"mistakes_{name}.png" for name in NAMES}
    pictures["disagreements"] = paths.PLOTS / "disagreements.png"
    for name in NAMES:
        mistakes(failures, name, pictures[f"mistakes_{name}"])
    disagreements(failures, pictures["disagreements"])
    files.write_text(paths.MISTAKES, table(failures).to_csv(index=False))
    return pictures


def table(failures: Failures) -> pd.DataFrame:
    """Columns id, source, label, a probability for each model, wrong (which models are, as `cnn xception`): a row for
    each photograph that a model got wrong, the surest mistakes first."""
    wrong = {name: failures.wrong(name) for name in NAMES}
    rows = np.flatnonzero(np.any(list(wrong.values()), axis=0))
    doubt = np.max([failures.doubt(name) for name in NAMES], axis=0)
    rows = rows[np.argsort(-doubt[rows], kind="stable")]
    shard = failures.shard
    return pd.DataFrame(
        {
            "id": [shard.ids[row] for row in rows],
            "source": [shard.sources[row] for row in rows],
            "label": [failures.classes[shard.labels[row]] for row in rows],
            **{name: failures.probabilities[name][rows] for name in NAMES},
            "wrong": [" ".join(name for name in NAMES if wrong[name][row]) for row in rows],
        }
    )


def mistakes(failures: Failures, name: str, path: Path) -> None:
    """A sheet of the mistakes that model `name` was surest of."""
    wrong = np.flatnonzero(failures.wrong(name))
    rows = wrong[np.argsort(-failures.doubt(name)[wrong], kind="stable")][:_SHOWN]
    title = f"{NAMES[name]}: {_of(len(rows), len(wrong))}, the surest first"
    _sheet(failures, rows, path, title=title)


def disagreements(failures: Failures, path: Path) -> None:
    """A sheet of photographs that one model gets right and the other wrong, some of either kind."""
    rows, groups, said = [], [], []
    for wrong, right in (("cnn", "xception"), ("xception", "cnn")):
        there = np.flatnonzero(failures.wrong(wrong) & ~failures.wrong(right))
        shown = there[np.argsort(-failures.doubt(wrong)[there], kind="stable")][: _SHOWN // 2]
        rows += shown.tolist()
        groups += [f"{NAMES[right]} alone is right"] * len(shown)
        said.append(f"{NAMES[right]} alone right on {len(there):,}")
    _sheet(failures, np.array(rows, int), path, title=f"Disagreements: {', '.join(said)}", groups=groups)


def _sheet(failures: Failures, rows: np.ndarray, path: Path, *, title: str, groups: list[str] | None = None) -> None:
    heats = {name: _heats(failures, name, rows) for name in NAMES}
    blocks = []
    for place, row in enumerate(rows):
        image = photos.decode(failures.shard.jpeg(int(row)))
        said = [f"{NAMES[name]}\n{_verdict(failures, name, int(row))}" for name in NAMES]
        pictures: list[np.ndarray | str] = [image, *(gradcam.overlay(image, heats[name][place]) for name in NAMES)]
        heading = f"labelled {failures.classes[failures.shard.labels[row]]}"
        heading += f"\n{groups[place]}" if groups else ""
        blocks.append(sheets.Block(pictures, [sheets.tail(failures.shard.sources[row]), *said], heading))
    sheets.block_sheet(blocks, path, title=title, note=failures.note, cell=_CELL, palette=True)


def _heats(failures: Failures, name: str, rows: np.ndarray) -> np.ndarray:
    model = failures.models[name]
    side = model.input_shape[1]
    if not rows.size:
        return np.empty((0, 1, 1), np.float32)
    pixels = np.stack([photos.pixels(failures.shard.jpeg(int(row)), side) for row in rows])
    return gradcam.maps(model, pixels, second=failures.probabilities[name][rows] >= failures.threshold)


def _verdict(failures: Failures, name: str, row: int) -> str:
    probability = failures.probabilities[name][row]
    second = bool(probability >= failures.threshold)
    return f"{failures.classes[second]}, {100 * (probability if second else 1 - probability):.1f} %"


def _of(shown: int, there: int) -> str:
    many = f"{there:,} mistake{'s' if there != 1 else ''}"
    return many + (f", {shown} shown" if shown < there else "")
