"""The page of `catdog review`: blind, every decision once and on disk, refusals and errors in words, nobody else's."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from review_fixtures import (
    CLASSES,
    CORRECTIONS,
    JUDGES,
    SUSPECTS,
    Tab,
    identity,
    recorded,
    session_of,
)
from served_fixtures import brightness

from catdog.base.errors import UserError
from catdog.commands import review
from catdog.feedback import reviewing
from catdog.feedback.reviewing import CONTROL, SUSPECT
from catdog.photographs import photos

pytest_plugins = ["review_fixtures"]


@pytest.fixture
def tab(session) -> Tab:
    return Tab(session)


# ---- a decision -----------------------------------------------------------------------------------------------------


def test_before_the_decision_nothing_is_told_of_a_photograph(tab, session):
    kinds = [item.kind for item in session.pending.values()]
    assert {*kinds} == {SUSPECT, CONTROL}
    html = re.sub(r'nonce="[^"]*"|nonce-[\w-]+', "", tab.client.get("/").text)
    shown = set()
    for number, item in enumerate([*session.pending.values()], start=1):
        state = tab.get()
        assert tab.shown == item.jpeg()
        assert re.fullmatch("[0-9a-f]{16}", tab.token)
        assert state.pop("progress") == f"{number} of {len(kinds)}"
        assert (state.pop("last") is None) == (state.pop("undo") is None) == (number == 1)
        shown.add(json.dumps({**state, "photograph": sorted(state["photograph"])}))
        for what in ("photographs", "opinions"):
            assert tab.client.get(f"/{what}/{tab.token}").status_code == 404
        assert re.sub(r'nonce="[^"]*"|nonce-[\w-]+', "", tab.client.get("/").text) == html
        told = tab.state
        tab.decide("neither")
        # Of the one that is shown next, too, nothing stands in the answer that tells of the one before.
        text = json.dumps({**tab.state, "photograph": None, "end": None})
        upcoming = next(iter(session.pending.values()), None)
        assert upcoming is None or (upcoming.id not in text and upcoming.source not in text)
        assert item.id not in json.dumps({**told, "last": None})
    assert shown == {json.dumps({"photograph": ["address", "token"], "end": None})}


def test_a_decision_is_written_before_the_next_photograph_comes(tab, session):
    items = [*session.pending.values()]
    for count, item in enumerate(items, start=1):
        word = CLASSES[count % 2]
        state = tab.decide(word)
        assert recorded()[-1] == (item.id, "as filed" if word == item.filed else word, "ann", item.why)
        assert len(recorded()) == count
        assert (state["last"]["decided"], state["last"]["filed"]) == (word, f"It is filed as {item.filed}.")
        assert (state["last"]["changed"], state["last"]["why"]) == (word != item.filed, item.why)
        assert state["last"]["source"] == item.source
    assert state["photograph"] is None
    assert state["end"]


def test_afterwards_both_models_say_what_they_think(tab, session):
    items = [*session.pending.values()]
    for item in items:
        token = tab.token
        tab.decide("cat")
        first, second = tab.client.get(f"/opinions/{token}").json()
        model = JUDGES[0].classifier
        [answer] = model.answers(model.ask(model.pixels(item.jpeg())[None]))
        sure = f"{100 * max(answer.probability, 1 - answer.probability):.1f} %"
        assert first == {"name": "CNN", "label": answer.label, "sure": sure, "trained": item.split != "test"}
        assert second["name"] == "Xception"
        assert tab.client.get(f"/photographs/{token}").content == item.jpeg()
    tab.undo()
    assert tab.client.get(f"/opinions/{token}").status_code == 404


def test_a_doubtful_opinion_says_what_it_leans_to():
    stripes = np.full((64, 64, 3), 120, np.uint8)
    stripes[::2] += 20
    doubtful = SimpleNamespace(kind="cnn", classifier=brightness(sureness=0.99))
    opinion = review._opinion(doubtful, photos.encode(stripes))
    assert (opinion["label"], opinion["name"]) == ("unsure, leaning to dog", "CNN")


def test_undo_asks_again_and_says_that_it_was_not_blind_any_more(tab, session):
    first, second, *_ = [*session.pending.values()]
    begun = tab.token
    tab.decide("cat")
    tab.post("skip", tab.token)
    assert [row[0] for row in recorded()] == [first.id]
    assert tab.undo()["photograph"]["token"] != begun  # the one that was skipped
    assert tab.undo()["photograph"]["token"] == begun
    assert (recorded(), tab.state["last"], tab.state["undo"]) == ([], None, None)
    tab.decide("dog")
    tab.decide("dog")
    assert [(row[0], row[3]) for row in recorded()] == [
        (first.id, f"{first.why}, decided again"),
        (second.id, second.why),
    ]
    assert tab.post("undo", begun)["progress"] == f"2 of {len(session.pending) + 1}"  # from the list at the end
    assert [row[0] for row in recorded()] == [second.id]


def test_of_two_tabs_the_second_is_refused_and_moves_on(tab, session):
    other = Tab(session)
    assert tab.token == other.token
    tab.decide("cat")
    said = other.decide("dog", status=409)
    assert said["message"] == "That photograph was decided already: cat. Is this page open twice?"
    assert other.token == tab.token
    assert len(recorded()) == 1
    undone = tab.state["undo"]
    tab.post("undo", undone)
    assert other.post("undo", undone, status=409)["message"] == "That is undone already."
    assert recorded() == []
    assert "another start" in other.post("decision", "f" * 16, "dog", status=409)["message"]
    assert "a decision is cat, dog or neither" in other.decide("horse", status=409)["message"]
    assert recorded() == []


def test_two_reviews_at_once_double_nothing(tab, session, knobs):
    elsewhere = Tab(session_of(reviewing.queue(knobs).items))
    elsewhere.decide("neither")
    said = tab.decide("cat", status=409)
    assert said["message"].startswith("This photograph is decided already: neither, by ann, 20")
    assert [row[1] for row in recorded()] == ["neither"]
    assert said["progress"] == f"1 of {len(session.pending)}"


def test_an_error_is_told_and_the_same_photograph_stays(tab, session, monkeypatch):
    tab.decide("cat")
    token, before = tab.token, CORRECTIONS.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, data: len(data) // 2)
        said = tab.decide("dog", status=500)
    assert "data/corrections.csv: No space left on device: nothing was changed" in said["message"]
    CORRECTIONS.write_bytes(before + b"nonsense\n")
    assert "data/corrections.csv, line 3: the id should be" in tab.decide("dog", status=500)["message"]
    CORRECTIONS.write_bytes(before.replace(b"ann", b"bob"))
    assert "was edited meanwhile" in tab.undo(status=500)["message"]
    CORRECTIONS.write_bytes(before)
    assert tab.get()["photograph"]["token"] == token
    assert tab.decide("dog")["progress"] == f"3 of {len(session.done) + len(session.pending)}"
    assert len(recorded()) == 2


def test_the_end_says_what_came_of_it(tab, session):
    assert review.in_a_line(session, 0.95) == "nothing was decided"
    for item in [*session.pending.values()]:
        number = next(n for n in range(20) if identity(n) == item.id)
        if number == 4:
            tab.post("skip", tab.token)
        else:
            other = CLASSES[1 - number % 2]
            tab.decide({7: "neither", 2: other, 15: other}.get(number, item.filed))
    lines, changed = tab.state["end"]["lines"], tab.state["end"]["changed"]
    assert lines[0] == "7 decided: 2 changed, 1 set aside as neither, 1 skipped until the next start"
    assert lines[1] == "agreed with 2 of 2 controls: 100.0 % (95 % interval: 34.2 % to 100.0 %)"
    assert [row["text"] for row in changed] == ["dog → neither", "cat → dog", "dog → cat"]
    assert review.in_a_line(session, 0.95) == "; ".join([*lines, "next: dvc repro"])
    assert len(recorded()) == 7
    tab.post("undo", changed[1]["token"])
    assert tab.state["end"] is None
    assert len(recorded()) == 6


# ---- who may ask ----------------------------------------------------------------------------------------------------


def test_only_this_page_decides(tab):
    body = json.dumps({"photograph": tab.token, "decision": "dog"})
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        for what in ("decision", "skip", "undo"):
            answer = tab.client.post(f"/{what}", content=body, headers={"content-type": kind})
            assert answer.status_code == 415
    json_ = {"content-type": "application/json"}
    assert tab.client.post("/decision", content=body, headers={**json_, "host": "evil.example"}).status_code == 400
    assert tab.client.options("/decision", headers={"origin": "https://evil.example"}).status_code == 405
    assert tab.client.get("/now", headers={"host": "evil.example"}).status_code == 400
    for wrong in ("", "[]", "1", "{", '{"decision": "dog"}', "[" * 100_000, '"\\ud800"'):
        answer = tab.client.post("/decision", content=wrong, headers=json_)
        assert (answer.status_code, "message" in answer.json()) == (400, True)
    assert tab.client.post("/decision", content=bytes(review.LIMITS.body + 1), headers=json_).status_code == 413
    assert tab.get()["progress"].startswith("1 of")
    assert not CORRECTIONS.exists()
    answer = tab.client.post("/decision", content=body, headers={"content-type": "Application/JSON; charset=utf-8"})
    assert answer.status_code == 200


def test_the_page_takes_nothing_from_elsewhere(tab):
    answer = tab.client.get("/")
    assert answer.headers["x-content-type-options"] == "nosniff"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    nonce = re.search(r"script-src 'nonce-([\w-]+)'", policy)
    assert nonce
    assert answer.text.count(f'nonce="{nonce[1]}"') == 2
    assert "://" not in answer.text


# ---- the command ----------------------------------------------------------------------------------------------------


def started(folder: Path, *options: str) -> tuple[subprocess.Popen, str]:
    """A `catdog review` that answers, and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "catdog", "review", "--by", "Ann", "--port", str(port), *options]
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_heed
    )
    assert process.stdout
    said = process.stdout.readline()
    assert said.startswith(f"the page: http://127.0.0.1:{port}, "), said + process.communicate()[1]
    return process, f"http://127.0.0.1:{port}"


