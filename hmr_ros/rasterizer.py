"""Which triangle does a pixel see, and how far away is it: a z-buffer for the CPU, and its differentiable counterpart.

``rasterize`` fills whole pictures for drawing and for synthetic data. ``visible_face`` answers the same question for a
few points, without gradient; ``depth_at`` then recomputes the depth of such a point in torch by intersecting its ray
with the plane of the face, so that losses reach the vertices. Gradients are interior only: silhouettes do not move.

Vertices are (x, y in pixels, z in metres, larger is farther); pixel centres are integers, as in OpenCV. Whoever projects
decides about the camera: ``perspective=True`` interpolates 1/z (x and y came from a division by z), ``False`` z itself.
Both windings are drawn, and a pixel on an edge belongs to the nearer face, at equal depth to the one listed first.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

NEAR = 1e-3  # metres: a perspective face with a vertex at or before this plane is left out
FAR_OUT = 1e6  # px: a face that reaches further is left out, because float64 could not tell its inside from its outside
FLAT = 1e-9  # px²: a face whose projection is smaller is seen edge-on and covers nothing


class Raster(NamedTuple):
    """What every pixel sees; arrays (H, W) and (H, W, 3)."""

    face: np.ndarray  # int32, -1 = none
    depth: np.ndarray  # float32 metres, 0 where none
    barycentric: np.ndarray  # float32, weights of the face's vertices (perspective-correct), 0 where none


def rasterize(
    vertices: np.ndarray, faces: np.ndarray, size: tuple[int, int], perspective: bool = False, near: float = NEAR
) -> Raster:
    """Z-buffer of (V, 3) vertices and (F, 3) faces in a picture of ``size`` (H, W).

    Left out are faces with a non-finite vertex, one more than a million pixels away, an index outside the vertices, and
    (perspective) a vertex at z <= ``near``. Everything else may lie anywhere, also outside the picture.
    """
    height, width = (int(v) for v in size)
    face = np.full((height, width), -1, np.int32)
    depth = np.zeros((height, width), np.float32)
    barycentric = np.zeros((height, width, 3), np.float32)
    _fill(*_as_mesh(vertices, faces), perspective, near, face, depth, barycentric)
    return Raster(face, depth, barycentric)


def visible_face(points, vertices, faces, perspective: bool = False, near: float = NEAR):
    """The face that each point sees: (P, 2) px, (V, 3), (F, 3) → (P,) int32, -1 where there is none.

    Also batched: (B, P, 2) and (B, V, 3) → (B, P). Takes numpy or torch and answers in kind; no gradient. Same rules as
    :func:`rasterize`; the cost grows with faces plus points, not with the picture.
    """
    is_torch = not isinstance(points, np.ndarray) and hasattr(points, "detach")
    points_np, vertices_np, faces_np = (_to_numpy(v) for v in (points, vertices, faces))
    if points_np.ndim not in (2, 3) or points_np.ndim != vertices_np.ndim:
        raise ValueError(
            f"points {points_np.shape} and vertices {vertices_np.shape} must be (P, 2) with (V, 3) or both batched"
        )
    single = points_np.ndim == 2
    if single:
        points_np, vertices_np = points_np[None], vertices_np[None]
    if len(points_np) != len(vertices_np):
        raise ValueError(f"{len(points_np)} sets of points do not match {len(vertices_np)} sets of vertices")
    seen = np.full(points_np.shape[:2], -1, np.int32)
    for row, row_points, row_vertices in zip(seen, points_np, vertices_np, strict=True):
        _query(np.ascontiguousarray(row_points, np.float32), *_as_mesh(row_vertices, faces_np), perspective, near, row)
    seen = seen[0] if single else seen
    if is_torch:
        import torch

        return torch.from_numpy(seen).to(points.device)
    return seen


def depth_at(points, face_index, vertices, faces, perspective: bool = False):
    """Depth where the rays of points meet the planes of given faces; torch, differentiable in vertices and points.

    points (P, 2) px, face_index (P,) from :func:`visible_face`, vertices (V, 3), faces (F, 3) → (P,) metres; also
    batched with a leading B. Points that see nothing (face_index < 0) get 0 and no gradient.
    """
    import torch

    faces = torch.as_tensor(np.asarray(faces) if isinstance(faces, np.ndarray) else faces, device=vertices.device)
    face_index = torch.as_tensor(face_index, device=vertices.device)
    seen = face_index >= 0
    corners = faces.long()[face_index.clamp(min=0).long()]  # (..., P, 3) vertex indices
    flat = corners.flatten(-2)
    triangle = torch.gather(vertices, -2, flat.unsqueeze(-1).expand(*flat.shape, 3)).unflatten(-2, (-1, 3))
    a, b, c = (triangle[..., i, :2] - points for i in range(3))  # (..., P, 2)
    weights = torch.stack([_cross(b, c), _cross(c, a), _cross(a, b)], dim=-1)
    area = weights.sum(-1, keepdim=True)
    usable = seen & (area[..., 0].abs() > FLAT)
    weights = weights / torch.where(usable[..., None], area, torch.ones_like(area))
    z = triangle[..., 2]
    if perspective:
        z = torch.where(usable[..., None], z, torch.ones_like(z))
        depth = 1.0 / torch.where(usable, (weights / z).sum(-1), torch.ones_like(z[..., 0]))
    else:
        depth = (weights * z).sum(-1)
    return torch.where(usable, depth, torch.zeros_like(depth))


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals (V, 3) as the area-weighted mean of the faces around; outward for counter-clockwise faces."""
    normals = np.zeros((len(vertices), 3), np.float32)
    _accumulate_normals(*_as_mesh(vertices, faces), normals)
    return normals


