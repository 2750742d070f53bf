"""Animals as lit fur, what stands behind them, and the camera. Nothing here knows cat from dog."""

import cv2
import numpy as np

from catdog.preparation.drawn import animals

Rng = np.random.Generator

_FAR = -1e4  # depth where there is no animal
_COATS = [(46, 42, 42), (112, 74, 48), (150, 148, 150), (232, 226, 216), (222, 190, 146), (206, 138, 76)]
_EYES = [(190, 150, 50), (128, 150, 66), (132, 82, 36), (120, 160, 180)]
_NOSES = [(54, 44, 46), (190, 120, 116), (96, 62, 54)]
_THINGS = [(208, 196, 178), (120, 134, 150), (164, 116, 72), (150, 62, 58), (62, 92, 128), (86, 124, 52)]


def background(rng: Rng, height: int, width: int, horizon: int) -> np.ndarray:
    """Something upright over something flat, things before it, and all of it out of focus: float32 RGB."""
    above = _surface(rng, horizon, width, stretch=rng.uniform(0.3, 1.5))
    picture = np.vstack([above, _surface(rng, height - horizon, width, stretch=rng.uniform(1, 8))])
    for _ in range(rng.integers(12)):
        x, w, h = (rng.uniform((-0.1, 0.04, 0.05), (1, 0.35, 0.6)) * (width, width, horizon)).astype(int).tolist()
        foot = horizon - int(rng.uniform(0, 0.5) * horizon) * int(rng.integers(2))  # it hangs, or stands
        colour = _sample_colour(rng, _THINGS).tolist()
        if rng.random() < 0.5:
            cv2.rectangle(picture, (x, foot - h), (x + w, foot), colour, -1)
        else:
            cv2.ellipse(picture, (x, foot), (w // 2, h // 2), 0, 0, 360, colour, -1)
    return cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.005, 0.015) * height)


def _surface(rng: Rng, height: int, width: int, stretch: float) -> np.ndarray:
    """A colour with a grain that changes from top to bottom."""
    pattern = _noise(rng, height, width, cells=rng.uniform(2, 60), stretch=stretch) * rng.uniform(0, 0.3)
    pattern += rng.uniform(-0.3, 0.3) * np.linspace(0, 1, height, dtype=np.float32)[:, None]
    return cv2.merge([part + part * pattern for part in _sample_colour(rng, _THINGS).tolist()])


def _noise(rng: Rng, height: int, width: int, cells: float, stretch: float = 1, layers: int = 2) -> np.ndarray:
    """Smooth noise, float32 (height, width), about -1 to 1: `cells` bumps across, drawn out sideways by `stretch`."""
    total = np.zeros((height, width), np.float32)
    for finer in (1, 3)[:layers]:
        size = int(max(2, cells * finer * height / width)), int(max(2, cells * finer / stretch))
        grid = rng.random(size, np.float32) * 2 - 1
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) / finer
    return total


def _sample_colour(rng: Rng, colours: list[tuple[int, int, int]]) -> np.ndarray:
    """One of the colours, lighter or darker and of a slightly different hue."""
    return np.clip(np.array(colours[rng.integers(len(colours))]) + rng.normal(0, 9) + rng.normal(0, 6, 3), 0, 255)


