"""What the two models say of the test photographs, as figures, tables and pictures. Knows nothing of MLflow."""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from catdog import classifier, files, params, paths, plots, prediction, scoring, shards

NAMES = ("cnn", "xception")
_TIMED_ANSWERS = 15


@dataclass(frozen=True)
class Answers:
    """Probabilities of the second class, float64 (n,), for the test photographs, by model; and how long one takes."""

    labels: np.ndarray
    ids: list[str]
    probabilities: dict[str, np.ndarray]
    milliseconds: dict[str, float]


def ask(p: params.Params, test: shards.Shard) -> Answers:
    """Have both saved models, as they would be served, judge the test photographs."""
    probabilities, milliseconds = {}, {}
    for name in NAMES:
        model = classifier.load(
            paths.MODELS[name] / paths.MODEL_FILE,
            classes=p.base.classes,
            image_size=p.prepare.image_size,
            threshold=p.evaluate.threshold,
        )
        probabilities[name] = prediction.on_shard(test, model=model).probabilities
        milliseconds[name] = _milliseconds(model, test)
    return Answers(test.labels, test.ids, probabilities, milliseconds)


def figures(p: params.Params, answers: Answers) -> dict:
    """metrics/evaluation.json: each model's metrics with intervals and cost, and the difference between the two."""
    e, seed = p.evaluate, p.base.seed
    drawn = files.read_json(paths.DATA_METRICS)["source"]["kind"] == "drawn"
    sampled: Any = {"threshold": e.threshold, "confidence": e.confidence, "resamples": e.bootstrap, "seed": seed}
    found: dict = {}
    for name in NAMES:
        trained = files.read_json(paths.train_metrics(name))
        found[name] = {
            **scoring.score(answers.labels, answers.probabilities[name], threshold=e.threshold),
            "train_seconds": trained["seconds"],
            "milliseconds_per_photograph": answers.milliseconds[name],
            **{key: trained[key] for key in ("epochs", "best_epoch", "parameters", "file_bytes")},
            "intervals": scoring.intervals(answers.labels, answers.probabilities[name], **sampled),
        }
    found["difference"] = scoring.compare(
        answers.labels,
        answers.probabilities["cnn"],
        answers.probabilities["xception"],
        **sampled,
        names=(plots.NAMES["cnn"], plots.NAMES["xception"]),
        things="drawings" if drawn else "photographs",
    )
    return found


def histories() -> dict[str, pd.DataFrame]:
    return {name: pd.read_csv(paths.history(name)) for name in NAMES}


def write_tables(p: params.Params, answers: Answers) -> dict[str, dict[str, pd.DataFrame]]:
    """Write what DVC draws, plots/<table>_<model>.csv, and return it by table and model."""
    tables = {
        kind: {name: make(answers.labels, answers.probabilities[name]) for name in NAMES}
        for kind, make in {
            "roc": scoring.roc_table,
            "precision_recall": scoring.pr_table,
            "reliability": scoring.reliability_table,
        }.items()
    }
    tables["confusion"] = {
        name: scoring.confusion_table(
            answers.labels, answers.probabilities[name], threshold=p.evaluate.threshold, classes=p.base.classes
        )
        for name in NAMES
    }
    for kind, by_model in tables.items():
        for name, table in by_model.items():
            files.write_text(paths.PLOTS / f"{kind}_{name}.csv", table.to_csv(index=False))
    return tables


def draw(p: params.Params, found: dict, tables: dict[str, dict[str, pd.DataFrame]]) -> dict[str, Path]:
    """Draw plots/*.png and return them, and those of earlier stages, by the name under which the report shows them."""
    source = files.read_json(paths.DATA_METRICS)["source"]["kind"]
    note = "drawings, not photographs" if source == "drawn" else ""
    names = ("curves", "confusions", "roc", "precision_recall", "reliability", "cost", "comparison")
    pictures = {name: paths.PLOTS / f"{name}.png" for name in names}
    trained = histories()
    plots.curves(trained, pictures["curves"], note=note)
    plots.confusions(tables["confusion"], pictures["confusions"], classes=p.base.classes, note=note)
    plots.roc(tables["roc"], found, pictures["roc"], note=note)
    plots.precision_recall(tables["precision_recall"], found, pictures["precision_recall"], note=note)
    plots.reliability(tables["reliability"], found, pictures["reliability"], note=note)
    plots.cost(found, trained, pictures["cost"], note=note)
    plots.comparison(found, trained, pictures["comparison"], note=note)
    augmented = {"augmented": paths.AUGMENTED_SHEET, "transforms": paths.TRANSFORMS_SHEET}
    return pictures | paths.DATA_PICTURES | augmented


def predictions(answers: Answers) -> pd.DataFrame:
    """Columns id, label and a probability for each model; a row for each test photograph."""
    return pd.DataFrame({"id": answers.ids, "label": answers.labels, **answers.probabilities})


def _milliseconds(model: classifier.Classifier, test: shards.Shard) -> float:
    """Median time from a photograph's bytes to its probability, one at a time."""
    taken = []
    for index in range(min(_TIMED_ANSWERS, len(test))):
        started = time.perf_counter()
        model.probabilities(model.pixels(test.jpeg(index))[None])
        taken.append(1000 * (time.perf_counter() - started))
    return statistics.median(taken)
