"""The `catdog` command: photographs in, models up and down the registry, answers out."""

import functools
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from catdog.base import dvc_files, params, paths
from catdog.base.errors import UserError, run
from catdog.commands import answering, feedback
from catdog.commands.answering import CHAMPION

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

Why = Annotated[str, typer.Option(help="Why, in a few words; it stands in the history.")]


def main() -> None:
    run(_command)


def _command() -> None:
    """The command that was asked for. If the MLflow store fails in the middle of any, that is one line."""
    dvc_files.mend(paths.root())
    try:
        everything()()
    except Exception:
        if "catdog.tracking.store" not in sys.modules:  # MLflow takes seconds to import
            raise
        from catdog.tracking import store

        with store.answering():
            raise


@functools.cache
def everything() -> typer.Typer:
    """All commands, in the order of the help."""
    for command in (*answering.COMMANDS, *feedback.COMMANDS):
        app.command()(command)
    return app


@app.command(hidden=True)
def mend() -> None:
    """Before `dvc repro`: clear away what a DVC that was cut off left, as every command does."""
    dvc_files.mend_record(paths.root())


@app.command()
def fetch(
    source: Annotated[
        str,
        typer.Argument(
            help="auto, drawn, petimages, filtered, or a path or address (s3://...) of a folder, zip or tar."
        ),
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
    log: Annotated[
        Path | None,
        typer.Option(help="A folder of `catdog serve --log --keep-photographs`: ask both models about them."),
    ] = None,
    last: Annotated[int, typer.Option(min=1, help="How many of its photographs, the newest first.")] = 500,
) -> None:
    """Make a model the champion, if it passes every gate of params.yaml (promote:).

    With `--log`, candidate and champion are asked about photographs that the server was sent; those that would get
    another label are drawn.
    """
    from catdog.answers import inference
    from catdog.photographs import shards
    from catdog.tracking import gates, promotion, registry, store
    from catdog.tracking import replay as replaying

    p = params.load()
    client = store.connect()

    def rescore(uri: str) -> gates.Scored:
        test, model = shards.Shard(paths.TEST), registry.load(client, uri)
        asked = inference.on_shard(test, model.network, side=model.side)
        return gates.scored(test.digest, ids=test.ids, labels=test.labels, probabilities=model.probabilities(asked))

    def replay(champion: str, candidate: str) -> replaying.Replay:
        assert log is not None
        models = {"champion": registry.load(client, champion), "candidate": registry.load(client, candidate)}
        replayed = replaying.ask(log, last=last, **models)
        replaying.draw(replayed, paths.REPLAY)
        return replayed

    outcome = promotion.promote(
        client,
        p=p,
        why=why,
        candidate=candidate,
        rescore=rescore,
        replay=replay if log else None,
        dry_run=dry_run,
    )
    for assessment in outcome.assessments:
        table = Table("gate", "figure", "limit", "", title=assessment.candidate, title_justify="left")
        for gate in assessment.gates:
            table.add_row(gate.name, gate.figure, gate.limit, "pass" if gate.passed else "[red]fail")
        Console().print(table)
    if log:
        print(f"photographs that would get another label: {paths.REPLAY}")
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
def doctor() -> None:
    """Look at this machine and this project: what is there, what is missing, and what each command needs first.

    Exit status 1 if anything is amiss.
    """
    from catdog.commands import doctor as examination

    if not examination.run(Console()):
        raise typer.Exit(1)


@app.command()
def card(
    model: Annotated[str, typer.Argument(help="A registered model, such as models:/catdog-cnn/3.")] = CHAMPION,
) -> None:
    """Print the model card of a version: what it was made of, how good it is, where it is weak, what it is not for."""
    import tempfile

    from catdog.tracking import registry, served_files, store

    with tempfile.TemporaryDirectory() as folder:
        file = registry.fetch(store.connect(), model, Path(folder)) / served_files.CARD
        if not file.exists():
            raise UserError(f"{model} has no card: an earlier release registered it; `dvc repro` writes one")
        print(file.read_text(encoding="utf-8"), end="")


def _wide_console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=200)
