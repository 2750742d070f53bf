"""When a model should not answer: the sureness from which its answers are right often enough, and what that leaves.

Sureness is the probability that a model gives to the class that it answers, (n,), one entry per photograph.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from catdog.answers.classifier import DOUBTS
from catdog.evaluation import scoring
from catdog.pictures import style
from catdog.pictures.style import COLOURS, GREY, NAMES

# Evenly apart as logits: fixed, so that the photographs have no say in which levels are tried.
LEVELS = 1 / (1 + np.exp(-np.arange(0, 10.01, 0.05)))
_STARTS = (0.3, 0.5, 0.7, 0.85, 0.95)  # shares answered at which the search begins
_ROWS = 500


def sureness(probabilities: np.ndarray, *, threshold: float) -> np.ndarray:
    """Of the class that each probability and the threshold give, float64 (n,)."""
    return np.where(probabilities >= threshold, probabilities, 1 - probabilities)


def level(sure: np.ndarray, right: np.ndarray, *, accuracy: float, confidence: float) -> float | None:
    """The lowest of LEVELS from which answers are right at least as often as `accuracy`; None: no level is sure to do.

    Learn Then Test (Angelopoulos et al. 2021, https://arxiv.org/abs/2110.01052): each level is a hypothesis, rejected
    by the exact binomial test of its errors; they are tested in sequence, from several starts that share the error
    rate, each as far down as it is rejected. With probability `confidence` over the validation photographs, the
    answers of the level that comes out are right so often on all photographs of their kind.

    Args:
        sure, right: of validation photographs that the model was not trained on.
    """
    answered = [right[sure >= each] for each in LEVELS]
    allowed = (1 - confidence) / len(_STARTS)
    passes = [len(each) > 0 and stats.binom.cdf((~each).sum(), len(each), 1 - accuracy) <= allowed for each in answered]
    lowest = len(LEVELS)
    for start in _STARTS:
        # The highest level that answers at least this share; from there on down.
        places = [place for place, each in enumerate(answered) if len(each) >= start * len(right)]
        for place in range(max(places, default=-1), -1, -1):
            if not passes[place]:
                break
            lowest = min(lowest, place)
    return float(LEVELS[lowest]) if lowest < len(LEVELS) else None


def measure(labels: np.ndarray, given: np.ndarray, *, confidence: float) -> dict:
    """What answering with doubt leaves.

    Args:
        labels: 0 or 1, (n,).
        given: the labels that the model gives, (n,), as `classifier.decide` has them.

    Returns:
        `answered` (share that gets a class), `answered_accuracy` (of these), `unsure`, `neither` (shares);
        `intervals`: Wilson's, of all four.
    """
    doubts = {name: (given == doubt).sum() for doubt, name in DOUBTS.items()}
    counts = {"answered": len(given) - sum(doubts.values()), **doubts}
    right = (given == labels).sum()
    intervals = {name: scoring.wilson(count, len(given), confidence) for name, count in counts.items()}
    return {
        **{name: float(count / len(given)) for name, count in counts.items()},
        "answered_accuracy": float(right / max(1, counts["answered"])),
        "intervals": intervals | {"answered_accuracy": scoring.wilson(right, counts["answered"], confidence)},
    }


def risk_coverage(sure: np.ndarray, right: np.ndarray, *, confidence: float) -> pd.DataFrame:
    """How often the surest answers are right, by how many are given.

    Columns coverage (share answered), accuracy, low, high (Wilson's interval) and sureness (of the last one answered);
    at most 500 rows, from the surest photograph on.
    """
    order = np.argsort(-sure, kind="stable")
    counts = np.unique(np.linspace(1, len(sure), min(_ROWS, len(sure))).round().astype(int))
    hits = np.cumsum(right[order])[counts - 1]
    ends = [scoring.wilson(hit, count, confidence) for hit, count in zip(hits, counts, strict=True)]
    low, high = zip(*ends, strict=True)
    return pd.DataFrame(
        {
            "coverage": counts / len(sure),
            "accuracy": hits / counts,
            "low": low,
            "high": high,
            "sureness": sure[order][counts - 1],
        }
    )


def draw(tables: dict[str, pd.DataFrame], metrics: dict, path: Path, *, wanted: float | None, note: str = "") -> None:
    """The risk-coverage curves of both models, and where each one answers."""
    figure, (axes,) = style.panels(1, size=(7.5, 4.1), note=note)
    entries = []
    lowest = min(table["accuracy"].iloc[-1] for table in tables.values())
    for model, table in tables.items():
        colour, measured = COLOURS[model], metrics[model]["doubt"]
        axes.plot(table["coverage"], table["accuracy"], color=colour, lw=2)
        axes.fill_between(table["coverage"], table["low"], table["high"], color=colour, alpha=0.15, lw=0)
        answered, accuracy = measured["answered"], measured["answered_accuracy"]
        axes.plot([answered], [accuracy], "o", ms=8, color=colour)
        words = f"answers {100 * answered:.1f} %, right {100 * accuracy:.1f} % of the time"
        entries.append((colour, "o", f"{NAMES[model]}: {words}"))
    if wanted is not None:
        axes.axhline(wanted, color=GREY, lw=1, ls=":")
        entries.append((GREY, ":", f"asked for: {100 * wanted:g} %"))
    axes.set(xlabel="share of the photographs answered, the surest first", xlim=(0, 1.01))
    axes.set_ylim(lowest - 0.02, 1.002)
    style.percent_axes(axes.xaxis, axes.yaxis)
    style.title(axes, "How often answers are right")
    style.legend(axes, entries, loc="lower left")
    style.save(figure, path)
