"""Where photographs come from: what to fetch into data/raw, whole or not at all."""

import fcntl
import functools
import os
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.panel import Panel

from catdog.base import files, paths
from catdog.base.errors import UserError
from catdog.base.progress import track
from catdog.preparation.archives import ARCHIVE, FAULTS, hidden, is_zip, one_line
from catdog.preparation.drawn import drawings as drawn
from catdog.preparation.sources import README, RECORD, digest, item_of, labelled, match, read_record, visible


@dataclass(frozen=True)
class Public:
    """An archive of cats and dogs at a public address; without a `sha256`, the first one seen is held to."""

    address: str
    size: int
    sha256: str | None = None


PUBLIC = {
    "petimages": Public(
        "https://download.microsoft.com/download/3/e/1/3e1c3f21-ecdb-4869-8368-6deba77b919f/kagglecatsanddogs_5340.zip",
        size=824_887_076,
        sha256="b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9",
    ),
    "filtered": Public("https://storage.googleapis.com/mledu-datasets/cats_and_dogs_filtered.zip", size=68_606_236),
}
AUTO_SECONDS = 10
_WORDS = ("auto", "drawn", *PUBLIC)
_CHOICES = f"expected {', '.join(_WORDS)}, or a path to a folder of class folders, a zip or a tar"
_WORK = ".fetch"  # in data/raw: what is under way


def check(source: str) -> None:
    """Raises UserError unless `source` is something that `fetch` can be asked for."""
    if source not in _WORDS:
        _kind(source)


def ensure(source: str, raw: Path, *, classes: list[str], drawings: int, seed: int) -> None:
    """`fetch` where `raw` holds no photographs; those that stand there are never touched.

    DVC runs a queued experiment in a copy of the project that lacks what git does not track: it gets the project's own.
    """
    with _alone(raw):
        _finish(raw)
        if not visible(raw) and not paths.original().samefile(paths.root()):
            _take(paths.original() / paths.RAW, raw)
        empty = not visible(raw)
        record = read_record(raw)
    if empty:
        fetch(source, raw, classes=classes, drawings=drawings, seed=seed)
        return
    held = record.get("kind" if record.get("kind") in _WORDS else "path", "photographs of your own")
    if source not in ("auto", held):
        note = f"note: {raw} already holds {held}, which is used; for {source} instead: catdog fetch {source}"
        Console(stderr=True).print(note, highlight=False, soft_wrap=True)


def fetch(source: str, raw: Path, *, classes: list[str], drawings: int, seed: int) -> None:
    """Bring photographs into `raw`, in place of what an earlier fetch brought; nothing happens if they are there.

    Files are linked where the file system can, else copied. What is under way lies in a hidden folder of `raw`, and a
    fetch that was killed is gone on with by the next one.

    Args:
        source: `auto`, `drawn`, `petimages`, `filtered`, or a path (one with the name of a word: `./drawn`).
        drawings: how many `drawn` makes, of both classes together, from `seed`.

    Raises:
        UserError: no such source, files in `raw` that fetch did not bring, no connection, no photographs of a class.
    """
    from catdog.base.download import Unavailable

    bring = functools.partial(_bring, raw=raw, classes=classes, drawings=drawings, seed=seed)
    check(source)
    with _alone(raw):
        _finish(raw)
        if own := _own(raw):
            more = f" and {len(own) - 1:,} more" if len(own) > 1 else ""
            raise UserError(f"{raw} holds files of your own ({own[0]}{more}): move them away before fetching {source}")
        if source != "auto":
            bring(source)
            return
        try:
            bring("filtered", patience=AUTO_SECONDS)
        except Unavailable as error:
            _say_drawn(str(error))
            bring("drawn")


def _take(there: Path, raw: Path) -> None:
    for name in visible(there):
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        _link_file((there / name).resolve(), raw / name)
    if (there / RECORD).exists():
        shutil.copy2(there / RECORD, raw / RECORD)


def _bring(
    source: str, *, raw: Path, classes: list[str], drawings: int, seed: int, patience: float | None = None
) -> None:
    old = read_record(raw)
    wanted: dict[str, str | int]
    if source == "drawn":
        wanted = {"kind": source, "path": source, "drawings": drawings, "seed": seed}
    elif source in PUBLIC:
        wanted = {"kind": source, "address": PUBLIC[source].address}
    else:
        wanted = {"kind": _kind(source), "path": source}
    if source in _WORDS:
        classes = _cat_and_dog(classes, source)
    if _stands(raw, old, wanted):
        return

    checksums = old.get("checksums", {})
    with _staging(raw) as new:
        if source == "drawn":
            item = new / source
            drawn.write(item, count=drawings, seed=seed, classes=classes)
        elif source in PUBLIC:
            item = _download(PUBLIC[source], new, checksums, patience=patience)
        else:
            item = _link(Path(source).expanduser(), new, raw)
        count = len(labelled(new, classes, where=source))
        size, sha256 = digest(item)
        if source in PUBLIC and PUBLIC[source].sha256 is None:
            checksums = checksums | {PUBLIC[source].address: sha256}
        record = wanted | {"size": size, "sha256": sha256, "files": count}
        record |= {"checksums": checksums} if checksums else {}
        files.write_json(raw / _WORK / RECORD, record | {"contents": visible(new)})
    _finish(raw)


@contextmanager
def _staging(raw: Path) -> Iterator[Path]:
    """A folder to put things together in; what is in it counts when a record lies beside it."""
    work = raw / _WORK
    shutil.rmtree(work / "new", ignore_errors=True)  # of a fetch that was killed
    (work / "new").mkdir(parents=True)
    try:
        yield work / "new"
    finally:
        if not (work / RECORD).exists():
            shutil.rmtree(work / "new", ignore_errors=True)
            _remove_if_empty(work / "download")
            _remove_if_empty(work)


