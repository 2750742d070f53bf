"""Work on a Dask cluster, where CATDOG_CLUSTER names one: `tcp://HOST:8786`, or `local` for processes of this machine.

A task is a pure function of a chunk of items. What a lost worker had is done again by another, and chunks come back in
their order, so a result is the same wherever it was computed. Whoever reaches a cluster can run code on it: it belongs
on a network that one trusts, or behind Dask's own TLS.
"""

import functools
import hashlib
import importlib.metadata
import logging
import os
import pickle
import platform
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from catdog.base.errors import UserError, first_line
from catdog.base.spawning import cores, main_unnoticed

ADDRESS = "CATDOG_CLUSTER"
LOCAL = "local"
Item = TypeVar("Item")
Result = TypeVar("Result")
_CHUNKS_UNDER_WAY = 4  # per thread of a worker
_WAIT = 30  # seconds, for the scheduler to answer
# What a result depends on besides this library.
_PACKAGES = ("numpy", "opencv-python-headless", "openvino", "pillow", "simplejpeg")
_QUIET = {
    "distributed.admin.large-graph-warning-threshold": "1GB",  # a network is sent once
    "distributed.comm.timeouts.connect": f"{_WAIT}s",
    "distributed.worker.memory.target": False,  # chunks are small: nothing has to be written to disk
    "distributed.worker.memory.spill": False,
}


class Died(Exception):
    """What computed a chunk died of it."""


class Travel(NamedTuple):
    """How items that name files get to workers.

    Attributes:
        placed: the item with absolute paths.
        stamp: what tells its file from another one at the same path; None where there is none.
        carried: the item with the file's content in it.
    """

    placed: Callable[[Any], Any]
    stamp: Callable[[Any], object]
    carried: Callable[[Any], Any]


class _Elsewhere(Exception):
    """A worker doesn't see the files that are asked about."""


def named() -> str:
    """The address that the environment gives, or nothing."""
    return os.environ.get(ADDRESS, "").strip()


def map_chunks(
    function: Callable[[list[Item]], list[Result]],
    chunks: Iterable[list[Item]],
    *,
    rescue: Callable[[Item], Result] | None = None,
    travel: Travel | None = None,
) -> Iterator[list[Result]]:
    """`function(chunk)` for each of `chunks`, in their order. Few are under way at a time, so memory stays flat.

    Args:
        function: pickled once for each worker, with all that it holds.
        rescue: for an item that kills its workers.
        travel: of items that name files. These go by path where workers see the same files, else with their content.

    Raises:
        UserError: the cluster can't be reached or was lost, or a worker is of another version.
    """
    client = connection()
    address = named()
    shared = travel is not None

    def submit(chunk: list[Item], *, by_path: bool) -> Any:
        if travel is None:
            sent: Any = chunk
        elif by_path:
            sent = [(travel.placed(item), travel.stamp(item)) for item in chunk]
        else:
            sent = [travel.carried(item) for item in chunk]
        # As bytes, since the scheduler would make of them what they are; only a worker has to.
        task = pickle.dumps((sent, travel.stamp if travel and by_path else None))
        return client.submit(_work, there, task, version(), pure=False)

    def result(chunk: list[Item], future: Any) -> list[Result]:
        nonlocal shared
        try:
            return future.result()
        except _Elsewhere:
            shared = False
            return result(chunk, submit(chunk, by_path=False))

    def attempt(chunk: list[Item]) -> list[Result]:
        try:
            return result(chunk, submit(chunk, by_path=shared))
        except distributed.KilledWorker as error:
            raise Died from error

    import distributed

    with _told(address):
        _all_alike(client)
        # As a task's result it is made again where the worker that had it is gone.
        there = client.submit(pickle.loads, pickle.dumps(function), pure=False)
        waiting, pending = iter(chunks), deque[tuple[list[Item], Any]]()
        while True:
            each = _CHUNKS_UNDER_WAY if shared or travel is None else 1  # content takes memory
            room = each * max(1, sum(client.nthreads().values()))
            for chunk in islice(waiting, max(0, room - len(pending))):
                pending.append((chunk, submit(chunk, by_path=shared)))
            if not pending:
                return
            chunk, future = pending.popleft()
            try:
                done = result(chunk, future)
            except distributed.KilledWorker:
                if rescue is None:
                    raise UserError("workers were killed, perhaps for memory: run it again") from None
                done = by_halves(attempt, chunk, rescue)
            del future
            yield done


