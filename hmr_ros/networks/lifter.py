"""The light regressor: a residual MLP from the proxies as a vector to pose, shape, weak camera and reliability.

After Martinez et al. 2017, "A simple yet effective baseline for 3d human pose estimation", with rotations as 6D
(Zhou et al. 2019) instead of joint positions; a few such networks are averaged. The reliability is another, smaller network
on the same inputs and on what the first ones say; it is trained afterwards, on people whom they have not seen.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from hmr_ros.geometry import matrix_from_6d
from hmr_ros.networks.features import FEATURE_COUNT, GEOMETRY_COUNT
from hmr_ros.skeleton import LIMB_KEYPOINTS


OUTPUTS = 24 * 6 + 10 + 3
BETAS = slice(24 * 6, 24 * 6 + 10)  # of the outputs
RIGHT = 0.1  # metres, relative to the hips' midpoint: a joint no further off is right


class BodyParameters(NamedTuple):
    rotations: torch.Tensor  # (B, 24, 3, 3); the first is the global orientation in camera axes
    betas: torch.Tensor  # (B, 10)
    weak_camera: torch.Tensor  # (B, 3) s > 0, tx, ty
    reliability: torch.Tensor  # (B, 12) of COCO 5..16: probability that the joint is right to RIGHT metres in 3D


class ResidualBlock(nn.Module):
    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(dropout),
            nn.Linear(width, width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(dropout),
        )  # fmt: skip

    def forward(self, x):
        return x + self.layers(x)


class _Member(nn.Sequential):
    """One residual MLP: features → 24 x 6 rotations, 10 betas, 3 of the camera, as differences from the mean."""

    def __init__(self, inputs: int, width: int, blocks: int, dropout: float):
        stem = nn.Linear(inputs, width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(dropout)
        head = nn.Linear(width, OUTPUTS)
        nn.init.normal_(head.weight, std=1e-3)
        nn.init.zeros_(head.bias)
        super().__init__(*stem, *[ResidualBlock(width, dropout) for _ in range(blocks)], head)


class Lifter(nn.Module):
    """(B, FEATURE_COUNT) features → BodyParameters, in the features' turned axes. Buffers hold the training set's statistics.

    ``members`` networks are averaged; how far apart they are is what the reliability leans on, beside the features.
    ``appearance``: use the landmark network's activations, not only what it says.
    """

    def __init__(
        self, width: int = 640, blocks: int = 2, dropout: float = 0.1, members: int = 3, appearance: bool = True
    ):
        super().__init__()
        self.inputs = FEATURE_COUNT if appearance else GEOMETRY_COUNT
        self.register_buffer("feature_mean", torch.zeros(FEATURE_COUNT))
        self.register_buffer("feature_std", torch.ones(FEATURE_COUNT))
        self.register_buffer("mean_rotations", torch.tensor([1.0, 0, 0, 0, 1, 0]).repeat(24, 1))  # 6D
        self.register_buffer("mean_camera", torch.tensor([0.0, 0, 0]))  # log s, tx, ty
        self.members = nn.ModuleList(_Member(self.inputs, width, blocks, dropout) for _ in range(members))
        self.reliability = nn.Sequential(
            nn.Linear(self.inputs + 2 * OUTPUTS, 256), nn.LayerNorm(256), nn.GELU(), nn.Dropout(0.3),
            nn.Linear(256, 64), nn.GELU(), nn.Linear(64, len(LIMB_KEYPOINTS)),
        )  # fmt: skip

    def forward(self, features: torch.Tensor) -> BodyParameters:
        mean, judged = self.said(features)
        # Nothing flows back: reliability must not change what it judges.
        return BodyParameters(*self.parameters_of(mean), self.reliability(judged.detach()).sigmoid())

    def said(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The members' mean (B, OUTPUTS), and what the reliability judges it by: features, mean and spread."""
        x = self.normalized(features)
        answers = torch.stack([member(x) for member in self.members])
        mean = answers.mean(0)
        spread = (answers - mean).square().mean(0).sqrt()
        return mean, torch.cat([x, mean, 10 * spread], dim=1)

    def normalized(self, features: torch.Tensor) -> torch.Tensor:
        x = ((features - self.feature_mean) / self.feature_std).clamp(-6, 6)
        return x[:, : self.inputs]

    def parameters_of(self, said: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """A member's answer (B, OUTPUTS) → rotations (B, 24, 3, 3), betas (B, 10), weak camera (B, 3)."""
        rotations = matrix_from_6d(said[:, :144].reshape(-1, 24, 6) + self.mean_rotations)
        camera = said[:, 154:] + self.mean_camera
        return rotations, said[:, BETAS], torch.cat([camera[:, :1].exp(), camera[:, 1:]], dim=1)
