"""Features: computed once, kept through kills and damage, and the same whatever computes them."""

import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
from faults import damage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catdog.base.errors import UserError
from catdog.engines import processor
from catdog.photographs import photos, shards
from catdog.training.loop import precision
from catdog.training.xception import engines, features

SIZE = 71
WIDTH = 4


class Counting:
    """In place of an engine: each photograph's mean colours, counting the photographs it is given."""

    def __init__(self) -> None:
        self.photographs = 0

    def __call__(self, model: object, **settings: object) -> engines.Engine:
        def run(batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
            for batch in batches:
                self.photographs += len(batch)
                yield _means(batch)

        return run


class Model:
    output_shape = (None, WIDTH)


def _means(batch: np.ndarray) -> np.ndarray:
    means = batch.reshape(len(batch), -1, 3).mean(axis=1, dtype=np.float32)
    return np.concatenate([means, np.ones((len(batch), 1), np.float32)], axis=1)


def _picture(seed: int) -> bytes:
    colours = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return photos.encode(colours.repeat(20, axis=0).repeat(20, axis=1))


def _shard(path: Path, seeds: Iterable[int]) -> shards.Shard:
    shards.write(path, [shards.Row(f"id{s}", f"cat/{s}.jpg", 0, _picture(s), f"g{s}") for s in seeds])
    return shards.Shard(path)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Counting:
    counting = Counting()
    monkeypatch.setattr(engines, "name", lambda: "keras")
    monkeypatch.setitem(engines.BUILD, "keras", counting)
    monkeypatch.setattr(features, "_ROWS_PER_FILE", 3)
    return counting


def _extract(found: list[shards.Shard], folder: Path, digest: str = "a" * 64, keep: bool = True) -> list[np.ndarray]:
    settings = {"model": Model(), "weights_digest": digest, "image_size": SIZE, "precision": "float32"}
    rows = features.extract(found, **settings, batch_size=2, folder=folder, keep=keep).rows
    return np.split(rows, np.cumsum([len(shard) for shard in found])[:-1])


def _expected(shard: shards.Shard) -> np.ndarray:
    pixels = [photos.pixels(shard.jpeg(i), SIZE) for i in range(len(shard))]
    return _means(np.stack(pixels)) if pixels else np.zeros((0, WIDTH), np.float32)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contents=st.lists(st.lists(st.integers(0, 12), max_size=9), min_size=1, max_size=3))
def test_rows_are_those_of_the_shards(
    engine: Counting, tmp_path_factory: pytest.TempPathFactory, contents: list[list[int]]
) -> None:
    folder = tmp_path_factory.mktemp("features")
    found = [_shard(folder / f"{i}.arrow", seeds) for i, seeds in enumerate(contents)]
    before = engine.photographs
    for shard, rows in zip(found, _extract(found, folder / "kept"), strict=True):
        assert rows.dtype == np.float32
        np.testing.assert_array_equal(rows, _expected(shard))
    assert engine.photographs - before == len({seed for seeds in contents for seed in seeds})


