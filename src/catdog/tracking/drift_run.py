"""The run of a comparison of new photographs with those that a model was made for."""

import uuid
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from catdog.feedback.drift import Findings
from catdog.tracking import lineage, patience, store

EXPERIMENT = "catdog-drift"
_START = "catdog.start"  # tag: by it a run is found whose id never came back


def log(
    client: MlflowClient,
    findings: Findings,
    *,
    version: str,
    source: str,
    verdict: str,
    refused: int,
    files: list[Path],
) -> str:
    """Log what was found as a run of EXPERIMENT, and return its id.

    Args:
        version: of the model, such as catdog/3.
        source: what the photographs were called.
        refused: how many could not be read.
        files: the artifacts.

    Raises:
        UserError: the store failed.
    """
    with store.answering(f"{files[0]} is written; once it answers, run this again to have it in MLflow too"):
        experiment = store.named_experiment(client, EXPERIMENT)
        said = {True: "true", False: "false", None: "unknown"}[findings.drift]
        tags = lineage.git() | {"model_version": version, "source": source, "verdict": verdict, "drift": said}
        tags |= {MLFLOW_RUN_NOTE: verdict, _START: uuid.uuid4().hex}
        run_id = _create(client, experiment, source, tags)
        numbers = _numbers(findings) | {"unreadable": refused}
        client.log_batch(run_id, metrics=[Metric(key, float(value), 0, 0) for key, value in numbers.items()])
        for file in files:
            client.log_artifact(run_id, str(file))
        client.set_terminated(run_id)
    return run_id


@patience.again
def _create(client: MlflowClient, experiment: str, name: str, tags: dict[str, str]) -> str:
    found = client.search_runs([experiment], f"tags.`{_START}` = '{tags[_START]}'", max_results=1)
    return (found[0] if found else client.create_run(experiment, run_name=name, tags=tags)).info.run_id


def _numbers(findings: Findings) -> dict[str, float]:
    numbers: dict[str, float] = {"photographs": findings.photographs, "neither": findings.neither}
    for each in findings.differences:
        name = each.name.replace(" ", "_")
        ends = {"": each.effect.size, ".low": each.effect.low, ".high": each.effect.high}
        numbers |= {f"effect.{name}{end}": value for end, value in ends.items()}
        numbers |= {f"p_value.{name}": each.effect.p_value, f"new.{name}": each.new, f"old.{name}": each.old}
    if findings.accuracy and findings.usual is not None:
        numbers |= {f"expected_accuracy.{key}": value for key, value in findings.accuracy._asdict().items()}
        numbers["usual_accuracy"] = findings.usual
    return numbers
