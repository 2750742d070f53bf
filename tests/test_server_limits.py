"""What stands before every server's application: hosts, bodies, turns, waiting connections, and errors in words."""

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from catdog.commands import guard, listening

LIMITS = guard.Limits(body=1 << 20, bodies=3 << 20, at_once=2, waiting=3, seconds=0.6)
Raw = Callable[..., socket.socket]


class Work:
    """An application that counts how many it answers at once, and holds its answers while `hold`."""

    def __init__(self) -> None:
        self.go, self.lock = threading.Event(), threading.Lock()
        self.go.set()
        self.now = self.most = self.answered = 0

    def do(self, body: bytes) -> int:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        self.go.wait(10)
        with self.lock:
            self.now -= 1
            self.answered += 1
        if body == b"break":
            raise RuntimeError(f"secret in {__file__}")
        return len(body)

    def routes(self) -> list[Route]:
        async def ask(request: Request) -> Response:
            return JSONResponse(await run_in_threadpool(self.do, await request.body()))

        async def ping(request: Request) -> Response:
            return Response("here")

        return [Route("/ask", ask, methods=["POST"]), Route("/ping", ping)]


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def port(work, monkeypatch) -> Iterator[int]:
    monkeypatch.setattr(listening, "HEADER_SECONDS", 0.5)
    monkeypatch.setattr(listening, "MOST_CONNECTIONS", 20)
    application = guard.guarded(work.routes(), hosts=guard.hosts("127.0.0.1"), limits=LIMITS)
    server = listening.server(application, host="127.0.0.1", port=0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    work.go.set()
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive()


@pytest.fixture
def raw(port) -> Iterator[Raw]:
    """`raw(data)`: a connection over which `data` was sent."""
    with contextlib.ExitStack() as opened:

        def connect(data: bytes = b"") -> socket.socket:
            connection = opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=8))
            connection.sendall(data)
            return connection

        yield connect


def post(body: bytes = b"", *, length: int | None = None, host: str = "localhost", path: str = "/ask") -> bytes:
    size = len(body) if length is None else length
    return f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {size}\r\n\r\n".encode() + body


def answer(connection: socket.socket) -> tuple[int, dict, http.client.HTTPResponse]:
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status, json.loads(response.read()), response


def closed(connection: socket.socket, *, within: float) -> bool:
    """Whether the server ends this connection in time, whatever it says before."""
    until = time.monotonic() + within
    try:
        while (left := until - time.monotonic()) > 0:
            connection.settimeout(left)
            if not connection.recv(1 << 16):
                return True
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return False


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize("host", ["127.0.0.1:5001", "localhost", "LocalHost:80", "[::1]:5001", "[::1]"])
def test_its_own_names_are_answered(raw, host):
    assert answer(raw(post(b"abc", host=host)))[:2] == (200, 3)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost@evil", "", "::1", "127.0.0.1:x"])
@pytest.mark.parametrize("request_line", ["POST /ask", "GET /ping", "GET /nothing"])
def test_other_names_are_not(raw, work, host, request_line):
    connection = raw(f"{request_line} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n".encode())
    status, said, _ = answer(connection)
    assert status == 400
    assert said["message"].startswith("a request should be to 127.0.0.1 or localhost")
    assert work.answered == 0


def test_on_an_address_that_others_reach_every_name_is_taken():
    assert guard.hosts("0.0.0.0") == ["*"]


