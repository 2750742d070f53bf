"""A store in a database that is full, locked, unwritable or damaged: one line, and what was begun is gone on with."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import test_resuming
from sqlalchemy import event
from sqlalchemy.pool import Pool
from test_cli import assert_told, catdog  # noqa: F401
from test_faulty_store import assert_whole, train
from training_fixtures import tracked

from catdog.base.errors import UserError
from catdog.tracking import runs

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def full(file: Path) -> Iterator[None]:
    """Whatever is written needs more pages than SQLite gets, as on a full disk."""

    def no_more_pages(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute("PRAGMA max_page_count = 1")  # it never takes those that there are

    with contextlib.closing(sqlite3.connect(file)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        connection.execute("CREATE TABLE filler (content BLOB)")
        for number, table in enumerate(tables):
            for verb in ("INSERT", "UPDATE"):
                connection.execute(
                    f"CREATE TRIGGER full_{verb}_{number} BEFORE {verb} ON {table} "
                    "BEGIN INSERT INTO filler VALUES (zeroblob(9999999)); END"
                )
        connection.commit()
        event.listen(Pool, "checkout", no_more_pages)
        yield
        event.remove(Pool, "checkout", no_more_pages)
        for number, _ in enumerate(tables):
            for verb in ("INSERT", "UPDATE"):
                connection.execute(f"DROP TRIGGER full_{verb}_{number}")
        connection.execute("DROP TABLE filler")
        connection.commit()


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Another program writes, and does not come to an end; MLflow waits for 20 s."""
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield


@contextlib.contextmanager
def without_journal(file: Path) -> Iterator[None]:
    """What SQLite writes beside the database can't be written, as in a folder that is read-only."""
    place = file.with_name(f"{file.name}-journal")
    place.mkdir()
    yield
    place.rmdir()


FAULTS = {
    "database or disk is full": full,
    "database is locked": locked,
    "disk I/O error": without_journal,
}


# MLflow waits for a locked database for 20 s, and within a run twice: so that is tried once.
TRIED = [("_create_run", fault) for fault in FAULTS] + [("epoch", fault) for fault in FAULTS if "locked" not in fault]


@pytest.mark.parametrize(("moment", "message"), TRIED)
def test_a_training_goes_on_when_its_database_is_well_again(tmp_path, monkeypatch, message, moment, capfd):
    with tracked(tmp_path) as client, contextlib.ExitStack() as fault:
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "here")
        test_resuming.prepare()
        owner = runs if moment.startswith("_") else runs.TrainingRun
        function = getattr(owner, moment)

        def failing(*given: object, **options: object) -> object:
            fault.enter_context(FAULTS[message](tmp_path / "mlflow.db"))
            return function(*given, **options)

        with monkeypatch.context() as patch:
            patch.setattr(owner, moment, failing)
            with pytest.raises(UserError) as told:
                train(client)
        assert f"mlflow.db can't be used ({message}" in str(told.value)
        assert "what is trained is kept" in str(told.value)
        assert "\n" not in str(told.value)
        assert "Traceback" not in capfd.readouterr().err
        fault.close()
        assert_whole(client, "here", train(client))


def test_a_command_says_in_one_line_that_the_database_is_damaged(tmp_path, catdog):  # noqa: F811
    with tracked(tmp_path):
        file = tmp_path / "mlflow.db"
        content = file.read_bytes()
        file.write_bytes(content[:100] + b"\xff" * (len(content) - 100))
        for command in ("history", "trace", "promote", "rollback", "predict x.jpg"):
            assert_told(catdog(*command.split()), "mlflow.db can't be used")
