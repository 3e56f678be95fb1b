"""Human depth maps: trimming (paper equations 1-3), the embedded coarse depth, sensor depth, samples along bones.

Depth is float32 metres along the optical axis, larger is farther, strictly positive where valid; 0 means unknown.
Relative depth is offset to ``RELATIVE_ORIGIN`` at the hips (HDNet's convention), so that it is positive too.
"""

from __future__ import annotations

import cv2
import numpy as np
from numba import njit

from hmr_ros.geometry import crop_matrix
from hmr_ros.skeleton import COCO_BONES, COCO_TORSO

RELATIVE_ORIGIN = 4.0  # metres given to the hips' midpoint by relative depth (Jafarian & Park 2021)

# Segments of the 33 BlazePose landmarks with the radius of the body around them in metres: what the coarse depth
# spreads over the mask. Radii are of an average adult; they only shape the bulge of a limb.
SEGMENTS = (
    (11, 13, 0.05), (13, 15, 0.04), (15, 19, 0.03), (12, 14, 0.05), (14, 16, 0.04), (16, 20, 0.03),
    (23, 25, 0.08), (25, 27, 0.055), (27, 31, 0.04), (24, 26, 0.08), (26, 28, 0.055), (28, 32, 0.04),
    (11, 12, 0.09), (23, 24, 0.11), (11, 23, 0.11), (12, 24, 0.11), (7, 8, 0.09), (0, 11, 0.06), (0, 12, 0.06),
)  # fmt: skip
_A, _B = (np.array([s[i] for s in SEGMENTS]) for i in (0, 1))
_RADII = np.array([s[2] for s in SEGMENTS], np.float32)

DEPTH_BONES = COCO_BONES + COCO_TORSO
SAMPLES_PER_BONE = 5  # both joints and three points between them
FIRST, LAST = (list(ends) for ends in zip(*DEPTH_BONES))
_FIRST, _LAST = np.array(FIRST), np.array(LAST)
TORSO = [DEPTH_BONES.index(bone) for bone in ((5, 11), (6, 12), (5, 6), (11, 12))]


