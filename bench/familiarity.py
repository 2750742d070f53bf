"""How well familiarity tells photographs of neither class: known scores side by side, on each model's own features.

The zip holds photographs of other things in a folder for each kind. What lies beyond 99 % of the validation photographs
is refused. None of these photographs is trained on, or chosen by: the scores' constants are those of their papers, or
of a first look at fewer photographs. Needs the models of a run of the pipeline, in the registry.
"""

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import common
import numpy as np
import zipped
from common import Figure
from prediction import newest
from sklearn.metrics import roc_auc_score

from catdog.answers import asking, familiarity, inference
from catdog.answers.classifier import Classifier
from catdog.base import parallel, paths
from catdog.base.errors import run
from catdog.base.progress import track
from catdog.photographs.shards import Shard

REFUSED = 0.01
NEAR = ("wild-cats", "wild-canids")
ANIMALS = ("mammals", "birds", "insects", "reptiles-fish-sea")

Score = Callable[[np.ndarray, np.ndarray], np.ndarray]  # features (n, k) and logits (n,) to how familiar each is


def main() -> None:
    given = zipped.arguments(__doc__, default="neither-600.zip", rounds=1)
    figures = []
    for name in ("xception", "cnn"):
        model = newest(name)
        rows = _sample(model)[:200] if given.quick else _sample(model)
        val, test = (_asked(model, path, quick=given.quick) for path in (paths.VAL, paths.TEST))
        train = inference.on_shard(Shard(paths.TRAIN), model.network, side=model.side, rows=rows, what=f"train, {name}")
        labels = Shard(paths.TRAIN).labels[rows]
        kinds, other = _others(given.zip, model, every=20 if given.quick else 1)
        groups = {
            "near": np.isin(kinds, NEAR),
            "animals": np.isin(kinds, ANIMALS),
            "far": ~np.isin(kinds, [*NEAR, *ANIMALS]),
        }
        for score, function in _scores(train.features, labels, train.logits).items():
            of_val, of_test, of_other = (function(each.features, each.logits) for each in (val, test, other))
            figures += _figures(f"{name}, {score}", of_val, of_test, of_other, groups)
    notes = [
        f"{len(kinds)} photographs of neither: near are {' and '.join(NEAR)}.",
        f"Refused is what lies beyond {1 - REFUSED:.0%} of the validation photographs; of test: cats and dogs refused.",
    ]
    common.leave("familiarity", figures, notes=notes, seconds={}, quick=given.quick)


def _figures(
    what: str, val: np.ndarray, test: np.ndarray, other: np.ndarray, groups: dict[str, np.ndarray]
) -> list[Figure]:
    limit = np.quantile(val, REFUSED)
    figures = [Figure(f"{what}, own", f"{what}: refused of test", float((test < limit).mean()), "of 1", "measured")]
    for group, inside in groups.items():
        theirs = other[inside]
        truth = np.repeat([1, 0], [len(test), len(theirs)])
        area = float(roc_auc_score(truth, np.concatenate([test, theirs])))
        share = float((theirs < limit).mean())
        figures += [
            Figure(f"{what}, {group}", f"{what}: refused of {group}", share, "of 1", "measured"),
            Figure(f"{what}, {group}, area", f"{what}: ROC AUC, {group}", area, "of 1", "measured"),
        ]
    return figures


def _scores(train: np.ndarray, labels: np.ndarray, logits: np.ndarray) -> dict[str, Score]:
    """The scores by name; the more, the more familiar."""
    unit = _unit(train)
    profile = familiarity.profile(train, [""] * len(train), labels, val=train[:2])
    centre = train.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov((train - centre).T))
    main = vectors[:, ::-1][:, :256]
    scaled = main / np.sqrt(values[::-1][:256])
    centres = [((train - centre) @ scaled)[labels == label].mean(axis=0) for label in (0, 1)]
    within = np.concatenate([((train - centre) @ scaled)[labels == label] - centres[label] for label in (0, 1)])
    inverse = np.linalg.inv(np.cov(within.T) + 1e-6 * np.eye(within.shape[1]))

    def residual(features: np.ndarray) -> np.ndarray:
        away = features - centre
        return np.linalg.norm(away - (away @ main) @ main.T, axis=1)

    def mahalanobis(features: np.ndarray) -> np.ndarray:
        placed = (features - centre) @ scaled
        return -np.min([np.einsum("ij,jk,ik->i", placed - c, inverse, placed - c) for c in centres], axis=0)

    def energy(logits: np.ndarray) -> np.ndarray:
        return np.logaddexp(0, np.abs(logits))

    weight = energy(logits).mean() / residual(train).mean()
    return {
        "subspace by class": lambda features, _: familiarity.closeness(features, profile.centres, profile.bases),
        "5 nearest": lambda features, _: _neighbours(features, unit, 5),
        "10 nearest": lambda features, _: _neighbours(features, unit, 10),
        "residual": lambda features, _: -residual(features),
        "ViM": lambda features, logit: energy(logit) - weight * residual(features),
        "Mahalanobis": lambda features, _: mahalanobis(features),
        "energy": lambda _, logit: energy(logit),
    }


def _neighbours(features: np.ndarray, unit: np.ndarray, count: int) -> np.ndarray:
    alike = _unit(features) @ unit.T
    return np.partition(alike, -count, axis=1)[:, -count:].mean(axis=1)


def _unit(features: np.ndarray) -> np.ndarray:
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def _sample(model: Classifier) -> list[int]:
    """The rows of the training photographs that the model's profile keeps."""
    assert model.profile is not None
    known = set(model.profile.ids.tolist())
    return [row for row, identity in enumerate(Shard(paths.TRAIN).ids) if identity in known]


def _asked(model: Classifier, path: Path, *, quick: bool) -> asking.Asked:
    shard = Shard(path)
    rows = list(range(min(len(shard), 100))) if quick else None
    return inference.on_shard(shard, model.network, side=model.side, rows=rows, what=shard.path.stem)


def _others(archive: Path, model: Classifier, *, every: int) -> tuple[np.ndarray, asking.Asked]:
    with zipfile.ZipFile(archive) as opened:
        names = sorted(info.filename for info in opened.infolist() if not info.is_dir())[::every]
        files = [opened.read(name) for name in names]
        pixels = parallel.threaded(model.pixels, files, ahead=64)

        def batches() -> Iterator[np.ndarray]:
            for batch in parallel.chunks(track(pixels, total=len(names), what="neither"), asking.BATCH):
                yield np.stack(batch)

        asked = asking.joined(model.network.stream(batches()))
    return np.array([name.split("/")[-2] for name in names]), asked


if __name__ == "__main__":
    run(main)
