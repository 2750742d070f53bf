"""Models written for use elsewhere: they answer as the model does, or nothing is written."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from registry_fixtures import P
from training_fixtures import noise

from catdog.answers import inference
from catdog.base import paths
from catdog.base.errors import UserError
from catdog.commands import exporting
from catdog.photographs import photos
from catdog.tracking import registry

pytest_plugins = ["registry_fixtures"]


@pytest.fixture
def version(store, monkeypatch) -> str:
    """A registered model beside test photographs."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.client.tracking_uri)
    paths.TEST.parent.mkdir(parents=True)
    noise(paths.TEST, 40, seed=1)
    store.register("cnn")
    return "catdog-cnn/1"


@pytest.mark.parametrize("kind", exporting.FORMATS)
def test_what_is_written_answers_as_the_model(store, version, kind, tmp_path):
    out = tmp_path / f"out/net{exporting.FORMATS[kind].ending}"
    told = exporting.export(P, version, kind, out)
    said = json.loads(out.with_suffix(".json").read_text())
    assert f"{said['test']['same_class']} of 40" in told
    model, test = registry.load(store.client, version), exporting.Shard(paths.TEST)
    pixels = np.stack([photos.pixels(test.jpeg(row), model.side) for row in range(40)])
    served = model.probabilities(inference.on_shard(test, model.network, side=model.side))
    elsewhere = exporting.FORMATS[kind].run(out)(pixels)
    assert elsewhere.shape == (40, 1)
    assert np.ptp(served) > 0.01  # otherwise any answer would do
    assert np.abs(elsewhere[:, 0] - served).max() < 1e-4
    assert said["test"]["largest_difference"] == pytest.approx(np.abs(elsewhere[:, 0] - served).max(), abs=1e-6)
    assert (said["model"], said["classes"], said["input"]["shape"][1]) == (version, ["cat", "dog"], model.side)


def test_a_network_that_answers_otherwise_is_not_written(version, monkeypatch, tmp_path):
    out = tmp_path / "net.xml"
    write = exporting._write_openvino
    other = exporting.FORMATS["openvino"]._replace(write=lambda model, path: write(opposite(model), path))
    monkeypatch.setitem(exporting.FORMATS, "openvino", other)
    with pytest.raises(UserError, match=r"answers otherwise than the model: \d+ of 40 test photographs get another"):
        exporting.export(P, version, "openvino", out)
    assert not list(tmp_path.glob("net*"))


def opposite(model: Any) -> Any:
    import keras

    pixels = keras.Input(model.input_shape[1:], dtype="uint8")
    return keras.Model(pixels, 1 - model(pixels))


def test_missing_packages_are_named_with_the_extra_that_has_them(version, monkeypatch, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if "onnx" in name else find(name, *rest))
    with pytest.raises(UserError, match=r"onnx needs tf2onnx, onnx, onnxruntime: install the extra `export`"):
        exporting.export(P, version, "onnx", tmp_path / "net.onnx")


def test_the_ending_says_the_format(version):
    with pytest.raises(UserError, match=r"net\.onnx should end in \.tflite"):
        exporting.export(P, version, "litert", Path("net.onnx"))


def test_what_is_asked_for_is_what_was_registered(store, version, tmp_path):
    location = Path(store.client.get_model_version("catdog-cnn", "1").source.removeprefix("models:/"))
    logged = Path(store.client.get_logged_model(str(location)).artifact_location)
    file = next(logged.rglob("model.keras"))
    file.write_bytes(file.read_bytes() + b"0")
    with pytest.raises(UserError, match="is not what was logged"):
        exporting.export(P, version, "openvino", tmp_path / "net.xml")
    assert not list(tmp_path.glob("net*"))
