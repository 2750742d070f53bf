"""The MLflow store: where it is, whether it answers, and what to say when it does not."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import mlflow
import requests
import sqlalchemy
from google.protobuf.json_format import ParseError  # type: ignore[import-untyped]
from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from sqlalchemy.exc import (
    DatabaseError,
    DataError,
    IntegrityError,
    InterfaceError,
    NotSupportedError,
    ProgrammingError,
    SQLAlchemyError,
)

from catdog.base import paths
from catdog.base.errors import UserError, causes, first_line
from catdog.tracking import local_store, patience
from catdog.tracking.address import uri, without_secret

EXPERIMENT = "catdog"
# Metrics of drawings never stand beside those of photographs, so they have an experiment of their own.
EXPERIMENT_OF_DRAWINGS = "catdog-drawn"
_KIND = {"mlflow.experimentKind": "custom_model_development"}  # else the UI opens on its pages for language models
_SECONDS_TO_ANSWER = 10
_OURS = (DataError, IntegrityError, NotSupportedError, ProgrammingError)  # errors of a database in good health
_SAFE = "once it answers, run the command again; a deployment that had begun is finished then"
_NETWORK = (requests.RequestException, ParseError, ConnectionError, TimeoutError)
_NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # the second for what is no run id


def connect() -> mlflow.MlflowClient:
    """A client of the tracking store, after making sure that it answers.

    Raises:
        UserError: it does not; raised within seconds, before anything is trained.
    """
    os.environ.setdefault("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "5")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # What MLflow logs there, with tracebacks, it raises as well, or it concerns the record of memory and load alone.
    for name in ("mlflow.system_metrics", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    patience.install()
    address = uri()
    mlflow.set_tracking_uri(address)
    server = address.startswith(("http://", "https://"))
    try:
        # Before anything is trained there is no need to wait for long.
        with patience.at_most(_SECONDS_TO_ANSWER):
            healthy = True
            if server:
                answer = _health(address)
                if answer.status_code >= 500:
                    answer.raise_for_status()
                healthy = answer.text.strip() == "OK"
            elif address.startswith(("postgresql", "mysql")):
                seconds = {"connect_timeout": _SECONDS_TO_ANSWER}
                sqlalchemy.create_engine(address, connect_args=seconds).connect().close()
            local_store.make(address)
            client = mlflow.MlflowClient()
            if not client.search_experiments(max_results=1) and not healthy:
                raise requests.ConnectionError("another kind of server")
    except (requests.RequestException, MlflowException, SQLAlchemyError, ImportError, ParseError) as error:
        shown, lost = without_secret(address), patience.outage()
        if isinstance(lost, patience.RefusalError):
            problem = str(lost)
        elif isinstance(error, requests.exceptions.SSLError):
            problem = (
                f"the certificate of the MLflow server at {shown} is not trusted here: for one of an authority of "
                "your own, MLFLOW_TRACKING_SERVER_CERT_PATH names the file of that authority's certificate"
            )
        elif server:
            problem = (
                f"the MLflow server at {shown} does not answer ({lost.what if lost else type(error).__name__}): "
                "start it, or unset MLFLOW_TRACKING_URI to track in mlflow.db"
            )
        else:
            problem = f"the MLflow store {shown} can't be used: {first_line(error).replace(address, shown)}"
    else:
        return client
    patience.install()  # what is told here is no outage in the middle of something
    raise UserError(problem)


def _health(address: str) -> requests.Response:
    # With the certificates that MLflow itself goes by.
    credentials = get_default_host_creds(address)
    return requests.get(
        f"{address.rstrip('/')}/health",
        timeout=_SECONDS_TO_ANSWER,
        verify=credentials.verify,
        cert=credentials.client_cert_path,
    )


@contextmanager
def answering(safe: str = "") -> Iterator[None]:
    """Turn the errors of a store that fails in the middle of something into one line.

    Args:
        safe: what is safe, and what to do. Default: what holds for a deployment.

    Raises:
        UserError: the store failed, or the user may not do this. Other errors pass through: those are bugs here.
    """
    try:
        yield
    except Exception as error:
        if what := failure(error):
            refused = isinstance(patience.outage(), patience.RefusalError)
            rest = safe or ("" if refused else _SAFE)
            raise UserError(f"{what}: {rest}" if rest else what) from None
        raise


def failure(error: Exception) -> str:
    """What the store did, in words, where it is the store that failed; else nothing."""
    if lost := patience.outage():  # whatever followed from it
        return str(lost)
    found = list(causes(error))
    for cause in found:
        if isinstance(cause, DatabaseError | InterfaceError) and not isinstance(cause, _OURS):
            return f"the MLflow store {without_secret(uri())} can't be used ({first_line(cause.orig or cause)})"
    network = [cause for cause in found if isinstance(cause, _NETWORK)]
    if network and isinstance(error, requests.RequestException | ParseError | MlflowException):
        return f"the MLflow store {without_secret(uri())} stopped answering ({type(network[-1]).__name__})"
    return ""


def find_run(client: mlflow.MlflowClient, run_id: str) -> mlflow.entities.Run | None:
    """The run, deleted ones too, or None where the store has none."""
    try:
        return client.get_run(run_id) if run_id else None
    except MlflowException as error:
        if error.error_code not in _NOT_THERE:  # a store that fails is no store without the run
            raise
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
    return named_experiment(client, os.environ.get("MLFLOW_EXPERIMENT_NAME", name))


def named_experiment(client: mlflow.MlflowClient, name: str) -> str:
    """The id of the experiment of this name; created if it does not exist."""
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
