"""From nothing to a checkpoint that knows something: a tiny run of generation, training and use."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from hmr_ros.body.model import BodyModel
from hmr_ros.networks.checkpoints import load_lifter
from hmr_ros.networks.lifter.features import FEATURE_COUNT, keypoints_in_features
from hmr_ros.networks.lifter.net import Lifter
from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.files import load_checkpoint
from hmr_ros.proxies import FEATURE_MAP, registry
from hmr_ros.skeleton import SMPL_MIRROR
from hmr_ros.training.lifter import samples
from hmr_ros.training.lifter import tasks
from hmr_ros.training.lifter import train as training
from hmr_ros.training.metrics import mpjpe, pa_mpjpe


def test_a_tiny_training_run_really_learns(people, tmp_path):
    config = training.LifterConfig(
        data=(people / "train",), val=(people / "val",), out=tmp_path, epochs=120, batch=16, width=128, blocks=1, lr=2e-3, members=2,
        image_features=1, average=0.95, accelerator="cpu",
    )  # fmt: skip
    metrics = training.train(config)
    losses = [epoch["loss"] for epoch in metrics["history"]]
    assert np.mean(losses[-5:]) < 0.5 * losses[0]
    # It beats the mean pose on people and motions that it never saw.
    skeleton = PosedKeypoints(BodyModel.load(None))
    held_out = samples.make_samples(samples.load_people((people / "val",)), samples.load_feature_maps((people / "val",)), skeleton)
    lifter, body = load_lifter(tmp_path / "lifter.safetensors")
    scores = tasks.evaluate(lifter, held_out, skeleton)
    assert scores["mpjpe"] == pytest.approx(metrics["scores"]["mpjpe"], rel=0.01)  # weights are stored as float16
    # Going on from it does not begin anew, keeps its size, and its idea of what inputs look like.
    further = training.train(replace(config, init=tmp_path / "lifter.safetensors", out=tmp_path / "further", epochs=2, lr=1e-4, width=7))
    assert further["history"][0]["loss"] < 0.6 * losses[0]
    assert torch.equal(load_lifter(tmp_path / "further" / "lifter.safetensors")[0].feature_mean, lifter.feature_mean)
    for member in lifter.members:
        torch.nn.init.zeros_(member.head.weight), torch.nn.init.zeros_(member.head.bias)
    mean_pose = tasks.evaluate(lifter, held_out, skeleton)
    assert scores["mpjpe"] < 0.7 * mean_pose["mpjpe"]
    assert body["sha256"] == BodyModel.load(None).sha256
    assert load_checkpoint(tmp_path / "lifter.safetensors")[1]["extractors"] == [registry.identity(flip=True)]
    assert json.loads((tmp_path / "metrics.json").read_text())["scores"] == metrics["scores"]


def test_everybody_is_there_once_for_each_flip_and_depth(people):
    skeleton = PosedKeypoints(BodyModel.load(None))
    data = samples.load_people((people / "train",))
    maps = samples.load_feature_maps((people / "train",))
    views = samples.make_samples(data, maps, skeleton, samples.FLIPS, samples.DEPTHS)
    n = len(data["index"])
    assert len(views) == 4 * n and views.person.tolist() == 4 * list(range(n))
    plain, sensor, mirrored = (views[torch.arange(i * n, (i + 1) * n)] for i in range(3))
    assert torch.equal(sensor.feature_map, plain.feature_map) and torch.equal(plain.feature_map, torch.from_numpy(np.asarray(maps)[::2]).float())
    assert torch.equal(mirrored.feature_map, torch.from_numpy(np.asarray(maps)[1::2]).float())
    assert torch.equal(sensor.rotations, plain.rotations) and not torch.equal(sensor.features, plain.features)
    # Whoever is seen in a mirror does the same with the other side; only the angle of the RoI may differ.
    pose = (plain.rotations[:, 1:], mirrored.rotations[:, 1:][:, [SMPL_MIRROR[j] - 1 for j in range(1, 24)]])
    flip = torch.tensor([-1.0, 1, 1])
    assert torch.allclose(pose[0], pose[1] * flip[:, None] * flip, atol=1e-5)
    tilt = plain.features[:, FEATURE_COUNT - 1152 - 6], mirrored.features[:, FEATURE_COUNT - 1152 - 6]
    assert np.corrcoef(*tilt)[0, 1] < -0.8  # who leans to the left leans to the right


def test_the_truth_in_the_samples_projects_onto_itself(people):
    """Rotations, shape, camera and 2D truth belong together: the mesh of the truth lies on the true 2D joints."""
    skeleton = PosedKeypoints(BodyModel.load(None))
    for flip in samples.FLIPS:
        folder = (people / "train",)
        some = samples.make_samples(samples.load_people(folder), samples.load_feature_maps(folder), skeleton, (flip,))
        _, keypoints = skeleton(some.rotations, some.betas)
        seen = some.weak_camera[:, None, :1] * (keypoints[..., :2] + some.weak_camera[:, None, 1:])
        error = (seen - some.keypoints_xy).norm(dim=-1).mean(1)
        # What remains is perspective, which a weak camera does not have: small but for people at arm's length.
        assert error.median() < 0.05 and error.mean() < 0.1
        # The detected joints are in the same turned axes as the truth.
        detected, confidence = keypoints_in_features(some.features.numpy())
        distance = np.linalg.norm(detected - some.keypoints_xy.numpy(), axis=-1)[confidence > 0]
        assert np.median(distance) < 0.06


def test_too_few_people_for_a_batch_are_refused(people, tmp_path):
    with pytest.raises(ValueError, match="lower --batch"):
        training.train(training.LifterConfig(data=(people / "val",), val=(people / "val",), out=tmp_path, batch=5000))


@pytest.mark.parametrize("name", ["epochs", "reliability_epochs", "members", "batch", "width", "blocks", "lr"])
def test_numbers_that_make_no_sense_are_refused_before_anything_is_read(name, tmp_path):
    with pytest.raises(ValueError, match=f"{name} is 0"):
        training.train(training.LifterConfig(data=(tmp_path,), val=(tmp_path,), out=tmp_path, **{name: 0}))
    (tmp_path / "lifter.safetensors").write_bytes(b"hours of work")
    with pytest.raises(FileExistsError, match="another --out"):
        training.train(training.LifterConfig(data=(tmp_path,), val=(tmp_path,), out=tmp_path))
    with pytest.raises(ValueError, match="name folders"):
        training.train(training.LifterConfig(data=(), val=(tmp_path,), out=tmp_path / "new"))
    with pytest.raises(ValueError, match="image_features is 4"):
        training.train(training.LifterConfig(data=(tmp_path,), val=(tmp_path,), out=tmp_path / "new", image_features=4))


def test_overstated_shapes_are_shrunk_to_what_they_are_worth():
    torch.manual_seed(0)
    lifter, features = Lifter(width=16, blocks=1, members=2, image_features=1).eval(), torch.randn(200, FEATURE_COUNT)
    for member in lifter.members:
        torch.nn.init.normal_(member.head.weight)
    maps = torch.randn(200, *FEATURE_MAP).half()
    before = lifter(features, maps.float())
    worth = torch.linspace(-0.5, 0.9, 10)
    unused = torch.zeros(200, 1)
    tasks.shrink_betas(lifter, samples.Samples(maps, torch.arange(200), features, unused, worth * before.betas, unused, unused, unused))
    after = lifter(features, maps.float())
    assert torch.allclose(after.betas, worth.clamp_min(0) * before.betas, atol=1e-4)  # what is worth less than nothing goes
    assert torch.equal(after.rotations, before.rotations) and torch.equal(after.weak_camera, before.weak_camera)


def test_error_measures_against_numbers_by_hand():
    gt = np.zeros((1, 4, 3))
    gt[0, :3] = np.eye(3)
    assert mpjpe(gt + [0, 0.003, 0.004], gt) == pytest.approx([5.0])
    assert pa_mpjpe(2 * gt + 1, gt) == pytest.approx([0.0], abs=1e-9)
    mirrored = gt * [-1, 1, 1] + np.random.default_rng(0).normal(0, 0.2, gt.shape)
    assert pa_mpjpe(mirrored, gt)[0] <= mpjpe(mirrored, gt)[0]
    with pytest.raises(ValueError, match=r"\(N, J, 3\)"):
        mpjpe(gt[0], gt[0])
