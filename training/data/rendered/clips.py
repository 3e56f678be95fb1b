"""Moving people with exact truth, frame by frame: what tracking and smoothing are measured on (benchmarks/).

Room, light, clothes and grain come from one seed and are the same in every frame; only the people move.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from typing import NamedTuple

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from hmr_ros.geometry import Intrinsics, pinhole, project_pinhole
from hmr_ros.rasterizer import vertex_normals
from hmr_ros.training.data.rendered.backgrounds import Backgrounds
from hmr_ros.training.data.rendered.effects import photograph, shade_floor
from hmr_ros.training.data.rendered.painting import paint, random_light
from hmr_ros.training.data.rendered.poses import embedded_clips, interpolate, limit_joints
from hmr_ros.training.data.rendered.scene import FACING, SceneMaker

LOOKING_DOWN = 0.06  # radians: of a level robot's camera
CAMERA_HEIGHT = 0.86  # metres below the optical axis at which the floor lies, before the camera is tilted


@dataclass(frozen=True)
class Actor:
    """One person: (T, 24, 3) axis-angle in the upright world, and where the body's origin stands on the floor, (T, 2) metres to the right
    and away from the camera."""

    poses: np.ndarray
    path: np.ndarray


class ClipFrame(NamedTuple):
    image: np.ndarray  # (H, W, 3) uint8 BGR
    joints: np.ndarray  # (A, 24, 3) metres in the camera frame
    shown: np.ndarray  # (A,) share of each silhouette that nothing hides; 0 outside the image


def recorded(name: str, rate: float, count: int, start: float = 0.0) -> np.ndarray:
    """(count, 24, 3) poses of an embedded clip at ``rate`` Hz, from ``start`` seconds on, forwards and backwards in turns, facing +z at first."""
    poses = embedded_clips()[name].astype(np.float64)
    with (resources.files("hmr_ros") / "assets" / "poses.npz").open("rb") as file, np.load(file, allow_pickle=False) as data:
        fps = float(data["fps"][list(data["clip_names"]).index(name)])
    forward = Rotation.from_rotvec(poses[0, 0]).apply([0.0, 0.0, 1.0])
    heading = Rotation.from_rotvec([0, -np.arctan2(forward[0], forward[2]), 0])
    poses[:, 0] = (heading * Rotation.from_rotvec(poses[:, 0])).as_rotvec()
    last = len(poses) - 1
    places = (start + np.arange(count) / rate) * fps % (2 * last)
    places = np.minimum(places, 2 * last - places)
    return np.stack([limit_joints(interpolate(poses[int(p)], poses[min(int(p) + 1, last)], p - int(p))) for p in places])


def turned(poses: np.ndarray, yaw: np.ndarray | float) -> np.ndarray:
    """Poses (T, 24, 3) turned about the vertical by ``yaw`` radians: 0 faces the camera, pi / 2 walks to the image's right."""
    turns = Rotation.from_rotvec(np.broadcast_to(yaw, len(poses))[:, None] * [0.0, 1.0, 0.0])
    return np.concatenate([(turns * Rotation.from_rotvec(poses[:, 0])).as_rotvec()[:, None], poses[:, 1:]], axis=1)


class ClipMaker:
    """Renders actors before one room; ``intrinsics`` are those of every frame."""

    def __init__(self, seed: int, size: tuple[int, int] = (640, 480), field_of_view: float = 60.0, pillar: tuple[int, int] | None = None):
        """size: width and height, px; field_of_view: horizontal, degrees; pillar: the columns (px) that something stands before everybody in."""
        self.seed, self.size = seed, size
        self.intrinsics: Intrinsics = pinhole(*size, field_of_view)
        self._maker, self._rng = SceneMaker("test"), np.random.default_rng(seed)
        self._camera = Rotation.from_rotvec([LOOKING_DOWN, 0, 0]).as_matrix()
        self._up = self._camera @ FACING @ np.array([0.0, 1.0, 0.0])
        self._room = Backgrounds().sample(self._rng, size[::-1]).astype(np.float32)
        self._light = random_light(self._rng, self._up, tint=np.ones(3))
        self._pillar, self._texture = pillar, Backgrounds().sample(self._rng, size[::-1], plain=True).astype(np.float32)

    def frames(self, actors: list[Actor], betas: np.ndarray | None = None) -> Iterator[ClipFrame]:
        """``betas`` (A, 10) of the embedded body; default: drawn."""
        looks = [self._maker.dresser.look(self._rng) for _ in actors]
        betas = np.clip(self._rng.normal(0, 0.6, (len(actors), 10)), -1.5, 1.5) if betas is None else betas
        floors: list[float] = []
        for i in range(len(actors[0].poses)):
            bodies = [self._posed(actor.poses[i], shape) for actor, shape in zip(actors, betas)]
            floors = floors or [float((vertices @ self._up).min()) for vertices, _ in bodies]
            places = [np.array([actor.path[i, 0], 0.0, actor.path[i, 1]]) - self._up * (floor + CAMERA_HEIGHT)
                      for actor, floor in zip(actors, floors)]  # fmt: skip
            image, shown = self._draw([vertices + place for (vertices, _), place in zip(bodies, places)], looks)
            yield ClipFrame(image, np.stack([joints + place for (_, joints), place in zip(bodies, places)]).astype(np.float32), shown)

    def _posed(self, pose: np.ndarray, betas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pose = pose.copy()
        pose[0] = (Rotation.from_matrix(self._camera @ FACING) * Rotation.from_rotvec(pose[0])).as_rotvec()
        return self._maker.forward(pose, betas)[:2]

    def _draw(self, bodies: list[np.ndarray], looks) -> tuple[np.ndarray, np.ndarray]:
        steady = np.random.default_rng(self.seed)  # the same shadows and the same grain in every frame
        width, height = self.size
        canvas, owner, whole = self._room.copy(), np.full((height, width), -1), np.zeros(len(bodies))
        for index in sorted(range(len(bodies)), key=lambda i: -bodies[i][:, 2].mean()):
            shade_floor(canvas, bodies[index], self._up, self.intrinsics, 0.4)
            dressed = (bodies[index] + vertex_normals(bodies[index], self._maker.faces) * looks[index].offsets[:, None]).astype(np.float32)
            pixels = np.column_stack([project_pinhole(dressed, self.intrinsics), dressed[:, 2]]).astype(np.float32)
            coverage, _ = paint(canvas, pixels, dressed, self._maker.faces, self._maker.dresser, looks[index], self._light, 1.0,
                                np.random.default_rng(self.seed + index))  # fmt: skip
            owner[coverage > 0.5] = index
            whole[index] = (coverage > 0.5).sum()
        if self._pillar is not None:
            canvas[:, slice(*self._pillar)] = cv2.GaussianBlur(self._texture, (0, 0), 3)[:, slice(*self._pillar)]
            owner[:, slice(*self._pillar)] = -1
        shown = np.array([(owner == index).sum() for index in range(len(bodies))]) / np.maximum(whole, 1)
        return photograph(steady, canvas), shown
