"""The policy's transforms one by one, which of them training has, and the same bytes on any number of workers."""

import hashlib
from itertools import islice

import cv2
import numpy as np
import pytest
import yaml
from conftest import ROOT, jpeg, photograph
from hypothesis import given, settings
from hypothesis import strategies as st

from catdog.base import params
from catdog.photographs import augmentation, photos, shards

NAMES = augmentation.EVERY_EPOCH + augmentation.WRITTEN_ONLY
SHIPPED = yaml.safe_load((ROOT / "params.yaml").read_text())["augment"]
# A weaker and a stronger limit of each transform that has one.
LIMITS = {
    "rotation": ("degrees", 4, 20),
    "zoom": ("fraction", 0.1, 0.5),
    "aspect": ("fraction", 0.1, 0.5),
    "shift": ("fraction", 0.02, 0.2),
    "hue": ("degrees", 5, 40),
    "saturation": ("fraction", 0.1, 0.9),
    "white_balance": ("fraction", 0.05, 0.3),
    "brightness": ("fraction", 0.1, 0.5),
    "contrast": ("fraction", 0.1, 0.8),
    "erasing": ("area", 0.02, 0.4),
    "blur": ("pixels", 1, 5),
    "noise": ("levels", 3, 30),
    "jpeg": ("quality", 80, 5),
}


def policy(**knobs: dict) -> params.Augment:
    """The shipped policy with these transforms applied always, and no others."""
    values = {name: SHIPPED[name] | {"probability": 0} for name in NAMES + augmentation.TRAINING_ONLY}
    for name, knob in knobs.items():
        values[name] |= {"probability": 1} | knob
    return params.Augment.model_validate({"variants": 1} | values)


EVERY = policy(**{name: {} for name in NAMES})


def varied(image: np.ndarray, knobs: params.Augment, *, seed: int = 0) -> np.ndarray:
    return augmentation.vary(image, knobs, np.random.default_rng(seed))


def in_training(image: np.ndarray, knobs: params.Augment, *, size: int, seed: int = 0) -> np.ndarray:
    return augmentation.vary_in_training(image, knobs, np.random.default_rng(seed), size=size)


def difference(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first.astype(float) - second).mean())


def textured(seed: int = 1, size: tuple[int, int] = (96, 72)) -> np.ndarray:
    """A photograph with fine detail, which blur takes away."""
    grain = np.random.default_rng(seed).normal(0, 12, (*size[::-1], 3))
    return np.clip(photograph(seed, size) + grain, 0, 255).astype(np.uint8)


# ---- the policy as a whole ------------------------------------------------------------------------------------------


def test_the_policy_is_made_of_the_transforms():
    assert set(params.Augment.model_fields) == {"variants", *NAMES, *augmentation.TRAINING_ONLY}
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("size", [(96, 72), (72, 97), (33, 33)])
def test_without_a_chance_of_anything_nothing_changes(size):
    image = textured(size=size)
    np.testing.assert_array_equal(varied(image, policy()), image)
    once = photos.encode(image)
    (row,) = augmentation.variants_of(shards.Row("id", "cat/1.jpg", 0, once, "group"), policy(), seed=7)
    assert row.image == photos.encode(photos.decode(once))


@pytest.mark.parametrize("name", NAMES)
def test_each_transform_alone_changes_the_photograph_in_a_way_of_its_own(name):
    image = textured()
    alone = varied(image, policy(**{name: {}}))
    assert difference(alone, image) > 0.3
    others = [varied(image, policy(**{other: {}})).tobytes() for other in NAMES if other != name]
    assert alone.tobytes() not in others


@pytest.mark.parametrize("name", NAMES)
def test_a_transform_comes_as_often_as_its_probability_says(name):
    image = textured(size=(24, 24))
    changed = [(varied(image, policy(**{name: {"probability": 0.3}}), seed=s) != image).any() for s in range(400)]
    # A hue turned or a photograph shifted by next to nothing is the same photograph.
    assert 0.2 < np.mean(changed) < 0.4


