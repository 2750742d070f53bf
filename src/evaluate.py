"""Both models and the test photographs -> everything that is said about the two, and their registered versions."""

from catdog import evaluation, files, lineage, params, paths, publication, report, shards, tracking
from catdog.errors import run


def main() -> None:
    p = params.load()
    client = tracking.connect()
    test = shards.Shard(paths.TEST)

    answers = evaluation.ask(p, test)
    found = evaluation.figures(p, answers)
    files.write_json(paths.EVALUATION, found)
    tables = evaluation.write_tables(p, answers)
    pictures = evaluation.draw(p, found, tables)
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
