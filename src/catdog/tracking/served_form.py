"""The served form of a trained model in MLflow: logged once, fetched, and checked against its digests.

It is a logged model of the training's run: the files of `answers.form`, the code that answers, and no pickle.
"""

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import yaml
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

from catdog.answers import classifier, form
from catdog.base import files
from catdog.base.errors import UserError, first_line
from catdog.tracking import patience, serving

# The part of the library that answers: serving.py and all that it imports. An edit elsewhere changes no version.
SHIPPED = (
    "base/errors.py",
    "base/files.py",
    "base/text.py",
    "photographs/photos.py",
    "engines/openvino.py",
    "engines/processor.py",
    "answers/asking.py",
    "answers/classifier.py",
    "answers/familiarity.py",
    "answers/form.py",
    "answers/network.py",
    "tracking/serving.py",
)
_LIBRARY = Path(__file__).parents[1]
_NEEDS = (
    *("mlflow", "tensorflow", "keras", "openvino", "numpy", "pandas"),
    *("opencv-python-headless", "pillow", "simplejpeg"),
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
) -> tuple[str, str]:
    """Log the served form of a finished training run, unless the run has this very one already.

    Args:
        name: of the logged model.
        answers: the folder of all of its files but the `.keras` file.

    Returns:
        The logged model's id, and the digest of its files.
    """
    config = settings.to_dict()
    with tempfile.TemporaryDirectory() as folder:
        code = _shipped(Path(folder))
        # MLflow would take half a minute to find these out.
        packages = [f"{package}=={version(package)}" for package in _NEEDS]
        key = hashlib.sha256(json.dumps([config, packages, digest(code)]).encode()).hexdigest()
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
        artifacts = {serving.MODEL: str(keras_file), serving.ANSWERS: str(answers)}
        _save(saved, model, artifacts=artifacts, code=code, packages=packages, config=config)
        sha256 = digest(saved)
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


def load(uri: str, *, model_sha256: str | None, served_sha256: str | None) -> classifier.Classifier:
    """The classifier in a logged model, run by this project's code, not by the store's.

    Raises:
        UserError: it can't be loaded, there is no such model, or it was changed; see `fetch`.
    """
    with tempfile.TemporaryDirectory() as folder:
        fetched = fetch(uri, Path(folder), model_sha256=model_sha256, served_sha256=served_sha256)
        with _named(uri, fetched):
            return _opened(fetched)


def verify(uri: str, *, model_sha256: str | None, served_sha256: str | None) -> None:
    """Check that a logged model is there and is what was logged; see `fetch`.

    Raises:
        UserError: it is not.
    """
    with tempfile.TemporaryDirectory() as folder:
        fetch(uri, Path(folder), model_sha256=model_sha256, served_sha256=served_sha256)


def fetch(uri: str, folder: Path, *, model_sha256: str | None, served_sha256: str | None) -> Path:
    """Copy a logged model into `folder`, check it, and return the path of the copy. None of its code is run.

    The digests are those of `versions.digests`. They have no default, so that whoever opens a model says what it is
    checked against.

    Args:
        model_sha256: of the `.keras` file in the registry; the one in the logged model is always checked.
        served_sha256: what `digest` gave when the model was logged; None: not checked.

    Raises:
        UserError: there is no such model, or it was changed.
    """
    try:
        fetched = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(folder)))
        keras_file, _, settings = _parts(fetched)
    except (MlflowException, OSError, LookupError, TypeError, ValueError, AttributeError, yaml.YAMLError) as error:
        raise UserError(f"{uri} can't be loaded as a served model: {first_line(error)}") from None
    for cache in list(fetched.rglob("__pycache__")):  # was never logged, and Python would trust it
        shutil.rmtree(cache)
    with _named(uri, fetched):
        form.verify(keras_file, settings.model_sha256)
        form.verify(keras_file, model_sha256)
    if served_sha256 is not None and (actual := digest(fetched)) != served_sha256:
        raise UserError(
            f"{uri} is not what was logged: the sha256 of its files is {actual[:12]}, not {served_sha256[:12]}; code "
            "or settings were changed, so it is not used; restore the artifact store or train again"
        )
    return fetched


def digest(folder: Path) -> str:
    """sha256 of the names and contents of all files of a logged model, in hex.

    Files that come later do not count: the name by which it was fetched, and compiled code.
    """
    logged = sorted(file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    names = {file.relative_to(folder).as_posix(): file for file in logged}
    lines = [f"{files.sha256(file)}  {name}\n" for name, file in names.items() if name != serving.META]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def answering(fetched: Path) -> serving.Served:
    """A fetched model, run by this project's code, not by what was fetched.

    Raises:
        UserError: it can't be loaded.
    """
    version = serving.version(fetched)
    with _named(f"models:/{version}", fetched):
        return serving.Served(_opened(fetched), version)


def _opened(fetched: Path) -> classifier.Classifier:
    return form.open_form(*_parts(fetched))


@contextmanager
def _named(uri: str, fetched: Path) -> Iterator[None]:
    """Let errors name the model, not the temporary folder of its copy."""
    try:
        yield
    except (UserError, MlflowException) as error:
        raise UserError(str(error).replace(f"{fetched}{os.sep}", f"{uri}: ")) from None


def _parts(fetched: Path) -> tuple[Path, Path, form.Settings]:
    """The `.keras` file, the folder of the others, and the settings of a fetched model."""
    flavor = Model.load(fetched).flavors["python_function"]
    keras_file = fetched / flavor["artifacts"][serving.MODEL]["path"]
    # Earlier releases had the `.keras` file alone.
    answers = fetched / flavor["artifacts"].get(serving.ANSWERS, {"path": "artifacts"})["path"]
    settings = form.settings(flavor["config"])
    for path in (keras_file, *(answers / name for name in settings.digests)):
        if not path.resolve().is_relative_to(fetched.resolve()):
            raise ValueError(f"its file is outside of it: {path}")
    return keras_file, answers, settings
