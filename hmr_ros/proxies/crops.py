"""Squares and boxes around people: BlazePose's RoI, the box of the confident keypoints, the paper's square crop."""

from __future__ import annotations

import numpy as np

from hmr_ros.geometry import square_crop
from hmr_ros.proxies.config import EmbeddedConfig

_SHOULDERS, _HIPS = [5, 6], [11, 12]


def upright_roi(keypoints: np.ndarray, box: np.ndarray, side: int, config: EmbeddedConfig) -> tuple[np.ndarray, float]:
    """BlazePose's RoI: a square around the hips, turned so that the shoulders are above them.

    keypoints (17, 3) COCO px, confidence; box (4,) px. Returns the affine (2, 3) from the pixels of the RoI, side x side, to the
    image's, and the angle in radians.
    """
    xy, confidence = keypoints[:, :2], keypoints[:, 2]
    sure = confidence > config.min_confidence
    centre = (box[:2] + box[2:]) / 2
    angle, torso = 0.0, 0.0
    if (confidence[_HIPS] > config.min_hip_confidence).all() or sure[_HIPS].any():
        centre = xy[_HIPS].mean(0)
        if sure[_SHOULDERS].any():
            up = xy[_SHOULDERS].mean(0) - centre
            torso = float(np.hypot(*up))
            if sure[_HIPS].all() and sure[_SHOULDERS].all():
                angle = float(np.arctan2(up[0], -up[1]))
    reach = np.linalg.norm(xy[sure] - centre, axis=1).max() if sure.any() else np.hypot(*(box[2:] - box[:2])) / 2
    size = config.roi_reach * max(float(reach), config.roi_torso * torso, 8.0)
    k, c, s = size / side, np.cos(angle), np.sin(angle)
    linear = k * np.array([[c, -s], [s, c]])
    shift = centre - linear @ np.full(2, (side - 1) / 2)
    return np.hstack([linear, shift[:, None]]).astype(np.float32), angle


def roi_of(to_image: np.ndarray, side: int, angle: float) -> np.ndarray:
    """(4,) cu, cv, size px and angle of the RoI, side x side, that ``to_image`` (2, 3) puts into the image."""
    centre = to_image @ [(side - 1) / 2, (side - 1) / 2, 1]
    size = side * np.hypot(*to_image[:, 0])
    return np.array([*centre, size, angle], np.float32)


def joints_box(keypoints: np.ndarray, box: np.ndarray, config: EmbeddedConfig) -> np.ndarray:
    """(4,) around the confident keypoints, with room for head and feet; the detector's ``box`` where they are fewer than four."""
    sure = keypoints[keypoints[:, 2] > config.min_confidence, :2]
    if len(sure) < 4:
        return box
    low, high = sure.min(0), sure.max(0)
    margin = 0.08 * max(*(high - low), 8.0)
    return np.concatenate([low - margin, high + margin])


def person_crop(keypoints: np.ndarray, box: np.ndarray, config: EmbeddedConfig) -> np.ndarray:
    """(3,) cu, cv, size px: the square crop that mask and depth show."""
    return square_crop(joints_box(keypoints, box, config), config.crop_enlargement)


def truncated(box: np.ndarray, image: np.ndarray, config: EmbeddedConfig) -> bool:
    """The box (4,) comes near the image's upper or lower border: part of the person may lie beyond."""
    margin = config.border * image.shape[0]
    return bool(box[1] < margin or box[3] > image.shape[0] - 1 - margin)


def last_pixel(image: np.ndarray) -> np.ndarray:
    """(4,) what boxes in an image are clipped to."""
    height, width = image.shape[:2]
    return np.array([width - 1, height - 1, width - 1, height - 1], np.float32)
