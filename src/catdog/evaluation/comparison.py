"""What the served forms of the two models say of the test photographs, as metrics, tables and pictures."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pandas as pd

from catdog.answers import inference
from catdog.answers.classifier import Judged, probability
from catdog.base import files, params, paths
from catdog.evaluation import (
    agreement,
    calibration,
    corrected,
    corruptions,
    difference,
    doubt,
    failures,
    plots,
    properties,
    scoring,
    slices,
    spread,
    timing,
    tradeoffs,
)
from catdog.evaluation.served import Served
from catdog.photographs import shards
from catdog.pictures import style
from catdog.pictures.style import NAMES

_CALIBRATED = ("log_loss", "brier", "calibration_error")
# Of metrics/train_<model>.json; the CNN has no features.
_COSTS = ("epochs", "best_epoch", "parameters", "file_bytes", "peak_memory_bytes")
_SECONDS = ("seconds_data", "seconds_features", "seconds_training")


@dataclass(frozen=True)
class Answers:
    """What both models say of the test photographs, by model, one entry per photograph.

    Attributes:
        judged: what is served: probabilities of the second class, familiarity and labels.
        uncalibrated: the probabilities before the temperature, float64 (n,).
        evidence: what speaks for the second class by place, float32 (n, height, width).
        times: what an answer takes, as `timing.measure` has it.
        aside: what is served for the photographs that people set aside; None: there are none.
        features: float32 (n, k), of the frozen Xception; None where its training changed it.
    """

    labels: np.ndarray
    ids: list[str]
    judged: dict[str, Judged]
    uncalibrated: dict[str, np.ndarray]
    evidence: dict[str, np.ndarray]
    times: dict[str, dict[str, float]]
    aside: dict[str, Judged | None]
    features: np.ndarray | None

    @property
    def probabilities(self) -> dict[str, np.ndarray]:
        return {name: each.probabilities for name, each in self.judged.items()}


def ask(p: params.Params, models: dict[str, Served], *, test: shards.Shard, aside: shards.Shard) -> Answers:
    """Have both served forms judge the test photographs, and those that people set aside."""
    judged, uncalibrated, evidence, times, judged_aside = {}, {}, {}, {}, {}
    features = None
    for name, model in models.items():
        c = model.classifier
        asked = inference.on_shard(test, c.network, side=c.side, what=f"test, {name}")
        judged[name] = c.judge(asked)
        uncalibrated[name] = probability(asked.logits, 1)
        evidence[name] = asked.evidence
        times[name] = timing.measure(c, test)
        judged_aside[name] = c.judge(inference.on_shard(aside, c.network, side=c.side)) if len(aside) else None
        if name == "xception" and not p.train_xception.fine_tune_blocks:
            features = asked.features
    return Answers(test.labels, test.ids, judged, uncalibrated, evidence, times, judged_aside, features)


def corrupt(
    p: params.Params, models: dict[str, Served], answers: Answers, *, test: shards.Shard
) -> corruptions.Corrupted:
    """How both models fare on corrupted test photographs."""
    e = p.evaluate
    classifiers = {name: model.classifier for name, model in models.items()}
    return corruptions.measure(
        test, count=e.corrupted, models=classifiers, plain=answers.judged, confidence=e.confidence
    )


def measure(
    p: params.Params,
    models: dict[str, Served],
    answers: Answers,
    *,
    corrupted: corruptions.Corrupted,
    test: shards.Shard,
    aside: shards.Shard,
) -> dict:
    """Each model's metrics with intervals and cost, the spread of their trainings, and the difference between the two,
    in numbers and words."""
    e = p.evaluate
    score = partial(scoring.score, answers.labels, threshold=e.threshold)
    intervals = partial(scoring.intervals, answers.labels, **_bootstrap(p), threshold=e.threshold)
    filed = partial(
        corrected.as_filed, properties.manifest(), test, aside=aside, classes=p.base.classes, threshold=e.threshold
    )
    metrics: dict = {}
    for name, model in models.items():
        trained = files.read_json(paths.train_metrics(name))
        probabilities, uncalibrated = answers.probabilities[name], answers.uncalibrated[name]
        metrics[name] = {
            **score(probabilities),
            **_uncalibrated(score(uncalibrated)),
            "temperature": model.settings.temperature,
            "sureness": model.settings.sureness,
            "doubt": _doubt(answers, name, confidence=e.confidence) | corrupted.doubt(name),
            "as_filed": filed(answers.judged[name], judged_aside=answers.aside[name]),
            "robustness": corrupted.robustness(name),
            "train_seconds": trained["seconds"],
            **answers.times[name],
            "agreement": agreement.measure(model, probabilities, test, count=e.corrupted),
            **{key: trained[key] for key in _COSTS + _SECONDS if key in trained},
            "intervals": intervals(probabilities)
            | _uncalibrated(intervals(uncalibrated))
            | {"robustness": scoring.mean_interval(corrupted.shares[name], **_bootstrap(p)).tolist()},
        }
    metrics["spread"] = spread.measure(p, answers.labels, answers.features, served=metrics["xception"])
    metrics["difference"] = difference.compare(
        answers.labels,
        *answers.probabilities.values(),
        **_bootstrap(p),
        threshold=e.threshold,
        names=list(NAMES.values()),
        things="drawings" if drawings_note() else "photographs",
        spread=[spread.of_accuracy(metrics["spread"][name]) for name in models],
    )
    return metrics


def write(metrics: dict) -> None:
    """Write metrics/evaluation.json, numbers alone, for DVC to compare; and all of them for the report's use."""
    files.write_json(paths.FINDINGS, metrics)
    numbers = {name: _numbers(values) for name, values in metrics.items()}
    files.write_json(paths.EVALUATION, numbers | {"spread": metrics["spread"]})


