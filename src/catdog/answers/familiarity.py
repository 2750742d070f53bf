"""How familiar a photograph is to a model: by its features, against those of photographs that it was trained on.

The features of each class, all brought to length 1, lie near a subspace of few dimensions. How far from both a
photograph's features are tells other things from cats and dogs better than the scores tried beside it: distance to the
nearest neighbours, Mahalanobis' distance, energy (bench/README.md). It is the residual of ViM (Wang et al. 2022,
https://arxiv.org/abs/2203.10807), by class.
"""

import functools
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from threadpoolctl import ThreadpoolController

from catdog.base.errors import UserError, first_line

MOST_BYTES = 10_000_000  # of a profile
DIMENSIONS = 128  # of a class' subspace
_ID_BYTES = 4 * 64  # an id, as numpy keeps text
_VALIDATION_BYTES = 1_000_000  # for the closeness of 125,000 photographs


@dataclass(frozen=True)
class Profile:
    """Some of the training photographs as a model sees them, and how near to these the validation photographs are.

    Attributes:
        directions: float16 (m, k), features of training photographs, each of length 1.
        ids: of these photographs.
        centres: float32 (2, k), their mean by class.
        bases: float16 (2, d, k), the directions in which those of a class differ most.
        closeness: float64 (v,), that of each validation photograph, from the least up.
    """

    directions: np.ndarray
    ids: np.ndarray
    centres: np.ndarray
    bases: np.ndarray
    closeness: np.ndarray

    def familiarity(self, features: np.ndarray) -> np.ndarray:
        """The share of validation photographs that are no closer than each of n: float64 (n,), 0 to 1."""
        close = closeness(features, self.centres, self.bases)
        return np.searchsorted(self.closeness, close, side="right") / len(self.closeness)

    def nearest(self, features: np.ndarray, count: int) -> list[str]:
        """The ids of the training photographs most like one, whose features are (k,)."""
        alike = _unit(features[None]) @ self.directions.astype(np.float32).T
        return [str(self.ids[place]) for place in np.argsort(-alike[0], kind="stable")[:count]]

    def save(self, path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, **asdict(self))


def most_rows(width: int) -> int:
    """How many photographs' features, of `width` numbers each, a profile may keep."""
    beside = 2 * DIMENSIONS * width * 2 + 2 * width * 4 + _VALIDATION_BYTES
    return (MOST_BYTES - beside) // (2 * width + _ID_BYTES)


def profile(features: np.ndarray, ids: list[str], labels: np.ndarray, *, val: np.ndarray) -> Profile:
    """The profile of training photographs' features, float32 (m, k), of both classes; and validation photographs'."""
    directions = _unit(features)
    by_class = [directions[labels == label] for label in (0, 1)]
    # As many dimensions as the features leave some over, and the photographs can tell.
    most = min(DIMENSIONS, features.shape[1] // 3, *(len(rows) // 4 for rows in by_class))
    centres = np.stack([rows.mean(axis=0) for rows in by_class])
    away = [rows - centre for rows, centre in zip(by_class, centres, strict=True)]
    bases = np.stack([np.linalg.svd(rows, full_matrices=False)[2][:most] for rows in away]).astype(np.float16)
    close = np.sort(closeness(val, centres, bases))
    return Profile(directions.astype(np.float16), np.array(ids), centres, bases, close)


def load(path: Path) -> Profile:
    """What `Profile.save` wrote.

    Raises:
        UserError: it is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Profile(**{name: arrays[name] for name in arrays.files})
    except Exception as error:  # numpy and zipfile raise nearly anything on a damaged file
        raise UserError(f"{path} is damaged: {first_line(error)}") from None


def closeness(features: np.ndarray, centres: np.ndarray, bases: np.ndarray) -> np.ndarray:
    """How close each of n photographs' features are to the nearer class' subspace: float64 (n,), at most 0."""
    close = []
    # Small products on all cores would hold up the network, which has the cores to itself otherwise.
    with _blas().limit(limits=1, user_api="blas"):
        for centre, basis in zip(centres, bases.astype(np.float32), strict=True):
            away = _unit(features) - centre
            close.append(-np.linalg.norm(away - (away @ basis.T) @ basis, axis=1).astype(np.float64))
    return np.max(close, axis=0)


@functools.cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def _unit(features: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(lengths, 1e-12)
