"""A page for people: drop a photograph, see what both models say of it and what they went by (`catdog demo`)."""

import base64
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from catdog.answers.classifier import NEITHER, UNSURE
from catdog.base import paths
from catdog.commands import guard
from catdog.commands.verdicts import Judge, Verdict
from catdog.photographs import photos, shards
from catdog.pictures.style import COLOURS, NAMES
from catdog.pictures.wording import percent

TEMPLATE = Path(__file__).with_name("demo.html.jinja")
# One at a time: two would take turns on the same cores. So the memory that this takes at most, beside the models and
# their libraries (about 1 GB), is the bodies and one photograph of 64 megapixels while it is decoded (1.3 GB).
LIMITS = guard.Limits(body=32 << 20, bodies=96 << 20, at_once=1, waiting=16)
_SAMPLES = 8
_HARD = 3  # of these: one model is wrong


@dataclass(frozen=True)
class Sample:
    """A photograph to click: its JPEG and its label."""

    jpeg: bytes
    label: str


def create(judges: list[Judge], samples: list[Sample], *, hosts: list[str], trained: Path = paths.TRAIN) -> Starlette:
    """The ASGI application of the page, its samples and its answers.

    Args:
        judges: both models.
        trained: the shard of the training photographs, some of which are shown beside an answer; it may be missing.
        hosts: see `guard.hosts`.
    """
    page = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined).from_string(
        TEMPLATE.read_text(encoding="utf-8")
    )
    known = shards.Shard(trained) if trained.exists() else None
    rows = {identity: row for row, identity in enumerate(known.ids)} if known else {}
    for judge in judges:  # the first answer takes longer
        judge.classifier.ask(np.zeros((1, judge.classifier.side, judge.classifier.side, 3), np.uint8))

    async def show(request: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        html = page.render(
            nonce=nonce,
            classes=judges[0].classifier.classes,
            models=[_model_fields(judge) for judge in judges],
            samples=[sample.label for sample in samples],
            champion=any(judge.champion for judge in judges),
            drawn=any(judge.drawn for judge in judges),
            most=LIMITS.body,
        )
        policy = f"default-src 'none'; img-src 'self' data:; connect-src 'self'; script-src 'nonce-{nonce}'; "
        policy += f"style-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        return HTMLResponse(html, headers={"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"})

    async def sample(request: Request) -> Response:
        number = request.path_params["number"]
        if number >= len(samples):
            return guard.refusal("no such sample", 404)
        return Response(samples[number].jpeg, media_type="image/jpeg")

    async def training_photograph(request: Request) -> Response:
        row = rows.get(request.path_params["identity"])
        if known is None or row is None:
            return guard.refusal("no such photograph", 404)
        return Response(known.jpeg(row), media_type="image/jpeg")

    def answer(data: bytes) -> Response:
        try:
            verdicts = [judge.verdict(data) for judge in judges]
        except photos.Unreadable as error:
            return guard.refusal(f"That is no photograph that can be read: {error}.", 400)
        answers = [_verdict_fields(judge, verdict) for judge, verdict in zip(judges, verdicts, strict=True)]
        for each in answers:
            each["nearest"] = [identity for identity in each["nearest"] if identity in rows]
        return JSONResponse({"photograph": _address(verdicts[0].photograph), "verdicts": answers})

    async def ask(request: Request) -> Response:
        return await run_in_threadpool(answer, await request.body())

    routes = [
        Route("/", show),
        Route("/samples/{number:int}", sample),
        Route("/trained/{identity}", training_photograph),
        Route("/verdicts", ask, methods=["POST"]),
    ]
    return guard.guarded(routes, hosts=hosts, limits=LIMITS)


def samples(test: Path, mistakes: Path, *, classes: list[str]) -> list[Sample]:
    """Photographs of both classes to try, hard ones first. None where the shard `test` is missing.

    Args:
        mistakes: the table of the models' mistakes; it may be missing.
    """
    if not test.is_file():
        return []
    shard = shards.Shard(test)
    rows = _hard(shard, mistakes)
    for label in (0, 1):
        others = [row for row in np.flatnonzero(shard.labels == label) if row not in rows]
        wanted = (_SAMPLES - len(rows)) // (2 - label)
        rows += [others[place] for place in np.linspace(0, len(others) - 1, min(wanted, len(others)), dtype=int)]
    return [Sample(shard.jpeg(int(row)), classes[shard.labels[row]]) for row in rows]


def _hard(shard: shards.Shard, mistakes: Path) -> list[int]:
    try:
        table = pd.read_csv(mistakes)
    except (OSError, ValueError):
        return []
    row_of = {identity: row for row, identity in enumerate(shard.ids)}
    alone = table[table["wrong"].isin(list(NAMES))]  # one model is wrong, the other right
    return [row_of[identity] for identity in alone["id"] if identity in row_of][:_HARD]


def _model_fields(judge: Judge) -> dict[str, object]:
    return {
        "name": NAMES[judge.kind],
        "colour": COLOURS[judge.kind],
        "version": judge.version,
        "champion": judge.champion,
        "accuracy": "" if judge.accuracy is None else f"{percent(judge.accuracy)} right in its test",
    }


def _verdict_fields(judge: Judge, verdict: Verdict) -> dict[str, Any]:
    second = verdict.leans == judge.classifier.classes[1]
    share = verdict.probability if second else 1 - verdict.probability
    sure = percent(share) if share < 0.9995 else "over 99.9 %"
    return {
        "label": verdict.label,
        "leans": verdict.leans,
        "sure": sure if verdict.label == verdict.leans else "",
        "why": _why(judge, verdict, sure),
        "probability": verdict.probability,
        "familiarity": verdict.familiarity,
        "version": judge.version,
        "milliseconds": round(verdict.milliseconds),
        "overlay": _address(verdict.overlay),
        "nearest": verdict.nearest,
    }


def _why(judge: Judge, verdict: Verdict, sure: str) -> str:
    """What made the model answer with no class; else how familiar the photograph looks to it."""
    needed, familiarity = judge.classifier.sureness, verdict.familiarity
    if verdict.label == UNSURE and needed is not None:
        return f"It leans to {verdict.leans}, with {sure}; to answer it needs {percent(needed)}."
    if familiarity is None:
        return ""
    strange = f"{percent(familiarity) if familiarity else 'none'} of the photographs that it was tuned on looked"
    if verdict.label == NEITHER:
        return f"Too strange: {strange} as strange, or more. It would have to say {verdict.leans}."
    return f"Familiar: {strange} as strange, or more."


def _address(image: np.ndarray) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(photos.encode(image)).decode("ascii")
