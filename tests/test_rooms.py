"""What an edit makes due: real DVC on a copy of the code, one edit in each room."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from test_structure import ROOMS
from training_fixtures import REPOSITORY

TRAININGS = ["train_cnn", "train_xception"]
ALL = ["prepare", "augment", *TRAININGS, "evaluate"]
DUE = {
    "base": [],
    "photographs": ALL,
    "pictures": ["prepare", "augment", "evaluate"],
    "preparation": ["prepare"],
    "engines": [*TRAININGS, "evaluate"],
    "training/loop": [*TRAININGS, "evaluate"],
    "training/cnn": ["train_cnn"],
    "training/xception": ["train_xception", "evaluate"],
    "answers": ["evaluate"],
    "evaluation": ["evaluate"],
    "feedback": [],
    "tracking": [],
    "commands": [],
}


def dvc(folder: Path, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project in which every stage is up to date: small files stand for data and results."""
    folder = tmp_path_factory.mktemp("rooms")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "src", folder / "src", ignore=ignored)
    for name in ("dvc.yaml", "params.yaml", ".dvcignore"):
        shutil.copy(REPOSITORY / name, folder / name)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    dvc(folder, "init", "-q")
    shutil.copy(REPOSITORY / ".dvcignore", folder / ".dvcignore")
    (folder / "data/raw/cat").mkdir(parents=True)
    (folder / "data/raw/cat/1.jpg").write_bytes(b"photograph")
    shutil.copy(REPOSITORY / "data/corrections.csv", folder / "data/corrections.csv")
    missing = dvc(folder, "stage", "list", "--name-only").split()
    assert missing == ALL
    for path in outputs(folder):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix:
            path.write_text('{"source": {"kind": "folder"}}' if path.name == "data.json" else path.name)
        else:
            path.mkdir()
            (path / "file").write_text(path.name)
    dvc(folder, "commit", "--force", "-q")
    assert due(folder) == []
    return folder


def outputs(folder: Path) -> list[Path]:
    stages = yaml.safe_load((folder / "dvc.yaml").read_text())["stages"].values()
    listed = [out for stage in stages for out in [*stage["outs"], *stage.get("metrics", [])]]
    return [folder / (out if isinstance(out, str) else next(iter(out))) for out in listed]


def due(folder: Path) -> list[str]:
    lines = dvc(folder, "status").splitlines()
    return [stage for stage in ALL if f"{stage}:" in lines]


@pytest.fixture
def project(committed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(committed, tmp_path / "project", symlinks=True))


def test_every_room_is_tried():
    assert list(DUE) == ROOMS


@pytest.mark.parametrize("room", ROOMS)
def test_an_edit_makes_due_what_depends_on_the_room(project, room):
    module = min(path for path in (project / "src/catdog" / room).glob("*.py") if path.name != "__init__.py")
    with module.open("a") as file:
        file.write("# a better word\n")
    assert due(project) == DUE[room]


def test_a_template_of_the_report_counts_and_what_editors_and_python_leave_does_not(project):
    for folder in [path for path in (project / "src/catdog").rglob("*") if path.is_dir()]:
        (folder / "__pycache__").mkdir()
        (folder / "__pycache__/module.cpython-311.pyc").write_bytes(b"compiled")
        for name in (".module.py.swp", "module.py~", "#module.py#"):
            (folder / name).write_text("half an edit")
    assert due(project) == []
    [template] = (project / "src/catdog/evaluation").glob("*.jinja")
    template.write_text(template.read_text() + "\n")
    assert due(project) == ["evaluate"]


def test_a_decision_of_a_person_makes_prepare_due(project):
    with (project / "data/corrections.csv").open("a") as file:
        file.write("\n")
    assert due(project) == ["prepare"]


def test_a_knob_makes_due_what_it_is_for(project):
    params = project / "params.yaml"
    text = params.read_text()
    for old, new, stages in [
        ("threshold: 0.5", "threshold: 0.7", ["evaluate"]),
        ("min_accuracy: 0.85", "min_accuracy: 0.9", []),
        ("hidden: 256", "hidden: 128", ["train_xception", "evaluate"]),
        ("strategy: auto", "strategy: one", []),
    ]:
        assert old in text
        params.write_text(text.replace(old, new))
        assert due(project) == stages, new


def test_only_what_kind_of_pictures_they_are_reaches_the_trainings_through_data_json(project):
    # metrics/data.json changes with every odd file; the photographs trained on may be the same.
    (project / "metrics/data.json").write_text('{"source": {"kind": "folder"}, "files": 7}')
    assert "train_cnn" not in due(project)
    (project / "metrics/data.json").write_text('{"source": {"kind": "drawn"}}')
    assert set(TRAININGS) <= set(due(project))
