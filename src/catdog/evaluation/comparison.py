"""What the two models say of the test photographs, as metrics, tables and pictures."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import keras
import numpy as np
import pandas as pd

from catdog.answers import classifier, inference
from catdog.base import files, params, paths
from catdog.base.errors import UserError
from catdog.evaluation import calibration, corruptions, difference, failures, plots, scoring, slices, tradeoffs
from catdog.photographs import shards
from catdog.pictures import style
from catdog.pictures.style import NAMES

_TIMED_ANSWERS = 15
_AT_ONCE = 32
_CALIBRATED = ("log_loss", "brier", "calibration_error")
# Of metrics/train_<model>.json; the CNN has no features.
_COSTS = ("epochs", "best_epoch", "parameters", "file_bytes", "peak_memory_bytes")
_SECONDS = ("seconds_data", "seconds_features", "seconds_training")


@dataclass(frozen=True)
class Judged:
    """A saved model: as it would be used, as Keras has it, and as the quickest function to probabilities here."""

    classifier: classifier.Classifier
    model: keras.Model
    quick: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Answers:
    """Probabilities of the second class, float64 (n,), for the test photographs, by model; and how long one takes.

    `batch_milliseconds` is the time of each of 32 at once. `val_probabilities`, for `val_labels`, come from the quick
    function.
    """

    labels: np.ndarray
    ids: list[str]
    probabilities: dict[str, np.ndarray]
    milliseconds: dict[str, float]
    batch_milliseconds: dict[str, float]
    val_labels: np.ndarray
    val_probabilities: dict[str, np.ndarray]


def load(p: params.Params) -> dict[str, Judged]:
    """Both saved models."""
    models = {}
    for name in NAMES:
        model = classifier.read(paths.model(name) / paths.MODEL_FILE)
        judged = classifier.of(
            model, classes=p.base.classes, image_size=p.prepare.image_size, threshold=p.evaluate.threshold
        )
        models[name] = Judged(judged, model, inference.quickest(model, precision=p.train_xception.precision))
    return models


def ask(models: dict[str, Judged], *, test: shards.Shard, val: shards.Shard) -> Answers:
    """Have both models, as they would be served, judge the test photographs; and those of `val`, to calibrate by."""
    return Answers(
        test.labels,
        test.ids,
        {name: _on_shard(test, model, model.classifier.probabilities, name) for name, model in models.items()},
        {name: _milliseconds(model.classifier, test, 1) for name, model in models.items()},
        {name: _milliseconds(model.classifier, test, _AT_ONCE) for name, model in models.items()},
        val.labels,
        {name: _on_shard(val, model, model.quick, name) for name, model in models.items()},
    )


def corrupt(p: params.Params, models: dict[str, Judged], test: shards.Shard) -> corruptions.Corrupted:
    """How both models fare on corrupted test photographs."""
    e = p.evaluate
    asked = {name: (model.classifier.side, model.quick) for name, model in models.items()}
    return corruptions.measure(test, count=e.corrupted, models=asked, threshold=e.threshold, confidence=e.confidence)


def measure(p: params.Params, answers: Answers, corrupted: corruptions.Corrupted) -> dict:
    """Each model's metrics with intervals and cost, and the difference between the two, in numbers and words."""
    e = p.evaluate
    metrics: dict = {}
    for name in NAMES:
        trained = files.read_json(paths.train_metrics(name))
        probabilities = answers.probabilities[name]
        temperature = calibration.temperature(answers.val_labels, answers.val_probabilities[name])
        calibrated = calibration.apply_temperature(probabilities, temperature)
        metrics[name] = {
            **scoring.score(answers.labels, probabilities, threshold=e.threshold),
            "temperature": temperature,
            **_calibrated(scoring.score(answers.labels, calibrated, threshold=e.threshold)),
            "robustness": corrupted.robustness(name),
            "train_seconds": trained["seconds"],
            "milliseconds_per_photograph": answers.milliseconds[name],
            "milliseconds_per_photograph_of_32": answers.batch_milliseconds[name],
            **{key: trained[key] for key in _COSTS + _SECONDS if key in trained},
            "intervals": scoring.intervals(answers.labels, probabilities, **_bootstrap(p), threshold=e.threshold)
            | _calibrated(scoring.intervals(answers.labels, calibrated, **_bootstrap(p), threshold=e.threshold))
            | {"robustness": scoring.mean_interval(corrupted.shares[name], **_bootstrap(p)).tolist()},
        }
    metrics["difference"] = difference.compare(
        answers.labels,
        *answers.probabilities.values(),
        **_bootstrap(p),
        threshold=e.threshold,
        names=list(NAMES.values()),
        things="drawings" if drawings_note() else "photographs",
    )
    return metrics


def write(metrics: dict) -> None:
    """Write metrics/evaluation.json, numbers alone, for DVC to compare; and all of them for the report's use."""
    files.write_json(paths.FINDINGS, metrics)
    files.write_json(paths.EVALUATION, {name: _numbers(values) for name, values in metrics.items()})


def drawings_note() -> str:
    """What stands under every figure of these photographs, if they are drawings."""
    return style.note(files.read_json(paths.DATA_METRICS)["source"]["kind"])


def histories() -> dict[str, pd.DataFrame]:
    return {name: pd.read_csv(paths.history(name)) for name in NAMES}


