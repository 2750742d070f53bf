"""Accuracy on parts of the test photographs: by class, shape, size, light and colour. No model is asked again."""

from pathlib import Path

import numpy as np
import pandas as pd

from catdog.evaluation import properties, scoring
from catdog.photographs import photos
from catdog.photographs.shards import Shard
from catdog.pictures import style
from catdog.pictures.style import COLOURS, NAMES

_SIDE = 32  # pixels: enough for light and colour
_GREY = 4.0  # of 255: the mean gap between red, green and blue below which a photograph has no colour
_FEWEST = 20  # photographs: the interval of fewer says next to nothing


def describe(shard: Shard, manifest: pd.DataFrame, *, classes: list[str]) -> pd.DataFrame:
    """The slice of each photograph by each property: a categorical column for each property, a row per photograph.

    Args:
        manifest: columns id, width and height (of the file, pixels), a row for every file that was met.
    """
    sizes = properties.sizes(manifest, shard.ids)
    aspect = (sizes["width"] / sizes["height"]).to_numpy()
    short = sizes.min(axis=1).to_numpy()
    pixels = [photos.pixels(shard.jpeg(index), _SIDE) for index in range(len(shard))]
    light = np.array([properties.light(image) for image in pixels])
    colour = np.array([properties.colour(image) for image in pixels])
    return pd.DataFrame(
        {
            "class": pd.Categorical(np.array(classes)[shard.labels], classes),
            "shape": _cut(aspect, [0.9, 1.1], ["portrait", "about square", "landscape"]),
            "short side": _thirds(short, "smallest", "middle", "largest", unit="px"),
            "light": _thirds(light, "darkest", "middle", "brightest", unit="of 255"),
            "colour": _cut(colour, [_GREY], ["none (grey)", "colour"]),
        }
    )


def table(described: pd.DataFrame, right: dict[str, np.ndarray], *, confidence: float) -> pd.DataFrame:
    """Columns property, slice, photographs, model, accuracy, low, high (Wilson's interval).

    Left out are slices of under 20 photographs, and properties of which fewer than two slices are left.

    Args:
        described: as `describe` returns it.
        right: by model, bool (n,): whether its verdict is right.
    """
    rows = []
    for name, values in described.items():
        enough = [value for value in values.cat.categories if (values == value).sum() >= _FEWEST]
        for value in enough if len(enough) > 1 else []:
            inside = (values == value).to_numpy()
            for model, verdicts in right.items():
                low, high = scoring.wilson(verdicts[inside].sum(), inside.sum(), confidence)
                rows.append((name, value, inside.sum(), model, verdicts[inside].mean(), low, high))
    return pd.DataFrame(rows, columns=["property", "slice", "photographs", "model", "accuracy", "low", "high"])


def draw(table: pd.DataFrame, path: Path, *, note: str = "") -> None:
    """The table as dots with intervals, the slices of one property together."""
    slices = table[["property", "slice", "photographs"]].drop_duplicates()
    count = max(1, len(slices))
    figure, (axes,) = style.panels(1, size=(8, 1.4 + 0.34 * count), note=note)
    for place, (model, rows) in enumerate(table.groupby("model", sort=False)):
        y = np.arange(len(rows)) + 0.16 * (2 * place - 1)
        ends = np.clip([rows["accuracy"] - rows["low"], rows["high"] - rows["accuracy"]], 0, None)
        axes.errorbar(rows["accuracy"], y, xerr=ends, fmt="o", ms=5, color=COLOURS[str(model)], elinewidth=1.5)
    labels = [f"{name}: {value}  ({photographs:,})" for name, value, photographs in slices.itertuples(index=False)]
    axes.set_yticks(range(len(slices)), labels)
    axes.set_ylim(count - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    for place in np.flatnonzero(slices["property"] != slices["property"].shift())[1:]:
        axes.axhline(place - 0.5, color=style.RULE, lw=0.8)
    style.percent_axes(axes.xaxis)
    style.title(axes, "Accuracy by kind of photograph (how many)")
    style.legend(figure, [(COLOURS[model], "o", NAMES[model]) for model in table["model"].unique()])
    style.save(figure, path)


def _thirds(values: np.ndarray, *names: str, unit: str) -> pd.Categorical:
    """In which third of the photographs each value is; one category where most are alike."""
    low, high = np.quantile(values, [1 / 3, 2 / 3]).round()
    if low == high:
        return pd.Categorical(np.full(len(values), f"about {low:.0f} {unit}"))
    limits = (f"under {low:.0f}", f"{low:.0f} to {high:.0f}", f"from {high:.0f} {unit}")
    return _cut(values, [low, high], [f"{name}, {limit}" for name, limit in zip(names, limits, strict=True)])


def _cut(values: np.ndarray, limits: list[float], names: list[str]) -> pd.Categorical:
    return pd.cut(values, [-np.inf, *limits, np.inf], right=False, labels=names)
