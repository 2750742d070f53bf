"""Photographs at addresses: those of a store in memory, which every installation of fsspec has."""

import json

import fsspec
import pandas as pd
import pytest
import test_prepare
from conftest import jpeg
from served_fixtures import brightness

from catdog.base import paths
from catdog.base.errors import UserError
from catdog.commands import prediction
from catdog.preparation import fetching, remote, sources

CLASSES = ["cat", "dog"]


@pytest.fixture
def store():
    """An empty store at memory://."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield system
    system.store.clear()


def fill(store, photographs: dict[str, bytes]) -> None:
    for name, data in photographs.items():
        store.pipe(f"/bucket/pets/{name}", data)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("s3://bucket/pets", "s3://bucket/pets"),
        ("https://me:secret@host:8443/pets.zip?token=secret#secret", "https://host:8443/pets.zip"),
        ("data/pets", "data/pets"),
    ],
)
def test_what_is_shown_of_an_address_is_no_secret(address, shown):
    assert remote.shown(address) == shown


def test_files_are_predicted_in_place_a_bad_one_with_its_reason(store):
    fill(store, {"b/2.jpg": jpeg(2), "a/1.jpg": jpeg(1), "c.txt": b"no photograph", ".hidden.jpg": jpeg(3)})
    rows = list(prediction.predict(["memory://bucket/pets"], model=brightness()))
    assert [row.path for row in rows] == [f"memory:///bucket/pets/{name}" for name in ("a/1.jpg", "b/2.jpg", "c.txt")]
    assert [bool(row.error) for row in rows] == [False, False, True]
    [alone] = prediction.predict(["memory://bucket/pets/b/2.jpg"], model=brightness())
    assert alone.probability == rows[1].probability


def test_what_is_not_there_is_a_row_with_the_reason(store):
    rows = list(prediction.predict(["memory://bucket/none", "nosuch://bucket"], model=brightness()))
    assert rows[0].error == "memory://bucket/none holds no files"
    assert rows[1].error.startswith("nosuch://bucket can't be reached: Protocol not known")


def test_a_folder_is_fetched_and_prepare_tells_where_it_came_from(store, tmp_path):
    folder = test_prepare.project(tmp_path, {})
    fill(store, test_prepare.GOOD)
    fetching.fetch("memory://bucket/pets", folder / paths.RAW, classes=CLASSES, drawings=40, seed=0)
    there = {name: (folder / paths.RAW / "pets" / name).read_bytes() for name in test_prepare.GOOD}
    assert there == test_prepare.GOOD
    assert test_prepare.run("prepare", folder).returncode == 0
    source = json.loads((folder / paths.DATA_METRICS).read_text())["source"]
    assert (source["kind"], source["address"], source["files"]) == ("folder", "memory://bucket/pets", 80)
    assert len(pd.read_csv(folder / paths.MANIFEST)) == 80
    # What has changed there is brought by the next fetch.
    store.pipe("/bucket/pets/Cat/new.jpg", jpeg(500))
    fetching.fetch("memory://bucket/pets", folder / paths.RAW, classes=CLASSES, drawings=40, seed=0)
    assert sources.describe(folder / paths.RAW)["files"] == 81


def test_an_archive_is_fetched(store, tmp_path):
    import io
    import zipfile

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in test_prepare.GOOD.items():
            archive.writestr(name, data)
    store.pipe("/bucket/pets.zip", packed.getvalue())
    fetching.fetch("memory://bucket/pets.zip", tmp_path / "raw", classes=CLASSES, drawings=40, seed=0)
    assert (tmp_path / "raw" / "pets.zip").read_bytes() == packed.getvalue()
    assert sources.describe(tmp_path / "raw")["kind"] == "zip"


def test_a_fetch_that_fails_leaves_what_was_there(store, tmp_path):
    fill(store, test_prepare.GOOD)
    fetching.fetch("memory://bucket/pets", tmp_path / "raw", classes=CLASSES, drawings=40, seed=0)
    before = sources.describe(tmp_path / "raw")
    with pytest.raises(UserError, match=r"^memory://bucket/gone holds no files$"):
        fetching.fetch("memory://bucket/gone", tmp_path / "raw", classes=CLASSES, drawings=40, seed=0)
    assert sources.describe(tmp_path / "raw") == before


def test_a_name_never_leads_out_of_the_folder(store, tmp_path, monkeypatch):
    fill(store, {"Cat/1.jpg": jpeg(1)})
    monkeypatch.setattr(remote, "files", lambda address: ["memory://bucket/pets/../../evil.jpg"])
    with pytest.raises(UserError, match=r"leads out of it: evil\.jpg$"):
        remote.copy("memory://bucket/pets", tmp_path / "deep" / "pets")
    assert not list(tmp_path.rglob("evil.jpg"))
