"""Frozen features: each photograph through a network once, kept on disk, and never computed again.

`data/features/<weights, size, engine, precision, recipe>/` holds tables with a row for each photograph. Rows are
only added, in files that appear complete, so a run that was killed goes on where it stopped. A photograph is known by
the sha256 of its JPEG, whichever shard holds it; a variant, or a copy of another size, is another photograph. Rows of
photographs that are gone stay until the folder is removed, which is safe at any time.
"""

import functools
import hashlib
import io
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple, ParamSpec

import keras
import numpy as np
import pyarrow as pa

from catdog.base import cluster, parallel, paths
from catdog.base.errors import UserError
from catdog.base.progress import track
from catdog.photographs import photos, tables
from catdog.photographs.shards import Shard
from catdog.training.loop import hosts
from catdog.training.loop.precision import resolve
from catdog.training.xception import engines

_RECIPE = 2  # raise it when pixels are turned into features in another way: what was kept before is then left aside
_ROWS_PER_FILE = 256  # what a kill can cost
_FULL_FILE = 4096  # rows from which a file is left as it is; smaller ones are put together
_P = ParamSpec("_P")


class Extracted(NamedTuple):
    """Features, and what they took."""

    rows: np.ndarray  # float32 (photographs, features), shard after shard, in their order; memory-mapped
    engine: str
    seconds: float  # wall time of computing them all, whenever that was


def _by_the_first_host(extract: Callable[_P, Extracted]) -> Callable[_P, Extracted]:
    """Of several hosts the first one computes and keeps them, and gives them to the others."""

    @functools.wraps(extract)
    def on_each_host(*given: _P.args, **knobs: _P.kwargs) -> Extracted:
        if hosts.count() == 1:
            return extract(*given, **knobs)
        with np.load(io.BytesIO(hosts.shared(lambda: _packed(extract(*given, **knobs)))), allow_pickle=False) as told:
            return Extracted(told["rows"], str(told["engine"]), float(told["seconds"]))

    return on_each_host


def _packed(extracted: Extracted) -> bytes:
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **extracted._asdict())
    return file.getvalue()


@_by_the_first_host
def extract(
    shards: list[Shard],
    *,
    model: keras.Model,
    weights_digest: str,
    image_size: int,
    precision: str = "auto",
    batch_size: int = 16,
    folder: Path = paths.FEATURES,
    keep: bool = True,
) -> Extracted:
    """The features of every photograph of every shard.

    Args:
        model: takes float (n, `image_size`, `image_size`, 3) in -1..1; gives (n, features). For the OpenVINO engine,
            of the layers that Xception is made of.
        weights_digest: what tells the weights of `model` from others.
        precision: `float32`, `mixed_bfloat16`, or `auto`.
        batch_size: photographs per step; more than 16 gains nothing on a CPU.
        keep: False leaves `folder` as it is, for those whose output it is not.

    Raises:
        UserError: a photograph can't be decoded.
    """
    engine, width = engines.name(), model.output_shape[-1]
    precision = resolve(precision)
    store = folder / f"{weights_digest[:16]}-{image_size}-{engine}-{precision}-{_recipe()}"
    places = [(shard, index) for shard in shards for index in range(len(shard))]
    wanted = [hashlib.sha256(shard.jpeg(index)).digest() for shard, index in places]
    photographs = dict(zip(wanted, places, strict=True))
    with nullcontext(store) if keep else tempfile.TemporaryDirectory() as new:
        known = _load(store, width, repair=keep)
        missing = {photograph: place for photograph, place in photographs.items() if photograph not in known}
        if missing:
            run = engines.BUILD[engine](model, image_size=image_size, precision=precision)
            rows = _compute(list(missing.values()), engine=run, size=image_size, batch_size=batch_size)
            tracked = track(rows, total=len(missing), what=f"features ({engine}, {precision})")
            _keep(Path(new), zip(missing, tracked, strict=True))
        if keep:
            _put_together(store, width)
        known |= _load(Path(new), width, repair=True)
        together = _gather((known[photograph].features for photograph in wanted), (len(wanted), width), Path(new))
    return Extracted(together, engine, seconds=sum(known[photograph].seconds for photograph in photographs))


def _gather(rows: Iterable[np.ndarray], shape: tuple[int, int], folder: Path) -> np.ndarray:
    """Rows as one array, in an unnamed file: in memory it would grow with the photographs."""
    if not shape[0]:
        return np.zeros(shape, np.float32)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            for row in rows:
                file.write(row.tobytes())
            file.flush()
            return np.memmap(file, np.float32, mode="r", shape=shape)
    except OSError as error:
        message = f"{folder} has no room for the features of {shape[0]:,} photographs: {error.strerror}"
        raise UserError(message) from None


def _recipe() -> str:
    """Tells whether photographs were turned into pixels as they are now: changed decoding changes features."""
    picture = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8).repeat(16, axis=0).repeat(16, axis=1)
    jpeg = photos.encode(picture)
    made = b"".join(photos.pixels(jpeg, size).tobytes() for size in (40, 71, 150))
    return hashlib.sha256(made + bytes([_RECIPE])).hexdigest()[:8]


