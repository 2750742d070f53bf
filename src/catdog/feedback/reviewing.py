"""What `catdog review` asks about, and in which order: photographs in doubt, and among them some that nobody doubts."""

import functools
import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from catdog.base import params, paths
from catdog.base.errors import UserError
from catdog.feedback import request_log
from catdog.feedback.request_log import Doubted
from catdog.photographs import photos
from catdog.photographs.shards import Shard
from catdog.preparation import corrections
from catdog.preparation.splits import SPLITS

SUSPECT, CONTROL, SERVED = "suspect", "control", "served answer"
NOTHING = f"no photograph of {paths.SUSPECTS} is undecided"
NOTHING_SERVED = "no answer there is in doubt, with a photograph that was kept and is undecided"
_BLOCK = 4  # photographs in doubt, to one control
_SURE = 0.9  # a served answer that is less sure is in doubt, even where the model has no level of its own


@dataclass(frozen=True)
class Item:
    """A photograph to decide on.

    Attributes:
        id: sha256 of its file, in hex.
        kind: SUSPECT, CONTROL or SERVED.
        why: why it is asked about, as data/corrections.csv has it.
        filed: the class of its folder in data/raw; empty where it is not there.
        leans: the likelier class, of a served answer; else empty.
        source: where it is.
        split: train, val or test; empty where it is in none.
        jpeg: gives the photograph as it is shown. Raises Gone.
        original: gives the file's bytes, of what is to be brought into data/raw; else None. Raises Gone.
    """

    id: str
    kind: str
    why: str
    filed: str
    leans: str
    source: str
    split: str
    jpeg: Callable[[], bytes]
    original: Callable[[], bytes] | None = None

    @property
    def was(self) -> str:
        """The class that a decision confirms or changes."""
        return self.filed or self.leans


class Gone(Exception):
    """Why a photograph can't be shown, in words."""


class Queue(NamedTuple):
    """What there is to decide, in the order in which it is asked, and what to tell a person before."""

    items: list[Item]
    notices: list[str]


@dataclass(frozen=True)
class _Prepared:
    """The prepared photographs by id: shard, row and split; and the folder's class of every file in data/raw."""

    places: dict[str, tuple[Shard, int, str]]
    filed: dict[str, str]
    classes: list[str]

    def item(self, identity: str, *, kind: str, why: str) -> Item:
        shard, row, split = self.places[identity]
        filed = self.filed.get(identity) or self.classes[shard.labels[row]]
        jpeg = functools.partial(shard.jpeg, row)
        return Item(identity, kind, why, filed, "", shard.sources[row], split, jpeg)


