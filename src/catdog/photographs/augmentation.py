"""Seeded variants of a photograph: the same seed gives the same bytes on any number of workers."""

import hashlib
import math
from collections.abc import Iterator, Mapping
from functools import partial

import cv2
import numpy as np

from catdog.base import params
from catdog.photographs import parallel, photos, shards

# The order is that in which a photograph comes about: where the camera stands, the light it stands in, what is in the
# way, then lens, sensor and file. So what hides a part of the animal is blurred, noisy and compressed like the rest.
EVERY_EPOCH = (
    *("flip", "rotation", "zoom", "aspect", "shift"),  # one affine map: pixels are interpolated once
    *("hue", "saturation", "white_balance", "brightness", "contrast"),  # one matrix, so that colours clip once
    "erasing",
)
# Each of these costs more than all of the above together, so training has them from the written variants alone.
WRITTEN_ONLY = ("blur", "noise", "jpeg")
UNSIGNED = {"flip", "erasing", *WRITTEN_ONLY}  # the others go both ways

Amounts = Mapping[str, float]

_LUMA = np.array([0.299, 0.587, 0.114])
_YIQ = np.array([_LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_GREY = np.tile(_LUMA, (3, 1))
_COLOUR = np.eye(3) - _GREY
_QUARTER_TURN = np.linalg.inv(_YIQ) @ np.array([[0, 0, 0], [0, 0, -1], [0, 1, 0]]) @ _YIQ  # of hue; grey goes to 0
_BEST_JPEG = 95
_NARROWEST = 1 / 3  # erased rectangle: its sides' ratio, against that of the photograph


def variants(
    shard: shards.Shard, policy: params.Augment, *, seed: int, workers: int | None = None
) -> Iterator[shards.Row]:
    """`policy.variants` rows for each photograph of `shard`, one after the other, under the photograph's own id."""
    rows = (shard.row(index) for index in range(len(shard)))
    made = parallel.chunked_map(partial(variants_of, policy=policy, seed=seed), rows, workers=workers)
    return (row for group in made for row in group)


def variants_of(row: shards.Row, policy: params.Augment, *, seed: int) -> list[shards.Row]:
    image = photos.decode(row.image)
    return [
        row._replace(image=photos.encode(vary(image, policy, _generator(row.id, seed=seed, variant=k))))
        for k in range(policy.variants)
    ]


def vary(image: np.ndarray, policy: params.Augment, rng: np.random.Generator) -> np.ndarray:
    """One variant of an RGB photograph, uint8 (height, width, 3), of the same size: the whole policy."""
    amounts = draw(policy, rng, EVERY_EPOCH + WRITTEN_ONLY)
    return apply(image, policy, amounts, rng)


def vary_in_training(image: np.ndarray, policy: params.Augment, rng: np.random.Generator, *, size: int) -> np.ndarray:
    """What training sees of it in one epoch: the cheap part of the policy, squashed to (size, size, 3)."""
    return apply(image, policy, draw(policy, rng, EVERY_EPOCH), rng, size=size)


def strongest(
    image: np.ndarray, policy: params.Augment, names: tuple[str, ...], *, seed: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Each of these transforms alone, at its limit, to either side where it has two, after its name and knobs."""
    for name in names:
        knobs = getattr(policy, name).model_dump()
        for sign in (1,) if name in UNSIGNED else (-1, 1):
            told = [name] if name in UNSIGNED else [f"{name} {'-' if sign < 0 else '+'}"]
            caption = "\n".join(told + [f"{knob} {value:g}" for knob, value in knobs.items()])
            yield caption, apply(image, policy, {name: sign}, np.random.default_rng(seed))


def draw(policy: params.Augment, rng: np.random.Generator, names: tuple[str, ...]) -> dict[str, float]:
    """How far each transform goes: -1 to 1 of its limit in `policy`, 0 for those that stay away.

    As many numbers are drawn whatever the policy says, so that one transform's knobs don't change another's amount.
    """
    drawn = rng.random((len(names), 2)).tolist()
    return {
        name: 2 * amount - 1 if chance < getattr(policy, name).probability else 0.0
        for name, (chance, amount) in zip(names, drawn, strict=True)
    }


def apply(
    image: np.ndarray,
    policy: params.Augment,
    amounts: Amounts,
    rng: np.random.Generator,
    *,
    size: int | None = None,
) -> np.ndarray:
    """The transforms of `amounts`; those that it lacks stay away. `rng` gives what an amount leaves open.

    Args:
        image: uint8 (height, width, 3), RGB.
        size: side of a square to squash the image to; its own size without.
    """
    height, width = image.shape[:2]
    out = (width, height) if size is None else (size, size)
    motion = _motion((width, height), out, policy, amounts, rng)
    # What comes in from outside is a mirror image of the border: no black corners to learn from.
    image = cv2.warpAffine(image, motion, out, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    if any(map(amounts.get, ("hue", "saturation", "white_balance", "brightness", "contrast"))):
        image = cv2.transform(image, _colours(policy, amounts))
    if amount := amounts.get("erasing"):
        _erase(image, abs(amount) * policy.erasing.area, rng)
    if amount := amounts.get("blur"):
        image = _blurred(image, abs(amount) * policy.blur.pixels)
    if amount := amounts.get("noise"):
        image = _noisy(image, abs(amount) * policy.noise.levels, rng)
    if amount := amounts.get("jpeg"):
        image = _compressed(image, round(_BEST_JPEG + abs(amount) * (policy.jpeg.quality - _BEST_JPEG)))
    return image


def _motion(
    size: tuple[int, int],
    out: tuple[int, int],
    policy: params.Augment,
    amounts: Amounts,
    rng: np.random.Generator,
) -> np.ndarray:
    """Mirror, stretch, zoom, rotation and shift about the middle, onto a picture of size `out`: a 2 x 3 matrix."""
    (width, height), (out_width, out_height) = size, out
    angle = math.radians(amounts.get("rotation", 0) * policy.rotation.degrees)
    zoom = (1 + policy.zoom.fraction) ** amounts.get("zoom", 0)
    stretch = (1 + policy.aspect.fraction) ** (amounts.get("aspect", 0) / 2)
    mirror = -1 if amounts.get("flip") else 1
    right = down = 0.0
    if amount := amounts.get("shift"):
        right = amount * policy.shift.fraction
        down = rng.uniform(-1, 1) * policy.shift.fraction
    # In numbers rather than in small arrays, which take several times as long.
    a, b = math.cos(angle) * zoom * stretch * mirror, math.sin(angle) * zoom / stretch
    c, d = -math.sin(angle) * zoom * stretch * mirror, math.cos(angle) * zoom / stretch
    x, y = (width - 1) / 2, (height - 1) / 2
    moved_x = x + right * width - a * x - b * y
    moved_y = y + down * height - c * x - d * y
    # Pixel centres of the one size onto those of the other.
    across, along = out_width / width, out_height / height
    return np.array(
        [
            [a * across, b * across, moved_x * across + (across - 1) / 2],
            [c * along, d * along, moved_y * along + (along - 1) / 2],
        ]
    )


def _colours(policy: params.Augment, amounts: Amounts) -> np.ndarray:
    """White balance, hue and saturation (luma stays), contrast about the middle grey, brightness: a 3 x 4 matrix."""
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
    """Fill a rectangle of `area`, a fraction of the photograph, with noise or with one colour, in place."""
    height, width = image.shape[:2]
    ratio = math.exp(rng.uniform(-1, 1) * math.log(_NARROWEST))
    tall = min(height, max(1, round(height * math.sqrt(area * ratio))))
    wide = min(width, max(1, round(width * math.sqrt(area / ratio))))
    top, left = rng.integers(0, height - tall + 1), rng.integers(0, width - wide + 1)
    shape = (tall, wide, 3) if rng.random() < 0.5 else 3
    image[top : top + tall, left : left + wide] = rng.integers(0, 256, shape, dtype=np.uint8)


def _blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101) if sigma > 0 else image


def _noisy(image: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    noise *= deviation
    return cv2.add(image, noise, dtype=cv2.CV_8U)


def _compressed(image: np.ndarray, quality: int) -> np.ndarray:
    done, jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError("OpenCV could not encode the image")
    return photos.decode(jpeg.tobytes())


def _generator(photograph: str, *, seed: int, variant: int) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}:{photograph}:{variant}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))
