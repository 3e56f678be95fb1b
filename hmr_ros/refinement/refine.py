"""A regressed pose bent a little, so that its joints lie on the detected ones: damped Gauss-Newton, a few steps.

Every joint pays for turning away from the regressed pose, and a detected joint far from the mesh loses its weight (Geman and
McClure 1987), so that a wrong detection does not break an arm. The Jacobian is exact: a keypoint is a sum of parts that
turn rigidly with their joint's ancestors. Depth is not used; what 2D does not determine stays as it was regressed.

Written twice: for the CPU (kernel.py, numba) and for tensors on a GPU (batched.py, torch); test_refinement.py compares the two.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from hmr_ros.body.posed_kernel import PARENTS, arrays_of
from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.refinement.config import FREE, RefinementConfig
from hmr_ros.refinement.kernel import refine

if TYPE_CHECKING:
    from hmr_ros.refinement.batched import BatchedRefiner


class Refiner:
    """Bends (N, 24, 3, 3) rotations towards detected keypoints; stateless. The kernel is compiled here, not in the first frame."""

    def __init__(self, skeleton: PosedKeypoints, config: RefinementConfig = RefinementConfig()):
        self.skeleton, self.config = skeleton, config
        self._stiffness = config.stiffness
        self._body = arrays_of(skeleton)
        if torch.cuda.is_available():
            self._batched  # now, and not in the first frame
        self(np.tile(np.eye(3, dtype=np.float32), (1, 24, 1, 1)), np.zeros((1, 10), np.float32), np.ones((1, 3), np.float32),
             np.zeros((1, 17, 2)), np.zeros((1, 17)))  # fmt: skip

    def __call__(self, rotations, betas, cameras, targets, confidence):
        """rotations (N, 24, 3, 3), betas (N, 10), weak-perspective cameras (N, 3); targets (N, 17, 2) in crop coordinates with
        confidence (N, 17), 0 = unknown. Returns refined rotations and cameras; people without a confident joint
        come back as they went in.

        All numpy, or all torch on one device, as the results are: those on a GPU stay there (batched.py), all others take the kernel."""
        inputs = rotations, betas, cameras, targets, confidence
        if not isinstance(rotations, torch.Tensor):
            return self._on_cpu(*inputs)
        if rotations.device.type == "cpu":
            return tuple(torch.from_numpy(result) for result in self._on_cpu(*(value.detach().numpy() for value in inputs)))
        return self._batched(*inputs)

    @cached_property
    def _batched(self) -> BatchedRefiner:
        from hmr_ros.refinement.batched import BatchedRefiner  # imports roma, which imports torch's compiler: a second that a CPU can save

        return BatchedRefiner(self.skeleton, self.config)

    def _on_cpu(self, *inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        config = self.config
        refined, fitted = refine(
            *(np.ascontiguousarray(values, np.float64) for values in inputs), *self._body, FREE, PARENTS, self._stiffness, config.steps,
            config.keypoint_sigma, config.outlier, config.camera_weight,
        )  # fmt: skip
        return refined.astype(np.float32), fitted.astype(np.float32)
