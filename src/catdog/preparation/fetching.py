"""Fetching photographs into data/raw: from a public archive, a person's own folder or archive, or drawings."""

import shutil
import tarfile
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from rich.console import Console
from rich.panel import Panel

from catdog.base import paths
from catdog.base.errors import UserError, first_line
from catdog.preparation import remote, sources, staging, tars
from catdog.preparation.archives import ARCHIVE, FAULTS, hidden
from catdog.preparation.drawn import drawings as drawn


@dataclass(frozen=True)
class Public:
    """An archive of cats and dogs on the web. Without a `sha256`, that of its first download is held to."""

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
_CHOICES = (
    f"expected {', '.join(_WORDS)}, or a path or address (such as s3://bucket/pets) of a folder of class folders, "
    "a zip or a tar"
)


def ensure(source: str, raw: Path, *, classes: list[str], drawings: int, seed: int) -> None:
    """`fetch` if `raw` holds no photographs. If it holds any, they are used, whatever `source` is.

    DVC runs a queued experiment in a copy of the project, without photographs; it gets links to the project's own.
    """
    with staging.alone(raw):
        if not sources.visible(raw) and not paths.original().samefile(paths.root()):
            original = paths.original() / paths.RAW
            staging.link_files(original, raw, sources.visible(original))
            if (original / sources.RECORD).exists():
                shutil.copy2(original / sources.RECORD, raw / sources.RECORD)
        is_empty = not sources.brought(raw)
        record = sources.read_record(raw)
    if is_empty:
        fetch(source, raw, classes=classes, drawings=drawings, seed=seed)
        return
    held = record.get("kind" if record.get("kind") in _WORDS else "path", "photographs of your own")
    if source not in ("auto", held):
        note = f"note: {raw} already holds {held}, which is used; for {source} instead: catdog fetch {source}"
        Console(stderr=True).print(note, highlight=False, soft_wrap=True)


def fetch(source: str, raw: Path, *, classes: list[str], drawings: int, seed: int) -> None:
    """Bring photographs into `raw`, in place of those of an earlier fetch. If they are there already, nothing changes.

    Files are linked where the file system can, else copied. The next fetch goes on where one was killed.

    Args:
        source: `auto`, `drawn`, `petimages`, `filtered`, a path (a folder called drawn is `./drawn`), or an address
            that fsspec knows.
        drawings: how many to draw for `drawn`, of both classes together, from `seed`.

    Raises:
        UserError: no such source, files in `raw` that fetch did not bring, no connection, no photographs of a class.
    """
    from catdog.base.download import Unavailable

    _kind(source)  # what is no source fails before anything is touched
    bring = partial(_bring, raw=raw, classes=classes, drawings=drawings, seed=seed)
    with staging.alone(raw):
        if own := staging.own_files(raw):
            more = f" and {len(own) - 1:,} more" if len(own) > 1 else ""
            raise UserError(f"{raw} holds files of your own ({own[0]}{more}): move them away before fetching {source}")
        if source != "auto":
            bring(source)
            return
        try:
            bring("filtered", patience=AUTO_SECONDS)
        except Unavailable as error:
            _announce_drawings(str(error))
            bring("drawn")


def _bring(
    source: str, *, raw: Path, classes: list[str], drawings: int, seed: int, patience: float | None = None
) -> None:
    record: dict = {"kind": _kind(source)}
    if source in PUBLIC:
        record["address"] = PUBLIC[source].address
    elif remote.is_address(source):
        record["address"] = remote.shown(source)
    else:
        record["path"] = source
    record |= {"drawings": drawings, "seed": seed} if source == "drawn" else {}
    if source in _WORDS:
        classes = _cat_and_dog(classes, source)
    old = sources.read_record(raw)
    if _is_there(raw, old, record):
        return

    checksums = old.get("checksums", {})
    with staging.staged(raw) as new:
        if source == "drawn":
            item = new / source
            drawn.write(item, count=drawings, seed=seed, classes=classes)
        elif source in PUBLIC:
            item = _download(PUBLIC[source], new, raw, checksums=checksums, patience=patience)
        elif remote.is_address(source):
            item = new / _plain_name(PurePosixPath(remote.shown(source)).name)
            remote.copy(source, item)
        else:
            item = _link(Path(source).expanduser(), new, raw)
        count = len(sources.list_files(new, classes, where=remote.shown(source)))
        size, sha256 = sources.digest(item)
        if source in PUBLIC and PUBLIC[source].sha256 is None:
            checksums = checksums | {PUBLIC[source].address: sha256}
        record |= {"size": size, "sha256": sha256, "files": count}
        record |= {"checksums": checksums} if checksums else {}
        staging.commit(raw, record)


