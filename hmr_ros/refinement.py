"""A regressed pose bent a little, so that its joints lie on the detected ones: damped Gauss-Newton, a few steps.

Every joint pays for turning away from the regressed pose, and a detected joint far from the mesh loses its weight (Geman and
McClure 1987), so that a wrong detection does not break an arm. The Jacobian is exact: a keypoint is a sum of parts that
turn rigidly with their joint's ancestors. Depth is not used; what 2D does not determine stays as it was regressed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from hmr_ros.geometry import fit_weak_camera, matrix_from_rotvec, rotvec_from_matrix, weak_perspective
from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.skeleton import SMPL_JOINTS, SMPL_PARENTS


@dataclass(frozen=True)
class RefinementConfig:
    steps: int = 3
    keypoint_sigma: float = 0.03  # metres: what a confident detection is trusted to
    outlier: float = 0.15  # metres: a joint this far off has half weight
    limb_sigma: float = 0.1  # radians: how far hips, knees, shoulders and elbows may turn
    camera_weight: float = 0.01  # of where the regressed camera sees a joint, against a detection of confidence 1; keeps the size of people
    # of whom few joints are seen from running away (chosen of 0.01, 0.02 and 0.05 on benchmarks/truncation_stability.py)
    trunk_sigma: float = 0.04  # radians: the same for pelvis, spine, collars, neck and head


_LIMBS = ("hip", "knee", "shoulder", "elbow")
_FIXED = ("wrist", "hand", "ankle", "foot")  # nothing in COCO-17 shows them
_FREE = np.array([not name.endswith(_FIXED) for name in SMPL_JOINTS])
_IS_LIMB = np.array([name.endswith(_LIMBS) for name in SMPL_JOINTS])
# _BELOW[j, i]: joint i is j or hangs on it.
_BELOW = np.eye(24, dtype=bool)
for _joint in range(23, 0, -1):
    _BELOW[SMPL_PARENTS[_joint]] |= _BELOW[_joint]


class Refiner:
    """Bends (N, 24, 3, 3) rotations towards detected keypoints; stateless."""

    def __init__(self, skeleton: PosedKeypoints, config: RefinementConfig = RefinementConfig()):
        self.skeleton, self.config = skeleton, config
        sigma = np.where(_IS_LIMB, config.limb_sigma, config.trunk_sigma)
        self._stiffness = np.repeat(1 / sigma[_FREE] ** 2, 3)

    def __call__(
        self, rotations: np.ndarray, betas: np.ndarray, cameras: np.ndarray, targets: np.ndarray, confidence: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """rotations (N, 24, 3, 3), betas (N, 10), weak-perspective cameras (N, 3); targets (N, 17, 2) in crop coordinates with
        confidence (N, 17), 0 = unknown. Returns refined rotations and cameras; people without a confident joint
        come back as they went in."""
        refined = rotations.astype(np.float64)
        posed = self._pose(refined, betas)
        fitted = self._fit_cameras(posed, cameras, cameras, targets, confidence)
        for _ in range(self.config.steps):
            refined = self._step(rotations, refined, posed, fitted, targets, confidence)
            posed = self._pose(refined, betas)
            fitted = self._fit_cameras(posed, fitted, cameras, targets, confidence)
        return refined.astype(np.float32), fitted

    def _pose(self, rotations: np.ndarray, betas: np.ndarray):
        with torch.inference_mode():
            posed = self.skeleton.parts(torch.from_numpy(rotations.astype(np.float32)), torch.from_numpy(betas))
        return [value.numpy().astype(np.float64) for value in posed]

    def _step(self, regressed, refined, posed, cameras, targets, confidence):
        config = self.config
        joints, world, parts, keypoints = posed
        residual, weight = self._residual(keypoints, cameras, targets, confidence)
        weight = weight / config.keypoint_sigma**2
        # Turning joint j by w moves what hangs on it by w x lever, lever = its parts - its share of the joint itself.
        below = _BELOW[_FREE].astype(np.float64)  # (J, 24)
        share = self.skeleton.share.numpy() @ below.T  # (17, J)
        lever = np.einsum("nkic,ji->nkjc", parts, below) - share[None, ..., None] * joints[:, None, _FREE]
        x, y, z = np.moveaxis(lever, -1, 0)
        zero = np.zeros_like(x)
        jacobian = np.stack([np.stack([zero, z, -y], -1), np.stack([-z, zero, x], -1)], axis=2)  # (N, 17, 2, J, 3)
        jacobian = jacobian.reshape(*jacobian.shape[:3], -1)
        # How far each joint has turned already; a turn lives in its parent's frame, the Jacobian in camera axes.
        parents = world[:, np.maximum(SMPL_PARENTS, 0)]
        parents[:, 0] = np.eye(3)
        turned = rotvec_from_matrix(refined @ np.swapaxes(regressed, -1, -2))
        turned = (parents @ turned[..., None])[..., 0][:, _FREE]
        weighted = jacobian * weight[..., None, None]
        normal = np.einsum("nkdp,nkdq->npq", weighted, jacobian) + np.diag(self._stiffness)
        gradient = np.einsum("nkdp,nkd->np", weighted, residual) - self._stiffness * turned.reshape(len(turned), -1)
        step = np.zeros((len(refined), 24, 3))
        step[:, _FREE] = np.linalg.solve(normal, gradient[..., None]).reshape(len(refined), -1, 3)
        step = (np.swapaxes(parents, -1, -2) @ step[..., None])[..., 0]
        return matrix_from_rotvec(step) @ refined

    def _residual(self, keypoints, cameras, targets, confidence):
        """What each keypoint lacks to its target, in metres (N, 17, 2), and its weight (N, 17)."""
        residual = targets / cameras[:, None, :1] - cameras[:, None, 1:] - keypoints[..., :2]
        return residual, confidence / (1 + (residual**2).sum(-1) / self.config.outlier**2) ** 2

    def _fit_cameras(self, posed, fitted, regressed, targets, confidence):
        """Weak-perspective cameras refitted to the joints, and weakly to where the regressed ones see them, which decides where the joints
        are few or close together; the regressed ones where that leads too far away."""
        keypoints = posed[-1]
        seen = weak_perspective(keypoints, regressed)
        weak = np.full(confidence.shape, self.config.camera_weight)
        for _ in range(3):
            _, weight = self._residual(keypoints, fitted, targets, confidence)
            fitted = fit_weak_camera(*(np.concatenate(two, axis=1) for two in ((keypoints, keypoints), (targets, seen), (weight, weak))))
            ratio = fitted[:, :1] / regressed[:, :1]
            fitted = np.where((ratio > 0.5) & (ratio < 2.0), fitted, regressed)
        return fitted.astype(np.float32)
