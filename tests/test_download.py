"""The resumable download, against a server of our own on the loopback interface."""

import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from catdog.base import download
from catdog.base.errors import UserError

BODY = random.Random(0).randbytes(2_000_003)
SHA256 = hashlib.sha256(BODY).hexdigest()


class Site:
    """One file on the loopback interface, by a server that can be told how to misbehave."""

    def __init__(self, body: bytes = BODY) -> None:
        self.validator: str | None = "etag"  # or date, weak, None
        self.knows_ranges = self.heeds_if_range = True
        self.cuts: list[int] = []  # of the next replies: after how many bytes of the body the connection is cut
        self.statuses: list[int] = []  # of the next replies
        self.pause = 0.0  # seconds after each 32 KiB
        self.ranges: list[str | None] = []  # what was asked for
        self.sent = 0
        self.change(body)

    def change(self, body: bytes) -> None:
        self.body = body
        self.etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        self.date = formatdate(int(self.etag[1:8], 16), usegmt=True)

    def __enter__(self) -> "Site":
        self.server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"site": self}))
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_port}/file.zip"
        return self

    def __exit__(self, *_) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_) -> None:
        pass  # a client that was killed


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def do_GET(self) -> None:
        site, asked = self.site, self.headers["Range"]
        site.ranges.append(asked)
        if site.statuses:
            self.send_error(site.statuses.pop(0))
            return
        validator = {"etag": site.etag, "date": site.date}.get(site.validator or "")
        changed = site.heeds_if_range and self.headers["If-Range"] not in (None, validator)
        total, start = len(site.body), 0
        if asked and site.knows_ranges and not changed:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end = int(first), int(last) + 1 if last else total
            if start >= total:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{total}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{total}")
        else:
            end = total
            self.send_response(200)
        if site.validator in ("etag", "weak"):
            self.send_header("ETag", site.etag if site.validator == "etag" else "W/" + site.etag)
        if site.validator == "date":
            self.send_header("Last-Modified", site.date)
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        cut = site.cuts.pop(0) if site.cuts else total
        for at in range(start, min(end, start + cut), 1 << 15):
            piece = site.body[at : min(at + (1 << 15), end, start + cut)]
            try:
                self.wfile.write(piece)
            except OSError:
                break
            site.sent += len(piece)
            time.sleep(site.pause)
        if start + cut < end:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

    def log_message(self, *_) -> None:
        pass


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(download, "_PAUSE", 0.01)


@pytest.fixture
def site():
    with Site() as site:
        yield site


def test_download_arrives_whole_and_leaves_nothing_else(site, tmp_path):
    target = tmp_path / "deep" / "file.zip"
    assert download.download(site.address, target, size=len(BODY), sha256=SHA256) == SHA256
    assert target.read_bytes() == BODY
    assert list(target.parent.iterdir()) == [target]


def test_broken_connections_are_resumed_not_repeated(site, tmp_path):
    site.cuts = [300_000, 700_000, 100_000]
    download.download(site.address, tmp_path / "file", size=len(BODY))
    assert (tmp_path / "file").read_bytes() == BODY
    assert site.ranges[0] is None
    starts = [int(r.removeprefix("bytes=").removesuffix("-")) for r in site.ranges[1:]]
    assert len(starts) == 3
    assert starts == sorted(starts)
    assert starts[0] > 0
    assert site.sent < len(BODY) * 1.2


def test_a_second_call_goes_on_where_the_first_gave_up(site, tmp_path):
    site.cuts = [1_000_000] + [0] * download._TRIES
    with pytest.raises(download.Unavailable, match="bytes are kept"):
        download.download(site.address, tmp_path / "file")
    assert not (tmp_path / "file").exists()
    kept = (tmp_path / "file.part").stat().st_size
    assert kept > 900_000
    download.download(site.address, tmp_path / "file")
    assert site.ranges[-1] == f"bytes={kept}-"
    assert (tmp_path / "file").read_bytes() == BODY


