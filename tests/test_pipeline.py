"""The real five stages, by DVC and by MLflow, on a few hundred photographs (drawings where there are none at hand)."""

import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).parent.parent
PHOTOGRAPHS = ROOT.parent / "shared/data/cats-and-dogs-originals-600.zip"
COUNT = 300
ANSWER_ACCURACY = 0.7
DATA_PICTURES = ("sizes", "photographs_0", "photographs_1", "refused", "near_duplicates")

pytestmark = pytest.mark.slow


class Project:
    """A fresh clone with photographs of its own and small params."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "DVC_"))},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "COLUMNS": "160",
        }

    def run(self, *command: str, fails: bool = False) -> str:
        done = subprocess.run(command, cwd=self.folder, env=self.env, capture_output=True, text=True)
        said = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, f"{command} exited with {done.returncode}:\n{said}"
        return said

    def json(self, path: str) -> dict:
        return json.loads((self.folder / path).read_text())

    def commit(self, message: str) -> None:
        self.run("git", "add", "-A")
        self.run("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", message)

    @property
    def client(self) -> mlflow.MlflowClient:
        return mlflow.MlflowClient(f"sqlite:///{self.folder / 'mlflow.db'}")

    def runs(self, name: str) -> list[mlflow.entities.Run]:
        experiments = [e.experiment_id for e in self.client.search_experiments()]
        found = self.client.search_runs(experiments)
        return [run for run in found if run.info.run_name == name]


def clone(folder: Path) -> Project:
    """A fresh clone in `folder`, without results, whose params make the pipeline quick."""
    tracked = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    for name in tracked.stdout.splitlines():
        if not name.startswith(("plots/", "metrics/", "reports/", "dvc.lock")) and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    made = Project(folder)
    made.run("git", "init", "-q")
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["prepare"] |= {"drawings": COUNT, "shard_photographs": 100}  # of train a folder, of the others a file
    params["train_cnn"] |= {"filters": [16, 32, 64], "image_sizes": [32, 48], "epochs": [2, 3], "batch_size": 32}
    params["train_xception"] |= {"image_size": 150, "epochs": 8, "seeds": 2}
    # The default, 99.5 %, is more than so few validation photographs can show.
    params["evaluate"] |= {"corrupted": 12, "answer_accuracy": ANSWER_ACCURACY}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    made.commit("start")
    return made


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = clone(tmp_path_factory.mktemp("clone") / "project")
    _bring_photographs(made)
    made.said = made.run("dvc", "repro")  # type: ignore[attr-defined]
    made.commit("results")
    return made


def _bring_photographs(project: Project) -> None:
    if not PHOTOGRAPHS.exists():
        project.run("catdog", "fetch", "drawn")
        return
    with zipfile.ZipFile(PHOTOGRAPHS) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        for name in random.Random(0).sample(names, COUNT):
            archive.extract(name, project.folder / "data/raw")


def test_every_stage_ran_and_left_what_is_relied_on(project: Project) -> None:
    data, evaluation = project.json("metrics/data.json"), project.json("metrics/evaluation.json")
    assert data["files"] == data["kept"] + sum(data["reasons"].values()) == COUNT
    assert data["source"]["sha256"]
    manifest = pd.read_csv(project.folder / "data/prepared/manifest.csv")
    assert len(manifest) == COUNT
    findings = project.json("reports/comparison.json")
    assert len(pd.read_csv(project.folder / "plots/corruptions.csv")) == 2 * 16
    assert (pd.read_csv(project.folder / "plots/suspects.csv")["confidence"] < 0.5).all()
    for name in ("cnn", "xception"):
        for key in ("accuracy", "precision", "recall", "f1", "roc_auc"):
            low, high = findings[name]["intervals"][key]
            assert 0 <= low <= evaluation[name][key] <= high <= 1
        assert evaluation[name]["log_loss"] > 0
        shares = [evaluation[name][f"doubt_{key}"] for key in ("answered", "unsure", "neither")]
        assert sum(shares) == pytest.approx(1)
        assert evaluation[name]["agreement_flips"] <= findings[name]["agreement"]["photographs"] == 12
        assert findings[name]["agreement"]["engine"].startswith("OpenVINO")
        assert evaluation[name]["test_photographs"] == sum(data["counts"]["test"].values())
        trained = project.json(f"metrics/train_{name}.json")
        assert trained["seconds"] > 0
        history = pd.read_csv(project.folder / f"plots/history_{name}.csv")
        assert list(history["epoch"]) == list(range(1, trained["epochs"] + 1))
    of_seeds = evaluation["spread"]["xception"]["seeds"]
    assert list(of_seeds) == ["7", "8"]
    assert of_seeds["7"] == {key: evaluation["xception"][key] for key in ("accuracy", "log_loss")} != of_seeds["8"]
    assert project.json("metrics/train_xception.json")["seconds_seeds"] > 0
    assert findings["difference"]["beyond"]["training"] in (True, False)
    assert (project.folder / "reports/comparison.html").stat().st_size > 100_000
    if PHOTOGRAPHS.exists():
        assert evaluation["xception"]["accuracy"] > 0.9
        assert evaluation["xception"]["doubt_answered"] > 0.8
        assert evaluation["xception"]["doubt_answered_accuracy"] > ANSWER_ACCURACY
        assert 0.5 <= evaluation["xception"]["sureness"] < 1


def test_dvc_and_mlflow_agree_and_models_are_registered(project: Project) -> None:
    evaluation = project.json("metrics/evaluation.json")
    for name in ("cnn", "xception"):
        [run] = project.runs(name)
        assert run.info.status == "FINISHED"
        history = pd.read_csv(project.folder / f"plots/history_{name}.csv")
        logged = project.client.get_metric_history(run.info.run_id, "val_loss")
        assert [(m.step, m.value) for m in logged] == list(zip(history["epoch"], history["val_loss"], strict=True))
        [version] = project.client.search_model_versions(f"name='catdog-{name}'")
        logged = run.data.metrics
        for key, value in evaluation[name].items():
            assert version.tags[key] == str(value), key
            # What is of the served form alone is on its version alone.
            if not key.startswith(("sureness", "doubt_corrupted", "agreement")):
                assert logged[key if key in logged else f"test_{key}"] == value, key
        for key, value in project.json(f"metrics/train_{name}.json").items():
            if isinstance(value, int | float) and not key.startswith("val_"):
                assert logged["train_seconds" if key == "seconds" else key] == value, key
        assert version.tags["run_id"] == run.info.run_id
        trained = project.json(f"models/{name}/run.json")
        assert trained["model_sha256"] == version.tags["model_sha256"]
    [comparison] = project.runs("comparison")
    for key, value in evaluation["difference"].items():
        told = value["difference"] if isinstance(value, dict) else value
        assert comparison.data.metrics[f"difference.{key}"] == told, key
    pictures = {item.path for item in project.client.list_artifacts(comparison.info.run_id, "plots")}
    assert {f"plots/{name}.png" for name in ("comparison", "augmented", *DATA_PICTURES)} <= pictures
    assert "compare-runs" in comparison.data.tags["mlflow.note.content"]


def test_nothing_changed_nothing_runs(project: Project) -> None:
    assert "Data and pipelines are up to date" in project.run("dvc", "repro")


def test_dvc_commands_say_something_useful(project: Project) -> None:
    assert "xception.accuracy" in project.run("dvc", "metrics", "show")
    dag = project.run("dvc", "dag")
    assert all(stage in dag for stage in ("prepare", "augment", "train_cnn", "train_xception", "evaluate"))
    project.run("dvc", "plots", "show")
    page = (project.folder / "dvc_plots/index.html").read_text()
    assert "val_accuracy" in page
    assert "true_positive_rate" in page
    assert "accuracy of the answers" in page
    assert all(f"plots/{name}.png" in page for name in DATA_PICTURES)


def test_a_changed_knob_of_one_model_runs_that_model_and_evaluate(project: Project) -> None:
    said = project.run("dvc", "exp", "run", "-S", "train_cnn.dropout=0.3", "--name", "more-dropout")
    ran = {line.split("'")[1] for line in said.splitlines() if line.startswith("Running stage")}
    assert ran == {"train_cnn", "evaluate"}
    assert "train_cnn.dropout" in project.run("dvc", "params", "diff")
    assert "cnn.log_loss" in project.run("dvc", "metrics", "diff", "--all")
    newest, *_ = project.runs("cnn")
    assert newest.data.tags["DVC_EXP_NAME"] == "more-dropout"
    assert newest.data.params["dropout"] == "0.3"
    assert len(project.runs("xception")) == 1


def test_two_queued_experiments_at_once_lose_nothing(project: Project) -> None:
    project.run("dvc", "exp", "run", "--queue", "-S", "train_cnn.dropout=0.35,0.45")
    project.run("dvc", "exp", "run", "--run-all", "--jobs", "2")
    names = {run.data.params["dropout"]: run.data.tags.get("DVC_EXP_NAME", "") for run in project.runs("cnn")}
    refs = project.run("git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
    shown = project.run("dvc", "exp", "show", "--only-changed")
    for dropout in ("0.35", "0.45"):
        name = names[dropout]
        assert name in shown
        [ref] = [ref for ref in refs if ref.endswith(f"/{name}")]

        def kept(path: str, ref: str = ref) -> str:
            return project.run("git", "show", f"{ref}:{path}")

        assert json.loads(kept("metrics/data.json"))["source"] == project.json("metrics/data.json")["source"]
        [run], [comparison] = (
            [run for run in project.runs(kind) if run.data.tags.get("DVC_EXP_NAME") == name]
            for kind in ("cnn", "comparison")
        )
        assert {run.info.status, comparison.info.status} == {"FINISHED"}
        history = pd.read_csv(io.StringIO(kept("plots/history_cnn.csv")))
        logged = project.client.get_metric_history(run.info.run_id, "val_loss")
        assert [(m.step, m.value) for m in logged] == list(zip(history["epoch"], history["val_loss"], strict=True))
        evaluation = json.loads(kept("metrics/evaluation.json"))["cnn"]
        assert {key: run.data.metrics.get(f"test_{key}") for key in ("accuracy", "log_loss", "robustness")} == {
            key: evaluation[key] for key in ("accuracy", "log_loss", "robustness")
        }
        # Files too are where the copy that DVC made, and deleted, can take nothing away.
        for each, wanted in ((run, "plots/history.csv"), (comparison, "predictions.parquet")):
            assert Path(project.client.download_artifacts(each.info.run_id, wanted)).stat().st_size > 0
        [version] = [
            v for v in project.client.search_model_versions("name='catdog-cnn'") if v.tags["run_id"] == run.info.run_id
        ]
        assert version.tags["accuracy"] == str(evaluation["accuracy"])


def test_killed_and_started_again_it_goes_on_in_the_same_run(project: Project) -> None:
    params = yaml.safe_load((project.folder / "params.yaml").read_text())
    params["train_cnn"]["dropout"] = 0.25
    (project.folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    project.commit("another dropout of the CNN")
    before = {run.info.run_id for run in project.runs("cnn")}
    training = subprocess.Popen(
        ["dvc", "repro", "train_cnn"],
        cwd=project.folder,
        env=project.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    checkpoint = project.folder / "data/checkpoints/cnn.npz"
    deadline = time.monotonic() + 240
    while not checkpoint.exists() and training.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(training.pid, signal.SIGKILL)
    training.wait()
    assert checkpoint.exists(), "killed too late: there was nothing to go on from"
    [killed] = [run for run in project.runs("cnn") if run.info.run_id not in before]

    project.run("dvc", "repro", "train_cnn")
    assert project.json("models/cnn/run.json")["run_id"] == killed.info.run_id
    steps = [metric.step for metric in project.client.get_metric_history(killed.info.run_id, "val_loss")]
    assert steps == list(range(1, project.json("metrics/train_cnn.json")["epochs"] + 1))
    assert not checkpoint.exists()


def test_mlflow_project_nests_its_runs(project: Project) -> None:
    params = yaml.safe_load((project.folder / "params.yaml").read_text())
    params["train_xception"]["dropout"] = 0.1
    (project.folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    # What becomes of it is promoted below, and traced to this commit.
    project.commit("another dropout of Xception")
    said = project.run("mlflow", "run", ".", "--env-manager=local", "--experiment-name=catdog")
    newest, *_ = project.runs("xception")
    parent = project.client.get_run(newest.data.tags["mlflow.parentRunId"])
    assert parent.info.experiment_id == newest.info.experiment_id
    assert parent.info.status == "FINISHED"
    assert newest.data.params["dropout"] == "0.1"
    assert "head: train" in said
    assert "features (" not in said, "the frozen features of the same photographs were computed again"
    project.run("mlflow", "run", ".", "--env-manager=local", "-e", "prepare")


def test_the_tour_shows_what_the_pipeline_left(project: Project) -> None:
    notebook = project.json("docs/tour.ipynb")
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    project.env["MPLBACKEND"] = "Agg"
    said = project.run(sys.executable, "-c", "import os; os.chdir('docs')\n" + "\n".join(cells))
    for name in ("CNN", "Xception"):
        assert f"{name}: right on " in said
    assert "Traceback" not in said


def _label(row, sureness: float, knobs: dict) -> str:
    if row.familiarity < knobs["unfamiliar"]:
        return "neither"
    is_dog = row.probability >= knobs["threshold"]
    if (row.probability if is_dog else 1 - row.probability) < sureness:
        return "unsure"
    return "dog" if is_dog else "cat"


def test_from_the_registry_to_use_and_back_to_the_photographs(project: Project, tmp_path: Path) -> None:
    params = yaml.safe_load((project.folder / "params.yaml").read_text())
    params["promote"] |= {"min_accuracy": 0.4, "max_log_loss": 2.0, "max_calibration_error": 0.9, "min_robustness": 0.3}
    params["evaluate"]["threshold"] = 0.7
    (project.folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    said = project.run("dvc", "repro")
    assert {line.split("'")[1] for line in said.splitlines() if line.startswith("Running stage")} == {"evaluate"}
    project.commit("another threshold, and gates that a small training passes")
    assert "champion: catdog version 1" in project.run("catdog", "promote", "--why", "first")
    photographs = sorted((project.folder / "data/raw").rglob("*.jpg"))[:60]
    out = tmp_path / "out.csv"
    project.run("catdog", "predict", *map(str, photographs), "--out", str(out))
    answers = pd.read_csv(out)
    assert list(answers.columns) == ["path", "label", "probability", "familiarity", "error"]
    assert list(answers["path"]) == [str(path) for path in photographs]
    assert answers["probability"].between(0, 1).all()
    # What is served has the threshold of the evaluation that registered it, and its doubt.
    champion = project.client.get_model_version_by_alias("catdog", "champion")
    sureness = float(champion.tags.get("sureness", 0))
    assert answers["label"].tolist() == [_label(row, sureness, params["evaluate"]) for row in answers.itertuples()]
    assert "first" in project.run("catdog", "history")
    assert "broken" not in project.run("catdog", "trace")
    card = project.run("catdog", "card")
    known = yaml.safe_load(card.split("---\n")[1])["model-index"][0]["results"][0]["metrics"]
    name = champion.tags["model"]
    evaluation = project.json("metrics/evaluation.json")[name]
    assert {each["type"]: each["value"] for each in known}["accuracy"] == round(evaluation["accuracy"], 4)
    for fact in (champion.tags["model_sha256"], champion.tags["run_id"], champion.tags["test_digest"]):
        assert fact in card
    assert champion.description in card
    assert champion.description.startswith("# ")
