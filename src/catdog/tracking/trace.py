"""The chain from a served model back to its photographs: version, logged model, file, run, commit, data, source."""

from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from catdog.base import paths
from catdog.base.errors import UserError
from catdog.tracking import provenance, served_form, store, versions
from catdog.tracking.provenance import Link


def trace(client: MlflowClient, reference: str, *, root: Path | None = None) -> list[Link]:
    """The links from a model or a run back to its source, each checked. What lies behind a missing one is left out.

    Args:
        reference: a run id, or a model as in `versions.resolve`.
        root: the project's folder, with its git repository and its data.

    Raises:
        UserError: there is no such model.
    """
    links: list[Link] = []
    origin = versions.resolve(client, reference)  # in the end the id of a run
    version_tags: dict[str, str] = {}
    while not isinstance(origin, str):
        links.append(_version(client, origin))
        version_tags, source = origin.tags, versions.source(origin)
        run_id = origin.run_id or version_tags.get("run_id", "")
        if source.startswith("m-"):
            links += _logged_model(client, source, run_id=run_id, version=origin)
            origin = run_id
            break
        try:
            origin = versions.resolve(client, source)
        except UserError as error:
            links.append(Link("model version", source, False, str(error)))
            origin = run_id
    tags, link = _run(client, origin, data_digest=version_tags.get("data_digest"))
    return [*links, link, *(provenance.code_and_data(tags, root or paths.root()) if tags else [])]


def _version(client: MlflowClient, version: ModelVersion) -> Link:
    try:
        versions.digests(version)
    except UserError as error:
        return Link("model version", versions.name(version), False, str(error))
    return Link("model version", versions.name(version), True, ", ".join(versions.aliases(client, version)))


def _logged_model(client: MlflowClient, model_id: str, *, run_id: str, version: ModelVersion) -> list[Link]:
    try:
        logged = versions.logged_model(client, model_id)
    except UserError:
        return [Link("logged model", model_id, False, "not in this store: it was deleted")]
    same = logged.source_run_id == run_id
    note = "" if same else f"logged by another run: {logged.source_run_id}"
    sha256 = version.tags.get("model_sha256", "")
    try:
        served_form.verify(f"models:/{model_id}", **versions.digests(version))
        file = Link("model file", sha256, True)
    except UserError as error:
        file = Link("model file", sha256, False, str(error))
    return [Link("logged model", model_id, same, note), file]


def _run(client: MlflowClient, run_id: str, *, data_digest: str | None) -> tuple[dict[str, str], Link]:
    run = store.find_run(client, run_id)
    if run is None:
        return {}, Link("run", run_id, False, "not in this store")
    if run.info.lifecycle_stage == "deleted":
        return {}, Link("run", run_id, False, f"deleted: `mlflow runs restore --run-id {run_id}`")
    tags, status = run.data.tags, run.info.status
    trained_on = tags.get(f"dvc.{paths.TRAIN.as_posix()}")
    if status != "FINISHED":
        return tags, Link("run", run_id, False, f"{status.lower()}: it did not come to its end")
    if data_digest not in (None, trained_on):
        return tags, Link("run", run_id, False, f"trained on {trained_on}, while the version says {data_digest}")
    return tags, Link("run", run_id, True, run.info.run_name)
