"""Several hosts as one training: two processes of this machine, killed at every turn."""

import functools
import shutil
import signal
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import training_fixtures
import yaml
from jax_fixtures import TRAIN, assert_same, ended, environment, hosts, left, needs_jax, started, train
from training_fixtures import REPOSITORY, tracked

from catdog.base import files, paths
from catdog.base.errors import UserError
from catdog.training.loop import hosts as of_library

slow = pytest.mark.slow
GONE = "error: host {} of 2 is gone: start all again, they go on after the last whole epoch"
FIGURES = ["epoch", "image_size", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate"]
# Each is where a process is killed; after each, both are started again.
TURNS = {
    0: [
        "before the first epoch",
        "within epoch 2",
        "before epoch 3 is logged",
        "while the checkpoint of epoch 4 is written",
        "before the model is left",
    ],
    1: ["before the first epoch", "within epoch 2", "when epoch 3 is over", "within epoch 5", "when it is trained"],
}


def slurm(number: int) -> list[dict[str, str]]:
    """The variables that srun sets on two tasks."""
    [address, *_] = {each["JAX_COORDINATOR_ADDRESS"] for each in hosts(number)}
    port = int(address.rpartition(":")[2])
    return [
        {
            "SLURM_JOB_ID": "17",
            "SLURM_STEP_NODELIST": "127.0.0.1",
            "SLURM_NTASKS": str(number),
            "SLURM_STEP_NUM_TASKS": str(number),
            "SLURM_PROCID": str(task),
            "SLURM_LOCALID": "0",
            "JAX_COORDINATOR_PORT": str(port),
            "JAX_COORDINATOR_BIND_ADDRESS": address,
        }
        for task in range(number)
    ]


@needs_jax
@slow
@pytest.mark.parametrize("found_by", [hosts, slurm])
def test_two_hosts_train_as_one_does(tmp_path, found_by):
    one = train(tmp_path / "one", "whole", strategy="one")
    processes = [
        started(tmp_path / str(host), TRAIN, "whole", "auto", "0.3", "", env=environment(**variables, devices=2))
        for host, variables in enumerate(found_by(2))
    ]
    for process in processes:
        ended(process)
    first, second = (left(tmp_path / str(host), "whole") for host in (0, 1))
    assert first["devices"] == second["devices"] == 4
    for ours, theirs in zip(first["weights"], second["weights"], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert_same(first, one, within=1e-3)
    # The first host alone keeps checkpoints.
    assert (tmp_path / "0" / training_fixtures.CHECKPOINT).exists()
    assert not (tmp_path / "1" / training_fixtures.CHECKPOINT).exists()


class Hosts:
    """Two hosts, each with a copy of a project of its own; `train_cnn` is started on both at once."""

    def __init__(self, folder: Path, project: Path) -> None:
        self.folders = [project, Path(shutil.copytree(project, folder / "second"))]

    def run(self, *, victim: int | None = None, where: str = "") -> list[str]:
        """Start both, one of which may be killed; what they have said."""
        whole = f"import runpy; runpy.run_path('{REPOSITORY}/src/train_cnn.py', run_name='__main__')"
        deadly = f"import stage_kills; stage_kills.killed_stage('train_cnn', {where!r})"
        processes = [
            started(folder, deadly if host == victim else whole, env=environment(**variables))
            for host, (folder, variables) in enumerate(zip(self.folders, hosts(2), strict=True))
        ]
        status = {None: (0, 0), 0: (-signal.SIGKILL, 1), 1: (1, -signal.SIGKILL)}[victim]
        return [ended(process, status=status[host]) for host, process in enumerate(processes)]


def weights(folder: Path) -> list[np.ndarray]:
    import keras

    return keras.saving.load_model(folder / "models/cnn/model.keras").get_weights()


def params(**knobs: float) -> dict:
    """Five epochs of two whole batches: there is one step for JAX to compile."""
    one_size = {"image_sizes": [16], "epochs": [5], "patience": 5}
    return training_fixtures.params(train_cnn={**one_size, **knobs}).model_dump()


def prepare() -> None:
    """What train_cnn reads, in the current folder."""
    Path("params.yaml").write_text(yaml.safe_dump(params()))
    for seed, (path, count) in enumerate({paths.TRAIN: 16, paths.AUGMENTED_TRAIN: 32, paths.VAL: 10}.items()):
        training_fixtures.noise(path, count, seed=seed)
    files.write_json(paths.DATA_METRICS, {"source": {"kind": "folder", "path": "/photographs", "sha256": "ab" * 32}})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "project").mkdir()
    with tracked(folder / "project"):
        prepare()
        Hosts(folder, folder / "project").run()
    return folder / "project"


@needs_jax
@slow
@pytest.mark.parametrize("victim", [0, 1])
def test_two_hosts_one_of_which_is_killed_at_every_turn(tmp_path, undisturbed, victim):
    (tmp_path / "project").mkdir()
    with tracked(tmp_path / "project") as client:
        prepare()
        both = Hosts(tmp_path, tmp_path / "project")
        for where in TURNS[victim]:
            said = both.run(victim=victim, where=where)
            # The one that was left says so in a line, which is its last.
            assert said[1 - victim].strip().splitlines()[-1] == GONE.format(victim), where
            assert "Traceback" not in said[1 - victim]
        both.run()
        runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
        assert [run.info.status for run in runs] == ["FINISHED"]
        history = pd.read_csv(paths.history("cnn"))
        steps = [metric.step for metric in client.get_metric_history(runs[0].info.run_id, "val_loss")]
        assert steps == history["epoch"].tolist() == [1, 2, 3, 4, 5]
        assert list(paths.CHECKPOINTS.iterdir()) == []
    expected = pd.read_csv(undisturbed / paths.history("cnn"))
    pd.testing.assert_frame_equal(history[FIGURES], expected[FIGURES], rtol=1e-3, atol=1e-3)
    for ours, theirs in zip(weights(tmp_path / "project"), weights(undisturbed), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)
    # The second host has left nothing, and told MLflow nothing.
    second = both.folders[1]
    assert not (second / "models").exists()
    assert not list((second / paths.CHECKPOINTS).glob("*"))
    elsewhere = mlflow.MlflowClient(f"sqlite:///{second}/mlflow.db")
    assert elsewhere.search_runs([each.experiment_id for each in elsewhere.search_experiments()]) == []


@needs_jax
@slow
def test_hosts_with_other_knobs_do_not_train_together(tmp_path):
    (tmp_path / "project").mkdir()
    with tracked(tmp_path / "project"):
        prepare()
        both = Hosts(tmp_path, tmp_path / "project")
        (both.folders[1] / "params.yaml").write_text(yaml.safe_dump(params(dropout=0.25)))
        code = f"import runpy; runpy.run_path('{REPOSITORY}/src/train_cnn.py', run_name='__main__')"
        processes = [
            started(folder, code, env=environment(**variables))
            for folder, variables in zip(both.folders, hosts(2), strict=True)
        ]
        said = [ended(process, status=1) for process in processes]
    assert said[1].strip().endswith("bring both to the same state")
    assert said[0].strip().endswith(GONE.format(1))


def test_several_hosts_take_jax(monkeypatch):
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    with pytest.raises(UserError, match="several hosts take Keras on JAX: set KERAS_BACKEND=jax"):
        of_library.together(functools.partial(pytest.fail, "it went on alone"))()


def test_one_host_is_the_first_and_gives_to_itself(monkeypatch):
    monkeypatch.setenv("JAX_NUM_PROCESSES", "1")
    met = []

    @of_library.together
    def main() -> None:
        of_library.meet()
        of_library.agree(b"the same")
        met.append((of_library.count(), of_library.is_first(), of_library.shared(lambda: b"data")))
        np.testing.assert_array_equal(of_library.part(np.arange(3)), np.arange(3))

    main()
    assert met == [(1, True, b"data")]
