"""A backup of the store: whole or not at all, of one moment, and restored anywhere with the same answers."""

import hashlib
import json
import os
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import zipfile
from contextlib import closing
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import restore_kills
from mlflow import MlflowClient
from mlflow.store.model_registry import sqlalchemy_store as model_registry
from mlflow.store.tracking import sqlalchemy_store as tracking
from registry_fixtures import answers, deployed_twice

from catdog.answers.classifier import Answer
from catdog.base import files
from catdog.base.errors import UserError
from catdog.commands import cli
from catdog.tracking import backup, deployments, promotion, registry, restore, trace

pytest_plugins = ["registry_fixtures"]
PIXELS = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
BACKUP = Path("store.zip")


@pytest.fixture(autouse=True)
def local(store, monkeypatch):
    """The store of the project in the current folder, and no other."""
    # MLflow sets it for its children.
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Path("dvc.yaml").write_text("stages: {}\n")
    deployed_twice(store)


@pytest.fixture
def moved(tmp_path, monkeypatch):
    """Another project: the first one is gone when it is called."""

    def move(*, gone: bool = True) -> Path:
        other = tmp_path / "other place"
        other.mkdir()
        (other / "dvc.yaml").write_text("stages: {}\n")
        shutil.copy(BACKUP, other)
        if gone:
            (tmp_path / "artifacts").rename(tmp_path / "gone")
        here(other, monkeypatch)
        return other

    return move


