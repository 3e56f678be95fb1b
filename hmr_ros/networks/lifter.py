"""The light regressor: a residual MLP from the proxies as a vector to pose, shape and weak camera.

After Martinez et al. 2017, "A simple yet effective baseline for 3d human pose estimation", with rotations as 6D
(Zhou et al. 2019) instead of joint positions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from hmr_ros.geometry import matrix_from_6d
from hmr_ros.networks.features import FEATURE_COUNT


class BodyParameters(NamedTuple):
    rotations: torch.Tensor  # (B, 24, 3, 3); the first is the global orientation in camera axes
    betas: torch.Tensor  # (B, 10)
    weak_camera: torch.Tensor  # (B, 3) s > 0, tx, ty


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
    """(B, FEATURE_COUNT) features → BodyParameters. Buffers hold the training set's statistics."""

    def __init__(self, width: int = 768, blocks: int = 2, dropout: float = 0.1):
        super().__init__()
        self.register_buffer("feature_mean", torch.zeros(FEATURE_COUNT))
        self.register_buffer("feature_std", torch.ones(FEATURE_COUNT))
        self.register_buffer("mean_rotations", torch.tensor([1.0, 0, 0, 0, 1, 0]).repeat(24, 1))  # 6D
        self.register_buffer("mean_camera", torch.tensor([0.0, 0, 0]))  # log s, tx, ty
        self.stem = nn.Sequential(nn.Linear(FEATURE_COUNT, width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(dropout))
        self.blocks = nn.Sequential(*[_ResidualBlock(width, dropout) for _ in range(blocks)])
        self.head = nn.Linear(width, 24 * 6 + 10 + 3)
        nn.init.normal_(self.head.weight, std=1e-3)
        nn.init.zeros_(self.head.bias)

    def forward(self, features: torch.Tensor) -> BodyParameters:
        x = ((features - self.feature_mean) / self.feature_std).clamp(-6, 6)
        out = self.head(self.blocks(self.stem(x)))
        rotations = matrix_from_6d(out[:, :144].reshape(-1, 24, 6) + self.mean_rotations)
        camera = out[:, 154:] + self.mean_camera
        return BodyParameters(rotations, out[:, 144:154], torch.cat([camera[:, :1].exp(), camera[:, 1:]], dim=1))
