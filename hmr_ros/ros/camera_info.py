"""sensor_msgs/CameraInfo and the camera of the image that arrived with it, in both directions."""

from __future__ import annotations

import math

from sensor_msgs.msg import CameraInfo

from hmr_ros.camera import MODELS, Camera
from hmr_ros.geometry import Intrinsics


def camera_from_message(info: CameraInfo, width: int, height: int, rectified: bool = False) -> Camera | None:
    """The camera of an image of ``width`` x ``height`` pixels; None where it is uncalibrated (K all zeros).

    Raw images have K and the lens distortion, ``rectified`` ones P and none. Raises ValueError as :func:`intrinsics_from_message`, and for
    a distortion model that is not known.
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
