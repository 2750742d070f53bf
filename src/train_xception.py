"""Training photographs -> Xception with ImageNet weights under a head of our own."""

from catdog.base import params, paths
from catdog.base.errors import run
from catdog.photographs import shards
from catdog.tracking import runs
from catdog.training.loop import memory, outcome, strategies
from catdog.training.xception import features, recipe, weights

NAME = "xception"
INPUTS = [paths.TRAIN, paths.AUGMENTED_TRAIN, paths.VAL]


def main() -> None:
    p = params.load()
    t = p.train_xception
    client = runs.connect()
    train, augmented, val = (shards.Shard(path) for path in INPUTS)
    used = [train, augmented] if t.augmented else [train]
    with strategies.scope(p.train.strategy):
        base, origin = weights.load_xception(t.weights, image_size=t.image_size)

    with outcome.tracked(client, NAME, p, inputs=INPUTS, also=origin["sha256"]) as (tracked, checkpoint):
        tracked.tags({f"weights.{key}": value for key, value in origin.items()})
        with memory.watched() as peak:
            frozen = features.extract(
                [*used, val],
                model=base,
                weights_digest=origin["sha256"],
                image_size=t.image_size,
                precision=t.precision,
            )
            model, result = recipe.train(
                p, base, frozen.rows, train=used, val=val, checkpoint=checkpoint, on_epoch=tracked.epoch
            )
        outcome.leave(
            NAME,
            model,
            result,
            tracked,
            p=p,
            inputs=INPUTS,
            seconds_before={"features": frozen.seconds},
            figures={
                "peak_memory_bytes": peak.bytes,
                "features_engine": frozen.engine,
                "devices": strategies.replicas(model),
            },
        )


if __name__ == "__main__":
    run(main)
