"""What a version keeps of the validation photographs, by which new photographs are told from those it was made for.

No network was trained on these photographs. They chose its best epoch, a temperature and a level of sureness, and
nothing else, so what a model says of them is what it says of any photographs of their kind: an honest yardstick.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from catdog.base.errors import UserError, first_line
from catdog.evaluation import properties
from catdog.photographs.shards import Shard

MOST = 1_000  # photographs
MOST_BYTES = 5_000_000  # of the file; 4.4 MB are 1,000 photographs of 2,048 features
_BYTES_BESIDE = 4 * 64 + 2 * 8 + 1 + 4 * len(properties.NAMES)  # of each photograph, beside its features
_BYTES_ONCE = 4_000  # names and shapes


@dataclass(frozen=True)
class Reference:
    """Some of the validation photographs, and what a model says of them.

    Attributes:
        ids: of the photographs, (n,).
        directions: float16 (n, k), as `directions` makes them.
        probabilities: float64 (n,), of the second class, as served.
        familiarity: float64 (n,), as served.
        right: bool (n,): whether the class that the threshold gives is its label.
        properties: float32 (n, 6), `properties.NAMES`.
    """

    ids: np.ndarray
    directions: np.ndarray
    probabilities: np.ndarray
    familiarity: np.ndarray
    right: np.ndarray
    properties: np.ndarray

    def save(self, path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, **asdict(self))


def make(
    val: Shard,
    rows: list[int],
    measured: np.ndarray,
    *,
    features: np.ndarray,
    probabilities: np.ndarray,
    familiarity: np.ndarray,
    threshold: float,
) -> Reference:
    """The reference of the first of these `rows` of the validation photographs, as many as MOST_BYTES hold.

    Args:
        rows: as `Shard.sample` gives them.
        measured: `properties.of_rows` of them.
        features, probabilities, familiarity: what the model says of each row, (rows, k) and (rows,).
    """
    most = min(MOST, len(rows), (MOST_BYTES - _BYTES_ONCE) // (2 * features.shape[1] + _BYTES_BESIDE))
    right = (probabilities >= threshold) == (val.labels[rows] == 1)
    return Reference(
        np.array([val.ids[row] for row in rows[:most]]),
        directions(features[:most]),
        probabilities[:most].astype(np.float64),
        familiarity[:most].astype(np.float64),
        right[:most],
        measured[:most],
    )


def directions(features: np.ndarray) -> np.ndarray:
    """Features brought to length 1, float16 (n, k): how a photograph looks to a model, not how strongly."""
    features = np.asarray(features, np.float32)
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return (features / np.maximum(lengths, 1e-12)).astype(np.float16)


def load(path: Path) -> Reference:
    """What `Reference.save` wrote.

    Raises:
        UserError: it is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = Reference(**{name: arrays[name] for name in arrays.files})
        counts = {len(array) for array in asdict(found).values()}
        widths = (found.directions.ndim, found.properties.shape[1:])
        if len(counts) != 1 or widths != (2, (len(properties.NAMES),)):
            raise ValueError("its arrays do not fit together")
    except Exception as error:  # numpy and zipfile raise nearly anything on a damaged file
        raise UserError(f"{path} is damaged: {first_line(error)}") from None
    return found
