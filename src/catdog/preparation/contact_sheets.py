"""Sheets of thumbnails that show what prepare kept and what it refused."""

from collections import defaultdict
from pathlib import Path

import numpy as np

from catdog.base import paths
from catdog.photographs import photos
from catdog.photographs.shards import Shard
from catdog.pictures import sheets
from catdog.pictures.sheets import Block
from catdog.preparation.inspection import Finding

_OF_A_CLASS = 24  # photographs on its sheet
_MOST = 30  # pictures on any other sheet, or one of each category if there are more categories
_OF_A_CATEGORY = 6
_OF_A_GROUP = 3
_CELL = 120  # pixels: thumbnails, since the files are kept in git

Sheet = tuple[str, list[Block]]  # its title, and what is on it


def draw(findings: list[Finding], pixels: Shard, *, classes: list[str], note: str = "") -> None:
    """Draw all sheets of a run of prepare.

    Args:
        findings: of every file, with reason, group and split.
        pixels: the spool, as `inspection.spool` wrote it.
        note: stands under every title, in red.
    """
    for label, path in enumerate(paths.PHOTOGRAPHS):
        _write(path, photographs(findings, pixels, label=label, name=classes[label]), note)
    _write(paths.REFUSED, refused(findings, pixels), note)
    _write(paths.NEAR_DUPLICATES, near_duplicates(findings, pixels, classes=classes), note)


def _write(path: Path, sheet: Sheet, note: str) -> None:
    title, blocks = sheet
    sheets.block_sheet(blocks, path, title=title, note=note, cell=_CELL)


def photographs(findings: list[Finding], pixels: Shard, *, label: int, name: str) -> Sheet:
    """Training photographs of a class: the first by id, which is as good as at random."""
    of_class = sorted((f for f in findings if f.split == "train" and f.label == label), key=lambda f: f.id)
    shown = of_class[:_OF_A_CLASS]
    title = f"{name}: {len(shown):,} of {len(of_class):,} training photographs"
    captions = [f"{sheets.tail(f.source)}\n{_size(f)}" for f in shown]
    return title, [Block([_picture(f, pixels) for f in shown], captions)] if shown else []


def refused(findings: list[Finding], pixels: Shard) -> Sheet:
    """Files refused, a block for each category of reason. A file without pixels has its reason in their place."""
    by_category = defaultdict(list)
    for finding in findings:
        if finding.reason:
            by_category[finding.reason.split(":")[0]].append(finding)
    most = _most_of_each([len(files) for files in by_category.values()])
    blocks = []
    for category, files in sorted(by_category.items()):
        # By id, which is as good as at random, and puts the copies of one photograph side by side.
        shown = sorted(files, key=lambda f: (f.id, f.source))[:most]
        details = [f.reason.partition(": ")[2] if f.spooled >= 0 else "" for f in shown]
        captions = [f"{sheets.tail(f.source)}\n{_tails(detail)}" for f, detail in zip(shown, details, strict=True)]
        heading = f"{category}\n{_count(len(shown), len(files), 'files')}"
        blocks.append(Block([_picture(f, pixels) for f in shown], captions, heading))
    return f"Refused: {sum(map(len, by_category.values())):,} of {len(findings):,} files", blocks


def near_duplicates(findings: list[Finding], pixels: Shard, *, classes: list[str]) -> Sheet:
    """Groups of photographs that look alike: first those filed under both classes."""
    groups = _near_groups(findings)
    blocks: list[Block] = []
    for group in groups:
        shown = group[:_OF_A_GROUP]
        if sum(len(block.captions) for block in blocks) + len(shown) > _MOST:
            break
        names = [classes[f.label or 0] for f in shown]
        captions = [
            f"{sheets.tail(f.source)}\n{name}, {'set aside' if f.reason else f.split}\n{_size(f)}"
            for f, name in zip(shown, names, strict=True)
        ]
        heading = f"{' and '.join(dict.fromkeys(names))}\n{_count(len(shown), len(group), 'photographs')}"
        blocks.append(Block([_picture(f, pixels) for f in shown], captions, heading))
    return f"Near duplicates: {_count(len(blocks), len(groups), 'groups')}", blocks


def _near_groups(findings: list[Finding]) -> list[list[Finding]]:
    """Groups of two and more, by id: first those filed under both classes, which begin with one photograph of each."""
    by_group = defaultdict(list)
    for finding in findings:
        if finding.group and finding.spooled >= 0:
            by_group[finding.group].append(finding)
    groups = []
    for group in by_group.values():
        if len(group) > 1:
            first = {f.label: f for f in reversed(group)}
            leading = [first[label] for label in sorted(first, key=str)]
            groups.append(leading + [f for f in group if f not in leading])
    return sorted(groups, key=lambda group: (group[0].label == group[1].label, group[0].group))


def _most_of_each(sizes: list[int]) -> int:
    """How many of each category fit on the sheet, at least one."""
    return max(n for n in range(1, _OF_A_CATEGORY + 1) if n == 1 or sum(min(size, n) for size in sizes) <= _MOST)


def _picture(finding: Finding, pixels: Shard) -> np.ndarray | str:
    return photos.decode(pixels.jpeg(finding.spooled)) if finding.spooled >= 0 else _tails(finding.reason)


def _tails(text: str) -> str:
    return " ".join(map(sheets.tail, text.split()))


def _count(shown: int, total: int, what: str) -> str:
    return f"{total:,} {what if total != 1 else what[:-1]}" + (f", {shown:,} shown" if shown < total else "")


def _size(finding: Finding) -> str:
    return f"{finding.width} x {finding.height}"
