"""What a training leaves and evaluate publishes: the same twice is the same once, and other stores are no obstacle."""

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import keras
import mlflow
import numpy as np
import pandas as pd
import pytest
import stage_kills
import yaml
from mlflow.entities import LoggedModelStatus
from training_fixtures import REPOSITORY, noise, params, small_xception, tracked, writes_its_outputs_alone

from catdog.base import files, paths
from catdog.base.errors import UserError
from catdog.evaluation import comparison, properties, suspects
from catdog.evaluation import served as served_
from catdog.photographs import shards as shards_
from catdog.pictures import sheets, style
from catdog.tracking import lineage, publication, registry, runs, served_form, trace
from catdog.tracking import versions as versions_
from catdog.training.cnn import network, recipe
from catdog.training.loop import outcome
from catdog.training.loop.fitting import Result

INPUTS = [paths.TRAIN, paths.AUGMENTED_TRAIN, paths.VAL]
DATA = {
    "source": {"kind": "folder", "path": "/photos", "sha256": "ab" * 32},
    "files": 41,
    "kept": 40,
    "counts": {split: {"cat": 10, "dog": 10} for split in ("train", "val", "test")},
    "reasons": {"damaged": 1},
}
P = params()
TIMES = ("milliseconds_per_photograph", "milliseconds_per_photograph_of_32", "relative_time")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project after both trainings, whose models are small and know nothing."""
    folder = tmp_path_factory.mktemp("project")
    with tracked(folder) as client:
        trained(client)
        yield client


def trained(client: mlflow.MlflowClient) -> None:
    """What evaluate reads, in the current folder."""
    for seed, path in enumerate([*INPUTS, paths.TEST]):
        noise(path, 20, seed=seed)
    describe()
    Path("params.yaml").write_text(yaml.safe_dump(P.model_dump()))
    for name in style.NAMES:
        train(client, name)


def describe() -> None:
    """What prepare says of the photographs."""
    rows = []
    for path in (paths.VAL, paths.TEST):
        shard = shards_.Shard(path)
        filed = [P.base.classes[label] for label in shard.labels]
        table = {"id": shard.ids, "width": 32, "height": 32, "split": path.stem, "filed": filed, "decision": ""}
        rows.append(pd.DataFrame(table))
    files.write_text(paths.MANIFEST, pd.concat(rows).to_csv(index=False))
    shards_.write(paths.SET_ASIDE, [])
    files.write_json(paths.DATA_METRICS, DATA | {"manifest_sha256": files.sha256(paths.MANIFEST)})


@pytest.fixture(autouse=True)
def no_suspects(monkeypatch):
    """There are no weights of Xception here, by whose features labels are doubted."""
    monkeypatch.setattr(suspects, "find", lambda *_, **__: paths.SUSPECTS_SHEET)


def train(client: mlflow.MlflowClient, name: str) -> None:
    keras.utils.set_random_seed(len(name))
    model = recipe.plain(network.cnn(P.train_cnn), P.train_cnn) if name == "cnn" else small_xception()
    rows = [(1, 0.9, 0.5, 2.0), (2, 0.6, 0.7, 2.0), (3, 0.7, 0.6, 2.0)]
    history = pd.DataFrame(rows, columns=["epoch", "val_loss", "val_accuracy", "seconds"])
    history = history.assign(image_size=24, train_loss=0.5, train_accuracy=0.5, learning_rate=0.1)
    result = Result(history=history, best_epoch=2, seconds=6.0)
    with runs.training(client, P, name, inputs=INPUTS, fingerprint="") as run:
        metrics = outcome.leave(
            name,
            model,
            result,
            run=run.ids,
            inputs=INPUTS,
            seconds_before={"features": 4.0},
            engine="openvino",
            peak_memory_bytes=1e9,
        )
        run.log(metrics, history=paths.history(name))


def run_of(name: str) -> dict:
    return files.read_json(paths.model(name) / paths.RUN_FILE)


def versions(client: mlflow.MlflowClient) -> dict[str, list[str]]:
    """The runs of the versions of each registered model, oldest first."""
    found = {name: client.search_model_versions(f"name='{name}'") for name in versions_.NAMES.values()}
    return {
        name: [version.run_id for version in sorted(versions, key=lambda v: int(v.version))]
        for name, versions in found.items()
    }


# ---- what a training leaves -----------------------------------------------------------------------------------------


def test_a_training_leaves_its_model_its_run_and_its_figures(project):
    figures = files.read_json(paths.train_metrics("cnn"))
    assert figures["seconds"] == 10.0
    assert (figures["seconds_data"], figures["seconds_features"], figures["seconds_training"]) == (0.0, 4.0, 6.0)
    assert figures["epochs"] == 3
    assert figures["best_epoch"] == 2
    assert (figures["val_loss"], figures["val_accuracy"]) == (0.6, 0.7)
    assert figures["seconds_to_95"] == 8.0  # features, then two epochs
    assert figures["engine"] == "openvino"
    model = paths.model("cnn") / paths.MODEL_FILE
    assert figures["file_bytes"] == model.stat().st_size
    assert figures["parameters"] == keras.saving.load_model(model).count_params()
    assert pd.read_csv(paths.history("cnn"))["epoch"].tolist() == [1, 2, 3]
    said = run_of("cnn")
    assert said["model_sha256"] == files.sha256(model)
    assert said["digests"] == {path.as_posix(): files.md5(path) for path in INPUTS}
    assert sorted(path.name for path in Path("models").iterdir()) == ["cnn", "xception"]

    run = project.get_run(said["run_id"])
    assert run.data.tags["engine"] == "openvino"
    assert run.data.metrics["train_seconds"] == 10.0
    assert run.data.params["learning_rate"] == str(P.train_cnn.learning_rate)
    assert run.data.params["augment.variants"] == str(P.augment.variants)
    assert run.data.params["augment.blur.pixels"] == str(P.augment.blur.pixels)
    assert not project.search_logged_models([said["experiment_id"]])  # what is served comes from evaluate


# ---- what evaluate publishes ----------------------------------------------------------------------------------------


def test_evaluate_publishes_once_what_it_finds_twice(project, tmp_path):
    client, test, aside = project, shards_.Shard(paths.TEST), shards_.Shard(paths.SET_ASIDE)
    models = served_.make(P, tmp_path, train=shards_.Shard(paths.TRAIN), val=shards_.Shard(paths.VAL))
    answers = comparison.ask(P, models, test=test, aside=aside)
    worse = comparison.corrupt(P, models, answers, test=test)
    found = comparison.measure(P, models, answers, corrupted=worse, test=test, aside=aside)
    assert len(worse.table) == 2 * 16
    low, high = found["cnn"]["intervals"]["robustness"]
    assert low <= found["cnn"]["robustness"] == worse.robustness("cnn") <= high
    predictions = comparison.predictions(answers)
    assert found["cnn"]["test_photographs"] == 20
    assert predictions["cnn"].between(0, 1).all()
    right = ((predictions["cnn"] >= P.evaluate.threshold) == predictions["label"]).mean()
    assert found["cnn"]["accuracy"] == pytest.approx(right)

    comparison.write(found)
    told = files.read_json(paths.EVALUATION)
    nested = {f"{part}_{key}": value for part in ("doubt", "agreement") for key, value in found["cnn"][part].items()}
    assert told["cnn"] == {k: value for k, value in (found["cnn"] | nested).items() if isinstance(value, int | float)}
    assert told["cnn"].keys() >= {"temperature", "doubt_answered", "doubt_corrupted_neither", "agreement_flips"}
    low, high = found["cnn"]["intervals"]["uncalibrated_brier"]
    assert low < told["cnn"]["uncalibrated_brier"] < high
    assert found["cnn"]["brier"] != found["cnn"]["uncalibrated_brier"]
    assert all(isinstance(value, int | float) for value in told["xception"].values())
    assert files.read_json(paths.FINDINGS) == found
    # The heads of further seeds were not left here; of the CNN the params tell.
    assert told["spread"] == {"cnn": {"deviation": {"accuracy": P.evaluate.cnn_seed_deviation}}, "xception": {}}
    assert found["difference"]["spread"] == [P.evaluate.cnn_seed_deviation, None]
    assert "The chance of training: not measured for Xception" in found["difference"]["words"]
    paths.PLOTS.mkdir(exist_ok=True)
    for name in style.NAMES:
        (paths.PLOTS / f"mistakes_{name}.png").write_bytes(name.encode())
    picture = Path("roc.png")
    picture.write_bytes(b"picture")
    pictures = {"roc": picture, "none": Path("none.png")}
    published = {"models": models, "metrics": found, "predictions": predictions, "pictures": pictures}
    first = publication.publish(client, P, **published, test=test)
    before = {name: client.get_run(run_of(name)["run_id"]) for name in style.NAMES}
    slower = {name: {**found[name], **{key: 2 * found[name][key] for key in TIMES}} for name in style.NAMES}
    again = publication.publish(client, P, **published | {"metrics": found | slower}, test=test)

    # A comparison each time, beside the trainings.
    assert list(first) == list(again) == ["cnn", "xception", "comparison"]
    summary = client.get_run(first["comparison"]["run_id"])
    assert summary.info.run_id != again["comparison"]["run_id"]
    assert summary.info.experiment_id == run_of("cnn")["experiment_id"]
    assert summary.info.status == "FINISHED"
    assert summary.data.metrics["difference.accuracy"] == found["difference"]["accuracy"]["difference"]
    note = summary.data.tags["mlflow.note.content"]
    assert note.split("\n\n")[1].count("](http") == 2  # what stands below is folded
    assert [each.dataset.name for each in summary.inputs.dataset_inputs] == ["test"]
    assert found["difference"]["headline"] in note
    assert all(run_of(name)["run_id"] in note for name in style.NAMES)
    [execution] = [tag for tag in summary.data.tags if tag.startswith("execution.")]
    local = mlflow.artifacts.download_artifacts(run_id=summary.info.run_id, artifact_path="predictions.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(local), predictions)
    table = pd.DataFrame(**mlflow.artifacts.load_dict(f"{summary.info.artifact_uri}/predictions.json"))
    assert "predictions.json" in summary.data.tags["mlflow.loggedArtifacts"]  # by which the UI knows a table
    assert set(table["id"]) == set(predictions["id"])
    assert set(table["photograph"]) == set(map(sheets.tail, test.sources))
    assert set(table["cnn"]) <= set(P.base.classes)
    assert set(table["right"]) <= {"both", "none", *style.NAMES}
    both = int((table["right"] == "both").sum())
    assert both == found["difference"]["both_right"] < len(table)
    assert (table["right"].iloc[-both:] == "both").all()
    assert [f.path for f in client.list_artifacts(summary.info.run_id, "plots")] == ["plots/roc.png"]

    # On the trainings, each value once, and nothing else of theirs touched.
    for name in style.NAMES:
        run = client.get_run(run_of(name)["run_id"])
        assert run.data.tags[execution] == "member"
        assert run.info.status == "FINISHED"
        assert run.info.end_time == before[name].info.end_time
        logged = {file.path for file in client.list_artifacts(run.info.run_id, "plots")}
        assert logged == {"plots/history.csv", "plots/mistakes.png"}
        local = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="plots/mistakes.png")
        assert Path(local).read_bytes() == name.encode()
        attached = {key for key in run.data.metrics if key.startswith("test_")}
        assert {"test_accuracy", "test_log_loss", "test_roc_auc"} <= attached
        assert run.data.metrics["test_accuracy"] == found[name]["accuracy"]
        assert run.data.metrics["test_temperature"] == found[name]["temperature"]
        assert run.data.metrics["test_doubt_answered"] == found[name]["doubt"]["answered"]
        for key in attached:
            assert len(client.get_metric_history(run.info.run_id, key)) == 1, key
        # Of a time the first stays, on the run and on its served model.
        assert {f"test_{key}" for key in TIMES} <= attached
        [model] = served(client, name)
        points = [metric for metric in model.metrics if metric.key.startswith("test_")]
        assert sorted(metric.key for metric in points) == sorted(attached)
        for metric in points:
            assert metric.value == run.data.metrics[metric.key]
        for key in TIMES:
            assert run.data.metrics[f"test_{key}"] == found[name][key]
            tags = client.get_model_version(versions_.NAMES[name], "1").tags
            assert tags[key] == str(2 * found[name][key])  # the version's tags are those of the last evaluation

    # One version of each model, with what the gates read.
    assert versions(client) == {versions_.NAMES[name]: [run_of(name)["run_id"]] for name in style.NAMES}
    version = client.get_model_version("catdog-cnn", "1")
    expected = {
        "test_digest": test.digest,
        "evaluation_run_id": again["comparison"]["run_id"],
        "source_kind": "folder",
        "model_sha256": run_of("cnn")["model_sha256"],
        "served_sha256": client.get_logged_model(versions_.source(version)).tags["served_sha256"],
        "data_digest": files.md5(paths.TRAIN),
        "git_commit": lineage.git()["git.commit"],
        "accuracy": str(found["cnn"]["accuracy"]),
        "engine": found["cnn"]["agreement"]["engine"],
    }
    assert expected.items() <= version.tags.items()
    again_told = told["cnn"] | {key: 2 * found["cnn"][key] for key in TIMES}
    assert {key: str(value) for key, value in again_told.items()}.items() <= version.tags.items()


def test_the_stage_registers_a_new_model_as_a_new_version(project):
    train(project, "cnn")
    for _ in range(2):
        runpy.run_path(str(REPOSITORY / "src/evaluate.py"), run_name="__main__")
    found = versions(project)
    assert found["catdog-cnn"][-1] == run_of("cnn")["run_id"]
    assert len(set(found["catdog-cnn"])) == len(found["catdog-cnn"])
    assert found["catdog-xception"] == [run_of("xception")["run_id"]]


def evaluate(**changes: dict) -> None:
    """Run the stage with these changes to params.yaml."""
    Path("params.yaml").write_text(yaml.safe_dump(params(**changes).model_dump()))
    with writes_its_outputs_alone("evaluate"):
        runpy.run_path(str(REPOSITORY / "src/evaluate.py"), run_name="__main__")


def served(client: mlflow.MlflowClient, name: str) -> list[mlflow.entities.LoggedModel]:
    """The logged models of the present training of `name`, oldest first."""
    run = run_of(name)
    found = client.search_logged_models([run["experiment_id"]], f"source_run_id = '{run['run_id']}'")
    return sorted(found, key=lambda model: model.creation_timestamp)


def test_another_threshold_is_another_served_form_of_the_same_training(project):
    train(project, "cnn")
    evaluate()
    ended = project.get_run(run_of("cnn")["run_id"]).info.end_time
    evaluate(evaluate={"threshold": 0.999})
    evaluate(evaluate={"threshold": 0.999})  # the same once more is no third one
    first, second = served(project, "cnn")
    assert {first.status, second.status} == {LoggedModelStatus.READY}
    run = project.get_run(run_of("cnn")["run_id"])
    assert (run.info.status, run.info.end_time) == ("FINISHED", ended)
    assert {output.model_id for output in run.outputs.model_outputs} == {first.model_id, second.model_id}

    image = pd.DataFrame({"image": [shards_.Shard(paths.TEST).jpeg(0)]})
    known = project.search_model_versions("name='catdog-cnn'")
    by_source = {versions_.source(version): version for version in known}
    for model, threshold in ((first, P.evaluate.threshold), (second, 0.999)):
        version = by_source[model.model_id]
        assert version.run_id == run.info.run_id
        answer = mlflow.pyfunc.load_model(versions_.uri(version)).predict(image).iloc[0]
        strange = answer["familiarity"] < P.evaluate.unfamiliar
        assert answer["label"] == ("neither" if strange else P.base.classes[int(answer["probability"] >= threshold)])
        assert registry.load(project, versions_.uri(version)).threshold == threshold
        assert {metric.key for metric in model.metrics} >= {"test_accuracy", "test_log_loss"}
        links = trace.trace(project, versions_.name(version), root=Path.cwd())
        assert [link.name for link in links[:4]] == ["model version", "logged model", "model file", "run"]
        assert all(link.ok for link in links[:4]), links
    evaluate()


def test_what_does_not_answer_leaves_the_served_form_alone(project, monkeypatch, tmp_path):
    train(project, "cnn")
    evaluate()
    library = Path(shutil.copytree(REPOSITORY / "src/catdog", tmp_path / "catdog"))
    monkeypatch.setattr(served_form, "_LIBRARY", library)
    for file in library.rglob("*.py"):
        if file.relative_to(library).as_posix() not in served_form.SHIPPED:
            file.write_text(file.read_text() + "# edited\n")
    evaluate()
    assert len(served(project, "cnn")) == 1
    classifier = library / "answers/classifier.py"
    classifier.write_text(classifier.read_text() + "# edited\n")
    evaluate()
    assert len(served(project, "cnn")) == 2


@pytest.mark.slow
def test_a_kill_at_any_point_of_publishing_leaves_nothing_that_the_next_run_does_not_finish(project):
    train(project, "cnn")
    model_versions = len(project.search_model_versions("name='catdog-cnn'"))
    search = os.pathsep.join((str(REPOSITORY / "src"), str(REPOSITORY / "tests")))
    for where in stage_kills.PUBLICATION_KILLS:
        ended = subprocess.run(
            [sys.executable, "-c", f"import stage_kills; stage_kills.killed_stage('evaluate', {where!r})"],
            env={**os.environ, "PYTHONPATH": search},
            capture_output=True,
            text=True,
        )
        assert ended.returncode == -signal.SIGKILL, f"{where}: {ended.stderr[-2000:]}"
    evaluate()
    [model] = served(project, "cnn")
    assert model.status == LoggedModelStatus.READY
    found = project.search_model_versions("name='catdog-cnn'")
    assert len(found) == model_versions + 1
    [version] = [version for version in found if versions_.source(version) == model.model_id]
    served_form.verify(versions_.uri(version), **versions_.digests(version))
    run = project.get_run(run_of("cnn")["run_id"])
    for key in [key for key in run.data.metrics if key.startswith("test_") and key.removeprefix("test_") not in TIMES]:
        assert len(project.get_metric_history(run.info.run_id, key)) == 1, key
    comparisons = project.search_runs([run.info.experiment_id], "tags.model = 'comparison'")
    assert {each.info.status for each in comparisons} == {"FINISHED", "KILLED"}


def test_models_pulled_from_another_machine_are_evaluated_with_a_warning(project, tmp_path, monkeypatch, capsys):
    here = Path.cwd()
    with tracked(tmp_path) as client:
        for folder in ("data", "models", "metrics", "plots"):
            if (here / folder).exists():
                shutil.copytree(here / folder, folder)
        shutil.copy(here / "params.yaml", "params.yaml")
        runpy.run_path(str(REPOSITORY / "src/evaluate.py"), run_name="__main__")
        said = capsys.readouterr()
        assert said.err.count("warning: run ") == 2
        found = json.loads(paths.FINDINGS.read_text())
        assert said.out.strip().endswith("{headline}: {certainty}".format_map(found["difference"]))
        assert found["cnn"]["test_photographs"] == 20
        assert np.isfinite(found["xception"]["log_loss"])
        assert "/photos" in paths.REPORT.read_text()
        assert not any(versions(client).values())
        [run] = client.search_runs([client.get_experiment_by_name("catdog").experiment_id])
        assert run.info.run_name == "comparison"
        assert run.data.metrics["difference.p_value"] == found["difference"]["p_value"]
    mlflow.set_tracking_uri(project.tracking_uri)


def test_a_manifest_that_was_damaged_is_told(project, monkeypatch):
    whole = paths.MANIFEST.read_bytes()
    paths.MANIFEST.write_bytes(whole.replace(b"32", b"23", 1))
    try:
        with pytest.raises(UserError, match=r"manifest\.csv is not what prepare wrote: delete it and run `dvc repro`"):
            properties.manifest()
    finally:
        paths.MANIFEST.write_bytes(whole)
