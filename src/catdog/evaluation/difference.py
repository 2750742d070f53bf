"""Is one model better than the other on the same photographs, and how certain is that?"""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from catdog.evaluation.scoring import checked, losses, mean_interval


def compare(
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    *,
    threshold: float,
    confidence: float,
    resamples: int,
    seed: int,
    names: Sequence[str] = ("first", "second"),
    things: str = "photographs",
) -> dict:
    """Compare two models on the same photographs.

    Args:
        labels: 0 or 1, (n,).
        first, second: the probabilities of class 1 that the two models give, (n,).
        names, things: what `headline` and `words` call the models and the photographs (`drawings`, say).

    Returns:
        `accuracy`, `log_loss`: {`difference` (second - first), `interval` (paired percentile bootstrap)};
        `both_right`, `only_first_right`, `only_second_right`, `both_wrong`: numbers of photographs;
        `p_value`: of the exact McNemar test (two-sided binomial) on those that only one model gets right;
        `better`: "first" or "second" if p < 1 - confidence, else "not distinguishable";
        `headline`, `words`: the same in words; `confidence`, `names`, `things`: as given.
    """
    labels, first = checked(labels, first)
    labels, second = checked(labels, second)
    first_right, second_right = (first >= threshold) == labels, (second >= threshold) == labels
    only_first = int(np.sum(first_right & ~second_right))
    only_second = int(np.sum(second_right & ~first_right))
    discordant = only_first + only_second
    p_value = float(stats.binomtest(only_second, discordant).pvalue) if discordant else 1.0

    gains = np.stack([second_right.astype(float) - first_right, losses(labels, second) - losses(labels, first)])
    low, high = mean_interval(gains.T, confidence=confidence, resamples=resamples, seed=seed)
    accuracy, log_loss = (
        {"difference": float(gains[i].mean()), "interval": [float(low[i]), float(high[i])]} for i in (0, 1)
    )
    certain = p_value < 1 - confidence
    result = {
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
    return result | {"headline": _headline(result), "words": _words(result)}


def _headline(result: dict) -> str:
    first, second = result["names"]
    if result["better"] == "not distinguishable":
        return f"{first} and {second} cannot be told apart by their accuracy"
    better = second if result["better"] == "second" else first
    return f"{better} is better by {100 * abs(result['accuracy']['difference']):.1f} points of accuracy"


def _words(result: dict) -> str:
    (first, second), things = result["names"], result["things"]
    only_first, only_second = result["only_first_right"], result["only_second_right"]
    alike = result["both_right"] + result["both_wrong"]
    counts = (
        f"Of {alike + only_first + only_second:,} test {things}, {first} alone is right on {only_first:,} and {second} "
        f"alone on {only_second:,}; on the other {alike:,} they fare alike"
    )
    difference = 100 * result["accuracy"]["difference"]
    low, high = (100 * end for end in result["accuracy"]["interval"])
    p_value = f"p = {result['p_value']:.2g}" if result["p_value"] >= 0.0001 else "p < 0.0001"
    method = f"{100 * result['confidence']:g} % interval; exact McNemar test, {p_value}"
    if not only_first + only_second:
        verdict = f"So nothing in these {things} tells their verdicts apart"
    elif result["better"] == "not distinguishable":
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
    low, high = result["log_loss"]["interval"]
    if low <= 0 <= high:
        loss = f"Their probabilities are equally good, as far as these {things} tell (log loss)"
    else:
        nats = abs(result["log_loss"]["difference"])
        loss = f"The probabilities of {second if high < 0 else first} are better: log loss {nats:.3f} nats lower"
    return f"{counts}. {verdict}. {loss}."
