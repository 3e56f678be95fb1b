"""Proxies out of shards as tensors for self-supervised training, trimmed by T_IQR, and faults of a stated kind added to them.

Opens proxies shards only, never the truth that may lie beside them. Faults are for experiments: rendered people are detected
better than the people of the paper's pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hmr_ros.networks.paper.maps import joints_in_crop
from hmr_ros.proxies import registry
from hmr_ros.proxies.depth import trim_depth
from hmr_ros.skeleton import COCO_MIRROR, LIMB_KEYPOINTS
from hmr_ros.training.data import shard_work, shards

DepthSource = Literal["depth", "sensor_depth"]
CHANGED = 1e-3  # metres: a pixel moved by more than float16's rounding was trimmed


@dataclass(frozen=True)
class ProxyData:
    """N people; what a batch is made of."""

    joints: Tensor  # (N, 17, 3) x, y in crop coordinates, confidence; 0 where too low to count
    depth: Tensor  # (N, S, S) float16 metres, 0 = unknown

    def __len__(self) -> int:
        return len(self.joints)

    def __getitem__(self, rows) -> ProxyData:
        return ProxyData(self.joints[rows], self.depth[rows].float())


@dataclass(frozen=True)
class Corruption:
    """Faults added to everybody's proxies, once and for all: the same seed, the same faults."""

    blobs: float = 0.0
    """Share of people with a round part of their depth 0.2 to 0.5 m off."""
    outliers: float = 0.0
    """Share of people with a part of their depth 1.5 to 8 m behind: what T_IQR is made for."""
    displaced: float = 0.0
    """Share of limb joints displaced by about a fifth of the person's size, confidence unchanged."""
    swapped: float = 0.0
    """Share of people whose left and right arms, or legs, are exchanged."""
    seed: int = 0


HARSH = Corruption(blobs=0.5, outliers=0.5, displaced=0.1, swapped=0.1)


def load(folders: Sequence[Path], depth: DepthSource = "depth") -> ProxyData:
    """Everybody in the proxies shards of several folders, in order, untrimmed beyond what the extractor did.

    Raises FileNotFoundError where a folder has no shards, ValueError where it has nobody or not this depth, or there
    is no folder.
    """
    if not folders:
        raise ValueError("nobody to learn from: name folders of proxies shards as --data; `hmr-ros extract` makes them")
    parts = []
    for folder in folders:
        rows = shards.load_proxies(folder)
        if "keypoints" not in rows:
            raise ValueError(f"{folder} holds nobody: the detectors found no person in its pictures")
        if depth not in rows:
            raise ValueError(f"{folder} has no {depth!r}, expected one of {[n for n in ('depth', 'sensor_depth') if n in rows]}")
        parts.append(of_rows(rows, depth, shard_work.extractor_of(folder)))
    return ProxyData(*(torch.cat([getattr(part, name) for part in parts]) for name in ("joints", "depth")))


def of_rows(rows: dict[str, np.ndarray], depth: DepthSource = "depth", extractor: dict | None = None) -> ProxyData:
    """People of ``shards.load_proxies``; ``extractor``: the identity that they were recorded with, if any."""
    joints = joints_in_crop(rows["keypoints"], rows["crop"], registry.confident(extractor))
    return ProxyData(torch.from_numpy(joints), torch.from_numpy(np.ascontiguousarray(rows[depth], np.float16)))


def trimmed(data: ProxyData) -> tuple[ProxyData, float]:
    """Every depth map trimmed by T_IQR (equations 1-3), and the share of its valid pixels that changed."""
    maps, changed, valid = [], 0, 0
    for part in data.depth.split(1024):
        before = part.float()
        after = trim_depth(before)
        changed += int(((after - before).abs() > CHANGED).sum())
        valid += int((before > 0).sum())
        maps.append(after.half())
    return replace(data, depth=torch.cat(maps)), changed / max(valid, 1)


def corrupt(data: ProxyData, faults: Corruption) -> ProxyData:
    """``data`` with faults; what is not asked for stays bit for bit."""
    if faults == Corruption(seed=faults.seed):
        return data
    rng = np.random.default_rng(faults.seed)
    joints, depth = data.joints.numpy().copy(), data.depth.numpy().copy()
    size = depth.shape[-1]
    rows, columns = np.mgrid[:size, :size]
    kinds = {"blobs": (0.2, 0.5, 0.10, 0.22), "outliers": (1.5, 8.0, 0.05, 0.12)}  # metres, radius over the side
    for kind, (low, high, small, large) in kinds.items():
        for i in np.flatnonzero(rng.random(len(data)) < getattr(faults, kind)):
            seen = np.argwhere(depth[i] > 0)
            if len(seen):
                row, column = seen[rng.integers(len(seen))]
                inside = np.hypot(rows - row, columns - column) < size * rng.uniform(small, large)
                sign = rng.choice([-1, 1]) if kind == "blobs" else 1
                moved = np.maximum(depth[i] + sign * rng.uniform(low, high), 0.1)
                depth[i] = np.where(inside & (depth[i] > 0), moved, depth[i])
    limbs = np.zeros(17, bool)
    limbs[list(LIMB_KEYPOINTS)] = True
    off = (rng.random(joints.shape[:2]) < faults.displaced) & limbs & (joints[..., 2] > 0)
    joints[..., :2] += off[..., None] * rng.normal(0, 0.3, (*joints.shape[:2], 2)).astype(np.float32)
    exchanged = rng.random(len(data)) < faults.swapped
    legs = rng.random(len(data)) < 0.5
    for limb, who in (((7, 8, 9, 10), exchanged & ~legs), ((13, 14, 15, 16), exchanged & legs)):
        mirrored = [COCO_MIRROR[joint] for joint in limb]
        joints[np.ix_(who, limb)] = joints[np.ix_(who, mirrored)]
    return ProxyData(torch.from_numpy(joints), torch.from_numpy(depth))


def mirrored(data: ProxyData, which: Tensor) -> ProxyData:
    """Those people (N,) bool as a mirror shows them."""
    flip = torch.tensor([-1.0, 1, 1])
    joints = torch.where(which[:, None, None], (data.joints * flip)[:, list(COCO_MIRROR)], data.joints)
    return ProxyData(joints, torch.where(which[:, None, None], data.depth.flip(-1), data.depth))


