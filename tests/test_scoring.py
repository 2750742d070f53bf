import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from catdog.answers.classifier import probability
from catdog.base.errors import UserError
from catdog.evaluation import calibration, difference, scoring
from catdog.training.loop import convergence

METRICS = ("accuracy", "precision", "recall", "f1", "roc_auc", "log_loss", "brier", "calibration_error")


def predictions(*, count=400, separation=1.5, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, count)
    labels[:2] = 0, 1
    logits = random.normal(size=count) + separation * (2 * labels - 1)
    return labels, 1 / (1 + np.exp(-logits))


def intervals(labels, probabilities, **changed):
    options = {"threshold": 0.5, "confidence": 0.95, "resamples": 500, "seed": 1} | changed
    return scoring.intervals(labels, probabilities, **options)


def compared(labels, first, second, **changed):
    options = {"threshold": 0.5, "confidence": 0.95, "resamples": 1000, "seed": 1} | changed
    return difference.compare(labels, first, second, **options)


@settings(deadline=None)
@given(
    labels=st.lists(st.integers(0, 1), min_size=2, max_size=60).filter(lambda labels: len(set(labels)) == 2),
    levels=st.integers(2, 50),
    threshold=st.sampled_from([0.2, 0.5, 0.7]),
    seed=st.integers(0, 2**16),
)
def test_metrics_are_those_of_scikit_learn_ties_included(labels, levels, threshold, seed):
    labels = np.array(labels, np.int8)
    probabilities = np.random.default_rng(seed).integers(1, levels + 1, len(labels)) / (levels + 2)
    metrics = scoring.score(labels, probabilities, threshold=threshold)
    verdict = probabilities >= threshold
    assert metrics["accuracy"] == pytest.approx(sk.accuracy_score(labels, verdict))
    assert metrics["precision"] == pytest.approx(sk.precision_score(labels, verdict, zero_division=0))
    assert metrics["recall"] == pytest.approx(sk.recall_score(labels, verdict, zero_division=0))
    assert metrics["f1"] == pytest.approx(sk.f1_score(labels, verdict, zero_division=0))
    assert metrics["roc_auc"] == pytest.approx(sk.roc_auc_score(labels, probabilities))
    assert metrics["log_loss"] == pytest.approx(sk.log_loss(labels, probabilities))
    assert metrics["brier"] == pytest.approx(sk.brier_score_loss(labels, probabilities))
    assert all(type(metrics[name]) is float for name in METRICS)
    assert metrics["test_photographs"] == len(labels)


def test_float32_probabilities_of_exactly_0_and_1_have_a_finite_loss():
    metrics = scoring.score(np.array([0, 1]), np.array([1.0, 0.0], np.float32), threshold=0.5)
    assert metrics["log_loss"] == pytest.approx(-np.log(1e-7))


def test_a_model_that_is_always_wrong():
    labels = np.tile([0, 1], 50)
    metrics = scoring.score(labels, 1 - labels * 1.0, threshold=0.5)
    zero = {name: metrics[name] for name in ("accuracy", "precision", "recall", "f1", "roc_auc")}
    assert set(zero.values()) == {0.0}
    assert metrics["brier"] == metrics["calibration_error"] == 1.0


def test_a_constant_model():
    labels = np.repeat([0, 1], [30, 70])
    metrics = scoring.score(labels, np.full(100, 0.7), threshold=0.5)
    assert metrics["accuracy"] == metrics["precision"] == pytest.approx(0.7)
    assert metrics["recall"] == 1
    assert metrics["roc_auc"] == 0.5
    assert metrics["calibration_error"] == pytest.approx(0)
    assert metrics["log_loss"] == pytest.approx(-0.7 * np.log(0.7) - 0.3 * np.log(0.3))
    never = scoring.score(labels, np.full(100, 0.1), threshold=0.5)
    assert (never["precision"], never["recall"], never["f1"]) == (0, 0, 0)


def test_calibration_error_by_hand():
    # Two bins: 0.05 with 1 of 4 positive (off by 0.2), 0.95 with 3 of 4 positive (off by 0.2).
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 0])
    probabilities = np.repeat([0.05, 0.95], 4)
    assert scoring.score(labels, probabilities, threshold=0.5)["calibration_error"] == pytest.approx(0.2)


def test_what_a_person_can_cause_is_said():
    with pytest.raises(UserError, match="not of both classes"):
        scoring.score(np.ones(3), np.full(3, 0.5), threshold=0.5)
    with pytest.raises(UserError, match=r"1 of 2 probabilities.*learning_rate"):
        scoring.score(np.array([0, 1]), np.array([0.5, np.nan]), threshold=0.5)


