"""A disk that is full, at any point of any stage: one line, nothing half-written, and run again it goes on."""

import shutil
import subprocess
import sys
from pathlib import Path

import keras
import pandas as pd
import pytest
import test_prepare
import test_publication
import test_resuming
from faults import resize, small_disk
from mlflow.entities import LoggedModelStatus
from training_fixtures import REPOSITORY, tracked

from catdog.base import paths

ENOUGH = 500_000  # kilobytes


# Suspects are found by features of Xception, which the small models here do not have.
STAGE = """
import runpy, sys
sys.path.insert(0, sys.argv[1])
from catdog.base import paths
from catdog.evaluation import suspects
suspects.find = lambda *_, **__: paths.SUSPECTS_SHEET
runpy.run_path(f"{sys.argv[1]}/{sys.argv[2]}.py", run_name="__main__")
"""


def run(stage: str) -> subprocess.CompletedProcess:
    code = (
        [str(REPOSITORY / f"src/{stage}.py")] if stage != "evaluate" else ["-c", STAGE, str(REPOSITORY / "src"), stage]
    )
    return subprocess.run([sys.executable, *code], capture_output=True, text=True)


def until_it_has_room(disk: Path, stage: str, rooms: list[int]) -> None:
    """Run `stage` in the current folder, on a disk with more room each time, in kilobytes."""
    used = (shutil.disk_usage(disk).used >> 10) + 1
    failures = []
    for room in rooms:
        resize(disk, kilobytes=used + room)
        done = run(stage)
        if done.returncode == 0:
            break
        failures.append(done.stderr)
        assert done.returncode == 1, done.stderr
        assert "Traceback" not in done.stderr
        assert [line.startswith("error: ") for line in done.stderr.splitlines()].count(True) == 1, done.stderr
        assert done.stderr.splitlines()[-1].startswith("error: ")
        assert list(Path().rglob("*.part")) == list(Path().rglob("*.spool*")) == []
    assert len(failures) >= 3  # else it was no test
    resize(disk, kilobytes=ENOUGH)
    assert run(stage).returncode == 0


def test_prepare_on_a_full_disk(tmp_path, monkeypatch):
    whole = test_prepare.project(tmp_path / "whole", test_prepare.GOOD)
    assert test_prepare.run("prepare", whole).returncode == 0
    with small_disk(tmp_path / "disk", kilobytes=ENOUGH) as disk:
        folder = test_prepare.project(disk / "project", test_prepare.GOOD)
        monkeypatch.chdir(folder)
        until_it_has_room(disk, "prepare", [8, 150, 500, 700, 1000])
        assert test_prepare.outputs(folder) == test_prepare.outputs(whole)
        monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_the_cnn_on_a_full_disk(tmp_path):
    (tmp_path / "alone").mkdir()
    with tracked(tmp_path / "alone"):
        test_resuming.prepare()
        alone = test_resuming.stage("cnn")
    with small_disk(tmp_path / "disk", kilobytes=ENOUGH) as disk, tracked(disk) as client:
        test_resuming.prepare()
        until_it_has_room(disk, "train_cnn", [4, 150, 230, 300])
        test_resuming.assert_one_whole_run(client, "cnn", pd.read_csv(paths.history("cnn")), alone)


@pytest.mark.slow
def test_xception_on_a_full_disk(tmp_path):
    shape = (71, 71, 3)
    xception = keras.applications.Xception(include_top=False, weights=None, pooling="avg", input_shape=shape)
    xception.save_weights(tmp_path / "own.weights.h5")
    with small_disk(tmp_path / "disk", kilobytes=ENOUGH) as disk, tracked(disk) as client:
        test_resuming.prepare(
            train_xception={"weights": str(tmp_path / "own.weights.h5"), "precision": "float32"},
        )
        until_it_has_room(disk, "train_xception", [100, 1000, 60_000])
        assert test_resuming.steps(client) == [1, 2, 3]
        assert test_resuming.only_run(client).info.status == "FINISHED"


@pytest.mark.slow
def test_evaluate_on_a_full_disk(tmp_path):
    with small_disk(tmp_path / "disk", kilobytes=ENOUGH) as disk, tracked(disk) as client:
        test_publication.trained(client)
        until_it_has_room(disk, "evaluate", [4, 700, 1600, 2400])
        assert {name: len(runs) for name, runs in test_publication.versions(client).items()} == {
            "catdog-cnn": 1,
            "catdog-xception": 1,
        }
        ended = client.search_runs([run.experiment_id for run in client.search_experiments()])
        # A run whose failure found no room in the store either is ended by the next one, as killed.
        assert {"FINISHED"} < {run.info.status for run in ended} <= {"FINISHED", "FAILED", "KILLED"}
        assert {model.status for model in client.search_logged_models(["1"])} == {LoggedModelStatus.READY}
