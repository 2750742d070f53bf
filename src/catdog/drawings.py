"""Cats and dogs drawn by code: the offline sample, so that the whole pipeline runs without a network.

An animal is a skeleton of tapered limbs in three dimensions, posed, turned, seen through a camera and lit, in front of
a background from `scenery`. What tells the classes apart is shape alone: a cat has upright pointed ears, a short
muzzle, slit pupils, whiskers and a long thin tail; a dog a long muzzle, a big nose, mostly hanging ears, round pupils
and a stouter tail. Coats, light, places and backgrounds are drawn from the same distributions for both.
"""

from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from math import cos, sin
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from catdog import parallel, progress, scenery
from catdog.errors import UserError

Rng = np.random.Generator
Colour = tuple[float, float, float]
Plane = np.ndarray | float

CAT, DOG = 0, 1
_JPEG_QUALITY = 90
_HEAD = 0.4  # radius of the skull; lengths are in shoulder heights
_DISTANCE = 6.0  # of the camera
_FAR = -1e4  # depth where there is no animal
_BEHIND = 0.6  # scale at which backgrounds are drawn: they are out of focus
_FRAMINGS = {"head": 0.42, "bust": 0.33, "whole": 0.25}
_PATTERNS = ["plain", "striped", "patched", "two-tone"]
_COATS = [(46, 42, 42), (92, 90, 94), (150, 148, 150), (232, 226, 216), (222, 190, 146), (206, 138, 76)]
_COATS += [(176, 116, 62), (112, 74, 48), (74, 54, 42)]
_EYES = [(190, 150, 50), (128, 150, 66), (112, 72, 36), (86, 60, 36), (120, 160, 180)]
_NOSES = [(54, 44, 46), (190, 120, 116), (96, 62, 54)]

# What covers a limb. The numbers index the palette in `_paint`; fur comes first.
_SKINS = COAT, ACCENT, EAR, INNER_EAR, NOSE, TONGUE = range(6)


@dataclass(frozen=True)
class Scene:
    """The random choices behind one picture. Angles in degrees."""

    label: int
    width: int
    height: int
    backdrop: str
    front: str | None
    focus: float  # blur of the background, share of the width
    framing: str
    size: float  # share of the picture that the framed part fills
    place: tuple[float, float]  # share of the free room left and above
    mirror: bool
    light: tuple[float, float, float]  # towards the light: to the camera, up, right
    pitch: float  # of the camera, looking down
    roll: float
    pose: str
    yaw: float  # of the body; 0 faces the camera
    head: tuple[float, float, float]  # yaw, pitch and tilt as the camera sees them
    stout: float  # thickness of body and limbs
    ears: str
    muzzle: float  # length
    mouth_open: bool
    pupil: float  # width of the pupil, share of the eye
    pattern: str
    coat: Colour
    second_coat: Colour
    accent: bool  # white muzzle, chest and paws
    fur: float  # length of the strands
    eyes: Colour
    nose: Colour


def scene(label: int, rng: Rng, *, side: int) -> Scene:
    """Roll the dice for one picture."""
    dog = label == DOG
    aspect = rng.choice([2 / 3, 3 / 4, 4 / 5, 1.0, 5 / 4, 4 / 3, 3 / 2])
    yaw = rng.uniform(-100, 100)
    head_yaw = np.clip(np.clip(rng.normal(0, 32), -75, 75), yaw - 80, yaw + 80)
    azimuth, elevation = rng.uniform(-1.1, 1.1), rng.uniform(0.35, 1.1)
    first, second = rng.choice(_COATS, 2, replace=False) * rng.uniform(0.92, 1.08, (2, 3))
    return Scene(
        label=label,
        width=round(side * max(aspect, 1)),
        height=round(side * max(1 / aspect, 1)),
        backdrop=str(rng.choice(list(scenery.BACKDROPS))),
        front=str(rng.choice(list(scenery.FRONTS))) if rng.random() < 0.35 else None,
        focus=rng.uniform(0.001, 0.014),
        framing=str(rng.choice(list(_FRAMINGS), p=list(_FRAMINGS.values()))),
        size=rng.uniform(0.75, 1.0),
        place=(rng.uniform(0, 1), rng.uniform(0, 1)),
        mirror=bool(rng.integers(2)),
        light=(cos(azimuth) * cos(elevation), sin(elevation), sin(azimuth) * cos(elevation)),
        pitch=rng.uniform(2, 24),
        roll=rng.normal(0, 4),
        pose=str(rng.choice(list(_POSES))),
        yaw=yaw,
        head=(float(head_yaw), rng.normal(0, 7), rng.normal(0, 8)),
        stout=rng.uniform(0.85, 1.15),
        ears=str(rng.choice(list(_DOG_EARS), p=[0.65, 0.25, 0.1])) if dog else "pointed",
        muzzle=rng.uniform(0.6, 1.1) if dog else rng.uniform(0.0, 0.12),
        mouth_open=rng.random() < (0.35 if dog else 0.08),
        pupil=0.6 if dog else rng.uniform(0.16, 0.45),
        pattern=str(rng.choice(_PATTERNS)),
        coat=tuple(first),
        second_coat=tuple(second),
        accent=rng.random() < 0.45,
        fur=rng.uniform(0.01, 0.05),
        eyes=_EYES[rng.integers(len(_EYES))],
        nose=_NOSES[rng.integers(len(_NOSES))],
    )


