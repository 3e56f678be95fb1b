"""What estimator and stream accept, checked in one place."""

from __future__ import annotations

import numpy as np

from hmr_ros.camera import Camera, as_camera
from hmr_ros.geometry import Intrinsics


def check_input(
    image: np.ndarray, depth: np.ndarray | None, intrinsics: Intrinsics | Camera | None, stature: float | None = None
) -> Camera | None:
    """The camera of the intrinsics; ValueError, with what was found and what was expected, for anything that is no input of the
    estimator."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f"{getattr(image, 'dtype', type(image).__name__)} {getattr(image, 'shape', '')}"
        raise ValueError(f"image is {found}, expected uint8 (height, width, 3) in BGR order")
    if image.size == 0:
        raise ValueError(f"image is empty: shape {image.shape}; expected at least one pixel")
    if depth is not None:
        if np.shape(depth) != image.shape[:2]:
            raise ValueError(f"depth has shape {np.shape(depth)}, expected {image.shape[:2]}: align it with the image first")
        if not np.issubdtype(np.asarray(depth).dtype, np.floating):
            raise ValueError(f"depth is {np.asarray(depth).dtype}, expected floats in metres: divide millimetres by 1000")
    if stature is not None and not 0 < stature <= 2.5:
        raise ValueError(f"stature is {stature}, expected metres, more than 0 and at most 2.5")
    return as_camera(intrinsics)
