"""The lifter's input: one person's proxies as a vector (beside it, BlazePose's feature map as it is).

Every length is relative to the crop or to the hips, so that the vector does not depend on where in the image the person is; and
everything is turned about the crop's centre until the person's RoI stands upright, so that a cartwheel looks like a jumping jack.
The lifter's output stands in these turned axes: :func:`turn_back` undoes it. The layout is part of a checkpoint
(``FEATURE_LAYOUT``): change it and old checkpoints are refused.
"""

from __future__ import annotations

import numpy as np

from hmr_ros.geometry import rotation_about_z, to_crop
from hmr_ros.proxies import EMBEDDING_COUNT, PersonProxies
from hmr_ros.proxies.config import EmbeddedConfig
from hmr_ros.proxies.depth import DEPTH_BONES, SAMPLES_PER_BONE, depth_along_bones

# Name and shape of each part, in order; xy are crop coordinates, turned; z and depths metres.
FEATURE_LAYOUT = (
    ("keypoints_xy", (17, 2)),
    ("keypoints_confidence", (17,)),
    ("landmarks_xy", (33, 2)),
    ("landmarks_confidence", (33, 2)),  # visibility, presence
    ("world", (33, 3)),
    ("bone_depth", (len(DEPTH_BONES), SAMPLES_PER_BONE)),
    ("bone_depth_valid", (len(DEPTH_BONES), SAMPLES_PER_BONE)),
    ("up", (2,)),  # where the image's upwards points to
    ("roi", (3,)),  # centre, and logarithm of its size over the crop's
    ("agreed", (1,)),
    ("embedding", (EMBEDDING_COUNT,)),
)
FEATURE_COUNT = sum(int(np.prod(shape)) for _, shape in FEATURE_LAYOUT)
GEOMETRY_COUNT = FEATURE_COUNT - EMBEDDING_COUNT  # the embedding comes last


def person_features(person: PersonProxies) -> np.ndarray:
    """Proxies of one person, with their BlazePose record → (FEATURE_COUNT,) float32, finite. Joints without confidence are zeros."""
    blazepose = person.blazepose
    confidence = person.keypoints[:, 2]
    keypoints = np.where(confidence[:, None] > 0, to_crop(person.keypoints[:, :2], person.crop), 0)
    joints = np.concatenate([keypoints, confidence[:, None]], axis=1).astype(np.float32)
    bone_depth, bone_valid = depth_along_bones(joints, person.depth)
    turn = rotation_about_z(blazepose.roi[3])  # v @ turn turns row vectors by minus the RoI's angle
    flat = turn[:2, :2]
    parts = {
        "keypoints_xy": keypoints @ flat,
        "keypoints_confidence": confidence,
        "landmarks_xy": np.clip(to_crop(blazepose.landmarks[:, :2], person.crop), -2, 2) @ flat,
        "landmarks_confidence": blazepose.landmarks[:, 2:],
        "world": blazepose.world @ turn,
        "bone_depth": bone_depth,
        "bone_depth_valid": bone_valid,
        "up": np.array([0.0, -1.0]) @ flat,
        "roi": np.append(
            np.clip(to_crop(blazepose.roi[None, :2], person.crop)[0], -2, 2) @ flat, np.log(blazepose.roi[2] / person.crop[2])
        ),
        "agreed": blazepose.agreed,
        "embedding": blazepose.embedding,
    }
    return np.concatenate([np.ravel(parts[name]) for name, _ in FEATURE_LAYOUT]).astype(np.float32)


def keypoints_in_features(features: np.ndarray, confident: float = EmbeddedConfig.confident) -> tuple[np.ndarray, np.ndarray]:
    """The detected joints in features (N, FEATURE_COUNT): xy (N, 17, 2) crop coordinates, turned; confidence (N, 17), 0
    where it is not above ``confident`` (the extractor's)."""
    xy, confidence = features[:, :34].reshape(-1, 17, 2), features[:, 34:51]
    return xy, np.where(confidence > confident, confidence, 0)


def turn_back(
    rotations: np.ndarray, cameras: np.ndarray, pelvis: np.ndarray, angles: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What was regressed from features → ray axes: rotations (N, 24, 3, 3), weak-perspective cameras (N, 3).

    pelvis: (N, 3) the bodies' pelvis, about which the global orientation turns; angles: (N,) of the RoIs.
    """
    turn = rotation_about_z(angles)
    rotations = rotations.copy()
    rotations[:, 0] = turn @ rotations[:, 0]
    centre = pelvis[:, :2] + cameras[:, 1:]
    shift = (turn[:, :2, :2] @ centre[..., None])[..., 0] - pelvis[:, :2]
    return rotations, np.concatenate([cameras[:, :1], shift], axis=1).astype(np.float32)
