"""The local store's database: made whole or not at all."""

from pathlib import Path

import mlflow
from filelock import FileLock

from catdog.base import files
from catdog.tracking.address import database as database_of


def make(address: str) -> None:
    """Make the database of the store at `address`, if that is local and has none yet.

    MLflow makes one table after the other, in seconds; one that was killed meanwhile fails for good.
    """
    file = database_of(address)
    if file is None or _is_made(file) or not file.parent.is_dir():
        return
    with FileLock(lock_file(file)):  # it ends with the process, even if killed
        if _is_made(file):
            return
        with files.replacing(file) as part:
            for leftover in (part, part.with_name(f"{part.name}-journal")):  # of a kill
                leftover.unlink(missing_ok=True)
            mlflow.MlflowClient(f"sqlite:///{part}").search_experiments(max_results=1)


def lock_file(database: Path) -> Path:
    """The file whose lock whoever changes the store as a whole holds."""
    return database.with_name(f"{database.name}.lock")


def _is_made(file: Path) -> bool:
    return file.exists() and file.stat().st_size > 0