# Computing


class _Photograph(NamedTuple):
    jpeg: bytes
    where: str  # for a person to find it


def _compute(
    photographs: list[tuple[Shard, int]], *, engine: engines.Engine, size: int, batch_size: int
) -> Iterator[np.ndarray]:
    """The features of each photograph, in order, on the cluster if one is named."""
    batches = ([_photograph(*place) for place in batch] for batch in parallel.chunks(photographs, batch_size))
    if cluster.named() and isinstance(engine, engines.OpenVinoEngine):
        for rows in cluster.map_chunks(partial(_of_batch, engine, size), batches):
            yield from rows
        return
    # While a batch computes, the next ones are decoded on threads.
    for features in engine(parallel.threaded(partial(_decode, size), batches, ahead=2 * parallel.cores())):
        yield from features


def _photograph(shard: Shard, index: int) -> _Photograph:
    return _Photograph(shard.jpeg(index), f"{shard.path}: photograph {index} ({shard.sources[index]})")


def _of_batch(engine: engines.OpenVinoEngine, size: int, batch: list[_Photograph]) -> list[np.ndarray]:
    return list(engine.once(_decode(size, batch)))


def _decode(size: int, batch: list[_Photograph]) -> np.ndarray:
    return np.stack([_pixels(photograph, size) for photograph in batch])


def _pixels(photograph: _Photograph, size: int) -> np.ndarray:
    try:
        return photos.pixels(photograph.jpeg, size)
    except (photos.Unreadable, OSError) as error:
        raise UserError(f"{photograph.where} can't be decoded: {error}; run `dvc repro --force prepare`") from None


# Keeping


class _Kept(NamedTuple):
    features: np.ndarray  # a row of a memory-mapped array
    seconds: float


def _load(store: Path, width: int, *, repair: bool) -> dict[bytes, _Kept]:
    """What is kept in `store`, by photograph. `repair` removes what is damaged, or there twice."""
    known: dict[bytes, _Kept] = {}
    for path, batches in _files(store, width, repair=repair):
        rows = {
            photograph: _Kept(row, seconds)
            for batch in batches
            for photograph, row, seconds in zip(
                batch["photograph"].to_pylist(), _matrix(batch), batch["seconds"].to_pylist(), strict=True
            )
        }
        if repair and rows.keys() <= known.keys():  # left by a kill after it had been put together with others
            path.unlink()
        known |= rows
    return known


def _files(store: Path, width: int, *, repair: bool) -> Iterator[tuple[Path, list[pa.RecordBatch]]]:
    """The files of `store`, the largest first. A damaged one is left out: its rows will be computed again."""
    for path in sorted(store.glob("*.arrow"), key=lambda path: (-path.stat().st_size, path)):
        try:
            yield path, tables.read(path, _schema(width))
        except tables.Damaged as problem:
            print(f"features: {path} is damaged and computed again ({problem})", file=sys.stderr)
            if repair:
                path.unlink()


def _schema(width: int) -> pa.Schema:
    features = pa.list_(pa.float32(), width)
    return pa.schema([("photograph", pa.binary(32)), ("features", features), ("seconds", pa.float32())])


def _matrix(batch: pa.RecordBatch) -> np.ndarray:
    return batch["features"].flatten().to_numpy(zero_copy_only=True).reshape(len(batch), -1)


def _keep(store: Path, rows: Iterable[tuple[bytes, np.ndarray]]) -> None:
    """Write `rows`, a file now and then, with the time that they took: it is known later too, when they are read."""
    started = time.perf_counter()
    for chunk in parallel.chunks(rows, _ROWS_PER_FILE):
        now = time.perf_counter()
        _write(store, chunk, seconds=now - started)
        started = now


def _write(store: Path, rows: list[tuple[bytes, np.ndarray]], *, seconds: float) -> None:
    photographs, features = zip(*rows, strict=True)
    schema = _schema(len(features[0]))
    columns = [
        pa.array(photographs, pa.binary(32)),
        pa.FixedSizeListArray.from_arrays(np.concatenate(features), type=schema.field("features").type),
        pa.array([seconds / len(rows)] * len(rows), pa.float32()),
    ]
    _save(store, [pa.record_batch(columns, schema=schema)])


def _save(store: Path, batches: list[pa.RecordBatch]) -> None:
    """Write a file of `batches`, named by its photographs; it appears only when complete."""
    photographs = b"".join(photograph for batch in batches for photograph in batch["photograph"].to_pylist())
    tables.write(store / f"{hashlib.sha256(photographs).hexdigest()[:16]}.arrow", batches[0].schema, batches)


def _put_together(store: Path, width: int) -> None:
    """Make one file of all small ones: many files are slow to push and pull. A kill at any point loses nothing."""
    for part in store.glob("*.part"):
        part.unlink()
    everything = _files(store, width, repair=True)
    small = [(path, batches) for path, batches in everything if sum(map(len, batches)) < _FULL_FILE]
    if len(small) < 2:
        return
    _save(store, [batch for _, batches in small for batch in batches])
    for path, _ in small:
        path.unlink()
