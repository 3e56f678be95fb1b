"""SMPL's pose as joint angles of ROS4HRI's human, against the URDF's own forward kinematics: every link points where the body's bone points."""

from functools import lru_cache

import numpy as np
import pytest
import torch
from human_urdf import JOINTS, LIMB, links
from scipy.spatial.transform import Rotation

from hmr_ros.body.model import BodyModel
from hmr_ros.estimate import BodyEstimate
from hmr_ros.ros.body_frame import body_orientation, body_position, bounding_box
from hmr_ros.ros.human_joints import HUMAN_JOINTS, human_joint_angles
from hmr_ros.skeleton import SMPL_JOINTS

BONES = {"shoulder": ("shoulder", "elbow"), "elbow": ("elbow", "wrist"), "hip": ("hip", "knee"), "knee": ("knee", "ankle")}  # link → bone
FACING = Rotation.from_rotvec([np.pi, 0, 0])  # upright before a camera that is held level, facing it


@lru_cache
def model():
    return BodyModel.load()


def posed(pose=None, facing=FACING, translation=(0.3, 0.1, 3.0)):
    """An estimate as the estimator makes it; ``pose``: joint → rotation vector in the body model's axes (y up, facing +z, left at +x)."""
    vectors = np.zeros((24, 3), np.float32)
    vectors[0] = facing.as_rotvec()
    for joint, vector in (pose or {}).items():
        vectors[SMPL_JOINTS.index(joint)] = vector
    with torch.no_grad():
        output = model()(torch.from_numpy(Rotation.from_rotvec(vectors).as_matrix().astype(np.float32))[None], torch.zeros(1, 10))
    empty = {name: np.zeros(shape, np.float32) for name, shape in {"box": 4, "keypoints": (17, 3), "reliability": 12, "betas": 10, "crop": 3,
                                                                    "weak_camera": 3, "projected_keypoints": (17, 2)}.items()}  # fmt: skip
    return BodyEstimate(score=0.5, global_orient=vectors[0], body_pose=vectors[1:].reshape(69), joints=output.joints[0].numpy(), axes="camera",
                        vertices=output.vertices[0].numpy(), translation=np.array(translation, np.float32), **empty)  # fmt: skip


def angles(body):
    return dict(zip(HUMAN_JOINTS, human_joint_angles(body), strict=True))


def bone(body, begin, end):
    """Unit direction in x forward, y left, z up: axes of the body, by their definition and not by the code's."""
    turn = Rotation.from_rotvec(body.global_orient).as_matrix()
    forward, left, up = turn[:, 2], turn[:, 0], turn[:, 1]
    points = body.joints[SMPL_JOINTS.index(end)] - body.joints[SMPL_JOINTS.index(begin)]
    direction = np.array([points @ forward, points @ left, points @ up])
    return direction / np.linalg.norm(direction)


def off(a, b):
    """Degrees between unit vectors."""
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b))


def test_the_joints_are_those_of_the_urdf_in_the_order_of_hri_fullbody():
    assert set(HUMAN_JOINTS) == set(JOINTS) and len(HUMAN_JOINTS) == 20


@pytest.mark.parametrize("seed", range(8))
def test_every_link_points_where_the_bone_points(seed):
    rng = np.random.default_rng(seed)
    free = [joint for joint in SMPL_JOINTS[1:] if "hand" not in joint]
    body = posed({joint: rng.normal(size=3) * 0.5 for joint in free}, Rotation.random(random_state=seed))
    urdf = links(angles(body))
    for side in ("left", "right"):
        for link, (begin, end) in BONES.items():
            truth = bone(body, f"{side}_{begin}", f"{side}_{end}")
            upper = {"elbow": "shoulder", "knee": "hip"}.get(link)
            bent = off(truth, bone(body, *(f"{side}_{name}" for name in BONES[upper]))) if upper else 90
            assert off(urdf[f"{side[0]}_{link}"] @ LIMB, truth) < (0.1 if bent > 21 else 21), (side, link)
    head = np.eye(3)
    for joint in ("spine1", "spine2", "spine3", "neck", "head"):
        head = head @ Rotation.from_rotvec(body.body_pose.reshape(23, 3)[SMPL_JOINTS.index(joint) - 1]).as_matrix()
    axes = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]])  # forward is +z, left +x, up +y
    np.testing.assert_allclose(urdf["head"], axes.T @ head @ axes, atol=1e-6)


