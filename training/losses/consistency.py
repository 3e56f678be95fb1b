"""The paper's self-consistency losses (equations 5 to 8): proxies against the re-projection of the body regressed from them.

Crop coordinates run over [-1, 1]; depth is metres along the optical axis, larger is farther, 0 unknown. What the paper leaves
open is an option of :class:`LossConfig`; its formulas are sums over joints and points, averaged here over the batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from hmr_ros.geometry import weak_perspective
from hmr_ros.networks.paper.maps import read_depth
from hmr_ros.networks.paper.net import Resnet18Regressor, pose_code
from hmr_ros.proxies.depth import DEPTH_BONES, SAMPLES_PER_BONE, along_bones
from hmr_ros.rasterizer import Backend, depth_at, visible_face
from hmr_ros.skeleton import LIMB_KEYPOINTS
from hmr_ros.training.paper.coarse_body import CoarseBody
from hmr_ros.training.paper.proxy_data import DepthKind

_FIRST, _LAST = (list(ends) for ends in zip(*DEPTH_BONES))
_PICTURE = 256  # pixels that the crop counts as where faces are looked for
COLLAPSE: dict[DepthKind, float] = {"depth": 0.004, "sensor_depth": 0.02}
"""m². The coarse depth's squared errors are 0.006 in the mean (0.0016 in the median) once a network is trained: 0.02 left w at 1 everywhere, and
0.001 at 0.15. A depth camera's are larger: with 0.002 w was 0.09, and depth taught as little; 0.02 leaves it at 0.9."""
_STEEPEST = 0.05  # metres a pixel: surfaces seen edge-on say nothing of where they should lie


@dataclass(frozen=True)
class LossConfig:
    alpha_joint: float = 1.0
    """Of L_joint (eq. 8)."""
    alpha_depth: float = 0.04
    """Of L*_depth (eq. 8); 0: joints only."""
    points: Literal["bones", "pixels"] = "bones"
    """Where depth is compared: evenly along bones (eq. 6), or at every pixel of a grid (the paper's ablation of sampling)."""
    weighted: bool = True
    """Depth points weighted by the learned reliability (eq. 7), or not (eq. 6)."""
    collapse: float | None = None
    """Of the remedy against w -> 0, see collapse_penalty: w rests at this over the squared error in m². None: by the depth, see
    for_depth."""
    by_confidence: bool = True
    """Joints count by the detector's confidence [open]; False: all alike, as eq. 5 reads."""
    align: Literal["shift", "none"] = "shift"
    """Depths are compared up to the median of their difference [open]: the camera is a weak one."""
    robust: float | None = None
    """Metres at which a depth point loses half its say (Geman-McClure, not the paper's); None: squares, as eq. 6."""
    beta: float = 0.05
    """Of the squared shape coefficients, towards the mean shape [its weight is open]."""
    beta_from_epoch: int = 0
    """The paper regularises them after 10 epochs; in a prototype they drifted without it from the start."""
    pose: float = 0.0
    """Of the squared pose code phi, towards the middle of the prior's box: not the paper's, whose prior knows which poses there are,
    but not which are likely. See fits.py."""
    rasterizer: Backend = "auto"
    """What decides which face a depth point sees. auto: numba on a CPU, torch on a GPU, with equal results; pytorch3d, where it is
    installed, rounds points to a grid."""

    def for_depth(self, depth: DepthKind) -> LossConfig:
        """With ``collapse`` as the depth's usual errors ask for, where it is None."""
        return self if self.collapse is not None else replace(self, collapse=COLLAPSE[depth])


class DepthPoints(NamedTuple):
    """Depth at P points of N people."""

    proxy: Tensor  # (N, P) metres, trimmed depth at the input's points
    body: Tensor  # (N, P) metres, rendered depth at the body's own corresponding points
    known: Tensor  # (N, P) bool: both are


def joint_loss(joints: Tensor, projected: Tensor, by_confidence: bool = True) -> Tensor:
    """Equation 5: sum over K joints of |J - J'|², (N,). joints (N, K, 3: x, y, confidence), projected (N, K, 2); joints
    without confidence drop out."""
    weight = joints[..., 2] if by_confidence else (joints[..., 2] > 0).float()
    return (weight * (joints[..., :2] - projected).square().sum(-1)).sum(1)


def rendered_depth(
    points: Tensor, vertices: Tensor, camera: Tensor, faces, rasterizer: Backend = "auto"
) -> tuple[Tensor, Tensor]:
    """D' where points (N, P, 2) in crop coordinates look at a body (N, V, 3) through a weak camera (N, 3): depth (N, P), with
    gradients, and whether the point sees the body (after Kato et al. 2018; see hmr_ros/rasterizer/__init__.py)."""
    seen = weak_perspective(vertices, camera)
    pixels = torch.cat([seen * _PICTURE / 2, vertices[..., 2:]], dim=-1)
    face = visible_face(points.detach() * _PICTURE / 2, pixels.detach(), faces, backend=rasterizer)
    return depth_at(points * _PICTURE / 2, face, pixels, faces, steepest=_STEEPEST), face >= 0


