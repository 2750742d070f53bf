"""The gates of a promotion: may this model take the champion's place? Decided from figures alone, without a store."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from catdog.base import params
from catdog.evaluation import difference

DRAWN = "drawn"
CHEAPER = 0.9  # of the champion's time per photograph: closer than that, timings of the same model differ by chance


@dataclass(frozen=True)
class Scored:
    """What one model said about the test photographs.

    Args:
        digest: sha256 of the test shard.
        frame: columns id, label (0 or 1), probability (of class 1); one row per photograph.
    """

    digest: str
    frame: pd.DataFrame

    @property
    def probabilities(self) -> np.ndarray:
        return self.frame["probability"].to_numpy()


@dataclass(frozen=True)
class Contender:
    """A registered model with its figures; NaN where one is missing, which no gate lets pass.

    Args:
        name: such as catdog-cnn/3.
        log_loss: nats.
        robustness: mean accuracy on corrupted photographs, as evaluate measured it when the version was registered.
        milliseconds: per photograph.
        size: bytes of the model file.
        source_kind: where its photographs came from; `drawn` for drawings.
    """

    name: str
    accuracy: float
    log_loss: float
    calibration_error: float
    robustness: float
    milliseconds: float
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
    """Every gate's verdict on `candidate`. Without a champion the absolute gates alone decide.

    The two are compared photograph by photograph, so they have to be scored on the same ones: a champion scored on
    others is to be scored again before, or the gate `same photographs` fails.
    """
    gates = absolute(candidate, limits=limits)
    if champion is None:
        return gates
    gates.append(no_drawings(candidate.source_kind, champion.source_kind))
    same = same_photographs(candidate, champion)
    gates.append(same)
    if same.passed:
        gates += _paired(candidate, champion, limits=limits, evaluate=evaluate, seed=seed)
    return gates


def absolute(candidate: Contender, *, limits: params.Promote) -> list[Gate]:
    """What a model has to be by itself: right, honest about its certainty, robust, quick and small."""
    megabytes = candidate.size / 1e6
    return [
        _at_least("accuracy", candidate.accuracy, limits.min_accuracy, ".4f"),
        _at_most("log loss", candidate.log_loss, limits.max_log_loss, ".4f"),
        _at_most("calibration error", candidate.calibration_error, limits.max_calibration_error, ".4f"),
        _robust(candidate.robustness, limit=limits.min_robustness),
        _at_most("time", candidate.milliseconds, limits.max_milliseconds, ".1f", " ms"),
        _at_most("size", megabytes, limits.max_megabytes, ".1f", " MB"),
    ]


def no_drawings(candidate_kind: str, champion_kind: str) -> Gate:
    """Never a model of drawings over one of photographs, by the kinds of their sources."""
    return Gate(
        name="photographs",
        passed=not (candidate_kind == DRAWN and champion_kind != DRAWN),
        figure=f"trained on {candidate_kind or 'unknown'}, champion on {champion_kind or 'unknown'}",
        limit="no model of drawings over one of photographs",
    )


def same_photographs(candidate: Contender, champion: Contender) -> Gate:
    """Both scored on the very same test photographs."""
    ours, theirs = (_by_id(each.scored.frame)["label"] for each in (candidate, champion))
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
    found = difference.compare(
        ours["label"].to_numpy(),
        theirs["probability"].to_numpy(),
        ours["probability"].to_numpy(),
        threshold=evaluate.threshold,
        confidence=evaluate.confidence,
        resamples=evaluate.bootstrap,
        seed=seed,
    )
    worst = found["accuracy"]["interval"][0]
    not_worse = Gate(
        name="not worse",
        passed=worst > -limits.margin,
        figure=f"accuracy {_difference(found['accuracy'])}",
        limit=f"lower end above {-limits.margin:+.4f}",
    )
    # Lower by a hair is lower by luck: the whole interval has to lie below zero.
    better = found["log_loss"]["interval"][1] < 0
    cheaper = candidate.milliseconds <= CHEAPER * champion.milliseconds
    times = f"{candidate.milliseconds:.1f} ms against {champion.milliseconds:.1f} ms"
    worth_it = Gate(
        name="better or cheaper",
        passed=bool(better or cheaper),
        figure=f"log loss {_difference(found['log_loss'])}, {times}",
        limit=f"log loss lower beyond chance, or at most {CHEAPER:.0%} of the time",
    )
    return [not_worse, worth_it]


def _by_id(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.set_index("id").sort_index()


def _difference(found: dict) -> str:
    low, high = found["interval"]
    return f"{found['difference']:+.4f} ({low:+.4f} to {high:+.4f})"


def _at_least(name: str, figure: float, limit: float, form: str, unit: str = "") -> Gate:
    return Gate(name, figure >= limit, _shown(figure, form, unit), f"at least {limit:g}{unit}")


def _robust(figure: float, *, limit: float) -> Gate:
    # What was not measured does not pass, or leaving out the measurement would be the way around the gate. Those who do
    # without it say so where the limits stand: at 0 there is nothing to pass.
    shown = "not measured" if math.isnan(figure) else f"{figure:.4f}"
    return Gate("robustness", limit == 0 or figure >= limit, shown, f"at least {limit:g}" if limit else "none")


def _at_most(name: str, figure: float, limit: float, form: str, unit: str = "") -> Gate:
    return Gate(name, figure <= limit, _shown(figure, form, unit), f"at most {limit:g}{unit}")


def _shown(figure: float, form: str, unit: str) -> str:
    return "unknown" if math.isnan(figure) else f"{figure:{form}}{unit}"


def _short(digest: str) -> str:
    return digest[:8] or "unknown"


def scored(digest: str, *, ids: list[str], labels: np.ndarray, probabilities: np.ndarray) -> Scored:
    """A `Scored` from one entry per photograph in each of `ids`, `labels` and `probabilities`."""
    return Scored(digest, pd.DataFrame({"id": ids, "label": labels.astype(int), "probability": probabilities}))
