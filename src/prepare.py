"""Photographs in data/raw -> checked, upright, deduplicated, shrunk and split shards, and an account of every file."""

from catdog.base import files, params, paths
from catdog.base.errors import run
from catdog.base.progress import track
from catdog.photographs import shards
from catdog.pictures import style
from catdog.preparation import contact_sheets, duplicates, fetching, inspection, manifest, sizes, sources, splits


def main() -> None:
    p = params.load()
    base, prepare = p.base, p.prepare
    fetching.ensure(prepare.source, paths.RAW, classes=base.classes, drawings=prepare.drawings, seed=base.seed)
    met = sources.list_files(paths.RAW, base.classes)

    paths.PREPARED.mkdir(parents=True, exist_ok=True)
    spool = paths.PREPARED / ".spool.arrow"  # always the same, so that a run replaces what a killed one left
    try:
        settings = inspection.Settings(prepare.image_size, prepare.min_side, prepare.max_megapixels)
        found = track(inspection.inspect(met, settings), total=len(met), what="checking photographs")
        findings = inspection.spool(found, spool)

        duplicates.settle(findings, spool=spool, classes=base.classes, likeness=prepare.near_duplicates)
        shares = {"seed": base.seed, "val_fraction": prepare.val_fraction, "test_fraction": prepare.test_fraction}
        splits.assign(findings, **shares)
        account = manifest.table(findings, classes=base.classes)
        counts = manifest.counts(account, classes=base.classes, **shares)
        for split in splits.SPLITS:
            shards.write(paths.PREPARED / f"{split}.arrow", inspection.unspool(findings, spool, split))
        source = sources.describe(paths.RAW)
        note = style.note(source["kind"])
        contact_sheets.draw(findings, spool, classes=base.classes, seed=base.seed, note=note)
        sizes.draw(account, paths.SIZES, classes=base.classes, image_size=prepare.image_size, note=note)
    finally:
        inspection.remove(spool)

    files.write_text(paths.MANIFEST, account.to_csv(index=False))
    measured = sizes.figures(account, classes=base.classes)
    files.write_json(paths.DATA_METRICS, {"source": source, **counts, "sizes": measured})
    print(f"{counts['kept']} of {counts['files']} files kept; {paths.MANIFEST} says why for each of the others")


if __name__ == "__main__":
    run(main)
