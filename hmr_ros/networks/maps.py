"""The paper's regressor's input: people's joints and depth maps, as they stand in proxies shards too, and depth read from maps."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from hmr_ros.geometry import to_crop
from hmr_ros.proxies import CONFIDENT, PersonProxies

MAP_SIZE = 64  # side of masks and depth maps in shards, and of the depth that a regressor gets


def person_maps(people: Sequence[PersonProxies]) -> tuple[np.ndarray, np.ndarray]:
    """joints (N, 17, 3) as :func:`joints_in_crop`, and trimmed depth (N, MAP_SIZE, MAP_SIZE) metres, 0 = unknown."""
    keypoints, crops = (np.stack([getattr(person, name) for person in people]) for name in ("keypoints", "crop"))
    return joints_in_crop(keypoints, crops), np.stack([shrunk(person.depth) for person in people])


def joints_in_crop(keypoints: np.ndarray, crops: np.ndarray) -> np.ndarray:
    """(N, 17, 3) pixels and confidence, crops (N, 3) → x, y in crop coordinates, confidence; zeros where it is too low."""
    confidence = keypoints[..., 2:]
    confidence = np.where(confidence > CONFIDENT, np.clip(confidence, 0, 1), 0)
    return np.concatenate([to_crop(keypoints[..., :2], crops) * (confidence > 0), confidence], axis=-1).astype(np.float32)


def shrunk(depth: np.ndarray) -> np.ndarray:
    """(S, S) → (MAP_SIZE, MAP_SIZE), nearest pixel: unknown (0) must not blend with known."""
    return cv2.resize(depth.astype(np.float32), (MAP_SIZE, MAP_SIZE), interpolation=cv2.INTER_NEAREST)


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
