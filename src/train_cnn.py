"""Training photographs and their variants -> a convolutional network of our own, trained from scratch."""

from catdog import cnn_training, files, params, paths, shards, tracking, trained, training
from catdog.checkpoints import Checkpoint
from catdog.errors import run

NAME = "cnn"
INPUTS = [paths.TRAIN, paths.AUGMENTED_TRAIN, paths.VAL]


def main() -> None:
    p = params.load()
    client = tracking.connect()
    train, augmented, val = (shards.Shard(path) for path in INPUTS)
    checkpoint = Checkpoint(paths.checkpoint(NAME), fingerprint=trained.fingerprint(p, "train_cnn", INPUTS))

    with tracking.training_run(
        client,
        NAME,
        knobs=trained.knobs(p, "train_cnn"),
        inputs=INPUTS,
        data=files.read_json(paths.DATA_METRICS),
        resume=checkpoint.run_id,
    ) as tracked:
        checkpoint.run_id = tracked.run_id
        model = cnn_training.network(p, photographs=len(train))
        result = training.fit(
            model,
            cnn_training.phases(p, train=train, augmented=augmented, val=val),
            patience=p.train_cnn.patience,
            checkpoint=checkpoint,
            on_epoch=tracked.epoch,
        )
        trained.leave(
            NAME,
            cnn_training.finished(model, p.train_cnn),
            result,
            tracked,
            p=p,
            inputs=INPUTS,
            seconds={"training": result.seconds},
            figures={"policy": model.dtype_policy.name},
        )
    checkpoint.remove()


if __name__ == "__main__":
    run(main)
