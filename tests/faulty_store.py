"""A proxy before a real MLflow server that fails as a test asks it to.

    proxy = faulty_store.Proxy(server_address)
    proxy.behave(late(3))                  # from now on
    proxy.behave(wrong(502), after=7)      # from the eighth request on
    proxy.behave(half, after=7, times=1)   # the eighth alone

A behaviour is a function of an `Exchange`: it may pass the request on, answer, or close the connection.
"""

import contextlib
import http.client
import http.server
import threading
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit


class Exchange(http.server.BaseHTTPRequestHandler):
    """One request, and what can be done with it."""

    proxy: "Proxy"

    def ask(self) -> tuple[int, list[tuple[str, str]], bytes]:
        """Pass the request on, once; the server's status, headers and body."""
        dropped = ("host", "connection", "accept-encoding", "transfer-encoding", "content-length")
        headers = {key: value for key, value in self.headers.items() if key.lower() not in dropped}
        connection = http.client.HTTPConnection(self.proxy.server, timeout=60)
        with contextlib.closing(connection):
            connection.request(self.command, self.path, self.content, headers)
            answer = connection.getresponse()
            kept = [(k, v) for k, v in answer.getheaders() if k.lower() not in ("transfer-encoding", "content-length")]
            return answer.status, kept, answer.read()

    def answer(self, status: int, headers: list[tuple[str, str]], body: bytes, *, cut: int | None = None) -> None:
        """Answer with `body`, of which only `cut` bytes are sent."""
        self.send_response_only(status)
        for key, value in [*headers, ("Content-Length", str(len(body)))]:
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body[:cut])

    def _handle(self) -> None:
        self.content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "chunked" in self.headers.get("Transfer-Encoding", ""):  # so requests sends an empty file
            while size := int(self.rfile.readline(), 16):
                self.content += self.rfile.read(size)
                self.rfile.readline()
        with contextlib.suppress(OSError):  # the client has lost its patience
            self.proxy.next(self)(self)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle

    def log_message(self, *_: object) -> None:
        pass


Behaviour = Callable[[Exchange], None]


def ok(exchange: Exchange) -> None:
    exchange.answer(*exchange.ask())


def late(seconds: float) -> Behaviour:
    """The right answer, after so many seconds."""
    return lambda exchange: (exchange.proxy.pause(seconds), ok(exchange))[-1]


def wrong(status: int, body: str = "<html><body>Bad Gateway</body></html>", kind: str = "text/html") -> Behaviour:
    """Another answer; the request does not reach the server."""
    return lambda exchange: exchange.answer(status, [("Content-Type", kind)], body.encode())


def half(exchange: Exchange) -> None:
    """The request reaches the server, and half of the answer comes back."""
    status, headers, body = exchange.ask()
    exchange.answer(status, headers, body, cut=len(body) // 2)


def lost(exchange: Exchange) -> None:
    """The request reaches the server, and nothing comes back."""
    exchange.ask()


def hang(exchange: Exchange) -> None:
    """No answer, and the connection stays."""
    exchange.proxy.pause(3600)


def gone(exchange: Exchange) -> None:
    """Cut off, and from then on nobody listens, until `Proxy.behave` says otherwise."""
    exchange.proxy.stop()


class Proxy:
    """A proxy on a port of its own; `requests` counts what has come in, `paths` says what."""

    def __init__(self, server: str) -> None:
        self.server = urlsplit(server).netloc
        self.paths: list[str] = []
        self._lock = threading.RLock()
        self._changed = threading.Event()
        self._listener: http.server.ThreadingHTTPServer | None = None
        self._port = 0
        self.behave(ok)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def requests(self) -> int:
        return len(self.paths)

    def behave(
        self,
        behaviour: Behaviour,
        *,
        after: int = 0,
        times: int | None = None,
        on: str = "",
        back: float | None = None,
    ) -> None:
        """Behave so from now on, or `after` so many more requests, and for `times` requests only.

        Args:
            on: which requests are counted: those that have it in their path.
            back: after how many seconds of `gone` it is well again.
        """
        with self._lock:
            self._changed.set()  # what hangs ends
            self._changed = threading.Event()
            self._counted, self._on, self._for_good = 0, on, times is None
            self._faulty = range(after, 10**9 if times is None else after + times)
            self._behaviour, self._back = behaviour, back
            if behaviour is gone and not after and not on:
                self.stop()
            elif self._listener is None:
                self._start()

    def next(self, exchange: Exchange) -> Behaviour:
        """Count a request, and how to behave to it."""
        with self._lock:
            self.paths.append(exchange.path)
            counts = self._on in exchange.path
            self._counted += counts
            faulty = self._counted - 1 in self._faulty and (counts or self._for_good)
            return self._behaviour if faulty else ok

    def pause(self, seconds: float) -> None:
        """Wait, but no longer than this behaviour lasts."""
        self._changed.wait(seconds)

    def _start(self) -> None:
        handler = type("Bound", (Exchange,), {"proxy": self})
        self._listener = http.server.ThreadingHTTPServer(("127.0.0.1", self._port), handler)
        self._listener.daemon_threads = True
        self._port = self._listener.server_address[1]
        threading.Thread(target=self._listener.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        with self._lock:
            listener, self._listener = self._listener, None
            if listener:
                if self._back is not None:
                    threading.Timer(self._back, self.behave, [ok]).start()
                listener.block_on_close = False
                listener.shutdown()
                listener.server_close()


@contextlib.contextmanager
def before(server: str) -> Iterator[Proxy]:
    """A proxy before the server at this address, for a while."""
    proxy = Proxy(server)
    try:
        yield proxy
    finally:
        proxy.behave(ok)
        proxy.stop()
