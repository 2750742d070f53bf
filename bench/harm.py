"""What may happen to any program: bytes that change on disk, and a kill."""

import os
import subprocess
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil


def damage(path: Path, rng: np.random.Generator, *, count: int = 8, at: int | None = None) -> int:
    """Change `count` bytes of a file in a row; its size and times stay as they are, so that DVC does not see it.

    Args:
        at: the first of them; by default a random one.

    Returns:
        The first of them.
    """
    times = path.stat()
    with path.open("r+b") as file:
        size = times.st_size
        place = int(rng.integers(max(1, size - count + 1))) if at is None else at
        file.seek(place)
        old = np.frombuffer(file.read(count), np.uint8)
        file.seek(place)
        file.write((old ^ rng.integers(1, 256, len(old), dtype=np.uint8)).astype(np.uint8).tobytes())
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    return place


def kill_after(process: subprocess.Popen, seconds: float) -> bool:
    """SIGKILL a process and all its children after so long; False if it had ended by itself."""
    try:
        process.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        pass
    root = psutil.Process(process.pid)
    family: set[psutil.Process] = set()
    # Stopped first: else one might start another while the others are killed.
    while new := {root, *root.children(recursive=True)} - family:
        for each in new:
            with suppress(psutil.NoSuchProcess):
                each.suspend()
        family |= new
    for each in family:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    process.wait()
    return True
