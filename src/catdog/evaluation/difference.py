"""Is one model better than the other on the same photographs, and how certain is that?"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from catdog.evaluation.scoring import checked, losses, mean_interval

NOT_TOLD_APART = "not distinguishable"


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
    spread: Sequence[float | None] = (None, None),
) -> dict:
    """Compare two models on the same photographs.

    A difference in accuracy stands beyond the chance of photographs if the p-value is below 1 - `confidence`. It
    stands beyond the spread of training too if it is larger than z standard deviations (1.96 at 95 %), where the
    variances over photographs, over seeds of the first training and over seeds of the second are added: two other
    trainings, tested on other photographs, would then hardly turn it round. That is rather strict, since photographs on
    which the seeds disagree count twice; and it takes the deviations as known, while one of five seeds is itself
    uncertain by a third.

    Args:
        labels: 0 or 1, (n,).
        first, second: the probabilities of class 1 that the two models give, (n,).
        names, things: what `headline` and `words` call the models and the photographs (`drawings`, say).
        spread: the standard deviation of each model's accuracy over seeds of its training; None: not measured.

    Returns:
        `accuracy`, `log_loss`: {`difference` (second - first), `interval` (paired percentile bootstrap)};
        `both_right`, `only_first_right`, `only_second_right`, `both_wrong`: numbers of photographs;
        `p_value`: of the exact McNemar test (two-sided binomial) on those that only one model gets right;
        `deviation_photographs`, `deviation_training`: standard deviations of the difference in accuracy, over other
        photographs and over other seeds of both trainings; the latter is None unless both spreads were measured;
        `beyond`: {`photographs`, `training`}: whether it stands beyond these; `training` is None if not measured;
        `better`: "first" or "second" if it stands beyond all that was measured, else "not distinguishable";
        `headline`, `certainty`, `words`: the same in words; `confidence`, `names`, `things`, `spread`: as given.
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
    measured = [deviation for deviation in spread if deviation is not None]
    result: dict[str, Any] = {
        "names": list(names),
        "things": things,
        "confidence": confidence,
        "spread": list(spread),
        "accuracy": accuracy,
        "log_loss": log_loss,
        "both_right": int(np.sum(first_right & second_right)),
        "only_first_right": only_first,
        "only_second_right": only_second,
        "both_wrong": int(np.sum(~first_right & ~second_right)),
        "p_value": p_value,
        "deviation_photographs": float(gains[0].std() / np.sqrt(len(labels))),
        "deviation_training": math.hypot(*measured) if len(measured) == len(spread) else None,
    }
    result["beyond"] = _beyond(result)
    stands = result["beyond"]["photographs"] and result["beyond"]["training"] is not False
    result["better"] = ("second" if only_second > only_first else "first") if stands else NOT_TOLD_APART
    return result | {"headline": _headline(result), "certainty": _certainty(result), "words": _words(result)}


def _beyond(result: dict) -> dict[str, bool | None]:
    of_photographs = result["p_value"] < 1 - result["confidence"]
    if result["deviation_training"] is None:
        return {"photographs": of_photographs, "training": None}
    reach = float(stats.norm.ppf((1 + result["confidence"]) / 2)) * _deviation(result)
    return {
        "photographs": of_photographs,
        "training": of_photographs and abs(result["accuracy"]["difference"]) > reach,
    }


def _deviation(result: dict) -> float:
    """The standard deviation of the difference in accuracy over other photographs and other trainings together."""
    return math.hypot(result["deviation_photographs"], result["deviation_training"])


def _ahead(result: dict) -> str:
    return result["names"][result["accuracy"]["difference"] > 0]


def _lead(result: dict) -> str:
    return f"{100 * abs(result['accuracy']['difference']):.1f} points of accuracy"


def _headline(result: dict) -> str:
    first, second = result["names"]
    if result["better"] != NOT_TOLD_APART:
        return f"{_ahead(result)} is better by {_lead(result)}"
    if result["beyond"]["photographs"]:
        return f"{_ahead(result)} is ahead by {_lead(result)}, which another training could undo"
    return f"{first} and {second} cannot be told apart by their accuracy"


def _certainty(result: dict) -> str:
    things = result["things"]
    if not result["accuracy"]["difference"]:
        return "no difference"
    if not result["beyond"]["photographs"]:
        return "a difference that chance alone can make"
    if result["beyond"]["training"] is None:
        return f"that is beyond the chance of {things}; of training: not measured"
    if result["beyond"]["training"]:
        return f"that is beyond chance, both of {things} and of training"
    return f"that is beyond the chance of {things}, but not beyond that of training"


def _words(result: dict) -> str:
    parts = (_of_counts(result), _of_photographs(result), _of_training(result), _of_losses(result))
    return " ".join(f"{part}." for part in parts)


def _of_counts(result: dict) -> str:
    (first, second), things = result["names"], result["things"]
    only_first, only_second = result["only_first_right"], result["only_second_right"]
    alike = result["both_right"] + result["both_wrong"]
    return (
        f"Of {alike + only_first + only_second:,} test {things}, {first} alone is right on {only_first:,} and {second} "
        f"alone on {only_second:,}; on the other {alike:,} they fare alike"
    )


def _of_photographs(result: dict) -> str:
    second, things = result["names"][1], result["things"]
    low, high = (100 * end for end in result["accuracy"]["interval"])
    p_value = f"p = {result['p_value']:.2g}" if result["p_value"] >= 0.0001 else "p < 0.0001"
    method = f"{100 * result['confidence']:g} % interval; exact McNemar test, {p_value}"
    if not result["only_first_right"] + result["only_second_right"]:
        return f"So nothing in these {things} tells their verdicts apart"
    if not result["beyond"]["photographs"]:
        difference = 100 * result["accuracy"]["difference"]
        return (
            f"{second} is at {difference:+.1f} points of accuracy, which can be chance: other {things} of this kind "
            f"could give {low:+.1f} to {high:+.1f} ({method})".replace("-", "−")
        )
    near, far = sorted((abs(low), abs(high)))
    return (
        f"Other {things} of this kind would give a lead of {near:.1f} to {far:.1f} points; "
        f"chance alone hardly does that ({method})"
    )


def _of_training(result: dict) -> str:
    if result["deviation_training"] is None:
        unknown = [name for name, known in zip(result["names"], result["spread"], strict=True) if known is None]
        return f"The chance of training: not measured for {' and '.join(unknown)}"
    moved = (
        f"Trained anew from other random numbers, and tested on other {result['things']}, their difference would move "
        f"by about {100 * _deviation(result):.1f} points (standard deviation)"
    )
    if not result["beyond"]["photographs"]:
        return moved
    lead = f"a lead of {100 * abs(result['accuracy']['difference']):.1f} points"
    return f"{moved}: {lead} {'stands' if result['beyond']['training'] else 'could be undone by that'}"


def _of_losses(result: dict) -> str:
    first, second = result["names"]
    low, high = result["log_loss"]["interval"]
    if low <= 0 <= high:
        return f"Their probabilities are equally good, as far as these {result['things']} tell (log loss)"
    nats = abs(result["log_loss"]["difference"])
    return f"The probabilities of {second if high < 0 else first} are better: log loss {nats:.3f} nats lower"
