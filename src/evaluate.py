"""Both models and the test photographs -> everything that is said about the two, and their registered versions."""

from catdog.base import files, params, paths
from catdog.base.errors import run
from catdog.evaluation import comparison, report, suspects
from catdog.photographs import shards
from catdog.tracking import lineage, publication, runs


def main() -> None:
    p = params.load()
    client = runs.connect()
    train, val, test = (shards.Shard(path) for path in (paths.TRAIN, paths.VAL, paths.TEST))

    models = comparison.load(p)
    answers = comparison.ask(models, test=test, val=val)
    worse = comparison.worsen(p, models, test)
    found = comparison.figures(p, answers, worse)
    comparison.write(found)
    tables = comparison.write_tables(p, found, answers, test=test, worse=worse)
    pictures = comparison.draw(p, found, tables, answers=answers, models=models, test=test)
    pictures["suspects"] = suspects.find(p, [train, val], note=comparison.drawings_note())
    published = publication.publish(
        client, p, found=found, predictions=comparison.predictions(answers), pictures=pictures, test=test
    )
    report.render(
        paths.REPORT,
        evaluation=found,
        data=files.read_json(paths.DATA_METRICS),
        histories=comparison.histories(),
        pictures=pictures,
        params=p.model_dump(),
        lineage=lineage.of_report(runs=published, inputs=[paths.TRAIN, paths.AUGMENTED_TRAIN, paths.VAL, paths.TEST]),
    )
    print(found["difference"]["headline"])


if __name__ == "__main__":
    run(main)
