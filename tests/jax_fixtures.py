"""Trainings with Keras on JAX, each in a process of its own: a backend is chosen once in a process."""

import functools
import importlib.util
import json
import os
import socket
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_fixtures import REPOSITORY

needs_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed: make jax")

# The tiny CNN, as the script of a stage trains one.
TRAIN = """
    import json, sys
    import numpy as np
    import training_fixtures
    from catdog.training.loop import hosts, strategies

    class Stop(Exception):
        pass

    def stop():
        raise Stop

    @hosts.together
    def main():
        name, strategy, dropout, start, *after = sys.argv[1:]
        p = training_fixtures.params(train={"strategy": strategy}, train_cnn={"dropout": float(dropout)})
        weights = list(np.load(start).values()) if start else None
        dies = {"after": tuple(map(int, after)), "die": stop} if after else {}
        try:
            model, result, told = training_fixtures.train(p=p, start=weights, **dies)
        except Stop:
            return
        np.savez(name, *model.get_weights())
        training_fixtures.Path(name).with_suffix(".json").write_text(json.dumps({
            "devices": strategies.replicas(model),
            "history": result.history.to_dict("list"),
            "tensorflow": "tensorflow" in sys.modules,
        }))

    main()
"""


def environment(*, backend: str = "jax", devices: int = 1, **more: str) -> dict[str, str]:
    """Variables of a process in which Keras computes with `backend`, on so many devices."""
    inherited = {
        key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "DVC_", "XLA_", "JAX"))
    }
    return {
        **inherited,
        "PYTHONPATH": os.pathsep.join((str(REPOSITORY / "src"), str(REPOSITORY / "tests"))),
        "KERAS_BACKEND": backend,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        # What is compiled once serves all processes of these tests.
        "JAX_COMPILATION_CACHE_DIR": _compiled().name,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        **more,
    }


@functools.cache
def _compiled() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory()


def hosts(number: int) -> list[dict[str, str]]:
    """The variables by which as many processes of this machine find each other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    return [
        {
            "JAX_COORDINATOR_ADDRESS": address,
            "JAX_COORDINATOR_BIND_ADDRESS": address,
            "JAX_NUM_PROCESSES": str(number),
            "JAX_PROCESS_ID": str(process),
        }
        for process in range(number)
    ]


def started(folder: Path, code: str, *arguments: str, env: dict[str, str]) -> subprocess.Popen:
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    return subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen, *, status: int = 0) -> str:
    """What a process has said, which should end with this status."""
    try:
        said = "\n".join(process.communicate(timeout=900))
    except subprocess.TimeoutExpired:
        process.kill()
        said = "\n".join(process.communicate())
        pytest.fail(f"it does not end:\n{said}")
    assert process.returncode == status, said
    return said


def train(
    folder: Path,
    name: str,
    *,
    strategy: str = "auto",
    dropout: float = 0.3,
    start: str = "",
    after: Any = (),
    **env: Any,
) -> dict[str, Any]:
    """Train the tiny CNN in `folder`: its `weights`, `history`, `devices`, and whether `tensorflow` was imported."""
    arguments = (name, strategy, str(dropout), start, *map(str, after))
    ended(started(folder, TRAIN, *arguments, env=environment(**env)))
    return {} if after else left(folder, name)


def left(folder: Path, name: str) -> dict[str, Any]:
    with np.load(folder / f"{name}.npz") as weights:
        return json.loads((folder / f"{name}.json").read_text()) | {"weights": list(weights.values())}


def assert_same(ours: dict[str, Any], theirs: dict[str, Any], *, within: float) -> None:
    """Two trainings came to the same: weights, and what their histories say, but for times."""
    for key in ("epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate"):
        np.testing.assert_allclose(ours["history"][key], theirs["history"][key], rtol=0, atol=within, err_msg=key)
    for mine, reference in zip(ours["weights"], theirs["weights"], strict=True):
        np.testing.assert_allclose(mine, reference, rtol=0, atol=within * max(1, np.abs(reference).max()))
