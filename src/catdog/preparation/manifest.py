"""The manifest: a row for every file in data/raw, whether kept or refused, and the counts that follow from it."""

from collections import Counter
from functools import partial
from itertools import product

import pandas as pd

from catdog.base import paths
from catdog.base.errors import UserError
from catdog.preparation.inspection import Finding
from catdog.preparation.splits import SPLITS, split_of

COLUMNS = ["id", "source", "label", "width", "height", "format", "split", "group", "reason", "filed", "decision", "by"]


def table(findings: list[Finding], *, classes: list[str]) -> pd.DataFrame:
    """The manifest: COLUMNS, and a row for each finding; missing sizes are NA, other missing values empty.

    `label` is what counts; `filed` is the class by the folder, `decision` and `by` what a person said of that.
    """
    rows = [[getattr(finding, column) for column in COLUMNS] for finding in findings]
    frame = pd.DataFrame(rows, columns=COLUMNS).astype({"width": "Int64", "height": "Int64"})
    labels = ["" if finding.label is None else classes[finding.label] for finding in findings]
    filed = [label if f.filed is None else classes[f.filed] for f, label in zip(findings, labels, strict=True)]
    return frame.assign(label=labels, filed=filed)


def counts(manifest: pd.DataFrame, *, classes: list[str], seed: int, val_fraction: float, test_fraction: float) -> dict:
    """How many files there are, kept in each split of each class, refused for each reason, and near duplicates.

    Args:
        manifest: as `table` returns it.

    Raises:
        UserError: a split has no photographs of a class, so there is nothing to learn from or to measure on.
    """
    kept = manifest[manifest["reason"] == ""]
    by_split = Counter(zip(kept["split"], kept["label"], strict=True))
    categories = manifest.loc[manifest["reason"] != "", "reason"].str.split(":").str[0]
    for split, label in product(SPLITS, classes):
        if by_split[split, label] == 0:
            usable = ", ".join(f"{(kept['label'] == name).sum()} of {name}" for name in classes)
            raise UserError(
                f"no usable photographs of {label} for {split} (usable: {usable}): add more to {paths.RAW}/"
            )
    return {
        "files": len(manifest),
        "kept": len(kept),
        "counts": {split: {name: by_split[split, name] for name in classes} for split in SPLITS},
        "reasons": dict(sorted(Counter(categories).items())),
        "groups": _groups(kept, seed=seed, val_fraction=val_fraction, test_fraction=test_fraction)
        | {"set_aside": manifest.loc[manifest["reason"].str.startswith("conflicting"), "group"].nunique()},
    }


def _groups(kept: pd.DataFrame, *, seed: int, val_fraction: float, test_fraction: float) -> dict[str, int]:
    alone = kept["id"].map(partial(split_of, seed=seed, val_fraction=val_fraction, test_fraction=test_fraction))
    sizes = kept.groupby("group").size()
    near = sizes[sizes > 1]
    return {
        "kept": len(sizes),
        "near_duplicates": len(near),
        "photographs_in_them": int(near.sum()),
        "largest": int(sizes.max()),
        # What grouping is for: without it, these would be in training and in a split that measures it.
        "straddling_if_split_alone": int((alone.groupby(kept["group"]).nunique() > 1).sum()),
    }