def _heed() -> None:
    # Whoever runs the tests in the background has them ignore SIGINT, and their children too.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def asked(address: str, **body: str) -> dict:
    data, headers = (json.dumps(body).encode(), {"content-type": "application/json"}) if body else (None, {})
    request = urllib.request.Request(address, data, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def test_a_kill_loses_and_doubles_nothing_and_ctrl_c_says_what_came_of_it(project):
    process, address = started(project)
    state = asked(f"{address}/now")
    for _ in range(3):
        state = asked(f"{address}/decision", photograph=state["photograph"]["token"], decision="cat")
    process.kill()
    process.communicate()
    assert len(recorded()) == 3
    assert {row[2] for row in recorded()} == {"Ann"}

    process, address = started(project)
    state = asked(f"{address}/now")
    assert state["progress"].startswith("1 of ")
    while token := state["photograph"] and state["photograph"]["token"]:
        state = asked(f"{address}/decision", photograph=token, decision="dog")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert out.count("\n") == 1
    assert re.fullmatch(r"\d+ decided: \d+ changed, 0 set aside as neither; agreed with .*; next: dvc repro\n", out)
    assert len({row[0] for row in recorded()}) == len(CORRECTIONS.read_text().splitlines()) - 1
    assert {identity(n) for n in SUSPECTS} <= {row[0] for row in recorded()}
    assert not Path("mlflow.db").exists()

    command = [sys.executable, "-m", "catdog", "review"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "nothing to review: no photograph of plots/suspects.csv is undecided\n"


def test_models_that_cannot_be_opened_are_left_out(project, capsys, monkeypatch):
    assert review.open_judges()() == []  # there is no store, and none is made
    assert not Path("mlflow.db").exists()
    assert capsys.readouterr().err == ""

    def away() -> None:
        raise UserError("the store is away")

    Path("mlflow.db").touch()
    monkeypatch.setattr("catdog.tracking.store.connect", away)
    assert review.open_judges()() == []
    assert capsys.readouterr().err == "notice: no model's opinion is shown: the store is away\n"
