"""The sizes of the photographs: their measurements, and the plot of them."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from catdog.preparation import sizes

CLASSES = ["cat", "dog"]
SIDES = st.integers(1, 65_500)


def manifest(*rows):
    table = pd.DataFrame(rows, columns=["label", "width", "height"])
    return table.astype({"width": "Int64", "height": "Int64"})


def test_measurements_are_of_files_with_a_known_size():
    table = manifest(("cat", 100, 50), ("cat", 300, 100), ("cat", 200, 200), ("dog", 80, 160), ("dog", None, None))
    assert sizes.measurements(table, classes=[*CLASSES, "horse"]) == {
        "cat": {"photographs": 3, "width": [100, 200, 300], "height": [50, 100, 200], "aspect": [1, 2, 3]},
        "dog": {"photographs": 1, "width": [80] * 3, "height": [160] * 3, "aspect": [0.5] * 3},
        "horse": {"photographs": 0, "width": [], "height": [], "aspect": []},
    }


@given(st.lists(SIDES, min_size=1, max_size=20))
def test_no_photograph_falls_outside_of_the_picture(sides):
    edges = sizes._edges(np.array(sides, float))
    assert (np.diff(edges) > 0).all()
    assert edges[0] < min(sides) <= max(sides) < edges[-1]


@pytest.mark.parametrize(
    ("pairs", "summary"),
    [
        ([], "none"),
        ([(180, 180)] * 1200, "all 1,200 are 180 x 180"),
        ([(500, 375), (500, 375), (400, 300), (375, 500)], "4, 50 % of them 500 x 375"),
        ([(100 + n, 200 + n) for n in range(101)], "101, medians 150 x 250"),
    ],
)
def test_the_title_sums_the_sizes_up(pairs, summary):
    assert sizes._summary(*np.array(pairs, float).reshape(-1, 2).T) == summary


SAME = manifest(*[("cat", 180, 180), ("dog", 180, 180)] * 50)
WIDE = manifest(("cat", 16, 20), ("cat", 60_000, 400), ("dog", 40, 3000), ("dog", 4000, 3000))
ONE = manifest(("cat", 300, 200), ("dog", 400, 400))
NONE_OF_ONE = manifest(("cat", 300, 200), ("dog", None, None))


@pytest.mark.parametrize("table", [SAME, WIDE, ONE, NONE_OF_ONE], ids=["same", "wide", "one", "none of one"])
def test_a_picture_of_any_sizes(table, tmp_path):
    for name in ("one.png", "again.png"):
        sizes.draw(table, tmp_path / name, classes=CLASSES, image_size=299)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "again.png").read_bytes()
    assert Image.open(tmp_path / "one.png").width >= 1200


def darkest(path):
    """Where the darkest shade of the density is, as fractions of the picture from the left and the top."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    rows, columns = np.nonzero((np.abs(pixels - (11, 37, 69)).max(axis=2) < 3) & (np.arange(pixels.shape[1]) < 600))
    return columns.mean() / pixels.shape[1], rows.mean() / pixels.shape[0]


def test_tall_ones_stand_high_and_wide_ones_to_the_right(tmp_path):
    tall = manifest(*[("cat", 100, 400)] * 50, ("cat", 400, 100), ("dog", 100, 100))
    wide = manifest(*[("cat", 400, 100)] * 50, ("cat", 100, 400), ("dog", 100, 100))
    sizes.draw(tall, tmp_path / "tall.png", classes=CLASSES, image_size=64)
    sizes.draw(wide, tmp_path / "wide.png", classes=CLASSES, image_size=64)
    (tall_x, tall_y), (wide_x, wide_y) = darkest(tmp_path / "tall.png"), darkest(tmp_path / "wide.png")
    assert tall_x + 0.1 < wide_x
    assert tall_y + 0.3 < wide_y
