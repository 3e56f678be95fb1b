"""A body fitted to one person's proxies by optimisation alone, after SMPLify (Bogo et al. 2016, "Keep it SMPL"): the
baseline that says what learning adds to the same detections.

As there: a robust distance (Geman and McClure 1987) of the projected joints to the detected ones, weighted by confidence,
a prior of poses that is loosened on the way, a prior of shapes. Different: the proxies' depth along the bones is fitted too;
the camera is weak perspective; the prior is one Gaussian of the training split's poses instead of a mixture of eight, and
poses are optimised in its whitened coordinates, by Adam; bodies may pass through themselves; and every person starts at
several headings instead of two, of which the lowest loss wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from smplx.lbs import batch_rodrigues
from torch import Tensor

from hmr_ros.geometry import fit_weak_camera, matrix_from_rotvec, rotation_about_z, to_crop
from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.proxies import PersonProxies
from hmr_ros.proxies.depth import DEPTH_BONES, SAMPLES_PER_BONE, along_bones, depth_along_bones
from hmr_ros.skeleton import COCO_TORSO
from hmr_ros.training.data.rendered.poses import PoseSampler

_TORSO = [DEPTH_BONES.index(bone) for bone in ((5, 11), (6, 12), *COCO_TORSO)]  # what depth_along_bones is relative to


@dataclass(frozen=True)
class SmplifyConfig:
    steps: int = 150
    starts: int = 4  # headings, evenly around the vertical; the first faces the camera
    learning_rate: float = 0.1
    joint_sigma: float = 0.02  # of the person's diagonal: what a confident joint is trusted to
    joint_outlier: float = 0.1  # of the person's diagonal: a joint this far off has lost half its say
    depth_sigma: float = 0.1  # metres
    depth_outlier: float = 0.3  # metres
    depth_weight: float = 1 / SAMPLES_PER_BONE  # points of one bone say much the same
    prior_weight: tuple[float, float] = (3.0, 1.0)  # of the pose's negative log density, at first and at last
    batch: int = 1024  # bodies at once


class Evidence(NamedTuple):
    """What is fitted, of N people."""

    targets: Tensor  # (N, 17, 2) crop coordinates
    confidence: Tensor  # (N, 17), 0 where too low to count
    diagonal: Tensor  # (N,) of the person's box, crop coordinates
    depth: Tensor  # (N, 12, 5) metres relative to the torso's median, as depth_along_bones gives them
    depth_valid: Tensor  # (N, 12, 5) in {0, 1}
    tilt: Tensor  # (N,) radians: how far the person is turned in the image plane, clockwise


class GaussianPosePrior(NamedTuple):
    """Gaussian of body poses: axis-angle = mean + factor z, z standard normal."""

    mean: Tensor  # (69,)
    factor: Tensor  # (69, 69)


class Fit(NamedTuple):
    rotations: np.ndarray  # (N, 24, 3, 3), the first into camera axes
    betas: np.ndarray  # (N, 10)
    weak_camera: np.ndarray  # (N, 3)
    loss: np.ndarray  # (N,)
    start_loss: np.ndarray  # (N,) of the mean pose at the best start, before the first step


def gather(people: Sequence[PersonProxies]) -> Evidence:
    """The evidence in people's proxies."""
    rows = []
    for person in people:
        confidence = person.keypoints[:, 2]
        targets = to_crop(person.keypoints[:, :2], person.crop)
        depth, valid = depth_along_bones(np.column_stack([targets, confidence]).astype(np.float32), person.depth)
        diagonal = 2 * np.hypot(*(person.box[2:] - person.box[:2])) / person.crop[2]
        rows.append((targets, person.confidence, diagonal, depth, valid, person.blazepose.roi[3]))
    return Evidence(*(torch.from_numpy(np.stack(column).astype(np.float32)) for column in zip(*rows, strict=True)))


def train_prior(samples: int = 4000, seed: int = 0) -> GaussianPosePrior:
    """The Gaussian of the training split's poses, recorded and everyday: what the lifter has seen, too."""
    sampler, rng = PoseSampler("train"), np.random.default_rng(seed)
    poses = np.stack([sampler.sample(rng).rotvec[1:].ravel() for _ in range(samples)])
    covariance = np.cov(poses.T) + 0.03**2 * np.eye(69)
    return GaussianPosePrior(*(torch.from_numpy(a.astype(np.float32)) for a in (poses.mean(0), np.linalg.cholesky(covariance))))


