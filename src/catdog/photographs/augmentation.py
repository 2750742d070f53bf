"""Random variants of a photograph. The same seed gives the same bytes, whatever the number of workers."""

import hashlib
import math
from collections.abc import Iterator, Mapping
from functools import partial

import cv2
import numpy as np

from catdog.base import parallel, params
from catdog.photographs import photos, shards

# In the order in which a photograph comes about: camera position, light, obstacles, lens, sensor, file. So what hides
# part of the animal is blurred, noisy and compressed like the rest.
EVERY_EPOCH = (
    *("flip", "rotation", "zoom", "aspect", "shift"),  # one affine map: pixels are interpolated once
    *("hue", "saturation", "white_balance", "brightness", "contrast"),  # one matrix, so that colours clip once
    "erasing",
)
TRAINING_ONLY = ("cutmix",)  # it takes a second photograph, and a label between the two classes
# Each of these costs more than all of the above together, so only the variants on disk have them.
WRITTEN_ONLY = ("blur", "noise", "jpeg")
_UNSIGNED = {"flip", "erasing", *WRITTEN_ONLY}  # the others go both ways

Amounts = Mapping[str, float]

_LUMA = np.array([0.299, 0.587, 0.114])
_YIQ = np.array([_LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_GREY = np.tile(_LUMA, (3, 1))
_COLOUR = np.eye(3) - _GREY
_QUARTER_TURN = np.linalg.inv(_YIQ) @ np.array([[0, 0, 0], [0, 0, -1], [0, 1, 0]]) @ _YIQ  # of hue; grey becomes 0
_BEST_JPEG = 95
_NARROWEST = 1 / 3  # of a rectangle: its aspect, relative to the photograph's


def variants(
    shard: shards.Shard, policy: params.Augment, *, seed: int, workers: int | None = None
) -> Iterator[shards.Row]:
    """`policy.variants` rows for each photograph of `shard`, in its order; a variant keeps its photograph's id."""
    rows = (shard.row(index) for index in range(len(shard)))
    by_photograph = parallel.chunked_map(partial(variants_of, policy=policy, seed=seed), rows, workers=workers)
    return (variant for group in by_photograph for variant in group)


def variants_of(row: shards.Row, policy: params.Augment, *, seed: int) -> list[shards.Row]:
    """The variants of one photograph. They depend on its id, its pixels and `seed` alone."""
    image = photos.decode(row.image)
    return [
        row._replace(image=photos.encode(vary(image, policy, _generator(row.id, seed=seed, variant=k))))
        for k in range(policy.variants)
    ]


def vary(image: np.ndarray, policy: params.Augment, rng: np.random.Generator) -> np.ndarray:
    """The whole policy, for a variant on disk: uint8 (height, width, 3) RGB -> the same shape."""
    return apply(image, policy, sample(policy, rng, EVERY_EPOCH + WRITTEN_ONLY), rng)


def vary_in_training(image: np.ndarray, policy: params.Augment, rng: np.random.Generator, *, size: int) -> np.ndarray:
    """The cheap part of the policy, afresh in every epoch: uint8 RGB of any size -> (size, size, 3), squashed."""
    return apply(image, policy, sample(policy, rng, EVERY_EPOCH), rng, size=size)


def cutmix(
    images: np.ndarray, labels: np.ndarray, policy: params.Augment, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """CutMix: a rectangle of some photographs is covered by that of the next one, the last one's by the first's.

    After Yun et al. 2019, https://arxiv.org/abs/1905.04899, with a choice and an area for each photograph.

    Args:
        images: uint8 (n, height, width, 3), in random order.
        labels: float32 (n, 1), 0 or 1.

    Returns:
        New ones: a label is the mean of both photographs', by area.
    """
    mixed, shares = images.copy(), np.zeros_like(labels)
    height, width = images.shape[1:3]
    for slot, (chance, amount) in enumerate(rng.random((len(images), 2)).tolist()):
        if chance < policy.cutmix.probability:
            rows, columns = _rectangle(height, width, amount * policy.cutmix.area, rng)
            mixed[slot, rows, columns] = images[(slot + 1) % len(images), rows, columns]
            shares[slot] = (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
    return mixed, (1 - shares) * labels + shares * np.roll(labels, -1, axis=0)


def strongest(
    image: np.ndarray, policy: params.Augment, names: tuple[str, ...], *, seed: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Each of these transforms alone, at its limit, to both sides where it has two: (caption, picture)."""
    for name in names:
        knobs = [f"{knob} {value:g}" for knob, value in getattr(policy, name).model_dump().items()]
        for sign, direction in [(1, "")] if name in _UNSIGNED else [(-1, " -"), (1, " +")]:
            caption = "\n".join([name + direction, *knobs])
            yield caption, apply(image, policy, {name: sign}, np.random.default_rng(seed))


def sample(policy: params.Augment, rng: np.random.Generator, names: tuple[str, ...]) -> dict[str, float]:
    """A random amount for each transform: -1 to 1, as a share of its limit in `policy`; 0 leaves it out.

    Any policy uses as many random numbers, so that one transform's knobs don't change another's amount.
    """
    numbers = rng.random((len(names), 2)).tolist()
    return {
        name: 2 * amount - 1 if chance < getattr(policy, name).probability else 0.0
        for name, (chance, amount) in zip(names, numbers, strict=True)
    }


def apply(
    image: np.ndarray,
    policy: params.Augment,
    amounts: Amounts,
    rng: np.random.Generator,
    *,
    size: int | None = None,
) -> np.ndarray:
    """Transform a photograph.

    Args:
        image: uint8 (height, width, 3), RGB.
        amounts: as `sample` gives them; a transform without one is left out.
        rng: for what an amount leaves open, such as the place of an erased rectangle.
        size: squash to a square of this side (pixels); by default the photograph keeps its size.
    """
    height, width = image.shape[:2]
    out = (width, height) if size is None else (size, size)
    # Beyond the border the photograph is mirrored, so that there are no black corners to learn from.
    motion = _motion((width, height), out, policy, amounts, rng)
    image = cv2.warpAffine(image, motion, out, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    if any(map(amounts.get, ("hue", "saturation", "white_balance", "brightness", "contrast"))):
        image = cv2.transform(image, _colours(policy, amounts))
    if amount := amounts.get("erasing"):
        _erase(image, abs(amount) * policy.erasing.area, rng)
    if sigma := abs(amounts.get("blur", 0)) * policy.blur.pixels:
        image = cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)
    if amount := amounts.get("noise"):
        image = _noisy(image, abs(amount) * policy.noise.levels, rng)
    if amount := amounts.get("jpeg"):
        quality = round(_BEST_JPEG + abs(amount) * (policy.jpeg.quality - _BEST_JPEG))
        image = photos.decode(photos.encode(image, quality=quality))
    return image


def _motion(
    size: tuple[int, int],
    out: tuple[int, int],
    policy: params.Augment,
    amounts: Amounts,
    rng: np.random.Generator,
) -> np.ndarray:
    """Mirror, stretch, zoom, rotation and shift about the middle, and resizing to `out`, as one 2 x 3 matrix."""
    (width, height), (out_width, out_height) = size, out
    angle = math.radians(amounts.get("rotation", 0) * policy.rotation.degrees)
    zoom = (1 + policy.zoom.fraction) ** amounts.get("zoom", 0)
    stretch = (1 + policy.aspect.fraction) ** (amounts.get("aspect", 0) / 2)
    mirror = -1 if amounts.get("flip") else 1
    right = down = 0.0
    if amount := amounts.get("shift"):
        right = amount * policy.shift.fraction
        down = rng.uniform(-1, 1) * policy.shift.fraction
    # Plain numbers: small arrays would take several times as long.
    a, b = math.cos(angle) * zoom * stretch * mirror, math.sin(angle) * zoom / stretch
    c, d = -math.sin(angle) * zoom * stretch * mirror, math.cos(angle) * zoom / stretch
    x, y = (width - 1) / 2, (height - 1) / 2
    moved_x = x + right * width - a * x - b * y
    moved_y = y + down * height - c * x - d * y
    # The centres of pixels coincide, not their corners.
    across, along = out_width / width, out_height / height
    return np.array(
        [
            [a * across, b * across, moved_x * across + (across - 1) / 2],
            [c * along, d * along, moved_y * along + (along - 1) / 2],
        ]
    )


def _colours(policy: params.Augment, amounts: Amounts) -> np.ndarray:
    """White balance, hue and saturation (luma stays), contrast about middle grey, brightness: a 3 x 4 matrix."""
    warmth = (1 + policy.white_balance.fraction) ** amounts.get("white_balance", 0)
    hue = math.radians(amounts.get("hue", 0) * policy.hue.degrees)
    saturation = 1 + amounts.get("saturation", 0) * policy.saturation.fraction
    contrast = 1 + amounts.get("contrast", 0) * policy.contrast.fraction
    brightness = 1 + amounts.get("brightness", 0) * policy.brightness.fraction
    matrix = np.empty((3, 4))
    matrix[:, :3] = _GREY + saturation * (math.cos(hue) * _COLOUR + math.sin(hue) * _QUARTER_TURN)
    matrix[:, 0] *= warmth
    matrix[:, 2] /= warmth
    matrix *= contrast * brightness
    matrix[:, 3] = 128 * (1 - contrast) * brightness
    return matrix


def _erase(image: np.ndarray, area: float, rng: np.random.Generator) -> None:
    """Fill a rectangle, a fraction `area` of the photograph, with noise or with one colour, in place."""
    rows, columns = _rectangle(image.shape[0], image.shape[1], area, rng)
    hidden = image[rows, columns]
    shape = hidden.shape if rng.random() < 0.5 else 3
    hidden[:] = rng.integers(0, 256, shape, dtype=np.uint8)


def _rectangle(height: int, width: int, area: float, rng: np.random.Generator) -> tuple[slice, slice]:
    """Rows and columns of a random rectangle: a fraction `area` of all, anywhere, of any shape within limits."""
    ratio = math.exp(rng.uniform(-1, 1) * math.log(_NARROWEST))
    tall = min(height, max(1, round(height * math.sqrt(area * ratio))))
    wide = min(width, max(1, round(width * math.sqrt(area / ratio))))
    top, left = int(rng.integers(0, height - tall + 1)), int(rng.integers(0, width - wide + 1))
    return slice(top, top + tall), slice(left, left + wide)


def _noisy(image: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    noise *= deviation
    return cv2.add(image, noise, dtype=cv2.CV_8U)


def _generator(photograph: str, *, seed: int, variant: int) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}:{photograph}:{variant}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))
