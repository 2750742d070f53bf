"""The week of docs/week.md on the drawn sample: each command runs as printed, and says what is printed."""

import base64
import json
import re
import shlex
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
import yaml
from test_pipeline import ROOT, Project, clone

from catdog.photographs import photos, shards
from catdog.preparation.drawn import drawings

pytestmark = pytest.mark.slow
PAGE = ROOT / "docs/week.md"
NEW, WRONG = 40, 3  # photographs that it is asked about, and of those, how many a client contradicts


def week() -> list[tuple[str, list[str]]]:
    """The commands of the page, each with the lines that are printed under it."""
    [block] = re.findall(r"```console\n(.*?)```", PAGE.read_text(), re.DOTALL)
    steps: list[tuple[str, list[str]]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            steps.append((line[2:], []))
        elif line.strip() and line.strip() != "...":
            steps[-1][1].append(line)
    return steps


STEPS = week()


def shape(line: str) -> str:
    """A line as a pattern: numbers, digests and which model it is may differ, words not."""
    line = re.sub(r"\b[0-9a-f]{12,}\b|\b(cnn|CNN|Xception|xception)\b", "\0", line.strip())
    line = re.sub(r"[-+−]?\d[\d,.]*", "\1", line)
    pattern = re.escape(re.sub(r"\s+", " ", line))
    return pattern.replace("\0", r"\w+").replace("\1", r"[-+−]?\d[\d,.]*").replace(r"\ ", r"\s+")


def check(said: str, expected: list[str]) -> None:
    for line in expected:
        if line.startswith("These "):  # on another processor the small network may be of another mind
            line = line.partition(" photographs ")[0] + " photographs "
        assert re.search(shape(line), said), f"{line!r} is not among what was printed:\n{said}"


# What small networks come to on a few hundred drawings passes these.
LOW_GATES = {"min_accuracy": 0.4, "max_log_loss": 0.8, "max_calibration_error": 0.4, "min_robustness": 0.3}


def small(folder: Path) -> Project:
    """A clone in which a run takes two minutes, and drawings that it never saw."""
    made = clone(folder)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["promote"] |= LOW_GATES
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    made.commit("low gates")
    drawings.write(folder / "new", NEW, 4_711, ["cat", "dog"])
    return made


class Server:
    """A command that serves until it is interrupted, and what it prints."""

    def __init__(self, project: Project, command: str, port: int) -> None:
        output = (project.folder / f"{port}.txt").open("w+")
        words = shlex.split(command.removesuffix("&"))
        self.process = subprocess.Popen(words, cwd=project.folder, env=project.env, stdout=output, stderr=output)
        self.output, self.address = Path(output.name), f"http://127.0.0.1:{port}"
        end = time.monotonic() + 60
        while "Ctrl-C" not in self.output.read_text():
            assert self.process.poll() is None, self.output.read_text()
            assert time.monotonic() < end, self.output.read_text()
            time.sleep(0.1)

    def ask(self, path: str, body: dict | None = None) -> dict:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.loads(response.read())

    def end(self) -> str:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)
        return self.output.read_text()


def test_the_week_runs_as_it_is_printed(tmp_path: Path) -> None:
    project = small(tmp_path / "project")
    for port in (5001, 5003):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                pytest.skip(f"something listens on port {port} here")
    server = None
    for command, expected in STEPS:
        match command.split()[:2]:
            case ["catdog", "serve"]:
                server = Server(project, command, 5001)
                said = server.output.read_text()
            case ["catdog", "review"]:
                said = review(Server(project, command, 5003), truth(project))
            case _:
                said = project.run("bash", "-c", command)
                if "invocations" in command:
                    contradict(server, project)
        check(said, expected)
    assert server is not None
    server.end()
    decided = (project.folder / "data/corrections.csv").read_text()
    assert decided.count("served answer") >= WRONG
    assert decided.count("as filed") >= 1
    manifest = (project.folder / "data/prepared/manifest.csv").read_text()
    assert manifest.count("reviewed/") >= WRONG
    assert len(STEPS) == 8


def contradict(server: Server, project: Project) -> None:
    """What a client says of some answers: that the photographs are of the other class."""
    lines = [line for file in (project.folder / "log").glob("2*.jsonl") for line in file.read_text().splitlines()]
    answers = [each for each in map(json.loads, lines) if each["label"] in ("cat", "dog")][:WRONG]
    assert len(answers) == WRONG, lines
    for answer in answers:
        label = "dog" if answer["label"] == "cat" else "cat"
        server.ask("/feedback", {"id": answer["id"], "label": label})


def truth(project: Project) -> dict[str, str]:
    """The class of every drawing, by its standard form as the page shows it."""
    size = yaml.safe_load((project.folder / "params.yaml").read_text())["prepare"]["image_size"]
    drawn = {path: path.parent.name for path in (project.folder / "new").glob("*/*")}
    known = {photos.standardise(path.read_bytes(), image_size=size).jpeg: name for path, name in drawn.items()}
    for split in ("train", "val", "test"):
        shard = shards.Shard(project.folder / f"data/prepared/{split}.arrow")
        known |= {shard.jpeg(row): ("cat", "dog")[label] for row, label in enumerate(shard.labels)}
    return {base64.b64encode(jpeg).decode(): name for jpeg, name in known.items()}


def review(page: Server, known: dict[str, str]) -> str:
    """A person who is never wrong."""
    state = page.ask("/now")
    while photograph := state["photograph"]:
        decision = known[photograph["address"].partition(",")[2]]
        state = page.ask("/decision", {"photograph": photograph["token"], "decision": decision})
    return page.end()


def test_the_section_has_a_command_for_each_step() -> None:
    words = [command for command, _ in STEPS]
    assert yaml.safe_load((ROOT / "params.yaml").read_text())["base"]["classes"] == ["cat", "dog"]
    for part in ("promote", "serve", "drift", "review", "dvc repro", "--log"):
        assert any(part in command for command in words), part
