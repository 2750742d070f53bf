"""A training as a stage: the run that it goes on in, and what it leaves behind. The same for both models."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras

from catdog.base import files, params, paths
from catdog.tracking import lineage, runs, serving
from catdog.training.loop import convergence, fitting
from catdog.training.loop.checkpoints import Checkpoint


def fingerprint(p: params.Params, stage: str, inputs: list[Path]) -> str:
    """What a training depends on. Another fingerprint is another training, so it never goes on from a checkpoint."""
    knobs = {name: getattr(p, name).model_dump() for name in ("base", "augment", stage)}
    code = [lineage.md5(path) for path in sorted(Path(__file__).parent.glob("*.py"))]
    depends = [knobs, [lineage.md5(path) for path in inputs], code, keras.__version__]
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()


def knobs(p: params.Params, stage: str) -> dict[str, object]:
    """Params to log: the stage's own by bare name, so that two models' line up side by side, others by section."""
    shared = {name: getattr(p, name).model_dump() for name in ("base", "prepare", "augment")}
    return {**getattr(p, stage).model_dump(), **_flat(shared)}


def _flat(nested: dict[str, Any]) -> dict[str, object]:
    """Keys of keys as `augment.blur.probability`."""
    flat: dict[str, object] = {}
    for key, value in nested.items():
        flat |= {f"{key}.{name}": v for name, v in _flat(value).items()} if isinstance(value, dict) else {key: value}
    return flat


@contextmanager
def tracked(
    client: runs.Client, name: str, p: params.Params, *, inputs: list[Path], also: str = ""
) -> Iterator[tuple[runs.TrainingRun, Callable[[str], Checkpoint]]]:
    """Open the run of the training of `name`: a new one, or that of a training like it that was killed.

    Gives the run and a function from a name, which begins with that of the training, to the checkpoint of that name.
    Checkpoints are kept until the training is done.

    Args:
        inputs: shards that the training reads.
        also: what it depends on beside these, code and params.
    """
    stage = f"train_{name}"
    depends = fingerprint(p, stage, inputs) + also
    data = files.read_json(paths.DATA_METRICS)
    with runs.training_run(client, name, fingerprint=depends, knobs=knobs(p, stage), inputs=inputs, data=data) as run:
        yield run, lambda part: Checkpoint(paths.checkpoint(part), fingerprint=depends)
    for file in paths.CHECKPOINTS.glob(f"{name}*.npz"):
        file.unlink()


def leave(
    name: str,
    model: keras.Model,
    result: fitting.Result,
    run: runs.TrainingRun,
    *,
    p: params.Params,
    inputs: list[Path],
    seconds_before: dict[str, float],
    figures: dict[str, float | str],
) -> None:
    """Write models/NAME, metrics/train_NAME.json and plots/history_NAME.csv, and log the same to `run`.

    Args:
        seconds_before: wall time by part of what came before `result`; with it they make the `seconds` of the training.
        figures: what else is to be said of this training.
    """
    best = result.history[result.history["epoch"] == result.best_epoch].iloc[0]
    seconds = seconds_before | result.seconds_by_part
    metrics = {
        "seconds": sum(seconds.values()),
        **{f"seconds_{part}": value for part, value in seconds.items()},
        **convergence.of(result.history, seconds_before=sum(seconds.values()) - seconds["training"]),
        "val_accuracy": float(best["val_accuracy"]),
        "val_loss": float(best["val_loss"]),
        "parameters": model.count_params(),
        **figures,
    }
    folder = paths.MODELS[name].with_suffix(".part")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    keras_file = folder / paths.MODEL_FILE
    model.save(keras_file)
    metrics["file_bytes"] = keras_file.stat().st_size

    history = paths.history(name)
    files.write_text(history, result.history.to_csv(index=False))
    files.write_json(paths.train_metrics(name), metrics)
    # Per epoch these three are there already, under the same names.
    logged = {"train_seconds" if k == "seconds" else k: v for k, v in metrics.items() if not k.startswith("val_")}
    run.figures({k: v for k, v in logged.items() if isinstance(v, int | float)})
    run.tags({k: v for k, v in metrics.items() if isinstance(v, str)})
    run.artifact(history, name="history.csv")

    info = serving.log_served_model(
        keras_file=keras_file,
        classes=p.base.classes,
        image_size=p.prepare.image_size,
        threshold=p.evaluate.threshold,
        name=f"catdog-{name}",
    )
    files.write_json(
        folder / paths.RUN_FILE,
        {
            "run_id": run.run_id,
            "model_id": info.model_id,
            "experiment_id": run.experiment_id,
            "model_sha256": lineage.sha256(keras_file),
            "served_sha256": _served_sha256(info.model_uri),
            "digests": {path.as_posix(): lineage.md5(path) for path in inputs},
        },
    )
    shutil.rmtree(paths.MODELS[name], ignore_errors=True)
    folder.replace(paths.MODELS[name])


def _served_sha256(uri: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return serving.digest(serving.fetch(uri, Path(folder)))
