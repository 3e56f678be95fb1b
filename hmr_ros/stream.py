"""Stream: the estimator with memory, for the frames of one video or camera. Everybody is followed by himself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from hmr_ros.camera import Camera
from hmr_ros.estimate import Bodies, BodyEstimate
from hmr_ros.geometry import Intrinsics
from hmr_ros.inputs import check_input
from hmr_ros.proxies import PersonProxies
from hmr_ros.proxies.similarity import same_person
from hmr_ros.smoothing import Smoother, SmoothingConfig
from hmr_ros.tracking import Tracker, TrackingConfig

if TYPE_CHECKING:
    from hmr_ros.estimator import HumanMeshEstimator


@dataclass(frozen=True)
class StreamConfig:
    """What a stream does with people over time; constants in tracking.py and smoothing.py."""

    max_people: int = 0  # who are followed at a time, those who were there before first; 0: everybody
    min_score: float = 0.0  # of somebody new, [0, 1]; 0: whoever the extractor detects
    smooth_pose: bool = True  # One-Euro filter of pose and orientation
    smooth_translation: bool = True  # the same of position and weak-perspective camera
    steady_shape: bool = True  # one shape for each person, which converges


@dataclass(frozen=True, eq=False)
class Track:
    """One person over time."""

    ENOUGH = 5  # statures measured, before their median counts as known
    MOST = 100  # that are remembered

    proxies: PersonProxies  # in the last frame
    stature: float | None = None  # metres, where it is known: learned from frames with depth
    measured: tuple[float, ...] = ()  # statures, metres
    id: str = ""  # of tracking.py
    shown: bool = True  # False while there is little evidence of a newcomer

    def with_measurement(self, stature: float) -> Track:
        measured = (*self.measured, stature)[-self.MOST :]
        return replace(self, measured=measured, stature=float(np.median(measured)) if len(measured) >= self.ENOUGH else self.stature)


class Stream:
    """Frames of one video in order: ``stream(image, stamp)``. One instance a camera; not for several threads.

    The extractor follows everybody whom the stream knows from frame to frame, which is far cheaper than a detection pass. A complete
    pass runs every ``DETECT_EVERY`` seconds, when stamps or image size jump, and while nobody is known: who is not detected then is
    dropped. When somebody is lost, one more pass looks for people besides those who are still followed, ``RETRY_AFTER`` seconds after
    the last pass at the earliest.

    Statures measured in frames with depth are learned for each person, and tell distances in frames without.

    Everybody has an id (tracking.py), whoever followed or detected them; who is lost and comes back within two seconds is the same
    person, with stature, shape and id. Bodies are smoothed (smoothing.py).
    """

    DETECT_EVERY = 0.8  # seconds: how long somebody new may stay unseen
    RETRY_AFTER = 0.25  # seconds: a person who is lost again and again costs no more than a pass in this time
    LONGEST_GAP = 0.8  # seconds: after a longer pause people may be anywhere
    SMALL = 0.45  # of the image height

    def __init__(self, estimator: HumanMeshEstimator, config: StreamConfig = StreamConfig()):
        self._estimator = estimator
        self._tracker = Tracker(TrackingConfig(max_people=config.max_people, min_score=config.min_score))
        self._smoothing = SmoothingConfig(smooth_pose=config.smooth_pose, smooth_translation=config.smooth_translation, steady_shape=config.steady_shape)
        self._remembered: dict[str, tuple[Track, Smoother]] = {}  # by id
        self.tracks: list[Track] = []
        self._somebody_is_lost = False
        self._small_people = True
        self._shape: tuple[int, ...] = ()
        self._complete_pass = self._last_pass = self._stamp = -np.inf

    def __call__(
        self,
        image: np.ndarray,
        stamp: float,
        depth: np.ndarray | None = None,
        intrinsics: Intrinsics | Camera | None = None,
        stature: float | None = None,
    ) -> Bodies:
        """``stamp`` in seconds; the rest as in ``HumanMeshEstimator.__call__``. Detected are those who are followed."""
        camera = check_input(image, depth, intrinsics, stature)
        if image.shape != self._shape or not 0 < stamp - self._stamp < self.LONGEST_GAP:
            self.tracks = []
        if image.shape != self._shape or not stamp > self._stamp:
            self._tracker.reset()
        if self.tracks and stamp - self._complete_pass < self.DETECT_EVERY:
            self._follow(image, depth)
        else:
            self._detect(image, stamp, depth)
        if not self.tracks and self._last_pass != stamp:
            self._detect(image, stamp, depth)
        elif self._somebody_is_lost and stamp - self._last_pass >= self.RETRY_AFTER:
            self._find_lost(image, stamp, depth)
        self._stamp, self._shape = stamp, image.shape
        self._identify(image, stamp)
        shown = [track for track in self.tracks if track.shown]
        known = np.array([stature or track.stature or np.nan for track in shown])
        smoothers = [self._remembered[track.id][1].at(stamp) for track in shown]
        bodies = self._estimator.estimate([track.proxies for track in shown], camera, depth, known, smoothers)
        self._learn_statures(bodies)
        return bodies

    @property
    def people_lost(self) -> int:
        """Who were shown and did not come back in time, since the start."""
        return self._tracker.lost

    def _identify(self, image: np.ndarray, stamp: float) -> None:
        """Every track gets the id of its person, with what is remembered of them; without those whom the tracker refuses."""
        tracks = []
        for track, identity in zip(self.tracks, self._tracker([track.proxies for track in self.tracks], stamp, image)):
            if identity is None:
                continue
            if track.id != identity.id:
                before = self._remembered[identity.id][0] if identity.id in self._remembered else Track(track.proxies) if track.id else track
                track = replace(track, id=identity.id, stature=before.stature, measured=before.measured)
            tracks.append(replace(track, shown=identity.shown))
        self.tracks = tracks
        known = {one.id for one in self._tracker.known}
        smoothers = {id: smoother for id, (_, smoother) in self._remembered.items()}
        remembered = {id: one for id, one in self._remembered.items() if id in known}
        self._remembered = remembered | {
            track.id: (track, smoothers.get(track.id) or Smoother(self._smoothing, track.id)) for track in tracks
        }

    def _detect(self, image: np.ndarray, stamp: float, depth: np.ndarray | None) -> None:
        """Complete pass: who is detected is known from now on, with what was known before."""
        people = self._estimator.extractor(image, depth)
        before = list(self.tracks)
        self.tracks = []
        for person in people:
            old = next((track for track in before if same_person(person, track.proxies, overlap_suffices=True)), None)
            if old is not None:
                before.remove(old)
            self.tracks.append(Track(person) if old is None else replace(old, proxies=person))
        self._small_people = any(person.box[3] - person.box[1] < self.SMALL * image.shape[0] for person in people)
        self._complete_pass = self._last_pass = stamp
        self._somebody_is_lost = False

    def _follow(self, image: np.ndarray, depth: np.ndarray | None) -> None:
        """Everybody by himself; of two who became one the first stays."""
        followed: list[Track] = []
        for track in self.tracks:
            now = self._estimator.extractor.follow(image, track.proxies, depth)
            lost = now is None or (track.proxies.torso_is_seen and not now.torso_is_seen)
            if lost or any(same_person(now, other.proxies) for other in followed):
                self._somebody_is_lost = True
            else:
                followed.append(replace(track, proxies=now))
        self.tracks = followed

    def _learn_statures(self, bodies: list[BodyEstimate]) -> None:
        measured = {id(body.keypoints): body.measured_stature for body in bodies if body.measured_stature is not None}
        self.tracks = [
            track.with_measurement(measured[id(track.proxies.keypoints)]) if id(track.proxies.keypoints) in measured else track
            for track in self.tracks
        ]

    def _find_lost(self, image: np.ndarray, stamp: float, depth: np.ndarray | None) -> None:
        """One more pass for whoever is not followed, small people only where there were any."""
        for person in self._estimator.extractor(image, depth, small_people=self._small_people):
            if not any(same_person(person, track.proxies, overlap_suffices=True) for track in self.tracks):
                self.tracks.append(Track(person))
        self._last_pass = stamp
        self._somebody_is_lost = False
