"""The paper's regressor: ResNet-18 (He et al. 2016) from joint heatmaps and a trimmed depth map to the body, in one pass.

H x W x (K+1) → average pooled 512 → FC 512 → FC 512 → 48 = scale 1, rotation 3, translation 2, shape 10, pose code 32, which the
frozen pose prior decodes (paper, "Network Architecture"). What the paper leaves open is an option with its default here; what is
not the paper's says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from smplx.lbs import batch_rodrigues
from torch import Tensor, nn

from hmr_ros.geometry import matrix_from_6d
from hmr_ros.networks.blocks import BasicBlock
from hmr_ros.networks.paper.maps import centred_depth, depth_at_joints
from hmr_ros.networks.paper.prior import LATENT, PosePrior
from hmr_ros.networks.paper.proxy_branch import ProxyBranch
from hmr_ros.networks.paper.reliability import Inputs, Reliability
from hmr_ros.networks.regressor import BodyParameters
from hmr_ros.proxies.heatmaps import gaussian_heatmaps
from hmr_ros.skeleton import COCO_KEYPOINTS

_SHOULDERS, _HIPS, _EARS, _NOSE = (5, 6), (11, 12), (3, 4), 0
_WIDTHS = 0.32, 0.2  # metres between an adult's shoulders and hips, for the start
_TORSO, _FACE = 0.52, 0.1  # metres from the shoulders' to the hips' midpoint; from the ears' midpoint to the nose


@dataclass(frozen=True)
class RegressorConfig:
    """Options of :class:`Resnet18Regressor`; the defaults are the paper's where it has one."""

    size: int = 256
    """H = W of heatmaps and depth [open; STRAPS]."""
    width: int = 64
    """Channels of the first stage: 64 is ResNet-18; less is a thinner one, not the paper's."""
    sigma: float = 4.0
    """Of the heatmaps at 256 pixels, in pixels; it shrinks with the size [open; STRAPS]."""
    rotation: Literal["axis_angle", "6d"] = "axis_angle"
    """Of the whole body: pi tanh of 3 numbers (48 outputs), or 6D (51 outputs, not the paper's)."""
    start: Literal["proxies", "frontal"] = "proxies"
    """What the rotation is relative to [open]: the heading that shoulders, hips and face suggest, or one that faces the camera,
    from which a third of the bodies ended more than 60 degrees off in a prototype."""
    depth_input: bool = True
    """False: heatmaps alone (the paper's ablation)."""
    reliability: Inputs = "paper"
    """Input of the reliability network; "extended" is not the paper's."""
    numbers: int = 0
    """Width of a branch that reads joints and depth along bones as numbers beside the maps (proxy_branch.py), not the paper's; 0: none."""


