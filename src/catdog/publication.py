"""What evaluate puts into MLflow: a comparison run, test metrics on the two training runs, registered versions."""

import hashlib
import json
import tempfile
from pathlib import Path

import mlflow
import pandas as pd

from catdog import evaluation, files, lineage, params, paths, registry, shards, tracking


def publish(
    client: mlflow.MlflowClient,
    p: params.Params,
    *,
    found: dict,
    predictions: pd.DataFrame,
    pictures: dict[str, Path],
    test: shards.Shard,
) -> dict:
    """Log the comparison, attach the test metrics, register both models.

    Returns:
        The runs as the report links them: name to `run_id` and `link`.
    """
    data = files.read_json(paths.DATA_METRICS)
    trained = {name: files.read_json(paths.MODELS[name] / paths.RUN_FILE) for name in evaluation.NAMES}
    execution = _execution(p, trained, test)
    with tracking.comparison_run(client, data=data, inputs=[paths.TEST], knobs=_knobs(p)) as comparison:
        mlflow.set_tag(f"execution.{execution}", "comparison")
        mlflow.log_metrics(_flat(found))
        _log_table(predictions)
        for picture in pictures.values():
            if picture.exists():
                mlflow.log_artifact(str(picture), "plots")
        mlflow.log_artifact(str(paths.EVALUATION))
        mlflow.log_artifact(str(paths.DATA_METRICS))

        here = []
        for name in evaluation.NAMES:
            measured = (*found[name]["intervals"], "milliseconds_per_photograph")
            values = {f"test_{key}": found[name][key] for key in measured}
            dataset = ("test", lineage.md5(paths.TEST)[:8])
            if tracking.attach(client, trained[name], values, execution=execution, dataset=dataset):
                here.append(name)
                _register(client, name, trained[name], found[name], data=data, test=test, comparison=comparison)
        runs = {name: trained[name]["run_id"] for name in here}
        link = tracking.side_by_side(_experiment(client, comparison), list(runs.values()))
        tracking.note(client, comparison, _note(found, link if len(runs) > 1 else ""))
    runs["comparison"] = comparison
    return {name: {"run_id": run_id, "link": tracking.link(client, run_id)} for name, run_id in runs.items()}


def _register(
    client: mlflow.MlflowClient,
    name: str,
    trained: dict,
    found: dict,
    *,
    data: dict,
    test: shards.Shard,
    comparison: str,
) -> None:
    tags = {
        "test_digest": test.digest,
        "evaluation_run_id": comparison,
        "source_kind": data["source"]["kind"],
        "model_sha256": trained["model_sha256"],
        "data_digest": trained["digests"][paths.TRAIN.as_posix()],
        "git_commit": lineage.git().get("git.commit", ""),
    }
    version = registry.register(
        client, name, model_id=trained["model_id"], run_id=trained["run_id"], tags=tags, metrics=_numbers(found)
    )
    print(f"registered {registry.NAMES[name]} version {version}: accuracy {found['accuracy']:.4f}")


def _execution(p: params.Params, trained: dict, test: shards.Shard) -> str:
    """Names the two trainings, the photographs and the knobs that make one comparison."""
    parts = [trained, test.digest, p.evaluate.model_dump()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]


def _knobs(p: params.Params) -> dict[str, object]:
    return {
        f"{section}.{key}": value
        for section in ("base", "prepare", "evaluate")
        for key, value in getattr(p, section).model_dump().items()
    }


def _numbers(found: dict) -> dict[str, float]:
    return {key: value for key, value in found.items() if isinstance(value, int | float)}


def _flat(found: dict) -> dict[str, float]:
    figures = {f"{name}.{key}": value for name in evaluation.NAMES for key, value in _numbers(found[name]).items()}
    for name in evaluation.NAMES:
        for key, (low, high) in found[name]["intervals"].items():
            figures |= {f"{name}.{key}.low": low, f"{name}.{key}.high": high}
    return {
        **figures,
        "difference.accuracy": found["difference"]["accuracy"]["difference"],
        "difference.p_value": found["difference"]["p_value"],
    }


def _log_table(predictions: pd.DataFrame) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.parquet"
        predictions.to_parquet(path, index=False)
        mlflow.log_artifact(str(path))


def _experiment(client: mlflow.MlflowClient, run_id: str) -> str:
    return client.get_run(run_id).info.experiment_id


def _note(found: dict, link: str) -> str:
    lines = [found["difference"]["headline"], "", found["difference"]["words"]]
    return "\n".join([*lines, "", f"[The two trainings side by side]({link})"] if link else lines)
