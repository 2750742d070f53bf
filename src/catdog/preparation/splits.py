"""Which split a photograph belongs to."""

import hashlib

from catdog.preparation.inspection import Finding

SPLITS = ("train", "val", "test")


def split_of(group: str, *, seed: int, val_fraction: float, test_fraction: float) -> str:
    """The split of all photographs in `group`: "train", "val" or "test".

    It depends on the group and the seed alone, so photographs that come or go never move others between splits. Shares
    within each class are therefore those asked for up to chance (binomial), not to the photograph.
    """
    digest = hashlib.sha256(f"{seed}:{group}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    if share < test_fraction:
        return "test"
    if share < test_fraction + val_fraction:
        return "val"
    return "train"


def assign(findings: list[Finding], *, seed: int, val_fraction: float, test_fraction: float) -> None:
    """Give every photograph kept its split."""
    for finding in findings:
        if not finding.reason:
            finding.split = split_of(finding.group, seed=seed, val_fraction=val_fraction, test_fraction=test_fraction)
