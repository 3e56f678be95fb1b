"""The depth image of an image: found by stamp, decoded, and registered into the image's pixels where the driver has not aligned it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sensor_msgs.msg import CompressedImage

from hmr_ros.camera import Camera
from hmr_ros.depth_registration import DepthRegistration
from hmr_ros.io.compressed_depth import compressed_depth_from_message
from hmr_ros.io.decode import depth_from_message, refuse_too_many_pixels
from hmr_ros.ros.camera_state import CameraState
from hmr_ros.ros.stamped_buffer import StampedBuffer
from hmr_ros.ros.stamps import nanoseconds
from hmr_ros.ros.transforms import Transform

TOLERANCE_NS = 20_000_000  # between an image and the depth image that is taken for it
WAIT_S = 0.05  # for a depth image that is not here yet: drivers align it after the image is out


class DepthInput:
    """Takes depth messages and gives metres in the image's pixels. One thread puts, another takes.

    ``transform``: from the depth camera's frame into the image camera's, None where no parameter says it; ``aligned``: the depth is aligned
    whatever frame_id says. ``lookup(image_frame, depth_frame)`` asks tf2: ValueError where it does not know.
    """

    def __init__(self, cameras: CameraState, transform: Transform | None = None, aligned: bool = False,
                 lookup: Callable[[str, str], Transform] | None = None):  # fmt: skip
        self.cameras = cameras
        self._transform, self._aligned, self._lookup = transform, aligned, lookup
        self._messages = StampedBuffer()
        self._registrations: dict[tuple, DepthRegistration] = {}
        self.state = "none received"

    def put(self, message, arrival: float) -> None:
        self._messages.put(nanoseconds(message.header.stamp), (message, arrival))

    def metres(self, header, size: tuple[int, int], camera: Camera | None, max_pixels: int = 0) -> np.ndarray | None:
        """float32 (H, W) of the image with ``header``, (width, height) ``size`` and ``camera``; None where no depth image belongs to it.

        Raises ValueError, in words for the log, where one does and cannot be used.
        """
        found = self._messages.nearest(nanoseconds(header.stamp), TOLERANCE_NS, WAIT_S)
        if found is None:
            self.state = "none at the image's stamp"
            return None
        message, arrival = found
        self.state = "refused, see the log"
        if isinstance(message, CompressedImage):
            depth = compressed_depth_from_message(message, max_pixels)
        else:
            refuse_too_many_pixels(message, max_pixels)
            depth = depth_from_message(message)
        frames = header.frame_id, message.header.frame_id
        same_frame = self._aligned or not all(frames) or frames[0] == frames[1]
        if depth.shape == size[::-1] and self._transform is None and same_frame:
            self.state = "aligned"
            return depth
        depth = self._registered(depth, message.header, arrival, size, camera, frames, same_frame)
        self.state = "registered"
        return depth

    def _registered(self, depth, header, arrival, size, camera, frames, same_frame) -> np.ndarray:
        what = (f"depth image has {depth.shape[1]}x{depth.shape[0]} pixels, the image {size[0]}x{size[1]}" if depth.shape != size[::-1]
                else f'depth image has frame_id "{frames[1]}", the image "{frames[0]}"' if not same_frame
                else "depth_to_image is given")  # fmt: skip
        instead = "or subscribe depth that is aligned with the image"
        depth_camera = self.cameras.camera(header, depth.shape[1], depth.shape[0], arrival)
        if depth_camera is None:
            raise ValueError(f"{what}, and depth_camera_info is {self.cameras.state}, expected the CameraInfo of the depth camera to register it; "
                             f"publish it there, {instead}")  # fmt: skip
        if camera is None:
            raise ValueError(f"{what}, and the image has no camera, expected its CameraInfo to register depth; publish it on camera_info, {instead}")
        if self._transform is not None:
            transform = self._transform
        elif same_frame:
            transform = np.eye(3), np.zeros(3)
        elif self._lookup is None:
            raise ValueError(f'{what}, and nothing says how these frames lie (tf2_ros is not installed); set depth_to_image to "x y z qx qy qz qw" or '
                             f'"aligned", {instead}')  # fmt: skip
        else:
            try:
                transform = self._lookup(*frames)
            except ValueError as error:
                raise ValueError(f"{what}, and tf2 does not know how these cameras lie: {error}; publish it, or set depth_to_image") from error
        key = (depth_camera, depth.shape, camera, size, transform[0].tobytes(), transform[1].tobytes())
        if key not in self._registrations:
            if len(self._registrations) > 3:  # a zoom lens or a moving arm: the rays of a few are enough
                self._registrations.clear()
            self._registrations[key] = DepthRegistration(depth_camera, depth.shape[::-1], camera, size, *transform)
        return self._registrations[key](depth)
