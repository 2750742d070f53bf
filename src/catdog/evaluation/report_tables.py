"""The tables of the report: which numbers they show, what those are called, and how they are written.

A table is rows of a name, its meaning, and cells: a value and an interval, either as a text that may be empty.
"""

from collections.abc import Callable
from typing import Any

import pandas as pd

from catdog.pictures.style import NAMES
from catdog.pictures.wording import duration, megabytes, milliseconds, percent
from catdog.training.loop import convergence

Rows = list[tuple[str, str, list[tuple[str, str]]]]
Numbers = list[tuple[str, str, str, Callable[[Any], str]]]  # key, name, meaning, how it is written

count, two, three, four = "{:,.0f}".format, "{:.2f}".format, "{:.3f}".format, "{:.4f}".format

METRICS: Numbers = [
    ("accuracy", "Accuracy", "verdicts that are right", percent),
    ("precision", "Precision", "of those called {positive}, how many are", percent),
    ("recall", "Recall", "of every {positive}, how many are called so", percent),
    ("f1", "F1", "precision and recall in one (harmonic mean)", percent),
    ("roc_auc", "ROC AUC", "how often a {positive} ranks above one that is none; 1 is best", four),
    ("brier", "Brier score", "squared error of the probability; 0.25 is guessing", four),
    ("calibrated_brier", "Brier score, calibrated", "probabilities divided by the temperature", four),
    ("log_loss", "Log loss", "punishes being surely wrong, nats; 0 is best, 0.693 is guessing", three),
    ("calibrated_log_loss", "Log loss, calibrated", "likewise", three),
    ("calibration_error", "Calibration error", "how far probabilities are off, on average; 0 is best", percent),
    ("calibrated_calibration_error", "Calibration error, calibrated", "likewise", percent),
    ("robustness", "Robustness", "mean accuracy on corrupted photographs", percent),
]

COSTS: Numbers = [
    ("train_seconds", "Training time", "from photographs to the last epoch, features included", duration),
    ("seconds_data", "Data", "of it: decoding photographs for each size, and checkpoints", duration),
    ("seconds_features", "Features", "of it: one pass of the frozen network over all photographs", duration),
    ("seconds_training", "Epochs", "of it: from the first to the last, validation included", duration),
    ("rate", "Photographs per second", "in the median epoch; of Xception, of features kept", count),
    ("seconds_to_95", "Time to 95 % of its best", "until validation accuracy was that far", duration),
    ("best_epoch", "Epochs to the best", "the epoch that was kept", count),
    ("epochs", "Epochs trained", "", count),
    ("parameters", "Parameters", "", count),
    ("file_bytes", "File size", "of the saved model", megabytes),
    ("peak_memory_bytes", "Memory", "the most in training, mapped files apart", megabytes),
    ("milliseconds_per_photograph", "Time per photograph", "one verdict", milliseconds),
    ("milliseconds_per_photograph_of_32", "the same, of 32 at once", "each", milliseconds),
    ("temperature", "Temperature", "fitted on validation; above 1: was too sure, below: not enough", two),
]

SIZES: Numbers = [
    ("photographs", "Photographs measured", "refused copies included", count),
    ("width", "Width", "pixels: median, then least to greatest", count),
    ("height", "Height", "", count),
    ("aspect", "Width : height", "above 1 is landscape", two),
]

GROUPS: Numbers = [
    ("near_duplicates", "Groups of near duplicates", "each in one split, so no test is of what was learnt", count),
    ("photographs_in_them", "Photographs in them", "", count),
    ("largest", "Photographs in the largest", "", count),
    ("set_aside", "Groups set aside", "filed under both classes", count),
    ("straddling_if_split_alone", "Groups that would straddle splits", "if each photograph were split alone", count),
    ("kept", "Groups in all", "most are of one photograph", count),
]

