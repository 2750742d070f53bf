"""The networks: what is saved answers as what was trained, whatever sped up the training."""

import json
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from training_fixtures import params

from catdog.training.cnn import convolution, recipe
from catdog.training.cnn import network as cnn_network
from catdog.training.cnn.convolution import MatrixGradientConv2D
from catdog.training.cnn.normalization import FusedBatchNormalization
from catdog.training.cnn.optimizer import FusedAdamW
from catdog.training.xception import network as xception_network

P = params()
RNG = np.random.default_rng(0)


def pixels(count: int, size: int) -> np.ndarray:
    return RNG.integers(0, 256, (count, size, size, 3)).astype(np.float32)


def values(tensor) -> np.ndarray:
    return np.asarray(keras.ops.cast(tensor, "float32"))


# ---- the CNN --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [lambda: cnn_network.cnn(P.train_cnn), lambda: xception_network.head(P.train_xception)]
)
def test_every_layer_has_a_name_given_by_us(make):
    # Names that Keras makes up count on: those of a second network would differ.
    names = [layer.name for layer in make().layers]
    assert [layer.name for layer in make().layers] == names


@pytest.mark.parametrize("fused", [False, True])
def test_the_cnn_takes_every_size_from_the_smallest(fused):
    p = params(train_cnn={"filters": [4, 6, 8], "image_sizes": [16, 24]}).train_cnn
    model = cnn_network.cnn(p, fused=fused)
    for size in (16, 17, 31, 48):
        answers = values(model(pixels(2, size)))
        assert answers.shape == (2, 1)
        assert ((answers > 0) & (answers < 1)).all()
    assert cnn_network.cnn(p, image_size=24, fused=fused).input_shape == (None, 24, 24, 3)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_a_finished_cnn_is_plain_keras_with_the_same_answers(policy, tmp_path):
    p = params(train_cnn={"precision": policy, "dropout": 0.5})
    trained = recipe.compiled(p, photographs=64)
    assert any(isinstance(layer, FusedBatchNormalization) for layer in trained.layers)
    assert trained.dtype_policy.name == policy
    trained.fit(pixels(64, 24), RNG.integers(0, 2, (64, 1)), batch_size=16, epochs=2, verbose=0)
    finished = recipe.plain(trained, p.train_cnn)

    batch = pixels(8, 24)
    # bfloat16 has 8 bits of precision, and the layers' roundings add up.
    np.testing.assert_allclose(
        values(finished(batch)), values(trained(batch)), atol={"float32": 1e-5, "mixed_bfloat16": 0.03}[policy]
    )
    assert finished.input_shape == (None, 24, 24, 3)
    assert finished.count_params() == trained.count_params()
    assert {variable.dtype for variable in finished.variables if variable.name != "seed_generator_state"} == {"float32"}

    file = tmp_path / "model.keras"
    finished.save(file)
    assert "catdog" not in zipfile.ZipFile(file).read("config.json").decode()
    if policy == "float32":
        np.save(tmp_path / "batch.npy", batch)
        assert_loads_without_us(file, tmp_path / "batch.npy", values(finished(batch)))


def assert_loads_without_us(file, batch, answers):
    code = """
import json, sys
sys.modules["catdog"] = None
import keras, numpy
model = keras.saving.load_model(sys.argv[1], safe_mode=True)
print(json.dumps(numpy.asarray(model(numpy.load(sys.argv[2]))).tolist()))
"""
    said = subprocess.run(
        [sys.executable, "-c", code, str(file), str(batch)], capture_output=True, text=True, check=True
    )
    np.testing.assert_allclose(json.loads(said.stdout.splitlines()[-1]), answers, atol=1e-6)


