"""BodyEstimates as messages and back: BodyArray and BodyModel. Layouts, units and frames are described in msg/*.msg.

float32 sequences are filled through ``array('f')``, which rclpy takes without looking at every element.
"""

from __future__ import annotations

from array import array
from typing import Sequence

import numpy as np
from geometry_msgs.msg import Point, Vector3
from hmr_ros.msg import Body, BodyArray, BodyModel
from std_msgs.msg import Header

from hmr_ros.camera import Camera
from hmr_ros.estimate import Bodies, BodyEstimate
from hmr_ros.skeleton import COCO_KEYPOINTS, LIMB_NAMES, SMPL_JOINTS, SMPL_PARENTS


def finite(body: BodyEstimate) -> bool:
    """Whether every number of the estimate is finite: only such bodies are published."""
    numbers = (body.box, body.keypoints, body.reliability, body.global_orient, body.body_pose, body.betas, body.crop,
               body.weak_camera, body.joints, body.vertices, body.projected_keypoints)  # fmt: skip
    perhaps = (body.translation, body.velocity, body.joint_velocities)
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
        x, y, z = body.translation
        message.has_translation = True
        message.translation = Point(x=float(x), y=float(y), z=float(z))
        message.translation_source = body.translation_source or ""
    if body.velocity is not None and body.joint_velocities is not None:
        message.has_velocity = True
        message.velocity = Vector3(**dict(zip("xyz", map(float, body.velocity))))
        message.joint_velocities = _flat(body.joint_velocities)
    if publish_vertices:
        message.vertices = array("f", _flat(body.vertices).tobytes())
    return message


def bodies_from_message(message: BodyArray, camera: Camera | None = None) -> Bodies:
    """The estimates in a BodyArray, as the estimator gave them, and how many people are detected; why some have no body it does not say.
    Without published vertices those are (0, 3).

    ``camera``: of the image's CameraInfo (inputs.py); bodies in camera axes need it to be drawn.
    """
    bodies = []
    for body in message.bodies:
        t, v = body.translation, body.velocity
        bodies.append(BodyEstimate(
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
            vertices=np.frombuffer(body.vertices, np.float32).reshape(-1, 3),
            projected_keypoints=np.reshape(body.projected_keypoints, (17, 2)),
            axes=message.axes,
            translation_source=body.translation_source or None,
            id=body.id,
            velocity=np.array([v.x, v.y, v.z], np.float32) if body.has_velocity else None,
            joint_velocities=np.reshape(body.joint_velocities, (24, 3)) if body.has_velocity else None,
            camera=camera if message.axes == "camera" else None,
        ))  # fmt: skip
    return Bodies(bodies, detected=message.detected)


def _flat(values) -> np.ndarray:
    return np.ascontiguousarray(values, np.float32).reshape(-1)
