"""Which triangle does a pixel see, and how far away is it: a z-buffer for drawing, and point queries for losses.

``rasterize`` fills whole pictures for drawing and for synthetic data. ``visible_face`` answers the same question for a
few points, without gradient; ``depth_at`` then recomputes the depth of such a point in torch by intersecting its ray
with the plane of the face, so that losses reach the vertices. Gradients are interior only: silhouettes do not move.
The rules live in `numba_queries` and `torch_queries` (GPU, pytorch3d); this is what the others import.

Vertices are (x, y in pixels, z in metres, larger is farther); pixel centres are integers, as in OpenCV. Whoever projects
decides about the camera: ``perspective=True`` interpolates 1/z (x and y came from a division by z), ``False`` z itself.
Both windings are drawn, and a pixel on an edge belongs to the nearer face, at equal depth to the one listed first.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np
from numba import njit

from hmr_ros.rasterizer.numba_queries import FLAT, NEAR, corners, query, weights

Backend = Literal["auto", "numba", "torch", "pytorch3d"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)


class Raster(NamedTuple):
    """What every pixel sees; arrays (H, W) and (H, W, 3)."""

    face: np.ndarray  # int32, -1 = none
    depth: np.ndarray  # float32 metres, 0 where none
    barycentric: np.ndarray  # float32, weights of the face's vertices (perspective-correct), 0 where none


def require(backend: Backend) -> None:
    """Nothing where the backend can be used; else ImportError (one line: what is missing, how to get it), ValueError for another name.

    For commands that reach the first rasterisation late: they ask before they begin.
    """
    if backend not in BACKENDS:
        raise ValueError(f"rasterizer {backend!r} is unknown; expected one of {', '.join(BACKENDS)}")
    if backend == "pytorch3d":
        from hmr_ros.rasterizer.torch_queries import pytorch3d

        pytorch3d()


def rasterize(
    vertices: np.ndarray, faces: np.ndarray, size: tuple[int, int], perspective: bool = False, near: float = NEAR,
    backend: Backend = "auto",
) -> Raster:  # fmt: skip
    """Z-buffer of (V, 3) vertices and (F, 3) faces in a picture of ``size`` (H, W).

    Left out are faces with a non-finite vertex, one more than a million pixels away, an index outside the vertices, and
    (perspective) a vertex at z <= ``near``. Everything else may lie anywhere, also outside the picture.

    "auto" is numba, which fills faces. The other backends answer :func:`visible_face` for the centre of every pixel.
    """
    height, width = (int(v) for v in size)
    if backend not in ("auto", "numba"):
        return _rasterize_by_points(*_as_mesh(vertices, faces), (height, width), perspective, near, backend)
    face = np.full((height, width), -1, np.int32)
    depth = np.zeros((height, width), np.float32)
    barycentric = np.zeros((height, width, 3), np.float32)
    _fill(*_as_mesh(vertices, faces), perspective, near, face, depth, barycentric)
    return Raster(face, depth, barycentric)


def visible_face(points, vertices, faces, perspective: bool = False, near: float = NEAR, backend: Backend = "auto"):
    """The face that each point sees: (P, 2) px, (V, 3), (F, 3) → (P,) int32, -1 where there is none.

    Also batched: (B, P, 2) and (B, V, 3) → (B, P). Takes numpy or torch and answers in kind, on the device of `points`;
    no gradient. Same rules as :func:`rasterize`, computed in float64 from float32 coordinates.

    Backends: "numba" (CPU; CUDA tensors travel there and back), "torch" (on the tensors' device), "pytorch3d" (its
    rasteriser, likewise; rounds points to a grid and leaves the lines between faces uncovered, see
    `torch_queries.query_pytorch3d`). "auto" is numba on the CPU and torch on CUDA, which give the same answer; pytorch3d
    must be asked for, so that results do not depend on what else is installed.

    Raises ValueError for shapes and backends it does not know, ImportError where pytorch3d is asked for and missing.
    """
    require(backend)
    shapes = tuple(np.shape(points)), tuple(np.shape(vertices)), tuple(np.shape(faces))
    _check_shapes(*shapes)
    is_torch = not isinstance(points, np.ndarray) and hasattr(points, "detach")
    if backend == "auto":
        backend = "torch" if is_torch and points.is_cuda else "numba"
    if backend == "numba":
        arrays = [_to_numpy(v) for v in (points, vertices)]
        arrays = [np.ascontiguousarray(v if v.ndim == 3 else v[None], np.float32) for v in arrays]
        seen = query(*arrays, np.ascontiguousarray(_to_numpy(faces), np.int32), perspective, near)
        seen = seen.reshape(shapes[0][:-1])
        if not is_torch:
            return seen
        import torch

        return torch.from_numpy(seen).to(points.device)
    import torch

    from hmr_ros.rasterizer import torch_queries

    device = points.device if is_torch else "cpu"
    tensors = [torch.as_tensor(v, device=device).detach().float() for v in (points, vertices)]
    tensors = [v if v.ndim == 3 else v[None] for v in tensors]
    if isinstance(faces, np.ndarray):
        faces = faces.astype(np.int64)
    faces = torch.as_tensor(faces, device=device).long()
    ask = torch_queries.query_torch if backend == "torch" else torch_queries.query_pytorch3d
    seen = ask(*tensors, faces, perspective, near).reshape(shapes[0][:-1])
    return seen if is_torch else seen.numpy()


def depth_at(points, face_index, vertices, faces, perspective: bool = False, steepest: float | None = None):
    """Depth where the rays of points meet the planes of given faces; torch, differentiable in vertices and points.

    points (P, 2) px, face_index (P,) from :func:`visible_face`, vertices (V, 3), faces (F, 3) → (P,) metres, of the
    vertices' dtype; also batched with a leading B. Points that see nothing (face_index < 0), and those whose face is seen
    edge-on, get 0 and no gradient. Computed in float64: in float32 the weights of a grazing face cancel.

    The gradient to x and y is the slope of the face, which has no bound where it is grazed (to z it is at most 1 without
    perspective). Beyond `steepest` (metres per px) x and y get no gradient, only z; None: the exact gradient everywhere.
    """
    import torch

    faces = torch.as_tensor(np.asarray(faces) if isinstance(faces, np.ndarray) else faces, device=vertices.device)
    face_index = torch.as_tensor(face_index, device=vertices.device)
    seen = face_index >= 0
    corners = faces.long()[face_index.clamp(min=0).long()]  # (..., P, 3) vertex indices
    flat = corners.flatten(-2)
    triangle = torch.gather(vertices, -2, flat.unsqueeze(-1).expand(*flat.shape, 3)).unflatten(-2, (-1, 3)).double()
    with torch.no_grad():
        xy = triangle[..., :2]
        area = _cross(xy[..., 1, :] - xy[..., 0, :], xy[..., 2, :] - xy[..., 0, :])
        usable = seen & (area.abs() > FLAT)  # not NaN either
    # Where there is nothing to see, a triangle that is harmless in the backward pass too.
    harmless = triangle.new_tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    triangle = torch.where(usable[..., None, None], triangle, harmless)
    point = torch.where(usable[..., None], points.double(), torch.zeros_like(harmless[0, :2]))
    a, b, c = (triangle[..., i, :2] - point for i in range(3))  # (..., P, 2)
    weights = torch.stack([_cross(b, c), _cross(c, a), _cross(a, b)], dim=-1)
    weights = weights / weights.sum(-1, keepdim=True)
    z = triangle[..., 2]
    if steepest is not None:
        steep = _slope(triangle.detach(), weights.detach(), perspective) > steepest
        weights = torch.where(steep[..., None], weights.detach(), weights)
    depth = 1.0 / (weights / z).sum(-1) if perspective else (weights * z).sum(-1)
    return torch.where(usable, depth, torch.zeros_like(depth)).to(vertices.dtype)


def _slope(triangle, weights, perspective):
    """Change of depth per pixel (..., P) at the points with these weights in the planes of triangles (..., P, 3, 3)."""
    value = 1.0 / triangle[..., 2] if perspective else triangle[..., 2]
    opposite = triangle[..., [1, 2, 0], :2] - triangle[..., [2, 0, 1], :2]
    area = _cross(triangle[..., 1, :2] - triangle[..., 0, :2], triangle[..., 2, :2] - triangle[..., 0, :2])
    slope = (value[..., None] * opposite).sum(-2).norm(dim=-1) / area.abs()
    return slope / (weights * value).sum(-1).square() if perspective else slope


def _rasterize_by_points(vertices, faces, size, perspective, near, backend) -> Raster:
    y, x = np.mgrid[: size[0], : size[1]].reshape(2, -1).astype(np.float32)
    face = visible_face(np.stack([x, y], -1), vertices, faces, perspective, near, backend)
    t = vertices[faces[face[face >= 0]]].astype(np.float64)  # (n, 3, 3) the triangles that are seen
    a, b, c = (t[:, i, :2] - np.stack([x, y], -1)[face >= 0] for i in range(3))
    share = np.stack([_cross(b, c), _cross(c, a), _cross(a, b)], -1)
    share = np.maximum(share / share.sum(-1, keepdims=True), 0)  # pytorch3d sees faces whose border runs beside the centre
    share /= share.sum(-1, keepdims=True)
    depth, barycentric = np.zeros(len(face), np.float32), np.zeros((len(face), 3), np.float32)
    if perspective:
        share /= t[..., 2]
        depth[face >= 0] = 1 / share.sum(-1)
        share /= share.sum(-1, keepdims=True)
    else:
        depth[face >= 0] = (share * t[..., 2]).sum(-1)
    barycentric[face >= 0] = share
    return Raster(face.reshape(size), depth.reshape(size), barycentric.reshape(*size, 3))


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


def _check_shapes(points, vertices, faces) -> None:
    if len(points) not in (2, 3) or len(points) != len(vertices) or points[-1] != 2:
        raise ValueError(f"points {points} and vertices {vertices} must be (P, 2) with (V, 3) or both batched")
    if len(points) == 3 and points[0] != vertices[0]:
        raise ValueError(f"{points[0]} sets of points do not match {vertices[0]} sets of vertices")
    if vertices[-1] != 3 or len(faces) != 2 or faces[-1] != 3:
        raise ValueError(f"a mesh is vertices (V, 3) and faces (F, 3), not {vertices} and {faces}")


def _as_mesh(vertices, faces) -> tuple[np.ndarray, np.ndarray]:
    vertices, faces = np.ascontiguousarray(vertices, np.float32), np.ascontiguousarray(faces, np.int32)
    if vertices.ndim != 2 or vertices.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3:
        raise ValueError(f"a mesh is vertices (V, 3) and faces (F, 3), not {vertices.shape} and {faces.shape}")
    return vertices, faces


@njit(cache=True, nogil=True)
def _fill(vertices, faces, perspective, near, face, depth, barycentric):
    height, width = face.shape
    t = np.empty((3, 3))
    for f in range(len(faces)):
        area = corners(vertices, faces[f], perspective, near, t)
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
                w0, w1, w2, z = weights(t, area, x, y, perspective)
                if w0 >= 0.0 and (face[y, x] < 0 or z < depth[y, x]):
                    face[y, x] = f
                    depth[y, x] = z
                    barycentric[y, x, 0] = w0
                    barycentric[y, x, 1] = w1
                    barycentric[y, x, 2] = w2


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
