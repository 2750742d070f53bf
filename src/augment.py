"""Training photographs -> seeded variants of each, and a sheet of originals beside their variants to look at."""

from catdog import augmentation, params, paths, shards, sheets
from catdog.errors import run
from catdog.progress import track

SHOWN = 8


def main() -> None:
    p = params.load()
    train = shards.Shard(paths.TRAIN)
    total = len(train) * p.augment.variants
    made = track(augmentation.variants(train, p.augment, seed=p.base.seed), total=total, what="making variants")
    shards.write(paths.AUGMENTED_TRAIN, made)
    sheets.variants_sheet(train, shards.Shard(paths.AUGMENTED_TRAIN), paths.AUGMENTED_SHEET, shown=SHOWN)
    print(f"{total} variants of {len(train)} photographs; {paths.AUGMENTED_SHEET} shows some")


if __name__ == "__main__":
    run(main)
