"""Cats and dogs drawn by code: the offline sample, so that the whole pipeline runs without a network.

An animal is a skeleton of tapered limbs in three dimensions, posed, turned, seen through a camera and lit, in front of
a background from `scenery`. What tells the classes apart is shape alone: a cat has upright pointed ears, a short
muzzle, slit pupils, whiskers and a long thin tail; a dog a long muzzle, a big nose, mostly hanging ears, round pupils
and a stouter tail. Coats, colours, light, places and backgrounds are drawn from the same distributions for both.
"""

import os
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from catdog import progress, scenery
from catdog.errors import UserError

CAT, DOG = 0, 1
_JPEG_QUALITY = 90
_POSES = ("standing", "sitting", "lying")
_FRAMINGS = {"head": 0.4, "bust": 0.25, "whole": 0.35}
_PATTERNS = ("plain", "striped", "patched", "two-tone")
_COATS = [(46, 42, 42), (92, 90, 94), (150, 148, 150), (232, 226, 216), (222, 190, 146), (206, 138, 76), (176, 116, 62), (112, 74, 48), (74, 54, 42)]
_EYES = [(190, 150, 50), (128, 150, 66), (112, 72, 36), (86, 60, 36), (120, 160, 180)]
_NOSES = [(54, 44, 46), (190, 120, 116), (96, 62, 54)]

# What covers a limb. The order is that of the palette in `_paint`.
SKINS = BARE, COAT, ACCENT, EAR, INNER_EAR, NOSE, TONGUE = range(7)


@dataclass(frozen=True)
class Scene:
    """The random choices behind one picture. Angles in degrees; shares are of what the name says."""

    label: int
    width: int
    height: int
    backdrop: str
    front: str | None
    focus: float  # blur of the background, share of the width
    pose: str
    framing: str
    yaw: float  # of the body; 0 faces the camera
    pitch: float  # of the camera, looking down
    roll: float
    head_yaw: float  # seen from the camera
    head_pitch: float
    head_tilt: float
    mirror: bool
    size: float  # share of the picture that the framed part fills
    place: tuple[float, float]  # share of the room left and above
    light: tuple[float, float, float]  # towards the light: right, up, to the camera
    pattern: str
    coat: tuple[float, float, float]
    second_coat: tuple[float, float, float]
    accent: bool  # light muzzle, chest and paws
    fur: float  # length of the strands, share of the head
    eyes: tuple[float, float, float]
    nose: tuple[float, float, float]
    ears: str
    muzzle: float  # length
    stout: float  # thickness of body and limbs
    mouth_open: bool


Plane = np.ndarray | float


class Limb(NamedTuple):
    """A tapered limb with round ends, from `start` to `end`: (forward, up, to its left) in units of shoulder height."""

    start: np.ndarray
    end: np.ndarray
    start_radius: float
    end_radius: float
    skin: int = COAT


def scene(label: int, rng: np.random.Generator, *, side: int) -> Scene:
    """Roll the dice for one picture."""
    aspect = rng.choice([3 / 4, 2 / 3, 1.0, 4 / 3, 3 / 2, 4 / 5, 5 / 4])
    yaw = rng.uniform(-100, 100)
    facing = float(np.clip(rng.normal(0, 32), -75, 75))
    azimuth, elevation = rng.uniform(-1.1, 1.1), rng.uniform(0.35, 1.1)
    coat, second = (np.asarray(_COATS[i]) * rng.uniform(0.85, 1.15, 3) ** 0.5 for i in rng.choice(len(_COATS), 2, replace=False))
    dog = label == DOG
    return Scene(
        label=label,
        width=round(side * max(aspect, 1)),
        height=round(side * max(1 / aspect, 1)),
        backdrop=rng.choice(list(scenery.BACKDROPS)),
        front=str(rng.choice(list(scenery.FRONTS))) if rng.random() < 0.35 else None,
        focus=rng.uniform(0.001, 0.014),
        pose=rng.choice(_POSES),
        framing=rng.choice(list(_FRAMINGS), p=list(_FRAMINGS.values())),
        yaw=yaw,
        pitch=rng.uniform(2, 24),
        roll=rng.normal(0, 4),
        head_yaw=float(np.clip(facing, yaw - 80, yaw + 80)),
        head_pitch=rng.normal(-2, 8),
        head_tilt=rng.normal(0, 8),
        mirror=bool(rng.integers(2)),
        size=rng.uniform(0.68, 0.98),
        place=(rng.uniform(0, 1), rng.uniform(0, 1)),
        light=(np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)),
        pattern=rng.choice(_PATTERNS),
        coat=tuple(coat),
        second_coat=tuple(second),
        accent=rng.random() < 0.45,
        fur=rng.uniform(0.01, 0.05),
        eyes=_EYES[rng.integers(len(_EYES))],
        nose=_NOSES[rng.integers(len(_NOSES))],
        ears=rng.choice(["hanging", "folded", "upright"], p=[0.6, 0.25, 0.15]) if dog else "pointed",
        muzzle=rng.uniform(0.55, 1.05) if dog else rng.uniform(0.0, 0.12),
        stout=rng.uniform(0.85, 1.15),
        mouth_open=rng.random() < (0.5 if dog else 0.08),
    )


