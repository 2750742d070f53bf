"""The commands of `catdog` by which use leads to better models: review and drift."""

import atexit
import sys
from pathlib import Path
from typing import Annotated

import typer

from catdog.base import params, paths
from catdog.commands.answering import CHAMPION, LOOPBACK, Host, Model, Port


def review(
    queue: Annotated[
        Path | None,
        typer.Option(help="A folder of `catdog serve --log DIR --keep-photographs`: what its answers leave in doubt."),
    ] = None,
    by: Annotated[str, typer.Option(help="Who decides. Default: the name that you are logged in with.")] = "",
    port: Port = 5003,
    host: Host = LOOPBACK,
) -> None:
    """Start a page on which you decide about labels in doubt: one photograph after the other, blind.

    What it is filed as, why it is asked about, and what the models think is told after your decision. One in five is a
    control: a photograph that nobody doubts.

    Keys: left or 1, and right or 2, for the two classes; n for neither; s to skip; u to undo.

    Each decision is a row of data/corrections.csv before the next photograph appears. So stop with Ctrl-C and go on
    another day: what is decided is not asked again. `dvc repro` applies the decisions.
    """
    from catdog.commands import guard, listening
    from catdog.commands import review as page
    from catdog.feedback import decisions, reviewing
    from catdog.feedback.session import Session

    p = params.load()
    confidence = p.evaluate.confidence
    listening.end_on_signals()
    listening.require_free(host, port)
    asked, notices = reviewing.queue(p, log=queue)
    for notice in notices:
        print(f"notice: {notice}", file=sys.stderr)
    if not asked:
        print(f"nothing to review: {reviewing.NOTHING if queue is None else reviewing.NOTHING_SERVED}")
        return
    controls = sum(item.kind == reviewing.CONTROL for item in asked)
    session = Session(
        asked, file=paths.CORRECTIONS, raw=paths.RAW, classes=p.base.classes, by=by.strip() or decisions.user()
    )
    application = page.create(
        session, judges=page.open_judges(), classes=p.base.classes, confidence=confidence, hosts=guard.hosts(host)
    )
    # A server that was ended does not return. In a terminal, the ^C stands before it.
    atexit.register(lambda: print("\n" * sys.stdout.isatty() + page.in_a_line(session, confidence)))
    ready = f"the page: http://{host}:{port}, {len(asked) - controls:,} photographs in doubt and {controls:,} controls"
    listening.run(application, host=host, port=port, ready=f"{ready} (stop with Ctrl-C)")


def drift(
    path: Annotated[
        list[Path],
        typer.Argument(help="Photographs, folders of them, zips or tars; or a folder of `catdog serve --log DIR`."),
    ],
    model: Model = CHAMPION,
    out: Annotated[Path, typer.Option(help="The page to write; its figures go beside it, as .json.")] = paths.DRIFT,
) -> None:
    """Tell how new photographs differ from those that a model was made for, and what accuracy to expect of them.

    They are compared with validation photographs that the model's version keeps: light, contrast, colour, sharpness,
    size and shape, labels, sureness, familiarity and features. One line says whether they differ, which by chance it
    says of one collection in a hundred; of fewer than 30 photographs it can't say. The page has each figure and the
    strangest photographs. A log without photographs is compared by the answers in it.

    Exit status 0 whether they differ or not. For a script, the .json has `drift`: true, false, or null for too few.
    """
    from catdog.commands import drifting

    drifting.run(path, model=model, out=out, confidence=params.load().evaluate.confidence)


COMMANDS = (review, drift)
