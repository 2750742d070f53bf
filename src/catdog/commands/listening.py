"""A server on one address: it says when it answers, does not wait for ever, and ends with all that it began."""

import asyncio
import atexit
import errno
import json
import os
import signal
import socket
import sys
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from catdog.base.errors import UserError
from catdog.commands.guard import LOOPBACK

HEADER_SECONDS = 10.0  # for a request to begin, with all its headers, and for its answer to be fetched
MOST_CONNECTIONS = 200  # with their headers, at most 16 KiB each, they take 5 MB
_HANG_UP = getattr(signal, "SIGHUP", None)  # Windows has none
_ENDING_SECONDS = 3  # for answers that are under way at the end


def require_free(host: str, port: int) -> None:
    """Check that a server can listen there, and say if others than this machine can reach it.

    Raises:
        UserError: it can't.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                problem = f"port {port} is in use: stop what runs there, or name another with --port"
                raise UserError(problem) from None
            raise UserError(f"can't listen on {host}, port {port}: {error.strerror or error}") from None
    if host not in LOOPBACK:
        notice = f"notice: listening on {host}: whoever reaches this machine there can use it; there is no password"
        print(notice, file=sys.stderr)


def end_on_signals() -> None:
    """Let SIGTERM and SIGHUP end this process as Ctrl-C does: temporary folders are removed."""

    def end(number: int, frame: FrameType | None) -> None:
        for each in numbers:  # a second one would interrupt the removal
            signal.signal(each, signal.SIG_IGN)
        sys.exit(128 + number)

    numbers = [n for n in (signal.SIGTERM, _HANG_UP) if n and signal.getsignal(n) is not signal.SIG_IGN]  # nohup
    for number in numbers:
        signal.signal(number, end)


def run(application: Any, *, host: str, port: int, ready: str) -> NoReturn:
    """Serve an ASGI application until a signal ends this process. Print `ready` once it answers.

    Raises:
        UserError: it can't listen there.
    """
    serving = server(application, host=host, port=port, ready=ready)
    if _HANG_UP and signal.getsignal(_HANG_UP) is not signal.SIG_IGN:
        signal.signal(_HANG_UP, serving.handle_exit)  # uvicorn itself minds only SIGTERM and SIGINT
    with suppress(KeyboardInterrupt, SystemExit):  # uvicorn sends itself the signal once more when all has ended
        serving.run()
    if not serving.started:
        raise UserError(f"can't listen on {host}, port {port}: name another with --port")
    # Python would wait for a photograph that is still being decoded. Nothing interrupts that, and nobody waits for it.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(0)


def server(application: Any, *, host: str, port: int, ready: str = "") -> uvicorn.Server:
    """The server that `run` runs."""
    return _Server(
        uvicorn.Config(
            application,
            host=host,
            port=port,
            log_level="warning",
            http=_Connection,
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=_ENDING_SECONDS,
        ),
        ready=ready,
    )


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, *, ready: str) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._ready:
            print(self._ready, flush=True)


class _Connection(H11Protocol):
    """uvicorn's connection, with an end to waiting.

    uvicorn limits only the pause between two requests. Here a connection is closed if no request begins in
    HEADER_SECONDS, however many bytes have come, or if an answer is not fetched in that time. Of more than
    MOST_CONNECTIONS, the one that has waited longest for a request is closed.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            idle = [each for each in self.connections if isinstance(each, _Connection) and each.waits]
            min(idle, key=_Connection._until, default=self).transport.abort()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_waiting()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._wait()

    @property
    def waits(self) -> bool:
        """Whether no request is read or answered."""
        return self.cycle is None or self.cycle.response_complete

    def _until(self) -> float:
        return self._deadline.when() if self._deadline else float("inf")

    def _wait(self) -> None:
        self._stop_waiting()
        self._deadline = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def _stop_waiting(self) -> None:
        if self._deadline:
            self._deadline.cancel()

    def _give_up(self) -> None:
        if self.waits:
            self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, as JSON like every other error."""
        if self.cycle is not None:
            self.cycle.disconnected = True  # what it was about to answer would mix with this
            self.cycle.message_event.set()
        if self.cycle is None or not self.cycle.response_started or self.cycle.response_complete:
            body = json.dumps({"message": msg}).encode()
            lines = ["HTTP/1.1 400 Bad Request", "content-type: application/json", "connection: close"]
            self.transport.write("\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body)
        self.transport.close()
