"""What can be said about predictions: metrics, their intervals, and whether two models really differ.

Labels are 0 or 1, probabilities are those of class 1, both of shape (n,), one entry per photograph.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy import optimize, special, stats

from catdog.base.errors import UserError

BINS = 15

# Keras clips here too, so that log_loss agrees with the val_loss seen in training; float32 sigmoids do reach 0 and 1.
EPSILON = 1e-7


def score(labels: np.ndarray, probabilities: np.ndarray, *, threshold: float) -> dict[str, float]:
    """Every metric of one model on the test photographs.

    The verdict is class 1 from `threshold` upwards. Precision, recall and F1 are those of class 1, and 0 where they
    are undefined (no verdict, or no photograph, of class 1). `log_loss` is in nats, with probabilities clipped to
    [1e-7, 1 - 1e-7]. `calibration_error` is the expected calibration error: the probability of class 1 in 15 bins of
    equal width, |mean probability - fraction of class 1| of each, averaged by photographs.

    Raises:
        UserError: no photographs, only one class among them, or probabilities that are not numbers in 0..1.
    """
    labels, probabilities = checked(labels, probabilities)
    weights = np.ones((1, len(labels)))
    found = _weighted(labels, probabilities, threshold=threshold, weights=weights)
    return {name: float(values[0]) for name, values in found.items()} | {"test_photographs": len(labels)}


def intervals(
    labels: np.ndarray,
    probabilities: np.ndarray,
    *,
    threshold: float,
    confidence: float,
    resamples: int,
    seed: int,
) -> dict[str, list[float]]:
    """[low, high] of every metric of `score`: what other test photographs of the same kind might have given.

    Accuracy, precision, recall and F1 get Wilson's interval, since a bootstrap claims certainty ([1, 1]) for a model
    that made no mistake on these photographs. The others get the percentile bootstrap over photographs (resamples that
    lack a class do not count for `roc_auc`). A resample's calibration error is biased upwards, often so far that
    the figure itself would lie outside its interval, so that one is shifted by the bias of the resamples.
    """
    labels, probabilities = checked(labels, probabilities)
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    chunks = [
        _weighted(labels, probabilities, threshold=threshold, weights=weights)
        for weights in resampled(len(labels), resamples=resamples, seed=seed)
    ]
    found = {}
    for name in ("roc_auc", "log_loss", "brier", "calibration_error"):
        values = np.concatenate([chunk[name] for chunk in chunks])
        if name == "calibration_error":
            point = _weighted(labels, probabilities, threshold=threshold, weights=np.ones((1, len(labels))))[name][0]
            values = values - values.mean() + point
        found[name] = np.clip(np.nanquantile(values, tails), 0, None).tolist()
    return _wilson_intervals(labels, probabilities >= threshold, confidence) | found


def compare(
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    *,
    threshold: float,
    confidence: float,
    resamples: int,
    seed: int,
    names: tuple[str, str] = ("first", "second"),
    things: str = "photographs",
) -> dict:
    """Is the second model better than the first on the same photographs, and how certain is that?

    Args:
        first, second: probabilities of the two models.
        names, things: what the two, and the photographs, are called in `headline` and `words` (`drawings`, say).

    Returns:
        `accuracy` and `log_loss`: {`difference` (second - first), `interval` (paired percentile bootstrap)};
        `both_right`, `only_first_right`, `only_second_right`, `both_wrong`: photographs; `p_value`: exact McNemar
        test (two-sided binomial) on those that only one gets right; `better`: "first", "second" or, unless
        p < 1 - confidence, "not distinguishable"; `headline` and `words` say so in words; `confidence`, `names`,
        `things` as given.
    """
    labels, first = checked(labels, first)
    labels, second = checked(labels, second)
    first_right, second_right = (first >= threshold) == labels, (second >= threshold) == labels
    only_first = int(np.sum(first_right & ~second_right))
    only_second = int(np.sum(second_right & ~first_right))
    discordant = only_first + only_second
    p_value = float(stats.binomtest(only_second, discordant).pvalue) if discordant else 1.0

    gained = np.stack([second_right.astype(float) - first_right, _losses(labels, second) - _losses(labels, first)])
    means = np.concatenate([w @ gained.T / len(labels) for w in resampled(len(labels), resamples=resamples, seed=seed)])
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    accuracy, log_loss = (
        {"difference": float(gained[i].mean()), "interval": [float(low[i]), float(high[i])]} for i in (0, 1)
    )
    certain = p_value < 1 - confidence
    found = {
        "names": list(names),
        "things": things,
        "confidence": confidence,
        "accuracy": accuracy,
        "log_loss": log_loss,
        "both_right": int(np.sum(first_right & second_right)),
        "only_first_right": only_first,
        "only_second_right": only_second,
        "both_wrong": int(np.sum(~first_right & ~second_right)),
        "p_value": p_value,
        "better": ("second" if only_second > only_first else "first") if certain else "not distinguishable",
    }
    return found | {"headline": _headline(found), "words": _words(found)}


def temperature(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The number by which logits are divided so that probabilities mean what they say; above 1: they were too sure.

    Fitted, on validation photographs, by the least log loss against Platt's targets ((n1 + 1) / (n1 + 2) and
    1 / (n0 + 2) in place of 1 and 0: a validation set without a mistake would drive the temperature to 0 and every
    later mistake's loss out of bounds). Between 0.05 and 20, and 1 where no temperature changes anything.
    """
    labels, probabilities = checked(labels, probabilities)
    positives = labels.sum()
    targets = np.where(labels, (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2))
    logits = _logits(probabilities)

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        return float(np.mean(np.logaddexp(0, scaled) - targets * scaled))

    best = optimize.minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded").x
    return float(np.exp(best)) if loss(best) < loss(0.0) else 1.0


