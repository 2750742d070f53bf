"""When a model does not answer: the level against its closed form, labels by hand, and the curve of risk."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from served_fixtures import brightness

from catdog.answers.classifier import decide
from catdog.evaluation import doubt, scoring

SHARED = len(doubt._STARTS)  # the searches that share the rate of error


def level(sure, right, *, accuracy=0.97, confidence=0.95):
    return doubt.level(np.asarray(sure), np.asarray(right), accuracy=accuracy, confidence=confidence)


# ---- the level of sureness ------------------------------------------------------------------------------------------


def made_up(seed: int, *, count: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Photographs of which a model is sure by any amount, and wrong the less the surer: at s it errs on 4(1 - s)^3.

    Its sureness is uniform on 0.5 to 1, so from a level on its answers are right on 1 - (1 - level)^3.
    """
    random = np.random.default_rng(seed)
    sure = random.uniform(0.5, 1, count)
    return sure, random.random(count) >= 4 * (1 - sure) ** 3


def true_accuracy(level: float) -> float:
    return 1 - (1 - level) ** 3


def test_the_made_up_model_is_as_right_as_its_closed_form_says():
    sure, right = made_up(0, count=400_000)
    for from_ in (0.5, 0.7, 0.9):
        assert right[sure >= from_].mean() == pytest.approx(true_accuracy(from_), abs=0.002)


@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_the_answers_of_the_level_are_as_right_as_asked_for_with_the_confidence_that_was_asked_for(confidence):
    sets = [made_up(seed) for seed in range(300)]
    found = [level(*photographs, confidence=confidence) for photographs in sets]
    broken = [each for each in found if each is not None and true_accuracy(each) < 0.97]
    assert len(broken) / len(sets) <= 1 - confidence
    # It is no promise of little: a level is found, and not far above the least that would do, 0.69.
    assert None not in found
    assert np.median(found) < 0.75
    # What the photographs themselves show breaks the promise on one set in four.
    shown = [next(each for each in doubt.LEVELS if right[sure >= each].mean() >= 0.97) for sure, right in sets]
    assert np.mean([true_accuracy(each) < 0.97 for each in shown]) > 0.2


@pytest.mark.parametrize(("accuracy", "confidence"), [(0.995, 0.95), (0.9, 0.95), (0.99, 0.8)])
def test_without_a_mistake_it_takes_as_many_photographs_as_chance_could_get_right(accuracy, confidence):
    least = math.ceil(math.log((1 - confidence) / SHARED) / math.log(accuracy))
    for count, expected in ((least, 0.5), (least - 1, None)):
        sure, right = np.full(count, 0.99), np.ones(count, bool)
        assert level(sure, right, accuracy=accuracy, confidence=confidence) == expected


@pytest.mark.parametrize("mistakes", [1, 5, 30])
def test_with_mistakes_it_takes_as_many_as_the_binomial_says(mistakes):
    def chance(count: int) -> float:
        """That a model which errs on 3 % makes no more mistakes than these."""
        return sum(math.comb(count, k) * 0.03**k * 0.97 ** (count - k) for k in range(mistakes + 1))

    least = next(count for count in range(mistakes, 10_000) if chance(count) <= 0.05 / SHARED)
    for count, expected in ((least, 0.5), (least - 1, None)):
        right = np.arange(count) >= mistakes
        assert level(np.full(count, 0.8), right) == expected


def test_the_level_is_the_lowest_that_leaves_out_what_is_often_wrong():
    sure = np.repeat([0.6, 0.9], [300, 1000])
    right = np.concatenate([np.arange(300) % 2 == 0, np.ones(1000, bool)])
    found = level(sure, right)
    assert found == doubt.LEVELS[doubt.LEVELS > 0.6].min()
    # Where the surest are the wrong ones, no level leaves them out.
    assert level(1.5 - sure, right) is None


@pytest.mark.parametrize("count", [0, 1, 20])
def test_few_photographs_show_no_level(count):
    assert level(np.full(count, 1.0), np.ones(count, bool)) is None


def test_a_model_of_one_sureness_that_errs_too_often_has_no_level():
    assert level(np.full(5000, 0.7), np.arange(5000) % 10 > 0) is None


def test_the_order_of_photographs_does_not_matter():
    sure, right = made_up(1)
    order = np.random.default_rng(2).permutation(len(sure))
    assert level(sure, right) == level(sure[order], right[order]) is not None


# ---- labels ---------------------------------------------------------------------------------------------------------


def labels(probabilities, familiarity=None, *, threshold=0.5, sureness=None, unfamiliar=None) -> list[int]:
    familiarity = None if familiarity is None else np.asarray(familiarity)
    knobs = {"threshold": threshold, "sureness": sureness, "unfamiliar": unfamiliar}
    return decide(np.asarray(probabilities), familiarity, **knobs).tolist()


def test_without_doubt_every_photograph_has_a_class():
    assert labels([0, 0.49, 0.5, 1], [0, 0, 1, 1]) == [0, 0, 1, 1]
    assert labels([0.2, 0.69, 0.7], threshold=0.7) == [0, 0, 1]


def test_a_class_needs_the_sureness_beside_the_threshold():
    # 0.65 and 0.75 are on either side of the threshold, and surely neither.
    assert labels([0.1, 0.2, 0.25, 0.65, 0.75, 0.8, 0.9], threshold=0.7, sureness=0.8) == [0, 0, 2, 2, 2, 1, 1]
    # A threshold above the sureness: what is likely the second class and is not called so has no answer.
    assert labels([0.05, 0.5, 0.85, 0.9, 0.95], threshold=0.9, sureness=0.8) == [0, 2, 2, 1, 1]
    # And below it: the first class has to be as sure as the second.
    assert labels([0.05, 0.15, 0.25, 0.79, 0.8], threshold=0.1, sureness=0.8) == [0, 2, 2, 2, 1]


