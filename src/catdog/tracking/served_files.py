"""The files of a served form as MLflow lays them out: verified by their digests and opened, without MLflow."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from catdog.answers import form
from catdog.answers.classifier import Classifier
from catdog.base import files
from catdog.base.errors import UserError, first_line

MODEL, ANSWERS = "model", "answers"  # the `.keras` file, and the folder of all other files of the served form
CARD = "README.md"  # the model card, where Hugging Face looks for it
META = "registered_model_meta"  # a file that MLflow adds to a model fetched as a version
_MLMODEL = "MLmodel"


def check(fetched: Path, uri: str, *, model_sha256: str | None, served_sha256: str | None) -> None:
    """Check that a folder holds a served form, and the one that was logged.

    The digests are those of `versions.digests`. They have no default, so that whoever opens a model says what it is
    checked against.

    Args:
        uri: what errors call it.
        model_sha256: of the `.keras` file in the registry; the one in the settings is always checked.
        served_sha256: what `digest` gave when the model was logged; None: not checked.

    Raises:
        UserError: it is none, or it was changed.
    """
    with named(uri, fetched):
        try:
            file, _, settings = _parts(fetched)
        except (OSError, LookupError, TypeError, ValueError, AttributeError, yaml.YAMLError) as error:
            raise UserError(f"{uri} can't be loaded as a served model: {first_line(error)}") from None
    for cache in list(fetched.rglob("__pycache__")):  # was never logged, and Python would trust it
        shutil.rmtree(cache)
    actual, of_file = _digests(fetched)
    with named(uri, fetched):
        for expected in (settings.model_sha256, model_sha256):
            form.verify(file, expected, actual=of_file.get(file))
    if served_sha256 is not None and actual != served_sha256:
        raise UserError(
            f"{uri} is not what was logged: the sha256 of its files is {actual[:12]}, not {served_sha256[:12]}; code "
            "or settings were changed, so it is not used; restore the artifact store or train again"
        )


def opened(fetched: Path, uri: str) -> Classifier:
    """The classifier in a folder that `check` has passed.

    Raises:
        UserError: it can't be loaded.
    """
    with named(uri, fetched):
        return form.open_form(*_parts(fetched))


def keras_file(fetched: Path) -> Path:
    """The `.keras` file in a folder that `check` has passed."""
    return _parts(fetched)[0]


def reference_file(fetched: Path) -> Path | None:
    """The file of validation photographs in a folder that `check` has passed; earlier releases kept none.

    Raises:
        UserError: it is not the one that was logged.
    """
    _, folder, settings = _parts(fetched)
    if form.REFERENCE not in settings.digests:
        return None
    form.verify(folder / form.REFERENCE, settings.digests[form.REFERENCE])
    return folder / form.REFERENCE


def version(fetched: Path) -> str:
    """Such as catdog/3, of a fetched model; the id of a logged model that was not fetched as a version."""
    meta = fetched / META
    if meta.is_file():
        registered = yaml.safe_load(meta.read_text(encoding="utf-8"))
        if registered.get("model_name"):
            return f"{registered['model_name']}/{registered['model_version']}"
    return _mlmodel(fetched).get("model_id") or ""


def note_version(fetched: Path, uri: str) -> None:
    """Write into a copied model which version it is, such as models:/catdog/3, as MLflow does."""
    name, number = uri.removeprefix("models:/").split("/")
    noted = {"model_name": name, "model_version": number}
    (fetched / META).write_text(yaml.safe_dump(noted), encoding="utf-8")


def digest(folder: Path) -> str:
    """sha256 of the names and contents of all files of a logged model, in hex.

    Files that come later do not count: the name by which it was fetched, and compiled code.
    """
    return _digests(folder)[0]


@contextmanager
def named(uri: str, fetched: Path) -> Iterator[None]:
    """Let errors name the model, not the temporary folder of its copy."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace(f"{fetched}{os.sep}", f"{uri}: ")) from None


def _digests(folder: Path) -> tuple[str, dict[Path, str]]:
    """What `digest` gives, and the sha256 of each file."""
    logged = sorted(file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    of_file = {file: files.sha256(file) for file in logged}
    names = {file.relative_to(folder).as_posix(): sha256 for file, sha256 in of_file.items()}
    lines = [f"{sha256}  {name}\n" for name, sha256 in names.items() if name != META]
    return hashlib.sha256("".join(lines).encode()).hexdigest(), of_file


def _parts(fetched: Path) -> tuple[Path, Path, form.Settings]:
    """The `.keras` file, the folder of the others, and the settings."""
    flavor = _mlmodel(fetched)["flavors"]["python_function"]
    keras_file = fetched / flavor["artifacts"][MODEL]["path"]
    # Earlier releases had the `.keras` file alone.
    answers = fetched / flavor["artifacts"].get(ANSWERS, {"path": "artifacts"})["path"]
    settings = form.settings(flavor["config"])
    for path in (keras_file, *(answers / name for name in settings.digests)):
        if not path.resolve().is_relative_to(fetched.resolve()):
            raise ValueError(f"its file is outside of it: {path}")
    return keras_file, answers, settings


def _mlmodel(fetched: Path) -> dict[str, Any]:
    return yaml.safe_load((fetched / _MLMODEL).read_text(encoding="utf-8"))
