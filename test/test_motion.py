"""Recorded bodies in other tools' files: the joints that an independent forward kinematics finds there are the recorded ones."""

import re
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="rosbags is not installed")
pytest.importorskip("rclpy")
from body_recordings import HEIGHT, INTRINSICS, RATE, START, WIDTH, posed, without_mesh, write_bodies  # noqa: E402

from hmr_ros import cli  # noqa: E402
from hmr_ros.body.model import BodyModel  # noqa: E402
from hmr_ros.io.body_bags import BodyBag  # noqa: E402
from hmr_ros.motion.animation import animation_of  # noqa: E402
from hmr_ros.motion.motion import NUMBERS, load_motion, motion_of  # noqa: E402
from hmr_ros.skeleton import SMPL_JOINTS, SMPL_PARENTS  # noqa: E402
from hmr_ros.viewer.shots import shots_of  # noqa: E402

TO_Y_UP = np.diag([1.0, -1.0, -1.0])


@pytest.fixture(scope="module")
def model():
    return BodyModel.load(None)


@pytest.fixture(scope="module")
def people(model):
    return {"a1b2c": posed(model, 1), "d3e4f": posed(model, 2, identity="d3e4f", place=(-0.5, 0.2, 4.0))}


@pytest.fixture(scope="module")
def bag(model, people, tmp_path_factory):
    return write_bodies(tmp_path_factory.mktemp("recording") / "bag", model, people.values())


def in_camera(bodies):
    """(T, 24, 3) joints in the camera frame."""
    return np.array([body.joints + body.translation for body in bodies], np.float64)


# ---- an independent reader of BVH, by its published grammar ----------------------------------------------------------


def read_bvh(text):
    """Names, parents, offsets, channels (joint, kind) in order, frames (T, channels), seconds a frame."""
    head, motion = text.split("MOTION")
    names, parents, offsets, channels, stack = [], [], [], [], []
    in_end = False
    for line in head.splitlines():
        words = line.split()
        if not words or words[0] == "HIERARCHY":
            continue
        if words[0] in ("ROOT", "JOINT"):
            parents.append(stack[-1] if stack else -1)
            names.append(words[1])
        elif words[0] == "End":
            in_end = True
        elif words[0] == "{":
            stack.append(len(names) - 1)
        elif words[0] == "}":
            stack.pop()
            in_end = False
        elif words[0] == "OFFSET" and not in_end:
            offsets.append([float(word) for word in words[1:]])
        elif words[0] == "CHANNELS":
            assert int(words[1]) == len(words) - 2
            channels += [(len(names) - 1, word) for word in words[2:]]
    lines = motion.strip().splitlines()
    count, seconds = int(lines[0].split(":")[1]), float(lines[1].split(":")[1])
    frames = np.array([[float(word) for word in line.split()] for line in lines[2:]])
    assert not stack and frames.shape == (count, len(channels))
    return names, parents, np.array(offsets), channels, frames, seconds


