"""The gates of a promotion: may this model replace the champion? Decided from metrics alone, without a store."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from catdog.base import params
from catdog.evaluation import difference

DRAWN = "drawn"
TIMES = " times a product of matrices"  # the yardstick of time, which a busy machine slows as much as an answer
CHEAPER = 0.9  # times the champion's time; smaller differences may be chance


@dataclass(frozen=True)
class Scored:
    """The answers of one model for the test photographs.

    Attributes:
        digest: sha256 of the test shard.
        frame: columns id, label (0 or 1), probability (of class 1); one row per photograph.
    """

    digest: str
    frame: pd.DataFrame


@dataclass(frozen=True)
class Contender:
    """A registered model with its metrics. A missing one is NaN, and fails its gate.

    Attributes:
        name: such as catdog-cnn/3.
        log_loss: nats.
        robustness: mean accuracy on corrupted photographs, as evaluate measured it when the version was registered.
        relative_time: of an answer, in products of two 1,024 x 1,024 matrices timed in turns with it.
        size: bytes of the model file.
        source_kind: where its photographs came from; `drawn` for drawings.
    """

    name: str
    accuracy: float
    log_loss: float
    calibration_error: float
    robustness: float
    relative_time: float
    size: float
    source_kind: str
    scored: Scored


@dataclass(frozen=True)
class Gate:
    """One gate's verdict; `figure` and `limit` are for a person to read."""

    name: str
    passed: bool
    figure: str
    limit: str

    def __str__(self) -> str:
        return f"{'passed' if self.passed else 'failed'}: {self.figure} (limit: {self.limit})"


def judge(
    candidate: Contender,
    champion: Contender | None,
    *,
    limits: params.Promote,
    evaluate: params.Evaluate,
    seed: int,
) -> list[Gate]:
    """Every gate's verdict on `candidate`. Without a champion, the absolute gates alone.

    The two are compared photograph by photograph, so both have to be scored on the same ones. If they are not, the
    gate `same photographs` fails.
    """
    gates = absolute(candidate, limits=limits)
    if champion is None:
        return gates
    gates.append(no_drawings(candidate.source_kind, champion.source_kind))
    same = _same_photographs(candidate, champion)
    gates.append(same)
    if same.passed:
        gates += _paired(candidate, champion, limits=limits, evaluate=evaluate, seed=seed)
    return gates


def absolute(candidate: Contender, *, limits: params.Promote) -> list[Gate]:
    """The verdicts that need no champion: on accuracy, calibration, robustness, time and size."""
    return [
        _at_least("accuracy", candidate.accuracy, limits.min_accuracy, ".4f"),
        _at_most("log loss", candidate.log_loss, limits.max_log_loss, ".4f"),
        _at_most("calibration error", candidate.calibration_error, limits.max_calibration_error, ".4f"),
        _robust(candidate.robustness, limit=limits.min_robustness),
        _at_most("time", candidate.relative_time, limits.max_relative_time, ".2f", TIMES),
        _at_most("size", candidate.size / 1e6, limits.max_megabytes, ".1f", " MB"),
    ]


def no_drawings(candidate_kind: str, champion_kind: str) -> Gate:
    """The gate that keeps a model of drawings from replacing one of photographs, by the kinds of their sources."""
    return Gate(
        name="photographs",
        passed=not (candidate_kind == DRAWN and champion_kind != DRAWN),
        figure=f"trained on {candidate_kind or 'unknown'}, champion on {champion_kind or 'unknown'}",
        limit="no model of drawings over one of photographs",
    )


def _same_photographs(candidate: Contender, champion: Contender) -> Gate:
    ours, theirs = (_by_id(contender.scored.frame)["label"] for contender in (candidate, champion))
    same_digest = candidate.scored.digest == champion.scored.digest
    return Gate(
        name="same photographs",
        passed=same_digest and ours.equals(theirs) and len(ours) > 0,
        figure=f"test set {_short(candidate.scored.digest)} against {_short(champion.scored.digest)}",
        limit="both scored on the same test photographs",
    )


def _paired(
    candidate: Contender, champion: Contender, *, limits: params.Promote, evaluate: params.Evaluate, seed: int
) -> list[Gate]:
    ours, theirs = _by_id(candidate.scored.frame), _by_id(champion.scored.frame)
    differences = difference.compare(
        ours["label"].to_numpy(),
        theirs["probability"].to_numpy(),
        ours["probability"].to_numpy(),
        threshold=evaluate.threshold,
        confidence=evaluate.confidence,
        resamples=evaluate.bootstrap,
        seed=seed,
    )
    worst = differences["accuracy"]["interval"][0]
    not_worse = Gate(
        name="not worse",
        passed=worst > -limits.margin,
        figure=f"accuracy {_difference(differences['accuracy'])}",
        limit=f"lower end above {-limits.margin:+.4f}",
    )
    # The whole interval has to lie below zero: a tiny difference may be luck.
    better = differences["log_loss"]["interval"][1] < 0
    cheaper = candidate.relative_time <= CHEAPER * champion.relative_time
    times = f"{_shown(candidate.relative_time, '.2f', TIMES)} against {_shown(champion.relative_time, '.2f', TIMES)}"
    worth_it = Gate(
        name="better or cheaper",
        passed=bool(better or cheaper),
        figure=f"log loss {_difference(differences['log_loss'])}, {times}",
        limit=f"log loss lower beyond chance, or at most {CHEAPER:.0%} of the time",
    )
    return [not_worse, worth_it]


def _by_id(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.set_index("id").sort_index()


def _difference(metric: dict) -> str:
    low, high = metric["interval"]
    return f"{metric['difference']:+.4f} ({low:+.4f} to {high:+.4f})"


def _at_least(name: str, figure: float, limit: float, form: str, unit: str = "") -> Gate:
    return Gate(name, figure >= limit, _shown(figure, form, unit), f"at least {limit:g}{unit}")


def _robust(figure: float, *, limit: float) -> Gate:
    # Not measured is not passed, else leaving out the measurement would get around the gate. A limit of 0 turns the
    # gate off.
    shown = "not measured" if math.isnan(figure) else f"{figure:.4f}"
    return Gate("robustness", limit == 0 or figure >= limit, shown, f"at least {limit:g}" if limit else "none")


def _at_most(name: str, figure: float, limit: float, form: str, unit: str = "") -> Gate:
    return Gate(name, figure <= limit, _shown(figure, form, unit), f"at most {limit:g}{unit}")


def _shown(figure: float, form: str, unit: str) -> str:
    return "unknown" if math.isnan(figure) else f"{figure:{form}}{unit}"


def _short(digest: str) -> str:
    return digest[:8] or "unknown"


def scored(digest: str, *, ids: list[str], labels: np.ndarray, probabilities: np.ndarray) -> Scored:
    """A `Scored` from one id, label and probability per photograph."""
    return Scored(digest, pd.DataFrame({"id": ids, "label": labels.astype(int), "probability": probabilities}))
