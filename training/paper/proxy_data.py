"""Proxies out of shards as tensors for self-supervised training, trimmed by T_IQR, with corruptions of a stated kind.

Opens proxies shards only, never the truth that may lie beside them. Joints are held in memory, depth maps stay on disk and are read
batch by batch. Corruptions are for experiments: rendered people are detected better than the people of the paper's pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from hmr_ros.geometry import mirror_joints
from hmr_ros.networks.paper.maps import joints_in_crop
from hmr_ros.proxies import registry
from hmr_ros.proxies.depth import trim_depth
from hmr_ros.skeleton import COCO_MIRROR, LIMB_KEYPOINTS
from hmr_ros.training.data import shard_work, shards
from hmr_ros.training.data.mapped import Rows, RowWriter
from hmr_ros.training.processes import everyones, own_part

if TYPE_CHECKING:
    from lightning_fabric import Fabric

DepthKind = Literal["depth", "sensor_depth"]
CHANGED = 1e-3  # metres: a pixel moved by more than float16's rounding was trimmed
_PIXELS = 1 << 20  # of the depth maps that are trimmed at once


@dataclass(frozen=True)
class ProxyData:
    """N people; what a batch is made of."""

    joints: Tensor  # (N, 17, 3) x, y in crop coordinates, confidence; 0 where too low to count
    depth: Tensor | Rows | Corrupted  # (N, S, S) float16 metres, 0 = unknown; in memory or on disk

    def __len__(self) -> int:
        return len(self.joints)

    def __getitem__(self, rows) -> ProxyData:
        return ProxyData(self.joints[rows], torch.as_tensor(self.depth[rows]).float())

    @property
    def size(self) -> int:
        """Side of the depth maps."""
        return self.depth.shape[-1]


@dataclass(frozen=True)
class Corruption:
    """Corruptions of every person's proxies: the same seed, the same corruptions."""

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


def load(folders: Sequence[Path], depth: DepthKind = "depth") -> ProxyData:
    """All people in the proxies shards of several folders, in order, untrimmed beyond what the extractor did; depth stays on disk.

    Raises FileNotFoundError where a folder has no shards, ValueError where it has nobody or not this depth, or there
    is no folder, or their depth maps are of different sizes.
    """
    if not folders:
        raise ValueError("nobody to learn from: name folders of proxies shards as --data; `hmr-ros extract` makes them")
    joints, maps = [], {}
    for folder in folders:
        rows = shards.open_proxies(folder, ("keypoints", "crop", depth))
        if "keypoints" not in rows:
            raise ValueError(f"{folder} holds nobody: the detectors found no person in its pictures")
        if depth not in rows:
            known = [name for name in ("depth", "sensor_depth") if name in shards.open_proxies(folder)]
            raise ValueError(f"{folder} has no {depth!r}, expected one of {known}")
        confident = registry.confident(shard_work.extractor_of(folder))
        joints.append(joints_in_crop(np.asarray(rows["keypoints"]), np.asarray(rows["crop"]), confident))
        maps[folder] = rows[depth]
    sizes = {str(folder): rows.shape[-1] for folder, rows in maps.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"depth maps of --data are {sizes} pixels wide, expected the same everywhere; extract with one --depth-size")
    parts = (part for rows in maps.values() for part in rows.parts)
    return ProxyData(torch.from_numpy(np.concatenate(joints)), Rows(parts))


def of_rows(rows: dict[str, np.ndarray], depth: DepthKind = "depth", extractor: dict | None = None) -> ProxyData:
    """People of ``shards.load_proxies``, in memory; ``extractor``: the identity that they were recorded with, if any."""
    joints = joints_in_crop(rows["keypoints"], rows["crop"], registry.confident(extractor))
    return ProxyData(torch.from_numpy(joints), torch.from_numpy(np.ascontiguousarray(rows[depth], np.float16)))


