"""People as ROS4HRI (REP 155) wants them, where `hri_msgs` is installed: /humans/bodies/tracked, and topics of each person below /humans/bodies/<id>/.

`roi` and `skeleton2d` are in shares of the image's width and height, `cropped` is the picture in `roi`, `position` is the origin of the frame body_<id>
(body_frame.py), `velocity` is in its axes, `joint_states` are those of the human URDF (human_joints.py), which is on `urdf` where `human_description` and `xacro`
are installed. REP 155 wants the URDF on ROS 1's parameter server; this topic is where the ROS 2 nodes of ROS4HRI have it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from geometry_msgs.msg import PointStamped, Twist, TwistStamped
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Header, String

from hmr_ros.estimate import BodyEstimate
from hmr_ros.ros.body_frame import body_orientation, body_position, body_stature
from hmr_ros.ros.human_joints import HUMAN_JOINTS, human_joint_angles
from hmr_ros.ros.inputs import image_to_message
from hmr_ros.ros.messages import point, vector
from hmr_ros.ros.qos import LATCHED
from hmr_ros.skeleton import COCO_KEYPOINTS

BODIES = "/humans/bodies"
KEPT_S = 5.0  # topics of somebody who is not seen: longer than the tracker remembers a lost person

# The order of hri_msgs/Skeleton2D; the neck is no COCO keypoint but the midpoint of the shoulders.
SKELETON2D = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "left_eye", "right_eye", "left_ear", "right_ear",
)  # fmt: skip
_COCO = [COCO_KEYPOINTS.index("nose" if name == "neck" else name) for name in SKELETON2D]
_NECK = SKELETON2D.index("neck")
_SHOULDERS = [COCO_KEYPOINTS.index("left_shoulder"), COCO_KEYPOINTS.index("right_shoulder")]


def normalised(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels (..., 2), whose centres are integers, → shares of (width, height): 0 is the left or upper edge of the image, 1 the other one."""
    return (np.asarray(pixels, np.float64) + 0.5) / size


