"""Files in, rows out: a trained model's answers for files, folders and archives, with a reason for each bad file."""

import csv
import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from catdog.answers.asking import BATCH
from catdog.answers.classifier import Answer, Classifier
from catdog.base import cluster, files, parallel
from catdog.base.errors import UserError
from catdog.base.progress import track
from catdog.base.text import printable
from catdog.photographs import photos
from catdog.preparation import archives, remote, travel

# What a spreadsheet takes for a formula, in full width too; and the apostrophe, so that one is always ours to remove.
_FORMULA = tuple("=+-@＝＋－＠'")
_BATCHES_AHEAD = 4  # decoded while the model computes; more would only fill memory


class Prediction(NamedTuple):
    """The answer for one file, or in `error` why there is none; then label is empty, and the numbers are None.

    path: as it is, in an archive too; only bytes that are not UTF-8 are escapes.
    label: a class, `unsure` or `neither`; see `classifier.Answer`.
    probability: of the second class, whatever the label.
    familiarity: the share of validation photographs that are no more familiar; None where the model can't tell.
    """

    path: str
    label: str
    probability: float | None
    familiarity: float | None
    error: str


def predict(paths: Iterable[Path | str], *, model: Classifier, threshold: float | None = None) -> Iterator[Prediction]:
    """A row for every file of `paths` (files, folders, archives), in that order; a bad one gets the reason why.

    A path may be an address that fsspec knows, such as s3://bucket/folder, of photographs that are no archive. Only a
    few batches of photographs are in memory. `threshold` replaces the model's own. Where a cluster is named, its
    workers read the files and answer.
    """
    inputs = listed(paths)
    answer = _on_cluster if cluster.named() and model.network.portable else _here
    return track(answer(inputs, model=model, threshold=threshold), total=len(inputs), what="predicting")


def _here(inputs: list[archives.File], *, model: Classifier, threshold: float | None) -> Iterator[Prediction]:
    """Rows of files that are read and decoded on threads while the model computes."""
    unanswered: deque[tuple[archives.File, str]] = deque()  # with the problem, if there is one

    def readable() -> Iterator[np.ndarray]:
        decode = partial(_decode, model)
        for file, pixels in zip(inputs, parallel.threaded(decode, inputs, ahead=_BATCHES_AHEAD * BATCH), strict=True):
            unanswered.append((file, pixels if isinstance(pixels, str) else ""))
            if not isinstance(pixels, str):
                yield pixels

    def rows() -> Iterator[Prediction]:
        batches = (np.stack(batch) for batch in parallel.chunks(readable(), BATCH))
        for answer in model.stream(batches, threshold):
            yield from refused()
            yield _row(unanswered.popleft()[0], answer)
        yield from refused()

    def refused() -> Iterator[Prediction]:
        while unanswered and unanswered[0][1]:
            yield _refused(*unanswered.popleft())

    return rows()


def _on_cluster(inputs: list[archives.File], *, model: Classifier, threshold: float | None) -> Iterator[Prediction]:
    """Rows of files that workers read, decode and answer."""
    answer = partial(_chunk, model, threshold)
    chunks = parallel.chunks(inputs, _BATCHES_AHEAD * BATCH)
    for rows in cluster.map_chunks(answer, chunks, rescue=_crashed, travel=travel.FILES):
        yield from rows


def _chunk(model: Classifier, threshold: float | None, files: list[archives.File]) -> list[Prediction]:
    decoded = [_decode(model, file) for file in files]
    pixels = [each for each in decoded if not isinstance(each, str)]
    answers = iter(model.answers(model.ask(np.stack(pixels)), threshold) if pixels else [])
    return [
        _refused(file, each) if isinstance(each, str) else _row(file, next(answers))
        for file, each in zip(files, decoded, strict=True)
    ]


def _decode(model: Classifier, file: archives.File) -> np.ndarray | str:
    """What the network gets of a file, or why there is nothing."""
    try:
        return model.pixels(archives.read(file))
    except (archives.BadMember, photos.Unreadable) as error:
        return printable(str(error))


def _crashed(file: archives.File) -> Prediction:
    return _refused(file, "damaged: crashes the decoder")