def drawings_note() -> str:
    """What stands under every figure of these photographs, if they are drawings."""
    return style.note(files.read_json(paths.DATA_METRICS)["source"]["kind"])


def histories() -> dict[str, pd.DataFrame]:
    return {name: pd.read_csv(paths.history(name)) for name in NAMES}


def write_tables(
    p: params.Params, metrics: dict, answers: Answers, *, test: shards.Shard, corrupted: corruptions.Corrupted
) -> dict[str, dict[str, pd.DataFrame]]:
    """Write what DVC draws, plots/<table>_<model>.csv, and return it by table and model; and two of both models."""
    e = p.evaluate
    kinds = ("roc", "precision_recall", "reliability", "uncalibrated", "confusion", "risk_coverage")
    tables: dict[str, dict[str, pd.DataFrame]] = {kind: {} for kind in kinds}
    tables |= {f"{kind}_band": {} for kind in ("roc", "precision_recall")}
    for name in NAMES:
        labels, probabilities = answers.labels, answers.probabilities[name]
        reliability = partial(calibration.reliability_table, labels, confidence=e.confidence)
        for curve in tradeoffs.CURVES:
            tables[curve][name] = tradeoffs.table(curve, labels, probabilities)
            tables[f"{curve}_band"][name] = tradeoffs.band(curve, labels, probabilities, **_bootstrap(p))
        tables["reliability"][name] = reliability(probabilities)
        tables["uncalibrated"][name] = reliability(answers.uncalibrated[name])
        tables["confusion"][name] = scoring.confusion_table(
            labels, probabilities, threshold=e.threshold, classes=p.base.classes
        )
        sure, right = doubt.sureness(probabilities, threshold=e.threshold), (probabilities >= e.threshold) == labels
        tables["risk_coverage"][name] = doubt.risk_coverage(sure, right, confidence=e.confidence)
    for kind, by_model in tables.items():
        for name, table in by_model.items():
            files.write_text(paths.PLOTS / f"{kind}_{name}.csv", table.to_csv(index=False))
    described = slices.describe(test, properties.manifest(), classes=p.base.classes)
    right = {n: (each >= p.evaluate.threshold) == answers.labels for n, each in answers.probabilities.items()}
    both = {"slices": slices.table(described, right, confidence=p.evaluate.confidence), "corruptions": corrupted.table}
    for kind, table in both.items():
        files.write_text(paths.PLOTS / f"{kind}.csv", table.to_csv(index=False))
    return tables | {kind: {"both": table} for kind, table in both.items()}


