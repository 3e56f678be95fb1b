"""Pseudo-labels: bodies fitted to the proxies of whole tracks, from which the regressor learns as from a teacher (as in SPIN, but over time).

One energy for all frames of a track, minimised by Adam (after SMPLify, Bogo et al. 2016, and its multi-frame successors):

    joints       the joints, projected by the full pinhole camera, lie on the detected ones: in metres, by confidence, Geman-McClure
    depth        the skin along the bones is where the depth camera sees it, where there is one: one-sided, since what hides a limb is nearer
    points       the joints are where several cameras see them, where there are several (triangulation.py): in metres, Geman-McClure
    regression   each joint's rotation is what was regressed in each frame, by its reliability, Geman-McClure: frames outvote others
    motion       joints move smoothly in the camera's frame: their accelerations are small
    shape        one for each track, near the regressed ones

No labels are read. Frames in which the proxies contradict each other, or which the fit does not explain, are left out and counted.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import roma
import torch
from torch import Tensor, nn

from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.camera import ray_axes
from hmr_ros.geometry import rotvec_from_matrix, to_crop
from hmr_ros.judgement import JudgementConfig
from hmr_ros.networks.lifter.net import Lifter
from hmr_ros.networks.lifter.regressor import LifterRegressor
from hmr_ros.networks.paper.regressor import MapsRegressor, depth_size_of
from hmr_ros.networks.regressor import BodyParameters
from hmr_ros.proxies import registry
from hmr_ros.proxies.depth import FIRST, LAST, SAMPLES_PER_BONE, TORSO, along_bones
from hmr_ros.refinement import RefinementConfig
from hmr_ros.skeleton import COCO_FROM_BLAZEPOSE, SMPL_FROM_LIMBS
from hmr_ros.training.adaptation.recordings import LONGEST_STEP, People

# Metres from a bone to the skin in front of it, of DEPTH_BONES (proxies/depth.py, SEGMENTS): a depth camera sees the skin.
_SKIN = torch.tensor([0.05, 0.05, 0.04, 0.04, 0.08, 0.08, 0.055, 0.055, 0.11, 0.11, 0.09, 0.11])
_BATCH = 2000  # frames at once, whole tracks


@dataclass(frozen=True)
class TeacherConfig:
    """Standard deviations; lengths in metres, angles in radians."""

    steps: int = 120
    lr: float = 0.03
    joint_sigma: float = 0.06  # of a confident detected joint
    joint_outlier: float = RefinementConfig.outlier
    depth_sigma: float = 0.06
    depth_outlier: float = 0.2
    point_sigma: float = 0.04  # of a triangulated joint
    rotation_sigma: float = 0.15  # of a regressed rotation of reliability 1
    rotation_outlier: float = 0.6
    acceleration: float = 14.0  # m/s^2
    distance_sigma: float = 0.1  # of the logarithm of the distance over the regressed or measured one
    shape_sigma: float = 1.0
    disagreement: float = 0.1  # of the box's diagonal: median distance of the two detectors' joints beyond which a frame is left out
    misfit: float = JudgementConfig.mean / 2  # of the box's diagonal: mean distance of the fitted joints to the detected ones


class Labels(NamedTuple):
    """Bodies of N detections in ray axes, and which of them teach."""

    rotations: np.ndarray  # (N, 24, 3, 3)
    betas: np.ndarray  # (N, 10)
    place: np.ndarray  # (N, 3) metres, of the body model's origin
    keypoints: np.ndarray  # (N, 17, 2) px, of the fitted body
    kept: np.ndarray  # (N,) bool
    left_out: dict[str, int]  # how many detections, by the reason

    def rows(self, which: np.ndarray) -> Labels:
        """Of some of the detections (M,); ``left_out`` stays that of all."""
        return Labels(*(values[which] for values in self[:5]), self.left_out)

    def truth(self) -> dict[str, np.ndarray]:
        """In the place of rendered people's truth, by the names of data/shards.py that lifter/samples.py reads."""
        pose = rotvec_from_matrix(self.rotations)
        return {"ray_orient": pose[:, 0], "pose": pose, "betas": self.betas, "keypoints2d": self.keypoints}


