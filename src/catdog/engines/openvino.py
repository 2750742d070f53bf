"""Networks on OpenVINO: several times as fast on a processor as in Keras, and ready in a fraction of a second."""

import importlib.util
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

# Batches of inputs (at most n rows) to batches of the network's outputs, in the same order.
Run = Callable[[Iterable[np.ndarray]], Iterator[list[np.ndarray]]]


def is_here() -> bool:
    return importlib.util.find_spec("openvino") is not None


def export(model: Any, path: Path, *, dtype: str = "float32") -> None:
    """Write a Keras model as an OpenVINO network: `path`, which ends in .xml, and its weights beside it in .bin.

    Args:
        dtype: of the network's input; it is cast to what the model takes.
    """
    _openvino()
    import keras

    inputs = keras.Input(model.input_shape[1:], dtype=dtype)
    cast = keras.Model(inputs, model(keras.ops.cast(inputs, "float32"), training=False))
    cast.export(str(path), format="openvino", verbose=False)


def read(path: Path) -> Any:
    """The network of `export`, not yet compiled; its files are not needed after that."""
    return _openvino().Core().read_model(path)


def compile(network: Any, *, bfloat16: bool, batch_size: int | None = None, apart: bool = False) -> Run:
    """A network of `read`, ready to run.

    Args:
        batch_size: rows of a batch at most, where most batches have as many; the network is fitted to it. In bfloat16
            its outputs then differ in the third digit from those of one that takes batches of any size (None).
        apart: each core takes its own batch, and what else the machine does holds it up less; it is so of fitted
            networks too. Else all cores do each batch together, so that one is done soonest.
    """
    if batch_size:
        network = network.clone()
        [given] = network.inputs
        network.reshape({given: [batch_size, *given.partial_shape[1:]]})
    hints = {
        "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
        "PERFORMANCE_HINT": "THROUGHPUT" if batch_size or apart else "LATENCY",
    }
    compiled = _openvino().Core().compile_model(network, "CPU", hints)
    # At least two, so that one computes while the other's results are taken.
    count = max(2, compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
    requests = [compiled.create_infer_request() for _ in range(count)]

    def finish(request: Any, rows: int) -> list[np.ndarray]:
        request.wait()
        return [output.data[:rows].copy() for output in request.output_tensors]

    def run(batches: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
        free, busy = list(requests), deque[tuple[Any, int]]()
        try:
            for batch in batches:
                if not free:
                    request, rows = busy.popleft()
                    free.append(request)
                    yield finish(request, rows)
                request = free.pop()
                request.start_async([_filled(batch, batch_size or len(batch))])
                busy.append((request, len(batch)))
            while busy:
                yield finish(*busy.popleft())
        finally:  # of one that is not read to its end
            for request, _ in busy:
                request.wait()

    return run


def _filled(batch: np.ndarray, rows: int) -> np.ndarray:
    if len(batch) == rows:
        return np.ascontiguousarray(batch)
    full = np.zeros((rows, *batch.shape[1:]), batch.dtype)
    full[: len(batch)] = batch
    return full


def _openvino() -> Any:
    # It reports its import to its maker, and leaves an id in the home folder, where this package is to be had.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino
