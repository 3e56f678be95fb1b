"""BodyArray, BodyModel and the ready-made marker bytes against messages built the slow way; parameters and their file."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
import yaml  # noqa: E402
from builtin_interfaces.msg import Time  # noqa: E402
from geometry_msgs.msg import Point  # noqa: E402
from hmr_ros.msg import BodyArray  # noqa: E402
from rclpy.serialization import deserialize_message, serialize_message  # noqa: E402
from std_msgs.msg import Header  # noqa: E402
from visualization_msgs.msg import Marker, MarkerArray  # noqa: E402

from hmr_ros.camera import Camera  # noqa: E402
from hmr_ros.estimate import Bodies, BodyEstimate  # noqa: E402
from hmr_ros.geometry import Intrinsics  # noqa: E402
from hmr_ros.palette import person_colour  # noqa: E402
from hmr_ros.ros import markers, messages  # noqa: E402
from hmr_ros.ros.parameters import LiveParameters, describe_parameters  # noqa: E402
from hmr_ros.ros.process import share_file  # noqa: E402

CAMERA = Camera(Intrinsics(500.0, 500.0, 320.0, 240.0))
FACES = np.random.default_rng(0).integers(0, 50, (20, 3)).astype(np.int32)


def body(seed, translation=True):
    rng = np.random.default_rng(seed)
    shapes = {"box": 4, "keypoints": (17, 3), "reliability": 12, "global_orient": 3, "body_pose": 69, "betas": 10,
              "crop": 3, "weak_camera": 3, "translation": 3, "joints": (24, 3), "vertices": (50, 3),
              "projected_keypoints": (17, 2)}  # fmt: skip
    values = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    if not translation:
        return BodyEstimate(score=0.5, **values | {"translation": None})
    root = rng.normal(size=(3, 3))
    return BodyEstimate(score=0.5, **values, axes="camera", translation_source="depth", position_covariance=root @ root.T, camera=CAMERA)


def followed(seed, id):
    """A body with what a stream adds."""
    rng = np.random.default_rng(seed)
    velocities = {"velocity": rng.normal(size=3).astype(np.float32), "joint_velocities": rng.normal(size=(24, 3)).astype(np.float32)}
    return dataclasses.replace(body(seed), id=id, **velocities)


def header(frame_id="camera", sec=1, nanosec=2):
    return Header(frame_id=frame_id, stamp=Time(sec=sec, nanosec=nanosec))


def over_the_wire(message):
    return deserialize_message(serialize_message(message), type(message))


@pytest.mark.parametrize("axes, translation", [("camera", True), ("ray", False)])
def test_everything_of_an_estimate_arrives(axes, translation):
    sent = [body(0, translation), body(1, translation)]
    array = over_the_wire(messages.body_array_message(sent, header(), "learned", axes=axes, depth_state="used"))
    assert (array.header, array.reliability_source, array.axes, array.depth_state) == (header(), "learned", axes, "used")
    for before, after in zip(sent, messages.bodies_from_message(array, CAMERA), strict=True):
        for field in dataclasses.fields(BodyEstimate):
            a, b = getattr(before, field.name), getattr(after, field.name)
            assert (a is None) == (b is None), field.name
            if isinstance(a, (np.ndarray, float)):
                np.testing.assert_array_equal(np.float32(a), np.float32(b), err_msg=field.name)
                assert np.shape(a) == np.shape(b), field.name
            else:
                assert a == b, field.name
    assert [b.has_translation for b in array.bodies] == [translation] * 2
    assert [b.translation_source for b in array.bodies] == (["depth"] if translation else [""]) * 2
    assert [b.id for b in array.bodies] == ["", ""]
    for later in array.bodies:  # what is not estimated says so
        assert not later.has_velocity and not later.joint_velocities.any() and later.position_covariance.any() == translation


def test_id_and_velocities_arrive():
    received = messages.bodies_from_message(over_the_wire(messages.body_array_message([followed(0, "ab12c"), body(1)], header(), "learned", axes="camera")))
    assert [someone.id for someone in received] == ["ab12c", ""]
    np.testing.assert_array_equal(received[0].velocity, followed(0, "ab12c").velocity)
    np.testing.assert_array_equal(received[0].joint_velocities, followed(0, "ab12c").joint_velocities)
    assert received[1].velocity is None and received[1].joint_velocities is None


def test_bodies_in_other_axes_than_the_message_says_are_refused():
    with pytest.raises(ValueError, match="bodies stand in camera axes, the message says ray"):
        messages.body_array_message([body(0)], header(), "learned", axes="ray")


def test_the_mesh_can_be_left_out():
    array = over_the_wire(messages.body_array_message([body(0)], header(), "learned", False, "camera"))
    assert len(array.bodies[0].vertices) == 0 and np.any(array.bodies[0].joints)
    assert messages.bodies_from_message(array)[0].vertices.shape == (0, 3)


def test_nobody_is_an_array_without_bodies():
    array = over_the_wire(messages.body_array_message([], header(), "learned"))
    assert array.bodies == [] and array.detected == 0


@pytest.mark.parametrize("with_body", [0, 1])
def test_people_without_a_body_are_counted_in_the_message(with_body):
    """Nobody, and somebody of whom there is no body, were the same message."""
    sent = Bodies([body(i) for i in range(with_body)], too_few_joints=2, mesh_misses=1)
    array = over_the_wire(messages.body_array_message(sent, header(), "learned", axes="camera"))
    assert (array.detected, len(array.bodies)) == (3 + with_body, with_body)
    received = messages.bodies_from_message(array, CAMERA)
    assert (received.detected, len(received)) == (3 + with_body, with_body)
    assert received.reason() == ["3 of 3 people have no body", "3 of 4 people have no body"][with_body]


def test_body_model_carries_faces_and_names():
    class Model:
        name, sha256, faces = "a body", "ab" * 32, FACES

    model = over_the_wire(messages.body_model_message(Model))
    assert (model.name, model.hash) == ("a body", "ab" * 32)
    np.testing.assert_array_equal(np.reshape(model.faces, (-1, 3)), FACES)
    assert (len(model.joint_names), len(model.parents), len(model.keypoint_names), len(model.reliability_names)) == (
        24, 24, 17, 12)  # fmt: skip
    assert model.parents[0] == -1 and model.joint_names[15] == "head" and model.reliability_names[0] == "left_shoulder"


@pytest.mark.parametrize("name", ["vertices", "translation", "keypoints", "reliability"])
def test_a_body_that_is_not_finite_is_recognised(name):
    assert messages.finite(body(0)) and messages.finite(body(0, translation=False))
    broken = getattr(body(0), name).copy()
    broken.flat[-1] = np.nan
    assert not messages.finite(dataclasses.replace(body(0), **{name: broken}))


# ---- markers --------------------------------------------------------------------------------------------------------


def slow_markers(head, bodies, gone=()):
    """The message that the bytes must equal, point by point."""
    expected = []
    for i, person in enumerate(bodies):
        corners = (person.vertices + person.translation)[FACES.reshape(-1)]
        points = [Point(x=float(x), y=float(y), z=float(z)) for x, y, z in corners]
        expected.append(markers.mesh_marker(head, i, points))
    return over_the_wire(MarkerArray(markers=expected + [markers.removed_marker(head, i) for i in gone]))


@pytest.mark.parametrize("frame_id", ["", "a", "ab", "abc", "abcd", "camera", "camera_color_optical_frame", "ü" * 7])
def test_marker_bytes_equal_the_message_built_slowly(frame_id):
    serializer = markers.MarkerSerializer(FACES)
    before = 0
    for stamp, count in enumerate([1, 2, 3, 4, 5, 5, 2, 0, 1, 1]):
        head = header(frame_id, sec=stamp, nanosec=999_999_999 - stamp)
        bodies = [body(10 * stamp + i) for i in range(count)]
        received = deserialize_message(serializer(head, bodies), MarkerArray)
        assert received == slow_markers(head, bodies, gone=range(count, before))
        before = count


def test_the_frame_may_change_from_image_to_image():
    serializer = markers.MarkerSerializer(FACES)
    for frame_id in ("left", "right_camera", "left"):
        received = deserialize_message(serializer(header(frame_id), [body(0)]), MarkerArray)
        assert received == slow_markers(header(frame_id), [body(0)])


def test_markers_live_long_enough_and_not_for_ever():
    marker = deserialize_message(markers.MarkerSerializer(FACES)(header(), [body(0)]), MarkerArray).markers[0]
    assert marker.type == Marker.TRIANGLE_LIST and marker.ns == "hmr"
    assert 1 <= marker.lifetime.sec <= 5
    assert marker.color.a == 1 and marker.pose.orientation.w == 1 and marker.scale.x == 1


def test_people_have_different_ids_and_the_colours_of_the_overlay():
    array = deserialize_message(markers.MarkerSerializer(FACES)(header(), [body(i) for i in range(5)]), MarkerArray)
    assert [m.id for m in array.markers] == list(range(5))
    colours = [(m.color.r, m.color.g, m.color.b) for m in array.markers]
    np.testing.assert_allclose(colours, np.array([person_colour(i) for i in range(5)]) / 255, atol=1e-6)
    assert len(set(colours)) == 5


def test_a_body_without_translation_has_no_marker_and_the_others_keep_their_colours():
    serializer = markers.MarkerSerializer(FACES)
    received = deserialize_message(serializer(header(), [body(0, translation=False), body(1)]), MarkerArray)
    assert [m.id for m in received.markers] == [1]
    np.testing.assert_allclose(received.markers[0].color.g, person_colour(1)[1] / 255, atol=1e-6)
    assert len(received.markers[0].points) == FACES.size
    removed = deserialize_message(serializer(header(), [body(0, translation=False)]), MarkerArray)
    assert [(m.id, m.action) for m in removed.markers] == [(1, Marker.DELETE)]


def test_a_marker_follows_the_persons_id_and_outlasts_half_a_second_of_occlusion():
    serializer = markers.MarkerSerializer(FACES)

    def received(stamp, *people):
        array = deserialize_message(serializer(header(sec=int(stamp), nanosec=round(1e9 * (stamp % 1))), people), MarkerArray)
        return [(m.id, m.action, (m.color.r, m.color.g, m.color.b) if m.action == Marker.ADD else None) for m in array.markers]

    one, other = followed(0, "ab12c"), followed(1, "xy9zz")
    first = received(1.0, one, other)
    assert received(1.1, other, one) == first[::-1]  # another order
    assert received(1.2, other) == received(1.5, other) == first[1:]  # one is hidden: no DELETE
    assert received(1.55, one, other) == first
    assert received(1.9, other) == first[1:]
    assert received(2.1, other) == [*first[1:], (first[0][0], Marker.DELETE, None)]
    assert received(2.2, other) == first[1:]


# ---- parameters -----------------------------------------------------------------------------------------------------


def test_the_parameter_file_holds_exactly_the_defaults():
    parameters = yaml.safe_load(Path(share_file("config/live.yaml")).read_text())["/**"]["ros__parameters"]
    assert parameters == dataclasses.asdict(LiveParameters())
    assert {k: type(v) for k, v in parameters.items()} == {k: type(v) for k, v in vars(LiveParameters()).items()}


def test_every_parameter_is_described():
    for field in dataclasses.fields(LiveParameters):
        assert field.name in describe_parameters() and len(field.metadata["description"]) > 10


@pytest.mark.parametrize("name, value, words", [
    ("backend", "cuda", 'backend is "cuda", expected one of auto, torch'),
    ("threads", -1, "threads is -1, expected 0 to 256"),
    ("threads", 1.5, "expected a int"),
    ("publish_vertices", 1, "expected a bool"),
])  # fmt: skip
def test_impossible_parameters_are_refused(name, value, words):
    with pytest.raises(ValueError, match=words):
        LiveParameters(**{name: value})


def test_body_array_is_small_without_meshes_and_80_kB_with():
    people = [dataclasses.replace(body(0), vertices=np.zeros((6890, 3), np.float32))]
    sizes = [len(serialize_message(messages.body_array_message(people, header(), "learned", v, "camera"))) for v in (False, True)]
    assert sizes[0] < 2_000 and sizes[1] - sizes[0] == 6890 * 12
    assert isinstance(deserialize_message(serialize_message(BodyArray()), BodyArray), BodyArray)
