"""A registered model opened to answer: by the local database where that tells all, else by MLflow.

MLflow takes two seconds of CPU and 200 MB to import, several times what it takes to open a model and ask it.
"""

import re
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from catdog.answers.classifier import Classifier
from catdog.tracking import address, served_files

_OF_ALIAS = "SELECT version FROM registered_model_aliases WHERE name = ? AND alias = ?"
# Of a version that was deleted MLflow keeps the row.
_OF_VERSION = (
    "SELECT storage_location FROM model_versions "
    "WHERE name = ? AND version = ? AND status = 'READY' AND current_stage != 'Deleted_Internal'"
)
_DIGESTS = "SELECT key, value FROM model_version_tags WHERE name = ? AND version = ? AND key LIKE '%_sha256'"


def load(reference: str, *, unverified: bool = False) -> Classifier:
    """The classifier of a reference such as models:/catdog@champion, checked against the registry's digests.

    Args:
        unverified: open it, with a warning, even if catdog did not register it, so that there is nothing to check.

    Raises:
        UserError: there is none, catdog did not register it, or it was changed.
    """
    if found := _find(reference):
        with tempfile.TemporaryDirectory() as folder:
            fetched = Path(folder) / "served"
            shutil.copytree(found.location, fetched)
            served_files.check(fetched, found.uri, **found.digests)
            return served_files.opened(fetched, found.uri)
    from catdog.tracking import registry, store

    return registry.load(store.connect(), reference, unverified=unverified)


class _Found(NamedTuple):
    uri: str
    location: Path
    digests: dict[str, str]


def _find(reference: str) -> _Found | None:
    """A version that catdog registered in the local store, its files at hand. None: MLflow is to say what there is."""
    match = re.fullmatch(r"(?:models:/)?([\w-]+)(?:@([\w-]+)|/(\d+))", reference.strip())
    database = address.database(address.uri())
    if match is None or database is None or not database.is_file():
        return None
    name, alias, number = match.groups()
    try:
        with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as store:
            if alias:
                [[number]] = store.execute(_OF_ALIAS, (name, alias)).fetchall()
            [[location]] = store.execute(_OF_VERSION, (name, int(number))).fetchall()
            digests = dict(store.execute(_DIGESTS, (name, int(number))).fetchall())
    except (sqlite3.Error, ValueError):  # no such table, row, or only one of them
        return None
    if digests.keys() != {"model_sha256", "served_sha256"} or not all(digests.values()):
        return None
    folder = Path(str(location).removeprefix("file://"))
    return _Found(f"models:/{name}/{number}", folder, digests) if folder.is_dir() else None
