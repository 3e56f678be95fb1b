"""Recordings as people over time: extracted, identified, and split in time into a part to adapt to and a part held out.

Identities are those of hmr_ros/tracking.py, over the stored proxies in order of time. The parts share no frame and no track: between them
lies a gap, and whoever is there on both sides of it is two tracks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path

import numpy as np

from hmr_ros.camera import Camera
from hmr_ros.geometry import Intrinsics, pinhole
from hmr_ros.proxies import FEATURE_MAP, PersonProxies
from hmr_ros.tracking import Tracker
from hmr_ros.training.data import shards
from hmr_ros.training.data.mapped import Rows
from hmr_ros.training.lifter.samples import load_feature_maps, proxies_of

USUAL_FIELD_OF_VIEW = 60.0  # degrees, horizontal: of a camera of which nothing is known
_PART = 256  # people whose feature maps are in memory at once
LONGEST_STEP = 0.5  # seconds between two frames of a track; after a longer one it is another track
_NAMES = (
    "index", "image_size", "stamp", "score", "box", "keypoints", "crop", "mask", "depth", "agreed", "landmarks", "world", "region", "appearance", "sensor_depth",
    "mirrored_landmarks", "mirrored_world", "mirrored_region", "mirrored_appearance", "intrinsics",
)  # fmt: skip


@dataclass(frozen=True)
class People:
    """N detections, track by track and in order of time within a track."""

    rows: dict[str, np.ndarray]  # proxies, plain and mirrored, by the names of data/shards.py; ``seen`` (N,) as in lifter/samples.py
    maps: Rows  # (2 M, *FEATURE_MAP): plain and mirrored feature maps of everybody who was extracted
    track: np.ndarray  # (N,) ascending
    recording: np.ndarray  # (N,) which of the recordings
    cameras: tuple[Camera, ...]  # one a recording

    def __len__(self) -> int:
        return len(self.track)

    def __getitem__(self, which: np.ndarray) -> People:
        """Some of the detections (M,) or (N,) bool."""
        return replace(self, rows={name: values[which] for name, values in self.rows.items()}, track=self.track[which], recording=self.recording[which])

    @property
    def stamp(self) -> np.ndarray:
        """(N,) seconds."""
        return self.rows["stamp"]

    @property
    def depth(self) -> str:
        """The column with the best depth: a depth camera's, where there is one."""
        return "sensor_depth" if "sensor_depth" in self.rows else "depth"

    def proxies(self, depth: str = "depth", flip: bool = False) -> Iterator[PersonProxies]:
        """With feature maps; with ``flip`` the mirrored view as well. ``depth``: which column."""
        for first in range(0, len(self), _PART):
            some = {name: values[first : first + _PART] for name, values in self.rows.items()}
            maps = self.maps[(2 * some["seen"][:, None] + np.arange(2)).ravel()].reshape(-1, 2, *FEATURE_MAP)
            mirrored = proxies_of(some, "mirrored", depth, maps) if flip else repeat(None)
            yield from (replace(plain, mirrored=other) for plain, other in zip(proxies_of(some, "plain", depth, maps), mirrored))