class Resnet18Regressor(nn.Module):
    """(joints (B, 17, 3: x, y in crop coordinates, confidence), depth (B, H, W) trimmed metres) → BodyParameters.

    ``encode`` gives the 48 numbers, ``decode`` makes a body of them; training calls them one by one. Depth may be of another
    size than ``config.size``: it is resized to it, nearest pixel.
    """

    reduced_precision = ("stem", "stages", "head")  # under fp16 and bf16; geometry, pose decoder and reliability stay in float32

    def __init__(self, config: RegressorConfig = RegressorConfig(), prior: PosePrior | None = None):
        super().__init__()
        self.config = config
        w = config.width
        channels = len(COCO_KEYPOINTS) + config.depth_input
        self.stem = nn.Sequential(
            nn.Conv2d(channels, w, 7, 2, 3, bias=False), nn.BatchNorm2d(w), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        stages = [(w, w, 1), (w, w, 1), (w, 2 * w, 2), (2 * w, 2 * w, 1), (2 * w, 4 * w, 2), (4 * w, 4 * w, 1), (4 * w, 8 * w, 2),
                  (8 * w, 8 * w, 1)]  # fmt: skip
        self.stages = nn.Sequential(*[BasicBlock(*stage) for stage in stages])
        self.rotations = 3 if config.rotation == "axis_angle" else 6
        head = nn.Linear(512, 1 + self.rotations + 2 + 10 + LATENT)
        nn.init.normal_(head.weight, std=1e-3)
        nn.init.zeros_(head.bias)  # learnable start: phi = 0, the mean shape
        self.branch = ProxyBranch(config.numbers) if config.numbers else None
        self.head = nn.Sequential(nn.Linear(8 * w + config.numbers, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), head)
        # Frozen; without a prior for weights that are loaded next.
        self.pose_decoder = (PosePrior() if prior is None else prior).decoder.requires_grad_(False)
        self.reliability = Reliability(config.reliability)
        self.register_buffer("upright", torch.diag(torch.tensor([1.0, -1.0, -1.0])))  # y up to y down, facing the camera

    def forward(self, joints: Tensor, depth: Tensor) -> BodyParameters:
        rotations, betas, camera = self.decode(self.encode(joints, depth), joints, depth)
        return BodyParameters(rotations, betas, camera, self.reliability(joints, depth))

    def encode(self, joints: Tensor, depth: Tensor) -> Tensor:
        """The network proper: (B, 48), or 51 with 6D rotations."""
        size = self.config.size
        pixels = torch.cat([(joints[..., :2] + 1) * size / 2 - 0.5, joints[..., 2:]], dim=-1)
        channels = [gaussian_heatmaps(pixels, size, self.config.sigma * size / 256)]
        if self.config.depth_input:
            nearest = ((torch.arange(size, device=depth.device) + 0.5) * depth.shape[-1] / size).long()
            channels.append(centred_depth(depth[:, nearest][:, :, nearest])[:, None])
        x = torch.cat(channels, dim=1)
        if not torch.compiler.is_exporting():
            x = x.contiguous(memory_format=torch.channels_last)
        seen = self.stages(self.stem(x)).mean((2, 3))
        if self.branch is not None:
            shown = depth if self.config.depth_input else torch.zeros_like(depth)
            seen = torch.cat([seen, self.branch(joints, shown, self._heading(joints, depth))], dim=1)
        return self.head(seen)

    def decode(self, output: Tensor, joints: Tensor, depth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 48) → rotations (B, 24, 3, 3) with the first in ray axes, betas (B, 10), weak-perspective camera (B, 3)."""
        scale, turn, translation, betas, _ = output.float().split([1, self.rotations, 2, 10, LATENT], dim=1)
        if self.config.rotation == "axis_angle":
            turn = batch_rodrigues(torch.pi * torch.tanh(turn))
        else:
            turn = matrix_from_6d(turn + turn.new_tensor([1.0, 0, 0, 0, 1, 0]))
        start = self.upright
        if self.config.start == "proxies":
            heading = self._heading(joints, depth)
            zero = torch.zeros_like(heading)
            start = start @ batch_rodrigues(torch.stack([zero, heading, zero], dim=1))
        pose = batch_rodrigues(self.pose_decoder(pose_code(output)).reshape(-1, 3)).reshape(-1, 23, 3, 3)
        rotations = torch.cat([(turn @ start)[:, None], pose], dim=1)
        return rotations, betas, torch.cat([scale.exp(), translation], dim=1)

    def _heading(self, joints: Tensor, depth: Tensor) -> Tensor:
        return start_heading(joints, depth if self.config.depth_input else None)


def pose_code(output: Tensor) -> Tensor:
    """phi (B, 32) in (-1, 1) in the network's output, (B, 48) or (B, 51)."""
    return torch.tanh(output.float()[:, -LATENT:])


def start_heading(joints: Tensor, depth: Tensor | None) -> Tensor:
    """Heading (B,) about the body's vertical, radians, 0 faces the camera, that the proxies alone suggest: where left shoulder
    and hip lie beside the right ones, how much deeper they are, and where the nose is beside the ears. Without gradient."""
    joints = joints.detach()
    xy, sure = joints[..., :2], joints[..., 2] > 0
    torso = (xy[:, _SHOULDERS].mean(1) - xy[:, _HIPS].mean(1)).norm(dim=-1)
    wide = (xy[:, _SHOULDERS[0]] - xy[:, _SHOULDERS[1]]).norm(dim=-1)
    metre = torch.maximum(torso / _TORSO, wide / _WIDTHS[0]).clamp(min=0.1)  # crop units; a bent torso is short
    cosine, sine, weight = torch.zeros_like(metre), torch.zeros_like(metre), torch.full_like(metre, 1e-6)
    z, known = (None, None) if depth is None else depth_at_joints(joints, depth)
    for (left, right), width in zip((_SHOULDERS, _HIPS), _WIDTHS):
        cosine = cosine + ((xy[:, left, 0] - xy[:, right, 0]) / (metre * width)).clamp(-1, 1) / 2
        if z is not None:
            both = known[:, left] & known[:, right]
            sine = sine + both * ((z[:, left] - z[:, right]) / width).clamp(-1, 1)
            weight = weight + both
    face = sure[:, _EARS].all(1) & sure[:, _NOSE]
    sine = sine + face * ((xy[:, _NOSE, 0] - xy[:, _EARS, 0].mean(1)) / (metre * _FACE)).clamp(-1, 1)
    return torch.atan2(sine / (weight + face), cosine + 1e-6)
