"""Dressed people painted into a picture: light that falls on a body, then materials shaded pixel by pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.random import Generator

from hmr_ros.geometry import Intrinsics, project_pinhole
from hmr_ros.rasterizer import front_faces, rasterize, vertex_normals
from hmr_ros.training.data.rendered.appearance import (
    SKIN, HAIR, TOP, BOTTOM, SHOE, SOCK, LIPS, EYE, BROW, STRIPES, UPRIGHT_STRIPES, CHECKS, BLOTCHES, CAMOUFLAGE, GRADIENT, PRINT,
    Dresser, Outfit,
)  # fmt: skip
from hmr_ros.training.data.rendered.effects import shade_floor
from hmr_ros.training.data.rendered.things import Thing


@dataclass(frozen=True)
class Light:
    """One lamp and the light from everywhere else; directions in camera axes, colours BGR about 1."""

    direction: np.ndarray  # (3,) unit, from the surface towards the lamp
    lamp: np.ndarray  # (3,)
    sky: np.ndarray  # (3,) ambient from above
    ground: np.ndarray  # (3,) ambient from below
    up: np.ndarray  # (3,) unit, against gravity


class Drawn(NamedTuple):
    """Coverage (H, W) in [0, 1] and depth (H, W) metres, inf where it is not, of each, as if it stood there alone."""

    bodies: list[tuple[np.ndarray, np.ndarray]]
    things: list[tuple[np.ndarray, np.ndarray]]  # what is held or stands about


class RenderView(NamedTuple):
    """How a scene is seen: what every renderer is told besides the people."""

    intrinsics: Intrinsics
    light: Light
    exposure: float


def random_light(rng: Generator, up: np.ndarray, tint: np.ndarray) -> Light:
    """A lamp anywhere above or beside the person; ``tint`` (3,) BGR about 1 pulls it towards the background's colour."""
    direction = rng.normal(0, 1, 3) + 0.8 * up + np.array([0, 0, -0.7])
    direction /= np.linalg.norm(direction)
    tint = tint ** rng.uniform(0.0, 0.7)
    strength = rng.uniform(0.3, 1.1)
    warm = 1 + rng.normal(0, 0.05) * np.array([-1, 0, 1])
    ambient = rng.uniform(0.4, 0.85)
    return Light(direction, strength * tint * warm, ambient * tint, ambient * rng.uniform(0.4, 0.9) * tint, up)


def even_light(light: Light) -> Light:
    """As much light from everywhere, without a lamp."""
    mean = (light.sky + light.ground) / 2 + 0.3 * light.lamp
    return Light(light.direction, np.zeros(3), mean, mean, light.up)


class PaintedRenderer:
    """The home-made renderer: one person after the other, each lit by itself. Its pictures depend on the generator only."""

    name = "painter"
    depth_tested = has_things = False

    def __init__(self, dresser: Dresser, faces: np.ndarray, without: frozenset[str] = frozenset()):
        self.dresser, self.faces, self.without = dresser, faces, without

    @staticmethod
    def identity() -> dict:
        """What its pictures depend on besides the generator: nothing that is worth a word."""
        return {}

    def draw(self, rng: Generator, canvas: np.ndarray, bodies: list[np.ndarray], view: RenderView, standing: Sequence[Thing] = ()) -> Drawn:
        """Dress the bodies (V, 3; camera frame; the farthest first) and draw them over ``canvas`` (H, W, 3) float32 BGR, in place.

        ``standing``: what stands about; only for renderers that have things.
        """
        layers = []
        for vertices in bodies:
            look = self.dresser.look(rng).without(self.without)
            if rng.random() < 0.6:
                strength = rng.uniform(0.2, 0.6)
                if "shadow" not in self.without:
                    shade_floor(canvas, vertices, view.light.up, view.intrinsics, strength)
            dressed = vertices + vertex_normals(vertices, self.faces) * look.offsets[:, None]
            pixels = np.column_stack([project_pinhole(dressed, view.intrinsics), dressed[:, 2]]).astype(np.float32)
            layers.append(paint(canvas, pixels, dressed, self.faces, self.dresser, look, view.light, view.exposure, rng))
        return Drawn(layers, [])


def light_vertices(vertices: np.ndarray, light: Light, rng: Generator) -> np.ndarray:
    """What reaches each vertex (V, 2) in [0, 1]: of the lamp, and of the ambient light (5 random directions)."""
    lamp = _sees(vertices, light.direction)
    ambient = np.zeros(len(vertices), np.float32)
    for _ in range(5):
        direction = rng.normal(0, 1, 3) + 0.7 * light.up
        ambient += _sees(vertices, direction / np.linalg.norm(direction)) / 5
    return np.stack([lamp, 0.35 + 0.65 * ambient], axis=1).astype(np.float32)


