"""A store without the runs of the models that are here: wherever it would pass for a new one, a person is told."""

import sys

import pytest
from training_fixtures import tracked

from catdog.base import files, paths
from catdog.commands import cli, listening, mlflow_ui
from catdog.tracking import lost, runs

RUN = "ab" * 16


@pytest.fixture
def project(tmp_path):
    """A project whose models are of runs that its store has not."""
    with tracked(tmp_path) as client:
        for name in ("cnn", "xception"):
            files.write_json(paths.model(name) / paths.RUN_FILE, {"run_id": RUN})
        yield client


@pytest.fixture
def catdog(monkeypatch, capsys):
    """The command: exit status, standard output, standard error."""
    for owner, name in ((listening, "run"), (listening, "end_on_signals"), (mlflow_ui, "become")):
        monkeypatch.setattr(owner, name, lambda *_, **__: None)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["catdog", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return ended.value.code or 0, said.out, said.err

    return run


TOLD = f"mlflow.db has no run {RUN}, which models/cnn/run.json names: the store was emptied"


@pytest.mark.parametrize("command", [["history"], ["ui", "--port", "0"]])
def test_what_would_say_that_there_is_nothing_yet_says_it_in_a_notice(project, catdog, command):
    if command[0] == "ui":
        command[-1] = "50999"
    status, _, err = catdog(*command)
    assert status == 0
    assert err.count(TOLD) == 1
    assert err.startswith("notice: sqlite:///")
    assert err.count("\n") == 1
    assert "`catdog restore FILE`" in err


@pytest.mark.parametrize(
    "command",
    [
        *([name] for name in ("promote", "rollback", "serve", "trace", "demo")),
        ["predict", "cat.jpg"],
        ["serve", "--model", "catdog/1"],
        ["predict", "cat.jpg", "--model", "models:/catdog-cnn/3"],
    ],
    ids=lambda command: " ".join(command),
)
def test_what_fails_for_want_of_it_says_it_too(project, catdog, command):
    status, _, err = catdog(*command)
    assert status == 1
    assert err.count(TOLD) == 1
    assert all(line.startswith(("notice: ", "error: ")) for line in err.splitlines())


def test_evaluate_says_it(project, capsys):
    assert not runs.is_here(project, RUN)
    err = capsys.readouterr().err
    assert err.startswith(f"warning: run {RUN} is not in sqlite:///")
    assert "the store was emptied, or that model was trained with another one; `catdog restore FILE`" in err
    assert err.count("\n") == 1


def test_with_a_store_on_a_server_it_is_no_loss(project, monkeypatch):
    class Elsewhere:
        tracking_uri = "https://user:secret@mlflow.example.org"

        def __getattr__(self, name):
            return getattr(project, name)

    said = lost.runs(Elsewhere())
    assert said == (
        f"https://mlflow.example.org has no run {RUN}, which models/cnn/run.json names: that model was trained with "
        "another store"
    )


def test_where_the_store_has_the_runs_nothing_is_said(project, catdog):
    run = project.create_run("0").info.run_id
    project.delete_run(run)  # a deleted one is there still
    files.write_json(paths.model("cnn") / paths.RUN_FILE, {"run_id": run})
    files.write_text(paths.model("xception") / paths.RUN_FILE, "{damaged")
    assert lost.runs(project) == ""
    assert catdog("history") == (0, "nothing was deployed yet: catdog promote\n", "")
