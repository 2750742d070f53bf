"""Download a file over HTTP: resumed where it broke off, checked, never half-written under its final name."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import requests
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from catdog.base import files
from catdog.base.errors import UserError

_TRIES = 4  # in a row without a byte gained
_PAUSE = 1.0  # seconds before the second try, doubled before each further one
_TIMEOUT = (10, 30)  # seconds to connect, and without a byte
_CHUNK = 1 << 16
_SECONDS_BETWEEN_LINES = 15
_WORTH_ANOTHER_TRY = (408, 425, 429)  # and every 5xx


class Unavailable(UserError):
    """The file cannot be had at present: no connection, or the server does not give it."""


class _Broken(Exception):
    """This try failed, another may not."""


def download(address: str, target: Path, *, size: int | None = None, sha256: str | None = None) -> str:
    """Download `address` to `target` and return the sha256 of its bytes, in hex.

    A broken connection or a killed process leaves `<target>.part`. The next try, or the next call, resumes it, unless
    the server's ETag or Last-Modified says that the file has changed.

    Args:
        size: in bytes; a server that offers another size is refused before anything is received.

    Raises:
        Unavailable: no connection, an HTTP error, or another size; what was received is kept.
        UserError: the bytes are not those of `sha256`; nothing is kept.
    """
    part = target.with_name(target.name + ".part")
    note = target.with_name(target.name + ".part.json")
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        _persist(address, part=part, note=note, size=size)
    received = part if part.exists() else target
    with received.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    files.sync(received)
    if sha256 is not None and digest != sha256:
        received.unlink()
        note.unlink(missing_ok=True)
        raise UserError(
            f"{address} is no longer the file it was: sha256 {digest}, expected {sha256}; "
            "fetch a copy that you trust by its path"
        )
    received.replace(target)
    note.unlink(missing_ok=True)
    return digest


def reach(address: str, *, seconds: float) -> None:
    """Return as soon as the server begins to send `address`.

    Raises:
        Unavailable: it has not begun within `seconds`, name look-up, proxy and certificate included.
    """
    outcome: list[str] = []

    def ask() -> None:
        try:
            with requests.get(address, headers={"Range": "bytes=0-0"}, stream=True, timeout=seconds) as reply:
                outcome.append("" if reply.ok else f"HTTP {reply.status_code} {reply.reason}")
        except requests.RequestException as error:
            outcome.append(_reason(error, address))

    # A thread, since the time limits of `requests` hold for each step alone and not for name look-ups. A daemon, so
    # that the process can end without it.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    problem = outcome[0] if outcome else f"no answer from {urlsplit(address).hostname} within {seconds:g} s"
    if problem:
        raise Unavailable(f"cannot reach {address}: {problem}")


def _persist(address: str, *, part: Path, note: Path, size: int | None) -> None:
    failures, most = 0, _size(part)
    while True:
        try:
            _receive(address, part=part, note=note, size=size)
            return
        except _Broken as error:
            # Only bytes beyond every earlier try count as a gain. Else a server that always starts over and always
            # breaks off would keep this going for ever.
            failures = 0 if _size(part) > most else failures + 1
            most = max(most, _size(part))
            if failures >= _TRIES:
                raise Unavailable(
                    f"cannot download {address}: {error} ({_size(part):,} bytes are kept); try again later, or fetch "
                    "a copy of the file by its path"
                ) from None
        time.sleep(_PAUSE * 2 ** max(failures - 1, 0))


def _receive(address: str, *, part: Path, note: Path, size: int | None) -> None:
    """Receive what `part` still lacks of `address`."""
    earlier = files.read_json(note) if note.exists() and part.exists() else {}
    validator = earlier.get("validator", "") if earlier.get("address") == address else ""
    start = _size(part) if validator else 0
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": validator}
    try:
        with requests.get(address, headers=headers, stream=True, timeout=_TIMEOUT) as reply:
            _check_status(reply.status_code, reply.reason, address)
            if reply.status_code == 416 and reply.headers.get("Content-Range") == f"bytes */{start}":
                return
            resumed = reply.status_code == 206 and reply.headers.get("Content-Range", "").startswith(f"bytes {start}-")
            offered = _validator(reply.headers)
            if reply.status_code != 200 and not (resumed and offered in ("", validator)):
                part.unlink(missing_ok=True)
                raise _Broken("the server does not go on where it broke off")
            if not resumed:
                start = 0
            length = reply.headers.get("Content-Length", "")
            total = start + int(length) if length.isdecimal() else None
            if size is not None and total is not None and total != size:
                raise Unavailable(
                    f"{address} offers {total:,} bytes, expected {size:,}: it is another file; fetch a copy by its path"
                )
            if not start:
                # In this order, so that a kill never leaves old bytes under a new note.
                part.unlink(missing_ok=True)
                files.write_json(note, {"address": address, "validator": offered})
            with part.open("ab") as file, _progress(address, start=start, total=total or size) as received:
                for chunk in reply.iter_content(_CHUNK):
                    file.write(chunk)
                    received(len(chunk))
    except requests.RequestException as error:
        raise _Broken(_reason(error, address)) from None
    if size is not None and _size(part) != size:
        raise _Broken(f"{_size(part):,} bytes of {size:,} came")


def _check_status(status: int, reason: str, address: str) -> None:
    if status in (200, 206, 416):
        return
    if status in _WORTH_ANOTHER_TRY or status >= 500:
        raise _Broken(f"HTTP {status} {reason}")
    raise Unavailable(
        f"cannot download {address}: HTTP {status} {reason}; fetch a copy of the file by its path, or another source"
    )


def _validator(headers: Mapping[str, str]) -> str:
    """A value for `If-Range`: a strong ETag, else the time of the last change."""
    etag = headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", "")


def _reason(error: Exception, address: str) -> str:
    host = urlsplit(address).hostname
    match error:
        case requests.exceptions.ProxyError():
            return f"no connection to {host} through the proxy"
        case requests.exceptions.SSLError():
            return f"the certificate of {host} is not accepted"
        case requests.exceptions.Timeout():
            return f"no answer from {host}"
        case requests.exceptions.ChunkedEncodingError():
            return "the connection broke off"
        case requests.exceptions.ConnectionError():
            return f"no connection to {host}"
        case _:
            return " ".join(str(error).split())


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextmanager
def _progress(address: str, *, start: int, total: int | None) -> Iterator[Callable[[int], None]]:
    """Give a function that is called with the size of each chunk received, in bytes."""
    console = Console(stderr=True)
    name = address.rsplit("/", 1)[-1]
    if console.is_terminal:
        columns = BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
        with Progress(TextColumn("{task.description}"), *columns, console=console) as bar:
            task = bar.add_task(f"downloading {name}", total=total, completed=start)
            yield lambda count: bar.advance(task, count)
        return
    began = last_shown = time.monotonic()
    got = start

    def line(count: int) -> None:
        nonlocal last_shown, got
        got += count
        now = time.monotonic()
        if now - last_shown > _SECONDS_BETWEEN_LINES:
            last_shown = now
            speed = (got - start) / (now - began)
            left = f" of {total / 1e6:,.0f}, {(total - got) / speed:.0f} s left" if total and speed else ""
            console.print(f"downloading {name}: {got / 1e6:,.0f} MB{left}, {speed / 1e6:.1f} MB/s", highlight=False)

    yield line
