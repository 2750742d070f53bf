"""The local store in one file: mlflow.db and the artifacts of its runs and models that stand in the project.

The file is a zip. In its copy of the database, PLACE stands for the folder of the artifacts, so that it can be restored
anywhere. Its manifest has the sha256 of every member, and its last bytes are the sha256 of all that comes before.
"""

import errno
import hashlib
import json
import os
import sqlite3
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

import mlflow
from mlflow.utils.file_utils import local_file_uri_to_path

from catdog.base import files, paths
from catdog.base.errors import UserError, first_line
from catdog.base.progress import track
from catdog.tracking import deployments, store
from catdog.tracking.address import database as database_of

DATABASE, MANIFEST = "mlflow.db", "manifest.json"
PLACE = "backup://"
SEAL = 64  # bytes at the end: the sha256 of the others, in hex
CHUNK = 1 << 20
_SECONDS_LOCKED = 60
_UNREADABLE = (
    sqlite3.Error,
    zipfile.BadZipFile,
    zlib.error,
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    EOFError,
)
# Where the database says where artifacts are: table, its key, the column; and the key, the address and the name that
# the folder gets, of each row.
_ADDRESSES = (
    ("experiments", "experiment_id", "artifact_location", "SELECT experiment_id, artifact_location, experiment_id"),
    ("runs", "run_uuid", "artifact_uri", "SELECT run_uuid, artifact_uri, experiment_id || '/' || run_uuid"),
    (
        *("logged_models", "model_id", "artifact_location"),
        "SELECT model_id, artifact_location, experiment_id || '/models/' || model_id",
    ),
)
COLUMNS = (*((table, column) for table, _, column, _ in _ADDRESSES), ("model_versions", "storage_location"))


def backup(target: Path) -> str:
    """Write the store into the new file `target`, whole or not at all, and say so. Others may use the store meanwhile.

    Raises:
        UserError: there is no local store, `target` exists or can't be written, an artifact can't be read, or the
            registry is being changed.
    """
    source = database()
    if not source.is_file():
        raise UserError(f"there is no {source}: nothing to back up")
    if target.exists():
        raise UserError(f"{target} exists: name another file")
    with (
        told(f"the backup {target} can't be made"),
        deployments.exclusive(store.uri(), wait=False),
        files.replacing(target) as part,
        tempfile.TemporaryDirectory() as folder,
    ):
        # The database first: what it calls complete stands there already, and what comes later does no harm.
        snapshot = Path(folder) / DATABASE
        copy(source, snapshot)
        members = {DATABASE: snapshot} | _detach(snapshot, [source.parent, paths.original().resolve()])
        held = counts(snapshot)
        _write(part, members)
        size = part.stat().st_size
    return f"{target}: {held}, {len(members) - 1:,} files of theirs, {size / 1e6:,.1f} MB"


def _write(part: Path, members: dict[str, Path]) -> None:
    with zipfile.ZipFile(part, "w") as archive:
        shown = track(members.items(), total=len(members), what="backing up")
        digests = {name: _add(archive, name, path) for name, path in shown}
        manifest = {"made": deployments.now(), "mlflow": mlflow.__version__, "files": digests}
        archive.writestr(MANIFEST, json.dumps(manifest))
        archive.comment = bytes(SEAL)
    with part.open("r+b") as file:
        seal = digest(file)
        file.write(seal.encode())
        os.fsync(file.fileno())


def database() -> Path:
    """The file of the local store.

    Raises:
        UserError: the store is on a server.
    """
    address = store.uri()
    file = database_of(address)
    if file is None:
        shown = store.without_secret(address)
        raise UserError(f"{shown} is on a server: back up its database and its artifacts there, as docs/team.md says")
    return file.resolve()


