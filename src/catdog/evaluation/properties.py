"""What can be said of a photograph without a model: its light, contrast, colour, sharpness, size and shape."""

from functools import partial

import cv2
import numpy as np
import pandas as pd

from catdog.base import files, parallel, paths
from catdog.base.errors import UserError
from catdog.photographs import photos
from catdog.photographs.shards import Shard

# In this order: mean grey, 0 to 255; its standard deviation; the mean gap between red, green and blue, 0 to 255; the
# logarithm of 1 + the variance of the Laplacian of grey; of the file, pixels; of the file, width : height.
NAMES = ("light", "contrast", "colour", "sharpness", "short side", "aspect")
_SIDE = 128  # pixels: what is blurred is blurred there too, however large the file


def measure(jpeg: bytes, *, width: int, height: int) -> np.ndarray:
    """NAMES of a photograph in standard form: float32 (6,).

    Args:
        width, height: of its file, upright (pixels).
    """
    image = photos.pixels(jpeg, _SIDE)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    sharpness = np.log1p(cv2.Laplacian(grey, cv2.CV_32F).var())
    numbers = [grey.mean(), grey.std(), colour(image), sharpness, min(width, height), width / height]
    return np.array(numbers, np.float32)


def light(image: np.ndarray) -> float:
    """The mean grey of uint8 (height, width, 3) RGB, 0 to 255."""
    return float(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).mean())


def colour(image: np.ndarray) -> float:
    """The mean gap between red, green and blue of uint8 (height, width, 3) RGB: 0 for grey, to 255."""
    return float(np.ptp(image.astype(np.float32), axis=2).mean())


def of_rows(shard: Shard, rows: list[int], manifest: pd.DataFrame) -> np.ndarray:
    """NAMES of photographs of a shard: float32 (rows, 6); `manifest` as in `sizes`."""
    wide = sizes(manifest, [shard.ids[row] for row in rows]).to_numpy()
    items = zip(rows, wide.tolist(), strict=True)
    measured = parallel.threaded(partial(_of_row, shard), items, ahead=64)
    return np.stack(list(measured)) if rows else np.empty((0, len(NAMES)), np.float32)


def sizes(manifest: pd.DataFrame, ids: list[str]) -> pd.DataFrame:
    """Columns width and height of the files with these ids, in their order (pixels).

    Args:
        manifest: columns id, width and height, a row for every file that was met.
    """
    return manifest.drop_duplicates("id").set_index("id").loc[ids, ["width", "height"]]


def manifest() -> pd.DataFrame:
    """What prepare wrote of every file that it met.

    Raises:
        UserError: it was changed since.
    """
    if files.sha256(paths.MANIFEST) != files.read_json(paths.DATA_METRICS)["manifest_sha256"]:
        raise UserError(f"{paths.MANIFEST} is not what prepare wrote: delete it and run `dvc repro`")
    return pd.read_csv(paths.MANIFEST)


def _of_row(shard: Shard, item: tuple[int, list[float]]) -> np.ndarray:
    row, (width, height) = item
    return measure(shard.jpeg(row), width=int(width), height=int(height))
