"""`catdog serve` under wrong requests of every kind: it refuses in words, keeps to its memory, serves the others."""

import http.client
import io
import itertools
import json
import random
import socket
import struct
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import mlflow
import numpy as np
import psutil
import pytest
from PIL import Image
from test_serving import PHOTOGRAPHS, ask, digests, encoded, expected, running, store  # noqa: F401

from catdog.commands import guard, listening, scoring_server
from catdog.tracking import serving

# What no answer may hold: where things stand on this machine, and what Python says of errors.
SECRETS = ["Traceback", "stack_trace", "site-packages", 'File "', ".py", str(Path(__file__).parents[1]), sys.prefix]
SECRETS += [tempfile.gettempdir() + "/", str(Path.home()) + "/"]
CONNECTIONS = 6
# Where a server may hang up without an answer: what it got was too much, or not HTTP, or not all.
MAY_BE_LOST = {"huge headers", "no http", "cut"}


# ---- requests -------------------------------------------------------------------------------------------------------


def http_request(
    body: bytes = b"",
    *,
    line: str = "POST /invocations",
    kind: str | None = "application/json",
    host: str = "127.0.0.1",
    headers: str = "",
    length: int | None = None,
) -> bytes:
    head = f"{line} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body) if length is None else length}\r\n"
    head += "" if kind is None else f"Content-Type: {kind}\r\n"
    return f"{head}{headers}\r\n".encode("utf-8", "surrogateescape") + body


def records(*images: object, **others: object) -> bytes:
    return json.dumps({"dataframe_records": [{"image": image} for image in images], **others}).encode()


