"""The `catdog` command: it teaches, and what a person can cause is told in one line with exit status 1."""

import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from served_fixtures import brightness
from training_fixtures import tracked

from catdog.commands import cli, doctor
from catdog.tracking import opening

COMMANDS = ["fetch", "compare", "promote", "rollback", "history", "trace", "predict", "ui", "serve", "demo"]
COMMANDS += ["export", "backup", "restore", "review", "drift", "card", "doctor"]


@pytest.fixture
def project(tmp_path):
    """A project in which nothing has run yet."""
    with tracked(tmp_path):
        yield tmp_path


@pytest.fixture
def catdog(monkeypatch, capsys):
    """The command as a function of its arguments: exit status, standard output, standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["catdog", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return ended.value.code or 0, said.out, said.err

    return run


def assert_told(ended: tuple[int, str, str], message: str) -> None:
    status, _, err = ended
    assert status == 1
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err


# ---- help -----------------------------------------------------------------------------------------------------------


def test_the_command_is_a_module_and_teaches(tmp_path):
    said = subprocess.run(
        [sys.executable, "-m", "catdog", "--help"], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert all(f" {command} " in said for command in COMMANDS)
    assert "dvc repro" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(catdog, command):
    status, out, _ = catdog(command, "--help")
    assert status == 0
    assert f"catdog {command}" in out.split("Usage:")[1]
    assert len(out) > 300


# ---- errors ---------------------------------------------------------------------------------------------------------


def test_outside_a_project_every_command_says_where_to_go(catdog, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert_told(catdog("fetch", "drawn"), "params.yaml not found: run from the project's root")
    assert_told(catdog("history"), "no dvc.yaml in")
    assert_told(catdog("predict", "cat.jpg"), "no dvc.yaml in")
    assert_told(catdog("compare"), "not found")
    assert list(tmp_path.iterdir()) == []


def test_before_the_pipeline_ran_every_command_says_what_to_run(catdog, project):
    assert_told(catdog("compare"), "reports/comparison.json not found: run `dvc repro`")
    assert_told(catdog("promote"), "nothing new to promote")
    assert_told(catdog("rollback"), "there is no previous champion")
    for command in (["trace"], ["predict", "cat.jpg"], ["serve"]):
        assert_told(catdog(*command), "promote a model first: `catdog promote`")
    status, out, _ = catdog("history")
    assert (status, out) == (0, "nothing was deployed yet: catdog promote\n")


def test_the_doctor_says_what_is_there_and_what_comes_first(catdog, project, monkeypatch):
    status, out, err = catdog("doctor")
    said = " ".join(out.split())
    assert out, err
    for fact in ("OpenVINO", "none in data/raw", "not trained here: dvc repro", "0 versions, no champion"):
        assert fact in said
    assert status == 0
    monkeypatch.setattr(doctor.openvino, "is_here", lambda: False)
    assert catdog("doctor")[0] == 1


@pytest.mark.parametrize(
    ("has", "first"),
    [
        ({}, {"compare": "dvc repro", "promote": "dvc repro", "predict": "dvc repro"}),
        ({"models"}, {"compare": "", "promote": "dvc repro --force evaluate", "review": ""}),
        ({"models", "versions"}, {"promote": "", "demo": "", "predict": "catdog promote", "export": "catdog promote"}),
        ({"models", "versions", "champion", "export"}, {"predict": "", "serve": "", "drift": "", "export": ""}),
    ],
)
def test_each_command_needs_what_comes_before_it(has, first):
    found = doctor.needs({key: key in has for key in ("models", "versions", "champion", "export")})
    missing = {need.command.removeprefix("catdog "): need.missing for need in found}
    assert {command: missing[command] for command in first} == first


def test_a_source_that_does_not_exist_is_told(catdog, project):
    assert_told(catdog("fetch", "nowhere/photos.zip"), "nowhere/photos.zip")
    assert not any(Path("data/raw").glob("*.zip"))


def test_params_that_are_wrong_are_told(catdog, project):
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("min_accuracy: 0.85", "min_accuracy: high"))
    assert_told(catdog("promote"), "params.yaml: promote.min_accuracy should be a valid number")


@pytest.mark.parametrize("command", ["ui", "serve", "demo", "review"])
def test_a_port_in_use_is_told(catdog, project, command):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert_told(catdog(command, "--port", port), f"port {port} is in use: stop what runs there, or name another")
    status, _, err = catdog(command, "--port", "70000")
    assert status == 2
    assert "65535" in err


# ---- predict --------------------------------------------------------------------------------------------------------


@pytest.fixture
def champion(project, monkeypatch) -> None:
    """A champion by which the brighter photographs are dogs."""
    monkeypatch.setattr(opening, "load", lambda reference, **_: brightness())


def test_predict_gives_a_row_for_every_file(catdog, champion):
    Path("album").mkdir()
    bright = np.random.default_rng(0).integers(200, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(bright).save("album/white.png")
    Path("album/notes.txt").write_text("no photograph")
    status, out, err = catdog("predict", "album", "--threshold", "0.4")
    assert status == 0, out + err
    header, notes, white = out.splitlines()
    assert header == "path,label,probability,familiarity,error"
    assert notes.startswith("album/notes.txt,,,,")
    assert white.startswith("album/white.png,dog,0.8")
    assert white.endswith(",,")  # this model has no profile
    status, out, _ = catdog("predict", "album", "--out", "found.csv")
    assert Path("found.csv").read_text().splitlines() == [header, notes, white]


def test_predict_fails_where_nothing_is_a_photograph(catdog, champion):
    Path("notes.txt").write_text("no photograph")
    status, out, err = catdog("predict", "notes.txt", "missing.jpg")
    assert status == 1
    assert "missing.jpg,,,,not found" in out
    assert "error: none of these could be read as a photograph" in err
    assert_told(catdog("predict", "notes.txt", "--out", "found.xlsx"), "should end in .csv or .parquet")
