"""Where models fail: Grad-CAM against closed forms, and sheets and tables that name the right photographs."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from training_fixtures import noise, params, small_xception

from catdog.answers import asking, gradcam
from catdog.base import paths
from catdog.evaluation import failures
from catdog.photographs import photos
from catdog.pictures import sheets
from catdog.pictures.style import NAMES
from catdog.training.cnn import network as cnn_network

P = params().train_cnn


def linear(weights):
    """A network whose last maps are the pixels' own channels, and whose verdict is a weighted sum of their averages."""
    inputs = keras.Input((4, 4, 3))
    x = layers.GlobalAveragePooling2D(name="average")(layers.Activation("linear")(inputs))
    outputs = layers.Dense(1, activation="sigmoid", name="probability")(layers.Dropout(0.1)(x))
    model = keras.Model(inputs, outputs)
    model.set_weights([np.array(weights, np.float32)[:, None], np.zeros(1, np.float32)])
    return model


@pytest.fixture(params=["Keras", "OpenVINO"])
def by(request, tmp_path):
    """A network of a Keras model, as either engine computes it."""

    def build(model):
        if request.param == "Keras":
            return asking.by_keras(model)
        asking.export(model, tmp_path)
        return asking.by_openvino(tmp_path, bfloat16=False)

    return build


def test_evidence_is_the_weighted_sum_that_a_linear_verdict_makes_of_the_maps(by):
    pixels = np.random.default_rng(0).integers(0, 255, (3, 4, 4, 3), dtype=np.uint8)
    weights = [0.2, -0.1, 0.05]  # large enough for a sigmoid that is 1 to the last digit of float32
    asked = by(linear(weights)).ask(pixels)
    assert asked.features == pytest.approx(pixels.mean(axis=(1, 2)), rel=1e-5)
    assert asked.logits == pytest.approx(pixels.mean(axis=(1, 2)) @ np.array(weights), rel=1e-4)
    assert asked.evidence == pytest.approx(pixels @ np.array(weights), rel=1e-4, abs=1e-3)
    for second in (True, False):
        expected = np.maximum(pixels @ np.array(weights) * (1 if second else -1), 0)
        most = expected.max(axis=(1, 2), keepdims=True)
        heat = gradcam.heat(asked.evidence, second=np.full(3, second))
        assert heat == pytest.approx(expected / np.where(most > 0, most, 1), abs=1e-4)


def test_what_speaks_for_neither_class_gives_no_heat(by):
    asked = by(linear([0, 0, 0])).ask(np.full((2, 4, 4, 3), 100, np.uint8))
    assert not gradcam.heat(asked.evidence, second=np.array([True, False])).any()


def test_the_evidence_of_both_networks_is_that_of_a_backward_pass(by):
    pixels = np.random.default_rng(1).integers(0, 255, (9, 24, 24, 3), dtype=np.uint8)
    keras.utils.set_random_seed(1)
    cnn = cnn_network.cnn(P, image_size=24)
    average = cnn.get_layer("average")
    verdict = keras.Model(average.output, cnn.output)
    assert_backward(by(cnn).ask(pixels), keras.Model(cnn.input, average.input)(pixels.astype(np.float32)), verdict)
    xception = small_xception()
    base, head = xception.get_layer("xception"), xception.layers[-1]
    maps = keras.Model(base.input, base.layers[-1].input)(pixels / np.float32(127.5) - 1)
    assert_backward(by(xception).ask(pixels), maps, head)


def assert_backward(asked, maps, verdict):
    """Grad-CAM as the paper has it: each map weighed by the mean of its gradients, by TensorFlow."""
    with tf.GradientTape() as tape:
        tape.watch(maps)
        probability = verdict(tf.reduce_mean(maps, axis=(1, 2)))
        logit = tf.math.log(probability) - tf.math.log1p(-probability)
    weights = tf.reduce_mean(tape.gradient(logit, maps), axis=(1, 2), keepdims=True)
    expected = tf.reduce_sum(weights * maps, axis=3).numpy()
    assert np.abs(expected).max() > 0
    places = maps.shape[1] * maps.shape[2]
    assert asked.evidence == pytest.approx(places * expected, abs=1e-3 * places * float(np.abs(expected).max()))
    assert asked.logits == pytest.approx(logit.numpy()[:, 0], abs=1e-3)


