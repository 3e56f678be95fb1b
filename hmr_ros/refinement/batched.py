"""Refinement of many people at once in torch, for tensors on a GPU: what kernel.py computes, in float32 and without a loop over people or
joints. Rotation vectors by roma. refine.py says what is computed."""

from __future__ import annotations

import copy

import roma
import torch
from torch import Tensor, nn

from hmr_ros.body.posed_keypoints import PosedKeypoints, PosedParts
from hmr_ros.refinement.config import CAMERA_ROUNDS, FREE, RefinementConfig
from hmr_ros.skeleton import SMPL_PARENTS


class BatchedRefiner(nn.Module):
    """Tensors of N people on one device → refined rotations and cameras there; moves itself to the first device that it sees."""

    def __init__(self, skeleton: PosedKeypoints, config: RefinementConfig):
        super().__init__()
        self.config, self.skeleton = config, copy.deepcopy(skeleton).float().requires_grad_(False)
        hangs_on = torch.eye(24)  # [j, d]: what is part of joint d moves with joint j
        for joint in range(23, 0, -1):
            hangs_on[SMPL_PARENTS[joint]] += hangs_on[joint]
        parents = torch.tensor([max(parent, 0) for parent in SMPL_PARENTS])  # the pelvis is its own, its frame is handled apart
        free = torch.from_numpy(FREE)
        self.register_buffer("free", free)
        self.register_buffer("parents", parents[free])
        self.register_buffer("hangs_on", hangs_on[free])  # (F, 24)
        self.register_buffer("held", self.skeleton.share.float() @ hangs_on[free].T)  # (17, F) share of a keypoint that moves with a joint
        self.register_buffer("stiffness", torch.from_numpy(config.stiffness).float())

    @torch.no_grad()
    def forward(self, rotations: Tensor, betas: Tensor, cameras: Tensor, targets: Tensor, confidence: Tensor) -> tuple[Tensor, Tensor]:
        """As ``Refiner.__call__``."""
        if self.stiffness.device != rotations.device:
            self.to(rotations.device)
        regressed, betas, cameras, targets, confidence = (value.float() for value in (rotations, betas, cameras, targets, confidence))
        rotations = regressed.clone()
        posed = self.skeleton.parts(rotations, betas)
        fitted = self._camera(posed.keypoints, cameras, cameras, targets, confidence)
        for _ in range(self.config.steps):
            rotations = self._turned(rotations, posed, self._step(regressed, rotations, posed, fitted, targets, confidence))
            posed = self.skeleton.parts(rotations, betas)
            fitted = self._camera(posed.keypoints, fitted, cameras, targets, confidence)
        return rotations, fitted

    def _lack(self, keypoints: Tensor, camera: Tensor, targets: Tensor, confidence: Tensor) -> tuple[Tensor, Tensor]:
        """What each keypoint lacks to its target in metres, (N, 17, 2), and its weight (N, 17)."""
        lack = targets / camera[:, None, :1] - camera[:, None, 1:] - keypoints[..., :2]
        return lack, confidence / (1 + lack.square().sum(-1) / self.config.outlier**2) ** 2

    def _step(self, regressed: Tensor, rotations: Tensor, posed: PosedParts, camera: Tensor, targets: Tensor, confidence: Tensor) -> Tensor:
        """The damped Gauss-Newton step (N, F, 3), radians, in camera axes. Turning joint j by w moves what hangs on it by w x lever."""
        lack, weight = self._lack(posed.keypoints, camera, targets, confidence)
        root = (weight.sqrt() / self.config.keypoint_sigma)[..., None]
        hanging = torch.einsum("fj,nkjc->nkfc", self.hangs_on, posed.parts)
        lever = root[..., None] * (hanging - self.held[..., None] * posed.joints[:, None, self.free])  # (N, 17, F, 3)
        x, y, z = lever.unbind(-1)
        zero = torch.zeros_like(x)
        rows = torch.stack([torch.stack([zero, z, -y], -1), torch.stack([-z, zero, x], -1)], 2)  # (N, 17, 2, F, 3)
        jacobian = rows.flatten(3).flatten(1, 2)  # (N, 34, 3 F)
        # How far each joint has turned already; a turn lives in its parent's frame, the Jacobian in camera axes.
        turned = roma.rotmat_to_rotvec(rotations[:, self.free] @ regressed[:, self.free].mT)
        turned = (self._parent_frames(posed.world) @ turned[..., None])[..., 0].flatten(1)  # (N, 3 F)
        right = (jacobian.mT @ (root * lack).flatten(1)[..., None])[..., 0] - self.stiffness * turned
        normal = jacobian.mT @ jacobian + self.stiffness.diag()
        factor, _ = torch.linalg.cholesky_ex(normal)  # positive definite by the stiffness; not checked, which would wait for the GPU
        return torch.cholesky_solve(right[..., None], factor)[..., 0].unflatten(1, (-1, 3))

    def _parent_frames(self, world: Tensor) -> Tensor:
        """(N, F, 3, 3): in which the rotation of each free joint stands; the pelvis' in the camera's."""
        frames = world[:, self.parents]
        return torch.where((self.free == 0)[:, None, None], torch.eye(3, device=world.device), frames)

    def _turned(self, rotations: Tensor, posed: PosedParts, step: Tensor) -> Tensor:
        local = (self._parent_frames(posed.world).mT @ step[..., None])[..., 0]
        return rotations.index_copy(1, self.free, roma.rotvec_to_rotmat(local) @ rotations[:, self.free])

    def _camera(self, keypoints: Tensor, fitted: Tensor, regressed: Tensor, targets: Tensor, confidence: Tensor) -> Tensor:
        """The weak-perspective cameras (N, 3) refitted, as in kernel.py."""
        prior = self.config.camera_weight
        points = keypoints[..., :2]
        seen = regressed[:, None, :1] * (points + regressed[:, None, 1:])
        for _ in range(CAMERA_ROUNDS):
            weight = self._lack(keypoints, fitted, targets, confidence)[1][..., None]
            total = (weight + prior).sum(1, keepdim=True)
            point = ((weight + prior) * points).sum(1, keepdim=True) / total
            target = (weight * targets + prior * seen).sum(1, keepdim=True) / total
            off = points - point
            covariance = (weight * off * (targets - target) + prior * off * (seen - target)).sum((1, 2))
            variance = ((weight + prior) * off.square()).sum((1, 2))
            scale = (covariance / variance.clamp(min=1e-9)).clamp(min=1e-3)[:, None]
            ratio = scale / regressed[:, :1]
            fit = torch.cat([scale, target[:, 0] / scale - point[:, 0]], dim=1)
            fitted = torch.where((ratio > 0.5) & (ratio < 2.0), fit, regressed)
        return fitted
