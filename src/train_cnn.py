"""Training photographs and their variants -> a convolutional network of our own, trained from scratch."""

from catdog.base import params, paths
from catdog.base.errors import run
from catdog.photographs import shards
from catdog.tracking import runs
from catdog.training.cnn import recipe
from catdog.training.loop import fitting, memory, outcome, strategies

NAME = "cnn"
INPUTS = [paths.TRAIN, paths.AUGMENTED_TRAIN, paths.VAL]


def main() -> None:
    p = params.load()
    client = runs.connect()
    train, augmented, val = (shards.Shard(path) for path in INPUTS)

    with outcome.tracked(client, NAME, p, inputs=INPUTS) as (tracked, checkpoint):
        model = recipe.compiled(p, photographs=len(train))
        with memory.watched() as peak:
            result = fitting.fit(
                model,
                recipe.phases(p, train=train, augmented=augmented, val=val),
                patience=p.train_cnn.patience,
                checkpoint=checkpoint(NAME),
                on_epoch=tracked.epoch,
            )
        outcome.leave(
            NAME,
            recipe.finished(model, p.train_cnn),
            result,
            tracked,
            p=p,
            inputs=INPUTS,
            seconds_before={},
            figures={
                "peak_memory_bytes": peak.bytes,
                "policy": model.dtype_policy.name,
                "devices": strategies.replicas(model),
            },
        )


if __name__ == "__main__":
    run(main)
