"""Networks on OpenVINO: several times as fast on a processor as in Keras, and ready in a fraction of a second."""

import functools
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from catdog.base.errors import UserError, first_line
from catdog.engines import backend

# Batches of inputs to batches of the network's outputs, in the same order.
Run = Callable[[Iterable[np.ndarray]], Iterator[list[np.ndarray]]]


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


def compile(network: Any, *, bfloat16: bool, apart: bool = False) -> Run:
    """A network of `read`, ready to run, for batches of any size.

    It is not fitted to a size: in bfloat16 that changes the third digit, so that a photograph by itself would get
    another answer than among many.

    Args:
        apart: each core takes its own batch, and what else the machine does holds it up less. Else all cores do each
            batch together, so that one is done soonest.
    """
    hints = {
        "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
        "PERFORMANCE_HINT": "THROUGHPUT" if apart else "LATENCY",
    }
    compiled = _core().compile_model(network, "CPU", hints)
    # At least two, so that one computes while the other's results are taken.
    count = max(2, compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
    requests = [compiled.create_infer_request() for _ in range(count)]

    def finish(request: Any) -> list[np.ndarray]:
        request.wait()
        return [output.data.copy() for output in request.output_tensors]

    def run(batches: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
        free, busy = list(requests), deque[Any]()
        try:
            for batch in batches:
                if not free:
                    free.append(busy.popleft())
                    yield finish(free[-1])
                busy.append(free.pop())
                busy[-1].start_async([np.ascontiguousarray(batch)])
            while busy:
                yield finish(busy.popleft())
        finally:  # of one that is not read to its end
            for request in busy:
                request.wait()

    return run


@functools.cache
def _core() -> Any:
    # It reports its import to its maker, and leaves an id in the home folder, where this package is to be had.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino.Core()
