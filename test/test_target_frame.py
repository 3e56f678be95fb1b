"""Bodies in the frame of a robot that moves, against a world in which everything is known."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("rclpy")
from scipy.spatial.transform import Rotation  # noqa: E402
from std_msgs.msg import Header  # noqa: E402
from test_messages import body, followed, over_the_wire  # noqa: E402

from hmr_ros.estimate import Bodies  # noqa: E402
from hmr_ros.ros import messages, views  # noqa: E402
from hmr_ros.ros.target_frame import TargetFrame, in_frame  # noqa: E402

TURN = Rotation.from_euler("zyx", [100, 20, -50], degrees=True)
PLACE = np.array([120.0, -40.0, 1.2])
TRANSFORM = TURN.as_matrix(), PLACE


def test_every_number_of_a_body_is_turned_and_what_is_in_pixels_is_not():
    person = followed(3, "a1b2c")
    moved = in_frame(person, TRANSFORM, TRANSFORM, 0.1)
    points = lambda one, offsets: offsets + one.translation  # noqa: E731
    for name in ("joints", "vertices"):
        expected = TURN.apply(points(person, getattr(person, name)).astype(float)) + PLACE
        np.testing.assert_allclose(points(moved, getattr(moved, name)), expected, atol=2e-6)
    np.testing.assert_allclose(moved.translation, TURN.apply(person.translation) + PLACE, atol=1e-6)
    for step in np.eye(3):  # as many standard deviations away as before
        before, after = step @ np.linalg.solve(person.position_covariance, step), TURN.apply(step)
        assert after @ np.linalg.solve(moved.position_covariance, after) == pytest.approx(before)
    turned = TURN * Rotation.from_rotvec(person.global_orient)
    assert (Rotation.from_rotvec(moved.global_orient).inv() * turned).magnitude() < 1e-5 and np.linalg.norm(moved.global_orient) <= np.pi + 1e-6
    np.testing.assert_allclose(moved.velocity, TURN.apply(person.velocity), atol=1e-5)  # the camera stands still
    np.testing.assert_allclose(moved.joint_velocities, TURN.apply(person.joint_velocities), atol=1e-5)
    for name in ("box", "keypoints", "projected_keypoints", "crop", "weak_camera", "body_pose", "betas", "reliability"):
        assert getattr(moved, name) is getattr(person, name)
    assert (moved.axes, moved.camera, moved.id, moved.translation_source) == ("target", None, "a1b2c", person.translation_source)


def test_velocities_are_those_in_the_world_though_the_camera_moves_and_turns():
    """A person walks at a constant velocity, the camera drives and turns: positions in the camera's frame follow from that, to the last digit."""
    walk, drive, spin, passed = np.array([0.8, -0.3, 0.0]), np.array([1.0, 0.2, 0.0]), np.array([0.0, 0.0, 0.6]), 1 / 30

    def camera(t):
        return (Rotation.from_rotvec(spin * t) * TURN), PLACE + drive * t

    def seen(t):
        turn, place = camera(t)
        return turn.inv().apply(np.array([124.0, -38.0, 0.9]) + walk * t - place)

    relative = (seen(passed) - seen(0)) / passed
    rest = body(0)
    person = dataclasses.replace(rest, translation=seen(passed), velocity=relative, joints=np.zeros((24, 3), np.float32),
                                 joint_velocities=np.tile(relative, (24, 1)))  # fmt: skip
    turn, place = camera(passed)
    before = camera(0)
    moved = in_frame(person, (turn.as_matrix(), place), (before[0].as_matrix(), before[1]), passed)
    assert np.linalg.norm(relative) > 1.5  # nothing like the walk
    np.testing.assert_allclose(moved.velocity, walk, atol=1e-4)
    np.testing.assert_allclose(moved.joint_velocities, np.tile(walk, (24, 1)), atol=1e-4)
    assert in_frame(person, (turn.as_matrix(), place)).velocity is None


def target(transforms):
    """With what tf2 would know: (target, source, stamp) → transform, or words."""

    def lookup(name, source, stamp):
        found = transforms.get((name, source, stamp), "no such transform")
        if isinstance(found, str):
            raise ValueError(found)
        return found

    return TargetFrame("odom", lookup)


def people(*seeds):
    return Bodies([followed(seed, f"id{seed}ab") for seed in seeds], too_few_joints=1, mesh_misses=2)


def test_nobody_stands_in_a_wrong_frame():
    frame = target({("odom", "eye", 10): TRANSFORM, ("odom", "eye", 20): "extrapolation into the future"})
    moved = frame(people(0, 1), "eye", 10)
    assert [one.id for one in moved] == ["id0ab", "id1ab"] and moved.detected == 5 and frame.problem == ""
    for frame_id, stamp, words in (("eye", 20, "eye in target_frame odom at its stamp: extrapolation"), ("", 10, "has no frame_id"), ("eye", 0, "has no stamp")):
        nobody = frame(people(0, 1), frame_id, stamp)
        assert list(nobody) == [] and nobody.detected == 5 and words in frame.problem
    assert len(frame(people(0), "eye", 10)) == 1 and frame.problem == ""


@pytest.mark.parametrize("then, now, frame_id, known", [(1_000, 33_001_000, "eye", True), (1_000, 600_001_000, "eye", False), (33_001_000, 1_000, "eye", False),
                                                        (1_000, 33_001_000, "other", False)])  # fmt: skip
def test_velocities_need_the_transform_of_the_image_before(then, now, frame_id, known):
    frame = target({("odom", name, stamp): TRANSFORM for name in ("eye", "other") for stamp in (then, now)})
    assert frame(people(0), frame_id if known else "eye", then)[0].velocity is None
    (moved,) = frame(people(0), frame_id, now)
    assert (moved.velocity is not None) is known and (moved.joint_velocities is not None) is known


def test_the_message_says_in_which_axes_its_bodies_stand():
    moved = in_frame(followed(0, "a1b2c"), TRANSFORM)
    message = over_the_wire(messages.body_array_message([moved], Header(frame_id="odom"), "learned", axes="target"))
    assert (message.axes, message.header.frame_id, message.bodies[0].has_velocity) == ("target", "odom", False)
    (received,) = messages.bodies_from_message(message)
    np.testing.assert_allclose(received.translation, moved.translation, rtol=1e-6)
    with pytest.raises(ValueError, match="camera"):
        received.pixels(received.joints)


def test_an_id_stands_above_the_head_where_z_is_up():
    moved = in_frame(followed(0, "a1b2c"), TRANSFORM)
    text = next(m for m in views.SkeletonMarkers()(Header(frame_id="odom"), [moved]).markers if m.ns == views.TEXT)
    head = moved.joints[15] + moved.translation
    assert text.pose.position.z > head[2] + 0.1 and text.text == "a1b2c"
