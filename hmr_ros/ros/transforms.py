"""How frames lie to each other: transforms as arrays, asked of tf2 where `tf2_ros` is installed."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

Transform = tuple[np.ndarray, np.ndarray]  # rotation (3, 3), translation (3,) m: of points in the source frame into the target frame
WAIT_S = 0.05  # for a transform that is not here yet: the odometry of an image comes after it


def transform_of(numbers: tuple[float, ...]) -> Transform:
    """x y z qx qy qz qw → rotation (3, 3), translation (3,)."""
    return Rotation.from_quat(numbers[3:]).as_matrix(), np.asarray(numbers[:3], np.float64)


class Tf2Lookup:
    """Listens to /tf and /tf_static through ``node``. ImportError where `tf2_ros` is not installed."""

    def __init__(self, node):
        from tf2_ros import Buffer, TransformListener

        self._buffer = Buffer()
        self._listener = TransformListener(self._buffer, node)

    def __call__(self, target: str, source: str, stamp: int = 0) -> Transform:
        """Of ``source`` into ``target`` at ``stamp``, nanoseconds (0: the newest). Waits at most ``WAIT_S``, and only where tf2 knows both frames
        but not yet that time. ValueError with tf2's words where it does not know."""
        from rclpy.duration import Duration
        from rclpy.time import Time
        from tf2_ros import ExtrapolationException, TransformException

        time = Time(nanoseconds=stamp)
        try:
            try:
                found = self._buffer.lookup_transform(target, source, time).transform
            except ExtrapolationException:
                found = self._buffer.lookup_transform(target, source, time, Duration(seconds=WAIT_S)).transform
        except TransformException as error:
            raise ValueError(str(error)) from error
        t, q = found.translation, found.rotation
        return transform_of((t.x, t.y, t.z, q.x, q.y, q.z, q.w))

    def close(self) -> None:
        self._listener.unregister()


def tf2_lookup(node) -> Tf2Lookup | None:
    """None where `tf2_ros` is not installed."""
    try:
        return Tf2Lookup(node)
    except ImportError:
        return None


def required_lookup(node, parameter: str, value: str) -> Tf2Lookup:
    """ValueError where ``parameter`` needs `tf2_ros`, which is not installed."""
    if (lookup := tf2_lookup(node)) is None:
        raise ValueError(f'parameter {parameter} is "{value}", but tf2_ros is not installed; apt install ros-$ROS_DISTRO-tf2-ros-py, or leave it empty')
    return lookup
