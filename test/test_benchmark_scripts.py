"""The scripts in benchmarks/ that take the estimator's steps apart still read what these give: they run too rarely to tell by themselves."""

import importlib.util
import sys
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from hmr_ros import HumanMeshEstimator
from hmr_ros.camera import Camera
from hmr_ros.geometry import matrix_from_rotvec, pinhole
from hmr_ros.skeleton import LIMB_KEYPOINTS
from hmr_ros.training.metrics import LIMB_HIPS, pa_mpjpe, root_aligned

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
LIMBS = list(LIMB_KEYPOINTS)


def script(name: str):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def estimator():
    return HumanMeshEstimator.from_default()


@pytest.fixture(scope="module")
def image():
    return cv2.imread(str(files("hmr_ros") / "assets" / "demo" / "astronaut.jpg"))


@pytest.fixture(scope="module")
def camera(image):
    return Camera(pinhole(image.shape[1], image.shape[0], 50.0))


def keypoints_of(estimator, rotations, betas) -> np.ndarray:
    """(N, 17, 3) by the body model itself, in torch."""
    with torch.no_grad():
        return estimator.body_model(torch.as_tensor(rotations), torch.as_tensor(betas)).keypoints.numpy()


def test_joints_of_a_published_body_are_read_as_the_body_model_poses_them(estimator, image, camera):
    body = estimator(image, intrinsics=camera)[0]
    rotations = matrix_from_rotvec(np.concatenate([body.global_orient, body.body_pose]).reshape(1, 24, 3))
    (expected,) = keypoints_of(estimator, rotations, body.betas[None])
    np.testing.assert_allclose(script("metric_position").keypoints(estimator, body), expected, atol=1e-5)
    judged = script("judgement").judged(estimator, body, expected[LIMBS])
    np.testing.assert_allclose(judged.predicted, judged.truth, atol=1e-5)


def test_unrefined_bodies_are_placed_before_the_camera(estimator, image, camera):
    people = estimator.extractor(image)
    rows, unrefined = estimator.regress(people)
    people = [people[row] for row in rows]
    placed = script("calibrated_clip").placed(estimator, people, unrefined, [camera] * len(people))
    expected = keypoints_of(estimator, unrefined.rotations, unrefined.betas)[:, LIMBS]
    assert placed[:, :, 2].min() > 0.3
    assert pa_mpjpe(root_aligned(placed, LIMB_HIPS), root_aligned(expected, LIMB_HIPS)).max() < 0.05  # mm
