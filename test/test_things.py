"""Held and standing things: in the hands, on the floor, in front of people; and a robot's cameras among people on one floor."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hmr_ros.geometry import pinhole, project_pinhole
from hmr_ros.training.data.rendered import dataset as rendered
from hmr_ros.training.data.rendered import scene, things
from hmr_ros.training.data.rendered.appearance import SHOE
from hmr_ros.training.data.rendered.gl import make_context
from hmr_ros.training.data.rendered.new_cameras import PRESETS
from hmr_ros.training.data.rendered.robot_cameras import RobotCameras
from hmr_ros.training.data.rendered.scene import FACING, SceneConfig, SceneMaker
from hmr_ros.training.data.rendered.things import CLEAR, LARGEST_COVER, Hands, box, cushion, cylinder, stand_before

UP = np.array([0.0, -1.0, 0.0])  # of a level camera
SIZE = (480, 640)


@pytest.fixture(scope="module")
def maker():
    return SceneMaker("train")


def posed(maker, z=3.0, **joints):
    """Body (V, 3) and joints (24, 3) before a level camera, facing it; ``joints`` are SMPL's numbers as j16=(x, y, z)."""
    pose = np.zeros((24, 3))
    pose[0] = Rotation.from_matrix(FACING).as_rotvec()
    for name, vector in joints.items():
        pose[int(name[1:])] = vector
    vertices, points, _ = maker.forward(pose, np.zeros(10))
    return vertices + [0, 0.2, z], points + [0, 0.2, z]


def volume(shape):
    a, b, c = (shape.vertices[shape.faces[:, i]] for i in range(3))
    return abs((a * np.cross(b, c)).sum() / 6)


def test_shapes_are_closed_and_as_large_as_asked():
    np.testing.assert_allclose(volume(cylinder(0.1, 0.5, sides=400)), np.pi * 0.01 * 0.5, rtol=1e-3)
    np.testing.assert_allclose(np.ptp(box(0.2, 0.3, 0.4).vertices, axis=0), (0.2, 0.3, 0.4))
    np.testing.assert_allclose(volume(box(0.2, 0.3, 0.4)), 0.024)
    assert 0.5 * 0.024 < volume(cushion(0.2, 0.3, 0.4, 1.0)) < volume(cushion(0.2, 0.3, 0.4, 0.3)) < 0.024


def test_things_are_held_in_hands_and_hang_down(maker):
    hands = Hands(maker.dresser)
    vertices, joints = posed(maker, j16=(0, 0, -1.2), j17=(0, 0, 1.2))  # arms hang
    in_hand = hanging = 0
    for seed in range(200):
        for thing in hands.hold(np.random.default_rng(seed), vertices.astype(np.float32), UP):
            points = thing.mesh.vertices
            to_hand = min(np.linalg.norm(points - joints[hand], axis=1).min() for hand in (22, 23))
            if np.ptp(points, axis=0).max() < 0.3 and to_hand < 0.15:
                in_hand += 1
            elif (points @ UP).max() < joints[22] @ UP + 0.1:  # a bag: all of it below the hand, above the floor
                hanging += to_hand < 0.12 and (points @ UP).min() > (vertices @ UP).min()
            else:  # a backpack
                assert points[:, 2].mean() > vertices[:, 2].mean() + 0.1
    assert in_hand > 10 and hanging > 10


def test_a_box_is_carried_between_both_hands(maker):
    hands = Hands(maker.dresser)
    vertices, joints = posed(maker, j16=(0, -1.2, -0.7), j17=(0, 1.2, 0.7), j18=(0, -0.5, 0), j19=(0, 0.5, 0))  # before the belly
    held = [thing for seed in range(150) for thing in hands.hold(np.random.default_rng(seed), vertices.astype(np.float32), UP)]
    carried = [thing for thing in held if len(thing.mesh.faces) == 12 and np.ptp(thing.mesh.rest, axis=0).min() > 0.05]  # no phone
    assert len(carried) > 3
    apart = np.linalg.norm(joints[22] - joints[23])
    for thing in carried:
        assert np.ptp(thing.mesh.vertices[:, 0]) < apart + 0.1
        assert np.linalg.norm(thing.mesh.vertices.mean(0) - (joints[22] + joints[23]) / 2) < 0.12


