"""Photographs measured for a comparison with those that a model was made for: by the model, and by a ruler."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np

from catdog.answers import familiarity
from catdog.answers.asking import BATCH
from catdog.answers.classifier import Classifier
from catdog.base import parallel
from catdog.base.errors import UserError
from catdog.base.progress import track
from catdog.base.text import printable
from catdog.evaluation import properties, reference
from catdog.photographs import photos
from catdog.preparation import archives

MOST_KEPT = 4_000  # photographs whose features are kept, evenly among all: 16 MB of Xception's
Item = TypeVar("Item")


@dataclass(frozen=True)
class Measured:
    """What was found of n different photographs.

    Attributes:
        places: where each stands among what was given.
        properties: float32 (n, 6), `properties.NAMES`; None where only answers were kept of them.
        probabilities: float64 (n,), of the second class.
        familiarity: float64 (n,).
        closeness: float64 (n,): the less, the stranger; where familiarity is 0 for many, it still tells them apart.
        directions: float16 (m, k), as in `reference`, of all or of MOST_KEPT evenly among them.
        refused: of what can't be read: place and reason.
        copies: how many were there before, byte by byte.
    """

    places: list[int]
    properties: np.ndarray | None
    probabilities: np.ndarray
    familiarity: np.ndarray
    closeness: np.ndarray
    directions: np.ndarray
    refused: list[tuple[int, str]]
    copies: int = 0


class _Decoded(NamedTuple):
    digest: bytes
    pixels: np.ndarray
    properties: np.ndarray


def ask(items: Sequence[Item], model: Classifier, *, read: Callable[[Item], bytes]) -> Measured:
    """Measure photographs and ask a model about them, each once.

    They are read and decoded on threads while the model computes. What grows with their number is a few hundred bytes
    each, and features of MOST_KEPT at most.

    Args:
        model: with a profile.
        read: the bytes of one; raises `archives.BadMember` where there are none.
    """
    profile = model.profile
    assert profile is not None
    kept = {*np.linspace(0, len(items) - 1, min(MOST_KEPT, len(items))).astype(int).tolist()}
    places: list[int] = []
    refused: list[tuple[int, str]] = []
    seen: set[bytes] = set()
    ruled: list[np.ndarray] = []

    def decode(item: Item) -> _Decoded | str:
        try:
            data = read(item)
            photo = photos.standardise(data, image_size=model.image_size)
        except (archives.BadMember, photos.Unreadable) as error:
            return printable(str(error))
        ruler = properties.measure(photo.jpeg, width=photo.width, height=photo.height)
        return _Decoded(hashlib.sha256(data).digest(), photos.pixels(photo.jpeg, model.side), ruler)

    def readable() -> Iterator[np.ndarray]:
        decoded = parallel.threaded(decode, items, ahead=4 * BATCH)
        for place, found in enumerate(track(decoded, total=len(items), what="asking about photographs")):
            if isinstance(found, str):
                refused.append((place, found))
            elif found.digest not in seen:
                seen.add(found.digest)
                places.append(place)
                ruled.append(found.properties)
                yield found.pixels

    probabilities: list[np.ndarray] = []
    familiar: list[np.ndarray] = []
    closeness: list[np.ndarray] = []
    directions: list[np.ndarray] = []
    answered = 0
    for asked in model.network.stream(map(np.stack, parallel.chunks(readable(), BATCH))):
        judged = model.judge(asked)
        probabilities.append(judged.probabilities)
        familiar.append(np.asarray(judged.familiarity))
        closeness.append(familiarity.closeness(asked.features, profile.centres, profile.bases))
        mine = [place in kept for place in places[answered : answered + len(asked.features)]]
        directions.append(reference.directions(asked.features[mine]))
        answered += len(asked.features)
    if not places:
        why = f": {refused[0][1]}" if refused else ""
        raise UserError(f"no file of {len(items):,} could be read as a photograph{why}")
    return Measured(
        places=places,
        properties=np.stack(ruled),
        probabilities=np.concatenate(probabilities),
        familiarity=np.concatenate(familiar),
        closeness=np.concatenate(closeness),
        directions=np.concatenate(directions),
        refused=refused,
        copies=len(items) - len(refused) - len(places),
    )
