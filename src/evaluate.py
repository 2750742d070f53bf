"""Both models and the test photographs -> everything that is said about the two, and their registered versions."""

import tempfile
from pathlib import Path

from catdog.base import errors, files, params, paths, quiet  # noqa: F401 (quiet: before TensorFlow starts)
from catdog.evaluation import comparison, properties, report, served, suspects
from catdog.photographs import shards
from catdog.tracking import lineage, publication, store

SHOWN = {"base", "prepare", "augment", "train_cnn", "train_xception", "evaluate"}  # the params that dvc.yaml names


def main() -> None:
    p = params.load()
    client = store.connect()
    train, val, test, aside = (shards.Shard(path) for path in (paths.TRAIN, paths.VAL, paths.TEST, paths.SET_ASIDE))

    with tempfile.TemporaryDirectory() as folder:
        models = served.make(p, Path(folder), train=train, val=val)
        answers = comparison.ask(p, models, test=test, aside=aside)
        corrupted = comparison.corrupt(p, models, answers, test=test)
        metrics = comparison.measure(p, models, answers, corrupted=corrupted, test=test, aside=aside)
        comparison.write(metrics)
        tables = comparison.write_tables(p, metrics, answers, test=test, corrupted=corrupted)
        pictures = comparison.draw(p, metrics, tables, answers=answers, test=test)
        splits = {"train": train, "val": val, "test": test}
        pictures["suspects"] = suspects.find(
            p, splits, of_test=answers.features, manifest=properties.manifest(), note=comparison.drawings_note()
        )
        predictions = comparison.predictions(answers)
        runs = publication.publish(
            client, p, models=models, metrics=metrics, predictions=predictions, pictures=pictures, test=test
        )
    report.render(
        paths.REPORT,
        evaluation=metrics,
        data=files.read_json(paths.DATA_METRICS),
        histories=comparison.histories(),
        pictures=pictures,
        params=p.model_dump(include=SHOWN),
        lineage=lineage.of_report(runs=runs, inputs=[paths.TRAIN, paths.VAL, paths.TEST]),
    )
    print("{headline}: {certainty}".format_map(metrics["difference"]))


if __name__ == "__main__":
    errors.run(main)
