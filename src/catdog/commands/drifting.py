"""New photographs compared with those that a model was made for: what `catdog drift` does, from files to its page."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from catdog.answers.classifier import Classifier
from catdog.base import files
from catdog.base.errors import UserError
from catdog.commands import drift_page, prediction
from catdog.evaluation import reference
from catdog.evaluation.reference import Reference
from catdog.feedback import drift, drift_words, log_files, logged, measuring
from catdog.feedback.drift import Findings
from catdog.feedback.measuring import Measured
from catdog.photographs import photos
from catdog.pictures import sheets
from catdog.pictures.wording import percent
from catdog.preparation import archives
from catdog.tracking import deployments, drift_run, opening, served_files, store, versions

STRANGEST = 24  # photographs on the page
_CELL = 150  # pixels, of each
_LISTED = 100  # files that can't be read, in the JSON


class Opened(NamedTuple):
    """A model, such as catdog/3, and the validation photographs that its version keeps."""

    version: str
    classifier: Classifier
    reference: Reference


class Source(NamedTuple):
    """Photographs measured.

    Attributes:
        names: of all that was given; `measured.places` are places in it.
        read: the bytes of one; None: a log kept none.
        notes: what a person should know of where they are from.
    """

    names: list[str]
    measured: Measured
    read: Callable[[int], bytes] | None
    notes: list[str]


def run(given: list[Path], *, model: str, out: Path, confidence: float) -> None:
    """Compare the photographs with those of a model; write the page, its figures beside it, and a run.

    Args:
        given: what `catdog predict` takes; or one folder that `catdog serve --log` wrote.
        out: the page, .html; the figures are in the same name with .json.

    Raises:
        UserError: none can be read, the model's version keeps no photographs to compare with, or `out` is no .html.
    """
    if out.suffix != ".html":
        raise UserError(f"{out} should end in .html")
    client = store.connect()
    opened = _open(model)
    source = _source(given, opened)
    findings = drift.compare(opened.reference, source.measured, opened.classifier, confidence=confidence)
    verdict = drift_words.verdict(findings)
    about = drift_page.About(
        version=opened.version,
        source=", ".join(archives.printable(path.resolve().name or str(path)) for path in given),
        when=deployments.now(),
        drawn=_drawn(client, opened.version),
        refused=[(source.names[place], why) for place, why in source.measured.refused],
        copies=source.measured.copies,
        notes=source.notes,
    )
    strangest = _strangest(source, opened.classifier)
    figures = out.with_suffix(".json")
    with tempfile.TemporaryDirectory() as folder:
        sheet = _sheet(source, strangest, Path(folder) / "strangest.png")
        drift_page.render(
            out,
            findings=findings,
            about=about,
            old=opened.reference,
            new=source.measured,
            sheet=sheet,
            strangest=[each.told() for each in strangest],
        )
    files.write_json(figures, _figures(findings, about, verdict, strangest))
    console = Console()
    show(console if console.is_terminal else Console(width=120), findings, about, verdict, out)
    drift_run.log(
        client,
        findings,
        version=opened.version,
        source=about.source,
        verdict=verdict,
        refused=len(about.refused),
        files=[out, figures],
    )


def show(console: Console, findings: Findings, about: drift_page.About, verdict: str, page: Path) -> None:
    """Print what was found."""
    for note in about.notes:
        console.print(note, highlight=False, markup=False)
    if about.refused:
        number = "1 file" if len(about.refused) == 1 else f"{len(about.refused):,} files"
        console.print(f"{number} could not be read as photographs", highlight=False)
    if findings.differences:
        table = Table("", "validation", "these", f"effect, {100 * findings.confidence:g} % interval", "")
        for each in findings.differences:
            middles = (drift_words.middle(each, value) for value in (each.old, each.new))
            differs = "[bold]differs" if each.counts else ""
            table.add_row(escape(each.name), *middles, drift_words.effect(each), differs)
        console.print(table)
    console.print(verdict, style="bold", highlight=False, markup=False)
    console.print(f"the page: {page}", highlight=False, markup=False)


def _open(model: str) -> Opened:
    with tempfile.TemporaryDirectory() as folder:
        fetched = opening.fetch(model, Path(folder))
        version = served_files.version(fetched)
        classifier = served_files.opened(fetched, f"models:/{version}")
        file = served_files.reference_file(fetched)
        if file is None:
            raise UserError(
                f"{version} keeps no validation photographs to compare with: run `dvc repro`, and name the new version "
                "with --model or promote it"
            )
        with served_files.named(f"models:/{version}", fetched):
            return Opened(version, classifier, reference.load(file))


def _drawn(client: MlflowClient, version: str) -> bool:
    found = versions.resolve(client, version)
    return isinstance(found, ModelVersion) and found.tags.get("source_kind") == "drawn"


def _source(given: list[Path], opened: Opened) -> Source:
    logs = [path for path in given if (path / log_files.ABOUT).is_file()]
    if logs and len(given) > 1:
        raise UserError(f"{logs[0]} is a log of answers: name it by itself")
    if not logs:
        return _asked(prediction.listed(given), opened, [])
    if kept := logged.kept(logs[0]):
        note = f"The {len(kept):,} photographs that {logs[0].name} kept are asked about again, by {opened.version}."
        return _asked([_loose(sha256, path) for sha256, path in kept.items()], opened, [note])
    names, measured = logged.answers(logs[0], version=opened.version)
    features = f"the features of the newest {len(measured.directions):,} of them"
    note = (
        f"{logs[0].name} kept no photographs, so what {opened.version} answered is compared, and {features}; light, "
        "colour, sharpness, size and shape are not known."
    )
    return Source(names, measured, None, [note])


def _asked(inputs: list[archives.File], opened: Opened, notes: list[str]) -> Source:
    if not inputs:
        raise UserError("there is no file in what was named")
    measured = measuring.ask(inputs, opened.classifier, read=archives.read)
    if len(measured.directions) < len(measured.places):
        many = f"The features of {len(measured.directions):,} of them, evenly among all, are compared."
        notes = [*notes, many]
    return Source([file.source for file in inputs], measured, lambda place: archives.read(inputs[place]), notes)


def _loose(name: str, path: Path) -> archives.File:
    return archives.File(name, None, None, str(path))


class _Strange(NamedTuple):
    """One of the strangest photographs; `place` is among what was given."""

    place: int
    name: str
    label: str
    probability: float
    familiarity: float

    def told(self) -> dict[str, Any]:
        answer = {"label": self.label, "probability": self.probability, "familiarity": self.familiarity}
        return {"path": self.name, **answer}


def _strangest(source: Source, model: Classifier) -> list[_Strange]:
    """The least close to what the model knows, the strangest first."""
    measured, labels = source.measured, drift.given(source.measured, model)
    order = np.argsort(measured.closeness, kind="stable")[:STRANGEST].tolist()
    return [
        _Strange(
            measured.places[row],
            source.names[measured.places[row]],
            labels[row],
            float(measured.probabilities[row]),
            float(measured.familiarity[row]),
        )
        for row in order
    ]


def _sheet(source: Source, strangest: list[_Strange], path: Path) -> Path | None:
    """A sheet of the strangest photographs, which are read once more; None where a log kept none."""
    if source.read is None:
        return None
    pictures: list[np.ndarray | str] = []
    for each in strangest:
        try:
            pictures.append(photos.standardise(source.read(each.place), image_size=2 * _CELL).image)
        except (archives.BadMember, photos.Unreadable) as error:  # it was there a moment ago
            pictures.append(str(error))
    captions = [
        f"{sheets.tail(each.name)}\n{each.label}\nfamiliarity {percent(each.familiarity)}" for each in strangest
    ]
    title = f"The strangest {len(strangest)} of {len(source.measured.places):,}"
    sheets.block_sheet([sheets.Block(pictures, captions)], path, title=title, cell=_CELL)
    return path


def _figures(findings: Findings, about: drift_page.About, verdict: str, strangest: list[_Strange]) -> dict[str, Any]:
    """What the JSON holds."""
    return {
        "verdict": verdict,
        "model": about.version,
        "source": about.source,
        "when": about.when,
        **findings.to_dict(),
        "copies": about.copies,
        "unreadable": len(about.refused),
        "unreadable_files": [{"path": path, "reason": why} for path, why in about.refused[:_LISTED]],
        "strangest": [each.told() for each in strangest],
        "notes": about.notes,
    }
