"""Whether the store has the runs of the models that are here. An emptied store looks like a new one."""

from mlflow import MlflowClient

from catdog.base import files, paths
from catdog.tracking import deployments, store


def runs(client: MlflowClient) -> str:
    """What to tell a person if models/*/run.json names a run that the store has not, in one line; else nothing."""
    root = paths.original()
    for file in sorted((root / paths.MODELS).glob(f"*/{paths.RUN_FILE}")):
        try:
            run_id = str(files.read_json(file)["run_id"])
        except (OSError, ValueError, LookupError, TypeError):  # as its own reader will say
            continue
        if store.find_run(client, run_id) is None:
            address = store.without_secret(client.tracking_uri)
            return f"{address} has no run {run_id}, which {file.relative_to(root)} names: {remedy(address)}"
    return ""


def remedy(address: str) -> str:
    """Why the store at `address` may lack the run of a model that is here, and what to do."""
    if not address.startswith("sqlite:"):
        return "that model was trained with another store"
    return (
        "the store was emptied, or that model was trained with another one; `catdog restore FILE` brings back what "
        "`catdog backup FILE` kept, `dvc repro --force` trains again"
    )


def notice(client: MlflowClient) -> None:
    """Say it on stderr, where there is something to say."""
    if text := runs(client):
        deployments.notice(text)
