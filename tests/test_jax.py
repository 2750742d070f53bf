"""Keras on JAX: the whole pipeline without TensorFlow, the same training, one device or several."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import training_fixtures
import yaml
from jax_fixtures import assert_same, ended, environment, needs_jax, started, train
from training_fixtures import REPOSITORY, params

from catdog.answers.classifier import probability
from catdog.training.cnn import recipe

pytestmark = [needs_jax, pytest.mark.slow]

# All stages in one process, then the registered models, opened and asked as `catdog serve` does.
PIPELINE = f"""
    import json, runpy, sys
    from pathlib import Path

    for stage in ("prepare", "augment", "train_cnn", "train_xception", "evaluate"):
        runpy.run_path(f"{REPOSITORY}/src/{{stage}}.py")["main"]()

    import mlflow
    from catdog.photographs import shards
    from catdog.base import paths
    from catdog.tracking import registry, served_form, store, versions

    client = store.connect()
    test = shards.Shard(paths.TEST)
    answers = {{}}
    for name, registered in versions.NAMES.items():
        fetched = registry.fetch(client, f"models:/{{registered}}/1", Path(f"fetched_{{name}}"))
        served = served_form.answering(fetched)
        said = served.answer([test.jpeg(row) for row in range(len(test))])
        run = client.get_run(json.loads(Path(f"models/{{name}}/run.json").read_text())["run_id"])
        answers[name] = {{
            "probabilities": [each["probability"] for each in said],
            "labels": test.labels.tolist(),
            "engine": served._classifier.network.engine,
            "needs": (fetched / "requirements.txt").read_text().split(),
            "tags": run.data.tags,
        }}
    modules = [name for name in ("tensorflow", "jax", "keras") if name in sys.modules]
    Path("said.json").write_text(json.dumps({{"answers": answers, "modules": modules}}))
"""


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> Path:
    """A project in which all stages have run, on a few drawings and a Xception of random weights."""
    folder = tmp_path_factory.mktemp("pipeline")
    keras.utils.set_random_seed(3)
    shape = (71, 71, 3)
    xception = keras.applications.Xception(include_top=False, weights=None, pooling="avg", input_shape=shape)
    xception.save_weights(folder / "own.weights.h5")
    p = params(
        prepare={"source": "drawn", "drawings": 160, "image_size": 96},
        train_cnn={"filters": [8, 16], "image_sizes": [24, 32], "epochs": [3, 5], "learning_rate": 0.01},
        train_xception={"weights": str(folder / "own.weights.h5"), "fine_tune_blocks": 1, "fine_tune_epochs": 1},
    )
    (folder / "params.yaml").write_text(yaml.safe_dump(p.model_dump()))
    for name in ("dvc.yaml", "src"):
        (folder / name).symlink_to(REPOSITORY / name)
    (folder / "data/raw").mkdir(parents=True)
    (folder / "data/corrections.csv").write_bytes((REPOSITORY / "data/corrections.csv").read_bytes())
    ended(started(folder, PIPELINE, env=environment()))
    return folder


def test_the_whole_pipeline_runs_and_nothing_imports_tensorflow(pipeline):
    said = json.loads((pipeline / "said.json").read_text())
    assert said["modules"] == ["jax", "keras"]
    evaluation = json.loads((pipeline / "metrics/evaluation.json").read_text())
    for name, answers in said["answers"].items():
        probabilities, labels = np.array(answers["probabilities"]), np.array(answers["labels"])
        assert ((probabilities >= 0.5) == labels).mean() == pytest.approx(evaluation[name]["accuracy"])
        assert answers["engine"].startswith("OpenVINO")
        assert evaluation[name]["agreement_largest_difference"] < 0.05  # Keras, in float32, on JAX
        assert "version.jax" in answers["tags"]
        assert "version.tensorflow" not in answers["tags"]
        assert {"jax", "keras", "openvino"} <= {line.split("==")[0] for line in answers["needs"]}
        assert "tensorflow" not in {line.split("==")[0] for line in answers["needs"]}


def test_what_was_trained_on_jax_answers_the_same_on_tensorflow(pipeline):
    said = json.loads((pipeline / "said.json").read_text())["answers"]
    code = """
        import json
        import numpy as np
        from catdog.answers import asking, form, inference
        from catdog.base import paths
        from catdog.photographs import shards
        test = shards.Shard(paths.TEST)
        print()
        for name in ("cnn", "xception"):
            model = form.read(paths.model(name) / paths.MODEL_FILE)
            network = asking.by_keras(model, mirrored=name == "cnn")
            print(json.dumps(inference.on_shard(test, network, side=model.input_shape[1]).logits.tolist()))
    """
    process = started(pipeline, code, env=environment(backend="tensorflow"))
    out = ended(process).strip().splitlines()
    logits = [json.loads(line) for line in out if line.startswith("[")]
    evaluation = json.loads((pipeline / "metrics/evaluation.json").read_text())
    for name, of_keras in zip(said, logits, strict=True):
        expected = probability(np.array(of_keras), evaluation[name]["temperature"])
        np.testing.assert_allclose(said[name]["probabilities"], expected, atol=0.05)  # served in bfloat16, perhaps


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with weights for the tiny CNN to start with."""
    folder = tmp_path_factory.mktemp("jax")
    np.savez(folder / "start.npz", *recipe.compiled(params(), photographs=20).get_weights())
    return folder


def test_jax_trains_as_tensorflow_does(folder):
    """From the same weights, without dropout, whose random numbers are each backend's own."""
    theirs = train(folder / "tensorflow", "whole", dropout=0, start="../start.npz", backend="tensorflow")
    ours = train(folder / "jax", "whole", dropout=0, start="../start.npz")
    assert theirs["tensorflow"]
    assert not ours["tensorflow"]
    assert_same(ours, theirs, within=2e-3)
    assert ours["history"]["train_loss"][-1] < 0.9 * ours["history"]["train_loss"][0]


@pytest.fixture(scope="module")
def one(folder) -> dict:
    """A training on one device."""
    return train(folder / "one", "whole", strategy="one", devices=4)


def test_four_devices_train_as_one_does(folder, one):
    four = train(folder / "four", "whole", devices=4)
    assert (one["devices"], four["devices"]) == (1, 4)
    assert_same(four, one, within=1e-3)


def test_a_training_on_four_devices_goes_on_after_a_kill(folder, one):
    train(folder / "killed", "whole", devices=4, after=(4, 1))
    assert (folder / "killed" / training_fixtures.CHECKPOINT).exists()
    again = train(folder / "killed", "whole", devices=4)
    assert again["devices"] == 4
    assert_same(again, one, within=1e-3)
