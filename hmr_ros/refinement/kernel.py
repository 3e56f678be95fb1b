"""Refinement on the CPU, as a numba kernel: its steps are small, and in numpy or torch the calls would take twenty times as long as the
arithmetic. refine.py says what is computed."""

from __future__ import annotations

import numpy as np
from numba import njit

from hmr_ros.body.posed_kernel import pose, rest_of
from hmr_ros.refinement.config import CAMERA_ROUNDS
from hmr_ros.rotations import rotvec_between, turn

# One person at a time: plain loops compile quickly and allocate nothing in them.


@njit(cache=True, nogil=True)
def refine(
    rotations, betas, cameras, targets, confidence, joint_template, joint_dirs, template, dirs, share, free, parents, stiffness, steps,
    keypoint_sigma, outlier, camera_weight,
):  # fmt: skip
    refined, fitted = rotations.copy(), cameras.copy()
    rest_joints, rest = np.empty((24, 3)), np.empty((17, 24, 3))
    joints, world, parts, keypoints = np.empty((24, 3)), np.empty((24, 3, 3)), np.empty((17, 24, 3)), np.empty((17, 3))
    size = 3 * len(free)
    jacobian, normal, right = np.empty((34, size)), np.empty((size, size)), np.empty(size)
    for n in range(len(rotations)):
        rest_of(betas[n], joint_template, joint_dirs, template, dirs, rest_joints, rest)
        pose(refined[n], rest_joints, rest, share, parents, joints, world, parts, keypoints)
        _fit_camera(keypoints, fitted[n], cameras[n], targets[n], confidence[n], outlier, camera_weight)
        for _ in range(steps):
            _solve(rotations[n], refined[n], joints, world, parts, keypoints, fitted[n], targets[n], confidence[n], share, free, parents,
                   stiffness, keypoint_sigma, outlier, jacobian, normal, right)  # fmt: skip
            _turn_joints(refined[n], world, free, parents, right)
            pose(refined[n], rest_joints, rest, share, parents, joints, world, parts, keypoints)
            _fit_camera(keypoints, fitted[n], cameras[n], targets[n], confidence[n], outlier, camera_weight)
    return refined, fitted


@njit(cache=True, nogil=True)
def _lack(keypoints, camera, targets, confidence, outlier, k):
    """What keypoint k lacks to its target, in metres, and its weight."""
    x = targets[k, 0] / camera[0] - camera[1] - keypoints[k, 0]
    y = targets[k, 1] / camera[0] - camera[2] - keypoints[k, 1]
    return x, y, confidence[k] / (1 + (x * x + y * y) / outlier**2) ** 2


