"""A trained model in use: from a file's bytes to an answer, for the command line and the server alike."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from catdog.base import files
from catdog.base.errors import UserError, first_line
from catdog.photographs import photos

BATCH = 32


@dataclass(frozen=True)
class Classifier:
    """A trained model, with every step from a file's bytes to an answer.

    Attributes:
        classes: their names; probabilities are those of the second.
        image_size: short side of the photographs' standard form in training (pixels).
        side: of the model's square input (pixels).
        threshold: probability from which the second class is the label.
        probabilities: from uint8 (n, side, side, 3) RGB to float64 (n,); works in batches, so memory stays flat.
    """

    classes: tuple[str, str]
    image_size: int
    side: int
    threshold: float
    probabilities: Callable[[np.ndarray], np.ndarray]

    def pixels(self, data: bytes) -> np.ndarray:
        """The model's input for a file's bytes, uint8 (side, side, 3).

        Raises:
            photos.Unreadable: these bytes are no photograph.
        """
        return photos.pixels(photos.standardise(data, image_size=self.image_size).jpeg, self.side)

    def label(self, probability: float, threshold: float | None = None) -> str:
        return self.classes[int(probability >= (self.threshold if threshold is None else threshold))]


def load(
    file: Path, *, classes: Iterable[str], image_size: int, threshold: float, model_sha256: str | None = None
) -> Classifier:
    """The classifier of a `.keras` file; errors as in `read`."""
    return of(read(file, model_sha256), classes=classes, image_size=image_size, threshold=threshold)


def read(file: Path, model_sha256: str | None = None) -> Any:
    """Load a `.keras` file in Keras's safe mode: nothing in it is run as code.

    Raises:
        UserError: the file is missing, is not the one whose sha256 is `model_sha256`, or can't be loaded.
    """
    verify(file, model_sha256)
    import keras

    try:
        model = keras.saving.load_model(file, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises nearly anything on a file that is not its own
        raise UserError(f"{file} can't be loaded as a Keras model: {first_line(error)}") from None
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
    """Check that a model file is there and has this sha256 (None: any).

    Raises:
        UserError: it is missing, or is another.
    """
    if not file.is_file():
        raise UserError(f"{file} not found: the file of the model is gone; restore the artifact store or train again")
    if model_sha256 is not None and (actual := files.sha256(file)) != model_sha256:
        raise UserError(
            f"{file} is not the model that was logged: its sha256 is {actual[:12]}, not {model_sha256[:12]}; "
            "it was changed or damaged, so it is not used; restore the artifact store or train again"
        )


def in_batches(model: Any) -> Callable[[np.ndarray], np.ndarray]:
    """A Keras model as a function from uint8 (n, side, side, 3) to probabilities, float64 (n,), `BATCH` at a time."""
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

    # One signature for all batch sizes, else each would be traced anew.
    signature = tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8)
    compiled = tf.function(
        lambda x: model(tf.cast(x, tf.float32), training=False),
        input_signature=[signature],
        autograph=False,  # there is none to translate, and it leaves a file behind where the process is killed
    )
    return lambda pixels: compiled(tf.constant(pixels)).numpy()
