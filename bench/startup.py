"""What it costs to ask once: CPU seconds, wall time and the most memory of `catdog predict` on one photograph.

Each is a process of its own, from start to end. Needs the models of a run of the pipeline, in the registry.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import common
import zipped
from common import Figure

from catdog.base.errors import UserError, run
from catdog.tracking import store, versions

_STARTER = """
import json, os, sys, time
started = time.perf_counter()
quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
process = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=quiet)
_, status, used = os.wait4(process, 0)
print(json.dumps([used.ru_utime + used.ru_stime, time.perf_counter() - started, used.ru_maxrss / 1000]))
sys.exit(os.waitstatus_to_exitcode(status))
"""


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
    # Started by a small process: a child's memory counts from that of the process that it began as.
    command = [sys.executable, "-ISc", _STARTER, sys.executable, "-m", "catdog", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"the command failed: {done.stderr}")
    cpu, wall, peak = json.loads(done.stdout)
    return cpu, wall, peak


if __name__ == "__main__":
    run(main)
