"""How many wrong labels the list of suspects finds, and what it is worth to correct them.

Labels are flipped, by seed: 2 % and 5 % of all photographs at random, and 2 % among those that look most like the other
class. The list is made as `evaluate` makes it, from all splits. Beside it stand cleanlab's lists from the very same
probabilities, where cleanlab is installed (`.venv/bin/uv pip install cleanlab`; it is no part of the environment).
Then Xception's head is trained without flips, with them, and after a perfect reviewer has gone through the list; the
test photographs keep their labels. And it is trained on the labels as they were filed, and as people decided
(data/corrections.csv), and asked about the test photographs of both. Needs a run of the pipeline, with Xception frozen
and before these decisions, so that no photograph is set aside.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import common
import numpy as np
from common import Figure

from catdog.base import params, paths
from catdog.base.errors import run
from catdog.evaluation import scoring, suspects
from catdog.photographs.shards import Shard
from catdog.preparation import corrections
from catdog.training.loop import checkpoints
from catdog.training.xception import features, recipe, weights

SCENARIOS = {"2 %": (0.02, False), "5 %": (0.05, False), "2 %, alike": (0.02, True)}
SECONDS = 2  # for a person, a photograph
ALIKE = 0.1  # the share of the photographs, nearest to the other class, among which alike ones are flipped


class Photographs(NamedTuple):
    """All photographs: train, val, test; and the variants of those of train.

    Attributes:
        features: float32 (n, k) of train, val and test.
        variants: float32 (m, k), as augment wrote them; empty where the head is trained without.
        labels: 0 or 1 (n,), as filed.
        sizes: of the three splits.
    """

    features: np.ndarray
    variants: np.ndarray
    labels: np.ndarray
    ids: list[str]
    groups: list[str]
    sizes: tuple[int, int, int]


def main() -> None:
    given = common.arguments(__doc__, rounds=1)
    p = params.load()
    if given.quick:
        p = p.model_copy(update={"train_xception": p.train_xception.model_copy(update={"epochs": 1})})
    known = _photographs(p)
    clean = suspects.confidence(known.features, known.labels, known.groups, seed=p.base.seed)
    figures = [*_worth("no flips", p, known, known.labels), *_decided(p, known)]
    for name, (share, alike) in SCENARIOS.items():
        flipped = _flipped(clean, share, alike=alike, seed=p.base.seed)
        labels = np.where(flipped, 1 - known.labels, known.labels)
        sure = suspects.confidence(known.features, labels, known.groups, seed=p.base.seed)
        listed = sure < suspects.SURE
        count = int(flipped.sum())
        first = np.zeros(len(sure), bool)
        first[np.argsort(sure, kind="stable")[: 2 * count]] = True
        figures += [
            Figure(f"{name}, flips", f"{name}: labels flipped", count, "photographs", "counted"),
            _share(f"{name}, found", f"{name}: flips within twice their number", flipped, first, goal=0.97),
            _share(f"{name}, list", f"{name}: flips on the list", flipped, listed),
            Figure(f"{name}, length", f"{name}: length of the list", int(listed.sum()), "photographs", "counted"),
            Figure(f"{name}, minutes", f"{name}: to review it", SECONDS * listed.sum() / 60, "min", "extrapolated"),
        ]
        figures += _of_cleanlab(name, labels, sure, flipped)
        figures += _worth(f"{name}, flipped", p, known, labels)
        figures += _worth(f"{name}, reviewed", p, known, np.where(listed, known.labels, labels))
    notes = [f"Alike are flipped among the {ALIKE:.0%} of the photographs nearest to the other class."]
    common.leave("labels", figures, notes=notes, seconds={}, quick=given.quick)


def _photographs(p: params.Params) -> Photographs:
    t = p.train_xception
    shards = [Shard(path) for path in (paths.TRAIN, paths.VAL, paths.TEST)]
    base, origin = weights.load_xception(t.weights, image_size=t.image_size)
    wanted = [*shards, *([Shard(paths.AUGMENTED_TRAIN)] if t.augmented else [])]
    extracted = features.extract(
        wanted,
        model=base,
        weights_digest=origin["sha256"],
        image_size=t.image_size,
        precision=t.precision,
        keep=False,
    )
    train, val, test = map(len, shards)
    total = train + val + test
    return Photographs(
        features=np.array(extracted.rows[:total]),
        variants=extracted.rows[total:],
        labels=np.concatenate([shard.labels for shard in shards]).astype(int),
        ids=[identity for shard in shards for identity in shard.ids],
        groups=[group for shard in shards for group in shard.groups],
        sizes=(train, val, test),
    )


def _flipped(clean: np.ndarray, share: float, *, alike: bool, seed: int) -> np.ndarray:
    """Which labels are flipped: bool (n,)."""
    count = round(share * len(clean))
    among = np.argsort(clean, kind="stable")[: round(ALIKE * len(clean))] if alike else np.arange(len(clean))
    flipped = np.zeros(len(clean), bool)
    flipped[np.random.default_rng(seed).choice(among, count, replace=False)] = True
    return flipped


def _of_cleanlab(name: str, labels: np.ndarray, sure: np.ndarray, flipped: np.ndarray) -> Iterator[Figure]:
    try:
        from cleanlab import filter as issues
        from cleanlab import rank
    except ImportError:
        return
    probabilities = np.stack([np.where(labels == label, sure, 1 - sure) for label in (0, 1)], axis=1)
    for adjust in (False, True):
        scores = rank.get_label_quality_scores(labels, probabilities, adjust_pred_probs=adjust)
        first = np.zeros(len(sure), bool)
        first[np.argsort(scores, kind="stable")[: 2 * flipped.sum()]] = True
        words = f"cleanlab, self-confidence{' adjusted' if adjust else ''}"
        yield _share(f"{name}, {words}", f"{name}: {words}, within twice", flipped, first)
    for method in ("prune_by_noise_rate", "confident_learning", "predicted_neq_given"):
        listed = issues.find_label_issues(labels, probabilities, filter_by=method)
        words = f"cleanlab, {method.replace('_', ' ')}"
        yield _share(f"{name}, {words}", f"{name}: {words}, on its list", flipped, listed)
        yield Figure(
            f"{name}, {words}, length", f"{name}: {words}, length", int(listed.sum()), "photographs", "counted"
        )


def _share(key: str, what: str, flipped: np.ndarray, chosen: np.ndarray, goal: float | None = None) -> Figure:
    return Figure(key, what, float((flipped & chosen).sum() / flipped.sum()), "of 1", "measured", goal)


def _worth(name: str, p: params.Params, known: Photographs, labels: np.ndarray) -> Iterator[Figure]:
    """Test accuracy and log loss of the head that these labels of train and val give."""
    probabilities = _probabilities(p, known, labels, np.ones(len(labels), bool))
    truth = known.labels[sum(known.sizes[:2]) :]
    score = scoring.score(truth, probabilities, threshold=p.evaluate.threshold)
    what = f"{name}: test accuracy of Xception's head"
    yield Figure(f"{name}, accuracy", what, score["accuracy"], "of 1", "measured")
    yield Figure(f"{name}, log loss", f"{name}: its log loss", score["log_loss"], "nats", "measured")


def _decided(p: params.Params, known: Photographs) -> Iterator[Figure]:
    """What the decisions of people are worth: the head trained on labels as filed and as decided, each asked about the
    test photographs as filed and as decided."""
    decisions = corrections.load(paths.CORRECTIONS, p.base.classes)
    words = [decisions[identity].decision if identity in decisions else "" for identity in known.ids]
    classes = {name: label for label, name in enumerate(p.base.classes)}
    labels = np.array([classes.get(word, label) for word, label in zip(words, known.labels, strict=True)])
    stays = np.array([word != corrections.NEITHER for word in words])
    yield Figure("decided", "photographs decided on", sum(map(bool, words)), "photographs", "counted")
    yield Figure("changed", "of these, relabelled", int((labels != known.labels).sum()), "photographs", "counted")
    yield Figure("aside", "of these, set aside", int((~stays).sum()), "photographs", "counted")
    versions = {"as filed": (known.labels, np.ones(len(labels), bool)), "as decided": (labels, stays)}
    test = slice(sum(known.sizes[:2]), None)
    for trained, of_training in versions.items():
        probabilities = _probabilities(p, known, *of_training)
        for tested, (truth, counted) in versions.items():
            there = counted[test]
            score = scoring.score(truth[test][there], probabilities[there], threshold=p.evaluate.threshold)
            what = f"trained {trained}, tested {tested}"
            yield Figure(f"{what}, accuracy", f"{what}: accuracy", score["accuracy"], "of 1", "measured")
            yield Figure(f"{what}, log loss", f"{what}: log loss", score["log_loss"], "nats", "measured")


def _probabilities(p: params.Params, known: Photographs, labels: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """What the head says of the test photographs that is trained on these labels of train and val, where `kept`."""
    train, val, _ = known.sizes
    each = len(known.variants) // train
    of_train, of_val = np.flatnonzero(kept[:train]), train + np.flatnonzero(kept[train : train + val])
    variants = known.variants[np.repeat(kept[:train], each)]
    rows = np.concatenate([known.features[of_train], variants])
    of_rows = np.concatenate([labels[of_train], np.repeat(labels[of_train], each)]).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        head, _ = recipe.train_head(
            p,
            train=(rows, of_rows),
            val=(known.features[of_val], labels[of_val].astype(np.float32)),
            photographs=len(of_train),
            checkpoint=checkpoints.Checkpoint(Path(folder) / "head.npz", fingerprint=""),
            on_epoch=lambda row: None,
        )
    return head.predict(known.features[train + val :], batch_size=1024, verbose=0)[:, 0]


if __name__ == "__main__":
    run(main)