def apply_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities with their logits divided by `temperature`; the order of photographs and 0.5 stay as they are."""
    return special.expit(_logits(np.asarray(probabilities, dtype=np.float64)) / temperature)


def confusion_table(
    labels: np.ndarray, probabilities: np.ndarray, *, threshold: float, classes: list[str]
) -> pd.DataFrame:
    """Columns actual, predicted: class names, one row per photograph, as DVC's `confusion` template counts them."""
    labels, probabilities = checked(labels, probabilities)
    names = np.array(classes)
    return pd.DataFrame(
        {"actual": names[labels.astype(int)], "predicted": names[(probabilities >= threshold).astype(int)]}
    )


def reliability_table(labels: np.ndarray, probabilities: np.ndarray, *, confidence: float = 0.95) -> pd.DataFrame:
    """One row for each of the 15 bins of `calibration_error` that has photographs.

    Columns: probability (mean of the bin), observed (fraction of class 1), low and high (Wilson's interval of
    observed), photographs, middle and width (of the bin).
    """
    labels, probabilities = checked(labels, probabilities)
    bins = _bins(probabilities)
    rows = []
    for each in np.unique(bins):
        inside = bins == each
        count, ones = int(inside.sum()), int(labels[inside].sum())
        low, high = wilson(ones, count, confidence)
        rows.append((probabilities[inside].mean(), ones / count, low, high, count, (each + 0.5) / BINS, 1 / BINS))
    return pd.DataFrame(rows, columns=["probability", "observed", "low", "high", "photographs", "middle", "width"])


def wilson(successes: float, trials: float, confidence: float) -> list[float]:
    """[low, high]: Wilson's interval of a share; [0, 1] where nothing was tried."""
    if trials == 0:
        return [0.0, 1.0]
    interval = stats.binomtest(int(successes), int(trials)).proportion_ci(confidence, method="wilson")
    return [float(interval.low), float(interval.high)]


