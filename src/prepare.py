"""Photographs in data/raw -> checked, upright, deduplicated, shrunk and split shards, and a manifest of every file."""

from functools import partial

from catdog.base import errors, files, parallel, params, paths
from catdog.base.progress import track
from catdog.photographs import shards
from catdog.pictures import style
from catdog.preparation import (
    contact_sheets,
    corrections,
    duplicates,
    fetching,
    inspection,
    manifest,
    sizes,
    sources,
    splits,
)


def main() -> None:
    p = params.load()
    base, prepare = p.base, p.prepare
    shares = {"val_fraction": prepare.val_fraction, "test_fraction": prepare.test_fraction}

    decisions = corrections.load(paths.CORRECTIONS, base.classes)
    fetching.ensure(prepare.source, paths.RAW, classes=base.classes, drawings=prepare.drawings, seed=base.seed)
    with sources.unchanged(paths.RAW), inspection.room(paths.PREPARED) as spool:
        raw_files = sources.list_files(paths.RAW, base.classes)
        settings = inspection.Settings(prepare.image_size, prepare.min_side, prepare.max_megapixels)
        inspected = track(inspection.inspect(raw_files, settings), total=len(raw_files), what="checking photographs")
        findings = inspection.spool(inspected, spool)
        corrections.apply(findings, decisions, classes=base.classes, path=paths.CORRECTIONS)
        duplicates.resolve(findings, spool=spool, classes=base.classes, likeness=prepare.near_duplicates)
        splits.assign(findings, seed=base.seed, **shares)
        table = manifest.table(findings, classes=base.classes)
        counts = manifest.counts(table, classes=base.classes, seed=base.seed, **shares)

        pixels = shards.Shard(spool)
        splits.write(findings, pixels, paths.PREPARED, rows_per_file=prepare.shard_photographs)
        source = sources.describe(paths.RAW)
        note = style.note(source["kind"])
        parallel.together(
            partial(contact_sheets.draw, findings, pixels, classes=base.classes, note=note),
            partial(sizes.draw, table, paths.SIZES, classes=base.classes, image_size=prepare.image_size, note=note),
        )
        files.write_text(paths.MANIFEST, table.to_csv(index=False))
        measurements = sizes.measurements(table, classes=base.classes)
        digest = files.sha256(paths.MANIFEST)
        corrected = corrections.counts(paths.CORRECTIONS, decisions, table)
        metrics = {"source": source, **counts, "corrections": corrected, "sizes": measurements}
        files.write_json(paths.DATA_METRICS, metrics | {"manifest_sha256": digest})
    print(f"{counts['kept']} of {counts['files']} files kept; {paths.MANIFEST} says why for each of the others")


if __name__ == "__main__":
    errors.run(main)