def test_an_overlay_leaves_what_is_cold_as_it_is():
    image = np.random.default_rng(2).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    assert np.array_equal(gradcam.overlay(image, np.zeros((4, 4))), image)
    hot = gradcam.overlay(image, np.ones((4, 4)))
    assert hot.shape == image.shape
    assert not np.array_equal(hot, image)


@pytest.fixture
def failed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shard = noise(tmp_path / "test.arrow", 8, seed=0)  # labels 0, 1, 0, 1, ...
    probabilities = {
        "cnn": np.array([0.1, 0.9, 0.8, 0.9, 0.1, 0.4, 0.1, 0.9]),  # wrong on 2 and 5
        "xception": np.array([0.1, 0.9, 0.1, 0.9, 0.1, 0.02, 0.99, 0.9]),  # wrong on 5 and 6
    }
    rng = np.random.default_rng(3)
    evidence = {name: rng.normal(size=(8, 4, 4)) for name in NAMES}
    return failures.Failures(shard, probabilities, evidence, ["cat", "dog"], 0.5)


def test_the_table_has_every_mistake_the_surest_first(failed):
    table = failures.table(failed)
    assert table["source"].tolist() == ["6.jpg", "5.jpg", "2.jpg"]
    assert table["wrong"].tolist() == ["xception", "cnn xception", "cnn"]
    assert table["label"].tolist() == ["cat", "dog", "cat"]
    assert table["xception"].tolist() == [0.99, 0.02, 0.1]


def test_sheets_show_mistakes_and_disagreements(failed, monkeypatch):
    seen = {}
    draw = sheets.block_sheet

    def block_sheet(blocks, path, **options):
        seen[path.stem] = ([block.captions[0] for block in blocks], options["title"])
        draw(blocks, path, **options)

    monkeypatch.setattr(sheets, "block_sheet", block_sheet)
    pictures = failures.draw(failed)
    assert all(path.is_file() for path in pictures.values())
    assert seen["mistakes_cnn"] == (["2.jpg", "5.jpg"], "CNN: 2 mistakes, the surest first")
    assert seen["mistakes_xception"] == (["6.jpg", "5.jpg"], "Xception: 2 mistakes, the surest first")
    assert seen["disagreements"] == (
        ["2.jpg", "6.jpg"],
        "Disagreements: Xception alone right on 1, CNN alone right on 1",
    )
    assert paths.MISTAKES.read_text().count("\n") == 4


def test_beside_a_mistake_stands_what_spoke_for_the_verdict_of_each_model(failed, monkeypatch):
    drawn = {}
    monkeypatch.setattr(sheets, "block_sheet", lambda blocks, path, **_: drawn.update({path.stem: blocks}))
    failures.draw(failed)
    block = drawn["mistakes_cnn"][0]  # of the third photograph: a dog for the CNN, a cat for Xception
    image = photos.decode(failed.shard.jpeg(2))
    assert np.array_equal(block.pictures[0], image)
    for place, (name, sign) in enumerate({"cnn": 1, "xception": -1}.items(), start=1):
        heat = np.maximum(sign * failed.evidence[name][2], 0)
        assert np.array_equal(block.pictures[place], gradcam.overlay(image, heat / heat.max()))
    assert block.captions[1:] == ["CNN\ndog, 80.0 %", "Xception\ncat, 90.0 %"]


def test_models_without_a_mistake_have_empty_sheets(failed):
    failed.probabilities.update({name: failed.shard.labels.astype(float) for name in NAMES})
    assert all(path.is_file() for path in failures.draw(failed).values())
    assert failures.table(failed).empty
