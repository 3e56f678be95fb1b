"""Joints and COCO keypoints of a body without its mesh: what a loss on joints needs, a hundred times cheaper.

Skinning is linear in the vertices and the keypoint regressor is too, so both collapse into one small tensor: the part of
keypoint k that moves with joint j. Exact for bodies without pose blend shapes; with them (SMPL) they are left out, which
moves keypoints by millimetres.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hmr_ros.body_model import BodyModel, pose_joints


class PosedKeypoints(nn.Module):
    """(rotations (B, 24, 3, 3), betas (B, 10)) → joints (B, 24, 3), COCO keypoints (B, 17, 3), metres."""

    def __init__(self, body: BodyModel):
        super().__init__()
        smpl = body.smpl
        self.register_buffer("joint_template", smpl.J_regressor @ smpl.v_template)
        self.register_buffer("joint_dirs", torch.einsum("jv,vck->jck", smpl.J_regressor, smpl.shapedirs))
        share = torch.einsum("kv,vj->kjv", body.keypoints_from_vertices, smpl.lbs_weights)  # (17, 24, V)
        self.register_buffer("share", share.sum(-1))
        self.register_buffer("template", share @ smpl.v_template)
        self.register_buffer("dirs", torch.einsum("kjv,vcb->kjcb", share, smpl.shapedirs))
        self.register_buffer("from_joints", body.keypoints_from_joints)

    def forward(self, rotations: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
        rest_joints = self.joint_template + torch.einsum("jck,bk->bjc", self.joint_dirs, betas)
        joints, turned, offset = pose_joints(rotations, rest_joints)
        rest = self.template + torch.einsum("kjcb,nb->nkjc", self.dirs, betas)
        keypoints = torch.einsum("njdc,nkjc->nkd", turned, rest) + self.share @ offset
        return joints, keypoints + self.from_joints @ joints
