"""The frame of a body as REP 155 (ROS4HRI) wants it, and the box around it. Imports no ROS.

Origin: the midpoint of the hips. Axes as in REP 103: x out of the chest, y to the person's left, z along the trunk to the head, up where
the person stands. The body model has y up and faces +z: its own axes are others.
"""

from __future__ import annotations

import numpy as np

from hmr_ros.estimate import BodyEstimate
from hmr_ros.geometry import matrix_from_rotvec
from hmr_ros.skeleton import SMPL_JOINTS

MODEL_FROM_BODY = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])  # columns: x, y, z of the frame in the body model's axes
STATURE = 1.153  # over the length of leg, trunk and head bones; of the embedded body, whatever its shape, within 1.5 %
LEGS = np.array([[SMPL_JOINTS.index(f"{side}_{joint}") for joint in ("hip", "knee", "ankle")] for side in ("left", "right")])
TRUNK = np.array([SMPL_JOINTS.index(name) for name in ("pelvis", "spine1", "spine2", "spine3", "neck", "head")])
HIPS = [SMPL_JOINTS.index("left_hip"), SMPL_JOINTS.index("right_hip")]


def body_orientation(body: BodyEstimate) -> np.ndarray:
    """(3, 3): from the body's frame into its ``axes``."""
    return matrix_from_rotvec(body.global_orient).astype(np.float64) @ MODEL_FROM_BODY


def body_position(body: BodyEstimate) -> np.ndarray:
    """(3,) metres, origin of the body's frame where ``joints + translation`` stand. The body must have a position."""
    return (body.joints[HIPS].astype(np.float64) + body.translation).mean(0)


def body_stature(body: BodyEstimate) -> float:
    """Metres, from the lengths of bones, so that it depends on no pose."""
    def length(chain: np.ndarray) -> float:
        return float(np.linalg.norm(np.diff(body.joints[chain].astype(np.float64), axis=-2), axis=-1).sum())

    return STATURE * (length(LEGS) / 2 + length(TRUNK))


def bounding_box(body: BodyEstimate) -> tuple[np.ndarray, np.ndarray]:
    """Centre (3,) where ``vertices + translation`` stand, and size (3,) along the body frame's axes, metres, of the smallest box in these axes around
    the mesh. The body must have a position."""
    orientation = body_orientation(body)
    points = (body.vertices.astype(np.float64) + body.translation) @ orientation
    low, high = points.min(0), points.max(0)
    return orientation @ (low + high) / 2, high - low