@pytest.mark.parametrize("name", LIMITS)
def test_a_higher_limit_changes_more(name):
    image = textured()
    knob, weak, strong = LIMITS[name]
    for seed in range(10):
        less, more = (difference(varied(image, policy(**{name: {knob: v}}), seed=seed), image) for v in (weak, strong))
        assert less < more or less == more == 0  # a Gaussian far narrower than a pixel blurs nothing


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 60),
    height=st.integers(1, 60),
    stretch=st.sampled_from([(1, 1), (1, 90), (90, 1)]),
    seed=st.integers(0, 2**32),
)
def test_any_size_is_kept(width, height, stretch, seed):
    image = np.random.default_rng(seed).integers(0, 256, (height * stretch[0], width * stretch[1], 3), dtype=np.uint8)
    before = image.copy()
    out = varied(image, EVERY, seed=seed)
    assert (out.shape, out.dtype) == (image.shape, np.uint8)
    squashed = in_training(image, EVERY, size=20, seed=seed)
    assert (squashed.shape, squashed.dtype) == ((20, 20, 3), np.uint8)
    np.testing.assert_array_equal(image, before)


def test_a_photograph_longer_than_opencv_counts_in_16_bits_is_kept():
    image = np.random.default_rng(0).integers(0, 256, (3, 40_000, 3), dtype=np.uint8)
    np.testing.assert_array_equal(varied(image, policy(flip={})), image[:, ::-1])
    assert varied(image, EVERY).shape == image.shape


def test_the_chance_of_one_transform_leaves_the_amounts_of_the_others_alone():
    amounts = augmentation.sample(EVERY, np.random.default_rng(3), NAMES)
    for name in NAMES:
        without = EVERY.model_copy(update={name: getattr(policy(), name)})
        assert augmentation.sample(without, np.random.default_rng(3), NAMES) == amounts | {name: 0.0}


def test_amounts_are_spread_evenly_over_both_sides():
    rng = np.random.default_rng(0)
    amounts = [augmentation.sample(policy(zoom={}), rng, NAMES)["zoom"] for _ in range(2000)]
    counts, _ = np.histogram(amounts, bins=4, range=(-1, 1))
    assert counts.sum() == 2000
    assert (abs(counts - 500) < 100).all()


# ---- geometry -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(96, 72), (72, 97), (33, 33)])
def test_flip_alone_is_the_mirror_image(size):
    image = photograph(1, size)
    np.testing.assert_array_equal(varied(image, policy(flip={})), image[:, ::-1])


@pytest.mark.parametrize("size", [24, 72, 128])
@pytest.mark.parametrize("flip", [0, 1])
def test_another_size_is_the_same_picture_squashed(size, flip):
    image = cv2.GaussianBlur(photograph(2, (160, 120)), (0, 0), 4)
    squashed = in_training(image, policy(flip={"probability": flip}), size=size)
    expected = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
    expected = expected[:, ::-1] if flip else expected
    assert difference(squashed, expected) < 0.5
    assert difference(squashed, np.roll(expected, 1, axis=1)) > 1  # half a pixel off would be seen


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_motion_keeps_to_its_limits_and_brings_in_no_black(seed):
    # A white dot on black tells where the middle goes, a white picture whether anything else comes in.
    knobs = policy(flip={"probability": 0.5}, rotation={}, zoom={}, aspect={}, shift={"fraction": 0.1})
    white = np.full((81, 121, 3), 255, np.uint8)
    assert varied(white, knobs, seed=seed).min() == 255
    dot = np.zeros((81, 121, 3), np.uint8)
    cv2.circle(dot, (60, 40), 3, (255, 255, 255), -1)
    y, x = np.argwhere(varied(dot, knobs, seed=seed)[..., 0] > 100).mean(axis=0)
    assert abs(x - 60) <= 12.1 + 1
    assert abs(y - 40) <= 8.1 + 1


