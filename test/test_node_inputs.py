"""The live node and what cameras do to it: latched and missing CameraInfo, incompatible QoS, stamps, depth, parameters, `enable`. Over Fast DDS."""

import re
import struct
import time
from array import array

import numpy as np
import pytest

pytest.importorskip("rclpy")
import cv2  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue  # noqa: E402
from rcl_interfaces.srv import SetParameters  # noqa: E402
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image  # noqa: E402
from std_msgs.msg import Header  # noqa: E402
from std_srvs.srv import SetBool  # noqa: E402
from live_processes import FAKE, Peer, call, picture, ros, start, wait_for  # noqa: E402, F401  ros and start are fixtures

from hmr_ros.geometry import pinhole  # noqa: E402
from hmr_ros.ros.inputs import image_to_message, intrinsics_to_message  # noqa: E402
from hmr_ros.ros.qos import LATCHED  # noqa: E402

STAMP_IN_BOX = FAKE.replace("score=0.5, box=f(4)", "score=0.5, box=np.full(4, stamp, np.float32)")
_DEPTH = "np.array([np.median(depth[depth > 0]), (depth > 0).mean(), 0, 0], np.float32) if depth is not None else f(4)"
DEPTH_IN_BOX = FAKE.replace("score=0.5, box=f(4)", f"score=0.5, box={_DEPTH}")  # median and share of what is known


@pytest.fixture
def peer():
    peer = Peer()
    yield peer
    peer.close()


def set_parameter(peer, live, name, value):
    kinds = {bool: ("bool_value", ParameterType.PARAMETER_BOOL), float: ("double_value", ParameterType.PARAMETER_DOUBLE),
             str: ("string_value", ParameterType.PARAMETER_STRING)}  # fmt: skip
    field, kind = kinds[type(value)]
    request = SetParameters.Request(parameters=[Parameter(name=name, value=ParameterValue(**{field: value, "type": kind}))])
    return call(peer.node.create_client(SetParameters, "hmr/set_parameters"), request, live).results[0]


def status_of(reports):
    return reports[-1].status[0] if reports else None


def values_of(reports):
    return {v.key: v.value for v in reports[-1].status[0].values} if reports else {}


def test_a_latched_camera_info_of_before_the_node_is_used(peer, start):  # noqa: F811
    latched = peer.node.create_publisher(CameraInfo, "/eye/info", LATCHED)
    header = Header(frame_id="camera_optical")
    header.stamp.sec = 5
    latched.publish(intrinsics_to_message(pinhole(64, 48, 60), 64, 48, header))
    live = start("--ros-args", "-r", "camera_info:=/eye/info")
    reports = peer.listen(DiagnosticArray, "/diagnostics")
    wait_for(lambda: peer.ask(lambda header: image_to_message(picture(), header)).axes == "camera", live)
    wait_for(lambda: values_of(reports).get("camera_info") == "latched", live)
    peer.node.destroy_publisher(latched)  # the camera is gone, and its lens with it
    wait_for(lambda: peer.ask(lambda header: image_to_message(picture(), header)).axes == "ray", live)
    assert "incompatible" not in live.text() and live.end() == 0


def test_constant_stamps_are_named_once_and_followed_by_arrival(peer, start):  # noqa: F811
    """The fake says the stamp that it is given: in its first body's box."""
    live = start(code=STAMP_IN_BOX)
    for _ in range(2):
        peer.ask(lambda header: image_to_message(picture(), header))

    def zero(header):
        header.stamp.sec = header.stamp.nanosec = 0
        return image_to_message(picture(), header)

    given = []
    for _ in range(5):
        peer.received.pop((0, 0), None)
        answer = peer.ask(zero)
        assert (answer.header.stamp.sec, answer.header.stamp.nanosec) == (0, 0)
        given.append(answer.bodies[0].box[0])
    assert (np.diff(given) > 0).all() and np.diff(given)[1:].max() < 5
    wait_for(lambda: "stamps of the images are zero" in live.text(), live)
    assert live.text().count("followed by the times of arrival") == 1 and live.end() == 0


def test_qos_that_cannot_be_met_is_named_with_topic_offered_and_requested(peer, start):  # noqa: F811
    best_effort = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)
    peer.node.create_publisher(Image, "/eye/image", best_effort)
    live = start("--ros-args", "-r", "image:=/eye/image", "-p", "qos_overrides./eye/image.subscription.reliability:=reliable",
                 "-p", "qos_overrides./bodies.publisher.reliability:=best_effort", "-p", "warn_silence:=1.0")  # fmt: skip
    live.wait_for_text("incompatible quality of service")
    words = (r"/eye/image offers best_effort, volatile( by peer)?, requested is reliable, volatile: the reliability cannot be met; set "
             r"image_reliability or qos_overrides\./eye/image\.subscription\.reliability")  # fmt: skip
    assert re.search(words, live.text()), live.text()
    wait_for(lambda: peer.node.get_publishers_info_by_topic("/bodies"), live)
    assert peer.node.get_publishers_info_by_topic("/bodies")[0].qos_profile.reliability == QoSReliabilityPolicy.BEST_EFFORT
    assert peer.node.get_publishers_info_by_topic("/body_model")[0].qos_profile.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL
    live.wait_for_text("no image for")
    assert live.end() == 0


def test_silence_names_the_topics_that_there_are(peer, start):  # noqa: F811
    reports = peer.listen(DiagnosticArray, "/diagnostics")
    live = start("--ros-args", "-r", "image:=/nobody/image", "-p", "warn_silence:=1.0", "-p", "error_silence:=2.0",
                 "-p", "use_sim_time:=true")
    live.wait_for_text("nobody publishes /nobody/image; images are published on /image: remap /nobody/image")
    wait_for(lambda: status_of(reports) and status_of(reports).level == b"\x02" and "no image for" in status_of(reports).message, live)
    assert "nothing comes on /clock" in status_of(reports).message and live.text().count("nothing comes on /clock") == 1
    assert live.end() == 0


def test_parameters_change_or_are_refused_and_enable_rests(peer, start):  # noqa: F811
    live = start()
    reports = peer.listen(DiagnosticArray, "/diagnostics")
    assert len(peer.ask(lambda header: image_to_message(picture(), header)).bodies[0].vertices) == 90
    assert set_parameter(peer, live, "publish_vertices", False).successful
    assert len(peer.ask(lambda header: image_to_message(picture(), header)).bodies[0].vertices) == 0
    refused = set_parameter(peer, live, "backend", "torch")
    assert not refused.successful and "takes effect in `configure`, the node is active: deactivate and clean it up first" in refused.reason
    assert set_parameter(peer, live, "backend", "auto").successful  # it is so already
    assert "deactivate it first" in set_parameter(peer, live, "use_depth", True).reason
    assert not set_parameter(peer, live, "warn_drop_share", 1.5).successful
    assert set_parameter(peer, live, "max_rate", 0.5).successful
    for _ in range(4):
        peer.images.publish(image_to_message(picture(), peer.header()))
        time.sleep(0.05)
    wait_for(lambda: int(values_of(reports).get("frames spared by max_rate", 0)) >= 2, live)
    assert set_parameter(peer, live, "max_rate", 0.0).successful

    enable = peer.node.create_client(SetBool, "hmr/enable")
    assert call(enable, SetBool.Request(data=False), live).message == "disabled; the node is active"
    wait_for(lambda: peer.images.get_subscription_count() == 0 and status_of(reports).message == "disabled", live)
    assert call(enable, SetBool.Request(data=True), live).success
    assert len(peer.ask(lambda header: image_to_message(picture(3), header)).bodies) == 3
    assert live.end() == 0 and "Traceback" not in live.text()


def test_depth_of_another_camera_is_registered_and_its_share_is_told(peer, start):  # noqa: F811
    """Compressed, half as large, 5 cm beside the image camera; before its CameraInfo comes it is refused once."""
    live = start("--ros-args", "-p", "use_depth:=true", "-p", "depth_transport:=compressedDepth", "-p", "depth_to_image:=0.05 0 0 0 0 0 1",
                 "-r", "depth:=/tof/depth", "-r", "depth_camera_info:=/tof/info", "-p", "camera_info_timeout:=0.0",
                 code=DEPTH_IN_BOX)  # fmt: skip
    reports = peer.listen(DiagnosticArray, "/diagnostics")
    depths = peer.node.create_publisher(CompressedImage, "/tof/depth/compressedDepth", 5)
    infos = peer.node.create_publisher(CameraInfo, "/tof/info", 5)
    wait_for(lambda: depths.get_subscription_count() and infos.get_subscription_count() and peer.infos.get_subscription_count(), live)

    def frame(header):
        peer.infos.publish(intrinsics_to_message(pinhole(64, 48, 60), 64, 48, header))
        png = cv2.imencode(".png", np.full((24, 32), 2000, np.uint16))[1].tobytes()
        of_tof = Header(frame_id="tof_optical", stamp=header.stamp)
        depths.publish(CompressedImage(header=of_tof, format="16UC1; compressedDepth png", data=array("B", struct.pack("<iff", 0, 0, 0) + png)))
        time.sleep(0.01)
        return image_to_message(picture(), header)

    wait_for(lambda: peer.ask(frame) and "depth_camera_info is none received" in live.text(), live)
    infos.publish(intrinsics_to_message(pinhole(32, 24, 60), 32, 24, Header(frame_id="tof_optical")))
    answers = []
    wait_for(lambda: answers.append(peer.ask(frame)) or answers[-1].depth_state == "used", live)
    # 5 cm at 2 m are 1.4 of 64 pixels: a column at the left edge is not seen by the depth camera, the rest is 2 m away.
    assert answers[-1].bodies[0].box[0] == pytest.approx(2.0, abs=1e-3) and 0.9 < answers[-1].bodies[0].box[1] <= 1.0
    wait_for(lambda: peer.ask(frame) and float(values_of(reports).get("depth share", 0)) > 0.1, live)
    assert values_of(reports)["depth"] == "registered" and live.text().count("depth_camera_info is none received") == 1
    assert live.end() == 0


def test_images_with_too_many_pixels_are_refused(peer, start):  # noqa: F811
    live = start("--ros-args", "-p", "max_pixels:=2000")
    wait_for(peer.images.get_subscription_count, live)
    wait_for(lambda: peer.images.publish(image_to_message(picture(), peer.header())) or time.sleep(0.1)
             or "image has 64x48 pixels, expected at most 2000" in live.text(), live)  # fmt: skip
    assert peer.ask(lambda header: image_to_message(picture(size=(30, 40)), header)).bodies
    assert live.end() == 0
