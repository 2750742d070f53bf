"""Networks on OpenVINO: several times as fast on a processor as in Keras, and ready in a fraction of a second."""

import functools
import importlib.util
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

# Batches of inputs to batches of the network's outputs, in the same order.
Run = Callable[[Iterable[np.ndarray]], Iterator[list[np.ndarray]]]


def is_here() -> bool:
    return importlib.util.find_spec("openvino") is not None


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
