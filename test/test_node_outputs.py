"""The live node and other packages' messages, over Fast DDS: where they are installed what arrives, where they are not what is said."""

import importlib.util
import threading
from array import array

import numpy as np
import pytest

pytest.importorskip("rclpy")
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from geometry_msgs.msg import PointStamped, TransformStamped  # noqa: E402
from live_processes import FAKE, PATIENCE, Peer, picture, ros, start, wait_for  # noqa: E402, F401  ros and start are fixtures
from scipy.spatial.transform import Rotation  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image, JointState, PointCloud2  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from hmr_ros.geometry import pinhole  # noqa: E402
from hmr_ros.ros.inputs import image_to_message, intrinsics_to_message  # noqa: E402
from hmr_ros.ros.messages import quaternion, vector  # noqa: E402
from hmr_ros.ros.qos import LATCHED  # noqa: E402

KNOWN = FAKE.replace("score=0.5, box=f(4)", 'score=0.5, id="a1b2c", box=f(4)')
INSTALLED = {name for name in ("tf2_msgs", "tf2_ros", "hri_msgs", "vision_msgs") if importlib.util.find_spec(name)}
TURN, PLACE = Rotation.from_matrix([[0, 0, 1], [-1, 0, 0], [0, -1, 0]]), np.array([1.0, 2.0, 0.5])  # a camera that looks along odom's x


@pytest.fixture
def peer():
    peer = Peer()
    yield peer
    peer.close()


def see(peer, people=1):
    """An image with CameraInfo of the same stamp; its answer, once the camera is known."""

    def with_camera(header):
        peer.infos.publish(intrinsics_to_message(pinhole(64, 48, 60), 64, 48, header))
        return image_to_message(picture(people), header)

    wait_for(lambda: peer.ask(with_camera).axes != "ray")
    return peer.ask(with_camera)


def transform(parent, child, turn, place, stamp=None):
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    message.header.stamp = stamp or message.header.stamp
    message.transform.translation = vector(place)
    message.transform.rotation = quaternion(turn.as_matrix())
    return message


def needs(*packages):
    return pytest.mark.skipif(not set(packages) <= INSTALLED, reason=f"{' and '.join(packages)} come with a ROS installation")


@pytest.mark.parametrize("package, argument, words", [
    ("tf2_ros", "target_frame:=odom", 'parameter target_frame is "odom", but tf2_ros is not installed; apt install'),
    ("tf2_msgs", "broadcast_tf:=always", 'parameter broadcast_tf is "always", but tf2_msgs is not installed; apt install'),
    ("hri_msgs", "publish_hri:=always", 'parameter publish_hri is "always", but hri_msgs is not installed; apt install'),
])  # fmt: skip
def test_what_is_asked_for_and_not_installed_is_refused(start, package, argument, words):  # noqa: F811
    if package in INSTALLED:
        pytest.skip(f"{package} is installed")
    live = start("--ros-args", "-p", argument)
    assert live.process.wait(PATIENCE) == 1 and f"configure failed: ValueError: {words}" in live.text() and "Traceback" not in live.text()


@needs("tf2_msgs", "tf2_ros", "hri_msgs", "vision_msgs")
def test_a_robot_that_moves_gets_everything_in_its_target_frame_or_nobody(peer, start):  # noqa: F811
    from hri_msgs.msg import IdsList, NormalizedRegionOfInterest2D, Skeleton2D
    from tf2_msgs.msg import TFMessage
    from tf2_ros import Buffer, TransformListener
    from vision_msgs.msg import Detection3DArray

    live = start("--ros-args", "-p", "target_frame:=odom", code=KNOWN)
    reports = peer.listen(DiagnosticArray, "/diagnostics")
    answer = see(peer)  # nobody says where the camera is
    assert (answer.axes, answer.header.frame_id, len(answer.bodies), answer.detected) == ("target", "odom", 0, 1)
    wait_for(lambda: reports and "nobody is published" in reports[-1].status[0].message and reports[-1].status[0].level == b"\x01", live)
    assert live.text().count("nobody is published") == 1

    of_ann = {"roi": NormalizedRegionOfInterest2D, "skeleton2d": Skeleton2D, "position": PointStamped, "joint_states": JointState}
    kinds = {"detections": Detection3DArray, "points": PointCloud2, "/humans/bodies/tracked": IdsList}
    kinds |= {f"/humans/bodies/a1b2c/{topic}": kind for topic, kind in of_ann.items()}
    heard = {topic: peer.listen(kind, topic) for topic, kind in kinds.items()}
    buffer = Buffer()
    listener = TransformListener(buffer, peer.node)
    peer.node.create_publisher(TFMessage, "/tf_static", LATCHED).publish(TFMessage(transforms=[transform("odom", "camera_optical", TURN, PLACE)]))
    wait_for(lambda: see(peer).bodies, live)
    wait_for(lambda: see(peer) and all(heard.values()), live)

    answer = see(peer)
    stamp = answer.header.stamp
    (body,) = answer.bodies
    assert (answer.axes, answer.header.frame_id) == ("target", "odom")
    np.testing.assert_allclose([body.translation.x, body.translation.y, body.translation.z], TURN.apply([0, 0, 3]) + PLACE, atol=1e-6)
    hips = TURN.apply([0.5, 0.5, 3.5]) + PLACE  # where the fake has all its joints
    wait_for(lambda: all(m[-1].header.stamp == stamp for m in heard.values()), live)
    detection = heard["detections"][-1].detections[0]
    assert (detection.id, heard["detections"][-1].header.frame_id, heard["points"][-1].header.frame_id) == ("a1b2c", "odom", "odom")
    centre = detection.bbox.center.position
    np.testing.assert_allclose([centre.x, centre.y, centre.z], hips, atol=1e-5)
    tracked, region = heard["/humans/bodies/tracked"][-1], heard["/humans/bodies/a1b2c/roi"][-1]
    assert list(tracked.ids) == ["a1b2c"] and (region.header.frame_id, region.c) == ("camera_optical", 0.5)
    point = heard["/humans/bodies/a1b2c/position"][-1]
    assert point.header.frame_id == "odom"
    np.testing.assert_allclose([point.point.x, point.point.y, point.point.z], hips, atol=1e-5)
    assert len(heard["/humans/bodies/a1b2c/joint_states"][-1].position) == 20

    from rclpy.time import Time

    wait_for(lambda: buffer.can_transform("camera_optical", "body_a1b2c", Time.from_msg(stamp)), live)  # tf2 itself leads back to the camera
    found = buffer.lookup_transform("camera_optical", "body_a1b2c", Time.from_msg(stamp)).transform
    np.testing.assert_allclose([found.translation.x, found.translation.y, found.translation.z], [0.5, 0.5, 3.5], atol=1e-5)
    turned = Rotation.from_quat([found.rotation.x, found.rotation.y, found.rotation.z, found.rotation.w])
    np.testing.assert_allclose(turned.apply([0, 0, 1]), Rotation.from_rotvec([0.5] * 3).apply([0, 1, 0]), atol=1e-6)  # z is the body model's y
    listener.unregister()
    assert live.end() == 0 and "Traceback" not in live.text()
    assert not list(heard["/humans/bodies/tracked"][-1].ids)  # who ends leaves nobody behind