def here(folder: Path, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def reconnect() -> None:
    """As a new process would: MLflow's connections would go on with a file that was deleted."""
    for kind in (tracking.SqlAlchemyStore, model_registry.SqlAlchemyStore):
        for engine in kind._engine_map.values():
            engine.dispose()


def restored(file: Path = BACKUP, **other) -> str:
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    reconnect()
    return restore.restore(file, **other)


def answered(reference: str = "models:/catdog@champion") -> list[Answer]:
    reconnect()
    client = MlflowClient(f"sqlite:///{Path.cwd()}/mlflow.db")
    mlflow.set_tracking_uri(client.tracking_uri)
    model = registry.load(client, reference)
    return model.answers(model.ask(PIXELS))


def state(folder: Path) -> dict[str, str]:
    """Every file that a reader of the store could see."""
    found = [file for file in folder.rglob("*") if file.is_file() and file.suffix not in (".zip", ".lock")]
    return {file.relative_to(folder).as_posix(): files.sha256(file) for file in found}


def rows(table: str, database: Path | None = None) -> list[tuple]:
    with closing(sqlite3.connect(database or "mlflow.db")) as connection:
        return sorted(connection.execute(f"SELECT * FROM {table}").fetchall(), key=str)


# ---- there and back -------------------------------------------------------------------------------------------------


def test_a_store_is_restored_in_another_folder_with_the_same_answers(store, moved, tmp_path):
    before = {reference: answered(reference) for reference in ("catdog@champion", "catdog/1", "catdog-cnn/2")}
    assert len(set(map(str, before.values()))) == 1  # they are copies of one file
    told = backup.backup(BACKUP)
    assert re.match(r"store\.zip: 8 runs, 4 versions, \d{2,} files of theirs, \d", told)
    other = moved()
    assert restored() == "restored 8 runs, 4 versions, all verified"
    assert {reference: answered(reference) for reference in before} == before
    client = MlflowClient(f"sqlite:///{other}/mlflow.db")
    assert [row.event for row in promotion.history(client)] == list(reversed(deployments.events(store.client)))
    for table in ("metrics", "params", "tags", "model_version_tags", "registered_model_aliases", "logged_model_params"):
        assert rows(table) == rows(table, tmp_path / "mlflow.db"), table
    names = [link.name for link in trace.trace(client, "catdog@champion", root=other) if link.ok]
    assert names == ["model version", "model version", "logged model", "model file", "run"]
    assert predictions(client, "catdog-cnn/1") == 400

    # No row leads out of the folder, and what is logged from now on stays in it.
    for table, column in backup.COLUMNS:
        with closing(sqlite3.connect("mlflow.db")) as connection:
            found = {row for (row,) in connection.execute(f"SELECT {column} FROM {table}") if row}
        assert found
        assert all(
            place.startswith(f"{other}/mlruns/restored-") for place in found if not place.endswith("/mlruns/0")
        ), found
    run = client.create_run(store.experiment)
    client.log_text(run.info.run_id, "text", "new.txt")
    assert list((other / "mlruns").rglob("new.txt"))

    # And once more, out of the restored one.
    backup.backup(Path("again.zip"))
    reconnect()
    shutil.rmtree("mlruns")
    Path("mlflow.db").unlink()
    assert restored(Path("again.zip")) == "restored 9 runs, 4 versions, all verified"
    assert answered() == before["catdog@champion"]
    assert len(list((other / "mlruns").iterdir())) == 1


def predictions(client: MlflowClient, name: str) -> int:
    """The rows of the predictions that the gates read."""
    registered, _, number = name.partition("/")
    run_id = client.get_model_version(registered, number).tags["evaluation_run_id"]
    return len(pd.read_parquet(client.download_artifacts(run_id, registry.PREDICTIONS)))


def test_an_emptied_store_is_restored_in_place(store, tmp_path):
    before, events = answered(), deployments.events(store.client)
    backup.backup(BACKUP)
    (tmp_path / "artifacts").rename(tmp_path / "gone")
    for emptied in (Path.unlink, lambda path: path.write_bytes(b"")):
        reconnect()
        emptied(tmp_path / "mlflow.db")
        assert restored() == "restored 8 runs, 4 versions, all verified"
        assert answered() == before
        assert deployments.events(MlflowClient()) == events


@pytest.mark.parametrize("name", ["model.keras", "trunk.bin", "profile.npz"])
def test_damaged_artifacts_are_whole_after_it(store, tmp_path, name):
    before = answered()
    backup.backup(BACKUP)
    for file in (tmp_path / "artifacts").rglob(name):
        file.write_bytes(b"damaged")
    with pytest.raises(UserError, match="is not what was logged"):
        answered()
    assert restored() == "restored 8 runs, 4 versions, all verified"
    assert answered() == before


def test_what_was_damaged_before_the_backup_is_told(store, tmp_path):
    for file in (tmp_path / "artifacts").rglob("model.keras"):
        file.write_bytes(b"damaged")
    backup.backup(BACKUP)
    with pytest.raises(UserError, match=r"^restored, but 4 of 4 versions are not what was registered: .*keras"):
        restored()


def test_a_version_by_hand_is_counted_apart(store, tmp_path):
    store.client.create_model_version("catdog-cnn", f"models:/{store.models[4][0]}")
    backup.backup(BACKUP)
    assert restored() == "restored 8 runs, 5 versions, 4 verified, 1 not registered by catdog"


# ---- what would be lost ---------------------------------------------------------------------------------------------


def new_run(store) -> None:
    store.client.create_run(store.experiment)


def new_version(store) -> None:
    store.client.create_model_version("catdog-cnn", f"models:/{store.models[4][0]}")


def new_deployment(store) -> None:
    store.rollback()


@pytest.mark.parametrize(
    ("change", "lacks"), [(new_run, "1 runs"), (new_version, "1 versions"), (new_deployment, "1 deployments")]
)
def test_what_the_backup_lacks_is_overwritten_by_force_alone_and_kept(store, tmp_path, change, lacks):
    backup.backup(BACKUP)
    change(store)
    before, table = state(tmp_path), rows("runs")
    with pytest.raises(UserError, match=rf"has what the backup lacks \({lacks}\), so nothing was restored"):
        restored()
    assert state(tmp_path) == before
    told = restored(force=True)
    assert told.startswith("restored 8 runs, 4 versions, all verified; the store that stood here is kept as ")
    kept = Path(told.rpartition(" ")[2])
    assert kept.name.startswith("mlflow.db.before-restored-")
    # The one that stood there works, in its old place.
    assert rows("runs", kept) == table
    kept.replace("mlflow.db")
    assert answered() is not None
    assert {"artifacts" in row[11] for row in rows("runs")} == {True}


def test_a_store_that_cannot_be_read_is_replaced_by_force_alone_and_kept(store, tmp_path):
    before = answered()
    backup.backup(BACKUP)
    garbage = b"SQLite format 3\0" + bytes(range(256)) * 64
    reconnect()
    Path("mlflow.db").write_bytes(garbage)
    Path("mlflow.db-journal").write_bytes(b"of the damaged one")
    with pytest.raises(UserError, match=r"mlflow\.db can't be read"):
        restored()
    assert Path("mlflow.db").read_bytes() == garbage
    told = restored(force=True)
    assert Path(told.rpartition(" ")[2]).read_bytes() == garbage
    assert not Path("mlflow.db-journal").exists()
    assert answered() == before


# ---- damage, malice and kills ---------------------------------------------------------------------------------------


def test_a_backup_with_one_byte_changed_is_refused_before_anything_changes(store, tmp_path):
    backup.backup(BACKUP)
    whole = BACKUP.read_bytes()
    before = state(tmp_path)
    with zipfile.ZipFile(BACKUP) as archive:
        members = {info.filename: info.header_offset for info in archive.infolist()}
        directory = archive.start_dir
    keras = next(offset for name, offset in members.items() if name.endswith("model.keras"))
    places = [0, 5, 10, 200, len(whole) // 2, members["manifest.json"], members["manifest.json"] + 60, keras + 10]
    places += [keras + 200, directory, directory + 12, directory + 38, len(whole) - 70, len(whole) - 64, len(whole) - 1]
    places += np.random.default_rng(1).integers(0, len(whole), 40).tolist()
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1
        BACKUP.write_bytes(damaged)
        with pytest.raises(UserError, match=r"store\.zip is damaged, or no backup of catdog: nothing was changed"):
            restored()
        assert state(tmp_path) == before
    for cut in (b"", whole[:64], whole[:-1], whole + b"0", b"PK" * 100):
        BACKUP.write_bytes(cut)
        with pytest.raises(UserError, match=r"is damaged, or no backup of catdog"):
            restored()
    assert state(tmp_path) == before
    BACKUP.write_bytes(whole)
    assert restored().startswith("restored 8 runs")


def forged(*, add=(), change=lambda manifest: manifest, database=lambda connection: None) -> None:
    """The backup with other members, manifest or database, under a seal that holds."""
    with zipfile.ZipFile(BACKUP) as archive:
        members = {info: archive.read(info) for info in archive.infolist() if info.filename != backup.MANIFEST}
        manifest = json.loads(archive.read(backup.MANIFEST))
    copy = Path("forged.db")
    copy.write_bytes(members.pop(next(info for info in members if info.filename == backup.DATABASE)))
    with closing(sqlite3.connect(copy)) as connection, connection:
        database(connection)
    members[zipfile.ZipInfo(backup.DATABASE)] = copy.read_bytes()
    manifest["files"][backup.DATABASE] = files.sha256(copy)
    copy.unlink()
    with zipfile.ZipFile(BACKUP, "w") as archive:
        for info, data in [*members.items(), *add]:
            archive.writestr(info, data)
        files_ = manifest["files"] | {info.filename: hashlib.sha256(data).hexdigest() for info, data in add}
        archive.writestr(backup.MANIFEST, json.dumps(change({**manifest, "files": files_})))
        archive.comment = bytes(backup.SEAL)
    with BACKUP.open("r+b") as file:
        seal = backup.digest(file)
        file.write(seal.encode())


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (0o120777) << 16
    return info


def raw(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("x")
    info.filename = info.orig_filename = name
    return info


OUT = [raw(name) for name in ("../out", "/tmp/out", "1/../../../out", "./out", "1//out", "..\\out", "1/", "..")]


def test_a_member_that_would_lead_out_of_the_folder_is_refused(store, tmp_path):
    backup.backup(BACKUP)
    whole = BACKUP.read_bytes()
    before, outside = state(tmp_path), set(tmp_path.parent.iterdir())
    for member in [*OUT, link("1/link"), link("1")]:
        BACKUP.write_bytes(whole)
        forged(add=[(member, b"/etc")])
        with pytest.raises(UserError, match=r"store\.zip can't be restored: .* is no file inside of it"):
            restored()
        assert state(tmp_path) == before, member
        assert set(tmp_path.parent.iterdir()) == outside, member


def without_first(manifest: dict) -> dict:
    return {**manifest, "files": dict(list(manifest["files"].items())[1:])}


def other_digest(manifest: dict) -> dict:
    return {**manifest, "files": manifest["files"] | {next(reversed(manifest["files"])): "0" * 64}}


def lead_out(connection) -> None:
    connection.execute("UPDATE runs SET artifact_uri = 'backup://1/../../../out'")


def of_the_future(connection) -> None:
    connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")


def no_tables(connection) -> None:
    connection.execute("DROP TABLE experiments")


FORGERIES = [
    ({"change": without_first}, "its members are not those of its manifest"),
    ({"change": other_digest}, "is not that of the manifest"),
    ({"change": lambda manifest: {}}, "can't be restored"),
    ({"change": lambda manifest: []}, "can't be restored"),
    ({"database": lead_out}, "leads out of it"),
    ({"database": of_the_future}, r"was made by MLflow \d+.*nothing was changed"),
    ({"database": no_tables}, "can't be restored: no such table"),
    ({"add": [(zipfile.ZipInfo("1/a"), b""), (zipfile.ZipInfo("1/a/b"), b"")]}, "can't be restored"),
]


def test_a_forged_backup_is_told_in_one_line_and_changes_nothing(store, tmp_path):
    backup.backup(BACKUP)
    whole, before = BACKUP.read_bytes(), state(tmp_path)
    for forgery, said in FORGERIES:
        BACKUP.write_bytes(whole)
        forged(**forgery)
        with pytest.raises(UserError, match=said) as told:
            restored()
        assert "\n" not in str(told.value)
        assert state(tmp_path) == before, said
        assert not list(tmp_path.glob("mlruns/restored-*"))


@pytest.mark.slow
def test_a_kill_at_any_point_leaves_the_old_store_or_the_new_one_and_it_is_done_again(store, tmp_path):
    wanted = answered()
    new = rows("runs")
    backup.backup(BACKUP)
    # The present store is one of a while ago: another champion, without the last two runs.
    older = tmp_path / "older"
    shutil.copytree(tmp_path / "artifacts", older / "artifacts")
    backup.copy(Path("mlflow.db"), older / "mlflow.db")
    with closing(sqlite3.connect(older / "mlflow.db")) as connection, connection:
        for row in new[-2:]:
            connection.execute("DELETE FROM tags WHERE run_uuid = ?", (row[0],))
            connection.execute("DELETE FROM runs WHERE run_uuid = ?", (row[0],))
        connection.execute("UPDATE registered_model_aliases SET version = 1 WHERE alias = 'champion'")
    old = rows("runs", older / "mlflow.db")
    assert len(old) == 6
    seen = set()
    for where in restore_kills.KILLS:
        shutil.rmtree("mlruns", ignore_errors=True)
        backup.copy(older / "mlflow.db", Path("mlflow.db"))
        tests = str(Path(__file__).parent)
        ended = subprocess.run(
            [sys.executable, f"{tests}/restore_kills.py", where, str(BACKUP)],
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert ended.returncode == -signal.SIGKILL, f"{where}: {ended.stderr[-2000:]}"
        assert answered() == wanted, where  # all versions are of one file, so whichever it is can be loaded
        found = [row[0] for row in rows("runs")]
        assert found in ([row[0] for row in old], [row[0] for row in new]), where
        champion = deployments.aliases(MlflowClient())["champion"]
        assert champion == (2 if len(found) == len(new) else 1), where
        with closing(sqlite3.connect("mlflow.db")) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)], where
        seen.add(len(found))
        assert restored() == "restored 8 runs, 4 versions, all verified", where
        assert answered() == wanted
        # Nothing is left of the one that was killed.
        folders = list(Path("mlruns").glob("restored-*"))
        assert len(folders) == (2 if len(found) == len(new) else 1), where
        assert not list(Path("mlruns").glob("restored-*/mlflow.db"))
    assert seen == {6, 8}


# ---- while others work ----------------------------------------------------------------------------------------------

WRITER = """
import sys
from mlflow import MlflowClient
client = MlflowClient(sys.argv[1])
while True:
    run = client.create_run(sys.argv[2]).info.run_id
    client.log_param(run, "first", 1)
    for step in range(3):
        client.log_metric(run, "loss", 0.5, step=step)
    client.log_text(run, "text", "note.txt")
    client.set_terminated(run)
    print(run, flush=True)
"""


def test_a_backup_while_another_process_writes_is_of_one_moment(store, tmp_path, moved):
    command = [sys.executable, "-c", WRITER, store.client.tracking_uri, store.experiment]
    written = set()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        try:
            for number in range(5):
                written |= {writer.stdout.readline().strip() for _ in range(3)}
                done = set(written)
                file = tmp_path / f"{number}.zip"
                backup.backup(file)
                with zipfile.ZipFile(file) as archive:
                    (tmp_path / "copy.db").write_bytes(archive.read(backup.DATABASE))
                    names = set(archive.namelist())
                with closing(sqlite3.connect(tmp_path / "copy.db")) as connection:
                    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
                    ended = {
                        row for (row,) in connection.execute("SELECT run_uuid FROM runs WHERE status = 'FINISHED'")
                    }
                    for run in ended & done:
                        assert f"{store.experiment}/{run}/artifacts/note.txt" in names
                    assert done <= ended
                    # What is called finished is complete.
                    steps = connection.execute(
                        "SELECT run_uuid, count(*) FROM metrics WHERE key = 'loss' GROUP BY run_uuid"
                    ).fetchall()
                    assert all(count == 3 for run, count in steps if run in ended)
            assert writer.poll() is None
        finally:
            writer.kill()
    shutil.copy(file, BACKUP)
    moved()
    assert restored().endswith(", 4 versions, all verified")


def test_neither_goes_on_while_the_registry_is_being_changed(store, tmp_path):
    backup.backup(BACKUP)
    with deployments.exclusive(store.client.tracking_uri):
        for refused in (lambda: backup.backup(tmp_path / "other.zip"), restored):
            with pytest.raises(UserError, match="another catdog command changes the registry now: try again"):
                refused()
    assert not (tmp_path / "other.zip").exists()


def test_a_database_that_stays_locked_is_told(store, tmp_path, monkeypatch):
    monkeypatch.setattr(backup, "_SECONDS_LOCKED", 0.1)
    with closing(sqlite3.connect("mlflow.db", isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UserError, match=r"can't be made: the database is locked by another program"):
            backup.backup(BACKUP)
    assert not list(tmp_path.glob("store.zip*"))


def test_a_reader_sees_the_restored_store_at_once(store, tmp_path):
    backup.backup(BACKUP)
    with closing(sqlite3.connect("mlflow.db")) as reader, closing(sqlite3.connect("mlflow.db")) as writer, writer:
        count = "SELECT count(*) FROM registered_model_aliases"
        assert reader.execute(count).fetchone() == (2,)
        writer.execute("DELETE FROM registered_model_aliases")
        writer.commit()
        restored()
        assert reader.execute(count).fetchone() == (2,)


# ---- what stands in the way of a backup -----------------------------------------------------------------------------


def dangling(folder: Path) -> None:
    (folder / "x").symlink_to("nowhere")


def linked_folder(folder: Path) -> None:
    (folder / "x").symlink_to("/etc", target_is_directory=True)


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "x")


@pytest.mark.parametrize("obstacle", [dangling, linked_folder, pipe])
def test_an_artifact_that_cannot_be_read_is_named_and_nothing_is_written(store, tmp_path, obstacle):
    obstacle(next((tmp_path / "artifacts" / "models").iterdir()) / "artifacts")
    before = state(tmp_path)
    with pytest.raises(UserError, match=r"the backup store\.zip can't be made: .*artifacts/x\)$") as told:
        backup.backup(BACKUP)
    assert "\n" not in str(told.value)
    assert not list(tmp_path.glob("store.zip*"))
    assert state(tmp_path) == before


def test_a_full_disk_is_told_and_nothing_is_half_written(store, tmp_path):
    """A limit on the size of a file stands for the disk."""
    store.client.log_text(store.models[0][1], "x" * 4_000_000, "large.txt")
    ended = catdog("backup", "store.zip", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20,) * 2))
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.splitlines()[-1].startswith("error: the backup store.zip can't be made: File too large")
    assert "Traceback" not in ended.stderr
    assert not list(tmp_path.glob("store.zip*"))


