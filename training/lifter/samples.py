"""Rendered people as the lifter's inputs, and the truth in the same axes, on disk or in memory.

Every person can be there several times: plain and mirrored (``flips``), with the coarse depth and with a depth camera's (``depths``).
Truth stands in the frame of the ray through the crop's centre (see data/shards.py), turned like the features (see
hmr_ros/networks/lifter/features.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from hmr_ros.geometry import fit_weak_camera, matrix_from_rotvec, mirror_joints, mirror_rotations, rotation_about_z, to_crop
from hmr_ros.networks.lifter.features import person_features
from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.proxies import FEATURE_MAP, BlazePoseRecord, PersonProxies, flipped, registry
from hmr_ros.training.data import shards
from hmr_ros.training.data.mapped import Rows, RowWriter
from hmr_ros.training.processes import everyones, own_part

if TYPE_CHECKING:
    from lightning_fabric import Fabric

FLIPS = ("plain", "mirrored")
DEPTHS = ("depth", "sensor_depth")
_PROXIES = ("score", "box", "keypoints", "crop", "landmarks", "world", "mask", "region", "appearance", "agreed")
_MIRRORED = tuple(f"mirrored_{name}" for name in ("landmarks", "world", "region", "appearance"))
_TRUTH = ("ray_orient", "pose", "betas", "keypoints2d")
_PART = 256  # people, or samples, that are in memory at once


@dataclass(frozen=True)
class Samples:
    """N views of people; truth in the features' turned axes. Each field is a tensor, or rows on disk; ``samples[rows]`` are tensors."""

    maps: Tensor | Rows  # (M, *FEATURE_MAP) float16 feature maps, those of all views together
    map_row: Tensor | Rows  # (N,) row of ``maps``
    features: Tensor | Rows  # (N, FEATURE_COUNT)
    rotations: Tensor | Rows  # (N, 24, 3, 3)
    betas: Tensor | Rows  # (N, 10)
    keypoints_xy: Tensor | Rows  # (N, 17, 2) crop coordinates, turned
    weak_camera: Tensor | Rows  # (N, 3) the best fitting one
    person: Tensor | Rows  # (N,) row of the data set

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, rows) -> Samples:
        return replace(self, **{name: torch.as_tensor(getattr(self, name)[rows]) for name in _BY_VIEW})

    def parts(self, fabric: Fabric | None = None) -> Iterator[Samples]:
        """All samples in order, some at a time; with a ``fabric`` those that this process works on."""
        own = own_part(len(self), fabric)
        return (self[rows] for rows in torch.arange(own.start, own.stop).split(_PART))

    @property
    def feature_map(self) -> Tensor:
        """(N, *FEATURE_MAP), read when it is asked for."""
        return torch.as_tensor(self.maps[self.map_row]).float()


_BY_VIEW = [name for name in Samples.__dataclass_fields__ if name != "maps"]


def load_people(folders: Sequence[Path | str]) -> dict[str, Rows | np.ndarray]:
    """Proxies and truth of several folders written by ``hmr-ros data rendered``, row by row and on disk; without false negatives.
    ``seen`` (N,) is every person's row in ``load_feature_maps``."""
    if not folders:
        raise ValueError("no people: name folders of `hmr-ros data rendered`")
    folders = [shards.open_people(folder) for folder in folders]
    names = [name for name in folders[0] if not name.startswith("missed_")]
    people = {name: Rows(part for folder in folders for part in folder[name].parts) for name in names}
    return people | {"seen": np.arange(len(people["index"]))}


def load_feature_maps(folders: Sequence[Path | str]) -> Rows:
    """BlazePose's feature maps (N * 2, *FEATURE_MAP) float16 of ``load_people``'s rows, on disk: every person's plain and mirrored view."""
    return shards.open_activations(*folders).reshape(*FEATURE_MAP)


