"""The local store as a backup has it: all of it or none, and whatever stands there now is kept or is part of it.

Artifacts go into a folder of their own, which nobody knows before the database changes, in one transaction.
"""

import hashlib
import json
import os
import shutil
import sqlite3
import stat
import uuid
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from catdog.base.errors import UserError, first_line
from catdog.base.progress import track
from catdog.tracking import backup, deployments, served_form, store, versions
from catdog.tracking.backup import CHUNK, COLUMNS, DATABASE, MANIFEST, PLACE

_FOLDER = "restored-"  # and a random name. While it holds a database, it is not done.
# What a person would miss.
_MISSED = {
    "runs": "SELECT run_uuid FROM runs",
    "served models": "SELECT model_id FROM logged_models",
    "versions": "SELECT name || '/' || version || '/' || creation_time FROM model_versions",
    "deployments": "SELECT run_uuid || key FROM tags WHERE key LIKE 'deployment.%'",
}


def restore(file: Path, *, force: bool = False) -> str:
    """Make the store what the backup `file` holds, and say so, after checking every registered version by its digests.

    Args:
        force: even if the store has what the backup lacks. The present database is kept beside, and its artifacts
            stay where they are.

    Raises:
        UserError: it is no whole backup, the store has what it lacks, or the registry is being changed: nothing has
            changed then. Or a version is not what was registered.
    """
    target = backup.database()
    with deployments.exclusive(store.uri(), wait=False), backup.told(f"{file} can't be restored"):
        with _opened(file) as (archive, manifest):
            _clean(target)
            folder = target.parent / "mlruns" / f"{_FOLDER}{uuid.uuid4().hex[:8]}"
            try:
                _extract(archive, folder, manifest, names=[DATABASE])
                missed = _missed(target, folder / DATABASE)
                if missed and not force:
                    raise UserError(
                        f"{target} {missed}, so nothing was restored: with --force it is, and the present one is kept"
                    )
                rest = [name for name in manifest["files"] if name != DATABASE]
                _extract(archive, folder, manifest, names=track(rest, total=len(rest), what="restoring"))
                _attach(folder)
                _check_schema(folder / DATABASE, manifest)
                os.sync()  # what the database is to name has to be there when it does
                kept = _keep(target, folder.name) if missed else ""
                backup.copy(folder / DATABASE, target)
            except BaseException:
                if not _names(target, folder):
                    shutil.rmtree(folder, ignore_errors=True)
                raise
            (folder / DATABASE).unlink()
        restored = backup.counts(target)
    return f"restored {restored}, {_verify(store.connect())}{kept}"


@contextmanager
def _opened(file: Path) -> Iterator[tuple[zipfile.ZipFile, dict]]:
    with file.open("rb") as opened:
        seal = backup.digest(opened)
        if opened.read().decode("ascii", "replace") != seal:
            raise UserError(f"{file} is damaged, or no backup of catdog: nothing was changed; take another backup")
        with zipfile.ZipFile(opened) as archive:
            manifest = json.loads(archive.read(MANIFEST))
            members = archive.infolist()
            names = [member.filename for member in members]
            if sorted(names) != sorted([*manifest["files"], MANIFEST]) or DATABASE not in names:
                raise ValueError("its members are not those of its manifest")
            for member in members:
                kind = stat.S_IFMT(member.external_attr >> 16)
                if not _inside(member.orig_filename) or kind not in (0, stat.S_IFREG):
                    raise ValueError(f"{member.orig_filename!r} is no file inside of it")
            yield archive, manifest


def _inside(name: str) -> bool:
    return not any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in name.split("/"))


def _extract(archive: zipfile.ZipFile, folder: Path, manifest: dict, *, names: Iterable[str]) -> None:
    for name in names:
        path, sha256 = folder / name, hashlib.sha256()
        path.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(name) as member, path.open("xb") as target:
            while chunk := member.read(CHUNK):
                sha256.update(chunk)
                target.write(chunk)
        if sha256.hexdigest() != manifest["files"][name]:
            raise ValueError(f"the sha256 of {name} is not that of the manifest")


def _missed(target: Path, restored: Path) -> str:
    # What the present database has and the restored one lacks, in words.
    try:
        missed = {what: _rows(target, select) - _rows(restored, select) for what, select in _MISSED.items()}
    except sqlite3.OperationalError:  # such as a locked one
        raise
    except sqlite3.DatabaseError as error:
        return f"can't be read ({error})"
    reason = ", ".join(f"{len(rows):,} {what}" for what, rows in missed.items() if rows)
    return f"has what the backup lacks ({reason})" if reason else ""


def _keep(target: Path, name: str) -> str:
    # Keeps the present database beside, and says where.
    beside = target.with_name(f"{target.name}.before-{name}")
    try:
        backup.copy(target, beside)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        for end in ("-journal", "-wal", "-shm", ""):  # these belong to it alone
            beside.with_name(beside.name + end).unlink(missing_ok=True)
            if (part := target.with_name(target.name + end)).exists():
                part.replace(beside.with_name(beside.name + end))
    return f"; the store that stood here is kept as {beside.name}"


def _rows(file: Path, select: str) -> set[str]:
    if not file.exists():
        return set()
    with closing(sqlite3.connect(file)) as connection:
        try:
            return {row for (row,) in connection.execute(select)}
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):  # an empty one
                return set()
            raise


def _attach(folder: Path) -> None:
    """Let the database in `folder` say that its artifacts are there."""
    with closing(sqlite3.connect(folder / DATABASE)) as connection, connection:
        for table, column in COLUMNS:
            for (address,) in connection.execute(f"SELECT DISTINCT {column} FROM {table}").fetchall():
                if address and address.startswith(PLACE):
                    place = address.removeprefix(PLACE)
                    if not _inside(place):
                        raise ValueError(f"{table}.{column} leads out of it: {place!r}")
                    update = f"UPDATE {table} SET {column} = ? WHERE {column} = ?"
                    connection.execute(update, (str(folder / place), address))


def _check_schema(file: Path, manifest: dict) -> None:
    try:
        MlflowClient(f"sqlite:///{file}").search_experiments(max_results=1)
    except MlflowException as error:
        raise UserError(
            f"the backup was made by MLflow {manifest['mlflow']}, this is {mlflow.__version__}, which says: "
            f"{first_line(error)}; nothing was changed"
        ) from None


def _clean(target: Path) -> None:
    # What a kill left: before the database changed, all of a folder; after it, the copy of the database alone.
    for leftover in target.parent.glob(f"mlruns/{_FOLDER}*/{DATABASE}"):
        if _names(target, leftover.parent):
            leftover.unlink()
        else:
            shutil.rmtree(leftover.parent)


def _names(target: Path, folder: Path) -> bool:
    # Whether the database says that artifacts are in this folder.
    try:
        places = set().union(*(_rows(target, f"SELECT {column} FROM {table}") for table, column in COLUMNS))
    except sqlite3.DatabaseError:
        return False
    return any(place and Path(place).is_relative_to(folder) for place in places)


def _verify(client: MlflowClient) -> str:
    every = list(client.search_model_versions())
    ours = [each for each in every if versions.is_ours(each)]
    broken = []
    for version in track(ours, total=len(ours), what="verifying"):
        try:
            served_form.verify(versions.uri(version), **versions.digests(version))
        except UserError as error:
            broken.append(str(error))
    if broken:
        raise UserError(f"restored, but {len(broken)} of {len(ours)} versions are not what was registered: {broken[0]}")
    others = len(every) - len(ours)
    return f"{len(ours):,} verified, {others:,} not registered by catdog" if others else "all verified"