# ---- the skeleton --------------------------------------------------------------------------------------------------


class Limb(NamedTuple):
    """A tapered limb with round ends. Points are (forward, up, to its left), and (nearer, up, right) once turned."""

    start: np.ndarray
    end: np.ndarray
    start_radius: float
    end_radius: float
    skin: int = COAT


def _limb(start: tuple, end: tuple, start_radius: float, end_radius: float, skin: int = COAT) -> Limb:
    return Limb(np.array(start, float), np.array(end, float), start_radius, end_radius, skin)


def _ball(centre: tuple, radius: float, skin: int = COAT) -> Limb:
    return _limb(centre, centre, radius, radius, skin)


def _pairs(limbs: list[Limb]) -> list[Limb]:
    """Each limb and its mirror image on the other side of the body."""
    flip = np.array([1, 1, -1])
    return [twin for limb in limbs for twin in (limb, limb._replace(start=limb.start * flip, end=limb.end * flip))]


def _cat_head(scene: Scene) -> list[Limb]:
    """In units of the skull's radius, its centre at the origin."""
    m = scene.muzzle
    single = [
        _limb((0, 0.05, -0.2), (0, 0.05, 0.2), 0.88, 0.88),
        _limb((0.5, 0.1, 0), (0.82 + m, -0.18, 0), 0.34, 0.17),
        _ball((0.7 + m, -0.52, 0), 0.2, ACCENT),
        _limb((0.98 + m, -0.17, -0.06), (0.98 + m, -0.17, 0.06), 0.085, 0.085, NOSE),
    ]
    double = [
        _ball((0.25, -0.28, 0.45), 0.5),
        _ball((0.76 + m, -0.34, 0.16), 0.25, ACCENT),
        _limb((-0.05, 0.5, 0.5), (0.0, 1.42, 0.82), 0.42, 0.03, EAR),
        _limb((0.22, 0.72, 0.54), (0.1, 1.24, 0.76), 0.23, 0.02, INNER_EAR),
    ]
    tongue = [_limb((0.72 + m, -0.6, 0), (0.84 + m, -0.72, 0), 0.15, 0.1, TONGUE)]
    return single + _pairs(double) + tongue * scene.mouth_open


def _dog_head(scene: Scene) -> list[Limb]:
    """In units of the skull's radius, its centre at the origin."""
    tip = 0.62 + scene.muzzle
    single = [
        _limb((0, 0.08, -0.14), (0, 0.08, 0.14), 0.82, 0.82),
        _limb((0.4, -0.02, 0), (tip, -0.28, 0), 0.5, 0.27, ACCENT),
        _limb((0.3, -0.45, 0), (tip - 0.12, -0.58 - 0.16 * scene.mouth_open, 0), 0.4, 0.17, ACCENT),
        _limb((tip + 0.2, -0.14, -0.1), (tip + 0.2, -0.14, 0.1), 0.18, 0.18, NOSE),
    ]
    double = [
        _ball((tip - 0.08, -0.44, 0.17), 0.22, ACCENT),
        _limb((0.5, 0.44, 0.34), (0.6, 0.4, 0.28), 0.26, 0.2),
    ]
    tongue = [
        _limb((tip - 0.2, -0.63, 0.02), (tip + 0.12, -0.8, 0.04), 0.17, 0.17, TONGUE),
        _limb((tip + 0.12, -0.8, 0.04), (tip + 0.14, -1.1, 0.06), 0.17, 0.14, TONGUE),
    ]
    return single + _pairs(double + _DOG_EARS[scene.ears]) + tongue * scene.mouth_open


