"""The account of every file met: what prepare says about it, and the counts that follow."""

from collections import Counter
from functools import partial
from itertools import product

import pandas as pd

from catdog.base import paths
from catdog.base.errors import UserError
from catdog.preparation.inspection import Finding
from catdog.preparation.splits import SPLITS, split_of

COLUMNS = ["id", "source", "label", "width", "height", "format", "split", "group", "reason"]


def table(findings: list[Finding], *, classes: list[str]) -> pd.DataFrame:
    """One row for every file met, by source."""
    rows = [
        {
            "id": f.id,
            "source": f.source,
            "label": "" if f.label is None else classes[f.label],
            "width": f.width,
            "height": f.height,
            "format": f.format,
            "split": f.split,
            "group": f.group,
            "reason": f.reason,
        }
        for f in findings
    ]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"width": "Int64", "height": "Int64"})


def counts(manifest: pd.DataFrame, *, classes: list[str], seed: int, val_fraction: float, test_fraction: float) -> dict:
    """How many files were met, kept by split and class, refused for each reason, and how they group.

    Raises:
        UserError: a split is left without photographs of a class, so nothing could be learnt or measured on it.
    """
    kept = manifest[manifest["reason"] == ""]
    by_split = Counter(zip(kept["split"], kept["label"], strict=True))
    categories = manifest.loc[manifest["reason"] != "", "reason"].str.split(":").str[0]
    for split, label in product(SPLITS, classes):
        if by_split[split, label] == 0:
            found = ", ".join(f"{(kept['label'] == c).sum()} of {c}" for c in classes)
            raise UserError(f"no usable photographs of {label} for {split} (usable: {found}): add more to {paths.RAW}/")
    return {
        "files": len(manifest),
        "kept": len(kept),
        "counts": {split: {c: by_split[split, c] for c in classes} for split in SPLITS},
        "reasons": dict(sorted(Counter(categories).items())),
        "groups": _groups(kept, seed=seed, val_fraction=val_fraction, test_fraction=test_fraction)
        | {"set_aside": manifest.loc[(manifest["reason"] != "") & (manifest["group"] != ""), "group"].nunique()},
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
        # What grouping is for: these would have been learnt from in one split and measured on in another.
        "straddling_if_split_alone": int((alone.groupby(kept["group"]).nunique() > 1).sum()),
    }
