import copy
import functools
import re
import time
import unicodedata
import warnings
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from dvc.utils.serialize import load_yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from catdog.base import names, params
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
MAY_BE_NULL = {"evaluate.answer_accuracy", "evaluate.unfamiliar", "promote.max_disagreement"}
MAY_BE_NULL |= {"evaluate.cnn_seed_deviation"}


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
    null = [] if key in MAY_BE_NULL else [None]
    for wrong in (*mapping, *null, [[]], *text):
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
    ("train_xception.seeds", 0, "train_xception.seeds should be greater than or equal to 1. Received: 0"),
    ("evaluate.cnn_seed_deviation", 0.5, "evaluate.cnn_seed_deviation should be less than 0.5. Received: 0.5"),
    ("train_xception.fine_tune_blocks", 15, "train_xception.fine_tune_blocks should be less ... 14. Received: 15"),
    ("evaluate.threshold", 1, "evaluate.threshold should be less than 1. Received: 1"),
    ("evaluate.confidence", 95, "evaluate.confidence should be less than 1. Received: 95"),
    ("evaluate.answer_accuracy", 0.5, "evaluate.answer_accuracy should be greater than 0.5. Received: 0.5"),
    ("evaluate.answer_accuracy", 1, "evaluate.answer_accuracy should be less than 1. Received: 1"),
    ("evaluate.answer_accuracy", False, "evaluate.answer_accuracy should be a valid number. Received: False"),
    ("evaluate.unfamiliar", 0, "evaluate.unfamiliar should be greater than 0. Received: 0"),
    ("evaluate.unfamiliar", 1, "evaluate.unfamiliar should be less than 1. Received: 1"),
    ("evaluate.unfamiliar", "never", "evaluate.unfamiliar should be a valid number. Received: 'never'"),
    ("promote.max_relative_time", 0, "promote.max_relative_time should be greater than 0. Received: 0"),
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
        ("base: !!python/object/apply:os.getcwd []\n", "line 1 has a tag (!): write the plain value"),
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


@pytest.mark.parametrize("written", ["null", "~", ""])
def test_a_knob_of_doubt_may_be_null(written, tmp_path):
    path = tmp_path / "params.yaml"
    text, count = re.subn(r"(answer_accuracy|unfamiliar): [\d.]+", rf"\1: {written}", SHIPPED.read_text())
    assert count == 2
    path.write_text(text)
    evaluate = params.load(path).evaluate
    assert evaluate.answer_accuracy is evaluate.unfamiliar is None


# ---- any bytes ------------------------------------------------------------------------------------------------------

SHIPPED_TEXT = SHIPPED.read_text()


def checked(data: bytes, folder: Path) -> params.Params | str:
    """What `load` makes of any bytes: knobs just as DVC reads them, or one printable line, and soon."""
    path = folder / "params.yaml"
    path.write_bytes(data)
    begun = time.process_time()
    with warnings.catch_warnings(record=True) as warned:
        try:
            p = params.load(path)
        except UserError as error:
            p = str(error).removeprefix(str(path))
            assert len(p) < 300
            assert all(unicodedata.category(c) not in ("Cc", "Cs", "Zl", "Zp") for c in p), p
    assert not warned
    assert time.process_time() - begun < 3  # a second at most where nothing else runs
    if isinstance(p, params.Params):
        assert p.model_dump() == load_yaml(path)
    return p


def with_knob(value: str, key: str = "bootstrap") -> bytes:
    """The shipped file with another value of one knob, as it stands."""
    text, count = re.subn(rf"(?<= {key}: )\S+", lambda _: value, SHIPPED_TEXT, count=1)
    assert count == 1
    return text.encode("utf-8", "surrogatepass")