_DOG_EARS = {
    "hanging": [
        _limb((-0.1, 0.62, 0.55), (-0.02, 0.35, 0.98), 0.2, 0.27, EAR),
        _limb((-0.02, 0.35, 0.98), (0.08, -0.62, 1.08), 0.27, 0.3, EAR),
    ],
    "folded": [
        _limb((-0.1, 0.6, 0.5), (-0.05, 0.98, 0.82), 0.3, 0.2, EAR),
        _limb((-0.05, 0.98, 0.82), (0.22, 0.5, 1.12), 0.22, 0.1, EAR),
    ],
    "upright": [
        _limb((-0.15, 0.5, 0.46), (-0.1, 1.45, 0.62), 0.33, 0.06, EAR),
        _limb((0.08, 0.7, 0.48), (0.0, 1.3, 0.6), 0.19, 0.03, INNER_EAR),
    ],
}

# Hip, chest, centre of the head, and the legs of one side; the ground is at 0. Radii of legs are in leg thicknesses.
_POSES = {
    "standing": (
        (-0.6, 0.82, 0),
        (0.42, 0.84, 0),
        (0.92, 1.42, 0),
        [
            _limb((0.45, 0.72, 0.16), (0.43, 0.4, 0.17), 1.5, 1),
            _limb((0.43, 0.4, 0.17), (0.47, 0.09, 0.17), 1, 0.9),
            _ball((0.52, 0.07, 0.17), 1.15, ACCENT),
            _limb((-0.6, 0.75, 0.14), (-0.48, 0.42, 0.17), 2.1, 1.3),
            _limb((-0.48, 0.42, 0.17), (-0.72, 0.3, 0.17), 1.3, 0.9),
            _limb((-0.72, 0.3, 0.17), (-0.66, 0.08, 0.17), 0.9, 0.9),
            _ball((-0.6, 0.07, 0.17), 1.15, ACCENT),
        ],
    ),
    "sitting": (
        (-0.35, 0.34, 0),
        (0.1, 0.82, 0),
        (0.3, 1.42, 0),
        [
            _limb((0.2, 0.75, 0.15), (0.26, 0.1, 0.14), 1.5, 1),
            _ball((0.33, 0.07, 0.14), 1.15, ACCENT),
            _limb((-0.32, 0.3, 0.24), (-0.08, 0.34, 0.3), 3.0, 2.0),
            _limb((-0.2, 0.08, 0.3), (0.16, 0.07, 0.33), 1, 1.15, ACCENT),
        ],
    ),
    "lying": (
        (-0.62, 0.3, 0),
        (0.28, 0.38, 0),
        (0.56, 0.96, 0),
        [
            _limb((0.3, 0.3, 0.2), (0.28, 0.1, 0.24), 1.5, 1.1),
            _limb((0.28, 0.1, 0.24), (0.8, 0.08, 0.2), 1.1, 1),
            _ball((0.84, 0.08, 0.2), 1.15, ACCENT),
            _limb((-0.6, 0.24, 0.22), (-0.34, 0.27, 0.3), 2.7, 1.9),
            _limb((-0.5, 0.08, 0.34), (-0.16, 0.07, 0.38), 1, 1.15, ACCENT),
        ],
    ),
}


def _body(scene: Scene) -> tuple[list[Limb], np.ndarray]:
    """The limbs below the head, and where the centre of the head belongs."""
    leg, chest_radius, hip_radius = (
        np.array((0.1, 0.33, 0.25) if scene.label == DOG else (0.088, 0.27, 0.27)) * scene.stout
    )
    hip, chest, head, legs = _POSES[scene.pose]
    scaled = [limb._replace(start_radius=limb.start_radius * leg, end_radius=limb.end_radius * leg) for limb in legs]
    trunk = [
        _limb(hip, chest, hip_radius, chest_radius),
        _limb(chest, head, chest_radius * 0.85, 0.24 * scene.stout),
        _ball((chest[0] + 0.1, chest[1] - 0.04, 0), chest_radius * 0.9, ACCENT),
    ]
    return _pairs(scaled) + trunk + _tail(scene, np.array(hip), hip_radius), np.array(head)


