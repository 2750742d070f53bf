"""What it costs to ask once: CPU seconds, wall time and the most memory of `catdog predict` on one photograph.

Each is a process of its own, from start to end. Needs the models of a run of the pipeline, in the registry.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common
import zipped
from common import Figure

from catdog.base.errors import UserError, run
from catdog.tracking import store, versions


def main() -> None:
    given = zipped.arguments(__doc__, default="cats-and-dogs-originals-600.zip", rounds=5)
    client = store.connect()
    figures, walls = [], {}
    with tempfile.TemporaryDirectory(prefix="catdog-bench-") as folder:
        zipped.unpack(given.zip, Path(folder), count=1)
        [photograph] = Path(folder).glob("*/*")
        arms = {"help": ["--help"]}
        for name, registered in versions.NAMES.items():
            newest = max(versions.of(client, registered), key=lambda version: int(version.version))
            arms[f"predict, {name}"] = ["predict", str(photograph), "--model", versions.uri(newest)]
        for arm, arguments in arms.items():
            runs = [_run(arguments) for _ in range(given.rounds + 1)][1:]
            cpu, wall, peak = (statistics.median(column) for column in zip(*runs, strict=True))
            walls[arm] = [each[1] for each in runs]
            figures += [
                Figure(f"{arm}_cpu", f"catdog {arm}, CPU", cpu, "s", "measured"),
                Figure(f"{arm}_wall", f"catdog {arm}, wall", wall, "s", "measured"),
                Figure(f"{arm}_memory", f"catdog {arm}, most memory", peak, "MB", "measured"),
            ]
    common.leave("startup", figures, notes=["One photograph of original size."], seconds=walls, quick=given.quick)


def _run(arguments: list[str]) -> tuple[float, float, float]:
    """CPU seconds, wall seconds and the most memory (MB) of one command, its threads included."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "catdog", *arguments], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise UserError("the command failed; its error stands above")
    return used.ru_utime + used.ru_stime, time.perf_counter() - started, used.ru_maxrss / 1000


if __name__ == "__main__":
    run(main)
