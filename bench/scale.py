"""What each photograph costs, and how that grows: stages and predictions on 2,000, 20,000 and 200,000 photographs.

Up to the zip's number they are its own; beyond it, each is varied as `augment` does, so that none is a near copy. Each
command runs once, in a project of its own. CPU and bytes are of its processes together, bytes as they were asked for,
not as the disk moved them; what is read by mapping a file into memory is not among them. Memory is what they hold
privately at most.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from functools import partial
from pathlib import Path
from typing import NamedTuple

import common
import prepare_memory
import psutil
import zipped
from common import Figure

from catdog.base import parallel, params, paths
from catdog.base.errors import UserError, run
from catdog.base.progress import track
from catdog.photographs import augmentation, photos, shards
from catdog.preparation import archives, sources

COUNTS = (2_000, 20_000, 200_000)
PREDICTED = 20_000  # at most
MODEL = "models:/catdog-cnn/1"
STANDARD = 299  # pixels: the short side of what variants are made from
SECONDS_BETWEEN_LOOKS = 0.05


class Cost(NamedTuple):
    """Of one command."""

    seconds: float
    cpu_seconds: float
    bytes_read: float
    bytes_written: float
    megabytes: float


def main() -> None:
    given = arguments()
    figures, seconds = [], {}
    for count in given.counts:
        with tempfile.TemporaryDirectory(prefix="catdog-bench-") as name:
            project = Path(name) / "project"
            packed = project / paths.RAW / "photographs.zip"
            packed.parent.mkdir(parents=True)
            count = pack(given.zip, packed, count=count)
            shutil.copy(paths.PARAMS, project)
            steps = {
                "prepare": ([sys.executable, str(Path.cwd() / "src/prepare.py")], project),
                "augment": ([sys.executable, str(Path.cwd() / "src/augment.py")], project),
            }
            if count <= PREDICTED:
                answers = str(project / "answers.csv")
                steps["predict"] = (["catdog", "predict", str(packed), "--model", MODEL, "--out", answers], Path.cwd())
            for step, (command, folder) in steps.items():
                cost = costs(command, folder)
                seconds[f"{step}, {count}"] = [cost.seconds]
                figures += described(step, count, cost)
    common.leave("scale", figures, notes=[__doc__.split("\n\n")[1]], seconds=seconds, quick=given.quick)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    beside = paths.root().parent / "shared/data/cats-and-dogs-20k.zip"
    parser.add_argument("zip", nargs="?", type=Path, default=beside, help="photographs in class folders")
    parser.add_argument("--counts", type=common.positive, nargs="+", default=COUNTS, help="photographs (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="200 and 400 photographs, and keep nothing")
    given = parser.parse_args()
    given.zip = given.zip.absolute()
    os.chdir(paths.root())
    if given.quick:
        given.counts = (200, 400)
    return given


def pack(archive: Path, packed: Path, *, count: int) -> int:
    """A zip of about `count` photographs; returns of how many."""
    with zipfile.ZipFile(archive) as opened:
        there = sum(not info.is_dir() for info in opened.infolist())
    if count <= there:
        return zipped.thin_out(archive, packed, every=max(1, there // count))
    files = [file for file in sources.list_files(archive.parent, params.load().base.classes) if file.archive == archive]
    times = -(-count // len(files))
    written = 0
    make = partial(varied, times=times)
    with zipfile.ZipFile(packed, "w") as new:
        for file, made in zip(
            files, track(parallel.chunked_map(make, files), total=len(files), what="varying"), strict=True
        ):
            for number, data in enumerate(made):
                new.writestr(f"{'dog' if file.label else 'cat'}/{number}-{Path(file.source).name}", data)
            written += len(made)
    return written


def varied(file: archives.File, *, times: int) -> list[bytes]:
    try:
        standard = photos.standardise(archives.read(file), image_size=STANDARD).jpeg
    except (photos.Unreadable, archives.BadMember):
        return []
    policy = params.load().augment.model_copy(update={"variants": times})
    row = shards.Row(file.source, file.source, 0, standard, "")
    return [variant.image for variant in augmentation.variants_of(row, policy, seed=0)]


def costs(command: list[str], folder: Path) -> Cost:
    """Run a command and see what it takes."""
    before, started = used(), time.perf_counter()
    process = psutil.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    most = 0.0
    while process.poll() is None:
        most = max(most, sum(info.rss - info.shared for info in prepare_memory.looked_at(process)) / 1e6)
        time.sleep(SECONDS_BETWEEN_LOOKS)
    if process.returncode:
        raise UserError(f"{' '.join(command)} failed: {process.stderr.read().strip()[-500:]}")
    taken = time.perf_counter() - started
    return Cost(taken, *(after - earlier for after, earlier in zip(used(), before, strict=True)), most)


def used() -> tuple[float, float, float]:
    """CPU seconds, bytes read and bytes written of all processes that this one has waited for, and bytes of itself."""
    times = os.times()
    told = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return times.children_user + times.children_system, float(told["rchar"]), float(told["wchar"])


def described(step: str, count: int, cost: Cost) -> list[Figure]:
    key, per = f"{step}_{count}", f"{step}, {count:,}"
    return [
        Figure(f"{key}_seconds", f"{per} photographs", cost.seconds, "s", "measured"),
        Figure(f"{key}_cpu", "CPU", 1000 * cost.cpu_seconds / count, "ms a photograph", "measured"),
        Figure(f"{key}_read", "read", cost.bytes_read / count / 1000, "kB a photograph", "measured"),
        Figure(f"{key}_written", "written", cost.bytes_written / count / 1000, "kB a photograph", "measured"),
        Figure(f"{key}_memory", "memory at most", cost.megabytes, "MB", "measured"),
    ]


if __name__ == "__main__":
    run(main)
