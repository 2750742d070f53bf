"""The served model: bytes in, label and probability out. MLflow runs this file to load a logged model."""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import yaml
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from mlflow.pyfunc import PythonModel

from catdog.answers import classifier
from catdog.base.errors import UserError
from catdog.photographs import photos

IMAGE, MODEL = "image", "model"
MOST_PHOTOGRAPHS = 256  # per request; for more there is `catdog predict`
_NAMED = 5  # bad rows that a refusal names
META = "registered_model_meta"  # a file that MLflow adds to a model fetched as a version


class ServedModel(PythonModel):
    """Column `image` (file bytes; base64 over HTTP) to `label`, `probability` (of the second class), `model_version`.

    `model_version` is such as catdog/3, or the id of a logged model that was not loaded as a version. The parameter
    `threshold`, the probability from which the second class is the label, replaces the model's own.
    """

    def load_context(self, context: Any) -> None:
        file = Path(context.artifacts[MODEL])
        try:
            self._classifier = classifier.load(file, **context.model_config)
        except UserError as error:
            raise MlflowException(str(error)) from None
        self._version = version(file.parent.parent)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """One row per photograph, all or none.

        Raises:
            MlflowException: a row is no photograph, there are more than MOST_PHOTOGRAPHS, or `threshold` is no
                probability (400 over HTTP, rows named).
        """
        threshold = (params or {}).get("threshold", self._classifier.threshold)
        if threshold is None or not 0 <= threshold <= 1:
            raise MlflowException(f"threshold should be between 0 and 1. Received: {threshold}", BAD_REQUEST)
        images = list(model_input[IMAGE])
        if len(images) > MOST_PHOTOGRAPHS:
            message = f"a request should hold at most {MOST_PHOTOGRAPHS} photographs. Received: {len(images)}"
            raise MlflowException(message, BAD_REQUEST)
        probabilities = self._classifier.probabilities(self._pixels(images)) if images else np.empty(0)
        labels = [self._classifier.label(p, threshold) for p in probabilities]
        return pd.DataFrame(
            {
                "label": pd.Series(labels, dtype=object),
                "probability": probabilities,
                "model_version": pd.Series([self._version] * len(labels), dtype=object),
            }
        )

    def _pixels(self, images: list[bytes]) -> np.ndarray:
        pixels, bad = [], []
        for row, data in enumerate(images):
            try:
                pixels.append(self._classifier.pixels(data))
            except photos.Unreadable as error:
                bad.append(f"row {row}: {error}")
        if bad:
            named = "; ".join(bad[:_NAMED]) + (f"; and {len(bad) - _NAMED} more" if len(bad) > _NAMED else "")
            others = f". The others ({len(pixels)}) were not answered: send them without these" if pixels else ""
            raise MlflowException(f"not a photograph: {named}{others}", BAD_REQUEST)
        return np.stack(pixels)


def version(folder: Path) -> str:
    """Such as catdog/3, of a fetched model; the id of a logged model that was not fetched as a version."""
    meta = folder / META
    if meta.is_file():
        registered = yaml.safe_load(meta.read_text(encoding="utf-8"))
        if registered.get("model_name"):
            return f"{registered['model_name']}/{registered['model_version']}"
    return Model.load(folder).model_id or ""


if __name__ != "catdog.tracking.serving":  # MLflow runs it under a name of its own
    mlflow.models.set_model(ServedModel())