LINE = SHIPPED_TEXT[: SHIPPED_TEXT.index("  bootstrap: ")].count("\n") + 1
END = SHIPPED_TEXT.count("\n") + 1  # the line after the last
bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
merged = "a: &a {x: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join(['*' + before] * 9)}]}}\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
LIES = {
    "digits": (with_knob("9" * 4999), "more than 4,096 characters in one value"),
    "fewer digits": (with_knob("9" * 4000, "seed"), "base.seed should be .* Received: an integer of 13,288 bits"),
    "hex digits": (with_knob("0x" + "f" * 4000, "seed"), "base.seed should be .* Received: an integer of 16,000 bits"),
    "hex digits for a fraction": (with_knob("0x" + "f" * 4000, "threshold"), "evaluate.threshold should be"),
    "a long list": (with_knob("[" + "1," * 13_000 + "]", "seed"), r"seed should be .* Received: \[1, 1, .*, \.\.\.\]"),
    "filters without end": (
        SHIPPED_TEXT.replace("[32, 64, 128, 256, 384]", f"[{'1,' * 13_000}]").encode(),
        "at least an integer of 13,002 bits for 13000 filters",
    ),
    "nested lists": (with_knob("[" * 5000 + "]" * 5000), f"line {LINE} has more than 20 levels"),
    "open lists": (b"a: " + b"[" * 30_000, "more than 20 levels"),
    "open mappings": (b"{" * 30_000, "more than 20 levels"),
    "lists of lists": (b"- " * 15_000, "more than 20 levels"),
    "question marks": (b"? " * 15_000, "more than 20 levels"),
    "NUL": (b"a: \0", "is not YAML: "),
    "ESC": (b"a: \x1b[2J", "is not YAML: "),
    "ESC escaped": (with_knob('"\\x1b[2J\\n"', "strategy"), r"Received: '\\x1b\[2J\\n'"),
    "an unknown key with ESC": (b'"\\x1b[2J\\nx": 1\n' + SHIPPED_TEXT.encode(), r"\\x1b\[2J\\nx is not a known key"),
    "half a character": (with_knob('"\\ud800"', "strategy"), r"Received: '\\ud800'"),
    "a long line": (with_knob("x" * 100_000), "more than 32 KiB"),
    "a long value": (with_knob("x" * 10_000), f"line {LINE} has more than 4,096 characters"),
    "a value not quite as long": (with_knob("x" * 4000), r"Received: 'x+\.\.\.x+'"),
    "a long key": (b"x" * 1000 + b": 1\n" + SHIPPED_TEXT.encode(), r"x\.\.\. is not a known key"),
    "10 MB": (SHIPPED_TEXT.encode() + b"# and so on\n" * 870_000, "more than 32 KiB"),
    "a key twice": (SHIPPED_TEXT.encode() + b"train:\n  strategy: one\n", f'line {END}: found duplicate key "train"'),
    "a knob twice": (with_knob("2000\n  bootstrap: 3000"), f'line {LINE + 1}: found duplicate key "bootstrap"'),
    "a long key twice": (b"x" * 900 + b": 1\n" + b"x" * 900 + b": 1\n", "line 2: found duplicate key"),
    "sexagesimal": (with_knob("1:30"), "evaluate.bootstrap should be a valid integer. Received: '1:30'"),
    "sexagesimal of YAML 1.1": (
        b"%YAML 1.1\n---\n" + with_knob("1:30"),
        "line 2 has a document after a %YAML or %TAG directive",
    ),
    "a fraction of YAML 1.1": (
        b"%YAML 1.1\n---\n" + with_knob("1e-5", "margin"),
        "line 2 has a document after a %YAML or %TAG directive",
    ),
    "infinite": (with_knob(".inf", "margin"), "promote.margin should be"),
    "infinite by overflow": (with_knob("1e999", "max_relative_time"), "should be a finite number"),
    "a date": (with_knob("2020-01-01"), "Received: datetime.date"),
    "no date": (with_knob("2020-13-45"), "is not YAML: month must be in 1..12"),
    "a date out of range": (with_knob("0001-01-01T00:00:00+23:59"), "."),
    "an anchor": (with_knob("&x 2000"), f"line {LINE} has an anchor or alias"),
    "an alias": (with_knob("*x"), f"line {LINE} has an anchor or alias"),
    "an alias of itself": (b"&a [*a]", "line 1 has an anchor or alias"),
    "a billion laughs": (bomb.encode(), "line 1 has an anchor or alias"),
    "a billion merged": (merged.encode(), "line 1 has an anchor or alias"),
    "a tag of Python": (with_knob("!!python/object/apply:os.system ['true']"), f"line {LINE} has a tag"),
    "a plain tag": (with_knob("!!int '2000'"), f"line {LINE} has a tag"),
    "an empty tag": (with_knob("!!int"), f"line {LINE} has a tag"),
    "a value of a sign": (with_knob("="), f"is not YAML: line {LINE}: could not determine"),
    "a merge of nothing": (with_knob("<<"), f"is not YAML: line {LINE}: could not determine"),
    "a list as key": (b"? [a]\n: 1\n" + SHIPPED_TEXT.encode(), "should be strings"),
    "a mapping as key": (b"? {a: b}\n: 1\n", "is not YAML"),
    "a tab": (SHIPPED_TEXT.replace("  seed", "\tseed").encode(), "is not YAML: line 5: found character"),
    "two documents": (SHIPPED_TEXT.encode() + b"---\n" + SHIPPED_TEXT.encode(), f"line {END} has a second document"),
    "empty": (b"", "should hold keys and values"),
    "comments": (b"# nothing\n# here\n", "should hold keys and values"),
    "UTF-16": (SHIPPED_TEXT.encode("utf-16"), "is not YAML: 'utf-8' codec"),
}