def _finish(raw: Path) -> None:
    """Put what lies ready in the place of what was there; killed anywhere in here, it is gone on with the next time."""
    work = raw / _WORK
    if not (work / RECORD).exists():
        _remove_if_empty(work)
        return
    if _own(raw):  # put there since the fetch was killed
        shutil.rmtree(work)
        return
    record = files.read_json(work / RECORD)
    item = item_of(record)
    if (work / "new" / item).exists():
        (work / "old").mkdir(exist_ok=True)
        for name in {item, item_of(read_record(raw))} - {""}:
            if (raw / name).exists():
                (raw / name).rename(work / "old" / name)
        files.write_json(work / "record.json", record)
        (work / "record.json").replace(raw / RECORD)
        (work / "new" / item).rename(raw / item)
    for folder in ("old", "new", "download"):
        shutil.rmtree(work / folder, ignore_errors=True)
    shutil.rmtree(work)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _stands(raw: Path, record: dict, wanted: dict) -> bool:
    if any(record.get(key) != value for key, value in wanted.items()) or record["contents"] != visible(raw):
        return False
    known = record["size"], record["sha256"]
    item = raw / item_of(record)
    if digest(item) != known:
        return False
    if wanted["kind"] not in ("folder", "zip", "tar"):
        return True
    path = Path(wanted["path"]).expanduser()
    return _linked(path, item) or digest(path) == known


def _linked(path: Path, item: Path) -> bool:
    """Whether `item` is nothing but links to `path`, so that there is no need to hash `path` too."""
    if path.is_file():
        return path.samefile(item)
    names = visible(path, follow_links=True)
    return names == visible(item) and all((path / name).samefile(item / name) for name in names)


def _download(public: Public, folder: Path, checksums: dict[str, str], *, patience: float | None) -> Path:
    from catdog.base import download

    if patience is not None:
        download.reach(public.address, seconds=patience)
    name = public.address.rsplit("/", 1)[-1]
    target = folder.parent / "download" / name
    sha256 = public.sha256 or checksums.get(public.address)
    download.download(public.address, target, size=public.size, sha256=sha256)
    if sha256 is None and not _whole_zip(target):
        target.unlink()
        raise download.Unavailable(f"{public.address} gave something that is not a whole zip archive; try again later")
    target.rename(folder / name)
    return folder / name


def _whole_zip(archive: Path) -> bool:
    try:
        with zipfile.ZipFile(archive) as opened:
            return opened.testzip() is None
    except FAULTS:
        return False


def _link(path: Path, folder: Path, raw: Path) -> Path:
    here, there = path.resolve(), raw.resolve()
    if here.is_relative_to(there) or there.is_relative_to(here):
        raise UserError(
            f"{path} and {raw} lie one within the other: move the photographs elsewhere, or leave them there"
        )
    item = folder / _name(here)
    if path.is_file():
        _link_file(here, item)
        return item
    names = visible(path, follow_links=True)
    for name in track(names, total=len(names), what="linking photographs"):
        (item / name).parent.mkdir(parents=True, exist_ok=True)
        _link_file((path / name).resolve(), item / name)
    item.mkdir(exist_ok=True)
    return item


def _link_file(original: Path, target: Path) -> None:
    try:
        target.hardlink_to(original)
    except OSError:  # another file system, or one without links
        shutil.copy2(original, target)


def _name(path: Path) -> str:
    """What `path` is called in data/raw, where it has to be visible and, if an archive, known for one."""
    name = path.name.lstrip(".")
    if not name or hidden(name) or name in (README, RECORD):
        name = "photographs"
    if path.is_file() and not ARCHIVE.search(name):
        name += ".zip" if is_zip(path) else ".tar"
    return name


def _kind(source: str) -> str:
    try:
        path = Path(source).expanduser()
        if source and path.is_dir():
            return "folder"
        if not path.is_file():
            raise UserError(f"no such source: {source or 'none given'}; {_CHOICES}")
        if not is_zip(path) and not tarfile.is_tarfile(path):
            raise UserError(f"{source} is neither a zip nor a tar (gz, bz2 or xz); {_CHOICES}")
        return "zip" if is_zip(path) else "tar"
    except FAULTS as error:
        raise UserError(f"{source} cannot be read: {one_line(error)}") from None


def _cat_and_dog(classes: list[str], source: str) -> list[str]:
    """`classes`, that of cats first."""
    found = {match(name, ["cat", "dog"]): name for name in classes}
    if set(found) != {0, 1}:
        raise UserError(
            f"{source} holds cats and dogs, base.classes says {' and '.join(classes)}: "
            "put photographs of your own into data/raw, or give a path to them"
        )
    return [found[0], found[1]]


def _own(raw: Path) -> list[str]:
    """The files in `raw` that fetch did not bring."""
    fetched = set(read_record(raw).get("contents", ()))
    return [name for name in visible(raw) if name not in fetched]


def _say_drawn(reason: str) -> None:
    Console(stderr=True).print(
        Panel(
            f"{reason}\n\nSo cats and dogs are DRAWN instead. Figures from drawings say nothing about photographs.\n"
            "With photographs of your own:  catdog fetch PATH",
            title="No photographs",
            border_style="bold yellow",
        ),
        highlight=False,
    )


@contextmanager
def _alone(raw: Path) -> Iterator[None]:
    """One fetch at a time. The lock goes with the process, however that ends."""
    try:
        raw.mkdir(parents=True, exist_ok=True)
        folder = os.open(raw, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        finally:
            os.close(folder)
    except BlockingIOError:
        raise UserError(f"another fetch into {raw} is under way: wait for it") from None
    except OSError as error:
        raise UserError(f"{error.filename or raw}: {error.strerror or error}") from None
