"""How the search for near duplicates grows: seconds, memory and pairs found, of 10,000 to 1,000,000 pictures.

The hashes are made up: unrelated ones, and in every hundredth picture those of another one with up to 12 bits changed,
as a copy has them. faiss searches the same for whole pictures close to any view, by its two indexes of binary hashes,
and by comparing all where that is not too long. It is no part of the environment: `.venv/bin/uv pip install faiss-cpu`.
Each search is a process of its own, so that its memory is its own.
"""

import argparse
import math
import os
import resource
import subprocess
import sys
import time
from functools import partial

import common
import numpy as np
from common import Figure

from catdog.base import parallel, paths
from catdog.base.errors import run

COUNTS = (10_000, 100_000, 1_000_000)
APART = 12  # bits
NEAR = 100  # one picture in so many is a near copy
EXHAUSTIVE = 100_000  # pictures at most
WAYS = ("ours", "hash", "multihash", "all")


def main() -> None:
    if sys.argv[1:2] == ["--search"]:
        way, count = sys.argv[2], int(sys.argv[3])
        print(*search(way, count))
        return
    given = arguments()
    figures, seconds = [], {}
    ways = WAYS if given.faiss else WAYS[:1]
    for way in ways:
        for count in [count for count in given.counts if way != "all" or count <= EXHAUSTIVE]:
            rounds = [searched(way, count) for _ in range(given.rounds)]
            seconds[f"{way}, {count}"] = [each[0] for each in rounds]
            taken = float(np.median(seconds[f"{way}, {count}"]))
            megabytes, found = rounds[0][1:]
            figures += [
                Figure(f"{way}_{count}_seconds", f"{way}, {count:,} pictures", taken, "s", "measured"),
                Figure(f"{way}_{count}_megabytes", "memory that it took", megabytes, "MB", "measured"),
                Figure(f"{way}_{count}_found", "planted copies that it found", found, "of 1", "measured"),
            ]
        done = [count for count in given.counts if f"{way}, {count}" in seconds]
        if len(done) > 1:
            first, last = (np.median(seconds[f"{way}, {count}"]) for count in (done[0], done[-1]))
            exponent = math.log(last / first) / math.log(done[-1] / done[0])
            figures.append(Figure(f"{way}_growth", f"{way}, exponent of growth", exponent, "", "measured"))
    notes = [f"{parallel.cores()} cores. One picture in {NEAR} is planted, 0 to {APART} bits from another one's view."]
    common.leave("neighbours", figures, notes=notes, seconds=seconds, quick=given.quick)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=common.positive, nargs="+", default=COUNTS, help="pictures (%(default)s)")
    parser.add_argument("--rounds", type=common.positive, default=3, help="of each (%(default)s)")
    parser.add_argument("--no-faiss", dest="faiss", action="store_false", help="our own search alone")
    parser.add_argument("--quick", action="store_true", help="2,000 and 4,000 pictures once, and keep nothing")
    given = parser.parse_args()
    os.chdir(paths.root())
    if given.quick:
        given.counts, given.rounds = (2000, 4000), 1
    return given


def searched(way: str, count: int) -> tuple[float, float, float]:
    """Seconds, megabytes and the share of planted copies found, in a process of its own."""
    command = [sys.executable, __file__, "--search", way, str(count)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    taken, megabytes, found = map(float, done.stdout.split())
    return taken, megabytes, found


def search(way: str, count: int) -> tuple[float, float, float]:
    hashes, copies = made_up(count)
    find = pairs_of_ours if way == "ours" else partial(pairs_of_faiss, way)
    if way != "ours":
        import faiss  # noqa: F401, before memory is looked at
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    found = find(hashes)
    taken = time.perf_counter() - started
    megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return taken, megabytes, len(copies & found) / len(copies)


def made_up(count: int) -> tuple[np.ndarray, set[tuple[int, int]]]:
    """Hashes as `fingerprints.hashes` gives them, uint64 (count, 4), and the pairs of rows that are near."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 1 << 63, (count, 4), dtype=np.uint64) | np.uint64(1 << 63)
    copies = set()
    for original in range(0, count - NEAR // 2, NEAR):
        copy, view = original + NEAR // 2, rng.integers(4)
        bits = rng.permutation(63)[: rng.integers(APART + 1)].astype(np.uint64)
        hashes[copy, 0] = hashes[original, view] ^ np.bitwise_or.reduce(np.uint64(1) << bits, initial=np.uint64(0))
        copies.add((original, copy))
    return hashes, copies


def pairs_of_ours(hashes: np.ndarray) -> set[tuple[int, int]]:
    from catdog.preparation import neighbours

    asked = set()

    def alike(first: int, second: int, mirrored: bool) -> bool:
        asked.add((first, second))
        return False

    neighbours.families(hashes, alike)
    return asked


def pairs_of_faiss(way: str, hashes: np.ndarray) -> set[tuple[int, int]]:
    """Pairs of rows of which the whole picture of one is close to a view of the other."""
    import faiss

    faiss.omp_set_num_threads(parallel.cores())
    views = hashes.ravel().view(np.uint8).reshape(-1, 8)
    whole = np.ascontiguousarray(hashes[:, 0]).view(np.uint8).reshape(-1, 8)
    per_picture = hashes.shape[1]
    if way == "all":
        index = faiss.IndexBinaryFlat(64)
    elif way == "hash":
        index = faiss.IndexBinaryHash(64, 16)
        index.nflip = 2
    else:
        index = faiss.IndexBinaryMultiHash(64, 4, 16)
        index.nflip = 1
    index.add(views)
    limits, _, found = index.range_search(whole, APART + 1)
    first = np.repeat(np.arange(len(hashes)), np.diff(limits.astype(np.int64)))
    second = found // per_picture
    apart = first != second
    pairs = np.minimum(first, second)[apart], np.maximum(first, second)[apart]
    return set(zip(*(column.tolist() for column in pairs), strict=True))


if __name__ == "__main__":
    run(main)
