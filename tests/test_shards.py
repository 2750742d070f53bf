"""Shards: what is written comes back, whole or not at all, and what is no shard is an error in one line."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catdog.base import files as files_
from catdog.base.errors import UserError
from catdog.photographs import shards

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
rows = st.lists(
    st.builds(shards.Row, id=text, source=text, label=st.integers(0, 1), image=st.binary(max_size=50), group=text)
)


def some(count: int) -> list[shards.Row]:
    return [
        shards.Row(f"id{i}", f"cat/{i} ü.jpg", i % 2, bytes([i % 256]) * (i % 50), f"g{i // 2}") for i in range(count)
    ]


def check(shard: shards.Shard, expected: list[shards.Row]) -> None:
    assert len(shard) == len(expected)
    assert [shard.row(index) for index in range(len(shard))] == expected
    assert [shard.jpeg(index) for index in range(len(shard))] == [row.image for row in expected]
    assert (shard.ids, shard.sources, shard.groups) == tuple([r[c] for r in expected] for c in (0, 1, 4))
    assert (shard.labels.dtype, shard.labels.tolist()) == (np.int8, [row.label for row in expected])


@settings(max_examples=50, deadline=None)
@given(expected=rows)
def test_rows_come_back_as_they_went_in(tmp_path_factory, expected):
    path = tmp_path_factory.getbasetemp() / "any" / "shard.arrow"
    shards.write(path, iter(expected))
    check(shards.Shard(path), expected)


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 1000])
def test_any_number_of_rows_and_the_same_bytes_each_time(count, tmp_path):
    for name in ("first", "second"):
        shards.write(tmp_path / f"{name}.arrow", some(count))
    first, second = (shards.Shard(tmp_path / f"{name}.arrow") for name in ("first", "second"))
    check(first, some(count))
    assert (tmp_path / "first.arrow").read_bytes() == (tmp_path / "second.arrow").read_bytes()
    assert first.digest == second.digest
    shards.write(tmp_path / "other.arrow", some(count + 1))
    assert shards.Shard(tmp_path / "other.arrow").digest != first.digest


@pytest.mark.parametrize(("count", "files"), [(0, 0), (100, 0), (101, 2), (200, 2), (1000, 10)])
def test_many_rows_are_a_folder_of_files_that_read_as_one(count, files, tmp_path):
    path = tmp_path / "train.arrow"
    for _ in range(2):  # the second replaces the first
        shards.write_parts(path, iter(some(count)), count=count, rows_per_file=100)
        assert path.is_dir() == bool(files)
        assert [file.name for file in sorted(tmp_path.rglob("*-of-*"))] == [
            f"{number:05}-of-{files:05}.arrow" for number in range(files)
        ]
        check(shards.Shard(path), some(count))
        assert shards.Shard(path).rows_per_file == min(count, 100)


def test_a_file_and_a_folder_replace_each_other(tmp_path):
    path = tmp_path / "train.arrow"
    digests = set()
    for rows_per_file in (100, 10, 100, 10):
        shards.write_parts(path, iter(some(50)), count=50, rows_per_file=rows_per_file)
        check(shards.Shard(path), some(50))
        digests.add(shards.Shard(path).digest)
        assert [file.name for file in tmp_path.iterdir()] == ["train.arrow"]
    assert len(digests) == 2


def test_a_folder_without_one_of_its_files_is_an_error(tmp_path):
    path = tmp_path / "train.arrow"
    for gone in range(3):
        shards.write_parts(path, iter(some(30)), count=30, rows_per_file=10)
        sorted(path.iterdir())[gone].unlink()
        with pytest.raises(
            UserError, match=r"train\.arrow is damaged or no shard \(it lacks some of its files\): delete"
        ):
            shards.Shard(path)


def test_a_folder_has_the_digest_by_which_dvc_knows_it(tmp_path):
    from dvc_data.hashfile.hash import hash_file
    from dvc_data.hashfile.tree import Tree
    from dvc_objects.fs import LocalFileSystem

    path = tmp_path / "train.arrow"
    shards.write_parts(path, iter(some(50)), count=50, rows_per_file=20)
    tree = Tree()
    for file in path.iterdir():
        meta, hash_info = hash_file(str(file), LocalFileSystem(), "md5")
        tree.add((file.name,), meta, hash_info)
    tree.digest()
    assert files_.md5(path) == tree.hash_info.value


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_complete_or_not_at_all(failure, tmp_path):
    def breaking_off():
        yield from some(600)
        raise failure

    path = tmp_path / "new" / "shard.arrow"
    with pytest.raises(failure):
        shards.write(path, breaking_off())
    assert list(path.parent.iterdir()) == []
    shards.write(path, some(3))
    with pytest.raises(failure):
        shards.write(path, breaking_off())
    check(shards.Shard(path), some(3))
    assert list(path.parent.iterdir()) == [path]


def test_the_error_about_a_missing_shard_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"^.*gone\.arrow not found: run `dvc repro`$"):
        shards.Shard(tmp_path / "gone.arrow")


DAMAGE = {
    "cut in the middle": lambda data: data[: len(data) // 2],
    "cut before its end": lambda data: data[:-1],
    "beginning lost": lambda data: data[1000:],
    "empty": lambda data: b"",
    "something else": lambda data: b"label,image\n" * 1000,
    "end overwritten": lambda data: data[:-500] + b"x" * 500,
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_shard_is_an_error_in_one_line(name, tmp_path):
    path = tmp_path / "shard.arrow"
    shards.write(path, some(300))
    path.write_bytes(DAMAGE[name](path.read_bytes()))
    expected = r"^.*shard\.arrow is damaged or no shard \(.+\): delete it and run `dvc repro`$"
    with pytest.raises(UserError, match=expected):
        shards.Shard(path)


def test_a_folder_and_an_arrow_file_of_something_else_are_no_shards(tmp_path):
    with pytest.raises(UserError, match="is damaged or no shard"):
        shards.Shard(tmp_path)
    table = pa.table({"id": ["a"], "label": [1]})
    with pa.OSFile(str(tmp_path / "x.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(UserError, match=r"no shard \(it has no checksum\)"):
        shards.Shard(tmp_path / "x.arrow")


def test_threads_read_at_random(tmp_path):
    expected = some(2000)
    shards.write(tmp_path / "shard.arrow", expected)
    shard = shards.Shard(tmp_path / "shard.arrow")
    order = np.random.default_rng(0).integers(len(expected), size=20_000).tolist()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(shard.jpeg, order)) == [expected[index].image for index in order]
        assert list(pool.map(shard.row, order[:2000])) == [expected[index] for index in order[:2000]]
