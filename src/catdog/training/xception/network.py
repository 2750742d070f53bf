"""Xception under a head of our own: pixels 0..255 to the probability of the second class."""

import keras
from keras import layers

from catdog.base import params


def head(p: params.TrainXception, *, features: int = 2048) -> keras.Model:
    """What is trained on Xception's frozen features (n, `features`), none negative: root, dense, dropout, sigmoid."""
    inputs = keras.Input((features,), name="features", dtype="float32")
    # Few features are large: their root is easier to learn from. At 0 it is infinitely steep, hence the offset.
    x = keras.ops.sqrt(layers.Rescaling(1.0, offset=1e-4, name="offset", dtype="float32")(inputs))
    if p.hidden:
        x = layers.Dropout(p.dropout, name="features_dropout")(x)
        x = layers.Dense(p.hidden, activation="relu", name="hidden", dtype="float32")(x)
    x = layers.Dropout(p.dropout, name="dropout", dtype="float32")(x)
    outputs = layers.Dense(1, activation="sigmoid", name="probability", dtype="float32")(x)
    return keras.Model(inputs, outputs, name="head")


def xception(base: keras.Model, head: keras.Model, *, image_size: int) -> keras.Model:
    """`base` (Xception without top, averaged to features) under `head`: one model from pixels to probability."""
    inputs = keras.Input((image_size, image_size, 3), name="pixels")
    x = layers.Rescaling(1 / 127.5, offset=-1, name="rescale")(inputs)
    # Never in training mode: its batch statistics stay ImageNet's, also while its last blocks are fine-tuned.
    x = base(x, training=False)
    return keras.Model(inputs, head(x), name="xception")


def thaw(base: keras.Model, *, blocks: int) -> None:
    """Make the last `blocks` of Xception's 14 trainable and freeze the rest; batch normalization stays frozen."""
    first = 14 - blocks + 1
    base.trainable = True
    for layer in base.layers:
        block = layer.name.split("_")[0].removeprefix("block")
        in_last = block.isdigit() and int(block) >= first
        layer.trainable = in_last and not isinstance(layer, layers.BatchNormalization)
