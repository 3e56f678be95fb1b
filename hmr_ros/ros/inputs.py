"""What a camera driver publishes, as arrays, and back: sensor_msgs/Image, CompressedImage; CameraInfo of a pinhole (io/camera_info.py reads others).

Images go through cv_bridge where a working one is installed, otherwise through io/decode.py, with equal results. Depth images
always go through io/decode.py: cv_bridge has nothing to convert there.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from array import array

import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from hmr_ros.geometry import Intrinsics
from hmr_ros.io.decode import ENCODINGS, checked_rows, compressed_image_from_message, image_from_message

EVERYDAY = {"bgr8", "rgb8", "mono8"}  # a cv_bridge that gets one of these wrong is not trusted with anything
NEARLY_BLACK = 16  # of 255: where 12-bit values are taken for 16-bit ones white is here

# ---- images ---------------------------------------------------------------------------------------------------------


class ImageConverter:
    """Image and CompressedImage messages → uint8 (H, W, 3) BGR; who converts is chosen here, once.

    cv_bridge converts the encodings ``bridged``: those that it converts exactly as :func:`image_from_message` does. That is
    found out in a process of its own, because a cv_bridge built for another numpy does not only raise, it can crash. Without
    a working one ``bridged`` is empty. ``bit_depth``: of 16-bit values (io/decode.py).
    """

    def __init__(self, bit_depth: int = 16):
        self.bit_depth = bit_depth
        self.bridged = _bridged_encodings()
        self._through_cv_bridge = _cv_bridge() if self.bridged else None

    def __call__(self, message: Image | CompressedImage) -> np.ndarray:
        """The picture; it may share memory with the message. ValueError for one that cannot be converted (io/decode.py)."""
        if isinstance(message, CompressedImage):
            return compressed_image_from_message(message, bit_depth=self.bit_depth)
        if message.encoding in self.bridged:
            rows = checked_rows(message)  # cv_bridge would read past them
            if rows.strides[0] == rows.shape[1]:
                return self._through_cv_bridge(message)
        return image_from_message(message, bit_depth=self.bit_depth)

    def __str__(self) -> str:
        """Who converts, for the log and `hmr-ros doctor`."""
        return f"cv_bridge ({', '.join(sorted(self.bridged))}), OpenCV for the rest" if self.bridged else "OpenCV"


def image_remarks(message: Image | CompressedImage, image: np.ndarray, bit_depth: int) -> list[str]:
    """What seems wrong with the converted ``image`` (H, W, 3) of a message, a line for the log each."""
    encoding = message.format if isinstance(message, CompressedImage) else message.encoding
    if "16" not in encoding or np.mean(image[::8, ::8] > NEARLY_BLACK) > 0.01:  # more than a few hot pixels
        return []
    return [f"images ({encoding}) are nearly black with bit_depth {bit_depth}, expected the bits that the camera has; set the parameter "
            "bit_depth (12 for many industrial cameras)"]  # fmt: skip


def image_to_message(image: np.ndarray, header) -> Image:
    """uint8 (H, W, 3) BGR → sensor_msgs/Image "bgr8" with ``header``."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image is {image.dtype} {image.shape}, expected uint8 (H, W, 3)")
    data = array("B")
    data.frombytes(np.ascontiguousarray(image).data)  # an ndarray would be copied element by element
    height, width = image.shape[:2]
    return Image(header=header, height=height, width=width, encoding="bgr8", step=3 * width, data=data)


def _cv_bridge():
    from cv_bridge import CvBridge

    bridge = CvBridge()
    return lambda message: bridge.imgmsg_to_cv2(message, desired_encoding="bgr8")


def _bridged_encodings() -> frozenset[str]:
    """The encodings that the installed cv_bridge converts as :func:`image_from_message` does; empty without a working one."""
    if importlib.util.find_spec("cv_bridge") is None:
        return frozenset()
    probe = (
        f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import agreeing_encodings; "
        "print('cv_bridge agrees:', *agreeing_encodings())"
    )
    try:
        ended = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return frozenset()
    lines = [line for line in ended.stdout.splitlines() if line.startswith("cv_bridge agrees:")]
    agreeing = frozenset(lines[-1].split()[2:]) if ended.returncode == 0 and lines else frozenset()
    return agreeing if agreeing >= EVERYDAY else frozenset()


def agreeing_encodings() -> list[str]:
    """8-bit encodings of a small random picture that cv_bridge and io/decode.py convert alike: it knows no bit depth.

    Runs in the probe's process.
    """
    through_cv_bridge = _cv_bridge()
    agreeing = []
    for encoding, (bits, channels, _) in ENCODINGS.items():
        if bits > 8:
            continue
        data = np.random.default_rng(0).integers(0, 256, (4, 6 * channels), dtype=np.uint8)
        message = Image(height=4, width=6, encoding=encoding, step=6 * channels, data=array("B", data.tobytes()))
        try:
            bridged = through_cv_bridge(message)
        except Exception:  # whatever a broken or older cv_bridge raises: our own conversion serves
            continue
        if isinstance(bridged, np.ndarray) and bridged.dtype == np.uint8 and np.array_equal(bridged, image_from_message(message)):
            agreeing.append(encoding)
    return agreeing


# ---- cameras --------------------------------------------------------------------------------------------------------


def intrinsics_to_message(intrinsics: Intrinsics, width: int, height: int, header) -> CameraInfo:
    """CameraInfo of an undistorted pinhole camera."""
    fx, fy, cx, cy = intrinsics
    return CameraInfo(
        header=header,
        width=width,
        height=height,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=[fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0],
        r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p=[fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0],
    )
