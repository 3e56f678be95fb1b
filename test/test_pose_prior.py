"""The embedded pose prior keeps what its card says, and a tiny training run learns one."""

import json

import cv2
import numpy as np
import pytest
import torch

from hmr_ros import cli
from hmr_ros.body.model import BodyModel
from hmr_ros.files import load_checkpoint, save_checkpoint
from hmr_ros.networks.checkpoints import EMBEDDED_CHECKPOINT
from hmr_ros.networks.paper.prior import EMBEDDED_PRIOR, PosePrior, load_pose_prior, rotations
from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.training.prior import report as prior_report
from hmr_ros.training.prior.train import PriorConfig, draw_poses, learn

TINY = ("--poses", "400", "--steps", "150", "--batch", "64", "--evaluated", "60", "--workers", "1", "--lr", "0.002")


@pytest.fixture(scope="module")
def prior():
    return load_pose_prior()


@pytest.fixture(scope="module")
def skeleton():
    return PosedKeypoints(BodyModel.load(None))


@pytest.fixture(scope="module")
def held_out():
    """Poses (400, 69) that the embedded prior did not learn from, by kind."""
    rng = np.random.default_rng(7)
    return {"mocap": prior_report.held_out_motion(400, rng), "everyday": prior_report.held_out_everyday(400, rng)}


@pytest.fixture(scope="module")
def samples(prior):
    return prior.decode(2 * torch.rand(1000, 32, generator=torch.Generator().manual_seed(5)) - 1)


# --- the network ------------------------------------------------------------------------------------------------------------------


def test_it_has_the_published_sizes():
    prior = PosePrior()
    linear = [layer for layer in prior.decoder if isinstance(layer, torch.nn.Linear)]
    assert [linear[0].in_features, *(layer.out_features for layer in linear)] == [32, 512, 1024, 1024, 69]
    assert prior(torch.zeros(5, 32)).shape == (5, 69)
    phi = prior.encode(torch.randn(5, 69))
    assert phi.shape == (5, 32) and phi.abs().max() < 1


def test_the_same_rotation_is_the_same_pose(prior):
    theta = torch.zeros(1, 69)
    theta[0, :3] = torch.tensor([0.5, 0.2, -0.3])
    around = theta.clone()
    around[0, :3] *= 1 - 2 * np.pi / float(theta.norm())  # the other way round
    assert torch.allclose(prior.encode(theta), prior.encode(around), atol=1e-4)


def test_it_is_frozen_but_passes_gradients_on(prior):
    assert not prior.training and not any(p.requires_grad for p in prior.parameters())
    phi = torch.zeros(3, 32, requires_grad=True)
    rotations(prior(phi)).square().sum().backward()
    assert torch.isfinite(phi.grad).all()
    assert rotations(torch.zeros(1, 69, requires_grad=True)).isfinite().all()


