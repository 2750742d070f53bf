"""Promotion, rollback and their accidents through a real MLflow server, on sqlite and on PostgreSQL."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from registry_fixtures import BETTER, GOOD, Store, at_once, check_consistent, deployed_twice, log_models

from catdog.base.errors import UserError
from catdog.tracking import deployments, patience, promotion, registry, trace
from catdog.tracking import store as mlflow_store

pytestmark = pytest.mark.slow
DEBIANS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def postgresql_program(name: str) -> str:
    """Where it is; Debian keeps it off the PATH. Skips the test where there is none."""
    found = shutil.which(name, path=os.pathsep.join([*map(str, DEBIANS), os.environ["PATH"]]))
    return found or pytest.skip(f"no PostgreSQL on this machine: {name} is neither on the PATH nor in {DEBIANS}")


@contextlib.contextmanager
def postgresql_server(folder: Path, log: Path) -> Iterator[int]:
    """The port of a PostgreSQL of our own on loopback, in the new `folder`, with the superuser postgres."""
    initdb, pg_ctl = map(postgresql_program, ("initdb", "pg_ctl"))
    # It refuses to run as root, and another user does not get into root's temporary folders.
    user = "nobody" if os.getuid() == 0 else None
    port = free_port()
    folder.mkdir(mode=0o700)
    if user:
        shutil.chown(folder, user)

    def run(*command: str) -> None:
        # To a file: the server inherits the output, and a pipe would never end.
        with log.open("a+") as said:
            done = subprocess.run(command, cwd="/", user=user, stdout=said, stderr=said, env={"LC_ALL": "C"})
            said.seek(0)
            assert done.returncode == 0, said.read()

    try:
        run(initdb, "-D", str(folder / "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
        run(pg_ctl, "-D", str(folder / "data"), "-w", "-o", options, "start")
        try:
            yield port
        finally:
            run(pg_ctl, "-D", str(folder / "data"), "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory) -> Iterator[str]:
    """The address of a database in a PostgreSQL that keeps nothing."""
    createdb = postgresql_program("createdb")
    folder = Path("/tmp") / f"catdog-postgresql-{os.getpid()}"
    with postgresql_server(folder, tmp_path_factory.getbasetemp() / "postgresql.log") as port:
        subprocess.run([createdb, "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "runs"], check=True)
        yield f"postgresql://postgres@127.0.0.1:{port}/runs"


class Server:
    """`mlflow server` on loopback, which can be killed and started again at the same address."""

    def __init__(self, folder: Path, database: str) -> None:
        port = free_port()
        self.address, self._log = f"http://127.0.0.1:{port}", folder / "server.log"
        self._command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
        self._command += ["--workers", "1", "--backend-store-uri", database]
        self._command += ["--artifacts-destination", str(folder / "artifacts")]
        self.start()

    def start(self) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        with self._log.open("a") as said:
            self._process = subprocess.Popen(
                self._command,
                env={**environment, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        for _ in range(240):
            time.sleep(0.5)
            assert self._process.poll() is None, self._log.read_text()
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.address}/health", timeout=5)
                return
        pytest.fail(f"the server did not answer: {self._log.read_text()}")

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=30)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def started(request, tmp_path_factory) -> Iterator[tuple[Server, Store]]:
    folder = tmp_path_factory.mktemp(request.param)
    sqlite = request.param == "sqlite"
    database = f"sqlite:///{folder}/mlflow.db" if sqlite else request.getfixturevalue("postgresql")
    before = mlflow.get_tracking_uri()
    server = Server(folder, database)
    try:
        mlflow.set_tracking_uri(server.address)
        yield server, Store(*log_models(folder))
    finally:
        server.kill()
        mlflow.set_tracking_uri(before)


@pytest.fixture
def served(started, tmp_path, monkeypatch) -> Iterator[tuple[Server, Store]]:
    """The server with nothing registered, and the registry's commands on it."""
    server, store = started
    monkeypatch.chdir(tmp_path)
    # By default MLflow tries for minutes to reach a server again.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    store.used = 0
    yield server, store
    for model in store.client.search_registered_models():
        store.client.delete_registered_model(model.name)


