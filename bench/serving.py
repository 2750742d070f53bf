"""`catdog serve` under load: requests of one photograph each, from a second process on loopback.

For each model one client asks alone, then sixteen ask at a time, without a pause. What counts: answers that are no
answers, how long 95 of 100 requests take at most, what more clients bring, and whether the server's memory grows after
its first seconds. Needs the models of a run of the pipeline, in the registry.
"""

import base64
import http.client
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import common
import numpy as np
import psutil
import zipped
from common import Figure

from catdog.base.errors import UserError, run
from catdog.tracking import store, versions

SECONDS = {1: 40, 16: 90}  # by the number of clients
PHOTOGRAPHS = 100
WARM_UP = 30  # seconds until memory counts: over four minutes it grew in the first forty by 3 %, and then no more
GOAL = 0.95


def main() -> None:
    if len(sys.argv) == 7 and sys.argv[1] == "client":  # the second process
        port, photographs, seconds, clients, out = sys.argv[2:]
        ask(int(port), Path(photographs), seconds=float(seconds), clients=int(clients), answers=Path(out))
        return
    given = zipped.arguments(__doc__, default="cats-and-dogs-originals-600.zip", rounds=1)
    seconds = dict.fromkeys(SECONDS, 5) if given.quick else SECONDS
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="catdog-bench-") as folder:
        raw = Path(folder) / "photographs"
        zipped.unpack(given.zip, raw, count=PHOTOGRAPHS)
        for name in versions.NAMES:
            figures += measured(name, raw, seconds=seconds)
    notes = [
        f"One photograph a request; seconds by clients: {seconds}; both processes share these cores.",
        f"Memory with no file behind it, server and children, median of 5 s: from {WARM_UP} s on, and at the end.",
    ]
    common.leave("serving", figures, notes=notes, seconds={}, quick=given.quick)


def measured(name: str, photographs: Path, *, seconds: dict[int, int]) -> list[Figure]:
    """The figures of the newest version of one model."""
    client = store.connect()
    known = versions.of(client, versions.NAMES[name])
    if not known:
        raise UserError(f"{versions.NAMES[name]} has no version here: run the pipeline first (dvc repro)")
    newest = max(known, key=lambda version: int(version.version))
    port = free_port()
    command = [sys.executable, "-m", "catdog", "serve", "--model", versions.uri(newest), "--port", str(port)]
    server = psutil.Popen(command, stdout=subprocess.DEVNULL)
    figures, rates = [], []
    try:
        wait_for(server, port)
        for clients, duration in seconds.items():
            answers = photographs.with_name(f"{name}.json")
            arguments = [port, photographs, duration, clients, answers]
            asking = subprocess.Popen([sys.executable, __file__, "client", *map(str, arguments)])
            memory = watch(server, asking)
            said = json.loads(answers.read_text())
            rates.append(len(said["seconds"]) / duration)
            figures += _under_load(f"{name}, {clients} at a time", said, rate=rates[-1])
    finally:
        for process in [*server.children(recursive=True), server]:
            process.terminate()
        server.wait()
    early, late = memory
    return [
        *figures,
        Figure(
            f"{name}_gain",
            f"{name}, requests answered by 16 clients against 1",
            rates[-1] / rates[0],
            "x",
            "measured",
            1.5,
        ),
        Figure(f"{name}_memory", f"{name}, memory after {WARM_UP} s", early, "MB", "measured"),
        Figure(f"{name}_growth", f"{name}, that against the end", early / late, "of 1", "measured", GOAL),
    ]


def _under_load(what: str, said: dict, *, rate: float) -> list[Figure]:
    taken = 1000 * np.array(said["seconds"])
    return [
        Figure(f"{what}_requests", f"{what}, requests answered", len(taken), "requests", "counted"),
        Figure(f"{what}_errors", f"{what}, requests that failed", said["errors"], "requests", "counted"),
        Figure(f"{what}_rate", f"{what}, photographs per second", rate, "photographs/s", "measured"),
        Figure(f"{what}_median", f"{what}, median time of a request", float(np.median(taken)), "ms", "measured"),
        Figure(f"{what}_p95", f"{what}, 95 of 100 take at most", float(np.percentile(taken, 95)), "ms", "measured"),
    ]


def watch(server: psutil.Popen, asking: subprocess.Popen) -> tuple[float, float]:
    """The server's private memory in MB after its first seconds under load, and at the end."""
    started, seen = time.perf_counter(), []
    while asking.poll() is None:
        processes = [server, *server.children(recursive=True)]
        found = sum(memory.rss - memory.shared for memory in (process.memory_info() for process in processes))
        seen.append((time.perf_counter() - started, found / 1e6))
        time.sleep(0.5)
    whole = seen[-1][0]
    warm_up = min(WARM_UP, whole / 2)
    early = [memory for at, memory in seen if warm_up <= at <= warm_up + 5]
    late = [memory for at, memory in seen if at >= whole - 5]
    return statistics.median(early), statistics.median(late)


def ask(port: int, photographs: Path, *, seconds: float, clients: int, answers: Path) -> None:
    """What the second process does: write to `answers` how long each took, and how many were none."""
    bodies = [
        json.dumps({"dataframe_records": [{"image": base64.b64encode(file.read_bytes()).decode()}]})
        for file in sorted(photographs.glob("*/*"))
    ]
    taken: list[float] = []
    errors: list[str] = []

    def one(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        until = time.perf_counter() + seconds
        turn = number
        while (started := time.perf_counter()) < until:
            connection.request("POST", "/invocations", bodies[turn % len(bodies)], {"Content-Type": "application/json"})
            answer = connection.getresponse()
            said = answer.read()
            if answer.status == 200 and "probability" in json.loads(said)["predictions"][0]:
                taken.append(time.perf_counter() - started)
            else:
                errors.append(said.decode()[:200])
            turn += clients

    threads = [threading.Thread(target=one, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answers.write_text(json.dumps({"seconds": taken, "errors": len(errors), "first": errors[:1]}))


def wait_for(server: psutil.Popen, port: int) -> None:
    for _ in range(240):
        if server.poll() is not None:
            raise UserError("the server did not start; `catdog serve` says why")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise UserError("the server did not answer within two minutes")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


if __name__ == "__main__":
    run(main)
