"""The chain from a served model to its photographs: each link holds by hash, and each that is broken says so."""

import hashlib
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
import yaml

from catdog.base import files, paths
from catdog.base.errors import UserError
from catdog.commands import cli
from catdog.tracking import trace

pytest_plugins = ["registry_fixtures"]

DATA = "data data/prepared/train.arrow"
SHARD, PHOTOGRAPHS = b"a shard", b"photographs"
MD5, SHA256 = hashlib.md5(SHARD).hexdigest(), hashlib.sha256(PHOTOGRAPHS).hexdigest()
NAMES = ["model version", "model version", "logged model", "model file", "run", "git commit", DATA, "source"]


class Project:
    """A project in git whose dvc.lock records the run of the first model, one commit after the one that it ran from.

    The model is champion; what it was trained on lies in data/prepared, its photographs in data/raw.
    """

    def __init__(self, store, root: Path) -> None:
        self.store, self.root, self.run_id = store, root, store.models[0][1]
        root.mkdir()
        self.git("init", "-q")
        self.git("config", "core.hooksPath", "/dev/null")
        (root / "dvc.yaml").write_text("stages: {}\n")
        self.first = self.commit("before training")
        self.write_lock(MD5)
        source = {"kind": "folder", "path": "x", "size": len(PHOTOGRAPHS), "sha256": SHA256, "files": 1}
        files.write_json(root / paths.DATA_METRICS, {"source": source})
        self.second = self.commit("trained")
        files.write_bytes(root / paths.TRAIN, SHARD)
        files.write_bytes(root / paths.RAW / "x.jpg", PHOTOGRAPHS)
        files.write_json(root / paths.RAW / "source.json", source | {"contents": ["x.jpg"]})
        tags = {"git.commit": self.first, "git.dirty": "False", "dvc.data/prepared/train.arrow": MD5}
        for key, value in (tags | {f"source.{key}": value for key, value in source.items()}).items():
            self.tag(key, str(value))
        store.register(data_digest=MD5)
        store.promote()

    def git(self, *arguments: str) -> str:
        command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
        return subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=True).stdout.strip()

    def commit(self, text: str) -> str:
        self.git("add", "dvc.yaml", *(["dvc.lock", "metrics"] if (self.root / "dvc.lock").exists() else []))
        self.git("commit", "-q", "-m", text)
        return self.git("rev-parse", "HEAD")

    def write_lock(self, md5: str) -> None:
        lock = {"stages": {"prepare": {"outs": [{"path": "data/prepared/train.arrow", "md5": md5}]}}}
        (self.root / "dvc.lock").write_text(yaml.safe_dump(lock))

    def tag(self, key: str, value: str) -> None:
        self.store.client.set_tag(self.run_id, key, value)

    def model_file(self) -> Path:
        return Path(mlflow.artifacts.download_artifacts("models:/catdog/1")) / "artifacts" / "model.keras"

    def cache(self, data: bytes) -> None:
        """Leave the shard in DVC's cache alone, as `data`."""
        (self.root / paths.TRAIN).unlink()
        files.write_bytes(self.root / ".dvc/cache/files/md5" / MD5[:2] / MD5[2:], data)

    def links(self, reference: str = "catdog@champion") -> list[trace.Link]:
        return trace.trace(self.store.client, reference, root=self.root)

    def decide(self, text: bytes, *, counted: bytes) -> None:
        """Let the run have been made with the corrections `counted`, while the file here holds `text`."""
        files.write_bytes(self.root / paths.CORRECTIONS, text)
        self.tag("corrections.decisions", "1")
        self.tag("corrections.sha256", hashlib.sha256(counted).hexdigest())

    def link(self, name: str) -> trace.Link:
        return next(link for link in self.links() if link.name == name)


@pytest.fixture
def project(store, tmp_path):
    return Project(store, tmp_path / "project")


def broken(links: list[trace.Link]) -> list[trace.Link]:
    return [link for link in links if not link.ok]


def test_the_whole_chain(project):
    store, links = project.store, project.links("models:/catdog@champion")
    assert [(link.name, link.ok) for link in links] == [(name, True) for name in NAMES]
    model_id, run_id = store.models[0]
    values = ["catdog/1", "catdog-cnn/1", model_id, store.sha256, run_id, project.first, MD5]
    assert [link.value for link in links[:7]] == values
    assert links[0].note == "champion"
    assert links[6].note == f"in dvc.lock since commit {project.second[:12]}; the file here agrees (md5)"
    assert links[7].value == f"folder x sha256 {SHA256[:12]}"
    assert links[7].note == "in metrics/data.json of that time; data/raw agrees (sha256)"
    for reference in ("catdog/1", "1", "models:/catdog/1", "catdog@champion"):
        assert project.links(reference) == links
    assert project.links("catdog-cnn/1") == links[1:]
    assert project.links(f"models:/{model_id}") == links[1:]
    assert project.links(run_id) == links[4:]


def test_what_is_not_here_breaks_nothing(project):
    project.cache(SHARD)
    (project.root / paths.RAW / "x.jpg").unlink()
    assert broken(project.links()) == []
    assert project.link(DATA).note.endswith("the file in DVC's cache agrees (md5)")
    assert project.link("source").note.endswith("data/raw is empty here")
    # Other data since then: another dvc.lock, another metrics/data.json, and files that go with these.
    files.write_bytes(project.root / paths.TRAIN, b"other")
    project.write_lock(hashlib.md5(b"other").hexdigest())
    files.write_bytes(project.root / paths.RAW / "y.jpg", b"others")
    files.write_json(project.root / paths.DATA_METRICS, {"source": {"kind": "own", "sha256": "01"}})
    project.commit("other data")
    assert broken(project.links()) == []
    assert project.link("source").note.endswith("data/raw holds others now")
    (project.root / ".dvc/cache/files/md5" / MD5[:2] / MD5[2:]).unlink()
    assert project.link(DATA).ok
    assert project.link(DATA).note.endswith("another one is here; `dvc pull` brings it")


