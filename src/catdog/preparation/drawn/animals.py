"""Cats and dogs as chains of round limbs in three dimensions.

What tells them apart is shape alone: a cat has upright pointed ears, a short muzzle, slit pupils, whiskers and a long
thin tail; a dog a long muzzle, a big nose, hanging ears, round pupils and a short tail. Bodies and poses are the same.
"""

from itertools import pairwise

import cv2
import numpy as np

Rng = np.random.Generator
Joint = tuple[float, float, float, float]  # how far to the side, up and ahead, and the radius there
Part = tuple[int, list[Joint]]  # a skin and a chain of joints, with a twin on the other side where it leaves the middle

DOG = 1
HEAD = 0.4  # radius of the skull, the unit of heads, in shoulder heights, the unit of bodies
COAT, WHITE, EAR, INNER_EAR, NOSE, DARK, IRIS, WHISKER = range(8)  # skins: fur comes first


def sample(label: int, rng: Rng) -> tuple[np.ndarray, int]:
    """An animal in some pose, as the camera sees it: its limbs, and which of them is the head's first.

    Limbs are (n, 2 ends, 5): right, up, nearer, the radius there, and the skin.
    """
    pose, yaw = _POSES[rng.integers(len(_POSES))], rng.uniform(-80, 80)
    hip, _, neck = np.array(pose[0][1])[:, :3]
    # A tail begins at the hip and does not sink into the ground.
    tail = [(x, max(y + hip[1], radius), z + hip[2], radius) for x, y, z, radius in _TAILS[label == DOG]]
    body = _limbs([*pose, (COAT, tail)])
    body[..., 3] *= rng.uniform(0.85, 1.15)
    body[..., :3] @= _turn(0, yaw, 0).T
    head = _limbs(_dog_head(rng) if label == DOG else _cat_head(rng))
    head_yaw = np.clip(rng.normal(0, 28), max(yaw - 70, -60), min(yaw + 70, 60))
    head[..., :3] *= rng.uniform(0.93, 1.07, 3)  # no two skulls are quite alike
    head[..., :3] @= _turn(rng.normal(-2, 7), head_yaw, rng.normal(0, 9)).T
    head[..., :4] *= HEAD
    head[..., :3] += _turn(0, yaw, 0) @ neck
    limbs = np.concatenate([body, head])
    limbs[..., :3] @= _turn(rng.uniform(2, 22), 0, rng.normal(0, 4)).T
    return limbs, len(body)


def _turn(nod: float, yaw: float, tilt: float) -> np.ndarray:
    """A rotation, by degrees: `nod` brings what is up nearer, `yaw` takes what is near to the right."""
    return cv2.Rodrigues(np.radians([nod, yaw, tilt]))[0]


def _limbs(parts: list[Part]) -> np.ndarray:
    """Limbs (n, 2, 5) as `sample` has them: a single joint makes a ball."""
    limbs: list[tuple[np.ndarray, np.ndarray]] = []
    for skin, joints in parts:
        chain = np.array([(*joint, skin) for joint in (joints if len(joints) > 1 else joints * 2)], float)
        for twin in (chain, chain * (-1, 1, 1, 1, 1)) if chain[:, 0].any() else (chain,):
            limbs += list(pairwise(twin))
    return np.array(limbs)


def _cat_head(rng: Rng) -> list[Part]:
    spread, tall, slit = rng.uniform(0.74, 0.9), rng.uniform(1.3, 1.5), rng.uniform(0.035, 0.07)
    parts: list[Part] = [
        (COAT, [(0, 0.05, 0, 0.88), (0.2, 0.05, 0, 0.88)]),
        (COAT, [(0.45, -0.28, 0.25, 0.5)]),
        (COAT, [(0, 0.1, 0.5, 0.34), (0, -0.18, 0.85, 0.17)]),
        (WHITE, [(0, -0.52, 0.7, 0.2)]),
        (WHITE, [(0.16, -0.34, 0.78, 0.25)]),
        (EAR, [(0.5, 0.5, -0.05, 0.42), (spread, tall, 0, 0.03)]),
        (INNER_EAR, [(0.54, 0.72, 0.22, 0.23), (spread - 0.05, tall - 0.17, 0.1, 0.02)]),
        (DARK, [(0.29, 0.06, 0.74, 0.21), (0.48, 0.17, 0.66, 0.2)]),
        (IRIS, [(0.3, 0.07, 0.8, 0.18), (0.46, 0.15, 0.73, 0.17)]),
        (DARK, [(0.4, 0.23, 0.91, 0.02), (0.4, 0.11, 0.935, slit), (0.4, -0.01, 0.91, 0.02)]),
        (NOSE, [(0, -0.17, 0.98, 0.085), (0.06, -0.17, 0.98, 0.08)]),
        (DARK, [(0, -0.24, 1.02, 0.02), (0, -0.42, 0.98, 0.02), (0.14, -0.54, 0.93, 0.02), (0.32, -0.5, 0.82, 0.02)]),
    ]
    for row in range(4):
        x, y, z = rng.normal((1.5, 0.12 - 0.2 * row, 0.72), 0.07).tolist()
        parts.append((WHISKER, [(0.24, -0.26 - 0.06 * row, 0.94, 0.018), (x, y, z, 0.006)]))
    return parts


