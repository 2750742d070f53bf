"""How many near copies prepare finds, what it joins that is not one, and how long that takes.

Copies of photographs are planted, each kind apart: re-encoded, resized, brightened, cropped, mirrored, all at once.
Found is a copy in the group of its own photograph; falsely joined, a pair of different photographs in one group. Then
photographs and copies are grouped together, as many as the full collection has. What is joined before any copy is
planted is listed: whether it is one photograph is for a person to see (after `make run`, in plots/near_duplicates.png).
"""

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import chain, combinations
from math import comb
from pathlib import Path

import cv2
import machine
import numpy as np
from rich.console import Console
from rich.table import Table

from catdog.base import files, parallel, params, paths
from catdog.base.progress import track
from catdog.photographs import photos, shards
from catdog.preparation import duplicates, fingerprints, inspection, sources
from catdog.preparation.archives import File
from catdog.preparation.inspection import Finding

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
ZIPS = [SHARED / "cats-and-dogs-20k.zip", SHARED / "cats-and-dogs-originals-600.zip"]
OUT = ROOT / "bench" / "results" / "near_duplicates.json"
FULL = 25_000  # photographs in the collection that both samples are from


def saved(image: np.ndarray, quality: int = 95) -> bytes:
    return cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def resized(image: np.ndarray, factor: float) -> np.ndarray:
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


