"""Photographs and shards made up from a seed, and the shipped knobs, for any test."""

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
import uvicorn

from catdog.base import params
from catdog.photographs import photos, shards

ROOT = Path(__file__).parents[1]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def photograph(seed: int, size: tuple[int, int] = (96, 72)) -> np.ndarray:
    """Smooth patches of colour, uint8 (height, width, 3) RGB, other ones for each seed; `size` is width, height."""
    patches = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return cv2.resize(patches, size, interpolation=cv2.INTER_CUBIC)


def jpeg(seed: int, size: tuple[int, int] = (96, 72)) -> bytes:
    return photos.encode(photograph(seed, size))


@contextmanager
def listening(app) -> Iterator[str]:
    """The address of an application that runs meanwhile."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture(autouse=True)
def search_path() -> Iterator[None]:
    """MLflow puts the code of a model that it loads first in the path, where processes started later would find it."""
    before = sys.path[:]
    yield
    sys.path[:] = before


@pytest.fixture(scope="session")
def knobs() -> params.Params:
    """What the shipped params.yaml says."""
    return params.load(ROOT / "params.yaml")


@pytest.fixture
def make_shard(tmp_path: Path) -> Callable[..., shards.Shard]:
    """`make_shard(seeds)`: a shard with a photograph for each of `seeds`, classes alternating."""

    def make(seeds: range, *, name: str = "train", size: tuple[int, int] = (96, 72)) -> shards.Shard:
        path = tmp_path / f"{name}.arrow"
        shards.write(path, (shards.Row(f"id{s}", f"cat/{s}.jpg", s % 2, jpeg(s, size), f"group{s}") for s in seeds))
        return shards.Shard(path)

    return make


@pytest.fixture(scope="session")
def browser():
    """Chromium without a screen, where one is installed."""
    if not BROWSER:
        pytest.skip("neither chromium nor google-chrome is installed")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        # Chromium's own sandbox does not start for root, as in a container.
        yield playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