def png(width: int, height: int, *, depth: int = 8, colour: int = 0, text: int = 0) -> bytes:
    """A true PNG, dark above and bright below: a few kB for hundreds of megapixels.

    Args:
        text: bytes of a comment, before compression.
    """

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    row = width * {0: 1, 2: 3, 6: 4}[colour] * depth // 8
    halves, packed = (b"\0" + b"\x10" * row, b"\0" + b"\xc0" * row), zlib.compressobj(1)
    pixels = b"".join(packed.compress(halves[2 * y // height]) for y in range(height)) + packed.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    comment = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(text), 1)) if text else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + comment + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def saved(kind: str, size: tuple[int, int], mode: str = "L", **options: object) -> bytes:
    file = io.BytesIO()
    Image.effect_noise(size, 60).convert(mode).save(file, kind, **options)
    return file.getvalue()


def resized(data: bytes, *, at: int, form: str, size: tuple[int, int]) -> bytes:
    """An image whose header claims to be larger than it is."""
    return data[:at] + struct.pack(form, *size) + data[at + struct.calcsize(form) :]


def bombs() -> dict[str, bytes]:
    """Photographs of few bytes and many pixels: what is allowed, the dearest kinds, and what is not."""
    gif = saved("GIF", (40, 30))
    return {
        "64 MP 16 bit": png(8000, 8000, depth=16),
        "64 MP RGBA": png(8000, 8000, colour=6),
        "64 MP RGB 16 bit": png(8000, 8000, depth=16, colour=2),
        "400 MP": png(20_000, 20_000),
        "comment": png(60, 40, text=80 << 20),
        "GIF": resized(gif, at=6, form="<HH", size=(65_535, 65_535)),
        "GIF frame": resized(resized(gif, at=6, form="<HH", size=(8000, 8000)), at=gif.index(b",") + 5, form="<HH",
                             size=(8000, 8000)),
        "TIFF": saved("TIFF", (9000, 9000), compression="tiff_deflate"),
        "TIFF 49 MP": saved("TIFF", (7000, 7000), "I;16", compression="tiff_deflate"),
        "WEBP": saved("WEBP", (9000, 9000), "RGB", quality=1, method=0),
    }  # fmt: skip


class Fuzz:
    """Requests made from a seed. Each kind is a method that gives what is sent, and what status is due (0: any)."""

    def __init__(self, seed: int, bombs: dict[str, bytes]) -> None:
        self.random, self.bombs = random.Random(seed), itertools.cycle(bombs.items())
        self.photographs = [*PHOTOGRAPHS[:4], *(saved(k, (60, 40)) for k in ("GIF", "TIFF", "WEBP", "BMP", "PNG"))]

    def requests(self, number: int) -> list[tuple[str, bytes, int]]:
        kinds = [self.body, self.mutated, self.kind, self.table, self.deep, self.many, self.threshold, self.base64]
        kinds += [self.photograph] * 3 + [self.headers, self.host, self.line, self.cut, self.http, self.right]
        chosen = [kinds[turn % len(kinds)] for turn in range(number)]
        for turn in range(0, number, 80):  # dear ones are rare
            chosen[turn] = self.bomb
        self.random.shuffle(chosen)
        return [each() for each in chosen]

    def choice(self, *values):
        return self.random.choice(values)

    def noise(self, most: int) -> bytes:
        return self.random.randbytes(self.random.randrange(most))

    def right(self):
        return "right", http_request(records(encoded(self.choice(*self.photographs)))), 200

    def body(self):
        return (
            "body",
            http_request(self.choice(self.noise(3000), b"", b"null", b"0", b'"x"', b"\xff\xfe[]", b"{}")),
            400,
        )

    def mutated(self):
        data = bytearray(records(encoded(self.photographs[0]), params={"threshold": 0.4}))
        for _ in range(self.random.randint(1, 8)):
            data[self.random.randrange(min(len(data), 200))] = self.random.randrange(256)
        return "mutated", http_request(bytes(data[: self.random.randint(1, len(data))])), 0

    def kind(self):
        kinds = [
            "text/csv",
            "text/csv; charset=utf-8",
            "application/vnd.apache.parquet",
            "text/plain",
            "",
            None,
            "a/b;;=",
        ]
        kinds += ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "json", "\udcff\udcfe"]
        table = self.choice(
            b"image\n", b"image,b\n1,2\n3\n", b'image\n"', b"PAR1" + self.noise(200) + b"PAR1", b"a\n1\n"
        )
        return "kind", http_request(table + self.noise(50), kind=self.choice(*kinds)), 415

    def table(self):
        image = encoded(self.photographs[0])
        bodies = [
            {"dataframe_records": [{"photo": image}]}, {"dataframe_records": [[image]]}, {"dataframe_records": image},
            {"dataframe_records": {"image": image}}, {"dataframe_records": []}, {"dataframe_records": [None]},
            {"dataframe_records": [{"image": {"a": [image]}}]}, {"dataframe_records": [{"image": 1e308}]},
            {"dataframe_split": {"columns": ["image", "image"], "data": [[image, image]]}},
            {"dataframe_split": {"columns": ["image"], "data": [[image, 1]]}}, {"dataframe_split": {"data": [[image]]}},
            {"dataframe_split": {"columns": [["image"]], "data": [[image]]}}, {"dataframe_split": [image]},
            {"dataframe_split": {"columns": ["image"], "index": list(range(5000)), "data": {}}},
            {"instances": [image]}, {"inputs": {"image": [image]}}, {"messages": [{"role": "user", "content": "x"}]},
            {"dataframe_records": [{"image": image}] * 257}, {"dataframe_split": {"columns": [], "data": [[]] * 900}},
        ]  # fmt: skip
        return "table", http_request(json.dumps(self.choice(*bodies)).encode()), 400

    def deep(self):
        depth = self.choice(50, 900, 2000, 100_000)
        opening, closing = self.choice((b"[", b"]"), (b'{"a":', b"}"), (b'{"dataframe_records":[', b"]}"))
        body = opening * depth + b"1" + closing * self.choice(0, depth)
        wrapped = b'{"dataframe_records": [{"image": ' + body + b"}]}"
        return "deep", http_request(self.choice(body, wrapped)), 400

    def many(self):
        item = self.choice(b"[],", b"{},", b'{"":{}},', b"1,", b'"",', b"9" * 5000 + b",")
        body = b'{"dataframe_records": [' + item * (self.choice(1000, 2_000_000) // len(item)) + b"{}]}"
        return "many", http_request(body), 400

    def threshold(self):
        wrong = ['"high"', '"0.5"', "NaN", "1e999", "-Infinity", "[0.5]", "[]", "{}", "null", "true", "-1", "1.0001"]
        wrong += ["9" * 400, '"\\ud800"', '{"a": [[[]]]}', '"' + "x" * 5000 + '"']
        body = records(encoded(self.photographs[0]), params=0).replace(
            b'"params": 0', f'"params": {{"threshold": {self.choice(*wrong)}}}'.encode()
        )
        return "threshold", http_request(body), 400

    def base64(self):
        image = encoded(self.photographs[0])
        cut = image[: self.random.randrange(1, len(image) - 40)]
        return (
            "base64",
            http_request(records(self.choice(cut, "=" + cut, cut + "é", "data:image/png;base64," + cut, "*"))),
            400,
        )

    def photograph(self):
        data = bytearray(self.choice(*self.photographs))
        if self.random.random() < 0.3:
            return "photograph", http_request(records(encoded(bytes(data[: self.random.randrange(len(data))])))), 0
        for _ in range(self.random.randint(1, 10)):
            data[self.random.randrange(min(len(data), self.choice(40, 400, 10**9)))] = self.random.randrange(256)
        return "photograph", http_request(records(*[encoded(bytes(data))] * self.choice(1, 1, 3))), 0

    def bomb(self):
        name, data = next(self.bombs)
        return f"bomb {name}", http_request(records(encoded(data))), 0

    def headers(self):
        size = self.choice(5000, 70_000, 1_000_000)
        value = self.choice("x", "\udcff", "a, ") * size
        return "huge headers", http_request(headers=self.choice(f"X-A: {value}\r\n", "X-B: y\r\n" * (size // 8))), 0

    def host(self):
        host = self.choice(
            "evil.example", "localhost.evil.example", "169.254.169.254", "", "x" * 300, "[::2]", "\udcff"
        )
        return "host", http_request(records(encoded(self.photographs[0])), host=host), 400

    def line(self):
        paths = ["/", "/invocations", "/docs", "/openapi.json", "/../../etc/passwd", "/%00", "/ping/x", "*", "//ping"]
        paths += ["/invocations?" + "a" * 3000, "/" + "b" * 9000, "http://evil.example/ping", "/%2e%2e/x", "/version/"]
        method = self.choice("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW", "POST")
        return "line", http_request(b"{}", line=f"{method} {self.choice(*paths)}"), 0

    def cut(self):
        whole = http_request(records(encoded(self.photographs[1])))
        return "cut", whole[: self.random.randrange(len(whole) - 1)], 0

    def http(self):
        chunked = b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        return "no http", self.choice(
            self.noise(400) + b"\r\n\r\n", b"\x16\x03\x01\x02\0\x01\0" + self.noise(300), b"GET /ping\r\n\r\n\r\n",
            chunked + b"zz\r\n", chunked + b"5\r\nab", chunked + b"-1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            http_request(length=10**30), http_request(length=-1), http_request(b"{}", headers="Content-Length: 9\r\n"),
            http_request(b"{}", headers="Transfer-Encoding: x\r\n"),
            http_request(b"{}", headers="Expect: 100-continue\r\n"),
            http_request(b"{}", headers="Connection: Upgrade\r\nUpgrade: websocket\r\n"),
        ), 0  # fmt: skip


# ---- the clients ----------------------------------------------------------------------------------------------------


class Answers:
    """What came back: statuses by kind, and whatever should not have come."""

    def __init__(self) -> None:
        self.statuses: Counter[tuple[str, int]] = Counter()
        self.wrong: list[tuple] = []

    def take(self, kind: str, status: int, headers: dict[str, str], body: bytes, *, due: int) -> None:
        self.statuses[kind, status] += 1
        text = body.decode("utf-8", "replace")
        wrong = [secret for secret in SECRETS if secret in text]
        if due and status not in (due, 503):
            wrong.append(f"status {status} instead of {due}")
        if status >= 500 and not (status == 503 and int(headers.get("retry-after", 0)) > 0):
            wrong.append(f"status {status}")
        if status >= 400:
            try:
                if not json.loads(text)["message"]:
                    wrong.append("no message")
            except (ValueError, TypeError, KeyError):
                wrong.append("no JSON object with a message")
        if len(text) > 3000:
            wrong.append(f"{len(text)} characters")
        if wrong:
            self.wrong.append((kind, status, wrong, text[:300]))


def send(port: int, requests: list[tuple[str, bytes, int]], answers: Answers) -> None:
    """Send requests one after the other, over one connection as long as the server keeps it."""
    connection: socket.socket | None = None
    for kind, data, due in requests:
        connection = connection or socket.create_connection(("127.0.0.1", port), timeout=60)
        response = http.client.HTTPResponse(connection, method="HEAD" if data.startswith(b"HEAD") else None)
        try:
            with suppress(OSError):  # an answer may have come before all was sent
                connection.sendall(data)
                if kind in MAY_BE_LOST:
                    connection.shutdown(socket.SHUT_WR)
            response.begin()
            answers.take(kind, response.status, dict(response.headers.items()), response.read(), due=due)
        except (ConnectionError, http.client.HTTPException):
            answers.statuses[kind, 0] += 1
            if kind not in MAY_BE_LOST:
                answers.wrong.append((kind, "no answer", data[:300]))
        finally:
            if response.will_close or kind in MAY_BE_LOST or response.status is http.client._UNKNOWN:
                connection.close()
                connection = None
    if connection:
        connection.close()


@contextmanager
def memory(address: str) -> Iterator[list[int]]:
    """The most memory that the server takes meanwhile, in bytes, as a list."""
    port, over, peak = address.rpartition(":")[2], threading.Event(), [0]
    processes = psutil.process_iter(["cmdline"])
    [process] = [each for each in processes if {"catdog", port} <= set(each.info["cmdline"] or [])]

    def watch() -> None:
        while not over.wait(0.01):
            peak[0] = max(peak[0], process.memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()
        print(f"peak {peak[0] >> 20} MiB")


@contextmanager
def watched(address: str, right: np.ndarray) -> Iterator[list[int]]:
    """`memory`, and meanwhile a client asks once in a while, and is answered rightly."""
    over, asked, wrong = threading.Event(), [], []

    def client() -> None:
        while not over.wait(0.2):
            row = len(asked) % len(PHOTOGRAPHS)
            started = time.monotonic()
            status, answer = ask(address, {"dataframe_records": [{"image": encoded(PHOTOGRAPHS[row])}]})
            asked.append(time.monotonic() - started)
            if status != 200 or abs(answer["predictions"][0]["probability"] - right[row]) > 1e-6:
                wrong.append((status, answer))

    thread = threading.Thread(target=client)
    thread.start()
    try:
        with memory(address) as peak:
            yield peak
    finally:
        over.set()
        thread.join(60)
    print(f"{len(asked)} questions, the longest {max(asked):.1f} s")
    assert wrong == []


def slow_ones() -> list[bytes]:
    """The beginnings of requests that never end."""
    return [b"", b"P", b"GET /ping HTTP/1.1\r\nX: ", http_request(b"{", length=9), http_request(length=10 << 20)] * 8


@pytest.fixture(scope="module")
def address(store):  # noqa: F811
    mlflow.register_model(store.uri, "fuzzed", tags=digests(store.uri, store.made.keras_file))
    with running(store.folder, "catdog", "serve", "--model", "models:/fuzzed/1") as address:
        yield address


def fuzzed(address: str, requests: list[tuple[str, bytes, int]]) -> Answers:
    answers, port = Answers(), int(address.rpartition(":")[2])
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(lambda turn: send(port, requests[turn::CONNECTIONS], answers), range(CONNECTIONS)))
    print(sorted(answers.statuses.items()))
    assert answers.wrong == []
    assert answers.statuses["right", 200] == sum(kind == "right" for kind, _, _ in requests)
    return answers


def test_a_hundred_and_fifty_wrong_requests(address, expected):  # noqa: F811
    few = {"64 MP 16 bit": png(8000, 8000, depth=16), "400 MP": png(20_000, 20_000)}
    with watched(address, expected) as peak:
        fuzzed(address, Fuzz(1, few).requests(150))
    assert peak[0] < scoring_server.MOST_MEMORY


@pytest.mark.slow
def test_two_thousand_wrong_requests(address, expected):  # noqa: F811
    port, begun = int(address.rpartition(":")[2]), time.monotonic()
    slow = [socket.create_connection(("127.0.0.1", port)) for _ in slow_ones()]
    for connection, beginning in zip(slow, slow_ones(), strict=True):
        connection.sendall(beginning)
    with watched(address, expected) as peak:
        fuzzed(address, Fuzz(2, bombs()).requests(2000))
        patience = guard.Limits(1, 1, 1, 1).seconds + listening.HEADER_SECONDS
        for connection in slow:
            connection.settimeout(max(1.0, begun + patience - time.monotonic()))
            with suppress(ConnectionError):
                while connection.recv(1 << 16):
                    pass
    assert peak[0] < scoring_server.MOST_MEMORY


@pytest.mark.slow
def test_many_large_photographs_at_once_take_turns(address, expected):  # noqa: F811
    """12 of these once took 6.7 GB. More than may wait are told when to come again."""
    port, answers = int(address.rpartition(":")[2]), Answers()
    large = http_request(records(encoded(png(8000, 8000, depth=16))))
    with watched(address, expected) as peak, ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda _: send(port, [("large", large, 200)], answers), range(12)))
    assert (answers.wrong, answers.statuses) == ([], {("large", 200): 12})
    assert peak[0] < (1 << 30) + serving.DECODED_AT_ONCE * (1300 << 20)
    room = scoring_server.LIMITS.at_once + scoring_server.LIMITS.waiting
    with ThreadPoolExecutor(3 * room) as pool:
        list(pool.map(lambda _: send(port, [("burst", large, 200)], answers), range(room + 10)))
    assert answers.wrong == []
    assert 1 <= answers.statuses["burst", 503] <= 10
    assert answers.statuses["burst", 200] >= room


@pytest.mark.slow
def test_the_largest_requests_at_once_keep_to_the_memory(address):
    port, answers, most = int(address.rpartition(":")[2]), Answers(), scoring_server.LIMITS.body
    wide = b'{"dataframe_records": [{"image": "\xf0\x9f\x90\x88' + b"A" * (most - 100) + b'"}]}'  # 4 bytes a character
    with memory(address) as peak, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: send(port, [("wide", http_request(wide), 400)], answers), range(4)))
    print(answers.statuses)
    assert answers.wrong == []
    assert answers.statuses["wide", 400] >= 1
    assert peak[0] < scoring_server.MOST_MEMORY
