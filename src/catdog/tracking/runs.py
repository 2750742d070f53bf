"""Runs in MLflow, of trainings and of comparisons."""

import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.entities import Metric, Param
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from catdog.base import files, params, paths
from catdog.pictures import style
from catdog.tracking import datasets, lineage, links, lost, patience, store

# As in the project's own plots. The UI picks at random, and may pick a colour twice.
_COLOURS = {**style.COLOURS, "comparison": style.GREY}
_START = "catdog.start"  # tag: by it a run is found whose id never came back
_TRAINING_IS_SAFE = (
    "what is trained is kept; put that right and run this again: it goes on after its last whole epoch, in the same run"
)


class TrainingRun:
    """An open run of a training stage: a new one, or one that goes on after a kill."""

    def __init__(self, client: mlflow.MlflowClient, run: mlflow.entities.Run) -> None:
        self._client = client
        self._run = run
        logged = client.get_metric_history(run.info.run_id, "val_loss")
        self._last_step = max((metric.step for metric in logged), default=0)

    @property
    def ids(self) -> dict[str, str]:
        """`run_id` and `experiment_id`."""
        return {"run_id": self._run.info.run_id, "experiment_id": self._run.info.experiment_id}

    def epoch(self, row: dict[str, float]) -> None:
        """Log a row of the history at step `epoch`, unless it was logged before a kill."""
        step = int(row["epoch"])
        if step <= self._last_step:
            return
        now = int(pd.Timestamp.now().timestamp() * 1000)
        metrics = [Metric(key, float(value), now, step) for key, value in row.items() if key != "epoch"]
        self._client.log_batch(self._run.info.run_id, metrics=metrics)
        self._last_step = step

    def tags(self, values: dict[str, str]) -> None:
        mlflow.set_tags(values)

    def log(self, metrics: dict[str, float | str], *, history: Path) -> None:
        """Log the results of a training: numbers as metrics, words as tags, unless they were logged before a kill."""
        # `val_...` were logged with each epoch.
        results = {"train_seconds" if k == "seconds" else k: v for k, v in metrics.items() if not k.startswith("val_")}
        numbers = {
            k: float(v) for k, v in results.items() if not isinstance(v, str) and k not in self._run.data.metrics
        }
        mlflow.log_metrics(numbers)
        mlflow.set_tags({k: v for k, v in results.items() if isinstance(v, str)})
        log_as(self._client, self._run.info.run_id, history, name="history.csv")


class _UntoldRun(TrainingRun):
    """Of a host that leaves it to the first one to tell MLflow."""

    def __init__(self) -> None:
        pass

    @property
    def ids(self) -> dict[str, str]:
        return {}

    def epoch(self, row: dict[str, float]) -> None:
        pass

    def tags(self, values: dict[str, str]) -> None:
        pass

    def log(self, metrics: dict[str, float | str], *, history: Path) -> None:
        pass


@contextmanager
def training(
    client: mlflow.MlflowClient | None, p: params.Params, name: str, *, inputs: list[Path], fingerprint: str
) -> Iterator[TrainingRun]:
    """Open the run of a training: a new one, or the unfinished one that has this `fingerprint`.

    The run's id is kept beside the checkpoints until the training is done. An unfinished run with another fingerprint
    is ended as killed. A run that a failing store cut off stays as it is, to be gone on with.

    Args:
        client: None gives a run that is told to nobody.
        inputs: shards that the training reads; their md5 becomes a tag, their photographs a dataset.
        fingerprint: what the training depends on.

    Raises:
        UserError: the store failed.
    """
    if client is None:
        yield _UntoldRun()
        return
    with store.answering(_TRAINING_IS_SAFE):
        parent = _parent(client)
        note = paths.open_run(name)
        last = _read_note(note)
        run_id = _noted(client, last)
        if last.get("fingerprint") != fingerprint:
            _end_killed(client, run_id)
            run_id = ""
        if not store.exists(client, run_id):
            run_id = _begin(client, name, parent=parent, inputs=inputs, fingerprint=fingerprint)
        # The stage's own params have no section, so those of the two models line up in the UI.
        shared = p.model_dump(include={"base", "prepare", "augment"})
        _log_params(client, run_id, {**getattr(p, f"train_{name}").model_dump(), **_flat(shared)})
        # MLflow records memory and load for the active run only.
        with mlflow.start_run(run_id=run_id, log_system_metrics=True) as run:
            datasets.log(inputs)
            yield TrainingRun(client, run)
        note.unlink()


@contextmanager
def comparison(client: mlflow.MlflowClient, p: params.Params, *, inputs: list[Path]) -> Iterator[str]:
    """Open the run of an evaluation and give its id. An unfinished one before it is ended as killed."""
    note = paths.open_run("comparison")
    _end_killed(client, _noted(client, _read_note(note)))
    run_id = _begin(client, "comparison", parent=_parent(client), inputs=inputs)
    _log_params(client, run_id, _flat(p.model_dump(include={"base", "prepare", "evaluate"})))
    with mlflow.start_run(run_id=run_id):
        datasets.log(inputs)
        yield run_id
    note.unlink()


