"""Several hosts as one training: who is who, what all are given, and what happens when one is gone.

The same script is started once on each host. JAX makes one training of them; beside that, each host keeps a connection
to the first. Through it all get what the first one alone has, wait for each other, and learn at once that one is gone.
"""

import atexit
import functools
import os
import queue
import secrets
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

import numpy as np

from catdog.base.errors import UserError, first_line
from catdog.engines import backend

_SECONDS_TO_COME = 300  # from the first host to the last
_SECONDS_TO_CONNECT = 60
_SECONDS_OF_DOUBT = 10  # in which an error may turn out to be that of a host that is gone
_HEADER = struct.Struct("!cQ")  # kind of a message, and the bytes that follow
_DATA, _READY, _DONE, _GONE = b"d", b"r", b"e", b"g"

_here: "_Host | None" = None  # None: this is the only one


def together(main: Callable[[], None]) -> Callable[[], None]:
    """`main`, as one of several hosts where the environment says so.

    That is JAX_NUM_PROCESSES, with JAX_COORDINATOR_ADDRESS and JAX_PROCESS_ID; or Slurm's own variables.

    Raises:
        UserError: the others did not come, or differ in their devices. When one is gone later, the process ends with
            one line, whatever it is doing.
    """

    @functools.wraps(main)
    def on_each_host() -> None:
        global _here
        backend.keep_alone()
        if _number_of_hosts() == 1:
            main()
            return
        _here = _join()
        try:
            main()
        except BaseException as error:
            if not isinstance(error, UserError | KeyboardInterrupt | SystemExit):
                time.sleep(_SECONDS_OF_DOUBT)  # JAX fails as well where a host is gone, and can't say so in a line
            _here.abandon()
            raise
        _here.leave()

    return on_each_host


def count() -> int:
    return _here.count if _here else 1


def is_first() -> bool:
    """Whether this host is the one that tells MLflow and writes results."""
    return not (_here and _here.number)


def shared(make: Callable[[], bytes]) -> bytes:
    """What `make` returns on the first host, on every host."""
    return _here.shared(make) if _here else make()


def meet() -> None:
    """Wait until all hosts are here: JAX waits for a late one for half a minute, and then fails."""
    if _here:
        _here.meet()


def agree(what: bytes) -> None:
    """Make sure that all hosts have the same `what`, which tells a training from others.

    Raises:
        UserError: this host has another.
    """
    if shared(lambda: what) != what:
        raise UserError("this host has other code, knobs or data than the first: bring both to the same state")


def part(rows: np.ndarray) -> np.ndarray:
    """This host's rows of a batch, whose number is a multiple of the devices of all."""
    return np.split(rows, _here.count)[_here.number] if _here else rows


def _number_of_hosts() -> int:
    # The second is what srun sets, for the tasks that it has started.
    number = int(os.environ.get("JAX_NUM_PROCESSES") or os.environ.get("SLURM_STEP_NUM_TASKS") or 1)
    if number > 1 and not backend.is_jax():
        raise UserError("several hosts take Keras on JAX: set KERAS_BACKEND=jax on each")
    return number


def _join() -> "_Host":
    import jax
    from jax._src.distributed import global_state

    # The last is what Kubernetes sets in an indexed job. What is left open JAX finds out.
    variables = ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID", "JOB_COMPLETION_INDEX")
    number_of_all, mine, index = (int(os.environ[name]) if name in os.environ else None for name in variables)
    try:
        jax.distributed.initialize(
            num_processes=number_of_all,
            process_id=index if mine is None else mine,
            initialization_timeout=_SECONDS_TO_COME,
        )
        number, devices = jax.process_index(), jax.local_device_count()
        peers = _connect(number, jax.process_count(), str(global_state.coordinator_address).rpartition(":")[0])
    except (RuntimeError, ValueError, OSError) as error:
        problem = f"the hosts did not come together ({first_line(error)})"
        raise UserError(f"{problem}: start all of them, with the same address") from None
    if jax.device_count() != jax.process_count() * devices:
        raise UserError(f"each host should have as many devices; this one has {devices} of {jax.device_count()}")
    return _Host(number, jax.process_count(), peers)


