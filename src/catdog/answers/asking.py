"""A network asked about pixels: by OpenVINO, or, where that is not to be had, by Keras."""

import functools
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from catdog.engines import backend, openvino

BATCH = 16  # photographs; more gains nothing on a processor
TRUNK, HEAD = "trunk.xml", "head.xml"
FILES = (TRUNK, "trunk.bin", HEAD, "head.bin")


class Asked(NamedTuple):
    """What a network says of n photographs.

    Attributes:
        logits: float64 (n,), of the second class.
        features: float32 (n, k), the averages of the network's last maps.
        evidence: float32 (n, height, width), what speaks for the second class by place, and against it below 0: the
            maps weighed by their gradients (Grad-CAM, Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391). Since
            features are averages of maps, the gradient to a map is that to its feature, spread evenly.
    """

    logits: np.ndarray
    features: np.ndarray
    evidence: np.ndarray


_Run = Callable[[Iterable[np.ndarray]], Iterator[list[np.ndarray]]]


class Network:
    """A trained network to be asked about pixels, uint8 (n, side, side, 3) RGB.

    Attributes:
        engine: what computes, and in which numbers; for a person to read.
        mirrored: it says of a photograph the mean of what it says of that and of its mirror image.
        portable: it can be pickled, to answer on another machine.
    """

    def __init__(self, trunk: _Run, head: _Run, *, engine: str, mirrored: bool = False, portable: bool = False) -> None:
        self._trunk, self._head, self.mirrored, self.portable = trunk, head, mirrored, portable
        self._one_pass, self._list = threading.Lock(), threading.Lock()
        self._waiting: deque[_Question] = deque()
        self.engine = engine

    def __reduce__(self) -> tuple:  # without its locks
        alike = partial(Network, engine=self.engine, mirrored=self.mirrored, portable=self.portable)
        return alike, (self._trunk, self._head)

    def stream(self, batches: Iterable[np.ndarray]) -> Iterator[Asked]:
        """What it says of batches of at most BATCH photographs, in their order. For one thread at a time."""
        if not self.mirrored:
            yield from self._straight(batches)
            return
        views = self._straight(view for batch in batches for view in (batch, np.ascontiguousarray(batch[:, :, ::-1])))
        for seen, mirror_seen in zip(views, views, strict=True):
            turned = mirror_seen._replace(evidence=mirror_seen.evidence[:, :, ::-1])
            yield Asked(*((one + other) / 2 for one, other in zip(seen, turned, strict=True)))

    def _straight(self, batches: Iterable[np.ndarray]) -> Iterator[Asked]:
        for features, maps in self._trunk(batches):
            [(logits, gradients)] = self._head([features])
            evidence = np.einsum("nhwk,nk->nhw", maps, gradients)
            yield Asked(logits[:, 0].astype(np.float64), features, evidence)

    def ask(self, pixels: np.ndarray) -> Asked:
        """What it says of n photographs, at least one. Threads that ask at the same time share a pass."""
        mine = _Question(pixels)
        with self._list:
            self._waiting.append(mine)
        with self._one_pass:  # by now another thread may have asked for this one too
            while not mine.answer.done():
                self._pass()
        return mine.answer.result()

    def _pass(self) -> None:
        """Ask for those that wait, as many as make a batch, the first one whatever its size."""
        with self._list:
            together = [self._waiting.popleft()]
            while self._waiting and sum(len(q.pixels) for q in [*together, self._waiting[0]]) <= BATCH:
                together.append(self._waiting.popleft())
        try:
            pixels = np.concatenate([question.pixels for question in together])
            asked = joined(self.stream(pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH)))
        except BaseException as error:
            for question in together:
                question.answer.set_exception(error)
            return
        ends = np.cumsum([len(question.pixels) for question in together])[:-1]
        for question, *parts in zip(together, *(np.split(part, ends) for part in asked), strict=True):
            question.answer.set_result(Asked(*parts))

    def decide(self, features: np.ndarray) -> np.ndarray:
        """The logits of photographs whose features, (n, k), are known: float64 (n,)."""
        batches = (features[start : start + BATCH] for start in range(0, len(features), BATCH))
        return np.concatenate([np.empty(0), *(logits[:, 0] for logits, _ in self._head(batches))])


class _Question:
    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels
        self.answer: Future[Asked] = Future()


def joined(parts: Iterable[Asked]) -> Asked:
    """One of several, at least one."""
    return Asked(*map(np.concatenate, zip(*parts, strict=True)))


def export(model: Any, folder: Path) -> None:
    """Write the parts of a Keras model for OpenVINO into `folder`: FILES."""
    from catdog.answers import network

    trunk, head = network.parts(model)
    openvino.export(trunk, folder / TRUNK, dtype="uint8")
    openvino.export(head, folder / HEAD)
    for name in (TRUNK, HEAD):
        _name_by_place(folder / name)


def _name_by_place(path: Path) -> None:
    """Name a network's layers by their places: an export's own names count whatever its process made before."""
    from xml.etree import ElementTree

    tree = ElementTree.parse(path)
    for layer in tree.iter("layer"):
        layer.set("name", f"{layer.get('type')}_{layer.get('id')}")
    for port in tree.iter("port"):
        port.attrib.pop("names", None)
    tree.write(path)


class _Trunk:
    """A network's trunk on OpenVINO: for few photographs the soonest answer, for many the most per second."""

    def __init__(self, network: Any, *, bfloat16: bool) -> None:
        self._few = openvino.Program(network, bfloat16=bfloat16)
        self._many = functools.cache(partial(openvino.Program, network, bfloat16=bfloat16, apart=True))

    def __call__(self, batches: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
        batches = iter(batches)
        for first in batches:  # full batches come together, and then there are more
            yield from (self._many() if len(first) == BATCH else self._few)(itertools.chain([first], batches))

    def __reduce__(self) -> tuple:
        return self._few.__reduce__()


def by_openvino(folder: Path, *, bfloat16: bool, mirrored: bool = False) -> Network:
    """The network of FILES. Its head computes in float32 always: it is small, and its digits are the answer's."""
    trunk = _Trunk(openvino.read(folder / TRUNK), bfloat16=bfloat16)
    head = openvino.Program(openvino.read(folder / HEAD), bfloat16=False)
    engine = f"OpenVINO, {'bfloat16' if bfloat16 else 'float32'}"
    return Network(trunk, head, engine=engine, mirrored=mirrored, portable=True)


def by_keras(model: Any, *, mirrored: bool = False) -> Network:
    """The network of a Keras model, in float32."""
    from catdog.answers import network

    trunk, head = network.parts(model)
    return Network(_in_keras(trunk), _in_keras(head), engine="Keras, float32", mirrored=mirrored)


def _in_keras(model: Any) -> _Run:
    model.jit_compile = backend.compiles()

    def run(batches: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
        for batch in batches:
            yield [np.asarray(output) for output in model.predict_on_batch(batch.astype(np.float32))]

    return run
