"""Stream: the estimator with memory, for the frames of one video or camera. Everybody is followed by himself."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from hmr_ros.camera import Camera
from hmr_ros.estimate import Bodies, BodyEstimate
from hmr_ros.geometry import Intrinsics
from hmr_ros.inputs import check_input
from hmr_ros.proxies import PersonProxies
from hmr_ros.proxies.similarity import area, keypoint_similarity, same_person
from hmr_ros.smoothing import Smoother, SmoothingConfig, compile_kernels
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
    real_time: bool = False  # passes take about `Stream.SHARE` of the time: a slow machine makes fewer. False: results depend on stamps alone


@dataclass(frozen=True, eq=False)
class Track:
    """One person over time."""

    ENOUGH = 5  # statures measured, before their median counts as known
    MOST = 100  # that are remembered

    proxies: PersonProxies  # in the last frame
    stature: float | None = None  # metres, where it is known: learned from frames with depth
    measured: tuple[float, ...] = ()  # statures, metres
    key: int = field(default_factory=itertools.count().__next__)  # which person
    id: str = ""  # of tracking.py
    shown: bool = True  # False while there is little evidence of a newcomer

    def with_measurement(self, stature: float) -> Track:
        measured = (*self.measured, stature)[-self.MOST :]
        return replace(self, measured=measured, stature=float(np.median(measured)) if len(measured) >= self.ENOUGH else self.stature)


@dataclass(frozen=True, eq=False)
class Search:
    """A pass of the detector that is spread over frames: the image that it searches, and who was followed there."""

    image: np.ndarray
    depth: np.ndarray | None
    passes: Generator[None, None, list]  # one network pass a step; returns detections
    tracks: tuple[Track, ...]
    complete: bool  # small people were looked for, too: who is not detected is not there
    stamp: float  # of the image


class Stream:
    """Frames of one video in order: ``stream(image, stamp)``. One instance a camera; not for several threads.

    The extractor follows everybody whom the stream knows from frame to frame, which is far cheaper than a detection pass. A complete
    pass begins ``DETECT_EVERY`` seconds after the last: who is not detected then is dropped. When somebody is lost, one more pass looks
    for people besides those who are still followed, ``RETRY_AFTER`` seconds after the last pass at the earliest. While nobody is known,
    every frame is detected anew.

    Where the extractor can `search` step by step, a pass is spread over frames, a step for each ``STEP_EVERY`` seconds between them: it keeps
    the image that it began with, people are followed meanwhile, and whoever is found is followed from that image into the present one.

    With ``real_time`` a slow machine makes fewer passes, so that following keeps its rate. Otherwise its frames would lie far apart, have many
    steps each, and become slower still. A pass is not spread farther: whoever is found must be followed from its image into the present one.

    Statures measured in frames with depth are learned for each person, and tell distances in frames without.

    Everybody has an id (tracking.py), whoever followed or detected them; who is lost and comes back within three seconds is the same
    person, with stature, shape and id. Bodies are smoothed (smoothing.py).
    """

    DETECT_EVERY = 0.8  # seconds: how long somebody new may stay unseen, beside the pass itself
    STEP_EVERY = 0.05  # seconds: at 10 frames a second two steps a frame, above 13 one; whoever is found was there a moment ago
    RETRY_AFTER = 0.25  # seconds: a person who is lost again and again costs no more than a pass in this time
    LONGEST_GAP = 0.8  # seconds, beside what the last frame took: after a longer pause people may be anywhere
    SHARE = 0.33  # of the time, for passes in real time; twice as much while somebody is lost
    LONGEST_REST = 1.5  # seconds from pass to pass, however long one takes
    SMALL = 0.45  # of the image height

    def __init__(self, estimator: HumanMeshEstimator, config: StreamConfig = StreamConfig()):
        self._estimator = estimator
        self._spreads = hasattr(estimator.extractor, "search")
        self._real_time = config.real_time
        compile_kernels()  # here, and not in somebody's second frame
        self._tracker = Tracker(TrackingConfig(max_people=config.max_people, min_score=config.min_score))
        self._smoothing = SmoothingConfig(smooth_pose=config.smooth_pose, smooth_translation=config.smooth_translation, steady_shape=config.steady_shape)
        self._remembered: dict[str, tuple[Track, Smoother]] = {}  # by id
        self.tracks: list[Track] = []
        self._search: Search | None = None
        self._somebody_is_lost = False
        self._small_people = True
        self._shape: tuple[int, ...] = ()
        self._complete_pass = self._last_pass = self._stamp = -np.inf
        self._took = 0.0  # seconds, by the last frame
        self._pass_took = 0.0  # seconds, by the present pass, else by the last one

    def __call__(
        self,
        image: np.ndarray,
        stamp: float,
        depth: np.ndarray | None = None,
        intrinsics: Intrinsics | Camera | None = None,
        stature: float | None = None,
    ) -> Bodies:
        """``stamp`` in seconds; the rest as in ``HumanMeshEstimator.__call__``. Detected are those who are followed and known for long enough to be shown."""
        begin = time.perf_counter()
        camera = check_input(image, depth, intrinsics, stature)
        if image.shape != self._shape or not 0 < stamp - self._stamp < self.LONGEST_GAP + self._took:
            self.tracks, self._search = [], None
        if image.shape != self._shape or not stamp > self._stamp:
            self._tracker.reset()
        self._find_people(image, stamp, depth)
        self._stamp, self._shape = stamp, image.shape
        self._identify(image, stamp)
        shown = [track for track in self.tracks if track.shown]
        known = np.array([stature or track.stature or np.nan for track in shown])
        smoothers = [self._remembered[track.id][1].at(stamp) for track in shown]
        bodies = self._estimator.estimate([track.proxies for track in shown], camera, depth, known, smoothers)
        self._learn_statures(bodies)
        self._took = time.perf_counter() - begin
        return bodies

    def _find_people(self, image: np.ndarray, stamp: float, depth: np.ndarray | None) -> None:
        """The tracks, from the last frame into this one."""
        if self._search is not None:
            self._go_on(stamp)
        rest = min(self._pass_took / self.SHARE, self.LONGEST_REST) if self._real_time else 0.0
        due = stamp - self._complete_pass >= max(self.DETECT_EVERY, rest)
        if due and not self._spreads:
            self._detect(image, stamp, depth)
            return
        self._follow(image, depth)
        lost = self._somebody_is_lost and stamp - self._last_pass >= max(self.RETRY_AFTER, rest / 2)
        if not self.tracks:
            self._detect(image, stamp, depth)
        elif not self._spreads and lost:
            self._find_lost(image, stamp, depth)
        elif self._spreads and self._search is None and (due or lost):
            image, depth = image.copy(), None if depth is None else depth.copy()
            passes = self._estimator.extractor.search(image, small_people=due or self._small_people)
            self._search = Search(image, depth, passes, tuple(self.tracks), due, stamp)
            self._somebody_is_lost, self._pass_took = False, 0.0
            self._go_on(stamp)

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

    # ---- a pass in one frame -----------------------------------------------------------------------------------------

    def _detect(self, image: np.ndarray, stamp: float, depth: np.ndarray | None) -> None:
        """Complete pass: who is detected is known from now on, with what was known before."""
        begin = time.perf_counter()
        people = self._estimator.extractor(image, depth)
        self._pass_took = time.perf_counter() - begin
        before = list(self.tracks)
        self.tracks, self._search = [], None
        for person in people:
            old = next((track for track in before if same_person(person, track.proxies, overlap_suffices=True)), None)
            if old is not None:
                before.remove(old)
            self.tracks.append(Track(person) if old is None else replace(old, proxies=person))
        self._small_people = self._any_small(people, image)
        self._complete_pass = self._last_pass = stamp
        self._somebody_is_lost = False

    def _find_lost(self, image: np.ndarray, stamp: float, depth: np.ndarray | None) -> None:
        """One more pass for whoever is not followed, small people only where there were any."""
        begin = time.perf_counter()
        people = self._estimator.extractor(image, depth, small_people=self._small_people)
        self._pass_took = time.perf_counter() - begin
        for person in people:
            if not any(same_person(person, track.proxies, overlap_suffices=True) for track in self.tracks):
                self.tracks.append(Track(person))
        self._last_pass = stamp
        self._somebody_is_lost = False

    def _any_small(self, people: list, image: np.ndarray) -> bool:
        return any(person.box[3] - person.box[1] < self.SMALL * image.shape[0] for person in people)

    # ---- a pass over several frames ----------------------------------------------------------------------------------

    def _go_on(self, stamp: float) -> None:
        """The steps of the search that are this frame's. After the last one those who are followed already stay, everybody else starts where
        he was in the search's image."""
        begin, search = time.perf_counter(), self._search
        steps = max(1, round((stamp - self._stamp) / self.STEP_EVERY))
        try:
            for _ in range(steps):
                next(search.passes)
        except StopIteration as end:
            self._search = None
            self._finish(search, end.value)
        self._pass_took += time.perf_counter() - begin

    def _finish(self, search: Search, detections: list) -> None:
        extractor = self._estimator.extractor
        there, seen = list(search.tracks), []
        for detection in detections:
            old = next((track for track in there if same_person(detection, track.proxies, overlap_suffices=True)), None)
            if old is not None:
                there.remove(old)
                seen.append(old.proxies)
                if self._update(old, lambda now: replace(now, proxies=replace(now.proxies, score=detection.score))):
                    if extractor.agrees(detection, old.proxies):
                        continue
            person = extractor.confirm(search.image, detection, search.depth)
            if person is None or any(same_person(person, other) for other in seen if old is None or other is not old.proxies):
                continue
            seen.append(person)
            if old is None or not self._update(old, lambda now: replace(now, proxies=person)):
                self.tracks.append(Track(person) if old is None else replace(old, proxies=person))
        if search.complete:
            self.tracks = [track for track in self.tracks if not any(track.key == gone.key for gone in there)]
            self._small_people = self._any_small(detections, search.image)
            self._complete_pass = search.stamp
        self._last_pass = search.stamp

    def _update(self, old: Track, change: Callable[[Track], Track]) -> bool:
        """Change what has become of a track; False where it was lost."""
        for i, track in enumerate(self.tracks):
            if track.key == old.key:
                self.tracks[i] = change(track)
                return True
        return False

    # ---- between passes ----------------------------------------------------------------------------------------------

    def _follow(self, image: np.ndarray, depth: np.ndarray | None) -> None:
        """Everybody by himself. Of two who became one, who has jumped onto the other is lost: whose pose changed more."""
        extractor, people = self._estimator.extractor, [track.proxies for track in self.tracks]
        if hasattr(extractor, "follow_all"):
            found = extractor.follow_all(image, people, depth)
        else:
            found = [extractor.follow(image, person, depth) for person in people]
        followed: dict[int, PersonProxies] = {}
        for i in sorted(range(len(people)), key=lambda i: -_likeness(people[i], found[i])):
            lost = found[i] is None or (people[i].torso_is_seen and not found[i].torso_is_seen)
            if lost or any(same_person(found[i], other) for other in followed.values()):
                self._somebody_is_lost = True
            else:
                followed[i] = found[i]
        self.tracks = [replace(track, proxies=followed[i]) for i, track in enumerate(self.tracks) if i in followed]

    def _learn_statures(self, bodies: list[BodyEstimate]) -> None:
        measured = {id(body.keypoints): body.measured_stature for body in bodies if body.measured_stature is not None}
        self.tracks = [
            track.with_measurement(measured[id(track.proxies.keypoints)]) if id(track.proxies.keypoints) in measured else track
            for track in self.tracks
        ]


def _likeness(before: PersonProxies, now: PersonProxies | None) -> float:
    """Object keypoint similarity of a person in two frames; 0 where it cannot be told."""
    return 0.0 if now is None else keypoint_similarity(before.keypoints, now.keypoints, area(before.box)) or 0.0