def by_halves(
    attempt: Callable[[list[Item]], list[Result]], chunk: list[Item], rescue: Callable[[Item], Result]
) -> list[Result]:
    """`attempt(chunk)`, by halves where it raises Died: the item that is rescued has died alone."""
    try:
        return attempt(chunk)
    except Died:
        if len(chunk) == 1:
            return [rescue(chunk[0])]
    middle = len(chunk) // 2
    return by_halves(attempt, chunk[:middle], rescue) + by_halves(attempt, chunk[middle:], rescue)


# Of this process


@functools.cache
def connection() -> Any:
    """The connection to the cluster, for as long as this process lives."""
    try:
        import dask
        import distributed
    except ImportError:
        raise UserError(f"{ADDRESS} is set, but Dask is not installed: pip install 'catdog[cluster]'") from None
    for name in [*logging.root.manager.loggerDict]:
        if name.partition(".")[0] in ("distributed", "tornado", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters of it is raised
    dask.config.set(_QUIET)
    address = named()
    try:
        if address == LOCAL:
            with main_unnoticed():
                cluster = distributed.LocalCluster(
                    n_workers=cores(),
                    threads_per_worker=1,
                    host="127.0.0.1",
                    dashboard_address="127.0.0.1:0",
                    memory_limit=0,
                    silence_logs=logging.CRITICAL,
                )
            client = distributed.Client(cluster)
        else:
            client = distributed.Client(address, timeout=_WAIT)
    except (OSError, ValueError, TimeoutError) as error:
        raise UserError(
            f"no Dask scheduler answers at {address} ({first_line(error)}): start one with `dask scheduler`, "
            f"or unset {ADDRESS}"
        ) from None
    workers = sum(client.nthreads().values())
    has_dashboard = "dashboard" in client.scheduler_info()["services"]
    dashboard = f", dashboard {client.dashboard_link}" if has_dashboard else ""
    print(f"cluster: {address}, {workers} threads{dashboard}", file=sys.stderr)
    if not workers:
        print(f"notice: no worker yet; start some with `dask worker {address}`", file=sys.stderr)
    return client


class _told:
    """What a cluster's loss raises, as one line."""

    def __init__(self, address: str) -> None:
        self._address = address

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, UserError | GeneratorExit):
            return
        from distributed.comm import CommClosedError

        if isinstance(error, CommClosedError | TimeoutError) or getattr(error, "reason", "").startswith("scheduler-"):
            connection.cache_clear()
            raise UserError(
                f"the Dask scheduler at {self._address} is gone: start it and run this again, "
                "and what was kept is not done twice"
            ) from None


def _all_alike(client: Any) -> None:
    """Ask all workers that are there for their version. One that comes later is asked by its first task."""
    for worker, theirs in client.run(version, on_error="return").items():
        if isinstance(theirs, Exception):
            raise UserError(f"worker {worker} can't work for this project ({first_line(theirs)}): install it there")
        _compare(worker, theirs, version())


# Of a worker


def _work(function: Callable[[list], list], task: bytes, expected: str) -> list:
    """What a worker does with a chunk."""
    import distributed

    _compare(distributed.get_worker().address, version(), expected)
    _begin()
    sent, stamp_of = pickle.loads(task)
    if stamp_of is None:
        return function(sent)
    if any(stamp_of(item) != stamp for item, stamp in sent):
        raise _Elsewhere
    return function([item for item, _ in sent])


@functools.cache
def _begin() -> None:
    import cv2

    cv2.setNumThreads(1)  # each thread of a worker is one core's worth


def _compare(worker: str, theirs: str, ours: str) -> None:
    if theirs != ours:
        raise UserError(f"worker {worker} has another version (here {ours}; there {theirs}): install the same on both")


@functools.cache
def version() -> str:
    """This library's code and what results depend on besides, for a person to compare."""
    code = hashlib.sha256()
    root = Path(__file__).parents[1]
    for path in sorted(root.rglob("*.py")):
        code.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    packages = (f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    return ", ".join([f"catdog {code.hexdigest()[:12]}", f"Python {platform.python_version()}", *packages])
