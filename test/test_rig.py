"""The poses of calibrated cameras for `hmr-ros adapt --rig`: as a file or as /tf_static says them."""

import json

import bag_files as bags
import numpy as np
import pytest
from rich.console import Console
from scipy.spatial.transform import Rotation

from hmr_ros.training.adaptation import adapt as adaptation
from hmr_ros.training.adaptation.rig import read_rig

TURN, PLACE = Rotation.from_euler("zyx", [40, -20, 10], degrees=True), np.array([-3.0, 2.2, 2.8])  # optical frame → world
OPTICAL = [-0.5, 0.5, -0.5, 0.5]  # of a camera's optical frame in its body's, x forward, z up (REP 103)
TF = "tf2_msgs/msg/TFMessage"


def written(path, *cameras):
    path.write_text(json.dumps({"cameras": cameras}))
    return path


def test_a_rig_is_read_as_it_is_written(tmp_path):
    turn, place = TURN.as_matrix(), PLACE
    matrix = np.block([[turn, place[:, None]], [np.zeros((1, 3)), np.ones((1, 1))]])
    rig = read_rig(written(
        tmp_path / "rig.json", {"name": "a", "translation": [0, 0, 0], "rotation": Rotation.from_matrix(turn).as_quat().tolist()},
        {"T_world_camera": matrix.tolist(), "clock": -0.25}, {"name": "c", "translation": [0, 1, 0], "rotation": turn.tolist(), "topic": "/c/image"},
    ), (tmp_path,) * 3)  # fmt: skip
    assert [mount.name for mount in rig] == ["a", "camera 1", "c"] and rig[1].clock == -0.25 and rig[2].topic == "/c/image"
    assert all(np.allclose(mount.rotation, turn) for mount in rig) and np.allclose(rig[1].position, place)
    assert np.allclose(rig[1].pose @ [*(place + turn @ [1, 2, 3]), 1], [1, 2, 3])  # a point before the camera


GOOD = {"translation": [0, 0, 0], "rotation": [0, 0, 0, 1]}


@pytest.mark.parametrize("other, words", [
    ({"translation": [0, 0, 0.01], "rotation": [0, 0, 0, 1]}, "camera 0 and camera 1 are 0.01 m apart, expected 0.05 to 200 m"),
    ({"translation": [0, 3200, 0], "rotation": [0, 0, 0, 1]}, "3.2e[+]03 m apart"), ({"translation": [0, 1, 0], "rotation": [[1, 0, 0], [0, 1, 0], [0, 0, -1]]}, "rotation of camera 1"),
    ({"translation": [0, 1, 0], "rotation": [[2, 0, 0], [0, 2, 0], [0, 0, 2]]}, "expected a quaternion"), ({"translation": [0, 1], "rotation": [0, 0, 0, 1]}, "translation of camera 1"),
    ({"translation": [0, 1, 0]}, "is no rig"), ({**GOOD, "focal": 3}, "focal"), ({"T_world_camera": [[1, 0], [0, 1]]}, "expected 4 rows of 4"),
])  # fmt: skip
def test_a_file_that_is_no_rig_is_refused_in_words(tmp_path, other, words):
    with pytest.raises(ValueError, match=words):
        read_rig(written(tmp_path / "rig.json", GOOD, other), (tmp_path,) * 2)


def test_a_rig_has_one_camera_a_recording(tmp_path):
    path = written(tmp_path / "rig.json", GOOD, {**GOOD, "translation": [1, 0, 0]})
    with pytest.raises(ValueError, match="rig.json has 2 cameras, expected one for each of the 3 recordings"):
        read_rig(path, (tmp_path,) * 3)
    with pytest.raises(ValueError, match="rig.json has 2 cameras, expected one for each of the 1 recordings"):
        adaptation.adapt(adaptation.AdaptConfig((tmp_path,), tmp_path / "out", rig=path), Console(quiet=True))
    with pytest.raises(ValueError, match="missing.json is no rig"):
        read_rig(tmp_path / "missing.json", (tmp_path,) * 2)


def test_the_cameras_of_a_rig_may_be_topics_of_one_bag(tmp_path):
    path = written(tmp_path / "rig.json", {**GOOD, "topic": "/left", "depth_topic": "/left/depth"}, {**GOOD, "translation": [1, 0, 0], "topic": "/right"})
    config = adaptation.AdaptConfig((tmp_path / "bag",) * 2, tmp_path / "out", topic="/other", depth_topic="/depth", rig=path)
    assert [(some.topic, some.depth_topic) for some in (adaptation._extraction(config, number) for number in (0, 1))] == [
        ("/left", "/left/depth"), ("/right", "/depth")]  # fmt: skip


# ---- poses from /tf_static --------------------------------------------------------------------------------------------


