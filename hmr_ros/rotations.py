"""Rotations of many joints, as numba kernels: what every frame needs. scipy's calls take a hundred times as long as the arithmetic of 24 joints.

Matrices (3, 3) turn column vectors; rotation vectors (3,) are axis times angle, radians.
"""

from __future__ import annotations

import numpy as np
from numba import njit


def rotvecs(matrices: np.ndarray) -> np.ndarray:
    """Rotation matrices (..., 3, 3) → rotation vectors (..., 3) float32, angles in [0, pi]."""
    return _rotvecs(np.ascontiguousarray(matrices, np.float64).reshape(-1, 3, 3)).reshape(*np.shape(matrices)[:-2], 3).astype(np.float32)


@njit(cache=True, nogil=True)
def _rotvecs(matrices):
    vectors = np.empty((len(matrices), 3))
    for n in range(len(matrices)):
        rotvec(matrices[n], vectors[n])
    return vectors


@njit(cache=True, nogil=True)
def rotvec(m, out):
    """Rotation vector of a matrix, by the largest component of its quaternion (Shepperd 1978)."""
    trace = m[0, 0] + m[1, 1] + m[2, 2]
    if trace >= max(m[0, 0], m[1, 1], m[2, 2]):
        x, y, z, w = m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], 1 + trace
    elif m[0, 0] >= max(m[1, 1], m[2, 2]):
        x, y, z, w = 1 - trace + 2 * m[0, 0], m[1, 0] + m[0, 1], m[2, 0] + m[0, 2], m[2, 1] - m[1, 2]
    elif m[1, 1] >= m[2, 2]:
        x, y, z, w = m[0, 1] + m[1, 0], 1 - trace + 2 * m[1, 1], m[1, 2] + m[2, 1], m[0, 2] - m[2, 0]
    else:
        x, y, z, w = m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], 1 - trace + 2 * m[2, 2], m[1, 0] - m[0, 1]
    length = np.sqrt(x * x + y * y + z * z)
    factor = 0.0 if length < 1e-12 else 2 * np.arctan2(length, abs(w)) / length * (1 if w >= 0 else -1)
    out[0], out[1], out[2] = factor * x, factor * y, factor * z


@njit(cache=True, nogil=True)
def rotvec_between(a, b, out):
    """Rotation vector of a bᵀ: what turns b into a."""
    m = np.zeros((3, 3))
    for c in range(3):
        for d in range(3):
            for e in range(3):
                m[c, d] += a[c, e] * b[d, e]
    rotvec(m, out)


@njit(cache=True, nogil=True)
def turn(matrix, x, y, z):
    """``matrix`` turned by the rotation vector (x, y, z), in place, by Rodrigues' formula."""
    angle = np.sqrt(x * x + y * y + z * z)
    if angle < 1e-12:
        return
    x, y, z, cosine, sine = x / angle, y / angle, z / angle, np.cos(angle), np.sin(angle)
    t = 1 - cosine
    for d in range(3):
        a, b, c = matrix[0, d], matrix[1, d], matrix[2, d]
        matrix[0, d] = (t * x * x + cosine) * a + (t * x * y - sine * z) * b + (t * x * z + sine * y) * c
        matrix[1, d] = (t * x * y + sine * z) * a + (t * y * y + cosine) * b + (t * y * z - sine * x) * c
        matrix[2, d] = (t * x * z - sine * y) * a + (t * y * z + sine * x) * b + (t * z * z + cosine) * c
