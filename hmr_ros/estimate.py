"""What the estimator says about one person: a frozen record of numpy arrays, shared by node, files and drawing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class BodyEstimate:
    """One person, numpy float32, never NaN: what is unknown is None or carries confidence 0.

    Camera axes are REP-103 optical (x right, y down, z forward), metres; ``joints`` and ``vertices`` are relative to the
    body model's origin, ``translation`` is added to get them into the camera frame. Angles are axis-angle, radians.
    """

    score: float  # of the person detector, in [0, 1]
    box: np.ndarray  # (4,) x0, y0, x1, y1 px
    keypoints: np.ndarray  # (17, 3) COCO: x, y px, confidence
    reliability: np.ndarray  # (12,) of COCO 5..16: probability that the 3D joint is right to 10 cm, relative to the hips
    global_orient: np.ndarray  # (3,) body model (y up, facing +z) into camera axes
    body_pose: np.ndarray  # (69,) 23 SMPL joints
    betas: np.ndarray  # (10,) of the body model named by the estimator
    crop: np.ndarray  # (3,) cu, cv, size px
    weak_camera: np.ndarray  # (3,) s, tx, ty: u = s (x + tx) in crop coordinates
    translation: np.ndarray | None  # (3,) m in the camera frame; None without intrinsics
    joints: np.ndarray  # (24, 3) m
    vertices: np.ndarray  # (V, 3) m
    projected_keypoints: np.ndarray  # (17, 2) px: COCO from the mesh, through the weak camera

    def reprojection_error(self, joints=slice(None), min_confidence: float = 0.3) -> float | None:
        """Mean distance of the mesh's COCO joints to the confidently detected ones, as a share of the box's diagonal.

        ``joints`` selects among the 17. None where none of them is confident.
        """
        keypoints, projected = self.keypoints[joints], self.projected_keypoints[joints]
        sure = keypoints[:, 2] > min_confidence
        if not sure.any():
            return None
        distance = np.linalg.norm(projected[sure] - keypoints[sure, :2], axis=1)
        return float(distance.mean() / np.hypot(*(self.box[2:] - self.box[:2])))
