"""What happens to a picture besides people: shadows on the floor, objects in front, and the camera's own faults."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator

from hmr_ros.geometry import Intrinsics, project_pinhole

_GRAIN = np.random.default_rng(7).standard_normal((701, 997, 3), dtype=np.float32)  # sensor noise, drawn once


def grain(rng: Generator, size: tuple[int, int]) -> np.ndarray:
    """Noise (H, W, 3) of standard deviation 1, somewhere out of what was drawn once."""
    height, width = size
    y, x = rng.integers(_GRAIN.shape[0] - height + 1), rng.integers(_GRAIN.shape[1] - width + 1)
    return _GRAIN[y : y + height, x : x + width]


def shade_floor(
    canvas: np.ndarray, vertices: np.ndarray, up: np.ndarray, intrinsics: Intrinsics, strength: float
) -> None:
    """Darken the floor under a body, in place: its lowest points (V, 3, camera frame) spread by a soft brush."""
    heights = vertices @ up
    feet = vertices[heights < heights.min() + 0.12][::5]
    feet = feet - (feet @ up - heights.min())[:, None] * up
    centre = feet.mean(0)
    pixels = project_pinhole(centre + (feet - centre) * 1.3, intrinsics)
    if not (pixels[:, 1] < canvas.shape[0] * 1.2).all():
        return
    scale = 4
    shape = canvas.shape[0] // scale, canvas.shape[1] // scale
    mask = np.zeros(shape, np.float32)
    hull = cv2.convexHull(np.rint(np.clip(pixels / scale, -500, 2000)).astype(np.int32))
    cv2.fillConvexPoly(mask, hull, strength)
    width = float(np.ptp(pixels[:, 0])) / scale
    mask = cv2.GaussianBlur(mask, (0, 0), max(0.12 * width, 0.8))
    canvas *= 1 - cv2.resize(mask, (canvas.shape[1], canvas.shape[0]))[..., None]


def object_mask(rng: Generator, size: tuple[int, int], box: np.ndarray) -> np.ndarray:
    """Silhouette (H, W) in [0, 1] of an object before a person with this box (xyxy px): hides 10 to 45 % of the box."""
    x0, y0, x1, y1 = np.clip(box, 0, [size[1], size[0]] * 2)
    width, height = max(x1 - x0, 8), max(y1 - y0, 8)
    aspect = np.exp(rng.normal(0, 0.6))
    area = rng.uniform(0.1, 0.45) * width * height
    extent = np.array([np.sqrt(area * aspect), np.sqrt(area / aspect)])
    extent = np.minimum(extent, [1.5 * width, 0.6 * height])
    centre = np.array([rng.uniform(x0, x1), y0 + height * rng.triangular(0.15, 0.85, 1.0)])
    mask = np.zeros(size, np.uint8)
    angle = float(rng.normal(0, 12))
    if rng.random() < 0.7:
        corners = cv2.boxPoints((centre.tolist(), extent.tolist(), angle))
        cv2.fillConvexPoly(mask, np.rint(corners * 8).astype(np.int32), 255, cv2.LINE_AA, 3)
    else:
        cv2.ellipse(mask, (centre.tolist(), extent.tolist(), angle), 255, -1, cv2.LINE_AA)
    return mask.astype(np.float32) / 255


def photograph(rng: Generator, canvas: np.ndarray, without: frozenset[str] = frozenset()) -> np.ndarray:
    """What a camera makes of light: blur, white balance, gamma, noise and JPEG; (H, W, 3) float32 → uint8 BGR.

    ``without``: which of "blur", "colour", "noise" and "jpeg" are drawn all the same, but not done (scene.INGREDIENTS).
    """
    original = canvas
    if rng.random() < 0.6:
        canvas = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.35, 1.3))
    if rng.random() < 0.08:  # motion
        length = int(rng.integers(3, 10))
        kernel = np.zeros((length, length), np.float32)
        slope = rng.uniform(-1, 1)
        for i in range(length):
            kernel[int(round((length - 1) / 2 * (1 + slope * (2 * i / (length - 1) - 1)))), i] = 1 / length
        canvas = cv2.filter2D(canvas, -1, kernel if rng.random() < 0.7 else np.ascontiguousarray(kernel.T))
    canvas = original if "blur" in without else canvas
    levels = np.linspace(0, 1, 256, dtype=np.float32)
    gains = rng.uniform(0.9, 1.15) * (1 + rng.normal(0, 0.05, 3))
    gamma = rng.uniform(0.7, 1.2)
    noise = rng.uniform(0, 9) if rng.random() < 0.7 else 0.0
    noisy = grain(rng, canvas.shape[:2])
    if noise and "noise" not in without:
        canvas = canvas + noise * noisy
    image = np.clip(canvas, 0, 255).astype(np.uint8)
    if "colour" in without:
        gains, gamma = np.ones(3), 1.0
    table = np.stack([255 * np.clip(gain * levels, 0, 1) ** gamma for gain in gains], axis=-1)
    image = cv2.LUT(image, np.rint(table).astype(np.uint8)[None])
    if rng.random() < 0.8:
        quality = int(rng.integers(35, 96))
        if "jpeg" not in without:
            image = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
    return image


def photograph_roughly(rng: Generator, canvas: np.ndarray, without: frozenset[str] = frozenset()) -> np.ndarray:
    """What a robot's small camera makes of light: (H, W, 3) float32 display values → uint8 BGR; ``without`` as for :func:`photograph`.

    Light adds up linearly: low resolution, defocus (a disc), motion in any direction, mains flicker under a rolling shutter and noise by gain (shot
    noise grows with the root of the light, read noise does not) come before the camera's gamma; white balance, contrast and JPEG after.
    """
    height, width = canvas.shape[:2]
    light = (np.clip(canvas, 0, 255) / 255) ** 2.2
    coarse = rng.uniform(1.2, 3.0) if rng.random() < 0.3 else 1.0
    defocus = rng.uniform(0.7, 2.8) if rng.random() < 0.35 else 0.0
    motion, angle = rng.uniform(2, 12) if rng.random() < 0.25 else 0.0, rng.uniform(0, np.pi)
    if "blur" not in without:
        if defocus:
            light = cv2.filter2D(light, -1, disc(defocus))
        if motion:
            light = cv2.filter2D(light, -1, streak(motion, angle))
        if coarse > 1:
            small = cv2.resize(light, (int(width / coarse), int(height / coarse)), interpolation=cv2.INTER_AREA)
            light = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    flicker, periods, phase = rng.uniform(0.03, 0.2) if rng.random() < 0.15 else 0.0, rng.uniform(1, 6), rng.uniform(0, 2 * np.pi)
    gain, gains = rng.uniform(0.0, 1.0) ** 2, 1 + rng.normal(0, 0.06, 3)
    y, x = rng.integers(_GRAIN.shape[0] - height + 1), rng.integers(_GRAIN.shape[1] - width + 1)
    exposure, gamma, quality = rng.uniform(0.8, 1.35), rng.uniform(0.85, 1.2), int(rng.integers(30, 96))
    if "colour" not in without:
        rows = 1 + flicker * np.sin(2 * np.pi * periods * np.arange(height) / height + phase)
        light = light * (exposure * gains * rows[:, None, None])
    if "noise" not in without:
        deviation = np.sqrt((0.05 * gain) ** 2 * np.maximum(light, 0) + (0.008 * gain) ** 2)
        light = light + deviation * _GRAIN[y : y + height, x : x + width]
    image = np.rint(255 * np.clip(light, 0, 1) ** ((1.0 if "colour" in without else gamma) / 2.2)).astype(np.uint8)
    if "jpeg" not in without:
        image = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
    return image


def disc(radius: float) -> np.ndarray:
    """A kernel that sums to 1: the circle of confusion, ``radius`` px, with a soft edge."""
    reach = int(np.ceil(radius))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    kernel = np.clip(radius + 0.5 - np.hypot(x, y), 0, 1).astype(np.float32)
    return kernel / kernel.sum()


def streak(length: float, angle: float) -> np.ndarray:
    """A kernel that sums to 1: a line of ``length`` px through the centre; angle in radians, 0 along x, towards y."""
    reach = int(np.ceil(length / 2))
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    end = length / 2 * np.array([np.cos(angle), np.sin(angle)])
    ends = [tuple(int(round(16 * value)) for value in reach + sign * end) for sign in (-1, 1)]
    cv2.line(kernel, *ends, 1.0, 1, cv2.LINE_AA, 4)
    return kernel / kernel.sum()


def measure_depth(rng: Generator, depth: np.ndarray) -> np.ndarray:
    """What a depth camera makes of true depth (H, W; inf where nobody is): a wall, noise that grows with z², holes."""
    near = float(depth.min())
    if not np.isfinite(near):
        return np.zeros(depth.shape, np.float32)
    depth = np.where(np.isfinite(depth), depth, near + rng.uniform(0.8, 4.0)).astype(np.float32)
    measured = depth + rng.uniform(0.0005, 0.003) * depth**2 * _GRAIN[: depth.shape[0], : depth.shape[1], 0]
    holes = cv2.resize(
        rng.random((depth.shape[0] // 8, depth.shape[1] // 8), dtype=np.float32), depth.shape[::-1],
        interpolation=cv2.INTER_LINEAR,
    )  # fmt: skip
    edges = cv2.dilate(depth, np.ones((3, 3))) - cv2.erode(depth, np.ones((3, 3))) > 0.1
    measured[(holes < rng.uniform(0.0, 0.25)) | (edges & (rng.random() < 0.7))] = 0
    return measured
