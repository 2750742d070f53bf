"""Which of many pictures belong together, without comparing all pairs."""

import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from catdog.base import parallel
from catdog.base.progress import track

# At least 99 % of copies differ in at most 12 of 64 bits; of pairs of unrelated photographs, 1 in 35,000 does.
_BITS_APART = 12
# A pair is compared if its hashes agree in all bits of one of 256 choices of 16 bits. Of pairs that differ in 12 bits 1
# in 160 is missed, in 10 bits 1 in 40,000. The choices are fixed: if they depended on the pictures, one more of these
# would change which others are found.
_CHOICES, _BITS = 256, 16
_PAIRS_AT_ONCE = 1 << 20

Pair = tuple[int, int, bool]  # two rows, ascending, and whether to mirror one picture


def families(hashes: np.ndarray, alike: Callable[[int, int, bool], bool]) -> list[list[int]]:
    """The rows of pictures that are alike, and of those that are alike to these, and so on. Every row is in one family.

    Args:
        hashes: uint64 (pictures, 4), as `fingerprints.hashes` gives them.
        alike: a close look at a pair, on any thread. It is not asked about pictures already in one family, so a
            thousand copies take a thousand looks, not a million.
    """
    family = np.arange(len(hashes))  # of each row, by the number of one of its rows
    members = [[row] for row in range(len(hashes))]
    looked_at = set()

    def unsettled(pairs: list[Pair]) -> Iterator[Pair]:
        for pair in pairs:
            if family[pair[0]] != family[pair[1]] and pair not in looked_at:
                looked_at.add(pair)
                yield pair

    # Sorting and close looks go on ahead, on all cores.
    agreements = parallel.threaded(partial(_agreement, hashes), _choices(), ahead=parallel.cores())
    for agreement in track(agreements, total=_CHOICES, what="looking for near duplicates"):
        for pairs in _candidates(hashes, agreement, family):
            looks = parallel.threaded(lambda pair: (pair, alike(*pair)), unsettled(pairs), ahead=parallel.cores())
            for (first, second, _), are_alike in looks:
                if are_alike and family[first] != family[second]:
                    smaller, larger = sorted((family[first], family[second]), key=lambda each: len(members[each]))
                    family[members[smaller]] = larger
                    members[larger] += members[smaller]
                    members[smaller] = []
    return [sorted(rows) for rows in members if rows]


def _choices() -> list[np.uint64]:
    rng = random.Random(0)
    # Without the first bit, which stands for brightness and is set in nearly every picture.
    return [np.uint64(sum(1 << bit for bit in rng.sample(range(63), _BITS))) for _ in range(_CHOICES)]


class _Agreement(NamedTuple):
    """Views in an order in which those that agree in the bits of a choice are together.

    `by_view` (views,); the views that agree with the whole picture of row `by_whole[i]` are `by_view[start[i]:end[i]]`.
    """

    by_whole: np.ndarray
    by_view: np.ndarray
    start: np.ndarray
    end: np.ndarray


def _agreement(hashes: np.ndarray, choice: np.uint64) -> _Agreement:
    chosen = hashes & choice
    whole, views = chosen[:, 0], chosen.ravel()
    by_whole, by_view = np.argsort(whole), np.argsort(views)
    wanted, available = whole[by_whole], views[by_view]
    start, end = (np.searchsorted(available, wanted, side) for side in ("left", "right"))
    return _Agreement(by_whole, by_view, start, end)


def _candidates(hashes: np.ndarray, agreement: _Agreement, family: np.ndarray) -> Iterator[list[Pair]]:
    """Pairs of rows of different families, and whether one is mirrored. The whole picture of one row agrees with some
    view of the other in the bits that were chosen, and differs in few others."""
    whole, views, per_picture = hashes[:, 0], hashes.ravel(), hashes.shape[1]
    by_whole, by_view, start, end = agreement
    # Skip stretches of one family, such as a picture and its own views.
    changes = np.concatenate([[0], np.cumsum(np.diff(family[by_view // per_picture]) != 0)])
    sizes = np.where(changes[start] == changes[end - 1], 0, end - start)
    for part in _parts(sizes):
        size = sizes[part]
        first = np.repeat(by_whole[part], size)
        place = np.arange(len(first)) - np.repeat(np.cumsum(size) - size, size)
        view = by_view[np.repeat(start[part], size) + place]
        second = view // per_picture
        near = family[first] != family[second]
        near &= np.bitwise_count(whole[first] ^ views[view]) <= _BITS_APART
        first, second, mirrored = first[near], second[near], view[near] % per_picture >= per_picture // 2
        pairs = np.minimum(first, second), np.maximum(first, second), mirrored
        yield list(zip(*(column.tolist() for column in pairs), strict=True))


def _parts(sizes: np.ndarray) -> list[slice]:
    """Stretches of `sizes` whose sums are about _PAIRS_AT_ONCE, so that memory stays flat."""
    ends = np.flatnonzero(np.diff(np.cumsum(sizes) // _PAIRS_AT_ONCE)) + 1
    return [slice(a, b) for a, b in zip([0, *ends], [*ends, len(sizes)], strict=True)]