def _sees(vertices: np.ndarray, towards: np.ndarray, size: int = 48, bias: float = 0.04) -> np.ndarray:
    """Coarse shadow map: (V,) 1 where a parallel ray from the vertex ``towards`` a direction leaves the body, softened.

    Vertices themselves are splatted: they lie closer together than the cells (about 4 cm) are wide.
    """
    helper = np.array([1.0, 0, 0]) if abs(towards[0]) < 0.9 else np.array([0, 1.0, 0])
    right = _cross(helper, towards)
    right /= np.linalg.norm(right)
    seen = vertices @ np.stack([right, _cross(towards, right), -towards], axis=1).astype(np.float32)
    low, high = bounds(seen)
    cells = ((seen[:, :2] - low[:2]) * ((size - 1) / max(float((high - low)[:2].max()), 1e-6))).astype(np.int32)
    behind = seen[:, 2] - _splat(cells, np.ascontiguousarray(seen[:, 2]), size)
    return np.clip(1.5 - behind / (2 * bias), 0, 1)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """np.cross for two vectors, ten times faster."""
    return np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


@njit(cache=True, nogil=True)
def _splat(cells, depths, size):
    """The smallest depth in each point's cell: cells (V, 2), depths (V,) → (V,)."""
    nearest = np.full((size, size), np.inf, np.float32)
    for v in range(len(depths)):
        x, y = cells[v, 0], cells[v, 1]
        nearest[y, x] = min(nearest[y, x], depths[v])
    result = np.empty_like(depths)
    for v in range(len(depths)):
        result[v] = nearest[cells[v, 1], cells[v, 0]]
    return result


def bounds(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest coordinate of (V, D) points; faster than min(0) on tall arrays."""
    columns = np.ascontiguousarray(points.T)
    return columns.min(1), columns.max(1)


def paint(
    canvas: np.ndarray,
    pixels: np.ndarray,
    vertices: np.ndarray,
    faces: np.ndarray,
    dresser: Dresser,
    look: Outfit,
    light: Light,
    exposure: float,
    rng: Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a dressed person over ``canvas`` (H, W, 3) float32 BGR, in place, with 2 x 2 samples a pixel.

    ``pixels`` (V, 3) x, y px and z m; ``vertices`` (V, 3) the same points in camera axes. Returns coverage (H, W) in
    [0, 1] and depth (H, W) metres of the nearest sample, inf where the person is not.
    """
    height, width = canvas.shape[:2]
    coverage = np.zeros((height, width), np.float32)
    depth = np.full((height, width), np.inf, np.float32)
    low, high = bounds(pixels[:, :2])
    low = np.maximum(np.floor(low).astype(int) - 1, 0)
    high = np.minimum(np.ceil(high).astype(int) + 2, (width, height))
    if (high <= low).any():
        return coverage, depth
    samples = pixels.copy()
    samples[:, :2] = (samples[:, :2] - low) * 2 + 0.5
    normals = vertex_normals(vertices, faces)
    faces = front_faces(samples, faces)
    raster = rasterize(samples, faces, (2 * (high[1] - low[1]), 2 * (high[0] - low[0])), perspective=True)
    window = slice(low[1], high[1]), slice(low[0], high[0])
    towards_viewer = -vertices.mean(0) / np.linalg.norm(vertices.mean(0))
    half = towards_viewer + light.direction
    _shade(
        raster.face,
        raster.depth,
        raster.barycentric,
        faces,
        normals,
        dresser.rest,
        dresser.hair,
        dresser.head,
        look.fields,
        light_vertices(vertices, light, rng),
        look.colours,
        look.patterns,
        look.frequencies,
        look.gloss,
        look.cuts,
        dresser.eyes,
        dresser.joints[12].astype(np.float64),
        np.stack([light.direction, light.up, half / np.linalg.norm(half), light.lamp, light.sky, light.ground]),
        exposure,
        canvas[window],
        coverage[window],
        depth[window],
    )
    return coverage, depth


@njit(cache=True, nogil=True)
def _material(p, hair, head, cuts, eyes, neck):
    """Which material a point of the rest pose is made of."""
    side = abs(p[0])
    sleeve, waist, hem, shoe, sock, neckline, long_hair, sleeveless = cuts
    if hair > 0.5:
        return HAIR
    if p[1] > long_hair and side < 0.1 and p[2] < neck[2] + 0.01:
        return HAIR
    if head > 0.5:
        eye = eyes[0] if p[0] > 0 else eyes[1]
        if p[2] > eye[2] - 0.03:
            dx, dy = p[0] - eye[0], p[1] - eye[1]
            if (dx / 0.016) ** 2 + (dy / 0.007) ** 2 < 1.0:
                return EYE
            if abs(dx) < 0.022 and abs(dy - 0.02) < 0.0045:
                return BROW
            if side < 0.024 and abs(dy + 0.073) < 0.008:
                return LIPS
        return SKIN
    if p[1] > waist:
        if side > sleeve or (sleeve <= sleeveless and side > sleeveless - 0.03):
            return SKIN
        dx, dy, dz = p[0] - neck[0], p[1] - neck[1], p[2] - neck[2] - 0.03
        if dx * dx + dy * dy + dz * dz < neckline * neckline:
            return SKIN
        return TOP
    if p[1] < shoe:
        return SHOE
    if p[1] > hem:
        return BOTTOM
    return SOCK if p[1] < sock else SKIN


@njit(cache=True, nogil=True)
def _pattern_share(pattern, p, frequency, broad, fine):
    """How much of the second colour a point shows, in [0, 1]."""
    along = abs(p[0]) if abs(p[0]) > 0.22 else p[1]
    if pattern == STRIPES:
        return 1.0 if np.sin(2 * np.pi * frequency * along) > 0.2 else 0.0
    if pattern == UPRIGHT_STRIPES:
        return 1.0 if np.sin(2 * np.pi * frequency * (p[0] + p[2])) > 0.5 else 0.0
    if pattern == CHECKS:
        a = np.sin(np.pi * frequency * p[1]) > 0
        b = np.sin(np.pi * frequency * (p[0] + p[2])) > 0
        return 0.5 * a + 0.5 * b
    if pattern == BLOTCHES:
        return min(1.0, max(0.0, 0.5 + 0.5 * fine))
    if pattern == CAMOUFLAGE:
        return 1.0 if broad > 0.1 else (0.5 if fine > 0.3 else 0.0)
    if pattern == GRADIENT:
        return min(1.0, max(0.0, 0.5 + 1.5 * (p[1] - 0.1)))
    if pattern == PRINT and p[2] > 0 and abs(p[0]) < 0.11:
        u, v = p[0] / 0.11, np.sin(frequency * p[1])
        return 1.0 if abs(np.sin(7.0 * u + 3.0 * v)) > 0.4 and abs(v) < 0.8 else 0.0
    return 0.0


@njit(cache=True, nogil=True)
def _shade(
    face,
    sample_depth,
    barycentric,
    faces,
    normals,
    rest,
    hair,
    head,
    fields,
    reached,
    colours,
    patterns,
    frequencies,
    gloss,
    cuts,
    eyes,
    neck,
    light,
    exposure,
    canvas,
    coverage,
    depth,
):
    height, width = coverage.shape
    n, p, rgb = np.empty(3), np.empty(3), np.empty(3)
    for y in range(height):
        for x in range(width):
            hits = 0
            for sub in range(4):
                if face[2 * y + sub // 2, 2 * x + sub % 2] >= 0:
                    hits += 1
                    depth[y, x] = min(depth[y, x], sample_depth[2 * y + sub // 2, 2 * x + sub % 2])
            if hits == 0:
                continue
            rgb[:] = 0.0
            shaded = 0
            for sub in range(0, 4, 3 if hits == 4 else 1):  # inside, two samples on the diagonal are enough
                line, column = 2 * y + sub // 2, 2 * x + sub % 2
                f = face[line, column]
                if f < 0:
                    continue
                shaded += 1
                n[:] = 0.0
                p[:] = 0.0
                is_hair, is_head, broad, fine, lamp, ambient = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
                for i in range(3):
                    v, w = faces[f, i], barycentric[line, column, i]
                    for k in range(3):
                        n[k] += w * normals[v, k]
                        p[k] += w * rest[v, k]
                    is_hair += w * hair[v]
                    is_head += w * max(head[v], hair[v])
                    broad += w * fields[v, 0]
                    fine += w * fields[v, 1]
                    lamp += w * reached[v, 0]
                    ambient += w * reached[v, 1]
                length = np.sqrt(n[0] ** 2 + n[1] ** 2 + n[2] ** 2) + 1e-9
                lit, level, shine = 0.0, 0.0, 0.0
                for k in range(3):
                    lit += n[k] / length * light[0, k]
                    level += n[k] / length * light[1, k]
                    shine += n[k] / length * light[2, k]
                material = _material(p, is_hair, is_head, cuts, eyes, neck)
                share = _pattern_share(patterns[material], p, frequencies[material], broad, fine)
                lit = max(0.0, 0.85 * lit + 0.15) * lamp
                highlight = gloss[material] * max(0.0, shine) ** 20 * lamp
                for k in range(3):
                    albedo = (1 - share) * colours[material, 0, k] + share * colours[material, 1, k]
                    sky = ambient * (0.5 * (1 + level) * light[4, k] + 0.5 * (1 - level) * light[5, k])
                    rgb[k] += exposure * (albedo * (lit * light[3, k] + sky) + 255.0 * highlight * light[3, k])
            alpha = hits / 4.0
            coverage[y, x] = alpha
            for k in range(3):
                canvas[y, x, k] = canvas[y, x, k] * (1.0 - alpha) + min(255.0, rgb[k] / shaded) * alpha
