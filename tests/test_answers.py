"""What answers: a network's parts on either engine, familiarity, probability, the served form; without TensorFlow."""

import io
import json
import os
import pickle
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from conftest import jpeg
from faults import wait_until
from hypothesis import given
from hypothesis import strategies as st
from keras import layers
from registry_fixtures import deployed_twice
from scipy import special, stats
from served_fixtures import SIDE, Made, brightness, expected, make, random_profile, tiny_model
from training_fixtures import params, small_xception

from catdog.answers import asking, classifier, familiarity, form, network
from catdog.answers.asking import BATCH, Asked, Network
from catdog.base.errors import UserError
from catdog.base.files import sha256
from catdog.engines import openvino, processor
from catdog.training.cnn import network as cnn_network
from catdog.training.xception import network as xception_network

pytest_plugins = ["registry_fixtures"]
P = params()
RNG = np.random.default_rng(0)


def pixels(count: int, side: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


# ---- the two parts of a network -------------------------------------------------------------------------------------


def cnn() -> keras.Model:
    keras.utils.set_random_seed(1)
    model = cnn_network.cnn(P.train_cnn, image_size=24)
    for layer in model.layers:  # as after a training
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([RNG.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    return model


def xception(hidden: int = 8) -> keras.Model:
    keras.utils.set_random_seed(2)
    base = keras.applications.Xception(
        include_top=False, weights=None, pooling="avg", input_shape=(71, 71, 3), name="xception"
    )
    head = xception_network.head(P.train_xception.model_copy(update={"hidden": hidden}))
    return xception_network.xception(base, head, image_size=71)


AVERAGE = layers.GlobalAveragePooling2D


def of_layers(*after: layers.Layer) -> keras.Model:
    return keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3), *after])


def on_a_base(*after: layers.Layer, together: bool = False) -> keras.Model:
    """A base under further layers, which are a model of their own if `together`."""
    inputs = keras.Input((8, 8, 3))
    x = of_layers(AVERAGE())(inputs)
    for layer in [keras.Sequential([*after])] if together else after:
        x = layer(x)
    return keras.Model(inputs, x)


def sigmoid() -> layers.Layer:
    return layers.Dense(1, activation="sigmoid")


MODELS = {"cnn": cnn, "xception": xception, "xception without a hidden layer": lambda: xception(0)}
MODELS |= {"small xception": small_xception, "sequential": tiny_model}
# As Keras' guide to transfer has it.
MODELS |= {"on a base": lambda: on_a_base(layers.Dropout(0.2), layers.Dense(6, activation="relu"), sigmoid())}


@pytest.mark.parametrize("name", MODELS)
def test_trunk_and_head_are_the_model_and_the_gradient_is_that_of_tensorflow(name):
    import tensorflow as tf

    model = MODELS[name]()
    given = pixels(5, model.input_shape[1]).astype(np.float32)
    trunk, head = network.parts(model)
    features, maps = trunk(given)
    np.testing.assert_allclose(features, np.mean(maps, axis=(1, 2)), atol=1e-5 * np.max(features))
    with tf.GradientTape() as tape:
        tape.watch(features)
        logit, gradient = head(features)
    np.testing.assert_allclose(gradient, tape.gradient(logit, features), atol=1e-5 * np.abs(gradient).max())
    np.testing.assert_allclose(special.expit(logit), model.predict(given, verbose=0), atol=1e-6)
    assert np.asarray(gradient).any()


def test_a_sigmoid_that_is_sure_still_has_logits_and_gradients():
    model = tiny_model()
    model.layers[-1].set_weights([1000 * weight for weight in model.layers[-1].get_weights()])
    asked = asking.by_keras(model).ask(pixels(8, SIDE))
    assert set(model.predict(pixels(8, SIDE).astype(np.float32), verbose=0)[:, 0]) <= {0.0, 1.0}
    assert len(set(asked.logits)) == 8
    assert np.abs(asked.evidence).max(axis=(1, 2)).min() > 0


