"""Training photographs -> seeded variants of each, and two sheets to look at: variants, and each transform alone."""

import numpy as np

from catdog.base import params, paths
from catdog.base.errors import run
from catdog.base.progress import track
from catdog.photographs import augmentation, photos, shards
from catdog.pictures import sheets

SHOWN = 12


def main() -> None:
    p = params.load()
    train = shards.Shard(paths.TRAIN)
    total = len(train) * p.augment.variants
    made = track(augmentation.variants(train, p.augment, seed=p.base.seed), total=total, what="making variants")
    shards.write(paths.AUGMENTED_TRAIN, made)
    sheets.variants_sheet(train, shards.Shard(paths.AUGMENTED_TRAIN), paths.AUGMENTED_SHEET, shown=SHOWN)
    _show_transforms(photos.decode(train.jpeg(0)), p)
    print(f"{total} variants of {len(train)} photographs; {paths.AUGMENTED_SHEET} shows some")


def _show_transforms(photograph: np.ndarray, p: params.Params) -> None:
    """A sheet of one photograph and what each transform alone makes of it."""
    groups = {
        "Into the variants, and afresh in every epoch": augmentation.EVERY_EPOCH,
        "Into the variants alone": augmentation.WRITTEN_ONLY,
    }
    blocks = []
    for heading, names in groups.items():
        alone = augmentation.strongest(photograph, p.augment, names, seed=p.base.seed)
        captions, pictures = zip(("original", photograph), *alone, strict=True)
        blocks.append(sheets.Block([*pictures], [*captions], heading=heading))
    sheets.block_sheet(blocks, paths.TRANSFORMS_SHEET, title="Each transform alone, at its limit", palette=True)


if __name__ == "__main__":
    run(main)
