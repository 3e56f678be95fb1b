"""The optimisation baseline: it measures depth as the proxies do, lowers its loss, finds a pose shown exactly."""

import numpy as np
import pytest
import torch

from hmr_ros.body.model import BodyModel
from hmr_ros.geometry import matrix_from_rotvec
from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.proxies.depth import DEPTH_BONES, SAMPLES_PER_BONE, depth_along_bones
from hmr_ros.training.data.rendered.poses import PoseSampler
from hmr_ros.training.metrics import LIMB_HIPS, pa_mpjpe, root_aligned
from hmr_ros.training.benchmarks.rendered.smplify import Evidence, Fit, Smplify, SmplifyConfig, bone_depth, train_prior

COUNT = 12


@pytest.fixture(scope="module")
def skeleton():
    return PosedKeypoints(BodyModel.load(None))


@pytest.fixture(scope="module")
def fitted(skeleton):
    """Held-out poses, what exact proxies would say of them, and what is fitted to that."""
    sampler, rng = PoseSampler("val"), np.random.default_rng(4)
    rotvecs = np.stack([sampler.sample(rng).rotvec for _ in range(COUNT)])
    rotations = matrix_from_rotvec(rotvecs)
    rotations[:, 0] = matrix_from_rotvec(np.array([np.pi, 0, 0])) @ rotations[:, 0]
    betas = rng.normal(0, 0.5, (COUNT, 10)).astype(np.float32)
    truth = skeleton(torch.from_numpy(rotations), torch.from_numpy(betas))[1]
    valid = torch.ones(COUNT, len(DEPTH_BONES), SAMPLES_PER_BONE)
    ones = torch.ones(COUNT)
    targets = 0.9 * (truth[..., :2] + torch.tensor([0.1, 0.2]))
    evidence = Evidence(targets, torch.ones(COUNT, 17), 1.5 * ones, bone_depth(truth, valid), valid, 0 * ones)
    fit = Smplify(skeleton, train_prior(1000))(evidence)
    return truth.numpy(), evidence, fit


def test_depth_along_the_bones_is_measured_as_in_the_proxies(skeleton):
    """A map that is as deep as the body's bones gives, read by the proxies' own function, what the body itself says."""
    keypoints = torch.randn(1, 17, 3, generator=torch.Generator().manual_seed(0)).clamp(-2, 2) * 0.3
    keypoints[..., 2] += 1
    joints = np.column_stack([keypoints[0, :, :2].numpy(), np.ones(17)]).astype(np.float32)
    size = 1024
    depth, (a, b) = np.zeros((size, size), np.float32), np.array(DEPTH_BONES).T
    for t in np.linspace(0, 1, SAMPLES_PER_BONE):
        points = keypoints[0, a] * (1 - t) + keypoints[0, b] * t
        pixels = np.rint((points[:, :2].numpy() + 1) * size / 2 - 0.5).astype(int)
        depth[pixels[:, 1], pixels[:, 0]] = 4 + points[:, 2].numpy()
    values, valid = depth_along_bones(joints, depth)
    assert valid.mean() > 0.9
    ours = bone_depth(keypoints, torch.from_numpy(valid)[None])[0].numpy()
    # They may take another one of the two middle values of the torso as the median: the same shift for every point.
    difference = (ours - values)[valid > 0]
    assert np.ptp(difference) < 1e-5 and abs(difference).max() < 0.1


def test_optimisation_lowers_the_loss_of_everybody(fitted):
    _, _, fit = fitted
    assert (fit.loss < 0.5 * fit.start_loss).all()


def test_of_several_headings_the_best_is_kept(skeleton, fitted, monkeypatch):
    """Person by person, across batches: each start's loss is made up, and its number stands in the betas."""
    losses = np.random.default_rng(0).random((COUNT, 4))
    evidence = fitted[1]._replace(tilt=torch.arange(COUNT).float())

    def made_up(self, some, start):
        person, start = some.tilt.numpy().astype(int), start.numpy()
        loss = losses[person, start]
        return Fit(np.zeros((len(loss), 24, 3, 3)), np.stack([person, start], 1), np.zeros((len(loss), 3)), loss, loss)

    monkeypatch.setattr(Smplify, "_fit", made_up)
    fit = Smplify(skeleton, train_prior(100), SmplifyConfig(batch=20))(evidence)
    np.testing.assert_array_equal(fit.betas, np.stack([np.arange(COUNT), losses.argmin(1)], 1))
    np.testing.assert_array_equal(fit.loss, losses.min(1))


def test_a_pose_that_proxies_show_exactly_is_found(skeleton, fitted):
    truth, evidence, fit = fitted
    limbs = root_aligned(truth[:, 5:], LIMB_HIPS)
    keypoints = skeleton(torch.from_numpy(fit.rotations), torch.from_numpy(fit.betas))[1].numpy()
    mean = train_prior(1000).mean.reshape(23, 3).numpy()
    mean = matrix_from_rotvec(np.concatenate([[[np.pi, 0, 0]], mean]))[None]
    mean = skeleton(torch.from_numpy(mean), torch.zeros(1, 10))[1].numpy()[:, 5:]
    ours = pa_mpjpe(root_aligned(keypoints[:, 5:], LIMB_HIPS), limbs)
    of_mean = pa_mpjpe(np.repeat(root_aligned(mean, LIMB_HIPS), COUNT, 0), limbs)
    assert np.median(ours) < 0.3 * np.median(of_mean)
    # Headings are found, too: the whole body is right, not only up to a turn.
    errors = 1000 * np.linalg.norm(root_aligned(keypoints[:, 5:], LIMB_HIPS) - limbs, axis=-1).mean(1)
    assert np.median(errors) < 60
    seen = fit.weak_camera[:, None, :1] * (keypoints[..., :2] + fit.weak_camera[:, None, 1:])
    assert np.median(np.linalg.norm(seen - evidence.targets.numpy(), axis=-1)) < 0.02
