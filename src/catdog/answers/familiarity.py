"""How familiar a photograph is to a model: by its features, against those of photographs that it was trained on."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from catdog.base.errors import UserError

NEIGHBOURS = 10
MOST_BYTES = 10_000_000  # of the features kept
_CHUNK = 1024  # rows compared at a time


@dataclass(frozen=True)
class Profile:
    """Some of the training photographs as a model sees them, and how near the validation photographs are to these.

    Attributes:
        directions: float16 (m, k), features of training photographs, each of length 1.
        ids: of these photographs.
        closeness: float64 (v,), that of each validation photograph, from the least up.
    """

    directions: np.ndarray
    ids: np.ndarray
    closeness: np.ndarray

    def familiarity(self, features: np.ndarray) -> np.ndarray:
        """The share of validation photographs that are no closer than each of n: float64 (n,), 0 to 1."""
        return np.searchsorted(self.closeness, closeness(features, self.directions), side="right") / len(self.closeness)

    def nearest(self, features: np.ndarray, count: int) -> list[str]:
        """The ids of the training photographs most like one, whose features are (k,)."""
        alike = _unit(features[None]) @ self.directions.astype(np.float32).T
        return [str(self.ids[place]) for place in np.argsort(-alike[0], kind="stable")[:count]]

    def save(self, path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, directions=self.directions, ids=self.ids, closeness=self.closeness)


def most_rows(width: int) -> int:
    """How many photographs' features, of `width` numbers each, a profile may keep."""
    return MOST_BYTES // (2 * width)


def profile(features: np.ndarray, ids: list[str], *, val: np.ndarray) -> Profile:
    """The profile of training photographs' features, float32 (m, k), and validation photographs', (v, k)."""
    directions = _unit(features).astype(np.float16)
    return Profile(directions, np.array(ids), np.sort(closeness(val, directions)))


def load(path: Path) -> Profile:
    """What `Profile.save` wrote.

    Raises:
        UserError: it is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Profile(arrays["directions"], arrays["ids"], arrays["closeness"])
    except (OSError, ValueError, LookupError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged: {error}") from None


def closeness(features: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """The mean cosine between each of n photographs' features and the NEIGHBOURS most like it: float64 (n,)."""
    trained = directions.astype(np.float32).T
    count = min(NEIGHBOURS, trained.shape[1])
    parts = [np.empty(0)]
    for start in range(0, len(features), _CHUNK):
        alike = _unit(features[start : start + _CHUNK]) @ trained
        parts.append(np.partition(alike, -count, axis=1)[:, -count:].mean(axis=1, dtype=np.float64))
    return np.concatenate(parts)


def _unit(features: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(lengths, 1e-12)
