"""How the CNN is trained: small to large, one rate schedule over all of it."""

from collections.abc import Callable

import keras

from catdog.base import params
from catdog.engines import backend
from catdog.photographs import shards
from catdog.training.cnn import network
from catdog.training.cnn.optimizer import FusedAdamW
from catdog.training.loop import batches, fitting, hosts, precision, strategies


def compiled(p: params.Params, *, photographs: int) -> keras.Model:
    """The CNN, compiled for training on `photographs` an epoch: AdamW, with weight decay on kernels alone."""
    t = p.train_cnn
    keras.utils.set_random_seed(p.base.seed)
    # Hosts may differ in their processors, and train one network.
    keras.config.set_dtype_policy(hosts.shared(lambda: precision.for_training(t.precision).encode()).decode())
    rate = one_cycle(t.learning_rate, steps=sum(t.epochs) * batches.steps(photographs, t.batch_size))
    fused = backend.is_tensorflow()  # whose kernels they are
    with strategies.scope(p.train.strategy):
        model = network.cnn(t, fused=fused)
        adamw = (FusedAdamW if fused else keras.optimizers.AdamW)(rate, weight_decay=t.weight_decay)
        adamw.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
        model.compile(
            adamw, loss=keras.losses.BinaryCrossentropy(label_smoothing=t.label_smoothing), **fitting.measured()
        )
    return model


def one_cycle(peak: float, *, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """A learning rate that climbs to `peak` in the first 15 % of all `steps`, then falls along a cosine."""
    warmup = max(1, round(0.15 * steps))
    return keras.optimizers.schedules.CosineDecay(
        peak / 25, decay_steps=max(1, steps - warmup), alpha=0.001, warmup_target=peak, warmup_steps=warmup
    )


def phases(p: params.Params, *, train: shards.Shard, augmented: shards.Shard, val: shards.Shard) -> list[fitting.Phase]:
    """A phase for each of `image_sizes`."""
    t = p.train_cnn

    def phase(size: int, epochs: int) -> fitting.Phase:
        def load() -> tuple[Callable[[int], batches.VariedPixels], batches.InOrder]:
            larger = round(size * batches.MARGIN)
            pixels = batches.Pixels([train, augmented], size=larger, what=f"decoding at {larger} px")
            val_pixels = batches.Pixels([val], size=size, what=f"decoding val at {size} px")

            def of_epoch(epoch: int) -> batches.VariedPixels:
                return batches.VariedPixels(
                    pixels,
                    variants=len(augmented) // len(train),
                    size=size,
                    batch_size=t.batch_size,
                    policy=p.augment,
                    seed=p.base.seed,
                    epoch=epoch,
                )

            return of_epoch, batches.InOrder(val_pixels.array, val_pixels.labels, batch_size=256)

        return fitting.Phase(
            name=f"at {size} px",
            image_size=size,
            epochs=epochs,
            load=load,
            photographs=len(train),
            steps=batches.steps(len(train), t.batch_size),
            keep_best=size == t.image_sizes[-1],
        )

    return [phase(size, epochs) for size, epochs in zip(t.image_sizes, t.epochs, strict=True)]


def plain(model: keras.Model, p: params.TrainCnn) -> keras.Model:
    """The trained network as it is saved: of Keras' own layers, in float32, with its image size declared."""
    keras.config.set_dtype_policy("float32")
    plain = network.cnn(p, image_size=p.image_sizes[-1])
    plain.set_weights(model.get_weights())
    return plain
