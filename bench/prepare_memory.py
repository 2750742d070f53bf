"""Peak memory of the real `python src/prepare.py`, on every fourth photograph of a zip and on all of them.

What counts is private memory, of the stage and its worker processes together: what they allocate, and not the files
they map, which the system drops when it needs the room. Resident memory, with mapped files, and with what processes
share counted for each of them, stands beside it.
"""

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import common
import psutil
import zipped
from common import Figure

from catdog.base import paths
from catdog.base.errors import UserError, run

GOAL = 0.9
SECONDS_BETWEEN_LOOKS = 0.02


class Peak(NamedTuple):
    """MB, of the stage's processes together; each at its own moment."""

    private: float
    resident: float


def main() -> None:
    given = zipped.arguments(__doc__, default="cats-and-dogs-20k.zip", rounds=5)
    peaks: dict[int, list[Peak]] = {}
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="catdog-bench-") as folder:
        projects = {}
        for every in (80, 20) if given.quick else (4, 1):
            project = Path(folder) / str(every)
            projects[zipped.thin_out(given.zip, project / paths.RAW / "photographs.zip", every=every)] = project
            shutil.copy(paths.PARAMS, project)
        for _ in range(given.rounds):
            for count, project in projects.items():
                started = time.perf_counter()
                peaks.setdefault(count, []).append(watched(project))
                seconds.setdefault(f"{count}", []).append(time.perf_counter() - started)
                print(f"{count:,} photographs: {peaks[count][-1].private:.0f} MB private", file=sys.stderr)

    private = {count: statistics.median(peak.private for peak in found) for count, found in peaks.items()}
    resident = {count: statistics.median(peak.resident for peak in found) for count, found in peaks.items()}
    few, many = sorted(peaks)
    figures = [
        *(Figure(f"private_{n}", f"private, {n:,} photographs", private[n], "MB", "measured") for n in (few, many)),
        Figure("ratio", "private, few against many", private[few] / private[many], "of 1", "measured", goal=GOAL),
        *(Figure(f"resident_{n}", f"resident, {n:,} photographs", resident[n], "MB", "measured") for n in (few, many)),
    ]
    notes = [
        f"Peaks of sums over the stage's processes, looked at every {SECONDS_BETWEEN_LOOKS * 1000:.0f} ms; "
        "private: resident less shared, of /proc/PID/statm; MB = 10^6 bytes.",
    ]
    common.leave("prepare_memory", figures, notes=notes, seconds=seconds, quick=given.quick)


def watched(project: Path) -> Peak:
    """Run prepare in `project`, and watch it."""
    private = resident = 0
    with (project / "stderr").open("w+") as stderr:
        command = [sys.executable, str(Path.cwd() / "src/prepare.py")]
        process = psutil.Popen(command, cwd=project, stdout=subprocess.DEVNULL, stderr=stderr)
        while process.poll() is None:
            found = looked_at(process)
            private = max(private, sum(info.rss - info.shared for info in found))
            resident = max(resident, sum(info.rss for info in found))
            time.sleep(SECONDS_BETWEEN_LOOKS)
        if process.returncode:
            stderr.seek(0)
            raise UserError(f"prepare failed: {stderr.read().strip()[-500:]}")
    return Peak(private / 1e6, resident / 1e6)


def looked_at(process: psutil.Process) -> list:
    found = []
    try:
        for each in (process, *process.children(recursive=True)):
            found.append(each.memory_info())
    except psutil.Error:  # it ended while it was looked at
        pass
    return found


if __name__ == "__main__":
    run(main)