def queue(p: params.Params, *, log: Path | None = None) -> Queue:
    """What nobody has decided yet: the suspects, or what served answers were doubted on, the most doubtful first; and
    at a random place among every four of them, by seed, a photograph of any split that nobody doubts.

    Args:
        log: a folder of `catdog serve --log`; None: the suspects.

    Raises:
        UserError: there are no prepared photographs or suspects, or the corrections are not as they should be.
    """
    classes = p.base.classes
    decided = corrections.load(paths.CORRECTIONS, classes)
    prepared = _prepared(classes)
    suspects = _suspects() if log is None or paths.SUSPECTS.is_file() else {}
    if log is None:
        due = {identity: sure for identity, sure in suspects.items() if identity not in decided}
        items = [
            prepared.item(identity, kind=SUSPECT, why=f"{SUSPECT}, {sure:.3f} sure of its label")
            for identity, sure in due.items()
            if identity in prepared.places
        ]
        notices = _notice(len(due) - len(items), f"of {paths.SUSPECTS} not prepared now: `dvc repro` finds anew")
    else:
        answers = [each for each in request_log.doubted(log, sureness=_SURE) if each.sha256 not in decided]
        items = [item for each in answers if (item := _served(each, prepared, p.prepare.image_size))]
        notices = _notice(len(answers) - len(items), "not kept: serve with `--keep-photographs` to review such, too")
    dice = random.Random(f"{p.base.seed} {len(decided)}")
    barred = {*decided, *suspects, *(item.id for item in items)}
    pool = sorted(identity for identity in prepared.places if identity not in barred)
    drawn = dice.sample(pool, min(len(pool), -(-len(items) // _BLOCK)))
    controls = [prepared.item(identity, kind=CONTROL, why=CONTROL) for identity in drawn]
    return Queue(mixed(items, controls, dice), notices)


def mixed(doubted: list[Item], controls: list[Item], dice: random.Random) -> list[Item]:
    """One control at a random place in every block of five; the order of the others stays."""
    items: list[Item] = []
    for number, start in enumerate(range(0, len(doubted), _BLOCK)):
        block = doubted[start : start + _BLOCK]
        for control in controls[number : number + 1]:
            block.insert(dice.randint(0, len(block)), control)
        items += block
    return items


def _prepared(classes: list[str]) -> _Prepared:
    places: dict[str, tuple[Shard, int, str]] = {}
    for split in SPLITS:
        shard = Shard(paths.PREPARED / f"{split}.arrow")
        places |= {identity: (shard, row, split) for row, identity in enumerate(shard.ids)}
    manifest = _table(paths.MANIFEST, "id")
    # Without the column, in a manifest of before there were corrections, the label is the folder's.
    column = "filed" if "filed" in manifest else "label"
    return _Prepared(places, dict(zip(manifest["id"], manifest[column], strict=True)), classes)


def _suspects() -> dict[str, float]:
    """How sure a model is of each suspect's label, the least sure first."""
    table = _table(paths.SUSPECTS, "id", "confidence")
    return dict(zip(table["id"], pd.to_numeric(table["confidence"], errors="coerce"), strict=True))


def _table(path: Path, *columns: str) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise UserError(f"{path} not found: run `dvc repro`") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): delete it and run `dvc repro`") from None
    if missing := {*columns} - {*table}:
        raise UserError(f"{path} has no column {min(missing)!r}: delete it and run `dvc repro`")
    return table


def _served(answer: Doubted, prepared: _Prepared, image_size: int) -> Item | None:
    """What a served answer was about, where it can be seen: it was kept, or is among the prepared photographs."""
    second = answer.probability >= 0.5
    leans = answer.leans if answer.leans in prepared.classes else prepared.classes[second]
    sure = f"{leans} {answer.probability if second else 1 - answer.probability:.2f}"
    why = f"{SERVED}: {sure if answer.label == leans else f'{answer.label}, {sure}'}"
    if answer.feedback:
        why += f", told {answer.feedback}"
    if answer.sha256 in prepared.places:
        return prepared.item(answer.sha256, kind=SERVED, why=why)
    if answer.path is None:
        return None
    original = functools.partial(_kept, answer.path, answer.sha256)
    jpeg = functools.partial(_jpeg, original, image_size)
    known = answer.sha256 in prepared.filed  # in data/raw, but refused there
    filed = prepared.filed.get(answer.sha256, "")
    bring = None if known else original
    return Item(answer.sha256, SERVED, why, filed, leans, str(answer.path), "", jpeg, bring)


def _kept(path: Path, sha256: str) -> bytes:
    """The photograph that a server kept.

    Raises:
        Gone: it is there no more, or is another.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Gone(f"{path}: {error.strerror or error}") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise Gone(f"{path}: not the photograph that was asked about")
    return data


def _jpeg(original: Callable[[], bytes], image_size: int) -> bytes:
    """A photograph that anybody may have sent, as pixels of our own: no browser gets bytes that nobody knows."""
    try:
        return photos.encode(photos.standardise(original(), image_size=image_size).image)
    except photos.Unreadable as problem:
        raise Gone(f"no photograph that can be read: {problem}") from None


def _notice(count: int, what: str) -> list[str]:
    return [f"passed over {count:,} photograph{'s' * (count != 1)} {what}"] if count else []
