"""What messages cost: bodies that are known become a BodyArray or markers and are published to somebody who listens."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import rclpy
from rclpy.qos import QoSProfile
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from hmr_ros.estimate import Bodies
from hmr_ros.msg import BodyArray
from hmr_ros.ros.markers import MarkerSerializer
from hmr_ros.ros.messages import body_array_message
from hmr_ros.ros.node import RESULTS

WARM_UP = 20
MATCH_SECONDS = 10.0


def time_message_path(bodies: Bodies, faces: np.ndarray, calls: int) -> dict[str, np.ndarray]:
    """What is sent → seconds (calls,) to build and to publish it, for bodies in camera axes.

    The functions and the quality of service are the live node's. The listener belongs to this process and takes nothing out, so that nothing but the
    middleware's own work is timed with it.
    """
    node = rclpy.create_node("message_path")
    try:
        arrays, markers = node.create_publisher(BodyArray, "timed_bodies", RESULTS), node.create_publisher(MarkerArray, "timed_markers", RESULTS)
        for kind, topic in ((BodyArray, "timed_bodies"), (MarkerArray, "timed_markers")):
            node.create_subscription(kind, topic, lambda _: None, QoSProfile(depth=1), raw=True)
        deadline = time.monotonic() + MATCH_SECONDS
        while not (arrays.get_subscription_count() and markers.get_subscription_count()):
            if time.monotonic() > deadline:
                raise ValueError(f"publisher and subscription of one process have not met within {MATCH_SECONDS:g} s; does `hmr-ros doctor` see a middleware?")
            time.sleep(0.01)
        serialise = MarkerSerializer(faces)

        def array_of(some: Bodies, vertices: bool) -> Callable[[Header], None]:
            return lambda header: arrays.publish(body_array_message(some, header, "calibrated", vertices, axes="camera"))

        def markers_of(some: Bodies) -> Callable[[Header], None]:
            return lambda header: markers.publish(serialise(header, some))

        one = Bodies(list(bodies)[:1])
        timed = {
            "BodyArray of one body with vertices": array_of(one, True),
            "BodyArray of one body without vertices": array_of(one, False),
            "markers of one body": markers_of(one),
        }
        if len(bodies) > 1:
            timed |= {f"BodyArray of {len(bodies)} bodies with vertices": array_of(bodies, True), f"markers of {len(bodies)} bodies": markers_of(bodies)}
        return {name: _times(send, calls) for name, send in timed.items()}
    finally:
        node.destroy_node()


def _times(send: Callable[[Header], None], calls: int) -> np.ndarray:
    times = []
    for i in range(WARM_UP + calls):
        header = Header(frame_id="camera")
        header.stamp.sec = i
        begin = time.perf_counter()
        send(header)
        times.append(time.perf_counter() - begin)
    return np.array(times[WARM_UP:])
