"""Continuous integration: workflows as their schema has them, and the comment of results.yml on a tiny repository."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
HOOKS = ROOT / ".pre-commit-config.yaml"
REPOSITORY = {"GITHUB_SERVER_URL": "https://example.org", "GITHUB_REPOSITORY": "ann/dogs", "NUMBER": "7"}
# Writes down what it was called with, and the comment's text.
GH = '#!/bin/sh\nprintf "%s\\n" "$@" > "$RECORD/arguments"\ncp comment.md "$RECORD/comment.md"\n'
STAGE = "stages: {train: {cmd: 'true', params: [epochs], metrics: [{metrics.json: {cache: false}}]}}"


def steps(workflow: Path) -> list[dict]:
    jobs = yaml.safe_load(workflow.read_text())["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


def test_they_follow_the_published_schema():
    pytest.importorskip("check_jsonschema")
    command = ["-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    done = subprocess.run([sys.executable, *command, *WORKFLOWS], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_actions_have_a_version_and_tokens_may_only_read(workflow):
    used = [step["uses"] for step in steps(workflow) if "uses" in step]
    assert used
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+\.\d+\.\d+", each) for each in used)
    assert yaml.safe_load(workflow.read_text())["permissions"] == {"contents": "read"}


def test_workflows_and_hooks_run_what_a_developer_runs():
    hooks = [hook["entry"] for repo in yaml.safe_load(HOOKS.read_text())["repos"] for hook in repo["hooks"]]
    runs = [line for workflow in WORKFLOWS for step in steps(workflow) for line in step.get("run", "").splitlines()]
    called = {line for line in [*hooks, *runs] if line.startswith("make ")}
    assert called == {"make lint", "make check", "make test", "make env", "make jax"}
    for command in called:
        asked = subprocess.run([*command.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True)
        assert asked.returncode == 0, asked.stderr


@pytest.fixture
def pull_request(tmp_path, monkeypatch) -> Path:
    """A repository as the workflow checks it out: a merge whose second parent trained for longer."""
    monkeypatch.chdir(tmp_path)
    git("init", "--quiet", "--initial-branch=main")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], check=True)
    Path("dvc.yaml").write_text(STAGE)
    results(epochs=1, accuracy=0.91234)
    git("checkout", "--quiet", "-b", "longer")
    results(epochs=2, accuracy=0.98765)
    git("checkout", "--quiet", "main")
    git("merge", "--quiet", "--no-ff", "-m", "merge", "longer")
    return tmp_path


def git(*arguments: str) -> str:
    identity = ["-c", "user.name=ann", "-c", "user.email=ann@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *identity, *arguments], capture_output=True, text=True, check=True).stdout.strip()


def results(*, epochs: int, accuracy: float) -> None:
    Path("params.yaml").write_text(f"epochs: {epochs}\n")
    Path("metrics.json").write_text(json.dumps({"accuracy": accuracy, "seconds": 7}))
    git("add", ".")
    git("commit", "--quiet", "-m", f"{epochs} epochs")


def run_comment_steps(record: Path) -> None:
    """The two steps that write the comment, in the shell that GitHub runs them in."""
    tools = record / "bin"
    tools.mkdir(parents=True)
    (tools / "gh").write_text(GH)
    (tools / "gh").chmod(0o755)
    path = os.pathsep.join([str(tools), str(Path(sys.executable).parent), os.environ["PATH"]])
    summary = {"GITHUB_STEP_SUMMARY": str(record / "summary.md")}
    environment = {**os.environ, **REPOSITORY, **summary, "PATH": path, "RECORD": str(record)}
    named = {step.get("name"): step for step in steps(ROOT / ".github/workflows/results.yml")}
    for name in ("Compare", "Comment"):
        shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", named[name]["run"]]
        done = subprocess.run(shell, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_a_pull_request_gets_one_comment_with_both_tables_and_both_pictures(pull_request, tmp_path_factory):
    record = tmp_path_factory.mktemp("record")
    run_comment_steps(record)
    arguments = (record / "arguments").read_text().split()
    assert arguments[:3] == ["pr", "comment", "7"]
    assert {"--edit-last", "--create-if-none"} <= set(arguments)
    comment = (record / "comment.md").read_text()
    assert comment == (record / "summary.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in comment.splitlines()]
    assert ["Path", "Metric", "before", "after", "Change"] in rows
    assert ["metrics.json", "accuracy", "0.9123", "0.9877", "0.0753"] in rows
    assert ["params.yaml", "epochs", "1", "2"] in rows
    before, after = git("rev-parse", "main^1"), git("rev-parse", "longer")
    for picture in ("comparison", "curves"):
        assert (ROOT / f"plots/{picture}.png").is_file()
        for commit in (before, after):
            assert f"(https://example.org/ann/dogs/blob/{commit}/plots/{picture}.png)" in comment
