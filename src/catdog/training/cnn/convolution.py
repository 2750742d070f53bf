"""Convolution whose filter gradient is a matrix product where the map is small, as it is deep in a network.

There oneDNN's own kernel has too little to do at a time: with AMX, at 4 x 4 pixels and 384 filters, the filter gradient
takes it four times as long as the convolution itself.
"""

from typing import Any

from keras import layers


class MatrixGradientConv2D(layers.Conv2D):
    """`keras.layers.Conv2D`, 3x3, "same", stride 1, channels last, with the same weights and results.

    For training only: what is saved is a model of Keras' own layers with these weights.
    """

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        height, width, channels = inputs.shape[1:]
        if None in (height, width) or 4 * height * width > channels + self.filters:
            return super().convolution_op(inputs, kernel)
        return _convolve(inputs, kernel)


def _convolve(inputs: Any, kernel: Any) -> Any:
    import tensorflow as tf

    @tf.custom_gradient
    def convolve(inputs: Any, kernel: Any) -> Any:
        def gradient(upstream: Any) -> tuple[Any, Any]:
            to_inputs = tf.nn.conv2d_transpose(upstream, kernel, tf.shape(inputs), strides=1, padding="SAME")
            rows = tf.reshape(_neighbourhoods(inputs), [-1, 9 * inputs.shape[-1]])
            to_kernel = tf.matmul(rows, tf.reshape(upstream, [-1, upstream.shape[-1]]), transpose_a=True)
            return to_inputs, tf.reshape(to_kernel, kernel.shape)

        return tf.nn.conv2d(inputs, kernel, strides=1, padding="SAME"), gradient

    return convolve(inputs, tf.cast(kernel, inputs.dtype))


def _neighbourhoods(inputs: Any) -> Any:
    """The 3 x 3 pixels around each one, side by side: (n, height, width, 9 * channels)."""
    import tensorflow as tf

    height, width = inputs.shape[1:3]
    padded = tf.pad(inputs, [[0, 0], [1, 1], [1, 1], [0, 0]])
    return tf.concat([padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=-1)
