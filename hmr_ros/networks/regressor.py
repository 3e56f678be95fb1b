"""The protocol of regressors, people → SMPL parameters, and what they share: flip test-time augmentation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from hmr_ros.geometry import mirror_rotations, mirror_weak_camera, nearest_rotation
from hmr_ros.proxies import PersonProxies
from hmr_ros.skeleton import COCO_MIRROR, LIMB_KEYPOINTS

_LIMB_MIRROR = [COCO_MIRROR[joint] - LIMB_KEYPOINTS[0] for joint in LIMB_KEYPOINTS]


class BodyParameters(NamedTuple):
    """Of N people; out of a regressor numpy float32, or torch on the device of the proxies; torch inside a network."""

    rotations: np.ndarray  # (N, 24, 3, 3); the first is the global orientation in ray axes (camera.py)
    betas: np.ndarray  # (N, 10)
    weak_camera: np.ndarray  # (N, 3) s > 0, tx, ty, in ray axes
    reliability: np.ndarray  # (N, 12) of COCO 5..16, in [0, 1]; ``Regressor.reliability_source`` says what it means

    def rows(self, index) -> BodyParameters:
        """Some of the people."""
        return BodyParameters(*(values[index] for values in self))

    def finite(self) -> np.ndarray:
        """(N,) bool: whose numbers are all finite."""
        rows = [values.reshape(len(values), -1) for values in self]
        if isinstance(rows[0], np.ndarray):
            return np.logical_and.reduce([np.isfinite(values).all(1) for values in rows])
        import torch

        return torch.cat(rows, 1).isfinite().all(1).cpu().numpy()

    def numpy(self) -> BodyParameters:
        """The same as arrays."""
        return self if isinstance(self.rotations, np.ndarray) else BodyParameters(*(values.cpu().numpy() for values in self))


class Regressor(Protocol):
    """People's proxies → parameters of the body model that the estimator poses."""

    name: str
    backend: str  # what runs the network
    reliability_source: str  # "learned": probability that the 3D joint is right to 10 cm; "agreement": how far the proxies agree
    body: dict[str, str]  # "name" and "sha256" of the body model that it was trained with
    depth_size: int  # px: side of the depth maps that it reads; the extractor's shall be no smaller; 0: any will do
    requires: frozenset[str]  # optional parts of PersonProxies without which it cannot work, as in ProxyExtractor.provides

    def __call__(self, people: Sequence[PersonProxies]) -> BodyParameters:
        """ValueError where somebody lacks what the regressor requires."""
        ...


class FlipAveraged(ABC):
    """A regressor that averages what its network gives for a person and for the flipped one (``PersonProxies.mirrored``)."""

    def __call__(self, people: Sequence[PersonProxies]) -> BodyParameters:
        second = [i for i, person in enumerate(people) if person.mirrored is not None]
        both = self._regress([*people, *(people[i].mirrored for i in second)])
        count = len(people)
        parameters, flipped = both.rows(slice(count)), both.rows(slice(count, None))
        if not second:
            return parameters
        other = BodyParameters(  # flipped back
            mirror_rotations(flipped.rotations),
            flipped.betas,
            mirror_weak_camera(flipped.weak_camera),
            flipped.reliability[:, _LIMB_MIRROR],
        )
        merged = BodyParameters(*(values.copy() for values in parameters))
        for values, mean in zip(merged, _means(parameters.rows(second), other)):
            values[second] = mean
        return merged

    @abstractmethod
    def _regress(self, views: Sequence[PersonProxies]) -> BodyParameters:
        """Of people and flipped people, each by itself."""


def _means(one: BodyParameters, other: BodyParameters) -> BodyParameters:
    """Of M people and their flipped selves, flipped back.

    Where the two are more than 90° apart one takes the front for the back and there is no mean: the more reliable one counts. One
    that is not finite leaves the first as it is.
    """
    turned = np.einsum("nij,nij->n", one.rotations[:, 0], other.rotations[:, 0])  # trace of the rotation between the headings
    finite = np.logical_and.reduce([np.isfinite(values).reshape(len(turned), -1).all(1) for values in (*one, *other)])
    agree = finite & (turned > 1.0)  # less than 90° apart
    better = finite & ~agree & (other.reliability.mean(1) > one.reliability.mean(1))
    means = BodyParameters(*(values.copy() for values in one))
    means.rotations[agree] = nearest_rotation(one.rotations[agree] + other.rotations[agree])
    for mean, first, last in zip(means[1:], one[1:], other[1:]):
        mean[agree] = (first[agree] + last[agree]) / 2
    for mean, last in zip(means, other):
        mean[better] = last[better]
    return means