@njit(cache=True, nogil=True)
def _solve(
    regressed, refined, joints, world, parts, keypoints, camera, targets, confidence, share, free, parents, stiffness, keypoint_sigma, outlier,
    jacobian, normal, right,
):  # fmt: skip
    """The damped Gauss-Newton step into ``right`` (3 F,), radians, in camera axes. Turning joint j by w moves what hangs on it by w x lever,
    lever = its parts - its share of the joint itself."""
    size = len(right)
    lacking = np.empty(34)
    hanging, held = np.empty((24, 3)), np.empty(24)
    for k in range(17):
        for j in range(24):
            held[j] = share[k, j]
            for c in range(3):
                hanging[j, c] = parts[k, j, c]
        for j in range(23, 0, -1):
            held[parents[j]] += held[j]
            for c in range(3):
                hanging[parents[j], c] += hanging[j, c]
        x, y, weight = _lack(keypoints, camera, targets, confidence, outlier, k)
        root = np.sqrt(weight) / keypoint_sigma
        lacking[2 * k], lacking[2 * k + 1] = root * x, root * y
        for f in range(len(free)):
            j = free[f]
            x = root * (hanging[j, 0] - held[j] * joints[j, 0])
            y = root * (hanging[j, 1] - held[j] * joints[j, 1])
            z = root * (hanging[j, 2] - held[j] * joints[j, 2])
            jacobian[2 * k, 3 * f], jacobian[2 * k, 3 * f + 1], jacobian[2 * k, 3 * f + 2] = 0.0, z, -y
            jacobian[2 * k + 1, 3 * f], jacobian[2 * k + 1, 3 * f + 1], jacobian[2 * k + 1, 3 * f + 2] = -z, 0.0, x
    # How far each joint has turned already; a turn lives in its parent's frame, the Jacobian in camera axes.
    vector = np.empty(3)
    for f in range(len(free)):
        j = free[f]
        rotvec_between(refined[j], regressed[j], vector)
        for c in range(3):
            turned = vector[c]
            if j > 0:
                turned = 0.0
                for d in range(3):
                    turned += world[parents[j], c, d] * vector[d]
            right[3 * f + c] = -stiffness[3 * f + c] * turned
    for p in range(size):
        for row in range(34):
            right[p] += jacobian[row, p] * lacking[row]
        for q in range(p + 1):
            normal[p, q] = stiffness[p] if p == q else 0.0
    for row in range(34):
        for p in range(size):
            for q in range(p + 1):
                normal[p, q] += jacobian[row, p] * jacobian[row, q]
    # Cholesky, in place; the stiffness makes it positive definite.
    for p in range(size):
        for q in range(p + 1):
            total = normal[p, q]
            for r in range(q):
                total -= normal[p, r] * normal[q, r]
            normal[p, q] = np.sqrt(total) if p == q else total / normal[q, q]
        for q in range(p):
            right[p] -= normal[p, q] * right[q]
        right[p] /= normal[p, p]
    for p in range(size - 1, -1, -1):
        for q in range(p + 1, size):
            right[p] -= normal[q, p] * right[q]
        right[p] /= normal[p, p]


@njit(cache=True, nogil=True)
def _turn_joints(refined, world, free, parents, step):
    """Turn each free joint by its part of ``step``."""
    for f in range(len(free)):
        j = free[f]
        x, y, z = step[3 * f], step[3 * f + 1], step[3 * f + 2]
        if j > 0:
            w, a, b, c = world[parents[j]], x, y, z
            x, y, z = w[0, 0] * a + w[1, 0] * b + w[2, 0] * c, w[0, 1] * a + w[1, 1] * b + w[2, 1] * c, w[0, 2] * a + w[1, 2] * b + w[2, 2] * c
        turn(refined[j], x, y, z)


@njit(cache=True, nogil=True)
def _fit_camera(keypoints, fitted, regressed, targets, confidence, outlier, camera_weight):
    """Refit the weak-perspective camera (3,) to the joints, reweighted (geometry.fit_weak_camera), and weakly to where the regressed one
    sees them, which decides where the joints are few or close together; the regressed one where that leads too far away."""
    weight = np.empty(17)
    for _ in range(CAMERA_ROUNDS):
        total, px, py, tx, ty, covariance, variance = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for k in range(17):
            _, _, weight[k] = _lack(keypoints, fitted, targets, confidence, outlier, k)
            both, x, y = weight[k] + camera_weight, keypoints[k, 0], keypoints[k, 1]
            total += both
            px, py = px + both * x, py + both * y
            tx += weight[k] * targets[k, 0] + camera_weight * regressed[0] * (x + regressed[1])
            ty += weight[k] * targets[k, 1] + camera_weight * regressed[0] * (y + regressed[2])
        px, py, tx, ty = px / total, py / total, tx / total, ty / total
        for k in range(17):
            x, y = keypoints[k, 0] - px, keypoints[k, 1] - py
            seen_x, seen_y = regressed[0] * (keypoints[k, 0] + regressed[1]), regressed[0] * (keypoints[k, 1] + regressed[2])
            covariance += weight[k] * (x * (targets[k, 0] - tx) + y * (targets[k, 1] - ty))
            covariance += camera_weight * (x * (seen_x - tx) + y * (seen_y - ty))
            variance += (weight[k] + camera_weight) * (x * x + y * y)
        scale = max(covariance / max(variance, 1e-9), 1e-3)
        if 0.5 < scale / regressed[0] < 2.0:
            fitted[0], fitted[1], fitted[2] = scale, tx / scale - px, ty / scale - py
        else:
            fitted[0], fitted[1], fitted[2] = regressed[0], regressed[1], regressed[2]
