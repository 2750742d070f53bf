"""Photographs at addresses such as s3://bucket/folder, listed and read in place through fsspec."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from catdog.base.errors import UserError, first_line
from catdog.base.parallel import chunks
from catdog.base.progress import track

_AT_ONCE = 64  # files that are copied together


def is_address(text: str) -> bool:
    return "://" in text


def shown(address: str) -> str:
    """The address without what may be a secret: a name and password in it, or a query. A plain path is as it is."""
    scheme, separator, rest = address.partition("://")
    if not separator:
        return address
    host, slash, path = rest.partition("/")
    if scheme in ("http", "https"):
        path = path.partition("?")[0].partition("#")[0]
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def files(address: str) -> list[str]:
    """The addresses of the files at `address`: itself, or all in the folder that it is, sorted; no hidden ones.

    Raises:
        UserError: there is nothing, it can't be reached, or a package for such addresses is missing.
    """
    with _told(address):
        system, root = _opened(address)
        if system.isfile(root):
            return [address]
        found = [str(name) for name in system.find(root)]
        if not found:
            raise UserError(f"{shown(address)} holds no files")
        return [system.unstrip_protocol(name) for name in sorted(found) if not _hidden(name, root)]


def read(address: str, *, most: int) -> bytes:
    """The first `most` bytes of a file.

    Raises:
        OSError: it can't be read.
    """
    try:
        system, path = _opened(address)
        with system.open(path, "rb") as file:
            return file.read(most)
    except OSError:
        raise
    except Exception as error:  # each kind of store has its own
        raise OSError(first_line(error)) from None


def copy(address: str, target: Path) -> None:
    """Copy the file at `address` to `target`, or the files of the folder that it is into a folder of that name.

    Raises:
        UserError: as `files`; or a name leads out of the folder.
    """
    with _told(address):
        system, root = _opened(address)
        found = [system._strip_protocol(name) for name in files(address)]
        places = [target if name == root else target / PurePosixPath(name).relative_to(root) for name in found]
        for place in places:
            if not place.resolve().is_relative_to(target.resolve()):
                raise UserError(f"{shown(address)} holds a name that leads out of it: {place.name}")
            place.parent.mkdir(parents=True, exist_ok=True)
        pairs = list(zip(found, map(str, places), strict=True))
        for _ in track(_copied(system, pairs), total=len(pairs), what="copying photographs"):
            pass


def _copied(system: Any, pairs: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for some in chunks(pairs, _AT_ONCE):
        system.get([name for name, _ in some], [place for _, place in some])
        yield from some


def _opened(address: str) -> tuple[Any, str]:
    import fsspec

    return fsspec.core.url_to_fs(address)


def _hidden(name: str, root: str) -> bool:
    return any(part.startswith(".") for part in name.removeprefix(root).split("/"))


@contextmanager
def _told(address: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f"{shown(address)}: such addresses need another package: {first_line(error)}") from None
    except FileNotFoundError:
        raise UserError(f"{shown(address)}: not found") from None
    except Exception as error:  # each kind of store has its own
        raise UserError(f"{shown(address)} can't be reached: {first_line(error)}") from None
