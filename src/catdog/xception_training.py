"""How Xception is trained: a head on frozen features; then, if asked for, its last blocks under that head."""

from collections.abc import Callable

import keras
import numpy as np
import pandas as pd

from catdog import batches, models, params, shards, training
from catdog.checkpoints import Checkpoint

OnEpoch = Callable[[dict[str, float]], None]


def train_head(
    p: params.Params,
    *,
    train: tuple[np.ndarray, np.ndarray],
    val: tuple[np.ndarray, np.ndarray],
    photographs: int,
    checkpoint: Checkpoint,
    on_epoch: OnEpoch,
) -> tuple[keras.Model, training.Result]:
    """Train the head on features, float32 (n, 2048), with labels (n,): of `photographs`, then of their variants."""
    t = p.train_xception
    keras.utils.set_random_seed(p.base.seed)
    head = models.head(t, features=train[0].shape[1])
    head.compile(
        keras.optimizers.Adam(t.learning_rate),
        loss=keras.losses.BinaryCrossentropy(),
        metrics=training.metrics(),
        jit_compile=False,
    )

    def load() -> tuple[Callable[[int], batches.Features], batches.InOrder]:
        def of_epoch(epoch: int) -> batches.Features:
            variants = len(train[1]) // photographs - 1
            return batches.Features(*train, variants=variants, batch_size=t.batch_size, seed=p.base.seed, epoch=epoch)

        return of_epoch, batches.InOrder(*val, batch_size=1024)

    phase = training.Phase(
        name="head",
        image_size=t.image_size,
        epochs=t.epochs,
        load=load,
        photographs=photographs,
        steps=batches.steps(photographs, t.batch_size),
    )
    return head, training.fit(head, [phase], patience=t.patience, checkpoint=checkpoint, on_epoch=on_epoch)


def fine_tune(
    p: params.Params,
    model: keras.Model,
    base: keras.Model,
    head: training.Result,
    *,
    train: list[shards.Shard],
    val: shards.Shard,
    checkpoint: Checkpoint,
    on_epoch: OnEpoch,
) -> training.Result:
    """Train the last blocks of `base` inside `model` at a low rate, from where the head's training ended.

    Epochs count on from the head's. The weights kept are those of the lowest val_loss of all, the head's included.
    """
    t = p.train_xception
    before = model.get_weights()
    models.thaw(base, blocks=t.fine_tune_blocks)
    model.compile(
        keras.optimizers.Adam(t.fine_tune_learning_rate),
        loss=keras.losses.BinaryCrossentropy(),
        metrics=training.metrics(),
        jit_compile=False,
    )
    batch_size = min(t.batch_size, 32)

    def load() -> tuple[Callable[[int], batches.VariedPixels], batches.InOrder]:
        pixels = batches.Pixels(train, size=t.image_size, what="decoding")
        val_pixels = batches.Pixels([val], size=t.image_size, what="decoding val")

        def of_epoch(epoch: int) -> batches.VariedPixels:
            return batches.VariedPixels(
                pixels,
                size=t.image_size,
                policy=p.augment,
                variants=len(pixels.labels) // len(train[0]) - 1,
                batch_size=batch_size,
                seed=p.base.seed,
                epoch=epoch,
            )

        return of_epoch, batches.InOrder(val_pixels.array, val_pixels.labels, batch_size=32)

    phase = training.Phase(
        name=f"last {t.fine_tune_blocks} blocks",
        image_size=t.image_size,
        epochs=t.fine_tune_epochs,
        load=load,
        photographs=len(train[0]),
        steps=batches.steps(len(train[0]), batch_size),
    )
    tuned = training.fit(
        model,
        [phase],
        patience=t.patience,
        checkpoint=checkpoint,
        on_epoch=on_epoch,
        epochs_before=int(head.history["epoch"].iloc[-1]),
    )
    history = pd.concat([head.history, tuned.history], ignore_index=True)
    best = int(history["epoch"].to_numpy()[history["val_loss"].to_numpy().argmin()])
    if best == head.best_epoch:
        model.set_weights(before)
    return training.Result(history=history, best_epoch=best, seconds=head.seconds + tuned.seconds)
