"""What stands around a drawn animal: backgrounds, things in front, and the light and lens of an imaginary camera.

Nothing here knows cat from dog. Pictures are uint8 RGB; `horizon` is the row where the floor or the ground begins.
"""

from collections.abc import Callable

import cv2
import numpy as np

Rng = np.random.Generator
Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels

WALLS = [(214, 205, 190), (190, 200, 205), (168, 182, 160), (206, 178, 156), (120, 134, 150), (226, 222, 214)]
FLOORS = [(164, 116, 72), (120, 82, 54), (196, 160, 118), (140, 136, 132), (186, 176, 160), (104, 96, 96)]
FABRICS = [(150, 62, 58), (62, 92, 128), (88, 120, 92), (196, 160, 90), (128, 108, 140), (176, 168, 156), (70, 74, 84)]
SKIES = [((92, 146, 206), (206, 224, 236)), ((150, 164, 180), (214, 216, 216)), ((86, 96, 150), (246, 186, 130))]
GREENS = [(86, 124, 52), (112, 140, 64), (64, 98, 58), (136, 142, 78), (92, 112, 40)]
GROUNDS = [(206, 184, 146), (228, 232, 240), (150, 128, 100), (176, 168, 158)]
BRICKS = [(156, 92, 70), (176, 166, 150), (120, 110, 106), (198, 184, 160)]
WATERS = [(70, 120, 150), (96, 140, 148), (60, 90, 120)]


# ---- tools ---------------------------------------------------------------------------------------------------------


