"""What a training leaves behind, the same for both models: the model, its run, its metrics, its history."""

from pathlib import Path

import keras

from catdog.base import files, paths
from catdog.training.loop import convergence, fitting, hosts


def leave(
    name: str,
    model: keras.Model,
    result: fitting.Result,
    *,
    run: dict[str, str],
    inputs: list[Path],
    seconds_before: dict[str, float] | None = None,
    **also: float | str,
) -> dict[str, float | str]:
    """Write models/NAME, metrics/train_NAME.json and plots/history_NAME.csv; returns the metrics.

    Of several hosts the first one writes.

    Args:
        run: `run_id` and `experiment_id`, for models/NAME/run.json.
        inputs: the shards trained on, whose md5 goes there too.
        seconds_before: wall time, by part, of what came before `result`; it counts as training.
        also: further metrics of this training.
    """
    best = result.history[result.history["epoch"] == result.best_epoch].iloc[0]
    seconds = (seconds_before or {}) | result.seconds_by_part
    metrics = {
        "seconds": sum(seconds.values()),
        **{f"seconds_{part}": value for part, value in seconds.items()},
        **convergence.of(result.history, seconds_before=sum(seconds.values()) - seconds["training"]),
        "val_accuracy": float(best["val_accuracy"]),
        "val_loss": float(best["val_loss"]),
        "parameters": model.count_params(),
        **also,
        "file_bytes": 0,
    }
    if not hosts.is_first():
        return metrics
    with files.replacing_folder(paths.model(name)) as folder:
        file = folder / paths.MODEL_FILE
        model.save(file)
        metrics["file_bytes"] = file.stat().st_size
        digests = {path.as_posix(): files.md5(path) for path in inputs}
        files.write_json(folder / paths.RUN_FILE, {**run, "model_sha256": files.sha256(file), "digests": digests})
        files.write_text(paths.history(name), result.history.to_csv(index=False))
        files.write_json(paths.train_metrics(name), metrics)
    return metrics
