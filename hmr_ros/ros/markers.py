"""Meshes for RViz: a MarkerArray of one TRIANGLE_LIST a person, as ready-made CDR bytes.

Markers never become Python objects: a mesh of 13,000 triangles costs rclpy 200 ms as a Marker and 1 ms as bytes.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from typing import Sequence

import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Point, Vector3
from rclpy.serialization import serialize_message
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from hmr_ros.estimate import BodyEstimate
from hmr_ros.palette import person_colour, person_number, unit_rgb

MARKER_LIFETIME_S = 2  # outlasts a slow frame (no blinking); afterwards RViz removes the mesh of a node that is gone
HOLD_S = 0.5  # so long the mesh of somebody who has an id stays where it was when he is not seen (no blinking)


def mesh_marker(header: Header, marker_id: int, points: list[Point]) -> Marker:
    """The Marker of one person's mesh, a TRIANGLE_LIST in ``header``'s frame."""
    red, green, blue = unit_rgb(person_colour(marker_id))
    return Marker(
        header=header,
        ns="hmr",
        id=marker_id,
        type=Marker.TRIANGLE_LIST,
        action=Marker.ADD,
        scale=Vector3(x=1.0, y=1.0, z=1.0),
        color=ColorRGBA(r=red, g=green, b=blue, a=1.0),
        lifetime=Duration(sec=MARKER_LIFETIME_S),
        points=points,
    )


def removed_marker(header: Header, marker_id: int) -> Marker:
    """The Marker that removes a person's mesh who is no longer seen."""
    return Marker(header=header, ns="hmr", id=marker_id, action=Marker.DELETE)


class ShownPeople:
    """Whose markers stand in RViz."""

    def __init__(self):
        self._shown: dict[int, tuple[float, bool]] = {}  # marker id → when last seen, and whether the person has an id

    def gone(self, header: Header, placed: dict[int, BodyEstimate]) -> tuple[int, ...]:
        """Marker ids to delete now that ``placed`` (marker id → body) are shown: those who left. Who has an id stays for ``HOLD_S``."""
        now = header.stamp.sec + 1e-9 * header.stamp.nanosec
        held = {i: seen for i, seen in self._shown.items() if i not in placed and seen[1] and 0 <= now - seen[0] < HOLD_S}
        gone = tuple(sorted(set(self._shown) - set(placed) - set(held)))
        self._shown = held | {i: (now, bool(body.id)) for i, body in placed.items()}
        return gone


class MarkerSerializer:
    """MarkerArrays of meshes as CDR bytes for ``publisher.publish``.

    The middleware serialises a small array of the same frame and ids once, with one sentinel point a mesh and a sentinel
    stamp. A point has 24 bytes, a multiple of every CDR alignment, so that the real points can take the sentinel's place
    without moving what follows relative to its alignment. Only the counts, the points and the stamps are overwritten.
    """

    def __init__(self, faces: np.ndarray):
        self._corners = np.ascontiguousarray(faces).reshape(-1)
        self._templates: OrderedDict[tuple, _Template] = OrderedDict()
        self._shown = ShownPeople()

    def __call__(self, header: Header, bodies: Sequence[BodyEstimate]) -> bytes:
        """CDR of a MarkerArray: a mesh for every body with a translation, DELETE for those who left.

        A marker's id and colour follow the person's id and are those of the overlay. Who has none is shown by the index, and deleted in
        the next call; who has one stays for ``HOLD_S``.
        """
        placed = {person_number(body.id, i): body for i, body in enumerate(bodies) if body.translation is not None}
        ids, gone = tuple(placed), self._shown.gone(header, placed)
        points = [(body.vertices + body.translation)[self._corners] for body in placed.values()]
        return self._template(header.frame_id, ids, gone).fill(header.stamp, points)

    def _template(self, frame_id: str, ids: tuple[int, ...], gone: tuple[int, ...]) -> _Template:
        key = (frame_id, ids, gone)
        if key not in self._templates:
            self._templates[key] = _Template(frame_id, ids, gone)
            while len(self._templates) > 16:
                self._templates.popitem(last=False)
        self._templates.move_to_end(key)
        return self._templates[key]


class _Template:
    """CDR of one combination of frame and ids, cut into the pieces between what changes."""

    STAMP = Time(sec=0x5AC3_1E77, nanosec=0x3B9A_C9F1)

    def __init__(self, frame_id: str, ids: tuple[int, ...], gone: tuple[int, ...]):
        header = Header(stamp=self.STAMP, frame_id=frame_id)
        sentinels = [Point(x=-7.25e77, y=i + 0.5, z=1.125e201) for i in range(len(ids))]
        removed = [removed_marker(header, i) for i in gone]
        one, two = (
            serialize_message(MarkerArray(markers=[
                mesh_marker(header, i, [sentinel] * count) for i, sentinel in zip(ids, sentinels)
            ] + removed))
            for count in (1, 2)
        )  # fmt: skip
        self._pieces: list[bytes] = []  # ends before the count, before the points, ..., the last one is the tail
        begin = 0
        for sentinel in sentinels:
            packed = struct.pack("=3d", sentinel.x, sentinel.y, sentinel.z)
            place, count = one.index(packed), struct.pack("=I", 1)
            # Alignment decides whether the count stands right before the points or four padding bytes earlier: it is
            # where the array with two points a mesh carries a 2.
            same = two.index(packed)
            at = next(o for o in (4, 8) if one[place - o : place - o + 4] == count
                      and two[same - o : same - o + 4] == struct.pack("=I", 2))  # fmt: skip
            self._pieces += [one[begin : place - at], one[place - at + 4 : place]]
            begin = place + len(packed)
        self._pieces.append(one[begin:])
        self._stamp = struct.pack("=iI", self.STAMP.sec, self.STAMP.nanosec)

    def fill(self, stamp: Time, points: list[np.ndarray]) -> bytes:
        """``points``: (3F, 3) corners of each mesh."""
        now = struct.pack("=iI", stamp.sec, stamp.nanosec)
        parts = []
        for i, corners in enumerate(points):
            parts += [self._pieces[2 * i].replace(self._stamp, now), struct.pack("=I", len(corners)),
                      self._pieces[2 * i + 1], np.ascontiguousarray(corners, np.float64).data]  # fmt: skip
        parts.append(self._pieces[-1].replace(self._stamp, now))
        return b"".join(parts)
