"""A function over many items on all cores, in order, with flat memory: in processes, on a cluster, or on threads."""

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import cv2

from catdog.base import cluster
from catdog.base.errors import UserError
from catdog.base.spawning import cores, main_unnoticed

Item = TypeVar("Item")
Result = TypeVar("Result")
_CHUNK = 32
_CHUNKS_UNDER_WAY = 4  # per worker


def chunked_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int | None = None,
    rescue: Callable[[Item], Result] | None = None,
    travel: cluster.Travel | None = None,
) -> Iterator[Result]:
    """`function(item)` for each of `items`, in their order whatever the number of `workers` (default: one per core).

    `function` and `items` are pickled to worker processes, so they are of modules that these can import, not of the
    script that was started. Only a few chunks are under way at a time, so memory does not grow with the number of
    items. An item that kills its worker gets `rescue(item)` instead; no other is lost. Where a cluster is named, its
    workers do it; `travel` says how items that name files get there.

    Raises:
        UserError: a worker was killed and there is no `rescue`; or see `cluster.map_chunks`.
    """
    waiting = chunks(items, _CHUNK)
    if cluster.named():
        for results in cluster.map_chunks(partial(_map, function), waiting, rescue=rescue, travel=travel):
            yield from results
        return
    workers = workers or cores()
    pool = _pool(workers)
    pending: deque[tuple[list[Item], Future[list[Result]]]] = deque()
    try:
        while True:
            for chunk in islice(waiting, _CHUNKS_UNDER_WAY * workers - len(pending)):
                pending.append((chunk, _submit(pool, function, chunk)))
            if not pending:
                return
            chunk, future = pending.popleft()
            try:
                results = future.result()
            except BrokenProcessPool:
                if rescue is None:
                    raise UserError("a worker process was killed, perhaps for memory: run it again") from None
                pool.shutdown(cancel_futures=True)
                results = cluster.by_halves(partial(_alone, function), chunk, rescue)
                pool = _pool(workers)
                pending = deque((c, _submit(pool, function, c)) for c, _ in pending)
            yield from results
    finally:
        pool.shutdown(cancel_futures=True)


def threaded(function: Callable[[Item], Result], items: Iterable[Item], *, ahead: int) -> Iterator[Result]:
    """`function(item)` for each of `items`, in their order, on threads, at most `ahead` items before they are taken.

    For work outside Python's lock, as OpenCV's is: no process has to start, and nothing is pickled.
    """
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(cores()) as pool:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def together(*jobs: Callable[[], Any]) -> list[Any]:
    """What each of `jobs` returns, in their order. They run at the same time, each on a thread.

    For a few jobs that compute and write mostly outside Python's lock. The error of one is raised when all have ended.
    """
    with ThreadPoolExecutor(len(jobs)) as pool:
        futures = [pool.submit(job) for job in jobs]
    return [future.result() for future in futures]


def chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """`items` in lists of `size`, the last one shorter."""
    items = iter(items)
    return iter(lambda: list(islice(items, size)), [])


def _map(function: Callable[[Item], Result], chunk: list[Item]) -> list[Result]:
    return [function(item) for item in chunk]


def _submit(pool: ProcessPoolExecutor, function: Callable[[Item], Result], chunk: list[Item]) -> Future[list[Result]]:
    try:
        with main_unnoticed():
            return pool.submit(_map, function, chunk)
    except BrokenProcessPool as error:
        # A worker died since the last result was taken. It comes up in its turn, like one that dies later.
        broken: Future[list[Result]] = Future()
        broken.set_exception(error)
        return broken


def _alone(function: Callable[[Item], Result], chunk: list[Item]) -> list[Result]:
    """The results of a chunk in a process of its own."""
    with _pool(1) as pool:
        try:
            return _submit(pool, function, chunk).result()
        except BrokenProcessPool as error:
            raise cluster.Died from error


def _pool(workers: int) -> ProcessPoolExecutor:
    # A ProcessPoolExecutor notices a worker that dies; multiprocessing.Pool would wait for it for ever.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker)


def _begin_worker() -> None:
    # Each worker is one core's worth, so OpenCV is kept from starting threads of its own.
    cv2.setNumThreads(1)
    # Decoders in C print what they think of a file; what matters of it is in the result, or raised.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # Workers wait for work for ever where their parent was killed and could not tell them to end.
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)
