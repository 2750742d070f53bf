"""Addresses of pages of the MLflow UI."""

import json
from urllib.parse import quote

import mlflow

from catdog.tracking import store

LOCAL_UI = "http://127.0.0.1:5000"
EXECUTION = "execution."  # tag of the runs that make one comparison; the execution's name follows


def curves(experiment_id: str, execution: str, *, ui: str | None = None) -> str:
    """The address of the UI's charts of the trainings of one execution, both models on common axes."""
    members = quote(f"tags.`{EXECUTION}{execution}` = 'member'")
    return f"{ui or _ui()}/#/experiments/{experiment_id}/runs?searchFilter={members}&compareRunsMode=CHART"


def latest_curves(client: mlflow.MlflowClient, *, ui: str) -> str | None:
    """The address of the charts of the last comparison in the UI at `ui`, if there was one."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, "tags.model = 'comparison'", order_by=["start_time DESC"], max_results=1)
    tags = ((run, tag) for run in runs for tag in run.data.tags if tag.startswith(EXECUTION))
    run, tag = next(tags, (None, ""))
    return curves(run.info.experiment_id, tag.removeprefix(EXECUTION), ui=ui) if run else None


def side_by_side(experiment_id: str, run_ids: list[str]) -> str:
    """The address of the UI's comparison of `run_ids`."""
    runs, experiments = quote(json.dumps(run_ids)), quote(json.dumps([experiment_id]))
    return f"{_ui()}/#/compare-runs?runs={runs}&experiments={experiments}"


def of_run(client: mlflow.MlflowClient, run_id: str) -> str:
    """The address of a run's page in the UI."""
    return f"{_ui()}/#/experiments/{client.get_run(run_id).info.experiment_id}/runs/{run_id}"


def _ui() -> str:
    address = store.uri()
    return store.without_secret(address.rstrip("/")) if address.startswith("http") else LOCAL_UI
