"""What another machine may answer: the engine that a model was judged with against Keras in float32."""

import numpy as np

from catdog.answers import inference
from catdog.answers.classifier import probability
from catdog.evaluation.served import Served
from catdog.photographs.shards import Shard


def measure(model: Served, probabilities: np.ndarray, test: Shard, *, count: int) -> dict[str, float | str]:
    """How far the two are apart on test photographs.

    Args:
        probabilities: of all test photographs, by the engine that the model is judged with.
        count: photographs at most: Keras takes its time.

    Returns:
        `engine`, `other_engine` (names); `photographs` asked; `largest_difference`, `mean_difference` of the
        probabilities; `flips`: photographs that get another class.
    """
    rows = test.sample(count)
    chosen, other = model.settings, model.network_of_keras
    asked = inference.on_shard(test, other, side=chosen.side, rows=rows, what=f"test, {other.engine}")
    mine, theirs = probabilities[rows], probability(asked.logits, chosen.temperature)
    apart = np.abs(mine - theirs)
    return {
        "engine": model.classifier.network.engine,
        "other_engine": other.engine,
        "photographs": len(rows),
        "largest_difference": float(apart.max()),
        "mean_difference": float(apart.mean()),
        "flips": int(((mine >= chosen.threshold) != (theirs >= chosen.threshold)).sum()),
    }