def trimmed(data: ProxyData, folder: Path | None = None, fabric: Fabric | None = None) -> tuple[ProxyData, float]:
    """Every depth map trimmed by T_IQR (equations 1-3), and the share of its valid pixels that changed. Trimmed maps are held in
    memory, or in a file in ``folder`` that is gone with the process. Processes of a ``fabric`` trim a part each, and share the folder."""
    writer, changed, valid, own = RowWriter(folder, fabric), 0, 0, own_part(len(data), fabric)
    for rows in torch.arange(own.start, own.stop).split(max(1, _PIXELS // data.size**2)):
        before = data[rows].depth
        after = trim_depth(before)
        changed += int(((after - before).abs() > CHANGED).sum())
        valid += int((before > 0).sum())
        writer.append(depth=after.half().numpy())
    depth = writer.rows()["depth"]
    changed, valid = map(sum, zip(*everyones((changed, valid), fabric)))
    return replace(data, depth=torch.from_numpy(np.asarray(depth)) if folder is None else depth), changed / max(valid, 1)


class Corrupted:
    """Depth maps (N, S, S) of which some people's are changed when they are read."""

    def __init__(self, depth: Tensor | Rows):
        self.depth, self.shape = depth, depth.shape
        self.changes: dict[int, list[tuple]] = {}  # person → centre (row, column), radius and shift in metres of round parts
        self._rows, self._columns = np.mgrid[: self.shape[-1], : self.shape[-1]]

    def __len__(self) -> int:
        return len(self.depth)

    def __getitem__(self, people) -> np.ndarray:
        people = np.arange(len(self))[people if isinstance(people, slice) else np.asarray(people)]
        maps = np.asarray(self.depth[people]).copy()
        for depth, person in zip(maps, people.tolist()):
            for row, column, radius, shift in self.changes.get(person, ()):
                inside = np.hypot(self._rows - row, self._columns - column) < radius
                depth[...] = np.where(inside & (depth > 0), np.maximum(depth + shift, 0.1), depth)
        return maps


def corrupt(data: ProxyData, corruption: Corruption) -> ProxyData:
    """``data`` with corruptions; what is not asked for stays bit for bit. Depth on disk stays there."""
    if corruption == Corruption(seed=corruption.seed):
        return data
    rng = np.random.default_rng(corruption.seed)
    joints, depth = data.joints.numpy().copy(), Corrupted(data.depth)
    kinds = {"blobs": (0.2, 0.5, 0.10, 0.22), "outliers": (1.5, 8.0, 0.05, 0.12)}  # metres, radius over the side
    for kind, (low, high, small, large) in kinds.items():
        for i in np.flatnonzero(rng.random(len(data)) < getattr(corruption, kind)).tolist():
            seen = np.argwhere(np.asarray(data.depth[i]) > 0)
            if len(seen):
                row, column = seen[rng.integers(len(seen))]
                radius = data.size * rng.uniform(small, large)
                sign = rng.choice([-1, 1]) if kind == "blobs" else 1
                depth.changes.setdefault(i, []).append((row, column, radius, sign * rng.uniform(low, high)))
    limbs = np.zeros(17, bool)
    limbs[list(LIMB_KEYPOINTS)] = True
    off = (rng.random(joints.shape[:2]) < corruption.displaced) & limbs & (joints[..., 2] > 0)
    joints[..., :2] += off[..., None] * rng.normal(0, 0.3, (*joints.shape[:2], 2)).astype(np.float32)
    exchanged = rng.random(len(data)) < corruption.swapped
    legs = rng.random(len(data)) < 0.5
    for limb, who in (((7, 8, 9, 10), exchanged & ~legs), ((13, 14, 15, 16), exchanged & legs)):
        mirrored = [COCO_MIRROR[joint] for joint in limb]
        joints[np.ix_(who, limb)] = joints[np.ix_(who, mirrored)]
    return ProxyData(torch.from_numpy(joints), depth if isinstance(data.depth, Rows) else torch.from_numpy(depth[:]))


def mirrored(data: ProxyData, which: Tensor) -> ProxyData:
    """Those people (N,) bool mirrored."""
    joints = torch.where(which[:, None, None], mirror_joints(data.joints), data.joints)
    return ProxyData(joints, torch.where(which[:, None, None], data.depth.flip(-1), data.depth))