# ---- each link broken in turn ---------------------------------------------------------------------------------------


def delete_source_version(project):
    project.store.client.delete_model_version("catdog-cnn", "1")


def delete_logged_model(project):
    project.store.client.delete_logged_model(project.store.models[0][0])


def name_another_run(project):
    model_id, _ = project.store.models[1]
    version = project.store.client.create_model_version("catdog-cnn", f"models:/{model_id}", run_id=project.run_id)
    ours = project.store.client.get_model_version("catdog-cnn", "1").tags
    for key, value in {key: ours[key] for key in ("model_sha256", "served_sha256", "data_digest")}.items():
        project.store.client.set_model_version_tag("catdog-cnn", version.version, key, value)
    copy = project.store.client.copy_model_version(f"models:/catdog-cnn/{version.version}", "catdog")
    project.store.client.set_registered_model_alias("catdog", "champion", copy.version)


def damage_model_file(project):
    project.model_file().write_bytes(b"other")


def lose_model_file(project):
    project.model_file().unlink()


def delete_run(project):
    project.store.client.delete_run(project.run_id)


def kill_run(project):
    project.store.client.update_run(project.run_id, status="KILLED")


def exchange_data(project):
    project.tag("dvc.data/prepared/train.arrow", hashlib.md5(b"other").hexdigest())


def name_unknown_commit(project):
    project.tag("git.commit", "0" * 40)


def name_dirty_commit(project):
    project.tag("git.dirty", "True")


def lose_lock(project):
    project.git("update-ref", "HEAD", project.first)
    (project.root / "dvc.lock").unlink()


def change_shard(project):
    (project.root / paths.TRAIN).write_bytes(b"changed")


def damage_cache(project):
    project.cache(b"rotten")


def name_another_source(project):
    project.tag("source.sha256", "beef")


def forget_source(project):
    (project.root / paths.DATA_METRICS).write_text("{}")
    project.git("add", "metrics")
    project.git("commit", "-q", "--amend", "-m", "trained")


def change_photographs(project):
    (project.root / paths.RAW / "x.jpg").write_bytes(b"others")


@pytest.mark.parametrize(
    ("damage", "name", "note"),
    [
        (delete_source_version, "model version", "there is no catdog-cnn/1: it was deleted"),
        (delete_logged_model, "logged model", "it was deleted"),
        (name_another_run, "logged model", "logged by another run"),
        (damage_model_file, "model file", "is not what was logged"),
        (lose_model_file, "model file", "model.keras not found"),
        (delete_run, "run", "deleted: `mlflow runs restore"),
        (kill_run, "run", "killed: it did not come to its end"),
        (exchange_data, "run", f"while the version says {MD5}"),
        (name_unknown_commit, "git commit", "not in this repository"),
        (name_dirty_commit, "git commit", "never committed"),
        (lose_lock, DATA, "in no commit's dvc.lock"),
        (change_shard, DATA, "the file here was changed"),
        (damage_cache, DATA, "damaged in DVC's cache"),
        (name_another_source, "source", "names another source"),
        (forget_source, "source", "says nothing of it"),
        (change_photographs, "source", "data/raw was changed since"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_broken_link_is_named_and_the_command_fails(project, monkeypatch, capsys, damage, name, note):
    damage(project)
    first = broken(project.links())[0]
    assert (first.name, note in first.note) == (name, True), first
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.get_tracking_uri())
    monkeypatch.setattr(sys, "argv", ["catdog", "trace"])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    said = capsys.readouterr()
    assert said.err.startswith(f"error: the chain is broken at {name}: ")
    assert note in said.err
    assert said.err.count("\n") == 1
    assert "broken" in said.out


def test_the_corrections_of_a_run_are_looked_up_here_and_in_git(project):
    first, later = b"id,decision\nfirst\n", b"id,decision\nfirst\nsecond\n"
    project.decide(first, counted=first)
    assert project.link("corrections").note == "data/corrections.csv here agrees (sha256)"
    project.git("add", "data/corrections.csv")
    decided = project.commit("first decision")
    project.decide(later, counted=first)
    assert project.link("corrections").note == f"data/corrections.csv of commit {decided[:12]}"
    assert project.link("corrections").ok
    project.decide(first, counted=later)
    assert broken(project.links())[0].note == "data/corrections.csv was another one: in no commit, and not here"


def test_a_dvc_lock_that_is_not_committed_yet_counts(project):
    other = hashlib.md5(b"other").hexdigest()
    project.write_lock(other)
    (project.root / paths.TRAIN).write_bytes(b"other")
    project.tag("dvc.data/prepared/train.arrow", other)
    [link] = [link for link in project.links(project.run_id) if link.name == DATA]
    assert link.note == "in dvc.lock, which is not committed yet; the file here agrees (md5)"


def test_outside_of_git_the_chain_is_broken_and_says_so(project, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    links = trace.trace(project.store.client, project.run_id, root=elsewhere)
    assert [link.ok for link in links] == [True, False, False, False]


@pytest.mark.parametrize("reference", ["nonsense", "catdog@nobody", "catdog/5", "other/1", "m-" + "0" * 32])
def test_what_does_not_exist_is_told_in_one_line(store, reference):
    with pytest.raises(UserError) as refused:
        trace.trace(store.client, reference)
    assert "\n" not in str(refused.value)
