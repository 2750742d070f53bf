"""Networks on OpenVINO: several times as fast on a processor as in Keras, and ready in a fraction of a second."""

import functools
import importlib.util
import os
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from catdog.base.errors import UserError, first_line
from catdog.engines import backend, processor


def is_here() -> bool:
    return importlib.util.find_spec("openvino") is not None


def exported(export: Callable[[Any, Path], None], model: Any, path: Path) -> None:
    """`export(model, path)`, which is one of ours and exports by the function below, with any backend of Keras.

    From JAX it would take TensorFlow. So there a process does it whose Keras computes with OpenVINO itself.

    Raises:
        UserError: that failed.
    """
    if backend.is_tensorflow():
        export(model, path)
        return
    code = (
        f"import sys, pathlib, keras; from {export.__module__} import {export.__name__} as export; "
        "export(keras.saving.load_model(sys.argv[1], compile=False), pathlib.Path(sys.argv[2]))"
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.keras"
        model.save(file)
        library = str(Path(__file__).parents[2])
        done = subprocess.run(
            [sys.executable, "-c", code, str(file), str(path.resolve())],
            env={**os.environ, "KERAS_BACKEND": "openvino", "PYTHONPATH": library},
            capture_output=True,
            text=True,
        )
    if done.returncode:
        problem = first_line(UserError("\n".join(reversed(done.stderr.splitlines()))))
        raise UserError(f"the network can't be written for OpenVINO: {problem}")


def export(model: Any, path: Path, *, dtype: str = "float32") -> None:
    """Write a Keras model as an OpenVINO network: `path`, which ends in .xml, and its weights beside it in .bin.

    Args:
        dtype: of the network's input; it is cast to what the model takes.
    """
    _core()  # first, so that it reports nothing
    import keras

    inputs = keras.Input(model.input_shape[1:], dtype=dtype)
    cast = keras.Model(inputs, model(keras.ops.cast(inputs, "float32"), training=False))
    cast.export(str(path), format="openvino", verbose=False)


def read(path: Path) -> Any:
    """The network of `export`, not yet compiled; its files are not needed after that."""
    return _core().read_model(path)


class Program:
    """A network of `read`, compiled: batches of its inputs, of any size, to batches of its outputs, in the same order.

    It is not fitted to a size of batch: in bfloat16 that changes the third digit, so that a photograph by itself would
    get another answer than among many. To be called by one thread at a time. Pickled, it is its files; where it arrives
    it is compiled anew, for one core.

    Args:
        apart: each core takes its own batch, and what else the machine does holds it up less. Else all cores do each
            batch together, so that one is done soonest.
        cores: at most; all by default.
    """

    def __init__(self, network: Any, *, bfloat16: bool, apart: bool = False, cores: int | None = None) -> None:
        self._network, self._bfloat16 = network, bfloat16
        hints = {
            "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
            "PERFORMANCE_HINT": "THROUGHPUT" if apart else "LATENCY",
        }
        if cores:
            hints["INFERENCE_NUM_THREADS"] = str(cores)
        compiled = _core().compile_model(network, "CPU", hints)
        # At least two, so that one computes while the other's results are taken.
        count = max(2, compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._requests = [compiled.create_infer_request() for _ in range(count)]
        self._lock = threading.Lock()

    def __call__(self, batches: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
        free, busy = list(self._requests), deque[Any]()
        try:
            for batch in batches:
                if not free:
                    free.append(busy.popleft())
                    yield _finish(free[-1])
                busy.append(free.pop())
                busy[-1].start_async([np.ascontiguousarray(batch)])
            while busy:
                yield _finish(busy.popleft())
        finally:  # of one that is not read to its end
            for request in busy:
                request.wait()

    def once(self, batch: np.ndarray) -> list[np.ndarray]:
        """The outputs for one batch; for any number of threads."""
        with self._lock:
            [outputs] = self([batch])
        return outputs

    def __reduce__(self) -> tuple:
        import openvino

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.xml"
            openvino.serialize(self._network, path)
            return _arrived, (path.read_bytes(), path.with_suffix(".bin").read_bytes(), self._bfloat16)


def _arrived(network: bytes, weights: bytes, bfloat16: bool) -> Program:
    if bfloat16 and not processor.has_bfloat16():
        raise UserError("a worker's processor has no bfloat16: its answers would differ in the third digit")
    return Program(_core().read_model(network, weights), bfloat16=bfloat16, cores=1)


def _finish(request: Any) -> list[np.ndarray]:
    request.wait()
    return [output.data.copy() for output in request.output_tensors]


@functools.cache
def _core() -> Any:
    # It reports its import to its maker, and leaves an id in the home folder, where this package is to be had.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino.Core()
