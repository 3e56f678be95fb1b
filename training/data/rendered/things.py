"""Things that people hold or stand behind: bags, boxes, phones, bottles, backpacks; tables, chairs, counters, cartons, pillars.

Made of boxes, cylinders and cushions, drawn by the renderer gl (gl.py) with the people's light and shadows. They hide what is behind them, and
belong to nobody's silhouette. Camera axes, metres; local shapes have y up.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from hmr_ros.geometry import Intrinsics, project_pinhole
from hmr_ros.training.data.rendered.appearance import BOTTOM, PLAIN, PRINT, SHOE, STRIPES, Dresser, Outfit, garment_colour
from hmr_ros.training.data.rendered.garments import Mesh

HELD = 0.4  # share of people who hold or carry something
LARGEST_COVER = 0.6  # of a person's box that something standing before it may cover
LOWEST_CAMERA = 0.25  # metres above the floor: below, nothing is put before somebody
CLEAR = 0.35  # metres between a person and what stands before them

# Of what furniture is made: BGR, and how much it shines.
_WOODS = np.array([(70, 105, 150), (45, 70, 105), (110, 150, 190), (235, 235, 235), (50, 50, 52), (150, 150, 150), (95, 140, 180)], np.float32)


class Thing(NamedTuple):
    """One object, drawn with a look of its own."""

    mesh: Mesh
    look: Outfit
    stands: bool  # on the floor, where it casts a contact shadow


class Shape(NamedTuple):
    """Triangles in local axes: (G, 3) metres, (F, 3)."""

    vertices: np.ndarray
    faces: np.ndarray

    def at(self, *place: float) -> Shape:
        return Shape(self.vertices + np.array(place), self.faces)


def box(width: float, height: float, depth: float) -> Shape:
    """Around the origin, with sharp edges: every side has corners of its own."""
    corners, faces = [], []
    for axis in range(3):
        for sign in (-1, 1):
            side = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)][:: sign * (-1) ** axis], float)  # counter-clockwise from outside
            faces += [[len(corners) + i for i in triangle] for triangle in ((0, 1, 2), (0, 2, 3))]
            corners += np.insert(side, axis, sign, axis=1).tolist()
    return Shape(np.array(corners) * np.array([width, height, depth]) / 2, np.array(faces))


def cylinder(radius: float, height: float, sides: int = 20) -> Shape:
    """Around the y axis, centred."""
    angles = 2 * np.pi * np.arange(sides) / sides
    ring = np.stack([radius * np.cos(angles), np.zeros(sides), radius * np.sin(angles)], 1)
    low, high = ring - [0, height / 2, 0], ring + [0, height / 2, 0]
    i, j = np.arange(sides), (np.arange(sides) + 1) % sides
    wall = np.concatenate([np.stack([i, i + sides, j], 1), np.stack([j, i + sides, j + sides], 1)])
    fan = np.stack([np.zeros(sides - 2, int), np.arange(1, sides - 1), np.arange(2, sides)], 1)
    return joined([Shape(np.concatenate([low, high]), wall), Shape(low, fan), Shape(high, fan[:, ::-1])])


def cushion(width: float, height: float, depth: float, sharpness: float, steps: int = 14) -> Shape:
    """A superellipsoid: 1 is round, towards 0 a box with rounded edges."""
    azimuth, elevation = np.meshgrid(2 * np.pi * np.arange(2 * steps) / (2 * steps), np.pi * (np.arange(steps + 1) / steps - 0.5))
    bend = lambda value: np.sign(value) * np.abs(value) ** sharpness  # noqa: E731
    points = np.stack([bend(np.cos(elevation)) * bend(np.cos(azimuth)), bend(np.sin(elevation)), bend(np.cos(elevation)) * bend(np.sin(azimuth))], -1)
    row, column = np.meshgrid(np.arange(steps), np.arange(2 * steps), indexing="ij")
    here, beside = row * 2 * steps + column, row * 2 * steps + (column + 1) % (2 * steps)
    above, across = here + 2 * steps, beside + 2 * steps
    faces = np.concatenate([np.stack([here, above, beside], -1).reshape(-1, 3), np.stack([beside, above, across], -1).reshape(-1, 3)])
    return Shape(points.reshape(-1, 3) * np.array([width, height, depth]) / 2, faces)


def joined(shapes: list[Shape]) -> Shape:
    offsets = np.cumsum([0, *(len(shape.vertices) for shape in shapes)])
    faces = [shape.faces + offset for shape, offset in zip(shapes, offsets)]
    return Shape(np.concatenate([shape.vertices for shape in shapes]), np.concatenate(faces))


# ---- in hands and on backs -----------------------------------------------------------------------------------------------


class Hands:
    """Where the hands and the back of a posed body are, and what they hold."""

    def __init__(self, dresser: Dresser):
        rest, joints = dresser.rest, dresser.joints
        wrist, knuckle = joints[20], joints[22]
        hand = np.flatnonzero(rest[:, 0] > wrist[0] + 0.02)
        other = np.flatnonzero(rest[:, 0] < -wrist[0] - 0.02)
        chest = np.flatnonzero((np.abs(rest[:, 0]) < 0.14) & (rest[:, 1] > joints[6, 1]) & (rest[:, 1] < joints[12, 1] - 0.05))
        self._rest, self._parts = rest, {1: hand, -1: other, 0: chest}
        # Palms are down in the rest pose: things lie below them, where the fingers begin.
        self._grips = {sign: np.array([sign * knuckle[0], knuckle[1] - 0.035, knuckle[2]]) for sign in (1, -1)}
        self._back = np.array([0.0, rest[chest, 1].mean(), rest[chest, 2].min()])

    def hold(self, rng: Generator, vertices: np.ndarray, up: np.ndarray) -> list[Thing]:
        """What a body (V, 3; camera axes) carries: mostly nothing. ``up`` (3,) is against gravity."""
        if rng.random() > HELD:
            return []
        kind = rng.choice(["bag", "phone", "bottle", "box", "backpack"], p=[0.3, 0.2, 0.15, 0.2, 0.15])
        sign = int(rng.choice([-1, 1]))
        if kind == "backpack":
            return [self._backpack(rng, vertices)]
        if kind == "box" and (thing := self._box(rng, vertices, up)) is not None:
            return [thing]
        if kind == "bag" and (thing := self._bag(rng, vertices, sign, up)) is not None:
            return [thing]
        return [self._small(rng, vertices, sign, "bottle" if kind == "bottle" else "phone")]

    def _motion(self, vertices: np.ndarray, part: int) -> tuple[np.ndarray, np.ndarray]:
        """Rotation (3, 3) and shift of a part of the body from the rest pose (Kabsch)."""
        chosen = self._parts[part]
        before, after = self._rest[chosen], vertices[chosen]
        u, _, v = np.linalg.svd((after - after.mean(0)).T @ (before - before.mean(0)))
        rotation = u @ np.diag([1, 1, np.sign(np.linalg.det(u @ v))]) @ v
        return rotation, after.mean(0) - rotation @ before.mean(0)

    def _grip(self, vertices: np.ndarray, sign: int) -> tuple[np.ndarray, np.ndarray]:
        rotation, shift = self._motion(vertices, sign)
        return rotation, rotation @ self._grips[sign] + shift

    def _small(self, rng: Generator, vertices: np.ndarray, sign: int, kind: str) -> Thing:
        rotation, grip = self._grip(vertices, sign)
        if kind == "phone":
            shape = box(rng.uniform(0.065, 0.08), 0.009, rng.uniform(0.13, 0.165))
            return _thing(shape, rotation, grip, SHOE, (rng.uniform(15, 60) * np.ones(3), garment_colour(rng))[int(rng.random() < 0.3)], rng)
        shape = cylinder(rng.uniform(0.025, 0.04), rng.uniform(0.1, 0.26))
        upright = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # its axis runs across the palm
        return _thing(shape, rotation @ upright, grip, SHOE, garment_colour(rng), rng)

    def _bag(self, rng: Generator, vertices: np.ndarray, sign: int, up: np.ndarray) -> Thing | None:
        rotation, grip = self._grip(vertices, sign)
        handle, height, width = rng.uniform(0.08, 0.3), rng.uniform(0.22, 0.42), rng.uniform(0.2, 0.42)
        if grip @ up - (vertices @ up).min() < handle + height + 0.03:
            return None
        along = rotation[:, 2] - (rotation[:, 2] @ up) * up  # the thumb points to where the arm's owner looks
        if np.linalg.norm(along) < 0.2:
            return None
        along /= np.linalg.norm(along)
        depth, sharpness = rng.uniform(0.06, 0.16), rng.uniform(0.15, 0.6)
        strap = [box(0.012, handle, 0.012).at(side * 0.28 * width, -handle / 2, 0) for side in (-1, 1)]
        top = box(0.56 * width, 0.014, 0.014)
        shape = joined([cushion(width, height, depth, sharpness).at(0, -handle - height / 2, 0), *strap, top])
        return _thing(shape, np.stack([along, up, np.cross(along, up)], 1), grip, BOTTOM if rng.random() < 0.6 else SHOE, garment_colour(rng), rng)

    def _box(self, rng: Generator, vertices: np.ndarray, up: np.ndarray) -> Thing | None:
        """Between both hands, where they are before the belly and level."""
        left, right = self._grip(vertices, 1)[1], self._grip(vertices, -1)[1]
        apart, chest = left - right, vertices[self._parts[0]].mean(0)
        width = float(np.linalg.norm(apart))
        ahead = (left + right) / 2 - chest
        ahead -= (ahead @ up) * up
        reach = float(np.linalg.norm(ahead))
        if not 0.15 < width < 0.7 or abs(apart @ up) > 0.4 * width or reach < 0.2:
            return None
        side = apart - (apart @ up) * up
        side /= np.linalg.norm(side)
        depth = min(rng.uniform(0.15, 0.45), 2 * (reach - 0.12))
        axes = np.stack([side, up, np.cross(side, up)], 1)
        colour = np.array([115, 160, 195]) * rng.uniform(0.6, 1.15) if rng.random() < 0.6 else garment_colour(rng)
        return _thing(box(max(width - 0.05, 0.1), rng.uniform(0.1, 0.4), depth), axes, (left + right) / 2, SHOE, colour, rng, dull=True)

    def _backpack(self, rng: Generator, vertices: np.ndarray) -> Thing:
        rotation, shift = self._motion(vertices, 0)
        width, height, depth = rng.uniform(0.26, 0.34), rng.uniform(0.38, 0.52), rng.uniform(0.12, 0.24)
        place = self._back + [0, -0.02, -depth / 2 + 0.01]
        shape = joined([cushion(width, height, depth, 0.45), cushion(0.7 * width, 0.45 * height, 0.4 * depth, 0.4).at(0, -0.18 * height, -0.45 * depth)])
        return _thing(shape, rotation, rotation @ place + shift, BOTTOM, garment_colour(rng), rng)


# ---- standing before somebody -------------------------------------------------------------------------------------------


def stand_before(rng: Generator, vertices: np.ndarray, up: np.ndarray, intrinsics: Intrinsics) -> Thing | None:
    """Something on the floor between the camera and a body (V, 3; camera axes), a little aside; None where there is no room."""
    floor = float((vertices @ up).min())
    there = vertices.mean(0) - (vertices.mean(0) @ up) * up
    distance = float(np.linalg.norm(there))
    if -floor < LOWEST_CAMERA or distance < 0.8:
        return None
    ahead = there / distance
    aside = np.cross(ahead, up)
    body = _box_of(vertices, intrinsics)
    for _ in range(6):
        shape, colour, material = _furniture(rng)
        reach = float(np.hypot(*np.ptp(shape.vertices[:, [0, 2]], axis=0))) / 2
        nearest, farthest = 0.25 + reach, distance - CLEAR - reach
        if farthest < nearest:
            continue
        turn = rng.normal(0, 0.5)
        right = np.cos(turn) * aside + np.sin(turn) * ahead
        place = rng.uniform(max(nearest, 0.4 * distance), farthest) * ahead + rng.normal(0, 0.4) * aside + floor * up if farthest > 0.4 * distance else None
        if place is None:
            continue
        thing = _thing(shape, np.stack([right, up, np.cross(right, up)], 1), place, material, colour, rng, stands=True, dull=True)
        if thing.mesh.vertices[:, 2].min() < 0.15:
            continue
        covered = np.minimum(body[2:], (own := _box_of(thing.mesh.vertices, intrinsics))[2:]) - np.maximum(body[:2], own[:2])
        if (covered > 0).all() and 0.03 < covered.prod() / (body[2:] - body[:2]).prod() < LARGEST_COVER:
            return thing
    return None


def _box_of(vertices: np.ndarray, intrinsics: Intrinsics) -> np.ndarray:
    pixels = project_pinhole(vertices[vertices[:, 2] > 0.05], intrinsics)
    return np.concatenate([pixels.min(0), pixels.max(0)])


def _furniture(rng: Generator) -> tuple[Shape, np.ndarray, int]:
    """A shape that stands at the origin, its colour (3,) BGR and material."""
    colour = _WOODS[rng.integers(len(_WOODS))] * rng.uniform(0.6, 1.15) if rng.random() < 0.7 else garment_colour(rng)
    kind = rng.choice(["table", "chair", "counter", "carton", "pillar", "sofa"], p=[0.25, 0.2, 0.15, 0.2, 0.1, 0.1])
    if kind == "table":
        width, depth, height, leg = rng.uniform(0.5, 1.4), rng.uniform(0.4, 0.8), rng.uniform(0.42, 0.78), rng.uniform(0.03, 0.07)
        legs = [box(leg, height, leg).at(x * (width - leg) / 2, height / 2, z * (depth - leg) / 2) for x in (-1, 1) for z in (-1, 1)]
        things = [box(width, 0.03, depth).at(0, height, 0), *legs]
        for _ in range(rng.integers(0, 4)):  # what lies on it
            size = rng.uniform((0.06, 0.05, 0.06), (0.35, 0.3, 0.3))
            things.append(box(*size).at(rng.uniform(-0.4, 0.4) * width, height + 0.015 + size[1] / 2, rng.uniform(-0.3, 0.3) * depth))
        return joined(things), colour, SHOE
    if kind == "chair":
        width, seat, back, leg = rng.uniform(0.38, 0.5), rng.uniform(0.42, 0.5), rng.uniform(0.75, 1.0), 0.035
        legs = [box(leg, seat, leg).at(x * (width - leg) / 2, seat / 2, z * (width - leg) / 2) for x in (-1, 1) for z in (-1, 1)]
        rest = box(width, 0.6 * (back - seat), 0.03).at(0, back - 0.3 * (back - seat), rng.choice([-1, 1]) * width / 2)
        posts = [box(leg, back - seat, leg).at(x * (width - leg) / 2, (back + seat) / 2, rest.vertices[:, 2].mean()) for x in (-1, 1)]
        return joined([box(width, 0.05, width).at(0, seat, 0), *legs, rest, *posts]), colour, SHOE
    if kind == "counter":
        width, depth, height = rng.uniform(0.6, 1.8), rng.uniform(0.3, 0.6), rng.uniform(0.6, 1.1)
        return joined([box(width, height, depth).at(0, height / 2, 0), box(width + 0.06, 0.04, depth + 0.06).at(0, height, 0)]), colour, SHOE
    if kind == "pillar":
        height = 3.0 if rng.random() < 0.7 else rng.uniform(0.9, 1.4)
        return cylinder(rng.uniform(0.03, 0.16), height).at(0, height / 2, 0), colour, SHOE
    if kind == "sofa":
        width, depth, seat = rng.uniform(0.7, 1.6), rng.uniform(0.6, 0.8), rng.uniform(0.38, 0.46)
        back = cushion(width, rng.uniform(0.6, 0.85), 0.22, 0.3)
        return joined([cushion(width, seat, depth, 0.25).at(0, seat / 2, 0), back.at(0, seat, rng.choice([-1, 1]) * (depth / 2 - 0.1))]), garment_colour(rng), BOTTOM
    stack, height = [], 0.0
    for _ in range(rng.integers(1, 4)):
        size = rng.uniform((0.3, 0.2, 0.25), (0.7, 0.5, 0.6))
        stack.append(box(*size).at(rng.normal(0, 0.04), height + size[1] / 2, rng.normal(0, 0.04)))
        height += size[1]
    return joined(stack), np.array([115, 160, 195]) * rng.uniform(0.6, 1.15), SHOE


def _thing(
    shape: Shape, axes: np.ndarray, place: np.ndarray, material: int, colour: np.ndarray, rng: Generator, stands: bool = False, dull: bool = False
) -> Thing:  # fmt: skip
    """``axes`` (3, 3): local axes as columns; ``place`` (3,) of the local origin; ``dull``: shines little."""
    count = len(shape.vertices)
    vertices = (shape.vertices @ axes.T + place).astype(np.float32)
    surface = np.zeros((count, 4), np.float32)
    surface[:, 2:] = rng.normal(0, 0.3, 2)
    mesh = Mesh(vertices, shape.faces.astype(np.int32), shape.vertices.astype(np.float32), surface, np.full(count, material, np.float32))
    colours, patterns, gloss = np.zeros((9, 2, 3), np.float32), np.full(9, PLAIN), np.zeros(9)
    colours[material] = colour, garment_colour(rng)
    patterns[material] = rng.choice([PLAIN, PRINT, STRIPES], p=[0.75, 0.15, 0.1])
    gloss[material] = rng.uniform(0.0, 0.08 if dull else 0.3)
    look = Outfit(colours, patterns, rng.uniform(6, 40, 9), gloss, np.zeros(8), np.zeros(0, np.float32), np.zeros((0, 2), np.float32))
    return Thing(mesh, look, stands)
