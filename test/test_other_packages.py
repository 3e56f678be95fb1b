"""What other packages get of an estimate: /tf, detections and ROS4HRI's topics, number by number. Where their messages are not installed, stand-ins take them."""

import dataclasses
import importlib
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy")
from foreign_messages import FIELDS, package, stand_in  # noqa: E402
from rclpy.qos import QoSDurabilityPolicy, QoSProfile  # noqa: E402
from scipy.spatial.transform import Rotation  # noqa: E402
from test_messages import body, header  # noqa: E402

from hmr_ros.body.model import BodyModel  # noqa: E402
from hmr_ros.ros import hri, other_packages  # noqa: E402
from hmr_ros.ros.human_joints import HUMAN_JOINTS, human_joint_angles  # noqa: E402
from hmr_ros.skeleton import COCO_KEYPOINTS, SMPL_JOINTS  # noqa: E402

HIPS = [SMPL_JOINTS.index("left_hip"), SMPL_JOINTS.index("right_hip")]
SIZE = (640, 480)
IMAGE = np.arange(480 * 640 * 3, dtype=np.uint32).astype(np.uint8).reshape(480, 640, 3)


class Publisher:
    def __init__(self, kind, topic):
        self.kind, self.topic, self.listeners, self.sent, self.destroyed = kind, topic, 1, [], False

    def get_subscription_count(self):
        return self.listeners

    def publish(self, message):
        assert isinstance(message, self.kind) and not self.destroyed
        self.sent.append(message)


@pytest.fixture
def made():
    """topic → publisher, of all that are made by ``made.create``."""

    class Made(dict):
        def __init__(self):
            super().__init__()
            self.qos = {}

        def create(self, kind, topic, qos):
            assert isinstance(qos, QoSProfile) and (topic not in self or self[topic].destroyed)
            self[topic], self.qos[topic] = Publisher(kind, topic), qos
            return self[topic]

        def destroy(self, publisher):
            publisher.destroyed = True

    return Made()


def named(seed, id, **changes):
    return dataclasses.replace(body(seed), id=id, **changes)


def xyz(message):
    return [message.x, message.y, message.z]


def matrix(q):
    return Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix()


def truth(person):
    """Origin and axes of a body's frame by their definition: between the hips; forward is the body model's +z, left its +x, up its +y."""
    axes = Rotation.from_rotvec(person.global_orient.astype(float)).as_matrix()
    return (person.joints[HIPS] + person.translation).mean(0), np.stack([axes[:, 2], axes[:, 0], axes[:, 1]], axis=1)


@pytest.mark.parametrize("name", FIELDS)
def test_the_stand_ins_have_the_fields_of_the_packages(name):
    compared = 0
    try:
        real = importlib.import_module(f"{name}.msg")
    except ImportError:
        real = None
    for kind, fields in FIELDS[name].items():
        if real is not None:
            assert getattr(real, kind).get_fields_and_field_types() == fields
            compared += 1
    if name == "tf2_msgs":
        from rosbags.typesys import Stores, get_typestore

        assert [field for field, _ in get_typestore(Stores.ROS2_HUMBLE).fielddefs["tf2_msgs/msg/TFMessage"][1]] == list(FIELDS[name]["TFMessage"])
        compared += 1
    if not compared:
        pytest.skip(f"{name} is not installed")


def test_a_stand_in_refuses_what_the_package_would():
    made = stand_in("hri_msgs")
    for wrong in ({"identity": []}, {"ids": [1]}, {"ids": "a"}, {"header": None}):
        with pytest.raises(AssertionError):
            made.IdsList(**wrong)
    with pytest.raises(AssertionError):
        made.NormalizedPointOfInterest2D(x=np.float32(1))


