"""The same training of a head from further seeds: how far chance moves it. None of these heads ever answers."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from catdog.base import files, params
from catdog.training.loop.checkpoints import Checkpoint
from catdog.training.xception import network, recipe

_LOGITS = "_val_logits"
_BATCH = 1024  # photographs that a head is asked about at once


class Head(NamedTuple):
    """A trained head.

    Attributes:
        weights: as Keras lists them.
        val_logits: what it says of the validation photographs, float64 (n,), for its temperature.
    """

    weights: list[np.ndarray]
    val_logits: np.ndarray


def further(p: params.Params) -> range:
    """The seeds after `base.seed`; none where blocks are fine-tuned, since a head alone is not what is served then."""
    t = p.train_xception
    return range(p.base.seed + 1, p.base.seed + (1 if t.fine_tune_blocks else t.seeds))


def train(
    p: params.Params,
    *,
    train: tuple[np.ndarray, np.ndarray],
    val: tuple[np.ndarray, np.ndarray],
    photographs: int,
    checkpoint: Callable[[int], Checkpoint],
) -> tuple[dict[int, Head], float]:
    """Train a head from each further seed, all else as in `recipe.train_head`.

    Args:
        checkpoint: from a seed to its training's own.

    Returns:
        The heads by seed, and the wall time that they took, before a kill and after (seconds).
    """
    heads, seconds = {}, 0.0
    for seed in further(p):
        head, result = recipe.train_head(
            p,
            train=train,
            val=val,
            photographs=photographs,
            checkpoint=checkpoint(seed),
            on_epoch=lambda row: None,
            seed=seed,
        )
        weights = head.get_weights()
        heads[seed] = Head(weights, logits(p.train_xception, weights, val[0]))
        seconds += result.seconds
    return heads, seconds


def logits(t: params.TrainXception, weights: list[np.ndarray], features: np.ndarray) -> np.ndarray:
    """What the head of these weights says of photographs, before the sigmoid: float64 (n,).

    Args:
        features: float32 (n, k), as the head was trained on.
    """
    head = network.head(t, features=features.shape[1])
    head.set_weights(weights)
    last = head.get_layer("probability")
    kernel, bias = last.get_weights()
    below = keras.Model(head.inputs[0], last.input)
    starts = range(0, len(features), _BATCH)
    asked = [np.asarray(below(features[start : start + _BATCH], training=False)) @ kernel + bias for start in starts]
    return np.concatenate(asked)[:, 0].astype(np.float64)


def save(path: Path, heads: dict[int, Head]) -> None:
    """Write the heads to `path`, an .npz file of plain arrays, complete or not at all."""
    arrays = {f"{seed}_weights_{i}": array for seed, head in heads.items() for i, array in enumerate(head.weights)}
    arrays |= {f"{seed}{_LOGITS}": head.val_logits for seed, head in heads.items()}
    with files.replacing(path) as part, part.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load(path: Path) -> dict[int, Head]:
    """The heads that `save` wrote, by seed."""
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)

    def weights(seed: str) -> list[np.ndarray]:
        return [array for name, array in arrays.items() if name.startswith(f"{seed}_weights_")]

    known = [name.removesuffix(_LOGITS) for name in arrays if name.endswith(_LOGITS)]
    return {int(seed): Head(weights(seed), arrays[f"{seed}{_LOGITS}"]) for seed in known}
