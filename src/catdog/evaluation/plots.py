"""Plots of both models, as PNG files of deterministic bytes. Each function takes data and the path to write.

What is by model has the keys of `style.NAMES`. `evaluation` is as `comparison.measure` returns it, the other tables
as `scoring`, `calibration` and `tradeoffs` do. `note` is written under a plot, in red.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from catdog.evaluation.tradeoffs import CURVES
from catdog.pictures import style
from catdog.pictures.style import COLOURS, GREY, INK, NAMES, RULE
from catdog.pictures.wording import duration, percent

Tables = dict[str, pd.DataFrame]

_TICKS = {1: "1 s", 3: "3 s", 10: "10 s", 30: "30 s", 60: "1 min", 180: "3 min", 600: "10 min", 1800: "30 min"}
_TICKS |= {3600: "1 h", 3 * 3600: "3 h", 10 * 3600: "10 h", 24 * 3600: "1 day", 72 * 3600: "3 days"}


def curves(histories: Tables, path: Path, *, note: str = "") -> None:
    """Accuracy and loss by epoch, both models on common axes: val solid; train dashed, of photographs as varied."""
    figure, (accuracy, loss) = style.panels(2, size=(9, 3.6), note=note)
    for axes, quantity in ((accuracy, "accuracy"), (loss, "loss")):
        for model, history in histories.items():
            colour, marker, epochs = COLOURS[model], "." if len(history) < 3 else "", history["epoch"]
            axes.plot(epochs, history[f"train_{quantity}"], "--", color=colour, lw=1.2, alpha=0.7, marker=marker)
            axes.plot(epochs, history[f"val_{quantity}"], color=colour, lw=2, marker=marker)
            _mark_sizes(axes, history, colour)
        style.title(axes, f"{quantity.capitalize()} by epoch")
        axes.set_xlabel("epoch")
    style.percent_axes(accuracy.yaxis)
    _limit_loss(loss, histories)
    entries = [(COLOURS[model], "-", f"{NAMES[model]}, validation") for model in histories]
    entries += [(COLOURS[model], "--", f"{NAMES[model]}, training, as varied") for model in histories]
    style.legend(figure, entries)
    style.save(figure, path)


def tradeoff(curve: str, tables: Tables, bands: Tables, evaluation: dict, path: Path, *, note: str = "") -> None:
    """A curve of `tradeoffs.CURVES` for each model, and the corner enlarged where the curves crowd there."""
    x, y = CURVES[curve]
    is_roc = curve == "roc"
    span = float(np.clip(20 * (1 - min(evaluation[model]["roc_auc"] for model in tables)), 0.05, 1))
    crowded = span < 0.6
    figure, panels = style.panels(2 if crowded else 1, size=(8.4 if crowded else 4.6, 4.2), note=note)
    for axes in panels:
        for model, table in tables.items():
            label = f"{NAMES[model]}, area {evaluation[model]['roc_auc']:.4f}" if is_roc else NAMES[model]
            axes.plot(table[x], table[y], color=COLOURS[model], lw=2, label=label)
            band = bands[model]
            axes.fill_between(band[x], band["low"], band["high"], color=COLOURS[model], alpha=0.15, lw=0)
        axes.set(xlabel=x.replace("_", " "), ylabel=y.replace("_", " "))
        style.percent_axes(axes.xaxis, axes.yaxis)
    panels[0].set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    style.title(panels[0], "ROC" if is_roc else "Precision and recall")
    panels[0].legend(loc="lower right" if is_roc else "lower left", frameon=False, fontsize=9)
    if crowded:
        corner = (-span / 50, span) if is_roc else (1 - 1.03 * span, 1 + span / 50)
        panels[1].set(xlim=corner, ylim=(1 - span, 1 + span / 50))
        style.title(panels[1], "The corner, enlarged")
    style.save(figure, path)


def confusions(tables: Tables, path: Path, *, classes: list[str], note: str = "") -> None:
    """What each model called the photographs of each class: counts, and percentages of the actual class."""
    figure, panels = style.panels(len(tables), size=(4.2 * len(tables), 3.9), note=note)
    for axes, (model, table) in zip(panels, tables.items(), strict=True):
        crosstab = pd.crosstab(table["actual"], table["predicted"])
        counts = crosstab.reindex(index=classes, columns=classes, fill_value=0).to_numpy()
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap=LinearSegmentedColormap.from_list("", ["#ffffff", COLOURS[model]]), vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(counts):
            share = shares[row, column]
            ink = "white" if share > 0.6 else INK
            axes.text(column, row - 0.08, f"{count:,}", ha="center", va="center", fontsize=17, color=ink)
            axes.text(column, row + 0.17, f"{100 * share:.1f} %", ha="center", va="center", fontsize=10, color=ink)
        axes.set_xticks(range(len(classes)), [f"called {name}" for name in classes])
        axes.set_yticks(range(len(classes)), classes)
        axes.set_ylabel("actual")
        axes.grid(visible=False)
        style.title(axes, f"{NAMES[model]}: {counts.sum() - counts.trace():,} of {counts.sum():,} wrong")
    style.save(figure, path)


def reliability(before: Tables, after: Tables, evaluation: dict, path: Path, *, note: str = "") -> None:
    """Observed frequency by predicted probability, before and after the temperature, and counts by probability."""
    figure, (left, right, counts) = style.panels(3, size=(12, 3.9), note=note)
    entries = [(GREY, ":", "probabilities that mean what they say")]
    for axes in (left, right):
        axes.plot([0, 1], [0, 1], color=GREY, lw=1, ls=":")
        axes.set(xlabel="predicted probability", ylabel="observed frequency")
    for place, (model, table) in enumerate(after.items()):
        colour, metrics = COLOURS[model], evaluation[model]
        _observed(left, before[model], colour)
        _observed(right, table, colour)
        width = table["width"] * 0.4
        counts.bar(table["middle"] + (place - 0.5) * width, table["photographs"], width, color=colour)
        error, calibrated_error = metrics["uncalibrated_calibration_error"], metrics["calibration_error"]
        words = f"off by {100 * error:.1f} %, then {100 * calibrated_error:.1f} %"
        entries.append((colour, "-", f"{NAMES[model]}: {words} (temperature {metrics['temperature']:.2f})"))
    style.percent_axes(left.xaxis, left.yaxis, right.xaxis, right.yaxis, counts.xaxis)
    style.title(left, "Before the temperature")
    style.title(right, "As served")
    counts.set(xlabel="predicted probability", ylabel="count", yscale="log")
    counts.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    counts.minorticks_off()
    style.title(counts, "How many are where")
    style.legend(figure, entries)
    style.save(figure, path)


def cost(evaluation: dict, histories: Tables, path: Path, *, note: str = "") -> None:
    """Accuracy against the time it took: val_accuracy while training, then test accuracy with its interval."""
    figure, (axes,) = style.panels(1, size=(7.5, 4.1), note=note)
    entries, starts = [(GREY, "-", "validation, while training")], []
    for model, history in histories.items():
        metrics, colour = evaluation[model], COLOURS[model]
        before, passed = _seconds(metrics, history)
        axes.plot(before + passed, history["val_accuracy"], color=colour, lw=2)
        # From the left edge to the end of the first epoch: what came before it can be most of the time.
        starts.append(before + passed[0])
        axes.hlines(history["val_accuracy"].iloc[0], 1e-3, starts[-1], color=colour, lw=1, ls=":")
        _whisker(axes, metrics, "accuracy", at=metrics["train_seconds"], colour=colour)
        words = f"{percent(metrics['accuracy'])} on test, after {duration(metrics['train_seconds'])}"
        entries.append((colour, "o", f"{NAMES[model]}: {words}"))
    axes.set(xscale="log", xlabel="time since the start of training")
    axes.set_xticks(list(_TICKS), list(_TICKS.values()), minor=False)
    axes.minorticks_off()
    axes.set_xlim(max(min(starts), 0.1) / 3, max(evaluation[model]["train_seconds"] for model in histories) * 1.5)
    style.percent_axes(axes.yaxis)
    style.title(axes, "Accuracy against training time")
    style.legend(axes, entries, loc="lower right")
    style.save(figure, path)


def comparison(evaluation: dict, histories: Tables, path: Path, *, note: str = "") -> None:
    """The one picture: verdict, metrics with intervals, convergence and training time of both models."""
    figure, (dots, lines, bars) = style.panels(3, size=(12, 4.2), note=note, width_ratios=(1.15, 1, 0.8))
    _dots(dots, evaluation)
    _bars(bars, evaluation, histories)
    for model, history in histories.items():
        marker = "." if len(history) < 3 else ""
        lines.plot(history["epoch"], history["val_accuracy"], color=COLOURS[model], lw=2, marker=marker)
    lines.set_xlabel("epoch")
    style.percent_axes(lines.yaxis)
    style.title(lines, "Validation accuracy")
    figure.suptitle(evaluation["difference"]["headline"], x=0.008, ha="left", fontsize=15, fontweight="bold", color=INK)
    style.legend(figure, [(COLOURS[model], "o", NAMES[model]) for model in histories], loc="outside upper right")
    style.save(figure, path)


def _dots(axes: Axes, evaluation: dict) -> None:
    names = {"accuracy": "Accuracy", "precision": "Precision", "recall": "Recall", "f1": "F1"}
    for place, model in enumerate(NAMES):
        metrics, colour = evaluation[model], COLOURS[model]
        for row, name in enumerate(names):
            y = row + 0.18 * (2 * place - 1)
            _whisker(axes, metrics, name, at=y, colour=colour, across=True)
            text, end = percent(metrics[name]), (metrics["intervals"][name][1], y)
            axes.annotate(text, end, (6, 0), textcoords="offset points", va="center", fontsize=9, color=colour)
    axes.set_yticks(range(len(names)), list(names.values()), fontsize=10)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.margins(x=0.14)
    axes.grid(visible=False, axis="y")
    for row in range(1, len(names)):
        axes.axhline(row - 0.5, color=RULE, lw=0.6)
    style.percent_axes(axes.xaxis)
    difference = evaluation["difference"]
    tested = f"{metrics['test_photographs']:,} test {difference['things']}"
    style.title(axes, f"{tested}, {100 * difference['confidence']:g} % intervals")


def _bars(axes: Axes, evaluation: dict, histories: Tables) -> None:
    for place, (model, history) in enumerate(histories.items()):
        colour, seconds = COLOURS[model], evaluation[model]["train_seconds"]
        before, passed = _seconds(evaluation[model], history)
        axes.barh(place, before, 0.3, color=colour, alpha=0.4)
        axes.barh(place, passed[-1], 0.3, left=before, color=colour)
        text = f"{NAMES[model]}: {duration(seconds)}"
        axes.annotate(text, (0, place - 0.17), (0, 3), textcoords="offset points", fontsize=11, color=colour)
        if before > 0.05 * seconds:
            text = f"{duration(before)} before the first epoch (pale)"
            axes.annotate(text, (0, place + 0.17), (0, -13), textcoords="offset points", fontsize=9, color=GREY)
    axes.set(ylim=(len(histories) - 0.5, -0.5), yticks=[], xticks=[])
    axes.spines[["bottom", "left"]].set_visible(False)
    style.title(axes, "Training time")


def _observed(axes: Axes, table: pd.DataFrame, colour: str) -> None:
    x, y = table["probability"], table["observed"]
    whiskers = np.clip([y - table["low"], table["high"] - y], 0, None)
    axes.errorbar(x, y, whiskers, color=colour, lw=0, elinewidth=1.2, alpha=0.5)
    axes.plot(x, y, color=colour, lw=0, marker="o", ms=4)
    enough = table["photographs"] >= 5
    axes.plot(x[enough], y[enough], color=colour, lw=1.6)


def _limit_loss(axes: Axes, histories: Tables) -> None:
    # One bad epoch must not flatten all the others.
    losses = pd.concat(histories)[["train_loss", "val_loss"]].to_numpy(float)
    losses = losses[np.isfinite(losses)]
    if len(losses):
        axes.set_ylim(0, min(losses.max(), 2.5 * np.quantile(losses, 0.9)) * 1.05)


def _mark_sizes(axes: Axes, history: pd.DataFrame, colour: str) -> None:
    # Where a training goes on at another image size, its curves jump.
    sizes = history["image_size"]
    if sizes.nunique() > 1:
        for epoch, size in history.loc[sizes != sizes.shift(), ["epoch", "image_size"]].to_numpy():
            axes.axvline(epoch, color=colour, lw=0.8, ls=":", alpha=0.6)
            label = f" {size:.0f} px"
            axes.text(epoch, 0.0, label, transform=axes.get_xaxis_transform(), fontsize=7.5, color=colour)


def _seconds(metrics: dict, history: pd.DataFrame) -> tuple[float, np.ndarray]:
    # Before the first epoch, and from there to the end of each. Nearly all that is spent outside of epochs is spent
    # before the first, on weights and features.
    passed = history["seconds"].cumsum().to_numpy()
    return max(0.0, metrics["train_seconds"] - passed[-1]), passed


def _whisker(axes: Axes, metrics: dict, name: str, *, at: float, colour: str, across: bool = False) -> None:
    value, (low, high) = metrics[name], metrics["intervals"][name]
    ends = np.clip([[value - low], [high - value]], 0, None)
    x, y, xerr, yerr = (value, at, ends, None) if across else (at, value, None, ends)
    axes.errorbar([x], [y], xerr=xerr, yerr=yerr, fmt="o", ms=6, color=colour, elinewidth=2, capsize=3)
