"""The local store's database: whole, whenever its making is killed."""

import os
import signal
import subprocess
import sys

import pytest
from training_fixtures import REPOSITORY

# MLflow makes its tables by several hundred statements; the process is killed at one of them.
MAKES = """
import os, signal, sys
from sqlalchemy import Engine, event

count = 0

@event.listens_for(Engine, "before_cursor_execute")
def deadly(*_):
    global count
    count += 1
    if count == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)

from catdog.tracking import store
print(count, store.connect().search_experiments()[0].name, count)
"""


def make(folder, at: int) -> subprocess.CompletedProcess:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "DVC_"))}
    env |= {"PYTHONPATH": str(REPOSITORY / "src")}
    return subprocess.run([sys.executable, "-c", MAKES, str(at)], cwd=folder, env=env, capture_output=True, text=True)


@pytest.mark.slow
def test_a_kill_while_it_is_made_leaves_nothing_that_the_next_start_fails_on(tmp_path):
    (tmp_path / "dvc.yaml").touch()
    for at in (3, 40, 150, 400):
        assert make(tmp_path, at).returncode == -signal.SIGKILL
        assert not (tmp_path / "mlflow.db").exists()
    made = make(tmp_path, 0)
    assert made.returncode == 0, made.stderr
    assert made.stdout.split()[1] == "Default"
    assert int(made.stdout.split()[2]) > 400  # so all of the kills were meanwhile
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dvc.yaml", "mlflow.db", "mlflow.db.lock"]
