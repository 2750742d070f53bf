"""The shape of the code: rooms, imports that flow one way between them, and what dvc.yaml says it depends on."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from catdog.tracking import served_form

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src"
LIBRARY = SRC / "catdog"
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
SCRIPTS = {path.stem: path for path in SRC.glob("*.py")}
MODULES = {
    ".".join(path.relative_to(SRC).with_suffix("").parts): path
    for path in LIBRARY.rglob("*.py")
    if path.name != "__init__.py" and path.parent != LIBRARY
}

# A room imports from itself and from those above it in this list.
ROOMS = [
    "base",
    "photographs",
    "pictures",
    "preparation",
    "engines",
    "training/loop",
    "training/cnn",
    "training/xception",
    "answers",
    "evaluation",
    "feedback",
    "tracking",
    "commands",
]
APART = {"training/cnn", "training/xception"}  # neither knows of the other
NO_RESULT_FOLLOWS = {"base", "feedback", "tracking", "commands"}  # so no stage depends on them


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path: Path, *, top_level: bool = False) -> set[str]:
    """Names of all modules that a file imports, in full, and of what it imports from them."""
    names = set()
    for node in tree(path).body if top_level else ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def ours(path: Path) -> set[str]:
    return imported(path) & set(MODULES)


def packages(path: Path, *, top_level: bool = False) -> set[str]:
    return {name.split(".")[0] for name in imported(path, top_level=top_level)}


def room(module: str) -> str:
    """The room of a module: the longest of ROOMS that its path begins with."""
    place = MODULES[module].parent.relative_to(LIBRARY).as_posix()
    [found] = [name for name in ROOMS if place == name or place.startswith(f"{name}/")]
    return found


def reached(path: Path, *, through: set[str] | None = None) -> set[str]:
    """The modules that a script runs; with `through`, only by way of modules in these rooms."""
    met: set[str] = set()
    due = ours(path)
    while due := {m for m in due - met if through is None or room(m) in through}:
        met |= due
        due = set().union(*(ours(MODULES[name]) for name in due))
    return met


def caption(folder: str) -> str:
    return ast.get_docstring(tree(LIBRARY / folder / "__init__.py")) or ""


# ---- rooms ----------------------------------------------------------------------------------------------------------


def test_the_library_is_rooms_each_with_its_caption():
    assert {path.name for path in LIBRARY.iterdir() if path.name != "__pycache__"} == {
        *(name.split("/")[0] for name in ROOMS),
        *("__init__.py", "__main__.py", "py.typed"),
    }
    readme = (ROOT / "README.md").read_text()
    for folder in [path.parent.relative_to(LIBRARY).as_posix() for path in LIBRARY.rglob("*/__init__.py")]:
        only_a_docstring = len(tree(LIBRARY / folder / "__init__.py").body) == 1
        assert only_a_docstring, folder
        assert "\n" not in caption(folder), folder
        assert f"{folder.rpartition('/')[2]}/" in readme
        assert caption(folder) in readme, f"the README's tree has no line {folder}/  {caption(folder)}"


@pytest.mark.parametrize("module", MODULES)
def test_imports_flow_one_way(module):
    path, here = MODULES[module], room(module)
    for other in ours(path):
        there = room(other)
        assert ROOMS.index(there) <= ROOMS.index(here), f"{module} imports {other}"
        assert here == there or {here, there} != APART, f"{module} imports {other}"
    assert module not in reached(path), f"{module} imports itself by way of others"
    assert not packages(path) & set(SCRIPTS), f"{module} imports a stage"
    if "mlflow" in packages(path):
        assert here in ("tracking", "commands")
    if packages(path, top_level=True) & {"keras", "tensorflow"}:
        assert here.startswith("training/")


@pytest.mark.parametrize("path", [*MODULES.values(), *SCRIPTS.values()], ids=lambda path: path.stem)
def test_a_file_is_short(path):
    length = len(path.read_text().splitlines())
    assert length <= (80 if path.parent == SRC else 300)


def test_a_served_model_ships_what_answers_and_no_more():
    serving = "catdog.tracking.serving"
    answering = {serving} | reached(MODULES[serving])
    assert {MODULES[module].relative_to(LIBRARY).as_posix() for module in answering} == set(served_form.SHIPPED)


# ---- dvc.yaml -------------------------------------------------------------------------------------------------------


def test_each_script_is_a_stage():
    assert list(STAGES) == ["prepare", "augment", "train_cnn", "train_xception", "evaluate"]
    assert set(STAGES) == set(SCRIPTS)
    sections = yaml.safe_load((ROOT / "params.yaml").read_text())
    for name, stage in STAGES.items():
        assert stage["cmd"] == f"python src/{name}.py"
        assert all(key.split(".")[0] in sections for key in stage["params"] if isinstance(key, str))
    entry_points = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
    assert set(STAGES) < set(entry_points)
    assert all(entry_points[name]["command"] == f"python -m dvc repro {name}" for name in STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_rooms_that_it_reaches(stage):
    # DVC does not follow imports: with one missing, an edit there would leave the stage "up to date".
    results = set(ROOMS) - NO_RESULT_FOLLOWS
    reach = {f"src/catdog/{room(module)}" for module in reached(SCRIPTS[stage], through=results)}
    assert {dep for dep in STAGES[stage]["deps"] if dep.startswith("src/")} == reach | {f"src/{stage}.py"}
    assert len(reach) <= 7


# ---- imports --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", SCRIPTS)
def test_a_stage_script_stands_apart_from_the_others(stage):
    assert not packages(SCRIPTS[stage]) & {"mlflow", "keras", "tensorflow", *SCRIPTS}


def test_the_command_predictions_and_the_first_stages_start_without_tensorflow_and_mlflow(tmp_path):
    modules = {"catdog.commands.cli", "catdog.base.params", "catdog.commands.summary"}
    modules |= {"catdog.commands.prediction", "catdog.tracking.opening"}
    modules |= reached(SCRIPTS["prepare"]) | reached(SCRIPTS["augment"])
    code = (
        "import sys\n"
        + "".join(f"import {name}\n" for name in sorted(modules))
        + "print({'tensorflow', 'keras', 'mlflow', 'openvino'} & set(sys.modules) or 'none')"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "none"
    assert said.stderr == ""
    assert list(tmp_path.iterdir()) == []


# ---- modules --------------------------------------------------------------------------------------------------------

# MLflow runs serving.py to learn which class to load.
AT_IMPORT = {
    "serving": ["mlflow.models.set_model"],
    "plots_page": ["run"],
    "reference_page": ["run"],
    "quiet": ["_begin"],
}
AT_IMPORT |= {stage: ["errors.run"] for stage in SCRIPTS}
DEFINITIONS = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign | ast.AugAssign


@pytest.mark.parametrize("path", [*MODULES.values(), *SCRIPTS.values()], ids=lambda path: path.stem)
def test_a_module_is_described_and_does_nothing_at_import(path):
    assert ast.get_docstring(tree(path))
    called = []
    for node in tree(path).body[1:]:
        guarded = isinstance(node, ast.If) and ("__name__" in ast.unparse(node.test) or is_for_types(node.test))
        for statement in node.body if guarded else [node]:
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
                called.append(ast.unparse(statement.value.func))
            else:
                assert isinstance(statement, DEFINITIONS), f"{path}: {ast.unparse(statement)[:80]}"
    assert called == AT_IMPORT.get(path.stem, [])


def is_for_types(test: ast.expr) -> bool:
    return ast.unparse(test) == "TYPE_CHECKING"


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-serve.lock", "requirements-jax.lock"])
def test_there_is_no_address_in_the_locks(name):
    lock = (ROOT / name).read_text()
    assert "://" not in lock
    assert "--hash=sha256:" in lock