def _connect(number: int, count: int, first: str) -> dict[int, socket.socket]:
    """Connections by the number of the host at their other end: the first host's to all, the others' to the first."""
    from jax.experimental.multihost_utils import broadcast_one_to_all

    peers: dict[int, socket.socket] = {}
    if number:
        port, *secret = broadcast_one_to_all(np.zeros(17, np.int32)).tolist()
        peers[0] = socket.create_connection((first, port), timeout=_SECONDS_TO_CONNECT)
        peers[0].sendall(bytes(secret) + number.to_bytes(4, "big"))
    else:
        secret = [*secrets.token_bytes(16)]  # keeps strangers out
        with socket.create_server(("127.0.0.1" if first in ("127.0.0.1", "localhost") else "", 0)) as server:
            server.settimeout(_SECONDS_TO_CONNECT)
            broadcast_one_to_all(np.array([server.getsockname()[1], *secret], np.int32))
            while len(peers) < count - 1:
                peer, _ = server.accept()
                peer.settimeout(_SECONDS_TO_CONNECT)
                greeting = _read(peer, 20)
                if greeting[:16] == bytes(secret):
                    peers[int.from_bytes(greeting[16:], "big")] = peer
    for peer in peers.values():
        peer.settimeout(None)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # for a host that has lost its power
        for option, seconds in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
            if hasattr(socket, option):
                peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), seconds)
    return peers


class _Host:
    """This host among others, the first of which has number 0."""

    def __init__(self, number: int, count: int, peers: dict[int, socket.socket]) -> None:
        self.number, self.count, self._peers = number, count, peers
        self._given: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._ready: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._ending, self._over = threading.Lock(), False
        for other, peer in peers.items():
            threading.Thread(target=self._listen, args=(other, peer), daemon=True).start()

    def shared(self, make: Callable[[], bytes]) -> bytes:
        if self.number:
            return self._given.get()
        data = make()
        self._tell(_DATA, data)
        return data

    def meet(self) -> None:
        if self.number:
            self._tell(_READY)
        for _ in range(0 if self.number else self.count - 1):
            self._ready.get()
        self.shared(lambda: b"")

    def leave(self) -> None:
        """End together: the first host, which writes what all have come to, is the last to be done."""
        import jax

        self._over = not self.number  # what is written stands, whoever is killed from now on
        with suppress(OSError):
            self._tell(_DONE)
        for _ in self._peers:
            self._done.get()
        with suppress(RuntimeError):
            jax.distributed.shutdown()

    def abandon(self) -> None:
        """Let the others end at once, and this process when it has said why: JAX would have it wait for them."""
        self._over = True
        for peer in self._peers.values():
            with suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
        atexit.register(_exit)

    def _tell(self, kind: bytes, data: bytes = b"") -> None:
        for peer in self._peers.values():
            peer.sendall(_HEADER.pack(kind, len(data)) + data)

    def _listen(self, other: int, peer: socket.socket) -> None:
        heard: dict[bytes, Any] = {_READY: self._ready, _DONE: self._done}
        try:
            while True:
                kind, length = _HEADER.unpack(_read(peer, _HEADER.size))
                data = _read(peer, length)
                if kind == _DATA:
                    self._given.put(data)
                elif kind == _GONE:
                    self._end(int(data))
                else:
                    heard[kind].put(other)
                if kind == _DONE:
                    return
        except Exception:  # it was killed, has failed, or can't be reached
            if not self._over:
                self._end(other)
            self._done.put(other)

    def _end(self, gone: int) -> NoReturn:
        """End this process, now: whatever it computes with a host that is gone is lost, or waits for ever."""
        self._ending.acquire()
        remedy = "start all again, they go on after the last whole epoch"
        os.write(2, f"error: host {gone} of {self.count} is gone: {remedy}\n".encode())
        for peer in self._peers.values():
            with suppress(OSError):  # the one that is gone
                peer.sendall(_HEADER.pack(_GONE, len(str(gone))) + str(gone).encode())
        os._exit(1)


def _exit() -> NoReturn:
    sys.stdout.flush()
    os._exit(1)


def _read(peer: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        if not (chunk := peer.recv(min(1 << 20, size - len(data)))):
            raise ConnectionError("the other end is closed")
        data += chunk
    return bytes(data)