def test_so_many_at_once_so_many_wait_and_the_next_is_told_to_come_again(raw, work):
    work.go.clear()
    asked = [raw(post(b"x" * (number + 1))) for number in range(LIMITS.at_once + LIMITS.waiting)]
    wait_for(lambda: work.now == LIMITS.at_once)
    time.sleep(0.1)
    for _ in range(3):
        status, said, response = answer(raw(post(b"one more")))
        assert status == 503
        assert "come again" in said["message"]
        assert int(response.headers["retry-after"]) >= 1
    ping = raw(b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert ping.recv(100).startswith(b"HTTP/1.1 200")  # it lives, whoever waits
    work.go.set()
    assert [answer(connection)[:2] for connection in asked] == [(200, number + 1) for number in range(5)]
    assert work.most == LIMITS.at_once
    assert answer(raw(post(b"abc")))[:2] == (200, 3)


def test_who_leaves_the_queue_is_not_worked_for(raw, work):
    work.go.clear()
    for _ in range(LIMITS.at_once):
        raw(post(b"stays"))
    wait_for(lambda: work.now == LIMITS.at_once)
    for _ in range(LIMITS.waiting):
        raw(post(b"leaves")).close()
    time.sleep(0.3)
    work.go.set()
    assert answer(raw(post(b"abc")))[:2] == (200, 3)
    assert work.answered == LIMITS.at_once + 1


def test_the_bytes_of_all_bodies_have_a_bound_and_are_given_back(raw, work):
    work.go.clear()
    large = bytes(LIMITS.body - 1)
    asked = [raw(post(large)) for _ in range(3)]
    wait_for(lambda: work.now == 2)
    time.sleep(0.2)
    assert answer(raw(post(large)))[0] == 503
    work.go.set()
    assert [answer(connection)[0] for connection in asked] == [200, 200, 200]
    for _ in range(4):
        assert answer(raw(post(large)))[:2] == (200, len(large))


@pytest.mark.parametrize("length", [LIMITS.body + 1, 10**18])
def test_a_body_that_says_it_is_too_large_is_not_waited_for(raw, work, length):
    status, said, _ = answer(raw(post(length=length)))
    assert (status, said["message"]) == (413, "a request should have at most 1 MiB")
    assert work.answered == 0


def test_a_body_in_chunks_that_gets_too_large_is_refused_and_the_connection_goes_on(raw, work):
    head = b"POST /ask HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    connection = raw(head)
    for _ in range(20):
        connection.sendall(b"10000\r\n" + bytes(1 << 16) + b"\r\n")
    connection.sendall(b"0\r\n\r\n")
    assert answer(connection)[0] == 413
    connection.sendall(post(b"abc"))
    assert answer(connection)[:2] == (200, 3)
    assert work.answered == 1


def test_a_body_that_drips_is_told_so_and_closed(raw, work):
    connection = raw(post(b"a", length=1000))
    started = time.monotonic()
    with contextlib.suppress(ConnectionError):
        while time.monotonic() - started < 1:
            connection.sendall(b"b")
            time.sleep(0.05)
    status, said, _ = answer(connection)
    assert (status, said["message"]) == (408, "the body of a request should come within 0.6 seconds")
    assert closed(connection, within=1)
    assert work.answered == 0


@pytest.mark.parametrize(
    "beginning",
    [b"", b"G", b"POST /ask HTTP/1.1\r\nHost: loc", post(b"abc"), post(b"abc") + b"GET /ping HTTP/1.1\r\n"],
    ids=["silent", "a letter", "half the headers", "after an answer", "half a second request"],
)
def test_a_connection_that_waits_is_closed(raw, beginning):
    assert closed(raw(beginning), within=2)


def test_headers_that_drip_do_not_buy_time(raw):
    connection = raw(b"GET /ping HTTP/1.1\r\nHost: localhost\r\n")
    started = time.monotonic()
    with pytest.raises(ConnectionError):  # noqa: PT012
        while time.monotonic() - started < 3:
            connection.sendall(b"X-A: b\r\n")
            time.sleep(0.05)
    assert time.monotonic() - started < 1.5


def test_a_long_answer_is_waited_for(raw, work):
    work.go.clear()
    connection = raw(post(b"abc"))
    time.sleep(1.2)  # twice as long as it may be silent
    work.go.set()
    assert answer(connection)[:2] == (200, 3)


def test_many_idle_connections_keep_nobody_out(raw, work):
    work.go.clear()
    busy = raw(post(b"abc"))
    wait_for(lambda: work.now == 1)
    idle = [raw() for _ in range(60)]
    work.go.set()
    assert answer(raw(post(b"abcd")))[:2] == (200, 4)
    assert answer(busy)[:2] == (200, 3)
    assert all(closed(connection, within=2) for connection in idle)


@pytest.mark.parametrize(
    "data",
    [b"\x16\x03\x01 no http\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /ping HTTP/1.1\r\nX: " + b"y" * 200_000,
     b"POST /ask HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
     post(length=1)[:-4] + b"9" * 5000 + b"\r\n\r\n",
     b"POST /ask HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"],
    ids=["tls", "version", "huge header", "negative length", "long length", "bad chunk"],
)  # fmt: skip
def test_what_is_no_http_is_a_400_in_json(raw, data, caplog):
    status, said, _ = answer(raw(data))
    assert (status, list(said)) == (400, ["message"])
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(("line", "status"), [("GET /nothing", 404), ("GET /ask", 405), ("DELETE /ping", 405)])
def test_wrong_addresses_and_methods_are_told_in_json(raw, line, status):
    got, said, _ = answer(raw(f"{line} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()))
    assert got == status
    assert said["message"].startswith(("there is nothing at", "this address does not answer"))


def test_an_error_of_ours_is_in_the_terminal_alone(raw, caplog):
    connection = raw(post(b"break"))
    status, said, _ = answer(connection)
    assert (status, list(said)) == (500, ["message"])
    assert "secret" not in said["message"]
    wait_for(lambda: f"secret in {__file__}" in caplog.text)
    assert answer(raw(post(b"abc")))[:2] == (200, 3)


def test_an_answer_that_nobody_fetches_is_dropped(monkeypatch):
    monkeypatch.setattr(listening, "HEADER_SECONDS", 0.5)

    async def large(request: Request) -> Response:
        return Response(bytes(64 << 20))

    application = guard.guarded([Route("/", large)], hosts=["*"], limits=LIMITS)
    server = listening.server(application, host="127.0.0.1", port=0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    with socket.create_connection(server.servers[0].sockets[0].getsockname()) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for(lambda: bool(server.server_state.connections))
        wait_for(lambda: not server.server_state.connections)
    server.should_exit = True
    thread.join(10)
