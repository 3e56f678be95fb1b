"""From ray axes into the camera's metric frame: orientation, position, and, where distance is measured, stature.

A regressor that sees a crop speaks in the axes of the ray through the crop's centre, of a body as large as it guesses.

    turned to the camera      the global orientation, by the ray's rotation
    position from the image   minimises the full pinhole re-projection of the body's joints (linear in the position, reweighted)
    position from depth       the sensor's depth at the person's joints and bones, minus the body's own surface there
    stature                   a body at z metres that looks as large as one at z0 is z / z0 times as tall

The re-projection fixes position and size up to one common factor, so that depth only has to tell this factor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from hmr_ros.body.model import BodyModel
from hmr_ros.body.posed_kernel import Skeleton
from hmr_ros.camera import Camera, ray_axes
from hmr_ros.geometry import from_crop, weak_perspective
from hmr_ros.metric_kernel import place_in_image
from hmr_ros.proxies.depth import along_bones
from hmr_ros.rasterizer import depth_at, visible_face


@dataclass(frozen=True)
class MetricConfig:
    """Lengths in metres."""

    outlier: float = 0.15  # a detected joint so far from the regressed one has half weight (Geman–McClure), as in refinement
    regressed_weight: float = 0.05  # of where the weak-perspective camera puts a joint, against a detection of confidence 1
    patch: int = 5  # px: side of the square of depth pixels whose median is read at a point
    clothing: float = 0.01  # clothes and hair lie so far off the body model's skin, on average
    surface_sigma: float = 0.06  # by so much depth and the body's surface differ where the pose is right
    size_sigma: float = 0.12  # of the logarithm of true over regressed distance: statures of adults (0.05) and errors of the pose
    min_points: int = 5  # with fewer valid depth points distance comes from apparent size
    min_support: float = 0.25  # of the valid points that have to agree on one distance
    stature_sigma: float = 0.05  # of the logarithm of adults' statures about the regressed one
    frame_sigma: float = 0.03  # of the logarithm of a stature measured in one frame
    statures: tuple[float, float] = (1.2, 2.2)  # what a body is stretched to at most


class Placed(NamedTuple):
    """N people in the camera's frame."""

    rotations: np.ndarray  # (N, 24, 3, 3), the global one into camera axes
    betas: np.ndarray  # (N, 10), as tall as depth or a known stature says
    weak_cameras: np.ndarray  # (N, 3), which see the body of these betas where they saw it before
    pelvis: np.ndarray  # (N, 3) metres in the camera's frame: the point about which the body turns
    from_depth: np.ndarray  # (N,) bool: the distance is measured, not guessed from apparent size
    stature: np.ndarray  # (N,) metres measured in this frame, NaN where there is no depth


