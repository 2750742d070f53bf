"""Tracking in a real store: runs that can be found again, and that a kill or a second evaluation does not blur."""

import http.client
import http.server
import json
import os
import socket
import ssl
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import mlflow
import pytest
import requests
from mlflow.exceptions import MlflowException
from training_fixtures import REPOSITORY, params, shard, tracked

from catdog.base import files, paths
from catdog.base.errors import UserError
from catdog.tracking import lineage, links, runs, store

INPUTS = [paths.TRAIN, paths.AUGMENTED_TRAIN, paths.VAL]
DATA = {"source": {"kind": "folder", "path": "/photos", "address": None, "sha256": "ab" * 32}}
HISTORY = REPOSITORY / "plots/history_cnn.csv"
DRAWN = {"source": {"kind": "drawn", "sha256": "cd" * 32}}


@pytest.fixture
def client(tmp_path):
    with tracked(tmp_path) as found:
        for number, path in enumerate([*INPUTS, paths.TEST]):
            shard(path, [number, 9])
        files.write_json(paths.DATA_METRICS, DATA)
        yield found


def training_run(client: mlflow.MlflowClient, *, fingerprint: str = "one", **changes: dict):
    return runs.training(client, params(**changes), "cnn", inputs=INPUTS, fingerprint=fingerprint)


def row(epoch: int) -> dict[str, float]:
    return {"epoch": epoch, "val_loss": 1 / epoch, "val_accuracy": 0.5}


def steps(client: mlflow.MlflowClient, run_id: str, key: str) -> list[int]:
    return [metric.step for metric in client.get_metric_history(run_id, key)]


# ---- the store ------------------------------------------------------------------------------------------------------


def test_runs_are_tracked_in_the_project_unless_another_store_is_named(client, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "data").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / "data")
    assert store.uri() == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://team:5000")
    assert store.uri() == "http://team:5000"


def test_a_copy_that_dvc_made_for_an_experiment_tracks_in_the_project(client, tmp_path, monkeypatch):
    copy = tmp_path / ".dvc/tmp/exps/one"
    copy.mkdir(parents=True)
    (copy / "dvc.yaml").touch()
    monkeypatch.chdir(copy)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert store.uri() == f"sqlite:///{tmp_path}/mlflow.db"
    experiment = client.get_experiment(store.experiment(client, DATA))
    assert experiment.artifact_location == f"{tmp_path}/mlruns/catdog"
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"  # what the UI opens on


def test_two_trainings_may_make_the_experiment_at_the_same_moment(client, monkeypatch):
    first = store.experiment(client, DATA)
    look, seen = client.get_experiment_by_name, []
    monkeypatch.setattr(client, "get_experiment_by_name", lambda name: look(name) if seen else seen.append(name))
    assert store.experiment(client, DATA) == first


def test_outside_a_project_no_empty_store_is_made(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="run from the project's folder, or set MLFLOW_TRACKING_URI"):
        store.connect()
    assert list(tmp_path.iterdir()) == []


