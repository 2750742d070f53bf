"""Our features against Keras' own in float32: how far apart they are, and what that makes of the answers.

Test photographs go through the base of the saved Xception twice, through our engine in the number format it takes here
and through Keras' `predict` in float32; both sets of features then go through the saved head.
"""

import common
import numpy as np
from common import Figure

from catdog.base import params, paths
from catdog.base.errors import UserError, run
from catdog.base.progress import track
from catdog.photographs import photos, shards

BATCH = 16  # the engine's own, as features.extract has it
TOLERANCE = 0.001  # of 1: a tenth of a point of accuracy


def main() -> None:
    given = common.arguments(__doc__, rounds=1)
    import keras

    from catdog.training.loop import precision
    from catdog.training.xception import engines

    p = params.load()
    path = paths.model("xception") / "model.keras"
    if not path.exists():
        raise UserError(f"{path} not found: run `dvc repro`")
    model = keras.saving.load_model(path)
    base, head = model.get_layer("xception"), model.get_layer("head")
    shard = shards.Shard(paths.TEST)
    count = min(len(shard), 32 if given.quick else 400)
    size = p.train_xception.image_size
    policy, engine = precision.resolve(p.train_xception.precision), engines.name()
    compute = engines.BUILD[engine](base, image_size=size, precision=policy, batch_size=BATCH)

    starts = range(0, count, BATCH)
    ours, theirs = [], []
    for start in track(starts, total=len(starts), what="both"):
        rows = range(start, min(start + BATCH, count))
        pixels = np.stack([photos.pixels(shard.jpeg(row), size) for row in rows])
        ours += compute([pixels])
        theirs.append(base.predict_on_batch(pixels.astype(np.float32) / 127.5 - 1))
    mine, reference = np.concatenate(ours), np.concatenate(theirs)

    lengths = np.linalg.norm(mine, axis=1), np.linalg.norm(reference, axis=1)
    cosine = (mine * reference).sum(axis=1) / (lengths[0] * lengths[1])
    away = np.linalg.norm(mine - reference, axis=1) / lengths[1]
    answers = [head.predict(features, verbose=0)[:, 0] for features in (mine, reference)]
    apart = np.abs(answers[0] - answers[1])
    positive = [answer >= p.evaluate.threshold for answer in answers]
    accuracy = [float(np.mean(verdict == shard.labels[:count])) for verdict in positive]

    ours_name = f"{engine}, {policy}"
    figures = [
        Figure("photographs", f"test photographs, {size} px", count, "", "counted"),
        Figure("cosine", "cosine of the features, lowest", float(cosine.min()), "of 1", "measured", goal=0.99),
        Figure("away_median", "distance of the features, median", float(np.median(away)), "of their norm", "measured"),
        Figure("away", "distance of the features, largest", float(away.max()), "of their norm", "measured"),
        Figure("probability_mean", "probabilities apart by, on average", float(apart.mean()), "of 1", "measured"),
        Figure("probability", "probabilities apart by, at most", float(apart.max()), "of 1", "measured"),
        Figure("verdicts", "verdicts that differ", float((positive[0] != positive[1]).sum()), "", "counted"),
        Figure("accuracy", f"accuracy, {ours_name}", accuracy[0], "of 1", "measured", goal=accuracy[1] - TOLERANCE),
        Figure("accuracy_keras", "accuracy, keras, float32", accuracy[1], "of 1", "measured"),
    ]
    notes = ["The head is that of the saved model, so a head trained again changes what is said of the answers."]
    common.leave("feature_agreement", figures, notes=notes, seconds={}, quick=given.quick)


if __name__ == "__main__":
    run(main)