def skeleton2d(keypoints: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """COCO keypoints (17, 3) px, confidence → (18, 3) shares of (width, height), confidence, order of ``SKELETON2D``.

    What lies outside of the image, where the message allows nothing, is at its edge with confidence 0.
    """
    points = keypoints[_COCO].astype(np.float64)
    left, right = keypoints[_SHOULDERS].astype(np.float64)
    points[_NECK] = (*(left[:2] + right[:2]) / 2, min(left[2], right[2]))
    shares = normalised(points[:, :2], size)
    inside = ((shares >= 0) & (shares <= 1)).all(1)
    return np.column_stack([np.clip(shares, 0, 1), np.clip(np.where(inside, points[:, 2], 0), 0, 1)])


def region(box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Box (4,) x0, y0, x1, y1 px → xmin, ymin, xmax, ymax, shares of (width, height), cut at the image's edges."""
    return np.clip(normalised(np.reshape(box, (2, 2)), size), 0, 1).reshape(4)


def cropped(image: np.ndarray, box: np.ndarray) -> np.ndarray | None:
    """The pixels of an image (H, W, 3) that ``region`` of the box touches; None where it is outside of the image."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = region(box, (width, height)) * (width, height, width, height)
    found = image[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))]
    return found if found.size else None


def urdf_maker() -> Callable[[str, float], str] | None:
    """(id, stature in metres) → the human URDF as `human_description` describes it; None where that or `xacro` is not installed."""
    try:
        import xacro
        from ament_index_python.packages import get_package_share_directory

        template = f"{get_package_share_directory('human_description')}/urdf/human-tpl.xacro"
    except (ImportError, KeyError):  # KeyError: the index knows no such package
        return None
    return lambda name, stature: xacro.process_file(template, mappings={"id": name, "height": f"{stature:.3f}"}).toxml()


class Humans:
    """Publishes them. ``create_publisher(type, topic, qos)`` and ``destroy_publisher(publisher)``: topics of a person come and go with them;
    ``package`` is the module `hri_msgs.msg`, ``urdf`` that of ``urdf_maker``. Not for several threads.
    """

    def __init__(self, package, create_publisher: Callable, destroy_publisher: Callable, qos: QoSProfile, urdf: Callable[[str, float], str] | None = None):
        self._package, self._create, self._destroy, self._qos, self._urdf = package, create_publisher, destroy_publisher, qos, urdf
        self._tracked = create_publisher(package.IdsList, f"{BODIES}/tracked", qos)
        self._people: dict[str, _Person] = {}
        self._last = Header()

    def publish(self, header: Header, bodies: Sequence[BodyEstimate], image_header: Header, image: np.ndarray) -> None:
        """``bodies`` stand in ``header``'s frame; the ``image`` (H, W, 3) BGR has ``image_header``. Who has no id is nobody here."""
        now, self._last = time.monotonic(), image_header
        people = {body.id: body for body in bodies if body.id}
        for name in people.keys() - self._people.keys():
            self._people[name] = _Person(name, self._package, self._create, self._qos, self._urdf)
        self._tracked.publish(self._package.IdsList(header=image_header, ids=list(people)))
        for name, body in people.items():
            self._people[name].publish(header, body, image_header, image, now)
        for name in [name for name, person in self._people.items() if now - person.seen > KEPT_S]:
            self._people.pop(name).destroy(self._destroy)

    def nobody(self) -> None:
        """No image will be processed for a while: who was tracked is not any more."""
        if self._people:
            self._tracked.publish(self._package.IdsList(header=self._last))
        for person in self._people.values():
            person.destroy(self._destroy)
        self._people = {}

    def destroy(self) -> None:
        self.nobody()
        self._destroy(self._tracked)


class _Person:
    """The topics of one body; each is made only while somebody listens."""

    def __init__(self, name: str, package, create_publisher: Callable, qos: QoSProfile, urdf: Callable[[str, float], str] | None):
        self._name, self._package, self._urdf, self.seen = name, package, urdf, 0.0
        types = {"roi": package.NormalizedRegionOfInterest2D, "cropped": Image, "skeleton2d": package.Skeleton2D, "position": PointStamped,
                 "velocity": TwistStamped, "joint_states": JointState}  # fmt: skip
        self._publishers = {topic: create_publisher(kind, f"{BODIES}/{name}/{topic}", qos) for topic, kind in types.items()}
        if urdf is not None:
            self._publishers["urdf"] = create_publisher(String, f"{BODIES}/{name}/urdf", LATCHED)

    def destroy(self, destroy_publisher: Callable) -> None:
        for publisher in self._publishers.values():
            destroy_publisher(publisher)

    def publish(self, header: Header, body: BodyEstimate, image_header: Header, image: np.ndarray, now: float) -> None:
        self.seen, size = now, image.shape[1::-1]
        makers = {
            "roi": lambda: self._roi(body, image_header, size),
            "cropped": lambda: None if (part := cropped(image, body.box)) is None else image_to_message(part, image_header),
            "skeleton2d": lambda: self._skeleton2d(body, image_header, size),
            "position": lambda: None if body.translation is None else PointStamped(header=header, point=point(body_position(body))),
            "velocity": lambda: self._velocity(body, header),
            "joint_states": lambda: self._joint_states(body, header),
            "urdf": lambda: self._description(body),
        }
        for topic, publisher in self._publishers.items():
            if publisher.get_subscription_count() and (message := makers[topic]()) is not None:
                publisher.publish(message)

    def _roi(self, body: BodyEstimate, header: Header, size: tuple[int, int]):
        edges = dict(zip(("xmin", "ymin", "xmax", "ymax"), region(body.box, size).tolist()))
        return self._package.NormalizedRegionOfInterest2D(header=header, c=float(np.clip(body.score, 0, 1)), **edges)

    def _skeleton2d(self, body: BodyEstimate, header: Header, size: tuple[int, int]):
        kind = self._package.NormalizedPointOfInterest2D
        points = [kind(x=x, y=y, c=c) for x, y, c in skeleton2d(body.keypoints, size).tolist()]
        return self._package.Skeleton2D(header=header, skeleton=points)

    def _velocity(self, body: BodyEstimate, header: Header) -> TwistStamped | None:
        if body.velocity is None:
            return None
        frame = Header(stamp=header.stamp, frame_id=f"body_{self._name}")
        return TwistStamped(header=frame, twist=Twist(linear=vector(body_orientation(body).T @ body.velocity)))

    def _description(self, body: BodyEstimate) -> String | None:
        """Once for everybody: the topic keeps it."""
        if self._urdf is None:
            return None
        text, self._urdf = self._urdf(self._name, body_stature(body)), None
        return String(data=text)

    def _joint_states(self, body: BodyEstimate, header: Header) -> JointState:
        names = [f"{joint}_{self._name}" for joint in HUMAN_JOINTS]
        return JointState(header=header, name=names, position=human_joint_angles(body).tolist())
