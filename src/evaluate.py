"""Both models and the test photographs -> everything that is said about the two, and their registered versions."""

from catdog import evaluation, files, lineage, params, paths, publication, report, shards, suspects, tracking
from catdog.errors import run


def main() -> None:
    p = params.load()
    client = tracking.connect()
    train, val, test = (shards.Shard(path) for path in (paths.TRAIN, paths.VAL, paths.TEST))

    models = evaluation.load(p)
    answers = evaluation.ask(models, test=test, val=val)
    worse = evaluation.worsen(p, models, test)
    found = evaluation.figures(p, answers, worse)
    evaluation.write(found)
    tables = evaluation.write_tables(p, found, answers, test=test, worse=worse)
    pictures = evaluation.draw(p, found, tables, answers=answers, models=models, test=test)
    pictures["suspects"] = suspects.find(p, [train, val], note=evaluation.drawings_note())
    runs = publication.publish(
        client, p, found=found, predictions=evaluation.predictions(answers), pictures=pictures, test=test
    )
    report.render(
        paths.REPORT,
        evaluation=found,
        data=files.read_json(paths.DATA_METRICS),
        histories=evaluation.histories(),
        pictures=pictures,
        params=p.model_dump(),
        lineage=lineage.of_report(runs=runs, inputs=[paths.TRAIN, paths.AUGMENTED_TRAIN, paths.VAL, paths.TEST]),
    )
    print(found["difference"]["headline"])


if __name__ == "__main__":
    run(main)
