"""Files of a finished project, what reads each of them, and what comes of it when eight bytes of it have changed."""

import contextlib
import hashlib
import io
import os
import re
import shutil
import sqlite3
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

import harm
import keras
import numpy as np

from catdog.answers.classifier import Classifier
from catdog.base import errors, files, params, paths
from catdog.evaluation import properties, served, slices
from catdog.photographs.shards import Shard
from catdog.tracking import backup, opening, restore, store, versions
from catdog.training.cnn import recipe
from catdog.training.loop import fitting
from catdog.training.loop.checkpoints import Checkpoint
from catdog.training.xception import features, weights

_WHOLE = Path("../whole")  # the project as it was
_BACKUP = Path("backup/store.zip")
_PHOTOGRAPHS = 8


class Kind(NamedTuple):
    """Files of a kind.

    `read` gives a digest of all that follows from a file, and `name` what an error has to call it.
    """

    files: list[Path]
    read: Callable[[Path], str]
    name: Callable[[Path], str] = Path.as_posix


class _CutOff(Exception):
    pass


def trials(out: Path, *, count: int, seed: int) -> None:
    """Damage files of the project in the current folder, a kind after the other, and write what came of it to `out`."""
    rng = np.random.default_rng(seed)
    kinds = _kinds(params.load())
    shutil.copytree(Path(), _WHOLE, ignore=shutil.ignore_patterns(".git", ".dvc"))
    expected: dict[Path, str] = {}
    tried = []
    for number in range(count):
        name, kind = list(kinds.items())[number % len(kinds)]
        path = kind.files[rng.integers(len(kind.files))]
        if path not in expected:
            expected[path] = kind.read(path)
        place = harm.damage(path, rng)
        outcome, said = _outcome(partial(kind.read, path), expected[path], name=kind.name(path))
        shutil.rmtree(path.parent)
        shutil.copytree(_WHOLE / path.parent, path.parent)
        tried.append({"kind": name, "file": str(path), "place": place, "outcome": outcome, "said": said})
        print(f"{number + 1}: {path}: {outcome}", file=sys.stderr)
    files.write_json(out, {"tried": tried})


def _outcome(read: Callable[[], str], expected: str, *, name: str) -> tuple[str, str]:
    """What came of reading a damaged file, as `faults` calls it, and what was said."""
    results: list[str] = []
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            errors.run(lambda: results.append(read()))
        except SystemExit:
            lines = said.getvalue().strip().splitlines()
            named = lines[-1].startswith("error: ") and name in lines[-1]
            return "told" if named else "unclear", lines[-1]
        except Exception:
            return "unclear", traceback.format_exc()
    told = [line for line in said.getvalue().splitlines() if name in line and "damaged" in line]
    if results != [expected]:
        return "silent", "\n".join(told)
    return "told" if told else "harmless", "\n".join(told)


def _kinds(p: params.Params) -> dict[str, Kind]:
    _leave_checkpoint(p)
    _BACKUP.parent.mkdir()
    backup.backup(_BACKUP)
    registered = {path: name for name in versions.NAMES.values() for path in _served(name)}
    pictures = sorted(paths.RAW.rglob("*.jpg"))[:_PHOTOGRAPHS]
    photographs = [path.read_bytes() for path in pictures]
    return {
        "data/prepared/*.arrow": Kind([paths.TRAIN, paths.VAL, paths.TEST], _rows),
        "data/prepared/manifest.csv": Kind([paths.MANIFEST], lambda path: _described(p)),
        "data/augmented/train.arrow": Kind([paths.AUGMENTED_TRAIN], _rows),
        "data/features/**/*.arrow": Kind(sorted(paths.FEATURES.rglob("*.arrow")), _features(p)),
        "data/checkpoints/cnn.npz": Kind([paths.checkpoint("cnn")], partial(_trained, p)),
        "models/*/model.keras": Kind(
            [paths.model(name) / paths.MODEL_FILE for name in versions.NAMES], partial(_judged, p, photographs)
        ),
        "files of a registered model": Kind(
            sorted(registered),
            lambda path: _answers(registered[path], photographs),
            lambda path: f"models:/{registered[path]}/1",
        ),
        "a backup": Kind([_BACKUP], _restored),
    }


