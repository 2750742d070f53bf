"""Where models fail: Grad-CAM against closed forms, and sheets and tables that name the right photographs."""

import keras
import numpy as np
import pytest
from keras import layers
from training_fixtures import noise, params

from catdog.base import paths
from catdog.evaluation import failures, gradcam
from catdog.pictures import sheets
from catdog.pictures.style import NAMES
from catdog.training.cnn import network as cnn_network
from catdog.training.xception import network as xception_network

P = params().train_cnn


def linear(weights):
    """A network whose last maps are the pixels' own channels, and whose verdict is a weighted sum of their averages."""
    inputs = keras.Input((4, 4, 3))
    x = layers.GlobalAveragePooling2D(name="average")(layers.Activation("linear")(inputs))
    outputs = layers.Dense(1, activation="sigmoid", name="probability")(layers.Dropout(0.1)(x))
    model = keras.Model(inputs, outputs)
    model.set_weights([np.array(weights, np.float32)[:, None], np.zeros(1, np.float32)])
    return model


def test_maps_are_the_weighted_sum_that_a_linear_verdict_makes_of_them():
    pixels = np.random.default_rng(0).integers(0, 255, (3, 4, 4, 3), dtype=np.uint8)
    weights = [0.02, -0.01, 0.005]  # large enough for a sigmoid that is 1 to the last digit of float32
    for second in (True, False):
        maps = gradcam.maps(linear(weights), pixels, second=np.full(3, second))
        expected = np.maximum(pixels @ np.array(weights) * (1 if second else -1), 0)
        most = expected.max(axis=(1, 2), keepdims=True)
        assert maps == pytest.approx(expected / np.where(most > 0, most, 1), abs=1e-5)


def test_what_speaks_for_neither_class_gives_an_empty_map():
    pixels = np.full((2, 4, 4, 3), 100, np.uint8)
    assert not gradcam.maps(linear([0, 0, 0]), pixels, second=np.array([True, False])).any()


def test_both_networks_have_maps():
    pixels = np.random.default_rng(1).integers(0, 255, (9, 24, 24, 3), dtype=np.uint8)
    maps = gradcam.maps(cnn_network.cnn(P, image_size=24), pixels, second=np.ones(9, bool))
    assert maps.shape[0] == 9
    assert maps.min() >= 0
    assert maps.max() <= 1
    inputs = keras.Input((24, 24, 3))
    base = keras.Model(inputs, layers.GlobalAveragePooling2D()(layers.Conv2D(5, 3)(inputs)), name="xception")
    head = xception_network.head(params().train_xception, features=5)
    # Its root wants features that are not negative, as Xception's are.
    base.layers[1].set_weights([np.abs(w) for w in base.layers[1].get_weights()])
    both = xception_network.xception(base, head, image_size=24)
    bright = np.maximum(pixels, 200)
    assert gradcam.maps(both, bright, second=np.zeros(9, bool)).shape == (9, 22, 22)


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
    network = cnn_network.cnn(P, image_size=24)
    return failures.Failures(shard, probabilities, {"cnn": network, "xception": network}, ["cat", "dog"], 0.5)


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


def test_models_without_a_mistake_have_empty_sheets(failed):
    failed.probabilities.update({name: failed.shard.labels.astype(float) for name in NAMES})
    assert all(path.is_file() for path in failures.draw(failed).values())
    assert failures.table(failed).empty