def front_faces(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Those of the faces (F, 3) that turn their outer side to the viewer, for vertices (V, 3: x, y px, y downwards).

    Of a closed body with counter-clockwise faces no other face can be seen; leaving them out halves the work.
    """
    xy = np.ascontiguousarray(vertices[:, :2])
    a, b, c = xy[faces[:, 0]], xy[faces[:, 1]], xy[faces[:, 2]]
    return faces[_cross(b - a, c - a) < 0]


def _cross(p, q):
    return p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0]


def _to_numpy(array) -> np.ndarray:
    return array.detach().cpu().numpy() if hasattr(array, "detach") else np.asarray(array)


def _as_mesh(vertices, faces) -> tuple[np.ndarray, np.ndarray]:
    vertices, faces = np.ascontiguousarray(vertices, np.float32), np.ascontiguousarray(faces, np.int32)
    if vertices.ndim != 2 or vertices.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3:
        raise ValueError(f"a mesh is vertices (V, 3) and faces (F, 3), not {vertices.shape} and {faces.shape}")
    return vertices, faces


@njit(cache=True, nogil=True)
def _corners(vertices, face, perspective, near, out):
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
def _weights(t, area, x, y, perspective):
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
def _fill(vertices, faces, perspective, near, face, depth, barycentric):
    height, width = face.shape
    t = np.empty((3, 3))
    for f in range(len(faces)):
        area = _corners(vertices, faces[f], perspective, near, t)
        if area == 0.0:
            continue
        left = max(0.0, np.ceil(min(t[0, 0], t[1, 0], t[2, 0])))
        right = min(width - 1.0, np.floor(max(t[0, 0], t[1, 0], t[2, 0])))
        top = max(0.0, np.ceil(min(t[0, 1], t[1, 1], t[2, 1])))
        bottom = min(height - 1.0, np.floor(max(t[0, 1], t[1, 1], t[2, 1])))
        if left > right or top > bottom:
            continue
        for y in range(int(top), int(bottom) + 1):
            for x in range(int(left), int(right) + 1):
                w0, w1, w2, z = _weights(t, area, x, y, perspective)
                if w0 >= 0.0 and (face[y, x] < 0 or z < depth[y, x]):
                    face[y, x] = f
                    depth[y, x] = z
                    barycentric[y, x, 0] = w0
                    barycentric[y, x, 1] = w1
                    barycentric[y, x, 2] = w2


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
        area = _corners(vertices, faces[f], perspective, near, t)
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
                w0, _, _, z = _weights(t, area, x, y, perspective)
                if w0 >= 0.0 and z < nearest[p]:
                    nearest[p] = z
                    seen[p] = f


@njit(cache=True, nogil=True)
def _accumulate_normals(vertices, faces, normals):
    for f in range(len(faces)):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ux, uy, uz = (
            vertices[b, 0] - vertices[a, 0],
            vertices[b, 1] - vertices[a, 1],
            vertices[b, 2] - vertices[a, 2],
        )
        vx, vy, vz = (
            vertices[c, 0] - vertices[a, 0],
            vertices[c, 1] - vertices[a, 1],
            vertices[c, 2] - vertices[a, 2],
        )
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for i in (a, b, c):
            normals[i, 0] += nx
            normals[i, 1] += ny
            normals[i, 2] += nz
    for i in range(len(normals)):
        length = np.sqrt(normals[i, 0] ** 2 + normals[i, 1] ** 2 + normals[i, 2] ** 2)
        if length > 0.0:
            for k in range(3):
                normals[i, k] /= length