def catdog(*arguments: str, **knobs) -> subprocess.CompletedProcess:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "catdog", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), **knobs)


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}


def test_what_there_is_is_not_overwritten_and_what_there_is_not_is_told(store, tmp_path, monkeypatch):
    BACKUP.write_text("dear")
    with pytest.raises(UserError, match=r"store\.zip exists: name another file"):
        backup.backup(BACKUP)
    assert BACKUP.read_text() == "dear"
    with pytest.raises(UserError, match=r"none\.zip can't be restored: No such file"):
        restored(Path("none.zip"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://user:secret@mlflow.example.org")
    for refused in (backup.backup, restore.restore):
        with pytest.raises(
            UserError, match=r"https://mlflow\.example\.org is on a server: back up its database"
        ) as told:
            refused(tmp_path / "other.zip")
        assert "secret" not in str(told.value)
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "dvc.yaml").touch()
    here(empty, monkeypatch)
    with pytest.raises(UserError, match=r"there is no .*mlflow\.db: nothing to back up"):
        backup.backup(BACKUP)
    assert not (empty / "mlflow.db").exists()


def test_artifacts_outside_of_the_project_are_named(store, tmp_path, tmp_path_factory, capsys):
    outside = tmp_path_factory.mktemp("outside")
    other = store.client.create_experiment("other", artifact_location=str(outside))
    remote = store.client.create_experiment("remote", artifact_location="s3://bucket/x")
    store.client.log_text(store.client.create_run(other).info.run_id, "text", "note.txt")
    backup.backup(BACKUP)
    said = "notice: artifacts of 1 runs and served models are outside of the project and not in the backup: "
    assert f"{said}{outside}/" in capsys.readouterr().err
    restored()
    client = MlflowClient()
    assert client.get_experiment(other).artifact_location == str(outside)
    assert client.get_experiment(remote).artifact_location == "s3://bucket/x"


def test_the_commands(store, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["catdog", "backup", "store.zip"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert capsys.readouterr().out.startswith("store.zip: 8 runs, 4 versions, ")
    store.register("xception", answers(wrong=range(3)))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for flags, status in (([], 1), (["--force"], None)):
        monkeypatch.setattr(sys, "argv", ["catdog", "restore", "store.zip", *flags])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert (ended.value.code or None) == status
    said = capsys.readouterr()
    assert "error: " in said.err
    assert said.out.startswith("restored 8 runs, 4 versions, all verified; the store that stood here is kept as ")
