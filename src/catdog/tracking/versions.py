"""Registered models and their versions as a person names them: catdog@champion, catdog-cnn/3, a logged model, a run."""

import re

from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from catdog.base.errors import UserError
from catdog.pictures import style
from catdog.tracking import lost
from catdog.tracking.deployments import CHAMPION, SERVED, notice

DIGESTS = ("model_sha256", "served_sha256")  # tags of a version: of its `.keras` file, and of all its files
NAMES = {model: f"{SERVED}-{model}" for model in style.NAMES}  # of the registered models


def resolve(client: MlflowClient, reference: str) -> ModelVersion | str:
    """The model version, or the id of the run, that a person names.

    Args:
        reference: catdog@champion, catdog/3, catdog-cnn/2, 3 (of catdog), a logged model (m-...), any of these after
            models:/, or a run id.

    Raises:
        UserError: it is none of these, or there is no such thing.
    """
    text = reference.strip().removeprefix("models:/")
    if re.fullmatch(r"[0-9a-f]{32}", text):
        return text
    if re.fullmatch(r"m-[0-9a-f]{32}", text):
        return _of_logged_model(client, text)
    if match := re.fullmatch(r"([\w-]+)@([\w-]+)", text):
        registered, alias = match.groups()
        try:
            return client.get_model_version_by_alias(registered, alias)
        except MlflowException:
            hint = "promote a model first: `catdog promote`" if alias == CHAMPION else "see `catdog history`"
            raise UserError(
                f"{registered} has no version with the alias {alias}: {lost.runs(client) or hint}"
            ) from None
    if match := re.fullmatch(r"(?:([\w-]+)/)?(\d+)", text):
        return version(client, match[1] or SERVED, match[2])
    raise UserError(
        f"{reference} is no model or run: expected {SERVED}@{CHAMPION}, {SERVED}/3, {NAMES['cnn']}/2 or a run id"
    )


def of(client: MlflowClient, registered: str) -> list[ModelVersion]:
    """Every version of a registered model, whoever registered it."""
    return list(client.search_model_versions(f"name='{registered}'"))


def ours(client: MlflowClient, *registered: str) -> list[ModelVersion]:
    """The versions of these models that catdog registered. Others are passed over, with a notice."""
    every = [each for model in registered for each in of(client, model)]
    if foreign := [name(each) for each in every if not is_ours(each)]:
        notice(f"{', '.join(foreign)}: not registered by catdog, so passed over")
    return [each for each in every if is_ours(each)]


def version(client: MlflowClient, registered: str, number: str) -> ModelVersion:
    """One version of a registered model.

    Raises:
        UserError: it was deleted or never existed.
    """
    try:
        return client.get_model_version(registered, number)
    except MlflowException:
        existing = sorted(int(v.version) for v in of(client, registered))
        raise UserError(
            f"there is no {registered}/{number}: it was deleted or never existed; there are: "
            f"{', '.join(map(str, existing)) or lost.runs(client) or 'none'}"
        ) from None


def logged_model(client: MlflowClient, model_id: str) -> LoggedModel:
    """The logged model of this id.

    Raises:
        UserError: it is not in this store.
    """
    try:
        return client.get_logged_model(model_id)
    except MlflowException:
        raise UserError(f"there is no logged model {model_id} in this store") from None


def aliases(client: MlflowClient, version: ModelVersion) -> list[str]:
    """The aliases of a version. They come from its registered model: a search gives versions none (MLflow #16734)."""
    numbers = client.get_registered_model(version.name).aliases
    return sorted(alias for alias, number in numbers.items() if str(number) == str(version.version))


def name(version: ModelVersion) -> str:
    """Such as catdog-cnn/3."""
    return f"{version.name}/{version.version}"


def uri(version: ModelVersion) -> str:
    """Such as models:/catdog-cnn/3."""
    return f"models:/{name(version)}"


def source(version: ModelVersion) -> str:
    """What a version is a copy of: another version such as catdog-cnn/3, or a logged model (m-...)."""
    return (version.source or "").removeprefix("models:/")


def is_ours(version: ModelVersion) -> bool:
    """Whether catdog registered it: then the registry has the digests of its files."""
    return all(version.tags.get(key) for key in DIGESTS)


def digests(version: ModelVersion) -> dict[str, str]:
    """The digests of its files in the registry, without which nothing of a version is opened.

    Raises:
        UserError: catdog did not register it. MLflow registers anything, and with it code that MLflow would run.
    """
    if not is_ours(version):
        raise UserError(
            f"{name(version)} was not registered by catdog (no {' or '.join(DIGESTS)} among its tags), so it is not "
            "opened: name a version that `dvc repro` registered; `catdog serve` and `catdog predict` open it with "
            "--unverified"
        )
    return {key: version.tags[key] for key in DIGESTS}


def _of_logged_model(client: MlflowClient, model_id: str) -> ModelVersion | str:
    for registered in NAMES.values():
        for version in sorted(of(client, registered), key=is_ours, reverse=True):
            if source(version) == model_id:
                return version
    return logged_model(client, model_id).source_run_id or ""
