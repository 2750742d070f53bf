"""How new photographs differ from those that a model was made for, which differences count, and what to expect."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from catdog.answers.classifier import DOUBTS, NEITHER, UNSURE, Classifier, decide
from catdog.evaluation import doubt, properties
from catdog.evaluation.reference import Reference
from catdog.feedback import drift_statistics
from catdog.feedback.drift_statistics import Effect, Expected
from catdog.feedback.measuring import Measured

FEWEST = 30  # photographs, new and old, below which nothing is said
LEVEL = 0.01  # of all tests together: how often photographs of the same kind may look otherwise by chance
ORDER, SHARE, APART = "order", "share", "apart"
# Below these a difference is of no note, however certain: Cliff's delta (less is called negligible by Romano et al.
# 2006), Cohen's h (this is what he calls small), and the area of a classifier that tells old from new.
OF_NOTE = {ORDER: 0.147, SHARE: 0.2, APART: 0.6}
GUESSING = 0.5
SURENESS, FAMILIARITY, FEATURES = "sureness", "familiarity", "features"


@dataclass(frozen=True)
class Difference:
    """One way in which new photographs may differ from the validation photographs.

    Attributes:
        name: one of `properties.NAMES`, SURENESS, FAMILIARITY, a label, or FEATURES.
        kind: ORDER (of medians; the effect is Cliff's delta), SHARE (of a label; the difference), or APART (of
            features; the area under the ROC curve of a classifier that tells old from new).
        old, new: a median, a share, or an area: that of guessing, and what was found.
        weight: how large the effect is, in units of what is of note; by it those of all kinds are ordered.
        counts: whether it is of note, and beyond chance, all tests together.
    """

    name: str
    kind: str
    old: float
    new: float
    effect: Effect
    weight: float
    counts: bool = False


@dataclass(frozen=True)
class Findings:
    """What is said of new photographs.

    Attributes:
        drift: whether they differ; None: there are too few to say.
        photographs, known: how many there are, new and of validation.
        differences: in the order of the page; none where there are too few photographs.
        accuracy: how often the class that the threshold gives is right, of those that are not `neither`; None: there
            are too few.
        usual: likewise of the validation photographs.
        neither: how many of the new ones are `neither`, of which sureness says nothing.
        confidence: of every interval.
    """

    drift: bool | None
    photographs: int
    known: int
    differences: list[Difference]
    accuracy: Expected | None
    usual: float | None
    neither: int
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        accuracy = self.accuracy._asdict() if self.accuracy else None
        differences = [asdict(each) | {"effect": each.effect._asdict()} for each in self.differences]
        found = asdict(self) | {"accuracy": accuracy, "differences": differences}
        return found | {"level": LEVEL, "of_note": OF_NOTE}


def compare(old: Reference, new: Measured, model: Classifier, *, confidence: float) -> Findings:
    """Tell whether photographs differ from those that a model was made for.

    Of collections of the same kind at most a share LEVEL is said to differ: no test supposes how its values are spread,
    and Holm's procedure holds them together.

    Args:
        old: as the model's version keeps it.
        model: it gave the answers, and its knobs of doubt say which of them are `unsure` and `neither`.
    """
    labels = _labels(old, model), _labels(new, model)
    enough = min(len(old.ids), len(new.places)) >= FEWEST
    differences = _judged(_differences(old, new, labels, model, confidence=confidence)) if enough else []
    accuracy, usual = _accuracy(old, new, labels, model, confidence=confidence)
    return Findings(
        drift=any(each.counts for each in differences) if enough else None,
        photographs=len(new.places),
        known=len(old.ids),
        differences=differences,
        accuracy=accuracy,
        usual=usual,
        neither=int((labels[1] == _number(NEITHER, model)).sum()),
        confidence=confidence,
    )


def label_names(model: Classifier) -> list[str]:
    """The labels that a model may give."""
    never = {UNSURE: model.sureness is None, NEITHER: model.unfamiliar is None}
    return [*model.classes, *(name for name in DOUBTS.values() if not never[name])]


def given(of: Measured, model: Classifier) -> list[str]:
    """The label of each photograph."""
    names = {_number(name, model): name for name in label_names(model)}
    return [names[number] for number in _labels(of, model).tolist()]


def values(name: str, of: Reference | Measured) -> np.ndarray | None:
    """What is compared as a property, or as SURENESS or FAMILIARITY: (n,); None where it is not known."""
    if name == SURENESS:
        return np.maximum(of.probabilities, 1 - of.probabilities)
    if name == FAMILIARITY:
        return of.familiarity
    return None if of.properties is None else of.properties[:, properties.NAMES.index(name)]


def _differences(
    old: Reference, new: Measured, labels: tuple[np.ndarray, np.ndarray], model: Classifier, *, confidence: float
) -> list[Difference]:
    found = []
    for name in (*properties.NAMES, SURENESS, FAMILIARITY):
        before, after = values(name, old), values(name, new)
        if before is not None and after is not None:
            effect = drift_statistics.order(before, after, confidence=confidence)
            middles = float(np.median(before)), float(np.median(after))
            found.append(Difference(name, ORDER, *middles, effect, abs(effect.size) / OF_NOTE[ORDER]))
    for name in label_names(model):
        has = [each == _number(name, model) for each in labels]
        shares = float(has[0].mean()), float(has[1].mean())
        effect = drift_statistics.share(*has, confidence=confidence)
        found.append(Difference(name, SHARE, *shares, effect, drift_statistics.distance(*shares) / OF_NOTE[SHARE]))
    if len(new.directions) >= FEWEST:
        effect = drift_statistics.told_apart(old.directions, new.directions, confidence=confidence)
        weight = (effect.size - GUESSING) / (OF_NOTE[APART] - GUESSING)
        found.append(Difference(FEATURES, APART, GUESSING, effect.size, effect, weight))
    return found


def _judged(differences: list[Difference]) -> list[Difference]:
    beyond_chance = drift_statistics.rejected([each.effect.p_value for each in differences], level=LEVEL)
    return [
        replace(each, counts=bool(beyond and each.weight >= 1))
        for each, beyond in zip(differences, beyond_chance, strict=True)
    ]


def _accuracy(
    old: Reference, new: Measured, labels: tuple[np.ndarray, np.ndarray], model: Classifier, *, confidence: float
) -> tuple[Expected | None, float | None]:
    """What to expect of the photographs that are not `neither`, and what was found of such validation photographs."""
    before, after = (each != _number(NEITHER, model) for each in labels)
    if min(before.sum(), after.sum()) < FEWEST:
        return None, None
    known, sure = (doubt.sureness(each.probabilities, threshold=model.threshold) for each in (old, new))
    right = old.right[before]
    expected = drift_statistics.expected_accuracy(
        sure[after], known_sure=known[before], known_right=right, confidence=confidence
    )
    return expected, float(right.mean())


def _labels(of: Reference | Measured, model: Classifier) -> np.ndarray:
    return decide(
        of.probabilities,
        of.familiarity,
        threshold=model.threshold,
        sureness=model.sureness,
        unfamiliar=model.unfamiliar,
    )


def _number(name: str, model: Classifier) -> int:
    """The number by which `classifier.decide` calls a label."""
    return {label: number for number, label in [*enumerate(model.classes), *DOUBTS.items()]}[name]
