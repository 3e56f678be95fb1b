"""Depth of one camera as another one sees it: every depth pixel becomes a point, is moved, and is drawn into the other camera's z-buffer.

For depth images that the driver does not align with the colour images. What only one of the two cameras sees stays unknown (0).
"""

from __future__ import annotations

import numpy as np

from hmr_ros.camera import Camera

SPREAD = 1.1  # of a pixel's footprint: neighbours on a tilted surface drift apart


class DepthRegistration:
    """Registers depth images of ``depth_camera`` into the pixels of ``image_camera``, both of (width, height) ``depth_size`` and ``image_size``.

    ``rotation`` (3, 3) and ``translation`` (3,) m take points from the depth camera's optical frame into that of the image camera. Lens
    distortion of both is honoured. Raises ValueError for a transform that is none.
    """

    def __init__(self, depth_camera: Camera, depth_size: tuple[int, int], image_camera: Camera, image_size: tuple[int, int],
                 rotation: np.ndarray, translation: np.ndarray):  # fmt: skip
        rotation, translation = np.asarray(rotation, np.float64), np.asarray(translation, np.float64)
        if rotation.shape != (3, 3) or not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-4) or np.linalg.det(rotation) < 0:
            raise ValueError(f"rotation is {rotation.tolist()}, expected a rotation matrix (3, 3)")
        if translation.shape != (3,) or not np.isfinite(translation).all():
            raise ValueError(f"translation is {translation.tolist()}, expected 3 finite metres")
        width, height = self._depth_size = depth_size
        self._image_camera, self._image_size, self._translation = image_camera, image_size, translation.astype(np.float32)
        v, u = np.indices((height, width))
        directions, known = depth_camera.directions(np.stack([u, v], -1))
        rays = np.concatenate([directions, np.ones((height, width, 1))], axis=-1)
        self._rays = (rays @ rotation.T).astype(np.float32)  # (H, W, 3) in the image camera's axes, 1 m deep in the depth camera's
        self._known = known
        self._scale = (np.array(image_camera.intrinsics[:2]) / depth_camera.intrinsics[:2] * SPREAD).astype(np.float32)  # pixels of the image a pixel of depth

    def __call__(self, depth: np.ndarray) -> np.ndarray:
        """(h, w) float32 m along the depth camera's axis, 0 unknown → (H, W) float32 m along the image camera's axis, 0 unknown."""
        if depth.shape != self._depth_size[::-1]:
            raise ValueError(f"depth is {depth.shape}, expected {self._depth_size[::-1]} as CameraInfo says")
        seen = self._known & (depth > 0)
        source = depth[seen]
        points = self._rays[seen] * source[:, None] + self._translation
        front = points[:, 2] > 1e-3
        points, source = points[front], source[front]
        pixels = self._image_camera.project(points)
        spread = 0.5 * source / points[:, 2]
        nearest = np.full(self._image_size[0] * self._image_size[1], np.inf, np.float32)
        left, right = _span(pixels[:, 0], spread * self._scale[0], self._image_size[0])
        top, bottom = _span(pixels[:, 1], spread * self._scale[1], self._image_size[1])
        for row in range((bottom - top).max(initial=-1) + 1):
            for column in range((right - left).max(initial=-1) + 1):
                u, v = left + column, top + row
                drawn = (u <= right) & (v <= bottom)
                np.minimum.at(nearest, (v * self._image_size[0] + u)[drawn], points[drawn, 2])
        return np.where(np.isfinite(nearest), nearest, 0).reshape(self._image_size[::-1])


def _span(centres: np.ndarray, half: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last pixel within ``half`` of ``centres`` (N,) and inside 0 ... size - 1; the first is behind the last where there is none."""
    first, last = np.ceil(np.clip(centres - half, 0, size)), np.floor(np.clip(centres + half, -1, size - 1))
    return first.astype(np.int32), last.astype(np.int32)
