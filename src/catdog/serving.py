"""The model as it is served: bytes in, label and probability out. MLflow runs this very file to load a logged model."""

import tempfile
import warnings
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.models.model import ModelInfo
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from mlflow.pyfunc import PythonModel
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

from catdog import classifier, lineage, photos
from catdog.errors import UserError

IMAGE, MODEL = "image", "model"
_NEEDS = ("mlflow", "tensorflow", "keras", "numpy", "pandas", "opencv-python-headless", "pillow")
_NAMED = 5  # rows named in a refusal; of a thousand bad ones the first few say enough


class ServedModel(PythonModel):
    """Column `image` (file bytes; base64 over HTTP) to `label` and `probability` (of the second class).

    The parameter `threshold` replaces the probability from which the second class is the label.
    """

    def load_context(self, context: Any) -> None:
        file = Path(context.artifacts[MODEL])
        try:
            self._classifier = classifier.load(file, **context.model_config)
        except UserError as error:
            raise MlflowException(str(error)) from None

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """One row per photograph, all or none.

        Raises:
            MlflowException: a row is no photograph, or `threshold` is no probability (400 over HTTP, rows named).
        """
        threshold = (params or {}).get("threshold", self._classifier.threshold)
        if not 0 <= threshold <= 1:
            raise MlflowException(f"threshold should be between 0 and 1. Received: {threshold}", BAD_REQUEST)
        images = list(model_input[IMAGE])
        parts = [
            self._classifier.probabilities(self._pixels(images, start))
            for start in range(0, len(images), classifier.BATCH)
        ]
        probabilities = np.concatenate(parts) if parts else np.empty(0)
        labels = [self._classifier.label(p, threshold) for p in probabilities]
        return pd.DataFrame({"label": pd.Series(labels, dtype=object), "probability": probabilities})

    def _pixels(self, images: list[bytes], start: int) -> np.ndarray:
        pixels, bad = [], []
        for row, data in enumerate(images[start : start + classifier.BATCH], start=start):
            try:
                pixels.append(self._classifier.pixels(data))
            except photos.Unreadable as error:
                bad.append(f"row {row}: {error}")
        if bad:
            more = f"; and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
            raise MlflowException(f"not a photograph: {'; '.join(bad[:_NAMED])}{more}", BAD_REQUEST)
        return np.stack(pixels)


def log_served_model(
    *,
    keras_file: Path,
    classes: Iterable[str],
    image_size: int,
    threshold: float,
    name: str = "served",
    tags: dict[str, str] | None = None,
    metadata: dict[str, Any] | None = None,
) -> ModelInfo:
    """Log the served form of a trained model to the active run: the `.keras` file, this code, and no pickle.

    Args:
        image_size: of the standard form of the photographs (`prepare.image_size`).
        threshold: what a request gets that names none.
        tags: of the logged model.
    """
    config = {
        "classes": list(classes),
        "image_size": image_size,
        "threshold": threshold,
        "model_sha256": lineage.sha256(keras_file),
    }
    signature = ModelSignature(
        inputs=Schema([ColSpec(DataType.binary, IMAGE)]),
        outputs=Schema([ColSpec(DataType.string, "label"), ColSpec(DataType.double, "probability")]),
        params=ParamSchema([ParamSpec("threshold", DataType.double, threshold)]),
    )
    with warnings.catch_warnings():
        # It asks for an example of the input, which says no more than the signature and would hold a photograph.
        warnings.filterwarnings("ignore", message=".*input example was not provided.*")
        return mlflow.pyfunc.log_model(
            name=name,
            python_model=str(Path(__file__)),
            artifacts={MODEL: str(keras_file)},
            code_paths=[str(Path(__file__).parent)],
            model_config=config,
            signature=signature,
            # Named here, since MLflow would spend half a minute on finding out.
            pip_requirements=[f"{package}=={version(package)}" for package in _NEEDS],
            tags=tags,
            metadata=metadata,
        )


def load(uri: str, *, model_sha256: str | None = None) -> classifier.Classifier:
    """The classifier inside a logged model, run by the code of this project and not by what is in the store.

    Args:
        model_sha256: what the registry says of the file; what the logged model says of itself is checked in any case.

    Raises:
        UserError: there is no such model, or its file was changed.
    """
    with tempfile.TemporaryDirectory() as folder:
        file, config = _fetch(uri, Path(folder))
        classifier.verify(file, model_sha256)
        return classifier.load(file, **config)


def verify(uri: str, *, model_sha256: str | None) -> None:
    """Check that the file of a logged model is there and is the one that was logged.

    Raises:
        UserError: it is not.
    """
    with tempfile.TemporaryDirectory() as folder:
        file, config = _fetch(uri, Path(folder))
        classifier.verify(file, config["model_sha256"])
        classifier.verify(file, model_sha256)


def _fetch(uri: str, folder: Path) -> tuple[Path, dict[str, Any]]:
    try:
        local = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(folder)))
        flavor = Model.load(local).flavors["python_function"]
        return local / flavor["artifacts"][MODEL]["path"], flavor["config"]
    except (MlflowException, OSError, KeyError) as error:
        raise UserError(f"{uri} can't be loaded as a served model: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


if __name__ != "catdog.serving":  # MLflow runs it under a name of its own
    mlflow.models.set_model(ServedModel())
