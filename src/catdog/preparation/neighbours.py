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
# A pair is compared if its hashes agree in all bits of a word; there are some words in each of many orders of the bits.
# With words of 16 bits 1 in 160 pairs is missed that differ in 12 bits, and 1 in 40,000 that differ in 10. The orders
# are fixed: if they depended on the pictures, one more of these would change which others are found.
_ORDERS, _WORDS = 86, 3
_PAIRS_AT_ONCE = 1 << 20
_BITS = 63  # without the first bit, which stands for brightness and is set in nearly every picture

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
    by_order = parallel.threaded(partial(_agreements, hashes), _orders(), ahead=1)
    agreements = (agreement for of_order in by_order for agreement in of_order)
    for agreement in track(agreements, total=_ORDERS * _WORDS, what="looking for near duplicates"):
        for pairs in _candidates(hashes, agreement, family):
            looks = parallel.threaded(lambda pair: (pair, alike(*pair)), unsettled(pairs), ahead=parallel.cores())
            for (first, second, _), are_alike in looks:
                if are_alike and family[first] != family[second]:
                    smaller, larger = sorted((family[first], family[second]), key=lambda each: len(members[each]))
                    family[members[smaller]] = larger
                    members[larger] += members[smaller]
                    members[smaller] = []
    return [sorted(rows) for rows in members if rows]


def _orders() -> list[list[int]]:
    rng = random.Random(0)
    return [rng.sample(range(_BITS), _BITS) for _ in range(_ORDERS)]


def _bits(pictures: int) -> int:
    """Of a word: from 65,536 pictures on more, so that as many agree by chance in one with each picture; 21 at most."""
    return min(_BITS // _WORDS, max(16, (pictures - 1).bit_length()))


class _Agreement(NamedTuple):
    """Views in an order in which those that agree in a word are together.

    `by_view` (views,); the views that agree with the whole picture of row `by_whole[i]` are `by_view[start[i]:end[i]]`.
    """

    by_whole: np.ndarray
    by_view: np.ndarray
    start: np.ndarray
    end: np.ndarray


def _agreements(hashes: np.ndarray, order: list[int]) -> list[_Agreement]:
    """One for each word of the bits in this order."""
    bits = _bits(len(hashes))
    mixed = _mixed(hashes, order)
    found = []
    for number in range(_WORDS):
        words = (mixed >> np.uint64(number * bits)).astype(np.uint32) & np.uint32((1 << bits) - 1)
        by_whole, by_view = _argsort(words[:, 0]), _argsort(words.ravel())
        ends = np.cumsum(np.bincount(words.ravel(), minlength=1 << bits))
        wanted = words[by_whole, 0]
        found.append(_Agreement(by_whole, by_view, np.append(0, ends)[wanted], ends[wanted]))
    return found


def _mixed(hashes: np.ndarray, order: list[int]) -> np.ndarray:
    """Hashes whose bit i is bit `order[i]` of what is given, byte by byte from tables."""
    values = np.arange(256, dtype=np.uint64)
    tables = np.zeros((8, 256), np.uint64)
    for place, bit in enumerate(order):
        tables[bit // 8] |= (values >> np.uint64(bit % 8) & np.uint64(1)) << np.uint64(place)
    given = hashes.astype("<u8").view(np.uint8).reshape(*hashes.shape, 8)
    mixed = np.zeros_like(hashes)
    for byte, table in enumerate(tables):
        mixed |= table[given[..., byte]]
    return mixed


def _argsort(words: np.ndarray) -> np.ndarray:
    """The order of words below 2**32, by their halves: numpy sorts 16 bits in linear time."""
    order = np.argsort(words.astype(np.uint16), kind="stable")
    above = (words >> np.uint32(16)).astype(np.uint16)
    return order[np.argsort(above[order], kind="stable")] if above.any() else order


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