def load(folders: Sequence[Path], rate: float | None = None, cameras: Sequence[Camera | float] = ()) -> People:
    """People in folders of `hmr-ros extract --feature-maps --mirrored`, one a recording. ``rate`` in Hz is for recordings without stamps, such
    as folders of pictures. ``cameras``: one a recording, or its horizontal field of view in degrees; rendered recordings know theirs. Raises ValueError where stamps, mirrored views or feature maps are missing, or nobody is detected."""
    parts, tracks, recordings, known = [], [], [], []
    for number, folder in enumerate(folders):
        rows = {name: np.asarray(values) for name, values in shards.open_proxies(folder, _NAMES).items()}
        if "index" not in rows:
            raise ValueError(f"nobody is detected in {folder}, expected people: record some, nearer or in better light")
        if "mirrored_region" not in rows:
            raise ValueError(f"{folder} holds no mirrored views, expected them: hmr-ros extract --feature-maps --mirrored")
        rows["stamp"] = _stamps(rows, rate, folder)
        if parts and rows.keys() != parts[0].keys():
            raise ValueError(f"{folder} and {folders[0]} differ in {', '.join(sorted(rows.keys() ^ parts[0].keys()))}, expected a depth topic for "
                             "all recordings, or for none")  # fmt: skip
        found = tracks_of(rows)
        tracks.append(np.where(found >= 0, found + max([-1, *(int(some.max()) for some in tracks)]) + 1, -1))
        recordings.append(np.full(len(found), number))
        intrinsics = rows.pop("intrinsics", None)
        if intrinsics is None:
            camera = cameras[number] if number < len(cameras) else USUAL_FIELD_OF_VIEW
            height, width = rows["image_size"][0]
            known.append(camera if isinstance(camera, Camera) else Camera(pinhole(int(width), int(height), camera)))
        else:
            known.append(Camera(Intrinsics(*map(float, intrinsics[0]))))
        parts.append(rows)
    rows, track = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, np.concatenate(tracks)
    rows["seen"] = np.arange(len(track))
    order = np.lexsort((rows["stamp"], track))
    return People(rows, load_feature_maps(folders), track, np.concatenate(recordings), tuple(known))[order[track[order] >= 0]]


def tracks_of(rows: dict[str, np.ndarray]) -> np.ndarray:
    """(N,) a number for each person, from 0; -1 for whom the tracker refuses. A pause of ``LONGEST_STEP`` ends a track."""
    people = list(proxies_of(rows))
    tracker, number, last, count = Tracker(), {}, {}, 0
    tracks = np.full(len(people), -1)
    for stamp in np.unique(rows["stamp"]):
        here = np.flatnonzero(rows["stamp"] == stamp)
        for row, identity in zip(here, tracker([people[row] for row in here], float(stamp))):
            if identity is None:
                continue
            if stamp - last.get(identity.id, -np.inf) > LONGEST_STEP:
                number[identity.id], count = count, count + 1
            tracks[row], last[identity.id] = number[identity.id], stamp
    return tracks


def split(people: People, held_out: float, gap: float, together: bool = False) -> tuple[People, People]:
    """The part to adapt to and the part held out: the last share ``held_out`` of each recording's time, or of the time of all of them ``together``;
    before it, ``gap`` seconds are left out.

    Raises ValueError where one of the two is empty.
    """
    learned, held = np.zeros(len(people), bool), np.zeros(len(people), bool)
    times = np.zeros(len(people), int) if together else people.recording
    for number in np.unique(times):
        here = times == number
        begin, end = people.stamp[here].min(), people.stamp[here].max()
        first = end - held_out * (end - begin)
        held |= here & (people.stamp >= first)
        learned |= here & (people.stamp < first - gap)
    if not learned.any() or not held.any():
        seconds = sum(np.ptp(people.stamp[people.recording == number]) for number in np.unique(people.recording))
        raise ValueError(f"{learned.sum()} detections to adapt to and {held.sum()} held out, of {seconds:.1f} s in which people are seen, with a "
                         f"gap of {gap:g} s: record longer, or lower --gap")  # fmt: skip
    for number in np.unique(people.recording) if together else ():
        if not learned[people.recording == number].any():
            raise ValueError(f"nobody of recording {number} is in the part to adapt to, expected people before all cameras of a rig at the same times: set "
                             "their clocks, record longer, or lower --held-out")  # fmt: skip
    return people[np.flatnonzero(learned)], people[np.flatnonzero(held)]


def _stamps(rows: dict[str, np.ndarray], rate: float | None, folder: Path) -> np.ndarray:
    if "stamp" in rows and np.isfinite(rows["stamp"]).all():
        return rows["stamp"]
    if rate is None:
        raise ValueError(f"{folder}: its frames have no stamps, expected those of a video or bag; of pictures say --rate, in Hz")
    return rows["index"] / rate
