"""Rotations, crops, weak perspective and metric translation: the camera conventions of the whole package.

Camera axes are REP-103 optical (x right, y down, z forward), metres. A crop is the square (cu, cv, size) in original
pixels; crop coordinates run over [-1, 1]. The weak-perspective camera (s, tx, ty) maps ray axes to crop coordinates by
u = s (x + tx), v = s (y + ty). Functions take numpy arrays unless their name's section says torch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hmr_ros.skeleton import COCO_MIRROR, SMPL_MIRROR


class Intrinsics(NamedTuple):
    """Pinhole camera of an undistorted image, in pixels (sensor_msgs/CameraInfo: k[0], k[4], k[2], k[5])."""

    fx: float
    fy: float
    cx: float
    cy: float


def pinhole(width: int, height: int, fov_deg: float) -> Intrinsics:
    """A plausible camera: horizontal field of view in degrees, square pixels, principal point in the centre."""
    if not 0 < fov_deg < 180:
        raise ValueError(f"field of view {fov_deg} must lie between 0 and 180 degrees")
    focal = float(width / 2 / np.tan(np.radians(fov_deg) / 2))
    return Intrinsics(focal, focal, (width - 1) / 2, (height - 1) / 2)


# ---- crops ----------------------------------------------------------------------------------------------------------


def square_crop(box: np.ndarray, enlarge: float = 1.2) -> np.ndarray:
    """Square around a box: (4,) x0, y0, x1, y1 in pixels → (3,) cu, cv, size in pixels. 1.2 is the paper's margin."""
    x0, y0, x1, y1 = np.asarray(box, np.float32)
    return np.array([(x0 + x1) / 2, (y0 + y1) / 2, max(x1 - x0, y1 - y0, 1.0) * enlarge], np.float32)


def to_crop(points: np.ndarray, crop: np.ndarray) -> np.ndarray:
    """Pixels (..., N, 2) → crop coordinates in [-1, 1], for crops (..., 3): u = 2 (u_px - cu) / size."""
    return (2.0 * (points - crop[..., None, :2]) / crop[..., None, 2:]).astype(np.float32)


def from_crop(points: np.ndarray, crop: np.ndarray) -> np.ndarray:
    """Crop coordinates (..., N, 2) → pixels, for crops (..., 3); the inverse of :func:`to_crop`."""
    return (points * (crop[..., None, 2:] / 2.0) + crop[..., None, :2]).astype(np.float32)


def crop_matrix(crop: np.ndarray, size: int) -> np.ndarray:
    """Affine (2, 3) from original pixels to the pixels of a size x size picture of the crop (for cv2.warpAffine).

    Pixel centres are integers in both pictures, as in OpenCV: the crop's left edge cu - crop/2 falls on -0.5.
    """
    scale = size / float(crop[2])
    offset = (size - 1) / 2.0
    return np.array([[scale, 0, offset - scale * crop[0]], [0, scale, offset - scale * crop[1]]], np.float32)


# ---- cameras --------------------------------------------------------------------------------------------------------


def weak_perspective(points, camera):
    """Points (..., K, 3) in ray axes through weak-perspective cameras (..., 3) → crop coordinates (..., K, 2): u = s (x + tx). numpy or
    torch."""
    return camera[..., None, :1] * (points[..., :2] + camera[..., None, 1:])


def project_weak(points: np.ndarray, weak_camera: np.ndarray, crop: np.ndarray) -> np.ndarray:
    """Weak perspective: (N, 3) points in camera axes → (N, 2) pixels of the original image."""
    return from_crop(weak_perspective(np.asarray(points), np.asarray(weak_camera, np.float32)), crop)


def project_pinhole(points: np.ndarray, intrinsics: Intrinsics) -> np.ndarray:
    """Perspective: (..., 3) points in the camera frame, z > 0 → (..., 2) pixels."""
    fx, fy, cx, cy = intrinsics
    points = np.asarray(points)
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    return np.stack([fx * x / z + cx, fy * y / z + cy], axis=-1)


def ray_rotation(directions: np.ndarray) -> np.ndarray:
    """Camera axes → ray axes: the shortest turn that puts the rays through (x/z, y/z) (..., 2) on the z axis, (..., 3, 3) float64.

    What a network that sees only a crop speaks of stands in the axes of the ray through the crop's centre.
    """
    directions = np.asarray(directions, np.float64)
    x, y = directions[..., 0], directions[..., 1]
    length = np.sqrt(x * x + y * y + 1)
    a, b, c = x / length, y / length, 1 / length  # the ray; it is turned about (b, -a, 0), c is the turn's cosine
    h = 1 / (1 + c)
    rotations = np.empty((*x.shape, 3, 3))
    rotations[..., 0, 0], rotations[..., 0, 1], rotations[..., 0, 2] = 1 - a * a * h, -a * b * h, -a
    rotations[..., 1, 0], rotations[..., 1, 1], rotations[..., 1, 2] = -a * b * h, 1 - b * b * h, -b
    rotations[..., 2, 0], rotations[..., 2, 1], rotations[..., 2, 2] = a, b, c
    return rotations


