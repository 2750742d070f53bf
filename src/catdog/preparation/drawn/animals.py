"""Cats and dogs as skeletons of tapered limbs in three dimensions, posed, turned and seen through a camera."""

from dataclasses import dataclass
from math import cos, sin
from typing import NamedTuple

import numpy as np

from catdog.preparation.drawn import scenery

Rng = np.random.Generator
Colour = tuple[float, float, float]
Plane = np.ndarray | float

CAT, DOG = 0, 1
HEAD = 0.4  # radius of the skull; lengths are in shoulder heights
_DISTANCE = 6.0  # of the camera
FAR = -1e4  # depth where there is no animal
BEHIND = 0.6  # scale at which backgrounds are drawn: they are out of focus
_FRAMINGS = {"head": 0.42, "bust": 0.33, "whole": 0.25}
_PATTERNS = ["plain", "striped", "patched", "two-tone"]
_COATS = [(46, 42, 42), (92, 90, 94), (150, 148, 150), (232, 226, 216), (222, 190, 146), (206, 138, 76)]
_COATS += [(176, 116, 62), (112, 74, 48), (74, 54, 42)]
_EYES = [(190, 150, 50), (128, 150, 66), (112, 72, 36), (86, 60, 36), (120, 160, 180)]
_NOSES = [(54, 44, 46), (190, 120, 116), (96, 62, 54)]

# What covers a limb. The numbers index the palette in `paint`; fur comes first.
SKINS = COAT, ACCENT, EAR, INNER_EAR, NOSE, TONGUE = range(6)


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


def rotation(yaw: float, pitch: float, tilt: float) -> np.ndarray:
    """Tilt to the side, then nod, then turn about the vertical."""
    y, p, t = np.radians([yaw, pitch, tilt])
    turn = np.array([[np.cos(y), 0, -np.sin(y)], [0, 1, 0], [np.sin(y), 0, np.cos(y)]])
    nod = np.array([[np.cos(p), -np.sin(p), 0], [np.sin(p), np.cos(p), 0], [0, 0, 1]])
    lean = np.array([[1, 0, 0], [0, np.cos(t), -np.sin(t)], [0, np.sin(t), np.cos(t)]])
    return turn @ nod @ lean


def animal(scene: Scene) -> Animal:
    body, neck = _body(scene)
    camera = rotation(0, -scene.pitch, scene.roll)
    turn = camera @ rotation(scene.yaw, 0, 0)
    turned = [limb._replace(start=turn @ limb.start, end=turn @ limb.end) for limb in body]
    animal = Animal(body=turned, head=[], turn=camera @ rotation(*scene.head) * HEAD, centre=turn @ neck)
    for limb in _dog_head(scene) if scene.label == DOG else _cat_head(scene):
        start, end = animal.from_head(np.array([limb.start, limb.end]))
        animal.head.append(Limb(start, end, limb.start_radius * HEAD, limb.end_radius * HEAD, limb.skin))
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


def frame(scene: Scene, animal: Animal) -> View:
    """Point the camera so that the framed part fills its share of the picture."""
    left, top, right, bottom = View().bounds(animal.head + animal.body * (scene.framing == "whole"))
    if scene.framing == "bust":
        bottom += (bottom - top) * 0.75
    scale = scene.size * min(scene.width / (right - left), scene.height / (bottom - top))
    free = scene.width - (right - left) * scale, scene.height - (bottom - top) * scale
    return View(scale, scene.place[0] * free[0] - left * scale, scene.place[1] * free[1] - top * scale)
