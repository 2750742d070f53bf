"""A trained model as it is used: from a file's bytes to an answer. Command line and server both come through here."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from catdog.base import files
from catdog.base.errors import UserError
from catdog.photographs import photos

BATCH = 32


@dataclass(frozen=True)
class Classifier:
    """A trained model with all that lies between a file's bytes and an answer.

    Args:
        classes: their names; probabilities are those of the second.
        image_size: of the standard form that the photographs had in training (pixels, short side).
        side: of the square that the model takes (pixels).
        threshold: probability from which the second class is the label.
        probabilities: uint8 (n, side, side, 3) RGB to float64 (n,), in batches, so that memory stays flat.
    """

    classes: tuple[str, str]
    image_size: int
    side: int
    threshold: float
    probabilities: Callable[[np.ndarray], np.ndarray]

    def pixels(self, data: bytes) -> np.ndarray:
        """A file's bytes as the model takes them, uint8 (side, side, 3).

        Raises:
            photos.Unreadable: these bytes are no photograph.
        """
        return photos.pixels(photos.standardise(data, image_size=self.image_size).jpeg, self.side)

    def label(self, probability: float, threshold: float | None = None) -> str:
        return self.classes[int(probability >= (self.threshold if threshold is None else threshold))]


def load(
    file: Path, *, classes: Iterable[str], image_size: int, threshold: float, model_sha256: str | None = None
) -> Classifier:
    """The classifier of a `.keras` file, read as `read` does."""
    return of(read(file, model_sha256), classes=classes, image_size=image_size, threshold=threshold)


def read(file: Path, model_sha256: str | None = None) -> Any:
    """Load a `.keras` file in Keras's safe mode: nothing that it holds is run as code.

    Raises:
        UserError: the file is missing, is not the one whose sha256 is `model_sha256`, or can't be loaded.
    """
    verify(file, model_sha256)
    import keras

    try:
        model = keras.saving.load_model(file, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises nearly anything on a file that is not its own
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(f"{file} can't be loaded as a Keras model: {reason}") from None
    if not isinstance(model.input_shape[1], int):
        raise UserError(f"{file} does not say which image size it takes: save it with one")
    return model


def of(model: Any, *, classes: Iterable[str], image_size: int, threshold: float) -> Classifier:
    """The classifier of a Keras model that `read` gave."""
    first, second = classes
    return Classifier(
        classes=(first, second),
        image_size=image_size,
        side=model.input_shape[1],
        threshold=threshold,
        probabilities=in_batches(model),
    )


def verify(file: Path, model_sha256: str | None) -> None:
    """Refuse a model file that is missing, or not the one registered under this sha256 (None: any).

    Raises:
        UserError: it is.
    """
    if not file.is_file():
        raise UserError(f"{file} not found: the file of the model is gone; restore the artifact store or train again")
    if model_sha256 is not None and (found := files.sha256(file)) != model_sha256:
        raise UserError(
            f"{file} is not the model that was logged: its sha256 is {found[:12]}, not {model_sha256[:12]}; "
            "it was changed or damaged, so it is not used; restore the artifact store or train again"
        )


def in_batches(model: Any) -> Callable[[np.ndarray], np.ndarray]:
    """A Keras model as a function of pixels, uint8 (n, side, side, 3) to float64 (n,), `BATCH` at a time."""
    forward = _forward(model)

    def probabilities(pixels: np.ndarray) -> np.ndarray:
        parts = [forward(pixels[start : start + BATCH]) for start in range(0, len(pixels), BATCH)]
        return np.concatenate(parts).reshape(-1).astype(np.float64) if parts else np.empty(0)

    return probabilities


def _forward(model: Any) -> Callable[[np.ndarray], np.ndarray]:
    import keras

    if keras.backend.backend() != "tensorflow":
        return lambda pixels: keras.ops.convert_to_numpy(model(pixels.astype(np.float32), training=False))
    import tensorflow as tf

    # One signature for every batch size: each shape of its own would cost a trace.
    signature = tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8)
    compiled = tf.function(lambda x: model(tf.cast(x, tf.float32), training=False), input_signature=[signature])
    return lambda pixels: compiled(tf.constant(pixels)).numpy()
