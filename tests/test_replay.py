"""Candidate and champion asked about photographs that were served: what would change, and the gate on it."""

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import jpeg

from catdog.answers.classifier import Answer
from catdog.base.errors import UserError
from catdog.feedback import request_log
from catdog.tracking import replay

CLASSES = ("cat", "dog")


class Model:
    """Answers by a table, in the order in which photographs come."""

    classes = CLASSES

    def __init__(self, labels: list[str]) -> None:
        self.answers = iter(Answer(label, 0.9 if label == "dog" else 0.2, 0.5) for label in labels)

    def pixels(self, data: bytes) -> np.ndarray:
        return np.zeros((2, 2, 3), np.uint8)

    def stream(self, batches):
        for batch in batches:
            yield from (next(self.answers) for _ in batch)


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Four photographs that a log kept."""
    paths = []
    for seed in range(4):
        data = jpeg(seed)
        path = tmp_path / hashlib.sha256(data).hexdigest()
        path.write_bytes(data)
        paths.append(path)
    monkeypatch.setattr(request_log, "last_photographs", lambda folder, count: paths[:count])
    return SimpleNamespace(folder=tmp_path, paths=paths)


def test_what_gets_another_label_is_counted_and_drawn(kept):
    champion, candidate = Model(["cat", "dog", "unsure", "dog"]), Model(["cat", "cat", "dog", "dog"])
    replayed = replay.ask(kept.folder, last=5, champion=champion, candidate=candidate)
    assert replayed.photographs == kept.paths
    assert (replayed.changed, replayed.flips) == ([1, 2], 1)  # the other class goes before doubt that is gone
    passed = replay.gate(replayed, limit=0.5)
    assert passed.passed
    assert passed.figure == "another label for 2 of the last 4 (50.0%), the other class for 1"
    assert not replay.gate(replayed, limit=0.49).passed
    assert replay.gate(replayed, limit=None).passed
    replay.draw(replayed, kept.folder / "sheet.png")
    replay.draw(replay.Replay([], [], [], CLASSES), kept.folder / "none.png")
    assert (kept.folder / "sheet.png").stat().st_size > (kept.folder / "none.png").stat().st_size


def test_what_was_not_measured_is_not_passed(kept):
    gate = replay.gate(None, limit=0.1)
    assert not gate.passed
    assert "--log DIR" in gate.figure
    with pytest.raises(UserError, match="kept no photographs"):
        replay.ask(kept.folder, last=0, champion=Model([]), candidate=Model([]))