def test_furniture_stands_on_the_floor_between_camera_and_person(maker):
    vertices, _ = posed(maker)
    floor, intrinsics, found = (vertices @ UP).min(), pinhole(640, 480, 60), 0
    body = project_pinhole(vertices, intrinsics)
    for seed in range(60):
        thing = stand_before(np.random.default_rng(seed), vertices, UP, intrinsics)
        if thing is None:
            continue
        found += 1
        points = thing.mesh.vertices
        np.testing.assert_allclose((points @ UP).min(), floor, atol=1e-4)
        assert 0 < points[:, 2].mean() < vertices[:, 2].mean() - CLEAR
        pixels = project_pinhole(points, intrinsics)
        covered = np.minimum(body.max(0), pixels.max(0)) - np.maximum(body.min(0), pixels.min(0))
        assert (covered > 0).all() and covered.prod() < LARGEST_COVER * np.ptp(body, axis=0).prod()
    assert found > 30
    lying = vertices + [0, -1.5, 0]  # the camera is below the floor: nothing can stand before it
    assert stand_before(np.random.default_rng(0), lying, UP, intrinsics) is None


def test_people_before_a_robot_stand_on_one_floor_and_are_in_sight():
    maker, heights, several, cut = SceneMaker("train", cameras="robot"), [], 0, 0
    maker.draw = lambda rng, size, intrinsics, camera, placed: ((size, intrinsics, camera), placed, [])
    for i in range(40):
        (size, intrinsics, camera), placed = (made := rendered.picture(maker, 1, "train", i)).image, made.depth
        floors = [-(person.vertices @ (camera @ UP)).min() for person in placed]
        np.testing.assert_allclose(floors, floors[0], atol=1e-4) if floors else None
        heights += floors[:1]
        several += len(placed) > 1
        for person in placed:
            inside = ((person.truth.keypoints >= 0) & (person.truth.keypoints < size[::-1])).all(1)
            assert inside.sum() >= 6
            cut += person.truth.cut
    low, high = RobotCameras().height
    assert len(heights) > 30 and low <= min(heights) < 0.7 and 1.5 < max(heights) <= high and several > 5 and cut > 5


def test_a_robots_cameras_leave_out_the_mounted_ones():
    """Training shall not know the recordings' cameras."""
    known = RobotCameras()
    for preset in PRESETS.values():
        inside = [low <= value <= high for (low, high), value in ((known.height, preset.height), (known.field_of_view, preset.field_of_view))]
        assert not all(inside)


def test_who_stands_behind_a_thing_is_hidden_by_it(monkeypatch):
    try:
        make_context().release()
    except RuntimeError as error:
        pytest.skip(str(error))
    maker = SceneMaker("train", config=SceneConfig(occluded=1.0), renderer="gl", without=frozenset({"held"}))
    intrinsics, wall = pinhole(640, 480, 60), box(4.0, 4.0, 0.1)
    thing = things._thing(wall, np.eye(3), np.array([0, 0, 1.0]), SHOE, np.array([20.0, 200, 20]), np.random.default_rng(0))
    monkeypatch.setattr(scene, "stand_before", lambda *_: thing)
    person = next(filter(None, (maker._place(np.random.default_rng(i), SIZE, intrinsics, np.eye(3), []) for i in range(9))))
    behind = free = 0
    for seed in range(5):
        _, depth, [truth] = maker.draw(np.random.default_rng(seed), SIZE, intrinsics, np.eye(3), [person])
        if truth.visible_fraction == 0:  # the wall was drawn
            behind += 1
            assert truth.occluded and not truth.visible.any()
            assert 0.9 < np.median(depth[depth > 0]) < 1.0
        else:
            free += truth.visible.sum() >= 5
    assert behind >= 1 and free >= 1
