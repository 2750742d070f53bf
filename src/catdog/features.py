"""Frozen features: each photograph through a network once, kept on disk, and never computed again.

`FEATURES/<weights, size, engine, precision, recipe>/` holds Arrow files of rows (photograph, features). Rows are only
ever added, in files that appear complete, so a run that was killed goes on where it stopped. A photograph is known by
the sha256 of its JPEG: it is found again in any shard, and a variant, or a copy of another size, is another one. What
no shard holds any more stays until the folder is removed, which is safe at any time.
"""

import hashlib
import importlib.util
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import keras
import numpy as np
import pyarrow as pa

from catdog import parallel, paths, photos
from catdog.errors import UserError
from catdog.precision import gpu_capabilities, resolve
from catdog.progress import track
from catdog.shards import Shard

T = TypeVar("T")
# Batches of pixels, uint8 (at most n, size, size, 3), to batches of features, float32, in the same order.
Engine = Callable[[Iterable[np.ndarray]], Iterator[np.ndarray]]

_RECIPE = 1  # raise it when pixels are turned into features in another way: what was kept before is then left aside
_OPENVINO_PADDING = {"same": "same_upper", "valid": "valid"}
_ROWS_PER_FILE = 256  # what a kill can cost
_FULL_FILE = 4096  # rows from which a file is left as it is; smaller ones are put together


def extract(
    shards: list[Shard],
    *,
    model: keras.Model,
    weights_digest: str,
    image_size: int,
    precision: str = "auto",
    batch_size: int = 16,
    folder: Path = paths.FEATURES,
) -> list[np.ndarray]:
    """The features of every photograph of every shard: float32 (photographs, features), rows in the shard's order.

    Args:
        model: takes float (n, `image_size`, `image_size`, 3) in -1..1; gives (n, features). For the OpenVINO engine,
            of the layers that Xception is made of.
        weights_digest: what tells the weights of `model` from others.
        precision: `float32`, `mixed_bfloat16`, or `auto`.
        batch_size: photographs per step; more than 16 gains nothing on a CPU.

    Raises:
        UserError: a photograph can't be decoded.
    """
    engine = engine_name()
    precision = resolve(precision)
    store = folder / f"{weights_digest[:16]}-{image_size}-{engine}-{precision}-{_recipe()}"
    photographs = [[hashlib.sha256(shard.jpeg(i)).digest() for i in range(len(shard))] for shard in shards]
    known = _load(store)
    missing = {
        photograph: (shard, index)
        for shard, row in zip(shards, photographs, strict=True)
        for index, photograph in enumerate(row)
        if photograph not in known
    }
    if missing:
        build = _openvino_engine if engine == "openvino" else _keras_engine
        run = build(model, image_size=image_size, precision=precision, batch_size=batch_size)
        rows = _compute(list(missing.values()), engine=run, size=image_size, batch_size=batch_size)
        what = f"features ({engine}, {precision})"
        for chunk in _chunks(track(zip(missing, rows, strict=True), total=len(missing), what=what), _ROWS_PER_FILE):
            _write(store, chunk)
    _put_together(store)
    known = _load(store)
    width = model.output_shape[-1]
    return [np.array([known[photograph] for photograph in row], np.float32).reshape(-1, width) for row in photographs]


def engine_name() -> str:
    """What computes here: on a GPU Keras is the fastest; on a CPU OpenVINO is, above all in bfloat16."""
    return "openvino" if not gpu_capabilities() and importlib.util.find_spec("openvino") else "keras"


def _recipe() -> str:
    """Tells whether photographs were turned into pixels as they are now: changed decoding changes features."""
    picture = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8).repeat(16, axis=0).repeat(16, axis=1)
    jpeg = photos.encode(picture)
    made = b"".join(photos.pixels(jpeg, size).tobytes() for size in (40, 71, 150))
    return hashlib.sha256(made + bytes([_RECIPE])).hexdigest()[:8]


# Computing


