"""What computes frozen features: Keras itself, or OpenVINO, which is several times faster on a processor."""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import keras
import numpy as np

from catdog.engines import backend, openvino
from catdog.training.loop.precision import gpu_capabilities

# Batches of pixels, uint8 (n, size, size, 3), to batches of features, float32, in the same order.
Engine = Callable[[Iterable[np.ndarray]], Iterator[np.ndarray]]


def name() -> str:
    """What computes here: on a GPU Keras is the fastest; on a CPU OpenVINO is, above all in bfloat16."""
    return "openvino" if not gpu_capabilities() and openvino.is_here() else "keras"


def _keras_engine(model: keras.Model, *, image_size: int, precision: str) -> Engine:
    last = model.layers[-1].name

    def with_precision(layer: keras.Layer) -> keras.Layer:
        # The average over the last map stays in float32, else the features lose digits that the map still has.
        policy = "float32" if layer.name == last else precision
        return type(layer).from_config({**layer.get_config(), "dtype": policy})

    network = keras.models.clone_model(model, clone_function=with_precision)
    network.set_weights(model.get_weights())
    network.jit_compile = backend.compiles()  # of TensorFlow: slower on a CPU, and a minute of compiling on a GPU

    def run(batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for batch in batches:
            yield np.asarray(network.predict_on_batch(batch.astype(np.float32) / 127.5 - 1), np.float32)

    return run


class OpenVinoEngine:
    """It can be pickled, to compute on another machine."""

    def __init__(self, run: openvino.Program) -> None:
        self._run = run

    def __call__(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        return (features for [features] in self._run(batches))

    def once(self, batch: np.ndarray) -> np.ndarray:
        """The features of one batch; for any number of threads."""
        [features] = self._run.once(batch)
        return features


def export(model: keras.Model, path: Path) -> None:
    """Write a network from pixels to features for OpenVINO."""
    openvino.export(model, path, dtype="uint8")


def _openvino_engine(model: keras.Model, *, image_size: int, precision: str) -> Engine:
    pixels = keras.Input((image_size, image_size, 3))
    whole = keras.Model(pixels, model(keras.layers.Rescaling(1 / 127.5, offset=-1)(pixels), training=False))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.xml"
        openvino.exported(export, whole, path)
        network = openvino.read(path)
    return OpenVinoEngine(openvino.Program(network, bfloat16=precision == "mixed_bfloat16", apart=True))


BUILD: dict[str, Callable[..., Engine]] = {"keras": _keras_engine, "openvino": _openvino_engine}
