"""Served forms of a few kB, made of any `.keras` file, and a classifier whose answers tell which photograph it was."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from catdog.answers import asking, familiarity, form
from catdog.answers.classifier import Classifier
from catdog.base import files
from catdog.photographs import photos

SIDE, IMAGE_SIZE = 32, 64
CLASSES = ("cat", "dog")


class Made(NamedTuple):
    """What `form.open_form` takes."""

    keras_file: Path
    folder: Path
    settings: form.Settings


def tiny_model(seed: int = 32, *, side: int = SIDE, filters: int = 4) -> Any:
    """A Keras model of few filters; by this seed it finds both cats and dogs among made-up photographs."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((side, side, 3)),
            layers.Rescaling(1 / 127.5, offset=-1),
            layers.Conv2D(filters, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(1, activation="sigmoid", kernel_initializer=keras.initializers.RandomNormal(stddev=4)),
        ]
    )


def make(keras_file: Path, folder: Path, *, image_size: int = IMAGE_SIZE, **settings: Any) -> Made:
    """The served form of a `.keras` file, its other files in a new `folder`; `settings` are those of `form.Settings`.

    Its profile is of random features, seeded by its size.
    """
    model = form.read(keras_file)
    folder.mkdir(parents=True)
    asking.export(model, folder)
    width = asking.by_openvino(folder, bfloat16=False).ask(np.zeros((1, *model.input_shape[1:]), np.uint8)).features
    random_profile(width.shape[1]).save(folder / form.PROFILE)
    known: dict[str, Any] = {
        "classes": CLASSES,
        "image_size": image_size,
        "side": model.input_shape[1],
        "threshold": 0.5,
        "model_sha256": files.sha256(keras_file),
        "digests": {file.name: files.sha256(file) for file in sorted(folder.iterdir())},
    }
    return Made(keras_file, folder, form.Settings(**known | settings))


def random_profile(width: int, *, count: int = 60) -> familiarity.Profile:
    rng = np.random.default_rng(width)
    train, val = rng.random((count, width), np.float32), rng.random((count, width), np.float32)
    ids, labels = [f"id{number}" for number in range(count)], np.arange(count) % 2
    return familiarity.profile(train, ids, labels, val=val)


def expected(keras_file: Path, photographs: list[bytes], *, image_size: int = IMAGE_SIZE) -> np.ndarray:
    """What the Keras model itself says of the photographs in their standard form: (n,)."""
    model = form.read(keras_file)
    standard = [photos.standardise(data, image_size=image_size).jpeg for data in photographs]
    pixels = np.stack([photos.pixels(jpeg, model.input_shape[1]) for jpeg in standard])
    return model.predict(pixels.astype(np.float32), verbose=0)[:, 0].astype(np.float64)


def brightness(batches: list[int] | None = None, **settings: Any) -> Classifier:
    """Its probability is the mean brightness, so that each answer tells which photograph it is for.

    Args:
        batches: gets the size of each batch that it is asked about.
    """

    def trunk(given: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
        for pixels in given:
            assert pixels.dtype == np.uint8
            assert pixels.shape[1:] == (SIDE, SIDE, 3)
            if batches is not None:
                batches.append(len(pixels))
            maps = pixels.mean(axis=3, keepdims=True, dtype=np.float32) / 255
            yield [maps.mean(axis=(1, 2)), maps]

    def head(given: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
        for features in given:
            yield [np.log(features / (1 - features)), 1 / (features * (1 - features))]

    known: dict[str, Any] = {"classes": CLASSES, "image_size": IMAGE_SIZE, "side": SIDE, "threshold": 0.5}
    return Classifier(asking.Network(trunk, head, engine="brightness"), **known | settings)
