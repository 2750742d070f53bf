"""Photographs per second: prepare, a Pillow loop, and iterating keras.utils.image_dataset_from_directory.

All three meet the same files, in the page cache, at the size of params.yaml, in turns. Prepare is timed from listing
the files to the written shards. The Pillow loop opens, verifies, shrinks and saves as JPEG, and is timed as a whole.
Both start their worker processes anew in every round, within their time. Keras decodes and shrinks, and writes nothing.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import common
import pillow_loop
import zipped
from common import Figure
from PIL import __version__ as pillow_version

from catdog.base import parallel, params
from catdog.base.errors import UserError, run
from catdog.photographs import shards
from catdog.preparation import duplicates, inspection, sources, splits

PHOTOGRAPHS = 6_000
GOALS = {"pillow": 2, "keras": 1}


def main() -> None:
    given = zipped.arguments(__doc__, default="cats-and-dogs-originals-600.zip", rounds=5)
    p = params.load()
    size, cores = p.prepare.image_size, parallel.cores()
    count = 600 if given.quick else PHOTOGRAPHS
    phases: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="catdog-bench-") as folder:
        raw, out = Path(folder) / "raw", Path(folder) / "out"
        out.mkdir()
        zipped.unpack(given.zip, raw, count=count)
        arms: dict[str, Callable[[], object]] = {
            "prepare": lambda: phases.append(prepare(raw, out, p, count=count)),
            "pillow": partial(pillow, raw, out, size=size),
            "keras": keras_arm(raw, size=size),
        }
        seconds = common.in_turns(arms, rounds=given.rounds)

    phase = {key: statistics.median(each[key] for each in phases[1:]) for key in phases[0]}  # the first one warms up
    rates = {name: common.median_rate(taken, count) for name, taken in seconds.items()}
    shown = {"prepare": "prepare", "pillow": f"Pillow loop, {cores} processes", "keras": "image_dataset_from_directory"}
    figures = [
        *(Figure(name, f"{shown[name]}, {size} px", rate, "photographs/s", "measured") for name, rate in rates.items()),
        *(
            Figure(f"against_{name}", f"prepare against {name}", rates["prepare"] / rates[name], "x", "measured", goal)
            for name, goal in GOALS.items()
        ),
        Figure("inspecting", "prepare, inspecting", phase["inspecting"], "s", "measured"),
        Figure("grouping", "prepare, finding near duplicates", phase["grouping"], "s", "measured"),
        Figure("writing", "prepare, writing shards", phase["writing"], "s", "measured"),
        Figure("busy", "cores kept busy while inspecting", phase["busy"], "of 1", "measured"),
    ]
    notes = [
        f"{count:,} files: the zip's, over and over, each copy with bytes of its own.",
        "So nearly every photograph has near duplicates, and finding them takes longer than it does with a person's.",
        f"Pillow {pillow_version}. Imports of the stage itself are not timed, those of worker processes are.",
    ]
    common.leave("prepare", figures, notes=notes, seconds=seconds, quick=given.quick)


def prepare(raw: Path, out: Path, p: params.Params, *, count: int) -> dict[str, float]:
    """The stage, from listing the files to the shards; returns the seconds of its parts, and how busy cores were."""
    spool = out / ".spool.arrow"
    cpu, started = cpu_seconds(), time.perf_counter()
    met = sources.list_files(raw, p.base.classes)
    settings = inspection.Settings(p.prepare.image_size, p.prepare.min_side, p.prepare.max_megapixels)
    findings = inspection.spool(inspection.inspect(met, settings), spool)
    inspected, cpu = time.perf_counter(), cpu_seconds() - cpu
    duplicates.resolve(findings, spool=spool, classes=p.base.classes, likeness=p.prepare.near_duplicates)
    shares = {"val_fraction": p.prepare.val_fraction, "test_fraction": p.prepare.test_fraction}
    splits.assign(findings, seed=p.base.seed, **shares)
    grouped = time.perf_counter()
    splits.write(findings, shards.Shard(spool), out, rows_per_file=p.prepare.shard_photographs)
    if len(findings) != count or not any(finding.split for finding in findings):
        raise UserError(f"{len(findings)} of {count} photographs came out of prepare")
    return {
        "inspecting": inspected - started,
        "grouping": grouped - inspected,
        "writing": time.perf_counter() - grouped,
        "busy": cpu / (inspected - started) / parallel.cores(),
    }


def cpu_seconds() -> float:
    """Of this process, and of its children that have ended: worker processes have, when all is inspected."""
    return sum(os.times()[:4])


def pillow(raw: Path, out: Path, *, size: int) -> None:
    """The loop, and the start of its processes, which import Pillow and nothing else."""
    shrink = partial(pillow_loop.shrink, out=out, size=size)
    with ProcessPoolExecutor(parallel.cores(), mp_context=get_context("spawn")) as pool, parallel.main_unnoticed():
        list(pool.map(shrink, sorted(raw.glob("*/*")), chunksize=32))


def keras_arm(raw: Path, *, size: int) -> Callable[[], None]:
    from keras.utils import image_dataset_from_directory

    def iterate() -> None:
        for _ in image_dataset_from_directory(raw, image_size=(size, size), batch_size=32, verbose=False):
            pass

    return iterate


if __name__ == "__main__":
    run(main)