def regress(network: nn.Module, skeleton: PosedKeypoints, people: People, flip: bool = False) -> BodyParameters:
    """What a lifter or resnet18 says of everybody, in ray axes, as the estimator asks it; with ``flip`` averaged over the mirrored view. The lifter has
    learned both kinds of depth and sees the better one."""

    def run(*inputs: np.ndarray):
        with torch.inference_mode():
            return tuple(value.numpy() for value in network(*map(torch.from_numpy, inputs)))

    network.eval()
    if isinstance(network, Lifter):
        regressor, depth = LifterRegressor(run, lambda betas: skeleton.pelvis(torch.from_numpy(betas)).numpy()), people.depth
    else:
        regressor, depth = MapsRegressor(run, depth_size_of(network.config.size)), "depth"
    parts, proxies = [], people.proxies(depth, flip)
    while some := list(islice(proxies, 128)):
        parts.append(regressor(some))
    return BodyParameters(*map(np.concatenate, zip(*parts)))


def teach(network: nn.Module, skeleton: PosedKeypoints, people: People, points: np.ndarray, config: TeacherConfig = TeacherConfig()) -> Labels:
    """Fit bodies to all tracks of ``people``. ``points`` (N, 17, 3): their joints as several cameras see them, metres in camera axes, NaN where unknown."""
    regressed = regress(network, skeleton, people, flip=True)
    bounds = np.flatnonzero(np.diff(people.track, prepend=-1))
    parts, first = [], 0
    for last in [*bounds[1:], len(people)]:  # whole tracks, as many as fit
        if last - first >= _BATCH or last == len(people):
            rows = np.arange(first, last)
            parts.append(_Fit(skeleton, people[rows], regressed.rows(rows), points[rows], config).run())
            first = last
    rotations, betas, place, seen = map(np.concatenate, zip(*parts))
    return Labels(rotations, betas, place, seen, *_kept(people, seen, config))


def _kept(people: People, seen: np.ndarray, config: TeacherConfig) -> tuple[np.ndarray, dict[str, int]]:
    """Which frames teach (N,), and how many are left out and why."""
    rows = people.rows
    diagonal = np.linalg.norm(rows["box"][:, 2:] - rows["box"][:, :2], axis=1)
    sure = rows["keypoints"][..., 2] > registry.confident(None)

    def off(points: np.ndarray) -> np.ndarray:
        distance = np.linalg.norm(points - rows["keypoints"][..., :2], axis=-1) / diagonal[:, None]
        return np.where(sure, distance, np.nan)

    few = sure.sum(1) < 6
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # nobody sure: such frames are left out as ``few``
        apart = np.nanmedian(off(rows["landmarks"][:, list(COCO_FROM_BLAZEPOSE), :2]), 1) > config.disagreement
        misfit = np.nanmean(off(seen), 1) > config.misfit
    reasons = {"too few joints": few, "detectors disagree": apart | ~rows["agreed"], "not explained by a body": misfit}
    kept, counts = np.ones(len(people), bool), {}
    for reason, which in reasons.items():
        counts[reason] = int((which & kept).sum())
        kept &= ~which
    return kept, counts


