"""The metrics of one model on the test photographs, and their intervals.

Labels are 0 or 1 and probabilities are those of class 1, both of shape (n,), one entry per photograph.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy import stats

from catdog.base.errors import UserError

BINS = 15

# Keras clips here too, so log_loss agrees with the val_loss of a training. float32 sigmoids do reach 0 and 1.
EPSILON = 1e-7


def score(labels: np.ndarray, probabilities: np.ndarray, *, threshold: float) -> dict[str, float]:
    """Every metric of one model.

    From `threshold` upwards the verdict is class 1. Precision, recall and F1 are those of class 1, and 0 where they
    are undefined. `log_loss` is in nats, of probabilities clipped to [1e-7, 1 - 1e-7]. `calibration_error` is the
    expected calibration error: |mean probability - fraction of class 1| in 15 bins of equal width, averaged over
    photographs. `test_photographs` is their number.

    Raises:
        UserError: as `checked`.
    """
    labels, probabilities = checked(labels, probabilities)
    metrics = _weighted(labels, probabilities, np.ones((1, len(labels))), threshold=threshold)
    return {name: float(values[0]) for name, values in metrics.items()} | {"test_photographs": len(labels)}


def intervals(
    labels: np.ndarray, probabilities: np.ndarray, *, threshold: float, confidence: float, resamples: int, seed: int
) -> dict[str, list[float]]:
    """[low, high] of every metric of `score`: its range on other test photographs of the same kind.

    Accuracy, precision, recall and F1 have Wilson's interval: of a model without a mistake a bootstrap would say
    [1, 1]. The others have the percentile bootstrap over photographs; resamples that lack a class do not count for
    `roc_auc`.
    """
    labels, probabilities = checked(labels, probabilities)
    chunks = [
        _weighted(labels, probabilities, weights, threshold=threshold)
        for weights in resampled(len(labels), resamples=resamples, seed=seed)
    ]
    names = ("roc_auc", "log_loss", "brier", "calibration_error")
    values = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in names}
    # The calibration error of a resample is biased upwards, so much that the metric can lie below the interval.
    errors = values["calibration_error"]
    error = score(labels, probabilities, threshold=threshold)["calibration_error"]
    values["calibration_error"] = errors - errors.mean() + error
    verdict = probabilities >= threshold
    hits = (labels & verdict).sum()
    # F1 = 2j / (1 + j) of the Jaccard index j, the hits among all that are or were called class 1: a proportion too.
    jaccard = wilson(hits, (labels | verdict).sum(), confidence)
    return {
        "accuracy": wilson((labels == verdict).sum(), len(labels), confidence),
        "precision": wilson(hits, verdict.sum(), confidence),
        "recall": wilson(hits, labels.sum(), confidence),
        "f1": [2 * j / (1 + j) for j in jaccard],
        **{name: np.nanquantile(values[name], tails(confidence)).clip(0).tolist() for name in names},
    }


def confusion_table(
    labels: np.ndarray, probabilities: np.ndarray, *, threshold: float, classes: list[str]
) -> pd.DataFrame:
    """Columns actual and predicted: class names, a row for each photograph, as DVC's `confusion` template has it."""
    verdicts = (probabilities >= threshold).astype(int)
    return pd.DataFrame({"actual": np.array(classes)[labels], "predicted": np.array(classes)[verdicts]})


def wilson(successes: float, trials: float, confidence: float) -> list[float]:
    """[low, high]: Wilson's interval of a proportion; [0, 1] of no trials."""
    if trials == 0:
        return [0.0, 1.0]
    interval = stats.binomtest(int(successes), int(trials)).proportion_ci(confidence, method="wilson")
    return [float(interval.low), float(interval.high)]


