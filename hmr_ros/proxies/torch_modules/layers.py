"""What both detectors are built of: MobileNetV2's layers (Sandler et al. 2018), batch norms already folded into the convolutions."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


# Allowed difference of the detectors' outputs in fp16 and TF32 to float32 (runtime/parity.py). Between their layers stand values of up to 200,
# which fp16 rounds to 0.1: outputs move by up to 0.025, and keypoints by less than half a pixel of the network's input.
FP16 = 5e-2


def convolution(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=bias)


def depthwise(channels: int, kernel: int = 3, bias: bool = True) -> nn.Conv2d:
    return convolution(channels, channels, kernel, groups=channels, bias=bias)


def same_stride_2(inputs: int, outputs: int, groups: int = 1) -> nn.Sequential:
    """3 x 3 with stride 2 and TensorFlow's "SAME" padding, which for even sizes is one row below and one column on the right."""
    return nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(inputs, outputs, 3, 2, groups=groups))


def separable(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(depthwise(inputs), nn.ReLU6(), convolution(inputs, outputs), nn.ReLU6())


class InvertedResidual(nn.Module):
    """Expansion, the given depthwise convolution, projection; a shortcut where the input fits the output."""

    def __init__(self, inputs: int, outputs: int, middle: nn.Module, hidden: int, stride: int = 1):
        super().__init__()
        self.layers = nn.Sequential(convolution(inputs, hidden), nn.ReLU6(), middle, nn.ReLU6(), convolution(hidden, outputs))
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.shortcut else self.layers(x)


def twice_as_large(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