# ---- the skeleton --------------------------------------------------------------------------------------------------


def _rotation(yaw: float, pitch: float, tilt: float) -> np.ndarray:
    """Turn about the vertical, then nod, then tilt to the side, of points (forward, up, left); degrees."""
    y, p, t = np.radians([yaw, pitch, tilt])
    turn = np.array([[np.cos(y), 0, -np.sin(y)], [0, 1, 0], [np.sin(y), 0, np.cos(y)]])
    nod = np.array([[np.cos(p), -np.sin(p), 0], [np.sin(p), np.cos(p), 0], [0, 0, 1]])
    lean = np.array([[1, 0, 0], [0, np.cos(t), -np.sin(t)], [0, np.sin(t), np.cos(t)]])
    return turn @ nod @ lean


def _pairs(*limbs: Limb) -> list[Limb]:
    """Each limb and its mirror image on the other side of the body."""
    flip = np.array([1, 1, -1])
    return [twin for limb in limbs for twin in (limb, limb._replace(start=limb.start * flip, end=limb.end * flip))]


def _limb(start: tuple, end: tuple, start_radius: float, end_radius: float, skin: int = COAT) -> Limb:
    return Limb(np.array(start, float), np.array(end, float), start_radius, end_radius, skin)


def _ball(centre: tuple, radius: float, skin: int = COAT) -> Limb:
    return _limb(centre, centre, radius, radius, skin)


def _cat_head(scene: Scene) -> list[Limb]:
    """In units of the skull's radius, its centre at the origin."""
    m = scene.muzzle
    return [
        _limb((0, 0.05, -0.2), (0, 0.05, 0.2), 0.88, 0.88),
        _limb((0.5, 0.1, 0), (0.82 + m, -0.18, 0), 0.34, 0.17),
        _ball((0.7 + m, -0.52, 0), 0.2, ACCENT),
        _limb((0.98 + m, -0.17, -0.06), (0.98 + m, -0.17, 0.06), 0.085, 0.085, NOSE),
        *_pairs(
            _ball((0.25, -0.28, 0.45), 0.5),
            _ball((0.76 + m, -0.34, 0.16), 0.25, ACCENT),
            _limb((-0.05, 0.5, 0.5), (0.0, 1.42, 0.82), 0.42, 0.03, EAR),
            _limb((0.22, 0.72, 0.54), (0.1, 1.24, 0.76), 0.23, 0.02, INNER_EAR),
        ),
        *([_limb((0.72 + m, -0.6, 0), (0.84 + m, -0.72, 0), 0.15, 0.1, TONGUE)] if scene.mouth_open else []),
    ]


def _dog_head(scene: Scene) -> list[Limb]:
    """In units of the skull's radius, its centre at the origin."""
    tip = 0.62 + scene.muzzle
    gape = 0.16 if scene.mouth_open else 0.0
    head = [
        _limb((0, 0.08, -0.14), (0, 0.08, 0.14), 0.82, 0.82),
        _limb((0.4, 0.0, 0), (tip, -0.2, 0), 0.5, 0.27, ACCENT),
        _limb((0.3, -0.45, 0), (tip - 0.12, -0.5 - gape, 0), 0.4, 0.17, ACCENT),
        _limb((tip + 0.2, -0.06, -0.09), (tip + 0.2, -0.06, 0.09), 0.17, 0.17, NOSE),
        *_pairs(_ball((tip - 0.08, -0.36, 0.17), 0.22, ACCENT), _limb((0.5, 0.42, 0.34), (0.6, 0.36, 0.28), 0.26, 0.2)),
    ]
    if scene.mouth_open:
        head += [
            _limb((tip - 0.2, -0.55, 0.02), (tip + 0.12, -0.72, 0.04), 0.17, 0.17, TONGUE),
            _limb((tip + 0.12, -0.72, 0.04), (tip + 0.14, -1.1, 0.06), 0.17, 0.14, TONGUE),
        ]
    return head + _pairs(*DOG_EARS[scene.ears])


