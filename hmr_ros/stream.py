"""Stream: the estimator with memory, for the frames of one video or camera."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hmr_ros.camera import Camera
from hmr_ros.estimate import BodyEstimate
from hmr_ros.geometry import Intrinsics
from hmr_ros.inputs import check_input
from hmr_ros.proxies import PersonProxies

if TYPE_CHECKING:
    from hmr_ros.estimator import HumanMeshEstimator


class Stream:
    """Frames of one video in order: ``stream(image, stamp)``. One instance a camera; not for several threads.

    Everybody is looked for every ``DETECT_EVERY`` seconds and when the stamps or the image's size jump. In between the extractor follows those
    it knows, which is what makes several people affordable; where it cannot, they are looked for again, small ones only
    if there were any.
    """

    DETECT_EVERY = 0.8  # seconds: how long somebody new may stay unseen
    LONGEST_GAP = 0.8  # seconds: after a longer pause people may be anywhere
    SMALL = 0.45  # of the image height

    def __init__(self, estimator: HumanMeshEstimator):
        self._estimator = estimator
        self._people: list[PersonProxies] = []
        self._small_people = True
        self._shape: tuple[int, ...] = ()
        self._detected = self._stamp = -np.inf

    def __call__(
        self,
        image: np.ndarray,
        stamp: float,
        depth: np.ndarray | None = None,
        intrinsics: Intrinsics | Camera | None = None,
        stature: float | None = None,
    ) -> list[BodyEstimate]:
        """``stamp`` in seconds; the rest as in ``HumanMeshEstimator.__call__``."""
        camera = check_input(image, depth, intrinsics, stature)
        extractor = self._estimator.extractor
        jump = image.shape != self._shape or not 0 < stamp - self._stamp < self.LONGEST_GAP
        due = jump or stamp - self._detected >= self.DETECT_EVERY
        people = None
        if self._people and not due:
            people = [extractor.follow(image, person, depth) for person in self._people]
        if people is None or any(now is None or before.torso_is_seen and not now.torso_is_seen for before, now in zip(self._people, people)):
            people = extractor(image, depth, small_people=due or self._small_people)
        if due:
            self._detected = stamp
            self._small_people = any(p.box[3] - p.box[1] < self.SMALL * image.shape[0] for p in people)
        self._people, self._stamp, self._shape = people, stamp, image.shape
        return self._estimator.estimate(people, camera, depth, None if stature is None else np.full(len(people), stature))