class Broken(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_error(503)

    def log_message(self, *args):
        pass


@pytest.fixture(params=["nobody", "silent", "broken"])
def address(request):
    """Of a port where nobody listens, one that never answers, and a server that has only errors."""
    with socket.socket() as listener, http.server.ThreadingHTTPServer(("127.0.0.1", 0), Broken) as server:
        listener.bind(("127.0.0.1", 0))
        if request.param == "silent":
            listener.listen()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield "127.0.0.1:{}".format((server.server_address if request.param == "broken" else listener.getsockname())[1])
        server.shutdown()


def test_a_server_that_does_not_answer_is_told_at_once_and_without_its_password(address, monkeypatch):
    monkeypatch.setattr(store, "_SECONDS_TO_ANSWER", 1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://anna:pa%2Fss@word@{address}")
    before, started = mlflow.get_tracking_uri(), time.monotonic()
    with pytest.raises(UserError) as told:
        store.connect()
    mlflow.set_tracking_uri(before)
    assert time.monotonic() - started < 10
    message = str(told.value)
    assert f"http://{address} does not answer" in message
    assert "unset MLFLOW_TRACKING_URI" in message
    assert not any(secret in message for secret in ("anna", "ss@", "word"))
    assert "\n" not in message


def test_a_certificate_that_is_not_trusted_is_told_in_one_line(tmp_path, monkeypatch):
    certificate = str(tmp_path / "certificate.pem")
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", certificate, "-out", certificate]
    subprocess.run([*made, "-subj", "/CN=localhost"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    monkeypatch.setattr(store, "_SECONDS_TO_ANSWER", 1)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Broken) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"https://anna:secret@127.0.0.1:{server.server_address[1]}")
        before = mlflow.get_tracking_uri()
        with pytest.raises(UserError, match="is not trusted here: for one of an authority") as told:
            store.connect()
        monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
        with pytest.raises(UserError, match="does not answer"):  # as MLflow's own switch has it, but it is broken
            store.connect()
        mlflow.set_tracking_uri(before)
        server.shutdown()
    assert "\n" not in str(told.value)
    assert "secret" not in str(told.value)


@pytest.mark.parametrize("address", ["sqlite:///{folder}/notes.txt", "postgresql://anna:secret@127.0.0.1:9/runs"])
def test_a_database_that_can_not_be_used_is_told_in_one_line(address, tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("not a database, but long enough to be looked at " * 99)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address.format(folder=tmp_path))
    before = mlflow.get_tracking_uri()
    with pytest.raises(UserError, match="can't be used") as told:
        store.connect()
    mlflow.set_tracking_uri(before)
    assert "\n" not in str(told.value)
    assert "secret" not in str(told.value)


# ---- a training's run -----------------------------------------------------------------------------------------------


def test_a_run_says_what_it_was_made_from(client, monkeypatch):
    monkeypatch.setenv("DVC_EXP_NAME", "sunny-cat")
    with training_run(client) as run:
        run.epoch(row(1))
        run.log({"parameters": 12, "seconds": 9.0, "val_loss": 0.5, "policy": "float32"}, history=HISTORY)
    found = client.get_run(run.ids["run_id"])
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    expected = {f"dvc.{path.as_posix()}": files.md5(path) for path in INPUTS}
    expected |= {"git.commit": commit, "git.dirty": "False", "DVC_EXP_NAME": "sunny-cat", "policy": "float32"}
    expected |= {"source.kind": "folder", "source.path": "/photos", "source.sha256": "ab" * 32, "model": "cnn"}
    assert expected.items() <= found.data.tags.items()
    assert "source.address" not in found.data.tags
    assert found.data.params.items() >= {"dropout": "0.2", "prepare.image_size": "32", "augment.variants": "2"}.items()
    expected = {"val_loss": 1.0, "val_accuracy": 0.5, "parameters": 12.0, "train_seconds": 9.0}
    assert found.data.metrics.items() >= expected.items()
    assert found.info.status == "FINISHED"
    inputs = {tag.value: given.dataset.digest for given in found.inputs.dataset_inputs for tag in given.tags}
    assert inputs == {
        name: files.md5(path)[:8] for name, path in zip(("train", "augmented", "val"), INPUTS, strict=True)
    }


def test_changed_knobs_make_the_code_dirty_and_new_results_do_not(client):
    Path("metrics").mkdir(exist_ok=True)
    Path("metrics/data.json").write_text("{}")
    assert lineage.git()["git.dirty"] == "False"
    with Path("params.yaml").open("a") as file:
        file.write("# another\n")
    assert lineage.git()["git.dirty"] == "True"


def test_drawings_and_photographs_have_an_experiment_each(client, monkeypatch):
    def experiment(data: dict) -> str:
        files.write_json(paths.DATA_METRICS, data)
        with training_run(client) as run:
            return client.get_experiment(run.ids["experiment_id"]).name

    names = experiment(DATA), experiment(DRAWN), experiment(DATA)
    assert names[0] == names[2] != names[1]
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    assert experiment(DATA) == "mine"
    client.delete_experiment(client.get_experiment_by_name("mine").experiment_id)
    with pytest.raises(UserError, match="mine is deleted: restore it"):
        experiment(DATA)


def killed(client: mlflow.MlflowClient, *, epochs: int, fingerprint: str = "one") -> runs.TrainingRun:
    """A run as a SIGKILL leaves it: nobody says that it has ended."""
    with suppress(KeyboardInterrupt), training_run(client, fingerprint=fingerprint) as run:
        for epoch in range(1, epochs + 1):
            run.epoch(row(epoch))
        raise KeyboardInterrupt
    client.update_run(run.ids["run_id"], status="RUNNING")
    return run


def test_a_resumed_run_logs_no_step_twice_and_fills_what_is_missing(client):
    first = killed(client, epochs=2)  # epoch 3 was trained, and the kill came before it was logged
    with training_run(client) as second:
        for epoch in (1, 2, 3, 4):
            second.epoch(row(epoch))
    assert second.ids["run_id"] == first.ids["run_id"]
    assert (
        steps(client, first.ids["run_id"], "val_loss")
        == steps(client, first.ids["run_id"], "val_accuracy")
        == [1, 2, 3, 4]
    )
    found = client.get_run(first.ids["run_id"])
    assert found.info.status == "FINISHED"
    assert len(found.inputs.dataset_inputs) == 3
    assert len(client.search_runs([first.ids["experiment_id"]])) == 1
    # It came to its end, so the next one is another.
    with training_run(client) as third:
        pass
    assert third.ids["run_id"] != first.ids["run_id"]


def test_what_was_logged_at_the_end_before_a_kill_is_not_there_twice(client):
    with suppress(KeyboardInterrupt), training_run(client) as first:
        first.log({"seconds": 9.0}, history=HISTORY)
        raise KeyboardInterrupt
    with training_run(client) as second:
        second.log({"seconds": 9.0, "parameters": 5}, history=HISTORY)
    assert second.ids["run_id"] == first.ids["run_id"]
    assert (
        steps(client, first.ids["run_id"], "train_seconds") == steps(client, first.ids["run_id"], "parameters") == [0]
    )


def test_a_run_killed_before_its_params_were_logged_gets_them(client, monkeypatch):
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runs, "_log_params", die)
        with suppress(KeyboardInterrupt):
            training_run(client).__enter__()
    with training_run(client) as run:
        pass
    [only] = client.search_runs([run.ids["experiment_id"]])
    assert only.data.params["dropout"] == "0.2"


def test_a_param_that_the_training_does_not_depend_on_may_change_after_a_kill(client):
    first = killed(client, epochs=1)
    with training_run(client, prepare={"drawings": 40}) as second:
        pass
    assert second.ids["run_id"] == first.ids["run_id"]
    assert client.get_run(first.ids["run_id"]).data.params["prepare.drawings"] == str(params().prepare.drawings)


def test_a_killed_run_that_nobody_goes_on_with_is_ended_as_killed(client):
    first = killed(client, epochs=2)
    with training_run(client, fingerprint="two") as second:
        second.epoch(row(1))
    assert second.ids["run_id"] != first.ids["run_id"]
    assert client.get_run(first.ids["run_id"]).info.status == "KILLED"
    assert steps(client, first.ids["run_id"], "val_loss") == [1, 2]
    assert client.get_run(second.ids["run_id"]).info.status == "FINISHED"


def test_a_failed_run_that_nobody_goes_on_with_stays_failed(client):
    with pytest.raises(UserError), training_run(client) as first:
        raise UserError("it diverged")
    with training_run(client, fingerprint="two"):
        pass
    assert client.get_run(first.ids["run_id"]).info.status == "FAILED"


@pytest.mark.parametrize("fate", ["unknown", "deleted", "damaged"])
def test_a_run_that_can_not_be_resumed_is_replaced(client, fate):
    first = killed(client, epochs=1)
    if fate == "deleted":
        client.delete_run(first.ids["run_id"])
    else:
        text = {"unknown": json.dumps({"fingerprint": "one", "run_id": "0" * 32}), "damaged": '{"finger'}[fate]
        paths.open_run("cnn").write_text(text)
    with training_run(client) as second:
        second.epoch(row(1))
    assert second.ids["run_id"] != first.ids["run_id"]
    assert steps(client, second.ids["run_id"], "val_loss") == [1]


def test_stages_under_mlflow_run_nest_in_its_run(client, monkeypatch):
    parent = client.create_run(client.create_experiment("project"))
    for _ in range(2):
        monkeypatch.setenv("MLFLOW_RUN_ID", parent.info.run_id)
        monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", parent.info.experiment_id)
        with training_run(client) as run:
            assert "MLFLOW_RUN_ID" not in os.environ
            run.epoch(row(1))
        assert run.ids["run_id"] != parent.info.run_id
        assert run.ids["experiment_id"] == parent.info.experiment_id
        assert client.get_run(run.ids["run_id"]).data.tags["mlflow.parentRunId"] == parent.info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", parent.info.run_id)
    with runs.comparison(client, params(), inputs=[paths.TEST]) as comparison:
        pass
    assert client.get_run(comparison).data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert client.get_run(parent.info.run_id).data.metrics == {}


# ---- what an evaluation adds ----------------------------------------------------------------------------------------


def attach(client: mlflow.MlflowClient, trained: dict, digest: str, **values: float) -> None:
    runs.attach(
        client,
        trained["run_id"],
        values,
        model_id=trained["model_id"],
        execution="e1",
        dataset=("test", digest),
    )


@pytest.fixture
def trained(client) -> dict:
    with training_run(client) as run:
        model = mlflow.create_external_model(name="cnn", source_run_id=run.ids["run_id"])
        return {"run_id": run.ids["run_id"], "model_id": model.model_id}


def test_a_value_is_attached_once_to_the_run_and_its_model(client, trained):
    attach(client, trained, "d1", test_accuracy=0.9, test_f1=0.8)
    attach(client, trained, "d1", test_accuracy=0.9, test_f1=0.8)
    assert len(steps(client, trained["run_id"], "test_accuracy")) == 1
    attach(client, trained, "d1", test_accuracy=0.9, test_f1=0.7)
    history = client.get_metric_history(trained["run_id"], "test_f1")
    assert [metric.value for metric in history] == [0.8, 0.7]
    # The same value on other photographs is another one, and so is that of another served form.
    attach(client, trained, "d2", test_accuracy=0.9)
    assert len(steps(client, trained["run_id"], "test_accuracy")) == 2
    other = mlflow.create_external_model(name="cnn", source_run_id=trained["run_id"])
    attach(client, trained | {"model_id": other.model_id}, "d2", test_accuracy=0.9)
    run = client.get_run(trained["run_id"])
    assert run.data.tags["execution.e1"] == "member"
    assert run.info.status == "FINISHED"
    of_model = {(m.key, m.value, m.dataset_digest) for m in client.get_logged_model(trained["model_id"]).metrics}
    assert {("test_accuracy", 0.9, "d1"), ("test_accuracy", 0.9, "d2")} <= of_model
    assert [m.value for m in client.get_logged_model(other.model_id).metrics] == [0.9]


def test_of_a_time_the_first_that_was_measured_stays(client, trained):
    for value in (1.0, 2.0):
        attach(client, trained, "d1", test_milliseconds_per_photograph=value, test_relative_time=value)
    for key in ("test_milliseconds_per_photograph", "test_relative_time"):
        assert [metric.value for metric in client.get_metric_history(trained["run_id"], key)] == [1.0]


@pytest.mark.parametrize("fate", ["unknown", "deleted"])
def test_a_run_that_is_not_in_the_store_is_a_warning(client, trained, capsys, fate):
    run_id = trained["run_id"]
    assert runs.is_here(client, run_id)
    if fate == "deleted":
        client.delete_run(run_id)
    else:
        run_id = "0" * 32
    assert not runs.is_here(client, run_id)
    assert f"warning: run {run_id} is not in sqlite:///" in capsys.readouterr().err


def test_links_lead_into_the_ui(client, trained, monkeypatch):
    page = urlsplit(links.side_by_side("7", ["one", "two"]))
    assert page.netloc == "127.0.0.1:5000"
    question = parse_qs(urlsplit(page.fragment).query)
    assert json.loads(question["runs"][0]) == ["one", "two"]
    assert json.loads(question["experiments"][0]) == ["7"]
    assert "tags.`execution.e1` = 'member'" in unquote(links.curves("7", "e1"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://anna:secret@team.example/mlflow/")
    assert links.side_by_side("7", ["one"]).startswith("https://team.example/mlflow/#/compare-runs?")
    run = client.get_run(trained["run_id"])
    assert links.of_run(client, run.info.run_id).endswith(
        f"/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    )


def test_the_ui_is_entered_where_the_last_comparison_is(client):
    ui = "http://127.0.0.1:5050"
    assert links.latest_curves(client, ui=ui) is None
    for name in ("e1", "e2"):
        with runs.comparison(client, params(), inputs=[paths.TEST]):
            mlflow.set_tag(f"execution.{name}", "comparison")
        time.sleep(0.01)  # runs are ordered by the millisecond
    address = links.latest_curves(client, ui=ui)
    assert address.startswith(f"{ui}/#/experiments/")
    assert "tags.`execution.e2` = 'member'" in unquote(address)


def test_a_server_that_dies_within_an_answer_is_told_whatever_it_raises():
    network = requests.ConnectionError()
    network.__context__ = http.client.IncompleteRead(b"half")  # no OSError, unlike most of what a network raises
    failed = MlflowException("API request failed")
    failed.__context__ = network
    with pytest.raises(UserError, match=r"stopped answering \(ConnectionError\)"), store.answering():
        raise failed
    with pytest.raises(MlflowException, match="refused"), store.answering():
        raise MlflowException("refused")