@pytest.mark.parametrize("kind", ["etag", "date"])
def test_a_file_that_changed_meanwhile_starts_over(site, tmp_path, kind):
    site.validator = kind
    site.cuts = [1_000_000] + [0] * download._TRIES
    with pytest.raises(download.Unavailable):
        download.download(site.address, tmp_path / "file")
    site.change(BODY[::-1])
    download.download(site.address, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY[::-1]


def test_a_changed_file_starts_over_where_the_server_ignores_if_range(site, tmp_path):
    site.heeds_if_range = False
    site.cuts = [1_000_000] + [0] * download._TRIES
    with pytest.raises(download.Unavailable):
        download.download(site.address, tmp_path / "file")
    site.change(BODY[::-1])
    download.download(site.address, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY[::-1]


@pytest.mark.parametrize("validator", ["weak", None])
def test_without_a_sure_validator_nothing_is_glued_together(site, tmp_path, validator):
    site.validator = validator
    site.cuts = [1_000_000]
    download.download(site.address, tmp_path / "file", sha256=SHA256)
    assert site.ranges == [None, None]


def test_a_server_that_cannot_resume_and_always_breaks_off_ends_in_an_error(site, tmp_path):
    site.knows_ranges = False
    site.cuts = [500_000] * 50
    with pytest.raises(download.Unavailable, match=r"broke off.*try again later"):
        download.download(site.address, tmp_path / "file")
    assert len(site.ranges) <= download._TRIES + 1


def test_a_part_that_is_complete_already_is_taken(site, tmp_path):
    site.cuts = [1_000_000] + [0] * download._TRIES
    with pytest.raises(download.Unavailable):
        download.download(site.address, tmp_path / "file")
    (tmp_path / "file.part").write_bytes(BODY)
    download.download(site.address, tmp_path / "file", size=len(BODY), sha256=SHA256)
    assert (tmp_path / "file").read_bytes() == BODY


def test_a_part_from_another_address_is_not_used(site, tmp_path):
    site.cuts = [1_000_000] + [0] * download._TRIES
    with pytest.raises(download.Unavailable):
        download.download(site.address, tmp_path / "file")
    with Site(BODY[::-1]) as other:
        download.download(other.address, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY[::-1]


def test_another_size_is_refused_before_anything_is_received(site, tmp_path):
    with pytest.raises(download.Unavailable, match=r"offers 2,000,003 bytes, expected 5"):
        download.download(site.address, tmp_path / "file", size=5)
    assert not (tmp_path / "file").exists()


def test_another_checksum_is_refused_and_nothing_kept(site, tmp_path):
    with pytest.raises(UserError, match="no longer the file it was") as caught:
        download.download(site.address, tmp_path / "file", sha256="0" * 64)
    assert not isinstance(caught.value, download.Unavailable)
    assert list(tmp_path.iterdir()) == []


def test_not_found_is_told_at_once(site, tmp_path):
    site.statuses = [404]
    with pytest.raises(download.Unavailable, match="HTTP 404") as caught:
        download.download(site.address, tmp_path / "file")
    assert len(site.ranges) == 1
    assert "\n" not in str(caught.value)


def test_a_server_error_is_tried_again(site, tmp_path):
    site.statuses = [500, 503, 429]
    download.download(site.address, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY


def test_a_lasting_server_error_is_told(site, tmp_path):
    site.statuses = [500] * 50
    with pytest.raises(download.Unavailable, match="HTTP 500"):
        download.download(site.address, tmp_path / "file")
    assert len(site.ranges) == download._TRIES


def test_no_server_is_told_in_one_line(tmp_path):
    with pytest.raises(download.Unavailable, match=r"no connection to 127\.0\.0\.1.*try again later") as caught:
        download.download(_nobody(), tmp_path / "file")
    assert "\n" not in str(caught.value)


def test_reach(site):
    download.reach(site.address, seconds=5)
    site.statuses = [503]
    with pytest.raises(download.Unavailable, match="HTTP 503"):
        download.reach(site.address, seconds=5)
    with pytest.raises(download.Unavailable, match="no connection"):
        download.reach(_nobody(), seconds=5)


def test_reach_gives_up_in_time_on_a_server_that_says_nothing():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(download.Unavailable, match=r"no answer from 127\.0\.0\.1"):
            download.reach(f"http://127.0.0.1:{silent.getsockname()[1]}/x.zip", seconds=0.5)
        assert time.monotonic() - began < 2


def test_killed_in_the_middle_then_again(site, tmp_path):
    site.pause = 0.02
    code = (
        f"from pathlib import Path; from catdog.base import download; download.download({site.address!r}, Path('file'))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path)
    part = tmp_path / "file.part"
    _wait_until(lambda: part.exists() and part.stat().st_size > 500_000)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "file").exists()
    site.pause = 0
    before = site.sent
    download.download(site.address, tmp_path / "file", size=len(BODY), sha256=SHA256)
    assert site.ranges[-1].startswith("bytes=")
    assert (tmp_path / "file").read_bytes() == BODY
    assert site.sent - before < len(BODY) - 400_000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


def _wait_until(true, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def _nobody() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}/file.zip"
