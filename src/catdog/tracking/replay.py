"""Candidate and champion asked about photographs that the server was sent: what would change for those who ask."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from catdog.answers.asking import BATCH
from catdog.answers.classifier import Answer, Classifier
from catdog.base import parallel
from catdog.base.errors import UserError
from catdog.base.progress import track
from catdog.feedback import request_log
from catdog.photographs import photos
from catdog.pictures import sheets
from catdog.tracking.gates import Gate

NAME = "served answers"
_SHOWN = 24


@dataclass(frozen=True)
class Replay:
    """The answers of both models to the same photographs, in their order."""

    photographs: list[Path]
    champion: list[Answer]
    candidate: list[Answer]
    classes: tuple[str, str]

    @property
    def changed(self) -> list[int]:
        """The places of those that get another label, those with the other class first, then the most changed."""
        places = [
            place
            for place, (old, new) in enumerate(zip(self.champion, self.candidate, strict=True))
            if old.label != new.label
        ]
        return sorted(places, key=lambda place: (not self._flips(place), -self._shift(place)))

    @property
    def flips(self) -> int:
        """How many get the other class."""
        return sum(map(self._flips, range(len(self.photographs))))

    def _flips(self, place: int) -> bool:
        labels = {self.champion[place].label, self.candidate[place].label}
        return labels == {*self.classes}

    def _shift(self, place: int) -> float:
        return abs(self.champion[place].probability - self.candidate[place].probability)


def ask(log: Path, *, last: int, champion: Classifier, candidate: Classifier) -> Replay:
    """Ask both models about the last photographs of a log that kept them.

    Raises:
        UserError: the log kept none, or they are for other classes.
    """
    if champion.classes != candidate.classes:
        raise UserError(f"the champion tells {champion.classes}, the candidate {candidate.classes}: no replay")
    photographs = request_log.last_photographs(log, last)
    if not photographs:
        raise UserError(
            f"{log} kept no photographs: serve with --log {log} --keep-photographs, or promote without --log"
        )
    old = [*_answers(champion, photographs, "champion")]
    return Replay(photographs, old, [*_answers(candidate, photographs, "candidate")], champion.classes)


def _answers(model: Classifier, photographs: list[Path], what: str) -> Iterator[Answer]:
    def pixels(path: Path) -> np.ndarray:
        return model.pixels(path.read_bytes())

    decoded = parallel.threaded(pixels, photographs, ahead=4 * BATCH)
    batches = parallel.chunks(track(decoded, total=len(photographs), what=f"replay, {what}"), BATCH)
    return model.stream(map(np.stack, batches))


def gate(replay: Replay | None, *, limit: float | None) -> Gate:
    """Whether few enough answers would change. Not measured is not passed."""
    words = "none" if limit is None else f"another label for at most {limit:.1%}"
    if replay is None:
        return Gate(NAME, False, "not measured: name a log that kept photographs, --log DIR", words)
    changed, count = len(replay.changed), len(replay.photographs)
    figure = f"another label for {changed:,} of the last {count:,} ({changed / count:.1%}), the other class for "
    return Gate(NAME, limit is None or changed / count <= limit, f"{figure}{replay.flips:,}", words)


def draw(replay: Replay, path: Path) -> None:
    """A sheet of the photographs that get another label."""
    shown = replay.changed[:_SHOWN]
    pictures = [photos.standardise(replay.photographs[place].read_bytes(), image_size=256).image for place in shown]
    captions = [
        f"{replay.photographs[place].name[:12]}\n{_words(replay, replay.champion[place])} → "
        f"{_words(replay, replay.candidate[place])}"
        for place in shown
    ]
    title = f"Served photographs that would get another label: {len(replay.changed):,} of {len(replay.photographs):,}"
    sheets.block_sheet([sheets.Block(pictures, captions)] if shown else [], path, title=title)


def _words(replay: Replay, answer: Answer) -> str:
    return f"{answer.label} ({replay.classes[1]} {answer.probability:.2f})"