@pytest.mark.parametrize("name", LIES)
def test_whatever_is_wrong_with_the_file_is_told_in_one_short_printable_line(name, tmp_path):
    data, expected = LIES[name]
    told = checked(data, tmp_path)
    assert isinstance(told, str)
    assert re.search(expected, told), told


@pytest.mark.parametrize(
    ("data", "bootstrap"),
    [
        (with_knob("1_000"), 1000),
        (with_knob("0o1000"), 512),
        (with_knob("0x400"), 1024),
        (with_knob("0b10000000"), 128),
        (with_knob("0200"), 200),
        (with_knob("+200"), 200),
        (b"\xef\xbb\xbf" + with_knob("300"), 300),
        (with_knob("400").replace(b"\n", b"\r\n"), 400),
        (b"---\n" + with_knob("500") + b"...\n", 500),
    ],
)
def test_numbers_and_lines_in_other_forms_are_what_dvc_makes_of_them(data, bootstrap, tmp_path):
    p = checked(data, tmp_path)
    assert isinstance(p, params.Params), p
    assert p.evaluate.bootstrap == bootstrap


SIGNS = [*"&*!<=?-:,[]{}|>'\"#~%\0\x1b\x85\u2028\ufeff\t\n\r", "\r\n", "---", "...", "!!", "- ", "? ", ": ", "\n  "]
WORDS = [
    "&a ",
    "*a",
    "[*a, *a]",
    "<<: ",
    "!!int ",
    "!x ",
    ".inf",
    "1:30",
    "1_0",
    "0o7",
    "2020-01-01",
    '"\\ud800"',
    "yes",
]
fragments = st.sampled_from([*SIGNS, *WORDS, "[" * 500, "9" * 5000, "0x" + "f" * 4000, "x" * 4000, "%YAML 1.1\n---\n"])


@st.composite
def spoilt(draw) -> bytes:
    """The shipped file with a few places replaced."""
    text = SHIPPED_TEXT
    for _ in range(draw(st.integers(1, 3))):
        at, length = draw(st.integers(0, len(text))), draw(st.integers(0, 12))
        text = text[:at] + draw(fragments | st.text(max_size=5)) + text[at + length :]
    return text.encode("utf-8", "surrogatepass")


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.binary(max_size=200)
    | st.lists(fragments | st.text(max_size=5), max_size=30).map(lambda t: "".join(t).encode("utf-8", "surrogatepass"))
    | st.builds(with_knob, fragments | st.text(max_size=20), st.sampled_from(["seed", "source", "margin", "strategy"]))
    | spoilt()
)
def test_any_bytes_are_knobs_as_dvc_reads_them_or_one_printable_line(tmp_path, data):
    checked(data, tmp_path)


# ---- names of classes -----------------------------------------------------------------------------------------------

CLASS_NAMES = [
    ("café", "cafe\u0301"),
    ("cat", "CAT"),
    ("straße", "STRASSE"),
    ("cat", "cats"),
    ("bus", "Buses"),
    ("fly", "flies"),
    ("axe", "ax"),  # a folder of axes would be of both
    ("tabby cat", "tabby-cats"),
    ("tabby_cat", "Tabby  Cat"),
    ("ｃａｔ", "cat"),
]


@pytest.mark.parametrize("classes", CLASS_NAMES)
def test_names_that_one_folder_could_be_named_after_are_not_two_classes(classes, tmp_path):
    for pair in (list(classes), list(reversed(classes))):
        said = refusal(yaml.safe_dump(with_changes({"base.classes": pair}), allow_unicode=True), tmp_path)
        assert "base: classes should be two different names. Received: [" in said


@given(st.tuples(*[st.text("cats ie-_yßS", min_size=1, max_size=6)] * 2), st.text("cats ie-_yßS", max_size=8))
@example(("cat", "dog"), "Dogs")
def test_a_folder_matches_two_names_only_if_they_are_alike(classes, folder):
    if all(names.plain(folder) in names.forms(names.plain(name)) for name in classes):
        assert names.alike(*classes)


def test_what_names_are_taken_for_one_stays_as_it_is():
    # No stage depends on this room: what changes here would change which photographs are of which class, unnoticed.
    assert names.plain(" Tabby_-\tCAFE\u0301 ") == "tabby café"
    assert names.forms("fly") == {"fly", "flys", "flyes", "flies"}
    assert names.forms("buses") == {"buses", "busess", "buseses", "buse", "bus"}
    assert names.forms("ponies") == {"ponies", "poniess", "ponieses", "ponie", "poni", "pony"}
