"""What evaluate puts into MLflow: a comparison run, test metrics on the two training runs, registered versions."""

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from catdog.base import files, params, paths
from catdog.evaluation.served import Served
from catdog.photographs import shards
from catdog.pictures import sheets, style
from catdog.tracking import lineage, links, model_card, registry, runs, served_form, store, versions

TABLE = "predictions.json"  # as the UI shows tables
# Files of each model in plots/ that its training run gets.
_OF_A_MODEL = ("mistakes_{}.png", "confusion_{}.csv", "roc_{}.csv", "precision_recall_{}.csv", "reliability_{}.csv")
# Metrics of a model that have no interval.
_MEASURED = ("temperature", "milliseconds_per_photograph", "milliseconds_per_photograph_of_32", "relative_time")
_DOUBT = ("answered", "answered_accuracy", "unsure", "neither")


@store.answering("no model is registered by halves; put that right and run this again")
def publish(
    client: mlflow.MlflowClient,
    p: params.Params,
    *,
    models: dict[str, Served],
    metrics: dict,
    predictions: pd.DataFrame,
    pictures: dict[str, Path],
    test: shards.Shard,
) -> dict:
    """Log the comparison, attach the test metrics, register both models.

    Returns:
        The runs for the report: name to `run_id` and `link`.

    Raises:
        UserError: the store failed.
    """
    trained = {name: files.read_json(paths.model(name) / paths.RUN_FILE) for name in style.NAMES}
    execution = _execution(p, trained, test)
    with runs.comparison(client, p, inputs=[paths.TEST]) as comparison:
        mlflow.set_tag(links.EXECUTION + execution, "comparison")
        mlflow.log_metrics(_differences(metrics))
        _log_exactly(predictions)
        mlflow.log_table(readable(p, predictions, test), TABLE)
        for picture in pictures.values():
            if picture.exists():
                mlflow.log_artifact(str(picture), "plots")
        for file in (paths.EVALUATION, paths.FINDINGS, paths.DATA_METRICS, paths.MISTAKES, paths.SUSPECTS):
            if file.exists():
                mlflow.log_artifact(str(file))

        run_ids = {name: t["run_id"] for name, t in trained.items() if runs.is_here(client, t["run_id"])}
        for name, run_id in run_ids.items():
            card = model_card.markdown(
                p,
                name,
                models[name],
                evaluation=metrics,
                run_id=run_id,
                test_digest=test.digest,
                registered=versions.NAMES[name],
            )
            model_id, served_sha256 = served_form.log(
                client,
                run_id=run_id,
                name=versions.NAMES[name],
                keras_file=models[name].keras_file,
                answers=models[name].folder,
                settings=models[name].settings,
                card=card,
            )
            values = {f"test_{key}": metrics[name][key] for key in (*metrics[name]["intervals"], *_MEASURED)}
            values["test_photographs"] = metrics[name]["test_photographs"]
            values |= {f"test_doubt_{key}": metrics[name]["doubt"][key] for key in _DOUBT}
            dataset = ("test", files.md5(paths.TEST)[:8])
            runs.attach(client, run_id, values, model_id=model_id, execution=execution, dataset=dataset)
            _attach_files(client, name, run_id)
            engine = metrics[name]["agreement"]["engine"]
            tags = _tags(trained[name], test=test, comparison=comparison)
            tags |= {"served_sha256": served_sha256, "engine": engine}
            version = registry.register(
                client,
                name,
                model_id=model_id,
                run_id=run_id,
                tags=tags,
                metrics=_numbers(metrics[name]),
                description=model_card.description(card),
            )
            print(f"registered {versions.NAMES[name]} version {version}: accuracy {metrics[name]['accuracy']:.4f}")
        experiment = client.get_run(comparison).info.experiment_id
        addresses = {
            "Curves of the two trainings": links.curves(experiment, execution),
            "Params and metrics side by side": links.side_by_side(experiment, list(run_ids.values())),
        }
        mlflow.set_tag(MLFLOW_RUN_NOTE, _note(metrics, addresses if len(run_ids) > 1 else {}))
    run_ids["comparison"] = comparison
    return {name: {"run_id": run_id, "link": links.of_run(client, run_id)} for name, run_id in run_ids.items()}


