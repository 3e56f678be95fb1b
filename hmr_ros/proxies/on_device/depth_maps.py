"""Depth maps of all people at once, on their device: what proxies/depth.py computes for one on the CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hmr_ros.proxies.depth import FIRST, LAST, RELATIVE_ORIGIN, SEGMENTS, TORSO, along_bones
from hmr_ros.proxies.on_device.warps import warp_affine


def coarse_depths(points: Tensor, world: Tensor, confidence: Tensor, masks: Tensor) -> Tensor:
    """``proxies.depth.coarse_depth`` of N people.

    points (N, 33, 2) BlazePose landmarks in mask pixels; world (N, 33, 3) metres; confidence (N, 33); masks (N, S, S) probability.
    → (N, S, S) metres, hips at ``RELATIVE_ORIGIN``, 0 outside.
    """
    size = masks.shape[-1]
    step = max(1, size // 64)
    inside = masks > 0.5
    spread = points.std(1, correction=0).norm(dim=-1) / world[..., :2].std(1, correction=0).norm(dim=-1).clamp(min=1e-3)  # px a metre
    first, last, radii = (masks.new_tensor(values) for values in zip(*SEGMENTS))
    first, last = first.long(), last.long()
    a, b = points[:, None, first], points[:, None, last]  # (N, 1, 19, 2)
    az, bz = world[:, None, first, 2], world[:, None, last, 2]
    weight = torch.minimum(confidence[:, first], confidence[:, last])[:, None]
    at = torch.arange(0, size, step, device=masks.device, dtype=points.dtype)
    v, u = torch.meshgrid(at, at, indexing="ij")
    pixels = torch.stack([u, v], -1).reshape(1, -1, 1, 2)
    along = b - a
    t = (((pixels - a) * along).sum(-1) / along.square().sum(-1).clamp(min=1e-6)).clamp(0, 1)  # (N, P, 19)
    off = (pixels - a - t[..., None] * along).norm(dim=-1) / (radii * spread[:, None, None]).clamp(min=1)
    weight = (weight + 1e-3) / (off + 0.2) ** 4
    bulge = radii * (1 - off.square()).clamp(min=0).sqrt()
    depth = (weight * (az + t * (bz - az) - bulge)).sum(-1) / weight.sum(-1)
    near = F.max_pool2d(F.pad(inside.float(), 2 * (step // 2, step - 1 - step // 2)), step, 1)[:, ::step, ::step]  # as cv2.dilate
    coarse = torch.where(near > 0, RELATIVE_ORIGIN + depth.unflatten(1, (len(at), len(at))), 0)
    whole = coarse.repeat_interleave(step, 1).repeat_interleave(step, 2)[:, :size, :size]
    return torch.where(inside, whole, 0)


def sensor_depths(depth: Tensor, to_image: Tensor, masks: Tensor) -> Tensor:
    """``proxies.depth.sensor_depth`` of N people: depth (H, W) metres, 0 or non-finite = unknown; to_image (N, 2, 3) from the crops' pixels;
    masks (N, S, S). → (N, S, S) metres."""
    known = torch.nan_to_num(depth.float(), nan=0.0, posinf=0.0, neginf=0.0)
    pictures = warp_affine(known[None, None], to_image, masks.shape[-1], mode="nearest")[:, 0]
    outside = F.max_pool2d((masks <= 0.5).float(), 3, 1, 1)  # eroded by a pixel
    return torch.where((outside == 0) & (pictures > 0), pictures, 0)


def depths_along_bones(joints: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
    """``proxies.depth.depth_along_bones`` of N people: joints (N, 17, 3) crop coordinates and confidence, depth (N, S, S) → values and
    validity (N, 12, 5)."""
    size = depth.shape[-1]
    pixel = ((along_bones(joints[..., :2]) + 1) * size / 2 - 0.5).round()
    seen = (joints[:, FIRST, 2] > 0) & (joints[:, LAST, 2] > 0)
    inside = ((pixel >= 0) & (pixel < size)).all(-1) & seen[..., None]
    u, v = pixel.clamp(0, size - 1).long().unbind(-1)
    values = depth.flatten(1).gather(1, (v * size + u).flatten(1)).reshape(u.shape)
    valid = inside & (values > 0)
    median, count = _median(values[:, TORSO].flatten(1), valid[:, TORSO].flatten(1))
    valid = valid & (count > 0)[:, None, None]
    return torch.where(valid, (values - median[:, None, None]).clamp(-1.5, 1.5), 0), valid.to(values.dtype)


def _median(values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Median of the valid values of each row (N, K), the mean of the middle two, and their number (N,)."""
    count = valid.sum(1)
    ordered = torch.where(valid, values, torch.inf).sort(1).values
    middle = [(count - 1).clamp(min=0) // 2, count // 2]
    low, high = (ordered.gather(1, place.clamp(max=values.shape[1] - 1)[:, None])[:, 0] for place in middle)
    return torch.where(count > 0, (low + high) / 2, 0), count
