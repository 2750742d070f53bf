"""`catdog serve` with a memory: /metrics, /feedback, and a log that no answer waits for, over HTTP."""

import errno
import http.client
import json
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import mlflow
import psutil
import pytest
from conftest import jpeg
from faults import wait_until
from prometheus_client.parser import text_string_to_metric_families
from served_fixtures import brightness, random_profile
from starlette.testclient import TestClient
from test_serving import PHOTOGRAPHS, ask, digests, encoded, running, store  # noqa: F401

from catdog.base.errors import UserError
from catdog.commands import answering, feedback_route, scoring_server
from catdog.feedback import log_files, request_log
from catdog.feedback.log_writer import Writer
from catdog.tracking import serving

VERSION = "catdog/3"
CLIENT = {"X-Forwarded-For": "203.0.113.7", "User-Agent": "a client of ours", "Cookie": "secret=1"}


def client(log: Writer | None = None) -> TestClient:
    """A server by which the brighter photographs are dogs, and those of middling brightness are in doubt."""
    model = serving.Served(brightness(sureness=0.51, profile=random_profile(1)), VERSION)
    application = scoring_server.create(model, hosts=["127.0.0.1"], log=log)
    return TestClient(application, base_url="http://127.0.0.1", raise_server_exceptions=False, headers=CLIENT)


@pytest.fixture
def log(tmp_path) -> Iterator[Writer]:
    writer = Writer(tmp_path / "log", version=VERSION, classes=("cat", "dog"), photographs=True)
    yield writer
    writer.close()


@pytest.fixture
def server(log) -> TestClient:
    return client(log)


