"""The gates let a better model pass, and refuse the worse, the lucky, the slow, the large and the drawn."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catdog.base import params
from catdog.tracking import gates

LIMITS = params.Promote(
    min_accuracy=0.85,
    max_log_loss=0.40,
    max_calibration_error=0.10,
    min_robustness=0.70,
    margin=0.005,
    max_relative_time=40,
    max_megabytes=200,
    max_disagreement=None,
)
EVALUATE = params.Evaluate(
    threshold=0.5,
    confidence=0.95,
    bootstrap=500,
    corrupted=1,
    answer_accuracy=0.995,
    unfamiliar=0.01,
    cnn_mirrored=True,
    cnn_seed_deviation=None,
)
LABELS = np.arange(1000) % 2


def answers(wrong=(), sure: float = 0.9) -> np.ndarray:
    """Probabilities that are right with certainty `sure`, except on the photographs `wrong`."""
    probabilities = np.where(LABELS == 1, sure, 1 - sure)
    probabilities[list(wrong)] = 1 - probabilities[list(wrong)]
    return probabilities


def contender(
    name: str, probabilities: np.ndarray, *, digest: str = "one", labels=LABELS, **figures
) -> gates.Contender:
    known = {
        "accuracy": float(np.mean((probabilities >= 0.5) == labels)),
        "log_loss": 0.3,
        "calibration_error": 0.02,
        "robustness": 0.8,
        "relative_time": 5.0,
        "size": 5e6,
        "source_kind": "folder",
    }
    scored = gates.scored(
        digest, ids=[f"{i:04}" for i in range(len(labels))], labels=labels, probabilities=probabilities
    )
    return gates.Contender(name=name, scored=scored, **(known | figures))


def failed(candidate: gates.Contender, champion: gates.Contender | None) -> list[str]:
    judged = gates.judge(candidate, champion, limits=LIMITS, evaluate=EVALUATE, seed=7)
    return [gate.name for gate in judged if not gate.passed]


CHAMPION = contender("catdog/1", answers(wrong=range(60), sure=0.85))


def test_the_first_model_has_to_pass_the_absolute_gates_alone():
    assert failed(CHAMPION, None) == []


@pytest.mark.parametrize(
    ("figure", "gate"),
    [
        ({"accuracy": 0.8499}, "accuracy"),
        ({"log_loss": 0.4001}, "log loss"),
        ({"calibration_error": 0.11}, "calibration error"),
        ({"robustness": 0.6999}, "robustness"),
        ({"relative_time": 40.1}, "time"),
        ({"size": 201e6}, "size"),
    ],
)
def test_each_absolute_gate_refuses_by_itself(figure, gate):
    assert failed(contender("catdog-cnn/2", answers(), **figure), None) == [gate]


@pytest.mark.parametrize("figure", ["accuracy", "log_loss", "calibration_error", "relative_time", "size"])
def test_a_figure_that_is_missing_lets_nobody_pass(figure):
    judged = gates.judge(
        contender("x", answers(), **{figure: math.nan}), None, limits=LIMITS, evaluate=EVALUATE, seed=7
    )
    assert [gate.figure for gate in judged if not gate.passed] == ["unknown"]


def test_robustness_that_was_not_measured_fails_unless_none_is_asked_for():
    unmeasured = contender("x", answers(), robustness=math.nan)
    [gate] = [gate for gate in gates.absolute(unmeasured, limits=LIMITS) if gate.name == "robustness"]
    assert str(gate) == "failed: not measured (limit: at least 0.7)"
    off = LIMITS.model_copy(update={"min_robustness": 0.0})
    assert all(gate.passed for gate in gates.absolute(unmeasured, limits=off))
    assert failed(contender("x", answers(), robustness=0.7), None) == []


def test_a_champion_from_before_robustness_was_measured_can_be_replaced():
    champion = contender("catdog/1", answers(wrong=range(60), sure=0.85), robustness=math.nan)
    assert failed(contender("catdog-cnn/2", answers(wrong=range(20))), champion) == []


def test_a_champion_of_an_unknown_relative_time_can_be_replaced_by_a_better_model_and_by_no_cheaper_one():
    champion = contender("catdog/1", answers(wrong=range(60), sure=0.85), relative_time=math.nan)
    assert failed(contender("catdog-cnn/2", answers(wrong=range(20))), champion) == []
    same = champion.scored.frame["probability"].to_numpy()
    assert failed(contender("catdog-cnn/2", same, relative_time=0.1), champion) == ["better or cheaper"]


def test_the_gate_of_time_says_what_it_is_measured_in():
    [gate] = [gate for gate in gates.absolute(contender("x", answers()), limits=LIMITS) if gate.name == "time"]
    assert str(gate) == f"passed: 5.00{gates.TIMES} (limit: at most 40{gates.TIMES})"


def test_a_better_model_passes():
    assert failed(contender("catdog-cnn/2", answers(wrong=range(20))), CHAMPION) == []


def test_a_worse_model_is_refused():
    worse = contender("catdog-cnn/2", answers(wrong=range(100), sure=0.85))
    assert failed(worse, CHAMPION) == ["not worse", "better or cheaper"]


def test_a_worse_model_is_refused_however_cheap():
    worse = contender("catdog-cnn/2", answers(wrong=range(100), sure=0.85), relative_time=0.5)
    assert failed(worse, CHAMPION) == ["not worse"]


def test_a_lucky_model_better_by_one_photograph_is_refused():
    # Wrong on 59 other photographs: ahead by one of 1,000, while each errs where the other does not.
    lucky = contender("catdog-cnn/2", answers(wrong=range(500, 559), sure=0.85))
    assert lucky.accuracy == pytest.approx(CHAMPION.accuracy + 0.001)
    assert failed(lucky, CHAMPION) == ["not worse", "better or cheaper"]


def test_one_photograph_more_is_not_better_even_if_all_others_are_the_same():
    assert failed(contender("catdog-cnn/2", answers(wrong=range(59), sure=0.85)), CHAMPION) == ["better or cheaper"]


def test_the_same_answers_for_less_pass_and_for_about_the_same_do_not():
    same = CHAMPION.scored.frame["probability"].to_numpy()
    assert failed(contender("catdog-cnn/2", same, relative_time=4.4), CHAMPION) == []
    assert failed(contender("catdog-cnn/2", same, relative_time=4.8), CHAMPION) == ["better or cheaper"]


def test_the_same_verdicts_with_better_probabilities_pass():
    assert failed(contender("catdog-cnn/2", answers(wrong=range(60), sure=0.93)), CHAMPION) == []


@pytest.mark.parametrize(
    "other",
    [
        contender("catdog-cnn/2", answers(), digest="two"),
        contender("catdog-cnn/2", answers()[:500], labels=LABELS[:500]),
        contender("catdog-cnn/2", 1 - answers(), labels=1 - LABELS),
    ],
    ids=["another test set", "half of the photographs", "other labels"],
)
def test_a_model_scored_on_other_photographs_is_refused(other):
    assert failed(other, CHAMPION) == ["same photographs"]


def test_a_model_of_drawings_never_replaces_one_of_photographs():
    assert failed(contender("catdog-cnn/2", answers(), source_kind="drawn"), CHAMPION) == ["photographs"]


@pytest.mark.parametrize(("candidate", "champion"), [("folder", "drawn"), ("drawn", "drawn"), ("zip", "filtered")])
def test_other_pairs_of_sources_are_fine(candidate, champion):
    assert gates.no_drawings(candidate, champion).passed


@given(order=st.permutations(range(40)))
def test_the_order_of_photographs_does_not_matter(order):
    ids = [f"{i:02}" for i in range(40)]
    labels, probabilities = LABELS[:40], answers(wrong=[3, 4])[:40]

    def shuffled(indices) -> gates.Contender:
        chosen = list(indices)
        scored = gates.scored(
            "one", ids=[ids[i] for i in chosen], labels=labels[chosen], probabilities=probabilities[chosen]
        )
        return gates.Contender("x", 0.95, 0.3, 0.02, 0.8, 5.0, 5e6, "folder", scored)

    plain = gates.judge(shuffled(range(40)), CHAMPION_OF_40, limits=LIMITS, evaluate=EVALUATE, seed=7)
    assert gates.judge(shuffled(order), CHAMPION_OF_40, limits=LIMITS, evaluate=EVALUATE, seed=7) == plain


CHAMPION_OF_40 = gates.Contender(
    "catdog/1",
    0.9,
    0.3,
    0.02,
    0.8,
    6.0,
    5e6,
    "folder",
    gates.scored(
        "one", ids=[f"{i:02}" for i in range(40)], labels=LABELS[:40], probabilities=answers(wrong=range(4))[:40]
    ),
)


def test_the_verdict_says_figure_and_limit():
    gate = gates.absolute(contender("x", answers(), accuracy=0.8), limits=LIMITS)[0]
    assert str(gate) == "failed: 0.8000 (limit: at least 0.85)"
