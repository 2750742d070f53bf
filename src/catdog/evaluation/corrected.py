"""What decisions of people did to the test: the metrics on labels as they were filed, and photographs of neither class.

Decisions come with data/prepared/manifest.csv: `filed` beside `label`, `decision`, and a reason for those set aside.
"""

from typing import Any

import numpy as np
import pandas as pd

from catdog.answers.classifier import DOUBTS, NEITHER, Judged
from catdog.evaluation import scoring
from catdog.photographs.shards import Shard


def decided(manifest: pd.DataFrame) -> set[str]:
    """The ids of photographs that a person decided on: their labels are in doubt no more."""
    return set(manifest.loc[manifest["decision"].notna(), "id"])


def as_filed(
    manifest: pd.DataFrame,
    test: Shard,
    judged: Judged,
    *,
    aside: Shard,
    judged_aside: Judged | None,
    classes: list[str],
    threshold: float,
) -> dict[str, Any]:
    """The metrics on the test as it was filed: with the labels of the folders, and with what was set aside since.

    Args:
        judged, judged_aside: what a model says of the photographs of `test` and `aside`; None: there are none aside.

    Returns:
        `photographs`, `changed` (how many of them have another label now, or none), `accuracy`, `log_loss`; nothing if
        no test photograph has changed.
    """
    present = manifest[manifest["split"] == "test"].set_index("id")
    labels = present["filed"] == classes[1]
    rows = [row for row, identity in enumerate(aside.ids) if identity in present.index]
    filed = np.array([*labels.loc[test.ids], *labels.loc[[aside.ids[row] for row in rows]]], int)
    changed = int((filed[: len(test)] != test.labels).sum()) + len(rows)
    if not changed:
        return {}
    probabilities = judged.probabilities
    if judged_aside is not None:
        probabilities = np.concatenate([probabilities, judged_aside.probabilities[rows]])
    score = scoring.score(filed, probabilities, threshold=threshold)
    return {
        "photographs": len(filed),
        "changed": changed,
        "accuracy": score["accuracy"],
        "log_loss": score["log_loss"],
    }


def neither(judged: Judged | None, *, confidence: float) -> dict[str, Any]:
    """How many of the photographs that people set aside the model answers with `neither`: share and Wilson's interval;
    nothing if there are none."""
    if judged is None:
        return {}
    name = {label: doubt for doubt, label in DOUBTS.items()}[NEITHER]
    count, total = int((judged.labels == name).sum()), len(judged.labels)
    interval = scoring.wilson(count, total, confidence)
    return {"set_aside": total, "set_aside_neither": count / total, "intervals": {"set_aside_neither": interval}}
