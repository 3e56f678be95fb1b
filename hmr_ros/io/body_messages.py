"""BodyArray messages as estimates: those of rclpy and those that rosbags reads have the same fields. Needs neither."""

from __future__ import annotations

import numpy as np

from hmr_ros.camera import Camera
from hmr_ros.estimate import Bodies, BodyEstimate


def bodies_from_message(message, camera: Camera | None = None) -> Bodies:
    """The estimates in a BodyArray (of rclpy or rosbags), as the estimator gave them, and how many people are detected; why some have no body it does not say.
    Without published vertices those are (0, 3).

    ``camera``: of the image's CameraInfo (inputs.py); bodies in camera axes need it to be drawn.
    """
    bodies = []
    for body in message.bodies:
        t, v = body.translation, body.velocity
        bodies.append(BodyEstimate(
            id=body.id,
            score=body.score,
            box=np.array(body.box),
            keypoints=np.reshape(body.keypoints, (17, 3)),
            reliability=np.array(body.reliability),
            global_orient=np.array(body.global_orient),
            body_pose=np.array(body.body_pose),
            betas=np.array(body.betas),
            crop=np.array(body.crop),
            weak_camera=np.array(body.weak_camera),
            translation=np.array([t.x, t.y, t.z], np.float32) if body.has_translation else None,
            joints=np.reshape(body.joints, (24, 3)),
            vertices=np.asarray(body.vertices, np.float32).reshape(-1, 3),
            projected_keypoints=np.reshape(body.projected_keypoints, (17, 2)),
            axes=message.axes,
            translation_source=body.translation_source or None,
            position_covariance=np.reshape(body.position_covariance, (3, 3)) if np.any(body.position_covariance) else None,
            velocity=np.array([v.x, v.y, v.z], np.float32) if body.has_velocity else None,
            joint_velocities=np.reshape(body.joint_velocities, (24, 3)) if body.has_velocity else None,
            camera=camera if message.axes == "camera" else None,
        ))  # fmt: skip
    return Bodies(bodies, detected=message.detected)