def axis_rotation(axis, degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    i, j = {"X": (1, 2), "Y": (2, 0), "Z": (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = -s, s
    return matrix


def joints_of_bvh(text):
    """Positions (T, J, 3) in file units by joint name, and seconds a frame: channels applied one after the other, left to right."""
    names, parents, offsets, channels, frames, seconds = read_bvh(text)
    positions = np.zeros((len(frames), len(names), 3))
    for t, values in enumerate(frames):
        world = [None] * len(names)
        for joint, parent in enumerate(parents):
            matrix, place = np.eye(3), offsets[joint].copy()
            for (owner, kind), value in zip(channels, values):
                if owner != joint:
                    continue
                if kind.endswith("position"):
                    place["XYZ".index(kind[0])] += value
                else:
                    matrix = matrix @ axis_rotation(kind[0], value)
            if parent < 0:
                positions[t, joint], world[joint] = place, matrix
            else:
                positions[t, joint] = positions[t, parent] + world[parent] @ place
                world[joint] = world[parent] @ matrix
    return {name: positions[:, i] for i, name in enumerate(names)}, seconds


# ---- the files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plugin", ["mcap", "sqlite3"])
def test_npz_holds_what_was_recorded(tmp_path, model, people, plugin):
    bag = write_bodies(tmp_path / "bag", model, people.values(), plugin, vertices=True)
    assert cli.main(["bodies", str(bag), "--out", str(tmp_path / "walk.npz")]) == 0
    with np.load(tmp_path / "walk.npz", allow_pickle=False) as file:
        for identity, bodies in people.items():
            chosen = file["id"] == identity
            for name in NUMBERS:
                np.testing.assert_array_equal(file[name][chosen], np.array([getattr(b, name) for b in bodies], np.float32), err_msg=name)
            np.testing.assert_allclose(file["time"][chosen], START + np.arange(12) / RATE, atol=1e-6)
            assert file["frame"][chosen].tolist() == list(range(12))
        assert (str(file["body_model"]), str(file["body_model_sha256"])) == (model.name, model.sha256)
        np.testing.assert_allclose(file["camera"], [*INTRINSICS, WIDTH, HEIGHT])
        assert file["joint_names"].tolist() == list(SMPL_JOINTS) and file["parents"].tolist() == list(SMPL_PARENTS)


def test_a_recording_comes_back_from_its_npz(tmp_path, people):
    frames = [(i, START + i / RATE, [without_mesh(b) for b in bodies]) for i, bodies in enumerate(zip(*people.values()))]
    frames.insert(3, (12, START + 0.5, []))
    motion_of(frames, "a body", "ab" * 32, "agreement").save(tmp_path / "x.npz")
    motion = load_motion(tmp_path / "x.npz")
    assert motion.ids == ["a1b2c", "d3e4f"] and motion.rate == pytest.approx(RATE, rel=1e-5) and motion.camera is None
    assert (motion.body_model, motion.sha256, motion.reliability_source) == ("a body", "ab" * 32, "agreement")
    assert [body.id for body in motion.at(5)] == motion.ids and not motion.at(12)
    np.testing.assert_array_equal(motion.at(5)[1].joints, people["d3e4f"][5].joints)
    assert motion.at(5)[1].translation_source == "depth" and motion.at(5)[1].axes == "camera"


def test_joints_of_the_bvh_are_the_recorded_ones(bag, tmp_path, people):
    assert cli.main(["bodies", str(bag), "--out", str(tmp_path / "walk.bvh")]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["walk.a1b2c.bvh", "walk.d3e4f.bvh"]
    for identity, bodies in people.items():
        joints, seconds = joints_of_bvh((tmp_path / f"walk.{identity}.bvh").read_text())
        assert seconds == pytest.approx(1 / RATE, rel=1e-5) and set(joints) == set(SMPL_JOINTS)
        truth = in_camera(bodies) @ TO_Y_UP.T
        for i, name in enumerate(SMPL_JOINTS):
            np.testing.assert_allclose(joints[name] / 100, truth[:, i], atol=2e-5, err_msg=name)  # 0.02 mm: six decimals and float32
    assert joints["head"][0, 1] > joints["left_ankle"][0, 1]  # y is up


@pytest.mark.parametrize("up, axes", [("y", TO_Y_UP), ("z", np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]]))])
def test_joints_of_the_amass_file_are_the_recorded_ones(bag, tmp_path, model, people, up, axes):
    """By smplx's own function, from AMASS' arrays: an SMPL+H body has SMPL's joints up to the wrists."""
    import torch
    from smplx.lbs import batch_rigid_transform, blend_shapes, vertices2joints
    from scipy.spatial.transform import Rotation

    assert cli.main(["bodies", str(bag), "--person", "d3e4f", "--out", str(tmp_path / "walk_amass.npz"), "--up", up]) == 0
    with np.load(tmp_path / "walk_amass.npz", allow_pickle=False) as file:
        poses, trans, betas = file["poses"], file["trans"], file["betas"]
        assert poses.shape == (12, 156) and trans.shape == (12, 3) and betas.shape == (16,) and not poses[:, 66:].any()
        assert float(file["mocap_framerate"]) == pytest.approx(RATE, rel=1e-5) and str(file["gender"]) == "neutral"
    shape = torch.from_numpy(betas[None, :10]).float()
    rest = vertices2joints(model.smpl.J_regressor, model.smpl.v_template + blend_shapes(shape, model.smpl.shapedirs))
    matrices = Rotation.from_rotvec(poses[:, :66].reshape(-1, 3)).as_matrix().reshape(12, 22, 3, 3)
    parents = torch.tensor(SMPL_PARENTS[:22])
    joints, _ = batch_rigid_transform(torch.from_numpy(matrices).float(), rest[:, :22].expand(12, -1, -1), parents)
    truth = in_camera(people["d3e4f"])[:, :22] @ axes.T
    np.testing.assert_allclose(joints.numpy() + trans[:, None], truth, atol=1e-4)
    up_axis = "xyz".index(up)
    assert truth[0, SMPL_JOINTS.index("head"), up_axis] > truth[0, SMPL_JOINTS.index("left_ankle"), up_axis]


def test_what_is_filled_in_is_said(tmp_path, people, capsys):
    bodies = [without_mesh(b) for b in people["a1b2c"]]
    frames = [(i, START + i / RATE, [b] if i not in (4, 5) else []) for i, b in enumerate(bodies)]
    motion_of(frames, "SMPL neutral", "", "learned").save(tmp_path / "x.npz")
    assert cli.main(["bodies", str(tmp_path / "x.npz"), "--out", str(tmp_path / "x.bvh")]) == 0
    assert "12 poses, 20 a second; 1 pauses filled in between, the longest 0.1 s" in capsys.readouterr().out
    joints, _ = joints_of_bvh((tmp_path / "x.bvh").read_text())
    truth = in_camera(bodies) @ TO_Y_UP.T
    np.testing.assert_allclose(joints["pelvis"][4] / 100, truth[3, 0] + (truth[6, 0] - truth[3, 0]) / 3, atol=1e-4)
    np.testing.assert_allclose(joints["left_wrist"][6] / 100, truth[6, SMPL_JOINTS.index("left_wrist")], atol=2e-5)


def test_several_people_without_ids_are_refused(tmp_path, model, people, capsys):
    from dataclasses import replace

    nameless = [[replace(body, id="") for body in bodies] for bodies in people.values()]
    bag = write_bodies(tmp_path / "bag", model, nameless)
    assert cli.main(["bodies", str(bag), "--out", str(tmp_path / "x.bvh")]) == 2
    assert "several bodies with one stamp" in capsys.readouterr().err


def test_stamps_of_two_clocks_are_refused(tmp_path, people, capsys):
    bodies = [without_mesh(b) for b in people["a1b2c"]]
    frames = [(i, (i > 6) * START + i / RATE, [b]) for i, b in enumerate(bodies)]
    motion_of(frames, "a body", "", "learned").save(tmp_path / "x.npz")
    assert cli.main(["bodies", str(tmp_path / "x.npz"), "--out", str(tmp_path / "x.bvh")]) == 2
    assert "the stamps jump" in capsys.readouterr().err


def test_people_are_listed_without_out(bag, capsys):
    assert cli.main(["bodies", str(bag)]) == 0
    told = capsys.readouterr().out
    assert "a1b2c" in told and "d3e4f" in told and re.search(r"12 images, 20\.0 a second", told)


def test_a_bag_without_bodies_and_a_damaged_npz_are_refused_in_words(tmp_path, capsys):
    from bag_files import write_bag

    write_bag(tmp_path / "bag")
    assert cli.main(["bodies", str(tmp_path / "bag"), "--out", str(tmp_path / "x.npz")]) == 2
    assert "topics of hmr_ros/msg/BodyArray: none" in capsys.readouterr().err
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 no archive")
    assert cli.main(["bodies", str(tmp_path / "x.npz")]) == 2
    assert "cannot be read as .npz" in capsys.readouterr().err
    np.savez(tmp_path / "y.npz", joints=np.zeros((3, 24, 3)))
    assert cli.main(["bodies", str(tmp_path / "y.npz")]) == 2
    assert "is no recording of bodies: score is missing" in capsys.readouterr().err


def test_a_message_that_cannot_be_read_is_skipped(tmp_path, model, people):
    from bag_files import STORE  # noqa: F401
    from rosbags.rosbag2 import Reader, Writer

    whole = write_bodies(tmp_path / "bag", model, people.values())
    with Reader(whole) as reader, Writer(tmp_path / "cut", version=9) as writer:
        connections = {c.id: writer.add_connection(c.topic, c.msgtype, msgdef=c.msgdef.data, rihs01=c.digest) for c in reader.connections}
        for number, (connection, time, raw) in enumerate(reader.messages()):
            writer.write(connections[connection.id], time, raw[:200] if number == 5 else raw)
    from hmr_ros.io.report import ReadReport

    report = ReadReport()
    with BodyBag(tmp_path / "cut") as cut:
        frames = list(cut.frames(report))
    assert len(frames) + len([s for s in report.skipped if "/bodies" in s]) == 12 and len(report.skipped) == 1


def test_bodies_in_odom_are_upright_as_they_are(people):
    """The same people, recorded with target_frame: z is up already."""
    from scipy.spatial.transform import Rotation

    turn, place = Rotation.from_matrix([[0, 0, 1], [-1, 0, 0], [0, -1, 0]]), np.array([10.0, -4.0, 1.2])  # a level camera that looks along odom's x
    moved = [replace(b, axes="target", camera=None, joints=turn.apply(b.joints).astype(np.float32), translation=turn.apply(b.translation) + place,
                     global_orient=(turn * Rotation.from_rotvec(b.global_orient)).as_rotvec().astype(np.float32))
             for b in map(without_mesh, people["a1b2c"])]  # fmt: skip
    motion = motion_of([(i, START + i / RATE, [b]) for i, b in enumerate(moved)], "embedded", "", "learned")
    truth = in_camera(moved)[:, 0]
    for up, expected in (("z", truth), ("y", truth[:, [0, 2, 1]] * [1, 1, -1])):
        animation = animation_of(motion, "a1b2c", up)
        np.testing.assert_allclose(animation.pelvis, expected, atol=1e-5)
        assert (animation.rotations[:, 0, "xyz".index(up), 1] > 0.8).all() and not any("axes" in note for note in animation.notes)
    with pytest.raises(ValueError, match="expected the same ones all the time"):
        mixed = [(i, START + i / RATE, [without_mesh(b) if i else moved[0]]) for i, b in enumerate(people["a1b2c"])]
        animation_of(motion_of(mixed, "embedded", "", "learned"), "a1b2c")
    with pytest.raises(ValueError, match="target_frame"):
        shots_of(motion)
