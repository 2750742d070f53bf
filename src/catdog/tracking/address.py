"""Where runs and models are tracked."""

import os
from pathlib import Path

from catdog.base import paths
from catdog.base.errors import UserError


def uri() -> str:
    """MLFLOW_TRACKING_URI, else mlflow.db in the project's root.

    Raises:
        UserError: there is neither. A new, empty mlflow.db elsewhere would look as if all runs were lost.
    """
    if address := os.environ.get("MLFLOW_TRACKING_URI"):
        return address
    root = paths.original()
    if not (root / "dvc.yaml").exists():
        raise UserError(f"no dvc.yaml in {root} or above: run from the project's folder, or set MLFLOW_TRACKING_URI")
    return f"sqlite:///{(root / 'mlflow.db').resolve()}"


def database(address: str) -> Path | None:
    """The file of a local store's database; None where the store is on a server."""
    return Path(address.removeprefix("sqlite:///").split("?")[0]) if address.startswith("sqlite:///") else None


def without_secret(address: str) -> str:
    """An address without user name and password, as it may be shown."""
    scheme, _, rest = address.rpartition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if scheme else address
