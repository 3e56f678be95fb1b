"""People's proxies → what a regressor says of them, in camera axes; averaged with what it says of them in a mirror."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hmr_ros.geometry import nearest_rotation
from hmr_ros.networks.lifter.features import person_features, turn_back
from hmr_ros.networks.paper.maps import person_maps
from hmr_ros.proxies import FEATURE_MAP, PersonProxies
from hmr_ros.skeleton import COCO_MIRROR, LIMB_KEYPOINTS, SMPL_MIRROR

_FLIP = np.array([-1, 1, 1], np.float32)
_LIMB_MIRROR = [COCO_MIRROR[joint] - LIMB_KEYPOINTS[0] for joint in LIMB_KEYPOINTS]

Answers = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # as BodyParameters


def regress(
    lifter: Callable[[np.ndarray, np.ndarray], Answers], pelvis: Callable[[np.ndarray], np.ndarray], people: Sequence[PersonProxies]
) -> Answers:
    """rotations (N, 24, 3, 3), betas (N, 10), weak cameras (N, 3), reliability (N, 12) of N people.

    lifter: features (M, FEATURE_COUNT), activations (M, *FEATURE_MAP) → BodyParameters as arrays; pelvis: betas (N, 10) →
    (N, 3), of the body that will be posed (of another body than the lifter's the camera is off by what their pelvises differ,
    until it is refitted).
    Whoever has a second look (``mirrored``) gets the mean of both. ValueError where the extractor gave no activations.
    """
    def say(views: Sequence[PersonProxies]) -> Answers:
        if any(view.blazepose is None or view.blazepose.feature_map is None for view in views):
            raise ValueError(f"PersonProxies.blazepose.feature_map is None, expected {FEATURE_MAP}: the lifter reads it, the extractor has to give it")
        features = np.stack([person_features(view) for view in views])
        activations = np.stack([view.blazepose.feature_map for view in views]).astype(np.float32)
        rotations, betas, cameras, reliability = lifter(features, activations)
        angles = np.array([view.blazepose.roi[3] for view in views])
        rotations, cameras = turn_back(rotations, cameras, pelvis(betas), angles)
        return rotations, betas, cameras, reliability

    return _averaged(say, people)


def regress_maps(regressor: Callable[[np.ndarray, np.ndarray], Answers], people: Sequence[PersonProxies]) -> Answers:
    """The same by the paper's regressor: joints (M, 17, 3) and depth (M, MAP_SIZE, MAP_SIZE) → BodyParameters as arrays."""
    return _averaged(lambda views: tuple(regressor(*person_maps(views))), people)


def _averaged(say: Callable[[Sequence[PersonProxies]], Answers], people: Sequence[PersonProxies]) -> Answers:
    second = [i for i, person in enumerate(people) if person.mirrored is not None]
    rotations, betas, cameras, reliability = say([*people, *(people[i].mirrored for i in second)])
    count = len(people)
    answers = rotations[:count], betas[:count], cameras[:count], reliability[:count]
    if not second:
        return answers
    # Reflected back, a rotation R is M R M with left and right exchanged; the body's shapes are symmetric.
    other = (
        rotations[count:][:, list(SMPL_MIRROR)] * (_FLIP[:, None] * _FLIP),
        betas[count:],
        cameras[count:] * np.array([1, -1, 1], np.float32),
        reliability[count:][:, _LIMB_MIRROR],
    )
    return tuple(_merged(answer, second, values) for answer, values in zip(answers, _means(_rows(answers, second), other)))


def _means(one: Answers, other: Answers) -> Answers:
    """Of two looks at each of M people. Looks that take somebody's front for the back have no mean: the surer one counts. A
    look that is no number leaves the first as it is."""
    turned = np.einsum("nij,nij->n", one[0][:, 0], other[0][:, 0])  # trace of the rotation between the headings
    finite = np.logical_and.reduce([np.isfinite(values).reshape(len(turned), -1).all(1) for values in (*one, *other)])
    agree = finite & (turned > 1.0)  # less than 90° apart
    better = finite & ~agree & (other[3].mean(1) > one[3].mean(1))
    means = [values.copy() for values in one]
    means[0][agree] = nearest_rotation(one[0][agree] + other[0][agree])
    for mean, first, last in zip(means[1:], one[1:], other[1:]):
        mean[agree] = (first[agree] + last[agree]) / 2
    for mean, last in zip(means, other):
        mean[better] = last[better]
    return tuple(means)


def _rows(answers: Answers, rows: list[int]) -> Answers:
    return tuple(answer[rows] for answer in answers)


def _merged(answer: np.ndarray, rows: list[int], values: np.ndarray) -> np.ndarray:
    answer = answer.copy()
    answer[rows] = values
    return answer
