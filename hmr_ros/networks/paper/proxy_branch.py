"""Not the paper's: what heatmaps and depth map show, as numbers beside them, for the paper's regressor.

Convolutions take long to learn to read coordinates out of heatmaps; given them as numbers, a network learns from the same losses in
a fraction of the steps (docs/experiments/self_supervised.md).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hmr_ros.networks.blocks import ResidualBlock
from hmr_ros.networks.paper.maps import centred_depth, read_depth
from hmr_ros.networks.paper.reliability import relations
from hmr_ros.proxies.depth import DEPTH_BONES, SAMPLES_PER_BONE, along_bones

_COUNT = 98 + 2 * len(DEPTH_BONES) * SAMPLES_PER_BONE + 2
_CLIP = 8.0  # no honest number is larger


class ProxyBranch(nn.Module):
    """(joints (B, 17, 3), depth (B, S, S) trimmed, start heading (B,)) → (B, width): an MLP of joints, bones' lengths, depth along
    bones and the heading that the regressor's rotation is relative to."""

    def __init__(self, width: int, blocks: int = 2, dropout: float = 0.0):
        super().__init__()
        stem = nn.Linear(_COUNT, width), nn.LayerNorm(width), nn.GELU()
        self.layers = nn.Sequential(*stem, *[ResidualBlock(width, dropout) for _ in range(blocks)])

    def forward(self, joints: Tensor, depth: Tensor, heading: Tensor) -> Tensor:
        along = read_depth(along_bones(joints[..., :2]).flatten(1, 2), depth.float())
        sure = along_bones((joints[..., 2:] > 0).to(joints)).flatten(1) > 0.99  # of both ends
        along = torch.where(sure, along, torch.zeros_like(along))
        turn = torch.stack([heading.sin(), heading.cos()], dim=1)
        parts = relations(joints, depth, "extended"), centred_depth(along[..., None])[..., 0], (along > 0).to(joints), turn
        return self.layers(torch.cat(parts, dim=1).clamp(-_CLIP, _CLIP))