def test_another_file_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="lifter.*expected 'pose_prior'"):
        load_pose_prior(EMBEDDED_CHECKPOINT)
    with pytest.raises(FileNotFoundError):
        load_pose_prior(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("no weights")
    with pytest.raises(ValueError, match="not a safetensors file"):
        load_pose_prior(tmp_path / "text.safetensors")
    tensors, metadata = load_checkpoint(EMBEDDED_PRIOR)
    tensors.pop("decoder.0.weight")
    save_checkpoint(tmp_path / "part.safetensors", tensors, metadata)
    with pytest.raises(ValueError, match="decoder.0.weight"):
        load_pose_prior(tmp_path / "part.safetensors")


# --- the embedded prior -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, most", [("mocap", 30), ("everyday", 30)])
def test_it_reproduces_poses_that_it_never_saw(prior, skeleton, held_out, kind, most):
    figures = prior_report.reconstruction(prior, skeleton, held_out[kind])
    assert figures["reconstruction_mm"] < most
    # For comparison: decoding somebody else's phi is far off, so the limit means something.
    theta = held_out[kind]
    other = prior.decode(prior.encode(theta.roll(1, 0)))
    error = (prior_report.posed(skeleton, other)[0] - prior_report.posed(skeleton, theta)[0]).norm(dim=-1).mean()
    assert 1000 * error > 4 * most


def test_training_poses_fill_the_box_evenly(prior):
    theta = torch.from_numpy(draw_poses(PriorConfig(poses=800, workers=1, seed=11)))
    figures = prior_report.evenness(prior.encode(theta))
    assert figures["ks_mean"] < 0.08 and figures["ks_max"] < 0.15  # 800 truly even numbers have 0.03 and 0.05
    assert figures["correlation_mean_abs"] < 0.15


def test_what_fills_the_box_is_human(prior, samples, held_out):
    assert prior_report.beyond_limits(samples)["share"] < 0.05
    assert samples.reshape(-1, 3).norm(dim=1).max() < np.pi
    assert prior_report.unseen_rotations(samples[:200], held_out["everyday"]) < 0.02
    joints = samples.reshape(-1, 23, 3)
    spread = joints.std(0).norm(dim=1)
    assert spread[[0, 1, 15, 16, 17, 18]].min() > 0.2  # hips, shoulders, elbows: not one pose for everybody


def test_its_middle_is_an_ordinary_pose(prior, skeleton, held_out):
    figures = prior_report.start(prior, skeleton, torch.cat(list(held_out.values())))
    assert figures["beyond_limits"] == 0
    assert figures["to_mean_joints_mm"] < 0.8 * figures["poses_to_mean_joints_mm"]  # more ordinary than those poses are


def test_descent_from_the_middle_finds_held_out_poses(prior, skeleton, held_out):
    theta = torch.cat([poses[:12] for poses in held_out.values()])
    phi, errors = prior_report.fit(prior, skeleton, theta)
    assert phi.abs().max() <= 1
    assert errors[:12].mean() < 25 and errors[12:].mean() < 25  # millimetres; about 13 over more poses
    # From far away: the middle, where the search begins, is no such pose.
    middle = prior_report.posed(skeleton, prior.decode(torch.zeros(1, 32)))[0]
    assert 1000 * (middle - prior_report.posed(skeleton, theta)[0]).norm(dim=-1).mean() > 100


# --- figures ----------------------------------------------------------------------------------------------------------------------


def test_bent_backwards_is_beyond_the_limits():
    theta = torch.zeros(3, 69)
    theta[0, 3 * 3] = -0.5  # left knee (joint 4), backwards
    theta[1, 3 * 17 + 1] = 0.5  # left elbow (joint 18), backwards
    figures = prior_report.beyond_limits(theta)
    assert figures["share"] == pytest.approx(2 / 3, abs=1e-3)
    assert set(figures["by_joint"]) == {"left_knee", "left_elbow"}


def test_evenness_knows_even_numbers():
    phi = 2 * torch.rand(4000, 32, generator=torch.Generator().manual_seed(0)) - 1
    even, narrow = prior_report.evenness(phi), prior_report.evenness(0.5 * phi)
    assert even["ks_max"] < 0.035 and even["correlation_max_abs"] < 0.07
    assert narrow["ks_mean"] == pytest.approx(0.25, abs=0.02)
    phi[:, 1] = phi[:, 0]
    assert prior_report.evenness(phi)["correlation_max_abs"] == pytest.approx(1)


# --- training ---------------------------------------------------------------------------------------------------------------------


def test_a_tiny_training_run_really_learns(tmp_path):
    assert cli.main(["train", "prior", "--out", str(tmp_path), *TINY]) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    history = metrics["history"]
    assert history[-1]["rotation"] < 0.6 * history[0]["rotation"]
    assert history[-1]["joints"] < 0.6 * history[0]["joints"]
    assert metrics["everyday"]["reconstruction_mm"] < 0.7 * metrics["start"]["poses_to_mean_joints_mm"]
    prior = load_pose_prior(tmp_path / "pose_prior.safetensors")
    phi = prior.encode(torch.from_numpy(draw_poses(PriorConfig(poses=300, workers=1))))
    assert 0.3 < phi.std() < 0.8  # even numbers in [-1, 1] have 0.58
    assert cv2.imread(str(tmp_path / "samples.png")).std() > 5


def test_the_same_seed_gives_the_same_prior(tmp_path):
    def run(seed, workers):
        config = PriorConfig(poses=1010, steps=3, batch=32, workers=workers, seed=seed, out=tmp_path / f"{seed}-{workers}")
        poses = torch.from_numpy(draw_poses(config))
        return poses, learn(config, poses, body)[0].state_dict()

    body = BodyModel.load(None)
    (poses, one), (same_poses, again), (other_poses, other) = run(1, 1), run(1, 2), run(2, 1)
    assert torch.equal(poses, same_poses) and not torch.equal(poses, other_poses)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["decoder.0.weight"], other["decoder.0.weight"])


def test_nonsense_is_refused(tmp_path, capsys):
    assert cli.main(["train", "prior", "--out", str(tmp_path), "--steps", "0"]) == 2
    assert "steps is 0" in capsys.readouterr().err
    assert cli.main(["train", "prior", "--out", str(tmp_path), "--everyday", "1.5"]) == 2
    assert "between 0 and 1" in capsys.readouterr().err