def test_intervals_of_proportions_are_wilsons():
    labels, probabilities = predictions()
    ranges = intervals(labels, probabilities)
    right = int(np.sum((probabilities >= 0.5) == labels))
    wilson = stats.binomtest(right, len(labels)).proportion_ci(0.95, method="wilson")
    assert ranges["accuracy"] == pytest.approx([wilson.low, wilson.high])
    assert intervals(labels, labels * 0.9 + 0.05)["accuracy"][0] < 1, "no mistake on 400 is not certainty"


def test_intervals_of_means_agree_with_the_normal_and_with_scipys_bootstrap():
    labels, probabilities = predictions()
    ranges = intervals(labels, probabilities, resamples=4000)
    errors = (probabilities - labels) ** 2
    half = 1.96 * errors.std() / np.sqrt(len(errors))
    assert ranges["brier"] == pytest.approx([errors.mean() - half, errors.mean() + half], rel=0.03)
    scipys = stats.bootstrap(
        (labels, probabilities),
        sk.roc_auc_score,
        paired=True,
        vectorized=False,
        n_resamples=400,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert ranges["roc_auc"] == pytest.approx([scipys.low, scipys.high], abs=0.006)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), separation=st.floats(0, 4), count=st.integers(20, 300))
def test_every_metric_lies_inside_its_interval(seed, separation, count):
    labels, probabilities = predictions(count=count, separation=separation, seed=seed)
    metrics, ranges = scoring.score(labels, probabilities, threshold=0.5), intervals(labels, probabilities)
    assert set(ranges) == set(METRICS)
    for name, (low, high) in ranges.items():
        assert low - 1e-9 <= metrics[name] <= high + 1e-9, name


def test_a_calibrated_model_has_its_calibration_error_inside_the_interval():
    random = np.random.default_rng(1)
    probabilities = random.random(300)
    labels = (random.random(300) < probabilities).astype(int)
    low, high = intervals(labels, probabilities)["calibration_error"]
    # A plain percentile interval would be 0.055 to 0.114 here, beside the 0.048 that it is about.
    assert low < scoring.score(labels, probabilities, threshold=0.5)["calibration_error"] < high


def test_intervals_follow_the_seed_and_the_confidence():
    labels, probabilities = predictions()
    assert intervals(labels, probabilities) == intervals(labels, probabilities)
    assert intervals(labels, probabilities) != intervals(labels, probabilities, seed=2)
    wide, narrow = (intervals(labels, probabilities, confidence=c) for c in (0.99, 0.8))
    assert all(wide[name][0] < narrow[name][0] and narrow[name][1] < wide[name][1] for name in METRICS)


def test_intervals_cover_as_often_as_they_say():
    truth = stats.norm.cdf(np.sqrt(2))  # the AUC of two unit normals two apart
    hits = 0
    for seed in range(200):
        labels, probabilities = predictions(count=200, separation=1.0, seed=seed)
        low, high = intervals(labels, probabilities, resamples=200, confidence=0.9)["roc_auc"]
        hits += low <= truth <= high
    assert 0.83 <= hits / 200 <= 0.96


def test_compare_counts_who_is_right_alone_and_tests_it_exactly():
    labels = np.tile([0, 1], 50)
    first, second = labels * 0.8 + 0.1, labels * 0.8 + 0.1
    first[:9] = 1 - first[:9]  # wrong on 9, the second on another 1
    second[20] = 1 - second[20]
    result = compared(labels, first, second, names=("A", "B"))
    assert (result["only_first_right"], result["only_second_right"]) == (1, 9)
    assert (result["both_right"], result["both_wrong"]) == (90, 0)
    assert result["p_value"] == pytest.approx(22 / 1024)
    assert result["accuracy"]["difference"] == pytest.approx(0.08)
    # The difference's standard error in closed form: b + c discordant pairs of n.
    half = 1.96 * np.sqrt(0.10 - 0.08**2) / np.sqrt(100)
    assert result["accuracy"]["interval"] == pytest.approx([0.08 - half, 0.08 + half], abs=0.012)
    assert result["better"] == "second"
    assert result["headline"] == "B is better by 8.0 points of accuracy"
    assert "A alone is right on 1 and B alone on 9" in result["words"]


def lead_of_8_points(**changed):
    """A is wrong on 9 of 100 photographs, B on another 1: p = 0.021."""
    labels = np.tile([0, 1], 50)
    first, second = labels * 0.8 + 0.1, labels * 0.8 + 0.1
    first[:9] = 1 - first[:9]
    second[20] = 1 - second[20]
    return compared(labels, first, second, names=("A", "B"), **changed)


