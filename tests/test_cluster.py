"""Work on a Dask cluster of this machine: the same results in the same order, whatever happens to its workers."""

import os
import shutil
import threading
import time
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path

import dask_here
import numpy as np
import pytest
import test_prepare
from conftest import ROOT, jpeg, photograph
from test_parallel import DEADLY, double, double_or_die, double_or_raise, negative

from catdog.answers import asking
from catdog.answers.classifier import Classifier
from catdog.base import cluster, parallel
from catdog.base.errors import UserError
from catdog.commands import prediction
from catdog.evaluation import corruptions
from catdog.photographs import photos, shards
from catdog.preparation import archives, travel

pytest.importorskip("distributed")


def dask(folder: Path, **settings) -> AbstractContextManager[dask_here.Dask]:
    return dask_here.started(folder, path=(Path(__file__).parent, ROOT / "bench"), **settings)


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory):
    with dask(tmp_path_factory.mktemp("dask")) as found:
        yield found


# Of the modules that workers can import, as all that is sent to them.


def double_slowly(item: int) -> int:
    time.sleep(0.002)
    return 2 * item


def who(chunk: list[int]) -> list[int]:
    return [os.getpid()] * len(chunk)


# ---- results --------------------------------------------------------------------------------------------------------


def test_results_come_in_the_order_of_the_items_from_other_processes(two_workers):
    assert list(parallel.chunked_map(double, iter(range(300)))) == [2 * item for item in range(300)]
    assert list(parallel.chunked_map(double, [])) == []
    workers = {pid for pids in cluster.map_chunks(who, [[item] for item in range(100)]) for pid in pids}
    assert workers == set(two_workers.working())
    assert len(workers) == 2


def test_an_exception_of_the_function_is_passed_on(two_workers):
    with pytest.raises(ValueError, match="not 9"):
        list(parallel.chunked_map(double_or_raise, range(300), rescue=negative))


def test_only_a_few_items_are_under_way(two_workers):
    taken = []

    def items():
        for item in range(100_000):
            taken.append(item)
            yield item

    ahead = []
    results = parallel.chunked_map(double, items())
    for count, _ in zip(range(1, 1501), results, strict=False):
        ahead.append(len(taken) - count)
    results.close()
    assert max(ahead) <= 5 * 2 * 32
    assert len(taken) < 2000


# ---- what goes wrong ------------------------------------------------------------------------------------------------


def test_items_that_kill_their_worker_are_rescued_and_no_others(tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "_CHUNK", 2)
    with dask(tmp_path, allowed_failures=0):
        found = list(parallel.chunked_map(double_or_die, range(4, 14), rescue=negative))
    assert found == [-item if item in DEADLY else 2 * item for item in range(4, 14)]


def test_without_a_rescue_a_deadly_item_is_an_error(tmp_path):
    with dask(tmp_path, allowed_failures=0), pytest.raises(UserError, match=r"killed.*run it again$"):
        list(parallel.chunked_map(double_or_die, range(16)))


@pytest.mark.slow
def test_workers_killed_at_any_moment_cost_no_row_and_double_none(tmp_path):
    with dask(tmp_path, allowed_failures=100) as found, dask_here.killing(found, count=6) as ended:
        while not ended.is_set():
            assert list(parallel.chunked_map(double_slowly, range(1000))) == [2 * item for item in range(1000)]


def test_a_worker_may_come_late(tmp_path, capsys):
    with dask(tmp_path, workers=0) as found:
        threading.Timer(1, found.add_worker).start()
        assert list(parallel.chunked_map(double, range(100))) == [2 * item for item in range(100)]
    assert f"notice: no worker yet; start some with `dask worker {found.address}`" in capsys.readouterr().err


