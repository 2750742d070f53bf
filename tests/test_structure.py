"""The shape of the code: what dvc.yaml says it depends on, imports that flow one way, nothing done at import."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src"
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
MODULES = {path.stem: path for path in (SRC / "catdog").glob("*.py") if path.stem != "__init__"}
SCRIPTS = {path.stem: path for path in SRC.glob("*.py")}

# Modules import from their own layer and from those above it in this list.
LAYERS = {
    "ground": "body_limit errors files lineage memory parallel params paths precision progress",
    "photographs": "animals archives augmentation data_sheets download drawings duplicates fetching fingerprints "
    "inspection manifest neighbours photos rendering scenery shards sheets sizes sources splits style",
    "figures": "convergence corruptions gates plots plots_page provenance report scoring slices summary tradeoffs",
    "networks": "batches checkpoints classifier cnn_training convolution engines evaluation failures features gradcam "
    "models normalization prediction strategies suspects training weights xception_training",
    "mlflow": "deployments registry scoring_server serving trace tracking verdicts versions",
    "results": "demo publication trained",
    "command": "cli __main__",
}
LAYER = {module: number for number, modules in enumerate(LAYERS.values()) for module in modules.split()}
SPEAK_MLFLOW = {"publication", "registry", "scoring_server", "serving", "tracking", "verdicts", "versions"}
# They tell of a result and do not change it; `params:` in dvc.yaml covers the knobs.
NOT_DEPENDED_ON = {"errors", "files", "lineage", "params", "paths", "progress", "registry", "tracking", "versions"}
TEMPLATES = {name: {f"src/catdog/templates/{name}.html.jinja"} for name in ("demo", "report")}


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path: Path, *, top_level: bool = False) -> set[str]:
    """Names of all modules that a file imports, in full."""
    names = set()
    for node in tree(path).body if top_level else ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def ours(path: Path) -> set[str]:
    parts = [name.split(".") for name in imported(path)]
    return {part[1] for part in parts if part[0] == "catdog" and len(part) > 1 and part[1] in MODULES}


def packages(path: Path, *, top_level: bool = False) -> set[str]:
    return {name.split(".")[0] for name in imported(path, top_level=top_level)}


def reached(path: Path, *, without: frozenset[str] | set[str] = frozenset()) -> set[str]:
    """The modules that a script runs, save those `without` and what only these import."""
    found, due = set(), ours(path)
    while due := due - found - without:
        found |= due
        due = set().union(*(ours(MODULES[name]) for name in due))
    return found


# ---- dvc.yaml -------------------------------------------------------------------------------------------------------


def test_each_script_is_a_stage():
    assert list(STAGES) == ["prepare", "augment", "train_cnn", "train_xception", "evaluate"]
    assert set(STAGES) == set(SCRIPTS)
    sections = yaml.safe_load((ROOT / "params.yaml").read_text())
    for name, stage in STAGES.items():
        assert stage["cmd"] == f"python src/{name}.py"
        assert all(key.split(".")[0] in sections for key in stage["params"])
    entry_points = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
    assert set(STAGES) < set(entry_points)
    assert all(entry_points[name]["command"] == f"python -m dvc repro {name}" for name in STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_code_that_it_runs(stage):
    # DVC does not follow imports: with one missing, an edit there would leave the stage "up to date".
    modules = reached(SCRIPTS[stage], without=NOT_DEPENDED_ON)
    expected = {f"src/{stage}.py"} | {f"src/catdog/{name}.py" for name in modules}
    expected |= set().union(*(TEMPLATES.get(name, set()) for name in modules))
    assert {dep for dep in STAGES[stage]["deps"] if dep.startswith("src/")} == expected


def test_every_template_is_depended_on():
    assert {str(path.relative_to(ROOT)) for path in (SRC / "catdog/templates").iterdir()} == set().union(
        *TEMPLATES.values()
    )


# ---- imports --------------------------------------------------------------------------------------------------------


def test_every_module_has_its_layer():
    assert sorted(LAYER) == sorted(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_imports_flow_one_way(module):
    path = MODULES[module]
    names = list(LAYERS)
    for other in ours(path):
        assert LAYER[other] <= LAYER[module], f"{module} ({names[LAYER[module]]}) imports {other}"
    assert module not in reached(path), f"{module} imports itself by way of others"
    assert not packages(path) & set(SCRIPTS), f"{module} imports a stage"
    if "mlflow" in packages(path):
        assert module in SPEAK_MLFLOW
    if packages(path, top_level=True) & {"keras", "tensorflow"}:
        assert LAYER[module] >= names.index("networks")


@pytest.mark.parametrize("stage", SCRIPTS)
def test_a_stage_script_is_short_and_apart_from_the_others(stage):
    path = SCRIPTS[stage]
    assert len(path.read_text().splitlines()) <= 80
    assert not packages(path) & {"mlflow", "keras", "tensorflow", *SCRIPTS}


@pytest.mark.parametrize("stage", ["prepare", "augment"])
def test_photographs_need_neither_tensorflow_nor_mlflow(stage):
    for module in reached(SCRIPTS[stage]):
        assert not packages(MODULES[module], top_level=True) & {"keras", "tensorflow", "mlflow"}, module


def test_the_command_and_the_first_stages_start_without_tensorflow_and_mlflow(tmp_path):
    modules = {"cli", "params", "summary"} | reached(SCRIPTS["prepare"]) | reached(SCRIPTS["augment"])
    code = (
        "import sys\n"
        + "".join(f"import catdog.{name}\n" for name in sorted(modules))
        + "print({'tensorflow', 'keras', 'mlflow'} & set(sys.modules) or 'none')"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "none"
    assert said.stderr == ""
    assert list(tmp_path.iterdir()) == []


# ---- modules --------------------------------------------------------------------------------------------------------

# MLflow runs serving.py to learn which class to load; `python -m catdog` runs __main__.py.
AT_IMPORT = {"serving": ["mlflow.models.set_model"], "__main__": ["main"], "plots_page": ["run"]} | {
    stage: ["run"] for stage in SCRIPTS
}
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


def test_there_is_no_address_in_the_lock():
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    assert "--hash=sha256:" in lock
