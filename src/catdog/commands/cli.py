"""The `catdog` command: photographs in, models up and down the registry, answers out."""

import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from catdog.base import dvc_files, params, paths
from catdog.base.errors import UserError, run

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="""Cat against dog, tracked: the command beside the pipeline.

    `dvc repro` trains and compares; this command brings photographs in before, and takes models into use after.

    A day with it: `catdog fetch photos.zip`, `dvc repro`, `catdog compare`, `catdog promote --why "first model"`,
    `catdog predict ~/Pictures`.
    """,
)

Model = Annotated[
    str, typer.Option(help="A registered model, such as models:/catdog@champion or models:/catdog-cnn/3.")
]
Unverified = Annotated[bool, typer.Option("--unverified", help="Take even a version that catdog did not register.")]
Why = Annotated[str, typer.Option(help="Why, in a few words; it stands in the history.")]
Port = Annotated[int, typer.Option(min=1, max=65535)]
Host = Annotated[str, typer.Option(help="The address to listen on; any but 127.0.0.1 opens it to others.")]
CHAMPION = "models:/catdog@champion"
LOOPBACK = "127.0.0.1"


def main() -> None:
    run(_command)


def _command() -> None:
    """The command that was asked for. If the MLflow store fails in the middle of any, that is one line."""
    dvc_files.mend(paths.root())
    try:
        app()
    except Exception:
        if "catdog.tracking.store" not in sys.modules:  # MLflow takes seconds to import
            raise
        from catdog.tracking import store

        with store.answering():
            raise


@app.command(hidden=True)
def mend() -> None:
    """Before `dvc repro`: clear away what a DVC that was cut off left, as every command does."""
    dvc_files.mend_record(paths.root())


@app.command()
def fetch(
    source: Annotated[
        str, typer.Argument(help="auto, drawn, petimages, filtered, or a path to a folder, zip or tar.")
    ] = "auto",
) -> None:
    """Bring photographs into data/raw.

    A folder or archive has a folder for each class, at any depth; names match the classes of params.yaml without case,
    plural or not. What an earlier fetch brought is replaced; files of your own are never touched.
    """
    from catdog.preparation import fetching, sources

    p = params.load()
    fetching.fetch(source, paths.RAW, classes=p.base.classes, drawings=p.prepare.drawings, seed=p.base.seed)
    description = sources.describe(paths.RAW)
    print(f"{paths.RAW} holds {description['files']:,} files ({description['kind']}); next: dvc repro")


@app.command()
def compare(
    markdown: Annotated[bool, typer.Option("--markdown", help="The table alone, for a README.")] = False,
) -> None:
    """Print the comparison of the two models that `dvc repro` made, and what to do next."""
    from catdog.commands import summary

    if markdown:
        print(summary.markdown())
    else:
        summary.show(Console())


@app.command()
def promote(
    candidate: Annotated[
        str | None, typer.Argument(help="Such as catdog-cnn/3. Default: the best new version of both models.")
    ] = None,
    why: Why = "better on the test photographs",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Ask the gates and change nothing.")] = False,
) -> None:
    """Make a model the champion, if it passes every gate of params.yaml (promote:)."""
    from catdog.answers import inference
    from catdog.photographs import shards
    from catdog.tracking import gates, promotion, registry, store

    p = params.load()
    client = store.connect()

    def rescore(uri: str) -> gates.Scored:
        test, model = shards.Shard(paths.TEST), registry.load(client, uri)
        asked = inference.on_shard(test, model.network, side=model.side)
        return gates.scored(test.digest, ids=test.ids, labels=test.labels, probabilities=model.probabilities(asked))

    outcome = promotion.promote(client, p=p, why=why, candidate=candidate, rescore=rescore, dry_run=dry_run)
    for assessment in outcome.assessments:
        table = Table("gate", "figure", "limit", "", title=assessment.candidate, title_justify="left")
        for gate in assessment.gates:
            table.add_row(gate.name, gate.figure, gate.limit, "pass" if gate.passed else "[red]fail")
        Console().print(table)
    if not outcome.passed:
        raise UserError("no candidate passed every gate; the champion stays")
    if outcome.event:
        print(f"champion: catdog version {outcome.event.version}, a copy of {outcome.event.source}")
    else:
        print(f"{outcome.assessments[-1].candidate} would be promoted (dry run: nothing was changed)")