def _is_there(raw: Path, record: dict, wanted: dict) -> bool:
    """Whether `raw` holds what is wanted already; a path may hold other photographs by now."""
    if any(record.get(key) != value for key, value in wanted.items()) or not sources.is_unchanged(raw, record):
        return False
    if wanted["kind"] not in ("folder", "zip", "tar"):
        return True
    if "path" not in wanted:  # of an address nobody knows without reading it all
        return False
    return sources.digest(Path(wanted["path"]).expanduser()) == (record["size"], record["sha256"])


def _download(public: Public, folder: Path, raw: Path, *, checksums: dict[str, str], patience: float | None) -> Path:
    from catdog.base import download

    if patience is not None:
        download.reach(public.address, seconds=patience)
    name = public.address.rsplit("/", 1)[-1]
    target = staging.downloads(raw) / name
    sha256 = public.sha256 or checksums.get(public.address)
    download.download(public.address, target, size=public.size, sha256=sha256)
    if sha256 is None and not _is_whole_zip(target):
        target.unlink()
        raise download.Unavailable(f"{public.address} gave something that is not a whole zip archive; try again later")
    return target.rename(folder / name)


def _is_whole_zip(archive: Path) -> bool:
    try:
        with zipfile.ZipFile(archive) as opened:
            return opened.testzip() is None
    except FAULTS:
        return False


def _link(path: Path, folder: Path, raw: Path) -> Path:
    original, target = path.resolve(), raw.resolve()
    if original.is_relative_to(target) or target.is_relative_to(original):
        advice = "move the photographs elsewhere, or leave them there"
        raise UserError(f"{path} and {raw} lie one within the other: {advice}")
    item = folder / _name(original)
    if path.is_file():
        staging.link_file(original, item)
    else:
        staging.link_files(path, item, sources.visible(path, follow_links=True))
    return item


def _name(path: Path) -> str:
    """What to call `path` in data/raw: a name that is not passed over there, an archive's with its ending."""
    name = _plain_name(path.name)
    if path.is_file() and not ARCHIVE.search(name):
        name += ".tar" if tars.is_tar(path) else ".zip"
    return name


def _plain_name(name: str) -> str:
    name = name.lstrip(".")
    return "photographs" if not name or hidden(name) or name in (sources.README, sources.RECORD) else name


def _kind(source: str) -> str:
    """One of _WORDS, or of a path: folder, zip or tar."""
    if source in _WORDS:
        return source
    if remote.is_address(source):
        name = remote.shown(source).lower()
        return "folder" if not ARCHIVE.search(name) else "zip" if name.endswith(".zip") else "tar"
    try:
        path = Path(source).expanduser()
        if source and path.is_dir():
            return "folder"
        if not path.is_file():
            raise UserError(f"no such source: {source or 'none given'}; {_CHOICES}")
        if not tars.is_tar(path):
            return "zip"
        if tarfile.is_tarfile(path):
            return "tar"
        raise UserError(f"{source} is neither a zip nor a tar (gz, bz2 or xz); {_CHOICES}")
    except FAULTS as error:
        raise UserError(f"{source} cannot be read: {first_line(error)}") from None


def _cat_and_dog(classes: list[str], source: str) -> list[str]:
    """`classes`, that of cats first."""
    by_animal = {sources.match(name, ["cat", "dog"]): name for name in classes}
    if set(by_animal) != {0, 1}:
        raise UserError(
            f"{source} holds cats and dogs, base.classes says {' and '.join(classes)}: "
            "put photographs of your own into data/raw, or give a path to them"
        )
    return [by_animal[0], by_animal[1]]


def _announce_drawings(reason: str) -> None:
    text = (
        f"{reason}\n\nSo cats and dogs are DRAWN instead. Metrics from drawings say nothing about photographs.\n"
        "With photographs of your own:  catdog fetch PATH"
    )
    Console(stderr=True).print(Panel(text, title="No photographs", border_style="bold yellow"), highlight=False)
