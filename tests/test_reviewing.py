"""What `catdog review` asks about, in which order; and what becomes of the photographs that a server kept."""

import hashlib
import json
import os
import random
from pathlib import Path

import cv2
import pytest
from conftest import jpeg, photograph
from review_fixtures import (
    RAW,
    SUSPECTS,
    Tab,
    identity,
    recorded,
    save,
    session_of,
    source,
    suspected,
)

from catdog.base.errors import UserError
from catdog.feedback import reviewing
from catdog.feedback.reviewing import CONTROL, SERVED, SUSPECT, Item
from catdog.photographs import photos
from catdog.preparation import corrections

pytest_plugins = ["review_fixtures"]

# ---- what is asked --------------------------------------------------------------------------------------------------


def test_suspects_come_in_their_order_with_one_control_in_five(project, knobs):
    items, notices = reviewing.queue(knobs)
    assert notices == []
    suspects = [item for item in items if item.kind == SUSPECT]
    assert [item.id for item in suspects] == [identity(n) for n in SUSPECTS]
    assert suspects[1].why == "suspect, 0.011 sure of its label"
    assert (suspects[2].source, suspects[2].filed, suspects[2].split) == (source(15), "dog", "val")
    assert suspects[2].jpeg() == jpeg(15)
    controls = [item for item in items if item.kind == CONTROL]
    assert [item.kind for item in items[:5]].count(CONTROL) == len(controls) - 1 == 1
    assert not {item.id for item in controls} & {identity(n) for n in SUSPECTS}
    assert [item.id for item in reviewing.queue(knobs).items] == [item.id for item in items]


def test_a_control_may_stand_at_any_place_and_be_of_any_split(project, knobs):
    def item(number: int, kind: str) -> Item:
        return Item(str(number), kind, "", "cat", "", "", "", bytes)

    doubted = [item(n, SUSPECT) for n in range(402)]
    mixed = reviewing.mixed(doubted, [item(n, CONTROL) for n in range(101)], random.Random(1))
    assert [each for each in mixed if each.kind == SUSPECT] == doubted
    places = [[each.kind for each in mixed[start : start + 5]].index(CONTROL) for start in range(0, 503, 5)]
    assert {places.count(place) > 8 for place in range(5)} == {True}

    drawn = set()
    for seed in range(20):
        p = knobs.model_copy(update={"base": knobs.base.model_copy(update={"seed": seed})})
        drawn |= {each.split for each in reviewing.queue(p).items if each.kind == CONTROL}
    assert drawn == {"train", "val", "test"}


def test_what_is_decided_or_gone_is_not_asked(project, knobs):
    save("data/corrections.csv", [[*corrections.COLUMNS], [identity(7), "as filed"], [identity(0), "dog"]])
    suspected(SUSPECTS, "a" * 64, "b" * 64)
    items, notices = reviewing.queue(knobs)
    assert [item.id for item in items if item.kind == SUSPECT] == [identity(n) for n in SUSPECTS[1:]]
    assert identity(0) not in [item.id for item in items]
    assert notices == ["passed over 2 photographs of plots/suspects.csv not prepared now: `dvc repro` finds anew"]
    suspected([7])
    assert reviewing.queue(knobs).items == []


def test_filed_is_what_the_manifest_says(project, knobs):
    manifest = Path("data/prepared/manifest.csv")
    rows = [line.split(",") for line in manifest.read_text().splitlines()]
    save(str(manifest), [row[:-1] + (["dog"] if row[0] == identity(2) else row[-1:]) for row in rows])
    assert {item.id: item.filed for item in reviewing.queue(knobs).items}[identity(2)] == "dog"
    save(str(manifest), [row[:-1] for row in rows])  # as it was before there were corrections
    assert {item.id: item.filed for item in reviewing.queue(knobs).items}[identity(2)] == "cat"


@pytest.mark.parametrize("missing", ["plots/suspects.csv", "data/prepared/val.arrow", "data/prepared/manifest.csv"])
def test_before_the_first_run_it_says_what_to_do(project, knobs, missing):
    Path(missing).unlink()
    with pytest.raises(UserError, match=rf"{missing} not found: run `dvc repro`"):
        reviewing.queue(knobs)


# ---- what served answers were doubted on ----------------------------------------------------------------------------

KEPT = {
    "unsure": cv2.imencode(".png", photograph(31))[1].tobytes(),
    "dog": jpeg(32, (900, 700)),
    "cat": jpeg(33),
    "neither": b"no photograph",
    "lost": jpeg(34),
    "other": jpeg(35)[:2] + b"\xff\xfe\x00\x09comment" + jpeg(35)[2:],
}


