"""One training loop for every model: epochs recorded, best weights kept, early stopping, going on after a kill."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pandas as pd

from catdog.base.errors import UserError
from catdog.base.progress import EpochBar
from catdog.engines import backend
from catdog.training.loop import hosts, strategies
from catdog.training.loop.checkpoints import Checkpoint, State


@dataclass(frozen=True)
class Phase:
    """Epochs over one kind of input.

    Attributes:
        load: called when the phase begins, so that the data of one phase are in memory at a time. Gives a function from
            an epoch's number to its batches of (inputs, labels), and the batches to validate on.
        photographs, steps: of an epoch.
        keep_best: whether its epochs compete for the best weights, and may stop early. A val_loss at 64 pixels can't be
            compared with one at 128.
    """

    name: str
    image_size: int
    epochs: int
    load: Callable[[], tuple[Callable[[int], Any], Any]]
    photographs: int
    steps: int
    keep_best: bool = True


@dataclass(frozen=True)
class Result:
    """`history` has a row for each epoch; `seconds` is the wall time of all, before a kill and after."""

    history: pd.DataFrame
    best_epoch: int
    seconds: float

    @property
    def seconds_by_part(self) -> dict[str, float]:
        """`data`: loading each phase's photographs, and checkpoints. `training`: the epochs and their validation."""
        epochs = float(self.history["seconds"].sum())
        return {"data": max(0.0, self.seconds - epochs), "training": epochs}


def fit(
    model: keras.Model,
    phases: list[Phase],
    *,
    patience: int,
    checkpoint: Checkpoint,
    on_epoch: Callable[[dict[str, float]], None],
    epochs_before: int = 0,
) -> Result:
    """Train the compiled `model` through `phases` and leave it with its best weights, those of the lowest val_loss.

    On one CPU the same seed gives the same weights to the last bit; on a GPU no backend promises that.

    Args:
        model: its metrics include `accuracy` and `log_loss`, as `metrics` has them.
        patience: epochs without a lower val_loss before stopping.
        checkpoint: written after every epoch; a training that was killed goes on from it.
        on_epoch: gets every row of the history, in order; after a kill again from the first.
        epochs_before: epochs are counted across phases, from this number plus one.

    Raises:
        UserError: the val_loss is no number any more.
    """
    with strategies.scope_of(model):
        model.optimizer.build(model.trainable_variables)
    state = checkpoint.restore(model) or State()
    started = time.perf_counter() - state.seconds
    for row in state.history:
        on_epoch(row)
    total = sum(phase.epochs for phase in phases)
    bar = EpochBar(total_epochs=epochs_before + total)
    first = epochs_before + 1
    for phase in phases:
        epochs = range(first, first + phase.epochs)
        first += phase.epochs
        if epochs[-1] <= state.epoch:
            continue
        if state.stopped:
            break
        batches, val = phase.load()
        _build(model, val)
        for epoch in epochs[max(0, state.epoch - epochs[0] + 1) :]:
            row = _epoch(model, phase, epoch, batches(epoch), val, bar)
            state.epoch = epoch
            state.seconds = time.perf_counter() - started
            state.history.append(row)
            if phase.keep_best and row["val_loss"] < state.best_val_loss:
                state.best_val_loss, state.best_epoch = row["val_loss"], epoch
                state.best_weights = model.get_weights()
            state.stopped = phase.keep_best and epoch - max(state.best_epoch, epochs[0] - 1) >= patience
            checkpoint.save(model, state)
            on_epoch(row)
            if state.stopped:
                break
    hosts.meet()
    model.set_weights(state.best_weights)
    history = pd.DataFrame(state.history).astype({"epoch": int, "image_size": int})
    return Result(history=history, best_epoch=state.best_epoch, seconds=state.seconds)


def _build(model: keras.Model, val: Any) -> None:
    """Have Keras build what it else builds by a look at the first batch of an epoch.

    On JAX that look puts batches which threads prepare in another order, and leaves some out.
    """
    if backend.is_jax():
        hosts.meet()
        replicas = strategies.replicas(model)
        first = strategies.EvenBatches(val, replicas=replicas, weighted=True)[0] if replicas > 1 else val[0]
        with strategies.scope_of(model):
            model.test_on_batch(*first)


def _epoch(model: keras.Model, phase: Phase, epoch: int, batches: Any, val: Any, bar: EpochBar) -> dict[str, float]:
    hosts.meet()
    started = time.perf_counter()
    bar.start(epoch, phase.name, phase.steps)
    replicas = strategies.replicas(model)
    with strategies.scope_of(model):
        fitted = model.fit(
            strategies.EvenBatches(batches, replicas=replicas) if replicas > 1 else batches,
            epochs=1,
            verbose=0,
            # The batches have their order already; Keras would mix them by a state that no checkpoint keeps.
            shuffle=False,
            callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=bar.step)],
        )
        trained = time.perf_counter() - started
        val_metrics = _evaluate(model, val)
    train_metrics = {name: values[-1] for name, values in fitted.history.items()}
    row = {
        "epoch": epoch,
        "image_size": phase.image_size,
        "train_loss": train_metrics["log_loss"],
        "train_accuracy": train_metrics["accuracy"],
        "val_loss": val_metrics["log_loss"],
        "val_accuracy": val_metrics["accuracy"],
        "learning_rate": float(np.asarray(model.optimizer.learning_rate)),
        "seconds": time.perf_counter() - started,
        "photographs_per_second": phase.photographs / trained,
    }
    if not np.isfinite(row["val_loss"]):
        raise UserError(f"val_loss is {row['val_loss']} in epoch {epoch}: the training diverged; lower learning_rate")
    bar.end(row)
    return row


def _evaluate(model: keras.Model, val: Any) -> dict[str, float]:
    replicas = strategies.replicas(model)
    if replicas == 1:
        return model.evaluate(val, verbose=0, return_dict=True)
    if backend.is_jax():
        weighted = strategies.EvenBatches(val, replicas=replicas, weighted=True)
        return model.evaluate(weighted, verbose=0, return_dict=True)
    # Here `evaluate` would average over devices, as if each had had as many photographs as the others.
    shared = strategies.EvenBatches(val, replicas=replicas)
    probabilities = model.predict(shared, verbose=0)[shared.originals()]
    labels = np.concatenate([val[index][1] for index in range(len(val))])
    return {metric.name: float(metric(labels, probabilities)) for metric in metrics()}


def measured() -> dict[str, Any]:
    """What a model is compiled with beside its optimizer and loss: `metrics`, and whether by XLA."""
    # On JAX an evaluation that devices share has weights.
    return {"weighted_metrics" if backend.is_jax() else "metrics": metrics(), "jit_compile": backend.compiles()}


def metrics() -> list[keras.metrics.Metric]:
    """What `fit` records: accuracy, and the plain log loss whatever smoothing the training loss has.

    Two photographs in one count as the class that covers more.
    """
    return [
        keras.metrics.MeanMetricWrapper(_right, name="accuracy"),
        keras.metrics.BinaryCrossentropy(name="log_loss"),
    ]


def _right(labels: Any, probabilities: Any) -> Any:
    of_labels, verdicts = (keras.ops.cast(each, "float32") > 0.5 for each in (labels, probabilities))
    return keras.ops.mean(of_labels == verdicts, axis=-1)
