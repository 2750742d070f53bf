"""What Dask costs on one machine: prepare, features and predictions beside this project's own processes and threads.

Whole commands are timed, with the start of processes and of Dask (CATDOG_CLUSTER=local). Then photographs are checked
by one worker, two and eight (more than there are cores), and ten times as many by two, whose memory is watched.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

import common
import dask_here
import psutil
import zipped
from common import Figure

from catdog.base import cluster, parallel, params, paths
from catdog.base.errors import UserError, run
from catdog.preparation import inspection, sources

GOAL = 0.91  # within 10 % of the wall time
WORKERS = (1, 2, 8)
MODEL = "models:/catdog-cnn/1"
WAYS = {"here": "", "dask": cluster.LOCAL}
SECONDS_BETWEEN_LOOKS = 0.05
KILLS = 30


def main() -> None:
    if sys.argv[1:2] == ["--features"]:
        features(int(sys.argv[2]))
        return
    given = zipped.arguments(__doc__, default="cats-and-dogs-20k.zip", rounds=3)
    p = params.load()
    counts = {"features": 64, "predict": 200} if given.quick else {"features": 1000, "predict": 5000}
    with tempfile.TemporaryDirectory(prefix="catdog-bench-") as name:
        folder = Path(name)
        raw = folder / "project" / paths.RAW
        counts["prepare"] = zipped.thin_out(given.zip, raw / "photographs.zip", every=100 if given.quick else 1)
        shutil.copy(paths.PARAMS, folder / "project")
        asked = folder / "asked.zip"
        counts["predict"] = zipped.thin_out(given.zip, asked, every=counts["prepare"] // counts["predict"])
        commands = {
            "prepare": [sys.executable, str(Path.cwd() / "src/prepare.py")],
            "features": [sys.executable, str(Path(__file__).resolve()), "--features", str(counts["features"])],
            "predict": ["catdog", "predict", str(asked), "--model", MODEL, "--out", str(folder / "answers.csv")],
        }
        where = {"prepare": folder / "project"}
        arms = {
            f"{step}, {way}": partial(command, commands[step], address=address, cwd=where.get(step, Path.cwd()))
            for step in commands
            for way, address in WAYS.items()
        }
        seconds = common.in_turns(arms, rounds=given.rounds)
        files = sources.list_files(raw, p.base.classes)
        settings = inspection.Settings(p.prepare.image_size, p.prepare.min_side, p.prepare.max_megapixels)
        rates = {workers: rate(files, settings, workers, folder=folder) for workers in WORKERS}
        alone = timed(files, settings, workers=1)
        lost = killed(files, settings, folder=folder, count=2 if given.quick else KILLS)
        memory = {times: watched(files * times, settings, folder=folder) for times in (1, 1 if given.quick else 10)}

    figures = []
    for step in commands:
        here, there = (statistics.median(seconds[f"{step}, {way}"]) for way in WAYS)
        figures += [
            Figure(f"{step}_here", f"{step}, {counts[step]:,} photographs", here, "s", "measured"),
            Figure(f"{step}_dask", "on Dask", there, "s", "measured"),
            Figure(f"{step}_ratio", "without Dask, of the time with it", here / there, "of 1", "measured", goal=GOAL),
        ]
    figures.append(Figure("alone", "checking, one process of ours", len(files) / alone, "photographs/s", "measured"))
    for workers, found in rates.items():
        more = " (more than cores)" if workers > parallel.cores() else ""
        figures.append(Figure(f"workers_{workers}", f"{workers} workers{more}", found, "photographs/s", "measured"))
    for times, (scheduler, worker) in memory.items():
        for name, found in (("scheduler", scheduler), ("worker", worker)):
            what = f"{name}, at most, {times * len(files):,} photographs"
            figures.append(Figure(f"{name}_{times * len(files)}", what, found, "MB", "measured"))
    figures.append(Figure("lost", f"photographs lost or doubled in {KILLS} kills of workers", lost, "", "counted"))
    notes = ["MB = 10^6 bytes, private; of the workers the largest."]
    common.leave("cluster", figures, notes=notes, seconds=seconds, quick=given.quick)


def command(arguments: list[str], *, address: str, cwd: Path) -> None:
    environment = os.environ | {cluster.ADDRESS: address}
    done = subprocess.run(arguments, cwd=cwd, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{' '.join(arguments)} failed: {done.stderr.strip()[-500:]}")


def features(count: int) -> None:
    """Compute the features of so many training photographs, and keep none."""
    from catdog.training.xception import features, weights

    size = params.load().train_xception.image_size
    model, _ = weights.load_xception("imagenet", image_size=size)
    with tempfile.TemporaryDirectory() as name:
        train = common.sample(paths.TRAIN, count, Path(name))
        digest = weights.digest(model)
        found = features.extract(
            [train], model=model, weights_digest=digest, image_size=size, folder=Path(name), keep=False
        )
    if len(found.rows) != count:
        raise UserError(f"{len(found.rows)} of {count} features")


def timed(files: list, settings: inspection.Settings, *, workers: int | None = None) -> float:
    """Seconds to check all files."""
    started = time.perf_counter()
    count = sum(1 for _ in inspection.inspect(files, settings, workers=workers))
    if count != len(files):
        raise UserError(f"{count} of {len(files)} photographs came back")
    return time.perf_counter() - started


def rate(files: list, settings: inspection.Settings, workers: int, *, folder: Path) -> float:
    """Photographs per second on a cluster that is there already."""
    with dask_here.started(folder, workers=workers):
        cluster.connection().wait_for_workers(workers, timeout=60)
        timed(files[: len(files) // 10], settings)  # workers import what they need
        return len(files) / timed(files, settings)


def killed(files: list, settings: inspection.Settings, *, folder: Path, count: int) -> int:
    """How many findings differ from those without a cluster, while `count` workers are killed."""
    expected = [finding.source for finding in inspection.inspect(files, settings)]
    wrong = 0
    with (
        dask_here.started(folder, workers=2, allowed_failures=100) as dask,
        dask_here.killing(dask, count=count) as end,
    ):
        while not end.is_set():
            found = [finding.source for finding in inspection.inspect(files, settings)]
            wrong += abs(len(found) - len(expected)) + sum(a != b for a, b in zip(found, expected, strict=False))
    return wrong


def watched(files: list, settings: inspection.Settings, *, folder: Path) -> tuple[float, float]:
    """Most memory of the scheduler, and of any of two workers, MB."""
    ended = threading.Event()
    most = [0.0, 0.0]

    def look() -> None:
        while not ended.wait(SECONDS_BETWEEN_LOOKS):
            for place, pids in enumerate(([found.scheduler.pid], found.working())):
                most[place] = max([most[place], *map(private, pids)])

    with dask_here.started(folder, workers=2) as found:
        watch = threading.Thread(target=look)
        watch.start()
        try:
            timed(files, settings)
        finally:
            ended.set()
            watch.join()
    return most[0], most[1]


def private(pid: int) -> float:
    memory = psutil.Process(pid).memory_info()
    return (memory.rss - memory.shared) / 1e6


if __name__ == "__main__":
    run(main)
