"""The figures, as PNG files of deterministic bytes. Each function takes data and the path to write.

Models go by their keys (`cnn`, `xception`); the tables are those of `scoring`, `evaluation` is metrics/evaluation.json.
`note` is written under a figure: that it shows drawings, for instance.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from catdog.pictures import style
from catdog.pictures.style import GREY, INK, RULE

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


NAMES = {"cnn": "CNN", "xception": "Xception"}
# Okabe and Ito: told apart by the colour-blind too, and in grey (the first is lighter).
COLOURS = {"cnn": "#D55E00", "xception": "#0072B2"}

_TICKS = {1: "1 s", 3: "3 s", 10: "10 s", 30: "30 s", 60: "1 min", 180: "3 min", 600: "10 min", 1800: "30 min"}
_TICKS |= {3600: "1 h", 3 * 3600: "3 h", 10 * 3600: "10 h", 24 * 3600: "1 day", 72 * 3600: "3 days"}


def curves(histories: "dict[str, pd.DataFrame]", path: Path, *, note: str = "") -> None:
    """Accuracy and loss by epoch, both models on common axes: train dashed, val solid."""
    figure, (accuracy, loss) = style.panels(2, size=(9, 3.6), note=note)
    for axes, what in ((accuracy, "accuracy"), (loss, "loss")):
        for model, history in histories.items():
            colour, marker = COLOURS.get(model, GREY), "." if len(history) < 3 else ""
            axes.plot(history["epoch"], history[f"train_{what}"], "--", color=colour, lw=1.2, alpha=0.7, marker=marker)
            axes.plot(history["epoch"], history[f"val_{what}"], color=colour, lw=2, marker=marker)
            _mark_sizes(axes, history, colour)
        style.title(axes, f"{what.capitalize()} by epoch")
        axes.set_xlabel("epoch")
    style.percent_axes(accuracy.yaxis)
    _top(loss, [h[key] for h in histories.values() for key in ("train_loss", "val_loss")])
    entries = [(COLOURS.get(m, GREY), "-", f"{NAMES.get(m, m)}, validation") for m in histories]
    entries += [(COLOURS.get(m, GREY), "--", f"{NAMES.get(m, m)}, training") for m in histories]
    style.legend(figure, entries)
    style.save(figure, path)


def roc(
    tables: "dict[str, pd.DataFrame]",
    bands: "dict[str, pd.DataFrame]",
    evaluation: dict,
    path: Path,
    *,
    note: str = "",
) -> None:
    """Receiver operating characteristic of each model, and its corner enlarged where the curves crowd there."""
    _tradeoff(
        tables, bands, evaluation, path, axes_of=("false_positive_rate", "true_positive_rate"), corner=0, note=note
    )


def precision_recall(
    tables: "dict[str, pd.DataFrame]",
    bands: "dict[str, pd.DataFrame]",
    evaluation: dict,
    path: Path,
    *,
    note: str = "",
) -> None:
    """Precision against recall of each model, and the corner enlarged where the curves crowd there."""
    _tradeoff(tables, bands, evaluation, path, axes_of=("recall", "precision"), corner=1, note=note)


def confusions(tables: "dict[str, pd.DataFrame]", path: Path, *, classes: list[str], note: str = "") -> None:
    """What each model called the photographs of each class: counts, and percentages of the actual class."""
    from matplotlib.colors import LinearSegmentedColormap

    figure, panels = style.panels(len(tables), size=(4.2 * len(tables), 3.9), note=note)
    for axes, (model, table) in zip(panels, tables.items(), strict=True):
        pairs = [[(table["actual"] == a) & (table["predicted"] == p) for p in classes] for a in classes]
        counts = np.array([[int(cell.sum()) for cell in row] for row in pairs])
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        colours = LinearSegmentedColormap.from_list("", ["#ffffff", COLOURS.get(model, GREY)])
        axes.imshow(shares, cmap=colours, vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(counts):
            ink = "white" if shares[row, column] > 0.6 else INK
            axes.text(column, row - 0.08, f"{count:,}", ha="center", va="center", fontsize=17, color=ink)
            share = f"{100 * shares[row, column]:.1f} %"
            axes.text(column, row + 0.17, share, ha="center", va="center", fontsize=10, color=ink)
        axes.set_xticks(range(len(classes)), [f"called {name}" for name in classes])
        axes.set_yticks(range(len(classes)), classes)
        axes.set_ylabel("actual")
        axes.grid(visible=False)
        style.title(axes, f"{NAMES.get(model, model)}: {counts.sum() - counts.trace():,} of {counts.sum():,} wrong")
    style.save(figure, path)


def reliability(
    tables: "dict[str, pd.DataFrame]",
    calibrated: "dict[str, pd.DataFrame]",
    evaluation: dict,
    path: Path,
    *,
    note: str = "",
) -> None:
    """Do the probabilities mean what they say: observed frequency by predicted probability, as they are and divided by
    the temperature; and how many are where."""
    figure, (before, after, counts) = style.panels(3, size=(12, 3.9), note=note)
    entries = [(GREY, ":", "probabilities that mean what they say")]
    for axes in (before, after):
        axes.plot([0, 1], [0, 1], color=GREY, lw=1, ls=":")
        axes.set(xlabel="predicted probability", ylabel="observed frequency")
    for place, model in enumerate(tables):
        colour, found, table = COLOURS.get(model, GREY), evaluation[model], tables[model]
        _observed(before, table, colour)
        _observed(after, calibrated[model], colour)
        width = table["width"] * 0.4
        counts.bar(table["middle"] + (place - 0.5) * width, table["photographs"], width, color=colour)
        off, then = found["calibration_error"], found["calibrated_calibration_error"]
        said = f"off by {100 * off:.1f} %, then {100 * then:.1f} % (temperature {found['temperature']:.2f})"
        entries.append((colour, "-", f"{NAMES.get(model, model)}: {said}"))
    style.percent_axes(before.xaxis, before.yaxis, after.xaxis, after.yaxis, counts.xaxis)
    style.title(before, "Predicted against observed")
    style.title(after, "After temperature scaling")
    counts.set(xlabel="predicted probability", ylabel="count", yscale="log")
    counts.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    counts.minorticks_off()
    style.title(counts, "How many are where")
    style.legend(figure, entries)
    style.save(figure, path)


def _observed(axes: "Axes", table: "pd.DataFrame", colour: str) -> None:
    x, y = table["probability"], table["observed"]
    whiskers = np.clip([y - table["low"], table["high"] - y], 0, None)
    axes.errorbar(x, y, whiskers, color=colour, lw=0, elinewidth=1.2, alpha=0.5)
    axes.plot(x, y, color=colour, lw=0, marker="o", ms=4)
    enough = table["photographs"] >= 5
    axes.plot(x[enough], y[enough], color=colour, lw=1.6)


def cost(evaluation: dict, histories: "dict[str, pd.DataFrame]", path: Path, *, note: str = "") -> None:
    """Accuracy against the time it took: val_accuracy while training, then test accuracy with its interval."""
    figure, (axes,) = style.panels(1, size=(7.5, 4.1), note=note)
    entries, starts = [(GREY, "-", "validation, while training")], []
    for model, history in histories.items():
        found, colour = evaluation[model], COLOURS.get(model, GREY)
        before, passed = _seconds(found, history)
        axes.plot(before + passed, history["val_accuracy"], color=colour, lw=2)
        # Leads from the left edge to the end of what came before the first epoch, which can be most of the time.
        starts.append(before + passed[0])
        axes.hlines(history["val_accuracy"].iloc[0], 1e-3, starts[-1], color=colour, lw=1, ls=":")
        _whisker(axes, found, "accuracy", at=found["train_seconds"], colour=colour)
        name, share, spent = NAMES.get(model, model), percent(found["accuracy"]), duration(found["train_seconds"])
        entries.append((colour, "o", f"{name}: {share} on test, after {spent}"))
    axes.set_xscale("log")
    axes.set_xticks(list(_TICKS), list(_TICKS.values()), minor=False)
    axes.minorticks_off()
    axes.set_xlim(max(min(starts), 0.1) / 3, max(evaluation[model]["train_seconds"] for model in histories) * 1.5)
    axes.set_xlabel("time since the start of training")
    style.percent_axes(axes.yaxis)
    style.title(axes, "Accuracy against training time")
    style.legend(axes, entries, loc="lower right")
    style.save(figure, path)


def comparison(evaluation: dict, histories: "dict[str, pd.DataFrame]", path: Path, *, note: str = "") -> None:
    """The one picture: verdict, metrics with intervals, convergence and training time of both models."""
    figure, (dots, lines, bars) = style.panels(3, size=(12, 4.2), note=note, width_ratios=(1.15, 1, 0.8))
    metrics = {"accuracy": "Accuracy", "precision": "Precision", "recall": "Recall", "f1": "F1"}
    for place, (model, history) in enumerate(histories.items()):
        found, colour, name = evaluation[model], COLOURS.get(model, GREY), NAMES.get(model, model)
        for row, metric in enumerate(metrics):
            y = row + 0.18 * (2 * place - 1)
            _whisker(dots, found, metric, at=y, colour=colour, across=True)
            text, end = percent(found[metric]), (found["intervals"][metric][1], y)
            dots.annotate(text, end, (6, 0), textcoords="offset points", va="center", fontsize=9, color=colour)
        lines.plot(
            history["epoch"], history["val_accuracy"], color=colour, lw=2, marker="." if len(history) < 3 else ""
        )
        before, passed = _seconds(found, history)
        bars.barh(place, before, 0.3, color=colour, alpha=0.4)
        bars.barh(place, passed[-1], 0.3, left=before, color=colour)
        said = f"{name}: {duration(found['train_seconds'])}"
        bars.annotate(said, (0, place - 0.17), (0, 3), textcoords="offset points", fontsize=11, color=colour)
        if before > 0.05 * found["train_seconds"]:
            said = f"{duration(before)} before the first epoch (pale)"
            bars.annotate(said, (0, place + 0.17), (0, -13), textcoords="offset points", fontsize=9, color=GREY)
    difference = evaluation["difference"]
    dots.set_yticks(range(len(metrics)), metrics.values(), fontsize=10)
    dots.set_ylim(len(metrics) - 0.5, -0.5)
    dots.margins(x=0.14)
    dots.grid(visible=False, axis="y")
    for row in range(1, len(metrics)):
        dots.axhline(row - 0.5, color=RULE, lw=0.6)
    style.percent_axes(dots.xaxis, lines.yaxis)
    tested = evaluation[next(iter(histories))]["test_photographs"]
    style.title(dots, f"{tested:,} test {difference['things']}, {100 * difference['confidence']:g} % intervals")
    lines.set_xlabel("epoch")
    style.title(lines, "Validation accuracy")
    bars.set_ylim(len(histories) - 0.5, -0.5)
    bars.set(yticks=[], xticks=[])
    bars.spines[["bottom", "left"]].set_visible(False)
    style.title(bars, "Training time")
    figure.suptitle(difference["headline"], x=0.008, ha="left", fontsize=15, fontweight="bold", color=INK)
    style.legend(figure, [(COLOURS.get(m, GREY), "o", NAMES.get(m, m)) for m in histories], loc="outside upper right")
    style.save(figure, path)


def percent(fraction: float) -> str:
    """97.3 %; two decimals where one would make 100 % of what is less."""
    return f"{100 * fraction:.{2 if 0.9995 <= fraction < 1 else 1}f} %"


def duration(seconds: float) -> str:
    """Seconds as a person says them: 0.4 s, 42 s, 3 min 5 s, 2 h 10 min."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    minutes = round(seconds / 60)
    return f"{minutes // 60} h" + (f" {minutes % 60} min" if minutes % 60 else "")


