"""The MLflow store: where it is, whether it answers, and what to say when it does not."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import mlflow
import requests
import sqlalchemy
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from catdog.base import paths
from catdog.base.errors import UserError, first_line

EXPERIMENT = "catdog"
# Metrics of drawings never stand beside those of photographs, so they have an experiment of their own.
EXPERIMENT_OF_DRAWINGS = "catdog-drawn"
_KIND = {"mlflow.experimentKind": "custom_model_development"}  # else the UI opens on its pages for language models
_SECONDS_TO_ANSWER = 10


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
        UserError: it does not; raised within seconds, before anything is trained.
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
        shown = without_secret(address)
        if server:
            raise UserError(
                f"the MLflow server at {shown} does not answer ({type(error).__name__}): "
                "start it, or unset MLFLOW_TRACKING_URI to track in mlflow.db"
            ) from None
        reason = first_line(error).replace(address, shown)
        raise UserError(f"the MLflow store {shown} can't be used: {reason}") from None
    return client


@contextmanager
def answering() -> Iterator[None]:
    """Turn the errors of a store that stops answering in the middle of a command into one line.

    Raises:
        UserError: it stopped answering. What the store itself refuses passes through: that is a bug here.
    """
    try:
        yield
    except (requests.RequestException, SQLAlchemyError, MlflowException) as error:
        # MLflow wraps network errors, and a server that dies in the middle of an answer raises several kinds.
        network = [cause for cause in _causes(error) if isinstance(cause, requests.RequestException | OSError)]
        if isinstance(error, MlflowException) and not network:
            raise
        what = type(network[-1] if network else error).__name__
        raise UserError(
            f"the MLflow store {without_secret(uri())} stopped answering ({what}): when it is back, "
            "run the command again; a deployment that had begun is finished then"
        ) from None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def find_run(client: mlflow.MlflowClient, run_id: str) -> mlflow.entities.Run | None:
    """The run, deleted ones too, or None where the store has none."""
    try:
        return client.get_run(run_id) if run_id else None
    except MlflowException:
        return None


def exists(client: mlflow.MlflowClient, run_id: str) -> bool:
    """Whether the store has the run, and not as a deleted one."""
    run = find_run(client, run_id)
    return run is not None and run.info.lifecycle_stage == "active"


def experiment(client: mlflow.MlflowClient, data: dict) -> str:
    """The id of the experiment for runs on these photographs; created if it does not exist.

    Args:
        data: metrics/data.json.
    """
    name = EXPERIMENT_OF_DRAWINGS if data["source"]["kind"] == "drawn" else EXPERIMENT
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", name)
    existing = client.get_experiment_by_name(name)
    if existing and existing.lifecycle_stage == "deleted":
        raise UserError(f"the MLflow experiment {name} is deleted: restore it with `mlflow experiments restore`")
    if existing:
        return existing.experiment_id
    # In a local store, the full path: else MLflow would put the files into the current folder.
    folder = None if os.environ.get("MLFLOW_TRACKING_URI") else str((paths.original() / "mlruns" / name).resolve())
    try:
        return client.create_experiment(name, artifact_location=folder, tags=_KIND)
    except MlflowException:  # another training made it at the same moment
        if existing := client.get_experiment_by_name(name):
            return existing.experiment_id
        raise


def without_secret(address: str) -> str:
    """An address without user name and password, as it may be shown."""
    scheme, _, rest = address.rpartition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if scheme else address
