"""Which devices a network is trained on: one, or all GPUs of this machine, each with a copy of the weights.

Several hosts are another matter: TensorFlow's strategies for them do not work with Keras 3, whose `fit` can't share
batches between hosts, nor take them from a coordinator.
"""

import functools
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
import numpy as np

from catdog.base.errors import UserError


def scope(name: str) -> AbstractContextManager:
    """Where a network is to be built, compiled and trained, by the name that `train.strategy` in params.yaml gives.

    `one` is TensorFlow's first device. `mirrored` is all local GPUs, or the CPUs where there is none: each takes an
    equal share of every batch, and all take the same step. `auto` is `mirrored` from two GPUs on, else `one`.

    Raises:
        UserError: `mirrored` on another backend than TensorFlow.
    """
    tensorflow = keras.backend.backend() == "tensorflow"
    if name == "mirrored" and not tensorflow:
        raise UserError("train.strategy mirrored needs Keras on TensorFlow: set KERAS_BACKEND=tensorflow")
    if name == "one" or not tensorflow or (name == "auto" and len(_devices("GPU")) < 2):
        return nullcontext()
    return _mirrored().scope()


def scope_of(model: keras.Model) -> AbstractContextManager:
    """The scope that `model` was built in."""
    return model.distribute_strategy.scope() if replicas(model) > 1 else nullcontext()


def replicas(model: keras.Model) -> int:
    """How many devices share the batches of `model`."""
    strategy = getattr(model, "distribute_strategy", None)
    return strategy.num_replicas_in_sync if strategy else 1


class EvenBatches(keras.utils.PyDataset):
    """`data` in batches that can be shared equally: a last share that lacks rows has the batch's first rows again.

    Keras can't begin with a batch that can't be shared equally, and batch normalization makes NaN of an empty share.
    """

    def __init__(self, data: keras.utils.PyDataset, *, replicas: int) -> None:
        super().__init__(workers=data.workers, max_queue_size=data.max_queue_size)
        self._data, self._replicas = data, replicas

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        inputs, labels = self._data[index]
        rows = np.resize(np.arange(len(labels)), self._shared(len(labels)))
        return inputs[rows], labels[rows]

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
