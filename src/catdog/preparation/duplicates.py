"""Duplicates: the same bytes twice, and near copies, which were scaled, compressed, cropped or mirrored."""

from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np

from catdog.preparation import corrections, fingerprints, inspection, neighbours
from catdog.preparation.inspection import Finding


def resolve(findings: list[Finding], *, spool: Path, classes: list[str], likeness: float) -> None:
    """Set the group of every photograph kept, which is the smallest id in it, and the reason of every one refused.

    Of files with the same bytes, the first by source is kept. Near copies are all kept, in one group. A group depends
    on its own photographs alone, not on others, their order, or the number of workers. Of a photograph filed under both
    classes nobody knows which is right: all its copies are refused, and keep their group, by which to find them. So do
    those that a person found to be of neither class.

    Args:
        spool: as `inspection.spool` wrote it.
        likeness: from which `fingerprints.likeness` on two photographs are near copies; 1: none are.
    """
    copies = defaultdict(list)
    for finding in sorted(findings, key=lambda f: f.source):
        if not finding.reason:
            copies[finding.id].append(finding)
    # By id, so that the two of a pair are always compared in the same order.
    photographs = [copies[id][0] for id in sorted(copies)]
    for same in copies.values():
        _resolve_same_bytes(same)
        corrections.set_aside(same[0])
    families = _families(photographs, spool, likeness) if photographs and likeness < 1 else [[p] for p in photographs]
    for family in families:
        _resolve_near_copies([copy for photograph in family for copy in copies[photograph.id]], classes)


def _resolve_same_bytes(same: list[Finding]) -> None:
    if len({finding.label for finding in same}) > 1 and same[0].decision != corrections.NEITHER:
        for finding in same:
            others = ", ".join(other.source for other in same if other is not finding)
            finding.reason = f"conflicting labels: same bytes as {others}"
    else:
        for finding in same[1:]:
            finding.reason = f"duplicate: same bytes as {same[0].source}"


def _resolve_near_copies(family: list[Finding], classes: list[str]) -> None:
    group = min(finding.id for finding in family)
    counted = [finding for finding in family if finding.decision != corrections.NEITHER]
    conflict = len({finding.label for finding in counted}) > 1
    for finding in family:
        if conflict and not finding.reason:
            other = min((f for f in counted if f.label != finding.label), key=lambda f: f.source)
            finding.reason = f"conflicting labels: looks like {other.source} ({classes[other.label or 0]})"
        finding.group = "" if finding.reason.startswith("duplicate") else group


def _families(photographs: list[Finding], spool: Path, likeness: float) -> list[list[Finding]]:
    """Each photograph with its near copies, theirs, and so on."""
    rows = [photograph.spooled for photograph in photographs]
    spooled = inspection.spooled_fingerprints(spool)
    thumbnails = spooled["thumbnail"]

    def alike(first: int, second: int, mirrored: bool) -> bool:
        other = thumbnails[rows[second]]
        other = np.ascontiguousarray(other[:, ::-1]) if mirrored else other
        return fingerprints.likeness(thumbnails[rows[first]], other) >= likeness

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # on pictures this small, threads cost more than they save
    try:
        families = neighbours.families(spooled["hashes"][rows], alike)
    finally:
        cv2.setNumThreads(threads)
    return [[photographs[row] for row in family] for family in families]
