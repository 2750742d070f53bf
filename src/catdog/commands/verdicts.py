"""The verdicts of both models on one photograph, each with the places that spoke for it."""

import time
from dataclasses import dataclass

import numpy as np
from mlflow import MlflowClient

from catdog.answers import gradcam
from catdog.answers.classifier import Classifier
from catdog.base.errors import UserError
from catdog.photographs import photos
from catdog.tracking import deployments, lost, opening, versions
from catdog.tracking.deployments import CHAMPION, SERVED

NEAREST = 4  # training photographs shown beside a verdict


@dataclass(frozen=True)
class Verdict:
    """One model's answer.

    Attributes:
        label: a class, `unsure` or `neither`.
        leans: the class that is the likelier one, whatever the label.
        probability: of the second class.
        familiarity: see `classifier.Answer`.
        photograph: uint8 (height, width, 3) RGB: upright and shrunk, as the model's input is made from it.
        overlay: uint8 (height, width, 3) RGB: the photograph; a place is the redder the more it spoke for `leans`.
        nearest: ids of the training photographs most like it.
        milliseconds: from the photograph's bytes to the answer.
    """

    label: str
    leans: str
    probability: float
    familiarity: float | None
    photograph: np.ndarray
    overlay: np.ndarray
    nearest: list[str]
    milliseconds: float


@dataclass(frozen=True)
class Judge:
    """A registered model, ready to answer.

    Attributes:
        kind: cnn or xception.
        version: such as catdog-cnn/3, or catdog/2 for the champion.
        accuracy: on the test photographs, as registered, or None.
    """

    kind: str
    version: str
    champion: bool
    accuracy: float | None
    drawn: bool
    classifier: Classifier

    def verdict(self, data: bytes) -> Verdict:
        """The answer to a file's bytes.

        Raises:
            photos.Unreadable: these bytes are no photograph.
        """
        started = time.perf_counter()
        c = self.classifier
        photo = photos.standardise(data, image_size=c.image_size)
        asked = c.ask(photos.pixels(photo.jpeg, c.side)[None])
        [answer] = c.answers(asked)
        milliseconds = 1000 * (time.perf_counter() - started)
        second = answer.probability >= c.threshold
        [heat] = gradcam.heat(asked.evidence, second=np.array([second]))
        return Verdict(
            answer.label,
            c.classes[second],
            answer.probability,
            answer.familiarity,
            photo.image,
            gradcam.overlay(photo.image, heat),
            c.profile.nearest(asked.features[0], NEAREST) if c.profile else [],
            milliseconds,
        )


def judges(client: MlflowClient) -> list[Judge]:
    """Both models: the champion where it is of this kind, else the newest version. Each is checked by its digests; what
    catdog did not register is passed over.

    Raises:
        UserError: a model has no version yet, or its files were changed.
    """
    number = deployments.aliases(client).get(CHAMPION)
    champion = next((each for each in versions.ours(client, SERVED) if int(each.version) == number), None)
    judges = []
    for kind, registered in versions.NAMES.items():
        version = champion
        if version is None or version.tags.get("model") != kind:
            version = max(versions.ours(client, registered), key=lambda v: int(v.version), default=None)
        if version is None:
            what_to_do = lost.runs(client) or "run the pipeline first (`dvc repro`)"
            raise UserError(f"{registered} has no version here: {what_to_do}")
        classifier = opening.load(versions.uri(version))
        accuracy = float(version.tags["accuracy"]) if "accuracy" in version.tags else None
        drawn = version.tags.get("source_kind") == "drawn"
        name, is_champion = versions.name(version), version is champion
        judges.append(Judge(kind, name, is_champion, accuracy, drawn, classifier))
    return judges
