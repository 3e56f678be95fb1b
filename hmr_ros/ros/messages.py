"""BodyEstimates as messages and back: BodyArray and BodyModel. Layouts, units and frames are described in msg/*.msg.

float32 sequences are filled through ``array('f')``, which rclpy takes without looking at every element.
"""

from __future__ import annotations

from array import array
from typing import Sequence

import numpy as np
from geometry_msgs.msg import Point, Quaternion, Vector3
from hmr_ros.msg import Body, BodyArray, BodyModel
from scipy.spatial.transform import Rotation
from std_msgs.msg import Header

from hmr_ros.estimate import Bodies, BodyEstimate
from hmr_ros.io.body_messages import bodies_from_message  # noqa: F401  the way back
from hmr_ros.skeleton import COCO_KEYPOINTS, LIMB_NAMES, SMPL_JOINTS, SMPL_PARENTS


def finite(body: BodyEstimate) -> bool:
    """Whether every number of the estimate is finite: only such bodies are published."""
    numbers = (body.box, body.keypoints, body.reliability, body.global_orient, body.body_pose, body.betas, body.crop,
               body.weak_camera, body.joints, body.vertices, body.projected_keypoints)  # fmt: skip
    perhaps = (body.translation, body.position_covariance, body.velocity, body.joint_velocities)
    return all(np.isfinite(n).all() for n in (body.score, *numbers, *(n for n in perhaps if n is not None)))


def body_array_message(
    bodies: Sequence[BodyEstimate], header: Header, reliability_source: str, publish_vertices: bool = True, axes: str = "ray",
    depth_state: str = "off",
) -> BodyArray:
    """BodyArray with ``header`` as it is; bodies must be :func:`finite` and stand in ``axes``, all of them.

    ``detected`` is that of ``Bodies``; any other sequence is of everybody who is detected.
    """
    if other := {body.axes for body in bodies} - {axes}:
        raise ValueError(f"bodies stand in {other.pop()} axes, the message says {axes}")
    messages = [_body_message(body, publish_vertices) for body in bodies]
    detected = bodies.detected if isinstance(bodies, Bodies) else len(bodies)
    return BodyArray(
        header=header, reliability_source=reliability_source, axes=axes, depth_state=depth_state, detected=detected, bodies=messages
    )


def body_model_message(body_model) -> BodyModel:
    """What the bodies of one estimator share; ``body_model`` has name, sha256 and faces (F, 3)."""
    return BodyModel(
        name=body_model.name,
        hash=body_model.sha256,
        faces=array("I", np.ascontiguousarray(body_model.faces, np.uint32).tobytes()),
        joint_names=list(SMPL_JOINTS),
        parents=array("i", SMPL_PARENTS),
        keypoint_names=list(COCO_KEYPOINTS),
        reliability_names=list(LIMB_NAMES),
    )


def _body_message(body: BodyEstimate, publish_vertices: bool) -> Body:
    message = Body(
        id=body.id,
        score=float(body.score),
        box=_flat(body.box),
        global_orient=_flat(body.global_orient),
        body_pose=_flat(body.body_pose),
        betas=_flat(body.betas),
        crop=_flat(body.crop),
        weak_camera=_flat(body.weak_camera),
        joints=_flat(body.joints),
        keypoints=_flat(body.keypoints),
        projected_keypoints=_flat(body.projected_keypoints),
        reliability=_flat(body.reliability),
    )
    if body.translation is not None:
        message.has_translation = True
        message.translation = point(body.translation)
        message.translation_source = body.translation_source or ""
        if body.position_covariance is not None:
            message.position_covariance = np.asarray(body.position_covariance, np.float64).reshape(9)
    if body.velocity is not None and body.joint_velocities is not None:
        message.has_velocity = True
        message.velocity = vector(body.velocity)
        message.joint_velocities = _flat(body.joint_velocities)
    if publish_vertices:
        message.vertices = array("f", _flat(body.vertices).tobytes())
    return message


def point(xyz: np.ndarray) -> Point:
    return Point(**dict(zip("xyz", map(float, xyz))))


def vector(xyz: np.ndarray) -> Vector3:
    return Vector3(**dict(zip("xyz", map(float, xyz))))


def quaternion(matrix: np.ndarray) -> Quaternion:
    """Rotation matrix (3, 3) → x, y, z, w of length 1."""
    return Quaternion(**dict(zip("xyzw", Rotation.from_matrix(matrix).as_quat().tolist())))


def _flat(values) -> np.ndarray:
    return np.ascontiguousarray(values, np.float32).reshape(-1)
