"""Photographs on disk: Arrow IPC files, memory-mapped, random access. Memory stays flat however many there are."""

import hashlib
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from catdog.base.errors import UserError

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("label", pa.int8()),
        ("image", pa.binary()),
        ("group", pa.string()),
    ]
)
_ROWS_PER_BATCH = 256


class Row(NamedTuple):
    """One photograph: sha256 of its file's bytes, path inside the source, 0 or 1, JPEG in standard form, group."""

    id: str
    source: str
    label: int
    image: bytes
    group: str


def write(path: Path, rows: Iterable[Row]) -> int:
    """Write `rows` to `path`, which appears only when complete; returns how many. The same rows give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    count, batch = 0, []
    try:
        with pa.OSFile(str(part), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
            for row in rows:
                batch.append(row)
                count += 1
                if len(batch) == _ROWS_PER_BATCH:
                    writer.write_batch(_record_batch(batch))
                    batch = []
            if batch:
                writer.write_batch(_record_batch(batch))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return count


def _record_batch(rows: list[Row]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    return pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)


class Shard:
    """A shard, opened for reading by any number of threads.

    Raises:
        UserError: the file is missing or not a shard.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        except FileNotFoundError:
            raise UserError(f"{path} not found: run `dvc repro`") from None
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path} is not a shard of photographs: {error}") from None
        if self._table.schema != SCHEMA:
            raise UserError(f"{path} is not a shard of photographs: it has other columns")
        self._images = self._table["image"]

    def __len__(self) -> int:
        return self._table.num_rows

    @cached_property
    def ids(self) -> list[str]:
        return self._table["id"].to_pylist()

    @cached_property
    def sources(self) -> list[str]:
        return self._table["source"].to_pylist()

    @cached_property
    def groups(self) -> list[str]:
        return self._table["group"].to_pylist()

    @cached_property
    def labels(self) -> np.ndarray:
        """int8 (n,): 0 or 1."""
        return self._table["label"].to_numpy()

    def jpeg(self, index: int) -> bytes:
        return self._images[index].as_py()

    def row(self, index: int) -> Row:
        return Row(*(self._table[name][index].as_py() for name in Row._fields))

    @cached_property
    def digest(self) -> str:
        """sha256 of the file, in hex."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
