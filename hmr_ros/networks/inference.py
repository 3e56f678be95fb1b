"""People's proxies → what the lifter says of them, in camera axes; averaged with what it says of them in a mirror."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hmr_ros.geometry import nearest_rotation
from hmr_ros.networks.features import person_features, turn_back
from hmr_ros.proxies import PersonProxies
from hmr_ros.skeleton import COCO_MIRROR, LIMB_KEYPOINTS, SMPL_MIRROR

_FLIP = np.array([-1, 1, 1], np.float32)
_LIMB_MIRROR = [COCO_MIRROR[joint] - LIMB_KEYPOINTS[0] for joint in LIMB_KEYPOINTS]

Answers = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # as BodyParameters


def regress(
    lifter: Callable[[np.ndarray], Answers], pelvis: Callable[[np.ndarray], np.ndarray], people: Sequence[PersonProxies]
) -> Answers:
    """rotations (N, 24, 3, 3), betas (N, 10), weak cameras (N, 3), reliability (N, 12) of N people.

    lifter: features (M, FEATURE_COUNT) → BodyParameters as arrays; pelvis: betas (N, 10) → (N, 3), of the body it was
    trained with. Whoever has a second look (``mirrored``) gets the mean of both.
    """
    second = [i for i, person in enumerate(people) if person.mirrored is not None]
    views = [*people, *(people[i].mirrored for i in second)]
    rotations, betas, cameras, reliability = lifter(np.stack([person_features(view) for view in views]))
    angles = np.array([view.region[3] for view in views])
    rotations, cameras = turn_back(rotations, cameras, pelvis(betas), angles)
    first = slice(0, len(people))
    if not second:
        return rotations, betas, cameras, reliability
    last = slice(len(people), None)
    # Reflected back, a rotation R is M R M with left and right exchanged; the body's shapes are symmetric.
    reflected = rotations[last][:, list(SMPL_MIRROR)] * (_FLIP[:, None] * _FLIP)
    reflected_cameras = cameras[last] * np.array([1, -1, 1], np.float32)
    means = (
        nearest_rotation(rotations[second] + reflected),
        (betas[second] + betas[last]) / 2,
        (cameras[second] + reflected_cameras) / 2,
        (reliability[second] + reliability[last][:, _LIMB_MIRROR]) / 2,
    )
    answers = tuple(value[first].copy() for value in (rotations, betas, cameras, reliability))
    for answer, mean in zip(answers, means):
        answer[second] = mean
    return answers
