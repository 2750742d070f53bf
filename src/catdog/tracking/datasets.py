"""The photographs that a run reads, as MLflow datasets."""

import warnings
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.data.pandas_dataset import from_pandas

from catdog.base import files, paths
from catdog.photographs import shards


def log(inputs: list[Path]) -> None:
    """Log the shards `inputs` as datasets of the active run."""
    for path in inputs:
        mlflow.log_input(_dataset(path), context=_context(path))


def _dataset(path: Path) -> mlflow.data.dataset.Dataset:
    shard = shards.Shard(path)
    # Labels as text: MLflow would warn of integers that can't be missing.
    table = pd.DataFrame({"id": shard.ids, "source": shard.sources, "label": shard.labels.astype(str)})
    with warnings.catch_warnings():
        # MLflow warns that it could read the path as a source in two ways; both are the same.
        warnings.filterwarnings("ignore", message="The specified dataset source can be interpreted in multiple ways")
        return from_pandas(table, source=str(path), name=_context(path), digest=files.md5(path)[:8])


def _context(path: Path) -> str:
    """`train`, `val` or `test`; variants are `augmented`."""
    return path.parent.name if path.parent == paths.AUGMENTED else path.stem
