"""The convolutional network of our own: pixels 0..255 to the probability of the second class."""

from typing import Any

import keras
from keras import layers

from catdog.base import params
from catdog.training.cnn.convolution import MatrixGradientConv2D
from catdog.training.cnn.normalization import FusedBatchNormalization


def cnn(p: params.TrainCnn, *, image_size: int | None = None, fused: bool = False) -> keras.Model:
    """A plain convolutional network: a stem, then two 3x3 convolutions per entry of `filters`, pooling between.

    Global average pooling makes it fit any image size of at least 2 ** (len(filters) + 1) pixels, which is what lets it
    train small to large; `image_size` declares one. `fused` takes layers that train faster in place of Keras' own; the
    weights are the same, in the same order.
    """
    normalization = FusedBatchNormalization if fused else layers.BatchNormalization

    def convolution(x: Any, filters: int, *, kernel: int = 3, strides: int = 1, name: str) -> Any:
        # The stem's map is large, where Keras' own layer is the fastest.
        layer = MatrixGradientConv2D if fused and strides == 1 else layers.Conv2D
        x = layer(
            filters,
            kernel,
            strides=strides,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            name=f"{name}_conv",
        )(x)
        x = normalization(momentum=0.97, name=f"{name}_norm")(x)
        return layers.ReLU(name=f"{name}_relu")(x)

    inputs = keras.Input((image_size, image_size, 3), name="pixels")
    x = layers.Rescaling(1 / 127.5, offset=-1, name="rescale")(inputs)
    x = convolution(x, p.filters[0], kernel=5, strides=2, name="stem")
    for block, filters in enumerate(p.filters[1:], start=1):
        x = layers.MaxPooling2D(name=f"block{block}_pool")(x)
        x = convolution(x, filters, name=f"block{block}_1")
        x = convolution(x, filters, name=f"block{block}_2")
    x = layers.GlobalAveragePooling2D(name="average")(x)
    x = layers.Dropout(p.dropout, name="dropout")(x)
    # The verdict stays in float32 under mixed precision: a sigmoid near 0 or 1 needs the digits.
    outputs = layers.Dense(1, activation="sigmoid", dtype="float32", name="probability")(x)
    return keras.Model(inputs, outputs, name="cnn")