def _dog_head(rng: Rng) -> list[Part]:
    tip, low, fold = rng.uniform(1.2, 1.65), rng.uniform(-0.75, -0.4), rng.uniform(0.3, 0.5)
    hanging: Part = (EAR, [(0.55, 0.62, -0.1, 0.2), (0.98, 0.35, -0.02, 0.27), (1.06, low, 0.08, 0.3)])
    folded: Part = (EAR, [(0.5, 0.6, -0.1, 0.3), (0.86, 0.95, -0.05, 0.22), (1.14, fold, 0.22, 0.1)])
    return [
        (COAT, [(0, 0.08, 0, 0.82), (0.14, 0.08, 0, 0.82)]),
        (COAT, [(0.34, 0.44, 0.5, 0.26), (0.28, 0.4, 0.6, 0.2)]),
        (WHITE, [(0, -0.02, 0.4, 0.5), (0, -0.28, tip, 0.27)]),
        (WHITE, [(0, -0.45, 0.3, 0.4), (0, -0.6, tip - 0.12, 0.17)]),
        (WHITE, [(0.17, -0.44, tip - 0.08, 0.22)]),
        hanging if rng.random() < 0.7 else folded,
        (DARK, [(0.36, 0.22, 0.72, 0.19)]),
        (IRIS, [(0.36, 0.22, 0.76, 0.17)]),
        (DARK, [(0.37, 0.22, 0.85, 0.1)]),
        (NOSE, [(0, -0.14, tip + 0.2, 0.18), (0.1, -0.14, tip + 0.2, 0.18)]),
        (DARK, [(0, -0.28, tip + 0.26, 0.03), (0, -0.54, tip + 0.2, 0.03), (0.1, -0.6, tip + 0.14, 0.03)]),
        (DARK, [(0.1, -0.6, tip + 0.14, 0.03), (0.27, -0.66, tip - 0.1, 0.03), (0.45, -0.5, 0.6, 0.03)]),
    ]


# Of a cat, then of a dog; from the hip.
_TAILS: list[list[Joint]] = [
    [(0, 0, -0.2, 0.06), (0, -0.2, -0.5, 0.06), (0, -0.1, -0.8, 0.06), (0, 0.2, -1, 0.06), (0, 0.6, -0.9, 0.05)],
    [(0, 0, -0.2, 0.1), (0, 0.16, -0.42, 0.09), (0, 0.42, -0.48, 0.05)],
]
# Each begins with hip, chest and neck. The ground is at 0.
_POSES: list[list[Part]] = [
    [  # standing
        (COAT, [(0, 0.82, -0.6, 0.27), (0, 0.84, 0.42, 0.28), (0, 1.42, 0.92, 0.24)]),
        (WHITE, [(0, 0.8, 0.52, 0.27)]),
        (COAT, [(0.16, 0.72, 0.45, 0.14), (0.17, 0.4, 0.43, 0.09), (0.17, 0.09, 0.47, 0.09)]),
        (COAT, [(0.14, 0.75, -0.6, 0.2), (0.17, 0.42, -0.48, 0.12), (0.17, 0.3, -0.7, 0.09), (0.17, 0.08, -0.7, 0.09)]),
        (WHITE, [(0.17, 0.07, 0.52, 0.11)]),
        (WHITE, [(0.17, 0.07, -0.6, 0.11)]),
    ],
    [  # sitting
        (COAT, [(0, 0.34, -0.35, 0.27), (0, 0.82, 0.1, 0.28), (0, 1.42, 0.3, 0.24)]),
        (WHITE, [(0, 0.78, 0.2, 0.27)]),
        (COAT, [(0.15, 0.75, 0.2, 0.14), (0.14, 0.1, 0.26, 0.09)]),
        (COAT, [(0.24, 0.3, -0.32, 0.28), (0.3, 0.34, -0.08, 0.19)]),
        (WHITE, [(0.14, 0.07, 0.33, 0.11)]),
        (WHITE, [(0.3, 0.08, -0.2, 0.09), (0.33, 0.07, 0.16, 0.11)]),
    ],
]
