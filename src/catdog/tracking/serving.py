"""The model as it is served: bytes in, label and probability out. MLflow runs this very file to load a logged model."""

import hashlib
import shutil
import tempfile
import warnings
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import yaml
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.models.model import ModelInfo
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from mlflow.pyfunc import PythonModel
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

from catdog.answers import classifier
from catdog.base.errors import UserError
from catdog.photographs import photos
from catdog.tracking import lineage

IMAGE, MODEL = "image", "model"
MOST_PHOTOGRAPHS = 256  # of a request; a batch job is better off with `catdog predict`
_NEEDS = ("mlflow", "tensorflow", "keras", "numpy", "pandas", "opencv-python-headless", "pillow")
_NAMED = 5  # rows named in a refusal; of many bad ones the first few say enough
_META = "registered_model_meta"  # MLflow writes it beside a model that is fetched by the name of a version


class ServedModel(PythonModel):
    """Column `image` (file bytes; base64 over HTTP) to `label`, `probability` (of the second class), `model_version`.

    The last is such as catdog/3, or the id of a logged model that was not loaded as a version. The parameter
    `threshold` replaces the probability from which the second class is the label.
    """

    def load_context(self, context: Any) -> None:
        file = Path(context.artifacts[MODEL])
        try:
            self._classifier = classifier.load(file, **context.model_config)
        except UserError as error:
            raise MlflowException(str(error)) from None
        self._version = _version(file.parent.parent)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """One row per photograph, all or none.

        Raises:
            MlflowException: a row is no photograph, there are more than MOST_PHOTOGRAPHS, or `threshold` is no
                probability (400 over HTTP, rows named).
        """
        threshold = (params or {}).get("threshold", self._classifier.threshold)
        if not 0 <= threshold <= 1:
            raise MlflowException(f"threshold should be between 0 and 1. Received: {threshold}", BAD_REQUEST)
        images = list(model_input[IMAGE])
        if len(images) > MOST_PHOTOGRAPHS:
            said = f"a request should hold at most {MOST_PHOTOGRAPHS} photographs. Received: {len(images)}"
            raise MlflowException(said, BAD_REQUEST)
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
            said = "; ".join(bad[:_NAMED]) + (f"; and {len(bad) - _NAMED} more" if len(bad) > _NAMED else "")
            others = f". The other {len(pixels)} were not answered: send them without these" if pixels else ""
            raise MlflowException(f"not a photograph: {said}{others}", BAD_REQUEST)
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
        outputs=Schema(
            [
                ColSpec(DataType.string, "label"),
                ColSpec(DataType.double, "probability"),
                ColSpec(DataType.string, "model_version"),
            ]
        ),
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


def load(uri: str, *, model_sha256: str | None = None, served_sha256: str | None = None) -> classifier.Classifier:
    """The classifier inside a logged model, run by the code of this project and not by what is in the store.

    Raises:
        UserError: there is no such model, or it was changed, as `fetch` has it.
    """
    with tempfile.TemporaryDirectory() as folder:
        _, found = read(fetch(uri, Path(folder), model_sha256=model_sha256, served_sha256=served_sha256))
        return found


def read(fetched: Path) -> tuple[Any, classifier.Classifier]:
    """The Keras model in what `fetch` gave, and the classifier around it.

    Raises:
        UserError: it can't be loaded.
    """
    file, config = _parts(fetched)
    model = classifier.read(file, config.pop("model_sha256"))
    return model, classifier.of(model, **config)


def verify(uri: str, *, model_sha256: str | None, served_sha256: str | None = None) -> None:
    """Check that a logged model is there and is what was logged, as `fetch` has it.

    Raises:
        UserError: it is not.
    """
    with tempfile.TemporaryDirectory() as folder:
        fetch(uri, Path(folder), model_sha256=model_sha256, served_sha256=served_sha256)


def fetch(uri: str, folder: Path, *, model_sha256: str | None = None, served_sha256: str | None = None) -> Path:
    """A copy of a logged model in `folder`, and where it is.

    Args:
        model_sha256: what the registry says of the `.keras` file; what the logged model says of it is checked in any
            case.
        served_sha256: what `digest` gave of it all when it was logged; None: not checked.

    Raises:
        UserError: there is no such model, or it was changed.
    """
    try:
        fetched = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(folder)))
        file, config = _parts(fetched)
    except (MlflowException, OSError, KeyError) as error:
        raise UserError(f"{uri} can't be loaded as a served model: {_first_line(error)}") from None
    for cache in list(fetched.rglob("__pycache__")):  # no part of what was logged, and Python would trust it
        shutil.rmtree(cache)
    classifier.verify(file, config["model_sha256"])
    classifier.verify(file, model_sha256)
    if served_sha256 is not None and (found := digest(fetched)) != served_sha256:
        raise UserError(
            f"{uri} is not what was logged: the sha256 of its files is {found[:12]}, not {served_sha256[:12]}; code or "
            "settings were changed, so it is not used; restore the artifact store or train again"
        )
    return fetched


def digest(folder: Path) -> str:
    """sha256 over names and contents of all files of a logged model, in hex.

    Left out is what comes to it later: the name that it was fetched by, and compiled code.
    """
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    names = {file.relative_to(folder).as_posix(): file for file in files}
    lines = [
        f"{lineage.sha256(file)}  {name}\n"
        for name, file in names.items()
        if name != _META and "__pycache__" not in file.parts
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _parts(fetched: Path) -> tuple[Path, dict[str, Any]]:
    flavor = Model.load(fetched).flavors["python_function"]
    return fetched / flavor["artifacts"][MODEL]["path"], flavor["config"]


def _version(folder: Path) -> str:
    meta = folder / _META
    if meta.is_file():
        said = yaml.safe_load(meta.read_text(encoding="utf-8"))
        if said.get("model_name"):
            return f"{said['model_name']}/{said['model_version']}"
    return Model.load(folder).model_id or ""


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


if __name__ != "catdog.tracking.serving":  # MLflow runs it under a name of its own
    mlflow.models.set_model(ServedModel())
