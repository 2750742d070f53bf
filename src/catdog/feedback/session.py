"""A review under way: which photograph is asked about now, what was decided on those before, and the way back."""

import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from catdog.base import files
from catdog.base.errors import UserError
from catdog.feedback import decisions
from catdog.feedback.reviewing import CONTROL, Gone, Item
from catdog.preparation import corrections
from catdog.preparation.corrections import AS_FILED, NEITHER
from catdog.preparation.sources import REVIEWED

_BEGINNINGS = {b"\xff\xd8\xff": "jpg", b"\x89PNG\r\n\x1a\n": "png", b"GIF87a": "gif", b"GIF89a": "gif", b"BM": "bmp"}
_OTHER = "That page was of another start of `catdog review`. This is the present one."


class Refused(Exception):
    """Why nothing was done, in words: the page that asked for it shows what has passed."""


@dataclass(frozen=True)
class Done:
    """What became of a photograph.

    Attributes:
        decision: a class or NEITHER; empty where it was skipped.
        row: what was written, by which it can be undone.
        brought: the file in data/raw/reviewed that its decision brought there.
        blind: whether it was decided before anything was told of it.
    """

    item: Item
    decision: str
    row: bytes = b""
    brought: Path | None = None
    blind: bool = True

    @property
    def changed(self) -> bool:
        return bool(self.decision) and self.decision != self.item.was


@dataclass(frozen=True)
class Tally:
    """What a review came to, in photographs; `agreed` of `controls` were found to be what they are filed as.

    Of a control that was decided once more, after its reveal, nothing follows, so it is not counted.
    """

    looked: int
    relabelled: int
    set_aside: int
    brought: int
    skipped: int
    controls: int
    agreed: int


class Session:
    """The state of one review. Photographs go by tokens, which tell nothing of them. For one thread at a time.

    Args:
        file: where decisions are written, data/corrections.csv.
        raw: data/raw.
        by: who decides.

    Attributes:
        pending: what is still to be decided, by token, in order.
        done: what was decided or skipped, in the order in which that happened.
        gone: why some could not be shown.
    """

    def __init__(self, items: list[Item], *, file: Path, raw: Path, classes: list[str], by: str) -> None:
        self.pending = {secrets.token_hex(8): item for item in items}
        self.done: dict[str, Done] = {}
        self.gone: list[str] = []
        self._revealed: set[str] = set()
        self._file, self._raw, self._classes, self._by = file, raw, classes, by

    def current(self) -> tuple[str, bytes] | None:
        """The photograph to decide on now, as JPEG; None at the end. Those that can't be shown are passed over."""
        for token, item in [*self.pending.items()]:
            try:
                return token, item.jpeg()
            except Gone as problem:
                del self.pending[token]
                self.gone.append(str(problem))
        return None

    def decide(self, token: str, word: str) -> None:
        """Write down that a photograph is of a class, or NEITHER. It is on disk once this returns.

        Raises:
            Refused: it is decided already, here or elsewhere, or is none of these.
            UserError: it could not be written, and nothing is changed.
        """
        item = self._pending(token)
        if word not in (*self._classes, NEITHER):
            raise Refused(f"a decision is {', '.join(self._classes)} or {NEITHER}")
        blind = token not in self._revealed
        brought = self._bring(item)
        try:
            written = decisions.append(
                self._file,
                item.id,
                AS_FILED if word == item.filed else word,
                by=self._by,
                why=item.why if blind else f"{item.why}, decided again",
                classes=self._classes,
            )
        except UserError:
            _remove(brought)
            raise
        del self.pending[token]
        if written.before:  # and so this was not written
            before = written.before
            raise Refused(f"This photograph is decided already: {before.decision}, by {before.by}, {before.when}.")
        self.done[token] = Done(item, word, written.row, brought, blind)
        self._revealed.add(token)

    def skip(self, token: str) -> None:
        """Leave a photograph to another review.

        Raises:
            Refused: it is decided already, or is none of these.
        """
        self.done[token] = Done(self._pending(token), "")
        del self.pending[token]

    def undo(self, token: str) -> None:
        """Ask about a photograph again, and next, as if it had not been decided or skipped.

        Raises:
            Refused: it is neither.
            UserError: data/corrections.csv was edited meanwhile, or could not be written.
        """
        if token not in self.done:
            raise Refused("That is undone already." if token in self.pending else _OTHER)
        done = self.done[token]
        if done.row:
            decisions.undo(self._file, done.row)
        del self.done[token]
        self.pending = {token: done.item, **self.pending}
        if done.brought and done.item.id not in corrections.load(self._file, self._classes):
            _remove(done.brought)

    def tally(self) -> Tally:
        decided = [done for done in self.done.values() if done.decision]
        controls = [done for done in decided if done.item.kind == CONTROL and done.blind]
        return Tally(
            looked=len(decided),
            relabelled=sum(done.changed and done.decision != NEITHER for done in decided),
            set_aside=sum(done.decision == NEITHER for done in decided),
            brought=sum(done.brought is not None for done in decided),
            skipped=len(self.done) - len(decided),
            controls=len(controls),
            agreed=sum(not done.changed for done in controls),
        )

    def _pending(self, token: str) -> Item:
        if token in self.done:
            decision = self.done[token].decision
            what = f"decided already: {decision}" if decision else "skipped already"
            raise Refused(f"That photograph was {what}. Is this page open twice?")
        if token not in self.pending:
            raise Refused(_OTHER)
        return self.pending[token]

    def _bring(self, item: Item) -> Path | None:
        """Put a photograph that a served answer was about into data/raw/reviewed: where, or None if it needs not be."""
        if item.original is None:
            return None
        there = self._raw / REVIEWED
        try:
            # A review that was killed may have left it, under another class if the answer was another then. Standing
            # under both, it would be in conflict.
            left = [file for file in there.glob(f"*/{item.id}.*") if file.suffix != ".part"]
            if left:
                return left[0]
            data = item.original()
            path = there / item.leans / f"{item.id}.{_ending(data)}"
            files.write_bytes(path, data)
            files.sync(path)  # before the row that is about it
        except Gone as gone:
            raise UserError(f"{gone}: skip it") from None
        except OSError as error:
            problem = error.strerror or str(error)
            raise UserError(f"{there}: {problem}: nothing was decided; see to it, and try again") from None
        return path


def _ending(data: bytes) -> str:
    """Of a file's name, by the file's first bytes."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return next((ending for beginning, ending in _BEGINNINGS.items() if data.startswith(beginning)), "bin")


def _remove(path: Path | None) -> None:
    # Without a decision `dvc repro` passes over it, so no harm is done where this fails.
    if path:
        with suppress(OSError):
            path.unlink()
