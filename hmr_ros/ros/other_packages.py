"""Results as messages of other packages, where these are installed: /tf (`tf2_msgs`), `detections` (`vision_msgs`), and ROS4HRI's (`hri_msgs`, hri.py).

The node needs none of them: what is missing is not published, or refused where it was asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence

import numpy as np
from geometry_msgs.msg import Pose, Transform, TransformStamped
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from std_msgs.msg import Header

from hmr_ros.estimate import BodyEstimate
from hmr_ros.ros.body_frame import body_orientation, body_position, bounding_box
from hmr_ros.ros.hri import BODIES, Humans, urdf_maker
from hmr_ros.ros.messages import point, quaternion, vector
from hmr_ros.ros.parameters import LiveParameters
from hmr_ros.ros.qos import RESULTS, overridable, quiet_publisher
from hmr_ros.uncertainty import pose_covariance

TF = QoSProfile(depth=100, reliability=QoSReliabilityPolicy.RELIABLE)  # as tf2_ros' broadcaster
PERSON = "person"  # class of a detection


def messages_of(package: str):
    """The module ``package``.msg; None where it is not installed."""
    try:
        return importlib.import_module(f"{package}.msg")
    except ImportError:
        return None


def wanted(name: str, choice: str, package: str):
    """The messages of ``package`` for the parameter ``name`` ("auto", "always" or "never"); None where they are not to be published.

    ValueError where "always" cannot be had.
    """
    if choice == "never":
        return None
    found = messages_of(package)
    if found is None and choice == "always":
        raise ValueError(f'parameter {name} is "always", but {package} is not installed; apt install ros-$ROS_DISTRO-{package.replace("_", "-")}, '
                         'or set it to "auto" or "never"')  # fmt: skip
    return found


class OtherPackages:
    """All of them, as ``parameters`` and the installed packages say; published through the lifecycle ``node``.

    ``names``: what is published, in words. ``publishers``: lifecycle publishers, which belong to whoever makes this. ValueError where a parameter asks for what
    is not installed.
    """

    def __init__(self, node, parameters: LiveParameters):
        tf, hri, vision = (wanted("broadcast_tf", parameters.broadcast_tf, "tf2_msgs"), wanted("publish_hri", parameters.publish_hri, "hri_msgs"),
                           messages_of("vision_msgs"))  # fmt: skip

        def create(kind, topic: str, qos: QoSProfile):
            return node.create_lifecycle_publisher(kind, topic, **overridable(qos))

        self._frames = BodyFrames(tf, create) if tf else None
        self._detections = Detections(vision, create, RESULTS) if vision else None
        self._humans = Humans(hri, lambda *what: quiet_publisher(node, *what), node.destroy_publisher, RESULTS, urdf_maker()) if hri else None
        found = {"/tf": self._frames, "detections": self._detections, BODIES: self._humans}
        self.names = [name for name, output in found.items() if output is not None]
        self.publishers = [output.publisher for output in (self._frames, self._detections) if output is not None]

    def publish(self, header: Header, bodies: Sequence[BodyEstimate], image_header: Header, image: np.ndarray) -> None:
        """``bodies`` stand in ``header``'s frame; the ``image`` (H, W, 3) BGR has ``image_header``."""
        if self._frames is not None:
            self._frames.publish(header, bodies)
        if self._detections is not None:
            self._detections.publish(header, bodies)
        if self._humans is not None:
            self._humans.publish(header, bodies, image_header, image)

    def nobody(self) -> None:
        """Images come no more: nobody is tracked."""
        if self._humans is not None:
            self._humans.nobody()

    def destroy(self) -> None:
        """All but ``publishers``."""
        if self._humans is not None:
            self._humans.destroy()


class BodyFrames:
    """/tf: a frame `body_<id>` (body_frame.py) for everybody who has a position and an id, in the frame of the bodies, at the stamp of the image.

    ``create_publisher(type, topic, qos)`` makes ``publisher``; ``package`` is the module `tf2_msgs.msg`.
    """

    def __init__(self, package, create_publisher: Callable):
        self._message = package.TFMessage
        self.publisher = create_publisher(self._message, "/tf", TF)

    def publish(self, header: Header, bodies: Sequence[BodyEstimate]) -> None:
        transforms = [body_transform(header, body) for body in bodies if body.id and body.translation is not None and header.frame_id]
        if transforms:
            self.publisher.publish(self._message(transforms=transforms))


class Detections:
    """`detections`, a Detection3DArray, while somebody listens: the box around each mesh that has a position. ``package`` is the module `vision_msgs.msg`."""

    def __init__(self, package, create_publisher: Callable, qos: QoSProfile):
        self._package = package
        self.publisher = create_publisher(package.Detection3DArray, "detections", qos)

    def publish(self, header: Header, bodies: Sequence[BodyEstimate]) -> None:
        if self.publisher.get_subscription_count():
            found = [self._detection(header, body) for body in bodies if body.translation is not None]
            self.publisher.publish(self._package.Detection3DArray(header=header, detections=found))

    def _detection(self, header: Header, body: BodyEstimate):
        package = self._package
        centre, size = bounding_box(body)
        turn = quaternion(body_orientation(body))
        hypothesis = package.ObjectHypothesisWithPose(hypothesis=package.ObjectHypothesis(class_id=PERSON, score=float(body.score)))
        hypothesis.pose.pose = Pose(position=point(body_position(body)), orientation=turn)
        if body.position_covariance is not None:
            hypothesis.pose.covariance = pose_covariance(body).reshape(36)
        box = package.BoundingBox3D(center=Pose(position=point(centre), orientation=turn), size=vector(size))
        return package.Detection3D(header=header, results=[hypothesis], bbox=box, id=body.id)


def body_transform(header: Header, body: BodyEstimate) -> TransformStamped:
    """Of a body with a position and an id."""
    transform = Transform(translation=vector(body_position(body)), rotation=quaternion(body_orientation(body)))
    return TransformStamped(header=header, child_frame_id=f"body_{body.id}", transform=transform)
