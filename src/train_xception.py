"""Training photographs -> Xception with ImageNet weights under a head of our own."""

from catdog.base import errors, params, paths, quiet  # noqa: F401 (quiet: before TensorFlow starts)
from catdog.photographs import shards
from catdog.tracking import runs, store
from catdog.training.loop import checkpoints, fingerprint, hosts, memory, outcome, strategies
from catdog.training.xception import features, recipe, seeds, weights

NAME = "xception"
INPUTS = [paths.TRAIN, paths.AUGMENTED_TRAIN, paths.VAL]


@hosts.together
def main() -> None:
    p = params.load()
    t = p.train_xception
    client = store.connect() if hosts.is_first() else None
    train, augmented, val = (shards.Shard(path) for path in INPUTS)
    learnt_from = [train, augmented] if t.augmented else [train]
    with strategies.scope(p.train.strategy):
        base, origin = weights.load_xception(t.weights, image_size=t.image_size)
    depends = fingerprint.of(f"train_{NAME}", p, also=origin["sha256"])

    with (
        checkpoints.kept(NAME, depends) as checkpoint,
        runs.training(client, p, NAME, inputs=INPUTS, fingerprint=depends) as run,
    ):
        run.tags({f"weights.{key}": value for key, value in origin.items()})
        with memory.watched() as peak:
            frozen = features.extract(
                [*learnt_from, val],
                model=base,
                weights_digest=origin["sha256"],
                image_size=t.image_size,
                precision=t.precision,
            )
            to_train, to_validate = recipe.with_labels(frozen.rows, learnt_from, val)
            given = {"train": to_train, "val": to_validate, "photographs": len(train)}
            head, result = recipe.train_head(p, **given, checkpoint=checkpoint(NAME), on_epoch=run.epoch)
            model = recipe.joined(p, base, head)
            if t.fine_tune_blocks:
                tuning = checkpoint(f"{NAME}_tuning")
                result = recipe.fine_tune(
                    p, model, base, result, train=learnt_from, val=val, checkpoint=tuning, on_epoch=run.epoch
                )
        heads, seconds = seeds.train(p, **given, checkpoint=lambda seed: checkpoint(f"{NAME}_seed_{seed}"))
        metrics = outcome.leave(
            NAME,
            model,
            result,
            run=run.ids,
            inputs=INPUTS,
            seconds_before={"features": frozen.seconds},
            peak_memory_bytes=peak.bytes,
            features_engine=frozen.engine,
            devices=strategies.replicas(model),
            seconds_seeds=seconds,
        )
        if heads and hosts.is_first():
            seeds.save(paths.model(NAME) / paths.SEEDS_FILE, heads)
        run.log(metrics, history=paths.history(NAME))


if __name__ == "__main__":
    errors.run(main)