def trim_depth(depth):
    """T_IQR: trim each depth map's outliers to 1.5 interquartile ranges around its quartiles (equations 1-3).

    depth: (..., H, W) numpy or torch; every map by itself. Returns the same kind and shape. On the n valid values, Q1 is
    the median of the floor(n/2) smallest and Q3 of the floor(n/2) largest. Invalid values (0, negative, non-finite)
    come back as 0; fewer than four valid values are left as they are. Raises ValueError below two dimensions.
    """
    import torch

    if depth.ndim < 2:
        raise ValueError(f"depth has shape {tuple(depth.shape)}, expected (..., H, W)")
    if isinstance(depth, np.ndarray):
        floating = depth if np.issubdtype(depth.dtype, np.floating) else depth.astype(np.float32)
        if depth.ndim == 2:
            return _trimmed(floating)
        return trim_depth(torch.from_numpy(np.ascontiguousarray(floating))).numpy()
    values = (depth if depth.is_floating_point() else depth.float()).flatten(-2)
    valid = torch.isfinite(values) & (values > 0)
    ordered = torch.where(valid, values, torch.inf).sort(dim=-1).values
    n = valid.sum(-1, keepdim=True)
    half = n // 2

    def median(first, count):  # of the `count` ordered values that begin at index `first`
        last = ordered.shape[-1] - 1
        low = (first + (count - 1) // 2).clamp(0, last)
        high = (first + count // 2).clamp(0, last)
        return (ordered.gather(-1, low) + ordered.gather(-1, high)) / 2

    q1, q3 = median(torch.zeros_like(n), half), median(n - half, half)
    reach = 1.5 * (q3 - q1)
    trimmed = torch.minimum(torch.maximum(values, q1 - reach), q3 + reach)
    trimmed = torch.where(n >= 4, trimmed, values)
    return torch.where(valid, trimmed, torch.zeros_like(values)).reshape(depth.shape)


def _trimmed(depth: np.ndarray) -> np.ndarray:
    """The same for one map (H, W), of which only the valid values are ordered."""
    valid = np.isfinite(depth) & (depth > 0)
    values = np.sort(depth[valid])
    n = len(values)
    if n < 4:
        return np.where(valid, depth, 0)
    half = n // 2
    low, high = (half - 1) // 2, half // 2
    q1, q3 = (values[low] + values[high]) / 2, (values[n - half + low] + values[n - half + high]) / 2
    reach = 1.5 * (q3 - q1)
    return np.where(valid, np.clip(depth, q1 - reach, q3 + reach), 0).astype(depth.dtype)


def coarse_depth(points: np.ndarray, z: np.ndarray, confidence: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Depth map of a person from landmarks alone: their z spread over the mask, minus the body's thickness.

    points: (33, 2) BlazePose landmarks in mask pixels; z: (33, 3) world landmarks, metres, hips at 0;
    confidence: (33,); mask: (S, S) probability. Returns (S, S) metres, hips at ``RELATIVE_ORIGIN``, 0 outside. It holds
    no finer detail than a 64th of the side, and is computed no finer.
    """
    # Pixels a metre, from the spread of the same landmarks in both frames; it scales the limbs' radii.
    per_metre = np.linalg.norm(points.std(0)) / max(np.linalg.norm(z[:, :2].std(0)), 1e-3)
    segments = np.empty((len(SEGMENTS), 8))
    segments[:, 0:2], segments[:, 2:4], segments[:, 4], segments[:, 5] = points[_A], points[_B], z[_A, 2], z[_B, 2]
    segments[:, 6], segments[:, 7] = _RADII, np.minimum(confidence[_A], confidence[_B])
    depth = np.zeros(mask.shape, np.float32)
    _spread(mask, max(1, len(mask) // 64), segments, float(per_metre), depth)
    return depth


@njit(cache=True, nogil=True)
def _spread(mask, step, segments, per_metre, depth):
    """Depth of the segments (x, y of both ends in pixels, z of both, radius, confidence) by inverse distance, where the mask is: one value for
    each square of step x step pixels, that of its first pixel, and none where the mask keeps half a square away from that."""
    size, half = len(mask), step // 2
    for row in range(0, size, step):
        for column in range(0, size, step):
            near = False
            for v in range(max(row - half, 0), min(row - half + step, size)):
                for u in range(max(column - half, 0), min(column - half + step, size)):
                    near = near or mask[v, u] > 0.5
            if near:
                value = _spread_to(float(column), float(row), segments, per_metre)
                for v in range(row, min(row + step, size)):
                    for u in range(column, min(column + step, size)):
                        if mask[v, u] > 0.5:
                            depth[v, u] = value


@njit(cache=True, nogil=True)
def _spread_to(x, y, segments, per_metre):
    """The depth at one point."""
    total = spread = 0.0
    for s in range(len(segments)):
        ax, ay, bx, by, az, bz, thickness, confidence = segments[s]
        dx, dy = bx - ax, by - ay
        t = min(max(((x - ax) * dx + (y - ay) * dy) / max(dx * dx + dy * dy, 1e-6), 0.0), 1.0)
        off = np.sqrt((x - ax - t * dx) ** 2 + (y - ay - t * dy) ** 2) / max(thickness * per_metre, 1.0)
        weight = (confidence + 1e-3) / (off + 0.2) ** 4
        total += weight
        spread += weight * (az + t * (bz - az) - thickness * np.sqrt(max(1 - off * off, 0.0)))
    return RELATIVE_ORIGIN + spread / total


def sensor_depth(depth: np.ndarray, crop: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A depth camera's view of one person: the aligned depth image, cropped and cut out by the mask.

    depth: (H, W) metres aligned with the image, 0 or non-finite = unknown; crop: (3,); mask: (S, S) probability.
    Returns (S, S) metres, absolute. The mask is eroded by a pixel: depth edges bleed.
    """
    size = mask.shape[0]
    picture = cv2.warpAffine(
        np.nan_to_num(depth, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float32),
        crop_matrix(crop, size), (size, size), flags=cv2.INTER_NEAREST, borderValue=0,
    )  # fmt: skip
    inside = cv2.erode((mask > 0.5).astype(np.uint8), np.ones((3, 3), np.uint8))
    return np.where((inside > 0) & (picture > 0), picture, 0).astype(np.float32)


def along_bones(joints):
    """Evenly spaced points of the twelve bones, both ends kept: joints (..., 17, C) → (..., 12, 5, C), numpy or torch."""
    share = [[point / (SAMPLES_PER_BONE - 1)] for point in range(SAMPLES_PER_BONE)]
    share = np.array(share, np.float32) if isinstance(joints, np.ndarray) else joints.new_tensor(share)
    return joints[..., FIRST, None, :] * (1 - share) + joints[..., LAST, None, :] * share


def depth_along_bones(joints: np.ndarray, depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Depth at evenly spaced points of the twelve bones, relative to the torso's median.

    joints: (17, 3) COCO in crop coordinates [-1, 1] with confidence; depth: (S, S), 0 = unknown.
    Returns values (12, 5) metres, clipped to ±1.5, and validity (12, 5) in {0, 1}; invalid values are 0. Without a valid
    point on the torso everything is invalid: there is nothing to be relative to.
    """
    values, valid = np.zeros((len(FIRST), SAMPLES_PER_BONE), np.float32), np.zeros((len(FIRST), SAMPLES_PER_BONE), np.bool_)
    _read_along_bones(np.ascontiguousarray(joints, np.float64), np.ascontiguousarray(depth, np.float32), _FIRST, _LAST, values, valid)
    torso = np.sort(values[TORSO][valid[TORSO]])
    if len(torso) == 0:
        return np.zeros_like(values), np.zeros_like(values)
    median = (torso[(len(torso) - 1) // 2] + torso[len(torso) // 2]) / 2
    return np.where(valid, np.clip(values - median, -1.5, 1.5), 0), valid.astype(np.float32)


@njit(cache=True, nogil=True)
def _read_along_bones(joints, depth, first, last, values, valid):
    """Depth (B, P) at P evenly spaced points of B bones; valid where both joints are known, the point is in the map and has a depth."""
    size, points = len(depth), values.shape[1]
    for b in range(len(first)):
        start, end = joints[first[b]], joints[last[b]]
        if not (start[2] > 0 and end[2] > 0):
            continue
        for p in range(points):
            share = p / (points - 1)
            u = round(((start[0] * (1 - share) + end[0] * share) + 1) * size / 2 - 0.5)
            v = round(((start[1] * (1 - share) + end[1] * share) + 1) * size / 2 - 0.5)
            if 0 <= u < size and 0 <= v < size and depth[v, u] > 0:
                values[b, p], valid[b, p] = depth[v, u], True
