"""Lengths and angles of the refinement, and which joints it turns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hmr_ros.skeleton import SMPL_JOINTS


@dataclass(frozen=True)
class RefinementConfig:
    steps: int = 3
    keypoint_sigma: float = 0.03  # metres: what a confident detection is trusted to
    outlier: float = 0.15  # metres: a joint this far off has half weight
    camera_weight: float = 0.01  # of where the regressed camera sees a joint, against a detection of confidence 1; keeps the size of people
    # of whom few joints are seen from running away (chosen of 0.01, 0.02 and 0.05 on benchmarks/truncation_stability.py)
    limb_sigma: float = 0.1  # radians: how far hips, knees, shoulders and elbows may turn
    trunk_sigma: float = 0.04  # radians: the same for pelvis, spine, collars, neck and head

    @property
    def stiffness(self) -> np.ndarray:
        """(3 F,) of the turns of the joints in ``FREE``, about x, y and z each."""
        return np.repeat(1 / np.where(_IS_LIMB, self.limb_sigma, self.trunk_sigma)[FREE] ** 2, 3)


_LIMBS = ("hip", "knee", "shoulder", "elbow")
_FIXED = ("wrist", "hand", "ankle", "foot")  # nothing in COCO-17 shows them
FREE = np.flatnonzero([not name.endswith(_FIXED) for name in SMPL_JOINTS])
_IS_LIMB = np.array([name.endswith(_LIMBS) for name in SMPL_JOINTS])
CAMERA_ROUNDS = 3  # of reweighting
