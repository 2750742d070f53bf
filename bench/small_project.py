"""A small project in a folder of its own: drawings, tiny networks, its own code and store; the real stages by DVC."""

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import harm
import yaml

from catdog.base.errors import UserError

ROOT = Path(__file__).parents[1]
_NOT_COPIED = ("bench/", "docs/", "plots/", "metrics/", "reports/", "tests/", "dvc.lock")
_KNOBS: dict[str, dict] = {
    "prepare": {"source": "drawn", "drawings": 90, "image_size": 64, "val_fraction": 0.2, "test_fraction": 0.3},
    "train_cnn": {"filters": [4, 6], "image_sizes": [16, 24], "epochs": [6, 8], "patience": 8, "batch_size": 8},
    "train_xception": {"image_size": 71, "hidden": 8, "epochs": 12, "patience": 12, "batch_size": 8},
    "evaluate": {"bootstrap": 100, "corrupted": 4},
}
_STAGE = re.compile(r"Running stage '(\w+)'")


class Ended(NamedTuple):
    """A `dvc repro` that came to its end or was killed: how, after how long, and when each stage began (seconds)."""

    killed: bool
    seconds: float
    begun: dict[str, float]


class Project:
    """The project in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        temporary = folder.parent / "temporary"  # what a kill leaves in it goes with the rest
        temporary.mkdir(exist_ok=True)
        mine = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "DVC_"))}
        self.env = mine | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(folder / "src"),
            "TMPDIR": str(temporary),
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }

    def copy(self, folder: Path) -> "Project":
        return Project(shutil.copytree(self.folder, folder, symlinks=True))

    def remove(self) -> None:
        shutil.rmtree(self.folder)

    def run(self, *command: str | Path) -> str:
        """What a command says.

        Raises:
            UserError: it fails.
        """
        done = subprocess.run(command, cwd=self.folder, env=self.env, capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"{' '.join(map(str, command[-3:]))} failed: {(done.stdout + done.stderr).strip()[-800:]}")
        return done.stdout

    def repro(self, *, kill_after: float | None = None) -> Ended:
        """What `make run` does of the pipeline, killed with all its children after so many seconds.

        Raises:
            UserError: it fails by itself, or a child outlives the kill.
        """
        self.run(sys.executable, "-m", "catdog", "mend")
        said: list[str] = []
        begun: dict[str, float] = {}
        started = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "dvc", "repro"],
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

        def listen() -> None:
            for line in process.stdout or ():
                said.append(line)
                if match := _STAGE.search(line):
                    begun[match[1]] = time.monotonic() - started

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        killed = harm.kill_after(process, 3600 if kill_after is None else kill_after)
        seconds = time.monotonic() - started
        listener.join(30)
        if listener.is_alive():
            raise UserError(f"a child outlived the kill of dvc repro in {self.folder}")
        if process.returncode and not killed:
            errors = [line.strip() for line in said if line.startswith("error: ")]
            raise UserError(f"dvc repro failed: {errors[-1] if errors else ''.join(said)[-2000:]}")
        return Ended(killed, seconds, begun)


def make(folder: Path) -> Project:
    """A project of which no stage has run, and beside it the random weights of its Xception."""
    project = folder / "project"
    for name in _git("ls-files", "-co", "--exclude-standard").splitlines():
        if not name.startswith(_NOT_COPIED) and (ROOT / name).is_file():
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, project / name)
    weights = folder / "own.weights.h5"
    _save_weights(weights)
    knobs = yaml.safe_load((project / "params.yaml").read_text())
    for section, changes in _KNOBS.items():
        knobs[section] |= changes
    knobs["train_xception"]["weights"] = str(weights)
    (project / "params.yaml").write_text(yaml.safe_dump(knobs, sort_keys=False))
    made = Project(project)
    name = ("-c", "user.name=bench", "-c", "user.email=bench@example.org")
    for command in (["init", "-q"], ["add", "-A"], [*name, "commit", "-qm", "start"]):
        made.run("git", *command)
    return made


def _git(*command: str) -> str:
    return subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def _save_weights(path: Path) -> None:
    import keras

    keras.utils.set_random_seed(3)
    shape = (71, 71, 3)
    keras.applications.Xception(include_top=False, weights=None, pooling="avg", input_shape=shape).save_weights(path)