def filmed(folder, frames: dict[str, str], transforms, more=()):
    """A bag with an image of each frame_id on its topic, ``transforms`` (parent, child, rotation, translation) on /tf_static and, in a later message, ``more``."""
    types = bags.STORE.types
    with bags.Writer(folder, version=9, storage_plugin=bags.StoragePlugin.MCAP) as writer:
        for topic, frame in frames.items():
            image = bags.image(0, bags.START)
            image.header.frame_id = frame
            writer.write(writer.add_connection(topic, bags.IMAGE, typestore=bags.STORE), bags.START, bytes(bags.STORE.serialize_cdr(image, bags.IMAGE)))
        if transforms:
            connection = writer.add_connection("/tf_static", TF, typestore=bags.STORE)
            for time, some in enumerate((transforms, more)):
                tree = [types["geometry_msgs/msg/TransformStamped"](bags.header(bags.STORE, bags.START, parent), child, types["geometry_msgs/msg/Transform"](
                    types["geometry_msgs/msg/Vector3"](*map(float, place)), types["geometry_msgs/msg/Quaternion"](*map(float, turn)))
                ) for parent, child, turn, place in some]  # fmt: skip
                writer.write(connection, bags.START + time, bytes(bags.STORE.serialize_cdr(types[TF](tree), TF)))
    return folder


LEFT, RIGHT = ("base_link", "left", [0, 0, 0, 1], [0, 1, 1.5]), ("base_link", "right", [0, 0, 1, 0], [5, -1, 1.5])  # they face each other
EYES = [(name, f"{name}_optical", OPTICAL, [0, 0, 0]) for name in ("left", "right")]
TOPICS = {"/left/image": "left_optical", "/right/image": "right_optical"}


def test_cameras_without_poses_get_them_from_tf_static(tmp_path):
    bag = filmed(tmp_path / "bag", TOPICS, [LEFT, *EYES], [RIGHT])
    rig = read_rig(written(tmp_path / "rig.json", {"name": "left", "topic": "/left/image", "clock": 0.5}, {"topic": "/right/image"}), (bag, bag))
    assert [(mount.name, mount.clock, mount.topic) for mount in rig] == [("left", 0.5, "/left/image"), ("camera 1", 0, "/right/image")]
    ahead, right_of = np.array([0, 0, 2.0]), np.array([1.0, 0, 0])  # in an optical frame
    for mount, at, side in zip(rig, ([2, 1, 1.5], [3, -1, 1.5]), ([0, -1, 0], [0, 1, 0])):
        assert np.allclose(mount.rotation @ ahead + mount.position, at) and np.allclose(mount.rotation @ right_of, side)


def test_cameras_of_several_bags_hang_in_one_tree(tmp_path):
    recordings = [filmed(tmp_path / name, {"/image": "/" + name + "_optical"}, [mount, *EYES]) for name, mount in (("left", LEFT), ("right", RIGHT))]
    rig = read_rig(written(tmp_path / "rig.json", {}, {}), recordings)  # old bags have a slash before a frame
    assert np.allclose(rig[0].position, [0, 1, 1.5]) and np.allclose(rig[1].position, [5, -1, 1.5])


@pytest.mark.parametrize("transforms, words", [
    ([LEFT, *EYES], "/tf_static does not connect the cameras: camera 0 [(]left_optical[)] in base_link, camera 1 [(]right_optical[)] in right; expected one tree"),
    ([], "does not connect .* in left_optical, .* in right_optical"),
    ([LEFT, ("left", "base_link", [0, 0, 0, 1], [0, 0, 0]), RIGHT, *EYES], "goes round in a circle: left_optical → left → base_link → left, expected a tree"),
    ([LEFT, ("base_link", "right", [0, 0, 0, 0], [0, 0, 0]), *EYES], "the transform of right has rotation .*expected a unit quaternion"),
    ([LEFT, ("base_link", "right", [0, 0, 0, 1], [np.nan, 0, 0]), *EYES], "expected a unit quaternion, and finite numbers"),
    ([LEFT, ("base_link", "right", [0, 0, 0, 1], LEFT[3]), *EYES], "camera 0 and camera 1 are 0 m apart"),
])  # fmt: skip
def test_a_tree_that_does_not_tell_the_poses_is_refused_in_words(tmp_path, transforms, words):
    bag = filmed(tmp_path / "bag", TOPICS, transforms)
    with pytest.raises(ValueError, match=words):
        read_rig(written(tmp_path / "rig.json", {"topic": "/left/image"}, {"topic": "/right/image"}), (bag, bag))


def test_poses_come_from_the_file_or_from_bags(tmp_path):
    path = written(tmp_path / "rig.json", GOOD, {"name": "b"})
    with pytest.raises(ValueError, match="rig.json has no pose of b, expected the poses of all cameras in one world, or of none"):
        read_rig(path, (tmp_path,) * 2)
    with pytest.raises(ValueError, match="no pose of camera 0, and .*walk.mp4 is no bag with /tf_static"):
        read_rig(written(path, {}, {}), (tmp_path / "walk.mp4",) * 2)
    with pytest.raises(ValueError, match="is no rig .*focal"):
        read_rig(written(path, {}, {"focal": 3}), (tmp_path,) * 2)
