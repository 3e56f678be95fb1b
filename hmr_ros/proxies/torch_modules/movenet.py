"""MoveNet MultiPose Lightning (Google): MobileNetV2, a feature pyramid, six heads as in CenterNet (Zhou et al. 2019), their decoding.

The decoding is a part of the published network: the six best centres; from each centre a first guess of its keypoints; near each guess
the maximum of the keypoint's heatmap. Its numbers are float16 in the model file, hence their digits.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hmr_ros.proxies.torch_modules.layers import FP16, InvertedResidual, convolution, depthwise, same_stride_2, twice_as_large
from hmr_ros.proxies.torch_modules.weights import read_weights

PEOPLE, KEYPOINTS = 6, 17
_SCALE = 0.007843017578125  # 2 / 255
_VARIANCE = 0.300048828125  # of the weight around a first guess, times the shorter side of the maps
_VISIBLE = 0.126953125  # keypoints above it make the person's score


class MoveNetMaps(NamedTuple):
    """At a quarter of the image's size, (N, channels, h, w); pairs are (y, x), in cells of the maps."""

    center: Tensor  # (N, 1, h, w) probability
    box_size: Tensor  # (N, 2, h, w)
    box_offset: Tensor  # (N, 2, h, w) of the box's centre from the cell
    heatmaps: Tensor  # (N, 17, h, w) probability
    first_guess: Tensor  # (N, 34, h, w) keypoints relative to the centre's cell
    offset: Tensor  # (N, 34, h, w) of a keypoint from its cell