def checked(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """bool and float64 (n,): labels and probabilities that something can be measured by.

    Raises:
        UserError: there is only one class among them, or probabilities are not numbers in 0..1.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != probabilities.shape:
        raise ValueError(f"one label and one probability each. Received: {labels.shape} and {probabilities.shape}")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(f"labels should be 0 or 1. Received: {np.unique(labels)}")
    if len(np.unique(labels)) < 2:
        raise UserError(f"{len(labels)} photographs, not of both classes: nothing can be measured; add photographs")
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        wrong = int((~((probabilities >= 0) & (probabilities <= 1))).sum())
        raise UserError(
            f"the model gave {wrong} of {len(labels)} probabilities that are not numbers in 0..1: "
            "the training diverged; lower its learning_rate"
        )
    return labels.astype(bool), probabilities


def resampled(count: int, *, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each photograph counts in each of `resamples`, float64 (some, count), in chunks that keep memory flat.

    Drawing with replacement is a count for each photograph.
    """
    random = np.random.default_rng(seed)
    rows = max(1, 1_000_000 // count)
    for start in range(0, resamples, rows):
        drawn = random.integers(0, count, size=(min(rows, resamples - start), count))
        drawn += count * np.arange(len(drawn))[:, None]
        yield np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape).astype(np.float64)


def _weighted(
    labels: np.ndarray, probabilities: np.ndarray, *, threshold: float, weights: np.ndarray
) -> dict[str, np.ndarray]:
    # Every metric for each row of weights (rows, n): how often each photograph counts. One implementation for the
    # figures and for their resamples; matrix products, since a loop over scikit-learn takes minutes.
    verdict = probabilities >= threshold
    total = weights.sum(axis=1)
    hits, false_alarms, misses = (weights @ mask for mask in (labels & verdict, ~labels & verdict, labels & ~verdict))
    in_bin = _bins(probabilities)[:, None] == np.arange(BINS)
    gaps = weights @ (in_bin * (probabilities - labels)[:, None])
    return {
        "accuracy": weights @ (verdict == labels) / total,
        "precision": _ratio(hits, hits + false_alarms),
        "recall": _ratio(hits, hits + misses),
        "f1": _ratio(2 * hits, 2 * hits + false_alarms + misses),
        "roc_auc": _roc_auc(labels, probabilities, weights),
        "log_loss": weights @ _losses(labels, probabilities) / total,
        "brier": weights @ (probabilities - labels) ** 2 / total,
        "calibration_error": np.abs(gaps).sum(axis=1) / total,
    }


def _roc_auc(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    # The chance that a photograph of class 1 ranks above one of class 0, ties half (Mann and Whitney); NaN where a
    # row of weights lacks a class.
    order = np.argsort(probabilities, kind="stable")
    starts = np.flatnonzero(np.diff(probabilities[order], prepend=-1.0))
    ones = np.add.reduceat((weights * labels)[:, order], starts, axis=1)
    zeros = np.add.reduceat((weights * ~labels)[:, order], starts, axis=1)
    below = np.cumsum(zeros, axis=1) - zeros / 2
    pairs = ones.sum(axis=1) * zeros.sum(axis=1)
    return np.divide((ones * below).sum(axis=1), pairs, out=np.full(len(weights), np.nan), where=pairs > 0)


def _wilson_intervals(labels: np.ndarray, verdict: np.ndarray, confidence: float) -> dict[str, list[float]]:
    hits, right = int(np.sum(labels & verdict)), int(np.sum(labels == verdict))
    called, ones, either = int(verdict.sum()), int(labels.sum()), int(np.sum(labels | verdict))
    # F1 = 2j / (1 + j), where j = hits among the photographs that are or were called class 1: a proportion too.
    f1 = [2 * j / (1 + j) for j in wilson(hits, either, confidence)]
    return {
        "accuracy": wilson(right, len(labels), confidence),
        "precision": wilson(hits, called, confidence),
        "recall": wilson(hits, ones, confidence),
        "f1": f1,
    }


def _losses(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    of_truth = np.where(labels, probabilities, 1 - probabilities)
    return -np.log(np.clip(of_truth, EPSILON, 1 - EPSILON))


def _logits(probabilities: np.ndarray) -> np.ndarray:
    return special.logit(np.clip(probabilities, EPSILON, 1 - EPSILON))


def _bins(probabilities: np.ndarray) -> np.ndarray:
    return np.minimum((probabilities * BINS).astype(int), BINS - 1)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


def _headline(found: dict) -> str:
    first, second = found["names"]
    if found["better"] == "not distinguishable":
        return f"{first} and {second} cannot be told apart by their accuracy"
    better = second if found["better"] == "second" else first
    return f"{better} is better by {100 * abs(found['accuracy']['difference']):.1f} points of accuracy"


def _words(found: dict) -> str:
    (first, second), things = found["names"], found["things"]
    difference = 100 * found["accuracy"]["difference"]
    low, high = (100 * end for end in found["accuracy"]["interval"])
    chance = f"p = {found['p_value']:.2g}" if found["p_value"] >= 0.0001 else "p < 0.0001"
    method = f"{100 * found['confidence']:g} % interval; exact McNemar test, {chance}"
    alike, apart = found["both_right"] + found["both_wrong"], found["only_first_right"] + found["only_second_right"]
    counts = (
        f"Of {alike + apart:,} test {things}, {first} alone is right on {found['only_first_right']:,} and {second} "
        f"alone on {found['only_second_right']:,}; on the other {alike:,} they fare alike"
    )
    if not apart:
        verdict = f"So nothing in these {things} tells their verdicts apart"
    elif found["better"] == "not distinguishable":
        verdict = (
            f"{second} is at {difference:+.1f} points of accuracy, which can be chance: other {things} of this kind "
            f"could give {low:+.1f} to {high:+.1f} ({method})".replace("-", "−")
        )
    else:
        near, far = sorted((abs(low), abs(high)))
        verdict = (
            f"Other {things} of this kind would give a lead of {near:.1f} to {far:.1f} points; "
            f"chance alone hardly does that ({method})"
        )
    low, high = found["log_loss"]["interval"]
    if low <= 0 <= high:
        surer = f"Their probabilities are equally good, as far as these {things} tell (log loss)"
    else:
        by = abs(found["log_loss"]["difference"])
        surer = f"The probabilities of {second if high < 0 else first} are better: log loss {by:.3f} nats lower"
    return f"{counts}. {verdict}. {surer}."
