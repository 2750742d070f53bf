import copy
import functools
import re
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from catdog.base import params
from catdog.base.errors import UserError

SHIPPED = ROOT / "params.yaml"
KNOBS = yaml.safe_load(SHIPPED.read_text())


def below(knobs: dict, prefix: str = "") -> dict[str, object]:
    """Every key below a section, as `section.name` or `section.name.name`, with its value."""
    found = {}
    for name, value in knobs.items():
        found |= {prefix + name: value} | (below(value, f"{prefix}{name}.") if isinstance(value, dict) else {})
    return found


VALUES = {key: value for key, value in below(KNOBS).items() if "." in key}
KEYS = list(VALUES)


def with_changes(changes: dict, *, without: str = "") -> dict:
    """The shipped knobs with `section.name` keys set to other values, added, or left out."""
    knobs = copy.deepcopy(KNOBS)

    def place(key: str) -> tuple[dict, str]:
        *folders, name = key.split(".")
        return functools.reduce(dict.__getitem__, folders, knobs), name

    for key, value in changes.items():
        holder, name = place(key)
        holder[name] = value
    if without:
        holder, name = place(without)
        del holder[name]
    return knobs


def refusal(text: str | bytes, folder: Path) -> str:
    path = folder / "params.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as refused:
        params.load(path)
    said = str(refused.value)
    assert said.startswith(str(path))
    assert "\n" not in said
    return said.removeprefix(str(path)).removeprefix(": ")


def says(told: str, expected: str) -> bool:
    """Whether `told` says what is expected, where ... stands for anything."""
    return bool(re.search(".*".join(map(re.escape, expected.split("..."))), told))


def test_the_shipped_knobs_load():
    p = params.load(SHIPPED)
    assert p.model_dump() == KNOBS
    with pytest.raises(ValueError, match="frozen"):
        p.base.seed = 8


@pytest.mark.parametrize("key", [*KNOBS, *KEYS])
def test_every_key_is_required(key, tmp_path):
    assert refusal(yaml.safe_dump(with_changes({}, without=key)), tmp_path) == f"{key} is missing"


@pytest.mark.parametrize("key", KEYS)
def test_every_key_refuses_another_type(key, tmp_path):
    text = [] if isinstance(VALUES[key], str) else ["7"]
    mapping = [] if isinstance(VALUES[key], dict) else [{"a": 1}]
    for wrong in (*mapping, None, [[]], *text):
        said = refusal(yaml.safe_dump(with_changes({key: wrong})), tmp_path)
        assert re.match(rf"{key}(\.0)? .*[Ss]hould .*Received: .+", said)


BAD = [
    # too small, too large, or not among the choices
    ("base.seed", -1, "base.seed should be greater than or equal to 0. Received: -1"),
    ("base.seed", 2**31, "base.seed should be less than 2147483648. Received: 2147483648"),
    ("base.seed", True, "base.seed should be a valid integer. Received: True"),
    ("base.seed", 7.5, "base.seed should be a valid integer. Received: 7.5"),
    ("prepare.drawings", 41, "prepare.drawings should be a multiple of 2. Received: 41"),
    ("prepare.image_size", 8, "prepare.image_size should be greater than or equal to 16. Received: 8"),
    ("prepare.val_fraction", 0, "prepare.val_fraction should be greater than 0. Received: 0"),
    ("prepare.test_fraction", 0.5, "prepare.test_fraction should be less than 0.5. Received: 0.5"),
    ("prepare.max_megapixels", 0, "prepare.max_megapixels should be greater than 0. Received: 0"),
    (
        "prepare.near_duplicates",
        0,
        "prepare.near_duplicates should be greater than or equal to 0.5. Received: 0",
    ),
    (
        "prepare.near_duplicates",
        1.1,
        "prepare.near_duplicates should be less than or equal to 1. Received: 1.1",
    ),
    ("augment.flip", 0.5, "augment.flip should hold keys and values. Received: 0.5"),
    ("augment.blur.probability", 1.1, "augment.blur.probability should be less than or equal to 1. Received: 1.1"),
    ("augment.rotation.degrees", 181, "augment.rotation.degrees should be less than or equal to 180. Received: 181"),
    ("augment.zoom.fraction", 1, "augment.zoom.fraction should be less than 1. Received: 1"),
    ("augment.noise.levels", -1, "augment.noise.levels should be greater than or equal to 0. Received: -1"),
    ("augment.jpeg.quality", 0, "augment.jpeg.quality should be greater than or equal to 1. Received: 0"),
    ("train_cnn.filters", [32, 0], "train_cnn.filters.1 should be greater than or equal to 1. Received: 0"),
    (
        "train_cnn.precision",
        "half",
        "train_cnn.precision should be 'auto', 'float32' or 'mixed_bfloat16'. Received: 'half'",
    ),
    ("train_cnn.learning_rate", float("nan"), "train_cnn.learning_rate should ... Received: nan"),
    ("train_cnn.learning_rate", float("inf"), "train_cnn.learning_rate should be a finite number. Received: inf"),
    ("prepare", None, "prepare should hold keys and values. Received: None"),
    ("train_xception.image_size", 70, "train_xception.image_size should be greater than or equal to 71. Received: 70"),
    ("train_xception.augmented", "yes", "train_xception.augmented should be a valid boolean. Received: 'yes'"),
    ("train_xception.fine_tune_blocks", 15, "train_xception.fine_tune_blocks should be less ... 14. Received: 15"),
    ("evaluate.threshold", 1, "evaluate.threshold should be less than 1. Received: 1"),
    ("evaluate.confidence", 95, "evaluate.confidence should be less than 1. Received: 95"),
    ("promote.margin", -0.01, "promote.margin should be greater than or equal to 0. Received: -0.01"),
    # knobs that do not go together
    ("base.classes", ["cat", "Cat"], "classes should be two different names. Received: ['cat', 'Cat']"),
    ("base.classes", ["cat"], "base.classes ... at least 2 ... Received: ['cat']"),
    ("base.classes", ["cat", "dog", "fox"], "base.classes ... at most 2 ... Received: ['cat', 'dog', 'fox']"),
    ("base.classes", ["cat", "../dog"], "base.classes.1 ... Received: '../dog'"),
    (
        "train_cnn.epochs",
        [8, 12],
        "epochs should have one entry per image_sizes. Received: [8, 12] for [64, 96, 128, 160]",
    ),
    (
        "train_cnn.image_sizes",
        [32, 96, 128, 160],
        "image_sizes should be at least 64 for 5 filters. Received: [32, 96, 128, 160]",
    ),
    # misspelt
    ("prepare.imagesize", 299, "prepare.imagesize is not a known key. Received: 299"),
    ("augment.blur.sigma", 2, "augment.blur.sigma is not a known key. Received: 2"),
    ("training", {"epochs": 3}, "training is not a known key. Received: {'epochs': 3}"),
]


