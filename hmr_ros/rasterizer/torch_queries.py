"""Which triangles points see, on the device where the tensors are: in plain torch, and by pytorch3d's rasteriser.

The rules, their order of operations and float64 are those of `numba_queries`, so that torch and numba give the same answer.
Callers go through `rasterizer.visible_face`, which knows shapes and chooses. Importing this imports torch, not pytorch3d.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hmr_ros.rasterizer.numba_queries import FAR_OUT, FLAT

PAIRS = 2**23  # points times faces looked at in one go: at most about 1 GB, where every face covers every point
GRID = 1024  # samples along the longer side of the window that pytorch3d draws
GRID_BATCH = 16  # bodies that pytorch3d draws at once: about 0.7 GB
FINEST = 64.0  # samples per pixel that are enough in a window of few pixels


@torch.no_grad()
def query_torch(points: Tensor, vertices: Tensor, faces: Tensor, perspective: bool, near: float) -> Tensor:
    """points (B, P, 2), vertices (B, V, 3; both float32), faces (F, 3) int64 → (B, P) int32 face or -1.

    Bounding boxes leave few pairs of point and face; those are decided in float64 and reduced to the nearest.
    """
    batch, count = points.shape[:2]
    seen = torch.full((batch, count), -1, dtype=torch.int32, device=points.device)
    if 0 in (batch, count, len(faces), vertices.shape[1]):
        return seen
    bodies = max(1, PAIRS // (count * len(faces)))
    rows = max(1, PAIRS // len(faces))
    for b in range(0, batch, bodies):
        triangles, area = _triangles(vertices[b : b + bodies], faces, perspective, near)
        for p in range(0, count, rows):
            part = slice(b, b + bodies), slice(p, p + rows)
            seen[part] = _nearest(points[part], triangles, area, perspective)
    return seen


def _triangles(vertices, faces, perspective, near) -> tuple[Tensor, Tensor]:
    """Corners (B, F, 3, 3) as they are and signed doubled areas (B, F, float64), 0 for faces that are left out."""
    inside = ((faces >= 0) & (faces < vertices.shape[1])).all(-1)
    t = vertices[:, faces.where(inside[:, None], torch.zeros_like(faces))]
    usable = inside & t.isfinite().flatten(2).all(-1) & (t[..., :2].abs() <= FAR_OUT).flatten(2).all(-1)
    if perspective:
        usable &= (t[..., 2].double() > near).all(-1)
    x, y = t[..., 0].double().unbind(-1), t[..., 1].double().unbind(-1)
    area = (x[1] - x[0]) * (y[2] - y[0]) - (y[1] - y[0]) * (x[2] - x[0])
    return t, area.where(usable & (area.abs() > FLAT), torch.zeros_like(area))


def _nearest(points, triangles, area, perspective) -> Tensor:
    """(b, p) int32: the face of least depth that covers the point, of equals the one listed first."""
    low, high = triangles[..., :2].amin(2), triangles[..., :2].amax(2)  # (b, F, 2)
    near = area.ne(0)[:, None].expand(-1, points.shape[1], -1).clone()
    for axis in (0, 1):
        value = points[..., axis, None]
        near &= value >= low[:, None, :, axis]
        near &= value <= high[:, None, :, axis]
    b, p, f = near.nonzero(as_tuple=True)
    t, scale = triangles[b, f].double(), 1.0 / area[b, f]
    (x0, x1, x2), (y0, y1, y2), (z0, z1, z2) = (t[..., axis].unbind(-1) for axis in range(3))
    x, y = points[b, p].double().unbind(-1)
    w0 = ((x1 - x) * (y2 - y) - (y1 - y) * (x2 - x)) * scale
    w1 = ((x2 - x) * (y0 - y) - (y2 - y) * (x0 - x)) * scale
    w2 = ((x0 - x) * (y1 - y) - (y0 - y) * (x1 - x)) * scale
    depth = 1.0 / (w0 / z0 + w1 / z1 + w2 / z2) if perspective else w0 * z0 + w1 * z1 + w2 * z2
    covers = (w0 >= 0) & (w1 >= 0) & (w2 >= 0) & (depth < math.inf)
    row, f, depth = (b * points.shape[1] + p)[covers], f[covers], depth[covers]
    least = depth.new_full((len(points) * points.shape[1],), math.inf).scatter_reduce(0, row, depth, "amin")
    first = depth == least[row]
    none = area.shape[1]
    face = torch.full(least.shape, none, dtype=torch.int64, device=f.device)
    face = face.scatter_reduce(0, row[first], f[first], "amin").view(points.shape[:2])
    return face.masked_fill(face == none, -1).int()


def pixels_to_ndc(xy: Tensor, size: tuple[int, int]) -> Tensor:
    """Pixels (..., 2; x right, y down, centres are integers) of a picture (H, W) → pytorch3d's coordinates.

    There x points left and y up, the shorter side spans [-1, 1], and a pixel's centre lies half a pixel inside
    (pytorch3d 0.7, csrc/rasterize_points/rasterization_utils.h: PixToNonSquareNdc).
    """
    middle = xy.new_tensor([size[1] / 2, size[0] / 2])
    return (middle - (xy + 0.5)) * (2 / min(size))


def pytorch3d() -> tuple:
    """pytorch3d's `rasterize_meshes` and `Meshes`. ImportError, with what to do, where it is not installed."""
    try:
        from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
        from pytorch3d.structures import Meshes
    except ImportError as error:
        raise ImportError(
            f'rasterizer "pytorch3d" needs pytorch3d, built for the torch in use ({error}): install it as in '
            'https://github.com/facebookresearch/pytorch3d/blob/main/INSTALL.md, or choose "auto"'
        ) from error
    return rasterize_meshes, Meshes