def test_known_poses_have_the_angles_that_the_urdf_names():
    up = angles(posed())
    assert abs(up["waist"]) < 0.1 and abs(up["l_y_shoulder"]) < 0.3
    assert up["l_p_shoulder"] == pytest.approx(np.pi / 2, abs=0.2) and up["r_p_shoulder"] == pytest.approx(np.pi / 2, abs=0.2)  # arms spread
    for joint in ("l_elbow", "r_elbow", "l_knee", "r_knee"):
        assert abs(up[joint]) < 0.3
    seen = angles(posed({"head": [0, 0.5, 0]}))  # to the left
    assert seen["y_head"] == pytest.approx(0.5, abs=0.02) and seen["r_head"] == pytest.approx(0, abs=0.05)
    seen = angles(posed({"head": [-0.4, 0, 0]}))  # up: about -y in the URDF
    assert seen["p_head"] - up["p_head"] == pytest.approx(0.4, abs=0.02)
    seen = angles(posed({"left_knee": [1.2, 0, 0]}))
    assert seen["l_knee"] - up["l_knee"] == pytest.approx(-1.2, abs=0.05) and seen["r_knee"] == pytest.approx(up["r_knee"])
    seen = angles(posed({"right_elbow": [0, 1.2, 0], "left_elbow": [0, -1.2, 0]}))  # both forward
    assert seen["l_elbow"] == pytest.approx(1.2, abs=0.2) and seen["r_elbow"] == pytest.approx(1.2, abs=0.2)
    seen = angles(posed({"left_shoulder": [0, -np.pi / 2, 0]}))  # the arm points forward
    assert seen["l_y_shoulder"] == pytest.approx(np.pi / 2, abs=0.3) and seen["l_p_shoulder"] == pytest.approx(np.pi / 2, abs=0.2)
    seen = angles(posed({"left_hip": [-1.0, 0, 0]}))  # the thigh is raised
    assert seen["l_r_hip"] - up["l_r_hip"] == pytest.approx(1.0, abs=0.05)
    seen = angles(posed({"spine1": [0.3, 0, 0], "spine2": [0.3, 0, 0]}))
    assert 0.3 < seen["waist"] - up["waist"] < 0.6


def test_a_nearly_straight_elbow_bends_about_its_own_hinge():
    """The bones alone do not tell which way it will bend; SMPL's rotation does, and the angles grow without a jump."""
    bends = [0.0, 0.1, 0.2, 0.4, 0.8, 1.2]
    seen = [angles(posed({"right_elbow": [0, bend, 0], "left_elbow": [0, -bend, 0]})) for bend in bends]
    for side in "lr":
        elbow, turn = (np.array([one[f"{side}_{name}"] for one in seen]) for name in ("elbow", "r_shoulder"))
        np.testing.assert_allclose(elbow - elbow[0], bends, atol=0.1)
        assert np.ptp(turn) < 0.6


def test_angles_do_not_depend_on_where_the_body_faces_and_stay_finite_where_joints_are_singular():
    pose = {"left_shoulder": [0, 0, -np.pi / 2], "right_shoulder": [0, 0, np.pi / 2], "left_hip": [0, 0, np.pi / 2]}  # hanging arms, a split
    expected = human_joint_angles(posed(pose))
    assert np.isfinite(expected).all()
    turned = posed(pose, Rotation.from_euler("yx", [70, 30], degrees=True) * FACING)
    directions = [links(dict(zip(HUMAN_JOINTS, a)))["l_shoulder"] @ LIMB for a in (expected, human_joint_angles(turned))]
    np.testing.assert_allclose(*directions, atol=1e-4)
    nothing = posed()
    nothing.joints[:] = 0
    assert np.isfinite(human_joint_angles(nothing)).all()


def test_the_frame_of_a_body_is_between_the_hips_with_x_forward_y_left_and_z_up():
    body = posed(facing=FACING)  # faces the camera: forward is -z, up is -y, and the left hand is at +x
    np.testing.assert_allclose(body_orientation(body), [[0, 1, 0], [0, 0, -1], [-1, 0, 0]], atol=1e-6)
    hips = body.joints[[SMPL_JOINTS.index("left_hip"), SMPL_JOINTS.index("right_hip")]] + body.translation
    np.testing.assert_allclose(body_position(body), hips.mean(0), atol=1e-6)


def test_the_box_of_a_turned_body_fits_it_tightly():
    plain, turned = posed(), posed(facing=Rotation.from_euler("z", 40, degrees=True) * FACING)
    (_, size), (centre, same) = bounding_box(plain), bounding_box(turned)
    np.testing.assert_allclose(size, same, atol=1e-5)
    assert 1.5 < size[2] < 2.1 and size[1] > 1.3 > 0.6 > size[0]  # tall, arms spread, flat
    local = (turned.vertices + turned.translation - centre) @ body_orientation(turned)
    np.testing.assert_allclose(np.abs(local).max(0), size / 2, atol=1e-5)
