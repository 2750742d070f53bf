"""A trained model in the two parts that answer: the trunk, which sees, and the head, which decides."""

from collections.abc import Callable
from functools import partial
from typing import Any

from catdog.base.errors import UserError


def parts(model: Any) -> tuple[Any, Any]:
    """The trunk and the head of a Keras model that averages its last maps into features.

    Returns:
        trunk: pixels, float32 (n, side, side, 3) in 0..255, to features (n, k) and the maps that they are averages of,
            (n, height, width, k).
        head: features (n, k) to the logit of the second class (n, 1) and its gradient to the features (n, k).

    Raises:
        UserError: the model is made of other layers.
    """
    import keras

    base = next((layer for layer in model.layers if isinstance(layer, keras.Model)), None)
    body = _operations(base or model)
    average = next((x for x in reversed(body) if isinstance(x, keras.layers.GlobalAveragePooling2D)), None)
    if average is None:
        raise UserError(f"{model.name} should average its last maps into features (GlobalAveragePooling2D)")
    trunk = keras.Model((base or model).inputs, [average.output, average.input])
    after = body[body.index(average) + 1 :]
    if base:
        pixels = keras.Input(model.input_shape[1:], name="pixels")
        x: Any = pixels
        around = _operations(model)
        place = around.index(base)
        for layer in around[1:place]:
            x = layer(x)
        trunk = keras.Model(pixels, trunk(x, training=False))
        after = [operation for each in around[place + 1 :] for operation in _operations(each)]
    return trunk, _head(after, width=average.output.shape[-1])


def _operations(part: Any) -> list[Any]:
    """Its layers in their order, and what is no layer, such as a root; of what is no model, itself."""
    return list(getattr(part, "operations", None) or getattr(part, "layers", [part]))


def _head(operations: list[Any], *, width: int) -> Any:
    """The head's operations, and their gradients, written out: they answer where nothing can differentiate."""
    import keras
    from keras import layers as kinds
    from keras import ops

    features = keras.Input((width,), name="features")
    x: Any = features
    back: list[Callable[[Any], Any]] = []
    for operation in operations:
        match operation:
            case kinds.InputLayer() | kinds.Dropout():
                continue
            case kinds.Rescaling():
                x = operation(x)
                back.append(partial(ops.multiply, operation.scale))
            case kinds.Dense(activation=keras.activations.relu):
                x = operation(x)
                back.append(partial(_through_relu, x, operation.kernel))
            case kinds.Dense(activation=keras.activations.sigmoid, units=1):
                # The logit: where the sigmoid is sure, its own gradient vanishes.
                x = ops.matmul(x, operation.kernel) + operation.bias
                back.append(partial(_through_weights, operation.kernel))
            case _ if type(operation).__name__ == "Sqrt":
                x = operation(x)
                back.append(partial(_through_root, x))
            case _:
                raise UserError(f"a head should be of Dense, Rescaling, sqrt and Dropout. Received: {operation}")
    gradient: Any = ops.ones_like(x)
    for step in reversed(back):
        gradient = step(gradient)
    return keras.Model(features, [x, gradient], name="answering_head")


def _through_weights(kernel: Any, gradient: Any) -> Any:
    from keras import ops

    return ops.matmul(gradient, ops.transpose(kernel))


def _through_relu(outputs: Any, kernel: Any, gradient: Any) -> Any:
    from keras import ops

    return _through_weights(kernel, gradient * ops.cast(outputs > 0, gradient.dtype))


def _through_root(root: Any, gradient: Any) -> Any:
    return 0.5 * gradient / root