def _tail(scene: Scene, hip: np.ndarray, hip_radius: float) -> list[Limb]:
    """A cat's is long, thin and bends twice; a dog's shorter, tapering, and carried in one curve."""
    dog, up = scene.label == DOG, scene.pose == "standing"
    bends = [150, 125, 100, 80] if dog else [200, 195, 165, 120, 85, 70, 80]
    if not up:
        bends = [185, 178, 172, 160] if dog else [190, 180, 178, 172, 165, 150, 140]
    step, radii = (0.17, np.linspace(0.1, 0.05, 5)) if dog else (0.18, np.full(8, 0.055))
    spine = [hip + np.array([-hip_radius * 0.8, 0.1 if up else -0.22, 0])]
    for index, bend in enumerate(np.radians(bends)):
        point = spine[-1] + step * np.array([np.cos(bend), np.sin(bend), (0.03 if up else 0.08) * index])
        spine.append(np.array([point[0], max(point[1], radii[index]), point[2]]))
    return [Limb(a, b, ra, rb) for a, b, ra, rb in zip(spine, spine[1:], radii, radii[1:], strict=False)]


class Animal(NamedTuple):
    """Limbs turned as the camera sees them, the head's last, and the way from the head's own axes to there."""

    body: list[Limb]
    head: list[Limb]
    turn: np.ndarray
    centre: np.ndarray

    def from_head(self, points: np.ndarray) -> np.ndarray:
        return np.atleast_2d(points) @ self.turn.T + self.centre


def _rotation(yaw: float, pitch: float, tilt: float) -> np.ndarray:
    """Tilt to the side, then nod, then turn about the vertical."""
    y, p, t = np.radians([yaw, pitch, tilt])
    turn = np.array([[np.cos(y), 0, -np.sin(y)], [0, 1, 0], [np.sin(y), 0, np.cos(y)]])
    nod = np.array([[np.cos(p), -np.sin(p), 0], [np.sin(p), np.cos(p), 0], [0, 0, 1]])
    lean = np.array([[1, 0, 0], [0, np.cos(t), -np.sin(t)], [0, np.sin(t), np.cos(t)]])
    return turn @ nod @ lean


def _animal(scene: Scene) -> Animal:
    body, neck = _body(scene)
    camera = _rotation(0, -scene.pitch, scene.roll)
    turn = camera @ _rotation(scene.yaw, 0, 0)
    turned = [limb._replace(start=turn @ limb.start, end=turn @ limb.end) for limb in body]
    animal = Animal(body=turned, head=[], turn=camera @ _rotation(*scene.head) * _HEAD, centre=turn @ neck)
    for limb in _dog_head(scene) if scene.label == DOG else _cat_head(scene):
        start, end = animal.from_head(np.array([limb.start, limb.end]))
        animal.head.append(Limb(start, end, limb.start_radius * _HEAD, limb.end_radius * _HEAD, limb.skin))
    return animal


class View(NamedTuple):
    """The camera: from (nearer, up, right) in shoulder heights to pixels."""

    scale: float = 1.0
    left: float = 0.0
    top: float = 0.0

    def project(self, points: np.ndarray) -> np.ndarray:
        """Of points (n, 3): pixels right, down and nearer, and pixels to a shoulder height there, as (n, 4)."""
        near, up, right = points.T
        unit = self.scale * _DISTANCE / (_DISTANCE - near)
        return np.column_stack([self.left + right * unit, self.top - up * unit, near * self.scale, unit])

    def bounds(self, limbs: list[Limb]) -> scenery.Box:
        ends = self.project(np.array([point for limb in limbs for point in (limb.start, limb.end)]))
        reach = np.array([radius for limb in limbs for radius in limb[2:4]])[:, None] * ends[:, 3:]
        return (*(ends[:, :2] - reach).min(axis=0).tolist(), *(ends[:, :2] + reach).max(axis=0).tolist())


def _frame(scene: Scene, animal: Animal) -> View:
    """Point the camera so that the framed part fills its share of the picture."""
    left, top, right, bottom = View().bounds(animal.head + animal.body * (scene.framing == "whole"))
    if scene.framing == "bust":
        bottom += (bottom - top) * 0.75
    scale = scene.size * min(scene.width / (right - left), scene.height / (bottom - top))
    free = scene.width - (right - left) * scale, scene.height - (bottom - top) * scale
    return View(scale, scene.place[0] * free[0] - left * scale, scene.place[1] * free[1] - top * scale)