class Smplify:
    """Fits bodies to evidence; stateless."""

    def __init__(self, skeleton: PosedKeypoints, prior: GaussianPosePrior | None = None, config: SmplifyConfig = SmplifyConfig()):
        self.skeleton, self.prior, self.config = skeleton, prior or train_prior(), config

    def __call__(self, evidence: Evidence) -> Fit:
        """The best of all starts for each of N people."""
        starts = self.config.starts
        size = max(1, self.config.batch // starts)
        fits = []
        for rows in torch.arange(len(evidence.tilt)).split(size):
            some = Evidence(*(value[rows].repeat_interleave(starts, 0) for value in evidence))
            fit = self._fit(some, torch.arange(starts).repeat(len(rows)))
            best = fit.loss.reshape(-1, starts).argmin(1) + starts * np.arange(len(rows))
            fits.append(Fit(*(value[best] for value in fit)))
        return Fit(*(np.concatenate(values) for values in zip(*fits, strict=True)))

    def _fit(self, evidence: Evidence, start: Tensor) -> Fit:
        config, count = self.config, len(start)
        heading = 2 * np.pi / config.starts * start.numpy()
        upright = matrix_from_rotvec(np.array([np.pi, 0, 0]))
        headings = matrix_from_rotvec(np.stack([0 * heading, heading, 0 * heading], 1))
        orient = torch.from_numpy(rotation_about_z(evidence.tilt.numpy()) @ headings @ upright)
        zeros = [torch.zeros(count, size) for size in (69, 3, 10)]  # whitened pose, turn of the start, betas
        with torch.no_grad():
            keypoints = self.skeleton(self._rotations(orient, *zeros[:2]), zeros[2])[1].numpy()
        fitted = fit_weak_camera(keypoints, evidence.targets.numpy(), evidence.confidence.numpy())
        scale = np.clip(fitted[:, :1], 0.1, 10)  # of a side view of what is seen from the front, say
        camera = torch.from_numpy(np.concatenate([np.log(scale), scale * fitted[:, 1:]], 1).astype(np.float32))
        unknowns = [value.requires_grad_() for value in (*zeros, camera)]
        optimizer = torch.optim.Adam(unknowns, lr=config.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps, 0.05 * config.learning_rate)
        with torch.no_grad():
            start_loss = self._loss(evidence, orient, *unknowns, prior_weight=config.prior_weight[1])
        for weight in np.geomspace(*config.prior_weight, config.steps):
            optimizer.zero_grad(set_to_none=True)
            self._loss(evidence, orient, *unknowns, prior_weight=float(weight)).sum().backward()  # bodies do not mix
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            loss = self._loss(evidence, orient, *unknowns, prior_weight=config.prior_weight[1])
            rotations = self._rotations(orient, *unknowns[:2])
            scale = camera[:, :1].exp()
            weak_camera = torch.cat([scale, camera[:, 1:] / scale], 1)
        return Fit(*(value.detach().numpy() for value in (rotations, unknowns[2], weak_camera, loss, start_loss)))

    def _rotations(self, orient: Tensor, pose: Tensor, turn: Tensor) -> Tensor:
        rotvecs = torch.cat([turn, self.prior.mean + pose @ self.prior.factor.T], 1)
        rotations = batch_rodrigues(rotvecs.reshape(-1, 3)).reshape(-1, 24, 3, 3)
        return torch.cat([(rotations[:, 0] @ orient)[:, None], rotations[:, 1:]], 1)

    def _loss(self, evidence: Evidence, orient: Tensor, *unknowns: Tensor, prior_weight: float) -> Tensor:
        """Negative log probability of each body (N,), up to a constant. unknowns: whitened pose (N, 69), turn of the start
        (N, 3), betas (N, 10), camera (N, 3) as log s, s tx, s ty."""
        config, (pose, turn, betas, camera) = self.config, unknowns
        keypoints = self.skeleton(self._rotations(orient, pose, turn), betas)[1]
        seen = camera[:, None, :1].exp() * keypoints[..., :2] + camera[:, None, 1:]
        off = ((seen - evidence.targets) ** 2).sum(-1) / evidence.diagonal[:, None] ** 2
        joints = evidence.confidence * _robust(off, config.joint_outlier) / config.joint_sigma**2
        deeper = (bone_depth(keypoints, evidence.depth_valid) - evidence.depth) ** 2
        depth = config.depth_weight * evidence.depth_valid * _robust(deeper, config.depth_outlier) / config.depth_sigma**2
        priors = prior_weight * (pose**2).sum(1) + (betas**2).sum(1)
        return (joints.sum(1) + depth.sum((1, 2)) + priors) / 2


def bone_depth(keypoints: Tensor, valid: Tensor) -> Tensor:
    """A body's own depth along the bones: keypoints (N, 17, 3) → (N, 12, 5) metres, relative to the median of the valid
    points on the torso, as ``depth_along_bones`` measures it; 0 is the reference where none of those is valid."""
    z = along_bones(keypoints)[..., 2]
    torso = torch.where(valid > 0, z, torch.nan)[:, _TORSO].flatten(1)
    return z - torso.nanmedian(1).values.nan_to_num()[:, None, None]


def _robust(squares: Tensor, outlier: float) -> Tensor:
    """Geman-McClure: x² near zero, never more than outlier²."""
    return squares / (1 + squares / outlier**2)
