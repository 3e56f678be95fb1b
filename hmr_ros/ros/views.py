"""What people look at, made only while somebody subscribes it: `overlay`, `overlay/compressed`, `skeleton` and `points`.

All of them are light enough for a subscriber in Python or over WLAN, unlike the meshes of markers.py: a person is 46 points of bones, a JPEG, or
12 bytes a vertex.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point, Vector3
from sensor_msgs.msg import CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from hmr_ros.drawing import draw_overlay
from hmr_ros.estimate import BodyEstimate
from hmr_ros.palette import joint_colours, person_colour, person_number, unit_rgb
from hmr_ros.ros.inputs import image_to_message
from hmr_ros.ros.markers import MARKER_LIFETIME_S, ShownPeople
from hmr_ros.skeleton import SMPL_BONES, SMPL_JOINTS

try:  # of a ROS installation
    from sensor_msgs_py import point_cloud2
except ImportError:
    point_cloud2 = None

JPEG_QUALITY = 85
BONE_WIDTH_M, TEXT_HEIGHT_M, TEXT_ABOVE_HEAD_M = 0.03, 0.12, 0.3
BONES, TEXT = "bones", "id"  # namespaces: each can be switched off in RViz
POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("person", "<u4")])
POINT_FIELDS = [PointField(name=name, offset=POINT.fields[name][1], datatype=kind, count=1)
                for name, kind in zip(POINT.names, [PointField.FLOAT32] * 3 + [PointField.UINT32])]  # fmt: skip


class Views:
    """``create_publisher(type, topic)`` makes each of ``publishers``; ``faces`` (F, 3) are the body model's. ``compressed`` is the topic beside `overlay`,
    wherever that is remapped to."""

    def __init__(self, create_publisher: Callable, faces: np.ndarray, compressed: str = "overlay/compressed"):
        self._faces = faces
        self._overlay = create_publisher(Image, "overlay")
        self._compressed = create_publisher(CompressedImage, compressed)
        self._skeleton = create_publisher(MarkerArray, "skeleton")
        self._points = create_publisher(PointCloud2, "points")
        self._skeletons = SkeletonMarkers()
        self.publishers = [self._overlay, self._compressed, self._skeleton, self._points]

    def publish(self, image_header: Header, image: np.ndarray, seen: Sequence[BodyEstimate], header: Header, bodies: Sequence[BodyEstimate]) -> None:
        """What somebody listens to, of one image (H, W, 3) BGR: the overlay with the bodies as they are ``seen`` by its camera, the others with ``bodies`` in
        ``header``'s frame."""
        raw, jpeg = self._overlay.get_subscription_count(), self._compressed.get_subscription_count()
        if raw or jpeg:
            overlay = draw_overlay(image, seen, self._faces)
            if raw:
                self._overlay.publish(image_to_message(overlay, image_header))
            if jpeg:
                self._compressed.publish(jpeg_message(overlay, image_header))
        if self._skeleton.get_subscription_count():
            self._skeleton.publish(self._skeletons(header, bodies))
        if self._points.get_subscription_count():
            self._points.publish(points_message(bodies, header))


def jpeg_message(picture: np.ndarray, header: Header) -> CompressedImage:
    """uint8 (H, W, 3) BGR → a CompressedImage as image_transport's compressed publisher makes it."""
    good, encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not good:
        raise ValueError(f"a picture of shape {picture.shape} cannot be encoded as JPEG")
    return CompressedImage(header=header, format="bgr8; jpeg compressed bgr8", data=array("B", encoded.tobytes()))


def points_message(bodies: Sequence[BodyEstimate], header: Header) -> PointCloud2:
    """Vertices of all bodies with a translation, ``header``'s frame, metres; the field `person` is the body's place in the BodyArray."""
    placed = [(i, body) for i, body in enumerate(bodies) if body.translation is not None]
    points = np.zeros(sum(len(body.vertices) for _, body in placed), POINT)
    begin = 0
    for i, body in placed:
        part = points[begin : begin + len(body.vertices)]
        part["x"], part["y"], part["z"] = (body.vertices + body.translation).T
        part["person"] = i
        begin += len(part)
    return _cloud_of_sensor_msgs_py(points, header) if point_cloud2 else _cloud(points, header)


def _cloud_of_sensor_msgs_py(points: np.ndarray, header: Header) -> PointCloud2:
    return point_cloud2.create_cloud(header, POINT_FIELDS, points)


def _cloud(points: np.ndarray, header: Header) -> PointCloud2:
    """The layout of sensor_msgs_py."""
    return PointCloud2(
        header=header, height=1, width=len(points), fields=POINT_FIELDS, is_bigendian=sys.byteorder != "little", point_step=POINT.itemsize,
        row_step=POINT.itemsize * len(points), data=array("B", points.tobytes()), is_dense=False,
    )  # fmt: skip


class SkeletonMarkers:
    """MarkerArrays of bones, coloured by reliability, and of a text with the id above each head, in the frame of the bodies.

    A joint without a reliability of its own (trunk, head, hands, feet) is grey. Marker ids, colours and who is deleted are as in markers.py.
    """

    def __init__(self):
        self._shown = ShownPeople()

    def __call__(self, header: Header, bodies: Sequence[BodyEstimate]) -> MarkerArray:
        placed = {person_number(body.id, i): body for i, body in enumerate(bodies) if body.translation is not None}
        markers = [marker for i, body in placed.items() for marker in (self._bones(header, i, body), self._text(header, i, body))]
        markers += [Marker(header=header, ns=ns, id=i, action=Marker.DELETE) for i in self._shown.gone(header, placed) for ns in (BONES, TEXT)]
        return MarkerArray(markers=markers)

    @staticmethod
    def _bones(header: Header, marker_id: int, body: BodyEstimate) -> Marker:
        joints = (body.joints + body.translation).astype(float)
        points = [Point(x=x, y=y, z=z) for x, y, z in joints.tolist()]
        colours = [_colour(rgb) for rgb in joint_colours(body.reliability)]
        return Marker(
            header=header, ns=BONES, id=marker_id, type=Marker.LINE_LIST, action=Marker.ADD, scale=Vector3(x=BONE_WIDTH_M),
            color=ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0), lifetime=Duration(sec=MARKER_LIFETIME_S),
            points=[points[joint] for bone in SMPL_BONES for joint in bone], colors=[colours[joint] for bone in SMPL_BONES for joint in bone],
        )  # fmt: skip

    @staticmethod
    def _text(header: Header, marker_id: int, body: BodyEstimate) -> Marker:
        x, y, z = (body.joints[SMPL_JOINTS.index("head")] + body.translation).astype(float).tolist()
        marker = Marker(
            header=header, ns=TEXT, id=marker_id, type=Marker.TEXT_VIEW_FACING, action=Marker.ADD, scale=Vector3(z=TEXT_HEIGHT_M),
            color=_colour(person_colour(marker_id)), lifetime=Duration(sec=MARKER_LIFETIME_S),
            text=body.id or f"#{marker_id}",
        )  # fmt: skip
        if body.axes == "target":  # z is up
            marker.pose.position = Point(x=x, y=y, z=z + TEXT_ABOVE_HEAD_M)
        else:  # y is down
            marker.pose.position = Point(x=x, y=y - TEXT_ABOVE_HEAD_M, z=z)
            marker.text += f"  {body.translation[2]:.1f} m"
        return marker


def _colour(rgb: tuple[int, int, int]) -> ColorRGBA:
    red, green, blue = unit_rgb(rgb)
    return ColorRGBA(r=red, g=green, b=blue, a=1.0)
