"""Joints of people whom several calibrated cameras see at the same time, triangulated: a teacher (teacher.py) that knows where they are.

    associate    the viewing rays of one person's joints meet: median distance of the rays over a person's joints, averaged over both tracks within
                 ``WINDOW``, and who of one camera is who of the other by the Hungarian method at every time step
    triangulate  of all pairs of views that see a joint, the point that most of them agree on (MSAC, exhaustive); then a linear least-squares fit
                 (DLT, Hartley and Sturm 1997) of the views that agree, by confidence

Cameras need not expose together: joints are interpolated between the frames of the other cameras, whose clocks must agree. A rig that
does not fit the people is refused. Nothing here asks the lifter.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import combinations, permutations
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from hmr_ros.proxies import registry
from hmr_ros.skeleton import COCO_FROM_BLAZEPOSE
from hmr_ros.training.adaptation.recordings import People
from hmr_ros.training.adaptation.rig import Mount

WINDOW = 1.0  # seconds to either side over which two tracks are compared
LONGEST_GAP = 0.25  # seconds between two frames between which joints are interpolated
JITTER = 0.01  # seconds: stamps nearer than this are the same moment
APART = 0.15  # metres: rays of joints that miss each other by more are of two people
AGREES = 0.1  # metres, at the joint's distance: a view that sees the joint farther from where it re-projects is an outlier
ALLOWED = 0.08  # metres: median re-projection error and distance of rays beyond which the rig is wrong; usual are 0.02 to 0.05
FARTHEST = 0.3  # metres: two rays that miss each other by more count as this far apart
SIZE_ERROR = 1.6  # by so large a factor a distance may differ from what BlazePose's world landmarks say
CROSSING = 1 - np.cos(np.radians(20))  # information on a joint along its least certain direction: two sure rays that cross at 20 degrees
REACH = 1.3  # metres: no joint is farther from the middle of the person's others
FEWEST = 4  # joints, of one frame, that two views must share
ENOUGH = 20  # detections that tell something about a rig
INSIDE = 0.1  # of the image's size: who is expected nearer to the border may be out of sight


class Triangulated(NamedTuple):
    """Of N detections before V cameras."""

    points: np.ndarray  # (N, 17, 3) metres, in the frame of the camera that detected them; NaN: not triangulated
    partners: np.ndarray  # (N, V) the track that is the same person before each camera, their own included; -1: none
    errors: np.ndarray  # (V,) metres: median re-projection error before each camera; NaN where nobody is triangulated

    @property
    def known(self) -> np.ndarray:
        """(N,) bool: somebody of whom joints are triangulated."""
        return np.isfinite(self.points[..., 0]).any(1)


def triangulated(people: People, rig: Sequence[Mount]) -> Triangulated:
    """Triangulate whom several cameras see. Stamps are those of the rig; ``rig`` has one camera a recording, or none at all: nobody is triangulated.

    Raises ValueError with the cameras' names where people who should be seen by two of them do not lie on rays that meet.
    """
    count, own = len(people), np.arange(len(people))
    if not rig:
        return Triangulated(np.full((count, 17, 3), np.nan, np.float32), np.empty((count, 0), int), np.empty(0))
    views = _Views(people, rig)
    seen, partners = np.zeros((count, len(rig), 17, 3)), np.full((count, len(rig)), -1)
    seen[own, people.recording], partners[own, people.recording] = views.rays, people.track
    for a, b in permutations(range(len(rig)), 2):
        for rows, track in views.matches(a, b):
            seen[rows, b], partners[rows, b] = views.track_at(b, track, rows)[0], track
    if ((partners >= 0).sum(1) < 2).all():
        _check_reading(people, rig)
    poses = np.stack([mount.pose for mount in rig])
    points, errors, agree = robust(seen[..., :2], seen[..., 2], poses)
    _check(errors, seen[..., 2] > 0, rig)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # who is seen by one camera has no middle
        known = np.linalg.norm(points - np.nanmedian(points, axis=1, keepdims=True), axis=-1) < REACH
    # Who is not where the others see him is not them; joints that only this camera sees elsewhere are corrected.
    theirs = (agree[own, people.recording] & known).sum(1)
    known &= ((theirs >= FEWEST) & (theirs >= 0.5 * (known & (views.rays[..., 2] > 0)).sum(1)))[:, None]
    in_camera = np.einsum("nij,nkj->nki", poses[people.recording, :, :3], points) + poses[people.recording, None, :, 3]
    used = np.where(known[:, None] & (seen[..., 2] > 0), errors, np.nan)
    medians = [float(np.median(some[np.isfinite(some)])) if np.isfinite(some).any() else np.nan for some in np.swapaxes(used, 0, 1)]
    return Triangulated(np.where(known[..., None], in_camera, np.nan).astype(np.float32), partners, np.array(medians))


# ---- points from rays -------------------------------------------------------------------------------------------------


def linear(directions: np.ndarray, weights: np.ndarray, poses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (..., 3) that re-project best to ``directions`` (..., V, 2), x/z and y/z before each camera, by ``weights`` (..., V): linear least squares of
    the distance in metres. ``poses`` (V, 3, 4) world → camera. And the least eigenvalue (...) of their information matrix."""
    equations = poses[:, :2] - directions[..., None] * poses[:, 2:]  # (..., V, 2, 4)
    weighted = equations * weights[..., None, None]
    normal = np.einsum("...vei,...vej->...ij", weighted[..., :3], equations)
    points = np.linalg.solve(normal[..., :3] + 1e-9 * np.eye(3), -normal[..., 3:])[..., 0]
    return points, np.linalg.eigvalsh(normal[..., :3])[..., 0]


