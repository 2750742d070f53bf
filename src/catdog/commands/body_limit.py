"""A limit on the size of requests, for any server that speaks ASGI (https://asgi.readthedocs.io)."""

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BodyLimit:
    """Answers 413 to a request whose body has more than `most` bytes, and never holds more of it than that.

    The bytes are counted as they come, since a body in chunks has no Content-Length. One that is too high is refused
    at once.
    """

    def __init__(self, app: ASGIApp, *, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        message = {"message": f"a request should have at most {self._most >> 20} MiB"}
        refuse = JSONResponse(message, 413, {"connection": "close"})
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._most:
            await refuse(scope, receive, send)
            return
        parts, size, more = [], 0, True
        while more:
            part = await receive()
            if part["type"] == "http.disconnect":
                return
            parts.append(part.get("body", b""))
            size += len(parts[-1])
            if size > self._most:
                await refuse(scope, receive, send)
                return
            more = part.get("more_body", False)
        whole: list[Message] = [{"type": "http.request", "body": b"".join(parts), "more_body": False}]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        await self._app(scope, replay, send)