def test_only_new_photographs_are_computed(engine: Counting, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    first = _shard(tmp_path / "first.arrow", range(7))
    _extract([first], folder)
    assert engine.photographs == 7
    assert len(_files(folder)) == 1
    longer = _shard(tmp_path / "longer.arrow", [8, *range(7), 9])
    [rows] = _extract([longer], folder)
    assert engine.photographs == 9
    assert len(_files(folder)) == 1
    np.testing.assert_array_equal(rows, _expected(longer))
    before = _files(folder)
    _extract([first, longer], folder)
    assert engine.photographs == 9
    assert _files(folder) == before


def test_full_files_are_left_as_they_are(engine: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "_FULL_FILE", 5)
    _extract([_shard(tmp_path / "a.arrow", range(6))], tmp_path / "kept")
    [full] = _files(tmp_path / "kept")
    _extract([_shard(tmp_path / "b.arrow", range(10))], tmp_path / "kept")
    assert full in _files(tmp_path / "kept")
    assert len(_files(tmp_path / "kept")) == 2


def test_other_weights_and_other_decoding_are_computed_afresh(
    engine: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = _shard(tmp_path / "a.arrow", range(4))
    _extract([shard], tmp_path / "kept")
    _extract([shard], tmp_path / "kept", digest="b" * 64)
    assert engine.photographs == 8
    plain = photos.pixels
    monkeypatch.setattr(photos, "pixels", lambda jpeg, size: 255 - plain(jpeg, size))
    [rows] = _extract([shard], tmp_path / "kept")
    assert engine.photographs == 12
    np.testing.assert_array_equal(rows, _expected(shard))


def test_what_they_took_is_known_when_they_are_only_read(engine: Counting, tmp_path: Path) -> None:
    shard = _shard(tmp_path / "a.arrow", range(5))
    first, second = (
        features.extract(
            [shard], model=Model(), weights_digest="w", image_size=SIZE, precision="float32", folder=tmp_path / "kept"
        )
        for _ in range(2)
    )
    assert engine.photographs == 5
    assert first.seconds == second.seconds > 0


def test_a_reader_computes_what_is_missing_and_leaves_the_store_as_it_is(engine: Counting, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    _extract([_shard(tmp_path / "a.arrow", range(7))], folder)
    [file] = _files(folder)
    before = file.read_bytes()
    longer = _shard(tmp_path / "longer.arrow", range(3, 10))
    for _ in range(2):
        [rows] = _extract([longer], folder, keep=False)
        np.testing.assert_array_equal(rows, _expected(longer))
    assert engine.photographs == 7 + 2 * 3
    file.write_bytes(b"damaged")
    [rows] = _extract([longer], folder, keep=False)
    np.testing.assert_array_equal(rows, _expected(longer))
    assert _files(folder) == [file]
    assert file.read_bytes() == b"damaged" != before


def test_a_killed_run_goes_on_where_it_stopped(engine: Counting, tmp_path: Path) -> None:
    shard = _shard(tmp_path / "a.arrow", range(11))
    script = f"""
        import os, signal, sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import test_features as here
        from catdog.photographs import shards
        from catdog.training.xception import engines, features

        def engine(model, **settings):
            def run(batches):
                for number, batch in enumerate(batches):
                    if number == 4:
                        os.kill(os.getpid(), signal.SIGKILL)
                    yield here._means(batch)
            return run

        engines.name, engines.BUILD["keras"], features._ROWS_PER_FILE = lambda: "keras", engine, 3
        here._extract([shards.Shard(Path({str(shard.path)!r}))], Path({str(tmp_path / "kept")!r}))
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(_files(tmp_path / "kept")) == 2
    [rows] = _extract([shard], tmp_path / "kept")
    assert engine.photographs == 11 - 6
    np.testing.assert_array_equal(rows, _expected(shard))


def test_a_kill_while_writing_or_putting_together_loses_nothing(engine: Counting, tmp_path: Path) -> None:
    shard = _shard(tmp_path / "a.arrow", range(8))
    [rows] = _extract([shard], tmp_path / "kept")
    [whole] = _files(tmp_path / "kept")
    content = whole.read_bytes()
    keys = list(features._load(whole.parent, WIDTH, repair=True))
    features._write(whole.parent, list(zip(keys[:3], rows[:3], strict=True)), seconds=1.0)
    (whole.parent / "half.part").write_bytes(content[:500])
    [again] = _extract([shard], tmp_path / "kept")
    assert engine.photographs == 8
    np.testing.assert_array_equal(again, rows)
    assert _files(tmp_path / "kept") == [whole]


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"x" * 900])
def test_a_damaged_file_is_computed_again(engine, tmp_path, capsys, damage) -> None:
    shard = _shard(tmp_path / "a.arrow", range(5))
    _extract([shard], tmp_path / "kept")
    [file] = _files(tmp_path / "kept")
    file.write_bytes(damage(file.read_bytes()))
    [rows] = _extract([shard], tmp_path / "kept")
    assert engine.photographs == 10
    np.testing.assert_array_equal(rows, _expected(shard))
    assert "damaged" in capsys.readouterr().err


def test_no_damage_on_disk_reaches_a_training(engine: Counting, tmp_path: Path, capsys) -> None:
    shard = _shard(tmp_path / "a.arrow", range(5))
    _extract([shard], tmp_path / "kept")
    [file] = _files(tmp_path / "kept")
    rng = np.random.default_rng(0)
    for _ in range(40):
        damage(file, rng)
        [rows] = _extract([shard], tmp_path / "kept")
        np.testing.assert_array_equal(rows, _expected(shard))
        assert _files(tmp_path / "kept") == [file]
    told = capsys.readouterr().err.count("is damaged and computed again")
    assert told == engine.photographs / 5 - 1 > 30


def test_a_photograph_that_cannot_be_decoded_is_named(engine: Counting, tmp_path: Path) -> None:
    row = shards.Row("id", "cat/7.jpg", 0, _picture(7)[:400], "g")
    shards.write(tmp_path / "a.arrow", [row])
    with pytest.raises(UserError, match=r"a\.arrow.*cat/7\.jpg.*dvc repro"):
        _extract([shards.Shard(tmp_path / "a.arrow")], tmp_path / "kept")


@pytest.fixture(scope="module")
def xception() -> keras.Model:
    """Random, but with batch norms that do something, as trained ones do."""
    keras.utils.set_random_seed(3)
    model = keras.applications.Xception(include_top=False, weights=None, pooling="avg", input_shape=(SIZE, SIZE, 3))
    rng = np.random.default_rng(3)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            n = layer.gamma.shape[0]
            layer.set_weights(
                [rng.uniform(0.5, 1.5, n), rng.normal(0, 0.3, n), rng.normal(0, 0.1, n), rng.uniform(0.05, 0.5, n)]
            )
    return model


@pytest.mark.parametrize("name", ["keras", "openvino"])
@pytest.mark.parametrize(("numbers", "tolerance"), [("float32", 1e-4), ("mixed_bfloat16", 0.1)])
def test_engines_agree_with_keras_in_float32(xception, tmp_path, monkeypatch, name, numbers, tolerance) -> None:
    monkeypatch.setattr(engines, "name", lambda: name)
    shard = _shard(tmp_path / "a.arrow", range(5))
    # Batches of 2 and 5 photographs: the last batch is not a full one.
    found = features.extract(
        [shard],
        model=xception,
        weights_digest="c" * 64,
        image_size=SIZE,
        precision=numbers,
        batch_size=2,
        folder=tmp_path / "kept",
    )
    rows = found.rows
    assert found.engine == name
    assert numbers in next((tmp_path / "kept").iterdir()).name
    pixels = np.stack([photos.pixels(shard.jpeg(i), SIZE) for i in range(5)]).astype(np.float32)
    expected = xception.predict_on_batch(keras.applications.xception.preprocess_input(pixels))
    assert rows.shape == (5, 2048)
    away = np.linalg.norm(rows - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert away.max() < tolerance
    # The photographs differ by more than that, so that rows that had been mixed up would be seen.
    apart = np.linalg.norm(expected[0] - expected[1]) / np.linalg.norm(expected[0])
    assert apart > 2 * away.max()


def test_openvino_does_not_report_its_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = f"""
        import sys
        import keras
        from catdog.training.xception import engines
        shape = ({SIZE}, {SIZE}, 3)
        model = keras.applications.Xception(include_top=False, weights=None, pooling="avg", input_shape=shape)
        engines._openvino_engine(model, image_size={SIZE}, precision="float32")
        assert "openvino" in sys.modules
        assert not [name for name in sys.modules if name.startswith("openvino_telemetry.")]
    """
    monkeypatch.setenv("HOME", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "intel").exists()


@pytest.mark.parametrize(
    ("gpus", "flags", "expected"),
    [
        ([], "fpu avx512_bf16 amx_bf16", "mixed_bfloat16"),
        ([], "fpu avx512_bf16", "mixed_bfloat16"),
        ([], "fpu avx512f", "float32"),
        ([], None, "float32"),
        ([(9, 0)], "fpu avx512f", "mixed_bfloat16"),
        ([(7, 5)], "fpu avx512_bf16", "float32"),
        ([(9, 0), (7, 5)], "fpu", "float32"),
    ],
)
def test_auto_takes_bfloat16_where_the_hardware_has_it(monkeypatch, tmp_path, gpus, flags, expected) -> None:
    monkeypatch.setattr(precision, "gpu_capabilities", lambda: gpus)
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\nprocessor\t: 1\nflags\t\t: {flags}\n")
    assert precision.resolve("auto") == expected
    assert precision.resolve("float32") == "float32"
    assert precision.resolve("mixed_bfloat16") == "mixed_bfloat16"
