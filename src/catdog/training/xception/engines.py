"""What computes frozen features: Keras itself, or OpenVINO, which is several times faster on a processor."""

import importlib.util
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np

from catdog.training.loop.precision import gpu_capabilities

# Batches of pixels, uint8 (at most n, size, size, 3), to batches of features, float32, in the same order.
Engine = Callable[[Iterable[np.ndarray]], Iterator[np.ndarray]]

_BATCH = 16  # more gains nothing on a processor
_OPENVINO_PADDING = {"same": "same_upper", "valid": "valid"}


def name() -> str:
    """What computes here: on a GPU Keras is the fastest; on a CPU OpenVINO is, above all in bfloat16."""
    return "openvino" if not gpu_capabilities() and importlib.util.find_spec("openvino") else "keras"


def _keras_engine(model: keras.Model, *, image_size: int, precision: str, batch_size: int) -> Engine:
    last = model.layers[-1].name

    def with_precision(layer: keras.Layer) -> keras.Layer:
        # The average over the last map stays in float32, else the features lose digits that the map still has.
        policy = "float32" if layer.name == last else precision
        return type(layer).from_config({**layer.get_config(), "dtype": policy})

    network = keras.models.clone_model(model, clone_function=with_precision)
    network.set_weights(model.get_weights())
    network.jit_compile = False  # several times slower on a CPU, and a minute of compiling on a GPU

    def run(batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for batch in batches:
            yield np.asarray(network.predict_on_batch(batch.astype(np.float32) / 127.5 - 1), np.float32)

    return run


def _openvino_engine(model: keras.Model, *, image_size: int, precision: str, batch_size: int) -> Engine:
    # OpenVINO reports its import to its maker, and leaves an id in the home folder, where this package is to be had.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    compiled = openvino.Core().compile_model(
        _openvino_graph(model, shape=(batch_size, image_size, image_size, 3)),
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "mixed_bfloat16" else "f32",
            "PERFORMANCE_HINT": "THROUGHPUT",
        },
    )
    requests = [
        compiled.create_infer_request() for _ in range(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
    ]

    def finish(request: Any, rows: int) -> np.ndarray:
        request.wait()
        return request.get_output_tensor().data[:rows].copy()

    def run(batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        free, busy = list(requests), deque[tuple[Any, int]]()
        for batch in batches:
            if not free:
                request, rows = busy.popleft()
                yield finish(request, rows)
                free.append(request)
            request = free.pop()
            full = np.zeros((batch_size, *batch.shape[1:]), np.uint8)
            full[: len(batch)] = batch
            request.start_async([full])
            busy.append((request, len(batch)))
        while busy:
            yield finish(*busy.popleft())

    return run


def _openvino_graph(model: keras.Model, *, shape: tuple[int, ...]) -> Any:
    """`model` behind its preprocessing as an OpenVINO graph, from uint8 pixels of `shape` to features.

    Written out here since OpenVINO's own converter reports its use, and the way over ONNX needs more packages.
    """
    import openvino
    from openvino import opset13 as ops

    def convolve(x: Any, kernel: np.ndarray, layer: Any, *, grouped: bool = False) -> Any:
        if grouped:  # height, width, channel, 1 -> channel, 1, 1, height, width
            function, kernel = ops.group_convolution, kernel.transpose(2, 3, 0, 1)[:, None]
        else:  # height, width, in, out -> out, in, height, width
            function, kernel = ops.convolution, kernel.transpose(3, 2, 0, 1)
        steps, pad = list(layer.strides), _OPENVINO_PADDING[layer.padding]
        return function(x, np.ascontiguousarray(kernel), steps, [0, 0], [0, 0], [1, 1], auto_pad=pad)

    def normalise(x: Any, layer: Any) -> Any:
        gamma, beta, mean, variance = (w[None, :, None, None] for w in layer.get_weights())
        scale = gamma / np.sqrt(variance + np.float32(layer.epsilon))
        return ops.add(ops.multiply(x, scale), beta - mean * scale)

    def pool(x: Any, layer: Any) -> Any:
        steps, pad = list(layer.strides), _OPENVINO_PADDING[layer.padding]
        return ops.max_pool(x, steps, [1, 1], [0, 0], [0, 0], list(layer.pool_size), auto_pad=pad).output(0)

    pixels = ops.parameter(list(shape), np.uint8)
    scaled = ops.subtract(ops.divide(ops.convert(pixels, "f32"), np.float32(127.5)), np.float32(1))
    nodes: dict[int, Any] = {}
    for layer in model.layers:
        inputs = layer.input if isinstance(layer.input, list) else [layer.input]
        x = [nodes.get(id(tensor)) for tensor in inputs]
        match layer:
            case keras.layers.InputLayer():
                node = ops.transpose(scaled, np.array([0, 3, 1, 2]))
            case keras.layers.Conv2D():
                [kernel] = layer.get_weights()
                node = convolve(x[0], kernel, layer)
            case keras.layers.SeparableConv2D():
                depthwise, pointwise = layer.get_weights()
                node = convolve(convolve(x[0], depthwise, layer, grouped=True), pointwise, layer)
            case keras.layers.BatchNormalization():
                node = normalise(x[0], layer)
            case keras.layers.Activation(activation=keras.activations.relu):
                node = ops.relu(x[0])
            case keras.layers.MaxPooling2D():
                node = pool(x[0], layer)
            case keras.layers.Add():
                node = ops.add(*x)
            case keras.layers.GlobalAveragePooling2D():
                node = ops.reduce_mean(x[0], np.array([2, 3]), False)
            case _:
                raise ValueError(f"layers should be those of Xception. Received: {layer}")
        nodes[id(layer.output)] = node
    return openvino.Model([ops.result(nodes[id(model.output)])], [pixels])


BUILD: dict[str, Callable[..., Engine]] = {"keras": _keras_engine, "openvino": _openvino_engine}
