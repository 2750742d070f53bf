"""Training photographs -> Xception with ImageNet weights under a head of our own."""

import numpy as np

from catdog import features, files, models, params, paths, shards, tracking, trained, weights, xception_training
from catdog.checkpoints import Checkpoint
from catdog.errors import run

NAME = "xception"
INPUTS = [paths.TRAIN, paths.AUGMENTED_TRAIN, paths.VAL]


def main() -> None:
    p = params.load()
    t = p.train_xception
    client = tracking.connect()
    train, augmented, val = (shards.Shard(path) for path in INPUTS)
    used = [train, augmented] if t.augmented else [train]
    base, origin = weights.load_xception(t.weights, image_size=t.image_size)
    fingerprint = trained.fingerprint(p, "train_xception", INPUTS) + origin["sha256"]
    checkpoint = Checkpoint(paths.checkpoint(NAME), fingerprint=fingerprint)
    tuning = Checkpoint(paths.checkpoint(f"{NAME}_tuning"), fingerprint=fingerprint)

    with tracking.training_run(
        client,
        NAME,
        knobs=trained.knobs(p, "train_xception"),
        inputs=INPUTS,
        data=files.read_json(paths.DATA_METRICS),
        resume=checkpoint.run_id,
    ) as tracked:
        checkpoint.run_id = tuning.run_id = tracked.run_id
        tracked.tags({f"weights.{key}": value for key, value in origin.items()})
        frozen = features.extract(
            [*used, val],
            model=base,
            weights_digest=origin["sha256"],
            image_size=t.image_size,
            precision=t.precision,
        )
        head, result = xception_training.train_head(
            p,
            train=(np.concatenate(frozen.arrays[:-1]), np.concatenate([shard.labels for shard in used])),
            val=(frozen.arrays[-1], val.labels),
            photographs=len(train),
            checkpoint=checkpoint,
            on_epoch=tracked.epoch,
        )
        model = models.xception(base, head, image_size=t.image_size)
        if t.fine_tune_blocks:
            result = xception_training.fine_tune(
                p, model, base, result, train=used, val=val, checkpoint=tuning, on_epoch=tracked.epoch
            )
        trained.leave(
            NAME,
            model,
            result,
            tracked,
            p=p,
            inputs=INPUTS,
            seconds={"features": frozen.seconds, "training": result.seconds},
            figures={"features_engine": frozen.engine},
        )
    checkpoint.remove()
    tuning.remove()


if __name__ == "__main__":
    run(main)
