"""The lifter's inputs of all people at once, on the device where their proxies are: the numbers of features.py, and the way back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hmr_ros.networks.lifter.features import FEATURE_LAYOUT
from hmr_ros.proxies import PersonProxies
from hmr_ros.proxies.on_device.depth_maps import depths_along_bones


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