def test_frames_of_bodies_stand_between_their_hips(made):
    frames = other_packages.BodyFrames(package("tf2_msgs"), made.create)
    people = [named(0, "a1b2c"), body(1), named(2, "d3e4f", translation=None), named(3, "zzzzz")]
    frames.publish(header("eye"), people)
    (message,) = made["/tf"].sent
    assert [(t.header, t.child_frame_id) for t in message.transforms] == [(header("eye"), "body_a1b2c"), (header("eye"), "body_zzzzz")]
    for transform, person in zip(message.transforms, (people[0], people[3])):
        origin, axes = truth(person)
        np.testing.assert_allclose(xyz(transform.transform.translation), origin, atol=1e-6)
        np.testing.assert_allclose(matrix(transform.transform.rotation), axes, atol=1e-6)
    frames.publish(header("eye"), [body(1)])
    frames.publish(header(""), people)  # tf2 takes no frame without a name
    assert len(made["/tf"].sent) == 1


def test_a_detection_is_the_box_around_the_mesh(made):
    detections = other_packages.Detections(package("vision_msgs"), made.create, QoSProfile(depth=1))
    person = named(0, "a1b2c")
    detections.publish(header("eye"), [person, body(1, translation=False)])
    (message,) = made["detections"].sent
    (found,) = message.detections
    assert (message.header, found.header, found.id) == (header("eye"), header("eye"), "a1b2c")
    assert (found.results[0].hypothesis.class_id, found.results[0].hypothesis.score) == ("person", 0.5)
    origin, axes = truth(person)
    np.testing.assert_allclose(xyz(found.results[0].pose.pose.position), origin, atol=1e-6)
    covariance = np.reshape(found.results[0].pose.covariance, (6, 6))
    np.testing.assert_allclose(covariance[:3, :3], person.position_covariance)
    assert np.linalg.eigvalsh(covariance[3:, 3:])[0] > 0
    np.testing.assert_allclose(matrix(found.bbox.center.orientation), axes, atol=1e-6)
    inside = (person.vertices + person.translation - xyz(found.bbox.center.position)) @ axes
    np.testing.assert_allclose(inside.max(0), np.array(xyz(found.bbox.size)) / 2, atol=1e-5)
    np.testing.assert_allclose(inside.min(0), -np.array(xyz(found.bbox.size)) / 2, atol=1e-5)
    made["detections"].listeners = 0
    detections.publish(header("eye"), [person])
    assert len(made["detections"].sent) == 1


def test_shares_of_the_image_run_from_edge_to_edge():
    np.testing.assert_allclose(hri.normalised([[-0.5, -0.5], [319.5, 239.5], [639.5, 479.5]], SIZE), [[0, 0], [0.5, 0.5], [1, 1]])
    np.testing.assert_allclose(hri.region(np.array([-20, 119.5, 319.5, 900]), SIZE), [0, 0.25, 0.5, 1])


def test_the_skeleton_has_the_order_of_hri_msgs_and_a_neck_between_the_shoulders():
    keypoints = np.column_stack([np.arange(17) * 10.0, np.arange(17) * 5.0, np.linspace(0.2, 1.0, 17)]).astype(np.float32)
    keypoints[COCO_KEYPOINTS.index("right_ankle"), :2] = 700, 100
    points = hri.skeleton2d(keypoints, SIZE)
    assert points.shape == (18, 3) and (points >= 0).all() and (points <= 1).all()
    for code, name in {0: "nose", 2: "right_shoulder", 7: "left_wrist", 8: "right_hip", 13: "left_ankle", 14: "left_eye", 17: "right_ear"}.items():
        u, v, confidence = keypoints[COCO_KEYPOINTS.index(name)]
        np.testing.assert_allclose(points[code], [(u + 0.5) / 640, (v + 0.5) / 480, confidence], atol=1e-6)
    np.testing.assert_allclose(points[1], [(55 + 0.5) / 640, (27.5 + 0.5) / 480, 0.2 + 0.8 * 5 / 16], atol=1e-6)
    np.testing.assert_allclose(points[10], [1, 100.5 / 480, 0], atol=1e-6)  # the right ankle, outside of the image


