"""What stands around a drawn animal: backgrounds, things in front, and the light and lens of an imaginary camera.

Nothing here knows cat from dog. Pictures are uint8 RGB; `horizon` is the row where the floor or the ground begins.
"""

from collections.abc import Callable

import cv2
import numpy as np

Rng = np.random.Generator
Colour = tuple[int, int, int]


def noise(rng: Rng, height: int, width: int, *, cells: float, octaves: int = 3, stretch: float = 1.0) -> np.ndarray:
    """Smooth noise as float32 (height, width), about -1 to 1, with `cells` bumps across; `stretch` > 1 draws them out
    sideways."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        across = max(2, int(cells * 2**octave / stretch))
        down = max(2, int(cells * 2**octave * height / width))
        grid = rng.uniform(-1, 1, (min(down, height), min(across, width))).astype(np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) / 2**octave
    return total / 1.6


def soften(image: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian blur of `sigma` pixels; a wide one is done on a smaller copy, which looks the same."""
    height, width = image.shape[:2]
    shrink = max(1, min(int(sigma / 1.5), height // 4, width // 4))
    if shrink == 1:
        return cv2.GaussianBlur(image, (0, 0), sigma)
    small = cv2.resize(image, (width // shrink, height // shrink), interpolation=cv2.INTER_AREA)
    return cv2.resize(cv2.GaussianBlur(small, (0, 0), sigma / shrink), (width, height))


def dim(picture: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """A uint8 picture times a (height, width) plane of float32."""
    return cv2.multiply(picture, cv2.merge([gain] * 3), dtype=cv2.CV_8U)


def backdrop(rng: Rng, kind: str, *, height: int, width: int, horizon: int) -> np.ndarray:
    """One background of a `kind` in `BACKDROPS`, everything in focus."""
    return BACKDROPS[kind](rng, height, width, horizon)


def _tint(rng: Rng, colour: Colour, spread: float = 18) -> Colour:
    red, green, blue = np.clip(np.asarray(colour) + rng.normal(0, spread * 0.5) + rng.normal(0, spread * 0.6, 3), 0, 255)
    return int(red), int(green), int(blue)


def _pick(rng: Rng, colours: list[Colour], spread: float = 18) -> Colour:
    return _tint(rng, colours[rng.integers(len(colours))], spread)


def _gradient(height: int, width: int, top: Colour, bottom: Colour) -> np.ndarray:
    ramp = np.linspace(0, 1, max(height, 1), dtype=np.float32)[:, None, None]
    column = np.float32(top) * (1 - ramp) + np.float32(bottom) * ramp
    return np.broadcast_to(column, (len(ramp), width, 3)).round().astype(np.uint8)


def _grain(picture: np.ndarray, pattern: np.ndarray, strength: float) -> None:
    """Lighten and darken in place by a float pattern of about -1 to 1."""
    picture[:] = dim(picture, np.float32(1) + pattern * np.float32(strength))


def _box(picture: np.ndarray, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
    cv2.rectangle(picture, (int(left), int(top)), (int(right), int(bottom)), colour, -1, cv2.LINE_AA)


def _strokes(picture: np.ndarray, lines: np.ndarray, colours: np.ndarray, thickness: int) -> None:
    """Draw (n, points, 2) curves, spread over a few colours: one call for each colour is many times faster."""
    for index, colour in enumerate(colours):
        shade = tuple(int(c) for c in colour)
        cv2.polylines(picture, list(np.int32(lines[index :: len(colours)] * 8)), False, shade, thickness, cv2.LINE_AA, 3)


# ---- indoors -------------------------------------------------------------------------------------------------------

WALLS: list[Colour] = [(214, 205, 190), (190, 200, 205), (168, 182, 160), (206, 178, 156), (120, 134, 150), (226, 222, 214)]
FLOORS: list[Colour] = [(164, 116, 72), (120, 82, 54), (196, 160, 118), (140, 136, 132), (186, 176, 160), (104, 96, 96)]
FABRICS: list[Colour] = [(150, 62, 58), (62, 92, 128), (88, 120, 92), (196, 160, 90), (128, 108, 140), (176, 168, 156), (70, 74, 84)]
BOOKS: list[Colour] = [(160, 60, 50), (50, 90, 120), (200, 170, 90), (60, 100, 70), (220, 210, 190), (90, 60, 90)]


def _room(rng: Rng, height: int, width: int, horizon: int) -> np.ndarray:
    wall = _pick(rng, WALLS)
    picture = _gradient(height, width, _tint(rng, wall, 6), _tint(rng, wall, 6))
    _wallpaper(rng, picture, horizon)
    things: list[Callable[[Rng, np.ndarray, int], None]] = [_window, _frames, _lamp, _shelf, _plant, _curtain]
    for index in rng.permutation(len(things))[: rng.integers(1, 4)]:
        things[index](rng, picture, horizon)
    skirting = max(3, (height - horizon) // 14)
    _box(picture, 0, horizon - skirting, width, horizon, _tint(rng, (225, 220, 212), 10))
    picture[horizon:] = _floor(rng, height - horizon, width)
    if rng.random() < 0.5:
        _sofa(rng, picture, horizon)
    if rng.random() < 0.5:
        centre = (int(rng.uniform(0.2, 0.8) * width), int(horizon + (height - horizon) * 0.62))
        axes = (int(width * rng.uniform(0.3, 0.6)), int((height - horizon) * rng.uniform(0.25, 0.4)))
        for ring, colour in enumerate([_pick(rng, FABRICS), _pick(rng, FABRICS), _pick(rng, FABRICS)]):
            size = (int(axes[0] * (1 - 0.16 * ring)), int(axes[1] * (1 - 0.16 * ring)))
            cv2.ellipse(picture, centre, size, 0, 0, 360, colour, -1, cv2.LINE_AA)
    return picture


def _wallpaper(rng: Rng, picture: np.ndarray, horizon: int) -> None:
    height, width = picture.shape[:2]
    wall = picture[:horizon]
    style = rng.integers(4)
    x, y = np.arange(width, dtype=np.float32), np.arange(len(wall), dtype=np.float32)[:, None]
    period = rng.uniform(0.04, 0.14) * width
    if style == 0:
        pattern = np.broadcast_to(np.sign(np.sin(x * 2 * np.pi / period)), wall.shape[:2])
    elif style == 1:
        pattern = np.sign(np.sin(x * 2 * np.pi / period) * np.sin(y * 2 * np.pi / period) - 0.6)
    else:
        pattern = noise(rng, len(wall), width, cells=6)
    _grain(wall, pattern.astype(np.float32), rng.uniform(0.03, 0.09))


def _floor(rng: Rng, height: int, width: int) -> np.ndarray:
    colour = _pick(rng, FLOORS)
    floor = _gradient(height, width, _tint(rng, colour, 8), _tint(rng, colour, 8))
    style = rng.choice(["planks", "tiles", "carpet"])
    if style == "carpet":
        _grain(floor, noise(rng, height, width, cells=90, octaves=1), 0.22)
        return floor
    _grain(floor, noise(rng, height, width, cells=30, stretch=6), 0.12)
    dark = tuple(int(c * 0.68) for c in colour)
    vanishing = rng.uniform(0, 1) * width
    for foot in np.arange(-3, 4, rng.uniform(0.09, 0.2)) * width:
        start, end = (vanishing + (foot - vanishing) * 0.22, 0), (foot, height)
        cv2.line(floor, (int(start[0] * 8), 0), (int(end[0] * 8), height * 8), dark, 1, cv2.LINE_AA, 3)
    if style == "tiles":
        for depth in 1 / np.arange(1, 4.6, rng.uniform(0.25, 0.5)):
            row = int((depth - 0.22) / 0.78 * height)
            cv2.line(floor, (0, row), (width, row), dark, 1, cv2.LINE_AA)
    return floor


def _window(rng: Rng, picture: np.ndarray, horizon: int) -> None:
    width = picture.shape[1]
    w, h = width * rng.uniform(0.2, 0.4), horizon * rng.uniform(0.5, 0.8)
    left, top = rng.uniform(-0.1, 0.9) * (width - w), horizon * rng.uniform(0, 0.12)
    frame = _tint(rng, (232, 228, 220), 12)
    _box(picture, left - 6, top - 6, left + w + 6, top + h + 6, frame)
    x0, y0, x1, y1 = max(int(left), 0), max(int(top), 0), min(int(left + w), width), int(top + h)
    if x1 - x0 < 8 or y1 - y0 < 8:
        return
    view = _garden(rng, y1 - y0, x1 - x0, (y1 - y0) * 2 // 3)
    picture[y0:y1, x0:x1] = cv2.addWeighted(cv2.GaussianBlur(view, (0, 0), 3), 0.75, np.full_like(view, 255), 0.25, 0)
    _box(picture, left + w / 2 - 2, top, left + w / 2 + 2, top + h, frame)
    _box(picture, left, top + h / 2 - 2, left + w, top + h / 2 + 2, frame)


def _frames(rng: Rng, picture: np.ndarray, horizon: int) -> None:
    width = picture.shape[1]
    for _ in range(rng.integers(1, 4)):
        w, h = width * rng.uniform(0.1, 0.25), horizon * rng.uniform(0.2, 0.45)
        left, top = rng.uniform(0, width - w), rng.uniform(0.04, 0.4) * horizon
        _box(picture, left, top, left + w, top + h, _pick(rng, FLOORS))
        _box(picture, left + 4, top + 4, left + w - 4, top + h - 4, _tint(rng, (236, 232, 222), 8))
        _box(picture, left + 9, top + 9, left + w - 9, top + h - 9, _pick(rng, FABRICS))
        middle = (int(left + w / 2), int(top + h * 0.6))
        cv2.ellipse(picture, middle, (int(w * 0.25), int(h * 0.18)), 0, 0, 360, _pick(rng, FABRICS), -1, cv2.LINE_AA)


def _lamp(rng: Rng, picture: np.ndarray, horizon: int) -> None:
    height, width = picture.shape[:2]
    x, size = rng.uniform(0.08, 0.92) * width, width * rng.uniform(0.07, 0.12)
    top = horizon * rng.uniform(0.1, 0.4)
    _box(picture, x - 2, top, x + 2, horizon, (70, 60, 55))
    shade = np.array([[x - size * 0.6, top], [x + size * 0.6, top], [x + size, top + size * 1.3], [x - size, top + size * 1.3]])
    cv2.fillPoly(picture, [np.int32(shade)], _tint(rng, (250, 224, 160), 12), cv2.LINE_AA)
    rows, columns = np.ogrid[:height, :width]
    reach = np.exp(-((columns - x) ** 2 + (rows - top - size) ** 2) / (2 * (size * 2.4) ** 2)).astype(np.float32)
    _grain(picture, reach, 0.45)


def _shelf(rng: Rng, picture: np.ndarray, horizon: int) -> None:
    width = picture.shape[1]
    left, w = rng.uniform(-0.1, 0.7) * width, width * rng.uniform(0.25, 0.5)
    wood = _pick(rng, FLOORS)
    for level in np.arange(rng.uniform(0.2, 0.35), 1.0, rng.uniform(0.22, 0.34)) * horizon:
        x = left + 3
        while x < left + w - 6:
            thick, tall = rng.uniform(0.012, 0.03) * width, rng.uniform(0.1, 0.18) * horizon
            if rng.random() < 0.8:
                _box(picture, x, level - tall, x + thick, level, _pick(rng, BOOKS))
            x += thick + 1
        _box(picture, left, level, left + w, level + max(3, horizon * 0.025), wood)


def _plant(rng: Rng, picture: np.ndarray, horizon: int) -> None:
    width = picture.shape[1]
    x, size = rng.uniform(0.05, 0.95) * width, horizon * rng.uniform(0.3, 0.6)
    leaves(rng, picture, roots=[(x, horizon - size * 0.3)] * 14, length=size, upwards=True)
    pot = [[x - size * 0.16, horizon - size * 0.3], [x + size * 0.16, horizon - size * 0.3], [x + size * 0.11, horizon], [x - size * 0.11, horizon]]
    cv2.fillPoly(picture, [np.int32(pot)], _pick(rng, [(178, 96, 66), (220, 216, 208), (88, 100, 112)]), cv2.LINE_AA)


def _curtain(rng: Rng, picture: np.ndarray, horizon: int) -> None:
    width = picture.shape[1]
    w = int(width * rng.uniform(0.12, 0.3))
    left = int(rng.choice([0, width - w]))
    strip = picture[: max(horizon - 4, 1), left : left + w]
    strip[:] = _pick(rng, FABRICS)
    folds = np.sin(np.arange(w, dtype=np.float32) * rng.uniform(0.25, 0.6) + rng.uniform(0, 6))
    _grain(strip, np.broadcast_to(folds, strip.shape[:2]), 0.2)


def _sofa(rng: Rng, picture: np.ndarray, horizon: int) -> None:
    height, width = picture.shape[:2]
    colour = _pick(rng, FABRICS)
    dark = tuple(int(c * 0.78) for c in colour)
    left, w = rng.uniform(-0.3, 0.5) * width, width * rng.uniform(0.5, 0.9)
    top, seat = horizon * rng.uniform(0.45, 0.7), horizon * 0.9
    bottom = horizon + (height - horizon) * 0.18
    _cushion(picture, left, top, left + w, seat + 10, colour)
    _cushion(picture, left, seat, left + w, bottom, dark)
    for x in (left - w * 0.06, left + w * 0.94):
        _cushion(picture, x, (top + seat) / 2, x + w * 0.12, bottom, dark)
    for _ in range(rng.integers(0, 3)):
        x, size = left + rng.uniform(0.1, 0.8) * w, width * rng.uniform(0.1, 0.16)
        _cushion(picture, x, seat - size, x + size, seat, _pick(rng, FABRICS))


def _cushion(picture: np.ndarray, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
    """A box with round corners."""
    round_ = int(min(right - left, bottom - top) * 0.25)
    _box(picture, left, top + round_, right, bottom - round_, colour)
    _box(picture, left + round_, top, right - round_, bottom, colour)
    for x in (left + round_, right - round_):
        for y in (top + round_, bottom - round_):
            cv2.circle(picture, (int(x), int(y)), round_, colour, -1, cv2.LINE_AA)


def _blanket(rng: Rng, height: int, width: int, horizon: int) -> np.ndarray:
    """A bed or a draped cloth, checked or plain, seen from close by."""
    colour = _pick(rng, FABRICS + WALLS)
    picture = _gradient(height, width, _tint(rng, colour, 10), _tint(rng, colour, 10))
    bend = noise(rng, height, width, cells=4, octaves=1) * rng.uniform(6, 16)
    x, y = np.arange(width, dtype=np.float32) + bend, np.arange(height, dtype=np.float32)[:, None] + bend
    period = rng.uniform(0.05, 0.16) * width
    if rng.random() < 0.6:
        checks = np.sign(np.sin(x * 6.28 / period)) + np.sign(np.sin(y * 6.28 / period)) * rng.integers(2)
        _grain(picture, checks.astype(np.float32), rng.uniform(0.06, 0.18))
    folds = np.sin((x * rng.uniform(-1, 1) + y * rng.uniform(-1, 1)) * 0.06 + bend * 0.4)
    _grain(picture, folds.astype(np.float32), rng.uniform(0.05, 0.16))
    return picture


# ---- outdoors ------------------------------------------------------------------------------------------------------

SKIES: list[tuple[Colour, Colour]] = [
    ((92, 146, 206), (206, 224, 236)),
    ((150, 164, 180), (214, 216, 216)),
    ((86, 96, 150), (246, 186, 130)),
    ((120, 178, 220), (240, 240, 226)),
]
GREENS: list[Colour] = [(86, 124, 52), (112, 140, 64), (64, 98, 58), (136, 142, 78), (92, 112, 40)]
GROUNDS: list[Colour] = [(206, 184, 146), (228, 232, 240), (150, 128, 100), (176, 168, 158)]


def _sky(rng: Rng, height: int, width: int) -> np.ndarray:
    top, bottom = SKIES[rng.integers(len(SKIES))]
    sky = _gradient(height, width, _tint(rng, top), _tint(rng, bottom, 10))
    cloud = np.clip(noise(rng, max(height, 1), width, cells=3, octaves=4, stretch=0.6) * 1.6 - rng.uniform(-0.2, 0.5), 0, 1)
    return (sky + (250.0 - sky) * cloud[..., None] * 0.85).astype(np.uint8)


def _trees(rng: Rng, picture: np.ndarray, horizon: int) -> None:
    """A line of hills or tree tops over the horizon."""
    width = picture.shape[1]
    for layer in range(rng.integers(1, 4)):
        rise = horizon * rng.uniform(0.15, 0.5) / (layer + 1)
        ridge = horizon - rise - noise(rng, 2, width, cells=rng.uniform(3, 14), octaves=3)[0] * rise * 0.8
        outline = np.column_stack([np.arange(width), ridge])
        outline = np.vstack([outline, [width, horizon + 2], [0, horizon + 2]])
        mask = np.zeros(picture.shape[:2], np.uint8)
        cv2.fillPoly(mask, [np.int32(outline)], 255, cv2.LINE_AA)
        wood = np.empty_like(picture)
        wood[:] = _pick(rng, GREENS, 24)
        _grain(wood, noise(rng, *picture.shape[:2], cells=26), 0.35)
        np.copyto(picture, wood, where=mask[..., None] > 127)


def _garden(rng: Rng, height: int, width: int, horizon: int) -> np.ndarray:
    picture = np.vstack([_sky(rng, horizon, width), _gradient(height - horizon, width, (0, 0, 0), (0, 0, 0))])
    _trees(rng, picture, horizon)
    if rng.random() < 0.35:
        _planks(rng, picture, horizon)
    green = _pick(rng, GREENS)
    ground = picture[horizon:]
    ground[:] = _gradient(height - horizon, width, _tint(rng, green, 10), tuple(int(c * 0.75) for c in green))
    _grain(ground, noise(rng, height - horizon, width, cells=12, stretch=2), 0.22)
    count = 500
    depth = np.sqrt(rng.uniform(0, 1, count))
    roots = np.column_stack([rng.uniform(0, width, count), horizon + depth * (height - horizon)])
    sway = np.column_stack([rng.normal(0, 3, count), -rng.uniform(3, 12, count)]) * (0.4 + depth[:, None]) * height / 320
    shades = np.clip(np.asarray(green) * rng.uniform(0.6, 1.5, (6, 1)), 0, 255)
    _strokes(picture, np.stack([roots, roots + sway * [0.3, 0.6], roots + sway], axis=1), shades, 1)
    if rng.random() < 0.4:
        flower = _pick(rng, [(240, 230, 120), (238, 238, 238), (200, 110, 160), (220, 90, 70)])
        for root in roots[: rng.integers(10, 60)]:
            cv2.circle(picture, (int(root[0]), int(root[1])), rng.integers(1, 4), flower, -1, cv2.LINE_AA)
    return picture


def _planks(rng: Rng, picture: np.ndarray, horizon: int) -> None:
    """A wooden fence along the horizon."""
    width = picture.shape[1]
    colour, board = _pick(rng, FLOORS + WALLS), width * rng.uniform(0.05, 0.1)
    top = horizon * rng.uniform(0.3, 0.6)
    for left in np.arange(-board, width, board):
        _box(picture, left, top + rng.uniform(-3, 3), left + board * 0.9, horizon, _tint(rng, colour, 14))


def _open_ground(rng: Rng, height: int, width: int, horizon: int) -> np.ndarray:
    """Sand, snow, earth or pavement under the sky, with water or hills behind."""
    picture = np.vstack([_sky(rng, horizon, width), _gradient(height - horizon, width, (0, 0, 0), (0, 0, 0))])
    if rng.random() < 0.5:
        sea = int(horizon * rng.uniform(0.7, 0.92))
        water = picture[sea:horizon]
        water[:] = _pick(rng, [(70, 120, 150), (96, 140, 148), (60, 90, 120)])
        _grain(water, noise(rng, horizon - sea, width, cells=40, stretch=5), 0.2)
    else:
        _trees(rng, picture, horizon)
    colour = _pick(rng, GROUNDS)
    ground = picture[horizon:]
    ground[:] = _gradient(height - horizon, width, _tint(rng, colour, 8), _tint(rng, colour, 12))
    _grain(ground, noise(rng, height - horizon, width, cells=14, octaves=4, stretch=2), 0.13)
    for _ in range(rng.integers(0, 14)):
        x, y, size = rng.uniform(0, width), rng.uniform(horizon, height), rng.uniform(2, 9)
        grey = _tint(rng, (136, 130, 124), 20)
        cv2.ellipse(picture, (int(x), int(y)), (int(size), int(size * 0.6)), 0, 0, 360, grey, -1, cv2.LINE_AA)
    return picture


def _street(rng: Rng, height: int, width: int, horizon: int) -> np.ndarray:
    """A wall of bricks or plaster over a pavement."""
    picture = _gradient(height, width, *[_pick(rng, [(156, 92, 70), (176, 166, 150), (120, 110, 106), (198, 184, 160)], 12)] * 2)
    _grain(picture, noise(rng, height, width, cells=20), 0.16)
    if rng.random() < 0.65:
        tall, mortar = max(6, int(height * rng.uniform(0.03, 0.06))), _tint(rng, (190, 184, 174), 14)
        for index, row in enumerate(range(0, horizon, tall)):
            cv2.line(picture, (0, row), (width, row), mortar, 1)
            for x in range(-(index % 2) * tall, width, tall * 2):
                cv2.line(picture, (x, row), (x, min(row + tall, horizon)), mortar, 1)
    if rng.random() < 0.5:
        left, w = rng.uniform(-0.1, 0.8) * width, width * rng.uniform(0.2, 0.32)
        _box(picture, left - 6, horizon * 0.1, left + w + 6, horizon, _tint(rng, (226, 220, 208), 10))
        _box(picture, left, horizon * 0.14, left + w, horizon, _pick(rng, FABRICS))
    picture[horizon:] = _floor(rng, height - horizon, width)
    return picture


def _foliage(rng: Rng, height: int, width: int, horizon: int) -> np.ndarray:
    """Leaves far out of focus, with discs of light between them."""
    colour = _pick(rng, [*GREENS, (150, 120, 70), (60, 74, 70)])
    picture = _gradient(height, width, _tint(rng, colour, 24), tuple(int(c * 0.6) for c in colour))
    _grain(picture, noise(rng, height, width, cells=7), 0.5)
    lights = picture.copy()
    for _ in range(rng.integers(10, 40)):
        centre = (int(rng.uniform(0, width)), int(rng.uniform(0, height * 0.8)))
        cv2.circle(lights, centre, int(width * rng.uniform(0.012, 0.05)), _tint(rng, (236, 232, 180), 40), -1, cv2.LINE_AA)
    return cv2.addWeighted(picture, 0.6, lights, 0.4, 0)


BACKDROPS: dict[str, Callable[[Rng, int, int, int], np.ndarray]] = {
    "room": _room,
    "blanket": _blanket,
    "garden": _garden,
    "open ground": _open_ground,
    "street": _street,
    "foliage": _foliage,
}


# ---- in front of the animal ----------------------------------------------------------------------------------------


def leaves(rng: Rng, picture: np.ndarray, *, roots: list[tuple[float, float]], length: float, upwards: bool) -> None:
    """Lance-shaped leaves in place, one from each root, `length` pixels at most."""
    green = np.asarray(_pick(rng, GREENS))
    along = np.linspace(0, 1, 7)[:, None]
    for root in roots:
        angle = (-np.pi / 2 if upwards else np.pi / 2) + rng.normal(0, 0.75)
        size = length * rng.uniform(0.55, 1)
        ahead = np.array([np.cos(angle), np.sin(angle)])
        spine = np.asarray(root) + along * size * ahead + along**2 * size * rng.normal(0, 0.15, 2)
        side = np.array([-ahead[1], ahead[0]]) * np.sin(along * np.pi) * size * rng.uniform(0.07, 0.13)
        shade = np.clip(green * rng.uniform(0.6, 1.35), 0, 255)
        half = tuple(int(c * 0.86) for c in shade)
        cv2.fillPoly(picture, [np.int32(np.vstack([spine + side, (spine - side)[::-1]]))], half, cv2.LINE_AA)
        cv2.fillPoly(picture, [np.int32(np.vstack([spine + side, spine[::-1]]))], tuple(map(int, shade)), cv2.LINE_AA)


def in_front(rng: Rng, picture: np.ndarray, kind: str, *, face: tuple[float, float, float, float]) -> np.ndarray:
    """The picture with something of a `kind` in `FRONTS` before it, slightly out of focus.

    `face` is (left, top, right, bottom) in pixels: it may be crossed by thin things but is never hidden.
    """
    layer = picture.copy()
    FRONTS[kind](rng, layer, face)
    touched = (layer != picture).any(axis=2).astype(np.float32)
    sigma = rng.uniform(0.5, 2.5)
    alpha = cv2.merge([cv2.GaussianBlur(touched, (0, 0), sigma)] * 3)
    return (picture + (cv2.GaussianBlur(layer, (0, 0), sigma) - picture.astype(np.float32)) * alpha).astype(np.uint8)


def _grass_in_front(rng: Rng, picture: np.ndarray, face: tuple[float, float, float, float]) -> None:
    height, width = picture.shape[:2]
    count = rng.integers(40, 160)
    tall = min(height * rng.uniform(0.15, 0.4), max(height - (face[1] + 2 * face[3]) / 3, height * 0.06))
    roots = np.column_stack([rng.uniform(-10, width + 10, count), np.full(count, height + 2.0)])
    tips = np.column_stack([rng.normal(0, tall * 0.22, count), -tall * rng.uniform(0.4, 1, count)])
    shades = np.clip(np.asarray(_pick(rng, GREENS)) * rng.uniform(0.6, 1.5, (6, 1)), 0, 255)
    _strokes(picture, np.stack([roots, roots + tips * [0.3, 0.6], roots + tips], axis=1), shades, rng.integers(2, 4))


def _leaves_in_front(rng: Rng, picture: np.ndarray, face: tuple[float, float, float, float]) -> None:
    height, width = picture.shape[:2]
    corner = (width * rng.integers(2), height * rng.integers(2))
    spread = rng.normal(0, width * 0.1, (rng.integers(4, 10), 2))
    leaves(rng, picture, roots=[(corner[0] + dx, corner[1] + dy) for dx, dy in spread], length=width * 0.38, upwards=bool(corner[1]))


def _bars_in_front(rng: Rng, picture: np.ndarray, face: tuple[float, float, float, float]) -> None:
    height, width = picture.shape[:2]
    thick, gap = width * rng.uniform(0.012, 0.035), width * rng.uniform(0.14, 0.28)
    colour, lean = _pick(rng, [*FLOORS, (60, 60, 64), (226, 222, 214)]), rng.normal(0, width * 0.03)
    for x in np.arange(rng.uniform(-gap, 0), width + gap, gap):
        for share, part in ((1.0, 0.7), (0.5, 1.0)):
            bar = [[x - thick * share, 0], [x + thick * share, 0], [x + lean + thick * share, height], [x + lean - thick * share, height]]
            cv2.fillPoly(picture, [np.int32(bar)], tuple(int(c * part) for c in colour), cv2.LINE_AA)


def _ledge_in_front(rng: Rng, picture: np.ndarray, face: tuple[float, float, float, float]) -> None:
    """A table, a box, the back of a sofa: everything under an edge below the face."""
    height, width = picture.shape[:2]
    edge = max(height * rng.uniform(0.72, 0.92), face[3] + 4)
    _box(picture, -5, edge, width + 5, height + 5, _pick(rng, FABRICS + FLOORS))
    _grain(picture[min(int(edge) + 1, height - 1) :], noise(rng, height - min(int(edge) + 1, height - 1), width, cells=24, stretch=4), 0.12)
    _box(picture, -5, edge, width + 5, edge + height * 0.02, _pick(rng, FLOORS))


def _cushion_in_front(rng: Rng, picture: np.ndarray, face: tuple[float, float, float, float]) -> None:
    height, width = picture.shape[:2]
    size = width * rng.uniform(0.25, 0.45)
    left = rng.choice([rng.uniform(-0.5, 0.0) * size, width - rng.uniform(0.5, 1.0) * size])
    top = max(height - size * rng.uniform(0.4, 0.9), (face[1] + 2 * face[3]) / 3)
    _cushion(picture, left, top, left + size, top + size, _pick(rng, FABRICS))


FRONTS: dict[str, Callable[[Rng, np.ndarray, tuple[float, float, float, float]], None]] = {
    "grass": _grass_in_front,
    "leaves": _leaves_in_front,
    "bars": _bars_in_front,
    "ledge": _ledge_in_front,
    "cushion": _cushion_in_front,
}


# ---- the camera ----------------------------------------------------------------------------------------------------


def lens(rng: Rng, picture: np.ndarray) -> np.ndarray:
    """Light and camera: uneven light, colour temperature, exposure, contrast, vignette, blur and sensor noise."""
    height, width = picture.shape[:2]
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    columns = np.linspace(-1, 1, width, dtype=np.float32)
    light = 1 + rng.normal(0, 0.09) * rows + rng.normal(0, 0.12) * columns
    light -= rng.uniform(0, 0.22) * (rows**2 + columns**2)
    if rng.random() < 0.15:
        light *= _blinds(rng, rows, columns)
    warmth = rng.normal(0, 0.06)
    exposure = np.exp(rng.normal(0.04, 0.16)) * np.array([1 + warmth, 1, 1 - warmth])
    curve = 255 * np.linspace(0, 1, 256)[:, None] ** np.exp(rng.normal(0, 0.12)) * exposure
    image = cv2.multiply(cv2.LUT(picture, curve.astype(np.float32)[None]), cv2.merge([light] * 3))
    if rng.random() < 0.2:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 1.4))
    grain = rng.standard_normal((height, width), dtype=np.float32) * np.float32(rng.normal(0, 3))
    return cv2.add(image, cv2.merge([grain] * 3), dtype=cv2.CV_8U)


def _blinds(rng: Rng, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Bands of shadow, as through blinds or branches."""
    wave = np.sin((rows * rng.normal(0, 1) + columns * rng.normal(0, 1)) * rng.uniform(4, 10) + rng.uniform(0, 6))
    return 1 - 0.3 / (1 + np.exp(-6 * wave))
