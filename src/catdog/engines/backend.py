"""Which library Keras computes with: TensorFlow, or JAX where KERAS_BACKEND says so. All who need to know ask here."""

import json
import os
import sys
from pathlib import Path
from typing import Any

_CONFIG = "~/.keras/keras.json"


def name() -> str:
    """`tensorflow`, `jax` or another. Known without importing Keras, which takes seconds."""
    if keras := sys.modules.get("keras"):
        return keras.backend.backend()
    if chosen := os.environ.get("KERAS_BACKEND"):
        return chosen
    try:
        return json.loads(Path(_CONFIG).expanduser().read_text(encoding="utf-8"))["backend"]
    except (OSError, ValueError, LookupError):
        return "tensorflow"


def is_tensorflow() -> bool:
    return name() == "tensorflow"


def is_jax() -> bool:
    return name() == "jax"


def compiles() -> bool:
    """Whether XLA should compile a model. JAX would else compute operation by operation; TensorFlow's own kernels are
    the quicker ones on a processor."""
    return is_jax()


def keep_alone() -> None:
    """Keep Keras from importing TensorFlow beside another backend: it would, to seed it and to save a model."""
    if not is_tensorflow() and _WithoutTensorFlow not in sys.meta_path:
        sys.meta_path.insert(0, _WithoutTensorFlow)


class _WithoutTensorFlow:
    """A finder of modules by which TensorFlow is not installed."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] == "tensorflow":
            raise ModuleNotFoundError(f"No module named {name!r}: Keras computes with another", name=name)
