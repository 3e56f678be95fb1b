"""The pinhole re-projection of metric.py, solved for the body's position, as a numba kernel."""

from __future__ import annotations

import numpy as np
from numba import njit

ROUNDS = 4  # of reweighting
NEAREST = 0.05  # metres: a joint is never taken for nearer than that


@njit(cache=True, nogil=True)
def place_in_image(points, targets, weights, assured, outlier):
    """Positions (N, 3) at which points (N, K, 3) are seen at targets (N, K, 2), which are x/z and y/z, by weights (N, K).

    Each round is linear: it minimises the sum of w (|x + t_x - u (z + t_z)|² + |y + t_y - v (z + t_z)|²) / (z + t_z)², with the distance of
    the round before. The first one, of the targets from ``assured`` on alone where they have any weight, tells the distance that metres
    need: then a target ``outlier`` metres off has half weight (Geman and McClure 1987).
    """
    places = np.empty((len(points), 3))
    for n in range(len(points)):
        first = assured if weights[n, assured:].sum() > 0 else 0
        tx, ty, tz = 0.0, 0.0, 1.0
        for step in range(ROUNDS):
            total, su, sv, squares, right_x, right_y, right_z = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            for k in range(first if step == 0 else 0, points.shape[1]):
                x, y, z, u, v = points[n, k, 0], points[n, k, 1], points[n, k, 2], targets[n, k, 0], targets[n, k, 1]
                distance = max(z + tz, NEAREST)
                weight = weights[n, k]
                if step > 0:
                    off = ((x + tx) / distance - u) ** 2 + ((y + ty) / distance - v) ** 2
                    weight /= (1 + off * (tz / outlier) ** 2) ** 2
                weight /= distance**2
                a, b = u * z - x, v * z - y
                total, su, sv, squares = total + weight, su + weight * u, sv + weight * v, squares + weight * (u * u + v * v)
                right_x, right_y, right_z = right_x + weight * a, right_y + weight * b, right_z - weight * (u * a + v * b)
            # The normal matrix is [[total, 0, -su], [0, total, -sv], [-su, -sv, squares]].
            damping = 1e-9 * (2 * total + squares)
            total, squares = total + damping, squares + damping
            z = (right_z + (su * right_x + sv * right_y) / total) / (squares - (su * su + sv * sv) / total)
            tx, ty, tz = (right_x + su * z) / total, (right_y + sv * z) / total, max(z, 0.1)
        places[n] = tx, ty, tz
    return places
