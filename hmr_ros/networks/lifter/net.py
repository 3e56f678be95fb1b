"""The lifter: a residual MLP from the proxies as a vector to pose, shape, weak-perspective camera and reliability.

After Martinez et al. 2017, "A simple yet effective baseline for 3d human pose estimation", with rotations as 6D
(Zhou et al. 2019) instead of joint positions; a few such networks are averaged. Some of them have an image-feature branch, a small
convolutional network (basic blocks of He et al. 2016) on BlazePose's feature map. The reliability is another, smaller network on the
same vector and on their outputs; it is trained afterwards, on people whom they have not seen (the calibration split).
"""

from __future__ import annotations

import torch
from torch import nn

from hmr_ros.geometry import matrix_from_6d
from hmr_ros.networks.blocks import BasicBlock, ResidualBlock
from hmr_ros.networks.lifter.features import FEATURE_COUNT, GEOMETRY_COUNT
from hmr_ros.networks.regressor import BodyParameters
from hmr_ros.proxies import FEATURE_MAP
from hmr_ros.skeleton import LIMB_KEYPOINTS


OUTPUTS = 24 * 6 + 10 + 3
BETAS = slice(24 * 6, 24 * 6 + 10)  # of the outputs
RIGHT = 0.1  # metres, relative to the hips' midpoint: within it a joint counts as correct (PCK@100 mm)


class _ImageFeatures(nn.Sequential):
    """The image-feature branch: feature maps (B, *FEATURE_MAP) → (B, COUNT)."""

    COUNT = 64 * 4 * 4

    def __init__(self, dropout: float):
        channels = FEATURE_MAP[0]
        super().__init__(
            nn.BatchNorm2d(channels, affine=False), nn.Dropout2d(dropout),
            BasicBlock(channels, 128, 2), BasicBlock(128, 128, 1), BasicBlock(128, 192, 2), BasicBlock(192, 192, 1),
            nn.Conv2d(192, 64, 1), nn.Flatten(),
        )  # fmt: skip


class _Member(nn.Sequential):
    """One residual MLP: features → 24 x 6 rotations, 10 betas, 3 of the camera, as differences from the mean. Without the branch."""

    def __init__(self, inputs: int, width: int, blocks: int, dropout: float):
        stem = nn.Linear(inputs, width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(dropout)
        head = nn.Linear(width, OUTPUTS)
        if not head.weight.is_meta:  # there it would import torch's compiler: a second
            nn.init.normal_(head.weight, std=1e-3)
        nn.init.zeros_(head.bias)
        super().__init__(*stem, *[ResidualBlock(width, dropout) for _ in range(blocks)], head)

    @property
    def head(self) -> nn.Linear:
        return self[-1]

    def forward(self, x, feature_map):
        return super().forward(x)


class _BranchedMember(nn.Module):
    """The same with the image-feature branch."""

    def __init__(self, inputs: int, width: int, blocks: int, dropout: float):
        super().__init__()
        self.branch = _ImageFeatures(dropout)
        self.mlp = _Member(inputs + _ImageFeatures.COUNT, width, blocks, dropout)

    @property
    def head(self) -> nn.Linear:
        return self.mlp.head

    def forward(self, x, feature_map):
        return self.mlp(torch.cat([x, self.branch(feature_map)], dim=1), feature_map)


class Lifter(nn.Module):
    """(B, FEATURE_COUNT) features and (B, *FEATURE_MAP) feature maps → BodyParameters, in the features' turned axes. Buffers hold
    the training set's statistics.

    ``members`` networks are averaged, the first ``image_features`` of which have the image-feature branch; their spread is an input of
    the reliability, beside the features. ``embedding``: BlazePose's embedding, the features' last part, is used.
    """

    bf16_on_a_cpu = True  # measured to cost no accuracy: docs/gpu.md

    def __init__(
        self, width: int = 640, blocks: int = 2, dropout: float = 0.1, members: int = 3, embedding: bool = True, image_features: int = 0
    ):
        super().__init__()
        self.inputs = FEATURE_COUNT if embedding else GEOMETRY_COUNT
        self.register_buffer("feature_mean", torch.zeros(FEATURE_COUNT))
        self.register_buffer("feature_std", torch.ones(FEATURE_COUNT))
        self.register_buffer("mean_rotations", torch.tensor([[1.0, 0, 0, 0, 1, 0]] * 24))  # 6D; not repeated, which imports sympy
        self.register_buffer("mean_camera", torch.tensor([0.0, 0, 0]))  # log s, tx, ty
        self.members = nn.ModuleList(
            (_BranchedMember if i < image_features else _Member)(self.inputs, width, blocks, dropout) for i in range(members)
        )
        self.reliability = nn.Sequential(
            nn.Linear(self.inputs + 2 * OUTPUTS, 256), nn.LayerNorm(256), nn.GELU(), nn.Dropout(0.3),
            nn.Linear(256, 64), nn.GELU(), nn.Linear(64, len(LIMB_KEYPOINTS)),
        )  # fmt: skip

    def forward(self, features: torch.Tensor, feature_map: torch.Tensor) -> BodyParameters:
        mean, evidence = self.outputs(features, feature_map)
        # No gradient flows back: reliability must not change the outputs that it rates.
        return BodyParameters(*self.parameters_of(mean), self.reliability(evidence.detach()).sigmoid())

    def outputs(self, features: torch.Tensor, feature_map: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The members' mean output (B, OUTPUTS), and the reliability's input: features, mean and spread."""
        x = self.normalized(features)
        outputs = torch.stack([member(x, feature_map) for member in self.members])
        mean = outputs.mean(0)
        spread = (outputs - mean).square().mean(0).sqrt()
        return mean, torch.cat([x, mean, 10 * spread], dim=1)

    def normalized(self, features: torch.Tensor) -> torch.Tensor:
        x = ((features - self.feature_mean) / self.feature_std).clamp(-6, 6)
        return x[:, : self.inputs]

    def parameters_of(self, output: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """A member's output (B, OUTPUTS) → rotations (B, 24, 3, 3), betas (B, 10), weak-perspective camera (B, 3)."""
        rotations = matrix_from_6d(output[:, :144].reshape(-1, 24, 6) + self.mean_rotations)
        camera = output[:, 154:] + self.mean_camera
        return rotations, output[:, BETAS], torch.cat([camera[:, :1].exp(), camera[:, 1:]], dim=1)
