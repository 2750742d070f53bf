"""Photographs on disk: tables of them, memory-mapped, so that memory does not grow with their number.

A shard is one file or, of very many photographs, a folder of that name with files such as `00000-of-00021.arrow`.
"""

import hashlib
from collections.abc import Iterable
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from catdog.base.errors import UserError
from catdog.base.files import replacing_folder, sha256
from catdog.base.parallel import chunks
from catdog.photographs import tables

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
    """One photograph.

    `id` is the sha256 of its file, in hex; `source` the file's path inside data/raw; `label` 0 or 1; `image` a JPEG in
    the standard form of `photos`; `group` the smallest id among its near duplicates.
    """

    id: str
    source: str
    label: int
    image: bytes
    group: str


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write `rows` to the file `path`, whole or not at all. The same rows give the same bytes."""
    tables.write(path, SCHEMA, map(_record_batch, chunks(rows, _ROWS_PER_BATCH)))


def write_parts(path: Path, rows: Iterable[Row], *, count: int, rows_per_file: int) -> None:
    """The same, as a folder of files if there are more than `rows_per_file` rows.

    Args:
        count: how many rows there are.
    """
    if count <= rows_per_file:
        write(path, rows)
        return
    rows = iter(rows)
    total = -(-count // rows_per_file)
    with replacing_folder(path) as folder:
        for number in range(total):
            write(folder / _part(number, total), islice(rows, rows_per_file))


def _part(number: int, total: int) -> str:
    return f"{number:05}-of-{total:05}.arrow"


def _record_batch(rows: list[Row]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    return pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)


class Shard:
    """A shard, opened for reading by any number of threads.

    Attributes:
        rows_per_file: in each of its files but the last; in a single one, all.

    Raises:
        UserError: a file is missing, damaged, or holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files = _files(path)
        batches = [_read(file) for file in self._files]
        self.rows_per_file = sum(map(len, batches[0]))
        self._table = pa.Table.from_batches(chain.from_iterable(batches), SCHEMA)
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

    def sample(self, count: int) -> list[int]:
        """The rows of at most `count` photographs: the first by id, as good as random and always the same."""
        return sorted(range(len(self)), key=lambda row: self.ids[row])[:count]

    @cached_property
    def digest(self) -> str:
        """sha256 in hex, of the file, or of the digests of its files."""
        digests = [sha256(file) for file in self._files]
        return digests[0] if self._files == [self.path] else hashlib.sha256("".join(digests).encode()).hexdigest()


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(file.name for file in path.iterdir())
    # The names say how many there are, so that none is missing unnoticed.
    if not found or found != [_part(number, len(found)) for number in range(len(found))]:
        raise UserError(f"{path} is damaged or no shard (it lacks some of its files): delete it and run `dvc repro`")
    return [path / name for name in found]


def _read(path: Path) -> list[pa.RecordBatch]:
    try:
        return tables.read(path, SCHEMA)
    except FileNotFoundError:
        raise UserError(f"{path} not found: run `dvc repro`") from None
    except tables.Damaged as problem:
        raise UserError(f"{path} is damaged or no shard ({problem}): delete it and run `dvc repro`") from None
