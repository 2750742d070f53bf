"""A Dask cluster on this machine, as a person starts one: a scheduler and workers, to which CATDOG_CLUSTER leads."""

import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from catdog.base import cluster, paths

SOURCE = paths.root() / "src"


@dataclass
class Dask:
    """Its address, and the processes that were started."""

    address: str
    scheduler: subprocess.Popen
    folder: Path
    stack: ExitStack
    path: tuple[Path, ...]
    workers: list[subprocess.Popen] = field(default_factory=list)

    def add_worker(self, *, source: Path = SOURCE) -> None:
        options = ["--nthreads", "1", "--host", "127.0.0.1", "--no-dashboard", "--memory-limit", "0"]
        options += ["--local-directory", str(self.folder)]
        started = _process("dask_worker", self.address, *options, path=(source, *self.path))
        self.workers.append(self.stack.enter_context(started))

    def working(self) -> list[int]:
        """The ids of the processes that do the work; a nanny starts each anew when it dies."""
        children = [child for worker in self.workers for child in psutil.Process(worker.pid).children(recursive=True)]
        return [child.pid for child in children if any("spawn_main" in part for part in child.cmdline())]


@contextmanager
def started(
    folder: Path, *, workers: int = 2, allowed_failures: int = 3, path: tuple[Path, ...] = ()
) -> Iterator[Dask]:
    """A cluster on loopback for this process and those that it starts.

    Args:
        folder: for what workers write.
        allowed_failures: workers that may die of a task before it is given up.
        path: where workers find modules besides the library.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kept = {name: os.environ.get(name) for name in (cluster.ADDRESS, _ALLOWED)}
    os.environ[_ALLOWED] = str(allowed_failures)
    with ExitStack() as stack:
        options = ["--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]
        scheduler = stack.enter_context(_process("dask_scheduler", *options, path=(SOURCE, *path)))
        found = Dask(f"tcp://127.0.0.1:{port}", scheduler, folder, stack, path)
        for _ in range(workers):
            found.add_worker()
        os.environ[cluster.ADDRESS] = found.address
        cluster.connection.cache_clear()
        try:
            yield found
        finally:
            if cluster.connection.cache_info().currsize:
                cluster.connection().close(timeout=2)
            cluster.connection.cache_clear()
            for name, value in kept.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextmanager
def killing(dask: Dask, *, count: int) -> Iterator[threading.Event]:
    """Kill `count` workers meanwhile, at random moments when all are at work. The event is set after the last."""
    ended, over = threading.Event(), threading.Event()
    client = cluster.connection()

    def kill() -> None:
        rng = random.Random(0)
        done = 0
        while done < count and not over.wait(rng.uniform(0, 1)):
            working = dask.working()
            if len(working) == len(client.nthreads()) == len(dask.workers):
                os.kill(rng.choice(working), signal.SIGKILL)
                done += 1
        ended.set()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield ended
    finally:
        over.set()
        killer.join()


_ALLOWED = "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"


@contextmanager
def _process(kind: str, *arguments: str, path: tuple[Path, ...]) -> Iterator[subprocess.Popen]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))}
    environment.pop(cluster.ADDRESS, None)
    command = [sys.executable, "-m", f"distributed.cli.{kind}", *arguments]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        yield process
    finally:
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        for each in [*children, process]:
            with suppress(psutil.NoSuchProcess):  # it ended by itself meanwhile
                each.kill()
        process.wait()
