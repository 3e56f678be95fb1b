"""A calibrated camera of raw images: pinhole intrinsics with lens distortion, the viewing ray, and its axes.

Distortion models are those of sensor_msgs/CameraInfo (REP 104), computed by OpenCV. Pixels are those of the raw image, 3D is in the
camera's optical frame (REP 103: x right, y down, z forward), metres. *Ray axes* are the optical frame turned the shortest way until z
runs along the ray through a pixel: a regressor that sees only a crop speaks in the axes of the ray through the crop's centre (CLIFF,
Li et al. 2022).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np

from hmr_ros.geometry import Intrinsics, project_pinhole, ray_rotation

# distortion_model of CameraInfo → accepted numbers of coefficients
MODELS = {"": (0,), "plumb_bob": (0, 4, 5), "rational_polynomial": (0, 8, 12, 14), "equidistant": (0, 4)}
WIDEST = np.tan(np.radians(85))  # of a point's direction from the axis; beyond, a pinhole's coordinates mean nothing
LARGEST = 1e6  # of a focal length or centre in pixels, and of a coefficient: far beyond every lens, and float32 holds what follows
NARROWEST = np.tan(np.radians(1))  # the same of a lens: one whose image folds back before is none
_STOP = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 100, 1e-10)
_undistort_points = getattr(cv2, "undistortPointsIter", cv2.undistortPoints)  # OpenCV 4's name for the one with criteria
_ROUND_TRIP = 1.0  # px: undistorted points that do not come back have no direction in this model


@dataclass(frozen=True)
class Camera:
    """Intrinsics in pixels of the raw image, ``model`` of ``MODELS`` ("": no distortion) and its ``coefficients`` in CameraInfo's order.

    Raises ValueError for intrinsics, models or coefficients that describe no camera.
    """

    intrinsics: Intrinsics
    model: str = ""
    coefficients: tuple[float, ...] = field(default=())

    def __post_init__(self):
        values = np.asarray(self.intrinsics, np.float64)
        if values.shape != (4,) or not np.isfinite(values).all() or min(values[:2]) < 1 / LARGEST or np.abs(values).max() > LARGEST:
            raise ValueError(f"intrinsics are {self.intrinsics}, expected Intrinsics(fx, fy, cx, cy) in pixels with fx, fy > 0, and below {LARGEST:g}")
        if self.model not in MODELS:
            raise ValueError(f'distortion model is "{self.model}", expected one of {", ".join(m or "none" for m in MODELS)}')
        within = np.abs(np.asarray(self.coefficients, np.float64)) <= LARGEST
        if len(self.coefficients) not in MODELS[self.model] or not within.all():
            raise ValueError(f'distortion model "{self.model}" has coefficients {self.coefficients}, expected '
                             f'{" or ".join(map(str, MODELS[self.model]))} finite numbers below {LARGEST:g}')  # fmt: skip
        if self.distorts and self._widest < NARROWEST:
            raise ValueError(f'distortion model "{self.model}" with coefficients {self.coefficients} folds back within 1 degree of the axis, '
                             "expected those of a lens; calibrate the camera again")  # fmt: skip

    @property
    def distorts(self) -> bool:
        """An equidistant camera without coefficients is a fisheye all the same: its radius grows with the angle, not its tangent."""
        return self.model == "equidistant" or any(self.coefficients)

    def directions(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Raw pixels (..., 2) → (x/z, y/z) of their rays (..., 2) float64, and whether the camera has such a ray (...) bool.

        Pixels beyond what the distortion model covers have none; their direction is (0, 0).
        """
        pixels = np.asarray(pixels, np.float64)
        fx, fy, cx, cy = self.intrinsics
        if not self.distorts:
            directions = (pixels - (cx, cy)) / (fx, fy)
            known = True
        else:
            flat = np.nan_to_num(pixels.reshape(-1, 1, 2), posinf=0, neginf=0)
            undistort = cv2.fisheye.undistortPoints if self.model == "equidistant" else _undistort_points
            directions = undistort(flat, self._matrix, self._lens, R=None, P=None, criteria=_STOP).reshape(pixels.shape) if flat.size else pixels
            known = np.isfinite(directions).all(-1) & np.isfinite(pixels).all(-1)
            back = self._distort(np.where(known[..., None], directions, 0))
            known &= (np.linalg.norm(back - pixels, axis=-1) < _ROUND_TRIP) & (np.linalg.norm(directions, axis=-1) <= self._widest)
        known = known & ((directions * directions).sum(-1) < WIDEST**2)  # nor is a NaN, nor an infinite one
        return np.where(known[..., None], directions, 0.0), known

    def project(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 3) in the optical frame, z > 0 → raw pixels (..., 2), distortion applied.

        Points wider than the distortion model is monotonic for continue its edge outwards instead of folding back into the image.
        """
        points = np.asarray(points, np.float64)
        if not self.distorts:
            return project_pinhole(points, self.intrinsics).astype(np.float32)
        return self._distort(points[..., :2] / points[..., 2:]).astype(np.float32)

    @cached_property
    def _matrix(self) -> np.ndarray:
        fx, fy, cx, cy = self.intrinsics
        return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float64)

    @cached_property
    def _lens(self) -> np.ndarray:
        return np.array(self.coefficients or (0.0,) * 4, np.float64)

    def _distort(self, directions: np.ndarray) -> np.ndarray:
        """(x/z, y/z) (..., 2) → raw pixels."""
        radius = np.linalg.norm(directions, axis=-1, keepdims=True)
        shrink = np.minimum(1.0, self._widest / np.maximum(radius, 1e-12))
        rays = np.concatenate([directions * shrink, np.ones_like(radius)], axis=-1).reshape(-1, 1, 3)
        if not rays.size:
            return np.zeros_like(directions)
        zero = np.zeros(3)
        if self.model == "equidistant":
            pixels = cv2.fisheye.projectPoints(rays, zero, zero, self._matrix, self._lens)[0]
        else:
            pixels = cv2.projectPoints(rays, zero, zero, self._matrix, self._lens)[0]
        centre = np.asarray(self.intrinsics[2:])
        return centre + (pixels.reshape(directions.shape) - centre) / shrink

    @cached_property
    def _widest(self) -> float:
        """Radius x/z up to which the distorted radius grows."""
        radius = np.linspace(0, WIDEST, 2000)
        if self.model == "equidistant":
            angle = np.arctan(radius)
            powers = angle[:, None] ** np.array([3, 5, 7, 9])
            distorted = angle + powers @ self._lens
        else:
            k = np.zeros(14)
            k[: len(self._lens)] = self._lens
            r2 = radius**2
            with np.errstate(divide="ignore", invalid="ignore"):
                distorted = radius * (1 + r2 * (k[0] + r2 * (k[1] + r2 * k[4]))) / (1 + r2 * (k[5] + r2 * (k[6] + r2 * k[7])))
        falls = ~(np.diff(distorted) > 0)
        return float(radius[np.argmax(falls)] if falls.any() else radius[-1])


def as_camera(camera: Camera | Intrinsics | None) -> Camera | None:
    """Plain intrinsics are a camera without distortion. ValueError for anything that is none."""
    if camera is None or isinstance(camera, Camera):
        return camera
    return Camera(Intrinsics(*np.asarray(camera, np.float64).tolist()) if np.shape(camera) == (4,) else camera)


def ray_axes(camera: Camera, pixels: np.ndarray) -> np.ndarray:
    """Rotations (N, 3, 3) from camera axes to the axes of the rays through raw pixels (N, 2). A pixel without a ray gets the identity."""
    directions, known = camera.directions(pixels)
    return ray_rotation(np.where(known[:, None], directions, 0))
