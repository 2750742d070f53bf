"""A local version is opened by the database alone: the same answers as through MLflow, or MLflow and its words."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow
import numpy as np
import pytest
from conftest import jpeg
from registry_fixtures import BETTER, GOOD, deployed_twice, log_served
from served_fixtures import make, tiny_model

from catdog.answers.classifier import Answer, Classifier
from catdog.base.errors import UserError
from catdog.tracking import deployments, opening, registry
from catdog.tracking import store as store_

pytest_plugins = ["registry_fixtures"]
CHAMPION = "models:/catdog@champion"
DATABASE = Path("mlflow.db")


@pytest.fixture(autouse=True)
def local(store, monkeypatch):
    """The store of the project in the current folder."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow sets it for its children
    Path("dvc.yaml").write_text("stages: {}\n")


@pytest.fixture
def told(monkeypatch) -> list[str]:
    """The references that MLflow was asked for."""
    asked: list[str] = []
    load = registry.load

    def listening(client, reference: str, **options) -> Classifier:
        asked.append(reference)
        return load(client, reference, **options)

    monkeypatch.setattr(registry, "load", listening)
    return asked


def answers(model: Classifier) -> list[Answer]:
    return model.answers(model.ask(np.stack([model.pixels(jpeg(seed)) for seed in range(4)])))


def through_mlflow(store, reference: str) -> list[Answer]:
    return answers(registry.load(store.client, reference))


def two_models(store, folder: Path) -> None:
    """catdog-cnn/1 and catdog-xception/1 are of different networks; the second is champion, the first was."""
    tiny_model(seed=8).save(folder / "other.keras")
    other = make(folder / "other.keras", folder / "other", temperature=2.0, sureness=0.7, unfamiliar=0.3)
    store.models = [store.models[0], log_served(other, experiment=store.experiment)]
    store.register("cnn", GOOD, index=0)
    store.promote()
    store.register("xception", BETTER, index=1, model_sha256=other.settings.model_sha256)
    store.promote()


# ---- as MLflow does -------------------------------------------------------------------------------------------------


def test_every_name_of_a_version_gives_the_answers_that_mlflow_gives(store, tmp_path, told):
    two_models(store, tmp_path)
    references = ["catdog@champion", "catdog@previous", "catdog/1", "catdog/2", "catdog-cnn/1", "catdog-xception/1"]
    found = {each: answers(opening.load(each)) for each in references}
    assert told == []
    assert found == {each: through_mlflow(store, each) for each in references}
    assert found["catdog@champion"] == found["catdog/2"] == found["catdog-xception/1"] != found["catdog-cnn/1"]
    assert found["catdog@previous"] == found["catdog/1"] == found["catdog-cnn/1"]
    told.clear()
    for each in references:
        assert answers(opening.load(f" models:/{each} ")) == found[each]
    assert told == []


def test_an_alias_is_followed_wherever_it_went(store, tmp_path, told):
    two_models(store, tmp_path)
    newer, older = answers(opening.load("catdog/2")), answers(opening.load("catdog/1"))
    assert answers(opening.load(CHAMPION)) == newer
    store.rollback()
    assert answers(opening.load(CHAMPION)) == older
    store.rollback()
    assert answers(opening.load(CHAMPION)) == newer
    store.client.set_registered_model_alias("catdog", "champion", "1")
    assert answers(opening.load(CHAMPION)) == older
    assert told == []


def test_a_store_that_the_environment_names_is_opened_alike(store, tmp_path, told, monkeypatch):
    deployed_twice(store)
    expected = answers(opening.load(CHAMPION))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert answers(opening.load(CHAMPION)) == expected
    assert told == []


