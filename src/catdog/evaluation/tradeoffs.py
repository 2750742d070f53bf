"""What every possible threshold gives: ROC and precision-recall curves of a model, with bootstrap bands.

Labels are 0 or 1, probabilities are those of class 1, both of shape (n,), one entry per photograph.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from catdog.evaluation import scoring

ROWS = 500
GRID = np.linspace(0, 1, 501)  # where a band is told


def roc_table(labels: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """Columns false_positive_rate, true_positive_rate, threshold; at most 500 rows, from (0, 0) to (1, 1)."""
    thresholds, hits, false_alarms = _counts_by_threshold(*scoring.checked(labels, probabilities))
    # No threshold is above every probability but infinity, which no CSV reader of a plot takes: 1 stands for it.
    table = pd.DataFrame(
        {
            "false_positive_rate": np.append(0, false_alarms) / false_alarms[-1],
            "true_positive_rate": np.append(0, hits) / hits[-1],
            "threshold": np.append(1.0, thresholds),
        }
    )
    return _thinned(table)


def pr_table(labels: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """Columns recall, precision, threshold; at most 500 rows, from (0, 1) to recall 1."""
    thresholds, hits, false_alarms = _counts_by_threshold(*scoring.checked(labels, probabilities))
    table = pd.DataFrame(
        {
            "recall": np.append(0, hits) / hits[-1],
            "precision": np.append(1.0, hits / (hits + false_alarms)),
            "threshold": np.append(1.0, thresholds),
        }
    )
    return _thinned(table)


def roc_band(
    labels: np.ndarray, probabilities: np.ndarray, *, confidence: float, resamples: int, seed: int
) -> pd.DataFrame:
    """Columns false_positive_rate (501, evenly), true_positive_rate, low, high (percentile bootstrap).

    The true positive rate is the most that a threshold reaches without more false alarms: on an upright stretch of the
    curve its upper end, of the figure and of every resample.
    """

    def most(hits: np.ndarray, false_alarms: np.ndarray) -> np.ndarray:
        reached = np.searchsorted(false_alarms / false_alarms[-1], GRID, side="right")
        return np.append(0, hits)[reached] / hits[-1]

    columns = ("false_positive_rate", "true_positive_rate")
    return _band(labels, probabilities, most, columns, confidence=confidence, resamples=resamples, seed=seed)


def pr_band(
    labels: np.ndarray, probabilities: np.ndarray, *, confidence: float, resamples: int, seed: int
) -> pd.DataFrame:
    """Columns recall (501, evenly), precision, low, high (percentile bootstrap).

    The precision is that of the highest threshold with that recall, of the figure and of every resample.
    """

    def first(hits: np.ndarray, false_alarms: np.ndarray) -> np.ndarray:
        there = np.searchsorted(hits / hits[-1], GRID)
        # A threshold that nothing reaches has no precision; the next one that something does has.
        called = hits + false_alarms
        return (hits / np.maximum(called, 1))[np.maximum(there, np.argmax(called > 0))]

    columns = ("recall", "precision")
    return _band(labels, probabilities, first, columns, confidence=confidence, resamples=resamples, seed=seed)


def _band(
    labels: np.ndarray,
    probabilities: np.ndarray,
    curve: Callable[[np.ndarray, np.ndarray], np.ndarray],
    columns: tuple[str, str],
    *,
    confidence: float,
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    # `curve` gives its values on GRID from hits and false alarms by threshold, from the highest.
    labels, probabilities = scoring.checked(labels, probabilities)
    order, lasts = _by_threshold(probabilities)
    ones, curves = labels[order], []
    for weights in scoring.resampled(len(labels), resamples=resamples, seed=seed):
        drawn = weights[:, order]
        hits, false_alarms = ((drawn * mask).cumsum(axis=1)[:, lasts] for mask in (ones, ~ones))
        curves += [curve(h, f) for h, f in zip(hits, false_alarms, strict=True) if h[-1] and f[-1]]
    _, hits, false_alarms = _counts_by_threshold(labels, probabilities)
    value = curve(hits, false_alarms)
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.quantile(curves, tails, axis=0) if curves else (value, value)
    return pd.DataFrame({columns[0]: GRID, columns[1]: value, "low": low, "high": high})


def _by_threshold(probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # The photographs from the highest probability on, and the last place of each distinct one.
    order = np.argsort(-probabilities, kind="stable")
    return order, np.flatnonzero(np.diff(probabilities[order], append=-1.0))


def _counts_by_threshold(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # At each distinct probability, from the highest: how many of class 1, and of class 0, reach it.
    order, lasts = _by_threshold(probabilities)
    return probabilities[order][lasts], np.cumsum(labels[order])[lasts], np.cumsum(~labels[order])[lasts]


def _thinned(curve: pd.DataFrame) -> pd.DataFrame:
    # A row is a photograph or a few of one probability, so even steps over rows are even along the curve too.
    if len(curve) <= ROWS:
        return curve
    return curve.iloc[np.linspace(0, len(curve) - 1, ROWS).round().astype(int)].reset_index(drop=True)
