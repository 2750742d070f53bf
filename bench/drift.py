"""How often `catdog drift` alarms: where photographs are of the same kind, as it should not, and on shifts.

Of each model, samples of 200 of the test photographs as they are; mirrored, which is no drift; darker, blurred, grey
and half as large; and two other collections. Where labels are known, the accuracy to expect beside the one that came.
Each network is asked once about each version of a photograph. Needs a project that has been run; nothing is written to
it.
"""

import argparse
import dataclasses
import os
import sqlite3
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import common
import cv2
import numpy as np
from common import Figure

from catdog.answers import inference
from catdog.answers.classifier import Classifier
from catdog.base import paths
from catdog.base.errors import UserError, run
from catdog.base.progress import track
from catdog.evaluation import properties, reference
from catdog.evaluation.reference import Reference
from catdog.feedback import drift, drift_words, measuring
from catdog.feedback.measuring import Measured
from catdog.photographs import photos
from catdog.photographs.shards import Shard
from catdog.pictures.style import NAMES
from catdog.tracking import opening, versions

SIZE = 200  # photographs of a sample
NULLS, SHIFTED = 200, 20  # samples
CHANGED = 500  # test photographs that are changed
BESIDE = Path("../shared/data")
OTHERS = ("neither-600.zip", "cats-and-dogs-originals-600.zip")
CONFIDENCE = 0.95
_NEWEST = "SELECT max(version) FROM model_versions WHERE name = ? AND current_stage != 'Deleted_Internal'"

Change = Callable[[np.ndarray], np.ndarray]

CHANGES: dict[str, Change] = {
    "mirrored": lambda image: image[:, ::-1],
    "darker (x 0.6)": lambda image: (image * 0.6).astype(np.uint8),
    "blurred (3 px)": lambda image: cv2.GaussianBlur(image, (0, 0), 3),
    "greyscale": lambda image: cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB),
    "half-size": lambda image: cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
}


class Asked(NamedTuple):
    """Photographs measured; `right` (n,) bool where their labels are known."""

    measured: Measured
    right: np.ndarray | None


class Sampled(NamedTuple):
    """What samples of some photographs came to; a row for each."""

    alarms: list[bool]
    by: list[set[str]]
    areas: list[float]
    expected: list[tuple[float, float, float]]
    actual: list[float]


def main() -> None:
    given = _arguments()
    os.chdir(given.project)
    figures: list[Figure] = []
    notes = [f"Samples of {SIZE} photographs: {given.nulls} as they are, {given.shifted} of each shift."]
    seconds: dict[str, list[float]] = {}
    for name in given.models:
        model = newest(name)
        old = _reference(model, quick=given.quick)
        rng = np.random.default_rng(0)
        for what, asked in _asked(model, given):
            started = time.perf_counter()
            count = given.nulls if what == "as they are" else given.shifted
            found = _sampled(asked, old, model, count=count, rng=rng, what=f"{name}, {what}")
            seconds.setdefault(f"{name}, samples", []).append((time.perf_counter() - started) / count)
            figures += _figures(name, what, found)
            by = sorted({key for each in found.by for key in each}, key=lambda key: -sum(key in b for b in found.by))
            shares = ", ".join(f"{key} {sum(key in b for b in found.by)}" for key in by)
            whole = drift.compare(old, asked.measured, model, confidence=CONFIDENCE)
            area = next(each.effect.size for each in whole.differences if each.kind == drift.APART)
            notes.append(f"{name}, {what}: of {count} samples, what counted: {shares or 'nothing'}.")
            notes.append(f"{name}, {what}, all at once (area {area:.3f}): {drift_words.verdict(whole)}")
    os.chdir(given.here)
    common.leave("drift", figures, notes=notes, seconds=seconds, quick=given.quick)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, default=Path(), help="a project that has been run (this one)")
    parser.add_argument("--models", nargs="+", choices=[*NAMES], default=[*NAMES], help="which ones (both)")
    parser.add_argument("--quick", action="store_true", help="few samples, to try it; nothing is kept")
    given = parser.parse_args()
    given.here, given.project = paths.root().absolute(), given.project.absolute()
    given.nulls, given.shifted = (4, 2) if given.quick else (NULLS, SHIFTED)
    given.changed = 240 if given.quick else CHANGED
    given.beside = (given.here / BESIDE).resolve()
    return given