DOG_EARS = {
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


def _body(scene: Scene) -> tuple[list[Limb], np.ndarray]:
    """The limbs of a posed body standing on the ground (up = 0), and where the centre of the head belongs."""
    dog = scene.label == DOG
    s = scene.stout
    chest_r, hip_r, leg, paw = (0.33 * s, 0.25 * s, 0.1 * s, 0.115 * s) if dog else (0.27 * s, 0.27 * s, 0.085 * s, 0.1 * s)
    if scene.pose == "standing":
        hip, chest, head = (-0.6, 0.82, 0), (0.42, 0.84, 0), (0.92, 1.42, 0)
        legs = [
            _limb((0.45, 0.72, 0.16), (0.43, 0.4, 0.17), leg * 1.5, leg),
            _limb((0.43, 0.4, 0.17), (0.47, 0.09, 0.17), leg, leg * 0.9),
            _ball((0.52, 0.07, 0.17), paw, ACCENT),
            _limb((-0.6, 0.75, 0.14), (-0.48, 0.42, 0.17), leg * 2.1, leg * 1.3),
            _limb((-0.48, 0.42, 0.17), (-0.72, 0.3, 0.17), leg * 1.3, leg * 0.9),
            _limb((-0.72, 0.3, 0.17), (-0.66, 0.08, 0.17), leg * 0.9, leg * 0.9),
            _ball((-0.6, 0.07, 0.17), paw, ACCENT),
        ]
    elif scene.pose == "sitting":
        hip, chest, head = (-0.35, 0.34, 0), (0.1, 0.82, 0), (0.3, 1.42, 0)
        legs = [
            _limb((0.2, 0.75, 0.15), (0.26, 0.1, 0.14), leg * 1.5, leg),
            _ball((0.33, 0.07, 0.14), paw, ACCENT),
            _limb((-0.32, 0.3, 0.24), (-0.08, 0.34, 0.3), 0.28 * s, 0.19 * s),
            _limb((-0.2, 0.08, 0.3), (0.16, 0.07, 0.33), leg, paw, ACCENT),
        ]
    else:
        hip, chest, head = (-0.62, 0.3, 0), (0.28, 0.38, 0), (0.56, 0.96, 0)
        legs = [
            _limb((0.3, 0.3, 0.2), (0.28, 0.1, 0.24), leg * 1.5, leg * 1.1),
            _limb((0.28, 0.1, 0.24), (0.8, 0.08, 0.2), leg * 1.1, leg),
            _ball((0.84, 0.08, 0.2), paw, ACCENT),
            _limb((-0.6, 0.24, 0.22), (-0.34, 0.27, 0.3), 0.25 * s, 0.18 * s),
            _limb((-0.5, 0.08, 0.34), (-0.16, 0.07, 0.38), leg, paw, ACCENT),
        ]
    limbs = _pairs(*legs)
    limbs.append(_limb(hip, chest, hip_r, chest_r))
    limbs.append(_limb(chest, head, chest_r * 0.85, 0.24 * s))
    limbs.append(_ball((chest[0] + 0.1, chest[1] - 0.04, 0), chest_r * 0.9, ACCENT))
    return limbs + _tail(scene, np.array(hip, float), hip_r), np.array(head, float)


def _tail(scene: Scene, hip: np.ndarray, hip_radius: float) -> list[Limb]:
    """A cat's is long, thin and bends twice; a dog's shorter, tapering, and carried in one curve."""
    dog = scene.label == DOG
    bends = np.radians([150, 125, 100, 80]) if dog else np.radians([200, 195, 165, 120, 85, 70, 80])
    if scene.pose != "standing":
        bends = np.radians([185, 178, 172, 160]) if dog else np.radians([190, 180, 178, 172, 165, 150, 140])
    step, radii = (0.17, np.linspace(0.1, 0.05, 5)) if dog else (0.18, np.full(8, 0.055))
    spine = [hip + [-hip_radius * 0.8, 0.1 if scene.pose == "standing" else -0.22, 0]]
    for index, bend in enumerate(bends):
        sway = 0.08 * index * (0.4 if scene.pose == "standing" else 1.0)
        spine.append(spine[-1] + step * np.array([np.cos(bend), np.sin(bend), sway]))
        spine[-1][1] = max(spine[-1][1], radii[index])
    return [Limb(a, b, ra, rb) for a, b, ra, rb in zip(spine, spine[1:], radii, radii[1:], strict=False)]


# ---- the camera ----------------------------------------------------------------------------------------------------

_DISTANCE = 6.0  # of the camera, in shoulder heights
_HEAD = {CAT: 0.4, DOG: 0.4}  # radius of the skull, in shoulder heights


class View(NamedTuple):
    """From (near, up, right) in shoulder heights to pixels."""

    tilt: np.ndarray  # rotation of the camera
    scale: float
    left: float
    top: float

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixels right, pixels down, pixels nearer, and pixels to a unit at that distance, of points (n, 3): (n, 4)."""
        near, up, right = (points @ self.tilt.T).T
        unit = self.scale * _DISTANCE / (_DISTANCE - near)
        return np.column_stack([self.left + right * unit, self.top - up * unit, near * self.scale, unit])


class Animal(NamedTuple):
    """Limbs in the world: (near, up, right), and how to get there from the head's own axes."""

    limbs: list[Limb]
    head: slice  # of `limbs`
    head_turn: np.ndarray
    head_centre: np.ndarray

    def from_head(self, points: np.ndarray) -> np.ndarray:
        return np.atleast_2d(points) @ self.head_turn.T + self.head_centre


def _animal(scene: Scene) -> Animal:
    body, neck = _body(scene)
    turn, size = _rotation(scene.yaw, 0, 0), _HEAD[scene.label]
    head = _dog_head(scene) if scene.label == DOG else _cat_head(scene)
    animal = Animal(
        limbs=[limb._replace(start=turn @ limb.start, end=turn @ limb.end) for limb in body],
        head=slice(len(body), len(body) + len(head)),
        head_turn=_rotation(scene.head_yaw, scene.head_pitch, scene.head_tilt) * size,
        head_centre=turn @ neck,
    )
    for limb in head:
        start, end = animal.from_head(limb.start)[0], animal.from_head(limb.end)[0]
        animal.limbs.append(Limb(start, end, limb.start_radius * size, limb.end_radius * size, limb.skin))
    return animal


def _frame(scene: Scene, animal: Animal) -> View:
    """Point the camera so that the framed part fills its share of the picture."""
    view = View(tilt=_rotation(0, -scene.pitch, scene.roll), scale=1.0, left=0.0, top=0.0)
    framed = animal.limbs if scene.framing == "whole" else animal.limbs[animal.head]
    left, top, right, bottom = _bounds(view, framed)
    if scene.framing == "bust":
        bottom += (bottom - top) * 0.75
    scale = scene.size * min(scene.width / (right - left), scene.height / (bottom - top))
    return view._replace(
        scale=scale,
        left=scene.place[0] * (scene.width - (right - left) * scale) - left * scale,
        top=scene.place[1] * (scene.height - (bottom - top) * scale) - top * scale,
    )


def _bounds(view: View, limbs: list[Limb]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of limbs in pixels."""
    ends = np.vstack([view.project(np.array([limb.start, limb.end])) for limb in limbs])
    reach = np.array([[limb.start_radius, limb.end_radius] for limb in limbs]).reshape(-1, 1) * ends[:, 3:]
    (left, top), (right, bottom) = (ends[:, :2] - reach).min(axis=0), (ends[:, :2] + reach).max(axis=0)
    return float(left), float(top), float(right), float(bottom)


# ---- the picture ---------------------------------------------------------------------------------------------------

_FAR = -1e4


class Relief(NamedTuple):
    """What the camera sees at each pixel, all (height, width)."""

    depth: np.ndarray  # pixels nearer; `_FAR` where there is no animal
    skin: np.ndarray
    along: np.ndarray  # the limb's own axes, in pixels, for what grows on it
    across: np.ndarray


def _sculpt(rng: np.random.Generator, scene: Scene, limbs: list[Limb], view: View) -> Relief:
    """Limb after limb, the nearest surface wins; where two meet they melt into each other."""
    height, width = scene.height, scene.width
    head_pixels = _HEAD[scene.label] * view.scale
    relief = Relief(
        depth=np.full((height, width), _FAR, np.float32),
        skin=np.zeros((height, width), np.uint8),
        along=np.zeros((height, width), np.float32),
        across=np.zeros((height, width), np.float32),
    )
    # The grid is ruffled so that every outline is frayed like fur.
    frayed = head_pixels * scene.fur * 0.45
    columns = np.arange(width, dtype=np.float32) + _strands(rng, height, width) * frayed
    rows = np.arange(height, dtype=np.float32)[:, None] + _strands(rng, height, width) * frayed
    for limb in limbs:
        _add_limb(relief, columns, rows, limb, view, melt=0.07 * head_pixels)
    return relief


def _strands(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Noise that hangs down in short strands, as float32 (height, width) of unit spread."""
    tile = cv2.GaussianBlur(rng.standard_normal((144, 144), dtype=np.float32), (0, 0), sigmaX=0.8, sigmaY=1.8)
    return np.tile(tile / tile.std(), (-(-height // 144), -(-width // 144)))[:height, :width]


def _add_limb(relief: Relief, columns: np.ndarray, rows: np.ndarray, limb: Limb, view: View, *, melt: float) -> None:
    (ax, ay, az, ak), (bx, by, bz, bk) = view.project(np.array([limb.start, limb.end])).tolist()
    ra, rb = limb.start_radius * ak, limb.end_radius * bk
    height, width = relief.depth.shape
    top, bottom = max(int(min(ay - ra, by - rb)) - 4, 0), min(int(max(ay + ra, by + rb)) + 5, height)
    left, right = max(int(min(ax - ra, bx - rb)) - 4, 0), min(int(max(ax + ra, bx + rb)) + 5, width)
    if top >= bottom or left >= right:
        return
    at = np.s_[top:bottom, left:right]
    x, y = columns[at] - ax, rows[at] - ay
    dx, dy, dz = bx - ax, by - ay, bz - az
    length2 = dx * dx + dy * dy
    thickness = 0.45 if limb.skin in (EAR, INNER_EAR) else 1.0
    depth = np.full(x.shape, _FAR, np.float32)
    if length2 > 1:
        share = np.clip((x * dx + y * dy) / length2, 0, 1)
        _dome(depth, x - share * dx, y - share * dy, az + share * dz, ra + share * (rb - ra), thickness)
    if dz * dz * 4 > length2:  # seen almost end on: the ends show as balls
        _dome(depth, x, y, az, ra, thickness)
        _dome(depth, x - dx, y - dy, bz, rb, thickness)
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


def _dome(depth: np.ndarray, x: np.ndarray, y: np.ndarray, base: Plane, radius: Plane, thickness: float) -> None:
    """Raise `depth` in place to a round surface whose axis is `x`, `y` pixels away, `base` pixels near."""
    square = radius * radius - x * x - y * y
    inside = square > 0
    np.maximum(depth, base + thickness * np.sqrt(np.where(inside, square, 0)), out=depth, where=inside)


def _paint(rng: np.random.Generator, scene: Scene, relief: Relief, view: View) -> tuple[np.ndarray, np.ndarray]:
    """The lit animal as float32 RGB, and its coverage, 0 to 1."""
    there = relief.depth > _FAR / 2
    head_pixels = _HEAD[scene.label] * view.scale
    furry = (relief.skin <= EAR).astype(np.float32)
    fine = np.float32(min(1.0, 60 / head_pixels) ** 0.5)
    tile = cv2.GaussianBlur(rng.standard_normal((192, 192), dtype=np.float32), (0, 0), 0.6) * 1.8
    across, along = relief.across * (0.8 * fine) + 999, relief.along * (0.09 * fine) + 999
    strands = cv2.remap(tile, across, along, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP) * furry

    depth = np.where(there, relief.depth, relief.depth[there].min(initial=0))
    smooth = scenery.soften(depth, max(head_pixels * 0.03, 0.7)) + strands * np.float32(head_pixels * scene.fur * 0.1)
    slope_x = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=1 / 8)
    slope_y = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=1 / 8)
    steep = 1 / np.sqrt(slope_x * slope_x + slope_y * slope_y + 1)
    right, up, near = np.float32(scene.light)
    lambert = (near - slope_x * right + slope_y * up) * steep
    hollow = (scenery.soften(depth, head_pixels * 0.18) - depth) * np.float32(2.2 / head_pixels)
    key = np.clip(lambert * 0.85 + 0.15, 0, 1) * (1 - 0.4 * np.clip(hollow, 0, 1)) * 0.66
    fill = (0.4 + 0.1 * slope_y * steep) * (1 - 0.5 * np.clip(hollow, 0, 1)) + 0.14 * (1 - steep) * (1 - steep) * furry
    shade = (key * _column((1.04, 1.0, 0.92)) + fill * _column((0.94, 0.98, 1.06))) * (1 + 0.085 * strands)

    second = _pattern(rng, scene, relief, slope_y * steep, head_pixels)
    palette = np.zeros((3, len(SKINS)), np.float32)
    palette[:, ACCENT] = (236, 230, 220)
    palette[:, INNER_EAR] = np.asarray(scene.coat) * 0.45 + np.array((214, 150, 140)) * 0.55
    palette[:, NOSE], palette[:, TONGUE] = scene.nose, (214, 110, 116)
    blend = np.float32([0, 0, 1 if scene.accent else 0.22, 0, 1, 1, 1]).take(relief.skin)
    coat = _column(scene.coat) + (_column(scene.second_coat) - _column(scene.coat)) * second
    colour = coat + (palette.take(relief.skin, axis=1) - coat) * blend
    soft = np.stack([scenery.soften(plane, max(head_pixels * 0.05, 0.7)) for plane in colour])
    colour = (colour + (soft - colour) * furry) * shade
    wet = (relief.skin == NOSE) | (relief.skin == TONGUE)
    colour[:, wet] += 110 * np.clip(lambert[wet], 0, 1) ** 10
    return cv2.merge(list(colour)), cv2.GaussianBlur(there.astype(np.float32), (0, 0), 0.7)


def _column(colour: tuple[float, float, float]) -> np.ndarray:
    """A colour to multiply a (height, width) plane by; channels come first while painting, which is faster."""
    return np.float32(colour)[:, None, None]


def _pattern(rng: np.random.Generator, scene: Scene, relief: Relief, facing_down: np.ndarray, head_pixels: float) -> np.ndarray:
    """Share of the second coat colour at each pixel."""
    height, width = relief.depth.shape
    blotches = scenery.noise(rng, height, width, cells=width / head_pixels * 1.1)
    match scene.pattern:
        case "striped":
            wave = np.sin(relief.along * np.float32(2 * np.pi / (head_pixels * 0.34)) + blotches * 2.5)
            return np.clip(wave * 1.6, 0, 1) * 0.75
        case "patched":
            return np.clip(blotches * 9, 0, 1)
        case "two-tone":
            return np.clip(-facing_down * 2 + blotches * 0.7 + 0.2, 0, 1)
        case _:
            return np.clip(0.12 + blotches * 0.2, 0, 1)


def _shadow(scene: Scene, limbs: list[Limb], view: View) -> np.ndarray:
    """How much light the ground keeps, (height, width): each limb, flattened along the light."""
    coarse = 4  # it is blurred anyway
    dark = np.zeros((scene.height // coarse + 1, scene.width // coarse + 1), np.uint8)
    right, up, near = scene.light
    for limb in limbs:
        points = np.array([limb.start, limb.end])
        fallen = points - points[:, 1:2] / up * np.array([near, up, right]) * 0.6
        fallen[:, 1] = 0
        (ax, ay, _, unit), (bx, by, _, _) = view.project(fallen) / coarse
        thick = max(int((limb.start_radius + limb.end_radius) * unit * 0.8), 1)
        cv2.line(dark, (int(ax), int(ay)), (int(bx), int(by)), 255, min(thick, 100))
    soft = cv2.GaussianBlur(dark, (0, 0), max(0.07 * view.scale / coarse, 0.5)).astype(np.float32)
    return 1 - cv2.resize(soft, (scene.width, scene.height)) * np.float32(0.55 / 255)


# ---- the face ------------------------------------------------------------------------------------------------------


def _visible(relief: Relief, spots: np.ndarray, tolerance: float) -> np.ndarray:
    """Which projected points (n, 4) lie on the surface that the camera sees."""
    height, width = relief.depth.shape
    columns = np.clip(spots[:, 0].round().astype(int), 0, width - 1)
    rows = np.clip(spots[:, 1].round().astype(int), 0, height - 1)
    surface = relief.depth[rows, columns]
    return (surface > _FAR / 2) & (spots[:, 2] > surface - tolerance)


def _fill(picture: np.ndarray, points: np.ndarray, colour: tuple) -> None:
    cv2.fillPoly(picture, [np.int32(points[:, :2] * 16)], tuple(int(c) for c in colour), cv2.LINE_AA, 4)


def _draw_eyes(picture: np.ndarray, scene: Scene, animal: Animal, relief: Relief, view: View, openness: float) -> None:
    dog = scene.label == DOG
    turn = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    for side in (-1, 1):
        centre = np.array((0.79, 0.2, 0.36 * side) if dog else (0.86, 0.08, 0.4 * side))
        outward = np.array((0.78, 0.1, 0.3 * side) if dog else (0.85, 0.05, 0.34 * side))
        outward /= np.linalg.norm(outward)
        if (animal.head_turn @ outward)[0] < 0.12 * _HEAD[scene.label]:
            continue
        across = np.cross(outward, (0, 1, 0)) * side
        across += 0.0 if dog else np.array((0, -0.28, 0))  # a cat's eyes slant
        upward = np.cross(across, outward) * side

        def oval(wide: float, tall: float, shift: np.ndarray, c=centre, a=across, u=upward) -> np.ndarray:
            ring = c + shift + np.outer(np.cos(turn) * wide, a) + np.outer(np.sin(turn) * tall, u)
            return view.project(animal.from_head(ring))

        size = 0.14 if dog else 0.2
        spot = view.project(animal.from_head(centre))
        if not _visible(relief, spot, 0.4 * _HEAD[scene.label] * view.scale)[0]:
            continue
        lit = np.array([scene.light[2], scene.light[1], scene.light[0]]) @ animal.head_turn / _HEAD[scene.label]
        iris, none = np.asarray(scene.eyes), np.zeros(3)
        _fill(picture, oval(size * 1.16, size * (1.1 if dog else 1.02), none), (30, 22, 22))
        _fill(picture, oval(size, size * 0.86, none), iris * 0.55)
        _fill(picture, oval(size * 0.94, size * 0.7, -0.12 * size * upward), iris * 0.8)
        _fill(picture, oval(size * 0.8, size * 0.5, -0.3 * size * upward), iris)
        _fill(picture, oval(size * (0.6 if dog else openness), size * (0.6 if dog else 0.84), none), (14, 12, 12))
        _fill(picture, oval(size * 0.17, size * 0.17, (lit - outward * (lit @ outward)) * size * 0.5), (245, 245, 245))


def _draw_lines(picture: np.ndarray, scene: Scene, animal: Animal, relief: Relief, view: View, rng: np.random.Generator) -> None:
    """The mouth, and a cat's whiskers."""
    size = _HEAD[scene.label] * view.scale
    m = scene.muzzle
    if scene.label == DOG:
        tip = 0.62 + m
        mouth = [[(tip + 0.24, -0.2, 0), (tip + 0.2, -0.44, 0)], [(tip + 0.12, -0.5, 0.12), (tip - 0.1, -0.58, 0.3), (0.5, -0.5, 0.48)], [(tip + 0.12, -0.5, -0.12), (tip - 0.1, -0.58, -0.3), (0.5, -0.5, -0.48)]]
    else:
        mouth = [[(1.0 + m, -0.24, 0), (0.98 + m, -0.42, 0), (0.9 + m, -0.53, s * 0.14), (0.76 + m, -0.54, s * 0.32)] for s in (-1, 1)]
    thick = max(1, round(size * 0.03))
    for line in mouth:
        spots = view.project(animal.from_head(np.array(line, float)))
        if _visible(relief, spots, 0.25 * size).all():
            cv2.polylines(picture, [np.int32(spots[:, :2] * 16)], False, (44, 32, 32), thick, cv2.LINE_AA, 4)
    if scene.label == CAT:
        bright = (238, 236, 230) if np.mean(scene.coat) < 170 else (120, 112, 104)
        along = np.linspace(0, 1, 8)[:, None]
        for side in (-1, 1):
            for row in range(4):
                root = np.array([0.9 + m, -0.28 - 0.07 * row, 0.26 * side])
                reach = np.array([-0.25 + 0.1 * rng.normal(), 0.32 - 0.2 * row + 0.06 * rng.normal(), 1.25 * side])
                whisker = root + along * reach + along**2 * np.array([-0.2, -0.22, 0])
                spots = view.project(animal.from_head(whisker))
                if _visible(relief, spots[:1], 0.3 * size)[0]:
                    cv2.polylines(picture, [np.int32(spots[:, :2] * 16)], False, bright, max(1, round(size * 0.012)), cv2.LINE_AA, 4)


def draw(label: int, seed: int, side: int = 320) -> np.ndarray:
    """One picture of a cat (label 0) or a dog (label 1): uint8 RGB, its short side `side` pixels, its shape by `seed`.

    The same label, seed and side give the same picture.
    """
    rng = np.random.default_rng([label, seed])
    choices = scene(label, rng, side=side)
    animal = _animal(choices)
    view = _frame(choices, animal)
    size = (choices.height, choices.width)
    _, _, _, feet = _bounds(view, animal.limbs)
    horizon = int(np.clip(min(feet, choices.height) * rng.uniform(0.45, 0.85), 0.25 * choices.height, 0.85 * choices.height))
    ground = scenery.backdrop(rng, choices.backdrop, height=size[0], width=size[1], horizon=horizon)
    ground = cv2.GaussianBlur(ground, (0, 0), choices.focus * choices.width)
    relief = _sculpt(rng, choices, animal.limbs, view)
    picture = scenery.dim(ground, _shadow(choices, animal.limbs, view))
    left, top, right, bottom = (max(int(edge), 0) for edge in _bounds(view, animal.limbs))
    there = np.s_[max(top - 9, 0) : bottom + 9, max(left - 9, 0) : right + 9]
    colour, cover = _paint(rng, choices, Relief(*(layer[there] for layer in relief)), view)
    behind = picture[there].astype(np.float32)
    picture[there] = cv2.add(behind, cv2.multiply(colour - behind, cv2.merge([cover] * 3)), dtype=cv2.CV_8U)
    _draw_eyes(picture, choices, animal, relief, view, openness=rng.uniform(0.16, 0.5))
    _draw_lines(picture, choices, animal, relief, view, rng)
    if choices.front:
        face = _bounds(view, animal.limbs[animal.head])
        picture = scenery.in_front(rng, picture, choices.front, face=face)
    picture = scenery.lens(rng, picture)
    return picture[:, ::-1].copy() if choices.mirror else picture


# ---- many of them --------------------------------------------------------------------------------------------------


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
    workers = min(workers or os.cpu_count() or 1, max(len(jobs), 1))
    try:
        for name in classes:
            (folder / name).mkdir(parents=True, exist_ok=True)
        if workers == 1:
            return list(progress.track(map(_write_one, jobs), total=len(jobs), what="drawing"))
        # Spawned, not forked: the caller may have threads. One OpenCV thread each: the processes fill the cores.
        with ProcessPoolExecutor(workers, get_context("spawn"), initializer=cv2.setNumThreads, initargs=(1,)) as pool:
            written = pool.map(_write_one, jobs, chunksize=8)
            return list(progress.track(written, total=len(jobs), what="drawing"))
    except OSError as error:
        raise UserError(f"cannot write drawings to {folder}: {error.strerror}; free or choose another folder") from None
    except BrokenProcessPool:
        raise UserError(f"a process that drew for {folder} was killed, perhaps for memory: run it again") from None


def _write_one(job: tuple[Path, int, int, int]) -> Path:
    path, label, seed, number = job
    picture = draw(label, seed=seed * 1_000_003 + number)
    _, jpeg = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    path.write_bytes(jpeg.tobytes())
    return path