def checked(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels as bool and probabilities as float64, both (n,), fit to be measured.

    Raises:
        UserError: the photographs are not of both classes, or a probability is not a number in 0..1.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    values = np.unique(labels)
    if labels.shape != probabilities.shape or not np.isin(values, (0, 1)).all():
        raise ValueError(f"one label of 0 or 1 each. Received: {values}, {labels.shape} for {probabilities.shape}")
    if len(values) < 2:
        raise UserError(f"{len(labels)} photographs, not of both classes: nothing can be measured; add photographs")
    valid = (probabilities >= 0) & (probabilities <= 1)
    if not valid.all():
        raise UserError(
            f"the model gave {(~valid).sum()} of {len(labels)} probabilities that are not numbers in 0..1: "
            "the training diverged; lower its learning_rate"
        )
    return labels.astype(bool), probabilities


def tails(confidence: float) -> list[float]:
    """The two quantiles between which an interval of this confidence lies."""
    return [(1 - confidence) / 2, (1 + confidence) / 2]


def resampled(count: int, *, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Bootstrap resamples as weights: how often each of `count` photographs was drawn, with replacement.

    Yields float64 (some, count), in chunks that keep memory flat; `resamples` rows in all.
    """
    random = np.random.default_rng(seed)
    rows = max(1, 1_000_000 // count)
    for start in range(0, resamples, rows):
        drawn = random.integers(0, count, size=(min(rows, resamples - start), count))
        drawn += count * np.arange(len(drawn))[:, None]
        yield np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape).astype(np.float64)


def mean_interval(values: np.ndarray, *, confidence: float, resamples: int, seed: int) -> np.ndarray:
    """Low and high, (2, ...), of the mean over photographs of `values` (n, ...), by percentile bootstrap."""
    weights = resampled(len(values), resamples=resamples, seed=seed)
    means = np.concatenate([chunk @ values / len(values) for chunk in weights])
    return np.quantile(means, tails(confidence), axis=0)


def losses(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The log loss of each photograph, nats (n,)."""
    of_label = np.where(labels, probabilities, 1 - probabilities)
    return -np.log(np.clip(of_label, EPSILON, 1 - EPSILON))


def bins(probabilities: np.ndarray) -> np.ndarray:
    """The bin of each probability, 0 to BINS - 1, all of equal width (n,)."""
    return np.minimum((probabilities * BINS).astype(int), BINS - 1)


def _weighted(
    labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray, *, threshold: float
) -> dict[str, np.ndarray]:
    # Every metric for each row of weights (rows, n). Metrics and their resamples share this one implementation, which
    # is of matrix products, since a loop over scikit-learn takes minutes.
    verdict = probabilities >= threshold
    total = weights.sum(axis=1)
    hits, false_alarms, misses = (weights @ mask for mask in (labels & verdict, ~labels & verdict, labels & ~verdict))
    in_bin = bins(probabilities)[:, None] == np.arange(BINS)
    gaps = weights @ (in_bin * (probabilities - labels)[:, None])
    return {
        "accuracy": weights @ (verdict == labels) / total,
        "precision": _ratio(hits, hits + false_alarms),
        "recall": _ratio(hits, hits + misses),
        "f1": _ratio(2 * hits, 2 * hits + false_alarms + misses),
        "roc_auc": _roc_auc(labels, probabilities, weights),
        "log_loss": weights @ losses(labels, probabilities) / total,
        "brier": weights @ (probabilities - labels) ** 2 / total,
        "calibration_error": np.abs(gaps).sum(axis=1) / total,
    }


def _roc_auc(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    # How often a photograph of class 1 ranks above one of class 0, ties half (Mann and Whitney). NaN where a row of
    # weights lacks a class.
    order = np.argsort(probabilities, kind="stable")
    starts = np.flatnonzero(np.diff(probabilities[order], prepend=-1.0))
    ones = np.add.reduceat((weights * labels)[:, order], starts, axis=1)
    zeros = np.add.reduceat((weights * ~labels)[:, order], starts, axis=1)
    below = np.cumsum(zeros, axis=1) - zeros / 2
    return _ratio((ones * below).sum(axis=1), ones.sum(axis=1) * zeros.sum(axis=1), undefined=np.nan)


def _ratio(part: np.ndarray, whole: np.ndarray, *, undefined: float = 0.0) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(part), undefined), where=whole > 0)
