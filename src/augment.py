"""Training photographs -> seeded variants of each, and two sheets to look at: variants, and each transform alone."""

import numpy as np

from catdog.base import errors, params, paths
from catdog.base.progress import track
from catdog.photographs import augmentation, photos, shards
from catdog.pictures import sheets

SHOWN = 12


def main() -> None:
    p = params.load()
    train = shards.Shard(paths.TRAIN)
    total = len(train) * p.augment.variants
    variants = track(augmentation.variants(train, p.augment, seed=p.base.seed), total=total, what="making variants")
    rows_per_file = train.rows_per_file * p.augment.variants
    shards.write_parts(paths.AUGMENTED_TRAIN, variants, count=total, rows_per_file=rows_per_file)
    sheets.variants_sheet(train, shards.Shard(paths.AUGMENTED_TRAIN), paths.AUGMENTED_SHEET, shown=SHOWN)
    _transforms_sheet(photos.decode(train.jpeg(0)), p)
    print(f"{total} variants of {len(train)} photographs; {paths.AUGMENTED_SHEET} shows some")


def _transforms_sheet(photograph: np.ndarray, p: params.Params) -> None:
    """A photograph, and what each transform alone makes of it."""
    groups = {
        "Into the variants, and afresh in every epoch": augmentation.EVERY_EPOCH,
        "Into the variants alone": augmentation.WRITTEN_ONLY,
    }
    blocks = []
    for heading, names in groups.items():
        transformed = augmentation.strongest(photograph, p.augment, names, seed=p.base.seed)
        captions, pictures = zip(("original", photograph), *transformed, strict=True)
        blocks.append(sheets.Block(pictures, captions, heading))
    sheets.block_sheet(blocks, paths.TRANSFORMS_SHEET, title="Each transform alone, at its limit")


if __name__ == "__main__":
    errors.run(main)