def make_samples(
    data: dict[str, Rows | np.ndarray],
    maps: Rows,
    skeleton: PosedKeypoints,
    flips: Sequence[str] = ("plain",),
    depths: Sequence[str] = ("depth",),
    people: np.ndarray | None = None,
    folder: Path | None = None,
    fabric: Fabric | None = None,
) -> Samples:
    """Views of all people in ``load_people``'s rows, or of some of them (N,): all people by the first flip and depth, then by the next.

    ``maps`` are ``load_feature_maps``'s. With a ``folder`` the samples are kept there, in files that are gone with the process;
    otherwise in memory. Processes of a ``fabric`` read and prepare a part each, and share the folder. Raises FloatingPointError with
    the people whose proxies or truth are not finite, in every process.
    """
    people = np.arange(len(data["index"])) if people is None else people
    own = people[own_part(len(people), fabric)]
    writer, problem = RowWriter(folder, fabric), ""
    for flip in flips:
        for depth in depths:
            names = (*_PROXIES, *_MIRRORED, *_TRUTH, "seen", depth)
            for first in range(0, len(own), _PART):
                chosen = own[first : first + _PART]
                views = _views({name: data[name][chosen] for name in names}, skeleton, flip, depth)
                finite = np.logical_and.reduce([np.isfinite(values).reshape(len(chosen), -1).all(1) for values in views.values()])
                if not finite.all():
                    problem = problem or f"proxies or truth of people {chosen[~finite].tolist()} are not finite ({flip}, {depth})"
                writer.append(**views, person=chosen)
    for problem in everyones(problem, fabric):
        if problem:
            raise FloatingPointError(f"{problem}; make their shards again")
    fields = writer.rows(views=len(flips) * len(depths))
    if folder is None:
        fields = {name: torch.from_numpy(np.asarray(rows)) for name, rows in fields.items()}
    return Samples(maps, **fields)


def proxies_of(
    data: dict[str, np.ndarray], flip: str = "plain", depth: str = "depth", activations: np.ndarray | None = None
) -> Iterator[PersonProxies]:
    """Row by row, as the extractor gave them (masks and depths at the shards' resolution), with ``shards.load_activations``'s
    where they are given."""
    prefix, source, confident = "" if flip == "plain" else "mirrored_", "coarse" if depth == "depth" else "sensor", registry.confident(None)
    for i in range(len(data["crop"])):
        core = {name: data[name][i] for name in ("score", "box", "keypoints", "crop", "mask")}
        person = PersonProxies(**core, depth=data[depth][i], depth_source=source, confident=confident)
        record = BlazePoseRecord(
            *(data[f"{prefix}{name}"][i] for name in ("landmarks", "world", "region", "appearance")),
            feature_map=None if activations is None else activations[i, FLIPS.index(flip)],
            agreed=data["agreed"][i],
        )
        yield replace(person, blazepose=record) if flip == "plain" else flipped(person, record)


def _views(data: dict[str, np.ndarray], skeleton: PosedKeypoints, flip: str, depth: str) -> dict[str, np.ndarray]:
    """Fields of ``Samples`` but ``maps`` and ``person``."""
    features = np.stack([person_features(person) for person in proxies_of(data, flip, depth)])
    pose = np.concatenate([data["ray_orient"][:, None], data["pose"][:, 1:]], axis=1)
    rotations, xy = matrix_from_rotvec(pose), to_crop(data["keypoints2d"], data["crop"])
    region = data["region"]
    if flip == "mirrored":
        region = data["mirrored_region"]
        rotations, xy = mirror_rotations(rotations), mirror_joints(xy)
    turn = rotation_about_z(region[:, 3])
    rotations = np.concatenate([(np.swapaxes(turn, 1, 2) @ rotations[:, 0])[:, None], rotations[:, 1:]], axis=1)
    xy = xy @ turn[:, :2, :2]
    fields = {"features": features, "rotations": rotations, "betas": data["betas"], "keypoints_xy": xy}
    fields = {name: np.ascontiguousarray(values, np.float32) for name, values in fields.items()}
    with torch.no_grad():
        keypoints = skeleton(torch.from_numpy(fields["rotations"]), torch.from_numpy(fields["betas"]))[1].numpy()
    camera = fit_weak_camera(keypoints, fields["keypoints_xy"], np.ones(xy.shape[:2]))
    return fields | {"weak_camera": camera, "map_row": len(FLIPS) * data["seen"] + FLIPS.index(flip)}
