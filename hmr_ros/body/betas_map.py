"""Shape coefficients of one body model as those of another: betas mean something only together with their model."""

from __future__ import annotations

import logging

import numpy as np
import torch

from hmr_ros.body.model import BodyModel
from hmr_ros.skeleton import SMPL_JOINTS

logger = logging.getLogger(__name__)

# Bones that mean the same in every humanoid rig, whatever its pelvis and spine look like; compared by fit_betas_map.
LIMB_BONES = tuple((SMPL_JOINTS.index(a), SMPL_JOINTS.index(b)) for side in ("left", "right") for a, b in (
    (f"{side}_hip", f"{side}_knee"), (f"{side}_knee", f"{side}_ankle"),
    (f"{side}_shoulder", f"{side}_elbow"), (f"{side}_elbow", f"{side}_wrist"),
))  # fmt: skip


class BetasMap:
    """betas (N, 10) of one body model → those of another, A betas + b; by default the identity."""

    def __init__(self, matrix: np.ndarray | None = None, offset: np.ndarray | None = None):
        self._matrix = np.eye(10, dtype=np.float32) if matrix is None else matrix
        self._offset = np.zeros(10, np.float32) if offset is None else offset

    def __call__(self, betas):
        """(N, 10) → (N, 10), float32; numpy or torch."""
        if isinstance(betas, torch.Tensor):
            return betas @ betas.new_tensor(self._matrix).T + betas.new_tensor(self._offset)
        return (betas @ self._matrix.T + self._offset).astype(np.float32)

    @classmethod
    def between(cls, trained_with: dict[str, str], body: BodyModel) -> BetasMap:
        """From the body that a checkpoint was trained with (its "name" and "sha256") to ``body``: the identity for an earlier version of it
        with the same betas, else fitted to stature and bone lengths; zeros, and one warning, where that fails or the former is not the
        embedded body."""
        if body.shares_betas_with(trained_with["sha256"]):
            return cls()
        source = BodyModel.load(None)
        if source.shares_betas_with(trained_with["sha256"]):
            try:
                return cls(*fit_betas_map(source, body))
            except (ValueError, np.linalg.LinAlgError) as error:
                logger.warning("no map of shapes from %s to %s (%s): betas are zero", source.name, body.name, error)
        else:
            logger.warning(
                "the checkpoint was trained with body %s (%s), which is not here: betas of %s are zero",
                trained_with["name"], trained_with["sha256"][:8], body.name,
            )  # fmt: skip
        return cls(np.zeros((10, 10), np.float32))


@torch.no_grad()
def fit_betas_map(source: BodyModel, target: BodyModel, sigma: float = 0.005) -> tuple[np.ndarray, np.ndarray]:
    """A linear map between the shape spaces of two bodies: betas_target = A @ betas_source + b.

    Keeps stature and the lengths of the limbs; what those do not determine stays at the target's mean shape. Both are
    nearly linear in betas, so their derivatives at the mean shape decide; betas count as N(0, 1) and the measures as
    known to `sigma` metres. Returns A (10, 10) and b (10,), float32; the identity for one and the same file.

    Raises ValueError where the target's shape space cannot follow.
    """
    if source.sha256 == target.sha256:
        return np.eye(BodyModel.num_betas, dtype=np.float32), np.zeros(BodyModel.num_betas, np.float32)
    (source_mean, source_slope), (target_mean, target_slope) = _measures(source), _measures(target)
    follow = target_slope.T / sigma**2
    follow = np.linalg.solve(follow @ target_slope + np.eye(BodyModel.num_betas), follow)
    matrix, offset = follow @ source_slope, follow @ (source_mean - target_mean)
    if not (np.isfinite(matrix).all() and np.isfinite(offset).all()):
        raise ValueError(f"betas of {source.name} do not map to {target.name}: the fit is not finite")
    stature_gap = abs(target_mean[0] + target_slope[0] @ offset - source_mean[0])
    if stature_gap > 0.05 or np.abs(offset).max() > 5:
        raise ValueError(
            f"betas of {source.name} do not map to {target.name}: its shapes miss a mean stature of "
            f"{source_mean[0]:.2f} m by {stature_gap:.2f} m with betas up to {np.abs(offset).max():.1f}, "
            "expected at most 0.05 m and 5"
        )
    return matrix.astype(np.float32), offset.astype(np.float32)


def _measures(body: BodyModel) -> tuple[np.ndarray, np.ndarray]:
    """Stature and limb lengths (9,) of the mean shape, and how they change with each beta (9, 10)."""
    betas = torch.zeros(2 * BodyModel.num_betas + 1, BodyModel.num_betas, device=body.smpl.v_template.device)
    for k in range(BodyModel.num_betas):
        betas[1 + 2 * k, k], betas[2 + 2 * k, k] = 1.0, -1.0
    joints = body.rest_joints(betas)
    lengths = [(joints[:, a] - joints[:, b]).norm(dim=-1) for a, b in LIMB_BONES]
    values = torch.stack([body.stature(betas), *lengths], 1).double().cpu().numpy()
    return values[0], ((values[1::2] - values[2::2]) / 2).T