def other_code(folder: Path) -> Path:
    """This library, with another comment somewhere."""
    shutil.copytree(ROOT / "src", folder, ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / "catdog" / "photographs" / "photos.py"
    path.write_text(path.read_text() + "# another\n")
    return folder


@pytest.mark.parametrize("late", [False, True], ids=["at the start", "coming late"])
def test_a_worker_of_another_version_is_refused(tmp_path, late):
    code = other_code(tmp_path / "src")
    with dask(tmp_path, workers=0) as found:
        if late:
            found.add_worker()
            assert list(parallel.chunked_map(double, range(4))) == [0, 2, 4, 6]
            found.workers[0].terminate()
            threading.Timer(1, found.add_worker, kwargs={"source": code}).start()
        else:
            found.add_worker(source=code)
            cluster.connection().wait_for_workers(1, timeout=30)
        with pytest.raises(UserError, match=r"^worker tcp://127\.0\.0\.1:\d+ has another version \(here catdog .*same"):
            list(parallel.chunked_map(double, range(100)))


def test_nobody_at_the_address_is_one_line(monkeypatch):
    monkeypatch.setenv(cluster.ADDRESS, "tcp://127.0.0.1:9")
    monkeypatch.setattr(cluster, "_WAIT", 1)
    cluster.connection.cache_clear()
    with pytest.raises(UserError, match=r"^no Dask scheduler answers at tcp://127\.0\.0\.1:9 .*unset CATDOG_CLUSTER$"):
        list(parallel.chunked_map(double, range(4)))


def test_a_scheduler_that_is_killed_is_one_line(tmp_path):
    with dask(tmp_path) as found:
        results = parallel.chunked_map(double_slowly, range(100_000))
        assert next(results) == 0
        found.scheduler.kill()
        with pytest.raises(UserError, match=r"^the Dask scheduler at tcp://\S+ is gone: start it and run this again"):
            list(results)


# ---- files ----------------------------------------------------------------------------------------------------------


def contents(file: archives.File) -> bytes:
    return archives.read(file)


@pytest.mark.parametrize("shared", [True, False], ids=["by path", "by content"])
def test_files_come_by_path_or_else_by_content(two_workers, tmp_path, monkeypatch, shared):
    expected = {}
    for number in range(70):
        path = tmp_path / f"{number}.bin"
        path.write_bytes(os.urandom(100))
        expected[str(path)] = path.read_bytes()
    monkeypatch.chdir(tmp_path)  # relative paths are those of this process
    files = [archives.File(path, None, None, Path(path).name) for path in expected]
    carried = []

    def carry(file: archives.File) -> archives.File:
        carried.append(file.source)
        return travel.FILES.carried(file)

    way = travel.FILES._replace(carried=carry)
    if not shared:
        way = way._replace(placed=lambda file: replace(file, member=f"/nowhere{file.member}"))
    found = list(parallel.chunked_map(contents, files, travel=way))
    assert found == list(expected.values())
    assert carried == ([] if shared else list(expected))


def test_prepare_writes_the_same_bytes(two_workers, tmp_path):
    photographs = (
        test_prepare.GOOD | test_prepare.KEPT_TOO | {name: data for name, (data, _) in test_prepare.BAD.items()}
    )
    written = []
    for place, address in (("here", ""), ("there", two_workers.address), ("local", "local")):
        folder = test_prepare.project(tmp_path / place, photographs)
        done = test_prepare.run("prepare", folder, CATDOG_CLUSTER=address)
        assert done.returncode == 0, done.stderr
        assert ("cluster: " in done.stderr) == bool(address)
        assert "Traceback" not in done.stderr
        written.append(test_prepare.outputs(folder))
    assert written[1] == written[0]
    assert written[2] == written[0]


# ---- networks -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Classifier]:
    """Two small networks on OpenVINO that know nothing."""
    import keras

    found = {}
    for seed, name in enumerate(("cnn", "xception")):
        keras.utils.set_random_seed(seed)
        folder = tmp_path_factory.mktemp(name)
        layers = [
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
        asking.export(keras.Sequential([keras.Input((32, 32, 3)), *layers]), folder)
        network = asking.by_openvino(folder, bfloat16=False, mirrored=name == "cnn")
        found[name] = Classifier(network, ("cat", "dog"), image_size=64, side=32, threshold=0.5)
    return found


@pytest.fixture
def here(monkeypatch):
    """A function's result without a cluster."""

    def call(function):
        with monkeypatch.context() as patch:
            patch.delenv(cluster.ADDRESS)
            return function()

    return call


def test_predictions_are_the_same(two_workers, models, here, tmp_path):
    bad = {name: data for name, (data, _) in test_prepare.BAD.items()}
    for name, data in (test_prepare.GOOD | bad).items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    ask = partial(prediction.predict, [tmp_path], model=models["cnn"])
    there, expected = list(ask()), here(lambda: list(ask()))
    assert [row._replace(probability=None) for row in there] == [row._replace(probability=None) for row in expected]
    numbers = [[row.probability for row in rows if not row.error] for rows in (there, expected)]
    assert len(numbers[0]) >= len(test_prepare.GOOD)
    assert numbers[0] == pytest.approx(numbers[1], abs=1e-6)


def test_corrupted_photographs_are_answered_the_same(two_workers, models, here, tmp_path):
    rows = [
        shards.Row(f"{seed:064}", f"{seed}.jpg", seed % 2, photos.encode(photograph(seed, (64, 64))), "")
        for seed in range(20)
    ]
    shards.write(tmp_path / "test.arrow", rows)
    shard = shards.Shard(tmp_path / "test.arrow")

    def ask() -> list[dict[str, asking.Asked]]:
        trials = [("blur", 1), ("noise", 2), ("crop", 3)]
        return list(corruptions._ask(shard, list(range(20)), trials, models))

    for there, expected in zip(ask(), here(ask), strict=True):
        assert list(there) == list(expected) == ["cnn", "xception"]
        for name in there:
            for part, same in zip(there[name], expected[name], strict=True):
                assert part == pytest.approx(same, abs=1e-5)


def test_a_photograph_that_workers_cannot_decode_is_named(two_workers, models, tmp_path):
    rows = [shards.Row("a" * 64, "Cat/bad.jpg", 0, jpeg(1)[:300], "")]
    shards.write(tmp_path / "train.arrow", rows)
    shard = shards.Shard(tmp_path / "train.arrow")
    from catdog.training.xception import engines, features

    engine = engines.OpenVinoEngine(models["cnn"].network._head)
    with pytest.raises(UserError, match=r"train\.arrow: photograph 0 \(Cat/bad\.jpg\) can't be decoded"):
        list(features._compute([(shard, 0)], engine=engine, size=32, batch_size=16))


def test_features_are_the_same_and_only_what_is_missing_is_computed(two_workers, here, tmp_path):
    import keras

    from catdog.training.xception import features

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((32, 32, 3)), keras.layers.Conv2D(8, 3), keras.layers.GlobalAveragePooling2D()]
    )
    rows = [
        shards.Row(f"{seed:064}", f"{seed}.jpg", 0, photos.encode(photograph(seed, (64, 64))), "") for seed in range(50)
    ]
    shards.write(tmp_path / "train.arrow", rows)
    shard = shards.Shard(tmp_path / "train.arrow")

    def extract(folder: str) -> np.ndarray:
        settings = {"weights_digest": "a" * 64, "image_size": 32, "precision": "float32"}
        return features.extract([shard], model=model, folder=tmp_path / folder, **settings).rows

    assert extract("there") == pytest.approx(here(lambda: extract("here")), abs=1e-6)
    assert here(lambda: extract("there")).tobytes() == extract("there").tobytes()