def _top(axes: "Axes", series: "list[pd.Series]") -> None:
    # One bad epoch must not flatten all the others.
    every = np.concatenate([s.to_numpy(dtype=float) for s in series])
    every = every[np.isfinite(every)]
    if len(every):
        axes.set_ylim(0, min(every.max(), 2.5 * np.quantile(every, 0.9)) * 1.05)


def _mark_sizes(axes: "Axes", history: "pd.DataFrame", colour: str) -> None:
    # Where a training goes on at another image size, its curves jump.
    sizes = history["image_size"]
    if sizes.nunique() < 2:
        return
    for epoch, size in zip(history["epoch"], sizes.where(sizes != sizes.shift()), strict=True):
        if size == size:
            axes.axvline(epoch, color=colour, lw=0.8, ls=":", alpha=0.6)
            axes.text(epoch, 0.0, f" {size:.0f} px", transform=axes.get_xaxis_transform(), fontsize=7.5, color=colour)


def _seconds(found: dict, history: "pd.DataFrame") -> tuple[float, np.ndarray]:
    # What was spent outside the epochs was, nearly all of it, spent before the first: on weights and features.
    passed = history["seconds"].cumsum().to_numpy()
    return max(0.0, found["train_seconds"] - passed[-1]), passed


def _whisker(axes: "Axes", found: dict, metric: str, *, at: float, colour: str, across: bool = False) -> None:
    value, (low, high) = found[metric], found["intervals"][metric]
    ends = np.clip([[value - low], [high - value]], 0, None)
    style: dict[str, Any] = {"fmt": "o", "ms": 6, "color": colour, "elinewidth": 2, "capsize": 3}
    if across:
        axes.errorbar([value], [at], xerr=ends, **style)
    else:
        axes.errorbar([at], [value], yerr=ends, **style)