def reprojection(points: np.ndarray, directions: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """How far points (..., 3) re-project from ``directions`` (..., V, 2): metres (..., V) at their distance; inf behind a camera."""
    inside = np.einsum("vij,...j->...vi", poses[..., :3], points) + poses[..., 3]
    return np.where(inside[..., 2] > 0.1, np.linalg.norm(inside[..., :2] - directions * inside[..., 2:], axis=-1), np.inf)


def robust(directions: np.ndarray, confidence: np.ndarray, poses: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Joints (N, K, 3) from ``directions`` (N, V, K, 2) with ``confidence`` (N, V, K), 0 of who does not see it: NaN where no two views agree; how far each
    view re-projects (N, V, K) in metres, and which agree."""
    directions, confidence = np.swapaxes(directions, 1, 2), np.swapaxes(confidence, 1, 2)  # (N, K, V)
    best, agree = np.full(confidence.shape[:2], np.inf), np.zeros(confidence.shape, bool)
    for pair in combinations(range(len(poses)), 2):
        both = (confidence[..., pair] > 0).all(-1)
        if not both.any():
            continue
        points = linear(directions[both][:, pair], np.ones((both.sum(), 2)), poses[list(pair)])[0]
        off = reprojection(points, directions[both], poses)
        score = (confidence[both] * np.minimum(off / AGREES, 1) ** 2).sum(-1)  # 1: an outlier
        inliers = (off < AGREES) & (confidence[both] > 0)
        score = np.where(inliers[:, pair].all(-1), score, np.inf)
        better = score < best[both]
        rows = tuple(index[better] for index in np.nonzero(both))
        best[rows], agree[rows] = score[better], inliers[better]
    points, information = linear(directions, confidence * agree, poses)
    errors = reprojection(points, directions, poses)
    known = (agree.sum(-1) >= 2) & (information > CROSSING) & ((errors < AGREES) | ~agree).all(-1)
    return np.where(known[..., None], points, np.nan), np.swapaxes(np.where(known[..., None], errors, np.nan), 1, 2), np.swapaxes(agree, 1, 2)


# ---- who is who -------------------------------------------------------------------------------------------------------


class _Views:
    """What the cameras of a rig see of everybody."""

    def __init__(self, people: People, rig: Sequence[Mount]):
        self.people, self.rig = people, rig
        self.rays = np.zeros((len(people), 17, 3))  # x/z, y/z, confidence
        self.distance = np.ones(len(people))  # metres along the optical axis, by the size of the landmarks
        keypoints, (landmarks, world) = people.rows["keypoints"], (people.rows[name][:, list(COCO_FROM_BLAZEPOSE), :2] for name in ("landmarks", "world"))
        for number, camera in enumerate(people.cameras):
            here = people.recording == number
            directions, known = camera.directions(keypoints[here, :, :2])
            sure = known & (keypoints[here, :, 2] > registry.confident(None))
            self.rays[here] = np.concatenate([directions, (keypoints[here, :, 2] * sure)[..., None]], axis=-1)
            self.distance[here] = _spread(world[here]) / np.maximum(_spread(camera.directions(landmarks[here])[0]), 1e-6)

    def track_at(self, camera: int, track: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A track at the moments of ``rows`` (n,) of other cameras: rays (n, 17, 3), distance (n,), and whether it was seen then (n,)."""
        mine = np.flatnonzero((self.people.track == track) & (self.people.recording == camera))
        stamps, at = self.people.stamp[mine], self.people.stamp[rows]
        after = np.searchsorted(stamps, at).clip(0, len(mine) - 1)
        before = np.maximum(after - 1, 0)
        to, since = np.abs(stamps[after] - at), np.abs(at - stamps[before])
        span = np.maximum(stamps[after] - stamps[before], 1e-9)
        share = np.where(to <= JITTER, 1.0, np.where(since <= JITTER, 0.0, (at - stamps[before]) / span))
        valid = (np.minimum(to, since) <= JITTER) | (span <= LONGEST_GAP) & (share >= 0) & (share <= 1)
        first, second = self.rays[mine[before]], self.rays[mine[after]]
        rays = first + share[:, None, None] * (second - first)
        lacks = (first[..., 2] <= 0) & (share < 1)[:, None] | (second[..., 2] <= 0) & (share > 0)[:, None]
        rays[..., 2] = np.where(lacks | ~valid[:, None], 0, rays[..., 2])
        return rays, self.distance[mine[np.where(share > 0.5, after, before)]], valid

    def matches(self, a: int, b: int) -> list[tuple[np.ndarray, int]]:
        """Detections of camera ``a`` who are a track of camera ``b``: rows and that track. ValueError where the rig does not fit them."""
        here = np.flatnonzero(self.people.recording == a)
        tracks = np.unique(self.people.track[self.people.recording == b])
        if not len(here) or not len(tracks):
            return []
        apart = np.stack([self._apart(here, a, b, track) for track in tracks], axis=1)
        cost = self._over_time(here, apart)
        chosen = np.full(len(here), -1)
        for rows in _together(self.people.stamp[here]):
            columns = np.flatnonzero(np.isfinite(cost[rows]).any(0))
            some = np.minimum(np.nan_to_num(cost[np.ix_(rows, columns)], nan=APART), APART)
            for row, column in zip(*linear_sum_assignment(some)):
                if some[row, column] < APART:
                    chosen[rows[row]] = columns[column]
        self._check(here, a, b, apart, chosen)
        return [(here[chosen == column], int(tracks[column])) for column in np.unique(chosen[chosen >= 0])]

    def _apart(self, here: np.ndarray, a: int, b: int, track: int) -> np.ndarray:
        """Metres (n,) by which a track's rays miss those of detections, median over their joints; NaN where they are not seen together."""
        values = np.full(len(here), np.nan)
        mine = self.people.stamp[(self.people.track == track) & (self.people.recording == b)]
        near = np.flatnonzero((self.people.stamp[here] >= mine.min() - JITTER) & (self.people.stamp[here] <= mine.max() + JITTER))
        theirs, distance, valid = self.track_at(b, track, here[near])
        ours = self.rays[here[near]]
        both = (ours[..., 2] > 0) & (theirs[..., 2] > 0)
        near_enough, gap = _closest(self.rig[a], self.rig[b], ours, theirs, self.distance[here[near]], distance)
        gap = np.where(both, np.where(near_enough, np.minimum(gap, FARTHEST), FARTHEST), np.nan)
        told = valid & (both.sum(1) >= FEWEST)
        values[near[told]] = np.nanmedian(gap[told], axis=1) if told.any() else []
        return values

    def _over_time(self, here: np.ndarray, apart: np.ndarray) -> np.ndarray:
        """Means over ``WINDOW`` of the track that a detection belongs to, of values (n, T); NaN where it has fewer than three, or none itself."""
        stamp, track = self.people.stamp[here], self.people.track[here]
        time = stamp - stamp.min() + np.unique(track, return_inverse=True)[1] * (np.ptp(stamp) + 3 * WINDOW)  # ascending: rows are track by track
        first, last = np.searchsorted(time, time - WINDOW - JITTER), np.searchsorted(time, time + WINDOW + JITTER)
        told = np.isfinite(apart)
        sums, counts = (np.concatenate([np.zeros((1, apart.shape[1])), np.cumsum(some, axis=0)]) for some in (np.where(told, apart, 0), told))
        count = counts[last] - counts[first]
        return np.where(told & (count >= 3), (sums[last] - sums[first]) / np.maximum(count, 1), np.nan)

    def _check(self, here: np.ndarray, a: int, b: int, apart: np.ndarray, chosen: np.ndarray) -> None:
        """Of whom camera ``b`` should see where he stands, a quarter is seen there at least, and rays of the same person meet."""
        told = np.isfinite(apart).any(1)
        matched = chosen >= 0
        concerned = told & (matched | self._in_sight(here, a, b))
        if concerned.sum() < ENOUGH:
            return
        if matched[concerned].mean() >= 0.25:
            found = float(np.median(apart[matched, chosen[matched]]))
        else:
            found = float(np.median(np.nanmin(apart[concerned], axis=1)))
        if found > ALLOWED:
            raise ValueError(f"the rig does not fit the people before {self.rig[a].name} and {self.rig[b].name}: the rays of their joints miss each other by "
                             f"{'at least ' * (found >= FARTHEST)}{found:.2f} m (median of {concerned.sum()} detections whom both should see), expected at most "
                             f"{ALLOWED} m. {_ADVICE}")  # fmt: skip

    def _in_sight(self, here: np.ndarray, a: int, b: int) -> np.ndarray:
        """(n,) bool: detections of camera ``a`` who stand, as far as their size tells, well within the image of camera ``b``."""
        weight = self.rays[here, :, 2:]
        middle = (self.rays[here, :, :2] * weight).sum(1) / np.maximum(weight.sum(1), 1e-6)
        place = np.concatenate([middle, np.ones((len(here), 1))], axis=1) * self.distance[here, None]
        there = (place @ self.rig[a].rotation.T + self.rig[a].position - self.rig[b].position) @ self.rig[b].rotation
        front = there[:, 2] > 0.5
        seen = self.people.cameras[b].project(np.where(front[:, None], there, [0, 0, 1]))
        size = self.people.rows["image_size"][np.argmax(self.people.recording == b)][::-1]
        return front & (seen > INSIDE * size).all(1) & (seen < (1 - INSIDE) * size).all(1)


_ADVICE = ("Check its rotations and translations (poses of the optical frames in the world, metres), the order of the cameras, and their clocks, or leave "
           "out --rig")  # fmt: skip


_MISREADINGS = {
    "the inverse of its poses does: give those of the cameras in the world, not of the world in the cameras": lambda mount: mount._replace(
        rotation=mount.rotation.T, position=-mount.rotation.T @ mount.position
    ),
    "its poses do, read as those of frames with x forward and z up: give those of the optical frames, x right, y down, z forward": lambda mount: mount._replace(
        rotation=mount.rotation @ [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
    ),
}  # fmt: skip


def _check_reading(people: People, rig: Sequence[Mount]) -> None:
    """Of cameras that share nobody: nor would they if their poses were written as they often are."""
    for what, read in _MISREADINGS.items():
        views, matched = _Views(people, [read(mount) for mount in rig]), 0
        try:
            matched = sum(len(rows) for a, b in permutations(range(len(rig)), 2) for rows, _ in views.matches(a, b))
        except ValueError:
            continue
        if matched >= ENOUGH:
            raise ValueError(f"the rig fits nobody before {', '.join(mount.name for mount in rig)}, but {what}")


def _check(errors: np.ndarray, seen: np.ndarray, rig: Sequence[Mount]) -> None:
    """Of ``errors`` (N, V, 17) in metres: no camera contradicts the others, where these agree without it."""
    told = seen & ~np.isnan(errors)
    for number, mount in enumerate(rig):
        here = told[:, number] & (told.sum(1) >= 3)
        if here.any(1).sum() >= ENOUGH and (found := float(np.median(errors[:, number][here]))) > ALLOWED:
            raise ValueError(f"the rig does not fit the people before {mount.name}: joints that the other cameras agree on re-project {found:.2f} m away from "
                             f"where it sees them (median of {here.any(1).sum()} detections), expected at most {ALLOWED} m. {_ADVICE}")  # fmt: skip


def _closest(one: Mount, other: Mount, ours: np.ndarray, theirs: np.ndarray, distance: np.ndarray, other_distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where rays (n, 17, 2+) of two cameras come nearest: whether at the distances (n,) that people have by their size, and how near, metres (n, 17)."""
    first, second = (np.concatenate([rays[..., :2], np.ones_like(rays[..., :1])], -1) @ mount.rotation.T for mount, rays in ((one, ours), (other, theirs)))
    between = one.position - other.position
    aa, ab, bb = (first * first).sum(-1), (first * second).sum(-1), (second * second).sum(-1)
    da, db = first @ between, second @ between
    determinant = np.maximum(aa * bb - ab * ab, 1e-12)
    deep, other_deep = (ab * db - bb * da) / determinant, (aa * db - ab * da) / determinant
    gap = np.linalg.norm(between + deep[..., None] * first - other_deep[..., None] * second, axis=-1)
    plausible = [(some > expected[:, None] / SIZE_ERROR) & (some < expected[:, None] * SIZE_ERROR)
                 for some, expected in ((deep, distance), (other_deep, other_distance))]  # fmt: skip
    return plausible[0] & plausible[1], gap


def _spread(points: np.ndarray) -> np.ndarray:
    """Median distance (n,) of points (n, K, 2) from their median."""
    return np.median(np.linalg.norm(points - np.median(points, axis=1, keepdims=True), axis=-1), axis=1)


def _together(stamps: np.ndarray) -> list[np.ndarray]:
    """Indices of equal stamps (n,)."""
    order = np.argsort(stamps, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(stamps[order]) > 0) + 1) if len(order) else []
