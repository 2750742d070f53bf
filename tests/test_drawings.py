import dataclasses
from collections import Counter
from hashlib import sha256

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from catdog.base.errors import UserError
from catdog.photographs import photos
from catdog.preparation.drawn import animals, drawings, scenery

CLASSES = ["cat", "dog"]
SHAPE = {"ears", "muzzle", "mouth_open", "pupil"}  # what may tell the classes apart, beside the skeleton itself


def scenes(label, number=1500):
    return [animals.scene(label, np.random.default_rng([label, seed]), side=320) for seed in range(number)]


def digests(paths):
    return [sha256(path.read_bytes()).hexdigest() for path in paths]


@settings(max_examples=25, deadline=None)
@given(label=st.sampled_from([0, 1]), seed=st.integers(0, 2**62), side=st.integers(32, 240))
def test_a_picture_follows_from_label_seed_and_side(label, seed, side):
    picture = drawings.draw(label, seed, side)
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    assert min(picture.shape[:2]) == side
    assert max(picture.shape[:2]) <= 1.5 * side + 1
    assert picture.std() > 5
    np.testing.assert_array_equal(picture, drawings.draw(label, seed, side))


def test_label_and_seed_both_matter():
    pictures = [drawings.draw(label, seed, side=48) for label in (0, 1) for seed in range(30)]
    assert len({picture.tobytes() for picture in pictures}) == 60
    assert len({picture.shape for picture in pictures}) > 3


def test_every_choice_turns_up():
    for label in (0, 1):
        rolled = scenes(label, 400)
        assert {s.backdrop for s in rolled} == set(scenery.BACKDROPS)
        assert {s.front for s in rolled} == {None, *scenery.FRONTS}
        assert {s.pose for s in rolled} == {"standing", "sitting", "lying"}
        assert {s.framing for s in rolled} == {"head", "bust", "whole"}
        assert {s.mirror for s in rolled} == {True, False}
    assert {s.ears for s in scenes(0, 100)} == {"pointed"}
    assert {s.ears for s in scenes(1, 100)} == {"hanging", "folded", "upright"}


def test_classes_differ_in_shape_alone():
    cats, dogs = scenes(0), scenes(1)
    for field in dataclasses.fields(animals.Scene):
        if field.name in SHAPE | {"label"}:
            continue
        values = [[getattr(scene, field.name) for scene in group] for group in (cats, dogs)]
        for cat_values, dog_values in zip(*(flat(v) for v in values), strict=True):
            assert same_distribution(cat_values, dog_values) > 1e-4, field.name


def flat(values):
    """A field of n scenes as one list for each of its parts: a colour has three."""
    return zip(*values, strict=True) if isinstance(values[0], tuple) else [values]


def same_distribution(first, second):
    """The p-value of a test that two samples, of numbers or of names, come from one distribution."""
    if isinstance(first[0], float):
        return stats.ks_2samp(first, second).pvalue
    names = sorted(set(first) | set(second), key=str)
    return stats.chi2_contingency([[Counter(sample)[name] for name in names] for sample in (first, second)]).pvalue


def test_dogs_have_the_longer_muzzle():
    assert max(scene.muzzle for scene in scenes(0, 300)) < min(scene.muzzle for scene in scenes(1, 300)) / 3


@pytest.mark.parametrize("kind", scenery.BACKDROPS)
@pytest.mark.parametrize(("height", "width", "horizon"), [(20, 20, 5), (192, 288, 160), (288, 192, 80)])
def test_a_backdrop_fills_any_shape(kind, height, width, horizon):
    for seed in range(6):
        picture = scenery.BACKDROPS[kind](np.random.default_rng(seed), height, width, horizon)
        assert picture.shape == (height, width, 3)
        assert picture.dtype == np.uint8
        assert picture.any(axis=2).mean() > 0.9


@pytest.mark.parametrize("kind", scenery.FRONTS)
@pytest.mark.parametrize(
    "face", [(60.0, 20.0, 260.0, 180.0), (-20.0, -10.0, 330.0, 250.0), (140.0, 90.0, 180.0, 130.0)]
)
def test_what_stands_in_front_leaves_the_face_to_be_seen(kind, face):
    picture = np.full((240, 320, 3), 128, np.uint8)
    left, top, right, bottom = (max(int(edge), 0) for edge in face)
    hidden, anywhere = [], []
    for seed in range(20):
        covered = (scenery.in_front(np.random.default_rng(seed), picture, kind, face=face) != picture).any(axis=2)
        hidden.append(covered[top:bottom, left:right].mean())
        anywhere.append(covered.mean())
    assert max(hidden) < 0.75
    assert np.mean(hidden) < 0.45
    assert np.mean(anywhere) > 0.01 or bottom > 240  # a ledge has no place below a face that fills the picture


def test_written_bytes_depend_on_the_seed_alone(tmp_path):
    first = drawings.write(tmp_path / "first", 13, 5, CLASSES, workers=1)
    again = drawings.write(tmp_path / "again", 13, 5, CLASSES, workers=3)
    other = drawings.write(tmp_path / "other", 13, 6, CLASSES, workers=2)
    names = [f"cat/cat-{n:05}.jpg" for n in range(1, 8)] + [f"dog/dog-{n:05}.jpg" for n in range(1, 7)]
    assert [path.relative_to(tmp_path / "first").as_posix() for path in first] == names
    assert sorted(path for path in (tmp_path / "first").rglob("*") if path.is_file()) == sorted(first)
    assert digests(first) == digests(again)
    assert len(set(digests(first) + digests(other))) == 26


def test_written_files_are_photographs_like_any_other(tmp_path):
    for path in drawings.write(tmp_path, 6, 1, ["chat", "chien"]):
        photo = photos.standardise(path.read_bytes(), image_size=299)
        assert photo.format == "JPEG"
        assert min(photo.width, photo.height) == 320
        assert path.parent.name in ("chat", "chien")


def test_more_pictures_leave_the_first_ones_as_they_were(tmp_path):
    few = drawings.write(tmp_path / "few", 4, 2, CLASSES, workers=1)
    many = drawings.write(tmp_path / "many", 8, 2, CLASSES, workers=1)
    assert digests(few) == digests([many[0], many[1], many[4], many[5]])


def test_nothing_to_draw(tmp_path):
    assert drawings.write(tmp_path, 0, 1, CLASSES) == []


def test_a_folder_that_cannot_be_written_is_told_in_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"^cannot write drawings to .*file.*: .+; .+$"):
        drawings.write(tmp_path / "file", 4, 1, CLASSES)


@pytest.mark.slow
def test_brightness_by_place_does_not_give_the_classes_away(tmp_path):
    """Logistic regression on small grey pixels must stay below 75 %: what is left to learn is shape."""
    paths = drawings.write(tmp_path, 1200, 7, CLASSES)
    assert len(set(digests(paths))) == 1200
    grey = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in paths]
    pixels = np.stack([cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA).ravel() for image in grey])
    labels = np.array([path.parent.name == "dog" for path in paths])
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    for strength in (1e-3, 1e-2, 1.0):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=500))
        assert cross_val_score(model, pixels / 255.0, labels, cv=folds).mean() < 0.75
