"""Which training this is: what DVC calls the same one may go on from a checkpoint, and no other."""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import yaml

from catdog.base import files, params

_PIPELINE = Path("dvc.yaml")


def of(stage: str, p: params.Params, *, also: str = "") -> str:
    """sha256 over all that dvc.yaml has the stage depend on (code, data, params), and Keras and its backend.

    Args:
        also: what the stage depends on beside that; the digest of downloaded weights, for instance.
    """
    entry = yaml.safe_load(_PIPELINE.read_text(encoding="utf-8"))["stages"][stage]
    backend = keras.backend.backend()
    depends = [
        {dep: _digest(Path(dep)) for dep in entry["deps"]},
        {str(param): _values(param, p) for param in entry["params"]},
        {"keras": keras.__version__, backend: version(backend)},
        also,
    ]
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()


def _digest(path: Path) -> str | dict[str, str]:
    """Of a folder of code, what .dvcignore leaves of it; else as DVC has it."""
    if path.is_dir() and (code := sorted(path.rglob("*.py"))):
        return {file.relative_to(path).as_posix(): files.md5(file) for file in code}
    return files.md5(path)


def _values(param: str | dict[str, list[str]], p: params.Params) -> Any:
    if isinstance(param, str):
        return _at(p.model_dump(), param)
    return {file: [_at(files.read_json(Path(file)), key) for key in keys] for file, keys in param.items()}


def _at(values: Any, key: str) -> Any:
    for name in key.split("."):
        values = values[name]
    return values