class MetricFrame:
    """Places bodies in front of one camera at a time; stateless. ``skeleton`` and ``body`` are of one model."""

    def __init__(self, skeleton: Skeleton, model: BodyModel, body, config: MetricConfig = MetricConfig()):
        """``body``: (rotations (N, 24, 3, 3), betas (N, 10)) → vertices first, as numpy."""
        self.config, self.skeleton, self._body, self._faces = config, skeleton, body, model.faces
        self._corners = torch.from_numpy(model.faces.astype(np.int64))
        self.stature = StatureDirection(model)

    def __call__(
        self, rotations: np.ndarray, betas: np.ndarray, weak_cameras: np.ndarray, keypoints: np.ndarray, confidence: np.ndarray,
        crops: np.ndarray, camera: Camera, depth: np.ndarray | None = None, statures: np.ndarray | None = None,
    ) -> Placed:
        """rotations (N, 24, 3, 3) into ray axes, betas (N, 10), weak_cameras (N, 3) in ray axes, keypoints (N, 17, 2) raw px with
        confidence (N, 17), 0 where a joint has no say; crops (N, 3) px; depth (H, W) metres aligned with the raw image, 0 or
        non-finite = unknown; statures (N,) metres that are known already, NaN where not."""
        config = self.config
        turn = ray_axes(camera, crops[:, :2])
        pelvis = self.skeleton.pelvis(betas)
        points = self.skeleton(rotations, betas)[1] - pelvis[:, None]
        place = self._from_image(points, pelvis, weak_cameras, keypoints, confidence, crops, camera, turn)
        place = np.einsum("nji,nj->ni", turn, place)
        turned = rotations.copy()
        turned[:, 0] = (np.swapaxes(turn, 1, 2) @ rotations[:, 0]).astype(np.float32)
        known = np.full(len(place), np.nan) if statures is None else np.asarray(statures, np.float64)
        regressed = self.stature(betas)
        factor = np.where(np.isfinite(known), known, regressed) / regressed
        measured = np.full(len(place), np.nan)
        if depth is not None and len(place):
            vertices = self._body(turned, betas)[0] - pelvis[:, None]
            points = np.einsum("nji,nkj->nki", turn, points)
            for i in range(len(place)):
                measured[i] = self._from_depth(
                    vertices[i], points[i], place[i], factor[i] if np.isfinite(known[i]) else None, keypoints[i], confidence[i], camera, depth)
        from_depth = np.isfinite(measured)
        gain = config.stature_sigma**2 / (config.stature_sigma**2 + config.frame_sigma**2)
        factor = np.where(np.isfinite(known) | ~from_depth, factor, np.where(from_depth, measured, 1.0) ** gain)
        place = place * np.where(from_depth, measured, factor)[:, None]
        corrected = self.stature.correct(betas, np.clip(factor * regressed, *config.statures))
        weak_cameras = self._resized(weak_cameras, pelvis, corrected, self.stature(corrected) / regressed)
        return Placed(turned, corrected, weak_cameras, place.astype(np.float32), from_depth, measured * regressed)

    def _resized(self, weak_cameras, pelvis, betas, growth) -> np.ndarray:
        """Weak-perspective cameras (N, 3) that see bodies of other ``betas``, ``growth`` (N,) times as large, where they saw ``pelvis``."""
        now = self.skeleton.pelvis(betas)
        shift = growth[:, None] * (pelvis[:, :2] + weak_cameras[:, 1:]) - now[:, :2]
        return np.concatenate([weak_cameras[:, :1] / growth[:, None], shift], axis=1).astype(np.float32)

    def _from_image(self, points, pelvis, weak, keypoints, confidence, crops, camera, turn) -> np.ndarray:
        """Pelvis (N, 3) in ray axes that minimises the pinhole re-projection of ``points`` (N, 17, 3), relative to the pelvis.

        Targets are the detected joints, and, weakly, where the weak-perspective camera sees the regressed ones.
        """
        seen = weak_perspective(points + pelvis[:, None], weak)
        targets, known = _in_ray_axes(camera, turn, np.concatenate([keypoints, from_crop(seen, crops)], 1))
        weights = np.concatenate([confidence, np.full_like(confidence, self.config.regressed_weight)], 1) * known
        # A direction that is not known still needs a place for whoever lies wholly outside the camera's model.
        weights[weights.sum(1) < 1e-6, 17:] = self.config.regressed_weight
        points = np.concatenate([points, points], 1).astype(np.float64)
        return place_in_image(points, targets, weights.astype(np.float64), 17, self.config.outlier)

    def _from_depth(self, vertices, points, place, known, keypoints, confidence, camera, depth) -> float:
        """True distance over ``place``'s, NaN where the depth does not tell. ``vertices`` and ``points`` are relative to the pelvis, in
        camera axes; ``known`` is the body's true size over its own, where somebody has measured it before."""
        config = self.config

        def along(values):  # the joints themselves, and the points between those of each bone
            return np.concatenate([values, along_bones(values)[:, 1:-1].reshape(-1, values.shape[-1])])

        sure = along((confidence > 0).astype(float)[:, None])[:, 0] > 0.99  # of a bone's point: both joints
        body = (vertices + place).astype(np.float32)
        if not sure.any() or body[:, 2].min() < 0.05:
            return np.nan
        pixels = np.column_stack([camera.project(body), body[:, 2]]).astype(np.float32)
        asked = camera.project(along(points + place)[sure])
        face = visible_face(asked, pixels, self._faces, perspective=True)
        surface = depth_at(*(torch.from_numpy(np.ascontiguousarray(a)) for a in (asked, face, pixels)), self._corners, perspective=True).numpy()
        measured = _read(depth, along(keypoints)[sure], config.patch)
        valid = (face >= 0) & (measured > 0)
        if valid.sum() < config.min_points:
            return np.nan
        offset, measured = surface[valid] - place[2] - config.clothing, measured[valid].astype(np.float64)
        factor = 1.0
        for _ in range(2):  # the surface's offset grows with the body
            size = known if known is not None else factor
            distances = measured - size * offset  # of the pelvis, as each point tells it
            best = self._agreed(distances, place[2] * (known or 1.0))
            if best is None:
                return np.nan
            factor = best / place[2]
        return factor

    def _agreed(self, distances: np.ndarray, expected: float) -> float | None:
        """The distance on which most points agree, refined to the median of those: occluders and background have other ones."""
        sigma = self.config.surface_sigma
        prior = np.exp(-0.5 * (np.log(np.maximum(distances, 1e-3) / expected) / self.config.size_sigma) ** 2)
        votes = np.exp(-0.5 * ((distances[:, None] - distances) / sigma) ** 2).sum(1) * prior
        best = distances[votes.argmax()]
        near = np.abs(distances - best) < 2.5 * sigma
        if best <= 0 or near.mean() < self.config.min_support or near.sum() < self.config.min_points or prior[votes.argmax()] < 1e-3:
            return None
        return float(np.median(distances[near]))


