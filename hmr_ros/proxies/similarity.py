"""Are two detections the same person? Keypoint similarity for non-maximum suppression and for association over time."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from hmr_ros.proxies.config import EmbeddedConfig
from hmr_ros.skeleton import COCO_SIGMAS


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
    common = np.minimum(a.keypoints[:, 2], b.keypoints[:, 2]) > config.min_confidence
    smaller = min(np.prod(person.box[2:] - person.box[:2]) for person in (a, b))
    if common.sum() >= 3:
        squared = ((a.keypoints[common, :2] - b.keypoints[common, :2]) ** 2).sum(1)
        similarity = np.exp(-squared / (2 * smaller * (2 * np.array(COCO_SIGMAS)[common]) ** 2)).mean()
        return bool(similarity > config.duplicate_similarity)
    return bool(intersection(a.box, b.box) > config.duplicate_containment * smaller)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes (4,)."""
    common = intersection(a, b)
    return float(common / (sum(np.prod(box[2:] - box[:2]) for box in (a, b)) - common))


def intersection(a: np.ndarray, b: np.ndarray) -> float:
    """Area in px² that two boxes (4,) share."""
    return float(np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)))