def test_it_opens_while_another_program_writes_and_leaves_no_trace(store, told):
    deployed_twice(store)
    before = sorted(path.name for path in Path().iterdir())
    with closing(sqlite3.connect(DATABASE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("DELETE FROM registered_model_aliases")
        assert len(answers(opening.load(CHAMPION))) == 4
        other.execute("ROLLBACK")
    assert told == []
    assert sorted(path.name for path in Path().iterdir()) == before


def test_what_the_store_holds_is_not_touched(store):
    deployed_twice(store)
    folder = Path(mlflow.artifacts.download_artifacts(CHAMPION))
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    opening.load(CHAMPION)
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == before


# ---- what MLflow is asked for ---------------------------------------------------------------------------------------


def words(ask) -> str:
    with pytest.raises(UserError) as refused:
        ask()
    assert "\n" not in str(refused.value)
    return str(refused.value)


def check_told_by_mlflow(store, told: list[str], reference: str, said: str) -> None:
    told.clear()
    mine = words(lambda: opening.load(reference))
    assert told == [reference]
    assert mine == words(lambda: registry.load(store.client, reference))
    assert said in mine


def test_what_does_not_exist_is_told_in_mlflows_words(store, told):
    check_told_by_mlflow(store, told, CHAMPION, "promote a model first: `catdog promote`")
    deployed_twice(store)
    check_told_by_mlflow(store, told, "catdog@nobody", "catdog has no version with the alias nobody")
    check_told_by_mlflow(store, told, "catdog/9", "there is no catdog/9: it was deleted or never existed")
    check_told_by_mlflow(store, told, "other/1", "there is no other/1")
    check_told_by_mlflow(store, told, "nonsense", "nonsense is no model or run")
    check_told_by_mlflow(store, told, "catdog/1' OR '1'='1", "is no model or run")
    check_told_by_mlflow(store, told, store.models[0][1], "is a run: name a model")


def test_a_version_that_was_deleted_is_not_opened(store, told):
    deployed_twice(store)
    store.client.delete_model_version("catdog", "1")
    # MLflow keeps its row, its tags and its files.
    check_told_by_mlflow(store, told, "catdog/1", "there is no catdog/1: it was deleted or never existed")
    check_told_by_mlflow(store, told, "catdog@previous", "catdog has no version with the alias previous")


def test_other_names_of_a_model_are_left_to_mlflow(store, told):
    deployed_twice(store)
    expected = answers(opening.load(CHAMPION))
    names = ["2", f"models:/{store.models[0][0]}", store.models[1][0]]
    for name in names:
        assert answers(opening.load(name)) == expected
    assert told == names


@pytest.mark.parametrize("missing", [["model_sha256"], ["served_sha256"], ["model_sha256", "served_sha256"]])
def test_without_digests_it_is_refused_or_opened_with_a_warning(store, told, capsys, missing):
    deployed_twice(store)
    expected = answers(opening.load(CHAMPION))
    for key in missing:
        store.client.delete_model_version_tag("catdog", "2", key)
    check_told_by_mlflow(store, told, CHAMPION, "catdog/2 was not registered by catdog")
    capsys.readouterr()
    assert answers(opening.load(CHAMPION, unverified=True)) == expected
    assert capsys.readouterr().err.startswith("warning: catdog/2 was not registered by catdog")
    store.client.set_model_version_tag("catdog", "2", missing[0], "")
    check_told_by_mlflow(store, told, CHAMPION, "catdog/2 was not registered by catdog")


def test_unverified_is_no_way_around_the_digests(store, told):
    deployed_twice(store)
    store.client.set_model_version_tag("catdog", "2", "model_sha256", "0" * 64)
    assert "is not what was logged" in words(lambda: opening.load(CHAMPION, unverified=True))
    assert told == []


def test_files_that_are_gone_are_told_in_mlflows_words(store, told, tmp_path):
    deployed_twice(store)
    (tmp_path / "artifacts").rename(tmp_path / "gone")
    check_told_by_mlflow(store, told, CHAMPION, "can't be loaded as a served model")


def test_a_store_on_a_server_is_not_looked_for_here(store, told, monkeypatch):
    deployed_twice(store)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert "the MLflow server at http://127.0.0.1:9 does not answer" in words(lambda: opening.load(CHAMPION))


@pytest.mark.parametrize("content", [None, b"", b"SQLite format 3\0" + bytes(range(256)) * 16], ids=str)
def test_a_database_that_is_not_there_or_says_nothing_is_left_to_mlflow(store, tmp_path, monkeypatch, content):
    other = tmp_path / "other"
    other.mkdir()
    (other / "dvc.yaml").write_text("stages: {}\n")
    monkeypatch.chdir(other)
    if content is not None:
        DATABASE.write_bytes(content)
    said = words(lambda: opening.load(CHAMPION))
    assert ("can't be used" if content else "promote a model first") in said


def test_a_table_that_is_missing_is_left_to_mlflow(store, told):
    deployed_twice(store)
    with closing(sqlite3.connect(DATABASE)) as connection, connection:
        connection.execute("ALTER TABLE registered_model_aliases RENAME TO others")
    with pytest.raises(Exception, match="no such table"), store_.answering():
        opening.load(CHAMPION)
    assert told == [CHAMPION]
    assert answers(opening.load("catdog/2"))  # this takes no alias
    assert told == [CHAMPION]


def test_outside_of_a_project_it_says_so(store, tmp_path, monkeypatch):
    Path("dvc.yaml").unlink()
    assert "no dvc.yaml in" in words(lambda: opening.load(CHAMPION))


# ---- what was changed -----------------------------------------------------------------------------------------------


def change(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


NAMES = ["model.keras", "trunk.xml", "trunk.bin", "head.xml", "head.bin", "profile.npz", "MLmodel", "form.py"]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_was_changed_is_refused_in_the_same_words(store, told, name):
    deployed_twice(store)
    [file] = Path(mlflow.artifacts.download_artifacts(CHAMPION)).rglob(name)
    change(file)
    mine = words(lambda: opening.load(CHAMPION))
    assert told == []
    assert mine == words(lambda: registry.load(store.client, CHAMPION))
    assert ("models:/catdog/2" in mine, str(Path.cwd()) in mine) == (True, False)


def test_a_model_exchanged_for_another_of_ours_is_refused(store, tmp_path, told):
    two_models(store, tmp_path)
    champion, other = (Path(mlflow.artifacts.download_artifacts(f"models:/catdog/{n}")) for n in (2, 1))
    shutil.rmtree(champion)
    shutil.copytree(other, champion)
    mine = words(lambda: opening.load(CHAMPION))
    assert "is not what was logged" in mine
    assert mine == words(lambda: registry.load(store.client, CHAMPION))


def test_a_promotion_under_way_changes_nothing(store, told):
    deployed_twice(store)
    with deployments.exclusive(store.client.tracking_uri):
        assert len(answers(opening.load(CHAMPION))) == 4
    assert told == []
