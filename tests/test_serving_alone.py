"""`catdog serve` with the packages of requirements-serve.lock alone, as in the container."""

import base64
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import closing, suppress
from pathlib import Path
from typing import IO

import pytest
from conftest import ROOT, jpeg
from registry_fixtures import deployed_twice

pytest_plugins = ["registry_fixtures"]
# A process in which nothing else is installed, as far as it can find out.
ONLY = """
import re, sys
from importlib.metadata import packages_distributions

locked, gone = {*sys.argv.pop(1).split()}, set()
for module, names in packages_distributions().items():
    if locked.isdisjoint(re.sub("[-_.]+", "-", name).lower() for name in names):
        gone.add(module)
gone -= {"catdog", *sys.stdlib_module_names}

class Without:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in gone else self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Without, sys.meta_path)
from catdog.commands import cli
cli.main()
"""


def pinned(lock: str) -> set[tuple[str, str]]:
    """Each package and its version; by the version of Python there may be two."""
    return set(re.findall(r"(?m)^([\w.-]+)==(\S+)", (ROOT / lock).read_text()))


NAMES = {name for name, _ in pinned("requirements-serve.lock")}


def test_the_versions_are_those_that_it_was_tested_with():
    assert pinned("requirements-serve.lock") <= pinned("requirements.lock")
    assert {"tensorflow", "keras", "dvc", "matplotlib", "mlflow"}.isdisjoint(NAMES)


def start(*options: str, out: IO[str]) -> subprocess.Popen:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    command = [sys.executable, "-c", ONLY, " ".join(NAMES), "serve", *options]
    return subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)


@pytest.fixture
def project(store):
    """A project with a local store, in which a DVC that is not there left something damaged."""
    Path("dvc.yaml").write_text("stages: {}\n")
    Path(".dvc/tmp").mkdir(parents=True)
    Path(".dvc/tmp/rwlock").write_text("damaged")
    return store


@pytest.fixture
def address(project, tmp_path):
    """Where the champion is served."""
    deployed_twice(project)
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    said = tmp_path / "said"
    with said.open("w") as out:
        server = start("--port", str(port), out=out)
    try:
        until = time.monotonic() + 60
        while "serving models:/catdog@champion" not in said.read_text():
            assert server.poll() is None, said.read_text()
            assert time.monotonic() < until, said.read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        with suppress(subprocess.TimeoutExpired):
            server.wait(10)
        server.kill()


@pytest.mark.slow
def test_it_answers(address):
    body = {"dataframe_records": [{"image": base64.b64encode(jpeg(1)).decode()}]}
    kind = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/invocations", json.dumps(body).encode(), kind)
    with urllib.request.urlopen(request, timeout=30) as answer:
        [said] = json.load(answer)["predictions"]
    assert said["label"] in ("cat", "dog", "unsure", "neither")
    assert said["model_version"] == "catdog/2"
    with urllib.request.urlopen(f"{address}/metrics", timeout=30) as answer:
        assert b"catdog_photographs_total" in answer.read()


def test_where_there_is_no_champion_mlflow_says_so(project, tmp_path):
    said = tmp_path / "said"
    with said.open("w") as out:
        assert start(out=out).wait(60) == 1
    assert said.read_text().endswith("promote a model first: `catdog promote`\n")
