"""What every possible threshold gives: the ROC and precision-recall curves of a model, with bootstrap bands.

Labels are 0 or 1 and probabilities are those of class 1, both of shape (n,), one entry per photograph.
"""

import itertools

import numpy as np
import pandas as pd
from sklearn import metrics

from catdog.evaluation import scoring

# Each curve's columns: what it runs along, and what it shows.
CURVES = {"roc": ("false_positive_rate", "true_positive_rate"), "precision_recall": ("recall", "precision")}
ROWS = 500
GRID = np.linspace(0, 1, 501)  # where a band has its rows


def table(curve: str, labels: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """The columns of `curve` and threshold: at most 500 rows, from the highest threshold down.

    The first row is of a threshold that nothing reaches: a true positive rate of 0, a precision of 1. Its threshold
    is written as 1, since tools that read plots from a CSV take no infinity.
    """
    labels, probabilities = scoring.checked(labels, probabilities)
    if curve == "roc":
        x, y, thresholds = metrics.roc_curve(labels, probabilities, drop_intermediate=False)
        thresholds = thresholds[1:]
    else:
        y, x, thresholds = (part[::-1] for part in metrics.precision_recall_curve(labels, probabilities))
    columns = (*CURVES[curve], "threshold")
    rows = pd.DataFrame(dict(zip(columns, (x, y, np.append(1.0, thresholds)), strict=True)))
    if len(rows) <= ROWS:
        return rows
    # A row is one photograph, or a few of the same probability: even steps over rows are even along the curve too.
    return rows.iloc[np.linspace(0, len(rows) - 1, ROWS).round().astype(int)].reset_index(drop=True)


def band(
    curve: str, labels: np.ndarray, probabilities: np.ndarray, *, confidence: float, resamples: int, seed: int
) -> pd.DataFrame:
    """The columns of `curve`, the first of them 501 even steps; low and high of the second (percentile bootstrap)."""
    labels, probabilities = scoring.checked(labels, probabilities)
    at_grid = _true_positive_rates if curve == "roc" else _precisions
    order = np.argsort(-probabilities, kind="stable")
    ones = labels[order]
    lasts = np.flatnonzero(np.diff(probabilities[order], append=-1.0))  # place of the last of each probability
    curves = []
    # The first curve is that of the photographs themselves.
    resampled = scoring.resampled(len(labels), resamples=resamples, seed=seed)
    for weights in itertools.chain([np.ones((1, len(labels)))], resampled):
        drawn = weights[:, order]
        hits, false_alarms = ((drawn * mask).cumsum(axis=1)[:, lasts] for mask in (ones, ~ones))
        curves += [at_grid(h, f) for h, f in zip(hits, false_alarms, strict=True) if h[-1] and f[-1]]
    low, high = np.quantile(curves[1:] or curves, scoring.tails(confidence), axis=0)
    x, y = CURVES[curve]
    return pd.DataFrame({x: GRID, y: curves[0], "low": low, "high": high})


# On GRID, from how many photographs of class 1 (hits) and of class 0 (false alarms) reach each threshold, the highest
# threshold first.


def _true_positive_rates(hits: np.ndarray, false_alarms: np.ndarray) -> np.ndarray:
    # The most hits that come with no more false alarms: where the curve stands upright, its upper end.
    reached = np.searchsorted(false_alarms / false_alarms[-1], GRID, side="right")
    return np.append(0, hits)[reached] / hits[-1]


def _precisions(hits: np.ndarray, false_alarms: np.ndarray) -> np.ndarray:
    # Of the highest threshold with that recall. One that nothing reaches has no precision: the next one counts.
    called = hits + false_alarms
    first = np.maximum(np.searchsorted(hits / hits[-1], GRID), np.argmax(called > 0))
    return (hits / np.maximum(called, 1))[first]