def paint(rng: Rng, picture: np.ndarray, limbs: np.ndarray, skull: float) -> None:
    """Paint an animal, as `animals.sample` has it but in pixels and downwards; `skull` is its head's radius."""
    height, width = picture.shape[:2]
    shag = rng.uniform(0.01, 0.05)  # length of the fur
    depth, skin = _sculpt(rng, limbs, height, width, skull=skull, fray=skull * shag)
    there, furry = depth > _FAR / 2, (skin <= animals.EAR).astype(np.float32)
    strands = _noise(rng, height, width, cells=width / 2, stretch=0.4, layers=1) * furry

    # The slope of the surface, and from that the light that falls on it; less of it in hollows.
    depth = np.where(there, depth, depth[there].min(initial=0))
    relief = cv2.GaussianBlur(depth, (0, 0), max(skull * 0.03, 0.7)) + strands * (skull * shag * 0.5)
    slope_x, slope_y = (cv2.Sobel(relief, cv2.CV_32F, *axis, scale=1 / 8) for axis in ((1, 0), (0, 1)))
    rightward, upward = rng.uniform((-0.6, 0.3), (0.6, 0.75)).tolist()
    lit = (1 - rightward**2 - upward**2) ** 0.5 - slope_x * rightward + slope_y * upward
    lit = np.clip(lit / np.sqrt(slope_x * slope_x + slope_y * slope_y + 1), 0, 1)
    around = int(skull * 0.4) + 1
    hollow = np.clip((cv2.blur(depth, (around, around)) - depth) * (1.5 / skull), 0, 0.5)
    light = (lit * 0.6 + 0.55) * (1 - hollow) * (1 + 0.15 * strands)

    # Each skin has its colour, and what is fur a pattern of a second one.
    coat, second, nose, iris = (_sample_colour(rng, colours) for colours in (_COATS, _COATS, _NOSES, _EYES))
    white = coat + (np.array((236, 230, 220)) - coat) * rng.choice([0.2, 1.0])
    palette = [coat, white, coat, (200, 140, 126), nose, (24, 18, 18), iris, (232, 230, 224)]  # in the order of skins
    own = np.array(palette, np.float32).T.take(skin, axis=1)  # channels first, which is faster
    blotches = _noise(rng, height, width, cells=width / skull)
    bands = np.sin(np.linspace(0, 15 * height / skull, height)[:, None].astype(np.float32) + blotches * 4)
    pattern = [0.2 + blotches * 0.3, np.clip(bands, 0, 0.75), np.clip(blotches * 6, 0, 1)][rng.integers(3)]
    marked = pattern * (skin != animals.WHITE) * furry
    shine = (skin >= animals.NOSE) * 110 * lit**10  # of what is wet
    colour = (own + (second.astype(np.float32)[:, None, None] - own) * marked) * light + shine
    cover = cv2.GaussianBlur(there.astype(np.float32), (0, 0), 0.7)
    picture += (cv2.GaussianBlur(cv2.merge(list(colour)), (0, 0), 0.6) - picture) * cv2.merge([cover] * 3)


def _sculpt(rng: Rng, limbs: np.ndarray, height: int, width: int, skull: float, fray: float) -> list[np.ndarray]:
    """How near the animal is at each pixel, and with what skin: of all limbs the nearest, melted into the next."""
    depth, skin = np.full((height, width), _FAR, np.float32), np.zeros((height, width), np.uint8)
    even, melt = np.mgrid[:height, :width].astype(np.float32), 0.07 * skull
    frayed = even + [_noise(rng, height, width, cells=width / 2, layers=1) * fray for _ in range(2)]
    reach = limbs[..., 3:4] + fray + 2
    lows = np.maximum((limbs[..., :2] - reach).min(axis=1), 0).astype(int)
    highs = np.maximum((limbs[..., :2] + reach).max(axis=1) + 1, 0).astype(int)
    for limb, (left, top), (right, bottom) in zip(limbs, lows, highs, strict=True):
        (ax, ay, az, ar, kind), (dx, dy, dz, dr, _) = limb[0].tolist(), (limb[1] - limb[0]).tolist()
        y, x = (frayed if kind <= animals.EAR else even)[:, top:bottom, left:right]
        x, y, length2 = x - ax, y - ay, max(dx * dx + dy * dy, 1e-6)
        surface = np.full(x.shape, _FAR, np.float32)
        along = np.clip((x * dx + y * dy) / length2, 0, 1)
        for share in (along, 0.0, 1.0) if dz * dz * 4 > length2 else (along,):  # seen end on, the ends are balls
            square = (ar + share * dr) ** 2 - (x - share * dx) ** 2 - (y - share * dy) ** 2
            bulge = np.sqrt(np.maximum(square, 0)) * (0.45 if kind in (animals.EAR, animals.INNER_EAR) else 1)
            np.maximum(surface, az + share * dz + bulge, out=surface, where=square > 0)
        before = depth[top:bottom, left:right]
        gap = surface - before
        skin[top:bottom, left:right][gap > 0] = kind
        mix = np.clip(0.5 + gap * (0.5 / melt), 0, 1)
        before += mix * (gap + melt * (1 - mix))
    return [depth, skin]


def develop(rng: Rng, picture: np.ndarray) -> np.ndarray:
    """Exposure, white balance and sensor noise: the picture as uint8."""
    height, width = picture.shape[:2]
    warmth, exposure = rng.normal(0, 0.06), np.exp(rng.normal(0.03, 0.13))
    balance = np.array([1 + warmth, 1, 1 - warmth], np.float32) * exposure
    grain = _noise(rng, height, width, cells=width, layers=1) * rng.uniform(0, 12)
    return cv2.add(picture * balance.astype(np.float32), cv2.merge([grain] * 3), dtype=cv2.CV_8U)