class MoveNetTrunk(nn.Module):
    """The convolutions: image → `MoveNetMaps`. All that is dense, and all that may run in half precision."""

    tolerances = {"fp16": FP16, "tf32": FP16}

    def __init__(self):
        super().__init__()
        self.stride_4 = nn.Sequential(
            same_stride_2(3, 48), nn.ReLU6(), depthwise(48), nn.ReLU6(), convolution(48, 24), _block(24, 40, 144, stride=2), _block(40, 40)
        )
        self.lateral_4 = convolution(40, 24)
        self.stride_8 = nn.Sequential(_block(40, 48, stride=2), _block(48, 48), _block(48, 48))
        self.lateral_8 = convolution(48, 32)
        self.stride_16 = nn.Sequential(_block(48, 96, stride=2), *(_block(96, 96) for _ in range(3)))
        self.lateral_16 = convolution(96, 64)
        self.stride_32 = nn.Sequential(
            _block(96, 144), _block(144, 144), _block(144, 144),
            _block(144, 240, stride=2), _block(240, 240), _block(240, 240), _block(240, 480),
            convolution(480, 1280), nn.ReLU6(), convolution(1280, 64),
        )  # fmt: skip
        self.smooth_16, self.smooth_8, self.smooth_4 = _smooth(64, 32), _smooth(32, 24), _smooth(24, 24)
        self.center, self.box_size, self.box_offset = _head(1), _head(2), _head(2)
        self.heatmaps, self.first_guess, self.offset = _head(KEYPOINTS), _head(2 * KEYPOINTS), _head(2 * KEYPOINTS)

    def forward(self, image: Tensor) -> MoveNetMaps:
        """image (N, H, W, 3) RGB, float, 0..255, H and W multiples of 32."""
        stride_4 = self.stride_4(image.permute(0, 3, 1, 2) * _SCALE - 1)
        stride_8 = self.stride_8(stride_4)
        stride_16 = self.stride_16(stride_8)
        x = self.smooth_16(twice_as_large(self.stride_32(stride_16)) + self.lateral_16(stride_16))
        x = self.smooth_8(twice_as_large(x) + self.lateral_8(stride_8))
        x = self.smooth_4(twice_as_large(x) + self.lateral_4(stride_4))
        return MoveNetMaps(
            center=self.center(x).sigmoid(),
            box_size=self.box_size(x),
            box_offset=self.box_offset(x),
            heatmaps=self.heatmaps(x).sigmoid(),
            first_guess=self.first_guess(x),
            offset=self.offset(x),
        )


    @staticmethod
    def compared(outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The maps as two runs of the network are compared (runtime/parity.py): lengths relative to the maps' longer side."""
        center, box_size, box_offset, heatmaps, first_guess, offset = outputs
        side = max(center.shape[2:])
        return center, box_size / side, box_offset / side, heatmaps, first_guess / side, offset / side


class MoveNetMultiPose(nn.Module):
    """Image → people, what the model file computes, for any number of images."""

    def __init__(self):
        super().__init__()
        self.trunk = MoveNetTrunk()

    @classmethod
    def load(cls) -> MoveNetMultiPose:
        """With the weights of hmr_ros/assets/movenet_multipose.bin."""
        return read_weights(cls, "movenet_multipose")

    def forward(self, input: Tensor) -> Tensor:
        """input (N, H, W, 3) RGB, float, 0..255, H and W multiples of 32 → (N, 6, 56), best centre first: 17 x (y, x, score) in COCO-17
        order, then ymin, xmin, ymax, xmax, score, as fractions of the image's height and width."""
        return decode(self.trunk(input))


def decode(maps: MoveNetMaps) -> Tensor:
    """The people (N, 6, 56) of `MoveNetMultiPose`. In single precision at least: places are not to be rounded."""
    center, box_size, box_offset, heatmaps, first_guess, offset = (map.flatten(2) for map in maps)
    height, width = maps.center.shape[2:]
    rows, columns = (torch.arange(length, device=center.device, dtype=center.dtype) for length in (height, width))

    local_maximum = F.max_pool2d(maps.center, 5, 1, 2).flatten(2)
    peaks = torch.where((center - local_maximum).abs() < 1e-6, center, 0)
    center_score, place = peaks.topk(PEOPLE, dim=2)  # (N, 1, 6)
    center_score = center_score[:, 0]
    cell = torch.stack([place.div(width, rounding_mode="floor"), place.remainder(width)], dim=-1)  # (N, 1, 6, 2) of (y, x)

    middle = cell[:, 0] + _at(box_offset, place)[:, 0]  # (N, 6, 2)
    half = _at(box_size, place)[:, 0].relu() / 2
    near, far = (middle - half).transpose(1, 2), (middle + half).transpose(1, 2)  # (N, 2, 6)

    guess = cell + _at(first_guess, place)  # (N, 17, 6, 2)
    variance = _VARIANCE * (torch.minimum(rows[-1], columns[-1]) + 1)  # of the shorter side; a Python min() would be frozen by tracing
    down, across = (
        _closeness(guess[..., axis], near[:, None, axis], far[:, None, axis], cells, variance) for axis, cells in enumerate((rows, columns))
    )
    weights = down[..., :, None] * across[..., None, :]  # (N, 17, 6, h, w)
    found = (maps.heatmaps[:, :, None] * weights).flatten(3).argmax(3)  # (N, 17, 6)
    y, x = found.div(width, rounding_mode="floor"), found.remainder(width)
    keypoints = torch.stack([y, x], dim=-1) + _at(offset, found)  # (N, 17, 6, 2)
    # Confident is what lies near anybody's guess, not only near the own one.
    shared = (_of_everybody(down, y) * _of_everybody(across, x)).amax(2)
    score = heatmaps.gather(2, found) * shared  # (N, 17, 6)

    visible = torch.where(score > _VISIBLE, score, 0)
    person_score = center_score * visible.sum(1) / (score > _VISIBLE).sum(1).clamp(min=1)
    keypoints = torch.stack([keypoints[..., 0] / height, keypoints[..., 1] / width, score], dim=-1)
    corners = [(corner[:, axis] / length).clamp(0, 1) for corner in (near, far) for axis, length in enumerate((height, width))]
    return torch.cat([keypoints.transpose(1, 2).flatten(2), torch.stack([*corners, person_score], dim=-1)], dim=2)


def _closeness(guess: Tensor, near: Tensor, far: Tensor, cells: Tensor, variance: Tensor) -> Tensor:
    """Along one axis: Gaussian around the guesses (N, 17, 6), nothing outside the people's boxes (N, 1, 6) → (N, 17, 6, length)."""
    inside = (cells >= near[..., None]) & (cells < far[..., None])
    return torch.exp(-((cells - guess[..., None]) ** 2) / variance) * inside


def _at(map: Tensor, place: Tensor) -> Tensor:
    """Pairs (N, 2 K, h w) at places (N, K or 1, 6) → (N, K, 6, 2)."""
    pairs = map.unflatten(1, (-1, 2))  # (N, K, 2, h w)
    return pairs.gather(3, place[:, :, None].expand(-1, pairs.shape[1], 2, -1)).transpose(2, 3)


def _of_everybody(closeness: Tensor, cell: Tensor) -> Tensor:
    """Closeness (N, 17, 6, length) to everybody's guess, at everybody's cell (N, 17, 6) → (N, 17, 6 guesses, 6 cells)."""
    return closeness.gather(3, cell[:, :, None].expand(-1, -1, PEOPLE, -1))


def _block(inputs: int, outputs: int, hidden: int | None = None, stride: int = 1) -> InvertedResidual:
    hidden = hidden or 6 * inputs
    middle = same_stride_2(hidden, hidden, groups=hidden) if stride == 2 else depthwise(hidden)
    return InvertedResidual(inputs, outputs, middle, hidden, stride)


def _smooth(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(depthwise(inputs, bias=False), convolution(inputs, outputs), nn.ReLU())


def _head(outputs: int) -> nn.Sequential:
    return nn.Sequential(depthwise(24, bias=False), convolution(24, 96), nn.ReLU(), convolution(96, outputs))