def _tradeoff(
    tables: "dict[str, pd.DataFrame]",
    bands: "dict[str, pd.DataFrame]",
    evaluation: dict,
    path: Path,
    *,
    axes_of: tuple[str, str],
    corner: int,
    note: str,
) -> None:
    areas = {model: evaluation[model]["roc_auc"] for model in tables}
    span = float(np.clip(20 * (1 - min(areas.values())), 0.05, 1))
    figure, panels = style.panels(2 if span < 0.6 else 1, size=(8.4 if span < 0.6 else 4.6, 4.2), note=note)
    x, y = axes_of
    for axes in panels:
        for model, table in tables.items():
            label = f"{NAMES.get(model, model)}, area {areas[model]:.4f}" if corner == 0 else NAMES.get(model, model)
            colour, band = COLOURS.get(model, GREY), bands[model]
            axes.plot(table[x], table[y], color=colour, lw=2, label=label)
            axes.fill_between(band[x], band["low"], band["high"], color=colour, alpha=0.15, lw=0)
        axes.set(xlabel=x.replace("_", " "), ylabel=y.replace("_", " "))
        style.percent_axes(axes.xaxis, axes.yaxis)
    panels[0].set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    style.title(panels[0], "ROC" if corner == 0 else "Precision and recall")
    panels[0].legend(loc="lower right" if corner == 0 else "lower left", frameon=False, fontsize=9)
    if len(panels) > 1:
        panels[1].set(
            xlim=(-span / 50, span) if corner == 0 else (1 - 1.03 * span, 1 + span / 50), ylim=(1 - span, 1 + span / 50)
        )
        style.title(panels[1], "The corner, enlarged")
    style.save(figure, path)