def test_everybody_with_an_id_has_topics_that_go_with_them(made, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(hri.time, "monotonic", lambda: now[0])
    people = hri.Humans(package("hri_msgs"), made.create, made.destroy, QoSProfile(depth=1))
    image, odom = header("eye"), header("odom")
    ann = named(0, "a1b2c", keypoints=np.full((17, 3), 0.5, np.float32), box=np.array([-0.5, -0.5, 319.5, 239.5], np.float32))
    people.publish(odom, [ann, named(1, "b1b2c", translation=None), body(2)], image, IMAGE)
    sent = {topic.removeprefix("/humans/bodies/"): publisher.sent for topic, publisher in made.items()}
    assert (sent["tracked"][0].header, sent["tracked"][0].ids) == (image, ["a1b2c", "b1b2c"])
    region = sent["a1b2c/roi"][0]
    assert (region.header, region.xmin, region.ymin, region.xmax, region.ymax, region.c) == (image, 0, 0, 0.5, 0.5, 0.5)
    assert sent["a1b2c/skeleton2d"][0].header == image and len(sent["a1b2c/skeleton2d"][0].skeleton) == 18
    assert sent["a1b2c/position"][0].header == odom and not sent["b1b2c/position"]
    np.testing.assert_allclose(xyz(sent["a1b2c/position"][0].point), truth(ann)[0], atol=1e-6)
    state = sent["a1b2c/joint_states"][0]
    assert list(state.name) == [f"{joint}_a1b2c" for joint in HUMAN_JOINTS]
    np.testing.assert_allclose(state.position, human_joint_angles(ann))
    assert sent["b1b2c/joint_states"] and "a1b2c/urdf" not in sent
    part = sent["a1b2c/cropped"][0]
    assert (part.header, part.encoding, part.width, part.height) == (image, "bgr8", 320, 240)
    np.testing.assert_array_equal(np.reshape(part.data, (240, 320, 3)), IMAGE[:240, :320])

    now[0] += 4
    made["/humans/bodies/b1b2c/roi"].listeners = 0
    people.publish(odom, [named(1, "b1b2c")], image, IMAGE)
    assert sent["tracked"][-1].ids == ["b1b2c"] and len(sent["b1b2c/roi"]) == 1 and len(sent["b1b2c/position"]) == 1
    assert not made["/humans/bodies/a1b2c/roi"].destroyed  # may come back
    now[0] += 2
    people.publish(odom, [named(1, "b1b2c")], image, IMAGE)
    assert made["/humans/bodies/a1b2c/roi"].destroyed and not made["/humans/bodies/b1b2c/roi"].destroyed
    people.nobody()
    assert sent["tracked"][-1].ids == [] and made["/humans/bodies/b1b2c/roi"].destroyed and not made["/humans/bodies/tracked"].destroyed
    people.destroy()
    assert made["/humans/bodies/tracked"].destroyed and len(sent["tracked"]) == 4


def test_cropped_shows_what_the_region_touches():
    np.testing.assert_array_equal(hri.cropped(IMAGE, np.array([10.0, 20.2, 12.2, 23.0])), IMAGE[20:24, 10:13])
    np.testing.assert_array_equal(hri.cropped(IMAGE, np.array([-50.0, 470.0, 3.0, 900.0])), IMAGE[470:, :4])
    for outside in ([700, 10, 900, 50], [-90, 10, -20, 50], [10, 500, 20, 600], [10, 20, 10, 20]):
        part = hri.cropped(IMAGE, np.array(outside, float))
        assert part is None or part.shape[:2] == (1, 1)


def test_velocity_is_in_the_axes_of_the_body(made):
    people = hri.Humans(package("hri_msgs"), made.create, made.destroy, QoSProfile(depth=1))
    person = named(0, "a1b2c")
    _, axes = truth(person)
    people.publish(header("odom"), [person, dataclasses.replace(named(1, "b1b2c"), velocity=(0.5 * axes[:, 0]).astype(np.float32))], header("eye"), IMAGE)
    assert not made["/humans/bodies/a1b2c/velocity"].sent  # not known in a person's first image
    forward = dataclasses.replace(person, velocity=(1.5 * axes[:, 0] - 0.2 * axes[:, 2]).astype(np.float32))  # 1.5 m/s forward, 0.2 m/s down
    people.publish(header("odom", sec=7), [forward], header("eye"), IMAGE)
    (message,) = made["/humans/bodies/a1b2c/velocity"].sent
    assert (message.header.frame_id, message.header.stamp.sec) == ("body_a1b2c", 7)
    np.testing.assert_allclose(xyz(message.twist.linear), [1.5, 0, -0.2], atol=1e-6)


def test_a_urdf_of_the_persons_stature_is_published_once_and_kept(made):
    asked = []

    def urdf(name, stature):
        asked.append((name, stature))
        return f"<robot name='{name}'/>"

    model = BodyModel.load(None)
    betas, turned = torch.tensor([[2.0, 0.5, -1.0, 0, 0, 0, 0, 0, 0, 0]]), torch.from_numpy(Rotation.random(24, random_state=0).as_matrix()[None]).float()
    with torch.inference_mode():
        tall = named(0, "a1b2c", joints=model.forward(turned, betas).joints[0].numpy())
        stature = float(model.stature(betas)[0])
    people = hri.Humans(package("hri_msgs"), made.create, made.destroy, QoSProfile(depth=1), urdf)
    for _ in range(3):
        people.publish(header("odom"), [tall], header("eye"), IMAGE)
    (message,) = made["/humans/bodies/a1b2c/urdf"].sent
    assert message.data == "<robot name='a1b2c'/>" and made.qos["/humans/bodies/a1b2c/urdf"].durability == QoSDurabilityPolicy.TRANSIENT_LOCAL
    assert asked == [("a1b2c", pytest.approx(stature, rel=0.015))] and stature > 1.8


def test_without_human_description_there_is_no_urdf(monkeypatch, tmp_path):
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    assert hri.urdf_maker() is None


def test_the_urdf_is_that_of_human_description(monkeypatch, tmp_path):
    """xacro stands in for itself: what it is asked for."""
    (tmp_path / "share" / "human_description").mkdir(parents=True)
    (tmp_path / "share" / "ament_index" / "resource_index" / "packages").mkdir(parents=True)
    (tmp_path / "share" / "ament_index" / "resource_index" / "packages" / "human_description").touch()
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    process = lambda path, mappings: SimpleNamespace(toxml=lambda: f"{path} {mappings}")  # noqa: E731
    monkeypatch.setitem(sys.modules, "xacro", SimpleNamespace(process_file=process))
    text = hri.urdf_maker()("a1b2c", 1.8349)
    assert text == f"{tmp_path}/share/human_description/urdf/human-tpl.xacro {{'id': 'a1b2c', 'height': '1.835'}}"


@pytest.mark.parametrize("choice, installed, expected", [("never", True, None), ("auto", False, None), ("auto", True, "std_msgs.msg"),
                                                         ("always", True, "std_msgs.msg")])  # fmt: skip
def test_a_package_is_used_as_the_parameter_says(choice, installed, expected):
    found = other_packages.wanted("broadcast_tf", choice, "std_msgs" if installed else "no_such_msgs")
    assert getattr(found, "__name__", None) == expected


def test_what_is_asked_for_and_not_installed_is_refused():
    with pytest.raises(ValueError, match='parameter publish_hri is "always", but no_such_msgs is not installed; apt install ros-.*no-such-msgs'):
        other_packages.wanted("publish_hri", "always", "no_such_msgs")
