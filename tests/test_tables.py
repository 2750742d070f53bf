"""Tables: no changed byte goes unnoticed."""

import numpy as np
import pyarrow as pa
import pytest
from faults import damage

from catdog.photographs import tables

SCHEMA = pa.schema(
    [("name", pa.string()), ("label", pa.int8()), ("data", pa.binary()), ("row", pa.list_(pa.float32(), 3))]
)


def batch(rows: range) -> pa.RecordBatch:
    columns = [
        [f"photograph {i}" for i in rows],
        [i % 2 for i in rows],
        [bytes([i % 256]) * (i % 40) for i in rows],
        [[i, i / 2, i / 3] for i in rows],
    ]
    return pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)


BATCHES = [batch(range(0, 20)), batch(range(20, 25)), batch(range(25, 60))]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_what_was_written_is_read(tmp_path, count):
    path = tmp_path / "folder" / "table.arrow"
    tables.write(path, SCHEMA, iter(BATCHES[:count]))
    assert tables.read(path, SCHEMA) == BATCHES[:count]
    # Whoever reads it with Arrow alone sees the same rows.
    assert pa.ipc.open_file(path).read_all() == pa.Table.from_batches(BATCHES[:count], SCHEMA)
    assert [file.name for file in path.parent.iterdir()] == ["table.arrow"]


@pytest.mark.parametrize("count", [1, 8])
def test_damage_at_any_place_is_told_or_changes_nothing(tmp_path, count):
    path = tmp_path / "table.arrow"
    tables.write(path, SCHEMA, BATCHES)
    whole = path.read_bytes()
    rng = np.random.default_rng(count)
    told = 0
    for place in range(0, len(whole) - count + 1):
        path.write_bytes(whole)
        damage(path, rng, count=count, at=place)
        try:
            assert tables.read(path, SCHEMA) == BATCHES
        except tables.Damaged:
            told += 1
    assert told > 0.6 * len(whole)  # the rest is padding, and Arrow's second copy of the columns' names


def test_a_table_cut_off_anywhere_is_told(tmp_path):
    path = tmp_path / "table.arrow"
    tables.write(path, SCHEMA, BATCHES)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(tables.Damaged):
            tables.read(path, SCHEMA)


def test_a_table_without_its_end_or_with_other_batches_is_told(tmp_path):
    path = tmp_path / "table.arrow"
    for batches in (BATCHES, [], BATCHES[:1]):  # as another program writes them
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
            for each in batches:
                writer.write_batch(each)
        with pytest.raises(tables.Damaged, match="it has no checksum"):
            tables.read(path, SCHEMA)
    tables.write(path, SCHEMA, BATCHES)
    reader = pa.ipc.open_file(pa.py_buffer(path.read_bytes()))
    every = [reader.get_batch_with_custom_metadata(i) for i in range(reader.num_record_batches)]
    for order in ([0, 2, 1, 3, 4], [0, 1, 2, 4], [0, 1, 1, 2, 3, 4]):
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
            for place in order:
                writer.write_batch(every[place].batch, custom_metadata=every[place].custom_metadata)
        with pytest.raises(tables.Damaged, match="do not have their checksum"):
            tables.read(path, SCHEMA)


def test_a_missing_table_and_one_of_other_columns(tmp_path):
    with pytest.raises(FileNotFoundError):
        tables.read(tmp_path / "gone.arrow", SCHEMA)
    other = pa.schema([("name", pa.string())])
    tables.write(tmp_path / "other.arrow", other, [])
    with pytest.raises(tables.Damaged, match="it has other columns"):
        tables.read(tmp_path / "other.arrow", SCHEMA)
