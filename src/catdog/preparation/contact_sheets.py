"""What prepare kept and what it refused, to be seen: sheets of thumbnails, drawn from the spool before that goes."""

from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np

from catdog.base import paths
from catdog.photographs import photos
from catdog.photographs.shards import Shard
from catdog.pictures import sheets
from catdog.preparation.inspection import Finding

_SAMPLED = 24  # photographs on the sheet of a class
_MOST = 30  # pictures on any other sheet, or one for each category where there are more of them
_OF_A_CATEGORY = 6
_OF_A_GROUP = 3
_CELL = 120  # pixels: thumbnails, in files of a few hundred kB, since they are kept in git


def draw(findings: list[Finding], spool: Path, *, classes: list[str], seed: int, note: str = "") -> None:
    """Draw all sheets of a run of prepare.

    Args:
        findings: every file met, with reason, group and split.
        spool: the shard of their pixels, as `inspection.spool` wrote it.
        note: stands under every title, in red.
    """
    pixels = Shard(spool)
    for label, path in enumerate(paths.PHOTOGRAPHS):
        photographs(findings, pixels, path, label=label, name=classes[label], seed=seed, note=note)
    refused(findings, pixels, paths.REFUSED, note=note)
    near_duplicates(findings, pixels, paths.NEAR_DUPLICATES, classes=classes, seed=seed, note=note)


def photographs(
    findings: list[Finding], pixels: Shard, path: Path, *, label: int, name: str, seed: int, note: str = ""
) -> None:
    """A sheet of training photographs of a class, sampled evenly over their sources."""
    there = sorted((f for f in findings if f.split == "train" and f.label == label), key=lambda f: f.source)
    shown = _sample(there, _SAMPLED, seed=seed)
    captions = [f"{sheets.tail(f.source)}\n{_size(f)}" for f in shown]
    block = sheets.Block([photos.decode(pixels.jpeg(f.spooled)) for f in shown], captions)
    title = f"{name}: {len(shown):,} of {len(there):,} training photographs"
    sheets.block_sheet([block] if shown else [], path, title=title, note=note, cell=_CELL, palette=True)


def refused(findings: list[Finding], pixels: Shard, path: Path, *, note: str = "") -> None:
    """A sheet of files refused, by category of reason, every category on it. Where a file has no pixels, its reason
    stands in their place."""
    by_category = defaultdict(list)
    for finding in findings:
        if finding.reason:
            by_category[finding.reason.split(":")[0]].append(finding)
    each = _each([len(there) for there in by_category.values()])
    blocks = []
    for category, there in sorted(by_category.items()):
        # By id, which is as good as at random, and has the copies of one photograph side by side.
        shown = sorted(there, key=lambda f: (f.id, f.source))[:each]
        pictures = [photos.decode(pixels.jpeg(f.spooled)) if f.spooled >= 0 else _tails(f.reason) for f in shown]
        details = [_tails(f.reason.partition(": ")[2]) if f.spooled >= 0 else "" for f in shown]
        captions = [f"{sheets.tail(f.source)}\n{detail}" for f, detail in zip(shown, details, strict=True)]
        blocks.append(sheets.Block(pictures, captions, f"{category}\n{_of(len(shown), len(there), 'files')}"))
    total = sum(map(len, by_category.values()))
    title = f"Refused: {total:,} of {len(findings):,} files"
    sheets.block_sheet(blocks, path, title=title, note=note, cell=_CELL, palette=True)


def near_duplicates(
    findings: list[Finding], pixels: Shard, path: Path, *, classes: list[str], seed: int, note: str = ""
) -> None:
    """A sheet of groups of photographs that look alike: those filed under both classes, then a sample of the others."""
    groups = near_groups(findings)
    blocks = []
    for group in _that_fit(groups, seed=seed):
        shown = group[:_OF_A_GROUP]
        names = [classes[f.label or 0] for f in shown]
        captions = [
            f"{sheets.tail(f.source)}\n{name}, {f.split or 'set aside'}\n{_size(f)}"
            for f, name in zip(shown, names, strict=True)
        ]
        heading = f"{' and '.join(dict.fromkeys(names))}\n{_of(len(shown), len(group), 'photographs')}"
        blocks.append(sheets.Block([photos.decode(pixels.jpeg(f.spooled)) for f in shown], captions, heading))
    title = f"Near duplicates: {_of(len(blocks), len(groups), 'groups')}"
    sheets.block_sheet(blocks, path, title=title, note=note, cell=_CELL, palette=True)


def near_groups(findings: list[Finding]) -> list[list[Finding]]:
    """Findings of one group, where it has two and more: groups filed under both classes first, and in these one
    photograph of each class before all others."""
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
    return sorted(groups, key=lambda group: group[0].label == group[1].label)


def _that_fit(groups: list[list[Finding]], *, seed: int) -> list[list[Finding]]:
    """As many groups as go on a sheet: those of both classes, then others at random; in the order of `groups`."""
    chance = np.random.default_rng(seed).permutation(len(groups))
    fitting, room = [], _MOST
    for index in sorted(chance, key=lambda i: groups[i][0].label == groups[i][1].label):
        room -= min(len(groups[index]), _OF_A_GROUP)
        if room >= 0:
            fitting.append(int(index))
    return [groups[index] for index in sorted(fitting)]


def _sample(items: list, count: int, *, seed: int) -> list:
    """`count` of `items` in their order, one at random from each of as many even stretches; all if there are fewer."""
    if len(items) <= count:
        return items
    ends = np.arange(count + 1) * len(items) // count
    random = np.random.default_rng(seed)
    return [items[random.integers(first, end)] for first, end in pairwise(ends)]


def _each(sizes: list[int]) -> int:
    """How many of each category are shown, at least one."""
    return max(n for n in range(1, _OF_A_CATEGORY + 1) if n == 1 or sum(min(size, n) for size in sizes) <= _MOST)


def _tails(text: str) -> str:
    return " ".join(map(sheets.tail, text.split()))


def _of(shown: int, there: int, what: str) -> str:
    return f"{there:,} {what if there != 1 else what[:-1]}" + (f", {shown:,} shown" if shown < there else "")


def _size(finding: Finding) -> str:
    return f"{finding.width} x {finding.height}"
