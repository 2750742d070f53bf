"""The served form of each model: made of the trained one, and of what the validation photographs teach about it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from catdog.answers import asking, familiarity, form, inference
from catdog.answers.asking import Network
from catdog.answers.classifier import Classifier, probability
from catdog.base import files, params, paths
from catdog.engines import openvino
from catdog.evaluation import calibration, doubt, properties, reference
from catdog.photographs.shards import Shard
from catdog.pictures.style import NAMES
from catdog.training.loop import precision
from catdog.training.xception import features, weights


@dataclass(frozen=True)
class Served:
    """A served form, and the model that it was made of.

    Attributes:
        folder: all of its files but the `.keras` file.
        classifier: the form, opened.
        network_of_keras: the same network in Keras, in float32.
    """

    keras_file: Path
    folder: Path
    settings: form.Settings
    classifier: Classifier
    network_of_keras: Network


def make(p: params.Params, folder: Path, *, train: Shard, val: Shard) -> dict[str, Served]:
    """The served form of both models, in folders of `folder`.

    Raises:
        UserError: a model file is missing, or is none of this project; prepare's manifest was changed.
    """
    measured = properties.of_rows(val, val.sample(reference.MOST), properties.manifest())
    return {name: _make(p, name, folder / name, train=train, val=val, measured=measured) for name in NAMES}


def _make(p: params.Params, name: str, folder: Path, *, train: Shard, val: Shard, measured: np.ndarray) -> Served:
    keras_file = paths.model(name) / paths.MODEL_FILE
    model = form.read(keras_file)
    mirrored = name == "cnn" and p.evaluate.cnn_mirrored
    in_keras = asking.by_keras(model, mirrored=mirrored)
    bfloat16 = precision.resolve(getattr(p, f"train_{name}").precision) == "mixed_bfloat16"
    folder.mkdir(parents=True)
    if openvino.is_here():
        openvino.exported(asking.export, model, folder)
        network = asking.by_openvino(folder, bfloat16=bfloat16, mirrored=mirrored)
    else:
        network, bfloat16 = in_keras, False
    known = _knowledge(p, name, model, network, train=train, val=val)
    learnt = _learn(p, known, train=train, val=val)
    learnt.profile.save(folder / form.PROFILE)
    _reference(p, known, learnt, val=val, measured=measured).save(folder / form.REFERENCE)
    settings = form.Settings(
        classes=(p.base.classes[0], p.base.classes[1]),
        image_size=p.prepare.image_size,
        side=model.input_shape[1],
        threshold=p.evaluate.threshold,
        temperature=learnt.temperature,
        sureness=learnt.sureness,
        unfamiliar=p.evaluate.unfamiliar,
        bfloat16=bfloat16,
        mirrored=mirrored,
        model_sha256=files.sha256(keras_file),
        digests={file.name: files.sha256(file) for file in sorted(folder.iterdir())},
    )
    return Served(keras_file, folder, settings, form.open_form(keras_file, folder, settings), in_keras)


class _Knowledge(NamedTuple):
    """What a network says of the validation photographs, and the features of some rows of the training photographs."""

    logits: np.ndarray
    val: np.ndarray
    train: np.ndarray
    rows: list[int]


class _Learnt(NamedTuple):
    temperature: float
    sureness: float | None
    profile: familiarity.Profile


def _knowledge(p: params.Params, name: str, model: Any, network: Network, *, train: Shard, val: Shard) -> _Knowledge:
    if name == "xception":
        # Its training has left the features of all photographs; those of blocks trained further are computed here.
        base = model.get_layer("xception")
        extracted = features.extract(
            [val, train],
            model=base,
            weights_digest=weights.digest(base),
            image_size=model.input_shape[1],
            precision=p.train_xception.precision,
            keep=False,  # they are what the training of Xception has put out
        )
        of_val, of_train = np.split(extracted.rows, [len(val)])
        rows = sorted(train.sample(familiarity.most_rows(of_val.shape[1])))
        return _Knowledge(network.decide(of_val), of_val, of_train[rows], rows)
    side = model.input_shape[1]
    asked = inference.on_shard(val, network, side=side, what=f"val, {name}")
    rows = sorted(train.sample(familiarity.most_rows(asked.features.shape[1])))
    known = inference.on_shard(train, network, side=side, rows=rows, what=f"train, {name}")
    return _Knowledge(asked.logits, asked.features, known.features, rows)


def _learn(p: params.Params, known: _Knowledge, *, train: Shard, val: Shard) -> _Learnt:
    e = p.evaluate
    temperature = calibration.temperature(val.labels, known.logits)
    ids = [train.ids[row] for row in known.rows]
    profile = familiarity.profile(known.train, ids, train.labels[known.rows], val=known.val)
    sureness = None
    if e.answer_accuracy is not None:
        probabilities = probability(known.logits, temperature)
        right = (probabilities >= e.threshold) == (val.labels == 1)
        familiar = profile.familiarity(known.val) >= (e.unfamiliar or 0)
        sure = doubt.sureness(probabilities, threshold=e.threshold)
        sureness = doubt.level(sure[familiar], right[familiar], accuracy=e.answer_accuracy, confidence=e.confidence)
    return _Learnt(temperature, sureness, profile)


def _reference(
    p: params.Params, known: _Knowledge, learnt: _Learnt, *, val: Shard, measured: np.ndarray
) -> reference.Reference:
    rows = val.sample(reference.MOST)
    return reference.make(
        val,
        rows,
        measured,
        features=known.val[rows],
        probabilities=probability(known.logits[rows], learnt.temperature),
        familiarity=learnt.profile.familiarity(known.val[rows]),
        threshold=p.evaluate.threshold,
    )
