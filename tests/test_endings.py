"""Who ends a server ends all of it: no process, port or temporary folder stays, whichever signal it was."""

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import cv2
import keras
import mlflow
import numpy as np
import psutil
import pytest
from registry_fixtures import log_served
from served_fixtures import make
from training_fixtures import REPOSITORY, params

from catdog.base import files
from catdog.tracking import registry
from catdog.training.cnn import network

SAYS = {"ui": "", "serve": "serving models:/catdog-cnn/1 on http://127.0.0.1:", "demo": "the page: http://127.0.0.1:"}
PATHS = {"ui": "/health", "serve": "/ping", "demo": "/samples/7"}  # which answer once it runs
OPTIONS = {"ui": [], "serve": ["--model", "models:/catdog-cnn/1"], "demo": []}
SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A project with a version of both models."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(REPOSITORY / name, folder)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    experiment = mlflow.create_experiment("catdog", artifact_location=str(folder / "artifacts"))
    client = mlflow.MlflowClient()
    keras.utils.set_random_seed(1)
    network.cnn(params().train_cnn, image_size=24).save(folder / "model.keras")
    made = make(folder / "model.keras", folder / "answers")
    for model in ("cnn", "xception"):
        model_id, run_id = log_served(made, experiment=experiment)
        served = client.get_logged_model(model_id).tags["served_sha256"]
        tags = {"model_sha256": files.sha256(folder / "model.keras"), "served_sha256": served}
        registry.register(client, model, model_id=model_id, run_id=run_id, tags=tags, metrics={}, description="")
    mlflow.set_tracking_uri(before)
    return folder


class Command:
    """A started `catdog ui`, `serve` or `demo`."""

    def __init__(self, name: str, project: Path, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.name, self.mark, self.temporary, self.out = name, uuid.uuid4().hex, folder / "tmp", folder / "out"
        self.temporary.mkdir()
        with self.out.open("w") as out:
            self.process = psutil.Popen(
                [sys.executable, "-m", "catdog", name, *OPTIONS[name], "--port", str(self.port)],
                env={
                    **{key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")},
                    "MLFLOW_TRACKING_URI": f"sqlite:///{project}/mlflow.db",
                    "TMPDIR": str(self.temporary),
                    "CATDOG_TEST": self.mark,
                },
                cwd=project,
                stdout=out,
                stderr=subprocess.STDOUT,
                preexec_fn=_heed,
            )

    def wait_for(self, condition: Callable[[], bool]) -> None:
        until = time.monotonic() + 60
        while not condition():
            assert self.process.poll() is None, self.out.read_text()
            assert time.monotonic() < until, self.out.read_text()
            time.sleep(0.05)

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(f"GET {PATHS[self.name]} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
                return connection.recv(8) == b"HTTP/1.1"
        except OSError:
            return False

    def processes(self) -> list[psutil.Process]:
        """All that it started, and itself, by what they inherited: also those whose parent is gone."""
        started = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("CATDOG_TEST") == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    started.append(process)
            except (psutil.AccessDenied, psutil.NoSuchProcess, OSError):
                continue
        return started

    def left(self) -> tuple[list[psutil.Process], bool, list[str]]:
        """What is still there: processes, the port, temporary folders."""
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken = probe.connect_ex(("127.0.0.1", self.port)) == 0
        return self.processes(), taken, sorted(path.name for path in self.temporary.iterdir())

    def kill(self) -> None:
        for process in self.processes():
            process.kill()
        self.process.wait(10)


def _heed() -> None:
    # Whoever runs the tests in the background has them ignore SIGINT, and their children too.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture
def started(project, tmp_path):
    """`started(name)`: a command, killed in the end whatever happens."""
    commands: list[Command] = []

    def start(name: str) -> Command:
        commands.append(Command(name, project, tmp_path))
        return commands[-1]

    yield start
    for command in commands:
        command.kill()


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("name", SAYS)
def test_a_signal_ends_a_server_and_all_that_it_began(started, name, number):
    command = started(name)
    command.wait_for(command.answers)
    assert SAYS[name] in command.out.read_text()
    assert command.process in command.processes()
    command.process.send_signal(number)
    status = command.process.wait(10)
    processes, taken, temporary = command.left()
    assert (processes, taken) == ([], False)
    # TensorFlow keeps a file of its own while it runs.
    assert [name for name in temporary if number != signal.SIGKILL or not name.startswith("__autograph")] == []
    if number != signal.SIGKILL and name != "ui":
        assert (status, "Traceback" in command.out.read_text()) == (0, False)


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS[:3], ids=lambda number: number.name)
@pytest.mark.parametrize("name", ["serve", "demo"])
def test_one_that_is_ended_while_it_loads_removes_the_model_that_it_fetched(started, name, number):
    command = started(name)
    command.wait_for(lambda: any(command.temporary.rglob("model.keras")))
    command.process.send_signal(number)
    status = command.process.wait(30)
    # Loading takes so little that it may have answered by then; it ends as a server does if so, and only then.
    assert status == (0 if SAYS[name] in command.out.read_text() else 128 + number)
    assert command.left() == ([], False, [])


@pytest.mark.slow
def test_one_that_is_busy_does_not_stay_for_that(started):
    """Nothing interrupts a photograph's decoding, and nobody waits for the answer."""
    large = np.zeros((7999, 7999, 3), np.uint8)
    large[::2] = 200
    image = base64.b64encode(cv2.imencode(".png", large)[1].tobytes()).decode()
    body = json.dumps({"dataframe_records": [{"image": image}] * 30}).encode()
    command = started("serve")
    command.wait_for(command.answers)
    with socket.create_connection(("127.0.0.1", command.port)) as connection:
        head = "POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        time.sleep(2)
        command.process.send_signal(signal.SIGTERM)
        assert command.process.wait(10) == 0
    assert command.left() == ([], False, [])


def test_the_ui_is_one_process_that_does_what_it_is_told(started, project):
    command = started("ui")
    command.wait_for(command.answers)
    [process] = command.processes()  # neither a child, nor the seven that wait for jobs
    assert process.pid == command.process.pid
    environment = process.environ()
    assert environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert environment["_MLFLOW_SERVER_FILE_STORE"] == f"sqlite:///{project}/mlflow.db"
    command.process.terminate()
    command.process.wait(10)
    assert command.left() == ([], False, [])
