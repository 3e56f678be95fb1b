"""Joints and COCO keypoints of a body without its mesh: what losses on joints and refinement need, far cheaper.

Skinning is linear in the vertices and the keypoint regressor is too, so both collapse into one small tensor: the part of
keypoint k that moves with joint j. Exact for bodies without pose blend shapes; with them (SMPL) they are left out, which
moves keypoints by millimetres.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from hmr_ros.body.model import BodyModel, pose_joints


class PosedParts(NamedTuple):
    """What moves with which joint; sum over the joints for the keypoints."""

    joints: Tensor  # (B, 24, 3)
    world: Tensor  # (B, 24, 3, 3) rotation of each joint's frame
    parts: Tensor  # (B, 17, 24, 3): keypoint k is the sum of its parts over the joints
    keypoints: Tensor  # (B, 17, 3)


class PosedKeypoints(nn.Module):
    """(rotations (B, 24, 3, 3), betas (B, 10)) → joints (B, 24, 3), COCO keypoints (B, 17, 3), metres."""

    def __init__(self, body: BodyModel):
        super().__init__()
        smpl = body.smpl
        self.register_buffer("joint_template", smpl.J_regressor @ smpl.v_template)
        self.register_buffer("joint_dirs", torch.einsum("jv,vck->jck", smpl.J_regressor, smpl.shapedirs))
        share = torch.einsum("kv,vj->kjv", body.keypoints_from_vertices, smpl.lbs_weights)  # (17, 24, V)
        self.register_buffer("share", share.sum(-1) + body.keypoints_from_joints)
        template = share @ smpl.v_template + body.keypoints_from_joints[..., None] * self.joint_template
        dirs = torch.einsum("kjv,vcb->kjcb", share, smpl.shapedirs)
        self.register_buffer("template", template)
        self.register_buffer("dirs", dirs + torch.einsum("kj,jcb->kjcb", body.keypoints_from_joints, self.joint_dirs))

    def parts(self, rotations: Tensor, betas: Tensor) -> PosedParts:
        rest_joints = self.joint_template + torch.einsum("jck,bk->bjc", self.joint_dirs, betas)
        joints, world, offset = pose_joints(rotations, rest_joints)
        rest = self.template + torch.einsum("kjcb,nb->nkjc", self.dirs, betas)
        parts = torch.einsum("njdc,nkjc->nkjd", world, rest) + self.share[..., None] * offset[:, None]
        return PosedParts(joints, world, parts, parts.sum(2))

    def pelvis(self, betas: Tensor) -> Tensor:
        """Rest position of the pelvis (B, 3), about which the whole body turns."""
        return self.joint_template[0] + betas @ self.joint_dirs[0].T

    def forward(self, rotations: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
        posed = self.parts(rotations, betas)
        return posed.joints, posed.keypoints
