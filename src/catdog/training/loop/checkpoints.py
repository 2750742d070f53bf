"""What a training needs to go on after it was killed: one file, replaced at the end of every epoch.

Of several hosts the first one keeps it, and gives it to all: they go on from the same epoch whatever happened to each.
It keeps the one before as well: a host that is killed may spoil what the others come to.
"""

import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import keras
import numpy as np

from catdog.base import files, paths
from catdog.training.loop import hosts


@dataclass
class State:
    """Where a training stands after `epoch` epochs."""

    epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_val_loss: float = float("inf")
    best_weights: list[np.ndarray] = field(default_factory=list)
    stopped: bool = False
    seconds: float = 0.0


_Kept = tuple[dict, dict[str, list[np.ndarray]]]  # fields, and arrays by kind


class Checkpoint:
    """The checkpoint at `path` of the training with this `fingerprint`; any other is passed over."""

    def __init__(self, path: Path, *, fingerprint: str) -> None:
        self._path, self._fingerprint = path, fingerprint
        self._before = path.with_name(f"{path.name}.before")

    def restore(self, model: keras.Model) -> State | None:
        """Put weights, optimizer and random state back into `model`; None where there is nothing to go on from."""
        kept = self._shared()
        if kept is None:
            return None
        fields, arrays = kept
        for variable, value in zip(_variables(model), arrays["variables"], strict=True):
            variable.assign(value)
        return State(**fields["state"], best_weights=arrays["best"])

    def save(self, model: keras.Model, state: State) -> None:
        if not hosts.is_first():
            return
        fields = {k: v for k, v in asdict(state).items() if k != "best_weights"}
        kinds = {"variables": [np.asarray(v) for v in _variables(model)], "best": state.best_weights}
        counts = {kind: len(arrays) for kind, arrays in kinds.items()}
        text = json.dumps({"fingerprint": self._fingerprint, "state": fields, "counts": counts})
        named = {f"{kind}_{i}": array for kind, arrays in kinds.items() for i, array in enumerate(arrays)}
        with files.replacing(self._path) as part, part.open("wb") as file:
            np.savez(file, allow_pickle=False, fields=np.array(text), **named)
            if hosts.count() > 1 and self._path.exists():
                self._path.replace(self._before)

    def _shared(self) -> _Kept | None:
        if hosts.count() == 1:
            return self._read(self._path)
        data = hosts.shared(self._newest)
        return self._read(io.BytesIO(data)) if data else None

    def _newest(self) -> bytes:
        """The file to go on from, or nothing."""
        return next((path.read_bytes() for path in (self._path, self._before) if self._read(path)), b"")

    def _read(self, source: Path | io.BytesIO) -> _Kept | None:
        try:
            with np.load(source, allow_pickle=False) as file:
                fields = json.loads(str(file["fields"]))
                if fields["fingerprint"] != self._fingerprint:
                    return None
                arrays = {kind: [file[f"{kind}_{i}"] for i in range(count)] for kind, count in fields["counts"].items()}
        except FileNotFoundError:
            return None
        except Exception as error:  # a damaged archive raises nearly anything
            print(f"{source} is damaged, so the training starts afresh ({type(error).__name__})", file=sys.stderr)
            return None
        return fields, arrays


@contextmanager
def kept(name: str, fingerprint: str) -> Iterator[Callable[[str], Checkpoint]]:
    """Keep the checkpoints of the training of `name` until it is done.

    Gives a function from the name of a part, which begins with `name`, to the checkpoint of that part.

    Raises:
        UserError: the hosts have different fingerprints.
    """
    hosts.agree(fingerprint.encode())
    yield lambda part: Checkpoint(paths.checkpoint(part), fingerprint=fingerprint)
    if not hosts.is_first():
        return
    for file in paths.CHECKPOINTS.glob(f"{name}*.npz*"):
        file.unlink()


def _variables(model: keras.Model) -> list:
    # `variables`, not `weights`: the state of dropout's random numbers is among them.
    return [*model.variables, *model.optimizer.variables]