def newest(name: str) -> Classifier:
    """The newest version of a model in the local store, which is only read."""
    with closing(sqlite3.connect(f"{Path('mlflow.db').resolve().as_uri()}?mode=ro", uri=True)) as store:
        [[number]] = store.execute(_NEWEST, (versions.NAMES[name],)).fetchall()
    if number is None:
        raise UserError(f"{versions.NAMES[name]} has no version here: run the pipeline first (dvc repro)")
    return opening.load(f"models:/{versions.NAMES[name]}/{number}")


def _reference(model: Classifier, *, quick: bool) -> Reference:
    """What evaluate would keep with this version."""
    val = Shard(paths.VAL)
    rows = val.sample(200 if quick else reference.MOST)
    asked = inference.on_shard(val, model.network, side=model.side, rows=rows, what="val")
    judged = model.judge(asked)
    return reference.make(
        val,
        rows,
        properties.of_rows(val, rows, properties.manifest()),
        features=asked.features,
        probabilities=judged.probabilities,
        familiarity=np.asarray(judged.familiarity),
        threshold=model.threshold,
    )


def _asked(model: Classifier, given: argparse.Namespace) -> Iterator[tuple[str, Asked]]:
    """Each kind of photographs by name, and what the model says of them."""
    test = Shard(paths.TEST)
    rows = test.sample(given.changed)
    every = test.sample(given.changed if given.quick else measuring.MOST_KEPT)
    yield "as they are", _ask([test.jpeg(row) for row in every], model, labels=test.labels[every])
    for what, change in CHANGES.items():
        changed = [photos.encode(np.ascontiguousarray(change(photos.decode(test.jpeg(row))))) for row in rows]
        yield what, _ask(changed, model, labels=test.labels[rows])
    for name in OTHERS:
        archive = given.beside / name
        if archive.is_file():
            with zipfile.ZipFile(archive) as opened:
                names = sorted(info.filename for info in opened.infolist() if not info.is_dir())
                names = names[:: 2 if given.quick else 1]
                labels = np.array([each.split("/")[-2].lower() == model.classes[1] for each in names])
                of_classes = all(each.split("/")[-2].lower() in model.classes for each in names)
                data = [opened.read(each) for each in names]
            yield name, _ask(data, model, labels=labels if of_classes else None)


def _ask(data: list[bytes], model: Classifier, *, labels: np.ndarray | None) -> Asked:
    measured = measuring.ask(data, model, read=lambda each: each)
    right = None
    if labels is not None:
        right = (measured.probabilities >= model.threshold) == (labels[measured.places] == 1)
    return Asked(measured, right)


def _sampled(
    asked: Asked, old: Reference, model: Classifier, *, count: int, rng: np.random.Generator, what: str
) -> Sampled:
    found = Sampled([], [], [], [], [])
    for _ in track(range(count), total=count, what=what):
        of = rng.choice(len(asked.measured.places), SIZE, replace=False)
        sample = dataclasses.replace(
            asked.measured,
            places=of.tolist(),
            **{
                name: getattr(asked.measured, name)[of]
                for name in ("properties", "probabilities", "familiarity", "closeness", "directions")
            },
        )
        findings = drift.compare(old, sample, model, confidence=CONFIDENCE)
        found.alarms.append(bool(findings.drift))
        found.by.append({each.name for each in findings.differences if each.counts})
        found.areas.extend(each.effect.size for each in findings.differences if each.kind == drift.APART)
        if asked.right is not None and findings.accuracy:
            familiar = np.array([label != "neither" for label in drift.given(sample, model)])
            found.expected.append(tuple(findings.accuracy))
            found.actual.append(float(asked.right[of][familiar].mean()))
    return found


def _figures(name: str, what: str, found: Sampled) -> list[Figure]:
    key, title = f"{name}, {what}", f"{name}, {what}"
    figures = [
        Figure(f"{key}, alarms", f"{title}: samples that alarm", float(np.mean(found.alarms)), "of 1", "measured"),
        Figure(f"{key}, area", f"{title}: area of old against new", float(np.mean(found.areas)), "of 1", "measured"),
    ]
    if found.actual:
        held = [low <= actual <= high for (_, low, high), actual in zip(found.expected, found.actual, strict=True)]
        expected = float(np.mean([accuracy for accuracy, _, _ in found.expected]))
        figures += [
            Figure(f"{key}, expected", f"{title}: accuracy expected", expected, "of 1", "measured"),
            Figure(f"{key}, actual", f"{title}: accuracy that came", float(np.mean(found.actual)), "of 1", "measured"),
            Figure(f"{key}, held", f"{title}: intervals that held it", float(np.mean(held)), "of 1", "measured"),
        ]
    return figures


if __name__ == "__main__":
    run(main)