@pytest.mark.parametrize(("key", "value", "said"), BAD, ids=[f"{key}={value}" for key, value, _ in BAD])
def test_a_bad_value_is_told_with_its_key_and_what_was_expected(key, value, said, tmp_path):
    assert says(refusal(yaml.safe_dump(with_changes({key: value})), tmp_path), said)


def test_a_misspelt_key_is_named_before_the_one_that_is_missing(tmp_path):
    knobs = with_changes({"train_cnn.dropuot": 0.4}, without="train_cnn.dropout")
    assert refusal(yaml.safe_dump(knobs), tmp_path) == "train_cnn.dropuot is not a known key. Received: 0.4"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("base: [1, 2", "is not YAML: line 1: expected"),
        ("base:\n  seed: 7\n\tclasses: []\n", "is not YAML: line 3: found character"),
        (b"base: \xff\xfe", "is not YAML: 'utf-8' codec can't decode"),
        ("base: !!python/object/apply:os.getcwd []\n", "is not YAML: line 1: could not determine a constructor"),
        ("", "the file should hold keys and values. Received: None"),
        ("just a line", "the file should hold keys and values. Received: 'just a line'"),
        ("- a\n- b\n", "the file should hold keys and values. Received: ['a', 'b']"),
        ("7: seven\n" + SHIPPED.read_text(), "7 ... should be strings. Received: 7"),
    ],
)
def test_what_is_no_file_of_knobs_is_told_in_one_line(text, said, tmp_path):
    assert says(refusal(text, tmp_path), said)


def test_a_missing_file_is_told_with_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"params\.yaml not found: run from the project's root$"):
        params.load(tmp_path / "params.yaml")


def test_a_folder_in_its_place_is_told_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"cannot be read: Is a directory$"):
        params.load(tmp_path)


@pytest.mark.parametrize("written", ["1e-5", "1e-05", "1.0e-5", "1E-5", "0.1e-4", "0.00001"])
def test_a_small_number_can_be_written_as_dvc_writes_it(written, tmp_path):
    # `dvc exp run -S train_cnn.learning_rate=0.00001` leaves 1e-05 in params.yaml.
    path = tmp_path / "params.yaml"
    text, count = re.subn(r"(?<=learning_rate: )[\d.]+", written, SHIPPED.read_text())
    assert count == 3
    path.write_text(text)
    p = params.load(path)
    assert p.train_cnn.learning_rate == p.train_xception.fine_tune_learning_rate == 1e-5


def test_whole_numbers_will_do_for_fractions(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(with_changes({"augment.flip.probability": 1, "train_cnn.dropout": 0})))
    assert params.load(path).augment.flip.probability == 1
