"""Whether two pictures are copies of one photograph, scaled, cropped or mirrored: hashes first, then a close look."""

import cv2
import numpy as np

SIDE = 64  # pixels of a thumbnail: all of a picture that is compared
_MARGIN = 2  # pixels of SIDE, 3 %: a copy cropped by 2 to 5 % a side is closer to the picture without its margin
_STEPS = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 5, 1e-3)
_DETAIL = 3.0  # pixels: larger things (light, a silhouette, a dark corner) are similar in many photographs
_FAINT = 10.0  # of 255: weaker detail counts less, since it may come from compression alone
_FURTHEST = 0.15  # of the side: how far a corner may move; a crop of 5 % a side moves it by 0.07

_HASHED = 32  # pixels: the side of what a hash is made of
_WAVES = 8  # in each direction: a hash has a bit for each pair of them
# DCT-II, without its constant factor: (waves, pixels).
_COSINES = np.cos(np.pi / _HASHED * np.arange(_WAVES)[:, None] * (np.arange(_HASHED) + 0.5))

RECORD = np.dtype([("hashes", np.uint64, 4), ("thumbnail", np.uint8, (SIDE, SIDE))])


def of(image: np.ndarray) -> np.ndarray:
    """uint8 (height, width, 3) RGB -> `RECORD` (): what near copies are found by."""
    record = np.empty((), RECORD)
    record["thumbnail"] = thumbnail(image)
    record["hashes"] = hashes(record["thumbnail"])
    return record


def thumbnail(image: np.ndarray) -> np.ndarray:
    """uint8 (height, width, 3) RGB -> uint8 (SIDE, SIDE), grey, squashed to the square."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def hashes(thumb: np.ndarray) -> list[int]:
    """Perceptual hashes, each of 64 bits: of the whole thumbnail, of it without its margin, and of the mirror images.

    They are those of `imagehash.phash`, in a tenth of its time: which of the longest waves are above their median.
    """
    inner = thumb[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    views = np.stack([_small(view) for view in (thumb, inner, thumb[:, ::-1], inner[:, ::-1])]).astype(float)
    # Not by BLAS, which rounds differently on other processors.
    columns = np.einsum("vij,ki->vkj", views, _COSINES)
    waves = np.einsum("vkj,lj->vkl", columns, _COSINES).reshape(len(views), -1)
    ascending = np.sort(waves, axis=1)
    half = waves.shape[1] // 2
    median = (ascending[:, half - 1] + ascending[:, half]) / 2
    return np.packbits(waves > median[:, None], axis=1).view(">u8").ravel().tolist()


def _small(view: np.ndarray) -> np.ndarray:
    return cv2.resize(np.ascontiguousarray(view), (_HASHED, _HASHED), interpolation=cv2.INTER_AREA)


def likeness(first: np.ndarray, second: np.ndarray) -> float:
    """How well the detail of two thumbnails agrees: 0 (nothing in common) to 1 (the same).

    One is first aligned to the other, which undoes cropping. Their agreement is a correlation, which brightness and
    contrast don't change.
    """
    if np.array_equal(first, second):
        return 1.0
    start = np.eye(2, 3, dtype=np.float32)
    try:
        _, warp = cv2.findTransformECC(first, second, start, cv2.MOTION_AFFINE, _STEPS)
    except cv2.error:  # they can't be aligned
        return 0.0
    corners = np.array([[[0, 0], [SIDE, 0], [0, SIDE], [SIDE, SIDE]]], np.float32)
    if not np.abs(cv2.transform(corners, warp) - corners).max() <= _FURTHEST * SIDE:
        return 0.0
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    aligned = cv2.warpAffine(second, warp, second.shape, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    covered = cv2.warpAffine(np.full_like(second, 255), warp, second.shape, flags=flags) // 255
    agreement = cv2.computeECC(_detail(first), _detail(aligned), covered)
    return min(max(agreement, 0.0), 1.0) if np.isfinite(agreement) else 0.0


def _detail(thumb: np.ndarray) -> np.ndarray:
    """What stands out from its surroundings, equally strong everywhere: a frame must not outweigh its content."""
    values = thumb.astype(np.float32)
    detail = values - cv2.GaussianBlur(values, (0, 0), _DETAIL)
    return detail / np.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), _DETAIL) + _FAINT**2)
