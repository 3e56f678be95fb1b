"""From nothing to a checkpoint that knows something: a tiny run of generation, training and use."""

import json

import numpy as np
import pytest
import torch

from hmr_ros.body_model import BodyModel
from hmr_ros.estimator import load_lifter
from hmr_ros.posed_keypoints import PosedKeypoints
from hmr_ros.training import train as training
from hmr_ros.training.datasets import rendered
from hmr_ros.training.evaluate import mpjpe, pa_mpjpe


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Folders of rendered people: to learn from and held out."""
    root = tmp_path_factory.mktemp("rendered")
    for split, count in (("train", 60), ("val", 16)):
        rendered.generate(rendered.RenderedConfig(root / split, count=count, split=split, workers=1, seed=3))
    return root


def test_a_tiny_training_run_really_learns(people, tmp_path):
    config = training.TrainConfig(
        data=(people / "train",), val=(people / "val",), out=tmp_path, epochs=60, batch=16, width=128, blocks=1, lr=2e-3
    )
    metrics = training.train(config)
    losses = [epoch["loss"] for epoch in metrics["history"]]
    assert np.mean(losses[-5:]) < 0.5 * losses[0]
    # It beats the mean pose on people and motions that it never saw.
    held_out, skeleton = training.load_samples((people / "val",)), PosedKeypoints(BodyModel.load(None))
    lifter, body = load_lifter(tmp_path / "lifter.safetensors")
    torch.nn.init.zeros_(lifter.head.weight), torch.nn.init.zeros_(lifter.head.bias)
    mean_pose = training.evaluate(lifter, held_out, skeleton)
    assert metrics["best"]["mpjpe"] < 0.7 * mean_pose["mpjpe"]
    assert body["sha256"] == BodyModel.load(None).sha256
    assert json.loads((tmp_path / "metrics.json").read_text())["best"] == metrics["best"]


def test_everybody_is_there_twice_for_training_with_the_sensor(people):
    plain, both = (training.load_samples((people / "train",), with_sensor=flag) for flag in (False, True))
    assert len(both) == 2 * len(plain)
    assert torch.equal(both.features[: len(plain)], plain.features)
    assert torch.equal(both.rotations[len(plain) :], plain.rotations)
    assert not torch.equal(both.features[len(plain) :], plain.features)


def test_the_truth_in_the_samples_projects_onto_itself(people):
    """Rotations, shape, camera and 2D truth belong together: the mesh of the truth lies on the true 2D joints."""
    samples, skeleton = training.load_samples((people / "train",)), PosedKeypoints(BodyModel.load(None))
    for some in (samples, samples.mirrored()):
        _, keypoints = skeleton(some.rotations, some.betas)
        seen = some.weak_camera[:, None, :1] * (keypoints[..., :2] + some.weak_camera[:, None, 1:])
        error = (seen - some.keypoints_xy).norm(dim=-1).mean(1)
        # What remains is perspective, which a weak camera does not have: small but for people at arm's length.
        assert error.median() < 0.05 and error.mean() < 0.1


def test_too_few_people_for_a_batch_are_refused(people, tmp_path):
    with pytest.raises(ValueError, match="lower --batch"):
        training.train(training.TrainConfig(data=(people / "val",), val=(people / "val",), out=tmp_path, batch=5000))


def test_error_measures_against_numbers_by_hand():
    gt = np.zeros((1, 4, 3))
    gt[0, :3] = np.eye(3)
    assert mpjpe(gt + [0, 0.003, 0.004], gt) == pytest.approx([5.0])
    assert pa_mpjpe(2 * gt + 1, gt) == pytest.approx([0.0], abs=1e-9)
    mirrored = gt * [-1, 1, 1] + np.random.default_rng(0).normal(0, 0.2, gt.shape)
    assert pa_mpjpe(mirrored, gt)[0] <= mpjpe(mirrored, gt)[0]
    with pytest.raises(ValueError, match=r"\(N, J, 3\)"):
        mpjpe(gt[0], gt[0])
