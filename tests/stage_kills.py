"""Places at which a training stage can be killed, each a patch of the process that it is to happen in."""

import functools
import json
import os
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import IO

import mlflow
import numpy as np
from training_fixtures import REPOSITORY, kill

from catdog.base import paths
from catdog.base.progress import EpochBar
from catdog.evaluation import suspects
from catdog.tracking import runs
from catdog.training.loop import fitting


def _in_epoch(number: int) -> None:
    start, step = EpochBar.start, EpochBar.step

    def started(self, epoch: int, phase: str, steps: int) -> None:
        self.epoch = epoch
        start(self, epoch, phase, steps)

    def stepped(self, batch: int, logs: object = None) -> None:
        step(self, batch, logs)
        if (self.epoch, batch) == (number, 1):
            kill()

    EpochBar.start, EpochBar.step = started, stepped  # type: ignore[method-assign]


def _in_the_second_seed() -> None:
    start = EpochBar.start

    def started(self, epoch: int, phase: str, steps: int) -> None:
        start(self, epoch, phase, steps)
        if (epoch, phase) == (2, "head, seed 8"):
            kill()

    EpochBar.start = started  # type: ignore[method-assign]


def _before_the_first_epoch() -> None:
    EpochBar.start = lambda *_: kill()  # type: ignore[method-assign]


def _before_logging(number: int) -> None:
    log = runs.TrainingRun.epoch
    runs.TrainingRun.epoch = (  # type: ignore[method-assign]
        lambda self, row: kill() if row["epoch"] == number else log(self, row)
    )


def _while_writing(number: int) -> None:
    savez = np.savez

    def half(file: IO[bytes], **arrays: np.ndarray) -> None:
        savez(file, **arrays)
        if json.loads(str(arrays["fields"]))["state"]["epoch"] == number:
            file.flush()
            os.truncate(file.name, file.tell() // 2)
            kill()

    np.savez = half


def _after_epoch(number: int) -> None:
    epoch = fitting._epoch
    fitting._epoch = lambda *given: (epoch(*given), given[2] == number and kill())[0]


def _when_trained() -> None:
    fit = fitting.fit
    fitting.fit = lambda *given, **knobs: (fit(*given, **knobs), kill())[0]


def _before_leaving() -> None:
    from catdog.training.loop import outcome

    outcome.files.sha256 = lambda path: kill()  # the model is saved, and has not taken its place


def _before_the_run_is_ended() -> None:
    runs.TrainingRun.log = lambda *_, **__: kill()  # type: ignore[method-assign]


def _in_features() -> None:
    from catdog.training.xception import features

    write = features._write
    features._ROWS_PER_FILE = 8
    features._write = lambda *given, **seconds: write(*given, **seconds) or kill()


KILLS: dict[str, Callable[[], None]] = {
    "within features": _in_features,
    "before the first epoch": _before_the_first_epoch,
    "within epoch 2": functools.partial(_in_epoch, 2),
    "before epoch 3 is logged": functools.partial(_before_logging, 3),
    "while the checkpoint of epoch 4 is written": functools.partial(_while_writing, 4),
    "within epoch 5": functools.partial(_in_epoch, 5),
    "when epoch 3 is over": functools.partial(_after_epoch, 3),
    "within the second seed": _in_the_second_seed,
    "when it is trained": _when_trained,
    "before the model is left": _before_leaving,
    "before the run is ended": _before_the_run_is_ended,
}


def _at(owner: object, name: str) -> None:
    """Be killed when `owner.name` has done its work."""
    function = getattr(owner, name)

    def deadly(*given: object, **knobs: object) -> None:
        function(*given, **knobs)
        kill()

    setattr(owner, name, deadly)


def _while_uploading() -> None:
    upload = mlflow.MlflowClient.log_model_artifacts

    def half(client: mlflow.MlflowClient, model_id: str, folder: str) -> None:
        (Path(folder) / "MLmodel").unlink()
        upload(client, model_id, folder)
        kill()

    mlflow.MlflowClient.log_model_artifacts = half  # type: ignore[method-assign]


# Between the first that MLflow hears of a served form and its registered version.
PUBLICATION_KILLS: dict[str, Callable[[], None]] = {
    "when the served form is begun": functools.partial(_at, mlflow.MlflowClient, "create_logged_model"),
    "while its files are uploaded": _while_uploading,
    "when it is ready": functools.partial(_at, mlflow.MlflowClient, "finalize_logged_model"),
    "when it is registered": functools.partial(_at, mlflow, "register_model"),
}


def killed_stage(name: str, where: str) -> None:
    """Run a stage in the current folder as far as the place called `where`, which it does not survive."""
    (KILLS | PUBLICATION_KILLS)[where]()
    # The small models of tests have no features of Xception, from which labels are doubted.
    suspects.find = lambda *_, **__: paths.SUSPECTS_SHEET
    runpy.run_path(str(REPOSITORY / f"src/{name}.py"))["main"]()
