"""The served form of a trained model in MLflow: logged once, fetched, and checked against its digests.

It is a logged model of the training's run: the files of `answers.form`, the code that answers, and no pickle.
"""

import hashlib
import json
import shutil
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

from catdog.answers import form
from catdog.answers.classifier import Classifier
from catdog.base.errors import UserError, first_line
from catdog.engines import backend
from catdog.tracking import patience, served_files, serving

# The part of the library that answers: serving.py and all that it imports. An edit elsewhere changes no version.
SHIPPED = (
    "base/errors.py",
    "base/files.py",
    "base/text.py",
    "photographs/photos.py",
    "engines/backend.py",
    "engines/openvino.py",
    "engines/processor.py",
    "answers/asking.py",
    "answers/classifier.py",
    "answers/familiarity.py",
    "answers/form.py",
    "answers/network.py",
    "tracking/served_files.py",
    "tracking/serving.py",
)
_LIBRARY = Path(__file__).parents[1]
_NEEDS = (
    *("mlflow", "keras", "openvino", "numpy", "pandas"),
    *("opencv-python-headless", "pillow", "simplejpeg", "threadpoolctl"),
)
_KEY, _DIGEST = "served_key", "served_sha256"  # tags of the logged model


@patience.again
def log(
    client: mlflow.MlflowClient,
    *,
    run_id: str,
    name: str,
    keras_file: Path,
    answers: Path,
    settings: form.Settings,
    card: str,
) -> tuple[str, str]:
    """Log the served form of a finished training run, unless the run has this very one already.

    Args:
        name: of the logged model.
        answers: the folder of all of its files but the `.keras` file.
        card: its model card, Markdown; one that was logged stays.

    Returns:
        The logged model's id, and the digest of its files.
    """
    config = settings.to_dict()
    with tempfile.TemporaryDirectory() as folder:
        code = _shipped(Path(folder))
        # MLflow would take half a minute to find these out.
        packages = [f"{package}=={version(package)}" for package in (*_NEEDS, backend.name())]
        key = hashlib.sha256(json.dumps([config, packages, served_files.digest(code)]).encode()).hexdigest()
        run = client.get_run(run_id)
        for logged in client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run_id}'"):
            if logged.status != LoggedModelStatus.READY:  # a kill left it incomplete
                client.delete_logged_model(logged.model_id)
            elif logged.tags.get(_KEY) == key:
                return logged.model_id, logged.tags[_DIGEST]
        shown = {f"served.{key}": str(value) for key, value in config.items() if key != "digests"}
        model_params = run.data.params | shown
        model = client.create_logged_model(run.info.experiment_id, name, run_id, tags={_KEY: key}, params=model_params)
        saved = Path(folder) / "served"
        artifacts = {served_files.MODEL: str(keras_file), served_files.ANSWERS: str(answers)}
        _save(saved, model, artifacts=artifacts, code=code, packages=packages, config=config)
        (saved / served_files.CARD).write_text(card, encoding="utf-8")
        sha256 = served_files.digest(saved)
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
        client.log_model_artifacts(model.model_id, str(saved))
        client.set_logged_model_tags(model.model_id, {_DIGEST: sha256})
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)  # last: READY means complete
    return model.model_id, sha256


def _shipped(folder: Path) -> Path:
    """The part of the library that answers, as a package in `folder`."""
    for name in SHIPPED:
        target = folder / "catdog" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_LIBRARY / name, target)
        (target.parent / "__init__.py").touch()
    (folder / "catdog" / "__init__.py").touch()
    return folder / "catdog"


def _save(
    path: Path,
    model: LoggedModel,
    *,
    artifacts: dict[str, str],
    code: Path,
    packages: list[str],
    config: dict[str, Any],
) -> None:
    outputs = dict.fromkeys(serving.COLUMNS, DataType.string)
    outputs |= {"probability": DataType.double, "familiarity": DataType.double}
    signature = ModelSignature(
        inputs=Schema([ColSpec(DataType.binary, serving.IMAGE)]),
        outputs=Schema([ColSpec(kind, column) for column, kind in outputs.items()]),
        params=ParamSchema([ParamSpec("threshold", DataType.double, config["threshold"])]),
    )
    with warnings.catch_warnings():
        # MLflow asks for an example of the input. It would say no more than the signature, and hold a photograph.
        warnings.filterwarnings("ignore", message=".*input example was not provided.*")
        mlflow.pyfunc.save_model(
            path,
            python_model=str(code / "tracking/serving.py"),
            artifacts=artifacts,
            code_paths=[str(code)],
            model_config=config,
            signature=signature,
            pip_requirements=packages,
            mlflow_model=Model(
                artifact_path=model.artifact_location,
                run_id=model.source_run_id,
                model_uuid=model.model_id,
                model_id=model.model_id,
            ),
        )
    for cache in list(path.rglob("__pycache__")):  # MLflow has run the code once
        shutil.rmtree(cache)


def load(uri: str, *, model_sha256: str | None, served_sha256: str | None) -> Classifier:
    """The classifier in a logged model, run by this project's code, not by the store's.

    Raises:
        UserError: it can't be loaded, there is no such model, or it was changed; see `fetch`.
    """
    with tempfile.TemporaryDirectory() as folder:
        fetched = fetch(uri, Path(folder), model_sha256=model_sha256, served_sha256=served_sha256)
        return served_files.opened(fetched, uri)


def verify(uri: str, *, model_sha256: str | None, served_sha256: str | None) -> None:
    """Check that a logged model is there and is what was logged; see `fetch`.

    Raises:
        UserError: it is not.
    """
    with tempfile.TemporaryDirectory() as folder:
        fetch(uri, Path(folder), model_sha256=model_sha256, served_sha256=served_sha256)


def fetch(uri: str, folder: Path, *, model_sha256: str | None, served_sha256: str | None) -> Path:
    """Copy a logged model into `folder`, check it, and return the path of the copy. None of its code is run.

    The digests are as in `served_files.check`.

    Raises:
        UserError: there is no such model, or it was changed.
    """
    try:
        fetched = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(folder)))
    except (MlflowException, OSError) as error:
        raise UserError(f"{uri} can't be loaded as a served model: {first_line(error)}") from None
    served_files.check(fetched, uri, model_sha256=model_sha256, served_sha256=served_sha256)
    return fetched


def answering(fetched: Path) -> serving.Served:
    """A fetched model, run by this project's code, not by what was fetched.

    Raises:
        UserError: it can't be loaded.
    """
    version = served_files.version(fetched)
    return serving.Served(served_files.opened(fetched, f"models:/{version}"), version)