@pytest.mark.parametrize("amount", [-1, 0.5, 1])
def test_rotation_zoom_and_aspect_are_as_large_as_they_say(amount):
    knobs = policy(rotation={"degrees": 30}, zoom={"fraction": 0.5}, aspect={"fraction": 0.44})
    marks = np.zeros((201, 201, 3), np.uint8)
    cv2.circle(marks, (150, 100), 4, (255, 0, 0), -1)  # 50 to the right of the middle
    cv2.circle(marks, (100, 50), 4, (0, 255, 0), -1)  # 50 above it

    def places(name):
        moved = augmentation.apply(marks, knobs, {name: amount}, np.random.default_rng(0))
        points = [np.argwhere(moved[..., c] > 100)[:, ::-1] - 100 for c in (0, 1)]
        # Farther out are their mirror images, behind the border.
        return [p[np.hypot(*p.T) < 85].mean(axis=0) for p in points]

    right, up = places("rotation")
    assert np.degrees(np.arctan2(-right[1], right[0])) == pytest.approx(30 * amount, abs=0.5)
    assert np.hypot(*up) == pytest.approx(50, abs=0.5)
    right, up = places("zoom")
    assert [right[0], -up[1]] == pytest.approx([50 * 1.5**amount] * 2, abs=0.5)
    right, up = places("aspect")
    assert [right[0], -up[1]] == pytest.approx([50 * 1.2**amount, 50 / 1.2**amount], abs=0.5)


# ---- colour and light -----------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), grey=st.integers(0, 255))
def test_light_keeps_to_its_limits(seed, grey):
    image = np.full((8, 8, 3), grey, np.uint8)
    (brighter,) = np.unique(varied(image, policy(brightness={"fraction": 0.2}), seed=seed))
    assert 0.8 * grey - 1 <= brighter <= min(255, 1.2 * grey + 1)
    (stronger,) = np.unique(varied(image, policy(contrast={"fraction": 0.2}), seed=seed))
    assert abs(int(stronger) - grey) <= 0.2 * abs(grey - 128) + 1


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), colour=st.tuples(*[st.integers(60, 190)] * 3))
def test_hue_and_saturation_leave_the_luma_and_greys_alone(seed, colour):
    luma = np.array([0.299, 0.587, 0.114])
    image = np.full((8, 8, 3), colour, np.uint8)
    knobs = policy(hue={"degrees": 20}, saturation={"fraction": 0.3})
    changed = varied(image, knobs, seed=seed)[0, 0]
    assert changed @ luma == pytest.approx(image[0, 0] @ luma, abs=1.5)
    grey = np.full((8, 8, 3), colour[0], np.uint8)
    assert np.abs(varied(grey, knobs, seed=seed).astype(int) - grey).max() <= 1


def test_each_colour_goes_its_own_way():
    brown = np.full((8, 8, 3), (150, 110, 80), np.uint8)

    def at(amount, name, **knob):
        out = augmentation.apply(brown, policy(**{name: knob}), {name: amount}, np.random.default_rng(0))
        return out[0, 0].astype(int)

    assert np.ptp(at(-1, "saturation", fraction=0.5)) < np.ptp(brown[0, 0]) < np.ptp(at(1, "saturation", fraction=0.5))
    warm, cool = at(1, "white_balance", fraction=0.2), at(-1, "white_balance", fraction=0.2)
    assert warm.tolist() == pytest.approx([180, 110, 80 / 1.2], abs=1)
    assert cool.tolist() == pytest.approx([125, 110, 96], abs=1)
    one, other = at(1, "hue", degrees=20), at(-1, "hue", degrees=20)
    assert (one[1] - 110) * (other[1] - 110) < 0


# ---- what hides and what spoils -------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32), width=st.integers(40, 160), height=st.integers(40, 160))
def test_erasing_fills_one_rectangle_within_its_area(seed, width, height):
    image = np.zeros((height, width, 3), np.uint8)
    hidden = np.argwhere(varied(image, policy(erasing={"area": 0.2}), seed=seed).any(axis=2))
    (top, left), (bottom, right) = hidden.min(axis=0), hidden.max(axis=0) + 1
    # Noise is black here and there, and the sides are whole pixels.
    assert len(hidden) > 0.9 * (bottom - top) * (right - left)
    assert (bottom - top - 1) * (right - left - 1) <= 0.2 * width * height
    assert 1 / 3.8 < (bottom - top) / height / ((right - left) / width) < 3.8 or len(hidden) < 200


