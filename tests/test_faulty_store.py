"""An MLflow server that is late, wrong, half there or gone: one line within a minute, and nothing lost or doubled."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import faulty_store
import mlflow
import pytest
import test_publication
import test_resuming
from faulty_store import gone, half, hang, late, lost, wrong
from registry_fixtures import BETTER, GOOD, Store, log_models
from test_cli import catdog  # noqa: F401
from test_registry_servers import Server, free_port
from training_fixtures import REPOSITORY, tracked

from catdog.base import files, paths
from catdog.base.errors import UserError
from catdog.tracking import patience, runs, store

pytestmark = pytest.mark.slow
NO_JSON = '{"experiments": 5, "runs": 5, "registered_models": 5, "model_versions": 5, "model_version": 5, "run": 5}'
FAULTS = {
    "502": wrong(502),
    "500": wrong(500, '{"error_code": "INTERNAL_ERROR", "message": "no room"}', "application/json"),
    "another page": wrong(200),
    "nothing there": wrong(404),
    "not logged in": wrong(401, "You are not authenticated.", "text/plain"),
    "not permitted": wrong(403, "Permission denied", "text/plain"),
    "another json": wrong(200, NO_JSON, "application/json"),
    "half": half,
    "lost": lost,
    "hang": hang,
    "too late": late(30),
    "gone": gone,
}
REFUSED = {
    "not logged in": "asks who you are (401): set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
    "not permitted": "Permission denied): ask who runs it for the permission",
}
COMMANDS = ["promote", "rollback", "history", "trace", "predict x.jpg", "serve", "ui", "demo"]
LISTENING = ("serve", "ui", "demo")
HISTORY = REPOSITORY / "plots/history_cnn.csv"


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    started = Server(folder := tmp_path_factory.mktemp("server"), f"sqlite:///{folder}/mlflow.db")
    yield started
    started.kill()


@pytest.fixture(scope="module")
def proxy(server) -> Iterator[faulty_store.Proxy]:
    with faulty_store.before(server.address) as proxy:
        yield proxy


@pytest.fixture
def client(proxy, tmp_path, monkeypatch) -> Iterator[mlflow.MlflowClient]:
    """A client of the proxy, in a project with an experiment of its own; patience lasts for half a second."""
    with tracked(tmp_path):
        test_resuming.prepare()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.address)
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", tmp_path.name)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        monkeypatch.setattr(patience, "SECONDS", 0.5)
        monkeypatch.setattr(store, "_SECONDS_TO_ANSWER", 1)
        monkeypatch.setattr(patience, "_PAUSE", 0.05)
        proxy.behave(faulty_store.ok)
        yield store.connect()
        proxy.behave(faulty_store.ok)


def test_a_minute_is_the_bound():
    assert patience.EACH <= patience.SECONDS <= 60


def assert_one_line(err: str, proxy: faulty_store.Proxy, fault: str) -> None:
    *notices, last = err.strip().splitlines()
    assert last.startswith("error: ")
    assert proxy.address in last
    remedies = (REFUSED[fault],) if fault in REFUSED else ("run the command again", "start it")
    assert any(remedy in last for remedy in remedies), last
    assert all(line.startswith("notice: ") for line in notices), err


# ---- requests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS)
def test_what_lasts_ends_in_one_line_and_nothing_more_is_asked(client, proxy, fault, capsys):
    proxy.behave(FAULTS[fault])
    started = time.monotonic()
    words = re.escape(REFUSED.get(fault, "stopped answering"))
    with pytest.raises(UserError, match=words) as told, store.answering("all is safe"):
        client.search_experiments()
    assert time.monotonic() - started < 4
    assert str(told.value).endswith(": all is safe")
    assert "Traceback" not in capsys.readouterr().err
    if fault != "another json":  # there, it is MLflow that does not understand
        asked = proxy.requests
        with pytest.raises(UserError, match=words), store.answering():
            client.get_run("0" * 32)
        assert proxy.requests == asked


@pytest.mark.parametrize("fault", [wrong(502), wrong(200), half, lost, late(1.5)])
def test_what_passes_does_not_show(client, proxy, monkeypatch, fault, capsys):
    monkeypatch.setattr(patience, "SECONDS", 9)
    proxy.behave(fault, times=2)
    assert client.search_experiments()
    err = capsys.readouterr().err
    assert "s more" in err
    assert err.strip().endswith("answers again")


def test_a_slow_server_that_takes_a_large_file_is_waited_for(client, proxy, monkeypatch, tmp_path):
    monkeypatch.setattr(patience, "SECONDS", 8)
    large = tmp_path / "large.bin"
    large.write_bytes(os.urandom(90 * 2**20))
    run = client.create_run(client.create_experiment(tmp_path.name))
    proxy.behave(late(4), on="/mlflow-artifacts/", times=1)  # four times what is allowed for other requests
    client.log_artifact(run.info.run_id, str(large))
    proxy.behave(half, on="/mlflow-artifacts/", after=1, times=1)
    local = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path=large.name)
    assert files.md5(Path(local)) == files.md5(large)


def test_errors_that_are_no_outage_pass_through(client):
    with pytest.raises(mlflow.MlflowException, match="not found"), store.answering():
        client.get_run("0" * 32)
    with pytest.raises(ZeroDivisionError), store.answering():
        raise ZeroDivisionError


# ---- commands -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def deployed(server, tmp_path_factory) -> Iterator[Store]:
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(server.address)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder := tmp_path_factory.mktemp("deployed"))
        found = Store(*log_models(folder))
        found.register(probabilities=GOOD)
        found.promote()
        found.register(probabilities=BETTER)
    yield found
    mlflow.set_tracking_uri(before)


@pytest.mark.parametrize("fault", FAULTS)
def test_every_command_says_it_in_one_line(client, deployed, proxy, catdog, fault):  # noqa: F811
    for number, command in enumerate(COMMANDS):
        # The first two requests ask whether the server is there at all.
        proxy.behave(FAULTS[fault], after=number % 4)
        started = time.monotonic()
        port = ["--port", str(free_port())] if command in LISTENING else []
        status, _, err = catdog(*command.split(), *port)
        assert status == 1, command
        assert_one_line(err, proxy, fault)
        assert time.monotonic() - started < 6
        proxy.behave(faulty_store.ok)


# ---- runs -----------------------------------------------------------------------------------------------------------


def train(client: mlflow.MlflowClient) -> str:
    """All that a training of three epochs tells MLflow; the id of its run."""
    inputs = [paths.TRAIN, paths.VAL]
    with runs.training(client, test_publication.P, "cnn", inputs=inputs, fingerprint="one") as run:
        for epoch in (1, 2, 3):
            run.epoch({"epoch": epoch, "val_loss": 1 / epoch, "val_accuracy": 0.5})
        run.log({"parameters": 12, "seconds": 9.0, "policy": "float32"}, history=HISTORY)
    return run.ids["run_id"]


def assert_whole(client: mlflow.MlflowClient, experiment: str, run_id: str) -> None:
    [run] = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    assert run.info.run_id == run_id
    assert run.info.status == "FINISHED"
    for key, steps in {
        "val_loss": [1, 2, 3],
        "val_accuracy": [1, 2, 3],
        "parameters": [0],
        "train_seconds": [0],
    }.items():
        assert [metric.step for metric in client.get_metric_history(run_id, key)] == steps, key
    assert len(run.inputs.dataset_inputs) == 2
    assert [file.path for file in client.list_artifacts(run_id, "plots")] == ["plots/history.csv"]
    assert not list(paths.CHECKPOINTS.glob("*"))


def at_every_request(proxy: faulty_store.Proxy, work: Callable[[int], None], *, step: int = 1) -> None:
    """Call `work(n)` for n = 0, step, ... until it asks the server for less than n."""
    n = asked = 0
    while n <= asked:
        before = proxy.requests
        work(n)
        asked, n = max(asked, proxy.requests - before), n + step
        assert n < 300
    assert n > 15


@pytest.mark.parametrize("fault", [half, lost, wrong(502)], ids=["half", "lost", "502"])
def test_one_failed_request_wherever_it_is_changes_nothing_in_a_run(client, proxy, monkeypatch, fault):
    monkeypatch.setattr(patience, "SECONDS", 9)

    def work(n: int) -> None:
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", experiment := f"{Path.cwd().name}-{n}")
        proxy.behave(fault, after=n, times=1)
        assert_whole(client, experiment, train(client))

    at_every_request(proxy, work, step=2)


@pytest.mark.parametrize("fault", [gone, lost, wrong(200)], ids=["gone", "lost", "another page"])
def test_an_outage_wherever_it_begins_leaves_a_run_to_go_on_with(client, proxy, monkeypatch, fault, capfd):
    monkeypatch.setattr(patience, "SECONDS", 0.1)

    def work(n: int) -> None:
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", experiment := f"{Path.cwd().name}-{n}")
        patience.install()
        proxy.behave(fault, after=n)
        try:
            run_id = train(client)
        except UserError:
            assert patience.outage()
            proxy.behave(faulty_store.ok)
            noted = files.read_json(note).get("run_id") if (note := paths.open_run("cnn")).exists() else None
            run_id = train(store.connect())
            assert noted in (None, run_id)
        proxy.behave(faulty_store.ok)
        patience.install()
        assert_whole(client, experiment, run_id)

    at_every_request(proxy, work, step=2)
    assert "Traceback" not in capfd.readouterr().err


# ---- stages ---------------------------------------------------------------------------------------------------------


def stage(name: str, *, seconds: float) -> tuple[int, list[str], float]:
    """Run a stage in a process of its own with this patience: exit status, lines on stderr, seconds."""
    code = (
        "import runpy; from catdog.tracking import patience; from catdog.evaluation import suspects;"
        f"patience.SECONDS = {seconds}; suspects.find = lambda *_, **__: suspects.paths.SUSPECTS_SHEET;"
        f"runpy.run_path({str(REPOSITORY / f'src/{name}.py')!r}, run_name='__main__')"
    )
    started = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    return ended.returncode, ended.stderr.strip().splitlines(), time.monotonic() - started


def assert_one_error(said: list[str], proxy: faulty_store.Proxy, safe: str) -> None:
    """It is the last line, and no thread says anything beside the countdown."""
    assert said[-1].startswith(f"error: the MLflow server at {proxy.address} stopped answering (it can't be reached): ")
    assert safe in said[-1]
    assert not [line for line in said[:-1] if "rror: " in line or "mlflow" in line or "Traceback" in line]


def steps(client: mlflow.MlflowClient, run_id: str) -> dict[str, list[int]]:
    """Of each metric but memory and load."""
    keys = [key for key in client.get_run(run_id).data.metrics if not key.startswith("system/")]
    return {key: [metric.step for metric in client.get_metric_history(run_id, key)] for key in keys}


def only_run(client: mlflow.MlflowClient) -> mlflow.entities.Run:
    [run] = client.search_runs([client.get_experiment_by_name(os.environ["MLFLOW_EXPERIMENT_NAME"]).experiment_id])
    return run


def test_a_server_that_dies_in_a_training_and_comes_back(client, proxy, tmp_path, monkeypatch):
    status, said, _ = stage("train_cnn", seconds=30)
    assert status == 0, said
    alone = steps(client, only_run(client).info.run_id)
    assert alone["val_loss"] == [1, 2, 3, 4, 5]

    # For good: one line, the run stays open, and its checkpoint stays.
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", f"{tmp_path.name}-for-good")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "1")
    proxy.behave(gone, after=3, on="log-batch")
    status, said, seconds = stage("train_cnn", seconds=4)
    assert status == 1
    assert_one_error(said, proxy, "goes on after its last whole epoch, in the same run")
    assert any("trying again for 4 s more" in line for line in said)
    assert seconds < 60
    proxy.behave(faulty_store.ok)
    cut = only_run(client)
    assert cut.info.status == "RUNNING"
    assert len(list(paths.CHECKPOINTS.iterdir())) == 2
    status, said, _ = stage("train_cnn", seconds=4)
    assert status == 0, said
    assert only_run(client).info.run_id == cut.info.run_id
    assert only_run(client).info.status == "FINISHED"
    assert steps(client, cut.info.run_id) == alone
    assert list(paths.CHECKPOINTS.iterdir()) == []

    # For a while: as if nothing had been.
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", f"{tmp_path.name}-for-a-while")
    proxy.behave(gone, after=3, on="log-batch", back=3)
    status, said, _ = stage("train_cnn", seconds=30)
    assert status == 0, said
    assert any(line.endswith("answers again") for line in said)
    assert only_run(client).info.status == "FINISHED"
    assert steps(client, only_run(client).info.run_id) == alone


# Requests of a publication, each of which is tried as the last that reaches the server.
PUBLISHED = ["runs/create", "logged-models", "mlflow-artifacts", "log-metric", "model-versions/create"]
PUBLISHED += ["runs/update", "set-tag"]


def test_an_outage_wherever_evaluate_publishes_registers_nothing_by_halves(client, proxy, monkeypatch, tmp_path):
    data = test_publication
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    for seed, path in enumerate([*data.INPUTS, paths.TEST]):
        data.noise(path, 20, seed=seed)
    data.describe()
    monkeypatch.setattr(patience, "SECONDS", 9)
    data.train(client, "cnn")
    data.train(client, "xception")
    shards = {split: data.shards_.Shard(path) for split, path in (("train", paths.TRAIN), ("val", paths.VAL))}
    test, aside = (data.shards_.Shard(path) for path in (paths.TEST, paths.SET_ASIDE))
    models = data.served_.make(data.P, tmp_path / "first", **shards)
    answers = data.comparison.ask(data.P, models, test=test, aside=aside)
    corrupted = data.comparison.corrupt(data.P, models, answers, test=test)
    found = data.comparison.measure(data.P, models, answers, corrupted=corrupted, test=test, aside=aside)
    given = {"metrics": found, "predictions": data.comparison.predictions(answers), "pictures": {}, "test": test}
    data.comparison.write(found)

    def publish() -> None:
        data.publication.publish(store.connect(), data.P, models=again, **given)

    for number, request in enumerate(PUBLISHED):
        data.train(client, "cnn")
        again = data.served_.make(data.P, tmp_path / f"served-{number}", **shards)
        monkeypatch.setattr(patience, "SECONDS", 0.2)
        proxy.behave(lost if number % 2 else gone, on=request)
        with pytest.raises(UserError, match="no model is registered by halves; put that right and run this again"):
            publish()
        proxy.behave(faulty_store.ok)
        monkeypatch.setattr(patience, "SECONDS", 9)
        proxy.behave(lost, on=request, times=1)
        publish()
        run_id = data.run_of("cnn")["run_id"]
        [version] = client.search_model_versions(f"run_id = '{run_id}'")
        data.served_form.verify(data.versions_.uri(version), **data.versions_.digests(version))
        [model] = data.served(client, "cnn")
        assert model.status == data.LoggedModelStatus.READY
        for key in [key for key in client.get_run(run_id).data.metrics if key.startswith("test_")]:
            assert len(client.get_metric_history(run_id, key)) == 1, (request, key)
        experiment = data.run_of("cnn")["experiment_id"]
        comparisons = client.search_runs([experiment], "tags.model = 'comparison'")
        assert {each.info.status for each in comparisons} <= {"FINISHED", "KILLED"}, request
        assert len(comparisons) <= 2 * (number + 1)
