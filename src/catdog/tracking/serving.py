"""The served model: bytes in; label, probability and familiarity out. MLflow runs this file to load a logged model."""

import os
import threading
import uuid
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from mlflow.pyfunc import PythonModel

from catdog.answers import asking, form
from catdog.answers.classifier import Answer, Classifier
from catdog.base.errors import UserError
from catdog.photographs import photos
from catdog.tracking import served_files

IMAGE = "image"
COLUMNS = ("label", "probability", "familiarity", "model_version", "id")
MOST_PHOTOGRAPHS = 256  # per request; for more there is `catdog predict`
DECODED_AT_ONCE = min(4, os.cpu_count() or 1)  # photographs; one of 64 megapixels takes over a gigabyte
_NAMED = 5  # bad rows that a refusal names


class Served:
    """A served form that answers requests; many threads may ask at a time."""

    def __init__(self, classifier: Classifier, version: str) -> None:
        self._classifier, self.version, self.classes = classifier, version, classifier.classes
        self._decoding = threading.Semaphore(DECODED_AT_ONCE)

    def answer(self, images: list[bytes], params: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """The columns for each photograph, all or none. Each answer has an id of its own.

        Raises:
            MlflowException: a row is no photograph, there are more than MOST_PHOTOGRAPHS, or `threshold` is no
                probability (400 over HTTP, rows named).
        """
        return self.answer_with_features(images, params)[0]

    def answer_with_features(
        self, images: list[bytes], params: dict[str, Any] | None = None
    ) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
        """What `answer` gives, and the features of each photograph: float32 (k,)."""
        threshold = (params or {}).get("threshold", self._classifier.threshold)
        # JSON's true is no number, though Python counts it as one.
        if not isinstance(threshold, int | float) or isinstance(threshold, bool) or not 0 <= threshold <= 1:
            raise MlflowException(f"threshold should be between 0 and 1. Received: {threshold!r:.100}", BAD_REQUEST)
        if len(images) > MOST_PHOTOGRAPHS:
            message = f"a request should hold at most {MOST_PHOTOGRAPHS} photographs. Received: {len(images)}"
            raise MlflowException(message, BAD_REQUEST)
        answers: list[Answer] = []
        features: list[np.ndarray] = []
        bad: list[str] = []
        for start in range(0, len(images), asking.BATCH):
            pixels = self._pixels(images[start : start + asking.BATCH], start, bad)
            if pixels and not bad:
                asked = self._classifier.ask(np.stack(pixels))
                answers += self._classifier.answers(asked, threshold)
                features.extend(asked.features)
        if bad:
            named = "; ".join(bad[:_NAMED]) + (f"; and {len(bad) - _NAMED} more" if len(bad) > _NAMED else "")
            others = len(images) - len(bad)
            rest = f". The others ({others}) were not answered: send them without these" if others else ""
            raise MlflowException(f"not a photograph: {named}{rest}", BAD_REQUEST)
        rows = [{**answer._asdict(), "model_version": self.version, "id": uuid.uuid4().hex} for answer in answers]
        return rows, features

    def _pixels(self, images: list[bytes], start: int, bad: list[str]) -> list[np.ndarray]:
        pixels = []
        for row, data in enumerate(images, start=start):
            try:
                with self._decoding:
                    pixels.append(self._classifier.pixels(data))
            except photos.Unreadable as error:
                bad.append(f"row {row}: {error}")
        return pixels


class ServedModel(PythonModel):
    """Column `image` (file bytes; base64 over HTTP) to `label`, `probability` (of the second class), `familiarity`,
    `model_version` and `id`.

    `label` is a class, `unsure` or `neither`; see `classifier.Answer`. `model_version` is such as catdog/3, or the id
    of a logged model that was not loaded as a version. The parameter `threshold`, the probability from which the second
    class is the label, replaces the model's own.
    """

    def load_context(self, context: Any) -> None:
        file = Path(context.artifacts[served_files.MODEL])
        folder = Path(context.artifacts.get(served_files.ANSWERS, file.parent))
        try:
            classifier = form.open_form(file, folder, form.settings(context.model_config))
        except UserError as error:
            raise MlflowException(str(error)) from None
        self._served = Served(classifier, served_files.version(file.parent.parent))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """One row per photograph, all or none; errors as in `Served.answer`."""
        answers = self._served.answer(list(model_input[IMAGE]), params)
        return pd.DataFrame(answers, columns=list(COLUMNS))


if __name__ != "catdog.tracking.serving":  # MLflow runs it under a name of its own
    mlflow.models.set_model(ServedModel())
