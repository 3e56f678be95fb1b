"""The paper's regressor's input: people's joints and depth maps, as they stand in proxies shards too, and depth read from maps."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from hmr_ros.geometry import to_crop
from hmr_ros.proxies import PersonProxies

DEPTH_SCALE = 0.5  # metres that become 1 at a network's input, about the median [open in the paper]
MAP_SIZE = 64  # px: side of masks and depth maps in shards, where a preset asks for nothing else


def person_maps(people: Sequence[PersonProxies], size: int = MAP_SIZE) -> tuple[np.ndarray, np.ndarray]:
    """joints (N, 17, 3) as :func:`joints_in_crop`, and trimmed depth (N, size, size) metres, 0 = unknown."""
    joints = np.stack([joints_in_crop(person.keypoints, person.crop, person.confident) for person in people])
    return joints, np.stack([resized(person.depth, size) for person in people])


def device_maps(people: Sequence[PersonProxies], size: int) -> tuple[Tensor, Tensor]:
    """The same as tensors, of people whose depth is on a device."""
    joints = np.stack([joints_in_crop(person.keypoints, person.crop, person.confident) for person in people])
    depth = torch.stack([person.tensors.depth for person in people]).float()
    nearest = torch.arange(size, device=depth.device) * depth.shape[-1] // size  # as cv2.INTER_NEAREST
    return torch.from_numpy(joints).to(depth.device), depth[:, nearest][:, :, nearest]


def joints_in_crop(keypoints: np.ndarray, crops: np.ndarray, confident: float) -> np.ndarray:
    """(..., 17, 3) pixels and confidence, crops (..., 3) → x, y in crop coordinates, confidence; zeros where it is not above
    ``confident``."""
    confidence = keypoints[..., 2:]
    confidence = np.where(confidence > confident, np.clip(confidence, 0, 1), 0)
    return np.concatenate([to_crop(keypoints[..., :2], crops) * (confidence > 0), confidence], axis=-1).astype(np.float32)


def resized(depth: np.ndarray, size: int) -> np.ndarray:
    """(S, S) → (size, size), nearest pixel: unknown (0) must not blend with known."""
    return cv2.resize(depth.astype(np.float32), (size, size), interpolation=cv2.INTER_NEAREST)


def read_depth(points: Tensor, depth: Tensor) -> Tensor:
    """Depth at points (N, P, 2) in crop coordinates, nearest pixel; 0 outside the map, and where a point is no number.
    depth (N, S, S) → (N, P)."""
    size = depth.shape[-1]
    pixel = ((points + 1) * size / 2 - 0.5).round()
    inside = ((pixel >= 0) & (pixel < size)).all(-1)
    column, row = torch.where(inside[..., None], pixel, torch.zeros_like(pixel)).long().unbind(-1)
    return depth.flatten(1).gather(1, row * size + column) * inside


def depth_at_joints(joints: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
    """Depth (B, K) at joints (B, K, 3) in crop coordinates, and whether it is known; joints without confidence are not."""
    values = read_depth(joints[..., :2], depth)
    known = (values > 0) & (joints[..., 2] > 0)
    return torch.where(known, values, torch.zeros_like(values)), known


def centred_depth(depth: Tensor) -> Tensor:
    """Depth as the network sees it (B, H, W): relative to the median of the valid pixels, in units of ``DEPTH_SCALE``, within
    ±3; 0 where unknown."""
    flat = depth.flatten(1)
    valid = flat > 0
    count = valid.sum(1, keepdim=True)
    ordered = torch.where(valid, flat, torch.full_like(flat, 1e6)).sort(dim=1).values
    median = ordered.gather(1, ((count - 1).clamp(min=0)) // 2)
    return torch.where(valid, ((flat - median) / DEPTH_SCALE).clamp(-3, 3), torch.zeros_like(flat)).reshape(depth.shape)
