"""Registered models: new versions, and a version fetched and checked against the registry's digests."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from catdog.answers.classifier import Classifier
from catdog.base.errors import UserError
from catdog.tracking import deployments, served_form, versions
from catdog.tracking.deployments import CHAMPION, SERVED
from catdog.tracking.versions import NAMES

PREDICTIONS = "predictions.parquet"  # artifact of an evaluation: columns id, label, and one per model


_CLASH = re.compile(r"IntegrityError|unique constraint|duplicate entry", re.IGNORECASE)  # as databases word it


def register(
    client: MlflowClient, model: str, *, model_id: str, run_id: str, tags: dict[str, str], metrics: dict[str, float]
) -> int:
    """The version of a logged model among the registered ones: a new one, or the one it has, with its tags renewed.

    Args:
        model: cnn or xception.
        tags: at least test_digest, evaluation_run_id, source_kind, model_sha256 and served_sha256,
            which the gates read.
        metrics: figures for a person; milliseconds_per_photograph, file_bytes and robustness are read by the gates too.

    Raises:
        UserError: the logged model is not in this store.
    """
    name, source = NAMES[model], f"models:/{model_id}"
    said = {**tags, **{key: str(value) for key, value in metrics.items()}, "run_id": run_id, "model": model}
    with alone(client):
        known = next((version for version in versions.of(client, name) if version.source == source), None)
        if known is None:
            try:
                return int(mlflow.register_model(source, name, tags=said).version)
            except MlflowException as error:
                raise UserError(f"{model_id} can't be registered as {name}: {_first_line(error)}") from None
        for key, value in said.items():
            if known.tags.get(key) != value:
                client.set_model_version_tag(name, known.version, key, value)
        return int(known.version)


def load(client: MlflowClient, reference: str) -> Classifier:
    """The classifier of a reference such as models:/catdog@champion, checked against the registry's digests.

    Raises:
        UserError: there is none, or it was changed.
    """
    found = _model(client, reference)
    return served_form.load(versions.uri(found), **versions.digests(found))


def fetch(client: MlflowClient, reference: str, folder: Path) -> Path:
    """A copy in `folder` of the logged model of a reference, checked likewise, and where it is.

    Raises:
        UserError: there is none, or it was changed.
    """
    found = _model(client, reference)
    return served_form.fetch(versions.uri(found), folder, **versions.digests(found))


def _model(client: MlflowClient, reference: str) -> ModelVersion:
    found = versions.resolve(client, reference)
    if isinstance(found, ModelVersion):
        return found
    raise UserError(f"{reference} is a run: name a model, such as models:/{SERVED}@{CHAMPION}")


@contextmanager
def alone(client: MlflowClient) -> Iterator[None]:
    """One change of the registry at a time on this machine; of two machines, the one that is told so tries again.

    MLflow refuses the second of two that set the same tag or alias for the first time at once.
    """
    with deployments.exclusive(client):
        try:
            yield
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS" and not _CLASH.search(str(error)):
                raise
            raise UserError(
                "somebody else changed the registry at this very moment: run the command again; a deployment that had "
                "begun is finished then"
            ) from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
