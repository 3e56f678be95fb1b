"""SMPL's pose as the joint angles of ROS4HRI's human URDF (ros4hri/human_description). Imports no ROS.

The URDF has 20 revolute joints where SMPL has 23 free ones. Its zero pose stands upright with hanging arms, x forward, y left, z up; arms and legs are
links along -z. Angles are chosen so that every link points where the body's bone points, whatever the links before it cannot do:

- `waist`: pitch of the trunk, from the hips' midpoint to the shoulders'. It neither twists nor bends sideways.
- `r_head`, `y_head`, `p_head`: the head's orientation is kept, relative to the URDF's torso.
- shoulders and elbows, hips and knees: upper arm, forearm, thigh and shin keep their directions. The bone's turn about itself follows from the hinge
  of elbow or knee; where that is nearly straight (``STRAIGHT``), the hinge is that of SMPL's rotation.

Angles may exceed the limits of the URDF, within which nobody can sit; robot_state_publisher takes them.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from hmr_ros.estimate import BodyEstimate
from hmr_ros.ros.body_frame import HIPS, MODEL_FROM_BODY, body_orientation
from hmr_ros.skeleton import SMPL_JOINTS, SMPL_PARENTS

HUMAN_JOINTS = (
    "waist", "r_head", "y_head", "p_head",
    "l_y_shoulder", "l_p_shoulder", "l_r_shoulder", "l_elbow", "r_y_shoulder", "r_p_shoulder", "r_r_shoulder", "r_elbow",
    "l_y_hip", "l_p_hip", "l_r_hip", "l_knee", "r_y_hip", "r_p_hip", "r_r_hip", "r_knee",
)  # fmt: skip
STRAIGHT = np.sin(np.radians(20.0))  # sine of the bend below which SMPL's rotation has a say in the hinge
_SIDES = (("left", 1.0), ("right", -1.0))
_INDEX = {name: i for i, name in enumerate(SMPL_JOINTS)}


def human_joint_angles(body: BodyEstimate) -> np.ndarray:
    """(20,) radians, order of ``HUMAN_JOINTS``. Needs no position: they are relative to the body."""
    joints = body.joints.astype(np.float64) @ body_orientation(body)
    turned = _orientations(body.body_pose)
    shoulders = joints[[_INDEX["left_shoulder"], _INDEX["right_shoulder"]]].mean(0)
    x, _, z = shoulders - joints[HIPS].mean(0)
    waist = np.arctan2(x, z)
    torso = Rotation.from_euler("y", waist).as_matrix()
    head = torso.T @ turned[_INDEX["head"]]  # Rx(roll) Rz(yaw) Ry(pitch)
    roll, yaw, pitch = np.arctan2(head[2, 1], head[1, 1]), np.arcsin(np.clip(-head[0, 1], -1, 1)), np.arctan2(head[0, 2], head[0, 0])
    angles = [waist, roll, yaw, -pitch]
    for side, sign in _SIDES:
        upper, fore = (_bone(joints, f"{side}_{a}", f"{side}_{b}") @ torso for a, b in (("shoulder", "elbow"), ("elbow", "wrist")))
        hinge = torso.T @ turned[_INDEX[f"{side}_shoulder"]] @ [0.0, 0.0, -sign]  # with arms spread, SMPL's forearm bends forward about it
        link, bend = _limb(upper, fore, hinge)
        link[:, :2] *= -1  # the elbow bends about -y
        raised = np.hypot(link[0, 2], link[1, 2])  # link = Rz(-sign y) Rx(sign p) Rz(sign r), of two solutions that with p >= 0
        turn = np.arctan2(link[1, 0], link[0, 0]) if raised < 1e-9 else np.arctan2(sign * link[2, 0], sign * link[2, 1])
        around = 0.0 if raised < 1e-9 else np.arctan2(sign * link[0, 2], -sign * link[1, 2])
        angles += [-sign * around, np.arctan2(raised, link[2, 2]), sign * turn, bend]
    for side, sign in _SIDES:
        thigh, shin = (_bone(joints, f"{side}_{a}", f"{side}_{b}") for a, b in (("hip", "knee"), ("knee", "ankle")))
        link, bend = _limb(thigh, shin, turned[_INDEX[f"{side}_hip"]] @ [0.0, 1.0, 0.0])
        aside = np.arcsin(np.clip(link[2, 1], -1, 1))  # link = Rz(-y) Rx(sign p) Ry(-r)
        angles += [-np.arctan2(-link[0, 1], link[1, 1]), sign * aside, -np.arctan2(-link[2, 0], link[2, 2]), -bend]
    return np.array(angles)


def _orientations(body_pose: np.ndarray) -> np.ndarray:
    """(24, 3, 3): of SMPL's joints, in the axes of the body's frame and relative to it."""
    local = Rotation.from_rotvec(body_pose.reshape(23, 3).astype(np.float64) @ MODEL_FROM_BODY).as_matrix()
    turned = [np.eye(3)]
    for rotation, parent in zip(local, SMPL_PARENTS[1:]):
        turned.append(turned[parent] @ rotation)
    return np.stack(turned)


def _bone(joints: np.ndarray, begin: str, end: str) -> np.ndarray:
    bone = joints[_INDEX[end]] - joints[_INDEX[begin]]
    return bone / max(np.linalg.norm(bone), 1e-9)


def _limb(upper: np.ndarray, lower: np.ndarray, hinge: np.ndarray) -> tuple[np.ndarray, float]:
    """Unit directions of the two bones, and the hinge by SMPL's rotation → the upper link's orientation (3, 3), with -z along it and y the hinge,
    and the angle by which the lower one is bent about the hinge."""
    cross = np.cross(upper, lower)
    axis = cross + max(STRAIGHT - float(np.linalg.norm(cross)), 0.0) * hinge
    axis = axis - (axis @ upper) * upper
    axis = axis / max(float(np.linalg.norm(axis)), 1e-9)
    bend = np.arctan2(np.cross(upper, lower) @ axis, upper @ lower)
    return np.stack([np.cross(axis, -upper), axis, -upper], axis=1), float(bend)
