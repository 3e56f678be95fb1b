"""Who of the bodies found in a picture is which annotated person, by what both say of the picture: never by the 3D truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from hmr_ros.estimate import BodyEstimate
from hmr_ros.geometry import square_crop
from hmr_ros.training.data.readers.records import Record

SURE = 0.3  # confidence of a 2D joint, on both sides
COMMON_JOINTS = 4
FARTHEST = 0.25  # mean distance of the joints that both sides know, in diagonals of the annotated box
LEAST_OVERLAP = 0.2  # of the squares around both boxes, where there are too few joints


def match(records: Sequence[Record], bodies: Sequence[BodyEstimate]) -> list[int | None]:
    """For each annotated person of a picture the index of its body, or None; no body is given twice.

    A person annotated without box and joints (Human3.6M: alone in the studio) gets the body with the best score.
    """
    if not bodies:
        return [None] * len(records)
    likeness = np.array([[_likeness(record, body) for body in bodies] for record in records])
    found: list[int | None] = [None] * len(records)
    for row, column in zip(*linear_sum_assignment(likeness, maximize=True)):
        if likeness[row, column] > 0:
            found[row] = int(column)
    return found


def _likeness(record: Record, body: BodyEstimate) -> float:
    """1 for the same place, 0 for somebody else."""
    if record.box is None:
        return 1e-3 + body.score
    if record.keypoints is not None:
        known = (record.keypoints[:, 2] > SURE) & (body.keypoints[:, 2] > SURE)
        if known.sum() >= COMMON_JOINTS:
            off = np.linalg.norm(record.keypoints[known, :2] - body.keypoints[known, :2], axis=1).mean()
            return max(0.0, 1 - off / max(np.hypot(*(record.box[2:] - record.box[:2])), 1) / FARTHEST)
    overlap = _overlap(square_crop(record.box, 1), square_crop(body.box, 1))
    return overlap if overlap >= LEAST_OVERLAP else 0.0


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two squares (centre, side)."""
    sides = np.minimum(a[:2] + a[2] / 2, b[:2] + b[2] / 2) - np.maximum(a[:2] - a[2] / 2, b[:2] - b[2] / 2)
    common = float(np.prod(np.maximum(sides, 0)))
    return common / float(a[2] ** 2 + b[2] ** 2 - common)