@pytest.fixture
def log(project) -> Path:
    """A log of seven answers: their labels, and what of them was kept."""
    folder = project / "log"
    (folder / "photographs/2026-11-27").mkdir(parents=True)
    answers = [("unsure", 0.61), ("dog", 0.97), ("cat", 0.02), ("neither", 0.8), ("lost", 0.55), ("other", 0.56)]
    lines = []
    for number, (name, probability) in enumerate([*answers, ("known", 0.57)]):
        data = KEPT.get(name, jpeg(3))
        sha256 = hashlib.sha256(data).hexdigest()
        entry = {"time": "2026-11-27T18:00:00.000Z", "id": f"{number:032x}", "sha256": sha256, "version": "catdog/1"}
        label = name if name in ("unsure", "dog", "cat", "neither") else "unsure"
        entry |= {"label": label, "probability": probability, "familiarity": 0.3, "milliseconds": 9.0}
        lines.append(json.dumps(entry))
        if name not in ("lost", "known"):
            (folder / f"photographs/2026-11-27/{sha256}").write_bytes(data)
        if name == "dog":
            said = {"time": entry["time"], "id": entry["id"], "sha256": sha256, "label": "cat", "answered": "dog"}
            (folder / "feedback.jsonl").write_text(json.dumps(said) + "\n")
    (folder / "2026-11-27.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def sha256(name: str) -> str:
    return hashlib.sha256(KEPT[name]).hexdigest()


def test_served_answers_in_doubt_are_asked_about(log, knobs):
    save("data/corrections.csv", [[*corrections.COLUMNS], [sha256("other"), "cat"]])
    items, notices = reviewing.queue(knobs, log=log)
    served = [item for item in items if item.kind == SERVED]
    assert [(item.id, item.why) for item in served] == [
        (sha256("dog"), "served answer: dog 0.97, told cat"),
        (sha256("neither"), "served answer: neither, dog 0.80"),
        (identity(3), "served answer: unsure, dog 0.57"),
        (sha256("unsure"), "served answer: unsure, dog 0.61"),
    ]
    assert notices == ["passed over 1 photograph not kept: serve with `--keep-photographs` to review such, too"]
    assert [item.kind for item in items].count(CONTROL) == 1
    # What is among the prepared photographs already is not brought there again.
    assert [item.original is None for item in served] == [False, False, True, False]
    assert (served[2].filed, served[2].split, served[0].filed, served[0].was) == ("dog", "train", "", "dog")
    with pytest.raises(UserError, match="is no log of answers"):
        reviewing.queue(knobs, log=Path("plots"))


def test_a_served_photograph_is_brought_with_its_decision_and_goes_with_it(log, knobs):
    tab = Tab(session := session_of([item for item in reviewing.queue(knobs, log=log).items if item.kind == SERVED]))
    assert photos.decode(tab.shown).shape == (299, 384, 3)
    tab.decide("cat")
    brought = RAW / f"reviewed/dog/{sha256('dog')}.jpg"
    assert brought.read_bytes() == KEPT["dog"]
    assert recorded() == [(sha256("dog"), "cat", "ann", "served answer: dog 0.97, told cat")]
    assert (tab.state["last"]["filed"], tab.state["last"]["changed"]) == ("The answer leaned to dog.", True)
    # What is no photograph was passed over.
    assert [item.id for item in session.pending.values()] == [sha256("other"), identity(3), sha256("unsure")]
    tab.undo()
    assert (recorded(), brought.exists()) == ([], False)

    tab.decide("dog")
    assert b"comment" not in tab.shown  # no browser gets the bytes that somebody sent
    for word in ("neither", "dog", "dog"):
        tab.decide(word)
    assert [row[1] for row in recorded()] == ["dog", "neither", "as filed", "dog"]
    names = {brought.name, f"{sha256('other')}.jpg", f"{sha256('unsure')}.png"}
    assert {file.name for file in RAW.rglob("*.*")} == names
    assert tab.state["end"]["lines"] == [
        "4 decided: 0 changed, 1 set aside as neither, 3 brought into data/raw/reviewed",
        "1 could not be shown: no photograph that can be read: not an image",
    ]


def test_what_a_killed_review_left_is_not_brought_twice(log, knobs):
    left = RAW / f"reviewed/cat/{sha256('dog')}.jpg"
    left.parent.mkdir(parents=True)
    left.write_bytes(KEPT["dog"])
    tab = Tab(session_of([item for item in reviewing.queue(knobs, log=log).items if item.kind == SERVED]))
    tab.decide("dog")
    assert list(RAW.rglob("*.*")) == [left]


def test_a_served_photograph_that_was_changed_or_cannot_be_brought(log, knobs, monkeypatch):
    items = [item for item in reviewing.queue(knobs, log=log).items if item.kind == SERVED]
    tab = Tab(session_of(items))
    kept = log / f"photographs/2026-11-27/{sha256('dog')}"
    kept.write_bytes(jpeg(1))
    assert "not the photograph that was asked about: skip it" in tab.decide("cat", status=500)["message"]
    kept.write_bytes(KEPT["dog"])
    RAW.mkdir(parents=True)
    (RAW / "reviewed").write_text("in the way")
    assert "data/raw/reviewed: Not a directory: nothing was decided" in tab.decide("cat", status=500)["message"]
    (RAW / "reviewed").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, data: 0)
        tab.decide("cat", status=500)
    assert (recorded(), list(RAW.rglob("*.*"))) == ([], [])
    kept.unlink()
    Tab(later := session_of(items))
    assert next(iter(later.pending.values())).id == sha256("other")
    assert len(later.gone) == 2
