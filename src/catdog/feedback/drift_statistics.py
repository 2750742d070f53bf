"""How two samples differ: effect sizes with their intervals, tests, and one level for all tests together.

Intervals stay sensible where samples are small, all alike or wholly apart, as a normal approximation would not.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from catdog.evaluation import scoring

_COMPONENTS = 64  # of the features; more are noise to a classifier of some hundred photographs
_C = 0.01  # strong: it has few photographs to learn from
_HALVINGS = 10
_DRAWS = 2000
_GROUPS = 50


class Effect(NamedTuple):
    """How large a difference is, its interval, and the probability of as large a one by chance."""

    size: float
    low: float
    high: float
    p_value: float


def order(old: np.ndarray, new: np.ndarray, *, confidence: float) -> Effect:
    """Cliff's delta: how much oftener a new value lies above an old one than below, −1 to 1; ties count for neither.

    The test is Mann and Whitney's. The interval is Newcombe's for the area under a ROC curve (2006, method 5,
    https://doi.org/10.1002/sim.2324), to which the delta is 2 x area − 1.
    """
    if np.ptp(np.concatenate([old, new])) == 0:
        area, p_value = 0.5, 1.0
    else:
        found = stats.mannwhitneyu(new, old, method="asymptotic")
        area, p_value = float(found.statistic) / (len(old) * len(new)), float(found.pvalue)
    low, high = area_interval(area, len(old), len(new), confidence=confidence)
    return Effect(2 * area - 1, 2 * low - 1, 2 * high - 1, p_value)


def area_interval(area: float, first: int, second: int, *, confidence: float) -> tuple[float, float]:
    """The interval of an area under a ROC curve of so many of each kind, by the method named in `order`."""
    others = (first + second) / 2 - 1
    squared = stats.norm.ppf((1 + confidence) / 2) ** 2 / (first * second)

    def beyond(true: float) -> float:
        spread = 1 + others * ((1 - true) / (2 - true) + true / (1 + true))
        return (true - area) ** 2 - squared * true * (1 - true) * spread

    inside = float(np.clip(area, 1e-9, 1 - 1e-9))
    low = optimize.brentq(beyond, 0, inside) if area > 1e-9 else 0.0
    high = optimize.brentq(beyond, inside, 1) if area < 1 - 1e-9 else 1.0
    return float(low), float(high)


def share(old: np.ndarray, new: np.ndarray, *, confidence: float) -> Effect:
    """The difference of two shares, new less old; `old` and `new` are bool, an entry for each photograph.

    The test is Fisher's exact one. The interval is Newcombe's, of Wilson's two (1998, method 10,
    https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I).
    """
    of_new, of_old = float(new.mean()), float(old.mean())
    new_low, new_high = scoring.wilson(new.sum(), len(new), confidence)
    old_low, old_high = scoring.wilson(old.sum(), len(old), confidence)
    difference = of_new - of_old
    low = difference - np.hypot(of_new - new_low, old_high - of_old)
    high = difference + np.hypot(new_high - of_new, of_old - old_low)
    table = [[int(each.sum()), int((~each).sum())] for each in (new, old)]
    return Effect(difference, float(low), float(high), float(stats.fisher_exact(table).pvalue))


def distance(old_share: float, new_share: float) -> float:
    """How far apart two shares are, by Cohen's h: from 1 to 5 % is as far as from 50 to 62 %."""
    return float(abs(2 * np.arcsin(np.sqrt(new_share)) - 2 * np.arcsin(np.sqrt(old_share))))


def told_apart(old: np.ndarray, new: np.ndarray, *, confidence: float, seed: int = 0) -> Effect:
    """How well a classifier tells new from old among those that it did not see: the area under its ROC curve.

    Logistic regression learns on half of each and is asked about the other half, ten times over; the area is the mean.
    One half's area has a known spread where nothing differs, and the mean of ten has no wider one, however they hang
    together: so test and interval, which are those of one half, are safe. Areas of cross-validation are not: their
    folds repeat each other, and the spread of their mean is larger than that of so many photographs.

    Args:
        old, new: features, (m, k) and (n, k).
    """
    rows = np.concatenate([old, new]).astype(np.float32)
    is_new = np.repeat([0, 1], [len(old), len(new)])
    # The projection does not know which is which, so it may be fitted on all.
    components = min(_COMPONENTS, rows.shape[1], len(rows) // 4)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=_C, class_weight="balanced", max_iter=500))
    areas = []
    with threadpool_limits(1, user_api="blas"):  # of so small products more threads only wait for each other
        small = PCA(components, svd_solver="randomized", random_state=seed).fit_transform(rows)
        for learn, ask in StratifiedShuffleSplit(_HALVINGS, test_size=0.5, random_state=seed).split(small, is_new):
            model.fit(small[learn], is_new[learn])
            areas.append(roc_auc_score(is_new[ask], model.decision_function(small[ask])))
    area = float(np.mean(areas))
    olds, news = len(old) // 2, len(new) // 2
    low, high = area_interval(area, olds, news, confidence=confidence)
    spread = np.sqrt((olds + news + 1) / (12 * olds * news))
    return Effect(area, low, high, float(stats.norm.sf((area - 0.5) / spread)))


def rejected(p_values: Sequence[float], *, level: float) -> np.ndarray:
    """Which hypotheses fall if at most a share `level` of such families may have one fall wrongly: bool (tests,).

    Holm's procedure (1979), which holds whatever the tests have to do with each other.
    """
    order = np.argsort(p_values, kind="stable")
    fall = np.asarray(p_values)[order] <= level / np.arange(len(order), 0, -1)
    count = len(order) if fall.all() else int(np.argmin(fall))
    found = np.zeros(len(order), bool)
    found[order[:count]] = True
    return found


class Expected(NamedTuple):
    """A share of right answers to expect, and its interval."""

    accuracy: float
    low: float
    high: float


def expected_accuracy(
    sure: np.ndarray, *, known_sure: np.ndarray, known_right: np.ndarray, confidence: float, seed: int = 0
) -> Expected:
    """How many of these very photographs get the right class, as far as sureness tells.

    It is the mean sureness, corrected by what sureness was off on photographs of known label (the difference of
    confidences of Guillory et al. 2021, https://arxiv.org/abs/2107.03315). The interval holds the luck of these
    photographs, and how far the correction is known: for the share right among the known ones, Jeffreys' distribution,
    which has room for mistakes where there were none.

    Args:
        sure: of the class that each photograph gets, (n,).
        known_sure, known_right: of photographs that the model was not trained on, (m,).
    """
    rng = np.random.default_rng(seed)
    right = int(known_right.sum())
    of_known = rng.beta(right + 0.5, len(known_right) - right + 0.5, _DRAWS)
    # A group of like sureness has hardly a wider spread than its photographs by themselves.
    groups = np.array_split(np.sort(sure), min(_GROUPS, len(sure)))
    sizes, means = [len(group) for group in groups], [float(group.mean()) for group in groups]
    of_these = rng.binomial(sizes, means, (_DRAWS, len(groups))).sum(axis=1) / len(sure)
    low, high = np.quantile(of_these + of_known - known_sure.mean(), scoring.tails(confidence))
    accuracy = sure.mean() + known_right.mean() - known_sure.mean()
    accuracy, low, high = np.clip([accuracy, min(low, accuracy), max(high, accuracy)], 0, 1)
    return Expected(float(accuracy), float(low), float(high))
