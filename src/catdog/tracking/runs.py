"""Runs, metrics, figures and datasets in MLflow. Maths, images and models know nothing of it."""

import json
import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import mlflow
import pandas as pd
import requests
import sqlalchemy
from mlflow.data.pandas_dataset import from_pandas
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE
from sqlalchemy.exc import SQLAlchemyError

from catdog.base import files, paths
from catdog.base.errors import UserError
from catdog.photographs import shards
from catdog.tracking import lineage

Client = mlflow.MlflowClient
EXPERIMENT = "catdog"
# Figures of drawings never stand beside figures of photographs, so they have an experiment of their own.
EXPERIMENT_OF_DRAWINGS = "catdog-drawn"
LOCAL_UI = "http://127.0.0.1:5000"
_SECONDS_TO_ANSWER = 10
EXECUTION = "execution."  # and its name: tag of the runs that make one comparison
# The same as in the project's own plots; the UI would pick them by chance, and may pick one twice.
_COLOURS = {"cnn": "#D55E00", "xception": "#0072B2", "comparison": "#57606a"}


def uri() -> str:
    """Where runs are tracked: MLFLOW_TRACKING_URI, else mlflow.db in the project's root.

    Raises:
        UserError: there is neither. A new, empty mlflow.db elsewhere would look as if all runs were lost.
    """
    if address := os.environ.get("MLFLOW_TRACKING_URI"):
        return address
    root = paths.original()
    if not (root / "dvc.yaml").exists():
        raise UserError(f"no dvc.yaml in {root} or above: run from the project's folder, or set MLFLOW_TRACKING_URI")
    return f"sqlite:///{(root / 'mlflow.db').resolve()}"