def depth_points(
    joints: Tensor, depth: Tensor, projected: Tensor, vertices: Tensor, camera: Tensor, faces, config: LossConfig
) -> DepthPoints:
    """What equations 6 and 7 compare. Along bones, D~ is read at the point of the input's bone and D' at the corresponding
    point of the predicted one; on pixels both at the same place. Points of joints without confidence, outside the mask or
    beside the mesh are not known."""
    if config.points == "bones":
        points, targets = (along_bones(values).flatten(1, 2) for values in (projected, joints[..., :2]))
        sure = (joints[:, _FIRST, 2] > 0) & (joints[:, _LAST, 2] > 0)
        known = sure[:, :, None].expand(-1, -1, SAMPLES_PER_BONE).flatten(1)
    else:
        line = (torch.arange(24, device=depth.device) + 0.5) / 12 - 1
        grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1).reshape(1, -1, 2)
        points = targets = grid.expand(len(depth), -1, -1)
        known = torch.ones_like(points[..., 0], dtype=torch.bool)
    proxy = read_depth(targets, depth)
    body, hit = rendered_depth(points, vertices, camera, faces, config.rasterizer)
    return DepthPoints(proxy, body, known & hit & (proxy > 0))


def point_reliability(reliability: Tensor) -> Tensor:
    """w_p of the points along bones (N, 60): that of the nearer joint, the mean of both in the middle. (N, 12) → (N, 60)."""
    first, last = ([joint - LIMB_KEYPOINTS[0] for joint in ends] for ends in (_FIRST, _LAST))
    share = torch.linspace(0, 1, SAMPLES_PER_BONE, device=reliability.device)
    near = (share > 0.5).float() + 0.5 * (share == 0.5)
    return (reliability[:, first, None] * (1 - near) + reliability[:, last, None] * near).flatten(1)


def depth_errors(points: DepthPoints, config: LossConfig) -> Tensor:
    """Squared differences (N, P) of equation 6, 0 where not known."""
    difference = points.proxy - points.body
    if config.align == "shift":
        middle = torch.where(points.known, difference, torch.nan).nanmedian(dim=1, keepdim=True).values
        difference = difference - middle.nan_to_num()
    squares = torch.where(points.known, difference, torch.zeros_like(difference)).square()
    return squares if config.robust is None else squares / (1 + squares / config.robust**2)


def depth_loss(errors: Tensor, known: Tensor, weights: Tensor | None = None) -> Tensor:
    """Equations 6, and 7 with ``weights`` w_p: the sum over m = 60 points (N,); on a finer grid, where the known ones stand
    for 60, so that alpha_depth means the same. Somebody with few known points counts by as many."""
    weighted = errors if weights is None else weights * errors
    return weighted.sum(1) * 60 / errors.shape[1] if errors.shape[1] <= 60 else 60 * weighted.sum(1) / known.sum(1).clamp(min=60)


def collapse_penalty(weights: Tensor, known: Tensor) -> Tensor:
    """-sum of log w over the points that count (N,).

    Equation 7 alone is smallest at w = 0 everywhere, and gets there. With this added, lambda times, each w rests where
    w = lambda / error: the maximum-likelihood variance of a Gaussian (Kendall and Gal 2017), as a weight. Normalising w to a mean
    of one instead made a prototype's network pick the same few joints for everybody.
    """
    return -(weights.clamp(min=1e-6).log() * known).sum(1)


class Losses(NamedTuple):
    total: Tensor  # () mean over the batch
    joint: Tensor  # () L_joint
    depth: Tensor  # () L*_depth, or L_depth
    known: Tensor  # () share of the depth points that count


def self_consistency(
    joints: Tensor, depth: Tensor, projected: Tensor, vertices: Tensor, camera: Tensor, betas: Tensor,
    reliability: Tensor | None, faces, config: LossConfig, epoch: float = 0.0, phi: Tensor | None = None,
) -> Losses:  # fmt: skip
    """Equation 8, L = alpha_j L_joint + alpha_d L*_depth, with the regularisers of betas and pose and the remedy against collapse.

    joints (N, 17, 3) and projected (N, 17, 2) in crop coordinates, depth (N, S, S) trimmed, vertices (N, V, 3) in camera axes,
    camera (N, 3), betas (N, 10), reliability (N, 12) where ``config.weighted``, phi (N, 32) where ``config.pose``.
    """
    joint = joint_loss(joints, projected, config.by_confidence)
    total = config.alpha_joint * joint
    depth_term, share = torch.zeros_like(joint), torch.zeros_like(joint)
    if config.alpha_depth > 0:
        points = depth_points(joints, depth, projected, vertices, camera, faces, config)
        errors, share = depth_errors(points, config), points.known.float().mean(1)
        weights = None
        if config.weighted and reliability is not None:
            weights = point_reliability(reliability)
            total = total + config.alpha_depth * config.collapse * collapse_penalty(weights, points.known)
        depth_term = depth_loss(errors, points.known, weights)
        total = total + config.alpha_depth * depth_term
    if epoch >= config.beta_from_epoch:
        total = total + config.beta * betas.square().sum(1)
    if config.pose > 0:
        total = total + config.pose * phi.square().sum(1)
    return Losses(*(value.mean() for value in (total, joint, depth_term, share)))


def consistency(
    regressor: Resnet18Regressor, body: CoarseBody, joints: Tensor, depth: Tensor, outputs: Tensor, reliability: Tensor | None,
    config: LossConfig, epoch: float = 0.0,
) -> Losses:  # fmt: skip
    """Losses of what the regressor ``outputs`` (N, 48) of people's proxies."""
    rotations, betas, camera = regressor.decode(outputs, joints, depth)
    posed = body(rotations, betas)
    projected = weak_perspective(posed.keypoints, camera)
    return self_consistency(joints, depth, projected, posed.vertices, camera, betas, reliability, body.faces, config, epoch,
                            pose_code(outputs))  # fmt: skip
