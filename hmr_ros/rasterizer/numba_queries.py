"""The rules by which a triangle covers a point, in numba, and which triangles points see on the CPU by them.

The z-buffer (`rasterizer`) draws with the same two functions. Large batches are shared among Python threads, which the
kernels leave the lock to: numba's own threads (prange) survive neither a fork nor, in one of its layers, two callers at
once. `torch_queries` is the GPU's version.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import config, njit

NEAR = 1e-3  # metres: a perspective face with a vertex at or before this plane is left out
FAR_OUT = 1e6  # px: a face that reaches further is left out, because float64 could not tell its inside from its outside
BODIES_A_THREAD = 8  # fewer in a batch are not worth another thread
FLAT = 1e-9  # px²: a face whose projection is smaller is seen edge-on and covers nothing


@njit(cache=True, nogil=True)
def corners(vertices, face, perspective, near, out):
    """Copy a face's vertices to out (3, 3, float64); the signed doubled area, 0 where the face is left out."""
    for i in range(3):
        index = face[i]
        if index < 0 or index >= len(vertices):
            return 0.0
        for k in range(3):
            value = vertices[index, k]
            if not np.isfinite(value):
                return 0.0
            out[i, k] = value
        if abs(out[i, 0]) > FAR_OUT or abs(out[i, 1]) > FAR_OUT:
            return 0.0
        if perspective and out[i, 2] <= near:
            return 0.0
    area = (out[1, 0] - out[0, 0]) * (out[2, 1] - out[0, 1]) - (out[1, 1] - out[0, 1]) * (out[2, 0] - out[0, 0])
    return area if abs(area) > FLAT else 0.0


@njit(cache=True, nogil=True)
def weights(t, area, x, y, perspective):
    """Barycentric weights of the point (x, y) in the triangle t, and the depth there; a negative w0 means outside."""
    scale = 1.0 / area
    w0 = ((t[1, 0] - x) * (t[2, 1] - y) - (t[1, 1] - y) * (t[2, 0] - x)) * scale
    if w0 < 0.0:
        return -1.0, 0.0, 0.0, 0.0
    w1 = ((t[2, 0] - x) * (t[0, 1] - y) - (t[2, 1] - y) * (t[0, 0] - x)) * scale
    if w1 < 0.0:
        return -1.0, 0.0, 0.0, 0.0
    w2 = ((t[0, 0] - x) * (t[1, 1] - y) - (t[0, 1] - y) * (t[1, 0] - x)) * scale
    if w2 < 0.0:
        return -1.0, 0.0, 0.0, 0.0
    if not perspective:
        return w0, w1, w2, w0 * t[0, 2] + w1 * t[1, 2] + w2 * t[2, 2]
    w0, w1, w2 = w0 / t[0, 2], w1 / t[1, 2], w2 / t[2, 2]
    total = w0 + w1 + w2
    return w0 / total, w1 / total, w2 / total, 1.0 / total


@njit(cache=True, nogil=True)
def _query(points, vertices, faces, perspective, near, seen):
    """Sort the points into a grid of cells, then show every face to the points of the cells that it touches."""
    count = len(points)
    usable = np.zeros(count, np.bool_)
    x0, y0, x1, y1 = np.inf, np.inf, -np.inf, -np.inf
    for p in range(count):
        if np.isfinite(points[p, 0]) and np.isfinite(points[p, 1]):
            usable[p] = True
            x0, x1 = min(x0, points[p, 0]), max(x1, points[p, 0])
            y0, y1 = min(y0, points[p, 1]), max(y1, points[p, 1])
    if x0 > x1:
        return
    cells = max(1, min(64, int(np.sqrt(count))))
    scale_x, scale_y = cells / max(x1 - x0, 1e-6), cells / max(y1 - y0, 1e-6)
    start = np.zeros(cells * cells + 1, np.int64)
    cell_of = np.zeros(count, np.int64)
    for p in range(count):
        if usable[p]:
            column = min(cells - 1, int((points[p, 0] - x0) * scale_x))
            line = min(cells - 1, int((points[p, 1] - y0) * scale_y))
            cell_of[p] = line * cells + column
            start[cell_of[p] + 1] += 1
    for c in range(cells * cells):
        start[c + 1] += start[c]
    order = np.empty(start[-1], np.int64)
    cursor = start.copy()
    for p in range(count):
        if usable[p]:
            order[cursor[cell_of[p]]] = p
            cursor[cell_of[p]] += 1
    nearest = np.full(count, np.inf)
    t = np.empty((3, 3))
    for f in range(len(faces)):
        area = corners(vertices, faces[f], perspective, near, t)
        if area == 0.0:
            continue
        left, right = min(t[0, 0], t[1, 0], t[2, 0]), max(t[0, 0], t[1, 0], t[2, 0])
        top, bottom = min(t[0, 1], t[1, 1], t[2, 1]), max(t[0, 1], t[1, 1], t[2, 1])
        if right < x0 or left > x1 or bottom < y0 or top > y1:
            continue
        column0 = int(min(cells - 1.0, max(0.0, (left - x0) * scale_x)))
        column1 = int(min(cells - 1.0, max(0.0, (right - x0) * scale_x)))
        line0 = int(min(cells - 1.0, max(0.0, (top - y0) * scale_y)))
        line1 = int(min(cells - 1.0, max(0.0, (bottom - y0) * scale_y)))
        for line in range(line0, line1 + 1):
            for k in range(start[line * cells + column0], start[line * cells + column1 + 1]):
                p = order[k]
                x, y = np.float64(points[p, 0]), np.float64(points[p, 1])
                if x < left or x > right or y < top or y > bottom:
                    continue
                w0, _, _, z = weights(t, area, x, y, perspective)
                if w0 >= 0.0 and z < nearest[p]:
                    nearest[p] = z
                    seen[p] = f


def query(points, vertices, faces, perspective, near) -> np.ndarray:
    """points (B, P, 2), vertices (B, V, 3; both float32), faces (F, 3) int32 → (B, P) int32 face or -1."""
    seen = np.full(points.shape[:2], -1, np.int32)
    threads = max(1, min(config.NUMBA_NUM_THREADS, len(points) // BODIES_A_THREAD))
    shares = [slice(len(points) * i // threads, len(points) * (i + 1) // threads) for i in range(threads)]
    if threads == 1:
        _query_batch(points, vertices, faces, perspective, near, seen)
        return seen
    with ThreadPoolExecutor(threads) as pool:
        work = [pool.submit(_query_batch, points[s], vertices[s], faces, perspective, near, seen[s]) for s in shares]
        for done in work:
            done.result()
    return seen


@njit(cache=True, nogil=True)
def _query_batch(points, vertices, faces, perspective, near, seen):
    for b in range(len(points)):
        _query(points[b], vertices[b], faces, perspective, near, seen[b])
