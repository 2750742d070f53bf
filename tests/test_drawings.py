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
from catdog.preparation import fingerprints, neighbours
from catdog.preparation.drawn import drawings

CLASSES = ["cat", "dog"]


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


def test_colours_light_and_formats_do_not_tell_the_classes_apart():
    cats, dogs = ([drawings.draw(label, seed, side=48) for seed in range(400)] for label in (0, 1))
    for measure in (
        lambda picture: picture.shape[1] / picture.shape[0],
        lambda picture: picture[..., 0].mean(),
        lambda picture: picture[..., 1].mean(),
        lambda picture: picture[..., 2].mean(),
        lambda picture: picture.std(),
        lambda picture: float(cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)[..., 1].mean()),
        lambda picture: picture[:, :24].mean() - picture[:, -24:].mean(),
        lambda picture: picture[:24].mean() - picture[-24:].mean(),
    ):
        assert stats.ks_2samp([measure(p) for p in cats], [measure(p) for p in dogs]).pvalue > 1e-3


def test_no_picture_is_a_near_copy_of_another():
    drawn = [fingerprints.of(drawings.draw(number % 2, number // 2, side=96)) for number in range(600)]

    def alike(row: int, other: int, mirrored: bool) -> bool:
        second = drawn[other]["thumbnail"]
        second = np.ascontiguousarray(second[:, ::-1]) if mirrored else second
        return fingerprints.likeness(drawn[row]["thumbnail"], second) >= 0.7

    assert len(neighbours.families(np.array(drawn)["hashes"], alike)) == 600


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
def test_shape_tells_the_classes_apart_and_brightness_by_place_does_not(tmp_path):
    """A linear model must fail on small grey pixels and do better on the directions of edges."""
    paths = drawings.write(tmp_path, 600, 7, CLASSES)
    assert len(set(digests(paths))) == 600
    grey = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in paths]
    small = [cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA) for image in grey]
    pixels = np.stack([cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA).ravel() for image in small]) / 255.0
    labels = np.array([path.parent.name == "dog" for path in paths])
    for strength in (1e-3, 1e-1):
        assert accuracy(pixels, labels, strength) < 0.75
    assert accuracy(np.stack([edges(image) for image in small]), labels, 1e-3) > 0.65


def accuracy(features, labels, strength):
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=500))
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    return cross_val_score(model, features, labels, cv=folds).mean()


def edges(image):
    """How strong edges of each of nine directions are, in squares of eight pixels."""
    across, down = (cv2.Sobel(image, cv2.CV_32F, *axis) for axis in ((1, 0), (0, 1)))
    strength, angle = cv2.cartToPolar(across, down)
    votes = np.zeros((9, 64, 64), np.float32)
    np.put_along_axis(votes, (angle / np.pi * 9).astype(int)[None] % 9, strength[None], axis=0)
    squares = votes.reshape(9, 8, 8, 8, 8).sum(axis=(2, 4))
    return (squares / (np.linalg.norm(squares, axis=0) + 50)).ravel()
