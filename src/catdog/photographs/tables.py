"""Tables on disk: Arrow IPC files that end with a checksum of their contents, which is checked when they are opened."""

import zlib
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from catdog.base.files import replacing

_MAGIC = 8  # bytes before the first message
# Metadata of a last batch without rows, over which other readers of Arrow pass: CRC-32 of this many bytes of the file.
_CHECKSUM, _BYTES = b"crc32", b"bytes"


class Damaged(Exception):
    """Why a file is no table as it was written, in words."""


def write(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Write `batches` to `path`, whole or not at all. The same batches give the same bytes."""
    empty = pa.record_batch([pa.array([], field.type) for field in schema], schema=schema)
    with replacing(path) as part, pa.OSFile(str(part), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(empty)  # Arrow writes the schema with the first batch, and there may be none
        for batch in batches:
            writer.write_batch(batch)
        size = sink.tell()
        with pa.memory_map(str(part)) as written:
            checksum = zlib.crc32(written.read_buffer(size))
        writer.write_batch(empty, custom_metadata={_CHECKSUM: str(checksum), _BYTES: str(size)})


def read(path: Path, schema: pa.Schema) -> list[pa.RecordBatch]:
    """The batches of a table, memory-mapped.

    Raises:
        FileNotFoundError: there is none.
        Damaged: it is not what was written, or never was a table with this schema.
    """
    try:
        contents = _checked(pa.memory_map(str(path)).read_buffer())
        with pa.ipc.open_stream(contents) as stream:
            if stream.schema != schema:
                raise Damaged("it has other columns")
            return [batch for batch in stream if len(batch)]
    except (FileNotFoundError, Damaged):
        raise
    except Exception as error:  # Arrow raises nearly anything on damaged bytes
        raise Damaged(str(error).splitlines()[0] or type(error).__name__) from None


def _checked(file: pa.Buffer) -> pa.Buffer:
    """The messages of a file, as a stream. Arrow parses none of them, nor its index of them, before the checksum."""
    reader = pa.ipc.open_file(file)
    last = reader.num_record_batches - 1
    end = dict(reader.get_batch_with_custom_metadata(last).custom_metadata or {}) if last >= 0 else {}
    if end.keys() != {_CHECKSUM, _BYTES}:
        raise Damaged("it has no checksum")
    size = int(end[_BYTES])
    if zlib.crc32(file[:size]) != int(end[_CHECKSUM]):
        raise Damaged("its data do not have their checksum")
    return file[_MAGIC:size]
