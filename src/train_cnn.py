"""Training photographs and their variants -> a convolutional network of our own, trained from scratch."""

from catdog.base import errors, params, paths, quiet  # noqa: F401 (quiet: before TensorFlow starts)
from catdog.photographs import shards
from catdog.tracking import runs, store
from catdog.training.cnn import recipe
from catdog.training.loop import checkpoints, fingerprint, fitting, hosts, memory, outcome, strategies

NAME = "cnn"
INPUTS = [paths.TRAIN, paths.AUGMENTED_TRAIN, paths.VAL]


@hosts.together
def main() -> None:
    p = params.load()
    client = store.connect() if hosts.is_first() else None
    train, augmented, val = (shards.Shard(path) for path in INPUTS)
    depends = fingerprint.of(f"train_{NAME}", p)

    with (
        checkpoints.kept(NAME, depends) as checkpoint,
        runs.training(client, p, NAME, inputs=INPUTS, fingerprint=depends) as run,
        memory.watched() as peak,
    ):
        model = recipe.compiled(p, photographs=len(train))
        result = fitting.fit(
            model,
            recipe.phases(p, train=train, augmented=augmented, val=val),
            patience=p.train_cnn.patience,
            checkpoint=checkpoint(NAME),
            on_epoch=run.epoch,
        )
        metrics = outcome.leave(
            NAME,
            recipe.plain(model, p.train_cnn),
            result,
            run=run.ids,
            inputs=INPUTS,
            peak_memory_bytes=peak.bytes,
            policy=model.dtype_policy.name,
            devices=strategies.replicas(model),
        )
        run.log(metrics, history=paths.history(NAME))


if __name__ == "__main__":
    errors.run(main)
