"""Both models and the test photographs -> everything that is said about the two, and their registered versions."""

from catdog.base import errors, files, params, paths
from catdog.evaluation import comparison, report, suspects
from catdog.photographs import shards
from catdog.tracking import lineage, publication, store

SHOWN = {"base", "prepare", "augment", "train_cnn", "train_xception", "evaluate"}  # the params that dvc.yaml names


def main() -> None:
    p = params.load()
    client = store.connect()
    train, val, test = (shards.Shard(path) for path in (paths.TRAIN, paths.VAL, paths.TEST))

    models = comparison.load(p)
    answers = comparison.ask(models, test=test, val=val)
    corrupted = comparison.corrupt(p, models, test)
    metrics = comparison.measure(p, answers, corrupted)
    comparison.write(metrics)
    tables = comparison.write_tables(p, metrics, answers, test=test, corrupted=corrupted)
    pictures = comparison.draw(p, metrics, tables, answers=answers, models=models, test=test)
    pictures["suspects"] = suspects.find(p, [train, val], note=comparison.drawings_note())
    runs = publication.publish(
        client, p, metrics=metrics, predictions=comparison.predictions(answers), pictures=pictures, test=test
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
    print(metrics["difference"]["headline"])


if __name__ == "__main__":
    errors.run(main)
