"""The rows of the report's tables. Which numbers a table shows, and what they are called, stands in the template.

A row is a name, its meaning, and cells: a value and an interval, either as a text that may be empty.
"""

from collections.abc import Callable
from typing import Any

import pandas as pd

from catdog.pictures.style import NAMES
from catdog.pictures.wording import duration, megabytes, milliseconds, percent
from catdog.training.loop import convergence

Rows = list[tuple[str, str, list[tuple[str, str]]]]
Numbers = list[tuple[str, str, str, str]]  # key, name, meaning, and how it is written: a key of WRITE

WRITE: dict[str, Callable[[Any], str]] = {
    "percent": percent,
    "duration": duration,
    "megabytes": megabytes,
    "milliseconds": milliseconds,
    "number": "{:,.0f}".format,
    "ratio": "{:.2f}".format,
    "nats": "{:.3f}".format,
    "area": "{:.4f}".format,
}
# Of the spread of training, which is smaller than an interval: with a digit more.
_SEED: dict[str, Callable[[float], str]] = {
    "accuracy": lambda share: f"{100 * share:.2f} %",
    "log_loss": "{:.4f}".format,
}


def rows(numbers: Numbers, columns: list[dict], **words: str) -> Rows:
    """A row for each of the numbers that any column has.

    Args:
        columns: values by key, and `intervals` by key where there are some.
        words: go into the meanings.
    """
    return [
        (name, meaning.format(**words), [_cell(column, key, WRITE[form]) for column in columns])
        for key, name, meaning, form in numbers
        if any(key in column for column in columns)
    ]


def costs(evaluation: dict, histories: dict[str, pd.DataFrame]) -> list[dict]:
    """Columns: what each model costs in training and in use; `histories` are as `convergence.of` takes them."""
    columns = []
    for model in NAMES:
        history = histories[model]
        before = max(0.0, evaluation[model]["train_seconds"] - float(history["seconds"].sum()))
        column = convergence.of(history, seconds_before=before) | evaluation[model]
        if "photographs_per_second" in history:
            column["rate"] = history["photographs_per_second"].median()
        columns.append(column)
    return columns


def agreement(difference: dict) -> Rows:
    """How many photographs the first model gets right and wrong, by whether the second does."""
    first = difference["names"][0]
    return [
        (f"{first} right", "", _counts(difference["both_right"], difference["only_first_right"])),
        (f"{first} wrong", "", _counts(difference["only_second_right"], difference["both_wrong"])),
    ]


def seeds(spread: dict) -> Rows:
    """What the same training comes to from each seed, with mean and deviation: what `spread.measure` has of a model."""
    if "seeds" not in spread:
        return []
    (served, its_metrics), *others = spread["seeds"].items()
    rows = [
        (f"Seed {served}", "the model compared here", its_metrics),
        *((f"Seed {seed}", "", metrics) for seed, metrics in others),
        ("Mean", "", spread["mean"]),
        ("Standard deviation", "", spread["deviation"]),
    ]
    return [(name, meaning, [(_SEED[key](of[key]), "") for key in _SEED]) for name, meaning, of in rows]


def splits(counts: dict[str, dict[str, int]], classes: list[str]) -> Rows:
    """Photographs by split and class, with totals: `counts` of metrics/data.json."""
    numbers = {split: [by_class[name] for name in classes] for split, by_class in counts.items()}
    numbers["all"] = [sum(by_split) for by_split in zip(*numbers.values(), strict=True)]
    return [(split, "", _counts(*by_class, sum(by_class))) for split, by_class in numbers.items()]


def sizes(measured: dict[str, dict], classes: list[str]) -> list[dict]:
    """Columns: the sizes of the photographs of each class, `sizes` of metrics/data.json."""
    keys = ("width", "height", "aspect")
    return [
        {
            "photographs": size["photographs"],
            **{key: size[key][1] for key in keys},  # least, median, greatest
            "intervals": {key: size[key][::2] for key in keys},
        }
        for size in (measured[name] for name in classes if name in measured)
    ]


def source(described: dict) -> dict[str, str]:
    """Where the photographs are from: `source` of metrics/data.json, written out."""
    forms = {"size": "megabytes", "files": "number"}
    keys = [key for key in ("kind", "address", "path", "sha256", "size", "files") if described.get(key)]
    return {key: WRITE[forms[key]](described[key]) if key in forms else str(described[key]) for key in keys}


def _cell(column: dict, key: str, write: Callable[[Any], str]) -> tuple[str, str]:
    ends = [write(end).removesuffix(" %") for end in column.get("intervals", {}).get(key, [])]
    return write(column[key]) if key in column else "–", "–".join(ends)


def _counts(*numbers: int) -> list[tuple[str, str]]:
    return [(f"{number:,}", "") for number in numbers]
