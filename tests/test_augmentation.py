import cv2
import numpy as np
import pytest
from conftest import jpeg, photograph
from hypothesis import given, settings
from hypothesis import strategies as st

from catdog import augmentation, params, photos, shards

NOTHING = params.Augment(variants=1, flip=0, rotation=0, zoom=0, shift=0, brightness=0, contrast=0)


def policy(**knobs) -> params.Augment:
    return NOTHING.model_copy(update=knobs)


def varied(image: np.ndarray, knobs: params.Augment, *, seed: int = 0, size: int | None = None) -> np.ndarray:
    return augmentation.vary(image, knobs, np.random.default_rng(seed), size=size)


def difference(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first.astype(float) - second).mean())


def test_the_same_seed_gives_the_same_bytes_on_any_number_of_workers(make_shard, knobs):
    shard = make_shard(range(70))
    several = knobs.augment.model_copy(update={"variants": 2})
    one, *others = (list(augmentation.variants(shard, several, seed=7, workers=workers)) for workers in (1, 2, 3))
    assert others == [one, one]
    assert [row.id for row in one] == [i for i in shard.ids for _ in range(2)]
    assert [(row.source, row.label, row.group) for row in one[::2]] == list(
        zip(shard.sources, shard.labels, shard.groups, strict=True)
    )
    assert len({row.image for row in one}) == len(one)


def test_variants_follow_from_photograph_seed_and_number_alone(knobs):
    row = shards.Row("id1", "cat/1.jpg", 0, jpeg(1), "group1")
    two, three = (knobs.augment.model_copy(update={"variants": count}) for count in (2, 3))
    made = augmentation.variants_of(row, three, seed=7)
    assert augmentation.variants_of(row, two, seed=7) == made[:2]
    assert all(a.image != b.image for a, b in zip(made, augmentation.variants_of(row, three, seed=8), strict=True))
    renamed = augmentation.variants_of(row._replace(id="id2"), three, seed=7)
    assert all(a.image != b.image for a, b in zip(made, renamed, strict=True))


@pytest.mark.parametrize("size", [(96, 72), (72, 97), (33, 33)])
def test_a_policy_of_nothing_changes_nothing(size):
    image = photograph(1, size)
    np.testing.assert_array_equal(varied(image, NOTHING), image)
    once = photos.encode(image)
    (row,) = augmentation.variants_of(shards.Row("id", "cat/1.jpg", 0, once, "group"), NOTHING, seed=7)
    assert row.image == photos.encode(photos.decode(once))


@pytest.mark.parametrize("size", [(96, 72), (72, 97), (33, 33)])
def test_flip_alone_is_the_mirror_image(size):
    image = photograph(1, size)
    np.testing.assert_array_equal(varied(image, policy(flip=1)), image[:, ::-1])
    mirrored = [np.array_equal(varied(image, policy(flip=0.3), seed=seed), image[:, ::-1]) for seed in range(400)]
    assert 0.2 < np.mean(mirrored) < 0.4


@pytest.mark.parametrize("size", [24, 72, 128])
@pytest.mark.parametrize("flip", [0, 1])
def test_another_size_is_the_same_picture_squashed(size, flip):
    image = cv2.GaussianBlur(photograph(2, (160, 120)), (0, 0), 4)
    squashed = varied(image, policy(flip=flip), size=size)
    assert (squashed.shape, squashed.dtype) == ((size, size, 3), np.uint8)
    expected = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
    expected = expected[:, ::-1] if flip else expected
    assert difference(squashed, expected) < 0.5
    assert difference(squashed, np.roll(expected, 1, axis=1)) > 1  # half a pixel off would be seen


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_motion_keeps_to_its_limits_and_brings_in_no_black(seed):
    # A white dot on grey tells where the middle goes, a white picture whether anything else comes in.
    knobs = policy(flip=0.5, rotation=15, zoom=0.2, shift=0.1)
    white = np.full((81, 121, 3), 255, np.uint8)
    assert varied(white, knobs, seed=seed).min() == 255
    dot = np.zeros((81, 121, 3), np.uint8)
    cv2.circle(dot, (60, 40), 3, (255, 255, 255), -1)
    y, x = np.argwhere(varied(dot, knobs, seed=seed)[..., 0] > 100).mean(axis=0)
    assert abs(x - 60) <= 12.1 + 1
    assert abs(y - 40) <= 8.1 + 1


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), grey=st.integers(0, 255))
def test_light_keeps_to_its_limits(seed, grey):
    image = np.full((8, 8, 3), grey, np.uint8)
    (brighter,) = np.unique(varied(image, policy(brightness=0.2), seed=seed))
    assert 0.8 * grey - 1 <= brighter <= min(255, 1.2 * grey + 1)
    (stronger,) = np.unique(varied(image, policy(contrast=0.2), seed=seed))
    assert abs(int(stronger) - grey) <= 0.2 * abs(grey - 128) + 1


def test_every_knob_has_an_effect_of_its_own():
    image = photograph(3)
    changes = {"flip": 1, "rotation": 20, "zoom": 0.3, "shift": 0.2, "brightness": 0.3, "contrast": 0.3}
    results = {name: varied(image, policy(**{name: value})).tobytes() for name, value in changes.items()}
    assert len({image.tobytes(), *results.values()}) == len(changes) + 1