def test_promotion_and_rollback(served, tmp_path):
    _, store = served
    deployed_twice(store)
    check_consistent(store)
    at_once(*[lambda: promotion.rollback(MlflowClient(), why="two at once", to=1)] * 2)
    assert store.aliases() == {"champion": 1, "previous": 2}
    assert [row.alias for row in promotion.history(store.client)] == ["champion", "previous", ""]
    assert registry.load(store.client, "catdog@champion").side == 32
    links = trace.trace(store.client, "catdog@champion", root=tmp_path)
    assert [link.ok for link in links[:5]] == [True] * 5
    with pytest.raises(UserError, match="no catdog/9"):
        store.rollback(to=9)
    with pytest.raises(UserError, match="no version with the alias nobody"):
        registry.load(store.client, "catdog@nobody")


def test_rollback_to_a_deleted_version(served):
    _, store = served
    deployed_twice(store)
    store.client.delete_model_version("catdog", "1")
    with pytest.raises(UserError, match="no catdog/1: it was deleted"):
        store.rollback(to=1)
    with pytest.raises(UserError, match="no previous champion"):
        store.rollback()
    assert store.aliases() == {"champion": 2}


@pytest.mark.parametrize("machines", [1, 2], ids=["one machine", "two machines"])
def test_two_promotions_at_the_same_moment(served, monkeypatch, machines):
    _, store = served
    store.register(probabilities=GOOD)
    store.promote()
    store.register(probabilities=BETTER)
    if machines == 2:  # the lock is of one machine
        monkeypatch.setattr(deployments, "exclusive", lambda client: contextlib.nullcontext())
    outcomes = at_once(*[lambda: store.promote("catdog-cnn/2", client=MlflowClient())] * 2)
    assert None not in outcomes, "one of the two failed with something else than a line for the user"
    done = [outcome for outcome in outcomes if isinstance(outcome, promotion.Promotion)]
    assert len(done) <= 1
    monkeypatch.undo()
    if not done:  # each saw the other and stood back
        store.promote("catdog-cnn/2")
    assert store.client.get_model_version_by_alias("catdog", "champion").source == "models:/catdog-cnn/2"
    promotion.history(store.client)
    check_consistent(store)


class Mortal:
    """A client whose server is killed in place of the first change that is called `last`."""

    def __init__(self, client: MlflowClient, server: Server, last: str) -> None:
        self._client, self._server, self._last = client, server, last

    def __getattr__(self, name: str):
        if name == self._last:
            self._server.kill()
        return getattr(self._client, name)


@pytest.mark.parametrize(
    "moment", ["copy_model_version", "set_tag", "set_registered_model_alias"], ids=["copy", "claim", "alias"]
)
def test_a_server_that_dies_in_the_middle_of_a_promotion(served, monkeypatch, moment):
    server, store = served
    store.register(probabilities=GOOD)
    store.promote()
    store.register(probabilities=BETTER)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://anna:secret@{server.address.removeprefix('http://')}")
    try:
        with pytest.raises(UserError, match="stopped answering") as told, mlflow_store.answering():
            store.promote(client=Mortal(store.client, server, moment))
    finally:
        server.kill()
        server.start()
        patience.install()  # the next command is another process
    assert "\n" not in str(told.value)
    assert "secret" not in str(told.value)
    assert store.aliases()["champion"] in (1, 2)
    assert registry.load(store.client, "catdog@champion").side == 32
    promotion.history(store.client)  # finishes what had begun
    if moment != "set_registered_model_alias":  # nothing had
        assert store.aliases() == {"champion": 1}
        store.promote()
    assert store.client.get_model_version_by_alias("catdog", "champion").source == "models:/catdog-cnn/2"
    check_consistent(store)
