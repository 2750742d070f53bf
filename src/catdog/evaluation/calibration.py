"""Do probabilities mean what they say, and the temperature that makes them.

Labels are 0 or 1, probabilities and logits are those of class 1, all of shape (n,), one entry per photograph.
"""

import numpy as np
import pandas as pd
from scipy import optimize, special

from catdog.evaluation.scoring import BINS, bins, checked, wilson


def temperature(labels: np.ndarray, logits: np.ndarray) -> float:
    """The number to divide logits by, fitted on validation photographs; above 1 the model was too sure.

    It minimises the log loss against Platt's targets, (n1 + 1) / (n1 + 2) and 1 / (n0 + 2) in place of 1 and 0. With
    1 and 0, a validation set without a mistake would drive it to 0, and the loss of any later mistake out of bounds.
    It lies between 0.05 and 20, and is 1 where no temperature lowers the loss.
    """
    labels, _ = checked(labels, special.expit(logits))
    positives = labels.sum()
    targets = np.where(labels, (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2))

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        return float(np.mean(np.logaddexp(0, scaled) - targets * scaled))

    best = optimize.minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded").x
    return float(np.exp(best)) if loss(best) < loss(0.0) else 1.0


def reliability_table(labels: np.ndarray, probabilities: np.ndarray, *, confidence: float) -> pd.DataFrame:
    """A row for each of the 15 bins of `calibration_error` that has photographs.

    Columns: probability (mean of the bin), observed (fraction of class 1), low and high (Wilson's interval of
    observed), photographs, middle and width (of the bin).
    """
    labels, probabilities = checked(labels, probabilities)
    binned = bins(probabilities)
    rows = []
    for number in np.unique(binned):
        inside = binned == number
        count, ones = int(inside.sum()), int(labels[inside].sum())
        low, high = wilson(ones, count, confidence)
        rows.append((probabilities[inside].mean(), ones / count, low, high, count, (number + 0.5) / BINS, 1 / BINS))
    return pd.DataFrame(rows, columns=["probability", "observed", "low", "high", "photographs", "middle", "width"])