def is_here(client: mlflow.MlflowClient, run_id: str) -> bool:
    """Whether the run is in this store, with a warning if not: a model may come from a machine with another store."""
    if store.exists(client, run_id):
        return True
    where = store.without_secret(store.uri())
    warning = f"warning: run {run_id} is not in {where}: its test metrics are not attached; {lost.remedy(where)}"
    print(warning, file=sys.stderr)
    return False


def attach(
    client: mlflow.MlflowClient,
    run_id: str,
    values: dict[str, float],
    *,
    model_id: str,
    execution: str,
    dataset: tuple[str, str],
) -> None:
    """Attach test metrics to a finished training run and to its logged model, without reopening the run.

    A value that the model has already is left out, so a repeated evaluation adds no second point. Of a time, which is
    never the same twice, the first that was measured stays.

    Args:
        dataset: name and digest of what `values` were measured on.
    """
    name, digest = dataset
    logged = client.get_logged_model(model_id).metrics or []
    attached = {(metric.key, metric.value) for metric in logged if metric.dataset_digest == digest}
    measured = {key for key, _ in attached}
    for key, value in values.items():
        is_time = "seconds" in key or "relative_time" in key
        known = key in measured if is_time else (key, value) in attached
        if not known:
            client.log_metric(run_id, key, value, model_id=model_id, dataset_name=name, dataset_digest=digest)
    client.set_tag(run_id, links.EXECUTION + execution, "member")


def log_as(client: mlflow.MlflowClient, run_id: str, path: Path, *, name: str) -> None:
    """Log the file at `path` as the artifact plots/`name`. The UI shows equal names of two runs together."""
    with tempfile.TemporaryDirectory() as folder:
        client.log_artifact(run_id, str(shutil.copyfile(path, Path(folder) / name)), "plots")


def _flat(nested: dict[str, Any]) -> dict[str, object]:
    """The same values in one level, under keys such as `augment.blur.probability`."""
    [row] = pd.json_normalize(nested).to_dict("records")
    return {str(key): value for key, value in row.items()}


def _begin(
    client: mlflow.MlflowClient, name: str, *, parent: mlflow.entities.Run | None, inputs: list[Path], **noted: str
) -> str:
    """Create a run, with a note of it first, so that one is found again that a kill or an outage cut off."""
    note = paths.open_run(name)
    data = files.read_json(paths.DATA_METRICS)
    experiment = parent.info.experiment_id if parent else store.experiment(client, data)
    noted |= {_START: uuid.uuid4().hex, "experiment_id": experiment}
    files.write_json(note, noted)
    source = {f"source.{key}": str(value) for key, value in data["source"].items() if value is not None}
    corrections = {f"corrections.{key}": str(value) for key, value in data.get("corrections", {}).items()}
    tags = {**lineage.tags(inputs), **source, **corrections, "model": name, "mlflow.runColor": _COLOURS[name]}
    if parent:
        tags[MLFLOW_PARENT_RUN_ID] = parent.info.run_id
    run_id = _create_run(client, name, noted, tags)
    files.write_json(note, {**noted, "run_id": run_id})
    return run_id


@patience.again
def _create_run(client: mlflow.MlflowClient, name: str, noted: dict[str, str], tags: dict[str, str]) -> str:
    start = {_START: noted[_START]}
    return (
        _noted(client, noted)
        or client.create_run(noted["experiment_id"], run_name=name, tags={**tags, **start}).info.run_id
    )


def _noted(client: mlflow.MlflowClient, noted: dict[str, str]) -> str:
    """The id of the run of a note, or nothing where there is none."""
    if _START not in noted or "run_id" in noted:
        return noted.get("run_id", "")
    found = client.search_runs([noted["experiment_id"]], f"tags.`{_START}` = '{noted[_START]}'", max_results=1)
    return found[0].info.run_id if found else ""


def _log_params(client: mlflow.MlflowClient, run_id: str, values: dict[str, object]) -> None:
    # MLflow refuses to change a param, and one that no result depends on may have changed since a kill.
    logged = client.get_run(run_id).data.params
    client.log_batch(run_id, params=[Param(k, str(v)) for k, v in values.items() if k not in logged])


def _read_note(note: Path) -> dict[str, str]:
    try:
        return files.read_json(note)
    except (OSError, ValueError):  # none, or a damaged one
        return {}


def _end_killed(client: mlflow.MlflowClient, run_id: str) -> None:
    if store.exists(client, run_id) and client.get_run(run_id).info.status == "RUNNING":
        client.set_terminated(run_id, status="KILLED")


def _parent(client: mlflow.MlflowClient) -> mlflow.entities.Run | None:
    # `mlflow run` sets this variable to its own run. Left there, every stage would write into that run.
    run_id = os.environ.pop("MLFLOW_RUN_ID", "")
    return client.get_run(run_id) if store.exists(client, run_id) else None
