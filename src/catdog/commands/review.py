"""A page on which a person decides about labels, blind: one photograph after the other (`catdog review`).

Before the decision on a photograph nothing is sent of it but its pixels.
"""

import base64
import json
import secrets
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from catdog.base.errors import UserError, first_line
from catdog.base.text import printable
from catdog.commands import guard
from catdog.evaluation.scoring import wilson
from catdog.feedback.reviewing import Gone, Item
from catdog.feedback.session import Done, Refused, Session
from catdog.pictures.style import NAMES
from catdog.pictures.wording import percent

if TYPE_CHECKING:
    from catdog.commands.verdicts import Judge  # which takes seconds to import

TEMPLATE = Path(__file__).with_name("review.html.jinja")
LIMITS = guard.Limits(body=1 << 20, bodies=8 << 20, at_once=1, waiting=16)
NEXT = "dvc repro"
_FRESH = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_LEARNT = ("train", "val")  # the splits that a model learnt from, by its weights or its epochs


def create(
    session: Session, *, judges: "Callable[[], list[Judge]]", classes: list[str], confidence: float, hosts: list[str]
) -> Starlette:
    """The ASGI application of the page and its decisions.

    Args:
        judges: gives both models, or none; it may take its time.
        confidence: of the interval of the agreement with controls.
        hosts: see `guard.hosts`.
    """
    page = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined).from_string(
        TEMPLATE.read_text(encoding="utf-8")
    )
    lock = threading.Lock()

    async def show(request: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        policy = f"default-src 'none'; img-src 'self' data:; connect-src 'self'; script-src 'nonce-{nonce}'; "
        policy += f"style-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        html = page.render(nonce=nonce, classes=classes, next=NEXT)
        return HTMLResponse(html, headers={**_FRESH, "Content-Security-Policy": policy})

    def state() -> dict[str, Any]:
        current = session.current()
        last = [(token, done) for token, done in session.done.items() if done.decision][-1:]
        past, due = len(session.done), len(session.pending)
        return {
            "progress": f"{min(past + 1, past + due)} of {past + due}",
            "photograph": _photograph(*current) if current else None,
            "last": _revealed(*last[0]) if last else None,
            "undo": next(reversed(session.done), None),
            "end": None if current else _end(session, confidence),
        }

    def present() -> Response:
        with lock:
            return JSONResponse(state(), headers=_FRESH)

    def act(do: Callable[[], None]) -> Response:
        with lock:
            try:
                do()
            except Refused as refused:
                return JSONResponse({**state(), "message": str(refused)}, 409, _FRESH)
            except UserError as error:
                return guard.refusal(printable(str(error)), 500, headers=_FRESH)
            return JSONResponse(state(), headers=_FRESH)

    def opinions(item: Item) -> Response:
        try:
            jpeg = item.jpeg()
        except Gone:
            return _missing()
        trained = item.split in _LEARNT
        return JSONResponse([{**_opinion(judge, jpeg), "trained": trained} for judge in judges()], headers=_FRESH)

    def thumbnail(item: Item) -> Response:
        try:
            return Response(item.jpeg(), media_type="image/jpeg", headers=_FRESH)
        except Gone:
            return _missing()

    async def now(request: Request) -> Response:
        return await run_in_threadpool(present)

    def acting(named: Callable[[str, str], None]) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            # A page elsewhere can't send this kind unless this server allowed it, so it can't decide in anyone's name.
            if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
                return guard.refusal("a decision should come as application/json", 415)
            try:
                body = json.loads(await request.body())
                token, decision = body["photograph"], body.get("decision", "")
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
                return guard.refusal("a decision should be an object with `photograph` and `decision`", 400)
            return await run_in_threadpool(act, lambda: named(str(token), str(decision)))

        return answer

    def told(respond: Callable[[Item], Response]) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            done = session.done.get(request.path_params["token"])
            return await run_in_threadpool(respond, done.item) if done and done.decision else _missing()

        return answer

    routes = [
        Route("/", show),
        Route("/now", now),
        Route("/decision", acting(session.decide), methods=["POST"]),
        Route("/skip", acting(lambda token, _: session.skip(token)), methods=["POST"]),
        Route("/undo", acting(lambda token, _: session.undo(token)), methods=["POST"]),
        Route("/photographs/{token}", told(thumbnail)),
        Route("/opinions/{token}", told(opinions)),
    ]
    return guard.guarded(routes, hosts=hosts, limits=LIMITS)


def open_judges() -> "Callable[[], list[Judge]]":
    """Begin to open both models, and give a function that waits for them. None where they can't be opened."""
    return ThreadPoolExecutor(1).submit(_judges).result


def _judges() -> "list[Judge]":
    from catdog.tracking import address

    try:
        database = address.database(address.uri())
        if database and not database.exists():  # to ask would make one
            return []
        from catdog.commands import verdicts
        from catdog.tracking import store

        return verdicts.judges(store.connect())
    except Exception as error:  # of a store, a model, an engine: without opinions a review is as good
        print(f"notice: no model's opinion is shown: {printable(first_line(error))}", file=sys.stderr)
        return []


def in_a_line(session: Session, confidence: float) -> str:
    """What a review came to, and the next command."""
    if not session.tally().looked:
        return "nothing was decided"
    return f"{'; '.join(_came_to(session, confidence))}; next: {NEXT}"


def _came_to(session: Session, confidence: float) -> list[str]:
    tally = session.tally()
    parts = [f"{tally.relabelled:,} changed", f"{tally.set_aside:,} set aside as neither"]
    if tally.brought:
        parts.append(f"{tally.brought:,} brought into data/raw/reviewed")
    if tally.skipped:
        parts.append(f"{tally.skipped:,} skipped until the next start")
    lines = [f"{tally.looked:,} decided: {', '.join(parts)}"]
    if tally.controls:
        low, high = map(percent, wilson(tally.agreed, tally.controls, confidence))
        share, level = percent(tally.agreed / tally.controls), f"{100 * confidence:g} %"
        agreed = f"agreed with {tally.agreed:,} of {tally.controls:,} controls"
        lines.append(f"{agreed}: {share} ({level} interval: {low} to {high})")
    if session.gone:
        lines.append(f"{len(session.gone)} could not be shown: {printable(session.gone[0])}")
    return lines


def _end(session: Session, confidence: float) -> dict[str, Any]:
    changed = [
        {"token": token, "text": f"{done.item.was} → {done.decision}", "source": printable(done.item.source)}
        for token, done in session.done.items()
        if done.changed
    ]
    return {"lines": _came_to(session, confidence), "changed": changed}


def _photograph(token: str, jpeg: bytes) -> dict[str, str]:
    return {"token": token, "address": "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")}


def _revealed(token: str, done: Done) -> dict[str, Any]:
    item = done.item
    filed = f"It is filed as {item.filed}." if item.filed else f"The answer leaned to {item.leans}."
    return {
        "token": token,
        "decided": done.decision,
        "filed": filed,
        "changed": done.changed,
        "why": printable(item.why),
        "source": printable(item.source),
    }


def _opinion(judge: "Judge", jpeg: bytes) -> dict[str, Any]:
    c = judge.classifier
    [answer] = c.answers(c.ask(c.pixels(jpeg)[None]))
    second = answer.probability >= c.threshold
    leans, share = c.classes[second], answer.probability if second else 1 - answer.probability
    label = leans if answer.label == leans else f"{answer.label}, leaning to {leans}"
    return {"name": NAMES[judge.kind], "label": label, "sure": percent(share) if share < 0.9995 else "over 99.9 %"}


def _missing() -> Response:
    return guard.refusal("there is no such photograph here, or nothing was decided on it", 404)