def _compute(
    photographs: list[tuple[Shard, int]], *, engine: Engine, size: int, batch_size: int
) -> Iterator[np.ndarray]:
    """The features of each photograph, in order, while the next ones are decoded on threads."""

    def decode(batch: list[tuple[Shard, int]]) -> np.ndarray:
        return np.stack([_pixels(shard, index, size) for shard, index in batch])

    with ThreadPoolExecutor(parallel.cores()) as pool:
        for features in engine(_ahead(pool, decode, _chunks(photographs, batch_size))):
            yield from features


def _pixels(shard: Shard, index: int, size: int) -> np.ndarray:
    try:
        return photos.pixels(shard.jpeg(index), size)
    except (photos.Unreadable, OSError) as error:
        where = f"{shard.path}: photograph {index} ({shard.sources[index]})"
        raise UserError(f"{where} can't be decoded: {error}; run `dvc repro --force prepare`") from None


def _ahead(pool: ThreadPoolExecutor, function: Callable[[T], np.ndarray], items: Iterable[T]) -> Iterator[np.ndarray]:
    """`function` of each item, in order, with two items per core under way or ready."""
    pending: deque[Future[np.ndarray]] = deque()
    for item in items:
        pending.append(pool.submit(function, item))
        if len(pending) > 2 * parallel.cores():
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


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


# Keeping


def _load(store: Path) -> dict[bytes, np.ndarray]:
    """The features kept in `store` by photograph: rows of memory-mapped arrays."""
    known: dict[bytes, np.ndarray] = {}
    for path, batches in _files(store):
        rows = {
            photograph: row
            for batch in batches
            for photograph, row in zip(batch["photograph"].to_pylist(), _matrix(batch), strict=True)
        }
        if rows.keys() <= known.keys():  # left by a kill after it had been put together with others
            path.unlink()
        known |= rows
    return known


def _files(store: Path) -> Iterator[tuple[Path, list[pa.RecordBatch]]]:
    """The files of `store`, the largest first. One that can't be read is removed: its rows will be computed again."""
    for path in sorted(store.glob("*.arrow"), key=lambda path: (-path.stat().st_size, path)):
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            if reader.schema.names != ["photograph", "features"]:
                raise pa.ArrowInvalid("it has other columns")
            batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        except (pa.ArrowInvalid, OSError) as error:
            print(f"features: {path} is damaged and computed again ({str(error).splitlines()[0]})", file=sys.stderr)
            path.unlink()
            continue
        yield path, batches


def _matrix(batch: pa.RecordBatch) -> np.ndarray:
    return batch["features"].flatten().to_numpy(zero_copy_only=True).reshape(len(batch), -1)


def _write(store: Path, rows: list[tuple[bytes, np.ndarray]]) -> None:
    photographs, features = zip(*rows, strict=True)
    width = len(features[0])
    columns = {
        "photograph": pa.array(photographs, pa.binary(32)),
        "features": pa.FixedSizeListArray.from_arrays(np.concatenate(features), width),
    }
    _save(store, [pa.record_batch(columns)])


def _save(store: Path, batches: list[pa.RecordBatch]) -> None:
    """Write a file of `batches`, named by its photographs; it appears only when complete."""
    store.mkdir(parents=True, exist_ok=True)
    photographs = b"".join(photograph for batch in batches for photograph in batch["photograph"].to_pylist())
    path = store / f"{hashlib.sha256(photographs).hexdigest()[:16]}.arrow"
    part = path.with_suffix(".part")
    with part.open("wb") as sink:
        with pa.ipc.new_file(sink, batches[0].schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
        sink.flush()
        os.fsync(sink.fileno())
    part.replace(path)


def _put_together(store: Path) -> None:
    """Make one file of all small ones: many files are slow to push and pull. A kill at any point loses nothing."""
    for part in store.glob("*.part"):
        part.unlink()
    small = [(path, batches) for path, batches in _files(store) if sum(map(len, batches)) < _FULL_FILE]
    if len(small) < 2:
        return
    _save(store, [batch for _, batches in small for batch in batches])
    for path, _ in small:
        path.unlink()
