"""Training photographs and their variants -> a convolutional network of our own, trained from scratch."""

from catdog import cnn_training, memory, params, paths, shards, strategies, tracking, trained, training
from catdog.errors import run

NAME = "cnn"
INPUTS = [paths.TRAIN, paths.AUGMENTED_TRAIN, paths.VAL]


def main() -> None:
    p = params.load()
    client = tracking.connect()
    train, augmented, val = (shards.Shard(path) for path in INPUTS)

    with trained.tracked(client, NAME, p, inputs=INPUTS) as (tracked, checkpoint):
        model = cnn_training.network(p, photographs=len(train))
        with memory.watched() as peak:
            result = training.fit(
                model,
                cnn_training.phases(p, train=train, augmented=augmented, val=val),
                patience=p.train_cnn.patience,
                checkpoint=checkpoint(NAME),
                on_epoch=tracked.epoch,
            )
        trained.leave(
            NAME,
            cnn_training.finished(model, p.train_cnn),
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
