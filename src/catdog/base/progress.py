"""Progress of long work, on stderr: a bar in a terminal, a line now and then elsewhere."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")
_SECONDS_BETWEEN_LINES = 15


def track(items: Iterable[T], *, total: int, what: str) -> Iterator[T]:
    """Yield `items` while showing how many of `total` are done."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield from _lines(items, total=total, what=what, console=console)
        return
    with bar(console) as shown:
        yield from shown.track(items, total=total, description=what)


def bar(console: Console) -> Progress:
    """A progress bar in the project's style."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


def _lines(items: Iterable[T], *, total: int, what: str, console: Console) -> Iterator[T]:
    started = last_shown = time.monotonic()
    for count, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last_shown > _SECONDS_BETWEEN_LINES or count == total:
            last_shown = now
            console.print(f"{what}: {count:,} of {total:,}, {now - started:.0f} s", highlight=False, soft_wrap=True)


class EpochBar:
    """Progress of a training: the steps of an epoch as a bar, then the epoch's metrics as a line that stays."""

    def __init__(self, *, total_epochs: int) -> None:
        self._total_epochs = total_epochs
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._what = ""

    def start(self, epoch: int, phase: str, steps: int) -> None:
        self._what = f"epoch {epoch}/{self._total_epochs} {phase}"
        if self._console.is_terminal:
            self._bar = bar(self._console)
            self._task = self._bar.add_task(self._what, total=steps)
            self._bar.start()

    def step(self, batch: int, logs: object = None) -> None:
        if self._bar:
            self._bar.update(self._task, completed=batch + 1)

    def end(self, row: dict[str, float]) -> None:
        if self._bar:
            self._bar.update(self._task, visible=False)
            self._bar.stop()
        self._console.print(
            f"{self._what}: train {row['train_accuracy']:.1%}, val {row['val_accuracy']:.1%}, "
            f"val_loss {row['val_loss']:.4f}, {row['seconds']:.1f} s",
            highlight=False,
            soft_wrap=True,
        )
