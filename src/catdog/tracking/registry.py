"""Registered models: new versions, and a version fetched and checked against the registry's digests."""

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from catdog.answers.classifier import Classifier
from catdog.base.errors import UserError, first_line
from catdog.tracking import deployments, patience, served_form, versions
from catdog.tracking.deployments import CHAMPION, SERVED
from catdog.tracking.versions import NAMES

PREDICTIONS = "predictions.parquet"  # artifact of an evaluation: columns id, label, and one per model
_CLASH = re.compile(r"IntegrityError|unique constraint|duplicate entry", re.IGNORECASE)  # as databases word it


@patience.again
def register(
    client: MlflowClient,
    model: str,
    *,
    model_id: str,
    run_id: str,
    tags: dict[str, str],
    metrics: dict[str, float],
    description: str,
) -> int:
    """Register a logged model and return its version. One that is registered already only gets the new tags.

    Args:
        model: cnn or xception.
        tags: the gates read test_digest, evaluation_run_id, source_kind, model_sha256 and served_sha256.
        metrics: for a person; the gates read relative_time, file_bytes and robustness.
        description: Markdown, as the UI shows it.

    Raises:
        UserError: the logged model is not in this store.
    """
    name, source = NAMES[model], f"models:/{model_id}"
    all_tags = {**tags, **{key: str(value) for key, value in metrics.items()}, "run_id": run_id, "model": model}
    with alone(client):
        registered = next((version for version in versions.of(client, name) if version.source == source), None)
        if registered is None:
            try:
                registered = mlflow.register_model(source, name, tags=all_tags)
            except MlflowException as error:
                raise UserError(f"{model_id} can't be registered as {name}: {first_line(error)}") from None
        if registered.description != description:
            client.update_model_version(name, registered.version, description)
        for key, value in all_tags.items():
            if registered.tags.get(key) != value:
                client.set_model_version_tag(name, registered.version, key, value)
        return int(registered.version)


def load(client: MlflowClient, reference: str, *, unverified: bool = False) -> Classifier:
    """The classifier of a reference such as models:/catdog@champion, checked against the registry's digests.

    Args:
        unverified: open it, with a warning, even if catdog did not register it, so that there is nothing to check.

    Raises:
        UserError: there is none, catdog did not register it, or it was changed.
    """
    version = _version(client, reference)
    return served_form.load(versions.uri(version), **_digests(version, unverified=unverified))


def fetch(client: MlflowClient, reference: str, folder: Path, *, unverified: bool = False) -> Path:
    """Copy the logged model of a reference into `folder`, check it like `load`, and return the path of the copy."""
    version = _version(client, reference)
    return served_form.fetch(versions.uri(version), folder, **_digests(version, unverified=unverified))


def _digests(version: ModelVersion, *, unverified: bool) -> Mapping[str, str | None]:
    if not unverified or versions.is_ours(version):
        return versions.digests(version)
    print(f"warning: {versions.name(version)} was not registered by catdog: it is used unverified", file=sys.stderr)
    return dict.fromkeys(versions.DIGESTS)


def _version(client: MlflowClient, reference: str) -> ModelVersion:
    version = versions.resolve(client, reference)
    if isinstance(version, ModelVersion):
        return version
    raise UserError(f"{reference} is a run: name a model, such as models:/{SERVED}@{CHAMPION}")


@contextmanager
def alone(client: MlflowClient) -> Iterator[None]:
    """Hold the registry for one change. Other commands on this machine wait.

    Raises:
        UserError: another machine set the same new tag or alias at the same moment, so MLflow refused this one.
    """
    with deployments.exclusive(client.tracking_uri):
        try:
            yield
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS" and not _CLASH.search(str(error)):
                raise
            raise UserError(
                "somebody else changed the registry at this very moment: run the command again; a deployment that had "
                "begun is finished then"
            ) from None
