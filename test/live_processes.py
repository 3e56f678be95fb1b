"""A live node in a process of its own and its peer in this one, for the tests that talk to it over Fast DDS. Waits for events, never for time."""

import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")
from hmr_ros.msg import BodyArray, BodyModel  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from hmr_ros.ros.qos import LATCHED  # noqa: E402
from hmr_ros.ros.process import Spinner, start_ros  # noqa: E402

PATIENCE = 60.0  # for an event on a busy machine; events usually take milliseconds

# An estimator that answers with as many bodies as the first pixel's blue value says, and people without a body as its green value says:
# the tens of too few joints, the units of a mesh that misses them. Fails at 255.
FAKE = textwrap.dedent(
    """
    import sys, time
    import numpy as np
    from hmr_ros.estimate import Bodies, BodyEstimate
    from hmr_ros.ros.live import main

    class Estimator:
        backend, reliability_source = "fake", "learned"
        class body_model:
            name, sha256 = "fake body", "0" * 64
            faces = np.arange(30, dtype=np.int32).reshape(10, 3)

        def stream(self, config):
            return self.answer

        def answer(self, image, stamp, depth=None, intrinsics=None, stature=None):
            people, without = int(image[0, 0, 0]), int(image[0, 0, 1])
            if people == 255:
                raise RuntimeError("planned failure")
            f = lambda *shape: np.full(shape, 0.5, np.float32)
            where = None if intrinsics is None else np.array([0, 0, 3], np.float32)
            body = BodyEstimate(score=0.5, box=f(4), keypoints=f(17, 3), reliability=f(12), global_orient=f(3),
                                body_pose=f(69), betas=f(10), crop=f(3), weak_camera=f(3), translation=where,
                                joints=f(24, 3), vertices=f(30, 3), projected_keypoints=f(17, 2),
                                axes="ray" if intrinsics is None else "camera", camera=intrinsics,
                                translation_source=None if intrinsics is None else "apparent size" if depth is None else "depth")
            if people == 9:
                body.vertices[3, 1] = np.nan
            return Bodies([body] * people, too_few_joints=without // 10, mesh_misses=without % 10)

    def factory(parameters):
        time.sleep(LOADING_SECONDS)
        return Estimator()

    sys.exit(main(sys.argv[1:], estimator_factory=factory))
    """
)
REAL = "import sys; from hmr_ros.ros.live import main; sys.exit(main(sys.argv[1:]))"


class Live:
    """A live node in a process of its own, with its output in a file."""

    def __init__(self, code, log, *arguments):
        self.log = log
        # -P: the working directory, perhaps a checkout, must not stand in for the installed package.
        with open(log, "wb") as out:
            self.process = subprocess.Popen([sys.executable, "-P", "-c", code, *arguments], stdout=out, stderr=out)

    def text(self):
        return self.log.read_text()

    def wait_for_text(self, words):
        wait_for(lambda: words in self.text() or self.process.poll() is not None, self)
        assert words in self.text(), self.text()

    def end(self, *signals):
        for number in signals or (signal.SIGINT,):
            self.process.send_signal(number)
        try:
            return self.process.wait(PATIENCE)
        finally:
            self.process.kill()


class Peer:
    """Another node, which knows only messages: publishes images, collects what comes back."""

    def __init__(self, namespace="", image_type=Image, image_topic="image"):
        self.node = rclpy.create_node("peer", namespace=namespace)
        self.images = self.node.create_publisher(image_type, image_topic, 5)
        self.infos = self.node.create_publisher(CameraInfo, "camera_info", 5)
        self.received, self.models, self.arrived = {}, [], threading.Condition()
        self.node.create_subscription(BodyArray, "bodies", self._on_bodies, 10)
        self.node.create_subscription(BodyModel, "body_model", self.models.append, LATCHED)
        self.count = 0
        self.spinner = Spinner(self.node)

    def _on_bodies(self, message):
        with self.arrived:
            self.received[message.header.stamp.sec, message.header.stamp.nanosec] = message
            self.arrived.notify_all()

    def listen(self, message_type, topic, **arguments):
        heard = []
        self.node.create_subscription(message_type, topic, heard.append, 10, **arguments)
        return heard

    def header(self):
        self.count += 1
        header = Header(frame_id="camera_optical")
        header.stamp.sec, header.stamp.nanosec = 1_700_000_000 + self.count, 123_456_789
        return header

    def ask(self, make_message):
        """Send (best effort, so again if need be) until an answer comes; returns it."""
        wait_for(self.images.get_subscription_count)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            message = make_message(self.header())
            key = (message.header.stamp.sec, message.header.stamp.nanosec)
            self.images.publish(message)
            with self.arrived:
                if self.arrived.wait_for(lambda key=key: key in self.received, 0.5):
                    return self.received[key]
        raise AssertionError("no answer")

    def close(self):
        self.spinner.stop()
        self.node.destroy_node()


def wait_for(condition, live=None, seconds=PATIENCE):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, live.text() if live else "waited in vain"
        time.sleep(0.01)


def call(client, request, live=None, again=5.0):
    """The answer to a request, which is sent again after ``again`` seconds without one: a server may see a client's requests a moment before
    the reader of its answers, and such an answer is lost (ros2/rmw_fastrtps)."""
    answers = []

    def answered():
        if not answers or time.monotonic() > answers[-1][0] + again:
            answers.append((time.monotonic(), client.call_async(request)))
        return any(future.done() for _, future in answers)

    wait_for(client.service_is_ready, live)
    wait_for(answered, live)
    return next(future.result() for _, future in answers if future.done())


def picture(people=1, size=(48, 64)):
    image = np.zeros((*size, 3), np.uint8)
    image[0, 0, 0] = people
    return image


@pytest.fixture(scope="module", autouse=True)
def ros():
    start_ros([])
    yield
    rclpy.try_shutdown()


@pytest.fixture
def peer():
    peer = Peer()
    yield peer
    peer.close()


@pytest.fixture
def start(tmp_path):
    """Starts live nodes and ends them after the test."""
    lives = []

    def start(*arguments, code=FAKE, loading=0.0):
        code = code.replace("LOADING_SECONDS", str(loading))
        lives.append(Live(code, tmp_path / f"live{len(lives)}.log", *arguments))
        return lives[-1]

    yield start
    for live in lives:
        live.process.kill()
        live.process.wait()