def test_features_of_nothing_have_a_finite_gradient():
    """A relu leaves many features at 0, where a root alone is infinitely steep."""
    _, head = network.parts(small_xception())
    logit, gradient = head(np.zeros((2, 5), np.float32))
    assert np.isfinite(logit).all()
    assert np.isfinite(gradient).all()


OTHERS = {
    "flattened": lambda: of_layers(layers.Flatten(), sigmoid()),
    "the largest": lambda: of_layers(layers.GlobalMaxPooling2D(), sigmoid()),
    "tanh": lambda: of_layers(AVERAGE(), layers.Dense(4, activation="tanh"), sigmoid()),
    "two classes": lambda: of_layers(AVERAGE(), layers.Dense(2, activation="softmax")),
    "a logit": lambda: of_layers(AVERAGE(), layers.Dense(1)),
    "two sigmoids": lambda: of_layers(AVERAGE(), layers.Dense(2, activation="sigmoid")),
    "normalized": lambda: of_layers(AVERAGE(), layers.BatchNormalization(), sigmoid()),
    "on a base, normalized": lambda: on_a_base(layers.LayerNormalization(), sigmoid()),
    "on a base, normalized together": lambda: on_a_base(layers.LayerNormalization(), sigmoid(), together=True),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_model_of_other_layers_is_told_in_one_line(name):
    with pytest.raises(UserError, match=r"should (average its last maps|be of Dense, Rescaling, sqrt)") as told:
        network.parts(OTHERS[name]())
    assert "\n" not in str(told.value)


# ---- either engine --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["cnn", "small xception", "sequential"])
def both(request, tmp_path_factory) -> tuple[keras.Model, Path]:
    """A model, and the folder of its network for OpenVINO."""
    model, folder = MODELS[request.param](), tmp_path_factory.mktemp("network")
    asking.export(model, folder)
    return model, folder


def assert_near(ours: Asked, theirs: Asked, tolerance: float) -> None:
    for name, mine, reference in zip(Asked._fields, ours, theirs, strict=True):
        scale = max(1.0, float(np.abs(reference).max()))
        np.testing.assert_allclose(mine, reference, atol=tolerance * scale, err_msg=name)


@pytest.mark.parametrize("count", [1, 5, 16, 40])
def test_openvino_says_what_keras_says(both, count):
    model, folder = both
    given = pixels(count, model.input_shape[1], seed=count)
    ours, theirs = asking.by_openvino(folder, bfloat16=False).ask(given), asking.by_keras(model).ask(given)
    assert_near(ours, theirs, 1e-5)
    assert [part.dtype for part in ours] == [np.float64, np.float32, np.float32] == [part.dtype for part in theirs]
    assert [part.shape[0] for part in ours] == [count] * 3
    assert_near(asking.by_openvino(folder, bfloat16=True).ask(given), theirs, 0.05)


def test_bfloat16_is_what_it_says(both):
    if not processor.has_bfloat16():
        pytest.skip("this processor does not compute in bfloat16")
    model, folder = both
    given = pixels(4, model.input_shape[1])
    exact, rounded = (asking.by_openvino(folder, bfloat16=on).ask(given) for on in (False, True))
    assert np.abs(exact.features - rounded.features).max() > 1e-5 * np.abs(exact.features).max()


def test_the_engine_is_named(both):
    model, folder = both
    assert asking.by_keras(model).engine == "Keras, float32"
    assert [asking.by_openvino(folder, bfloat16=on).engine for on in (False, True)] == [
        "OpenVINO, float32",
        "OpenVINO, bfloat16",
    ]


def test_dropout_and_normalization_stand_still(both):
    model, folder = both
    given = pixels(8, model.input_shape[1])
    for asks in (asking.by_keras(model), asking.by_openvino(folder, bfloat16=False)):
        np.testing.assert_array_equal(asks.ask(given).logits, asks.ask(given).logits)


def test_an_export_is_the_same_whatever_its_process_made_before(both, tmp_path):
    model, folder = both
    tiny_model(filters=7)
    asking.export(model, tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in asking.FILES} == {
        name: (folder / name).read_bytes() for name in asking.FILES
    }


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Made:
    folder = tmp_path_factory.mktemp("tiny")
    tiny_model().save(folder / "model.keras")
    return make(folder / "model.keras", folder / "answers")


def by(engine: str, made: Made, *, mirrored: bool = False) -> Network:
    if engine == "Keras":
        return asking.by_keras(form.read(made.keras_file), mirrored=mirrored)
    return asking.by_openvino(made.folder, bfloat16=False, mirrored=mirrored)


def batches(given: np.ndarray) -> Iterator[np.ndarray]:
    return (given[start : start + BATCH] for start in range(0, len(given), BATCH))


@pytest.mark.parametrize("engine", ["Keras", "OpenVINO"])
@pytest.mark.parametrize("count", [0, 1, 16, 17, 256, 257])
def test_a_stream_of_any_length_keeps_its_order(tiny, engine, count):
    given, asks = pixels(count, SIDE), by(engine, tiny)
    parts = list(asks.stream(batches(given)))
    assert [len(part.logits) for part in parts] == [len(batch) for batch in batches(given)]
    if count:
        logits = special.logit(form.read(tiny.keras_file).predict(given.astype(np.float32), verbose=0)[:, 0])
        assert np.unique(logits.round(5)).size > 0.9 * count  # else the order would not show
        for asked in (asking.joined(parts), asks.ask(given)):
            np.testing.assert_allclose(asked.logits, logits, atol=1e-4)


@pytest.mark.parametrize("engine", ["Keras", "OpenVINO"])
def test_a_stream_that_is_not_read_to_its_end_holds_up_nothing(tiny, engine):
    given, asks = pixels(200, SIDE), by(engine, tiny)
    stream = asks.stream(batches(given))
    first = next(stream)
    stream.close()
    del stream
    np.testing.assert_allclose(asks.ask(given[:BATCH]).logits, first.logits, atol=1e-6)


@pytest.mark.parametrize("engine", ["Keras", "OpenVINO"])
@pytest.mark.parametrize("count", [0, 1, 16, 35])
def test_features_that_are_known_are_decided_alike(tiny, engine, count):
    asks = by(engine, tiny)
    asked = asks.ask(pixels(max(count, 1), SIDE))
    decided = asks.decide(asked.features[:count])
    assert decided.dtype == np.float64
    np.testing.assert_allclose(decided, asked.logits[:count], atol=1e-5)


@pytest.mark.parametrize("engine", ["Keras", "OpenVINO"])
@pytest.mark.parametrize("count", [1, 16, 35])
def test_mirrored_it_says_the_mean_of_a_photograph_and_its_mirror_image(tiny, engine, count):
    given, straight = pixels(count, SIDE), by(engine, tiny)
    both = by(engine, tiny, mirrored=True)
    one, other = straight.ask(given), straight.ask(given[:, :, ::-1])
    assert np.abs(one.logits - other.logits).max() > 1e-3
    expected = [(one.logits + other.logits) / 2, (one.features + other.features) / 2]
    for asked in (both.ask(given), asking.joined(both.stream(batches(given)))):
        np.testing.assert_allclose(asked.logits, expected[0], atol=1e-5)
        np.testing.assert_allclose(asked.features, expected[1], atol=1e-5)
        np.testing.assert_allclose(asked.evidence, (one.evidence + other.evidence[:, :, ::-1]) / 2, atol=1e-5)
        assert [part.dtype for part in asked] == [part.dtype for part in one]
    np.testing.assert_allclose(both.ask(given[:, :, ::-1]).logits, expected[0], atol=1e-5)


# ---- many threads ---------------------------------------------------------------------------------------------------


class Slow:
    """A network that says the first pixel of each photograph, and waits in each pass until it may go on.

    Attributes:
        passes: how many photographs each batch had.
        breaks: raises where a photograph has this first pixel.
    """

    def __init__(self, breaks: int = -1) -> None:
        self.passes: list[int] = []
        self.breaks, self.go = breaks, threading.Event()
        self.network = Network(self._trunk, self._head, engine="slow")

    def _trunk(self, given: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
        for batch in given:
            self.passes.append(len(batch))
            assert self.go.wait(20)
            first = batch[:, 0, 0, 0].astype(np.float32)
            if self.breaks in first:
                raise RuntimeError(f"broken at {self.breaks}")
            yield [first[:, None], np.ones((len(batch), 1, 1, 1), np.float32) * first[:, None, None, None]]

    def _head(self, given: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
        for features in given:
            yield [features, np.ones_like(features)]

    def ask(self, *firsts: int, side: int = 2) -> list[float] | Exception:
        given = np.stack([np.full((side, side, 3), first, np.uint8) for first in firsts])
        try:
            asked = self.network.ask(given)
        except Exception as error:
            return error
        assert asked.logits.tolist() == asked.features[:, 0].tolist() == asked.evidence[:, 0, 0].tolist()
        return asked.logits.tolist()

    def at_once(self, *questions: dict[str, Any]) -> list[list[float] | Exception]:
        """The answers to questions that come while the first one of them is asked."""
        with ThreadPoolExecutor(len(questions)) as pool:
            answers = []
            for waiting, question in enumerate(questions):
                answers.append(pool.submit(self.ask, *question["firsts"], side=question.get("side", 2)))
                wait_until(lambda waiting=waiting: self.passes and len(self.network._waiting) == waiting)
            self.go.set()
            return [answer.result(timeout=20) for answer in answers]


def question(*firsts: int, side: int = 2) -> dict[str, Any]:
    return {"firsts": firsts, "side": side}


def test_threads_that_ask_at_the_same_time_share_a_pass_and_each_gets_its_own_answer():
    slow = Slow()
    assert slow.at_once(*[question(number) for number in range(31)]) == [[number] for number in range(31)]
    assert slow.passes == [1, 16, 14]


def test_questions_of_several_photographs_share_a_pass_as_far_as_a_batch_goes():
    slow = Slow()
    asked = [(200,), *[(number, number + 100, number + 50) for number in range(11)]]
    assert slow.at_once(*[question(*firsts) for firsts in asked]) == [list(firsts) for firsts in asked]
    assert slow.passes == [1, 15, 15, 3]


def test_a_question_beyond_a_batch_goes_by_itself_in_batches():
    slow = Slow()
    asked = [(200,), (1,), tuple(range(40)), (2,), (3,)]
    assert slow.at_once(*[question(*firsts) for firsts in asked]) == [list(firsts) for firsts in asked]
    assert slow.passes == [1, 1, 16, 16, 8, 2]


def test_an_error_reaches_all_who_shared_the_pass_and_nobody_else():
    slow = Slow(breaks=20)
    answers = slow.at_once(*[question(number) for number in range(40)])
    assert slow.passes == [1, 16, 16, 7]
    assert [str(each) for each in answers] == [
        "broken at 20" if 17 <= number < 33 else str([float(number)]) for number in range(40)
    ]
    slow.breaks = -1
    assert slow.ask(20) == [20]


def test_photographs_that_do_not_fit_together_are_an_error_and_hang_nobody():
    slow = Slow()
    answers = slow.at_once(question(1), question(2), question(3, side=4), question(4))
    assert answers[0] == [1]
    assert all(isinstance(each, ValueError) for each in answers[1:])
    assert slow.ask(5) == [5]


def test_many_threads_ask_a_real_network(tiny):
    asks, given = by("OpenVINO", tiny), pixels(120, SIDE)
    right = asks.ask(given).logits
    with ThreadPoolExecutor(24) as pool:
        asked = list(pool.map(lambda row: asks.ask(given[row : row + 1 + row % 3]).logits, range(117)))
    for row, logits in enumerate(asked):
        np.testing.assert_allclose(logits, right[row : row + 1 + row % 3], atol=1e-5)


# ---- familiarity ----------------------------------------------------------------------------------------------------

WIDTH = 48


def features(count: int, seed: int, *, noise: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Features of two classes, each near a subspace of six dimensions of its own, and the labels."""
    axes = np.random.default_rng(7).standard_normal((2, 6, WIDTH))
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    inside = np.einsum("nd,ndk->nk", random.standard_normal((count, 6)) + 3, axes[labels])
    return (inside + noise * random.standard_normal((count, WIDTH))).astype(np.float32), labels


@pytest.fixture(scope="module")
def known() -> familiarity.Profile:
    train, labels = features(600, 1)
    return familiarity.profile(train, [f"{number:064x}" for number in range(600)], labels, val=features(20_000, 2)[0])


@pytest.mark.parametrize("seed", range(3, 8))
def test_familiarity_is_uniform_on_other_photographs_of_the_same_kind(known, seed):
    shares = known.familiarity(features(500, seed)[0])
    assert stats.kstest(shares, "uniform").pvalue > 0.01
    assert ((shares >= 0) & (shares <= 1)).all()


def test_what_is_of_another_kind_is_less_familiar(known):
    other = np.random.default_rng(9).standard_normal((500, WIDTH)).astype(np.float32)
    assert known.familiarity(other).max() < 0.01
    assert stats.kstest(known.familiarity(features(500, 3, noise=0.6)[0]), "uniform").pvalue < 1e-6


def test_familiarity_is_of_directions_and_of_each_photograph_alone(known):
    given, _ = features(20, 5)
    shares = known.familiarity(given)
    assert known.familiarity(100 * given) == pytest.approx(shares, abs=1e-3)
    assert [known.familiarity(each[None])[0] for each in given] == pytest.approx(shares, abs=1e-3)
    assert np.isfinite(known.familiarity(np.zeros((2, WIDTH), np.float32))).all()
    assert known.familiarity(given[:0]).shape == (0,)


def test_the_ends_of_familiarity():
    profile = random_profile(6, count=40)
    profile.closeness[:] = -9.0  # every photograph is closer than those
    assert profile.familiarity(np.ones((1, 6), np.float32)).tolist() == [1.0]
    profile.closeness[:] = 9.0
    assert profile.familiarity(np.ones((1, 6), np.float32)).tolist() == [0.0]


def test_the_nearest_photographs_are_named_the_nearest_first(known):
    train, _ = features(600, 1)
    for row in (0, 17, 599):
        named = known.nearest(3 * train[row], 4)
        assert named[0] == f"{row:064x}"
        unit = train / np.linalg.norm(train, axis=1, keepdims=True)
        best = np.argsort(-(unit @ unit[row]))[:4]
        assert set(named) == {f"{place:064x}" for place in best}


@pytest.mark.parametrize("width", [4, 128, 2048])
def test_a_profile_keeps_within_its_bytes(tmp_path, width):
    most = familiarity.most_rows(width)
    assert most > 1000
    random = np.random.default_rng(0)
    train, val = random.random((most, width), np.float32), random.random((1000, width), np.float32)
    profile = familiarity.profile(train, ["f" * 64] * most, np.arange(most) % 2, val=val)
    profile.save(tmp_path / "profile.npz")
    # 1,000 of the 125,000 that there is room for.
    assert (tmp_path / "profile.npz").stat().st_size < familiarity.MOST_BYTES - 8 * 124_000


def test_few_photographs_make_a_profile_too():
    train, labels = features(4, 1)
    profile = familiarity.profile(train, list("abcd"), labels, val=features(3, 2)[0])
    assert np.isfinite(profile.familiarity(features(5, 3)[0])).all()


def test_a_profile_is_read_as_it_was_written_and_holds_no_pickle(known, tmp_path):
    path = tmp_path / "profile.npz"
    known.save(path)
    read = familiarity.load(path)
    for name, array in vars(known).items():
        np.testing.assert_array_equal(getattr(read, name), array)
        assert getattr(read, name).dtype == array.dtype
    assert read.familiarity(features(50, 4)[0]).tolist() == known.familiarity(features(50, 4)[0]).tolist()
    with np.load(path, allow_pickle=False) as arrays:
        assert all(arrays[name].dtype != object for name in arrays.files)


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def of_arrays(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def test_a_profile_that_is_damaged_is_told_in_one_line(tmp_path):
    path, ran = tmp_path / "profile.npz", tmp_path / "ran"
    random_profile(4).save(path)
    whole = path.read_bytes()
    arrays = vars(random_profile(4))
    plain = io.BytesIO()
    np.save(plain, np.zeros(3))
    damaged = [b"", b"nothing", b"PK\3\4", plain.getvalue(), pickle.dumps(Trap(ran)), whole[:100], whole[:-1]]
    damaged += [whole[: len(whole) // 2], of_arrays(closeness=np.zeros(3)), of_arrays(**arrays, more=np.zeros(3))]
    damaged += [of_arrays(**arrays | {"ids": np.array([Trap(ran)], object)})]
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"profile\.npz is damaged: ") as told:
            familiarity.load(path)
        assert "\n" not in str(told.value)
    assert not ran.exists()
    with pytest.raises(UserError, match="is damaged"):
        familiarity.load(tmp_path / "none.npz")


@pytest.mark.parametrize("seed", range(4))
def test_a_profile_with_a_byte_changed_is_refused_or_the_same(tmp_path, seed):
    path, profile = tmp_path / "profile.npz", random_profile(4)
    profile.save(path)
    whole, random = path.read_bytes(), np.random.default_rng(seed)
    with zipfile.ZipFile(path) as archive:
        places = [info.header_offset + offset for info in archive.infolist() for offset in range(0, 30, 3)]
    for place in [*places, *random.integers(0, len(whole), 60)]:
        data = bytearray(whole)
        data[place] ^= 1 << random.integers(8)
        path.write_bytes(data)
        try:
            read = familiarity.load(path)
        except UserError:
            continue
        assert all(np.array_equal(getattr(read, name), array) for name, array in vars(profile).items()), place


# ---- probability and answers ----------------------------------------------------------------------------------------


@given(st.lists(st.floats(-3.4e38, 3.4e38), min_size=1, max_size=20), st.floats(0.05, 20))
def test_probability_is_the_logistic_function_of_any_logit(logits, temperature):
    with np.errstate(all="raise", under="ignore"):
        found = classifier.probability(np.array(logits), temperature)
    np.testing.assert_allclose(found, special.expit(np.array(logits) / temperature), rtol=1e-12, atol=1e-300)
    both = found + classifier.probability(-np.array(logits), temperature)
    np.testing.assert_allclose(both, 1, rtol=1e-12)
    assert (np.diff(found[np.argsort(logits)]) >= 0).all()


def test_a_temperature_leaves_one_half_and_the_order_alone():
    logits = np.array([-30.0, -2, 0, 2, 30])
    for temperature in (0.05, 1, 20):
        found = classifier.probability(logits, temperature)
        assert found[2] == 0.5
        assert ((found >= 0.5) == (logits >= 0)).all()


def test_a_classifier_without_knobs_of_doubt_gives_every_photograph_a_class():
    model = brightness(profile=random_profile(1))
    answers = model.answers(model.ask(pixels(40, SIDE)))
    assert {answer.label for answer in answers} <= {"cat", "dog"}
    assert all(answer.familiarity is not None for answer in answers)
    bare = brightness(unfamiliar=0.9)  # without a profile there is nothing to be unfamiliar with
    asked = bare.ask(pixels(40, SIDE))
    assert {answer.familiarity for answer in bare.answers(asked)} == {None}
    assert {answer.label for answer in bare.answers(asked)} <= {"cat", "dog"}


def test_a_stream_of_answers_is_that_of_its_batches():
    model = brightness(sureness=0.5001, temperature=2.0)
    given = pixels(37, SIDE)
    assert list(model.stream(batches(given))) == model.answers(model.ask(given))
    assert [answer.label for answer in model.stream(batches(given), threshold=0.0)] == [
        "dog" if answer.probability >= 0.5001 else "unsure" for answer in model.answers(model.ask(given))
    ]
    assert list(model.stream(iter([]))) == []


# ---- the served form ------------------------------------------------------------------------------------------------

PHOTOGRAPHS = [jpeg(seed) for seed in range(12)]


def answers(made: Made, **settings: Any) -> list[classifier.Answer]:
    model = form.open_form(made.keras_file, made.folder, form.settings(made.settings.to_dict() | settings))
    return model.answers(model.ask(np.stack([model.pixels(data) for data in PHOTOGRAPHS])))


def probabilities(found: list[classifier.Answer]) -> np.ndarray:
    return np.array([answer.probability for answer in found])


def test_settings_are_read_as_they_were_written(tiny):
    learnt = {"temperature": 1.5, "sureness": 0.9, "unfamiliar": 0.01, "mirrored": True}
    settings = form.Settings(**vars(tiny.settings) | learnt)
    assert form.settings(settings.to_dict()) == settings
    assert form.settings(settings.to_dict() | {"of a later release": 1}) == settings
    old = {"classes": ["cat", "dog"], "image_size": 64, "threshold": 0.5, "model_sha256": "ab"}
    assert form.settings(old) == form.Settings(("cat", "dog"), 64, 0.5, "ab")


def test_where_openvino_is_missing_keras_answers_alike_and_says_so_once(tiny, monkeypatch, capsys):
    here = answers(tiny)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(openvino, "is_here", lambda: False)
    there = answers(tiny)
    assert capsys.readouterr().err == "notice: Keras answers, more slowly: OpenVINO is not installed here\n"
    np.testing.assert_allclose(probabilities(there), probabilities(here), atol=1e-3)
    np.testing.assert_allclose(probabilities(there), expected(tiny.keras_file, PHOTOGRAPHS), atol=1e-6)
    assert [answer.familiarity for answer in there] == pytest.approx([answer.familiarity for answer in here], abs=0.05)


@pytest.mark.parametrize("error", [RuntimeError("no such instruction\nat 0x7f"), ImportError("libopenvino.so")])
def test_where_openvino_fails_keras_answers_and_says_why(tiny, monkeypatch, capsys, error):
    def failing(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(openvino, "Program", failing)
    assert probabilities(answers(tiny)) == pytest.approx(expected(tiny.keras_file, PHOTOGRAPHS), abs=1e-6)
    why = str(error).splitlines()[0]
    assert capsys.readouterr().err == f"notice: Keras answers, more slowly: OpenVINO can't run here ({why})\n"


def test_a_network_that_openvino_cannot_read_is_answered_by_keras(tiny, tmp_path, capsys):
    for file in tiny.folder.iterdir():
        (tmp_path / file.name).write_bytes(b"nothing" if file.name == asking.TRUNK else file.read_bytes())
    digests = tiny.settings.digests | {asking.TRUNK: sha256(tmp_path / asking.TRUNK)}
    found = answers(tiny._replace(folder=tmp_path), digests=digests)
    assert probabilities(found) == pytest.approx(expected(tiny.keras_file, PHOTOGRAPHS), abs=1e-6)
    said = capsys.readouterr().err
    assert said.startswith("notice: Keras answers, more slowly: OpenVINO can't run here (")
    assert said.count("\n") == 1


@pytest.mark.parametrize(("judged", "has"), [(True, True), (True, False), (False, True), (False, False)])
def test_bfloat16_answers_where_it_was_judged_and_the_processor_has_it(tiny, monkeypatch, judged, has):
    monkeypatch.setattr(processor, "has_bfloat16", lambda: has)
    settings = form.settings(tiny.settings.to_dict() | {"bfloat16": judged})
    opened = form.open_form(tiny.keras_file, tiny.folder, settings)
    assert opened.network.engine == f"OpenVINO, {'bfloat16' if judged and has else 'float32'}"


@pytest.mark.parametrize(
    ("flags", "has"),
    [("fma avx512_bf16 sse", True), ("amx_bf16", True), ("avx512f avx512_vnni", False), (None, False)],
)
def test_what_the_processor_computes_in_is_read_from_its_flags(tmp_path, monkeypatch, flags, has):
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    if flags:
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n\nprocessor\t: 1\nflags\t\t: {flags}\n")
    assert processor.has_bfloat16() == has


def test_a_form_without_a_profile_knows_nothing_of_familiarity(tiny):
    digests = {name: digest for name, digest in tiny.settings.digests.items() if name != form.PROFILE}
    found = answers(tiny, digests=digests, unfamiliar=0.9)
    assert {answer.familiarity for answer in found} == {None}
    assert {answer.label for answer in found} <= {"cat", "dog"}


@pytest.mark.parametrize("name", ["model.keras", *asking.FILES, form.PROFILE])
def test_a_file_that_is_another_is_named(tiny, tmp_path, name):
    for file in [tiny.keras_file, *tiny.folder.iterdir()]:
        (tmp_path / file.name).write_bytes(file.read_bytes() + (b"\0" if file.name == name else b""))
    with pytest.raises(UserError, match=rf"{name} is not what was logged: its sha256 is"):
        answers(Made(tmp_path / "model.keras", tmp_path, tiny.settings))


# ---- without TensorFlow ---------------------------------------------------------------------------------------------

# A process in which neither TensorFlow nor Keras is installed, as far as anybody can find out.
WITHOUT = """
import json, sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        gone = name.partition(".")[0] in ("tensorflow", "keras")
        return None if gone else self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Without, sys.meta_path)
"""
PREDICT = (
    WITHOUT
    + """
from catdog.commands import cli
try:
    cli.main()
finally:
    print(json.dumps([name for name in ("mlflow", "openvino", "pandas") if name in sys.modules]), file=sys.stderr)
"""
)
# As `catdog serve` opens a version.
SERVED = (
    WITHOUT
    + """
from pathlib import Path
from catdog.tracking import registry, served_form, store
fetched = registry.fetch(store.connect(), sys.argv[1], Path("fetched"))
print(json.dumps(served_form.answering(fetched).answer([Path(name).read_bytes() for name in sys.argv[2:]])))
"""
)


def run(code: str, *arguments: str) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment)


@pytest.fixture
def files(store) -> list[str]:
    """Photographs in a project with a champion."""
    Path("dvc.yaml").write_text("stages: {}\n")
    deployed_twice(store)
    for number, data in enumerate(PHOTOGRAPHS):
        Path(f"{number:02}.jpg").write_bytes(data)
    return [f"{number:02}.jpg" for number in range(len(PHOTOGRAPHS))]


def test_the_process_of_these_tests_has_no_tensorflow():
    for name in ("tensorflow", "keras"):
        done = run(WITHOUT + f"import importlib.util; print(importlib.util.find_spec({name!r})); import {name}")
        assert done.stdout == "None\n"
        assert f"No module named '{name}'" in done.stderr


def test_catdog_predict_answers_without_tensorflow_and_without_mlflow(files, logged):
    done = run(PREDICT, "predict", *files)
    assert done.returncode == 0, done.stderr
    rows = pd.read_csv(io.StringIO(done.stdout), keep_default_na=False)
    right = expected(logged[0] / "model.keras", PHOTOGRAPHS)
    assert rows["path"].tolist() == files
    assert rows["probability"].to_numpy() == pytest.approx(right, abs=2e-6)
    assert rows["label"].tolist() == ["dog" if p >= 0.5 else "cat" for p in right]
    assert rows["familiarity"].between(0, 1).all()
    assert (rows["error"] == "").all()
    assert json.loads(done.stderr.splitlines()[-1]) == ["openvino"]  # and no more than it takes


def test_what_catdog_serve_opens_answers_without_tensorflow(files, logged):
    done = run(SERVED, "catdog@champion", *files)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])
    assert [row["probability"] for row in rows] == pytest.approx(
        expected(logged[0] / "model.keras", PHOTOGRAPHS), abs=1e-6
    )
    assert {row["model_version"] for row in rows} == {"catdog/2"}


def test_without_either_engine_it_says_what_is_missing(files):
    """Neither OpenVINO, which would answer, nor Keras, which would stand in for it."""
    done = run(PREDICT.replace('"keras")', '"keras", "openvino")'), "predict", *files)
    assert done.returncode == 1
    assert done.stdout == ""
    notice, error = done.stderr.splitlines()[-3:-1]
    assert notice == "notice: Keras answers, more slowly: OpenVINO is not installed here"
    assert error.startswith("error: Keras can't be loaded here, and it takes that to read models:/catdog/2: ")
    assert "No module named 'keras'" in error