def test_what_hides_is_noise_or_one_colour_and_stands_anywhere():
    image = np.full((60, 60, 3), 128, np.uint8)
    flat, times = 0, np.zeros((60, 60), int)
    for seed in range(200):
        out = varied(image, policy(erasing={"area": 0.2}), seed=seed)
        hidden = (out != image).any(axis=2)
        times += hidden
        flat += len(np.unique(out[hidden], axis=0)) == 1
    assert 70 < flat < 130
    assert (times[10:-10, 10:-10] > 0).all()
    assert all(border.any() for border in (times[0], times[-1], times[:, 0], times[:, -1]))


def test_blur_noise_and_jpeg_are_as_strong_as_they_say():
    rng = np.random.default_rng(0)
    dot = np.zeros((41, 41, 3), np.uint8)
    dot[20, 20] = 255
    blurred = augmentation.apply(dot, policy(blur={"pixels": 2}), {"blur": 1}, rng)[..., 0] / 255
    assert blurred.max() == pytest.approx(1 / (2 * np.pi * 2**2), rel=0.1)
    grey = np.full((200, 200, 3), 128, np.uint8)
    noisy = augmentation.apply(grey, policy(noise={"levels": 10}), {"noise": 1}, rng)
    assert noisy.std() == pytest.approx(10, rel=0.03)
    assert noisy.mean() == pytest.approx(128, abs=0.2)
    assert abs(np.corrcoef(noisy[..., 0].ravel(), noisy[..., 1].ravel())[0, 1]) < 0.02
    image = textured()
    spoilt = augmentation.apply(image, policy(jpeg={"quality": 30}), {"jpeg": -1}, rng)
    _, file = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 30])
    np.testing.assert_array_equal(spoilt, cv2.imdecode(file, cv2.IMREAD_COLOR)[..., ::-1])


# ---- in training ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_training_has_the_cheap_transforms_alone(name):
    image = textured(size=(64, 64))
    changed = difference(in_training(image, policy(**{name: {}}), size=64), image)
    assert changed > 0.3 if name in augmentation.EVERY_EPOCH else changed == 0


def test_params_yaml_says_which_transforms_training_has():
    lines = (ROOT / "params.yaml").read_text().split("\naugment:")[1].split("\n\n")[0].splitlines()
    (first,) = [number for number, line in enumerate(lines) if "every epoch" in line]
    (second,) = [number for number, line in enumerate(lines) if "in training alone" in line]
    (third,) = [number for number, line in enumerate(lines) if "written variants alone" in line]
    names = [
        tuple(line.split(":")[0].strip() for line in part)
        for part in (lines[first + 1 : second], lines[second + 1 : third], lines[third + 1 :])
    ]
    assert names == [augmentation.EVERY_EPOCH, augmentation.TRAINING_ONLY, augmentation.WRITTEN_ONLY]


def mixed(images: np.ndarray, labels: np.ndarray, *, seed: int = 0, **knobs) -> tuple[np.ndarray, np.ndarray]:
    return augmentation.cutmix(images, labels, policy(cutmix=knobs), np.random.default_rng(seed))


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 9), side=st.integers(8, 40), area=st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_cutmix_covers_a_rectangle_with_the_next_photograph_and_mixes_the_labels_alike(seed, count, side, area):
    # Each photograph is of one grey of its own.
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, side, side, 3)).copy()
    labels = (np.arange(count) % 2).astype(np.float32)[:, None]
    before = images.copy(), labels.copy()
    out, soft = mixed(images, labels, seed=seed, area=area)
    np.testing.assert_array_equal(images, before[0])
    np.testing.assert_array_equal(labels, before[1])
    assert (out.shape, out.dtype, soft.shape, soft.dtype) == (images.shape, np.uint8, labels.shape, np.float32)
    for slot in range(count):
        other = (slot + 1) % count
        covered = (out[slot] == other).all(axis=2)
        assert (covered | (out[slot] == slot).all(axis=2)).all()
        if count > 1:
            rows, columns = np.argwhere(covered).T
            assert np.ptp(rows) + 1 <= side
            assert covered.sum() == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
            share = covered.mean()
            assert share <= area + 3 / side
            assert soft[slot, 0] == pytest.approx((1 - share) * labels[slot, 0] + share * labels[other, 0], abs=1e-6)


