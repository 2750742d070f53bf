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
    with tempfile.TemporaryDirectory() as folder:
        if fetched := _copied(reference, Path(folder)):
            return served_files.opened(fetched, f"models:/{served_files.version(fetched)}")
    from catdog.tracking import registry, store

    return registry.load(store.connect(), reference, unverified=unverified)


def fetch(reference: str, folder: Path, *, unverified: bool = False) -> Path:
    """Copy the model of a reference into `folder`, check it like `load`, and return the path of the copy."""
    if fetched := _copied(reference, folder):
        return fetched
    from catdog.tracking import registry, store

    return registry.fetch(store.connect(), reference, folder, unverified=unverified)


def _copied(reference: str, folder: Path) -> Path | None:
    """A checked copy of the model in `folder`. None: MLflow is to say what there is."""
    found = _find(reference)
    if found is None:
        return None
    fetched = folder / "served"
    shutil.copytree(found.location, fetched)
    served_files.check(fetched, found.uri, **found.digests)
    served_files.note_version(fetched, found.uri)
    return fetched


class _Found(NamedTuple):
    uri: str
    location: Path
    digests: dict[str, str]


def _find(reference: str) -> _Found | None:
    """A version that catdog registered in the local store, if its files are at hand."""
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