def test_what_is_strange_is_neither_however_sure():
    strange = {"sureness": 0.8, "unfamiliar": 0.01}
    assert labels([0.99, 0.99, 0.6, 0.6], [0.0099, 0.01, 0.0, 1.0], **strange) == [3, 1, 3, 2]
    assert labels([0.99, 0.1], None, **strange) == [1, 0], "a model without a profile can't tell"


@settings(deadline=None)
@given(
    probabilities=st.lists(st.floats(0, 1), min_size=1, max_size=20),
    threshold=st.floats(0.01, 0.99),
    sureness=st.floats(0.5, 1),
    unfamiliar=st.floats(0.001, 0.5),
    seed=st.integers(0, 99),
)
def test_doubt_takes_answers_away_and_changes_none(probabilities, threshold, sureness, unfamiliar, seed):
    familiarity = np.random.default_rng(seed).random(len(probabilities))
    plain = labels(probabilities, familiarity, threshold=threshold)
    doubted = labels(probabilities, familiarity, threshold=threshold, sureness=sureness, unfamiliar=unfamiliar)
    sure = doubt.sureness(np.array(probabilities), threshold=threshold)
    for before, after, how_sure, how_familiar in zip(plain, doubted, sure, familiarity, strict=True):
        assert after in (before, 2, 3)
        assert (after == 3) == (how_familiar < unfamiliar)
        assert after == 3 or (after == 2) == (how_sure < sureness)


def test_a_classifier_names_its_doubt():
    names = {"sureness": 0.8, "threshold": 0.5}
    asked = brightness().ask(np.stack([np.full((32, 32, 3), shade, np.uint8) for shade in (20, 120, 230)]))
    assert [answer.label for answer in brightness(**names).answers(asked)] == ["cat", "unsure", "dog"]
    # The threshold of one question replaces the model's own, and not its sureness.
    assert [answer.label for answer in brightness(**names).answers(asked, 0.95)] == ["cat", "unsure", "unsure"]
    assert [answer.label for answer in brightness().answers(asked, 0.95)] == ["cat", "cat", "cat"]


# ---- what it leaves -------------------------------------------------------------------------------------------------


def test_what_doubt_leaves_is_counted():
    actual = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    given = np.array([0, 0, 0, 1, 2, 1, 1, 2, 3, 3])
    measured = doubt.measure(actual, given, confidence=0.9)
    intervals = measured.pop("intervals")
    assert measured == {"answered": 0.6, "answered_accuracy": pytest.approx(5 / 6), "unsure": 0.2, "neither": 0.2}
    counts = {"answered": (6, 10), "answered_accuracy": (5, 6), "unsure": (2, 10), "neither": (2, 10)}
    assert intervals == {name: scoring.wilson(*count, 0.9) for name, count in counts.items()}


def test_a_model_that_never_answers_is_never_right_and_nothing_is_known_of_its_answers():
    measured = doubt.measure(np.array([0, 1]), np.array([2, 3]), confidence=0.95)
    assert (measured["answered"], measured["answered_accuracy"]) == (0, 0)
    assert measured["intervals"]["answered_accuracy"] == [0, 1]


def test_the_curve_of_risk_by_hand():
    sure, right = np.array([0.6, 0.9, 0.7, 0.8]), np.array([True, True, False, True])
    curve = doubt.risk_coverage(sure, right, confidence=0.95)
    assert curve["coverage"].tolist() == [0.25, 0.5, 0.75, 1]
    assert curve["accuracy"].tolist() == [1, 1, pytest.approx(2 / 3), 0.75]
    assert curve["sureness"].tolist() == [0.9, 0.8, 0.7, 0.6]
    ends = [scoring.wilson(hits, count, 0.95) for hits, count in ((1, 1), (2, 2), (2, 3), (3, 4))]
    assert curve[["low", "high"]].to_numpy().tolist() == ends


def test_the_curve_of_many_photographs_is_short_and_whole():
    random = np.random.default_rng(0)
    sure, right = random.uniform(0.5, 1, 5000), random.random(5000) < 0.9
    curve = doubt.risk_coverage(sure, right, confidence=0.95)
    assert len(curve) <= 500
    assert curve["coverage"].iloc[[0, -1]].tolist() == [1 / 5000, 1]
    assert curve["coverage"].is_monotonic_increasing
    assert curve["accuracy"].iloc[-1] == right.mean()
    for row in curve.iloc[::50].itertuples():
        assert row.accuracy == pytest.approx(right[sure >= row.sureness].mean())


def test_what_is_served_lies_on_the_curve():
    random = np.random.default_rng(1)
    actual = random.integers(0, 2, 300)
    probabilities = np.clip(random.normal(0.2 + 0.6 * actual, 0.25), 0, 1).round(3)
    sure, right = doubt.sureness(probabilities, threshold=0.5), (probabilities >= 0.5) == actual
    curve = doubt.risk_coverage(sure, right, confidence=0.95)
    for sureness in (0.55, 0.7, 0.9):
        given = decide(probabilities, None, threshold=0.5, sureness=sureness, unfamiliar=None)
        measured = doubt.measure(actual, given, confidence=0.95)
        row = curve[curve["coverage"] == measured["answered"]].iloc[0]
        assert row["accuracy"] == pytest.approx(measured["answered_accuracy"])
        assert [row["low"], row["high"]] == measured["intervals"]["answered_accuracy"]