@app.command()
def rollback(
    version: Annotated[int | None, typer.Argument(help="Version of catdog. Default: the previous champion.")] = None,
    why: Why = "rolled back",
) -> None:
    """Make the previous champion, or another deployed version, champion again."""
    from catdog.tracking import promotion, store

    client = store.connect()
    event = promotion.rollback(client, why=why, to=version)
    print(f"champion: catdog version {event.version}, a copy of {event.source}")


@app.command()
def history() -> None:
    """List every deployment, newest first."""
    from catdog.tracking import promotion, store

    client = store.connect()
    rows = promotion.history(client)
    if not rows:
        print("nothing was deployed yet: catdog promote")
        return
    table = Table("version", "alias", "action", "from", "accuracy", "log loss", "when (UTC)", "who", "why")
    for row in rows:
        e = row.event
        metrics = (f"{e.figures[key]:.4f}" if key in e.figures else "" for key in ("accuracy", "log_loss"))
        table.add_row(str(e.version), row.alias, e.action, e.source, *metrics, e.when, e.who, e.why)
    _wide_console().print(table)


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="The file to write, such as ~/catdog-store.zip.")],
) -> None:
    """Keep the MLflow store of this project in one file: runs, models, versions and the history of deployments.

    A training or the UI may go on meanwhile. A store on a server is backed up there, by its own means.
    """
    from catdog.tracking import backup

    print(backup.backup(file))


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="What `catdog backup` wrote, here or in another project's folder.")],
    force: Annotated[
        bool, typer.Option("--force", help="Even over runs that the backup lacks; the present mlflow.db is kept.")
    ] = False,
) -> None:
    """Bring back the MLflow store that `catdog backup` kept, and check every version by its digests.

    All of it or nothing: the backup is verified before anything changes.
    """
    from catdog.tracking import restore

    print(restore.restore(file, force=force))


@app.command()
def trace(
    reference: Annotated[str, typer.Argument(help="A run id, catdog-cnn/3, or models:/catdog@champion.")] = CHAMPION,
) -> None:
    """Show the chain from a model back to its run, commit, data and photographs, each link verified."""
    from catdog.tracking import store
    from catdog.tracking.trace import trace

    client = store.connect()
    links = trace(client, reference)
    table = Table("link", "value", "", "note")
    for link in links:
        table.add_row(link.name, link.value, "ok" if link.ok else "[red]broken", link.note)
    _wide_console().print(table)
    broken = [f"{link.name}: {link.note}" for link in links if not link.ok]
    if broken:
        raise UserError(f"the chain is broken at {'; at '.join(broken)}")


@app.command()
def predict(
    path: Annotated[list[Path], typer.Argument(help="Photographs, folders of them, zips or tars.")],
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


@app.command()
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


@app.command()
def serve(model: Model = CHAMPION, port: Port = 5001, host: Host = LOOPBACK, unverified: Unverified = False) -> None:
    """Start a server that answers photographs with label, probability and model version."""
    from catdog.commands import guard, listening, scoring_server
    from catdog.tracking import registry, served_form, store

    listening.end_on_signals()
    listening.require_free(host, port)
    with tempfile.TemporaryDirectory() as folder:
        fetched = registry.fetch(store.connect(), model, Path(folder), unverified=unverified)
        answering = served_form.answering(fetched)
    ready = f"serving {model} on http://{host}:{port}/invocations (stop with Ctrl-C)"
    application = scoring_server.create(answering, hosts=guard.hosts(host))
    listening.run(application, host=host, port=port, ready=ready)


@app.command()
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


def _wide_console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=200)
