"""The verdicts of both models on one photograph, each with the places that spoke for it."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from mlflow import MlflowClient

from catdog.answers.classifier import Classifier
from catdog.base.errors import UserError
from catdog.evaluation import gradcam
from catdog.photographs import photos
from catdog.tracking import deployments, lost, served_form, versions
from catdog.tracking.deployments import CHAMPION, SERVED


@dataclass(frozen=True)
class Verdict:
    """One model's answer.

    Attributes:
        label: the class that it takes the photograph for.
        probability: of the second class, whatever the label.
        photograph: uint8 (height, width, 3) RGB: upright and shrunk, as the model's input is made from it.
        overlay: uint8 (height, width, 3) RGB: the photograph; a place is the redder the more it spoke for the label.
        milliseconds: from the photograph's bytes to the probability.
    """

    label: str
    probability: float
    photograph: np.ndarray
    overlay: np.ndarray
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
    network: Any

    def warm_up(self) -> None:
        """Give a first answer, at which TensorFlow compiles."""
        black = np.zeros((1, self.classifier.side, self.classifier.side, 3), np.uint8)
        self.classifier.probabilities(black)
        gradcam.maps(self.network, black, second=np.array([True]))

    def verdict(self, data: bytes) -> Verdict:
        """The answer to a file's bytes.

        Raises:
            photos.Unreadable: these bytes are no photograph.
        """
        started = time.perf_counter()
        photo = photos.standardise(data, image_size=self.classifier.image_size)
        pixels = photos.pixels(photo.jpeg, self.classifier.side)[None]
        probability = float(self.classifier.probabilities(pixels)[0])
        milliseconds = 1000 * (time.perf_counter() - started)
        label = self.classifier.label(probability)
        second = np.array([label == self.classifier.classes[1]])
        [heat] = gradcam.maps(self.network, pixels, second=second)
        return Verdict(label, probability, photo.image, gradcam.overlay(photo.image, heat), milliseconds)


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
        network, classifier = served_form.load(versions.uri(version), **versions.digests(version))
        accuracy = float(version.tags["accuracy"]) if "accuracy" in version.tags else None
        drawn = version.tags.get("source_kind") == "drawn"
        name, is_champion = versions.name(version), version is champion
        judges.append(Judge(kind, name, is_champion, accuracy, drawn, classifier, network))
    return judges
