"""The server of `catdog serve`: MLflow's addresses and formats for a table of photographs, /metrics and /feedback."""

import base64
import json
import time
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from catdog.answers import asking
from catdog.answers.classifier import NEITHER
from catdog.base.errors import first_line
from catdog.commands import feedback_route, guard, server_metrics
from catdog.feedback import log_queue
from catdog.feedback.log_writer import Writer
from catdog.tracking import serving

# As many at once as make a batch: they are answered together.
LIMITS = guard.Limits(body=128 << 20, bodies=192 << 20, at_once=asking.BATCH, waiting=32)
# Bytes of memory that the server takes at most: the model and its libraries; 10 for each byte of a body while JSON
# becomes text, strings and photographs (where all of it is ASCII, a third of that); for each photograph of 64
# megapixels that is decoded at a time; and what waits to be logged.
MOST_MEMORY = (1 << 30) + 10 * LIMITS.bodies + serving.DECODED_AT_ONCE * (1300 << 20) + log_queue.MOST_BYTES
_MOST_VALUES = 64 * serving.MOST_PHOTOGRAPHS  # in a request's JSON; empty ones take 30 times their bytes in memory
_MOST_WORDS = 1000  # characters; MLflow's own words may repeat what was sent
_FORMATS = '{"dataframe_split": {"columns": ["image"], "data": [["<base64>"], ...]}} or {"dataframe_records": [...]}'


class _Unfit(Exception):
    """What is wrong with a request."""


def create(model: serving.Served, *, hosts: list[str], log: Writer | None = None) -> Starlette:
    """The ASGI application that serves a model that `tracking.served_form.answering` gave.

    Args:
        hosts: see `guard.hosts`.
        log: where answers are logged.
    """
    metrics = server_metrics.Metrics(version=model.version, classes=model.classes, log=log)

    def answer(body: bytes, whole_at: float) -> Response:
        try:
            images, params = _request(body)
            answers, features = model.answer_with_features(images, params)
        except _Unfit as error:
            return guard.refusal(str(error), 400, error_code="BAD_REQUEST")
        except MlflowException as error:
            if (status := error.get_http_status_code()) >= 500:
                raise
            return guard.refusal(error.message[:_MOST_WORDS], status, error_code=error.error_code)
        metrics.count_answers(answers)
        if log:
            log.put(images, answers, features, milliseconds=1000 * (time.perf_counter() - whole_at))
        return JSONResponse({"predictions": answers})

    async def invocations(request: Request) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            return guard.refusal(f"the content type should be application/json, of {_FORMATS}", 415)
        return await run_in_threadpool(answer, await request.body(), request.state.whole_at)

    async def ping(request: Request) -> Response:
        return Response("\n", media_type="application/json")

    async def version(request: Request) -> Response:
        return Response(mlflow.__version__, media_type="application/json")

    routes = [
        Route("/ping", ping),
        Route("/health", ping),
        Route("/version", version),
        Route(server_metrics.ASK, invocations, methods=["POST"]),
        feedback_route.route(log, labels=(*model.classes, NEITHER), noted=metrics.count_feedback),
        metrics.route(),
    ]
    application = guard.guarded(routes, hosts=hosts, limits=LIMITS)
    application.add_middleware(server_metrics.Counted, metrics=metrics, paths={route.path for route in routes})
    return application


def _request(body: bytes) -> tuple[list[bytes], dict[str, Any]]:
    """The photographs' bytes and the parameters of a request.

    Raises:
        _Unfit: it has another form.
    """
    if sum(map(body.count, (b"[", b"{", b","))) > _MOST_VALUES:
        raise _Unfit(f"a request should hold at most {serving.MOST_PHOTOGRAPHS} photographs, and little beside them")
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _Unfit(f"the body should be JSON: {first_line(error)}") from None
    match request:
        case {"dataframe_split": {"columns": [*columns], "data": [*rows]}}:
            if columns.count(serving.IMAGE) != 1:
                raise _Unfit(f"the columns should hold {serving.IMAGE!r} once")
            place = columns.index(serving.IMAGE)
            cells = [row[place] if isinstance(row, list) and len(row) == len(columns) else None for row in rows]
        case {"dataframe_records": [*rows]}:
            cells = [row.get(serving.IMAGE) if isinstance(row, dict) else None for row in rows]
        case _:
            raise _Unfit(f"the body should be {_FORMATS}")
    if not cells:
        raise _Unfit("there is no photograph in it")
    params = request.get("params") or {}
    if not isinstance(params, dict):
        raise _Unfit(f"params should be an object. Received: {type(params).__name__}")
    return [_bytes(row, cell) for row, cell in enumerate(cells)], params


def _bytes(row: int, cell: object) -> bytes:
    if not isinstance(cell, str):
        raise _Unfit(f"row {row}: {serving.IMAGE!r} should be a photograph's bytes in base64")
    try:
        return base64.b64decode(cell)
    except ValueError as error:
        raise _Unfit(f"row {row}: no base64: {first_line(error)}") from None
