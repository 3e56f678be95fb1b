"""The lifter's input: one person's proxies as a vector, and that vector's mirror image.

Every length is relative to the crop or to the hips, so that the vector does not know where in the image the person is.
The layout is part of a checkpoint (``FEATURE_LAYOUT``): change it and old checkpoints are refused.
"""

from __future__ import annotations

import numpy as np

from hmr_ros.geometry import to_crop
from hmr_ros.proxies import PersonProxies
from hmr_ros.proxies.depth import DEPTH_BONES, SAMPLES_PER_BONE, depth_along_bones
from hmr_ros.skeleton import BLAZEPOSE_MIRROR, COCO_MIRROR

# Name and shape of each part, in order; xy are crop coordinates, z and depths metres.
FEATURE_LAYOUT = (
    ("keypoints_xy", (17, 2)),
    ("keypoints_confidence", (17,)),
    ("landmarks_xy", (33, 2)),
    ("landmarks_confidence", (33, 2)),  # visibility, presence
    ("world", (33, 3)),
    ("bone_depth", (len(DEPTH_BONES), SAMPLES_PER_BONE)),
    ("bone_depth_valid", (len(DEPTH_BONES), SAMPLES_PER_BONE)),
)
FEATURE_COUNT = sum(int(np.prod(shape)) for _, shape in FEATURE_LAYOUT)


def person_features(person: PersonProxies) -> np.ndarray:
    """Proxies of one person → (FEATURE_COUNT,) float32, finite. Joints without confidence are zeros."""
    confidence = person.keypoints[:, 2]
    keypoints = np.where(confidence[:, None] > 0, to_crop(person.keypoints[:, :2], person.crop), 0)
    joints = np.concatenate([keypoints, confidence[:, None]], axis=1).astype(np.float32)
    bone_depth, bone_valid = depth_along_bones(joints, person.depth)
    parts = {
        "keypoints_xy": keypoints,
        "keypoints_confidence": confidence,
        "landmarks_xy": np.clip(to_crop(person.landmarks[:, :2], person.crop), -2, 2),
        "landmarks_confidence": person.landmarks[:, 2:],
        "world": person.world,
        "bone_depth": bone_depth,
        "bone_depth_valid": bone_valid,
    }
    return np.concatenate([np.ravel(parts[name]) for name, _ in FEATURE_LAYOUT]).astype(np.float32)


def _mirror_table() -> tuple[np.ndarray, np.ndarray]:
    """Where each feature of the mirrored person comes from, and with which sign."""
    bones = {bone: i for i, bone in enumerate(DEPTH_BONES)}
    source, sign, offset = [], [], 0
    for name, shape in FEATURE_LAYOUT:
        index = np.arange(offset, offset + int(np.prod(shape))).reshape(shape)
        flip = np.ones(shape, np.float32)
        if name.startswith("bone"):
            mirrored = np.empty_like(index)
            for (a, b), i in bones.items():
                pair = (COCO_MIRROR[a], COCO_MIRROR[b])
                # A bone across the body (shoulders, hips) is its own mirror image, walked the other way.
                mirrored[i] = index[bones[pair]] if pair in bones else index[bones[pair[::-1]]][::-1]
        else:
            mirrored = index[list(COCO_MIRROR if shape[0] == 17 else BLAZEPOSE_MIRROR)]
            if name.endswith("xy") or name == "world":
                flip[:, 0] = -1
        source.append(mirrored.ravel())
        sign.append(flip.ravel())
        offset += index.size
    return np.concatenate(source), np.concatenate(sign)


MIRROR_INDEX, MIRROR_SIGN = _mirror_table()


def mirror_features(features):
    """Features of the person seen in a mirror: (..., FEATURE_COUNT), numpy or torch. Its own inverse."""
    if isinstance(features, np.ndarray):
        return features[..., MIRROR_INDEX] * MIRROR_SIGN
    import torch

    return features[..., torch.from_numpy(MIRROR_INDEX)] * torch.from_numpy(MIRROR_SIGN).to(features)
