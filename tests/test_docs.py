"""The pages that people read: their links lead somewhere, their commands exist, the reference is that of the code."""

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from conftest import ROOT

from catdog.commands import cli, reference_page

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
NOT_RUN = re.compile(r"<!-- not run by a test: .+ -->")
# Which test runs a command that stands on a page, unless the page says that none does.
RUN_BY = {
    "catdog fetch": "test_week.py",
    "catdog promote": "test_week.py",
    "catdog serve": "test_week.py",
    "catdog drift": "test_week.py",
    "catdog review": "test_week.py",
    "catdog predict": "test_pipeline.py",
    "catdog history": "test_pipeline.py",
    "catdog rollback": "test_registry.py",
    "catdog demo": "test_demo.py",
    "catdog trace": "test_pipeline.py",
    "catdog compare": "test_pipeline.py",
    "catdog card": "test_pipeline.py",
    "catdog export": "test_exporting.py",
    "catdog backup": "test_backup.py",
    "catdog restore": "test_backup.py",
    "dvc repro": "test_pipeline.py",
    "dvc exp": "test_pipeline.py",
    "dvc metrics": "test_pipeline.py",
    "dvc params": "test_pipeline.py",
}


def page_id(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def commands(path: Path) -> Iterator[tuple[str, bool]]:
    """The commands on a page, and whether it says that no test runs them."""
    for said, block in re.findall(
        r"(?m)(?:^(<!--[^\n]*-->)\n)?^```(?:bash|console)\n(.*?)^```", path.read_text(), re.DOTALL
    ):
        is_console = "\n$ " in f"\n{block}"
        for line in block.splitlines():
            if is_console and not line.startswith("$ "):
                continue
            for command in re.split(r" && | \| ", line.removeprefix("$ ").partition("  #")[0]):
                yield command.strip().removesuffix("&").strip(), bool(NOT_RUN.fullmatch(said))


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page):
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not target.startswith("https://"):
            path = (page.parent / target.partition("#")[0]).resolve().relative_to(ROOT).as_posix()
            assert path in tracked or path in {page_id(each) for each in PAGES}, f"{page_id(page)} links to {target}"


def test_every_page_can_be_reached_from_the_readme():
    linked = set(re.findall(r"\]\(([^)\s]+\.md)\)", (ROOT / "README.md").read_text()))
    assert {page_id(page) for page in PAGES} - {"README.md"} == linked


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_of_catdog_and_make_are_there_with_their_options(page):
    known = typer.main.get_command(cli.everything()).commands
    targets = re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text())
    for command, _ in commands(page):
        if not command.startswith(("make ", "catdog ")):
            continue
        words = shlex.split(command, comments=True)
        if words[0] == "make":
            assert words[1] in targets, command
        else:
            options = {option for each in known[words[1]].params for option in each.opts}
            assert {word for word in words[2:] if word.startswith("--")} <= options, command


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_command_is_run_by_a_test_or_said_not_to_be(page):
    for command, not_run in commands(page):
        start = " ".join(command.split()[:2])
        if start.startswith(("catdog ", "dvc ")) and not not_run:
            text = (ROOT / "tests" / RUN_BY[start]).read_text() + (ROOT / "docs/week.md").read_text()
            assert re.search(rf"\b{start.split()[1]}\b", text), f"{RUN_BY[start]} does not run {start}"
        elif not not_run:
            assert start.split()[0] in ("for", "curl"), f"{page_id(page)}: {command}: say whether a test runs it"


def test_the_reference_is_that_of_the_code(monkeypatch):
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs/reference.md").read_text()
    assert page == reference_page.markdown(), "python -m catdog.commands.reference_page docs/reference.md"


def test_the_notebook_has_no_outputs():
    cells = json.loads((ROOT / "docs/tour.ipynb").read_text())["cells"]
    assert len(cells) > 20
    assert all(cell.get("outputs", []) == [] and cell.get("execution_count") is None for cell in cells)


def test_every_file_that_a_page_names_is_there():
    for page in PAGES:
        for path in re.findall(r"`((?:src|tests|bench|docs)/[\w./]+\.(?:py|md|json|png))`", page.read_text()):
            assert (ROOT / path).exists(), f"{page_id(page)} names {path}"
        for path in re.findall(r"(?:python|pytest) ((?:bench|tests)/\w+\.py)", page.read_text()):
            assert (ROOT / path).exists(), f"{page_id(page)} names {path}"