# ---- batch normalization --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(16, 8, 8, 5), (3, 2, 2, 5), (1, 1, 1, 5)])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_the_fused_normalization_is_that_of_keras(policy, shape):
    """Outputs, gradients and moving statistics; the latter are float32 under either policy."""
    import tensorflow as tf

    # Of numbers near 10, bfloat16 keeps 1/32; statistics and gradients of gamma add up float32 numbers.
    tolerance = {"float32": 1e-4, "mixed_bfloat16": 0.0625}[policy]
    ours, theirs = (
        kind(momentum=0.9, dtype=policy) for kind in (FusedBatchNormalization, keras.layers.BatchNormalization)
    )
    start = [1 + RNG.normal(size=5), RNG.normal(size=5), RNG.normal(size=5), RNG.uniform(0.5, 2, size=5)]
    for layer in (ours, theirs):
        layer.build(shape)
        layer.set_weights(start)
    assert [w.path.split("/")[-1] for w in ours.weights] == [w.path.split("/")[-1] for w in theirs.weights]

    for _ in range(3):
        x = tf.constant(RNG.normal(RNG.normal(size=5) * 2, 3, size=shape), tf.float32)
        weight = RNG.normal(size=shape)
        found = []
        for layer in (ours, theirs):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x, training=True)
                loss = tf.reduce_sum(tf.cast(y, tf.float32) * weight)
            found.append([y, *tape.gradient(loss, [x, *(w.value for w in layer.trainable_weights)])])
        for mine, reference in zip(*found, strict=True):
            scale = max(1.0, float(np.abs(values(reference)).max()))
            np.testing.assert_allclose(values(mine), values(reference), atol=tolerance * scale)
        assert found[0][0].dtype == found[1][0].dtype

    for mine, reference in zip(ours.non_trainable_weights, theirs.non_trainable_weights, strict=True):
        assert mine.dtype == "float32"
        np.testing.assert_allclose(values(mine), values(reference), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(values(ours(x)), values(theirs(x)), atol=tolerance)

    before = values(ours.moving_mean)
    ours.trainable = False
    ours(x, training=True)
    np.testing.assert_array_equal(values(ours.moving_mean), before)


# ---- convolution ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("side", [(1, 1), (2, 2), (3, 5), (4, 4), (16, 16)])
def test_the_convolution_with_matrix_gradient_is_that_of_keras(policy, side):
    """Outputs and gradients, on small maps and on those that are left to Keras' own layer."""
    import tensorflow as tf

    tolerance = {"float32": 1e-5, "mixed_bfloat16": 0.02}[policy]
    ours, theirs = (
        kind(24, 3, padding="same", use_bias=False, dtype=policy)
        for kind in (MatrixGradientConv2D, keras.layers.Conv2D)
    )
    shape = (3, *side, 40)
    x, weight = tf.constant(RNG.normal(size=shape), tf.float32), RNG.normal(size=(3, *side, 24))
    start = RNG.normal(size=(3, 3, 40, 24))
    found = []
    for layer in (ours, theirs):
        layer.build(shape)
        layer.set_weights([start])

        @tf.function
        def gradients(layer=layer):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x)
                loss = tf.reduce_sum(tf.cast(y, tf.float32) * weight)
            return y, *tape.gradient(loss, [x, layer.kernel.value])

        found.append(gradients())
    for mine, reference in zip(*found, strict=True):
        assert mine.dtype == reference.dtype
        scale = float(np.abs(values(reference)).max())
        np.testing.assert_allclose(values(mine), values(reference), atol=tolerance * scale)


def test_only_small_maps_take_the_matrix_product(monkeypatch):
    taken = []
    monkeypatch.setattr(convolution, "_convolve", lambda inputs, kernel: taken.append(inputs.shape[1:3]) or inputs)
    layer = MatrixGradientConv2D(384, 3, padding="same", use_bias=False)
    layer.build((None, None, None, 256))
    for side in (2, 12, 13, 40):
        layer(np.zeros((1, side, side, 256), np.float32))
    assert taken == [(2, 2), (12, 12)]


# ---- optimizer ------------------------------------------------------------------------------------------------------


