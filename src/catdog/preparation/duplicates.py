"""The same photograph more than once, as the same bytes or as a copy that was scaled, compressed, cropped, mirrored."""

from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np

from catdog.preparation import fingerprints, inspection, neighbours
from catdog.preparation.inspection import Finding


def settle(findings: list[Finding], *, spool: Path, classes: list[str], likeness: float) -> None:
    """Give every photograph kept its group, the smallest id in it, and every photograph refused its reason.

    Of identical files the first by source counts. Near copies are all kept, in one group; a photograph's group depends
    on its near copies (and theirs) alone, never on other photographs, their order, or the number of workers. A
    photograph filed under both classes is right at most once and nobody knows where, so all its copies are refused;
    they keep their group, by which a person finds them.

    Args:
        spool: their pixels and fingerprints, as `inspection.spool` wrote them.
        likeness: from which two photographs are near copies, as `fingerprints.likeness` has it; 1: none are.
    """
    copies = defaultdict(list)
    for finding in sorted(findings, key=lambda f: f.source):
        if not finding.reason:
            copies[finding.id].append(finding)
    # By id, so that a pair is always looked at the same way round.
    photographs = [copies[id][0] for id in sorted(copies)]
    for same in copies.values():
        _settle_copies(same)
    searched = photographs and likeness < 1
    for family in _families(photographs, spool, likeness) if searched else [[p] for p in photographs]:
        _settle_family([f for photograph in family for f in copies[photograph.id]], classes)


def _settle_copies(same: list[Finding]) -> None:
    if len({finding.label for finding in same}) > 1:
        for finding in same:
            others = ", ".join(other.source for other in same if other is not finding)
            finding.reason = f"conflicting labels: same bytes as {others}"
    else:
        for finding in same[1:]:
            finding.reason = f"duplicate: same bytes as {same[0].source}"


def _settle_family(family: list[Finding], classes: list[str]) -> None:
    group = min(finding.id for finding in family)
    conflict = len({finding.label for finding in family}) > 1
    for finding in family:
        if conflict and not finding.reason:
            other = min((f for f in family if f.label != finding.label), key=lambda f: f.source)
            finding.reason = f"conflicting labels: looks like {other.source} ({classes[other.label or 0]})"
        finding.group = "" if finding.reason.startswith("duplicate") else group


def _families(photographs: list[Finding], spool: Path, least: float) -> list[list[Finding]]:
    """Each photograph with its near copies, theirs, and so on."""
    spooled = inspection.spooled_fingerprints(spool)
    rows = [photograph.spooled for photograph in photographs]

    def alike(row: int, other: int, mirrored: bool) -> bool:
        first, second = (spooled["thumbnail"][rows[each]] for each in (row, other))
        return fingerprints.likeness(first, np.ascontiguousarray(second[:, ::-1]) if mirrored else second) >= least

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # on pictures this small, threads cost more than they bring
    try:
        families = neighbours.families(spooled["hashes"][rows], alike)
    finally:
        cv2.setNumThreads(threads)
    return [[photographs[row] for row in family] for family in families]