@torch.no_grad()
def query_pytorch3d(
    points: Tensor, vertices: Tensor, faces: Tensor, perspective: bool, near: float, grid: int = GRID
) -> Tensor:
    """As query_torch, by pytorch3d's `rasterize_meshes`, which draws pictures and not points.

    It draws the window that the points of a body span, `grid` samples along its longer side but at most 64 a pixel, and
    every point takes the answer of the nearest sample: half a sample away at most, 0.13 px in a window of 256. Unlike the
    other backends it computes in float32, leaves lines between faces uncovered (a point exactly there sees what is
    behind) and drops faces of less than 1e-8 of its own square units, 0.003 square samples.
    """
    rasterize_meshes, Meshes = pytorch3d()
    seen = torch.full(points.shape[:2], -1, dtype=torch.int32, device=points.device)
    if 0 in (*points.shape[:2], len(faces), vertices.shape[1]):
        return seen
    usable = _triangles(vertices, faces, perspective, near)[1] != 0
    finite = points.isfinite().all(-1) & (points.abs() <= FAR_OUT).all(-1)
    drawn = (usable.any(1) & finite.any(1)).nonzero()[:, 0]  # pytorch3d has its own ideas about empty meshes
    for part in drawn.split(GRID_BATCH):
        asked, known = points[part], finite[part][..., None]
        low = asked.where(known, torch.full_like(asked, math.inf)).amin(1, keepdim=True)
        high = asked.where(known, torch.full_like(asked, -math.inf)).amax(1, keepdim=True)
        step = ((grid - 1) / (high - low).amax(-1, keepdim=True)).clamp(max=FINEST)  # samples per pixel, (b, 1, 1)
        xy, z = (vertices[part][..., :2] - low) * step, vertices[part][..., 2:]
        z = z.where(z.isfinite(), torch.zeros_like(z))
        if not perspective:  # what lies at negative depth is not drawn
            z = z - z.amin(1, keepdim=True) + 1
        corners = torch.cat([pixels_to_ndc(xy, (grid, grid)), z], -1)
        corners = corners.where(corners.isfinite(), torch.zeros_like(corners))  # of faces that are left out
        kept = [usable[i].nonzero()[:, 0] for i in part]
        meshes = Meshes(verts=list(corners), faces=[faces[k] for k in kept])
        packed = rasterize_meshes(
            meshes,
            image_size=(grid, grid),
            blur_radius=0.0,
            faces_per_pixel=1,
            max_faces_per_bin=len(faces),
            perspective_correct=perspective,
        )[0][..., 0]
        sample = ((asked - low) * step).round().where(known, torch.zeros_like(asked)).long()
        first = 0
        for i, body in enumerate(part):
            face = packed[i][sample[i, :, 1], sample[i, :, 0]]
            original = kept[i][(face - first).clamp(min=0)]
            seen[body] = original.where((face >= 0) & finite[body], torch.full_like(original, -1)).int()
            first += len(kept[i])
    return seen
