"""How fast a training converged, by its history."""

import numpy as np
import pandas as pd


def of(history: pd.DataFrame, *, seconds_before: float = 0.0) -> dict[str, float]:
    """Metrics of convergence.

    Args:
        history: columns epoch, image_size, val_loss, val_accuracy, seconds (of that epoch); rows in order.
        seconds_before: spent before the first epoch, on features for instance.

    Returns:
        `epochs` (trained), `best_epoch` (the least val_loss at the last image size), `epochs_to_95` and `seconds_to_95`
        (the first epoch whose val_accuracy reaches 95 % of the best val_accuracy, and the time until its end).
    """
    last = history[history["image_size"] == history["image_size"].iloc[-1]]
    reached = history["val_accuracy"].to_numpy() >= 0.95 * history["val_accuracy"].max()
    first = int(np.argmax(reached))
    return {
        "epochs": len(history),
        "best_epoch": int(last["epoch"].iloc[int(np.argmin(last["val_loss"]))]),
        "epochs_to_95": first + 1,
        "seconds_to_95": float(seconds_before + history["seconds"].iloc[: first + 1].sum()),
    }