# ---- from limbs to light -------------------------------------------------------------------------------------------


class Relief(NamedTuple):
    """What the camera sees at each pixel, all (height, width)."""

    depth: np.ndarray  # pixels nearer; `_FAR` where there is no animal
    skin: np.ndarray
    along: np.ndarray  # the limb's own axes, in pixels, for what grows on it
    across: np.ndarray


def _sculpt(rng: Rng, scene: Scene, limbs: list[Limb], view: View) -> Relief:
    """Limb after limb, the nearest surface wins; where two meet they melt into each other."""
    height, width, skull = scene.height, scene.width, _HEAD * view.scale
    depth = np.full((height, width), _FAR, np.float32)
    skin, along, across = np.zeros_like(depth, np.uint8), np.zeros_like(depth), np.zeros_like(depth)
    relief = Relief(depth, skin, along, across)
    # The grid is ruffled so that every outline is frayed like fur.
    frayed = skull * scene.fur * 0.45
    columns = np.arange(width, dtype=np.float32) + _strands(rng, height, width) * frayed
    rows = np.arange(height, dtype=np.float32)[:, None] + _strands(rng, height, width) * frayed
    for limb in limbs:
        _add_limb(relief, columns, rows, limb, view, melt=0.07 * skull)
    return relief


def _strands(rng: Rng, height: int, width: int) -> np.ndarray:
    """Noise that hangs down in short strands, as float32 (height, width) of unit spread."""
    tile = cv2.GaussianBlur(rng.standard_normal((144, 144), dtype=np.float32), (0, 0), sigmaX=0.8, sigmaY=1.8)
    return np.tile(tile / tile.std(), (-(-height // 144), -(-width // 144)))[:height, :width]


def _add_limb(relief: Relief, columns: np.ndarray, rows: np.ndarray, limb: Limb, view: View, *, melt: float) -> None:
    (ax, ay, az, start_unit), (bx, by, bz, end_unit) = view.project(np.array([limb.start, limb.end])).tolist()
    ra, rb = float(limb.start_radius * start_unit), float(limb.end_radius * end_unit)
    left, right = max(int(min(ax - ra, bx - rb)) - 4, 0), max(int(max(ax + ra, bx + rb)) + 5, 0)
    top, bottom = max(int(min(ay - ra, by - rb)) - 4, 0), max(int(max(ay + ra, by + rb)) + 5, 0)
    at = np.s_[top:bottom, left:right]
    x, y = columns[at] - ax, rows[at] - ay
    if x.size == 0:
        return
    dx, dy, dz = bx - ax, by - ay, bz - az
    length2 = dx * dx + dy * dy
    thickness = 0.45 if limb.skin in (EAR, INNER_EAR) else 1.0
    depth = np.full(x.shape, _FAR, np.float32)
    if length2 > 1:
        share = np.clip((x * dx + y * dy) / length2, 0, 1)
        _raise(depth, x - share * dx, y - share * dy, az + share * dz, ra + share * (rb - ra), thickness)
    if dz * dz * 4 > length2:  # seen almost end on: the ends show as balls
        _raise(depth, x, y, az, ra, thickness)
        _raise(depth, x - dx, y - dy, bz, rb, thickness)
    along, up = (dx / length2**0.5, dy / length2**0.5) if length2 > ra * ra else (0.0, 1.0)
    before = relief.depth[at]
    wins = depth > before
    np.copyto(relief.skin[at], limb.skin, where=wins)
    np.copyto(relief.along[at], x * along + y * up, where=wins)
    np.copyto(relief.across[at], y * along - x * up, where=wins)
    if limb.skin in (COAT, ACCENT):
        gap = depth - before
        mix = np.clip(0.5 + gap * (0.5 / melt), 0, 1)
        before += mix * (gap + melt * (1 - mix))
    else:
        np.maximum(before, depth, out=before)


def _raise(depth: np.ndarray, x: np.ndarray, y: np.ndarray, base: Plane, radius: Plane, thickness: float) -> None:
    """Raise `depth` in place to a round surface whose axis is `x`, `y` pixels away, `base` pixels near."""
    square = radius * radius - x * x - y * y
    inside = square > 0
    np.maximum(depth, base + thickness * np.sqrt(np.where(inside, square, 0)), out=depth, where=inside)


def _paint(rng: Rng, scene: Scene, relief: Relief, skull: float) -> tuple[np.ndarray, np.ndarray]:
    """The lit animal as float32 RGB, and its coverage, 0 to 1. `skull` is the head's radius in pixels."""
    there, furry = relief.depth > _FAR / 2, (relief.skin <= EAR).astype(np.float32)
    fine = min(1.0, 60 / skull) ** 0.5
    tile = cv2.GaussianBlur(rng.standard_normal((144, 144), dtype=np.float32), (0, 0), 0.6) * 1.8
    across, along = relief.across * (0.8 * fine) + 999, relief.along * (0.12 * fine) + 999
    strands = cv2.remap(tile, across, along, cv2.INTER_NEAREST, borderMode=cv2.BORDER_WRAP) * furry

    depth = np.where(there, relief.depth, relief.depth[there].min(initial=0))
    smooth = scenery.soften(depth, max(skull * 0.03, 0.7)) + strands * (skull * scene.fur * 0.1)
    slope_x = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=1 / 8)
    slope_y = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=1 / 8)
    steep = 1 / np.sqrt(slope_x * slope_x + slope_y * slope_y + 1)
    near, up, right = scene.light
    lambert = (near - slope_x * right + slope_y * up) * steep
    hollow = np.clip((scenery.soften(depth, skull * 0.18) - depth) * (2.2 / skull), 0, 1)
    key = np.clip(lambert * 0.85 + 0.15, 0, 1) * (0.66 - 0.26 * hollow)
    fill = (0.4 + 0.1 * slope_y * steep) * (1 - 0.5 * hollow) + 0.14 * (1 - steep) ** 2 * furry
    shade = (key * _column((1.04, 1.0, 0.92)) + fill * _column((0.94, 0.98, 1.06))) * (1 + 0.06 * strands)

    palette = np.zeros((3, len(_SKINS)), np.float32)
    palette[:, : EAR + 1] = np.array((236, 230, 220))[:, None]
    palette[:, INNER_EAR] = np.array(scene.coat) * 0.45 + np.array((214, 150, 140)) * 0.55
    palette[:, NOSE], palette[:, TONGUE] = scene.nose, (214, 110, 116)
    accents = scenery.soften((relief.skin == ACCENT).astype(np.float32), max(skull * 0.05, 0.7))
    own = np.where(furry > 0, accents * (1 if scene.accent else 0.22), 1)
    coat = _column(scene.coat)
    second = scenery.soften(_markings(rng, scene, relief, slope_y * steep, skull), max(skull * 0.03, 0.7))
    coat = coat + (_column(scene.second_coat) - coat) * second
    colour = (coat + (palette.take(relief.skin, axis=1) - coat) * own) * shade
    wet = relief.skin >= NOSE
    colour[:, wet] += 110 * np.clip(lambert[wet], 0, 1) ** 10
    return cv2.merge(list(colour)), cv2.GaussianBlur(there.astype(np.float32), (0, 0), 0.7)


def _column(colour: Colour) -> np.ndarray:
    """A colour to multiply a (height, width) plane by; channels come first while painting, which is faster."""
    return np.array(colour, np.float32)[:, None, None]


def _markings(rng: Rng, scene: Scene, relief: Relief, upness: np.ndarray, skull: float) -> np.ndarray:
    """Share of the second coat colour at each pixel."""
    height, width = relief.depth.shape
    blotches = scenery.noise(rng, height, width, cells=width / skull * 1.1, octaves=2)
    match scene.pattern:
        case "striped":
            return np.clip(np.sin(relief.along * (18 / skull) + blotches * 2.5) * 1.6, 0, 1) * 0.75
        case "patched":
            return np.clip(blotches * 6, 0, 1)
        case "two-tone":
            return np.clip(upness * -2 + blotches * 0.7 + 0.2, 0, 1)
        case _:
            return np.clip(0.12 + blotches * 0.2, 0, 1)


def _shadow(scene: Scene, limbs: list[Limb], view: View) -> np.ndarray:
    """How much light the ground keeps, (height, width): each limb, laid on the ground away from the light."""
    coarse = 4  # it is blurred anyway
    dark = np.zeros((scene.height // coarse + 1, scene.width // coarse + 1), np.uint8)
    camera = _rotation(0, -scene.pitch, scene.roll)
    near, up, right = scene.light
    for limb in limbs:
        points = np.array([limb.start, limb.end]) @ camera  # back to where up is up
        fallen = points - points[:, 1:2] / up * np.array([near, up, right]) * 0.6
        fallen[:, 1] = 0
        (ax, ay, _, unit), (bx, by, _, _) = (view.project(fallen @ camera.T) / coarse).tolist()
        thick = int((limb.start_radius + limb.end_radius) * unit * 0.8)
        cv2.line(dark, (int(ax), int(ay)), (int(bx), int(by)), 255, max(min(thick, 100), 1))
    soft = cv2.GaussianBlur(dark, (0, 0), max(0.07 * view.scale / coarse, 0.5)).astype(np.float32)
    return 1 - cv2.resize(soft, (scene.width, scene.height)) * np.float32(0.55 / 255)


# ---- the face ------------------------------------------------------------------------------------------------------


def _visible(relief: Relief, spots: np.ndarray, tolerance: float) -> bool:
    """Whether all projected points (n, 4) lie on the surface that the camera sees."""
    height, width = relief.depth.shape
    columns, rows = np.clip(spots[:, :2].round().astype(int), 0, (width - 1, height - 1)).T
    surface = relief.depth[rows, columns]
    return bool(((surface > _FAR / 2) & (spots[:, 2] > surface - tolerance)).all())


def _draw_eyes(picture: np.ndarray, scene: Scene, animal: Animal, relief: Relief, view: View) -> None:
    dog, turn = scene.label == DOG, np.linspace(0, 2 * np.pi, 28, endpoint=False)
    size = 0.14 if dog else 0.2
    for side in (-1, 1):
        centre = np.array((0.79, 0.22, 0.36 * side) if dog else (0.86, 0.08, 0.4 * side))
        outward = np.array((0.78, 0.1, 0.3 * side) if dog else (0.85, 0.05, 0.34 * side))
        outward /= np.linalg.norm(outward)
        across = np.cross(outward, (0, 1, 0)) * side + (0, 0 if dog else -0.28, 0)  # a cat's eyes slant
        upward = np.cross(across, outward) * side
        facing = (animal.turn @ outward)[0] / _HEAD
        spot = view.project(animal.from_head(centre))
        if facing < 0.12 or not _visible(relief, spot, 0.4 * _HEAD * view.scale):
            continue
        light = np.array(scene.light) @ animal.turn / _HEAD
        glint = (light - outward * (light @ outward)) * size * 0.5
        iris = np.array(scene.eyes)
        for wide, tall, shift, colour in (
            (1.16, 1.06, 0, (30, 22, 22)),
            (1.0, 0.86, 0, iris * 0.55),
            (0.94, 0.7, -0.12 * size * upward, iris * 0.8),
            (0.8, 0.5, -0.3 * size * upward, iris),
            (scene.pupil, 0.6 if dog else 0.84, 0, (14, 12, 12)),
            (0.17, 0.17, glint, (245, 245, 245)),
        ):
            oval = np.outer(np.cos(turn) * wide, across) + np.outer(np.sin(turn) * tall, upward)
            points = view.project(animal.from_head(centre + shift + oval * size))[:, :2]
            cv2.fillPoly(picture, [(points * 16).astype(np.int32)], tuple(map(int, colour)), cv2.LINE_AA, 4)


def _draw_lines(rng: Rng, picture: np.ndarray, scene: Scene, animal: Animal, relief: Relief, view: View) -> None:
    """The mouth, and a cat's whiskers."""
    skull, m, lines, dark = _HEAD * view.scale, scene.muzzle, [], (44, 32, 32)
    for side in (-1, 1):
        if scene.label == DOG:
            tip = 0.62 + m
            lip = (tip + 0.14, -0.6, 0.1 * side)
            lines.append(([(tip + 0.24, -0.28, 0), (tip + 0.2, -0.54, 0), lip], 1, dark, 0.03))
            cheek = [(tip - 0.1, -0.66, 0.27 * side), (0.6, -0.52, 0.45 * side), (0.46, -0.4, 0.5 * side)]
            lines.append(([lip, *cheek], 3, dark, 0.03))
            continue
        mouth = [
            (1.0 + m, -0.24, 0),
            (0.98 + m, -0.42, 0),
            (0.9 + m, -0.53, 0.14 * side),
            (0.76 + m, -0.54, 0.32 * side),
        ]
        lines.append((mouth, 4, dark, 0.03))
        bright = (238, 236, 230) if np.mean(scene.coat) < 170 else (120, 112, 104)
        for row in range(4):
            along = np.linspace(0, 1, 8)[:, None]
            reach = np.array([-0.25 + 0.1 * rng.normal(), 0.32 - 0.2 * row + 0.06 * rng.normal(), 1.25 * side])
            root = np.array([0.9 + m, -0.28 - 0.07 * row, 0.26 * side])
            lines.append((root + along * reach + along**2 * (-0.2, -0.22, 0), 1, bright, 0.012))
    for points, attached, colour, thickness in lines:
        spots = view.project(animal.from_head(np.array(points)))
        if _visible(relief, spots[:attached], 0.3 * skull):
            thick = max(1, round(skull * thickness))
            cv2.polylines(picture, [(spots[:, :2] * 16).astype(np.int32)], False, colour, thick, cv2.LINE_AA, 4)


# ---- pictures ------------------------------------------------------------------------------------------------------


def draw(label: int, seed: int, side: int = 320) -> np.ndarray:
    """One picture of a cat (label 0) or a dog (label 1): uint8 RGB, its short side `side` pixels, its shape by `seed`.

    The same label, seed and side give the same picture.
    """
    rng = np.random.default_rng([label, seed])
    choices = scene(label, rng, side=side)
    width, height = choices.width, choices.height
    animal = _animal(choices)
    view = _frame(choices, animal)
    limbs = animal.body + animal.head
    left, top, right, bottom = (max(int(edge), 0) for edge in view.bounds(limbs))
    horizon = int(np.clip(min(bottom, height) * rng.uniform(0.45, 0.85), 0.25 * height, 0.85 * height))
    shape = (int(height * _BEHIND), int(width * _BEHIND), int(horizon * _BEHIND))
    ground = scenery.BACKDROPS[choices.backdrop](rng, *shape)
    ground = cv2.GaussianBlur(ground, (0, 0), choices.focus * shape[1])
    ground = cv2.resize(ground, (width, height))
    picture = scenery.dim(ground, _shadow(choices, limbs, view))

    relief = _sculpt(rng, choices, limbs, view)
    there = np.s_[max(top - 9, 0) : bottom + 9, max(left - 9, 0) : right + 9]
    colour, cover = _paint(rng, choices, Relief(*(layer[there] for layer in relief)), _HEAD * view.scale)
    behind = picture[there].astype(np.float32)
    picture[there] = cv2.add(behind, cv2.multiply(colour - behind, cv2.merge([cover] * 3)), dtype=cv2.CV_8U)
    _draw_eyes(picture, choices, animal, relief, view)
    _draw_lines(rng, picture, choices, animal, relief, view)
    if choices.front:
        picture = scenery.in_front(rng, picture, choices.front, face=view.bounds(animal.head))
    picture = scenery.lens(rng, picture)
    return picture[:, ::-1].copy() if choices.mirror else picture


def write(folder: Path, count: int, seed: int, classes: list[str], workers: int | None = None) -> list[Path]:
    """Fill `folder/<class>/<class>-00001.jpg` and so on with `count` pictures, half of each class, on all cores.

    The bytes depend on `seed` alone, never on `workers` (default: one for each core). Where `count` is odd the first
    class has one more. Files of the same name are overwritten.

    Returns:
        The paths written, class by class, in order.

    Raises:
        UserError: the folder can't be written to, or a worker was killed.
    """
    jobs = []
    for label, name in enumerate(classes):
        for number in range(1, (count + 1 - label) // 2 + 1):
            jobs.append((folder / name / f"{name}-{number:05}.jpg", label, seed, number))
    try:
        for name in classes:
            (folder / name).mkdir(parents=True, exist_ok=True)
        written = parallel.chunked_map(_write_one, jobs, workers=workers)
        return list(progress.track(written, total=len(jobs), what="drawing"))
    except OSError as error:
        raise UserError(f"cannot write drawings to {folder}: {error.strerror}; free or choose another folder") from None
    except BrokenProcessPool:
        raise UserError(f"a process that drew for {folder} was killed, perhaps for memory: run it again") from None


def _write_one(job: tuple[Path, int, int, int]) -> Path:
    # A large block, freed at once, makes glibc keep memory from one picture to the next: a fifth of the time.
    np.empty(30 << 20, np.uint8)
    path, label, seed, number = job
    picture = draw(label, seed=seed * 1_000_003 + number)
    _, jpeg = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    path.write_bytes(jpeg.tobytes())
    return path