# What the categories of reasons mean for which files were refused.
REASONS = {
    "a single flat colour": "one colour from edge to edge",
    "archive inside an archive": "only the outer one is looked into",
    "archive of an unknown kind": "zip and tar are read",
    "conflicting labels": "one photograph under both classes: which is right is unknown, so none is used",
    "damaged": "begins like an image and cannot be decoded",
    "duplicate": "byte by byte a photograph that is kept",
    "empty": "a file of no bytes",
    "not a file": "a link or a device inside an archive",
    "not an image": "none of the formats that are read, whatever its name says",
    "replaced": "its archive holds a later file of the same name",
    "too large": "more pixels or bytes than the limit",
    "too long": "a strip that no JPEG can hold",
    "too small": "a short side under the limit",
    "truncated": "the end of the file is missing",
    "unknown class": "no folder above it is named after a class",
    "unknown compression": "packed in a way that is not read",
    "unsafe name": "it would lead out of its archive",
}


def rows(numbers: Numbers, columns: list[dict], **words: str) -> Rows:
    """A row for each of the numbers that any column has.

    Args:
        columns: values by key, and `intervals` by key where there are some.
        words: go into the meanings.
    """
    return [
        (name, meaning.format(**words), [_cell(column, key, write) for column in columns])
        for key, name, meaning, write in numbers
        if any(key in column for column in columns)
    ]


def costs(evaluation: dict, histories: dict[str, pd.DataFrame]) -> Rows:
    """What each model costs in training and in use; `histories` are as `convergence.of` takes them."""
    columns = []
    for model in NAMES:
        history = histories[model]
        before = max(0.0, evaluation[model]["train_seconds"] - float(history["seconds"].sum()))
        column = convergence.of(history, seconds_before=before) | evaluation[model]
        if "photographs_per_second" in history:
            column["rate"] = history["photographs_per_second"].median()
        columns.append(column)
    return rows(COSTS, columns)


def agreement(difference: dict) -> Rows:
    """How many photographs the first model gets right and wrong, by whether the second does."""
    first = difference["names"][0]
    return [
        (f"{first} right", "", _counts(difference["both_right"], difference["only_first_right"])),
        (f"{first} wrong", "", _counts(difference["only_second_right"], difference["both_wrong"])),
    ]


def splits(counts: dict[str, dict[str, int]], classes: list[str]) -> Rows:
    """Photographs by split and class, with totals: `counts` of metrics/data.json."""
    numbers = {split: [by_class[name] for name in classes] for split, by_class in counts.items()}
    numbers["all"] = [sum(by_split) for by_split in zip(*numbers.values(), strict=True)]
    return [(split, "", _counts(*by_class, sum(by_class))) for split, by_class in numbers.items()]


def sizes(measured: dict[str, dict], classes: list[str]) -> Rows:
    """The sizes of the photographs of each class: `sizes` of metrics/data.json."""
    keys = ("width", "height", "aspect")
    columns = [
        {
            "photographs": size["photographs"],
            **{key: size[key][1] for key in keys},  # least, median, greatest
            "intervals": {key: size[key][::2] for key in keys},
        }
        for size in (measured[name] for name in classes if name in measured)
    ]
    return rows(SIZES, columns)


def reasons(counts: dict[str, int]) -> Rows:
    """How many files were refused for which reason: `reasons` of metrics/data.json."""
    return [(reason, REASONS.get(reason, ""), _counts(number)) for reason, number in counts.items()]


def source(described: dict) -> dict[str, str]:
    """Where the photographs are from: `source` of metrics/data.json, written out."""
    write: dict[str, Callable[[Any], str]] = {"size": megabytes, "files": count}
    keys = [key for key in ("kind", "address", "path", "sha256", "size", "files") if described.get(key)]
    return {key: write.get(key, str)(described[key]) for key in keys}


def _cell(column: dict, key: str, write: Callable[[Any], str]) -> tuple[str, str]:
    ends = [write(end).removesuffix(" %") for end in column.get("intervals", {}).get(key, [])]
    return write(column[key]) if key in column else "–", "–".join(ends)


def _counts(*numbers: int) -> list[tuple[str, str]]:
    return [(count(number), "") for number in numbers]
