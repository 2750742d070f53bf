"""How every plot looks, as a PNG file of deterministic bytes; and the two models, their names and their colours.

matplotlib is imported when a plot is made, since a stage that makes none should not wait for it.
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catdog.base import files

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's: told apart by the colour-blind too, and in grey (the first is lighter).
COLOURS = {"cnn": "#D55E00", "xception": "#0072B2"}
NAMES = {"cnn": "CNN", "xception": "Xception"}

INK, GREY, RULE, ALARM = "#1b1f24", "#57606a", "#d8dee4", "#b42318"
DPI = 150


def panels(
    count: int, *, size: tuple[float, float], note: str, width_ratios: tuple[float, ...] | None = None
) -> "tuple[Figure, list[Axes]]":
    """A figure of `size` (inches) with `count` panels side by side; `note` stands under it, in red."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=DPI, layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08)  # type: ignore[union-attr, call-arg]
    side_by_side = list(figure.subplots(1, count, squeeze=False, width_ratios=width_ratios)[0])
    for axes in side_by_side:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(RULE)
        axes.grid(color=RULE, lw=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(colors=GREY, labelcolor=INK, length=0, labelsize=9)
    if note:
        figure.supxlabel(note, x=0.01, ha="left", fontsize=9, fontweight="bold", color=ALARM)
    return figure, side_by_side


def note(kind: str) -> str:
    """What every plot and sheet says of data whose source is of this `kind`: that they are drawings, or nothing."""
    return "drawings, not photographs" if kind == "drawn" else ""


def title(axes: "Axes", text: str) -> None:
    """Write the title of a panel."""
    axes.set_title(text, loc="left", fontsize=11, fontweight="bold", color=INK, pad=10)


def percent_axes(*directions: Any) -> None:
    """Write the ticks of an x or y axis as percentages."""
    for direction in directions:
        direction.set_major_formatter(lambda value, _: f"{round(100 * value, 4):g} %")


def legend(where: "Figure | Axes", entries: list[tuple[str, str, str]], *, loc: Any = "outside upper left") -> None:
    """Write a legend; `entries` are (colour, one of - -- : o, what it stands for)."""
    from matplotlib.lines import Line2D

    marks: dict[str, dict[str, Any]] = {"-": {"lw": 2}, "--": {"lw": 1.2, "ls": "--"}, ":": {"lw": 1, "ls": ":"}}
    marks["o"] = {"lw": 0, "marker": "o"}
    handles = [Line2D([], [], color=colour, label=label, **marks[mark]) for colour, mark, label in entries]
    columns = len(handles) if loc.startswith("outside") else 1
    where.legend(handles=handles, loc=loc, ncols=columns, frameon=False, fontsize=9)


def save(figure: "Figure", path: Path) -> None:
    """Write a PNG file: complete or not at all, and the same bytes for the same data."""
    buffer = io.BytesIO()
    # Without the version of matplotlib, which is in it by default.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    files.write_bytes(path, buffer.getvalue())