def brightened(image: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    factor = 1 + chance.choice([-1, 1]) * chance.uniform(0.1, 0.2)
    return np.clip(image * factor, 0, 255).astype(np.uint8)


def cropped(image: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    height, width = image.shape[:2]
    top, bottom, left, right = chance.uniform(0.02, 0.05, 4)
    return image[round(top * height) : round((1 - bottom) * height), round(left * width) : round((1 - right) * width)]


def everything(image: np.ndarray, chance: np.random.Generator) -> bytes:
    small = resized(cropped(image[:, ::-1], chance), chance.uniform(0.5, 0.9))
    return saved(brightened(small, chance), chance.integers(50, 91))


KINDS: dict[str, Callable[[np.ndarray, np.random.Generator], bytes]] = {
    "re-encoded, quality 50 to 90": lambda image, chance: saved(image, chance.integers(50, 91)),
    "resized to 50 to 90 %": lambda image, chance: saved(resized(image, chance.uniform(0.5, 0.9))),
    "brighter or darker by 10 to 20 %": lambda image, chance: saved(brightened(image, chance)),
    "cropped by 2 to 5 % a side": lambda image, chance: saved(cropped(image, chance)),
    "mirrored": lambda image, chance: saved(image[:, ::-1]),
    "all of these": everything,
}


def main() -> None:
    given = parse()
    knobs = params.load(ROOT / paths.PARAMS)
    figures = {path.name: measure(path, given.copies, knobs) for path in given.zips}
    for name, one in figures.items():
        show(name, one, one.pop("families"))
    described = machine.describe("imagehash", "opencv-python-headless", "scipy")
    files.write_json(given.out, {"near_duplicates": knobs.prepare.near_duplicates, **figures, "machine": described})


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zips", nargs="*", type=Path, default=ZIPS, help="photographs in class folders (default: both)")
    parser.add_argument("--copies", type=int, default=1000, help="of each kind, at most: %(default)s")
    parser.add_argument("--out", type=Path, default=OUT, help="figures as JSON: %(default)s")
    return parser.parse_args()


def measure(archive: Path, copies: int, knobs: params.Params) -> dict:
    with tempfile.TemporaryDirectory(prefix="catdog-bench-") as folder:
        raw, spool, second = (Path(folder) / name for name in ("raw", "spool.arrow", "copies.arrow"))
        raw.mkdir()
        (raw / archive.name).symlink_to(archive.resolve())
        p = knobs.prepare
        inspect = partial(inspection.inspect, settings=inspection.Settings(p.image_size, p.min_side, p.max_megapixels))
        group = partial(grouped, spool=spool, classes=knobs.base.classes, likeness=p.near_duplicates)

        met = sources.list_files(raw, knobs.base.classes)
        originals = inspection.spool(track(inspect(met), total=len(met), what=archive.name), spool)
        milliseconds = cost(originals, shards.Shard(spool))
        there, _ = group(originals)
        natural = [[f.source for f in family] for family in families(there)]
        # Of photographs that have copies of their own, a copy's group would be no news.
        known = set(chain(*natural))
        alone = [o for o, f in zip(originals, there, strict=True) if f.group and f.source not in known]
        chosen = np.random.default_rng(0).permutation(len(alone))[:copies]
        planted = plant([alone[i] for i in chosen], shards.Shard(spool), Path(folder))
        copied = inspection.spool(track(inspect(planted), total=len(planted), what="copies"), second)
        append(spool, second, copied)
        kinds = {}
        for number, kind in enumerate(KINDS):
            kinds[kind] = found(group(originals + copied[number :: len(KINDS)])[0], natural)
        many = (originals + copied)[: max(FULL, len(originals))]
        taken = group(many)[1]
    return {
        "photographs": len(met),
        "copies_of_each_kind": len(chosen),
        "kinds": kinds,
        "families": natural,
        "pairs_before_planting": {
            "groups": len(natural),
            "joined": sum(comb(len(family), 2) for family in natural),
            "compared": comb(len(there), 2),
        },
        "grouping": {"photographs": len(many), **taken},
        "hashing_ms_per_photograph": round(milliseconds, 2),
    }


def plant(chosen: list[Finding], pixels: shards.Shard, folder: Path) -> list[File]:
    """A file for each kind of copy of each photograph; their sources lead back to it."""
    chance, planted = np.random.default_rng(1), []
    for finding in track(chosen, total=len(chosen), what="planting copies"):
        image = photos.decode(pixels.jpeg(finding.spooled))
        for number, copy in enumerate(KINDS.values()):
            path = folder / f"{finding.id}-{number}.jpg"
            path.write_bytes(copy(image, chance))
            planted.append(File(f"copy of/{finding.source}", finding.label, None, str(path)))
    return planted


def append(spool: Path, second: Path, copied: list[Finding]) -> None:
    """Put the second spool's rows behind the first one's, since a finding knows its row in one spool."""
    both = shards.Shard(spool), shards.Shard(second)
    shards.write(spool, (shard.row(row) for shard in both for row in range(len(shard))))
    together = np.concatenate([inspection.spooled_fingerprints(each) for each in (spool, second)])
    together.tofile(spool.with_suffix(".fingerprints"))
    for finding in copied:
        finding.spooled += len(both[0])


def grouped(
    findings: list[Finding], *, spool: Path, classes: list[str], likeness: float
) -> tuple[list[Finding], dict[str, float]]:
    """The findings, grouped, and the wall and CPU seconds that took; those given stay as they are."""
    fresh = [replace(finding) for finding in findings]
    wall, cpu = time.perf_counter(), time.process_time()
    duplicates.resolve(fresh, spool=spool, classes=classes, likeness=likeness)
    return fresh, {"seconds": round(time.perf_counter() - wall, 1), "cpu_seconds": round(time.process_time() - cpu, 1)}


def families(findings: list[Finding]) -> list[list[Finding]]:
    """Groups of two and more."""
    together = defaultdict(list)
    for finding in findings:
        if finding.group:
            together[finding.group].append(finding)
    return [family for family in together.values() if len(family) > 1]


def found(findings: list[Finding], natural: list[list[str]]) -> dict:
    """Which share of the copies is with its photograph, and how many pairs of different photographs are joined."""
    together, apart = 0, 0
    same = {frozenset(pair) for family in natural for pair in combinations(family, 2)}
    for family in families(findings):
        photographs = [finding.source.removeprefix("copy of/") for finding in family]
        together += len(photographs) - len(set(photographs))
        apart += sum(a != b and frozenset((a, b)) not in same for a, b in combinations(photographs, 2))
    copies = sum(finding.source.startswith("copy of/") for finding in findings)
    return {"found": together / copies, "falsely_joined_pairs": apart, "of_pairs": comb(len(findings), 2) - copies}


def cost(findings: list[Finding], pixels: shards.Shard, count: int = 500) -> float:
    """Milliseconds that the hashes of a photograph take, on one core, once it is decoded."""
    images = [photos.decode(pixels.jpeg(f.spooled)) for f in findings if f.spooled >= 0][:count]
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    rounds = []
    for _ in range(5):
        started = time.process_time()
        for image in images:
            fingerprints.of(image)
        rounds.append(time.process_time() - started)
    cv2.setNumThreads(threads)
    return min(rounds) / len(images) * 1000


def show(name: str, figures: dict, joined: list[list[str]]) -> None:
    console = Console()
    table = Table(f"{name}: {figures['copies_of_each_kind']:,} copies", "found", "pairs falsely joined", "of pairs")
    for kind, one in figures["kinds"].items():
        table.add_row(kind, f"{one['found']:.2%}", str(one["falsely_joined_pairs"]), f"{one['of_pairs']:,}")
    console.print(table)
    grouping, before = figures["grouping"], figures["pairs_before_planting"]
    taken = f"{grouping['seconds']} s ({grouping['cpu_seconds']} s of CPU)"
    console.print(f"{grouping['photographs']:,} photographs grouped in {taken}, on {parallel.cores()} cores.")
    console.print(f"Their hashes took {figures['hashing_ms_per_photograph']} ms a photograph.")
    console.print(f"Before any copy was planted, {before['joined']:,} of {before['compared']:,} pairs were joined:")
    for family in joined:
        console.print("  " + ", ".join(family), highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