def _attach_files(client: mlflow.MlflowClient, name: str, run_id: str) -> None:
    for pattern in _OF_A_MODEL:
        path = paths.PLOTS / pattern.format(name)
        if path.exists():
            runs.log_as(client, run_id, path, name=pattern.replace("_{}", ""))


def _tags(trained: dict, *, test: shards.Shard, comparison: str) -> dict[str, str]:
    return {
        "test_digest": test.digest,
        "evaluation_run_id": comparison,
        "source_kind": files.read_json(paths.DATA_METRICS)["source"]["kind"],
        "model_sha256": trained["model_sha256"],
        "data_digest": trained["digests"][paths.TRAIN.as_posix()],
        "git_commit": lineage.git().get("git.commit", ""),
    }


def _execution(p: params.Params, trained: dict, test: shards.Shard) -> str:
    """A short digest of the two trainings, the photographs and the params that make one comparison."""
    parts = [trained, test.digest, p.evaluate.model_dump()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]


def _numbers(metrics: dict) -> dict[str, float]:
    """The numbers among metrics, those within `doubt` and `agreement` too."""
    parts = ("doubt", "agreement")
    within = {f"{part}_{key}": value for part in parts for key, value in metrics.get(part, {}).items()}
    return {key: value for key, value in {**metrics, **within}.items() if isinstance(value, int | float)}


def _differences(metrics: dict) -> dict[str, float]:
    """The differences between the two models. The metrics of one model are on its training run."""
    difference = metrics["difference"]
    values = {f"difference.{key}": value for key, value in _numbers(difference).items()}
    for key in ("accuracy", "log_loss"):
        low, high = difference[key]["interval"]
        values |= {
            f"difference.{key}": difference[key]["difference"],
            f"difference.{key}.low": low,
            f"difference.{key}.high": high,
        }
    return values


def readable(p: params.Params, predictions: pd.DataFrame, test: shards.Shard) -> pd.DataFrame:
    """The predictions for a person: one row per test photograph, with the label and the probability of the second class
    that each model gives. First come the surest mistakes.
    """
    labels = predictions["label"].to_numpy()
    columns: dict[str, Any] = {
        "photograph": [sheets.tail(source) for source in test.sources],
        "label": _class_names(labels, p),
    }
    doubts, wrong = [], []
    for name in style.NAMES:
        probabilities = predictions[name].to_numpy()
        verdicts = probabilities >= p.evaluate.threshold
        columns[name] = _class_names(verdicts, p)
        columns[f"{name} probability"] = probabilities.round(4)
        doubts.append(abs(labels - probabilities))
        wrong.append(verdicts != labels)
    columns["right"] = [_right(both) for both in zip(*wrong, strict=True)]
    columns["id"] = predictions["id"]
    # The surest mistakes first, then the least sure right answers.
    order = np.lexsort([-np.max(doubts, axis=0), ~np.any(wrong, axis=0)])
    return pd.DataFrame(columns).iloc[order].reset_index(drop=True)


def _class_names(verdicts: np.ndarray, p: params.Params) -> list[str]:
    return [p.base.classes[int(verdict)] for verdict in verdicts]


def _right(wrong: tuple[bool, ...]) -> str:
    right = [name for name, is_wrong in zip(style.NAMES, wrong, strict=True) if not is_wrong]
    return "both" if len(right) == len(wrong) else ", ".join(right) or "none"


def _log_exactly(predictions: pd.DataFrame) -> None:
    """To the last bit, for the gates."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / registry.PREDICTIONS
        predictions.to_parquet(path, index=False, write_page_checksum=True)
        mlflow.log_artifact(str(path))


def _note(metrics: dict, links: dict[str, str]) -> str:
    # The UI folds a long note, so the links come before the words.
    difference = metrics["difference"]
    addresses = " · ".join(f"[{text}]({link})" for text, link in links.items())
    return "\n\n".join(part for part in (difference["headline"], addresses, difference["words"]) if part)
