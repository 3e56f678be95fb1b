"""What one body differs from another by, for learning from bodies: true ones (lifter/train.py) or fitted ones (fits.py)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.geometry import weak_perspective
from hmr_ros.training.metrics import COCO_HIPS, SMPL_PELVIS, root_aligned


def body_loss(
    outputs: tuple[Tensor, Tensor, Tensor], target: tuple[Tensor, Tensor], target_xy: Tensor, skeleton: PosedKeypoints,
    joints: float, rotations: float, betas: float, projection: float,
) -> Tensor:  # fmt: skip
    """Weighted sum () of four distances: 3D joints and keypoints relative to root and hips (L1, metres), rotation matrices and
    shape (mean squared), keypoints as the weak camera sees them (L1, crop coordinates).

    ``outputs`` is rotations (N, 24, 3, 3), betas (N, 10), weak camera (N, 3); ``target`` rotations and betas; ``target_xy``
    (N, 17, 2) where its keypoints are seen.
    """
    said_joints, keypoints = skeleton(*outputs[:2])
    target_joints, target_keypoints = skeleton(*target)
    return (
        joints * F.l1_loss(root_aligned(said_joints, SMPL_PELVIS), root_aligned(target_joints, SMPL_PELVIS))
        + joints * F.l1_loss(root_aligned(keypoints, COCO_HIPS), root_aligned(target_keypoints, COCO_HIPS))
        + rotations * F.mse_loss(outputs[0], target[0])
        + betas * F.mse_loss(outputs[1], target[1])
        + projection * F.l1_loss(weak_perspective(keypoints, outputs[2]), target_xy)
    )


