"""Which photographs are for training, which for validation, and which for the test."""

import hashlib
from pathlib import Path

from catdog.base import paths
from catdog.photographs import shards
from catdog.preparation import corrections, inspection
from catdog.preparation.inspection import Finding

SPLITS = ("train", "val", "test")


def split_of(group: str, *, seed: int, val_fraction: float, test_fraction: float) -> str:
    """The split of all photographs in `group`: "train", "val" or "test".

    It depends on the group and the seed alone, so photographs that come or go never move others to another split. The
    price is that shares are only near the fractions asked for: each group falls into a split by chance.
    """
    digest = hashlib.sha256(f"{seed}:{group}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    if share < test_fraction:
        return "test"
    if share < test_fraction + val_fraction:
        return "val"
    return "train"


def assign(findings: list[Finding], *, seed: int, val_fraction: float, test_fraction: float) -> None:
    """Set the split of every photograph that is kept, and the one that those set aside would be in."""
    for finding in findings:
        if not finding.reason or corrections.is_set_aside(finding):
            finding.split = split_of(finding.group, seed=seed, val_fraction=val_fraction, test_fraction=test_fraction)


def write(findings: list[Finding], pixels: shards.Shard, folder: Path, *, rows_per_file: int) -> None:
    """Write a shard for each split, and one of the photographs set aside.

    Args:
        pixels: the spool, as `inspection.spool` wrote it.
        rows_per_file: a split of more photographs is a folder of files.
    """
    chosen = {f"{split}.arrow": [f for f in findings if f.split == split and not f.reason] for split in SPLITS}
    chosen[paths.SET_ASIDE.name] = [finding for finding in findings if corrections.is_set_aside(finding)]
    for name, of in chosen.items():
        rows = inspection.unspool(of, pixels)
        shards.write_parts(folder / name, rows, count=len(of), rows_per_file=rows_per_file)