def test_a_lead_stands_beyond_chance_of_photographs_and_of_training():
    result = lead_of_8_points(spread=(0.02, 0.0))
    # b + c discordant pairs of n, in closed form.
    of_photographs = np.sqrt(0.10 - 0.08**2) / np.sqrt(100)
    assert result["deviation_photographs"] == pytest.approx(of_photographs)
    assert result["deviation_training"] == 0.02
    assert 1.96 * np.hypot(of_photographs, 0.02) < 0.08
    assert result["beyond"] == {"photographs": True, "training": True}
    assert result["better"] == "second"
    assert result["headline"] == "B is better by 8.0 points of accuracy"
    assert result["certainty"] == "that is beyond chance, both of photographs and of training"
    moved = "their difference would move by about 3.7 points (standard deviation): a lead of 8.0 points stands."
    assert moved in result["words"]
    assert "Other photographs of this kind would give a lead of" in result["words"]


def test_a_lead_within_the_spread_of_both_trainings_makes_no_winner():
    result = lead_of_8_points(spread=(0.02, 0.03))
    assert result["deviation_training"] == pytest.approx(np.sqrt(0.0013))
    assert result["beyond"] == {"photographs": True, "training": False}
    assert result["better"] == "not distinguishable"
    assert result["headline"] == "B is ahead by 8.0 points of accuracy, which another training could undo"
    assert result["certainty"] == "that is beyond the chance of photographs, but not beyond that of training"
    assert "a lead of 8.0 points could be undone by that" in result["words"]
    # At less confidence it is one.
    assert lead_of_8_points(spread=(0.02, 0.03), confidence=0.9)["better"] == "second"


@pytest.mark.parametrize(
    ("spread", "unknown"), [((None, None), "A and B"), ((0.0, None), "B"), ((None, 0.5), "A")], ids=str
)
def test_a_spread_that_was_not_measured_is_told_and_decides_nothing(spread, unknown):
    result = lead_of_8_points(spread=spread)
    assert result["deviation_training"] is None
    assert result["beyond"] == {"photographs": True, "training": None}
    assert result["better"] == "second"
    assert result["certainty"] == "that is beyond the chance of photographs; of training: not measured"
    assert f"The chance of training: not measured for {unknown}." in result["words"]


def test_what_photographs_can_do_by_chance_no_spread_makes_certain():
    labels = np.tile([0, 1], 100)
    first, second = labels * 0.8 + 0.1, labels * 0.8 + 0.1
    first[:5] = 1 - first[:5]
    result = compared(labels, first, second, spread=(0.0, 0.0))
    assert 1.96 * result["deviation_photographs"] < result["accuracy"]["difference"]
    assert result["beyond"] == {"photographs": False, "training": False}
    assert result["better"] == "not distinguishable"
    assert result["certainty"] == "a difference that chance alone can make"


def test_a_verdict_stands_as_rarely_as_it_should_where_two_recipes_are_alike():
    # Each training of a recipe is right on each photograph with a probability that itself moves from seed to seed.
    random = np.random.default_rng(0)
    labels, moved, stood, would_have = np.tile([0, 1], 500), 0.01, 0, 0
    for _ in range(500):
        models = [
            np.where(random.random(1000) < 0.95 + moved * random.normal(), labels, 1 - labels) * 0.8 + 0.1
            for _ in range(2)
        ]
        result = compared(labels, *models, resamples=100, spread=(moved, moved))
        stood += result["better"] != "not distinguishable"
        would_have += result["beyond"]["photographs"]
    assert stood / 500 < 0.08
    assert would_have / 500 > 0.2, "photographs alone would have made a winner of many"


def test_compare_is_antisymmetric():
    labels, first = predictions(seed=1)
    second = np.where(labels == 1, first**0.2, 1 - (1 - first) ** 0.2)
    one, other = compared(labels, first, second), compared(labels, second, first)
    assert one["better"] == "second"
    assert other["better"] == "first"
    assert one["accuracy"]["interval"] == pytest.approx([-end for end in other["accuracy"]["interval"][::-1]])
    assert one["log_loss"]["difference"] == pytest.approx(-other["log_loss"]["difference"])
    assert one["p_value"] == other["p_value"]


def test_one_photograph_makes_no_winner():
    labels = np.tile([0, 1], 100)
    first, second = labels * 0.8 + 0.1, labels * 0.8 + 0.1
    first[0] = 0.9
    result = compared(labels, first, second, names=("CNN", "Xception"), things="drawings")
    assert result["better"] == "not distinguishable"
    assert result["headline"] == "CNN and Xception cannot be told apart by their accuracy"
    assert "can be chance" in result["words"]
    assert "photographs" not in result["words"]


