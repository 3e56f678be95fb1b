"""PosedKeypoints for a few people on the CPU, as numba kernels: in torch the calls would take many times as long as the arithmetic, and its
threads and the runtime's would wait for each other."""

from __future__ import annotations

import numpy as np
from numba import njit

from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.skeleton import SMPL_PARENTS

PARENTS = np.array(SMPL_PARENTS)


class Skeleton:
    """Joints, COCO keypoints and pelvis of bodies, equal to those of ``PosedKeypoints``; numpy, metres."""

    def __init__(self, skeleton: PosedKeypoints):
        self._body = arrays_of(skeleton)
        self(np.tile(np.eye(3, dtype=np.float32), (1, 24, 1, 1)), np.zeros((1, 10), np.float32))  # compiled here, not in the first frame

    def __call__(self, rotations: np.ndarray, betas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """rotations (N, 24, 3, 3), betas (N, 10) → joints (N, 24, 3), COCO keypoints (N, 17, 3), float32."""
        joints, keypoints = _posed(np.ascontiguousarray(rotations, np.float64), np.ascontiguousarray(betas, np.float64), *self._body, PARENTS)
        return joints.astype(np.float32), keypoints.astype(np.float32)

    def rest_joints(self, betas: np.ndarray) -> np.ndarray:
        """betas (N, 10) → joints of the T-pose (N, 24, 3) float64."""
        joint_template, joint_dirs = self._body[:2]
        return joint_template + np.einsum("jcb,nb->njc", joint_dirs, betas)

    def pelvis(self, betas: np.ndarray) -> np.ndarray:
        """betas (N, 10) → rest position of the pelvis (N, 3) float32, about which the whole body turns."""
        joint_template, joint_dirs = self._body[:2]
        return (joint_template[0] + betas @ joint_dirs[0].T).astype(np.float32)


def arrays_of(skeleton: PosedKeypoints) -> tuple[np.ndarray, ...]:
    """What the kernels read of it, float64: joint_template (24, 3), joint_dirs (24, 3, 10), template (17, 24, 3), dirs (17, 24, 3, 10),
    share (17, 24)."""
    return tuple(getattr(skeleton, name).numpy().astype(np.float64) for name in ("joint_template", "joint_dirs", "template", "dirs", "share"))


@njit(cache=True, nogil=True)
def _posed(rotations, betas, joint_template, joint_dirs, template, dirs, share, parents):
    rest_joints, rest, world, parts = np.empty((24, 3)), np.empty((17, 24, 3)), np.empty((24, 3, 3)), np.empty((17, 24, 3))
    joints, keypoints = np.empty((len(rotations), 24, 3)), np.empty((len(rotations), 17, 3))
    for n in range(len(rotations)):
        rest_of(betas[n], joint_template, joint_dirs, template, dirs, rest_joints, rest)
        pose(rotations[n], rest_joints, rest, share, parents, joints[n], world, parts, keypoints[n])
    return joints, keypoints


@njit(cache=True, nogil=True)
def rest_of(betas, joint_template, joint_dirs, template, dirs, rest_joints, rest):
    """Joints (24, 3) and parts (17, 24, 3) of the T-pose of one person."""
    for j in range(24):
        for c in range(3):
            rest_joints[j, c] = joint_template[j, c]
            for b in range(len(betas)):
                rest_joints[j, c] += joint_dirs[j, c, b] * betas[b]
            for k in range(17):
                rest[k, j, c] = template[k, j, c]
                for b in range(len(betas)):
                    rest[k, j, c] += dirs[k, j, c, b] * betas[b]


@njit(cache=True, nogil=True)
def pose(rotations, rest_joints, rest, share, parents, joints, world, parts, keypoints):
    """PosedKeypoints.parts: joints (24, 3), world (24, 3, 3), parts (17, 24, 3), keypoints (17, 3)."""
    chain(rotations, rest_joints, parents, joints, world)
    keypoints[:] = 0.0
    for j in range(24):
        for c in range(3):
            offset = joints[j, c]
            for d in range(3):
                offset -= world[j, c, d] * rest_joints[j, d]
            for k in range(17):
                part = share[k, j] * offset
                for d in range(3):
                    part += world[j, c, d] * rest[k, j, d]
                parts[k, j, c] = part
                keypoints[k, c] += part


@njit(cache=True, nogil=True)
def chain(rotations, rest_joints, parents, joints, world):
    """Forward kinematics: joints (24, 3) and the rotations of their frames, world (24, 3, 3)."""
    for j in range(24):
        parent = parents[j]
        for c in range(3):
            if j == 0:
                joints[0, c] = rest_joints[0, c]
                for d in range(3):
                    world[0, c, d] = rotations[0, c, d]
                continue
            joints[j, c] = joints[parent, c]
            for d in range(3):
                joints[j, c] += world[parent, c, d] * (rest_joints[j, d] - rest_joints[parent, d])
                world[j, c, d] = 0.0
                for e in range(3):
                    world[j, c, d] += world[parent, c, e] * rotations[j, e, d]
