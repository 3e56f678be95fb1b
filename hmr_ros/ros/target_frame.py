"""Bodies in another frame than the camera's: `odom` or `map`, for a robot that moves. Imports no ROS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from hmr_ros.estimate import Bodies, BodyEstimate
from hmr_ros.geometry import matrix_from_rotvec, rotvec_from_matrix
from hmr_ros.ros.transforms import Transform

LONGEST_GAP_S = 0.5  # between two images whose transforms tell how the camera moves


def in_frame(body: BodyEstimate, transform: Transform, before: Transform | None = None, passed: float = 0.0) -> BodyEstimate:
    """A body in camera axes → in the frame that ``transform`` leads into, axes "target"; translation float64. What is in pixels stays as it is.

    ``before``: the transform ``passed`` seconds ago. The camera's own motion is added to the velocities, which are relative to it; without
    ``before`` they are unknown.
    """
    rotation, origin = transform
    place = rotation @ body.translation + origin
    velocity = joint_velocities = None
    if before is not None and body.velocity is not None and body.joint_velocities is not None:
        turning, moving = (rotation - before[0]) / passed, (origin - before[1]) / passed
        velocity = before[0] @ body.velocity + turning @ body.translation + moving  # (now - before) / passed, were it not smoothed
        joint_velocities = body.joint_velocities @ before[0].T + (body.joints + body.translation) @ turning.T + moving
    return replace(
        body,
        axes="target",
        camera=None,
        global_orient=rotvec_from_matrix(rotation @ matrix_from_rotvec(body.global_orient)),
        joints=(body.joints @ rotation.T).astype(np.float32),
        vertices=(body.vertices @ rotation.T).astype(np.float32),
        translation=place,
        position_covariance=None if body.position_covariance is None else rotation @ body.position_covariance @ rotation.T,
        velocity=None if velocity is None else velocity.astype(np.float32),
        joint_velocities=None if joint_velocities is None else joint_velocities.astype(np.float32),
    )


class TargetFrame:
    """Takes the bodies of image after image into the frame ``name``. ``lookup(target, source, stamp)``: ValueError where it does not know."""

    def __init__(self, name: str, lookup: Callable[[str, str, int], Transform]):
        self.name, self._lookup = name, lookup
        self.problem = ""  # why the bodies of the last image could not be taken there, in words
        self._last: tuple[int, str, Transform] | None = None  # stamp, frame of the image, transform

    def __call__(self, bodies: Bodies, frame_id: str, stamp: int) -> Bodies:
        """``bodies`` in the camera frame ``frame_id``, all with a position, at ``stamp`` (ns) → in ``name``. Nobody, after ``problem``, where the transform at this
        stamp is not known: a place that stands in another frame than asked for is worse than none. ``detected`` stays.
        """
        self.problem = self._unusable(frame_id, stamp)
        if not self.problem:
            try:
                transform = self._lookup(self.name, frame_id, stamp)
            except ValueError as error:
                self.problem = (f"nobody is published, because tf2 does not know the image's frame_id {frame_id} in target_frame {self.name} at its "
                                f"stamp: {error}")  # fmt: skip
        if self.problem:
            self._last = None
            return Bodies([], bodies.too_few_joints, bodies.not_finite, bodies.mesh_misses, bodies.detected)
        before, passed = None, 0.0
        if self._last is not None and self._last[1] == frame_id:
            passed = 1e-9 * (stamp - self._last[0])
            before = self._last[2] if 0 < passed <= LONGEST_GAP_S else None
        self._last = stamp, frame_id, transform
        moved = [in_frame(body, transform, before, passed) for body in bodies]
        return Bodies(moved, bodies.too_few_joints, bodies.not_finite, bodies.mesh_misses, bodies.detected)

    def _unusable(self, frame_id: str, stamp: int) -> str:
        if not frame_id:
            return f"nobody is published, because the image has no frame_id, expected one that tf2 knows in target_frame {self.name}"
        if not stamp:
            return f"nobody is published, because the image has no stamp, expected one at which tf2 knows target_frame {self.name}"
        return ""
