"""The lifter on the device where people's proxies are, all of them at once: the numbers of features.py and regressor.py, as tensors."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hmr_ros.body.betas_map import BetasMap
from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.networks.lifter.features import FEATURE_LAYOUT
from hmr_ros.networks.regressor import BodyParameters
from hmr_ros.proxies import PersonProxies
from hmr_ros.proxies.on_device.depth_maps import depths_along_bones
from hmr_ros.runtime import CompiledModel


class DeviceLifter:
    """People with ``tensors`` → `BodyParameters` of tensors on their device, in ray axes."""

    def __init__(self, network: CompiledModel, skeleton: PosedKeypoints, betas_map: BetasMap):
        """As of ``LifterRegressor``; ``skeleton`` is of the body that is posed."""
        self._network, self._skeleton, self._betas_map = network, copy.deepcopy(skeleton), betas_map

    @torch.no_grad()
    def __call__(self, people: Sequence[PersonProxies]) -> BodyParameters:
        features, feature_maps, angles = device_inputs(people)
        outputs = self._network.tensors(features, feature_maps)
        rotations, betas, cameras, reliability = (output.to(features.device) for output in outputs)
        betas = self._betas_map(betas)
        rotations, cameras = device_turn_back(rotations, cameras, self._skeleton.to(betas.device).pelvis(betas), angles)
        return BodyParameters(rotations, betas, cameras, reliability)


def device_inputs(people: Sequence[PersonProxies]) -> tuple[Tensor, Tensor, Tensor]:
    """Of N people with ``tensors`` → features (N, FEATURE_COUNT), feature maps (N, *FEATURE_MAP), angles of the RoIs (N,)."""
    depth, embedding, feature_map = (torch.stack(values).float() for values in zip(*(person.tensors for person in people)))
    keypoints, crop, landmarks, world, roi, agreed = _uploaded(people, depth.device)
    scale = 2 / crop[:, None, 2:]

    def in_crop(points: Tensor) -> Tensor:
        return (points - crop[:, None, :2]) * scale

    angle = roi[:, 3]
    turn = _about_z(angle)  # v @ turn turns row vectors by minus the RoI's angle
    flat = turn[:, :2, :2]
    confidence = keypoints[..., 2]
    joints = torch.where(confidence[..., None] > 0, in_crop(keypoints[..., :2]), 0)
    bone_depth, bone_valid = depths_along_bones(torch.cat([joints, confidence[..., None]], -1), depth)
    centre = in_crop(roi[:, None, :2]).clamp(-2, 2) @ flat
    parts = {
        "keypoints_xy": joints @ flat,
        "keypoints_confidence": confidence,
        "landmarks_xy": in_crop(landmarks[..., :2]).clamp(-2, 2) @ flat,
        "landmarks_confidence": landmarks[..., 2:],
        "world": world @ turn,
        "bone_depth": bone_depth,
        "bone_depth_valid": bone_valid,
        "up": -flat[:, 1],
        "roi": torch.cat([centre[:, 0], (roi[:, 2:3] / crop[:, 2:]).log()], 1),
        "agreed": agreed,
        "embedding": embedding,
    }
    return torch.cat([parts[name].flatten(1) for name, _ in FEATURE_LAYOUT], 1), feature_map, angle


def device_turn_back(rotations: Tensor, cameras: Tensor, pelvis: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
    """``features.turn_back`` of tensors."""
    turn = _about_z(angles)
    rotations = torch.cat([(turn @ rotations[:, 0])[:, None], rotations[:, 1:]], 1)
    centre = pelvis[:, :2] + cameras[:, 1:]
    shift = (turn[:, :2, :2] @ centre[..., None])[..., 0] - pelvis[:, :2]
    return rotations, torch.cat([cameras[:, :1], shift], 1)


def _uploaded(people: Sequence[PersonProxies], device: torch.device) -> list[Tensor]:
    """What is known on the host, in one piece: keypoints (N, 17, 3), crop (N, 3), landmarks (N, 33, 4), world (N, 33, 3), roi (N, 4),
    agreed (N, 1)."""
    records = [person.blazepose for person in people]
    columns = [
        [person.keypoints for person in people], [person.crop for person in people], [record.landmarks for record in records],
        [record.world for record in records], [record.roi for record in records], [np.array([record.agreed]) for record in records],
    ]  # fmt: skip
    shapes = [np.shape(column[0]) for column in columns]
    rows = np.concatenate([np.stack(column).reshape(len(people), -1).astype(np.float32) for column in columns], 1)
    pieces = torch.from_numpy(rows).to(device).split([int(np.prod(shape)) for shape in shapes], 1)
    return [piece.reshape(-1, *shape) for piece, shape in zip(pieces, shapes)]


def _about_z(angles: Tensor) -> Tensor:
    """geometry.rotation_about_z of tensors."""
    cosine, sine, zero, one = angles.cos(), angles.sin(), torch.zeros_like(angles), torch.ones_like(angles)
    return torch.stack([cosine, -sine, zero, sine, cosine, zero, zero, zero, one], -1).unflatten(-1, (3, 3))
