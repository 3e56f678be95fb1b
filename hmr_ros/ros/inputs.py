"""What a camera driver publishes, as arrays and cameras, and back: sensor_msgs/Image, CompressedImage and CameraInfo.

Images go through cv_bridge where a working one is installed, otherwise through io/decode.py, with equal results. Depth images
always go through io/decode.py: cv_bridge has nothing to convert there.
"""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
from array import array

import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from hmr_ros.camera import MODELS, Camera
from hmr_ros.geometry import Intrinsics
from hmr_ros.io.decode import ENCODINGS, checked_rows, compressed_image_from_message, image_from_message

EVERYDAY = {"bgr8", "rgb8", "mono8"}  # a cv_bridge that gets one of these wrong is not trusted with anything

# ---- images ---------------------------------------------------------------------------------------------------------


class ImageConverter:
    """Image and CompressedImage messages → uint8 (H, W, 3) BGR; who converts is chosen here, once.

    cv_bridge converts the encodings ``bridged``: those that it converts exactly as :func:`image_from_message` does. That is
    found out in a process of its own, because a cv_bridge built for another numpy does not only raise, it can crash. Without
    a working one ``bridged`` is empty.
    """

    def __init__(self):
        self.bridged = _bridged_encodings()
        self._through_cv_bridge = _cv_bridge() if self.bridged else None

    def __call__(self, message: Image | CompressedImage) -> np.ndarray:
        """The picture; it may share memory with the message. ValueError for one that cannot be converted (io/decode.py)."""
        if isinstance(message, CompressedImage):
            return compressed_image_from_message(message)
        if message.encoding in self.bridged:
            rows = checked_rows(message)  # cv_bridge would read past them
            if rows.strides[0] == rows.shape[1]:
                return self._through_cv_bridge(message)
        return image_from_message(message)

    def __str__(self) -> str:
        """Who converts, for the log and `hmr-ros doctor`."""
        return f"cv_bridge ({', '.join(sorted(self.bridged))}), OpenCV for the rest" if self.bridged else "OpenCV"


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
    """Encodings of a small random picture that cv_bridge and io/decode.py convert alike. Runs in the probe's process."""
    through_cv_bridge = _cv_bridge()
    agreeing = []
    for encoding, (channels, _) in ENCODINGS.items():
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


def camera_from_message(info: CameraInfo, width: int, height: int, rectified: bool = False) -> Camera | None:
    """The camera of an image of ``width`` x ``height`` pixels; None where it is uncalibrated (K all zeros).

    Raw images have K and the lens distortion, ``rectified`` ones P and none. Raises ValueError as
    :func:`intrinsics_from_message`, and for a distortion model that is not known.
    """
    intrinsics = intrinsics_from_message(info, width, height, rectified)
    if intrinsics is None:
        return None
    model, coefficients = info.distortion_model, tuple(float(value) for value in info.d)
    if rectified or (model != "equidistant" and not any(coefficients)):
        return Camera(intrinsics)
    if not model or model not in MODELS:
        raise ValueError(
            f'CameraInfo has distortion_model "{model}" with coefficients {coefficients}, expected one of '
            f'{", ".join(name for name in MODELS if name)}; rectify the images (image_proc) and use rectified:=true'
        )
    return Camera(intrinsics, model, coefficients)


def intrinsics_from_message(info: CameraInfo, width: int, height: int, rectified: bool = False) -> Intrinsics | None:
    """Intrinsics of an image of ``width`` x ``height`` pixels; None where the camera is uncalibrated (K all zeros).

    K describes the raw image, P the rectified one (``rectified``). Region of interest and binning are taken into account.
    An image of another size than that is taken for a scaled copy if its aspect ratio agrees (to a pixel), and the
    intrinsics are scaled with it; otherwise ValueError: a crop of unknown place has unknown intrinsics.
    """
    matrix, stride = (info.p, 4) if rectified else (info.k, 3)
    fx, cx, fy, cy = (float(matrix[i]) for i in (0, 2, stride + 1, stride + 2))
    if fx == 0 and fy == 0:
        return None
    if not (math.isfinite(fx + fy + cx + cy) and fx > 0 and fy > 0):
        raise ValueError(
            f"CameraInfo.{'p' if rectified else 'k'} has fx {fx}, fy {fy}, cx {cx}, cy {cy}: expected positive focal "
            "lengths in pixels; calibrate the camera or publish zeros for an uncalibrated one"
        )
    binning_x, binning_y = max(info.binning_x, 1), max(info.binning_y, 1)
    # A P matrix already refers to the full rectified image, as K does: both move with the region of interest.
    cx, cy = cx - info.roi.x_offset, cy - info.roi.y_offset
    full_width = (info.roi.width or info.width) / binning_x
    full_height = (info.roi.height or info.height) / binning_y
    fx, fy = fx / binning_x, fy / binning_y
    cx, cy = (cx + 0.5) / binning_x - 0.5, (cy + 0.5) / binning_y - 0.5
    if full_width <= 0 or full_height <= 0:  # drivers that fill K only
        return Intrinsics(fx, fy, cx, cy)
    scale_x, scale_y = width / full_width, height / full_height
    if abs(scale_x * full_height - height) > 1 and abs(scale_y * full_width - width) > 1:
        raise ValueError(
            f"the image has {width}x{height} pixels, CameraInfo describes {full_width:g}x{full_height:g}: expected the "
            "same size or the same aspect ratio; remap camera_info to the topic beside the image"
        )
    return Intrinsics(fx * scale_x, fy * scale_y, (cx + 0.5) * scale_x - 0.5, (cy + 0.5) * scale_y - 0.5)


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