@contextmanager
def told(problem: str) -> Iterator[None]:
    """Turn what the disk, sqlite and the zip may say into one line."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename and str(error.filename) not in problem else ""
        raise UserError(f"{problem}: {error.strerror or error}{where}") from None
    except _UNREADABLE as error:
        raise UserError(f"{problem}: {first_line(error)}") from None


def copy(source: Path, target: Path) -> None:
    """Make the database `target` the same as `source`, in one transaction, whoever else has either of them open.

    Raises:
        sqlite3.Error: one is no database, or somebody keeps it locked. The target is as it was.
    """
    deadline = time.monotonic() + _SECONDS_LOCKED

    def progress(status: int, remaining: int, total: int) -> None:
        if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) and time.monotonic() > deadline:
            raise sqlite3.OperationalError("the database is locked by another program")

    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new, progress=progress)
        [(state,)] = new.execute("PRAGMA integrity_check(1)")
        if state != "ok":
            raise sqlite3.DatabaseError(f"{source} is damaged: {state}")


def counts(file: Path) -> str:
    """How many runs and versions a database has, for a person."""
    with closing(sqlite3.connect(file)) as connection:
        runs, versions = (
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("runs", "model_versions")
        )
    return f"{runs:,} run{'s' * (runs != 1)}, {versions:,} version{'s' * (versions != 1)}"


def digest(file: IO[bytes]) -> str:
    """sha256 in hex of all but the last SEAL bytes of an open file, which is left standing there."""
    left = max(file.seek(0, os.SEEK_END) - SEAL, 0)
    file.seek(0)
    sha256 = hashlib.sha256()
    while left and (chunk := file.read(min(CHUNK, left))):
        sha256.update(chunk)
        left -= len(chunk)
    return sha256.hexdigest()


def _detach(snapshot: Path, roots: list[Path]) -> dict[str, Path]:
    """Let PLACE stand for the folders of artifacts in `roots`, and give their files by names in the backup."""
    members: dict[str, Path] = {}
    elsewhere = []
    with closing(sqlite3.connect(snapshot)) as connection, connection:
        for table, key, column, select in _ADDRESSES:
            for identity, address, name in connection.execute(f"{select} FROM {table}").fetchall():
                folder = _in_project(address, roots)
                if folder is None:
                    elsewhere += [address] * (table != "experiments")
                    continue
                place = str(name) if table == "experiments" else f"{name}/artifacts"
                connection.execute(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", (PLACE + place, identity))
                stored = "UPDATE model_versions SET storage_location = ? WHERE storage_location = ?"
                connection.execute(stored, (PLACE + place, address))
                if table != "experiments":
                    members |= {f"{place}/{file.relative_to(folder).as_posix()}": file for file in _files(folder)}
    if elsewhere:
        count = f"{len(elsewhere):,} runs and served models"
        deployments.notice(f"artifacts of {count} are outside of the project and not in the backup: {elsewhere[0]} ...")
    return members


def _in_project(address: str, roots: list[Path]) -> Path | None:
    if "://" in address and not address.startswith("file:"):
        return None
    folder = Path(os.path.normpath(roots[0] / local_file_uri_to_path(address)))
    return folder if any(folder.is_relative_to(root) for root in roots) else None


def _files(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise error

    if not folder.exists():  # a run may have none
        return
    for place, folders, names in os.walk(folder, onerror=refuse):
        yield from (Path(place, name) for name in sorted(names))
        for name in folders:
            if (path := Path(place, name)).is_symlink():
                raise OSError(errno.ENOTDIR, "a link to a folder is not followed", str(path))


def _add(archive: zipfile.ZipFile, name: str, path: Path) -> str:
    info, sha256 = zipfile.ZipInfo(name), hashlib.sha256()
    if path.exists() and not path.is_file():  # a pipe would keep the backup waiting
        raise OSError(errno.EINVAL, "not a file", str(path))
    info.compress_type = zipfile.ZIP_DEFLATED if name == DATABASE else zipfile.ZIP_STORED
    with path.open("rb") as source, archive.open(info, "w", force_zip64=True) as member:
        while chunk := source.read(CHUNK):
            sha256.update(chunk)
            member.write(chunk)
    return sha256.hexdigest()