def noise(rng: Rng, height: int, width: int, *, cells: float, octaves: int = 3, stretch: float = 1.0) -> np.ndarray:
    """Smooth noise, float32 (height, width), about -1 to 1: `cells` bumps across, drawn out sideways by `stretch`."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        down, across = cells * 2**octave * height / width, cells * 2**octave / stretch
        grid = rng.uniform(-1, 1, (min(max(2, int(down)), height), min(max(2, int(across)), width)))
        total += cv2.resize(grid.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC) / 2**octave
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
    """A picture times a (height, width) plane of float32."""
    return cv2.multiply(picture, cv2.merge([gain] * 3), dtype=cv2.CV_8U)


def _grain(picture: np.ndarray, pattern: np.ndarray, strength: float) -> None:
    picture[:] = dim(picture, np.float32(1) + pattern.astype(np.float32) * np.float32(strength))


def _pick(rng: Rng, colours: list[Colour], spread: float = 18) -> Colour:
    """One of the colours, lighter or darker and of a slightly different hue."""
    shifted = np.asarray(colours[rng.integers(len(colours))]) + rng.normal(0, spread / 2) + rng.normal(0, spread / 2, 3)
    red, green, blue = np.clip(shifted, 0, 255)
    return int(red), int(green), int(blue)


def _shade(colour: Colour, gain: float) -> Colour:
    red, green, blue = (min(int(c * gain), 255) for c in colour)
    return red, green, blue


def _plain(height: int, width: int, top: Colour, bottom: Colour) -> np.ndarray:
    ramp = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    return np.repeat((np.array(top) * (1 - ramp) + np.array(bottom) * ramp).astype(np.uint8), width, axis=1)


def _box(picture: np.ndarray, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
    cv2.rectangle(picture, (int(left), int(top)), (int(right), int(bottom)), colour, -1)


def _cushion(picture: np.ndarray, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
    """A box with round corners."""
    edge = int(max(min(right - left, bottom - top), 4) * 0.25)
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]]) + edge * CORNERS
    cv2.fillPoly(picture, [corners.astype(np.int32)], colour)
    cv2.polylines(picture, [corners.astype(np.int32)], True, colour, 2 * edge, cv2.LINE_AA)


CORNERS = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])


def _grass(rng: Rng, picture: np.ndarray, roots: np.ndarray, tips: np.ndarray, green: Colour, thickness: int) -> None:
    blades = (np.stack([roots, roots + tips * [0.3, 0.6], roots + tips], axis=1) * 8).astype(np.int32)
    for index in range(6):  # one call for each of a few greens is many times faster than one for each blade
        shade = _shade(green, rng.uniform(0.6, 1.5))
        cv2.polylines(picture, list(blades[index::6]), False, shade, thickness, cv2.LINE_AA, 3)


def _leaves(rng: Rng, picture: np.ndarray, roots: np.ndarray, *, length: float, upwards: bool) -> None:
    """Lance-shaped leaves, one from each root, `length` pixels at most."""
    green, along = _pick(rng, GREENS), np.linspace(0, 1, 7)[:, None]
    for root in roots:
        angle = (-np.pi / 2 if upwards else np.pi / 2) + rng.normal(0, 0.75)
        size, ahead = length * rng.uniform(0.55, 1), np.array([np.cos(angle), np.sin(angle)])
        spine = root + along * size * ahead + along**2 * size * rng.normal(0, 0.15, 2)
        side = ahead[::-1] * [-1, 1] * np.sin(along * np.pi) * size * rng.uniform(0.07, 0.13)
        shade = rng.uniform(0.6, 1.35)
        for edge, gain in ((spine - side, 0.86), (spine + side, 1.0)):
            half = np.vstack([spine, edge[::-1]]).astype(np.int32)
            cv2.fillPoly(picture, [half], _shade(green, shade * gain), cv2.LINE_AA)


# ---- backgrounds ---------------------------------------------------------------------------------------------------


def _room(rng: Rng, height: int, width: int, horizon: int) -> np.ndarray:
    wall = _pick(rng, WALLS)
    picture = _plain(height, width, wall, _shade(wall, rng.uniform(0.85, 1.1)))
    x, y = np.arange(width) / width, np.arange(height)[:, None] / width
    period = 2 * np.pi / rng.uniform(0.04, 0.14)
    papers = [np.sign(np.sin(x * period) + 0 * y), np.sign(np.sin(x * period) * np.sin(y * period) - 0.6)]
    papers.append(noise(rng, height, width, cells=6))
    _grain(picture, papers[rng.integers(3)], rng.uniform(0.03, 0.09))
    things = [_window, _frames, _shelf, _plant]
    for index in rng.permutation(len(things))[: rng.integers(1, 4)]:
        things[index](rng, picture, horizon)
    _box(picture, 0, horizon - (height - horizon) // 14 - 3, width, horizon, _pick(rng, WALLS[-1:]))
    picture[horizon:] = _floor(rng, height - horizon, width)
    if rng.random() < 0.5:
        _sofa(rng, picture, horizon)
    if rng.random() < 0.5:  # a rug
        centre = (int(rng.uniform(0.2, 0.8) * width), int(horizon + (height - horizon) * 0.62))
        axes = np.array([width * rng.uniform(0.3, 0.6), (height - horizon) * rng.uniform(0.25, 0.4)])
        for size in (1.0, 0.84, 0.68):
            ring = (axes * size).astype(int).tolist()
            cv2.ellipse(picture, centre, ring, 0, 0, 360, _pick(rng, FABRICS), -1, cv2.LINE_AA)
    return picture


def _floor(rng: Rng, height: int, width: int) -> np.ndarray:
    colour, style = _pick(rng, FLOORS), rng.choice(["planks", "tiles", "carpet"])
    floor = _plain(height, width, colour, _shade(colour, rng.uniform(0.85, 1.15)))
    if style == "carpet":
        _grain(floor, noise(rng, height, width, cells=90, octaves=1), 0.22)
        return floor
    _grain(floor, noise(rng, height, width, cells=30, stretch=6), 0.12)
    dark, vanishing = _shade(colour, 0.68), rng.uniform(0, 1) * width
    for foot in np.arange(-3, 4, rng.uniform(0.09, 0.2)) * width:
        far = vanishing + (foot - vanishing) * 0.22
        cv2.line(floor, (int(far * 8), 0), (int(foot * 8), height * 8), dark, 1, cv2.LINE_AA, 3)
    if style == "tiles":
        for nearness in 1 / np.arange(1, 4.6, rng.uniform(0.25, 0.5)):
            row = int((nearness - 0.22) / 0.78 * height)
            cv2.line(floor, (0, row), (width, row), dark, 1)
    return floor


def _window(rng: Rng, picture: np.ndarray, horizon: int) -> None:
    width = picture.shape[1]
    w, h = int(width * rng.uniform(0.2, 0.4)), int(horizon * rng.uniform(0.5, 0.8))
    left, top, frame = (
        int(rng.uniform(0, 1) * (width - w)),
        int(horizon * rng.uniform(0.02, 0.12)),
        _pick(rng, WALLS[-1:]),
    )
    _box(picture, left - 6, top - 6, left + w + 6, top + h + 6, frame)
    view = cv2.GaussianBlur(_garden(rng, h, w, h * 2 // 3), (0, 0), 3)
    picture[top : top + h, left : left + w] = cv2.addWeighted(view, 0.75, np.full_like(view, 255), 0.25, 0)
    _box(picture, left + w // 2 - 2, top, left + w // 2 + 2, top + h, frame)
    _box(picture, left, top + h // 2 - 2, left + w, top + h // 2 + 2, frame)


def _frames(rng: Rng, picture: np.ndarray, horizon: int) -> None:
    width = picture.shape[1]
    for _ in range(rng.integers(1, 4)):
        w, h = width * rng.uniform(0.1, 0.25), horizon * rng.uniform(0.2, 0.45)
        left, top = rng.uniform(0, width - w), rng.uniform(0.04, 0.4) * horizon
        for margin, colours in ((0, FLOORS), (4, WALLS[-1:]), (9, FABRICS)):
            _box(picture, left + margin, top + margin, left + w - margin, top + h - margin, _pick(rng, colours))


def _shelf(rng: Rng, picture: np.ndarray, horizon: int) -> None:
    width, wood = picture.shape[1], _pick(rng, FLOORS)
    left, w = rng.uniform(-0.1, 0.7) * width, width * rng.uniform(0.25, 0.5)
    for level in np.arange(rng.uniform(0.2, 0.35), 1.0, rng.uniform(0.22, 0.34)) * horizon:
        x = left + 3
        while x < left + w - 6:
            thick, tall = rng.uniform(0.012, 0.03) * width, rng.uniform(0.1, 0.18) * horizon
            if rng.random() < 0.8:
                _box(picture, x, level - tall, x + thick, level, _pick(rng, FABRICS, 30))
            x += thick + 1
        _box(picture, left, level, left + w, level + max(3, horizon * 0.025), wood)


def _plant(rng: Rng, picture: np.ndarray, horizon: int) -> None:
    x, size = rng.uniform(0.05, 0.95) * picture.shape[1], horizon * rng.uniform(0.3, 0.6)
    _leaves(rng, picture, np.full((14, 2), (x, horizon - size * 0.3)), length=size, upwards=True)
    _cushion(picture, x - size * 0.14, horizon - size * 0.32, x + size * 0.14, horizon, _pick(rng, FLOORS + BRICKS))


def _sofa(rng: Rng, picture: np.ndarray, horizon: int) -> None:
    height, width = picture.shape[:2]
    colour = _pick(rng, FABRICS)
    left, w = rng.uniform(-0.3, 0.5) * width, width * rng.uniform(0.5, 0.9)
    top, seat, bottom = horizon * rng.uniform(0.45, 0.7), horizon * 0.9, horizon + (height - horizon) * 0.18
    _cushion(picture, left, top, left + w, seat + 10, colour)
    _cushion(picture, left, seat, left + w, bottom, _shade(colour, 0.8))
    for x in (left - w * 0.06, left + w * 0.94):
        _cushion(picture, x, (top + seat) / 2, x + w * 0.12, bottom, _shade(colour, 0.75))
    for x in left + rng.uniform(0.1, 0.8, rng.integers(3)) * w:
        _cushion(picture, x, seat - width * 0.13, x + width * 0.13, seat, _pick(rng, FABRICS))


def _blanket(rng: Rng, height: int, width: int, horizon: int) -> np.ndarray:
    """A bed or a draped cloth, checked or plain, seen from close by."""
    colour = _pick(rng, FABRICS + WALLS)
    picture = _plain(height, width, colour, _shade(colour, rng.uniform(0.8, 1.2)))
    bend = noise(rng, height, width, cells=4, octaves=1) * rng.uniform(6, 16)
    x, y = np.arange(width) + bend, np.arange(height)[:, None] + bend
    period = 2 * np.pi / (rng.uniform(0.05, 0.16) * width)
    if rng.random() < 0.6:
        _grain(picture, np.sign(np.sin(x * period)) + np.sign(np.sin(y * period)) * rng.integers(2), 0.12)
    _grain(picture, np.sin((x * rng.uniform(-1, 1) + y * rng.uniform(-1, 1)) * 0.06 + bend * 0.4), 0.1)
    return picture


def _outdoors(rng: Rng, height: int, width: int, horizon: int, ground: Colour) -> np.ndarray:
    """Sky with clouds over ground of one colour, and a line of hills or tree tops between them."""
    top, bottom = SKIES[rng.integers(len(SKIES))]
    sky = _plain(horizon, width, _pick(rng, [top]), _pick(rng, [bottom]))
    cloud = noise(rng, horizon, width, cells=3, octaves=4, stretch=0.6) * 1.4 - np.float32(rng.uniform(-0.2, 0.4))
    sky = cv2.add(sky, cv2.multiply(250.0 - sky, cv2.merge([np.clip(cloud, 0, 0.85)] * 3), dtype=cv2.CV_8U))
    picture = np.vstack([sky, _plain(height - horizon, width, ground, _shade(ground, 0.85))])
    for layer in range(rng.integers(0, 4)):
        rise = horizon * rng.uniform(0.15, 0.5) / (layer + 1)
        ridge = horizon - rise - noise(rng, 2, width, cells=rng.uniform(3, 14))[0] * rise * 0.8
        highest = max(int(ridge.min()), 0)
        wood = _plain(horizon - highest, width, *[_pick(rng, GREENS, 24)] * 2)
        _grain(wood, noise(rng, *wood.shape[:2], cells=26), 0.35)
        below = np.arange(highest, horizon)[:, None] > ridge
        np.copyto(picture[highest:horizon], wood, where=below[..., None])
    return picture


def _garden(rng: Rng, height: int, width: int, horizon: int) -> np.ndarray:
    green = _pick(rng, GREENS)
    picture = _outdoors(rng, height, width, horizon, green)
    if rng.random() < 0.35:  # a fence
        wood, board, top = _pick(rng, FLOORS + WALLS), width * rng.uniform(0.05, 0.1), horizon * rng.uniform(0.3, 0.6)
        for left in np.arange(-board, width, board):
            _box(picture, left, top + rng.uniform(-3, 3), left + board * 0.9, horizon, _pick(rng, [wood]))
    _grain(picture[horizon:], noise(rng, height - horizon, width, cells=12, stretch=2), 0.22)
    near = np.sqrt(rng.uniform(0, 1, (500, 1)))
    roots = np.hstack([rng.uniform(0, width, (500, 1)), horizon + near * (height - horizon)])
    tips = np.hstack([rng.normal(0, 3, (500, 1)), -rng.uniform(3, 12, (500, 1))]) * (0.4 + near) * height / 320
    _grass(rng, picture, roots, tips, green, 1)
    if rng.random() < 0.4:
        flower = _pick(rng, [(240, 230, 120), (238, 238, 238), (200, 110, 160), (220, 90, 70)])
        for x, y in roots[: rng.integers(10, 60)].astype(int).tolist():
            cv2.circle(picture, (x, y), int(rng.integers(1, 4)), flower, -1, cv2.LINE_AA)
    return picture


def _open_ground(rng: Rng, height: int, width: int, horizon: int) -> np.ndarray:
    """Sand, snow, earth or stone, perhaps with water behind."""
    picture = _outdoors(rng, height, width, horizon, _pick(rng, GROUNDS))
    if rng.random() < 0.5:
        water = picture[int(horizon * rng.uniform(0.7, 0.92)) : horizon]
        water[:] = _pick(rng, WATERS)
        _grain(water, noise(rng, *water.shape[:2], cells=40, stretch=5), 0.2)
    _grain(picture[horizon:], noise(rng, height - horizon, width, cells=14, octaves=4, stretch=2), 0.13)
    for x, y, size in rng.uniform((0, horizon, 2), (width, height, 9), (rng.integers(14), 3)):
        axes = (int(size), int(size * 0.6))
        cv2.ellipse(picture, (int(x), int(y)), axes, 0, 0, 360, _pick(rng, BRICKS), -1, cv2.LINE_AA)
    return picture


def _street(rng: Rng, height: int, width: int, horizon: int) -> np.ndarray:
    """A wall of bricks or plaster over a pavement."""
    wall, mortar = _pick(rng, BRICKS), _pick(rng, WALLS)
    picture = _plain(height, width, wall, _shade(wall, 0.9))
    _grain(picture, noise(rng, height, width, cells=20), 0.16)
    tall = max(6, int(height * rng.uniform(0.03, 0.06)))
    for index, row in enumerate(range(0, horizon, tall) if rng.random() < 0.65 else ()):
        cv2.line(picture, (0, row), (width, row), mortar, 1)
        for x in range(-(index % 2) * tall, width, tall * 2):
            cv2.line(picture, (x, row), (x, row + tall), mortar, 1)
    if rng.random() < 0.5:  # a door
        left, w = rng.uniform(-0.1, 0.8) * width, width * rng.uniform(0.2, 0.32)
        _box(picture, left - 6, horizon * 0.1, left + w + 6, horizon, mortar)
        _box(picture, left, horizon * 0.14, left + w, horizon, _pick(rng, FABRICS))
    picture[horizon:] = _floor(rng, height - horizon, width)
    return picture


def _foliage(rng: Rng, height: int, width: int, horizon: int) -> np.ndarray:
    """Leaves far out of focus, with discs of light between them."""
    colour = _pick(rng, [*GREENS, (150, 120, 70), (60, 74, 70)])
    picture = _plain(height, width, _shade(colour, 1.1), _shade(colour, 0.6))
    _grain(picture, noise(rng, height, width, cells=7), 0.5)
    lights = picture.copy()
    for x, y, size in rng.uniform((0, 0, 0.012), (width, height * 0.8, 0.05), (rng.integers(10, 40), 3)):
        cv2.circle(lights, (int(x), int(y)), int(width * size), _pick(rng, [(236, 232, 180)], 40), -1, cv2.LINE_AA)
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


def in_front(rng: Rng, picture: np.ndarray, kind: str, *, face: Box) -> np.ndarray:
    """The picture with a `kind` of thing from `FRONTS` before it, slightly out of focus.

    The face may be crossed by thin things and touched by others, but is never hidden.
    """
    layer = picture.copy()
    FRONTS[kind](rng, layer, face)
    sigma = rng.uniform(0.5, 2.5)
    cover = cv2.GaussianBlur((layer != picture).any(axis=2).astype(np.float32), (0, 0), sigma)
    behind = picture.astype(np.float32)
    change = cv2.multiply(cv2.GaussianBlur(layer, (0, 0), sigma) - behind, cv2.merge([cover] * 3))
    return cv2.add(behind, change, dtype=cv2.CV_8U)


def _grass_in_front(rng: Rng, picture: np.ndarray, face: Box) -> None:
    height, width = picture.shape[:2]
    count = int(rng.integers(40, 160))
    tall = min(height * rng.uniform(0.15, 0.4), max(height - (face[1] + 2 * face[3]) / 3, height * 0.06))
    roots = np.column_stack([rng.uniform(-10, width + 10, count), np.full(count, height + 2.0)])
    tips = np.column_stack([rng.normal(0, tall * 0.22, count), -tall * rng.uniform(0.4, 1, count)])
    _grass(rng, picture, roots, tips, _pick(rng, GREENS), int(rng.integers(2, 4)))


def _leaves_in_front(rng: Rng, picture: np.ndarray, face: Box) -> None:
    height, width = picture.shape[:2]
    right, bottom = rng.integers(2, size=2)
    roots = np.array([width * right, height * bottom]) + rng.normal(0, width * 0.1, (rng.integers(4, 10), 2))
    _leaves(rng, picture, roots, length=width * 0.38, upwards=bool(bottom))


def _bars_in_front(rng: Rng, picture: np.ndarray, face: Box) -> None:
    height, width = picture.shape[:2]
    thick, gap, lean = width * rng.uniform(0.012, 0.035), width * rng.uniform(0.14, 0.28), rng.normal(0, width * 0.03)
    colour = _pick(rng, [*FLOORS, (60, 60, 64), (226, 222, 214)])
    for x in np.arange(rng.uniform(-gap, 0), width + gap, gap):
        for half, gain in ((thick, 0.7), (thick / 2, 1.0)):
            bar = np.array([[x - half, 0], [x + half, 0], [x + lean + half, height], [x + lean - half, height]])
            cv2.fillPoly(picture, [bar.astype(np.int32)], _shade(colour, gain), cv2.LINE_AA)


def _ledge_in_front(rng: Rng, picture: np.ndarray, face: Box) -> None:
    """A table, a box, the back of a sofa: everything under an edge below the face."""
    height, width = picture.shape[:2]
    edge = max(height * rng.uniform(0.72, 0.92), face[3] + 4)
    _box(picture, 0, edge, width, height, _pick(rng, FABRICS + FLOORS))
    _box(picture, 0, edge, width, edge + height * 0.02, _pick(rng, FLOORS))


def _cushion_in_front(rng: Rng, picture: np.ndarray, face: Box) -> None:
    height, width = picture.shape[:2]
    size = width * rng.uniform(0.25, 0.45)
    left = rng.choice([rng.uniform(-0.5, 0.0) * size, width - rng.uniform(0.5, 1.0) * size])
    top = max(height - size * rng.uniform(0.4, 0.9), (face[1] + 2 * face[3]) / 3)
    _cushion(picture, left, top, left + size, top + size, _pick(rng, FABRICS))


FRONTS: dict[str, Callable[[Rng, np.ndarray, Box], None]] = {
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
    rows, columns = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)
    light = 1 + rng.normal(0, 0.09) * rows + rng.normal(0, 0.12) * columns
    light -= rng.uniform(0, 0.22) * (rows**2 + columns**2)
    if rng.random() < 0.15:  # bands of shadow, as through blinds or branches
        slope = (rows * rng.normal(0, 1) + columns * rng.normal(0, 1)) * rng.uniform(4, 10)
        light *= 1 - 0.22 / (1 + np.exp(-6 * np.sin(slope + rng.uniform(0, 6))))
    warmth = rng.normal(0, 0.06)
    exposure = np.exp(rng.normal(0.03, 0.13)) * np.array([1 + warmth, 1, 1 - warmth])
    curve = 255 * np.linspace(0, 1, 256)[:, None] ** np.exp(rng.normal(0, 0.12)) * exposure
    image = cv2.multiply(cv2.LUT(picture, curve.astype(np.float32)[None]), cv2.merge([light] * 3))
    if rng.random() < 0.2:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 1.4))
    sensor = np.frombuffer(rng.bytes(height * width), np.uint8).reshape(height, width).astype(np.float32) - 127.5
    return cv2.add(image, cv2.merge([sensor * np.float32(rng.normal(0, 0.04))] * 3), dtype=cv2.CV_8U)