def connect() -> mlflow.MlflowClient:
    """A client of the tracking store, after making sure that it answers.

    Raises:
        UserError: it does not. Said within seconds, before anything is trained.
    """
    os.environ.setdefault("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "5")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    logging.getLogger("mlflow.system_metrics").setLevel(logging.WARNING)
    address = uri()
    mlflow.set_tracking_uri(address)
    server = address.startswith(("http://", "https://"))
    try:
        # MLflow itself would try for minutes.
        if server:
            answer = requests.get(f"{address.rstrip('/')}/health", timeout=_SECONDS_TO_ANSWER)
            if answer.status_code >= 500:
                answer.raise_for_status()
        elif address.startswith(("postgresql", "mysql")):
            sqlalchemy.create_engine(address, connect_args={"connect_timeout": _SECONDS_TO_ANSWER}).connect().close()
        client = mlflow.MlflowClient()
        client.search_experiments(max_results=1)
    except (requests.RequestException, MlflowException, SQLAlchemyError, ImportError) as error:
        known = _without_secret(address)
        if server:
            raise UserError(
                f"the MLflow server at {known} does not answer ({type(error).__name__}): "
                "start it, or unset MLFLOW_TRACKING_URI to track in mlflow.db"
            ) from None
        reason = (str(error).splitlines() or [type(error).__name__])[0].replace(address, known)
        raise UserError(f"the MLflow store {known} can't be used: {reason}") from None
    return client


@contextmanager
def answering() -> Iterator[None]:
    """Tell in one line of a store that stops answering in the middle of a command.

    Raises:
        UserError: it did. What the store itself refuses passes through: that would be an error of ours.
    """
    try:
        yield
    except (requests.RequestException, SQLAlchemyError, MlflowException) as error:
        # MLflow wraps what the network raised; a server that dies in the middle of an answer raises much.
        network = [each for each in _causes(error) if isinstance(each, requests.RequestException | OSError)]
        if isinstance(error, MlflowException) and not network:
            raise
        what = type(network[-1] if network else error).__name__
        raise UserError(
            f"the MLflow store {_without_secret(uri())} stopped answering ({what}): when it is back, "
            "run the command again; a deployment that had begun is finished then"
        ) from None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


class TrainingRun:
    """An open run of a training stage: a new one, or one that goes on after a kill and keeps what it has."""

    def __init__(self, client: mlflow.MlflowClient, run: mlflow.entities.Run) -> None:
        self._client = client
        self.run_id: str = run.info.run_id
        self.experiment_id: str = run.info.experiment_id
        logged = client.get_metric_history(self.run_id, "val_loss")
        self._last_step = max((metric.step for metric in logged), default=0)
        self._figures = set(run.data.metrics)

    def epoch(self, row: dict[str, float]) -> None:
        """Log one row of the history at step `epoch`, unless it is there already from before a kill."""
        step = int(row["epoch"])
        if step <= self._last_step:
            return
        now = int(pd.Timestamp.now().timestamp() * 1000)
        metrics = [Metric(key, float(value), now, step) for key, value in row.items() if key != "epoch"]
        self._client.log_batch(self.run_id, metrics=metrics)
        self._last_step = step

    def figures(self, values: dict[str, float]) -> None:
        """Log figures of the whole training, unless they are there already from before a kill."""
        mlflow.log_metrics({k: float(v) for k, v in values.items() if k not in self._figures})

    def tags(self, values: dict[str, str]) -> None:
        mlflow.set_tags(values)

    def artifact(self, path: Path, *, name: str) -> None:
        log_as(self._client, self.run_id, path, name=name)


@contextmanager
def training_run(
    client: mlflow.MlflowClient,
    name: str,
    *,
    fingerprint: str,
    knobs: dict,
    inputs: list[Path],
    data: dict,
) -> Iterator[TrainingRun]:
    """Open the run of a training: a new one, or that of one with this `fingerprint` that did not come to its end.

    The run's id is kept beside the checkpoints from the moment that there is a run until the training is done. A run
    that was killed with another fingerprint is never gone on with, so it is ended as such.

    Args:
        fingerprint: what the training depends on.
        knobs: params to log, flat.
        inputs: shards that the training reads; their md5 becomes a tag, their photographs a dataset.
        data: metrics/data.json, for the source.
    """
    parent = _parent(client)
    note = paths.open_run(name)
    known = _read_note(note)
    run_id = known.get("run_id", "")
    if known.get("fingerprint") != fingerprint:
        _end_killed(client, run_id)
        run_id = ""
    if not _exists(client, run_id):
        run_id = _create_run(client, name, parent=parent, inputs=inputs, data=data)
        files.write_json(note, {"fingerprint": fingerprint, "run_id": run_id})
    _log_knobs(client, run_id, knobs)
    # The autologger of system metrics needs the fluent API's notion of an active run.
    with mlflow.start_run(run_id=run_id, log_system_metrics=True) as run:
        _forget_models(client, run)
        _log_inputs(inputs)
        yield TrainingRun(client, run)
    note.unlink()


@contextmanager
def comparison_run(client: mlflow.MlflowClient, *, data: dict, inputs: list[Path], knobs: dict) -> Iterator[str]:
    """Open the run of an evaluation and give its id."""
    run_id = _create_run(client, "comparison", parent=_parent(client), inputs=inputs, data=data)
    _log_knobs(client, run_id, knobs)
    with mlflow.start_run(run_id=run_id):
        _log_inputs(inputs)
        yield run_id


def attach(
    client: mlflow.MlflowClient,
    trained: dict,
    values: dict[str, float],
    *,
    execution: str,
    dataset: tuple[str, str],
) -> bool:
    """Attach test metrics to a finished training run and its logged model, without reopening it.

    A value that is there already is not attached twice, so an evaluation that is repeated leaves one point.

    Args:
        trained: run.json of the training.
        dataset: name and digest of what `values` were measured on.

    Returns:
        Whether the run is in this store; models may have been pulled from a machine that has another.
    """
    if not _exists(client, trained["run_id"]):
        print(
            f"warning: run {trained['run_id']} is not in {_without_secret(uri())}: its metrics are not attached",
            file=sys.stderr,
        )
        return False
    run = client.get_run(trained["run_id"])
    name, digest = dataset
    known = run.data.metrics if run.data.tags.get("test_digest") == digest else {}
    for key, value in values.items():
        if known.get(key) != value:
            client.log_metric(
                run.info.run_id, key, value, model_id=trained["model_id"], dataset_name=name, dataset_digest=digest
            )
    client.set_tag(run.info.run_id, "test_digest", digest)
    client.set_tag(run.info.run_id, EXECUTION + execution, "member")
    return True


def log_as(client: mlflow.MlflowClient, run_id: str, path: Path, *, name: str) -> None:
    """Log the file at `path` as the artifact plots/`name`, by which the UI shows those of two runs together."""
    with tempfile.TemporaryDirectory() as folder:
        client.log_artifact(run_id, str(shutil.copyfile(path, Path(folder) / name)), "plots")


def find_run(client: mlflow.MlflowClient, run_id: str) -> mlflow.entities.Run | None:
    """The run, deleted ones too, or None where the store has none."""
    try:
        return client.get_run(run_id) if run_id else None
    except MlflowException:
        return None


def curves(experiment_id: str, execution: str, *, ui: str | None = None) -> str:
    """The address of the UI's charts of the trainings of one execution, both models on common axes."""
    members = quote(f"tags.`{EXECUTION}{execution}` = 'member'")
    return f"{ui or _ui()}/#/experiments/{experiment_id}/runs?searchFilter={members}&compareRunsMode=CHART"


def latest_curves(client: mlflow.MlflowClient, *, ui: str) -> str | None:
    """The address of the charts of the last comparison in the UI at `ui`, if there was one."""
    experiments = [found.experiment_id for found in client.search_experiments()]
    runs = client.search_runs(experiments, "tags.model = 'comparison'", order_by=["start_time DESC"], max_results=1)
    for run in runs:
        for tag in run.data.tags:
            if tag.startswith(EXECUTION):
                return curves(run.info.experiment_id, tag.removeprefix(EXECUTION), ui=ui)
    return None


def side_by_side(experiment_id: str, run_ids: list[str]) -> str:
    """The address of the UI's comparison of `run_ids`."""
    runs, experiments = quote(json.dumps(run_ids)), quote(json.dumps([experiment_id]))
    return f"{_ui()}/#/compare-runs?runs={runs}&experiments={experiments}"


def link(client: mlflow.MlflowClient, run_id: str) -> str:
    """The address of a run's page in the UI."""
    return f"{_ui()}/#/experiments/{client.get_run(run_id).info.experiment_id}/runs/{run_id}"


def _ui() -> str:
    address = uri()
    return _without_secret(address.rstrip("/")) if address.startswith("http") else LOCAL_UI


def note(client: mlflow.MlflowClient, run_id: str, text: str) -> None:
    """Write the run's note, which the UI shows as Markdown."""
    client.set_tag(run_id, MLFLOW_RUN_NOTE, text)


def _create_run(
    client: mlflow.MlflowClient,
    name: str,
    *,
    parent: mlflow.entities.Run | None,
    inputs: list[Path],
    data: dict,
) -> str:
    tags = {**lineage.tags(inputs), **_source_tags(data), "model": name, "mlflow.runColor": _COLOURS[name]}
    if parent:
        tags[MLFLOW_PARENT_RUN_ID] = parent.info.run_id
    experiment = parent.info.experiment_id if parent else _experiment(client, data)
    return client.create_run(experiment, run_name=name, tags=tags).info.run_id


def _log_knobs(client: mlflow.MlflowClient, run_id: str, knobs: dict) -> None:
    # MLflow refuses another value for a param, and one that a result does not depend on may have changed since a kill.
    known = client.get_run(run_id).data.params
    client.log_batch(run_id, params=[Param(k, str(v)) for k, v in knobs.items() if k not in known])


def _read_note(note: Path) -> dict[str, str]:
    try:
        return files.read_json(note)
    except (OSError, ValueError):  # none, or a damaged one
        return {}


def _end_killed(client: mlflow.MlflowClient, run_id: str) -> None:
    if _exists(client, run_id) and client.get_run(run_id).info.status == "RUNNING":
        client.set_terminated(run_id, status="KILLED")


def _forget_models(client: mlflow.MlflowClient, run: mlflow.entities.Run) -> None:
    # A kill came between logging a model and leaving it: it is logged again, and the first one belongs to nothing.
    for model in client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'"):
        client.delete_logged_model(model.model_id)


def _parent(client: mlflow.MlflowClient) -> mlflow.entities.Run | None:
    # `mlflow run` hands its own run to the stages by this variable. Left there, every stage would write into that run.
    run_id = os.environ.pop("MLFLOW_RUN_ID", "")
    return client.get_run(run_id) if _exists(client, run_id) else None


def _exists(client: mlflow.MlflowClient, run_id: str) -> bool:
    run = find_run(client, run_id)
    return run is not None and run.info.lifecycle_stage == "active"


def _experiment(client: mlflow.MlflowClient, data: dict) -> str:
    name = EXPERIMENT_OF_DRAWINGS if data["source"]["kind"] == "drawn" else EXPERIMENT
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", name)
    found = client.get_experiment_by_name(name)
    if found and found.lifecycle_stage == "deleted":
        raise UserError(f"the MLflow experiment {name} is deleted: restore it with `mlflow experiments restore`")
    if found:
        return found.experiment_id
    # Where the project is the store, by its full path: MLflow would put the files wherever it is asked from.
    ours = None if os.environ.get("MLFLOW_TRACKING_URI") else str((paths.original() / "mlruns" / name).resolve())
    try:
        return client.create_experiment(name, artifact_location=ours)
    except MlflowException:  # another training made it at the same moment
        if found := client.get_experiment_by_name(name):
            return found.experiment_id
        raise


def _source_tags(data: dict) -> dict[str, str]:
    source = data["source"]
    return {f"source.{k}": str(v) for k, v in source.items() if v is not None}


def _log_inputs(inputs: list[Path]) -> None:
    for path in inputs:
        mlflow.log_input(_dataset(path), context=_context(path))


def _dataset(path: Path) -> mlflow.data.dataset.Dataset:
    shard = shards.Shard(path)
    # Labels as text: MLflow would warn of integers that can't be missing.
    table = pd.DataFrame({"id": shard.ids, "source": shard.sources, "label": shard.labels.astype(str)})
    with warnings.catch_warnings():
        # A path can be read as a source in two ways, it says, and they are the same.
        warnings.filterwarnings("ignore", message="The specified dataset source can be interpreted in multiple ways")
        return from_pandas(table, source=str(path), name=_context(path), digest=lineage.md5(path)[:8])


def _context(path: Path) -> str:
    """`train`, `val` or `test`; variants are `augmented`."""
    return path.parent.name if path.parent == paths.AUGMENTED else path.stem


def _without_secret(address: str) -> str:
    scheme, _, rest = address.rpartition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if scheme else address