def fit_weak_camera(
    points: np.ndarray, targets: np.ndarray, weights: np.ndarray, min_scale: float = 1e-3
) -> np.ndarray:
    """Weighted least-squares weak-perspective camera: (..., N, 3) ray axes, (..., N, 2) crop coordinates, (..., N) → (..., 3)."""
    w = weights[..., None] / np.maximum(weights.sum(-1), 1e-9)[..., None, None]
    xy = points[..., :2]
    xy_mean, target_mean = (w * xy).sum(-2, keepdims=True), (w * targets).sum(-2, keepdims=True)
    covariance = (w * (xy - xy_mean) * (targets - target_mean)).sum((-1, -2))
    variance = (w * (xy - xy_mean) ** 2).sum((-1, -2))
    s = np.maximum(covariance / np.maximum(variance, 1e-9), min_scale)
    t = target_mean[..., 0, :] / s[..., None] - xy_mean[..., 0, :]
    return np.concatenate([s[..., None], t], axis=-1).astype(np.float32)


# ---- rotations, numpy -----------------------------------------------------------------------------------------------


def rotvec_from_matrix(matrices: np.ndarray) -> np.ndarray:
    """Rotation matrices (..., 3, 3) → canonical axis-angle (..., 3), angles in [0, pi] (scipy's convention)."""
    from hmr_ros.rotations import rotvecs

    return rotvecs(matrices)


def matrix_from_rotvec(vectors: np.ndarray) -> np.ndarray:
    """Axis-angle (..., 3) in radians → rotation matrices (..., 3, 3)."""
    from scipy.spatial.transform import Rotation

    flat = Rotation.from_rotvec(np.reshape(vectors, (-1, 3))).as_matrix()
    return flat.reshape(*np.shape(vectors)[:-1], 3, 3).astype(np.float32)


def nearest_rotation(matrices: np.ndarray) -> np.ndarray:
    """The rotations nearest to (..., 3, 3) matrices in the Frobenius norm, such as sums of rotations (chordal mean)."""
    u, _, vt = np.linalg.svd(matrices.astype(np.float64))
    u[..., -1] *= np.sign(np.linalg.det(u @ vt))[..., None]
    return (u @ vt).astype(np.float32)


def rotation_about_z(angles) -> np.ndarray:
    """Turns in the image plane (x right, y down: clockwise), radians (...) → rotation matrices (..., 3, 3)."""
    rotations = np.zeros((*np.shape(angles), 3, 3), np.float32)
    rotations[..., 0, 0] = rotations[..., 1, 1] = np.cos(angles)
    rotations[..., 1, 0] = np.sin(angles)
    rotations[..., 0, 1] = -rotations[..., 1, 0]
    rotations[..., 2, 2] = 1
    return rotations


# ---- mirroring in the plane x = 0, numpy or torch: left and right joints are exchanged, the body's shapes are symmetric ------------


def mirror_joints(joints, order: tuple[int, ...] = COCO_MIRROR):
    """Joints (..., J, C) whose first coordinate is x, about 0."""
    return joints[..., list(order), :] * _like(joints, [-1.0] + [1.0] * (joints.shape[-1] - 1))


def mirror_rotations(rotations):
    """SMPL's rotations (..., 24, 3, 3): M R M."""
    flip = _like(rotations, [-1.0, 1.0, 1.0])
    return rotations[..., list(SMPL_MIRROR), :, :] * (flip[:, None] * flip)


def mirror_weak_camera(camera):
    """Weak-perspective cameras (..., 3), for mirrored bodies in the mirrored crop."""
    return camera * _like(camera, [1.0, -1.0, 1.0])


def _like(values, numbers: list[float]):
    return np.array(numbers, values.dtype) if isinstance(values, np.ndarray) else values.new_tensor(numbers)


def mirror_rotvec(vectors: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    """Mirror a pose in the sagittal plane x = 0: (..., J, 3) axis-angle, joints exchanged by ``order`` (…, J, 3)."""
    return np.take(vectors, order, axis=-2) * np.array([1, -1, -1], np.float32)


def similarity_align(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Move ``source`` onto ``target`` by the best similarity (Umeyama 1991), mirror images not allowed.

    Both (..., J, 3); returns (..., J, 3). Degenerate sources (all points equal) are only shifted.
    """
    mu_s, mu_t = source.mean(-2, keepdims=True), target.mean(-2, keepdims=True)
    s, t = source - mu_s, target - mu_t
    u, d, vt = np.linalg.svd(np.swapaxes(s, -1, -2) @ t)
    sign = np.ones_like(d)
    sign[..., -1] = np.sign(np.linalg.det(u @ vt))
    rotation = (u * sign[..., None, :]) @ vt
    scale = (d * sign).sum(-1) / np.maximum((s**2).sum((-1, -2)), 1e-12)
    return scale[..., None, None] * (s @ rotation) + mu_t


# ---- rotations, torch (differentiable; Zhou et al. 2019, "On the Continuity of Rotation Representations") ------------


def matrix_from_6d(x):
    """Two unnormalised columns (..., 6) → rotation matrices (..., 3, 3) by Gram-Schmidt."""
    import torch

    a, b = x[..., :3], x[..., 3:]
    a = torch.nn.functional.normalize(a, dim=-1)
    b = torch.nn.functional.normalize(b - (a * b).sum(-1, keepdim=True) * a, dim=-1)
    return torch.stack([a, b, torch.linalg.cross(a, b, dim=-1)], dim=-1)


def sixd_from_matrix(matrices):
    """Rotation matrices (..., 3, 3) → their first two columns (..., 6); inverse of :func:`matrix_from_6d`."""
    import torch

    return torch.cat([matrices[..., 0], matrices[..., 1]], dim=-1)
