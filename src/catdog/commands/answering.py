"""The commands of `catdog` that ask a model, or let others ask it: predict, export, ui, serve and demo."""

import atexit
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal

import typer

from catdog.base import params, paths
from catdog.base.errors import UserError

Model = Annotated[
    str, typer.Option(help="A registered model, such as models:/catdog@champion or models:/catdog-cnn/3.")
]
Unverified = Annotated[bool, typer.Option("--unverified", help="Take even a version that catdog did not register.")]
Port = Annotated[int, typer.Option(min=1, max=65535)]
Host = Annotated[str, typer.Option(help="The address to listen on; any but 127.0.0.1 opens it to others.")]
CHAMPION = "models:/catdog@champion"
LOOPBACK = "127.0.0.1"


def predict(
    path: Annotated[
        list[str], typer.Argument(help="Photographs, folders of them, zips or tars; or addresses such as s3://bucket.")
    ],
    model: Model = CHAMPION,
    out: Annotated[Path | None, typer.Option(help="A .csv or .parquet to write. Default: CSV on the screen.")] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Probability of the second class from which it is the label.")
    ] = None,
    unverified: Unverified = False,
) -> None:
    """Tell cat from dog: columns path, label, probability (of the second class), familiarity and error.

    The label is a class; `unsure` if the answer would be wrong too often; or `neither` if the photograph is unlike
    those that the model knows: of the photographs that it was tuned on, the share `familiarity` looked as strange.

    What can't be read gets a row with the reason. Exit status 1 only if nothing could be read. In CSV an apostrophe
    stands before names that a spreadsheet would take for formulas, and control characters are escapes such as \\x1b.
    """
    from catdog.commands import prediction
    from catdog.tracking import opening

    read = False

    def noted(rows: Iterable[prediction.Prediction]) -> Iterator[prediction.Prediction]:
        nonlocal read
        for row in rows:
            read = read or not row.error
            yield row

    classifier = opening.load(model, unverified=unverified)
    rows = noted(prediction.predict(path, model=classifier, threshold=threshold))
    if out:
        prediction.save(rows, out)
    else:
        prediction.write(rows, sys.stdout)
    if not read:
        raise UserError("none of these could be read as a photograph; the column error says why")


def export(
    model: Annotated[str, typer.Argument(help="A registered model, such as models:/catdog@champion.")] = CHAMPION,
    kind: Annotated[
        Literal["openvino", "onnx", "litert"], typer.Option("--format", help="What the network is written for.")
    ] = "onnx",
    out: Annotated[
        Path | None, typer.Option(help="The file to write. Default: model.xml, .onnx or .tflite here.")
    ] = None,
) -> None:
    """Write a model for use elsewhere: pixels in, the calibrated probability of the second class out.

    It is asked about the test photographs first, and written only if it answers as the model does. A .json file beside
    it has the classes, the size of its input and what was measured. ONNX and LiteRT need the packages of the extra
    `export`.
    """
    from catdog.commands import exporting

    print(exporting.export(params.load(), model, kind, out))


def ui(port: Port = 5000, host: Host = LOOPBACK) -> None:
    """Start the MLflow UI on this project's runs."""
    from catdog.commands import listening, mlflow_ui
    from catdog.tracking import links, lost, store

    listening.require_free(host, port)
    client = store.connect()
    lost.notice(client)
    address = f"http://{host}:{port}"
    print(f"MLflow UI: {address}, in a few seconds (stop with Ctrl-C)")
    if charts := links.latest_curves(client, ui=address):
        print(f"both models of the last comparison: {charts}")
    mlflow_ui.become(store.uri(), host=host, port=port)


def serve(
    model: Model = CHAMPION,
    port: Port = 5001,
    host: Host = LOOPBACK,
    unverified: Unverified = False,
    log: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Log every photograph's answer there, with its features.")
    ] = None,
    keep_photographs: Annotated[
        bool, typer.Option("--keep-photographs", help="Keep the photographs there too, as they were sent.")
    ] = False,
    log_megabytes: Annotated[int, typer.Option(min=1, help="What the log may take; its oldest days go.")] = 1024,
) -> None:
    """Start a server that answers photographs with label, probability and familiarity.

    The address /metrics is for Prometheus. With --log, clients may say what a photograph was: POST /feedback
    {"id": "...", "label": "..."} puts it on the list of `catdog review`. Addresses of clients are never logged.
    """
    from catdog.commands import guard, listening, scoring_server
    from catdog.feedback.log_writer import Writer
    from catdog.tracking import opening, served_form

    if keep_photographs and not log:
        raise UserError("--keep-photographs needs --log DIR, where they are kept")
    listening.end_on_signals()
    listening.require_free(host, port)
    with tempfile.TemporaryDirectory() as folder:
        fetched = opening.fetch(model, Path(folder), unverified=unverified)
        answering = served_form.answering(fetched)
    ready = f"serving {model} on http://{host}:{port}/invocations (stop with Ctrl-C)"
    writer = None
    if log:
        writer = Writer(
            log,
            version=answering.version,
            classes=answering.classes,
            megabytes=log_megabytes,
            photographs=keep_photographs,
        )
        atexit.register(writer.close)
        ready += f"\nlogging to {log}{', with the photographs' if keep_photographs else ''}"
    application = scoring_server.create(answering, hosts=guard.hosts(host), log=writer)
    listening.run(application, host=host, port=port, ready=ready)


def demo(port: Port = 5002, host: Host = LOOPBACK) -> None:
    """Start a page on which a photograph is dropped: the verdicts of both models, and what they went by.

    It shows the champion, and of the other model the newest version.
    """
    from catdog.commands import demo as page
    from catdog.commands import guard, listening, verdicts
    from catdog.tracking import store

    p = params.load()
    listening.end_on_signals()
    listening.require_free(host, port)
    judges = verdicts.judges(store.connect())
    samples = page.samples(paths.TEST, paths.MISTAKES, classes=p.base.classes)
    application = page.create(judges, samples, hosts=guard.hosts(host))
    listening.run(application, host=host, port=port, ready=f"the page: http://{host}:{port} (stop with Ctrl-C)")


COMMANDS = (predict, export, ui, serve, demo)
