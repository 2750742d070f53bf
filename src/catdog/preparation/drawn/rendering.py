"""From limbs to light: the animals of `animals` as fur, shadow and faces."""

from typing import NamedTuple

import cv2
import numpy as np

from catdog.preparation.drawn import scenery
from catdog.preparation.drawn.animals import (
    ACCENT,
    COAT,
    DOG,
    EAR,
    FAR,
    HEAD,
    INNER_EAR,
    NOSE,
    SKINS,
    TONGUE,
    Animal,
    Colour,
    Limb,
    Plane,
    Rng,
    Scene,
    View,
    rotation,
)


class Relief(NamedTuple):
    """What the camera sees at each pixel, all (height, width)."""

    depth: np.ndarray  # pixels nearer; `FAR` where there is no animal
    skin: np.ndarray
    along: np.ndarray  # the limb's own axes, in pixels, for what grows on it
    across: np.ndarray


def sculpt(rng: Rng, scene: Scene, limbs: list[Limb], view: View) -> Relief:
    """Limb after limb, the nearest surface wins; where two meet they melt into each other."""
    height, width, skull = scene.height, scene.width, HEAD * view.scale
    depth = np.full((height, width), FAR, np.float32)
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
    depth = np.full(x.shape, FAR, np.float32)
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


def paint(rng: Rng, scene: Scene, relief: Relief, skull: float) -> tuple[np.ndarray, np.ndarray]:
    """The lit animal as float32 RGB, and its coverage, 0 to 1. `skull` is the head's radius in pixels."""
    there, furry = relief.depth > FAR / 2, (relief.skin <= EAR).astype(np.float32)
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

    palette = np.zeros((3, len(SKINS)), np.float32)
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


def shadow(scene: Scene, limbs: list[Limb], view: View) -> np.ndarray:
    """How much light the ground keeps, (height, width): each limb, laid on the ground away from the light."""
    coarse = 4  # it is blurred anyway
    dark = np.zeros((scene.height // coarse + 1, scene.width // coarse + 1), np.uint8)
    camera = rotation(0, -scene.pitch, scene.roll)
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


def _visible(relief: Relief, spots: np.ndarray, tolerance: float) -> bool:
    """Whether all projected points (n, 4) lie on the surface that the camera sees."""
    height, width = relief.depth.shape
    columns, rows = np.clip(spots[:, :2].round().astype(int), 0, (width - 1, height - 1)).T
    surface = relief.depth[rows, columns]
    return bool(((surface > FAR / 2) & (spots[:, 2] > surface - tolerance)).all())


def draw_eyes(picture: np.ndarray, scene: Scene, animal: Animal, relief: Relief, view: View) -> None:
    dog, turn = scene.label == DOG, np.linspace(0, 2 * np.pi, 28, endpoint=False)
    size = 0.14 if dog else 0.2
    for side in (-1, 1):
        centre = np.array((0.79, 0.22, 0.36 * side) if dog else (0.86, 0.08, 0.4 * side))
        outward = np.array((0.78, 0.1, 0.3 * side) if dog else (0.85, 0.05, 0.34 * side))
        outward /= np.linalg.norm(outward)
        across = np.cross(outward, (0, 1, 0)) * side + (0, 0 if dog else -0.28, 0)  # a cat's eyes slant
        upward = np.cross(across, outward) * side
        facing = (animal.turn @ outward)[0] / HEAD
        spot = view.project(animal.from_head(centre))
        if facing < 0.12 or not _visible(relief, spot, 0.4 * HEAD * view.scale):
            continue
        light = np.array(scene.light) @ animal.turn / HEAD
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


def draw_lines(rng: Rng, picture: np.ndarray, scene: Scene, animal: Animal, relief: Relief, view: View) -> None:
    """The mouth, and a cat's whiskers."""
    skull, m, lines, dark = HEAD * view.scale, scene.muzzle, [], (44, 32, 32)
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
