"""POST /feedback of `catdog serve`: what a client says of an answer, on the disk before the client is told so."""

import asyncio
import errno
import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from catdog.base.text import printable, shortened
from catdog.commands import guard
from catdog.feedback import user_feedback
from catdog.feedback.log_writer import Writer
from catdog.feedback.user_feedback import Noted

_MOST_BODY = 4096  # bytes
# Requests at a time, and seconds for each. A disk that hangs holds up so many, and none that asks about photographs.
_AT_ONCE, _SECONDS = 4, 5.0
_FLUSH = 2.0  # seconds in which an answer that was just given comes into the log
_FORM = '{"id": "<id of an answer>", "label": "<what it is>"}'
_LATER = {"retry-after": "5"}  # seconds


class _Unfit(Exception):
    """What is wrong with a request."""


def route(log: Writer | None, *, labels: Sequence[str], noted: Callable[[Noted], None]) -> Route:
    """The address, for a server that keeps this log, or none.

    Args:
        labels: that a client may give.
        noted: called with what was kept.
    """
    worker = ThreadPoolExecutor(1, thread_name_prefix="feedback")
    pending: set[Future[Noted | None]] = set()

    async def feedback(request: Request) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":  # from a page of another site no browser sends this without asking here first
            return guard.refusal(f"the content type should be application/json, of {_FORM}", 415)
        body = await request.body()
        if len(body) > _MOST_BODY:
            return guard.refusal(f"feedback should have at most {_MOST_BODY >> 10} KiB", 413)
        if log is None:
            return guard.refusal("this server keeps no log of its answers, so there is none to say anything of", 409)
        try:
            id, label = _read(body, labels)
        except _Unfit as error:
            return guard.refusal(str(error), 400)
        if len(pending) >= _AT_ONCE:
            return _later("the disk of the log is slow")
        future = worker.submit(_note, log, id, label)
        pending.add(future)
        future.add_done_callback(pending.discard)
        try:
            kept = await asyncio.wait_for(asyncio.wrap_future(future), _SECONDS)
        except TimeoutError:
            return _later("the disk of the log is slow")
        except OSError as error:
            return _later(error.strerror or "the disk of the log fails")
        if kept is None:
            return guard.refusal("the log of this server has no answer with this id", 404)
        noted(kept)
        return JSONResponse({"id": kept.id, "label": kept.label, "answered": kept.answered})

    return Route("/feedback", feedback, methods=["POST"])


def _note(log: Writer, id: str, label: str) -> Noted | None:
    in_time = log.flush(_FLUSH)
    kept = user_feedback.note(log.folder, id=id, label=label, most=log.feedback_bytes)
    if kept is None and not in_time:
        raise OSError(errno.EAGAIN, "the log has not caught up")
    return kept


def _later(why: str) -> Response:
    return guard.refusal(f"this was not kept ({why}): send it again later", 503, headers=_LATER)


def _read(body: bytes, labels: Sequence[str]) -> tuple[str, str]:
    """The id and the label in a request.

    Raises:
        _Unfit: it has another form, or another label.
    """
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        raise _Unfit(f"the body should be JSON: {_FORM}") from None
    match said:
        case {"id": str(id), "label": str(label)}:
            pass
        case _:
            raise _Unfit(f"the body should be {_FORM}")
    if label not in labels:
        allowed = f"{', '.join(labels[:-1])} or {labels[-1]}"
        raise _Unfit(f"the label should be {allowed}. Received: {shortened(printable(label), limit=70)!r}")
    return id, label
