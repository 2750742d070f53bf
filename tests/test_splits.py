"""Splits follow from group and seed alone, and have the shares asked for."""

from collections import Counter
from math import sqrt

from hypothesis import given, settings
from hypothesis import strategies as st

from catdog.preparation import splits
from catdog.preparation.inspection import Finding

seeds = st.integers(0, 2**31 - 1)
shares = st.floats(0.02, 0.49)
groups = st.sets(st.text("0123456789abcdef", min_size=8, max_size=8), max_size=60)


def assigned(groups, *, seed=7, val_fraction=0.1, test_fraction=0.1) -> dict[str, str]:
    """The split of each photograph, by name; a group is a photograph or several."""
    findings = [Finding(f"{group}/{n}.jpg", 0, group=group) for group in groups for n in range(1 + len(group) % 3)]
    splits.assign(findings, seed=seed, val_fraction=val_fraction, test_fraction=test_fraction)
    return {finding.source: finding.split for finding in findings}


@given(before=groups, after=groups, seed=seeds, val_fraction=shares, test_fraction=shares)
def test_photographs_that_come_or_go_move_no_others(before, after, **knobs):
    first, second = assigned(before, **knobs), assigned(sorted(before ^ after, reverse=True), **knobs)
    assert set(first.values()) | set(second.values()) <= set(splits.SPLITS)
    for name in first.keys() & second.keys():
        assert first[name] == second[name]


@given(groups=groups, copies=st.integers(2, 5), seed=seeds)
def test_a_group_stays_together(groups, copies, seed):
    findings = [Finding(f"{n}/{group}.jpg", n % 2, group=group) for n in range(copies) for group in groups]
    splits.assign(findings, seed=seed, val_fraction=0.3, test_fraction=0.3)
    for group in groups:
        assert len({finding.split for finding in findings if finding.group == group}) == 1


@settings(max_examples=25, deadline=None)
@given(seed=seeds, val_fraction=shares, test_fraction=shares)
def test_shares_are_those_asked_for_up_to_chance(seed, val_fraction, test_fraction):
    count = 4000
    knobs = {"seed": seed, "val_fraction": val_fraction, "test_fraction": test_fraction}
    counts = Counter(splits.split_of(f"photograph {n}", **knobs) for n in range(count))
    expected = {"val": val_fraction, "test": test_fraction, "train": 1 - val_fraction - test_fraction}
    for split, share in expected.items():
        # Six standard deviations: once in a billion.
        assert abs(counts[split] / count - share) < 6 * sqrt(share * (1 - share) / count)


@given(smaller=shares, larger=shares, seed=seeds, names=groups)
def test_a_larger_share_of_test_photographs_adds_to_the_smaller(smaller, larger, seed, names):
    smaller, larger = sorted((smaller, larger))
    few, many = (assigned(names, seed=seed, test_fraction=share) for share in (smaller, larger))
    assert {n for n, split in few.items() if split == "test"} <= {n for n, split in many.items() if split == "test"}


def test_the_seed_matters():
    names = [f"photograph {n}" for n in range(2000)]
    first, second = (assigned(names, seed=seed, val_fraction=0.3, test_fraction=0.3) for seed in (7, 8))
    same = sum(first[name] == second[name] for name in first) / len(first)
    assert abs(same - (0.3**2 + 0.3**2 + 0.4**2)) < 0.08  # as much as two independent samples


def test_what_is_refused_has_no_split():
    findings = [Finding("a.jpg", 0, group="a"), Finding("b.jpg", 0, reason="empty")]
    splits.assign(findings, seed=7, val_fraction=0.1, test_fraction=0.1)
    assert [bool(finding.split) for finding in findings] == [True, False]
