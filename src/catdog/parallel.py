"""A function over many items on all cores: in order, with flat memory, surviving items that kill their process."""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import TypeVar

import cv2

Item = TypeVar("Item")
Result = TypeVar("Result")
_CHUNK = 32
_CHUNKS_UNDER_WAY = 4  # per worker


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def chunked_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int | None = None,
    rescue: Callable[[Item], Result] | None = None,
) -> Iterator[Result]:
    """`function(item)` for each of `items`, in their order whatever the number of `workers` (default: one per core).

    `function` and `items` are pickled to worker processes. Only a few chunks are under way at a time, so memory does
    not grow with the number of items. An item that kills its worker gets `rescue(item)` instead; no other is lost.

    Raises:
        BrokenProcessPool: a worker died and there is no `rescue`.
    """
    workers = workers or cores()
    items = iter(items)
    chunks = iter(lambda: list(islice(items, _CHUNK)), [])
    pool = _pool(workers)
    pending: deque[tuple[list[Item], Future[list[Result]]]] = deque()
    try:
        while True:
            for chunk in islice(chunks, _CHUNKS_UNDER_WAY * workers - len(pending)):
                pending.append((chunk, pool.submit(_map, function, chunk)))
            if not pending:
                return
            chunk, future = pending.popleft()
            try:
                results = future.result()
            except BrokenProcessPool:
                if rescue is None:
                    raise
                pool.shutdown(cancel_futures=True)
                results = [_alone(function, item, rescue) for item in chunk]
                pool = _pool(workers)
                pending = deque((c, pool.submit(_map, function, c)) for c, _ in pending)
            yield from results
    finally:
        pool.shutdown(cancel_futures=True)


def _map(function: Callable[[Item], Result], chunk: list[Item]) -> list[Result]:
    return [function(item) for item in chunk]


def _alone(function: Callable[[Item], Result], item: Item, rescue: Callable[[Item], Result]) -> Result:
    with _pool(1) as pool:
        try:
            return pool.submit(function, item).result()
        except BrokenProcessPool:
            return rescue(item)


def _pool(workers: int) -> ProcessPoolExecutor:
    # A ProcessPoolExecutor notices a worker that dies; multiprocessing.Pool would wait for it for ever. Each worker is
    # one core's worth, so OpenCV is kept from starting threads of its own.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,))
