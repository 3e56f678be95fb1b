"""`hmr-ros record` in a process of its own: what was published is in the bag, with what other tools need to understand it."""

import json
import signal
import subprocess
import sys
import time

import pytest

rclpy = pytest.importorskip("rclpy")
pytest.importorskip("rosbags", reason="rosbags is not installed")
import yaml  # noqa: E402
from body_recordings import HEIGHT, INTRINSICS, WIDTH, posed  # noqa: E402
from hmr_ros.msg import BodyArray  # noqa: E402
from hmr_ros.msg import BodyModel as BodyModelMessage  # noqa: E402
from rclpy.serialization import deserialize_message, serialize_message  # noqa: E402
from sensor_msgs.msg import CameraInfo  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from hmr_ros.body.model import BodyModel  # noqa: E402
from hmr_ros.files import share_file  # noqa: E402
from hmr_ros.io.body_bags import BodyBag, typestore  # noqa: E402
from hmr_ros.io.report import ReadReport  # noqa: E402
from hmr_ros.ros.inputs import intrinsics_to_message  # noqa: E402
from hmr_ros.ros.messages import body_array_message, body_model_message  # noqa: E402
from hmr_ros.ros.qos import LATCHED  # noqa: E402
from hmr_ros.ros.process import Spinner, start_ros  # noqa: E402

CODE = "import sys; from hmr_ros.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture
def node():
    start_ros([])
    node = rclpy.create_node("peer")
    spinner = Spinner(node)
    yield node
    spinner.stop()
    node.destroy_node()
    rclpy.try_shutdown()


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_recording_holds_what_was_published(node, tmp_path, wait_until, storage):
    model = BodyModel.load(None)
    people = posed(model, 1, frames=4)
    bodies, infos, models = (node.create_publisher(kind, topic, qos) for kind, topic, qos in (
        (BodyArray, "/robot/bodies", 10), (CameraInfo, "camera_info", 10), (BodyModelMessage, "/robot/body_model", LATCHED)))  # fmt: skip
    models.publish(body_model_message(model))  # before anybody listens
    log, bag = tmp_path / "log", tmp_path / "bag"
    with open(log, "wb") as out:
        record = subprocess.Popen([sys.executable, "-P", "-c", CODE, "record", "--out", str(bag), "--storage", storage, "--ros-args",
                                   "-r", "bodies:=/robot/bodies", "-r", "body_model:=/robot/body_model"], stdout=out, stderr=out)  # fmt: skip
    try:
        wait_until(lambda: (bodies.get_subscription_count() and models.get_subscription_count() and infos.get_subscription_count())
                   or record.poll() is not None, 40)  # fmt: skip
        time.sleep(1.0)  # the subscriber's side must have found us as well
        sent = []
        for i, body in enumerate(people):
            header = Header(frame_id="eye")
            header.stamp.sec = 100 + i
            infos.publish(intrinsics_to_message(INTRINSICS, WIDTH, HEIGHT, header))
            sent.append(body_array_message([body], header, "learned", True, "camera"))
            bodies.publish(sent[-1])
        database = next(iter(bag.glob(f"*.{'mcap' if storage == 'mcap' else 'db3'}")))
        assert database.exists()
        time.sleep(0.5)
    finally:
        record.send_signal(signal.SIGINT)
        try:
            assert record.wait(20) == 0, log.read_text()
        finally:
            record.kill()
            record.wait()
    assert "4 of /robot/bodies" in log.read_text() and "Traceback" not in log.read_text()
    with BodyBag(bag) as recorded:
        raw = [m.raw for m in recorded.read(recorded._wanted, set(), ReadReport()) if "bodies" in m.topic]
        assert [deserialize_message(message, BodyArray) for message in raw] == [deserialize_message(serialize_message(message), BodyArray) for message in sent]
        frames = list(recorded.frames())
        assert recorded.body_model == (model.name, model.sha256) and recorded.camera == pytest.approx((*INTRINSICS, WIDTH, HEIGHT))
        assert [frame.time for frame in frames] == [100, 101, 102, 103] and frames[0].frame_id == "eye"
    topics = yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"]["topics_with_message_count"]
    by_name = {entry["topic_metadata"]["name"]: entry["topic_metadata"] for entry in topics}
    assert set(by_name) == {"/robot/bodies", "/robot/body_model", "/camera_info"}
    assert by_name["/robot/body_model"]["offered_qos_profiles"][0]["durability"] == "transient_local"  # `ros2 bag play` latches it again
    assert by_name["/robot/bodies"]["type_description_hash"].startswith("RIHS01_")


def test_a_folder_that_is_there_is_refused(tmp_path):
    done = subprocess.run([sys.executable, "-P", "-c", CODE, "record", "--out", str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "which is there; expected the name of a new folder" in done.stderr


def test_type_hashes_in_recordings_are_those_that_ros_computes():
    for name in ("Body", "BodyArray", "BodyModel"):
        described = json.loads(share_file(f"msg/{name}.json").read_text())
        hashes = {entry["type_name"]: entry["hash_string"] for entry in described["type_hashes"]}
        assert typestore().hash_rihs01(f"hmr_ros/msg/{name}") == hashes[f"hmr_ros/msg/{name}"]