def draw(
    p: params.Params,
    metrics: dict,
    tables: dict[str, dict[str, pd.DataFrame]],
    *,
    answers: Answers,
    test: shards.Shard,
) -> dict[str, Path]:
    """Draw plots/*.png and return them, and those of earlier stages, by the name under which the report shows them."""
    note = drawings_note()
    names = ("curves", "confusions", "roc", "precision_recall", "reliability", "doubt", "slices", "corruptions", "cost")
    pictures = {name: paths.PLOTS / f"{name}.png" for name in (*names, "comparison")}
    trained = histories()
    plots.curves(trained, pictures["curves"], note=note)
    plots.confusions(tables["confusion"], pictures["confusions"], classes=p.base.classes, note=note)
    for curve in tradeoffs.CURVES:
        plots.tradeoff(curve, tables[curve], tables[f"{curve}_band"], metrics, pictures[curve], note=note)
    plots.reliability(tables["uncalibrated"], tables["reliability"], metrics, pictures["reliability"], note=note)
    wanted = p.evaluate.answer_accuracy
    doubt.draw(tables["risk_coverage"], metrics, pictures["doubt"], wanted=wanted, note=note)
    plots.cost(metrics, trained, pictures["cost"], note=note)
    plots.comparison(metrics, trained, pictures["comparison"], note=note)
    slices.draw(tables["slices"]["both"], pictures["slices"], note=note)
    corruptions.draw(tables["corruptions"]["both"], pictures["corruptions"], note=note)
    failed = failures.draw(
        failures.Failures(test, answers.probabilities, answers.evidence, p.base.classes, p.evaluate.threshold, note)
    )
    augmented = {"augmented": paths.AUGMENTED_SHEET, "transforms": paths.TRANSFORMS_SHEET}
    return pictures | failed | paths.DATA_PICTURES | augmented


def predictions(answers: Answers) -> pd.DataFrame:
    """Columns id, label and a probability for each model; a row for each test photograph."""
    return pd.DataFrame({"id": answers.ids, "label": answers.labels, **answers.probabilities})


class _Bootstrap(TypedDict):
    confidence: float
    resamples: int
    seed: int


def _bootstrap(p: params.Params) -> _Bootstrap:
    return {"confidence": p.evaluate.confidence, "resamples": p.evaluate.bootstrap, "seed": p.base.seed}


def _numbers(values: dict) -> dict:
    """What of `values` is a number or a table of numbers; intervals are too many for a table of metrics."""
    kept: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and "difference" in value:
            kept[key] = {"difference": value["difference"]}
        elif key in ("doubt", "agreement", "as_filed"):
            kept |= {f"{key}_{name}": number for name, number in _numbers(value).items()}
        elif isinstance(value, int | float):
            kept[key] = value
    return kept


def _doubt(answers: Answers, name: str, *, confidence: float) -> dict[str, Any]:
    of_test = doubt.measure(answers.labels, answers.judged[name].labels, confidence=confidence)
    of_aside = corrected.neither(answers.aside[name], confidence=confidence)
    intervals = {"intervals": of_test["intervals"] | of_aside.get("intervals", {})}
    return of_test | of_aside | intervals


def _uncalibrated(metrics: dict[str, Any]) -> dict[str, Any]:
    """Of metrics, or their intervals, on probabilities before the temperature: those that it changes."""
    return {f"uncalibrated_{key}": metrics[key] for key in _CALIBRATED}
