"""A trained model in use: from a file's bytes to an answer, for the command line, the server and the page alike."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from catdog.answers.asking import Asked, Network
from catdog.answers.familiarity import Profile
from catdog.photographs import photos

UNSURE, NEITHER = "unsure", "neither"
DOUBTS = {2: UNSURE, 3: NEITHER}  # as `decide` has them, beside 0 and 1 for the classes


class Answer(NamedTuple):
    """What a model says of one photograph.

    Attributes:
        label: a class; `unsure` where the answer would be wrong too often; `neither` where the photograph is unlike
            those that the model was made for.
        probability: of the second class, whatever the label.
        familiarity: the share of validation photographs that are no more familiar than this one; None where the model
            has no profile.
    """

    label: str
    probability: float
    familiarity: float | None


class Judged(NamedTuple):
    """What a model says of n photographs: float64 (n,), or None for familiarity; `labels` as `decide` has them."""

    probabilities: np.ndarray
    familiarity: np.ndarray | None
    labels: np.ndarray


@dataclass(frozen=True)
class Classifier:
    """A served form, opened: every step from a file's bytes to an answer.

    Attributes:
        classes: their names; probabilities are those of the second.
        image_size: short side of the photographs' standard form in training (pixels).
        side: of the network's square input (pixels).
        threshold: probability from which the second class is the label.
        temperature: what logits are divided by.
        sureness: the probability that a class needs to be the label; None: any will do.
        unfamiliar: the familiarity below which the label is `neither`; None: every photograph is familiar enough.
    """

    network: Network
    classes: tuple[str, str]
    image_size: int
    side: int
    threshold: float
    temperature: float = 1.0
    sureness: float | None = None
    unfamiliar: float | None = None
    profile: Profile | None = None

    def pixels(self, data: bytes) -> np.ndarray:
        """The network's input for a file's bytes, uint8 (side, side, 3).

        Raises:
            photos.Unreadable: these bytes are no photograph.
        """
        return photos.pixels(photos.standardise(data, image_size=self.image_size).jpeg, self.side)

    def ask(self, pixels: np.ndarray) -> Asked:
        """What the network says of n photographs, at least one: uint8 (n, side, side, 3). Threads take turns."""
        return self.network.ask(pixels)

    def judge(self, asked: Asked, threshold: float | None = None) -> Judged:
        """What follows from what the network says; `threshold` replaces the model's own."""
        threshold = self.threshold if threshold is None else threshold
        probabilities = self.probabilities(asked)
        familiarity = None if self.profile is None else self.profile.familiarity(asked.features)
        labels = decide(
            probabilities, familiarity, threshold=threshold, sureness=self.sureness, unfamiliar=self.unfamiliar
        )
        return Judged(probabilities, familiarity, labels)

    def answers(self, asked: Asked, threshold: float | None = None) -> list[Answer]:
        """The same as answers, one for each photograph."""
        probabilities, familiarity, labels = self.judge(asked, threshold)
        names = [*self.classes, *DOUBTS.values()]
        familiarities = [None] * len(labels) if familiarity is None else familiarity.tolist()
        return [
            Answer(names[label], *rest)
            for label, *rest in zip(labels, probabilities.tolist(), familiarities, strict=True)
        ]

    def stream(self, batches: Iterable[np.ndarray], threshold: float | None = None) -> Iterator[Answer]:
        """The answers for batches of pixels, each of at most `asking.BATCH`. For one thread at a time."""
        for asked in self.network.stream(batches):
            yield from self.answers(asked, threshold)

    def probabilities(self, asked: Asked) -> np.ndarray:
        """Of the second class, float64 (n,)."""
        return probability(asked.logits, self.temperature)


def probability(logits: np.ndarray, temperature: float) -> np.ndarray:
    """The probability of logits divided by a temperature: their order stays, and so does 0.5."""
    # From both ends, so that neither overflows.
    small = np.exp(-np.abs(logits / temperature))
    return np.where(logits >= 0, 1, small) / (1 + small)


def decide(
    probabilities: np.ndarray,
    familiarity: np.ndarray | None,
    *,
    threshold: float,
    sureness: float | None,
    unfamiliar: float | None,
) -> np.ndarray:
    """The label of each of n photographs, (n,): 0 or 1 for the classes, or one of DOUBTS."""
    labels = (probabilities >= threshold).astype(int)
    if sureness is not None:
        labels[np.where(labels, probabilities, 1 - probabilities) < sureness] = 2
    if unfamiliar is not None and familiarity is not None:
        labels[familiarity < unfamiliar] = 3
    return labels
