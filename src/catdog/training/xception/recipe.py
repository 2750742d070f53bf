"""How Xception is trained: a head on frozen features; then, if asked for, its last blocks under that head."""

from collections.abc import Callable

import keras
import numpy as np
import pandas as pd

from catdog.base import params
from catdog.photographs import shards
from catdog.training.loop import batches, fitting, strategies
from catdog.training.loop.checkpoints import Checkpoint
from catdog.training.xception import network

OnEpoch = Callable[[dict[str, float]], None]


def with_labels(
    features: np.ndarray, train: list[shards.Shard], val: shards.Shard
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Features, rows of the shards of `train`, then of `val`, as (features, labels) to train and to validate on."""
    labels = np.concatenate([shard.labels for shard in train])
    return (features[: len(labels)], labels), (features[len(labels) :], val.labels)


def train_head(
    p: params.Params,
    *,
    train: tuple[np.ndarray, np.ndarray],
    val: tuple[np.ndarray, np.ndarray],
    photographs: int,
    checkpoint: Checkpoint,
    on_epoch: OnEpoch,
    seed: int | None = None,
) -> tuple[keras.Model, fitting.Result]:
    """Train the head on features, float32 (n, 2048), with labels (n,): of `photographs`, then of their variants.

    Weights, order and dropout follow from `seed`, which is `base.seed` unless another is given.
    """
    t = p.train_xception
    name = "head" if seed is None else f"head, seed {seed}"
    seed = p.base.seed if seed is None else seed
    keras.utils.set_random_seed(seed)
    with strategies.scope(p.train.strategy):
        head = network.head(t, features=train[0].shape[1])
        rate = keras.optimizers.schedules.CosineDecay(
            t.learning_rate, decay_steps=t.epochs * batches.steps(photographs, t.batch_size)
        )
        optimizer = keras.optimizers.AdamW(rate, weight_decay=t.weight_decay)
        optimizer.exclude_from_weight_decay(var_names=["bias"])
        _compile(head, optimizer)

    def load() -> tuple[Callable[[int], batches.FeatureBatches], batches.InOrder]:
        def of_epoch(epoch: int) -> batches.FeatureBatches:
            variants = len(train[1]) // photographs - 1
            return batches.FeatureBatches(*train, variants=variants, batch_size=t.batch_size, seed=seed, epoch=epoch)

        return of_epoch, batches.InOrder(*val, batch_size=1024)

    phase = fitting.Phase(
        name=name,
        image_size=t.image_size,
        epochs=t.epochs,
        load=load,
        photographs=photographs,
        steps=batches.steps(photographs, t.batch_size),
    )
    return head, fitting.fit(head, [phase], patience=t.patience, checkpoint=checkpoint, on_epoch=on_epoch)


def joined(p: params.Params, base: keras.Model, head: keras.Model) -> keras.Model:
    """`base` and the weights of the trained `head` as one model, from pixels to probability.

    Neither is compiled: a file of the model would else name the loss and metrics, which loading it would need again.
    """
    with strategies.scope(p.train.strategy):
        plain = network.head(p.train_xception, features=head.input_shape[-1])
        plain.set_weights(head.get_weights())
        return network.xception(base, plain, image_size=p.train_xception.image_size)


def fine_tune(
    p: params.Params,
    model: keras.Model,
    base: keras.Model,
    head: fitting.Result,
    *,
    train: list[shards.Shard],
    val: shards.Shard,
    checkpoint: Checkpoint,
    on_epoch: OnEpoch,
) -> fitting.Result:
    """Train the last blocks of `base` inside `model` at a low rate, from where the head's training ended.

    Epochs count on from the head's. The weights kept are those of the lowest val_loss of all, the head's included.
    """
    t = p.train_xception
    before = model.get_weights()
    network.thaw(base, blocks=t.fine_tune_blocks)
    with strategies.scope(p.train.strategy):
        _compile(model, keras.optimizers.Adam(t.fine_tune_learning_rate))
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

    phase = fitting.Phase(
        name=f"last {t.fine_tune_blocks} blocks",
        image_size=t.image_size,
        epochs=t.fine_tune_epochs,
        load=load,
        photographs=len(train[0]),
        steps=batches.steps(len(train[0]), batch_size),
    )
    tuned = fitting.fit(
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
    return fitting.Result(history=history, best_epoch=best, seconds=head.seconds + tuned.seconds)


def _compile(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
    model.compile(optimizer, loss=keras.losses.BinaryCrossentropy(), **fitting.measured())
