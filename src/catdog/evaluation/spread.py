"""The spread of training: how far a model's test metrics move when it is trained again from another seed."""

import statistics

import numpy as np

from catdog.answers.classifier import probability
from catdog.base import params, paths
from catdog.evaluation import calibration, scoring
from catdog.photographs.shards import Shard
from catdog.training.xception import seeds

_METRICS = ("accuracy", "log_loss")


def measure(p: params.Params, labels: np.ndarray, features: np.ndarray | None, *, served: dict[str, float]) -> dict:
    """By model, what is known of its spread; nothing where it was not measured.

    Args:
        labels, features: of the test photographs, (n,) and float32 (n, k). None: Xception's own blocks were trained,
            and that once.
        served: the metrics of the Xception that is served, which was trained from `base.seed`.

    Returns:
        `seeds`: accuracy and log_loss by seed, the served model's first, each as it would be served, with a temperature
        of its own; `mean` of these; `deviation`, their standard deviation (n - 1). Of the CNN, which is costly to
        train, `deviation` of accuracy alone, as the params have it.
    """
    cnn = p.evaluate.cnn_seed_deviation
    further = {} if features is None else _further(p, labels, features)
    return {
        "cnn": {} if cnn is None else {"deviation": {"accuracy": cnn}},
        "xception": summarised({p.base.seed: served} | further) if further else {},
    }


def summarised(by_seed: dict[int, dict[str, float]]) -> dict:
    """The metrics of at least two seeds, their mean and their standard deviation, as `measure` returns them."""
    values = {key: [metrics[key] for metrics in by_seed.values()] for key in _METRICS}
    return {
        "seeds": {str(seed): {key: metrics[key] for key in _METRICS} for seed, metrics in by_seed.items()},
        "mean": {key: statistics.mean(values[key]) for key in _METRICS},
        "deviation": {key: statistics.stdev(values[key]) for key in _METRICS},
    }


def of_accuracy(measured: dict) -> float | None:
    """The standard deviation of a model's accuracy over seeds; None where it was not measured."""
    return measured.get("deviation", {}).get("accuracy")


def _further(p: params.Params, labels: np.ndarray, features: np.ndarray) -> dict[int, dict[str, float]]:
    """The metrics of the heads of further seeds, which the training of Xception may have left."""
    path = paths.model("xception") / paths.SEEDS_FILE
    if not path.exists():
        return {}
    val = Shard(paths.VAL)
    found = {}
    for seed, head in seeds.load(path).items():
        logits = seeds.logits(p.train_xception, head.weights, features)
        probabilities = probability(logits, calibration.temperature(val.labels, head.val_logits))
        found[seed] = scoring.score(labels, probabilities, threshold=p.evaluate.threshold)
    return found
