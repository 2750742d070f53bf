"""Places at which a restore can be killed, each a patch of the process that it is to happen in."""

import functools
import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from training_fixtures import kill

from catdog.tracking import backup, restore


def _instead_of(owner: object, name: str) -> None:
    setattr(owner, name, lambda *_, **__: kill())


def _after(owner: object, name: str) -> None:
    function = getattr(owner, name)
    setattr(owner, name, lambda *given, **knobs: (function(*given, **knobs), kill()))


def _among_the_files() -> None:
    extract = restore._extract

    def some(*given, names):
        names = list(names)
        extract(*given, names=names[: len(names) // 2 + 1])
        if len(names) > 1:
            kill()

    restore._extract = some


def _while_the_database_changes() -> None:
    def copy(source: Path, target: Path) -> None:
        def progress(status: int, remaining: int, total: int) -> None:
            if remaining < total // 2:
                # By now sqlite has written pages over the old ones.
                assert target.with_name(target.name + "-journal").stat().st_size > 0
                kill()

        with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
            new.execute("PRAGMA cache_size = 4")  # so that they do not wait in memory
            old.backup(new, pages=4, progress=progress)

    backup.copy = copy


KILLS: dict[str, Callable[[], None]] = {
    "when the database is out of the zip": functools.partial(_after, restore, "_missed"),
    "among the files": _among_the_files,
    "when all files are there": functools.partial(_instead_of, restore, "_attach"),
    "before the database changes": functools.partial(_instead_of, os, "sync"),
    "while the database changes": _while_the_database_changes,
    "when the database has changed": functools.partial(_after, backup, "copy"),
    "before the versions are verified": functools.partial(_instead_of, restore, "_verify"),
}


if __name__ == "__main__":
    KILLS[sys.argv[1]]()
    restore.restore(Path(sys.argv[2]))
