"""The light regressor: a residual MLP from the proxies as a vector to pose, shape, weak camera and reliability.

After Martinez et al. 2017, "A simple yet effective baseline for 3d human pose estimation", with rotations as 6D
(Zhou et al. 2019) instead of joint positions. The reliability is a second, smaller network on the same inputs and on what
the first one makes of them; it is trained afterwards, on people whom the regressor has not seen.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from hmr_ros.geometry import matrix_from_6d
from hmr_ros.networks.features import FEATURE_COUNT, GEOMETRY_COUNT
from hmr_ros.skeleton import LIMB_KEYPOINTS


RIGHT = 0.1  # metres, relative to the hips' midpoint: a joint no further off is right


class BodyParameters(NamedTuple):
    rotations: torch.Tensor  # (B, 24, 3, 3); the first is the global orientation in camera axes
    betas: torch.Tensor  # (B, 10)
    weak_camera: torch.Tensor  # (B, 3) s > 0, tx, ty
    reliability: torch.Tensor  # (B, 12) of COCO 5..16: probability that the joint is right to RIGHT metres in 3D


class _ResidualBlock(nn.Module):
    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(dropout),
            nn.Linear(width, width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(dropout),
        )  # fmt: skip

    def forward(self, x):
        return x + self.layers(x)


class Lifter(nn.Module):
    """(B, FEATURE_COUNT) features → BodyParameters, in the features' turned axes. Buffers hold the training set's statistics.

    ``appearance``: use the landmark network's activations, not only what it says.
    """

    def __init__(self, width: int = 768, blocks: int = 2, dropout: float = 0.1, appearance: bool = True):
        super().__init__()
        self.inputs = FEATURE_COUNT if appearance else GEOMETRY_COUNT
        self.register_buffer("feature_mean", torch.zeros(FEATURE_COUNT))
        self.register_buffer("feature_std", torch.ones(FEATURE_COUNT))
        self.register_buffer("mean_rotations", torch.tensor([1.0, 0, 0, 0, 1, 0]).repeat(24, 1))  # 6D
        self.register_buffer("mean_camera", torch.tensor([0.0, 0, 0]))  # log s, tx, ty
        self.stem = nn.Sequential(nn.Linear(self.inputs, width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(dropout))
        self.blocks = nn.Sequential(*[_ResidualBlock(width, dropout) for _ in range(blocks)])
        self.head = nn.Linear(width, 24 * 6 + 10 + 3)
        self.reliability = nn.Sequential(
            nn.Linear(width + self.inputs, 256), nn.LayerNorm(256), nn.GELU(), nn.Dropout(0.3),
            nn.Linear(256, 64), nn.GELU(), nn.Linear(64, len(LIMB_KEYPOINTS)),
        )  # fmt: skip
        nn.init.normal_(self.head.weight, std=1e-3)
        nn.init.zeros_(self.head.bias)

    def forward(self, features: torch.Tensor) -> BodyParameters:
        x = self.normalized(features)
        hidden = self.blocks(self.stem(x))
        out = self.head(hidden)
        rotations = matrix_from_6d(out[:, :144].reshape(-1, 24, 6) + self.mean_rotations)
        camera = out[:, 154:] + self.mean_camera
        # Nothing flows back: reliability must not change what it judges.
        reliability = self.reliability(torch.cat([hidden, x], dim=1).detach()).sigmoid()
        return BodyParameters(rotations, out[:, 144:154], torch.cat([camera[:, :1].exp(), camera[:, 1:]], dim=1), reliability)

    def normalized(self, features: torch.Tensor) -> torch.Tensor:
        x = ((features - self.feature_mean) / self.feature_std).clamp(-6, 6)
        return x[:, : self.inputs]