def _digest(*arrays: np.ndarray) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


def _rows(path: Path) -> str:
    shard = Shard(path)
    return hashlib.sha256(repr([shard.row(index) for index in range(len(shard))]).encode()).hexdigest()


def _described(p: params.Params) -> str:
    """As evaluate takes the manifest."""
    return slices.describe(Shard(paths.TEST), properties.manifest(), classes=p.base.classes).to_csv()


def _features(p: params.Params) -> Callable[[Path], str]:
    """As train_xception takes them."""
    t = p.train_xception
    base, origin = weights.load_xception(t.weights, image_size=t.image_size)

    def read(path: Path) -> str:
        shards = [Shard(paths.TRAIN), Shard(paths.VAL)]
        knobs = {"weights_digest": origin["sha256"], "image_size": t.image_size, "precision": t.precision}
        return _digest(features.extract(shards, model=base, **knobs).rows)

    return read


def _leave_checkpoint(p: params.Params) -> None:
    """The checkpoint of a training that was cut off in its eleventh epoch, the third at the last size."""

    def die(row: dict[str, float]) -> None:
        if row["epoch"] == 10:
            raise _CutOff

    with contextlib.suppress(_CutOff):
        _trained(p, paths.checkpoint("cnn"), on_epoch=die)


def _trained(p: params.Params, path: Path, *, on_epoch: Callable[[dict[str, float]], None] = lambda row: None) -> str:
    """What train_cnn makes of a checkpoint: the history but for times, and the weights."""
    keras.backend.clear_session()
    train, augmented, val = (Shard(shard) for shard in (paths.TRAIN, paths.AUGMENTED_TRAIN, paths.VAL))
    model = recipe.compiled(p, photographs=len(train))
    try:
        result = fitting.fit(
            model,
            recipe.phases(p, train=train, augmented=augmented, val=val),
            patience=p.train_cnn.patience,
            checkpoint=Checkpoint(path, fingerprint="trial"),
            on_epoch=on_epoch,
        )
    finally:
        keras.config.set_dtype_policy("float32")  # other kinds are read in processes that have not trained
    history = result.history.drop(columns=["seconds", "photographs_per_second"])
    return history.to_csv() + _digest(*model.get_weights())


def _judged(p: params.Params, photographs: list[bytes], path: Path) -> str:
    """As evaluate takes it: what its served form answers."""
    train, val = Shard(paths.TRAIN), Shard(paths.VAL)
    with tempfile.TemporaryDirectory() as folder:
        made = served._make(p, path.parent.name, Path(folder) / "served", train=train, val=val)
    return _said(made.classifier, photographs)


def _served(registered: str) -> list[Path]:
    client = store.connect()
    model_id = versions.source(client.get_model_version(registered, "1"))
    folder = Path(client.get_logged_model(model_id).artifact_location)
    whole = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]
    return [path.relative_to(Path.cwd().resolve()) for path in whole]


def _answers(registered: str, photographs: list[bytes]) -> str:
    """As `catdog predict` takes it."""
    return _said(opening.load(f"models:/{registered}/1"), photographs)


def _said(model: Classifier, photographs: list[bytes]) -> str:
    asked = model.ask(np.stack([model.pixels(photograph) for photograph in photographs]))
    return _digest(*asked, model.probabilities(asked), model.judge(asked).familiarity)


def _restored(path: Path) -> str:
    """As `catdog restore` takes it, in another folder: the database and the files that are there then."""
    here = Path.cwd()
    there = here.with_name("elsewhere")
    there.mkdir()
    shutil.copy("dvc.yaml", there)
    try:
        os.chdir(there)
        os.environ.pop("MLFLOW_TRACKING_URI", None)  # MLflow sets it for its children; it would be the store here
        restore.restore(here / path)
        with closing(sqlite3.connect("file:mlflow.db?mode=ro", uri=True)) as connection:
            told = list(connection.iterdump())
        told += [f"{file} {files.sha256(file)}" for file in sorted(Path("mlruns").rglob("*")) if file.is_file()]
    finally:
        os.chdir(here)
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        shutil.rmtree(there)
    return hashlib.sha256(re.sub(r"restored-\w+", "", "\n".join(told)).encode()).hexdigest()