def _refused(file: archives.File, problem: str) -> Prediction:
    return Prediction(file.source, "", None, None, problem)


def _row(file: archives.File, answer: Answer) -> Prediction:
    return Prediction(file.source, answer.label, answer.probability, answer.familiarity, "")


def write(rows: Iterable[Prediction], out: IO[str]) -> None:
    r"""Write rows as CSV with a header, each as soon as it is there; its numbers to six places.

    Each is one line, and safe on a terminal and in a spreadsheet: control characters are written as escapes, such as
    `\x1b`, and an apostrophe stands before what begins with = + - @ or an apostrophe. Parquet has names as they are.
    """
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(Prediction._fields)
    for row in rows:
        numbers = ("" if number is None else f"{number:.6f}" for number in (row.probability, row.familiarity))
        writer.writerow([_cell(row.path), _cell(row.label), *numbers, _cell(row.error)])


def _cell(text: str) -> str:
    text = printable(text)
    return f"'{text}" if text.startswith(_FORMULA) else text


def save(rows: Iterable[Prediction], out: Path) -> None:
    """Write rows to a `.csv` or `.parquet` file, which appears only when complete.

    Raises:
        UserError: `out` ends otherwise, or can't be written.
    """
    if out.suffix not in (".csv", ".parquet"):
        raise UserError(f"{out} should end in .csv or .parquet")
    try:
        with files.replacing(out) as part:
            if out.suffix == ".csv":
                with part.open("w", encoding="utf-8", newline="") as file:
                    write(rows, file)
            else:
                _write_parquet(rows, part)
    except OSError as error:
        raise UserError(f"{out} can't be written: {error.strerror or error}") from None


def _write_parquet(rows: Iterable[Prediction], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = dict.fromkeys(("probability", "familiarity"), pa.float64())
    schema = pa.schema([(column, numbers.get(column, pa.string())) for column in Prediction._fields])
    with pq.ParquetWriter(path, schema) as writer:
        for chunk in parallel.chunks(rows, 4096):
            columns = [pa.array(c, f.type) for c, f in zip(zip(*chunk, strict=True), schema, strict=True)]
            writer.write_batch(pa.record_batch(columns, schema=schema))


def listed(paths: Iterable[Path | str]) -> list[archives.File]:
    """Every file of `paths` (files, folders, archives), in that order; of one that can't be read it has the problem.

    Links to folders are followed, but not to one that is read already, or that the link is in: that is a problem too.
    """
    return [file for path in paths for file in _files(path)]


def _files(path: Path | str) -> Iterator[archives.File]:
    if isinstance(path, str) and remote.is_address(path):
        try:
            for address in remote.files(path):
                yield archives.File(archives.printable(remote.shown(address)), None, None, address)
        except UserError as unreached:
            yield archives.File(archives.printable(remote.shown(path)), None, None, path, problem=str(unreached))
        return
    path = Path(path)
    if _kind(path) != "folder":
        yield from _file(path)
        return
    refused: list[OSError] = []
    above, met = set(path.resolve().parents), dict[Path, Path]()
    for folder, folders, names in os.walk(path, onerror=refused.append, followlinks=True):
        here = Path(folder)
        original = here.resolve()
        if original in above or original in met:
            folders.clear()
            again = f"the same folder as {met[original]}: not read again" if original in met else ""
            yield _plain(here, again or "a link to a folder above: not followed")
            continue
        met[original] = here
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            yield from _file(here / name)
    for error in refused:
        yield _plain(Path(error.filename), f"folder can't be read: {error.strerror}")


def _file(path: Path) -> Iterator[archives.File]:
    if (kind := _kind(path)) != "file":
        yield _plain(path, kind)
    elif archives.ARCHIVE.search(path.name):
        try:
            yield from archives.members(path, archives.printable(str(path)))
        except UserError as error:
            yield _plain(path, str(error))
    else:
        yield _plain(path)


def _kind(path: Path) -> str:
    """`folder`, `file`, or the problem with it."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "not found"
    except (OSError, ValueError) as error:
        return f"can't be read: {getattr(error, 'strerror', error)}"
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "not a file"


def _plain(path: Path, problem: str = "") -> archives.File:
    return archives.File(archives.printable(str(path)), None, None, str(path), problem=problem)
