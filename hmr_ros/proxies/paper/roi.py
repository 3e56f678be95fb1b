"""What lies between Keypoint R-CNN's networks, in torch: anchors, box deltas, suppression, RoIAlign, keypoints out of heatmaps.

The conventions and constants are torchvision's ``torchvision.models.detection`` and ``torchvision.ops``. Boxes are x0, y0, x1, y1 in pixels
of the network's input, whose left edge is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

ANCHOR_SIDES = (32, 64, 128, 256, 512)  # px, one a level
ASPECT_RATIOS = (0.5, 1.0, 2.0)  # height over width
LARGEST_LOG = float(np.log(1000 / 16))  # of a side over the anchor's
_SAMPLES = 2  # a cell and axis in RoIAlign
_AT_ONCE = 256  # RoIs: keeps the samples below 250 MB


@lru_cache(maxsize=8)
def anchors(height: int, width: int) -> tuple[Tensor, tuple[int, ...]]:
    """Of an input of this size: boxes (A, 4), rows, columns and aspect ratios of one level after the other, and the levels' counts."""
    boxes, counts = [], []
    ratios = torch.tensor(ASPECT_RATIOS).sqrt()
    for level, side in enumerate(ANCHOR_SIDES):
        rows, columns = (-(-edge // 2 ** (2 + level)) for edge in (height, width))  # the last level is every other cell of the one before
        stride_y, stride_x = height // rows, width // columns
        half = torch.stack([side / ratios, side * ratios], dim=1) / 2
        base = torch.cat([-half, half], dim=1).round()
        y, x = torch.meshgrid(torch.arange(rows) * stride_y, torch.arange(columns) * stride_x, indexing="ij")
        shift = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4)
        boxes.append((shift + base).reshape(-1, 4))
        counts.append(len(boxes[-1]))
    return torch.cat(boxes), tuple(counts)


def moved(boxes: Tensor, deltas: Tensor, weights: Sequence[float] = (1, 1, 1, 1)) -> Tensor:
    """Boxes (N, 4) changed by deltas (N, 4): shifts of the centre in sides, logarithms of the sides' factors, each over its weight."""
    sides = boxes[:, 2:] - boxes[:, :2]
    centre = boxes[:, :2] + sides / 2
    deltas = deltas / deltas.new_tensor(weights)
    centre = centre + deltas[:, :2] * sides
    half = deltas[:, 2:].clamp(max=LARGEST_LOG).exp() * sides / 2
    return torch.cat([centre - half, centre + half], dim=1)


def clipped(boxes: Tensor, height: int, width: int) -> Tensor:
    """To an image of this size."""
    return torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height, width, height]))


def large_enough(boxes: Tensor, side: float) -> Tensor:
    """(N,) bool: no side is shorter."""
    return (boxes[:, 2:] - boxes[:, :2] >= side).all(1)


def suppressed(boxes: Tensor, scores: Tensor, overlap: float) -> Tensor:
    """Greedy non-maximum suppression: indices of the boxes that stay, best first. Of two with a greater IoU the better one stays."""
    order = scores.argsort(descending=True, stable=True)
    boxes = boxes[order]
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    common = (torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - torch.maximum(boxes[:, None, :2], boxes[None, :, :2])).clamp(min=0).prod(2)
    over = (common / (area[:, None] + area[None] - common) > overlap).cpu().numpy()
    stays = np.ones(len(boxes), bool)
    for i in range(len(boxes)):
        if stays[i]:
            stays[i + 1 :] &= ~over[i, i + 1 :]
    return order[torch.from_numpy(stays).to(order.device)]


def pooled(features: Sequence[Tensor], boxes: Tensor, side: int) -> Tensor:
    """RoIAlign over the pyramid's levels of strides 4, 8, ...: features (C, H_i, W_i), boxes (N, 4) → (N, C, side, side).

    A box of 224 x 224 px is read from stride 16, one of twice the side a level higher (Lin et al. 2017, equation 1).
    """
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    level = (4 + (area.sqrt() / 224).log2() + 1e-6).floor().clamp(2, 5).long() - 2
    cells = features[0].new_zeros(len(boxes), features[0].shape[0], side, side)
    for i, feature in enumerate(features):
        for rows in filter(len, (level == i).nonzero()[:, 0].split(_AT_ONCE)):
            cells[rows] = _roi_align(feature, boxes[rows] / 2 ** (2 + i), side)
    return cells


def _roi_align(feature: Tensor, boxes: Tensor, side: int) -> Tensor:
    """One level, boxes in its cells: the mean of bilinear samples, two an axis and cell."""
    edges = feature.new_tensor([feature.shape[2], feature.shape[1]])
    step = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1) / side
    place = (torch.arange(side * _SAMPLES, device=feature.device) + 0.5) / _SAMPLES
    points = boxes[:, None, :2] + place[None, :, None] * step[:, None]  # (N, 2 side, 2)
    inside = (points >= -1) & (points <= edges)
    points = 2 * points.clamp(min=0).minimum(edges - 1) / (edges - 1).clamp(min=1) - 1
    x, y = points[..., 0], points[..., 1]
    grid = torch.stack([x[:, None, :].expand(-1, y.shape[1], -1), y[:, :, None].expand(-1, -1, x.shape[1])], dim=-1)
    samples = F.grid_sample(feature[None], grid.flatten(0, 1)[None], mode="bilinear", padding_mode="border", align_corners=True)
    samples = samples[0].unflatten(1, (len(boxes), y.shape[1])).transpose(0, 1)  # (N, C, 2 side, 2 side)
    samples = samples * (inside[:, None, None, :, 0] & inside[:, None, :, None, 1])
    return F.avg_pool2d(samples, _SAMPLES)


def keypoints_of(heatmaps: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Heatmaps (N, K, S, S) over boxes (N, 4) → places (N, K, 2) px and logits (N, K): the largest value at the image's resolution."""
    places, logits = heatmaps.new_zeros(*heatmaps.shape[:2], 2), heatmaps.new_zeros(heatmaps.shape[:2])
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)
    for i, (width, height) in enumerate(sides.ceil().int().tolist()):
        fine = F.interpolate(heatmaps[i : i + 1], size=(height, width), mode="bicubic", align_corners=False)[0].flatten(1)
        logits[i], best = fine.max(dim=1)
        cell = torch.stack([best % width, best // width], dim=1) + 0.5
        places[i] = cell * sides[i] / sides[i].ceil() + boxes[i, :2]
    return places, logits
