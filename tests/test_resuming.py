"""The training stages, killed where it hurts and started again: one run, one history, as if nothing had happened."""

import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import keras
import mlflow
import numpy as np
import pandas as pd
import pytest
import training_fixtures
import yaml
from training_fixtures import REPOSITORY, tracked, writes_its_outputs_alone

from catdog.base import files, paths
from catdog.training.xception import seeds

pytestmark = pytest.mark.slow
FIGURES = ["epoch", "image_size", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate"]


def write_params(**changes: dict) -> None:
    Path("params.yaml").write_text(yaml.safe_dump(training_fixtures.params(**changes).model_dump()))


def prepare(**changes: dict) -> None:
    """What the training stages read, in the current folder."""
    write_params(**changes)
    for seed, (path, count) in enumerate({paths.TRAIN: 20, paths.AUGMENTED_TRAIN: 40, paths.VAL: 10}.items()):
        training_fixtures.noise(path, count, seed=seed)
    files.write_json(paths.DATA_METRICS, {"source": {"kind": "folder", "path": "/photographs", "sha256": "ab" * 32}})


def stage(name: str) -> pd.DataFrame:
    """The history that a stage leaves that is run to its end."""
    with writes_its_outputs_alone(f"train_{name}"):
        runpy.run_path(str(REPOSITORY / f"src/train_{name}.py"))["main"]()
    return pd.read_csv(paths.history(name))


def killed(name: str, where: str) -> None:
    """Run a stage in a process of its own that is killed at one of `stage_kills.KILLS`."""
    code = f"import stage_kills; stage_kills.killed_stage('train_{name}', {where!r})"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(REPOSITORY / "src"), str(REPOSITORY / "tests")))},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == -signal.SIGKILL, f"{where}: {ended.stderr}"


def only_run(client: mlflow.MlflowClient) -> mlflow.entities.Run:
    [run] = client.search_runs([e.experiment_id for e in client.search_experiments()])
    return run


def steps(client: mlflow.MlflowClient) -> list[int]:
    return [metric.step for metric in client.get_metric_history(only_run(client).info.run_id, "val_loss")]


def assert_one_whole_run(client: mlflow.MlflowClient, name: str, history: pd.DataFrame, alone: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(history[FIGURES], alone[FIGURES], rtol=1e-3, atol=1e-3)
    run = only_run(client)
    assert run.info.status == "FINISHED"
    assert steps(client) == history["epoch"].tolist()
    for key in FIGURES[1:]:
        assert [m.value for m in client.get_metric_history(run.info.run_id, key)] == history[key].tolist()
    for key in ("train_seconds", "parameters"):
        assert len(client.get_metric_history(run.info.run_id, key)) == 1
    left = files.read_json(paths.model(name) / paths.RUN_FILE)
    assert left["run_id"] == run.info.run_id
    assert left["model_sha256"] == files.sha256(paths.model(name) / paths.MODEL_FILE)
    assert client.search_logged_models([run.info.experiment_id]) == []  # that is for evaluate to do
    assert list(paths.CHECKPOINTS.iterdir()) == []


def test_the_cnn_killed_at_every_turn(tmp_path):
    for folder in ("alone", "killed"):
        (tmp_path / folder).mkdir()
    with tracked(tmp_path / "alone"):
        prepare()
        alone = stage("cnn")
    with tracked(tmp_path / "killed") as client:
        prepare()
        logged = {
            "before the first epoch": [],
            "within epoch 2": [1],
            "before epoch 3 is logged": [1, 2],
            "while the checkpoint of epoch 4 is written": [1, 2, 3],
            "before the model is left": [1, 2, 3, 4, 5],
            "before the run is ended": [1, 2, 3, 4, 5],
        }
        for where, known in logged.items():
            killed("cnn", where)
            assert only_run(client).info.status == "RUNNING"
            assert steps(client) == known, where
        assert_one_whole_run(client, "cnn", stage("cnn"), alone)


def test_other_knobs_after_a_kill_are_another_training(tmp_path):
    with tracked(tmp_path) as client:
        prepare()
        killed("cnn", "within epoch 2")
        first = only_run(client)
        write_params(train_cnn={"dropout": 0.3})
        history = stage("cnn")
        assert client.get_run(first.info.run_id).info.status == "KILLED"
        second = files.read_json(paths.model("cnn") / paths.RUN_FILE)["run_id"]
        assert second != first.info.run_id
        assert [m.step for m in client.get_metric_history(second, "val_loss")] == history["epoch"].tolist()
        assert list(paths.CHECKPOINTS.iterdir()) == []


def weights_of_xception(path: Path) -> str:
    keras.utils.set_random_seed(3)
    shape = (71, 71, 3)
    xception = keras.applications.Xception(include_top=False, weights=None, pooling="avg", input_shape=shape)
    xception.save_weights(path)
    return str(path)


def test_xception_killed_in_a_further_seed(tmp_path):
    knobs = {"weights": weights_of_xception(tmp_path / "own.weights.h5"), "precision": "float32"}
    for folder in ("alone", "killed"):
        (tmp_path / folder).mkdir()
    kept = paths.model("xception") / paths.SEEDS_FILE
    with tracked(tmp_path / "alone"):
        prepare(train_xception=knobs)
        alone = stage("xception")
        heads = seeds.load(kept)
        assert list(heads) == [8]
    with tracked(tmp_path / "killed") as client:
        prepare(train_xception=knobs)
        for where in ("within the second seed", "before the model is left"):
            killed("xception", where)
            assert steps(client) == [1, 2, 3], "the curves of the run are those of the model"
        assert_one_whole_run(client, "xception", stage("xception"), alone)
        np.testing.assert_allclose(seeds.load(kept)[8].val_logits, heads[8].val_logits, atol=1e-3)
        told = files.read_json(paths.train_metrics("xception"))
        assert told["seconds_seeds"] > 0
        parts = ("features", "data", "training")
        assert told["seconds"] == pytest.approx(sum(told[f"seconds_{part}"] for part in parts))


def test_xception_killed_in_features_head_and_fine_tuning(tmp_path):
    weights = weights_of_xception(tmp_path / "own.weights.h5")
    knobs = {"weights": weights, "fine_tune_blocks": 1, "precision": "float32"}
    for folder in ("alone", "killed"):
        (tmp_path / folder).mkdir()
    with tracked(tmp_path / "alone"):
        prepare(train_xception=knobs)
        alone = stage("xception")
    with tracked(tmp_path / "killed") as client:
        prepare(train_xception=knobs)
        killed("xception", "within features")
        assert steps(client) == []
        kept = list(paths.FEATURES.rglob("*.arrow"))
        assert kept
        logged = {"within epoch 2": [1], "within epoch 5": [1, 2, 3, 4], "before the model is left": [1, 2, 3, 4, 5]}
        for where, known in logged.items():
            killed("xception", where)
            assert steps(client) == known, where
        assert_one_whole_run(client, "xception", stage("xception"), alone)
