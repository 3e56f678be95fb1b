"""Rendered people as tensors: what the lifter is fed with, and the truth in the same axes.

Everybody can be there several times: as first seen and by the second look in a mirror (``looks``), with the coarse depth and
with a depth camera's (``depths``). Truth stands in the frame of the ray through the crop's centre (see data/shards.py),
turned like the features (see hmr_ros/networks/lifter/features.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from hmr_ros.geometry import fit_weak_camera, matrix_from_rotvec, rotation_about_z, to_crop
from hmr_ros.networks.lifter.features import person_features
from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.proxies import BlazePoseRecord, PersonProxies, flipped, registry
from hmr_ros.skeleton import COCO_MIRROR, SMPL_MIRROR
from hmr_ros.training.data.rendered import dataset as rendered

LOOKS = ("plain", "mirrored")
DEPTHS = ("depth", "sensor_depth")


@dataclass(frozen=True)
class Samples:
    """N views of people; truth in the features' turned axes. ``looks`` are everybody's, M for all views together."""

    looks: torch.Tensor  # (M, *FEATURE_MAP) float16
    look: torch.Tensor  # (N,) row of ``looks``
    features: torch.Tensor  # (N, FEATURE_COUNT)
    rotations: torch.Tensor  # (N, 24, 3, 3)
    betas: torch.Tensor  # (N, 10)
    keypoints_xy: torch.Tensor  # (N, 17, 2) crop coordinates, turned
    weak_camera: torch.Tensor  # (N, 3) the best fitting one
    person: torch.Tensor  # (N,) row of the data set

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index) -> Samples:
        return replace(self, **{name: getattr(self, name)[index] for name in _BY_VIEW})

    @property
    def activations(self) -> torch.Tensor:
        """(N, *FEATURE_MAP)"""
        return self.looks[self.look].float()


_BY_VIEW = [name for name in Samples.__dataclass_fields__ if name != "looks"]


def load_people(folders: Sequence[Path]) -> dict[str, np.ndarray]:
    """Proxies and truth of several folders written by ``hmr-ros data rendered``, row by row; the missed are not among them.
    ``looked`` (N,) is everybody's row in ``load_looks``."""
    if not folders:
        raise ValueError("no people: name folders of `hmr-ros data rendered`")
    parts = [rendered.load(folder) for folder in folders]
    names = [name for name in parts[0] if not name.startswith("missed_")]
    people = {name: np.concatenate([part[name] for part in parts]) for name in names}
    return people | {"looked": np.arange(len(people["index"]))}


def load_looks(folders: Sequence[Path]) -> torch.Tensor:
    """The landmark network's activations (N * 2, *FEATURE_MAP) float16 of ``load_people``'s rows: everybody as first seen, in a mirror."""
    return torch.from_numpy(rendered.load_activations(*folders)).flatten(0, 1)


def make_samples(
    data: dict[str, np.ndarray],
    activations: torch.Tensor,
    skeleton: PosedKeypoints,
    looks: Sequence[str] = ("plain",),
    depths: Sequence[str] = ("depth",),
) -> Samples:
    """Views of everybody in ``load_people``'s rows: all people by the first look and depth, then by the next. ``activations`` are
    ``load_looks``'s."""
    parts = [_view(data, activations, skeleton, look, depth) for look in looks for depth in depths]
    return replace(parts[0], **{name: torch.cat([getattr(part, name) for part in parts]) for name in _BY_VIEW})


def proxies_of(
    data: dict[str, np.ndarray], look: str = "plain", depth: str = "depth", activations: np.ndarray | None = None
) -> Iterator[PersonProxies]:
    """Row by row, as the extractor gave them (masks and depths at the shards' resolution), with ``rendered.load_activations``'s
    where they are given."""
    prefix, source, confident = "" if look == "plain" else "mirrored_", "coarse" if depth == "depth" else "sensor", registry.confident(None)
    for i in range(len(data["crop"])):
        core = {name: data[name][i] for name in ("score", "box", "keypoints", "crop", "mask")}
        person = PersonProxies(**core, depth=data[depth][i], depth_source=source, confident=confident)
        record = BlazePoseRecord(
            *(data[f"{prefix}{name}"][i] for name in ("landmarks", "world", "region", "appearance")),
            feature_map=None if activations is None else activations[i, LOOKS.index(look)],
            agreed=data["agreed"][i],
        )
        yield replace(person, blazepose=record) if look == "plain" else flipped(person, record)


def _view(data: dict[str, np.ndarray], activations: torch.Tensor, skeleton: PosedKeypoints, look: str, depth: str) -> Samples:
    features = np.stack([person_features(person) for person in proxies_of(data, look, depth)])
    pose = np.concatenate([data["ray_orient"][:, None], data["pose"][:, 1:]], axis=1)
    rotations, xy = matrix_from_rotvec(pose), to_crop(data["keypoints2d"], data["crop"])
    region = data["region"]
    if look == "mirrored":
        region = data["mirrored_region"]
        flip = np.array([-1.0, 1, 1])
        rotations = rotations[:, list(SMPL_MIRROR)] * (flip[:, None] * flip)  # M R M; the body's shapes are symmetric
        xy = xy[:, list(COCO_MIRROR)] * flip[:2]
    turn = rotation_about_z(region[:, 3])
    rotations = np.concatenate([(np.swapaxes(turn, 1, 2) @ rotations[:, 0])[:, None], rotations[:, 1:]], axis=1)
    xy = xy @ turn[:, :2, :2]
    tensors = [torch.from_numpy(np.ascontiguousarray(a, np.float32)) for a in (features, rotations, data["betas"], xy)]
    with torch.no_grad():
        keypoints = skeleton(tensors[1], tensors[2])[1].numpy()
    camera = torch.from_numpy(fit_weak_camera(keypoints, xy, np.ones(xy.shape[:2])))
    seen = len(LOOKS) * torch.from_numpy(data["looked"]) + LOOKS.index(look)
    return Samples(activations, seen, *tensors, camera, torch.arange(len(features)))