def test_cutmix_comes_as_often_and_covers_as_much_as_its_knobs_say():
    images, labels = np.zeros((2000, 32, 32, 3), np.uint8), np.zeros((2000, 1), np.float32)
    images[1::2], labels[1::2] = 1, 1
    out, soft = mixed(images, labels, probability=0.5, area=0.6)
    shares = (out != images).mean(axis=(1, 2, 3))
    assert np.mean(shares > 0) == pytest.approx(0.5, abs=0.04)
    assert shares[shares > 0].mean() == pytest.approx(0.3, abs=0.03)
    np.testing.assert_allclose(np.abs(soft - labels)[:, 0], shares, atol=1e-6)


# ---- seeds and workers ----------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes_on_any_number_of_workers(make_shard):
    shard = make_shard(range(70))
    several = policy(**{name: {"probability": 0.5} for name in NAMES}).model_copy(update={"variants": 2})
    here = [made for i in range(len(shard)) for made in augmentation.variants_of(shard.row(i), several, seed=7)]
    for workers in (1, 2, 3):
        assert list(augmentation.variants(shard, several, seed=7, workers=workers)) == here
    assert [row.id for row in here] == [i for i in shard.ids for _ in range(2)]
    assert [(row.source, row.label, row.group) for row in here[::2]] == list(
        zip(shard.sources, shard.labels, shard.groups, strict=True)
    )
    assert len({row.image for row in here}) == len(here)


def test_variants_follow_from_photograph_seed_and_number_alone(knobs):
    row = shards.Row("id1", "cat/1.jpg", 0, jpeg(1), "group1")
    two, three = (knobs.augment.model_copy(update={"variants": count}) for count in (2, 3))
    made = augmentation.variants_of(row, three, seed=7)
    assert augmentation.variants_of(row, two, seed=7) == made[:2]
    assert all(a.image != b.image for a, b in zip(made, augmentation.variants_of(row, three, seed=8), strict=True))
    renamed = augmentation.variants_of(row._replace(id="id2"), three, seed=7)
    assert all(a.image != b.image for a, b in zip(made, renamed, strict=True))


def test_a_seed_means_the_same_amounts_for_ever():
    # Those of sha256("7:id1:0"); were they others, no variant ever made could be made again.
    digest = hashlib.sha256(b"7:id1:0").digest()
    amounts = augmentation.sample(EVERY, augmentation._generator("id1", seed=7, variant=0), NAMES)
    expected = 2 * np.random.default_rng(int.from_bytes(digest[:8], "big")).random((len(NAMES), 2))[:, 1] - 1
    assert list(amounts.values()) == expected.tolist()
    assert [round(amounts[name], 6) for name in ("flip", "hue", "jpeg")] == [-0.434416, 0.871956, -0.63861]


def test_photographs_are_read_as_their_variants_are_taken():
    class Endless:
        rows_read = 0

        def __len__(self):
            return 10**9

        def row(self, index):
            self.rows_read += 1
            return shards.Row(f"id{index}", "cat/1.jpg", 0, small, "group")

    small, shard = jpeg(1, (16, 16)), Endless()
    variants = augmentation.variants(shard, policy(zoom={}), seed=7, workers=1)
    assert [variant.id for variant in islice(variants, 200)] == [f"id{index}" for index in range(200)]
    variants.close()
    assert shard.rows_read < 500


# ---- the sheet ------------------------------------------------------------------------------------------------------


def test_each_transform_is_shown_alone_at_its_limits():
    image = textured()
    shown = list(augmentation.strongest(image, policy(), NAMES, seed=7))
    captions = [caption.split("\n") for caption, _ in shown]
    assert list(dict.fromkeys(lines[0].split()[0] for lines in captions)) == list(NAMES)
    assert ["rotation -", "probability 0", "degrees 12"] in captions
    assert ["jpeg", "probability 0", "quality 40"] in captions
    assert len({picture.tobytes() for _, picture in shown} | {image.tobytes()}) == len(shown) + 1
