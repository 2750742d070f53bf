"""What every benchmark needs: arms timed in turns, photographs from the shards, a table and a file of figures."""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import NamedTuple

import machine
from rich.console import Console
from rich.table import Table

from catdog.base import files, paths
from catdog.photographs import shards

RESULTS = Path("bench/results")
PACKAGES = ("tensorflow", "keras", "openvino", "numpy", "opencv-python-headless")


class Figure(NamedTuple):
    """One line of the table.

    `origin` says where it is from: `measured` here, `recorded` by the pipeline, `published` by the recipe's authors,
    `counted`, or `extrapolated` from such figures. A `goal` is met from there up.
    """

    key: str
    what: str
    value: float
    unit: str
    origin: str
    goal: float | None = None


def arguments(description: str, *, rounds: int) -> argparse.Namespace:
    """`--rounds` and `--quick`; the current folder becomes the project's root, on which all its paths rest."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=positive, default=rounds, help="timed rounds, the median counts (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="one round of few photographs, to try it; nothing is kept")
    given = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before anything imports TensorFlow
    os.chdir(paths.root())
    if given.quick:
        given.rounds = 1
    return given


def positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return int(text)


def in_turns(arms: dict[str, Callable[[], object]], *, rounds: int) -> dict[str, list[float]]:
    """Seconds of each arm in each round, after a round that does not count.

    The arms of a round run one after the other, so that what else slows the machine slows all of them.
    """
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    console = Console(stderr=True)
    for number in range(rounds + 1):
        for name, arm in arms.items():
            started = time.perf_counter()
            arm()
            taken = time.perf_counter() - started
            console.print(f"round {number or 'to warm up'}: {name} {taken:.2f} s", highlight=False)
            if number:
                seconds[name].append(taken)
    return seconds


def median_rate(seconds: list[float], count: float) -> float:
    """`count` per second, of the median round."""
    return count / statistics.median(seconds)


def sample(path: Path, count: int, folder: Path, *, per_photograph: int = 1) -> shards.Shard:
    """A shard in `folder` of the first `count` photographs of the one at `path`, each with `per_photograph` rows."""
    whole = shards.Shard(path)
    rows = min(count * per_photograph, len(whole))
    part = folder / f"{path.parent.name}-{path.name}"
    shards.write(part, (whole.row(index) for index in range(rows)))
    return shards.Shard(part)


def write_folders(shard: shards.Shard, folder: Path) -> Path:
    """The photographs as JPEG files in a folder for each class, which is what the public recipes read."""
    for index in range(len(shard)):
        row = shard.row(index)
        path = folder / str(row.label) / f"{index:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(row.image)
    return folder


def leave(name: str, figures: list[Figure], *, notes: list[str], seconds: dict[str, list[float]], quick: bool) -> None:
    """Print the figures as a table, and keep them with what they come from in `RESULTS/name.json`, unless `quick`."""
    described = machine.describe(*PACKAGES)
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    table = Table(title=f"{described['cpu']}, {described['cores']} cores", title_justify="left")
    for column in (f"bench/{name}.py", "value", "unit", "origin", "goal"):
        table.add_column(column, justify="right" if column == "value" else "left")
    for figure in figures:
        table.add_row(figure.what, _short(figure.value), figure.unit, figure.origin, _goal(figure))
    console.print(table)
    for note in notes:
        console.print(f"- {note}", highlight=False)
    if quick:
        console.print("Not kept: --quick is for trying it.")
        return
    out = RESULTS / f"{name}.json"
    found = {"date": date.today().isoformat(), **described, "figures": {f.key: _entry(f) for f in figures}}
    files.write_json(out, {**found, "notes": notes, "seconds": seconds})
    console.print(f"Kept in {out}", highlight=False)


def _goal(figure: Figure) -> str:
    if figure.goal is None:
        return ""
    return f"{figure.goal:g} {'met' if figure.value >= figure.goal else 'missed'}"


def _entry(figure: Figure) -> dict:
    entry = figure._asdict()
    del entry["key"]
    return {key: value for key, value in entry.items() if value is not None}


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
