"""What the estimator says about one image: a frozen record of numpy arrays for each person, and who has none and why.

Shared by node, files and drawing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hmr_ros.camera import Camera
from hmr_ros.geometry import project_weak

TranslationSource = Literal["depth", "known stature", "apparent size"]  # the last: of a body of regressed stature

_NEAR = 0.05  # metres: what is nearer than that, or behind the camera, is drawn as if it were there


@dataclass(frozen=True, eq=False)
class BodyEstimate:
    """One person, numpy float32, never NaN: what is unknown is None or carries confidence 0.

    ``axes`` are those of ``global_orient``, ``joints`` and ``vertices``. "camera": the camera's optical frame (REP 103: x right, y down,
    z forward), metres, relative to the body model's origin; adding ``translation`` puts them into that frame. "ray": without intrinsics,
    the axes of the unknown viewing ray through the crop's centre, turned against the camera's by up to half the field of view. "target": the
    frame that the live node was asked for (``target_frame``), such as odom; ``translation`` and velocities stand there, too.
    Pixels are those of the raw image. Angles are axis-angle, radians.
    """

    score: float  # of the person detector, in [0, 1]
    box: np.ndarray  # (4,) x0, y0, x1, y1 px
    keypoints: np.ndarray  # (17, 3) COCO: x, y px, confidence
    reliability: np.ndarray  # (12,) of COCO 5..16, in [0, 1]. Where the estimator's ``reliability_source`` is "learned": the probability
    # that the 3D joint, relative to the hips, is within 100 mm (PCK@100). "agreement": how far the proxies agree, no probability (resnet18)
    global_orient: np.ndarray  # (3,) body model (y up, facing +z) into ``axes``
    body_pose: np.ndarray  # (69,) 23 SMPL joints
    betas: np.ndarray  # (10,) of the body model named by the estimator
    crop: np.ndarray  # (3,) cu, cv, size px
    weak_camera: np.ndarray  # (3,) s, tx, ty: u = s (x + tx) in crop coordinates, x in ray axes whatever ``axes`` says
    translation: np.ndarray | None  # (3,) m in the camera frame; None without intrinsics
    joints: np.ndarray  # (24, 3) m
    vertices: np.ndarray  # (V, 3) m
    projected_keypoints: np.ndarray  # (17, 2) px: COCO of the mesh, through ``camera``; without intrinsics the weak one
    axes: Literal["camera", "ray", "target"] = "ray"
    translation_source: TranslationSource | None = None  # what the distance comes from; None without translation
    position_covariance: np.ndarray | None = None  # (3, 3) m² of ``translation``, in its frame (uncertainty.py); None where it is not known
    measured_stature: float | None = None  # metres, from depth and apparent size in this image; None where depth does not tell
    camera: Camera | None = None  # whose frame "camera" axes are; None without intrinsics
    id: str = ""  # the same person keeps it from image to image: five characters; "" outside a stream
    velocity: np.ndarray | None = None  # (3,) m/s of ``translation``, camera frame; None without position, and in a person's first image
    joint_velocities: np.ndarray | None = None  # (24, 3) m/s of ``joints + translation``, the same
    confident: float = 0.3  # keypoints above this confidence count as seen; the extractor's (measured: proxies/config.py)

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Points (N, 3) of this body, as ``vertices`` stand, → raw pixels (N, 2): where the camera sees them.

        ValueError for a body whose ``camera`` is not known, such as one out of a message, or in another frame.
        """
        if self.axes == "ray":
            return project_weak(points, self.weak_camera, self.crop)
        if self.camera is None or self.translation is None:
            raise ValueError(f"the body stands in {self.axes} axes and its camera is None, expected one in camera axes with its camera: give CameraInfo along")
        points = np.asarray(points) + self.translation
        return self.camera.project(np.concatenate([points[:, :2], np.maximum(points[:, 2:], _NEAR)], axis=1))

    def reprojection_error(self, joints=slice(None), min_confidence: float | None = None) -> float | None:
        """Mean distance of the mesh's COCO joints to the confidently detected ones, as a share of the box's diagonal.

        ``joints`` selects among the 17; ``min_confidence`` is ``confident`` unless given. None where none of them is confident.
        """
        keypoints, projected = self.keypoints[joints], self.projected_keypoints[joints]
        sure = keypoints[:, 2] > (self.confident if min_confidence is None else min_confidence)
        if not sure.any():
            return None
        distance = np.linalg.norm(projected[sure] - keypoints[sure, :2], axis=1)
        return float(distance.mean() / np.hypot(*(self.box[2:] - self.box[:2])))


class Bodies(list[BodyEstimate]):
    """The bodies of one image, best score first, and who has none and why: an empty list alone would not tell.

    ``detected`` people are in the image, as far as the extractor detects or follows them. Without a body are those with
    ``too_few_joints`` confident keypoints, those whose numbers are ``not_finite``, and those whose ``mesh_misses`` the detected keypoints.
    """

    def __init__(
        self,
        bodies: Iterable[BodyEstimate] = (),
        too_few_joints: int = 0,
        not_finite: int = 0,
        mesh_misses: int = 0,
        detected: int | None = None,
    ):
        """``detected`` is for those who know nothing but this number, such as a message; it follows from the others."""
        super().__init__(bodies)
        self.too_few_joints, self.not_finite, self.mesh_misses = too_few_joints, not_finite, mesh_misses
        self.detected = len(self) + too_few_joints + not_finite + mesh_misses if detected is None else detected

    def reason(self) -> str:
        """One line about the people without a body; "" where everybody has one."""
        if not self.detected:
            return "nobody is detected"
        without = self.detected - len(self)
        if not without:
            return ""
        causes = [
            (self.too_few_joints, "too few confident joints", "with too few confident joints"),
            (self.not_finite, "its numbers are not finite", "whose numbers are not finite"),
            (self.mesh_misses, "the mesh misses the detected joints", "whose mesh misses the detected joints"),
        ]
        causes = [cause for cause in causes if cause[0]]
        why = causes[0][1] if len(causes) == 1 else ", ".join(f"{count} {words}" for count, _, words in causes)
        people = "person" if self.detected == 1 else "people"
        return f"{without} of {self.detected} {people} {'has' if without == 1 else 'have'} no body" + (f": {why}" if why else "")
