"""Faults to try anything against: bytes that change on disk, a disk with little room, a process that is killed."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest


def damage(path: Path, rng: np.random.Generator, *, count: int = 8, at: int | None = None) -> None:
    """Change `count` bytes of a file in a row, `at` a place or at a random one; its size and times stay as they are."""
    times = path.stat()
    with path.open("r+b") as file:
        size = times.st_size
        place = int(rng.integers(max(1, size - count))) if at is None else at
        file.seek(place)
        old = np.frombuffer(file.read(count), np.uint8)
        file.seek(place)
        file.write((old ^ rng.integers(1, 256, len(old), dtype=np.uint8)).astype(np.uint8).tobytes())
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@contextmanager
def small_disk(folder: Path, *, kilobytes: int) -> Iterator[Path]:
    """A file system of a given size at `folder`. It takes root, as in a container; else the test is skipped."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a disk of a given size can't be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def resize(disk: Path, *, kilobytes: int) -> None:
    """Give a `small_disk` another size; what is on it stays."""
    subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", str(disk)], check=True)


def kill_after(process: subprocess.Popen, seconds: float) -> bool:
    """SIGKILL a process and all its children after so long; False if it had ended by itself."""
    try:
        process.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        for each in family:
            try:
                each.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        process.wait()
        return True


def wait_until(happened: object, *, seconds: float = 20) -> None:
    """Wait until `happened()` is true."""
    deadline = time.monotonic() + seconds
    while not happened():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
