"""OpenCV's warps and resizes of batches on a device. Pixel centres are integers, as in OpenCV. Results are
not rounded to 8 bits."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def warp_affine(pictures: Tensor, to_picture: Tensor, size: int, mode: str = "bilinear") -> Tensor:
    """cv2.warpAffine with WARP_INVERSE_MAP and a border of zeros.

    pictures (N or 1, C, H, W) float; to_picture (N, 2, 3): from the result's pixels to the picture's. → (N, C, size, size).
    """
    height, width = pictures.shape[2:]
    at = torch.arange(size, dtype=torch.float32, device=pictures.device)
    v, u = torch.meshgrid(at, at, indexing="ij")
    pixels = torch.stack([u, v, torch.ones_like(u)], -1)  # (size, size, 3)
    places = torch.einsum("nij,vuj->nvui", to_picture.float(), pixels)
    grid = (2 * places + 1) / places.new_tensor([width, height]) - 1
    return F.grid_sample(pictures.expand(len(grid), -1, -1, -1), grid, mode=mode, padding_mode="zeros", align_corners=False)


def resize(picture: Tensor, height: int, width: int) -> Tensor:
    """cv2.resize of (H, W, C) float to (height, width, C): by area where it gets smaller, else bilinear."""
    shrink = height < picture.shape[0] or width < picture.shape[1]
    rows, columns = (_resampling(*lengths, shrink, picture.device) for lengths in ((picture.shape[0], height), (picture.shape[1], width)))
    return torch.einsum("yh,hxc->yxc", rows, torch.einsum("xw,hwc->hxc", columns, picture))


@lru_cache(maxsize=64)
def _resampling(source: int, target: int, shrink: bool, device: torch.device) -> Tensor:
    """(target, source): the weights of the source's pixels in each of the target's."""
    scale, at = source / target, np.arange(target)[:, None]
    pixels = np.arange(source)[None]
    if shrink:  # the share of each pixel in the interval that a pixel of the target covers
        weights = np.minimum(pixels + 1, (at + 1) * scale) - np.maximum(pixels, at * scale)
        weights = np.clip(weights, 0, None) / scale
    else:
        place = np.clip((at + 0.5) * scale - 0.5, 0, source - 1)
        weights = np.clip(1 - np.abs(pixels - place), 0, None)
    return torch.from_numpy(weights.astype(np.float32)).to(device)


def inverse(affine: np.ndarray) -> np.ndarray:
    """The inverse of affine maps (..., 2, 3)."""
    linear = np.linalg.inv(affine[..., :2].astype(np.float64))
    return np.concatenate([linear, -linear @ affine[..., 2:]], axis=-1)
