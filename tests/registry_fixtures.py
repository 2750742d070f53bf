"""A registry in a real store, with models of a few kB: what tests of promotion and of the chain begin with."""

import contextlib
import shutil
import sqlite3
import threading
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from served_fixtures import Made, make, tiny_model

from catdog.base import files, params
from catdog.base.errors import UserError
from catdog.tracking import deployments, promotion, registry, served_form

LABELS = np.arange(400) % 2
P = params.load(Path(__file__).parents[1] / "params.yaml")


def answers(*, wrong=(), sure: float = 0.9) -> np.ndarray:
    """Probabilities that are right with certainty `sure`, except on the photographs `wrong`."""
    probabilities = np.where(LABELS == 1, sure, 1 - sure)
    probabilities[list(wrong)] = 1 - probabilities[list(wrong)]
    return probabilities


GOOD = answers(wrong=range(40), sure=0.85)
BETTER = answers(wrong=range(10))


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """A store with five logged models and nothing registered: database, artifacts, and (model_id, run_id) of each."""
    folder = tmp_path_factory.mktemp("template")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    models, sha256, experiment = log_models(folder)
    mlflow.set_tracking_uri(before)
    return folder, models, sha256, experiment


def log_models(folder: Path) -> tuple[list[tuple[str, str]], str, str]:
    """Five logged models in the store that is set: (model_id, run_id) of each, the file's sha256, their experiment."""
    experiment = mlflow.create_experiment("catdog", artifact_location=str(folder / "artifacts"))
    keras_file = folder / "model.keras"
    tiny_model().save(keras_file)
    made = make(keras_file, folder / "answers")
    models = [log_served(made, experiment=experiment) for _ in range(5)]
    return models, files.sha256(keras_file), experiment


def log_served(made: Made, *, experiment: str | None = None) -> tuple[str, str]:
    """A served form, logged by a run of its own: its model_id and run_id."""
    with mlflow.start_run(experiment_id=experiment) as run:
        pass
    model_id, _ = served_form.log(
        MlflowClient(),
        run_id=run.info.run_id,
        name="served",
        keras_file=made.keras_file,
        answers=made.folder,
        settings=made.settings,
        card="# A card\n",
    )
    return model_id, run.info.run_id


class Store:
    """The registry's commands on a store of logged models, with a test's defaults."""

    def __init__(self, models: list[tuple[str, str]], sha256: str, experiment: str) -> None:
        self.models, self.sha256, self.experiment = models, sha256, experiment
        self.client = MlflowClient()
        self.used = 0

    @classmethod
    def copied(cls, folder: Path, logged) -> "Store":
        """A copy of the template in `folder`."""
        template, *known = logged
        shutil.copy(template / "mlflow.db", folder / "mlflow.db")
        shutil.copytree(template / "artifacts", folder / "artifacts")
        with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as database, database:
            for place in ("experiments.artifact_location", "runs.artifact_uri", "logged_models.artifact_location"):
                table, column = place.split(".")
                database.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (str(template), str(folder)))
        return cls(*known)

    def register(self, model="cnn", probabilities=GOOD, *, digest="test-one", index=None, **other) -> int:
        """Register the next of the logged models as if evaluate had found `probabilities`."""
        if index is None:
            index, self.used = self.used, self.used + 1
        model_id, run_id = self.models[index]
        evaluation = self.client.create_run(self.experiment)
        frame = pd.DataFrame(
            {"id": [f"{i:03}" for i in range(len(LABELS))], "label": LABELS.astype(np.int8), model: probabilities}
        )
        file = Path("predictions.parquet")
        frame.to_parquet(file)
        self.client.log_artifact(evaluation.info.run_id, str(file))
        said = {
            "test_digest": digest,
            "evaluation_run_id": evaluation.info.run_id,
            "source_kind": "folder",
            "model_sha256": self.sha256,
            "served_sha256": self.client.get_logged_model(model_id).tags["served_sha256"],
        }
        figures = {
            "accuracy": float(np.mean((probabilities >= 0.5) == LABELS)),
            "log_loss": float(-np.mean(np.log(np.where(LABELS == 1, probabilities, 1 - probabilities)))),
            "relative_time": 5.0,
            "file_bytes": 5_000_000,
            "robustness": 0.8,
        }
        tags = said | {key: value for key, value in other.items() if key not in figures}
        metrics = {key: other.get(key, value) for key, value in figures.items()}
        metrics = {key: value for key, value in metrics.items() if value is not None}
        return registry.register(
            self.client, model, model_id=model_id, run_id=run_id, tags=tags, metrics=metrics, description="A card"
        )

    def promote(self, candidate=None, *, client=None, **other) -> promotion.Promotion:
        known = {"p": P, "why": "a test"}
        return promotion.promote(client or self.client, candidate=candidate, **(known | other))

    def rollback(self, to=None, **other) -> deployments.Event:
        return promotion.rollback(self.client, to=to, **({"why": "it barked"} | other))

    def aliases(self) -> dict[str, int]:
        return deployments.aliases(self.client)


@pytest.fixture
def store(tmp_path, monkeypatch, logged):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOGNAME", "tester")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    yield Store.copied(tmp_path, logged)
    mlflow.set_tracking_uri(before)


def deployed_twice(store) -> None:
    store.register(probabilities=GOOD)
    store.promote()
    store.register(probabilities=BETTER)
    store.promote()


def check_consistent(store) -> None:
    """Aliases and events tell the same story."""
    events = deployments.events(store.client)
    assert [event.number for event in events] == list(range(1, len(events) + 1))
    assert store.aliases().get("champion") == events[-1].version
    assert store.aliases().get("previous") == events[-1].over
    for event in events:
        assert store.client.get_model_version("catdog", str(event.version)).tags["deployed.why"]


def at_once(*calls) -> list:
    """The outcome of each call, or the error it raised, all started at the same moment."""
    barrier, outcomes = threading.Barrier(len(calls)), [None] * len(calls)

    def run(index, call):
        barrier.wait()
        try:
            outcomes[index] = call()
        except UserError as error:
            outcomes[index] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes
