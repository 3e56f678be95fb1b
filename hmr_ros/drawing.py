"""Pictures for people: meshes over the image, the same bodies seen from the side, and 2D skeletons.

Everything takes and gives uint8 BGR. Bodies are drawn where the image's own camera sees them, lens distortion included; without
intrinsics through their weak-perspective camera. Metric depth only decides who hides whom.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numba import njit

from hmr_ros.estimate import BodyEstimate
from hmr_ros.palette import LEFT, MIDDLE, RIGHT, bgr, person_colour, person_number
from hmr_ros.rasterizer import Backend, front_faces, rasterize, vertex_normals
from hmr_ros.skeleton import COCO_BONES, COCO_KEYPOINTS, COCO_TORSO

BACKDROP, GROUND = (246, 244, 242), (196, 192, 188)
OPACITY = 0.8


def draw_overlay(
    image: np.ndarray, bodies: Sequence[BodyEstimate], faces: np.ndarray, opacity: float = OPACITY, rasterizer: Backend = "auto"
) -> np.ndarray:
    """Draw meshes over the people they were estimated from: (H, W, 3) BGR → a new picture of the same size.

    Between people the nearer one is in front (by ``translation``, else by the size in the image). ``faces`` (F, 3) are
    the body model's, the same for all.
    """
    meshes = [
        (np.column_stack([b.pixels(b.vertices), b.vertices[:, 2] + z]), b.vertices)
        for b, z in zip(bodies, _distances(bodies, image.shape[1]), strict=True)
    ]
    return _draw_meshes(image.copy(), meshes, faces, opacity, rasterizer, _numbers(bodies))


def compile_kernels() -> None:
    """Let numba compile what drawing needs, or read it from its cache: seconds that the first picture then does not take."""
    triangle = np.array([[1, 1, 1], [1, 6, 1], [6, 1, 1]], np.float32)
    _draw_meshes(np.zeros((8, 8, 3), np.uint8), [(triangle, triangle)], np.array([[0, 1, 2]]), OPACITY)


def draw_side_view(
    bodies: Sequence[BodyEstimate], faces: np.ndarray, size: tuple[int, int], rasterizer: Backend = "auto"
) -> np.ndarray:
    """The same bodies turned by 90° about the vertical, each at its place and scale in a picture of ``size`` (H, W).

    The viewer stands where the right border of the image is: who faces the camera looks to the left here.
    """
    canvas = np.full((*size, 3), BACKDROP, np.uint8)
    meshes = []
    for body, distance in zip(bodies, _distances(bodies, size[1]), strict=True):
        middle = (body.vertices.min(0) + body.vertices.max(0)) / 2
        x, y, z = (body.vertices - middle).T
        turned = np.stack([z, y, -x], axis=1)
        pixels = body.pixels(middle[None]) + 0.5 * body.weak_camera[0] * body.crop[2] * turned[:, :2]  # px a metre
        meshes.append((np.column_stack([pixels, turned[:, 2] + distance]), turned))
    for pixels, _ in meshes:
        _draw_ground(canvas, pixels)
    return _draw_meshes(canvas, meshes, faces, 1.0, rasterizer, _numbers(bodies))


def side_by_side(image: np.ndarray, bodies: Sequence[BodyEstimate], faces: np.ndarray) -> np.ndarray:
    """Overlay and side view beside each other: (H, W, 3) → (H, 2 W, 3)."""
    return np.hstack([draw_overlay(image, bodies, faces), draw_side_view(bodies, faces, image.shape[:2])])


def draw_grid(vertices: np.ndarray, faces: np.ndarray, tile: int = 220) -> np.ndarray:
    """Bodies (N, V, 3) in camera axes, metres, side by side in a nearly square sheet; all at the same scale, 2.2 m a tile."""
    columns = int(np.ceil(np.sqrt(len(vertices))))
    rows = -(-len(vertices) // columns)
    canvas = np.full((rows * tile, columns * tile, 3), BACKDROP, np.uint8)
    for i, body in enumerate(vertices):
        y, x = tile * (i // columns), tile * (i % columns)
        middle = (body.min(0) + body.max(0)) / 2
        pixels = (body - middle) * np.array([tile / 2.2, tile / 2.2, 1]) + np.array([tile / 2, tile / 2, 0])
        _draw_meshes(canvas[y : y + tile, x : x + tile], [(pixels, body)], faces, 1.0)
    return canvas


def draw_keypoints(image: np.ndarray, keypoints: np.ndarray, min_confidence: float = 0.2, thickness: int = 0) -> np.ndarray:
    """Draw COCO-17 skeletons: (17, 3) or (N, 17, 3) x, y px, confidence → a new picture. Left is blue, right orange.

    ``thickness`` of the bones in pixels; 0: a four-hundredth of the image.
    """
    canvas = image.copy()
    thickness = thickness or max(1, round(max(image.shape[:2]) / 400))
    for person in np.asarray(keypoints, np.float32).reshape(-1, len(COCO_KEYPOINTS), 3):
        shown = (person[:, 2] >= min_confidence) & np.isfinite(person).all(1)
        places = [tuple(int(v) for v in np.clip(xy * 16, -(2**26), 2**26)) for xy in np.nan_to_num(person[:, :2])]
        for a, b in (*COCO_TORSO, *COCO_BONES):
            if shown[a] and shown[b]:
                colour = _side_colour(COCO_KEYPOINTS[a], COCO_KEYPOINTS[b])
                cv2.line(canvas, places[a], places[b], colour, thickness, cv2.LINE_AA, 4)
        for k in np.flatnonzero(shown):
            colour = _side_colour(COCO_KEYPOINTS[k], COCO_KEYPOINTS[k])
            cv2.circle(canvas, places[k], (thickness + 1) * 16, colour, -1, cv2.LINE_AA, 4)
    return canvas


def _side_colour(first: str, second: str) -> tuple[int, int, int]:
    sides = {first.partition("_")[0], second.partition("_")[0]}
    return bgr(LEFT if sides == {"left"} else RIGHT if sides == {"right"} else MIDDLE)


def _numbers(bodies: Sequence[BodyEstimate]) -> list[int]:
    return [person_number(body.id, i) for i, body in enumerate(bodies)]


def _distances(bodies: Sequence[BodyEstimate], width: int) -> list[float]:
    """Distance of each body in metres: measured for all, or guessed for all with a focal length of the image's width.

    The two are never mixed, because only distances of one kind can be compared.
    """
    if all(body.translation is not None for body in bodies):
        return [float(body.translation[2]) for body in bodies]
    return [2.0 * width / max(float(body.weak_camera[0] * body.crop[2]), 1e-6) for body in bodies]


def _draw_meshes(
    canvas: np.ndarray, meshes: Sequence[tuple[np.ndarray, np.ndarray]], faces: np.ndarray, opacity: float,
    rasterizer: Backend = "auto", numbers: Sequence[int] | None = None,
) -> np.ndarray:  # fmt: skip
    """Draw (pixels (V, 3), vertices (V, 3) in viewing axes) pairs with 2 x 2 samples a pixel, in place; ``numbers`` choose their colours."""
    if not meshes:
        return canvas
    faces = np.ascontiguousarray(faces, np.int32)
    pixels = np.concatenate([p for p, _ in meshes]).astype(np.float32)
    finite = pixels[np.isfinite(pixels).all(1)]
    if not len(finite):
        return canvas
    height, width = canvas.shape[:2]
    columns = np.ascontiguousarray(finite[:, :2].T)
    x0, y0 = (int(v) for v in np.clip(np.floor(columns.min(1)) - 1, 0, (width, height)))
    x1, y1 = (int(v) for v in np.clip(np.ceil(columns.max(1)) + 2, 0, (width, height)))
    if x1 <= x0 or y1 <= y0:
        return canvas
    pixels[:, :2] = (pixels[:, :2] - (x0, y0)) * 2 + 0.5
    numbers = range(len(meshes)) if numbers is None else numbers
    colours = np.concatenate([_lit(v, faces, bgr(person_colour(i))) for i, (_, v) in zip(numbers, meshes, strict=True)])
    starts = np.cumsum([0, *(len(v) for _, v in meshes[:-1])])
    all_faces = np.concatenate([faces + int(start) for start in starts])
    all_faces = front_faces(pixels, all_faces)
    raster = rasterize(pixels, all_faces, (2 * (y1 - y0), 2 * (x1 - x0)), backend=rasterizer)
    _blend(raster.face, raster.barycentric, all_faces, colours, opacity, canvas[y0:y1, x0:x1])
    return canvas


def _lit(vertices: np.ndarray, faces: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Colours (V, 3) float32 under a soft headlight with a little light from above left and a faint bright rim."""
    normals = vertex_normals(vertices, faces)
    headlight = np.clip(-normals[:, 2], 0, 1)
    above = np.clip(normals @ np.array([-0.4, -0.8, -0.45], np.float32), 0, 1)
    rim = (1 - headlight) ** 3
    brightness = 0.42 + 0.5 * headlight + 0.22 * above
    return (brightness[:, None] * np.array(colour, np.float32) + 26 * (above**8 + 0.4 * rim)[:, None]).astype(np.float32)


def _draw_ground(canvas: np.ndarray, pixels: np.ndarray) -> None:
    """A soft shadow and a line where a body stands, in place."""
    if not np.isfinite(pixels).all():
        return
    (left, _), (right, bottom) = pixels[:, :2].min(0), pixels[:, :2].max(0)
    middle, half = (left + right) / 2, 0.5 * max(right - left, 0.35 * (bottom - pixels[:, 1].min()))
    if not (0 <= bottom < canvas.shape[0] + 0.1 * half and half < 4 * canvas.shape[1]):
        return
    centre = (int(middle), int(bottom))
    cv2.ellipse(canvas, centre, (int(0.9 * half), max(1, int(0.12 * half))), 0, 0, 360, (226, 223, 220), -1, cv2.LINE_AA)
    ends = (int(middle - 1.5 * half), int(bottom)), (int(middle + 1.5 * half), int(bottom))
    cv2.line(canvas, *ends, GROUND, max(1, round(canvas.shape[0] / 400)), cv2.LINE_AA)


@njit(cache=True, nogil=True)
def _blend(face, barycentric, faces, colours, opacity, canvas):
    """Average the four samples of each pixel and mix them into the picture, by coverage times opacity."""
    height, width = canvas.shape[:2]
    total = np.empty(3)
    for y in range(height):
        for x in range(width):
            hits = 0
            total[:] = 0.0
            for sub in range(4):
                line, column = 2 * y + sub // 2, 2 * x + sub % 2
                f = face[line, column]
                if f < 0:
                    continue
                hits += 1
                for i in range(3):
                    for k in range(3):
                        total[k] += barycentric[line, column, i] * colours[faces[f, i], k]
            if hits > 0:
                alpha = opacity * hits / 4.0
                for k in range(3):
                    value = (1.0 - alpha) * canvas[y, x, k] + alpha * min(255.0, total[k] / hits)
                    canvas[y, x, k] = np.uint8(value + 0.5)
