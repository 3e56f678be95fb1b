"""Are two detections the same person? Keypoint similarity for non-maximum suppression and for association over time."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from hmr_ros.proxies.config import EmbeddedConfig
from hmr_ros.skeleton import COCO_SIGMAS


_SIGMAS = np.array(COCO_SIGMAS)


class HasJoints(Protocol):
    box: np.ndarray  # (4,) px
    keypoints: np.ndarray  # (17, 3) px, confidence


def same_person(a: HasJoints, b: HasJoints, config: EmbeddedConfig = EmbeddedConfig(), overlap_suffices: bool = False) -> bool:
    """Object keypoint similarity (COCO) over the keypoints that both have; the boxes decide where those are fewer than three.

    ``overlap_suffices``: so are people whose boxes overlap, for detections of different quality: the keypoints of the coarser one may
    lie anywhere on the person.
    """
    if overlap_suffices and iou(a.box, b.box) > config.duplicate_overlap:
        return True
    smaller = min(area(a.box), area(b.box))
    similarity = keypoint_similarity(a.keypoints, b.keypoints, smaller, config)
    if similarity is not None:
        return similarity > config.duplicate_similarity
    return intersection(a.box, b.box) > config.duplicate_containment * smaller


def keypoint_similarity(a: np.ndarray, b: np.ndarray, area: float, config: EmbeddedConfig = EmbeddedConfig()) -> float | None:
    """Object keypoint similarity (COCO) in [0, 1] of keypoints (17, 3) of a person of ``area`` px²; None where fewer than three are common."""
    common = np.minimum(a[:, 2], b[:, 2]) > config.min_confidence
    if common.sum() < 3:
        return None
    squared = ((a[common, :2] - b[common, :2]) ** 2).sum(1)
    return float(np.exp(-squared / (2 * area * (2 * _SIGMAS[common]) ** 2)).mean())


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes (4,)."""
    common = intersection(a, b)
    return common / (area(a) + area(b) - common)


def intersection(a: np.ndarray, b: np.ndarray) -> float:
    """Area in px² that two boxes (4,) share."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = a.tolist(), b.tolist()
    return max(min(ax1, bx1) - max(ax0, bx0), 0.0) * max(min(ay1, by1) - max(ay0, by0), 0.0)


def area(box: np.ndarray) -> float:
    """Of a box (4,), px²."""
    x0, y0, x1, y1 = box.tolist()
    return (x1 - x0) * (y1 - y0)