class StatureDirection:
    """How betas change with a body's stature: along the shortest way in betas, for the embedded body and SMPL alike."""

    LONGEST = 5.0  # of the change of betas, standard deviations of the shape space

    @torch.no_grad()
    def __init__(self, model: BodyModel):
        betas = torch.cat([torch.eye(model.num_betas), -torch.eye(model.num_betas), torch.zeros(1, model.num_betas)])
        heights = model.stature(betas.to(model.smpl.v_template.device)).double().cpu().numpy()
        self.mean = float(heights[-1])
        self.slope = (heights[:10] - heights[10:20]) / 2  # metres a unit of each coefficient
        self.direction = self.slope / max(self.slope @ self.slope, 1e-12)  # betas a metre

    def __call__(self, betas: np.ndarray) -> np.ndarray:
        """(N, 10) → metres (N,), sole to crown of the T-pose; linear in betas, which holds to millimetres."""
        return self.mean + betas.astype(np.float64) @ self.slope

    def correct(self, betas: np.ndarray, statures: np.ndarray) -> np.ndarray:
        """betas (N, 10) changed as little as possible, so that the bodies are ``statures`` (N,) metres tall."""
        longest = self.LONGEST * np.linalg.norm(self.slope)
        change = np.clip(statures - self(betas), -longest, longest)
        return (betas + change[:, None] * self.direction).astype(np.float32)


def _in_ray_axes(camera: Camera, turn: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Raw pixels (N, K, 2) → (x/z, y/z) in the axes of each person's ray, and whether they lie in front of it (N, K) bool."""
    directions, known = camera.directions(pixels)
    rays = np.concatenate([directions, np.ones((*directions.shape[:-1], 1))], -1) @ np.swapaxes(turn, 1, 2)
    known = known & (rays[..., 2] > 0.1)
    return np.where(known[..., None], rays[..., :2] / np.where(known, rays[..., 2], 1)[..., None], 0), known


def _read(depth: np.ndarray, pixels: np.ndarray, patch: int) -> np.ndarray:
    """Median of the known depths in a square of ``patch`` px around pixels (P, 2): (P,) metres, 0 where there are none."""
    height, width = depth.shape
    reach = np.arange(patch) - patch // 2
    centre = np.rint(np.clip(np.nan_to_num(pixels), -1e6, 1e6)).astype(int)
    columns, rows = centre[:, None, :1] + reach[None, :, None], centre[:, None, 1:] + reach[None, None, :]
    columns, rows = np.broadcast_arrays(columns, rows)
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    values = np.where(inside, depth[np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)], 0).reshape(len(pixels), -1)
    values = np.where(np.isfinite(values) & (values > 0), values, np.nan).astype(np.float64)
    ordered = np.sort(values, axis=1)  # NaN last
    count = np.isfinite(values).sum(1)
    rows = np.arange(len(pixels))
    median = (ordered[rows, np.maximum(count - 1, 0) // 2] + ordered[rows, count // 2]) / 2
    return np.where(count > 0, median, 0)