@needs("tf2_msgs", "tf2_ros")
def test_an_odometry_that_comes_after_the_image_is_waited_for(peer, start):  # noqa: F811
    """Each image has another transform, which is sent 10 ms after it."""
    from tf2_msgs.msg import TFMessage

    live = start("--ros-args", "-p", "target_frame:=odom", code=KNOWN)
    frames = peer.node.create_publisher(TFMessage, "/tf", 100)
    wait_for(lambda: frames.get_subscription_count(), live)

    def image(header):
        peer.infos.publish(intrinsics_to_message(pinhole(64, 48, 60), 64, 48, header))
        late = transform("odom", "camera_optical", TURN, [peer.count, 0, 0], header.stamp)
        threading.Timer(0.01, lambda: frames.publish(TFMessage(transforms=[late]))).start()
        return image_to_message(picture(), header)

    for _ in range(3):
        answers = []
        wait_for(lambda answers=answers: answers.append(peer.ask(image)) or answers[-1].bodies, live)
        assert answers[-1].bodies[0].translation.x == pytest.approx(peer.count + 3)  # 3 m before the camera of this very image
    assert live.end() == 0


@needs("tf2_msgs", "tf2_ros")
def test_depth_of_another_camera_is_registered_by_tf(peer, start):  # noqa: F811
    from tf2_msgs.msg import TFMessage

    live = start("--ros-args", "-p", "use_depth:=true", "-p", "camera_info_timeout:=0.0")
    depths, infos = peer.node.create_publisher(Image, "depth", 5), peer.node.create_publisher(CameraInfo, "depth_camera_info", 5)
    wait_for(lambda: depths.get_subscription_count() and infos.get_subscription_count() and peer.infos.get_subscription_count(), live)

    def frame(header):
        peer.infos.publish(intrinsics_to_message(pinhole(64, 48, 60), 64, 48, header))
        of_tof = Header(frame_id="tof", stamp=header.stamp)
        infos.publish(intrinsics_to_message(pinhole(32, 24, 60), 32, 24, of_tof))
        data = array("B", np.full((24, 32), 2000, np.uint16).tobytes())
        depths.publish(Image(header=of_tof, encoding="16UC1", height=24, width=32, step=64, data=data))
        return image_to_message(picture(), header)

    wait_for(lambda: peer.ask(frame) and "tf2 does not know how these cameras lie" in live.text(), live)
    place = transform("camera_optical", "tof", Rotation.identity(), [0.05, 0, 0])
    peer.node.create_publisher(TFMessage, "/tf_static", LATCHED).publish(TFMessage(transforms=[place]))
    wait_for(lambda: peer.ask(frame).depth_state == "used", live)
    assert live.end() == 0


@needs("tf2_msgs")
def test_frames_of_bodies_are_broadcast_unless_that_is_not_wanted(peer, start):  # noqa: F811
    from tf2_msgs.msg import TFMessage

    frames = peer.listen(TFMessage, "/tf")
    live = start(code=KNOWN)
    wait_for(lambda: see(peer) and frames, live)
    (transform,) = frames[-1].transforms
    assert (transform.header.frame_id, transform.child_frame_id) == ("camera_optical", "body_a1b2c") and live.end() == 0
    never = start("--ros-args", "-p", "broadcast_tf:=never", code=KNOWN)
    wait_for(lambda: peer.images.get_subscription_count(), never)
    assert never.end() == 0 and "also publishes" in live.text() and "/tf" not in never.text()
