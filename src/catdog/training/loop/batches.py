"""Photographs as batches for `fit`: decoded once per image size, varied afresh in every epoch."""

import math
import os
import shutil
import tempfile
from typing import IO

import keras
import numpy as np

from catdog.base import parallel, params, paths
from catdog.base.errors import UserError
from catdog.base.progress import track
from catdog.photographs import augmentation, photos, shards

# A training photograph is decoded this much larger than it is used: zooming in and shifting then enlarge nothing.
MARGIN = 1.25


class Pixels:
    """Decoded photographs, uint8 (n, size, size, 3), in an unnamed file: memory-mapped, gone with the process.

    Rows are those of `shards_`, one after the other.

    Raises:
        UserError: the disk has no room for them.
    """

    def __init__(self, shards_: list[shards.Shard], *, size: int, what: str) -> None:
        self.labels = np.concatenate([shard.labels for shard in shards_]).astype(np.float32)
        rows = [(shard, index) for shard in shards_ for index in range(len(shard))]
        paths.CHECKPOINTS.mkdir(parents=True, exist_ok=True)
        shape = (len(rows), size, size, 3)
        with tempfile.TemporaryFile(dir=paths.CHECKPOINTS) as file:
            _reserve(file, math.prod(shape), what=what)
            self.array = np.memmap(file, np.uint8, mode="w+", shape=shape)

        def decode(position: int) -> None:
            shard, index = rows[position]
            self.array[position] = photos.pixels(shard.jpeg(index), size)

        for _ in track(parallel.threaded(decode, range(len(rows)), ahead=256), total=len(rows), what=what):
            pass


def _reserve(file: IO[bytes], size: int, *, what: str) -> None:
    """Take the room for `size` bytes: a mapped file that finds the disk full ends the process without a word."""
    if not size or not hasattr(os, "posix_fallocate"):  # macOS has none
        return
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        free = shutil.disk_usage(paths.CHECKPOINTS).free
        room = f"{size / 1e6:,.1f} MB of room; {paths.CHECKPOINTS} has {free / 1e6:,.1f} MB ({error.strerror})"
        raise UserError(f"{what} needs {room}: make room, or lower the image size") from None


class _Epoch(keras.utils.PyDataset):
    """Each photograph once, as itself or as one of its variants, in an order of the epoch's own.

    The data hold the originals, then their variants, `variants` to a photograph. All randomness follows from `(seed,
    epoch, batch)`: any number of threads gives the same epoch, and so does a training that was interrupted.
    """

    def __init__(self, *, rows: int, variants: int, batch_size: int, seed: int, epoch: int, workers: int = 1) -> None:
        super().__init__(workers=workers, max_queue_size=16)
        self.key = (seed, epoch)
        rng = np.random.default_rng(self.key)
        photographs = rows // (1 + variants)
        order, variant = rng.permutation(photographs), rng.integers(0, variants + 1, photographs)
        # Variant 0 is the photograph itself.
        self._rows = np.where(variant == 0, order, photographs + order * variants + variant - 1)
        self._batch_size = batch_size

    def __len__(self) -> int:
        return steps(len(self._rows), self._batch_size)

    def rows(self, index: int) -> np.ndarray:
        return self._rows[index * self._batch_size : (index + 1) * self._batch_size]


class VariedPixels(_Epoch):
    """An epoch of photographs, each varied afresh by the cheap part of `policy`, and some mixed with another.

    A batch is uint8 (batch, size, size, 3) and labels (batch, 1), which lie between 0 and 1 where two are mixed.
    """

    def __init__(
        self,
        pixels: Pixels,
        *,
        size: int,
        policy: params.Augment,
        variants: int,
        batch_size: int,
        seed: int,
        epoch: int,
    ) -> None:
        super().__init__(
            rows=len(pixels.labels),
            variants=variants,
            batch_size=batch_size,
            seed=seed,
            epoch=epoch,
            workers=parallel.cores(),
        )
        self._pixels, self._size, self._policy = pixels, size, policy

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rows = self.rows(index)
        rng = np.random.default_rng((*self.key, index))
        batch = np.empty((len(rows), self._size, self._size, 3), np.uint8)
        for slot, row in enumerate(rows):
            batch[slot] = augmentation.vary_in_training(self._pixels.array[row], self._policy, rng, size=self._size)
        return augmentation.cutmix(batch, self._pixels.labels[rows, None], self._policy, rng)


class FeatureBatches(_Epoch):
    """An epoch over features: float32 (batch, features) and labels (batch, 1)."""

    def __init__(
        self, features: np.ndarray, labels: np.ndarray, *, variants: int, batch_size: int, seed: int, epoch: int
    ) -> None:
        super().__init__(rows=len(labels), variants=variants, batch_size=batch_size, seed=seed, epoch=epoch)
        self._features, self._labels = features, labels.astype(np.float32)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rows = self.rows(index)
        return self._features[rows], self._labels[rows, None]


class InOrder(keras.utils.PyDataset):
    """Inputs as they are, in order, to validate on."""

    def __init__(self, inputs: np.ndarray, labels: np.ndarray, *, batch_size: int) -> None:
        super().__init__()
        self._inputs, self._labels, self._batch_size = inputs, labels.astype(np.float32), batch_size

    def __len__(self) -> int:
        return steps(len(self._labels), self._batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rows = slice(index * self._batch_size, (index + 1) * self._batch_size)
        return self._inputs[rows], self._labels[rows, None]


def steps(photographs: int, batch_size: int) -> int:
    """Batches in an epoch."""
    return -(-photographs // batch_size)
