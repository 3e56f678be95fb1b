"""Cameras of mobile robots: 0.3 to 2 m above the floor, looking up or down at people on it, often so close that the border cuts them.

A training preset (``hmr-ros data rendered --cameras robot``). Its ranges of height and field of view leave out the recordings' mounted cameras
(new_cameras.py), which training shall not know.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy.spatial.transform import Rotation

from hmr_ros.geometry import Intrinsics, pinhole

UP = np.array([0.0, -1.0, 0.0])  # against gravity, in a level camera's axes


@dataclass(frozen=True)
class RobotCameras:
    """Ranges that are drawn from evenly. Lengths in metres, angles in degrees."""

    height: tuple[float, float] = (0.3, 2.0)  # above the floor
    field_of_view: tuple[float, float] = (55.0, 100.0)  # horizontal
    looks_at: tuple[float, float] = (0.3, 1.6)  # height above the floor, of the first person
    pitch_noise: float = 5.0  # standard deviation
    steepest: float = 40.0  # below or above the horizon
    roll_noise: float = 1.5
    distance: tuple[float, float] = (0.7, 6.0)  # of people, along the floor; evenly in its logarithm
    aside: float = 0.8  # of people, as a share of the half field of view
    people: tuple[float, ...] = (0.6, 0.27, 0.13)  # share of pictures with 1, 2, 3 people
    overlap: float = 0.7  # of the smaller of two boxes, at most

    def view(self, rng: Generator, size: tuple[int, int]) -> RobotView:
        """A camera, and where its first person stands; ``size`` (H, W) px."""
        intrinsics = pinhole(size[1], size[0], float(rng.uniform(*self.field_of_view)))
        height = rng.uniform(*self.height)
        first = np.exp(rng.uniform(*np.log(self.distance)))
        down = np.degrees(np.arctan2(height - rng.uniform(*self.looks_at), first)) + rng.normal(0, self.pitch_noise)
        down = np.radians(np.clip(down, -self.steepest, self.steepest))
        turn = Rotation.from_rotvec([0, 0, np.radians(rng.normal(0, self.roll_noise))]) * Rotation.from_rotvec([down, 0, 0])
        return RobotView(self, intrinsics, turn.as_matrix(), float(height), float(first))


@dataclass(frozen=True)
class RobotView:
    """One camera above the floor."""

    cameras: RobotCameras
    intrinsics: Intrinsics
    rotation: np.ndarray  # (3, 3) level camera axes → camera axes
    height: float  # metres above the floor
    first: float  # metres, distance of the first person along the floor

    def place(self, rng: Generator, vertices: np.ndarray, first: bool) -> np.ndarray:
        """Translation (3,) that puts a body (V, 3; camera axes) onto the floor."""
        away = self.first if first else float(np.exp(rng.uniform(*np.log(self.cameras.distance))))
        half = np.arctan(self.intrinsics.cx / self.intrinsics.fx)
        azimuth = rng.uniform(-1, 1) * self.cameras.aside * half
        level = np.array([away * np.sin(azimuth), self.height, away * np.cos(azimuth)])
        up = self.rotation @ UP
        lowest = float((vertices @ up).min())
        return self.rotation @ level - lowest * up
