"""The benchmarks start, and what they share counts, times and keeps as it says."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
BENCH = ROOT / "bench"
SCRIPTS = sorted(path.stem for path in BENCH.glob("*.py") if 'if __name__ == "__main__":' in path.read_text())


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts of bench/ can be imported."""
    monkeypatch.syspath_prepend(str(BENCH))


def test_the_benchmarks_of_training_are_there():
    assert {"cnn", "features", "input_pipeline", "xception"} <= set(SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_benchmark_says_what_it_measures(script, tmp_path):
    command = [sys.executable, str(BENCH / f"{script}.py"), "--help"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert said.stdout.startswith("usage:")
    assert list(tmp_path.iterdir()) == []


def test_arms_take_turns_and_the_first_round_does_not_count(bench):
    import common

    called: list[str] = []
    seconds = common.in_turns({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, rounds=3)
    assert called == ["a", "b"] * 4
    assert [len(taken) for taken in seconds.values()] == [3, 3]
    assert all(second >= 0 for taken in seconds.values() for second in taken)


def test_one_slow_round_does_not_change_the_rate(bench):
    import common

    assert common.median_rate([2.0, 100.0, 1.0], 10) == 5


def test_a_sample_is_the_first_photographs_and_their_files(bench, make_shard, tmp_path):
    import common

    whole = make_shard(range(6))
    part = common.sample(whole.path, 2, tmp_path / "part", per_photograph=2)
    assert part.ids == whole.ids[:4]
    folder = common.write_folders(part, tmp_path / "files")
    written = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.jpg")}
    assert written == {f"{i % 2}/{i:05}.jpg": whole.jpeg(i) for i in range(4)}


def test_figures_are_kept_with_where_they_are_from(bench, tmp_path, monkeypatch, capsys):
    import common

    monkeypatch.chdir(tmp_path)
    figures = [
        common.Figure("rate", "ours", 12.5, "photographs/s", "measured"),
        common.Figure("ratio", "against theirs", 1.5, "x", "extrapolated", goal=2),
    ]
    common.leave("trial", figures, notes=["a note"], seconds={"ours": [0.5]}, quick=False)
    said = capsys.readouterr().out
    kept = json.loads((common.RESULTS / "trial.json").read_text())
    assert "2 missed" in said
    assert "a note" in said
    assert kept["figures"]["rate"] == {"what": "ours", "value": 12.5, "unit": "photographs/s", "origin": "measured"}
    assert kept["figures"]["ratio"]["goal"] == 2
    assert kept["seconds"] == {"ours": [0.5]}
    assert {"date", "cores", "cpu", "python", "tensorflow", "keras"} <= set(kept)
    assert str(tmp_path) not in json.dumps(kept)


def test_a_quick_run_keeps_nothing(bench, tmp_path, monkeypatch):
    import common

    monkeypatch.chdir(tmp_path)
    common.leave("trial", [], notes=[], seconds={}, quick=True)
    assert list(tmp_path.iterdir()) == []


def test_the_epoch_that_reaches_an_accuracy(bench):
    import cnn

    history = pd.DataFrame({"val_accuracy": [0.7, 0.91, 0.89, 0.95]})
    assert [cnn.epochs_to(history, target) for target in (0.9, 0.95, 0.96)] == [2, 4, None]


def test_multiply_adds_follow_from_the_shapes(bench):
    import features
    import keras
    from keras import layers

    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, strides=2, padding="same"),
            layers.SeparableConv2D(5, 3, padding="same"),
        ]
    )
    assert features.multiply_adds(model) == 16 * 27 * 4 + 16 * (9 * 4 + 4 * 5)
