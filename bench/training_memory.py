"""Peak private memory of one epoch of each training, at 5,000 and at 20,000 photographs.

Each is trained in a process of its own, which is watched with all its children. What counts is memory with no
file behind it: one that is mapped, as pixels and features are, is the system's to drop when it needs the room. The CNN
trains at the first of its image sizes; Xception's head on features of the right shape, made up. Photographs are those
of the training shard, over and over where it has fewer.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common
import numpy as np
import psutil
from common import Figure

from catdog.base import params, paths
from catdog.base.errors import UserError, run
from catdog.photographs import shards

COUNTS = (5_000, 20_000)
SECONDS_BETWEEN_LOOKS = 0.1
GOAL = 0.9


def main() -> None:
    if len(sys.argv) == 4 and sys.argv[1] in EPOCHS:  # the process that is watched
        name, count, folder = sys.argv[1:]
        EPOCHS[name](int(count), Path(folder))
        return
    given = common.arguments(__doc__, rounds=1)
    counts = (250, 1_000) if given.quick else COUNTS
    peaks: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {}
    for name in EPOCHS:
        for count in counts:
            for _ in range(given.rounds):
                started = time.perf_counter()
                peaks.setdefault(f"{name}_{count}", []).append(watched(name, count))
                seconds.setdefault(f"{name}_{count}", []).append(time.perf_counter() - started)
    figures = []
    for name in EPOCHS:
        few, many = (float(np.median(peaks[f"{name}_{count}"])) for count in counts)
        figures += [
            Figure(f"{name}_{counts[0]}", f"{name}, {counts[0]:,} photographs", few, "MB", "measured"),
            Figure(f"{name}_{counts[1]}", f"{name}, {counts[1]:,} photographs", many, "MB", "measured"),
            Figure(f"{name}_ratio", f"{name}, few against many", few / many, "of 1", "measured", goal=GOAL),
        ]
    notes = ["Peak over the process and its children: resident less shared, of /proc/PID/statm; MB = 10^6 bytes."]
    common.leave("training_memory", figures, notes=notes, seconds=seconds, quick=given.quick)


def watched(name: str, count: int) -> float:
    """Peak private memory in MB of an epoch in a process of its own."""
    peak = 0
    with tempfile.TemporaryDirectory(prefix="catdog-bench-", dir=paths.CHECKPOINTS.parent) as folder:
        process = psutil.Popen([sys.executable, __file__, name, str(count), folder], stderr=subprocess.PIPE, text=True)
        while process.poll() is None:
            peak = max(peak, private(process))
            time.sleep(SECONDS_BETWEEN_LOOKS)
        if process.returncode:
            raise UserError(f"{name} with {count:,} photographs failed: {process.stderr.read().strip()[-500:]}")
    print(f"{name}, {count:,} photographs: {peak / 1e6:.0f} MB", file=sys.stderr)
    return peak / 1e6


def private(process: psutil.Process) -> int:
    """Bytes of a process and its children that no file is behind."""
    found = 0
    try:
        for each in (process, *process.children(recursive=True)):
            memory = each.memory_info()
            found += memory.rss - memory.shared
    except psutil.Error:  # it ended while it was looked at
        return 0
    return found


def cnn_epoch(count: int, folder: Path) -> None:
    from catdog.training.cnn import recipe
    from catdog.training.loop import fitting
    from catdog.training.loop.checkpoints import Checkpoint

    p = params.load()
    t = p.train_cnn.model_copy(update={"image_sizes": p.train_cnn.image_sizes[:1], "epochs": [1]})
    p = p.model_copy(update={"train_cnn": t})
    whole = shards.Shard(paths.TRAIN)
    parts = {}
    for name, rows in {"train": count, "augmented": count, "val": count // 10}.items():
        path = folder / f"{name}.arrow"
        shards.write(path, (whole.row(index % len(whole)) for index in range(rows)))
        parts[name] = shards.Shard(path)
    model = recipe.compiled(p, photographs=count)
    phases = recipe.phases(p, **parts)
    checkpoint = Checkpoint(folder / "cnn.npz", fingerprint="")
    fitting.fit(model, phases, patience=1, checkpoint=checkpoint, on_epoch=lambda row: None)


def xception_epoch(count: int, folder: Path) -> None:
    from catdog.training.loop.checkpoints import Checkpoint
    from catdog.training.xception import recipe

    p = params.load()
    t = p.train_xception.model_copy(update={"epochs": 1})
    rng = np.random.default_rng(0)
    rows, width = count + count // 10, 2048
    with (folder / "features").open("wb") as file:
        for _ in range(rows):
            file.write(rng.normal(size=width).astype(np.float32).tobytes())
    features = np.memmap(folder / "features", np.float32, mode="r", shape=(rows, width))
    labels = rng.integers(0, 2, rows).astype(np.int8)
    recipe.train_head(
        p.model_copy(update={"train_xception": t}),
        train=(features[:count], labels[:count]),
        val=(features[count:], labels[count:]),
        photographs=count,
        checkpoint=Checkpoint(folder / "head.npz", fingerprint=""),
        on_epoch=lambda row: None,
    )


EPOCHS = {"cnn": cnn_epoch, "xception": xception_epoch}


if __name__ == "__main__":
    run(main)