def answers(server: TestClient, *photographs: bytes) -> list[dict]:
    body = {"dataframe_records": [{"image": encoded(data)} for data in photographs]}
    answer = server.post("/invocations", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["predictions"]


def say(server: TestClient, id: str, label: str) -> tuple[int, dict]:
    answer = server.post("/feedback", json={"id": id, "label": label})
    return answer.status_code, answer.json()


def metrics(server: TestClient) -> Callable[..., float | None]:
    """`value(name, **labels)` of what /metrics says now; None if it does not say it."""
    answer = server.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    samples = [sample for family in text_string_to_metric_families(answer.text) for sample in family.samples]
    values = {(sample.name, *sorted(sample.labels.items())): sample.value for sample in samples}
    return lambda name, **labels: values.get((name, *sorted(labels.items())))


# ---- the log --------------------------------------------------------------------------------------------------------


def test_each_answer_is_logged_as_it_was_given(server, log):
    given = answers(server, *PHOTOGRAPHS[:3]) + answers(server, PHOTOGRAPHS[3], PHOTOGRAPHS[3])
    assert server.post("/invocations", json={"dataframe_records": [{"image": "no photograph"}]}).status_code == 400
    assert log.flush(5)
    entries = list(request_log.entries(log.folder))
    assert [entry.id for entry in entries] == [answer["id"] for answer in given]
    for entry, answer in zip(entries, given, strict=True):
        fields = (entry.label, entry.probability, entry.familiarity, entry.version)
        assert fields == (answer["label"], answer["probability"], answer["familiarity"], VERSION)
    assert entries[0].milliseconds == entries[2].milliseconds > 0  # of the whole request
    names, features = request_log.features(log.folder, VERSION)
    assert names == [entry.id for entry in entries]
    # The one feature of this model is its probability, there to three places.
    assert features[:, 0].tolist() == pytest.approx([entry.probability for entry in entries], abs=1e-3)
    kept = request_log.last_photographs(log.folder, 10)
    assert [path.read_bytes() for path in kept] == [PHOTOGRAPHS[number] for number in (3, 2, 1, 0)]


def test_neither_clients_nor_photographs_are_in_the_log(tmp_path):
    writer = Writer(tmp_path / "log", version=VERSION, classes=("cat", "dog"))
    server = client(writer)
    [answer] = answers(server, PHOTOGRAPHS[0])
    assert say(server, answer["id"], "cat")[0] == 200
    writer.close()
    written = b"".join(path.read_bytes() for path in writer.folder.rglob("*") if path.is_file())
    assert answer["id"].encode() in written
    data = PHOTOGRAPHS[0]
    hidden = [*CLIENT, *CLIENT.values(), "testclient", "127.0.0.1", encoded(data)[100:140]]
    assert [text for text in hidden if text.encode() in written] == []
    assert data[200:240] not in written
    assert not (writer.folder / "photographs").exists()


def test_a_disk_that_hangs_slows_no_answer(server, log, monkeypatch):
    go, append = threading.Event(), log_files.append
    monkeypatch.setattr(log_files, "append", lambda *args, **options: go.wait(60) and append(*args, **options))
    monkeypatch.setattr(feedback_route, "_SECONDS", 0.5)
    [first] = answers(server, jpeg(1))
    taken = []
    with ThreadPoolExecutor(8) as pool:
        told = [pool.submit(say, server, first["id"], "cat") for _ in range(8)]
        for turn in range(40):
            started = time.perf_counter()
            answers(server, jpeg(turn))
            taken.append(time.perf_counter() - started)
        statuses = [future.result() for future in told]
    assert max(taken) < 0.5
    assert {status for status, _ in statuses} == {503}
    assert all("not kept (the disk of the log is slow): send it again later" in said["message"] for _, said in statuses)
    value = metrics(server)
    assert value("catdog_requests_total", path="/feedback", status="503") == 8
    assert (value("catdog_photographs_total", label="dog") or 0) + (value("catdog_photographs_total", label="cat") or 0)
    go.set()
    wait_until(lambda: say(server, first["id"], "cat")[0] == 200)
    assert log.flush(5)
    assert len(list(request_log.entries(log.folder))) == 41
    assert [row.label for row in request_log.said(log.folder)] == ["cat"]


# ---- /metrics -------------------------------------------------------------------------------------------------------


def test_the_metrics_are_what_happened(server, log):
    given = answers(server, *PHOTOGRAPHS[:20]) + answers(server, PHOTOGRAPHS[20])
    server.post("/invocations", content=b"{", headers={"content-type": "application/json"})
    for path in ("/nothing", "/" + uuid.uuid4().hex, "/ping"):
        server.get(path)
    server.put("/invocations")
    say(server, given[0]["id"], "neither")
    log.flush(5)
    value = metrics(server)
    assert value("catdog_model_info", version=VERSION) == 1
    requests = {"/invocations": {200: 2, 400: 1, 405: 1}, "other": {404: 2}, "/ping": {200: 1}, "/feedback": {200: 1}}
    for path, statuses in requests.items():
        for status, number in statuses.items():
            assert value("catdog_requests_total", path=path, status=str(status)) == number
    labels = [answer["label"] for answer in given]
    assert {"cat", "dog", "unsure"} <= set(labels)
    for label in ("cat", "dog", "unsure", "neither"):
        assert value("catdog_photographs_total", label=label) == labels.count(label)
    for kind in ("probability", "familiarity"):
        values = [answer[kind] for answer in given]
        assert value(f"catdog_{kind}_count") == 21
        assert value(f"catdog_{kind}_sum") == pytest.approx(sum(values))
        for edge in (0.1, 0.5, 1.0):
            assert value(f"catdog_{kind}_bucket", le=str(edge)) == sum(each <= edge for each in values)
    assert value("catdog_familiarity_bucket", le="0.001") == value("catdog_familiarity_bucket", le="0.0") == 0
    assert value("catdog_request_duration_seconds_count") == 2
    assert value("catdog_request_duration_seconds_bucket", le="0.005") <= 2
    assert value("catdog_log_photographs_total") == 21
    for what in ("line", "photograph", "features"):
        assert value("catdog_log_lost_total", what=what, reason="disk") == 0
    agreed = {"yes": 0, "no": 1, "unsure": 0} if labels[0] != "unsure" else {"yes": 0, "no": 0, "unsure": 1}
    for word, number in agreed.items():
        assert value("catdog_feedback_total", agreed=word) == number
    assert value("catdog_requests_total", path="/metrics", status="200") is None  # it is counted when it is answered
    assert metrics(server)("catdog_requests_total", path="/metrics", status="200") == 1


def test_without_a_log_there_are_metrics_and_no_feedback():
    server = client()
    [answer] = answers(server, PHOTOGRAPHS[0])
    value = metrics(server)
    assert value("catdog_photographs_total", label=answer["label"]) == 1
    assert value("catdog_log_photographs_total") is None
    status, said = say(server, answer["id"], "cat")
    assert (status, said["message"][:29]) == (409, "this server keeps no log of i")


def test_who_asks_by_another_name_is_refused_and_counted(server):
    for path in ("/metrics", "/feedback"):
        answer = server.request("GET" if path == "/metrics" else "POST", path, headers={"host": "evil.example"})
        assert (answer.status_code, answer.json()) == (400, {"message": "a request should be to 127.0.0.1"})
    value = metrics(server)
    assert value("catdog_requests_total", path="/metrics", status="400") == 1
    assert value("catdog_requests_total", path="/feedback", status="400") == 1


def test_an_error_of_ours_is_counted_too(server, monkeypatch):
    monkeypatch.setattr(scoring_server, "_request", lambda body: 1 / 0)
    assert server.post("/invocations", json={}).status_code == 500
    assert metrics(server)("catdog_requests_total", path="/invocations", status="500") == 1


# ---- /feedback ------------------------------------------------------------------------------------------------------


def test_feedback_on_what_was_just_answered_puts_it_on_the_list(server, log):
    given = answers(server, *PHOTOGRAPHS[:20])
    answer = next(each for each in given if each["label"] == "dog")
    told = {"id": answer["id"], "label": "cat", "answered": "dog"}
    assert say(server, answer["id"], "cat") == (200, told)
    assert say(server, answer["id"], "cat") == (200, told)
    first = request_log.doubted(log.folder, sureness=0.0)[0]
    assert (first.label, first.feedback, first.leans) == ("dog", "cat", "dog")
    assert first.path
    assert first.path.read_bytes() == PHOTOGRAPHS[given.index(answer)]
    assert say(server, answer["id"], "dog")[0] == 200
    assert first.sha256 not in {each.sha256 for each in request_log.doubted(log.folder, sureness=0.0)}
    assert [row.label for row in request_log.said(log.folder)] == ["cat", "dog"]
    value = metrics(server)
    assert (value("catdog_feedback_total", agreed="yes"), value("catdog_feedback_total", agreed="no")) == (1, 1)


@pytest.mark.parametrize("id", ["", "0" * 32, "ü", "\ud800", "x" * 3000, "*", '"label"'])
def test_an_answer_that_never_was_is_a_404(server, id):
    answers(server, PHOTOGRAPHS[0])
    body = json.dumps({"id": id, "label": "cat"}).encode()
    answer = server.post("/feedback", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()) == (
        404,
        {"message": "the log of this server has no answer with this id"},
    )


@pytest.mark.parametrize("label", ["unsure", "Cat", "", "\x1b[31m", "x" * 900])
def test_a_label_that_is_none_names_those_that_are(server, log, label):
    [answer] = answers(server, PHOTOGRAPHS[0])
    status, said = say(server, answer["id"], label)
    assert status == 400
    assert said["message"].startswith("the label should be cat, dog or neither. Received: ")
    assert len(said["message"]) < 150
    assert "\x1b" not in said["message"]
    assert list(request_log.said(log.folder)) == []


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"\xff", b'{"id": "x"}', b'{"label": "cat"}', b'{"id": 7, "label": "cat"}',
     b'{"id": "x", "label": ["cat"]}', b"[" * 4000],
)  # fmt: skip
def test_what_is_no_feedback_is_told_its_form(server, body):
    answer = server.post("/feedback", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert '{"id": "<id of an answer>", "label": "<what it is>"}' in answer.json()["message"]


def test_feedback_that_is_large_or_of_another_kind_is_refused(server):
    json_ = {"content-type": "application/json"}
    assert server.post("/feedback", content=b"[" * 5000, headers=json_).status_code == 413
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        answer = server.post("/feedback", content=b'{"id": "x", "label": "cat"}', headers={"content-type": kind})
        assert answer.status_code == 415
    assert server.get("/feedback").status_code == 405


def test_feedback_on_a_full_disk_is_told_to_come_again(server, log, monkeypatch):
    [answer] = answers(server, PHOTOGRAPHS[0])
    assert log.flush(5)

    def full(*args: object, **options: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(log.folder))

    with monkeypatch.context() as patch:
        patch.setattr(log_files, "append", full)
        status, said = say(server, answer["id"], "cat")
    assert (status, said["message"]) == (503, "this was not kept (No space left on device): send it again later")
    assert say(server, answer["id"], "cat")[0] == 200


def test_an_answer_that_the_log_has_not_got_yet_is_no_unknown_one(server, log, monkeypatch):
    monkeypatch.setattr(log, "flush", lambda seconds: False)
    status, said = say(server, "0" * 32, "cat")
    assert (status, said["message"]) == (503, "this was not kept (the log has not caught up): send it again later")


def test_many_clients_at_once_say_what_they_say(server, log):
    given = answers(server, *PHOTOGRAPHS[:12])

    def tell(answer: dict) -> str:
        while (status := say(server, answer["id"], "neither")[0]) == 503:  # four at a time
            time.sleep(0.01)
        assert status == 200
        return answer["id"]

    with ThreadPoolExecutor(6) as pool:
        told = list(pool.map(tell, given * 2))
    assert sorted(row.id for row in request_log.said(log.folder)) == sorted(set(told))


# ---- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def version(store) -> str:  # noqa: F811
    name = "remembered"
    mlflow.register_model(store.uri, name, tags=digests(store.uri, store.made.keras_file))
    return f"models:/{name}/1"


def process(address: str) -> psutil.Process:
    port = address.rpartition(":")[2]
    [found] = [each for each in psutil.process_iter(["cmdline"]) if {"catdog", port} <= set(each.info["cmdline"] or [])]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_under_load_takes_the_last_lines_at_most(store, version, tmp_path, number):  # noqa: F811
    log, known, over = tmp_path / "log", {}, threading.Event()
    command = ("catdog", "serve", "--model", version, "--log", str(log), "--keep-photographs")

    def load(turn: int) -> None:
        while not over.is_set():
            with suppress(OSError, ValueError, http.client.HTTPException):
                images = [encoded(PHOTOGRAPHS[turn]), encoded(PHOTOGRAPHS[turn + 20])]
                status, answer = ask(address, {"dataframe_records": [{"image": image} for image in images]})
                assert status == 200
                known.update({row["id"]: (time.monotonic(), row) for row in answer["predictions"]})

    with running(store.folder, *command) as address, ThreadPoolExecutor(6) as pool:
        loading = [pool.submit(load, turn) for turn in range(6)]
        wait_until(lambda: len(known) > 50, seconds=60)
        time.sleep(1.5)
        ended, server = time.monotonic(), process(address)
        server.send_signal(number)
        server.wait(10)
        over.set()
        for each in loading:
            each.result()
    lines = [line for file in log.glob("*-*.jsonl") for line in file.read_bytes().splitlines()]
    entries = {entry.id: entry for entry in request_log.entries(log)}
    assert len(lines) - len(entries) <= (1 if number == signal.SIGKILL else 0)
    sure = [id for id, (at, _) in known.items() if number != signal.SIGKILL or at < ended - 1]
    assert len(sure) > 20
    assert [id for id in sure if id not in entries] == []
    assert all(entries[id].probability == known[id][1]["probability"] for id in sure)
    assert {path.name for path in log.glob("photographs/*/*")} >= {entry.sha256 for entry in entries.values()}


def test_photographs_are_kept_in_a_log_alone():
    with pytest.raises(UserError, match="--keep-photographs needs --log DIR"):
        answering.serve(keep_photographs=True)


@pytest.mark.slow
def test_the_command_says_where_it_logs_and_a_second_one_is_refused(store, version, tmp_path):  # noqa: F811
    log = tmp_path / "log"
    with running(store.folder, "catdog", "serve", "--model", version, "--log", str(log)) as address:
        said = (store.folder / f"server-{address.rpartition(':')[2]}.log").read_text()
        assert said.endswith(f"logging to {log}\n")
        status, answer = ask(address, {"dataframe_records": [{"image": encoded(PHOTOGRAPHS[0])}]})
        assert status == 200
        with (
            pytest.raises(AssertionError, match=f"error: can't log to {log}: another server does"),
            running(store.folder, "catdog", "serve", "--model", version, "--log", str(log)),
        ):
            pass
    [entry] = request_log.entries(log)
    assert entry.id == answer["predictions"][0]["id"]
    assert entry.version == "remembered/1"
    assert request_log.photograph(log, entry.sha256) is None
