"""Places at which a training stage can be killed, each a patch of the process that it is to happen in."""

import functools
import json
import os
import runpy
from collections.abc import Callable
from typing import IO

import numpy as np
from training_fixtures import REPOSITORY, kill

from catdog.base.progress import EpochBar
from catdog.tracking import runs


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


def _before_leaving() -> None:
    from catdog.tracking import serving

    log = serving.log_served_model
    serving.log_served_model = lambda **knobs: log(**knobs) and kill()


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
    "before the model is left": _before_leaving,
}


def killed_stage(name: str, where: str) -> None:
    """Run a training stage in the current folder as far as the place called `where`, which it does not survive."""
    KILLS[where]()
    runpy.run_path(str(REPOSITORY / f"src/train_{name}.py"))["main"]()
