"""The benchmarks start, and what they share counts, times and keeps as it says."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
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


@pytest.fixture
def faults(bench) -> SimpleNamespace:
    # Not imported: the tests have a module of this name.
    return SimpleNamespace(**runpy.run_path(str(BENCH / "faults.py")))


def test_kills_fall_into_all_that_remains_and_often_into_its_ends(faults):
    rng = np.random.default_rng(0)
    moments = np.array([faults.moment(60.0, rng, left=1) for _ in range(1000)])
    assert ((moments >= 0) & (moments <= 60)).all()
    assert np.histogram(moments, bins=20)[0].min() > 20
    for edge in (moments < 3, moments > 57):
        assert 0.1 < edge.mean() < 0.2
    assert 0 <= faults.moment(1.0, rng, left=1) <= 1  # less than an end is long


def test_the_first_of_several_kills_leaves_time_for_the_others(faults):
    rng = np.random.default_rng(0)
    mean = [np.mean([faults.moment(60.0, rng, left=left) for _ in range(2000)]) for left in (1, 2, 5)]
    assert mean == pytest.approx([30, 22, 14], abs=2)  # of the even ones 30, 20, 10; of the ends 1.5 and 58.5


@pytest.mark.parametrize(("ends", "fell"), [(9, ["train_cnn"] * 4), (2, ["train_cnn"] * 2), (0, [])])
def test_a_project_is_killed_so_often_and_then_comes_to_its_end(faults, ends, fell):
    whole = faults.Ended(killed=False, seconds=100.0, begun={"prepare": 1.0, "train_cnn": 40.0})
    moments: list[float | None] = []

    def repro(*, kill_after: float | None = None):
        moments.append(kill_after)
        killed = kill_after is not None and len(moments) <= ends
        return faults.Ended(killed, seconds=1.0, begun=whole.begun)

    project = SimpleNamespace(repro=repro)
    found: list[str] = []
    faults.survive(project, whole, found, kills=4, rng=np.random.default_rng(0))
    assert found == fell
    assert all(moment <= 60 for moment in moments[1:4] if moment is not None)  # what came before is done
    assert len(moments) == len(fell) + 1


def test_what_comes_of_a_damaged_file_is_called_by_its_name(bench):
    import damaged

    from catdog.base.errors import UserError

    def fails(error: Exception):
        raise error

    def says(text: str, result: str) -> str:
        print(text, file=sys.stderr)
        return result

    ended = {
        "told": [lambda: fails(UserError("data/x is damaged: delete it")), lambda: says("data/x is damaged", "right")],
        "harmless": [lambda: "right", lambda: says("epoch 1", "right")],
        "unclear": [lambda: fails(UserError("something is damaged")), lambda: fails(KeyError("data/x"))],
        "silent": [lambda: "wrong", lambda: says("data/x is damaged", "wrong")],
    }
    for outcome, reads in ended.items():
        for read in reads:
            assert damaged._outcome(read, "right", name="data/x")[0] == outcome


@pytest.mark.slow
def test_faults_cost_nothing(tmp_path):
    command = [sys.executable, str(BENCH / "faults.py"), "--count", "2", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    kills, damage = (json.loads((tmp_path / f"faults_{what}.json").read_text()) for what in ("kills", "damage"))
    assert (kills["kills"], sum(kills["by_stage"].values()), kills["differed"]) == (2, 2, [])
    assert damage["told"] + damage["harmless"] == damage["trials"] == 2
