"""Recordings by cameras that training does not know: people who move before one mounted camera, frame by frame, with exact truth.

``hmr-ros data rendered --scene PRESET`` makes them; what adaptation is measured on (benchmarks/adaptation.py). One person after the other
walks in, each with a body and clothes of their own, and moves as in the test split: recorded clips, or everyday poses one after another.
Every frame depends on preset, seed and number alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator
from scipy.spatial.transform import Rotation

from hmr_ros.geometry import Intrinsics, pinhole
from hmr_ros.training.data.rendered.clips import recorded, turned
from hmr_ros.training.data.rendered.effects import grain
from hmr_ros.training.data.rendered.poses import PoseSampler, interpolate, without_heading
from hmr_ros.training.data.rendered.scene import Scene, SceneConfig, SceneMaker

RATE = 10.0  # frames a second
VISIT = 60  # frames that one person stays
PAUSE = 3.0  # seconds without anybody between two people; no frames of it are made
_CLIPS = ("bullet/walk", "bullet/punch", "bullet/dance_b")  # of the test split
_EVERYDAY = 0.6  # share of visits with everyday poses


@dataclass(frozen=True)
class MountedCamera:
    """How a camera is mounted, and what it makes of light. Lengths in metres, angles in radians."""

    field_of_view: float  # horizontal, degrees
    height: float  # above the floor
    looking_down: float  # below the horizon
    distance: tuple[float, float]  # of people, along the floor
    aside: float  # of people, to the left and right, as a share of the distance at most
    gain: float = 0.5  # of brightness: a dim room
    noise: float = 9.0  # standard deviation of a level of 255, drawn for every frame
    blur: float = 6.0  # pixels that a moving camera smears at most
    size: tuple[int, int] = (480, 640)  # (H, W) px


PRESETS = {
    "robot_low": MountedCamera(field_of_view=75, height=0.25, looking_down=-0.35, distance=(1.3, 3.0), aside=0.3),
    "ceiling": MountedCamera(field_of_view=85, height=2.8, looking_down=0.85, distance=(1.2, 3.2), aside=0.4),
    "fisheye_rectified": MountedCamera(field_of_view=120, height=1.1, looking_down=0.15, distance=(0.9, 2.2), aside=1.0),
}


@dataclass(frozen=True)
class _Visit:
    """One person: poses (VISIT, 24, 3) in the upright world, path (VISIT, 2) metres to the right and away, betas (10,)."""

    clip: str
    poses: np.ndarray
    path: np.ndarray
    betas: np.ndarray


class RecordingMaker:
    """Frames of one recording: ``make(index)`` depends on preset, seed and index only."""

    def __init__(self, preset: str, seed: int, backgrounds: Path | None = None):
        if preset not in PRESETS:
            raise ValueError(f"scene is {preset!r}, expected one of {', '.join(PRESETS)}")
        self.preset, self.camera, self._seed = preset, PRESETS[preset], seed
        height, width = self.camera.size
        self.intrinsics: Intrinsics = pinhole(width, height, self.camera.field_of_view)
        self._maker = SceneMaker("test", backgrounds, SceneConfig(occluded=0.0))
        self._room = self._maker.backgrounds.sample(np.random.default_rng([seed, 3]), self.camera.size)
        self._turn = Rotation.from_rotvec([self.camera.looking_down, 0, 0]).as_matrix()
        self._visit = lru_cache(maxsize=2)(self._make_visit)

    def make(self, index: int) -> Scene:
        number, frame = divmod(index, VISIT)
        visit = self._visit(number)
        # The same light and clothes in every frame of a visit: they are drawn anew from its seed.
        steady = np.random.default_rng([self._seed, number, 1])
        person = self._maker.stand(
            visit.poses[frame], visit.betas, self._turn, self.camera.height, tuple(visit.path[frame]), self.intrinsics, self.camera.size,
            self.preset, visit.clip,
        )  # fmt: skip
        image, depth, truths = self._maker.draw(steady, self.camera.size, self.intrinsics, self._turn, [person], room=self._room)
        image = self._photographed(np.random.default_rng([self._seed, index, 2]), image)
        return Scene(image, depth, self.intrinsics, truths, stamp=number * (VISIT / RATE + PAUSE) + frame / RATE)

    def _make_visit(self, number: int) -> _Visit:
        rng = np.random.default_rng([self._seed, number, 0])
        everyday = rng.random() < _EVERYDAY
        clip = f"everyday {number}" if everyday else str(rng.choice(_CLIPS))
        poses = _everyday(rng) if everyday else recorded(clip, RATE, VISIT, start=rng.uniform(0, 20))
        steps = np.cumsum(rng.normal(0, 0.12, VISIT))
        poses = turned(poses, rng.uniform(-np.pi, np.pi) + steps)
        near, far = self.camera.distance
        ends = np.sort(rng.uniform(near, far, 2))[:: rng.choice([-1, 1])]
        away = np.linspace(*ends, VISIT)
        right = np.linspace(*rng.uniform(-self.camera.aside, self.camera.aside, 2), VISIT) * away
        betas = np.clip(rng.normal(0, 1, 10), -2.5, 2.5) * np.where(np.arange(10) == 0, self._maker.config.beta0_sigma, 1)
        return _Visit(clip, poses, np.stack([right, away], axis=1), betas)

    def _photographed(self, rng: Generator, image: np.ndarray) -> np.ndarray:
        """Motion blur, a dim picture, noise of its own in every frame."""
        camera = self.camera
        length = 1 + 2 * int(rng.integers(0, int(camera.blur) // 2 + 1))
        if length > 1:
            kernel = np.zeros((length, length), np.float32)
            angle = rng.uniform(0, np.pi)
            reach = np.arange(length) - length // 2
            kernel[np.rint(length // 2 + reach * np.sin(angle)).astype(int), np.rint(length // 2 + reach * np.cos(angle)).astype(int)] = 1
            image = cv2.filter2D(image, -1, kernel / kernel.sum())
        dim = camera.gain * image.astype(np.float32) + camera.noise * grain(rng, image.shape[:2])
        return np.clip(dim, 0, 255).astype(np.uint8)


def _everyday(rng: Generator) -> np.ndarray:
    """Everyday poses one after another, about a second each, (VISIT, 24, 3)."""
    sampler = PoseSampler("test", everyday=1.0)

    def sample() -> np.ndarray:
        pose = sampler.sample(rng).rotvec.astype(np.float64)
        pose[0] = without_heading(pose[0])
        return pose

    frames, last = [], sample()
    while len(frames) < VISIT:
        following, count = sample(), int(rng.integers(8, 16))
        for i in range(count):
            share = i / count
            frames.append(interpolate(last, following, share * share * (3 - 2 * share)))
        last = following
    return np.stack(frames[:VISIT])
