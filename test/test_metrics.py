"""Alignment at the root, in numpy and torch, in every joint order that the benchmarks use."""

import numpy as np
import pytest
import torch

from hmr_ros.skeleton import COCO_KEYPOINTS, LIMB_NAMES, SMPL_JOINTS
from hmr_ros.training.data.readers.records import H36M_TO_J14
from hmr_ros.training.metrics import COCO_HIPS, J14_HIPS, LIMB_HIPS, SMPL_PELVIS, mpjpe, root, root_aligned

H36M_HIPS = {1, 4}  # right and left, of Human3.6M's 17 joints


def test_the_roots_are_hips_and_pelvis():
    assert [COCO_KEYPOINTS[i] for i in COCO_HIPS] == [LIMB_NAMES[i] for i in LIMB_HIPS] == ["left_hip", "right_hip"]
    assert [SMPL_JOINTS[i] for i in SMPL_PELVIS] == ["pelvis"]
    assert {H36M_TO_J14[i] for i in J14_HIPS} == H36M_HIPS


@pytest.mark.parametrize("shape", [(17, 3), (5, 17, 3), (2, 5, 17, 3)])
@pytest.mark.parametrize("at", [COCO_HIPS, SMPL_PELVIS])
def test_the_root_moves_to_the_origin_and_nothing_is_turned_or_scaled(shape, at):
    joints = np.random.default_rng(0).normal(size=shape)
    aligned = root_aligned(joints, at)
    np.testing.assert_allclose(root(aligned, at), 0, atol=1e-12)
    np.testing.assert_allclose(np.diff(aligned, axis=-2), np.diff(joints, axis=-2), atol=1e-12)
    np.testing.assert_allclose(root_aligned(joints + [3.0, -2, 1], at), aligned, atol=1e-12)
    np.testing.assert_allclose(root_aligned(torch.from_numpy(joints), at).numpy(), aligned, atol=1e-12)


def test_a_shift_costs_nothing_after_alignment_and_its_length_before():
    truth = np.random.default_rng(0).normal(size=(3, 17, 3))
    moved = truth + [0.3, 0, 0.4]
    np.testing.assert_allclose(mpjpe(moved, truth), 500)
    np.testing.assert_allclose(mpjpe(root_aligned(moved, COCO_HIPS), root_aligned(truth, COCO_HIPS)), 0, atol=1e-9)


def test_gradients_reach_the_root():
    joints = torch.randn(2, 17, 3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda j: root_aligned(j, COCO_HIPS), joints)
