"""Which devices a network is trained on: one, or all of this machine or of several, each with a copy of the weights.

Several hosts take JAX: TensorFlow's strategies for them do not work with Keras 3, whose `fit` can't share batches
between hosts, nor take them from a coordinator.
"""

import functools
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
import numpy as np

from catdog.base.errors import UserError
from catdog.engines import backend
from catdog.training.loop import hosts


def scope(name: str) -> AbstractContextManager:
    """Where a network is to be built, compiled and trained, by the name that `train.strategy` in params.yaml gives.

    `one` is the first device. `mirrored` is all local GPUs, or the CPUs where there is none: each takes an equal share
    of every batch, and all take the same step. `auto` is `mirrored` from two GPUs on, on JAX from two devices on; else
    `one`. Several hosts are all of their devices.

    Raises:
        UserError: `mirrored` on another backend than TensorFlow and JAX; `one` for several hosts.
    """
    if hosts.count() > 1 and name == "one":
        raise UserError("train.strategy one is for one host: set it to auto")
    if backend.is_jax():
        if name == "one" or len(keras.distribution.list_devices()) == 1:
            return nullcontext()
        hosts.meet()  # from here on their devices work together
        return _data_parallel().scope()
    if name == "mirrored" and not backend.is_tensorflow():
        raise UserError("train.strategy mirrored needs Keras on TensorFlow or JAX: set KERAS_BACKEND")
    if name == "one" or not backend.is_tensorflow() or (name == "auto" and len(_devices("GPU")) < 2):
        return nullcontext()
    return _mirrored().scope()


def scope_of(model: keras.Model) -> AbstractContextManager:
    """The scope that `model` was built in, for all that is computed with it."""
    if replicas(model) == 1:
        return nullcontext()
    return _data_parallel().scope() if backend.is_jax() else model.distribute_strategy.scope()


def replicas(model: keras.Model) -> int:
    """How many devices share the batches of `model`."""
    if backend.is_jax():
        return len(model.variables[0].value.sharding.device_set)
    strategy = getattr(model, "distribute_strategy", None)
    return strategy.num_replicas_in_sync if strategy else 1


class EvenBatches(keras.utils.PyDataset):
    """`data` in batches that can be shared equally: a last share that lacks rows has the batch's first rows again.

    Keras can't begin with a batch that can't be shared equally, and batch normalization makes NaN of an empty share.
    Of several hosts, each has its own part of every batch.

    Args:
        weighted: batches have weights too, 0 for rows that are there again: float32 (batch,).
    """

    def __init__(self, data: keras.utils.PyDataset, *, replicas: int, weighted: bool = False) -> None:
        super().__init__(workers=data.workers, max_queue_size=data.max_queue_size)
        self._data, self._replicas, self._weighted = data, replicas, weighted

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        inputs, labels = self._data[index]
        places = hosts.part(np.arange(self._shared(len(labels))))
        rows = places % len(labels)
        weights = (np.float32(places < len(labels)),) if self._weighted else ()
        return inputs[rows], labels[rows], *weights

    def originals(self) -> np.ndarray:
        """Which rows of all batches are the data's own, bool."""
        counts = [len(self._data[index][1]) for index in range(len(self))]
        return np.concatenate([np.arange(self._shared(count)) < count for count in counts])

    def _shared(self, count: int) -> int:
        return -(-count // self._replicas) * self._replicas


@functools.cache
def _mirrored() -> Any:
    # One for all networks of a process: variables of two strategies can't meet in one model.
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(_devices("GPU") or _devices("CPU"))


def _devices(kind: str) -> list[str]:
    import tensorflow as tf

    return [device.name for device in tf.config.list_logical_devices(kind)]


@functools.cache
def _data_parallel() -> Any:
    return keras.distribution.DataParallel(auto_shard_dataset=False)
