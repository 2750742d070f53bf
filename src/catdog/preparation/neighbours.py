"""Which of many pictures belong together, without comparing each to each."""

import random
from collections.abc import Callable, Iterator

import numpy as np
from scipy.cluster.hierarchy import DisjointSet

from catdog.base.progress import track

# Of 64 bits, copies differ in 12 at most in 99 % of cases and more; of unrelated photographs, one pair in 35,000 does.
_BITS_APART = 12
# Pictures meet where they agree in 16 bits of their hashes, in any of 256 choices of 16. Two that differ in 12 bits do
# not meet once in 160 times, in 10 once in 40,000. The choices are fixed: did they depend on the pictures, one more of
# these would change which of the others are found.
_CHOICES, _BITS = 256, 16
_PAIRS_AT_ONCE = 1 << 20


def families(hashes: np.ndarray, alike: Callable[[int, int, bool], bool]) -> list[list[int]]:
    """The rows of pictures that are alike, and those alike to these, and so on: every row is in one family.

    Args:
        hashes: uint64 (pictures, 4), as `fingerprints.hashes` has them.
        alike: the close look at two pictures, rows in ascending order, one mirrored or not. It is not asked about
            pictures that are in one family by then, so a thousand copies cost a thousand looks, not a million.
    """
    found = DisjointSet(range(len(hashes)))
    family = np.arange(len(hashes))
    refuted = set()
    for choice in track(_choices(), total=_CHOICES, what="looking for near duplicates"):
        for pairs in _meetings(hashes, choice, family):
            joined = False
            for pair in pairs:
                if pair in refuted or found.connected(*pair[:2]):
                    continue
                if alike(*pair):
                    joined = found.merge(*pair[:2])
                else:
                    refuted.add(pair)
            if joined:
                family[:] = [found[row] for row in range(len(hashes))]
    return [sorted(rows) for rows in found.subsets()]


def _choices() -> list[np.uint64]:
    chance = random.Random(0)
    # The first bit is left out: it stands for brightness, and is set in nearly every picture.
    return [np.uint64(sum(1 << bit for bit in chance.sample(range(63), _BITS))) for _ in range(_CHOICES)]


def _meetings(hashes: np.ndarray, choice: np.uint64, family: np.ndarray) -> Iterator[list[tuple[int, int, bool]]]:
    """Pairs of rows, of two families, where the picture of one agrees with some view of the other in the bits of
    `choice`, and nearly so in all others; and whether that view is a mirrored one."""
    whole, views = hashes[:, 0], hashes.ravel()
    each = hashes.shape[1]
    of_whole, of_views = np.argsort(whole & choice), np.argsort(views & choice)
    wanted, there = (whole & choice)[of_whole], (views & choice)[of_views]
    start, end = np.searchsorted(there, wanted, "left"), np.searchsorted(there, wanted, "right")
    # Where all that meet are of one family, as a picture with its own views is, there is nothing to find.
    changes = np.concatenate([[0], np.cumsum(np.diff(family[of_views // each]) != 0)])
    sizes = np.where(changes[start] == changes[end - 1], 0, end - start)
    for part in _parts(sizes):
        size = sizes[part]
        first = np.repeat(of_whole[part], size)
        place = np.arange(len(first)) - np.repeat(np.cumsum(size) - size, size)
        view = of_views[np.repeat(start[part], size) + place]
        second = view // each
        near = family[first] != family[second]
        near &= np.bitwise_count(whole[first] ^ views[view]) <= _BITS_APART
        first, second, mirrored = first[near], second[near], view[near] % each >= each // 2
        pairs = np.minimum(first, second), np.maximum(first, second), mirrored
        yield list(zip(*(column.tolist() for column in pairs), strict=True))


def _parts(sizes: np.ndarray) -> list[slice]:
    """Stretches of `sizes` that come to some _PAIRS_AT_ONCE each, so that memory stays flat."""
    ends = np.flatnonzero(np.diff(np.cumsum(sizes) // _PAIRS_AT_ONCE)) + 1
    return [slice(a, b) for a, b in zip([0, *ends], [*ends, len(sizes)], strict=True)]
