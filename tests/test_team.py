"""docs/team.md on loopback: real servers, three members, and a backup that is restored on another machine."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from team_fixtures import BIN, Machine, machine, require_programs, section
from test_week import check

from catdog.preparation.drawn import drawings

sys.path.append(str(ROOT / "bench"))
import small_project

pytestmark = pytest.mark.slow
DRAWN = 90
# Whatever networks of a few filters come to on as many drawings passes these.
OPEN_GATES = {"min_accuracy": 0.0, "max_log_loss": 9.0, "max_calibration_error": 1.0, "min_robustness": 0.0}
OPEN_GATES |= {"margin": 1.0, "max_relative_time": 1000.0}
# All that the team would miss: every version with its tags and aliases, verified by its digests, and every run.
STATE = """
import json
from catdog.tracking import served_form, store, versions
client = store.connect()
found = {"versions": {}, "runs": {}, "aliases": {}}
for model in client.search_registered_models():
    found["aliases"][model.name] = dict(model.aliases)
for version in client.search_model_versions():
    served_form.verify(versions.uri(version), **versions.digests(version))
    found["versions"][versions.name(version)] = dict(version.tags)
experiments = [each.experiment_id for each in client.search_experiments()]
for run in client.search_runs(experiments):
    found["runs"][run.info.run_id] = [run.info.status, run.data.metrics, run.data.params, run.data.tags]
print(json.dumps(found, sort_keys=True))
"""
LOOK = f"{BIN}/python -c '{STATE}' 2> ../look.log"
PREDICT = "catdog predict new 2> ../predict.log"


class Member:
    """Somebody with a clone of the project, and with the environment in which they work."""

    def __init__(self, folder: Path, server: Machine, passwords: dict[str, str]) -> None:
        self.folder, self._server, self._passwords = folder, server, passwords
        self.env = small_project.Project(folder).env | {
            "COLUMNS": "160",
            **{f"GIT_{who}_{what}": "t@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        }
        self.meets(server)

    def meets(self, server: Machine) -> None:
        """Go by this server's authority and its key of the bucket dvc."""
        self._server = server
        keys = json.loads((server.root / "etc/mlflow/s3.json").read_text())["identities"]
        [self._key] = [each["credentials"][0]["secretKey"] for each in keys if each["name"] == "dvc"]
        authority = str(server.authority)
        self.env |= {"MLFLOW_TRACKING_SERVER_CERT_PATH": authority, "AWS_CA_BUNDLE": authority}
        if "AWS_ACCESS_KEY_ID" in self.env:
            self.env["AWS_SECRET_ACCESS_KEY"] = self._key

    def is_now(self, name: str) -> None:
        self.env |= {"MLFLOW_TRACKING_USERNAME": name, "MLFLOW_TRACKING_PASSWORD": self._passwords[name]}

    def run(self, command: str, *, fails: bool = False) -> str:
        done = subprocess.run(["bash", "-c", command], cwd=self.folder, env=self.env, capture_output=True, text=True)
        said = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, f"{command} exited with {done.returncode}:\n{said}"
        return said

    def follow(self, title: str) -> None:
        """Type the commands of a section; each says what is printed under it."""
        for language, block in section(title):
            assert language == "console"
            for step in re.findall(r"(?m)^\$ .*\n(?:(?!\$ ).*\n)*", self._server.here(block)):
                command, *expected = step.removeprefix("$ ").splitlines()
                if command.startswith("export "):
                    self.env |= dict(word.split("=", 1) for word in command.split()[1:])
                    self.is_now(self.env["MLFLOW_TRACKING_USERNAME"])
                    self.meets(self._server)
                else:
                    refused = any(line.startswith("error: ") for line in expected)
                    said = self.run(command, fails=refused)
                    check(said, expected)
                    if refused:
                        only_one_line(said)


def only_one_line(said: str) -> None:
    """Of an error; nothing but notices stands beside it."""
    others = [line for line in said.splitlines() if not line.startswith("notice: ")]
    assert len(others) == 1, said
    assert others[0].startswith("error: "), said


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A repository to clone: a small project with open gates, of which no stage has run."""
    made = small_project.make(tmp_path / "origin")
    params = yaml.safe_load((made.folder / "params.yaml").read_text())
    params["promote"] |= OPEN_GATES
    params["train_cnn"] |= {"epochs": [1, 2], "patience": 3}
    params["train_xception"] |= {"epochs": 3, "patience": 3, "seeds": 1}
    (made.folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    made.run("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qam", "open gates")
    made.run("git", "clone", "-q", "--bare", ".", tmp_path / "origin.git")
    return tmp_path / "origin.git"


def test_a_team_follows_the_page(tmp_path: Path, origin: Path) -> None:
    require_programs()
    photographs = tmp_path / "photos.zip"
    drawings.write(tmp_path / "drawn", DRAWN, 7, ["cat", "dog"])
    with zipfile.ZipFile(photographs, "w") as archive:
        for file in sorted((tmp_path / "drawn").glob("*/*")):
            archive.write(file, file.relative_to(tmp_path / "drawn"))

    def cloned(name: str, server: Machine) -> Member:
        subprocess.run(["git", "clone", "-q", origin, tmp_path / name], check=True)
        shutil.copytree(tmp_path / "drawn", tmp_path / name / "new")
        (tmp_path / name / ".git/info/exclude").write_text("/new\n")
        return Member(tmp_path / name, server, passwords)

    with machine(tmp_path / "first") as server:
        server.follow("The server")
        said = server.follow("Who may do what")
        passwords = dict(line.split() for line in said.splitlines() if len(line.split()) == 2)
        anna = cloned("anna", server)
        shutil.copy(photographs, anna.folder)
        anna.follow("Anna trains")
        berta = cloned("berta", server)
        berta.follow("Berta promotes")

        # Who may not deploy leaves nothing that somebody else's next command would finish.
        before = berta.run("catdog history")
        only_one_line(anna.run("catdog rollback 2 --why mine", fails=True))
        berta.is_now("carl")
        assert berta.run("catdog history") == before
        only_one_line(berta.run("catdog rollback --why mine", fails=True))
        only_one_line(berta.run("catdog promote catdog-cnn/1 --why mine", fails=True))
        answers = berta.run(PREDICT)
        berta.env["MLFLOW_TRACKING_PASSWORD"] = "wrong"
        said = berta.run("catdog history", fails=True)
        only_one_line(said)
        assert "does not know carl by this password (401): set MLFLOW_TRACKING_USERNAME" in said
        berta.is_now("berta")
        assert "berta" in before
        state = berta.run(LOOK)
        server.follow("Backup")

    with machine(tmp_path / "second") as server:
        shutil.copytree(tmp_path / "first/backup", tmp_path / "second/backup")
        server.follow("The server")
        server.follow("Restore")
        berta.meets(server)
        assert berta.run(LOOK) == state
        assert set(json.loads(state)["aliases"]["catdog"]) == {"champion", "previous"}
        assert set(json.loads(state)["versions"]) == {"catdog-cnn/1", "catdog-xception/1", "catdog/1", "catdog/2"}
        berta.run("catdog trace catdog/2")
        assert berta.run("catdog history") == before
        anna.meets(server)
        only_one_line(anna.run("catdog promote catdog-cnn/1 --why mine", fails=True))
        carl = cloned("carl", server)
        carl.env |= {key: value for key, value in berta.env.items() if key.startswith(("MLFLOW_", "AWS_"))}
        carl.is_now("carl")
        assert "up to date" in carl.run("dvc pull && catdog fetch photos.zip && dvc repro")
        assert carl.run(PREDICT) == answers
