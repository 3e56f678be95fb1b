"""sensor_msgs/CameraInfo as a camera, and what is wrong with one. A message of rclpy or of a bag: only its fields are read, without ROS."""

from __future__ import annotations

import math

from hmr_ros.camera import MODELS, Camera
from hmr_ros.geometry import Intrinsics

NO_POSITIONS = 'bodies have no position, axes "ray"'


def camera_from_message(info, width: int, height: int, rectified: bool = False) -> Camera | None:
    """The camera of an image of ``width`` x ``height`` pixels; None where it is uncalibrated (focal lengths of 0).

    Raw images have K and the lens distortion, ``rectified`` ones P and none. Raises ValueError as
    :func:`intrinsics_from_message`, and for a distortion model that is not known, with coefficients or without: a lens of unknown
    kind is no pinhole. An empty distortion_model is none.
    """
    intrinsics = intrinsics_from_message(info, width, height, rectified)
    if intrinsics is None:
        return None
    model, coefficients = info.distortion_model, tuple(float(value) for value in info.d)
    if rectified or (model in MODELS and model != "equidistant" and not any(coefficients)):
        return Camera(intrinsics)
    if not model or model not in MODELS:
        raise ValueError(
            f'CameraInfo has distortion_model "{model}" with coefficients {coefficients}, expected one of '
            f'{", ".join(name for name in MODELS if name)}, or "" without coefficients where nothing is distorted; '
            "rectify the images (image_proc) and use rectified:=true"
        )
    return Camera(intrinsics, model, coefficients)


def camera_remarks(info, width: int, height: int, rectified: bool = False) -> list[str]:
    """What :func:`camera_from_message` misses or assumes for an image of ``width`` x ``height`` pixels, a line for the log each."""
    if _focal_lengths(info, rectified) == (0, 0):
        matrix, images, other = ("p", "rectified", "false") if rectified else ("k", "raw", "true")
        return [f"CameraInfo.{matrix} has fx 0 and fy 0 (uncalibrated camera), expected the matrix of {images} images (rectified:="
                f"{str(rectified).lower()}): {NO_POSITIONS}; publish CameraInfo.{matrix}, or use rectified:={other}"]  # fmt: skip
    described = described_size(info)
    if described is None:
        return [f"CameraInfo has a size of {info.width}x{info.height}, expected the {width}x{height} of the image: its matrix is taken as it "
                "is; publish width and height"]  # fmt: skip
    if abs(described[0] - width) >= 1 or abs(described[1] - height) >= 1:
        return [f"the image has {width}x{height} pixels, CameraInfo describes {described[0]:g}x{described[1]:g}: it is taken for a scaled "
                "copy of the whole view, its focal lengths are scaled; where it is a crop publish its CameraInfo, or positions are wrong"]  # fmt: skip
    return []


def described_size(info) -> tuple[float, float] | None:
    """Width and height of the images that ``info`` describes: its region of interest, binned. None where it does not say."""
    width, height = info.roi.width or info.width, info.roi.height or info.height
    return (width / max(info.binning_x, 1), height / max(info.binning_y, 1)) if width and height else None


def _focal_lengths(info, rectified: bool) -> tuple[float, float]:
    return (float(info.p[0]), float(info.p[5])) if rectified else (float(info.k[0]), float(info.k[4]))


def intrinsics_from_message(info, width: int, height: int, rectified: bool = False) -> Intrinsics | None:
    """Intrinsics of an image of ``width`` x ``height`` pixels; None where the camera is uncalibrated (focal lengths of 0).

    K describes the raw image, P the rectified one (``rectified``). Region of interest and binning are taken into account.
    An image of another size than that is taken for a scaled copy if its aspect ratio agrees (to a pixel), and the
    intrinsics are scaled with it; otherwise ValueError: a crop of unknown place has unknown intrinsics.
    """
    fx, fy = _focal_lengths(info, rectified)
    cx, cy = (float(info.p[2]), float(info.p[6])) if rectified else (float(info.k[2]), float(info.k[5]))
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
    fx, fy = fx / binning_x, fy / binning_y
    cx, cy = (cx + 0.5) / binning_x - 0.5, (cy + 0.5) / binning_y - 0.5
    described = described_size(info)
    if described is None:  # drivers that fill K only
        return Intrinsics(fx, fy, cx, cy)
    scale_x, scale_y = width / described[0], height / described[1]
    if abs(scale_x * described[1] - height) > 1 and abs(scale_y * described[0] - width) > 1:
        raise ValueError(
            f"the image has {width}x{height} pixels, CameraInfo describes {described[0]:g}x{described[1]:g}: expected the "
            "same size or the same aspect ratio; remap camera_info to the topic beside the image"
        )
    return Intrinsics(fx * scale_x, fy * scale_y, (cx + 0.5) * scale_x - 0.5, (cy + 0.5) * scale_y - 0.5)
