"""BodyModel for a few people on the CPU, for models without pose blend shapes, as a numba kernel: linear blend skinning by the few joints that
each vertex hangs on, where a compiled BodyModel multiplies with all 24."""

from __future__ import annotations

import numpy as np
from numba import njit

from hmr_ros.body.model import BodyModel, BodyOutput
from hmr_ros.body.posed_kernel import PARENTS, Skeleton, chain


class Skinning:
    """Poses bodies as ``BodyModel`` does, but for rounding; numpy, metres. ``skeleton`` is of the same model."""

    def __init__(self, model: BodyModel, skeleton: Skeleton):
        """ValueError for a model with pose blend shapes."""
        if model.has_pose_blendshapes:
            raise ValueError(f"body model {model.name} has pose blend shapes, expected one without; compile it instead (runtime.compile)")
        self._skeleton = skeleton
        template, dirs, weights = (values.numpy() for values in (model.smpl.v_template, model.smpl.shapedirs, model.smpl.lbs_weights))
        self._template, self._dirs = template.reshape(-1), np.ascontiguousarray(dirs.reshape(template.size, -1).T)
        vertices, self._joints = np.nonzero(weights)  # vertex by vertex
        self._first, self._weights = np.searchsorted(vertices, np.arange(len(weights) + 1)), weights[vertices, self._joints]
        self(np.tile(np.eye(3, dtype=np.float32), (1, 24, 1, 1)), np.zeros((1, model.num_betas), np.float32))  # compiled here, not in the first frame

    def __call__(self, rotations: np.ndarray, betas: np.ndarray) -> BodyOutput:
        """rotations (N, 24, 3, 3), betas (N, 10) → float32 arrays."""
        shaped = _shaped(self._template, self._dirs, np.ascontiguousarray(betas, np.float32)).reshape(len(betas), -1, 3)
        vertices = _skinned(np.ascontiguousarray(rotations, np.float64), self._skeleton.rest_joints(betas), shaped, self._first, self._joints,
                            self._weights, PARENTS)  # fmt: skip
        return BodyOutput(vertices, *self._skeleton(rotations, betas))


@njit(cache=True, nogil=True, fastmath={"contract"})
def _shaped(template, dirs, betas):
    """template (3V,), dirs (B, 3V), betas (N, B) → (N, 3V). Not ``betas @ dirs``: a product of this size wakes the threads of numpy's BLAS, which
    then spin beside the next network and take half of a small CPU from it."""
    shaped = np.empty((len(betas), len(template)), np.float32)
    for n in range(len(betas)):
        shaped[n] = template
        for b in range(len(dirs)):
            weight = betas[n, b]
            for i in range(len(template)):
                shaped[n, i] += weight * dirs[b, i]
    return shaped


@njit(cache=True, nogil=True)
def _skinned(rotations, rest_joints, shaped, first, joints, weights, parents):
    """shaped (N, V, 3) → posed; vertex v hangs on ``joints`` from first[v] to first[v + 1], by ``weights``."""
    vertices = np.empty_like(shaped)
    posed, world, transforms, blended = np.empty((24, 3)), np.empty((24, 3, 3)), np.empty((24, 12), np.float32), np.empty(12, np.float32)
    for n in range(len(shaped)):
        chain(rotations[n], rest_joints[n], parents, posed, world)
        for j in range(24):  # [R | t] row by row
            for c in range(3):
                offset = posed[j, c]
                for d in range(3):
                    transforms[j, 4 * c + d] = world[j, c, d]
                    offset -= world[j, c, d] * rest_joints[n, j, d]
                transforms[j, 4 * c + 3] = offset
        for v in range(shaped.shape[1]):
            blended[:] = 0
            for i in range(first[v], first[v + 1]):
                for e in range(12):
                    blended[e] += weights[i] * transforms[joints[i], e]
            x, y, z = shaped[n, v, 0], shaped[n, v, 1], shaped[n, v, 2]
            for c in range(3):
                vertices[n, v, c] = blended[4 * c] * x + blended[4 * c + 1] * y + blended[4 * c + 2] * z + blended[4 * c + 3]
    return vertices
