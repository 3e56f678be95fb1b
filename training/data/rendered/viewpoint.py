"""People before one's own camera: mounted as a recording has told (adaptation/mounting.py), with the recording's places, poses and background.

``hmr-ros data rendered --viewpoint FILE`` makes such pictures, with exact truth. Picture i depends on viewpoint, seed and i alone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator
from scipy.spatial.transform import Rotation

from hmr_ros.geometry import Intrinsics
from hmr_ros.training.data.rendered.effects import grain
from hmr_ros.training.data.rendered.poses import limit_joints
from hmr_ros.training.data.rendered.scene import OVERLAP, PlacedPerson, Scene, SceneMaker, apart

FITTED = 0.5  # share of people in a pose of the recording; the others' come from the training motions
OWN_HEADING = 0.5  # share of those that keep the heading that was seen; the others face anywhere
OWN_PLATE = 0.8  # share of pictures before the recording's background, where there is one
_SPREAD = 0.3  # metres about a place where somebody stood
_NEAREST = 0.25  # metres


@dataclass(frozen=True)
class Viewpoint:
    """A camera above a floor. Axes are the camera's (x right, y down, z forward), lengths metres."""

    intrinsics: Intrinsics
    size: tuple[int, int]  # (H, W) px
    up: np.ndarray  # (3,) unit, against gravity
    height: float  # above the floor
    places: np.ndarray  # (N, 2) where people stand: to the right of the camera and away from it, along the floor
    poses: np.ndarray  # (N, 24, 3) axis-angle of the fitted bodies, row 0 in the upright world (rendered/poses.py)
    plates: np.ndarray  # (P, H, W, 3) uint8 BGR, pictures without people; P may be 0
    noise: float  # standard deviation of a pixel's level from frame to frame

    @property
    def turn(self) -> np.ndarray:
        """(3, 3) a level camera's axes → the camera's; both look the same way along the floor."""
        return level(self.up)

    @property
    def looking_down(self) -> float:
        """Radians below the horizon."""
        return float(np.arcsin(np.clip(-self.up[2], -1, 1)))

    @property
    def roll(self) -> float:
        """Radians that the horizon is turned in the picture."""
        return float(np.arctan2(self.up[0], -self.up[1]))

    def save(self, path: Path) -> None:
        np.savez(path, **asdict(self))

    @classmethod
    def load(cls, path: Path) -> Viewpoint:
        with np.load(path, allow_pickle=False) as data:
            arrays = dict(data)
        return cls(Intrinsics(*map(float, arrays.pop("intrinsics"))), tuple(map(int, arrays.pop("size"))), height=float(arrays.pop("height")),
                   noise=float(arrays.pop("noise")), **arrays)  # fmt: skip


def level(up: np.ndarray) -> np.ndarray:
    """(3, 3) axes of a level camera → axes of one that sees the vertical ``up`` (3,), without a turn about it."""
    down = -up / np.linalg.norm(up)
    right = np.cross(down, [0.0, 0.0, 1.0])
    if np.linalg.norm(right) < 1e-3:  # it looks straight up or down: its x axis stays
        right = np.array([1.0, 0.0, 0.0])
    right /= np.linalg.norm(right)
    return np.stack([right, down, np.cross(right, down)], axis=1)


class ViewpointMaker:
    """``make(rng)`` draws one picture."""

    def __init__(self, viewpoint: Viewpoint, maker: SceneMaker):
        self.viewpoint, self._maker = viewpoint, maker

    def make(self, rng: Generator) -> Scene:
        viewpoint, maker = self.viewpoint, self._maker
        count, placed = 1 + rng.choice(len(maker.config.people), p=maker.config.people), []
        for _ in range(count):
            person = self._person(rng, placed)
            placed += [person] if person else []
        room = self._room(rng)
        image, depth, truths = maker.draw(rng, viewpoint.size, viewpoint.intrinsics, viewpoint.turn, placed, room=room)
        if viewpoint.noise:
            noise = rng.uniform(0.5, 1.2) * viewpoint.noise
            image = np.clip(image + noise * grain(rng, image.shape[:2]), 0, 255).astype(np.uint8)
        return Scene(image, depth, viewpoint.intrinsics, truths)

    def _person(self, rng: Generator, others: list[PlacedPerson]) -> PlacedPerson | None:
        """Somebody where there is room; None where there is not."""
        viewpoint, maker = self.viewpoint, self._maker
        sampled = maker.poses.sample(rng)
        pose, category, clip = sampled.rotvec, sampled.category, sampled.clip
        if rng.random() < FITTED:
            pose, category, clip = viewpoint.poses[rng.integers(len(viewpoint.poses))].astype(np.float64), "recording", ""
            pose[1:] += rng.normal(0, rng.uniform(0, 0.15), (23, 3))
            pose = limit_joints(pose)
            if rng.random() > OWN_HEADING:
                pose[0] = (Rotation.from_rotvec([0, rng.uniform(-np.pi, np.pi), 0]) * Rotation.from_rotvec(pose[0])).as_rotvec()
        betas = np.clip(rng.normal(0, 1, 10), -2.5, 2.5)
        betas[0] *= maker.config.beta0_sigma
        for _ in range(8):
            right, away = viewpoint.places[rng.integers(len(viewpoint.places))] + rng.normal(0, _SPREAD, 2)
            person = maker.stand(pose, betas, viewpoint.turn, viewpoint.height, (right, away), viewpoint.intrinsics, viewpoint.size)
            near = person.vertices[:, 2].min() < _NEAREST
            low, high = person.truth.box[:2], person.truth.box[2:]
            outside = (high < 0).any() or (low > viewpoint.size[::-1]).any()
            if not near and not outside and all(apart(person.truth.box, person.truth.translation, other, OVERLAP) for other in others):
                return replace(person, truth=replace(person.truth, category=category, clip=clip))
        return None

    def _room(self, rng: Generator) -> np.ndarray | None:
        plates = self.viewpoint.plates
        if not len(plates) or rng.random() > OWN_PLATE:
            return None
        plate = plates[rng.integers(len(plates))]
        return cv2.convertScaleAbs(plate.astype(np.float32) * rng.uniform(0.85, 1.15))
