"""2D joints as pictures: one Gaussian a joint (paper, "2D Joints Generation"), numpy or torch, without a loop."""

from __future__ import annotations

import numpy as np


def gaussian_heatmaps(joints, size: int, sigma: float = 4.0):
    """Gaussian joint heatmaps F.

    joints: (..., K, 3) numpy or torch: x, y in heatmap pixels (centres are integers) and confidence.
    Returns (..., K, size, size) of the same kind, float32, indexed [y, x], peak 1 at the joint. A joint whose
    confidence is not positive, or that is not finite, is a zero map. ``sigma`` in pixels; 4 at size 256 is STRAPS'
    choice (the paper leaves it open). Raises ValueError on another shape or a sigma that is not positive.
    """
    if joints.ndim < 2 or joints.shape[-1] != 3:
        raise ValueError(f"joints have shape {tuple(joints.shape)}, expected (..., K, 3): x, y, confidence")
    if not (sigma > 0 and size > 0):
        raise ValueError(f"sigma {sigma} and size {size} must be positive")
    if isinstance(joints, np.ndarray):
        xp, joints, grid = np, joints.astype(np.float32), np.arange(size, dtype=np.float32)
    else:
        import torch as xp

        joints, grid = joints.float(), xp.arange(size, dtype=xp.float32, device=joints.device)
    present = xp.isfinite(joints).all(-1) & (joints[..., 2] > 0)
    joints = xp.where(present[..., None], joints, 0 * grid[:1])
    x = xp.exp(-((grid - joints[..., 0:1]) ** 2) / (2 * sigma**2))
    y = xp.exp(-((grid - joints[..., 1:2]) ** 2) / (2 * sigma**2))
    return y[..., :, None] * (x * present[..., None])[..., None, :]
