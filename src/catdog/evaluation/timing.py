"""How long an answer takes, by the clock and by a yardstick that a busy machine slows alike."""

import statistics
import time
from collections.abc import Callable

import numpy as np

from catdog.answers.classifier import Classifier
from catdog.photographs.shards import Shard

_TURNS = 15
_AT_ONCE = 32
_SIDE = 1024  # of the square matrices whose product is the yardstick


def measure(model: Classifier, test: Shard) -> dict[str, float]:
    """Medians over photographs of a shard, from a file's bytes to the answer.

    Returns:
        `milliseconds_per_photograph`: one at a time; `milliseconds_per_photograph_of_32`: each of 32 at once;
        `relative_time`: of one, in products of two 1,024 x 1,024 matrices of float32, timed in turns with it. The clock
        of a machine that others use tells a different time each day; this ratio hardly moves.
    """
    matrix = np.random.default_rng(0).standard_normal((_SIDE, _SIDE), np.float32)

    def ask(count: int, turn: int) -> None:
        rows = [(turn * count + place) % len(test) for place in range(count)]
        model.answers(model.ask(np.stack([model.pixels(test.jpeg(row)) for row in rows])))

    one = _in_turns({"answer": lambda turn: ask(1, turn), "product": lambda turn: matrix @ matrix}, turns=_TURNS)
    many = _in_turns({"answers": lambda turn: ask(_AT_ONCE, turn)}, turns=3)
    return {
        "milliseconds_per_photograph": 1000 * one["answer"],
        "milliseconds_per_photograph_of_32": 1000 * many["answers"] / _AT_ONCE,
        "relative_time": one["answer"] / one["product"],
    }


def _in_turns(what: dict[str, Callable[[int], object]], *, turns: int) -> dict[str, float]:
    """Median seconds of each; a first turn, which warms up, is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in what}
    for turn in range(turns + 1):
        for name, function in what.items():
            started = time.perf_counter()
            function(turn)
            taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(seconds[1:]) for name, seconds in taken.items()}
