"""BlazePose full (Bazarevsky et al. 2020; GHUM landmarks, Google): an encoder of inverted residuals; from its last map the landmarks, by
way of the embedding; from all of its maps heatmaps and the person's mask."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hmr_ros.proxies.torch_modules.layers import FP16, InvertedResidual, convolution, depthwise, separable, twice_as_large
from hmr_ros.proxies.torch_modules.weights import read_weights


class BlazePoseOutputs(NamedTuple):
    """The model file's outputs in its order, then the two inner activations that the lifter reads."""

    landmarks: Tensor  # (N, 195) 39 x (x, y, z in pixels of the RoI; logits of visibility and presence)
    presence: Tensor  # (N, 1) probability that there is a person
    mask: Tensor  # (N, 256, 256, 1) logits
    heatmaps: Tensor  # (N, 64, 64, 39) logits
    world: Tensor  # (N, 117) 39 x (x, y, z) metres about the hips
    embedding: Tensor  # (N, 288, 2, 2)
    feature_map: Tensor  # (N, 88, 16, 16)


class BlazePoseNet(nn.Module):
    """RoI → `BlazePoseOutputs`, what the model file computes, for any number of RoIs."""

    # Not the embedding and the heads, which are small and tell places: in fp16 they would double the error of the landmarks.
    reduced_precision = (
        "stride_2", "stride_4", "stride_8", "stride_16", "stride_32", "lateral_32", "lateral_16", "lateral_8", "lateral_4", "mask_4", "mask_2",
        "refine_2", "refine_1", "mask",
    )  # fmt: skip
    tolerances = {"fp16": FP16, "tf32": FP16}

    def __init__(self):
        super().__init__()
        self.stride_2 = nn.Sequential(convolution(3, 24, 3, 2), nn.ReLU6(), depthwise(24), nn.ReLU6(), convolution(24, 16))
        self.stride_4 = nn.Sequential(_block(16, 24, 64, stride=2), _block(24, 24, 144))
        self.stride_8 = nn.Sequential(_block(24, 32, 144, 5, 2), _block(32, 32, 192, 5))
        self.stride_16 = nn.Sequential(
            _block(32, 64, 192, stride=2), _block(64, 64, 384), _block(64, 64, 384),
            _block(64, 88, 384, 5), _block(88, 88, 528, 5), _block(88, 88, 528, 5),
        )  # fmt: skip
        self.stride_32 = nn.Sequential(
            _block(88, 144, 528, 5, 2), *(_block(144, 144, 864, 5) for _ in range(3)),
            convolution(144, 864), nn.ReLU6(), depthwise(864), nn.ReLU6(),
        )  # fmt: skip
        self.lateral_32, self.lateral_16 = separable(864, 48), separable(88, 48)
        self.lateral_8, self.lateral_4 = separable(32, 48), separable(24, 48)
        self.heatmaps = convolution(48, 39)
        self.mask_4, self.mask_2 = separable(48, 8), separable(16, 8)
        self.refine_2 = nn.Sequential(_Residual(8), _Residual(8))
        self.refine_1 = nn.Sequential(_Residual(8), _Residual(8))
        self.mask = convolution(8, 1, 3)
        self.embedding = nn.Sequential(
            separable(864, 288),
            _Residual(288, stride=2), *(_Residual(288) for _ in range(4)),
            _Residual(288, stride=2), *(_Residual(288) for _ in range(5)),
        )  # fmt: skip
        self.landmarks, self.world, self.presence = nn.Conv2d(288, 195, 2), nn.Conv2d(288, 117, 2), nn.Conv2d(288, 1, 2)

    @classmethod
    def load(cls) -> BlazePoseNet:
        """With the weights of hmr_ros/assets/pose_landmark_full.tflite."""
        return read_weights(cls, "pose_landmark_full")

    def forward(self, input_1: Tensor) -> BlazePoseOutputs:
        """input_1 (N, 256, 256, 3) RGB, float, 0..1."""
        stride_2 = self.stride_2(input_1.permute(0, 3, 1, 2))
        stride_4 = self.stride_4(stride_2)
        stride_8 = self.stride_8(stride_4)
        stride_16 = self.stride_16(stride_8)
        stride_32 = self.stride_32(stride_16)
        embedding = self.embedding(stride_32)
        x = twice_as_large(self.lateral_32(stride_32)) + self.lateral_16(stride_16)
        x = twice_as_large(x) + self.lateral_8(stride_8)
        x = twice_as_large(x) + self.lateral_4(stride_4)
        heatmaps = self.heatmaps(x)
        mask = twice_as_large(self.refine_2(twice_as_large(self.mask_4(x)) + self.mask_2(stride_2)))
        return BlazePoseOutputs(
            landmarks=self.landmarks(embedding).flatten(1),
            presence=self.presence(embedding).flatten(1).sigmoid(),
            mask=self.mask(self.refine_1(mask)).permute(0, 2, 3, 1),
            heatmaps=heatmaps.permute(0, 2, 3, 1),
            world=self.world(embedding).flatten(1),
            embedding=embedding,
            feature_map=stride_16,
        )


    @staticmethod
    def compared(outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The outputs as two runs of the network are compared (runtime/parity.py): places relative to the RoI's side, logits as
        probabilities, the mask in cells of 8 x 8 px, since logits of up to 1,600 flip single pixels of its border, and the embedding
        relative to its range, that of ReLU6."""
        landmarks, presence, mask, heatmaps, world, embedding, feature_map = outputs
        landmarks = landmarks.unflatten(1, (39, 5))
        landmarks = torch.cat([landmarks[..., :3] / 256, landmarks[..., 3:].sigmoid()], dim=-1)
        mask = F.avg_pool2d(mask.sigmoid().permute(0, 3, 1, 2), 8)
        return landmarks, presence, mask, heatmaps.sigmoid(), world, embedding / 6, feature_map


class _Residual(nn.Module):
    """Depthwise and pointwise convolution beside a shortcut; with stride 2 both halve the size ("SAME" padding: below and on the right)."""

    def __init__(self, channels: int, stride: int = 1):
        super().__init__()
        self.stride = stride
        first = depthwise(channels) if stride == 1 else nn.Conv2d(channels, channels, 3, 2, groups=channels)
        self.layers = nn.Sequential(first, nn.ReLU6(), convolution(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            return F.relu6(x + self.layers(x))
        return F.relu6(F.max_pool2d(x, 2) + self.layers(F.pad(x, (0, 1, 0, 1))))


def _block(inputs: int, outputs: int, hidden: int, kernel: int = 3, stride: int = 1) -> InvertedResidual:
    return InvertedResidual(inputs, outputs, convolution(hidden, hidden, kernel, stride, groups=hidden), hidden, stride)
