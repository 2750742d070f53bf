"""ROC and precision-recall curves are scikit-learn's, and their bands hold them."""

import numpy as np
import pytest
from sklearn import metrics as sk
from test_scoring import predictions

from catdog.evaluation import scoring, tradeoffs


@pytest.mark.parametrize("count", [2, 50, 20_000])
def test_roc_table_is_the_curve(count):
    labels, probabilities = predictions(count=count, separation=0.7)
    table = tradeoffs.table("roc", labels, probabilities)
    assert list(table.columns) == ["false_positive_rate", "true_positive_rate", "threshold"]
    assert len(table) <= 500
    assert tuple(table.iloc[0, :2]) == (0, 0)
    assert tuple(table.iloc[-1, :2]) == (1, 1)
    assert np.isfinite(table.to_numpy()).all()
    false_positive, true_positive, _ = sk.roc_curve(labels, probabilities)
    steps = table[["false_positive_rate", "true_positive_rate"]].diff().abs().sum(axis=1)
    assert count < 500 or steps.max() < 0.006, "no part of the curve is left out"
    area = np.trapezoid(table["true_positive_rate"], table["false_positive_rate"])
    assert area == pytest.approx(sk.auc(false_positive, true_positive), abs=0.002)
    row = table.iloc[len(table) // 2]
    reached = probabilities >= row["threshold"]
    assert row["true_positive_rate"] == pytest.approx(sk.recall_score(labels, reached))


@pytest.mark.parametrize("count", [2, 50, 20_000])
def test_pr_table_is_the_curve(count):
    labels, probabilities = predictions(count=count, separation=0.7)
    table = tradeoffs.table("precision_recall", labels, probabilities)
    assert len(table) <= 500
    assert tuple(table.iloc[0, :2]) == (0, 1)
    assert table["recall"].iloc[-1] == 1
    precision, recall, thresholds = sk.precision_recall_curve(labels, probabilities)
    known = {(round(r, 9), round(p, 9), t) for p, r, t in zip(precision, recall, thresholds, strict=False)}
    assert {(round(r, 9), round(p, 9), t) for r, p, t in table.iloc[1:].itertuples(index=False)} <= known
    area = np.trapezoid(table["precision"], table["recall"])
    assert area == pytest.approx(sk.auc(recall, precision), abs=0.005)


@pytest.mark.parametrize("curve", tradeoffs.CURVES)
@pytest.mark.parametrize("separation", [0.3, 1.5, 4])
def test_a_band_holds_its_curve_steep_starts_included(curve, separation):
    labels, probabilities = predictions(count=800, separation=separation)
    band = tradeoffs.band(curve, labels, probabilities, confidence=0.95, resamples=500, seed=1)
    _, value = tradeoffs.CURVES[curve]
    assert len(band) == len(tradeoffs.GRID)
    assert (band["low"] <= band[value]).all()
    assert (band[value] <= band["high"]).all()
    assert band[["low", "high"]].stack().between(0, 1).all()


def test_a_band_is_that_of_scikit_learn_on_the_same_resamples():
    labels, probabilities = predictions(count=200, separation=0.7)
    band = tradeoffs.band("roc", labels, probabilities, confidence=0.8, resamples=60, seed=3)
    at, rates = [10, 50, 250], []
    for chunk in scoring.resampled(200, resamples=60, seed=3):
        for counts in chunk:
            false_positive, true_positive, _ = sk.roc_curve(labels, probabilities, sample_weight=counts)
            rates.append([true_positive[false_positive <= tradeoffs.GRID[i] + 1e-12].max() for i in at])
    expected = np.quantile(rates, [0.1, 0.9], axis=0)
    assert pytest.approx(expected) == band.loc[at, ["low", "high"]].to_numpy().T


def test_where_no_resample_has_both_classes_the_band_is_the_curve():
    labels, probabilities = np.repeat([0, 1], [1, 300]), np.linspace(0, 1, 301)
    seed = next(s for s in range(100) if not next(iter(scoring.resampled(301, resamples=1, seed=s)))[0, 0])
    band = tradeoffs.band("precision_recall", labels, probabilities, confidence=0.9, resamples=1, seed=seed)
    assert band["low"].equals(band["precision"].rename("low"))
    assert band["high"].equals(band["precision"].rename("high"))


def test_precision_at_a_recall_is_that_of_the_first_threshold_with_it():
    labels, probabilities = np.array([1, 0, 1, 0]), np.array([0.9, 0.8, 0.7, 0.1])
    band = tradeoffs.band("precision_recall", labels, probabilities, confidence=0.9, resamples=10, seed=0)
    precision = band.set_index("recall")["precision"]
    assert precision[0.5] == 1
    assert precision[1.0] == pytest.approx(2 / 3)
