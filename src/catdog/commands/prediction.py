"""Files in, rows out: what a trained model says about photographs, wherever they lie, whatever is wrong with them."""

import csv
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from catdog.answers.classifier import BATCH, Classifier
from catdog.base.errors import UserError
from catdog.base.progress import track
from catdog.photographs import parallel, photos, shards
from catdog.preparation import archives
from catdog.tracking import gates

Item = TypeVar("Item")
Result = TypeVar("Result")
_BATCHES_AHEAD = 2  # decoded while the model computes; more would only fill memory


class Row(NamedTuple):
    """The answer for one file. Where `error` says why there is none, label is empty and probability None.

    probability is that of the second class, whatever the label.
    """

    path: str
    label: str
    probability: float | None
    error: str


def predict(paths: Iterable[Path], *, model: Classifier, threshold: float | None = None) -> Iterator[Row]:
    """A row for every file of `paths` (files, folders, archives), in that order; a bad one gets the reason why.

    Files are read and decoded on threads while the model computes. Only a few batches of photographs are in memory.
    `threshold` replaces the model's own.
    """
    files = [file for path in paths for file in _files(path)]

    def decode(file: archives.File) -> np.ndarray | str:
        try:
            return model.pixels(archives.read(file))
        except (archives.BadMember, photos.Unreadable) as error:
            return str(error)

    def rows() -> Iterator[Row]:
        names = iter(files)
        with ThreadPoolExecutor(parallel.cores()) as pool:
            for batch in _ahead(decode, files, pool=pool):
                good = [pixels for pixels in batch if isinstance(pixels, np.ndarray)]
                answers = iter(model.probabilities(np.stack(good)) if good else [])
                for pixels in batch:
                    name = next(names).source
                    if isinstance(pixels, str):
                        yield Row(name, "", None, pixels)
                    else:
                        probability = float(next(answers))
                        yield Row(name, model.label(probability, threshold), probability, "")

    return track(rows(), total=len(files), what="predicting")


def on_shard(shard: shards.Shard, *, model: Classifier) -> gates.Scored:
    """What `model` says about the photographs of a shard."""

    def decode(index: int) -> np.ndarray:
        return photos.pixels(shard.jpeg(index), model.side)

    with ThreadPoolExecutor(parallel.cores()) as pool:
        parts = [model.probabilities(np.stack(batch)) for batch in _ahead(decode, range(len(shard)), pool=pool)]
    probabilities = np.concatenate([np.empty(0), *parts])
    return gates.scored(shard.digest, ids=shard.ids, labels=shard.labels, probabilities=probabilities)


def write(rows: Iterable[Row], out: IO[str]) -> None:
    """Rows as CSV with a header, each as soon as it is known; probabilities to six places."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(Row._fields)
    for row in rows:
        writer.writerow([row.path, row.label, "" if row.probability is None else f"{row.probability:.6f}", row.error])


def save(rows: Iterable[Row], out: Path) -> None:
    """Rows as a `.csv` or `.parquet` that appears only when complete.

    Raises:
        UserError: another ending, or it can't be written there.
    """
    if out.suffix not in (".csv", ".parquet"):
        raise UserError(f"{out} should end in .csv or .parquet")
    part = out.with_name(out.name + ".part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            if out.suffix == ".csv":
                with part.open("w", encoding="utf-8", newline="") as file:
                    write(rows, file)
            else:
                _write_parquet(rows, part)
            part.replace(out)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{out} can't be written: {error.strerror or error}") from None


def _write_parquet(rows: Iterable[Row], path: Path) -> None:
    text = pa.string()
    schema = pa.schema([("path", text), ("label", text), ("probability", pa.float64()), ("error", text)])
    rows = iter(rows)
    with pq.ParquetWriter(path, schema) as writer:
        while chunk := list(islice(rows, 4096)):
            columns = [pa.array(c, f.type) for c, f in zip(zip(*chunk, strict=True), schema, strict=True)]
            writer.write_batch(pa.record_batch(columns, schema=schema))


def _ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, pool: ThreadPoolExecutor
) -> Iterator[list[Result]]:
    # Batches of function(item), in order, computed by the pool ahead of whoever takes them.
    items = iter(items)
    chunks = iter(lambda: list(islice(items, BATCH)), [])
    pending: deque[list[Future[Result]]] = deque()
    while True:
        for chunk in islice(chunks, 1 + _BATCHES_AHEAD - len(pending)):
            pending.append([pool.submit(function, item) for item in chunk])
        if not pending:
            return
        yield [future.result() for future in pending.popleft()]


def _files(path: Path) -> Iterator[archives.File]:
    if not path.is_dir():
        yield from _file(path)
        return
    refused: list[OSError] = []
    for folder, folders, names in os.walk(path, onerror=refused.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            yield from _file(Path(folder) / name)
    for error in refused:
        yield _plain(Path(error.filename), f"folder can't be read: {error.strerror}")


def _file(path: Path) -> Iterator[archives.File]:
    if not path.exists():
        yield _plain(path, "not found")
    elif not path.is_file():
        yield _plain(path, "not a file")
    elif archives.ARCHIVE.search(path.name):
        try:
            yield from archives.members(path, archives.printable(str(path)))
        except UserError as error:
            yield _plain(path, str(error))
    else:
        yield _plain(path)


def _plain(path: Path, problem: str = "") -> archives.File:
    return archives.File(archives.printable(str(path)), None, None, str(path), problem=problem)