def write_tables(
    p: params.Params, metrics: dict, answers: Answers, *, test: shards.Shard, corrupted: corruptions.Corrupted
) -> dict[str, dict[str, pd.DataFrame]]:
    """Write what DVC draws, plots/<table>_<model>.csv, and return it by table and model; and two of both models."""
    tables: dict[str, dict[str, pd.DataFrame]] = {
        kind: {} for kind in ("roc", "precision_recall", "reliability", "calibrated", "confusion")
    }
    tables |= {f"{kind}_band": {} for kind in ("roc", "precision_recall")}
    for name in NAMES:
        labels, probabilities = answers.labels, answers.probabilities[name]
        calibrated = calibration.apply_temperature(probabilities, metrics[name]["temperature"])
        for curve in tradeoffs.CURVES:
            tables[curve][name] = tradeoffs.table(curve, labels, probabilities)
            tables[f"{curve}_band"][name] = tradeoffs.band(curve, labels, probabilities, **_bootstrap(p))
        confidence = p.evaluate.confidence
        tables["reliability"][name] = calibration.reliability_table(labels, probabilities, confidence=confidence)
        tables["calibrated"][name] = calibration.reliability_table(labels, calibrated, confidence=confidence)
        tables["confusion"][name] = scoring.confusion_table(
            labels, probabilities, threshold=p.evaluate.threshold, classes=p.base.classes
        )
    for kind, by_model in tables.items():
        for name, table in by_model.items():
            files.write_text(paths.PLOTS / f"{kind}_{name}.csv", table.to_csv(index=False))
    described = slices.describe(test, _manifest(), classes=p.base.classes)
    right = {n: (each >= p.evaluate.threshold) == answers.labels for n, each in answers.probabilities.items()}
    both = {"slices": slices.table(described, right, confidence=p.evaluate.confidence), "corruptions": corrupted.table}
    for kind, table in both.items():
        files.write_text(paths.PLOTS / f"{kind}.csv", table.to_csv(index=False))
    return tables | {kind: {"both": table} for kind, table in both.items()}


def _manifest() -> pd.DataFrame:
    if files.sha256(paths.MANIFEST) != files.read_json(paths.DATA_METRICS)["manifest_sha256"]:
        raise UserError(f"{paths.MANIFEST} is not what prepare wrote: delete it and run `dvc repro`")
    return pd.read_csv(paths.MANIFEST)


def draw(
    p: params.Params,
    metrics: dict,
    tables: dict[str, dict[str, pd.DataFrame]],
    *,
    answers: Answers,
    models: dict[str, Judged],
    test: shards.Shard,
) -> dict[str, Path]:
    """Draw plots/*.png and return them, and those of earlier stages, by the name under which the report shows them."""
    note = drawings_note()
    names = ("curves", "confusions", "roc", "precision_recall", "reliability", "slices", "corruptions", "cost")
    pictures = {name: paths.PLOTS / f"{name}.png" for name in (*names, "comparison")}
    trained = histories()
    plots.curves(trained, pictures["curves"], note=note)
    plots.confusions(tables["confusion"], pictures["confusions"], classes=p.base.classes, note=note)
    for curve in tradeoffs.CURVES:
        plots.tradeoff(curve, tables[curve], tables[f"{curve}_band"], metrics, pictures[curve], note=note)
    plots.reliability(tables["reliability"], tables["calibrated"], metrics, pictures["reliability"], note=note)
    plots.cost(metrics, trained, pictures["cost"], note=note)
    plots.comparison(metrics, trained, pictures["comparison"], note=note)
    slices.draw(tables["slices"]["both"], pictures["slices"], note=note)
    corruptions.draw(tables["corruptions"]["both"], pictures["corruptions"], note=note)
    networks = {name: model.model for name, model in models.items()}
    failed = failures.draw(
        failures.Failures(test, answers.probabilities, networks, p.base.classes, p.evaluate.threshold, note)
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
        if isinstance(value, dict) and key != "intervals":
            kept[key] = {"difference": value["difference"]}
        elif isinstance(value, int | float):
            kept[key] = value
    return kept


def _calibrated(metrics: dict[str, Any]) -> dict[str, Any]:
    """Of metrics, or their intervals, on calibrated probabilities: those that a temperature changes."""
    return {f"calibrated_{key}": metrics[key] for key in _CALIBRATED}


def _on_shard(
    shard: shards.Shard, model: Judged, probabilities: Callable[[np.ndarray], np.ndarray], name: str
) -> np.ndarray:
    what = f"{shard.path.stem}, {name}"
    return inference.on_shard(shard, side=model.classifier.side, probabilities=probabilities, what=what)


def _milliseconds(model: classifier.Classifier, test: shards.Shard, at_once: int) -> float:
    """Median time from a photograph's bytes to its probability, of so many at once, for each of them."""
    taken = []
    for turn in range(_TIMED_ANSWERS if at_once == 1 else 3):
        rows = [(turn * at_once + place) % len(test) for place in range(at_once)]
        started = time.perf_counter()
        model.probabilities(np.stack([model.pixels(test.jpeg(row)) for row in rows]))
        taken.append(1000 * (time.perf_counter() - started) / at_once)
    return statistics.median(taken)