def test_the_exact_test_decides():
    labels = np.tile([0, 1], 100)
    first, second = labels * 0.8 + 0.1, labels * 0.8 + 0.1
    first[:5] = 1 - first[:5]
    result = compared(labels, first, second)
    assert result["accuracy"]["interval"][0] > 0, "the bootstrap alone would make a winner of five photographs"
    assert result["p_value"] == pytest.approx(2 / 2**5)
    assert result["better"] == "not distinguishable"
    assert compared(labels, first, second, confidence=0.9)["better"] == "second"


def test_a_model_compared_with_itself():
    labels, probabilities = predictions()
    result = compared(labels, probabilities, probabilities)
    assert result["p_value"] == 1.0
    assert result["accuracy"] == {"difference": 0.0, "interval": [0.0, 0.0]}
    assert result["better"] == "not distinguishable"


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_temperature_finds_the_one_that_was_applied(true):
    random = np.random.default_rng(0)
    logits = random.normal(size=20_000) * 2
    labels = (random.random(20_000) < 1 / (1 + np.exp(-logits))).astype(int)
    temperature = calibration.temperature(labels, true * logits)
    assert temperature == pytest.approx(true, rel=0.05)
    both = (probability(true * logits, divisor) for divisor in (1, temperature))
    before, after = (scoring.score(labels, probabilities, threshold=0.5) for probabilities in both)
    assert after["log_loss"] <= before["log_loss"] + 1e-4
    assert after["accuracy"] == before["accuracy"]
    assert after["roc_auc"] == pytest.approx(before["roc_auc"])
    assert after["calibration_error"] < 0.02


def test_temperature_of_a_model_without_mistakes_leaves_room_for_one():
    labels = np.tile([0, 1], 100)
    logits = np.log(9.0) * (2 * labels - 1)  # 0.9 for each class
    temperature = calibration.temperature(labels, logits)
    assert 0.9 < probability(logits, temperature).max() < 0.995
    assert calibration.temperature(labels, np.zeros(200)) == 1.0


def test_a_temperature_has_bounds():
    labels = np.tile([0, 1], 100)
    right = 1000.0 * (2 * labels - 1)
    assert calibration.temperature(labels, right / 1e6) == pytest.approx(0.05, rel=0.01)
    assert calibration.temperature(labels, -right) == pytest.approx(20, rel=0.01)


def test_a_logit_of_any_size_has_a_probability():
    logits = np.array([-1e9, -800, -2, -0.0, 0, 2, 800, 1e9])
    with np.errstate(all="raise", under="ignore"):
        found = probability(logits, 2.0)
    assert found.tolist() == sorted(found)
    assert found[[0, 3, 4, 7]].tolist() == [0, 0.5, 0.5, 1]
    assert found + probability(-logits, 2.0) == pytest.approx(np.ones(8))
    assert found[5] == pytest.approx(1 / (1 + np.exp(-1)))


def test_confusion_table_has_a_row_for_each_photograph():
    labels, probabilities = predictions()
    table = scoring.confusion_table(labels, probabilities, threshold=0.5, classes=["cat", "dog"])
    counts = pd.crosstab(table["actual"], table["predicted"]).to_numpy()
    assert counts.tolist() == sk.confusion_matrix(labels, probabilities >= 0.5).tolist()


def test_reliability_table_adds_up_to_the_calibration_error():
    labels, probabilities = predictions()
    table = calibration.reliability_table(labels, probabilities, confidence=0.95)
    gaps = (table["probability"] - table["observed"]).abs() * table["photographs"]
    expected = scoring.score(labels, probabilities, threshold=0.5)["calibration_error"]
    assert gaps.sum() / table["photographs"].sum() == pytest.approx(expected)
    assert (table["low"] <= table["observed"]).all()
    assert (table["observed"] <= table["high"]).all()
    assert ((table["probability"] - table["middle"]).abs() <= table["width"] / 2).all()


def test_convergence():
    history = pd.DataFrame(
        {
            "epoch": [1, 2, 3, 4, 5],
            "image_size": [64, 64, 96, 96, 96],
            "val_loss": [0.7, 0.1, 0.5, 0.3, 0.4],  # the least is of a smaller size, which is not what is saved
            "val_accuracy": [0.5, 0.94, 0.96, 1.0, 0.99],
            "seconds": [1.0, 2.0, 4.0, 8.0, 16.0],
        }
    )
    expected = {"epochs": 5, "best_epoch": 4, "epochs_to_95": 3, "seconds_to_95": 7.0}
    assert convergence.of(history) == expected
    assert convergence.of(history, seconds_before=100)["seconds_to_95"] == 107
