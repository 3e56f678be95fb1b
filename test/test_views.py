"""The light views against the estimates: bones and their colours, ids, points, JPEG; RViz's file shows them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
import yaml  # noqa: E402
from rclpy.serialization import deserialize_message, serialize_message  # noqa: E402
from std_msgs.msg import Header  # noqa: E402
from test_messages import body, header, over_the_wire  # noqa: E402
from visualization_msgs.msg import Marker  # noqa: E402

from hmr_ros.io.decode import compressed_image_from_message  # noqa: E402
from hmr_ros.palette import MIDDLE, RELIABILITY, joint_colours, person_number, reliability_colour  # noqa: E402
from hmr_ros.ros import views  # noqa: E402
from hmr_ros.ros.process import share_file  # noqa: E402
from hmr_ros.skeleton import LIMB_NAMES, SMPL_JOINTS, SMPL_PARENTS  # noqa: E402


def rgb(colour):
    return tuple(round(255 * part) for part in (colour.r, colour.g, colour.b))


def test_a_skeleton_has_every_bone_at_its_joints_in_the_colours_of_their_reliability():
    person = body(1)
    person.reliability[:] = np.linspace(0, 1, 12)
    bones = next(m for m in over_the_wire(views.SkeletonMarkers()(header(), [person])).markers if m.ns == views.BONES)
    assert (bones.type, bones.action, bones.header) == (Marker.LINE_LIST, Marker.ADD, header())
    joints = (person.joints + person.translation).astype(float)
    ends = np.array([(p.x, p.y, p.z) for p in bones.points]).reshape(-1, 2, 3)
    colours = np.reshape([rgb(colour) for colour in bones.colors], (-1, 2, 3))
    assert len(ends) == 23 and len(serialize_message(bones)) < 3_000  # a mesh has 980,000
    for joint, (points, pair) in enumerate(zip(ends, colours, strict=True), start=1):
        np.testing.assert_allclose(points, joints[[SMPL_PARENTS[joint], joint]], atol=1e-6)
        name = SMPL_JOINTS[joint]
        expected = reliability_colour(person.reliability[LIMB_NAMES.index(name)]) if name in LIMB_NAMES else MIDDLE
        assert tuple(pair[1]) == expected, name


def test_reliability_runs_from_vermilion_through_yellow_to_green():
    assert [reliability_colour(value) for value in (-1.0, 0.0, 0.5, 1.0, 2.0)] == [RELIABILITY[i] for i in (0, 0, 1, 2, 2)]
    assert len(joint_colours(np.zeros(12))) == 24


def test_who_is_gone_is_deleted_and_who_has_no_position_is_not_drawn():
    skeletons = views.SkeletonMarkers()
    first = skeletons(header(), [body(0), body(1)]).markers
    assert {(m.ns, m.id, m.action) for m in first} == {(ns, i, Marker.ADD) for ns in (views.BONES, views.TEXT) for i in (0, 1)}
    second = skeletons(header(), [body(0), body(1, translation=False)]).markers
    assert {(m.ns, m.id) for m in second if m.action == Marker.DELETE} == {(views.BONES, 1), (views.TEXT, 1)}
    assert len(second) == 4 and all(m.lifetime.sec for m in second if m.action == Marker.ADD)


def test_markers_follow_the_persons_id_and_are_held_for_a_moment():
    skeletons, ann = views.SkeletonMarkers(), replace(body(0), id="a1b2c")
    number = person_number("a1b2c", 0)
    markers = skeletons(header(sec=1), [body(1), ann]).markers
    assert {m.id for m in markers} == {0, number} and any(m.text.startswith("a1b2c ") for m in markers)
    assert {m.id for m in skeletons(header(sec=1), []).markers if m.action == Marker.DELETE} == {0}
    assert {m.id for m in skeletons(header(sec=2), []).markers if m.action == Marker.DELETE} == {number}


def test_the_text_stands_above_the_head():
    person = body(2)
    text = next(m for m in views.SkeletonMarkers()(header(), [person]).markers if m.type == Marker.TEXT_VIEW_FACING)
    head = person.joints[SMPL_JOINTS.index("head")] + person.translation
    assert text.text and text.scale.z > 0 and text.pose.position.y < head[1] - 0.1  # y is down


def test_points_are_the_vertices_of_everybody_in_the_camera_frame():
    people = [body(0), body(1, translation=False), body(2)]
    cloud = over_the_wire(views.points_message(people, header("eye")))
    assert (cloud.header.frame_id, cloud.height, cloud.width, cloud.row_step) == ("eye", 1, 100, 100 * cloud.point_step)
    points = np.frombuffer(cloud.data, np.dtype({  # as any reader does: by the message's own description
        "names": [f.name for f in cloud.fields], "formats": [{7: "<f4", 6: "<u4"}[f.datatype] for f in cloud.fields],
        "offsets": [f.offset for f in cloud.fields], "itemsize": cloud.point_step}))  # fmt: skip
    expected = np.concatenate([person.vertices + person.translation for person in (people[0], people[2])])
    np.testing.assert_array_equal(np.stack([points[name] for name in "xyz"], 1), expected)
    assert points["person"].tolist() == [0] * 50 + [2] * 50
    assert views.points_message([], header()).width == 0


def test_the_cloud_is_that_of_sensor_msgs_py():
    pytest.importorskip("sensor_msgs_py", reason="sensor_msgs_py comes with a ROS installation")
    points = np.zeros(5, views.POINT)
    points["y"] = np.arange(5)
    assert views._cloud(points, header()) == views._cloud_of_sensor_msgs_py(points, header())


def test_a_jpeg_is_the_overlay():
    picture = np.full((48, 64, 3), (200, 30, 90), np.uint8)
    message = deserialize_message(serialize_message(views.jpeg_message(picture, header())), views.CompressedImage)
    assert message.header == header() and "jpeg" in message.format
    np.testing.assert_allclose(compressed_image_from_message(message).astype(int), picture, atol=4)


def test_only_what_is_subscribed_is_made():
    class Publisher:
        def __init__(self, topic):
            self.topic, self.listeners, self.sent = topic, 0, []

        def get_subscription_count(self):
            return self.listeners

        def publish(self, message):
            self.sent.append(message)

    made = views.Views(lambda kind, topic: Publisher(topic), np.zeros((0, 3), np.int32))
    publishers = {publisher.topic: publisher for publisher in made.publishers}
    picture = np.zeros((8, 8, 3), np.uint8)
    for topic, publisher in publishers.items():
        publisher.listeners = 1
        made.publish(Header(), picture, [], Header(), [])
        publisher.listeners = 0
        assert {t: len(p.sent) for t, p in publishers.items()} == {t: int(t == topic) for t in publishers}
        publisher.sent.clear()
    made.publish(Header(), picture, [], Header(), [])
    assert not any(publisher.sent for publisher in publishers.values())


def test_rviz_shows_them():
    displays = yaml.safe_load(Path(share_file("config/hmr.rviz")).read_text())["Visualization Manager"]["Displays"]
    shown = {display["Topic"]["Value"]: display for display in displays if "Topic" in display}
    assert set(shown) == {"markers", "skeleton", "points", "overlay"}
    assert shown["points"]["Channel Name"] == "person" and not shown["points"]["Enabled"]
