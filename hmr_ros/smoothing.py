"""Steady bodies from frame to frame: One-Euro filters and one shape for each person.

The One-Euro filter (Casiez, Roussel and Vogel 2012) is a low-pass whose cutoff grows with speed: who stands still does not tremble, who moves
is hardly delayed. Rotations are filtered on SO(3), by relative rotation vectors; the position as the direction in which it is seen
and the logarithm of its distance, because a camera measures the one far better than the other. Betas are averaged: a person's shape does not change.

What is smoothed are the parameters that make the mesh, so that nothing contradicts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from hmr_ros.camera import Camera, ray_axes
from hmr_ros.smoothing_kernel import filter_rotations, filter_vectors, low_pass_gain

if TYPE_CHECKING:
    from hmr_ros.networks.regressor import BodyParameters


STAGES = 2  # low-passes in a row with the same cutoff: for the same delay they leave half as much trembling as one
USUAL_DISTANCE = 3.0  # metres: without intrinsics the weak-perspective camera's metres become tangents of an angle there


@dataclass(frozen=True)
class OneEuro:
    """Constants of one filter; speed in units of the signal a second."""

    min_cutoff: float  # Hz, of what stands still
    beta: float  # Hz by which the cutoff grows for each unit of speed
    derivative_cutoff: float = 1.5  # Hz, of the speed


@dataclass(frozen=True)
class SmoothingConfig:
    """Tuned on rendered people who walk, punch, kick and dance."""

    pose: OneEuro = OneEuro(4.0, 1.0)  # radians, of each joint
    orientation: OneEuro = OneEuro(4.0, 1.0)  # radians
    direction: OneEuro = OneEuro(4.0, 20.0)  # x / z, y / z: tangent of the angle
    distance: OneEuro = OneEuro(2.0, 4.0)  # logarithm
    velocity_cutoff: float = 3.0  # Hz
    longest_gap: float = 0.5  # seconds: after a longer one nothing is known of pose and position
    jump: float = 0.15  # metres across the viewing ray: more than a body that stands still is off from frame to frame (at most 0.07 on rendered clips)
    fastest: float = 5.0  # m/s: whoever is farther away than a jump and that is somebody else, so that nothing is known of pose and position
    resized: float = 0.2  # of the logarithm of the size in the image, from frame to frame: the same (at most 0.11 on rendered clips)
    enough: float = 300.0  # frames' weights after which the shape hardly changes; it goes on learning that slowly

    smooth_pose: bool = True
    smooth_translation: bool = True
    steady_shape: bool = True


class OneEuroFilter:
    """Points (N, D), each with one cutoff for its D coordinates, or rotations (N, 3, 3), as ``kernel`` filters them."""

    def __init__(self, constants: OneEuro, kernel: Callable, dimensions: int):
        """``dimensions`` of a step."""
        self._constants, self._kernel, self._dimensions = constants, kernel, dimensions
        self._stages: np.ndarray | None = None

    def __call__(self, values: np.ndarray, passed: float) -> np.ndarray:
        """``passed``: seconds since the call before."""
        values = np.ascontiguousarray(values, np.float64)
        if self._stages is None:
            self._stages, self._speed = np.stack([values] * STAGES), np.zeros((len(values), self._dimensions))
        else:
            constants = self._constants
            self._kernel(values, self._stages, self._speed, passed, constants.min_cutoff, constants.beta, constants.derivative_cutoff)
        return self._stages[-1].copy()


def compile_kernels() -> None:
    """Numba's work, before the first frames."""
    for kernel, shape, dimensions in ((filter_rotations, (1, 3, 3), 3), (filter_vectors, (1, 1), 1)):
        smooth = OneEuroFilter(OneEuro(1.0, 1.0), kernel, dimensions)
        for _ in range(2):
            smooth(np.ones(shape), 1.0)