def stepped(kind: type[keras.optimizers.Optimizer], gradients: list[list[np.ndarray]]) -> tuple[list, list[str]]:
    """Variables and the optimizer's state after a step for each entry of `gradients`, and their names."""
    import tensorflow as tf

    rng = np.random.default_rng(1)
    variables = [
        keras.Variable(rng.normal(size=g.shape), name=name)
        for name, g in zip(("kernel", "bias"), gradients[0], strict=True)
    ]
    schedule = keras.optimizers.schedules.CosineDecay(0.01, decay_steps=len(gradients))
    optimizer = kind(schedule, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.build(variables)

    @tf.function
    def step(*given):
        optimizer.apply(list(given), variables)

    for each in gradients:
        step(*(tf.constant(g, tf.float32) for g in each))
    everything = [*variables, *optimizer.variables]
    return [values(v) for v in everything], [v.name for v in everything]


def test_the_fused_optimizer_is_that_of_keras():
    gradients = [[RNG.normal(size=(3, 3, 4, 6)) * 10.0**-k, RNG.normal(size=6)] for k in range(6)]
    ours, names = stepped(FusedAdamW, gradients)
    theirs, theirs_names = stepped(keras.optimizers.AdamW, gradients)
    assert names == theirs_names
    for mine, reference in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, reference, rtol=1e-5, atol=1e-7)
    assert np.abs(ours[0] - np.random.default_rng(1).normal(size=(3, 3, 4, 6))).max() > 0.01


# ---- Xception -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base() -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.applications.Xception(include_top=False, weights=None, pooling="avg", input_shape=(71, 71, 3))


def test_xception_is_the_head_on_the_features_of_its_base(base):
    head = xception_network.head(P.train_xception)
    model = xception_network.xception(base, head, image_size=71)
    batch = pixels(2, 71)
    features = base(batch / 127.5 - 1, training=False)
    np.testing.assert_allclose(values(model(batch)), values(head(features)), atol=1e-5)
    # A head without a hidden layer is a logistic regression, on the root.
    plain = xception_network.head(P.train_xception.model_copy(update={"hidden": 0}), features=12)
    assert plain.count_params() == 13


def test_features_of_nothing_have_gradients_that_fine_tuning_can_use():
    """A relu leaves many features at 0, where a root alone is infinitely steep."""
    import tensorflow as tf

    head = xception_network.head(P.train_xception, features=12)
    features = tf.zeros((2, 12))
    with tf.GradientTape() as tape:
        tape.watch(features)
        answers = head(features)
    gradient = values(tape.gradient(answers, features))
    assert np.isfinite(gradient).all()
    assert gradient.any()


def test_a_saved_xception_needs_none_of_our_code(base, tmp_path):
    model = xception_network.xception(base, xception_network.head(P.train_xception), image_size=71)
    batch = pixels(2, 71)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "batch.npy", batch)
    assert_loads_without_us(tmp_path / "model.keras", tmp_path / "batch.npy", values(model(batch)))


@pytest.mark.parametrize("blocks", [0, 2, 14])
def test_thaw_trains_the_last_blocks_and_no_normalization(base, blocks):
    xception_network.thaw(base, blocks=blocks)
    trained = {variable.path.split("/")[0] for variable in base.trainable_variables}
    assert {name.split("_")[0] for name in trained} == {f"block{n}" for n in range(15 - blocks, 15)}
    assert not any("_bn" in name for name in trained)


def test_fine_tuning_moves_the_last_block_and_nothing_else_of_the_base(base):
    xception_network.thaw(base, blocks=1)
    model = xception_network.xception(base, xception_network.head(P.train_xception), image_size=71)
    model.compile(keras.optimizers.SGD(0.1), loss="binary_crossentropy", jit_compile=False)
    before = {variable.path: values(variable) for variable in base.variables}
    model.train_on_batch(pixels(2, 71), np.array([[0.0], [1.0]]))
    moved = {v.path.split("/")[0] for v in base.variables if (values(v) != before[v.path]).any()}
    assert moved == {"block14_sepconv1", "block14_sepconv2"}