class _Fit:
    """The energy of some whole tracks."""

    def __init__(self, skeleton: PosedKeypoints, people: People, regressed: BodyParameters, points: np.ndarray, config: TeacherConfig):
        rows = people.rows
        self.skeleton, self.config = skeleton, config
        self.confidence = sure(people)
        self.people = people
        self.rays = Rays(people)
        targets, known = self.rays.directions(rows["keypoints"][..., :2])
        self.targets, self.known = torch.from_numpy(targets), torch.from_numpy(self.confidence * known)
        self.to_camera = torch.from_numpy(np.swapaxes(self.rays.axes, 1, 2).astype(np.float32))
        self.regressed = torch.from_numpy(regressed.rotations)
        per_metre = regressed.weak_camera[:, :1] * rows["crop"][:, 2:] / 2
        self.place = torch.from_numpy(np.concatenate([regressed.weak_camera[:, 1:], self.rays.focal[:, None] / per_metre], 1).astype(np.float32))
        reliability = torch.from_numpy(regressed.reliability)
        self.weight = 0.1 + torch.stack([reliability.mean(1) if limb is None else reliability[:, limb] for limb in SMPL_FROM_LIMBS], 1)
        tracks, self.track = np.unique(people.track, return_inverse=True)
        self.track = torch.from_numpy(self.track)
        shape = torch.zeros(len(tracks), 11).index_add(0, self.track, torch.cat([torch.from_numpy(regressed.betas), torch.ones(len(people), 1)], 1))
        self.shape = shape[:, :10] / shape[:, 10:]
        self.steps = self._steps(people)
        self.depth = bone_depths(people, self.rays, self.confidence)
        if self.depth is not None:
            deep, valid = (values[:, TORSO].flatten(1) for values in self.depth)
            self.place = self._at(torch.where(valid > 0, deep, torch.nan))
        self.points = torch.from_numpy(points) @ self.to_camera
        self.place = self._at(self.points[..., 2])

    def _steps(self, people: People) -> tuple[Tensor, Tensor, Tensor]:
        """Frames (M,) with a neighbour on both sides in their track, and the seconds to these (M,)."""
        passed, same = np.diff(people.stamp), np.diff(people.track) == 0
        near = same & (passed <= LONGEST_STEP)
        middle = np.flatnonzero(near[:-1] & near[1:]) + 1
        before, after = (torch.from_numpy(passed[middle - i].astype(np.float32)) for i in (1, 0))
        return torch.from_numpy(middle), before, after

    def _at(self, distances: Tensor) -> Tensor:
        """Places (N, 3) at the median of measured distances (N, K), NaN where unknown; as they were where none is known."""
        ratio = (distances.nanmedian(1).values / self.place[:, 2]).clamp(0.5, 2)
        return self.place * torch.where(ratio.isfinite(), ratio, 1.0)[:, None]

    def run(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Rotations (N, 24, 3, 3), betas (N, 10), places (N, 3), projected keypoints (N, 17, 2) px."""
        start = self._start()
        unknowns = [torch.zeros(len(start), 24, 3), self.shape.clone(), torch.zeros(len(start), 3)]
        unknowns = [value.requires_grad_() for value in unknowns]
        optimizer = torch.optim.Adam(unknowns, lr=self.config.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.config.steps, 0.05 * self.config.lr)
        for _ in range(self.config.steps):
            optimizer.zero_grad(set_to_none=True)
            self.energy(*self._bodies(start, *unknowns)).backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            rotations, betas, place = self._bodies(start, *unknowns)
            points = self.skeleton(rotations, betas)[1] + place[:, None]
        return rotations.numpy(), betas.numpy(), place.numpy(), self.rays.pixels(points.numpy())

    def _bodies(self, start: Tensor, turn: Tensor, shape: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """shift (N, 3): of the place, metres; the last one of the distance's logarithm."""
        place = torch.cat([self.place[:, :2] + shift[:, :2], self.place[:, 2:] * shift[:, 2:].exp()], 1)
        return roma.rotvec_to_rotmat(turn) @ start, shape[self.track], place

    def _start(self, reach: int = 2) -> Tensor:
        """Where each joint's rotation begins: that of the neighbouring frame to which most of the others are near, so that a frame regressed
        back to front begins as its neighbours do."""
        votes, tracks, count = [], self.track, len(self.track)
        offsets = [o for o in range(-reach, reach + 1)]
        rows = [(torch.arange(count) + o).clamp(0, count - 1) for o in offsets]
        some = torch.stack([self.regressed[torch.where(tracks[row] == tracks, row, torch.arange(count))] for row in rows])  # (W, N, 24, 3, 3)
        for one in some:
            angle = roma.rotmat_geodesic_distance(one[None].expand_as(some), some)
            votes.append((1 / (1 + (angle / self.config.rotation_outlier) ** 2)).sum(0))
        votes = torch.stack(votes)
        votes[reach] += 0.3  # the frame itself, where all are alike
        best = votes.argmax(0)
        return some.gather(0, best[None, ..., None, None].expand(1, *some.shape[1:]))[0]

    def energy(self, rotations: Tensor, betas: Tensor, place: Tensor) -> Tensor:
        """Negative log-likelihood () of all frames, up to a constant."""
        config = self.config
        joints, keypoints = (points + place[:, None] for points in self.skeleton(rotations, betas))
        distance = place[:, None, 2].detach()
        lack = (self.targets - keypoints[..., :2] / keypoints[..., 2:].clamp_min(0.1)).norm(dim=-1) * distance
        total = (self.known * _robust(lack.square(), config.joint_outlier)).sum() / config.joint_sigma**2
        away = 0.5 * (rotations - self.regressed).square().sum((-1, -2))  # about the angle's square
        total = total + (self.weight * _robust(away, config.rotation_outlier)).sum() / config.rotation_sigma**2
        total = total + ((place[:, 2] / self.place[:, 2]).log() / config.distance_sigma).square().sum()
        if self.depth is not None:
            deep, valid = self.depth
            behind = along_bones(keypoints)[..., 2] - deep
            behind = torch.where(behind > 0, 0.3 * behind, behind)  # what hides a limb is nearer than it
            total = total + (valid * _robust(behind.square(), config.depth_outlier)).sum() / config.depth_sigma**2 / SAMPLES_PER_BONE
        known = self.points.isfinite().all(-1)
        total = total + _robust((keypoints - self.points)[known].square().sum(-1), config.joint_outlier).sum() / config.point_sigma**2
        middle, before, after = self.steps
        if len(middle):
            points = torch.cat([joints, keypoints], 1) @ self.to_camera.mT
            velocity = [(points[middle + i] - points[middle + i - 1]) / passed[:, None, None] for i, passed in ((0, before), (1, after))]
            acceleration = (velocity[1] - velocity[0]) / (0.5 * (before + after))[:, None, None]
            total = total + acceleration.square().sum() / config.acceleration**2
        return (total + (betas - self.shape[self.track]).square().sum() / config.shape_sigma**2) / 2


def sure(people: People) -> np.ndarray:
    """Confidence of the detected joints (N, 17) float32, 0 of those that are not trusted."""
    confidence = people.rows["keypoints"][..., 2]
    return np.where(confidence > registry.confident(None), confidence, 0).astype(np.float32)


def bone_depths(people: People, rays: Rays, confidence: np.ndarray) -> tuple[Tensor, Tensor] | None:
    """How deep bones lie by the depth camera (N, 12, 5), metres along the ray's axis, and where that is known (0 or 1); None without one."""
    if "sensor_depth" not in people.rows:
        return None
    depths, (crops, keypoints) = people.rows["sensor_depth"], (people.rows[name] for name in ("crop", "keypoints"))
    points = along_bones(np.concatenate([keypoints[..., :2], confidence[..., None]], -1))
    pixel = np.rint((to_crop(points[..., :2], crops[:, None]) + 1) * depths.shape[1] / 2 - 0.5).astype(int)
    inside = ((pixel >= 0) & (pixel < depths.shape[1])).all(-1)
    pixel = np.clip(pixel, 0, depths.shape[1] - 1)
    measured = depths[np.arange(len(depths))[:, None, None], pixel[..., 1], pixel[..., 0]].astype(np.float32)
    valid = inside & (measured > 0) & (confidence[:, FIRST] * confidence[:, LAST] > 0)[..., None]
    along = measured * rays.along(points[..., :2])
    return torch.from_numpy(along.astype(np.float32)) + _SKIN[:, None], torch.from_numpy(valid.astype(np.float32))


class Rays:
    """Between pixels and the axes of the rays through people's crops, whatever camera saw whom."""

    def __init__(self, people: People):
        self.people = people
        self.axes, self.focal = np.empty((len(people), 3, 3)), np.empty(len(people))
        for which, camera in self._by_camera():
            self.axes[which], self.focal[which] = ray_axes(camera, people.rows["crop"][which, :2]), camera.intrinsics.fx

    def _by_camera(self):
        for number, camera in enumerate(self.people.cameras):
            which = np.flatnonzero(self.people.recording == number)
            if len(which):
                yield which, camera

    def in_camera(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (N, ..., 2) → directions (N, ..., 3) with z = 1 in camera axes, and whether there is one (N, ...)."""
        directions, known = np.ones((*pixels.shape[:-1], 3)), np.zeros(pixels.shape[:-1], bool)
        for which, camera in self._by_camera():
            directions[which, ..., :2], known[which] = camera.directions(pixels[which])
        return directions, known

    def directions(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (N, K, 2) → x/z, y/z in ray axes (N, K, 2) float32, and whether they lie in front (N, K)."""
        directions, known = self.in_camera(pixels)
        rays = directions @ np.swapaxes(self.axes, 1, 2)
        known &= rays[..., 2] > 0.1
        return (rays[..., :2] / np.where(known, rays[..., 2], 1)[..., None]).astype(np.float32), known

    def along(self, pixels: np.ndarray) -> np.ndarray:
        """(N, ...) metres along the ray's axis for a metre along the optical axis, at pixels (N, ..., 2)."""
        directions, _ = self.in_camera(pixels)
        return np.einsum("n...i,ni->n...", directions, self.axes[:, 2])

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Points (N, K, 3) in ray axes, metres → raw pixels (N, K, 2)."""
        points = points @ self.axes
        points[..., 2] = np.maximum(points[..., 2], 0.05)
        seen = np.empty((*points.shape[:-1], 2), np.float32)
        for which, camera in self._by_camera():
            seen[which] = camera.project(points[which])
        return seen


def _robust(squares: Tensor, outlier: float) -> Tensor:
    """Geman-McClure: x^2 near zero, never more than outlier^2."""
    return squares / (1 + squares / outlier**2)