@dataclass(eq=False)
class Smoother:
    """The memory of one person's body. ``at(stamp)`` begins a frame; then come shape, seen, pose, place and velocities, in this order.

    Stamps are in seconds. Not for several threads.
    """

    config: SmoothingConfig = SmoothingConfig()
    id: str = ""
    _stamp: float = -np.inf  # of the last frame
    _next: float = 0.0
    _passed: float = np.inf
    _betas: np.ndarray = field(default_factory=lambda: np.zeros(10))
    _weight: float = 0.0

    def __post_init__(self):
        self._reset()

    def _reset(self) -> None:
        config = self.config
        self._pose, self._orientation = (OneEuroFilter(constants, filter_rotations, 3) for constants in (config.pose, config.orientation))
        self._direction, self._origin = (OneEuroFilter(config.direction, filter_vectors, 2) for _ in range(2))
        self._distance, self._scale = (OneEuroFilter(config.distance, filter_vectors, 1) for _ in range(2))
        self._unit = 0.0
        self._axes, self._points, self._velocity = "", None, None
        self._seen: tuple[np.ndarray, float] | None = None  # the body's origin in the image, px, and px a metre

    def at(self, stamp: float) -> Smoother:
        """The frame that comes next; nothing changes where nothing comes of it."""
        self._next = stamp
        return self

    def shape(self, betas: np.ndarray, weight: float) -> np.ndarray:
        """betas (10,) of this frame with a weight, its mean reliability → the person's."""
        self._passed, self._stamp = self._next - self._stamp, self._next
        if not 0 < self._passed <= self.config.longest_gap:
            self._reset()
        if not self.config.steady_shape:
            return betas
        self._weight = min(self._weight + max(weight, 0.01), self.config.enough)
        self._betas = self._betas + max(weight, 0.01) / self._weight * (betas - self._betas)
        return self._betas.astype(np.float32)

    def seen(self, camera: np.ndarray, crop: np.ndarray) -> None:
        """The weak-perspective camera (3,) of a crop (3,) px, before pose and place: where it puts somebody else, everything but the shape begins anew.

        So it is when the tracker gives an id to another of those who are followed: bodies shall not slide from the one to the other.
        """
        scale = float(camera[0] * crop[2] / 2)  # px a metre
        origin, before = crop[:2] + scale * camera[1:], self._seen
        if before is not None:
            moved, resized = np.linalg.norm(origin - before[0]) / scale, abs(np.log(scale / before[1]))
            walked = self.config.fastest * self._passed
            if moved > self.config.jump + walked or resized > self.config.resized + walked / USUAL_DISTANCE:
                self._reset()
        self._seen = origin, scale

    def pose(self, rotations: np.ndarray, axes: np.ndarray | None) -> np.ndarray:
        """(24, 3, 3) of this frame → smoothed. ``axes`` (3, 3): camera axes → ray axes, in which the first rotation stands, because rays move
        with the crop; None where they are not known."""
        if not self.config.smooth_pose:
            return rotations
        turn = np.eye(3) if axes is None else axes
        self._in("ray" if axes is None else "camera")
        orientation = turn @ self._orientation(turn.T[None] @ rotations[:1], self._passed)
        return np.concatenate([orientation, self._pose(rotations[1:], self._passed)]).astype(np.float32)

    def weak_camera(self, camera: np.ndarray, crop: np.ndarray) -> np.ndarray:
        """(3,) s, tx, ty of a crop (3,) px → smoothed: where it puts the body's origin in the image, and its scale. The crop itself trembles."""
        if not self.config.smooth_translation:
            return camera
        half = float(crop[2]) / 2
        scale = float(camera[0]) * half  # px a metre
        self._unit = self._unit or USUAL_DISTANCE * scale
        origin = self._unit * self._origin((crop[:2] + scale * camera[1:])[None] / self._unit, self._passed)[0]
        scale = math.exp(self._scale([[math.log(scale)]], self._passed)[0, 0])
        return np.array([scale / half, *((origin - crop[:2]) / scale)], np.float32)

    def place(self, pelvis: np.ndarray) -> np.ndarray:
        """(3,) metres in the camera frame → smoothed."""
        if not self.config.smooth_translation or pelvis[2] <= 0:
            return pelvis
        self._in("camera")
        direction = self._direction(pelvis[None, :2] / pelvis[2], self._passed)[0]
        distance = math.exp(self._distance([[math.log(pelvis[2])]], self._passed)[0, 0])
        return np.array([*(direction * distance), distance], np.float32)

    def velocities(self, points: np.ndarray) -> np.ndarray | None:
        """(N, 3) metres in the camera frame, as they are shown → m/s; None in the first frame after a gap."""
        before, self._points = self._points, np.asarray(points, np.float64)
        if before is None:
            return None
        now = (self._points - before) / self._passed
        gain = 1.0 if self._velocity is None else low_pass_gain(self.config.velocity_cutoff, self._passed)
        self._velocity = now if self._velocity is None else self._velocity + gain * (now - self._velocity)
        return self._velocity.astype(np.float32)

    def _in(self, axes: str) -> None:
        """The camera's intrinsics came or went: orientation and place stand in other axes from now on."""
        if self._axes not in ("", axes):
            self._reset()
        self._axes = axes


# ---- of everybody in a frame -------------------------------------------------------------------------------------------------------


def steady_shapes(smoothers: Sequence[Smoother], parameters: BodyParameters) -> BodyParameters:
    """Regressed parameters of N people → with each person's own shape; where they are on a device, it is remembered on the host."""
    arrays = parameters.numpy()
    betas = np.stack([one.shape(*values) for one, *values in zip(smoothers, arrays.betas, arrays.reliability.mean(1))])
    return parameters._replace(betas=betas if arrays is parameters else parameters.betas.new_tensor(betas))


def smooth_poses(smoothers: Sequence[Smoother], parameters: BodyParameters, crops: np.ndarray, camera: Camera | None) -> BodyParameters:
    """Refined parameters of N people in crops (N, 3) px → with smoothed rotations and weak-perspective cameras."""
    axes = [None] * len(crops) if camera is None else ray_axes(camera, crops[:, :2])
    for one, weak, crop in zip(smoothers, parameters.weak_camera, crops):
        one.seen(weak, crop)
    rotations = np.stack([one.pose(*values) for one, *values in zip(smoothers, parameters.rotations, axes)])
    cameras = np.stack([one.weak_camera(*values) for one, *values in zip(smoothers, parameters.weak_camera, crops)])
    return parameters._replace(rotations=rotations, weak_camera=cameras)
