"""How far off a body may stand: covariance of its position, from errors that were measured along the viewing ray and across it.

Along the ray the distance is off: without depth by a share of itself, because a body twice as far looks the same if it is twice as large; with depth by
as many metres as the body's surface is misjudged. Across it the pelvis is off within the trunk, by as many metres near by as far away. Both grow with what is
not known of the pose: exponentially with u, the mean unreliability of the limbs. (Tried besides it, of less or no use: distance, detected joints, distance to them.)

The numbers fit the errors of rendered adults 0.8 to 8 m away by maximum likelihood, whoever is truncated or hidden among them:

    python benchmarks/metric_position.py --backgrounds runs/backgrounds --split val --seed 13 --calibrate

How many errors of other people are within one and two standard deviations: docs/position.md. They are errors of one image. The larger part of them stays the
same from image to image (stature, clothing), so that an average over many images is hardly better than one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hmr_ros.estimate import BodyEstimate, TranslationSource
from hmr_ros.geometry import matrix_from_rotvec


class Spread(NamedTuple):
    """Standard deviation of an error: sure exp(growth u), where u is 0 if every limb is reliable and 1 if none is."""

    sure: float
    growth: float

    def __call__(self, reliability: np.ndarray) -> float:
        """``reliability`` (12,) of BodyEstimate."""
        return float(self.sure * np.exp(self.growth * (1 - np.mean(reliability, dtype=np.float64))))


DEPTH = Spread(0.0112, 3.45)  # metres along the ray
KNOWN_STATURE = Spread(0.015, 3.63)  # share of the distance
APPARENT_SIZE = Spread(0.0422, 1.88)  # the same
ACROSS = Spread(0.0088, 3.01)  # metres, in both directions across the ray, wherever the distance comes from
TURN = Spread(0.0826, 1.75), Spread(0.0868, 3.02), Spread(0.0334, 3.24)  # radians about the body model's axes: to the left, along the trunk, forward


def standard_deviations(source: TranslationSource, distance: float, reliability: np.ndarray) -> tuple[float, float]:
    """Metres along the viewing ray and across it, of somebody ``distance`` metres away with a ``reliability`` (12,)."""
    along = {"depth": DEPTH(reliability), "known stature": distance * KNOWN_STATURE(reliability), "apparent size": distance * APPARENT_SIZE(reliability)}
    return along[source], ACROSS(reliability)


def position_covariance(body: BodyEstimate) -> np.ndarray:
    """(3, 3) m² of ``translation``, of a body with a position in camera axes."""
    pelvis = body.joints[0].astype(np.float64) + body.translation  # what is seen along the ray
    distance = float(np.linalg.norm(pelvis))
    along, across = standard_deviations(body.translation_source, distance, body.reliability)
    return across**2 * np.eye(3) + (along**2 - across**2) * np.outer(pelvis, pelvis) / distance**2


def pose_covariance(body: BodyEstimate) -> np.ndarray:
    """(6, 6) of ``translation``, m², and of turns about the axes x, y, z of its frame, radians², as geometry_msgs/PoseWithCovariance wants them.

    ``position_covariance`` must be known.
    """
    covariance, axes = np.zeros((6, 6)), matrix_from_rotvec(body.global_orient).astype(np.float64)
    covariance[:3, :3] = body.position_covariance
    covariance[3:, 3:] = axes @ np.diag([about(body.reliability) ** 2 for about in TURN]) @ axes.T
    return covariance

