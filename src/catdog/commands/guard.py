"""What every server here has before its application: known hosts, a bound on work and memory, errors in words."""

import asyncio
import re
from collections.abc import Iterable
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_RETRY = {"retry-after": "2"}  # seconds


@dataclass(frozen=True)
class Limits:
    """What a server takes on; there is no other place where the bodies of requests are kept.

    Attributes:
        body: bytes of one request.
        bodies: bytes of all requests that are read, wait or are answered.
        at_once: requests that are answered at a time; the others wait.
        waiting: requests that wait. One more is told to come again (503).
        seconds: in which a body has to come.
    """

    body: int
    bodies: int
    at_once: int
    waiting: int
    seconds: float = 30


class _Refused(Exception):
    def __init__(self, message: str, status: int, headers: dict[str, str] | None = None) -> None:
        self.answer = refusal(message, status, headers=headers)


def hosts(host: str) -> list[str]:
    """The names by which a server that listens on `host` may be asked.

    On loopback no others, or a page on the internet could ask in a visitor's name (DNS rebinding). Elsewhere it can't
    be known by which names others know this machine.
    """
    return [*LOOPBACK] if host in LOOPBACK else ["*"]


def refusal(message: str, status: int, *, headers: dict[str, str] | None = None, **fields: str) -> Response:
    """An error as every server here words it: a JSON object with `message`."""
    return JSONResponse({**fields, "message": message}, status, headers)


def guarded(routes: Iterable[BaseRoute], *, hosts: list[str], limits: Limits) -> Starlette:
    """An application whose errors are JSON objects with a `message`, and tell nothing of this machine."""
    return Starlette(
        routes=[*routes],
        middleware=[Middleware(Guard, hosts=hosts, limits=limits)],
        exception_handlers={HTTPException: _worded, Exception: _broken},
    )


def _worded(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = {404: "there is nothing at this address", 405: f"this address does not answer {request.method}"}
    headers = {**error.headers} if error.headers else None
    return refusal(words.get(error.status_code, error.detail), error.status_code, headers=headers)


def _broken(request: Request, error: Exception) -> Response:
    # Starlette raises the error once more, so that it is logged in the terminal, and there alone: it may name paths.
    return refusal("Something went wrong here. The terminal in which this server was started says what.", 500)


class Guard:
    """Passes a request on when its host is known, its body is whole, and its turn has come.

    Only of a POST is the body read. It is counted as it comes, since one in chunks has no Content-Length. A refused
    request is read to its end, and thrown away, so that its sender sees the answer.
    """

    def __init__(self, app: ASGIApp, *, hosts: list[str], limits: Limits) -> None:
        self._app, self._hosts, self._limits = app, hosts, limits
        self._bytes = 0  # of bodies, now
        self._present = 0  # requests that wait or are answered, now
        self._turn = asyncio.Semaphore(limits.at_once)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check_host(scope)
            if scope["method"] == "POST":
                await self._post(scope, receive, send)
            else:
                await self._app(scope, receive, send)
        except _Refused as refused:
            await refused.answer(scope, receive, send)

    def _check_host(self, scope: Scope) -> None:
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1").lower()
        if "*" not in self._hosts and re.sub(r":\d*$", "", host) not in self._hosts:
            raise _Refused(f"a request should be to {' or '.join(self._hosts)}", 400)

    def _check_room(self) -> None:
        if self._present >= self._limits.at_once + self._limits.waiting or self._bytes > self._limits.bodies:
            raise _Refused("too many requests at once: come again in a moment", 503, _RETRY)

    async def _post(self, scope: Scope, receive: Receive, send: Send) -> None:
        parts: list[bytes] = []
        self._check_room()
        try:
            if not await self._read(parts, scope, receive):
                return
            self._check_room()
            self._present += 1
            gone = asyncio.ensure_future(receive())  # after the body comes nothing but the news that the client left
            try:
                async with self._turn:
                    if not gone.done():
                        await self._app(scope, _replay(parts[0], gone), send)
            finally:
                gone.cancel()
                self._present -= 1
        finally:
            self._bytes -= sum(map(len, parts))

    async def _read(self, parts: list[bytes], scope: Scope, receive: Receive) -> bool:
        """Read the body into `parts`, in the end as one. False: the client left before it was whole."""
        most, seconds = self._limits.body, self._limits.seconds
        length = dict(scope["headers"]).get(b"content-length", b"0")
        size = int(length[:20]) if length.isdigit() else 0
        try:
            async with asyncio.timeout(seconds):
                more = size <= most
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return False
                    parts.append(message.get("body", b""))
                    self._bytes += len(parts[-1])
                    self._check_room()
                    size = sum(map(len, parts))
                    more = message.get("more_body", False) and size <= most
        except TimeoutError:
            problem = f"the body of a request should come within {seconds:g} seconds"
            raise _Refused(problem, 408, {"connection": "close"}) from None
        if size > most:
            raise _Refused(f"a request should have at most {most >> 20} MiB", 413)
        parts[:] = [b"".join(parts)]
        return True


def _replay(body: bytes, gone: asyncio.Future[Message]) -> Receive:
    whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return whole.pop() if whole else await gone

    return receive
