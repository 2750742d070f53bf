"""How large the photographs are as files, and of what shape: measurements, and a plot of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from catdog.pictures import style
from catdog.pictures.style import GREY, INK

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

# Of the classes: Okabe and Ito, none of them a model's.
_COLOURS = ("#009E73", "#CC79A7")
_BINS = 48
# Wider and taller photographs count in the last bins.
_SHAPES = {1 / 3: "≤ 1:3", 1 / 2: "1:2", 3 / 4: "3:4", 1: "1:1", 4 / 3: "4:3", 2: "2:1", 3: "≥ 3:1"}


def measurements(manifest: "pd.DataFrame", *, classes: list[str]) -> dict:
    """By class: how many `photographs` have a known size, and [least, median, greatest] of their `width` and `height`
    (pixels, as in the files, upright) and `aspect` (width / height).

    Args:
        manifest: as `manifest.table` returns it. Files that are not photographs have no width, and are left out.
    """
    return {
        name: {
            "photographs": len(widths),
            "width": _spread(widths),
            "height": _spread(heights),
            "aspect": _spread(np.round(widths / heights, 3)),
        }
        for name, widths, heights in _measured(manifest, classes)
    }


def draw(manifest: "pd.DataFrame", path: Path, *, classes: list[str], image_size: int, note: str = "") -> None:
    """Plot width by height as a density for each class, and the aspects of both.

    Args:
        manifest: as `manifest.table` returns it.
        image_size: of the short side, a dotted line; larger photographs are shrunk.
        note: stands under the plot, in red.
    """
    measured = _measured(manifest, classes)
    figure, panels = style.panels(len(classes) + 1, size=(12, 4.2), note=note)
    edges = _edges(np.concatenate([sides for _, *both in measured for sides in both]))
    counts = [np.histogram2d(widths, heights, bins=(edges, edges))[0] for _, widths, heights in measured]
    most = max([float(c.max()) for c in counts] + [2.0])
    for axes, count, (name, widths, heights) in zip(panels, counts, measured, strict=False):
        mesh = _density(axes, edges, count, most)
        _mark_image_size(axes, image_size, edges)
        style.title(axes, f"{name}: {_summary(widths, heights)}")
    bar = figure.colorbar(mesh, ax=panels[len(classes) - 1], pad=0.02, fraction=0.05, format="{x:,.0f}")
    bar.ax.tick_params(labelsize=8, labelcolor=INK, length=0, which="both")
    bar.ax.minorticks_off()
    bar.set_label("photographs", fontsize=8, color=GREY)
    bar.outline.set_visible(False)
    _aspects(panels[-1], measured)
    style.save(figure, path)


def _measured(manifest: "pd.DataFrame", classes: list[str]) -> list[tuple[str, np.ndarray, np.ndarray]]:
    known = manifest[manifest["width"].notna() & manifest["height"].notna()]
    by_class = [(name, known[known["label"] == name]) for name in classes]
    return [(name, rows["width"].to_numpy(float), rows["height"].to_numpy(float)) for name, rows in by_class]


def _spread(values: np.ndarray) -> list[float]:
    extent = (values.min(), np.median(values), values.max()) if len(values) else ()
    return [round(float(value), 3) for value in extent]


def _summary(widths: np.ndarray, heights: np.ndarray) -> str:
    if not len(widths):
        return "none"
    sizes, times = np.unique(np.stack([widths, heights]), axis=1, return_counts=True)
    width, height = sizes[:, times.argmax()]
    if len(times) == 1 and len(widths) > 1:
        return f"all {len(widths):,} are {width:.0f} x {height:.0f}"
    if times.max() > 0.05 * len(widths):
        return f"{len(widths):,}, {100 * times.max() / len(widths):.0f} % of them {width:.0f} x {height:.0f}"
    return f"{len(widths):,}, medians {np.median(widths):.0f} x {np.median(heights):.0f}"


def _edges(sides: np.ndarray) -> np.ndarray:
    """Edges of bins, in pixels, for both directions, in even ratios."""
    least, greatest = (float(sides.min()), float(sides.max())) if len(sides) else (1.0, 2.0)
    return np.geomspace(least * 0.9, greatest * 1.1, _BINS + 1)


def _density(axes: "Axes", edges: np.ndarray, count: np.ndarray, most: float) -> Any:
    from matplotlib.colors import LinearSegmentedColormap, LogNorm

    # The palest shade is still visible on white, so that a single photograph of an odd size can be seen.
    colours = LinearSegmentedColormap.from_list("", ["#c6d7ea", "#3b78b5", "#0b2545"])
    shown = np.ma.masked_less(count.T, 1)
    mesh = axes.pcolormesh(edges, edges, shown, cmap=colours, norm=LogNorm(1, most), rasterized=True)
    limits = (edges[0], edges[-1])
    axes.set(xscale="log", yscale="log", xlim=limits, ylim=limits, xlabel="width (pixels)", ylabel="height (pixels)")
    ticks = [float(f"{tick:.2g}") for tick in np.geomspace(*limits, 6)[1:-1]]
    for direction in (axes.xaxis, axes.yaxis):
        direction.set_ticks(ticks, [f"{tick:,.0f}" for tick in ticks])
        direction.set_ticks([], minor=True)
    axes.set_box_aspect(1)
    return mesh


def _mark_image_size(axes: "Axes", image_size: int, edges: np.ndarray) -> None:
    if edges[0] < image_size < edges[-1]:
        axes.plot([edges[-1], image_size, image_size], [image_size, image_size, edges[-1]], color=INK, lw=1, ls=":")
        text = f"dotted: short side {image_size},\nlarger ones are shrunk"
        axes.text(0.97, 0.03, text, transform=axes.transAxes, ha="right", va="bottom", fontsize=8, color=GREY)


def _aspects(axes: "Axes", measured: list[tuple[str, np.ndarray, np.ndarray]]) -> None:
    # In even ratios, with 1:1 in the middle of a bin, so that portrait and landscape are mirror images.
    edges = np.geomspace(min(_SHAPES), max(_SHAPES), 36)
    for (name, widths, heights), colour in zip(measured, _COLOURS, strict=True):
        if len(widths):
            aspects = np.clip(widths / heights, edges[0], edges[-1])
            share = np.histogram(aspects, edges)[0] / len(widths)
            axes.stairs(share, edges, color=colour, lw=2, label=name)
            axes.stairs(share, edges, color=colour, fill=True, alpha=0.15)
    axes.set(xscale="log", xlim=(edges[0], edges[-1]), ylim=(0, None), xlabel="width : height")
    axes.set_xticks(list(_SHAPES), list(_SHAPES.values()), fontsize=8)
    axes.minorticks_off()
    axes.set_box_aspect(1)
    style.percent_axes(axes.yaxis)
    style.title(axes, "Shape, as a share of the class")
    axes.legend(loc="upper right", frameon=False, fontsize=9)
