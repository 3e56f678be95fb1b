"""Soak of the live node: bad and changing input for minutes. `python test/soak/soak.py --seconds 600` (`make soak`), 30 s of it in the suite.

A process of its own runs the node, with the real estimator or ``--fake``. This one publishes 30 images a second, of changing size and contents, some of
them malformed, with stamps that go back, CameraInfo of zeros, depth of NaN and infinity; subscribers come and go, and the node is deactivated
and activated. At the end: the node lives, memory has grown by at most 5 % since the warm-up, every output is finite and has the stamp of an input.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from array import array
from pathlib import Path

import numpy as np

RATE = 30.0
CYCLE_S = 60.0  # deactivated and activated so often, or three times in a shorter soak
SIZES = ((48, 64), (240, 320), (480, 640))
GROWTH = 1.05
FAKE = """
import sys
import numpy as np
from hmr_ros.estimate import Bodies, BodyEstimate
from hmr_ros.ros.live import main

class Estimator:
    backend, reliability_source = "fake", "learned"
    class body_model:
        name, sha256, faces = "fake body", "0" * 64, np.arange(30, dtype=np.int32).reshape(10, 3)
    def stream(self, config):
        return self.answer
    def answer(self, image, stamp, depth=None, intrinsics=None, stature=None):
        assert depth is None or np.isfinite(depth).all()
        value = np.nan if image[0, 0, 0] == 7 else 0.5
        f = lambda *shape: np.full(shape, value, np.float32)
        body = lambda: BodyEstimate(score=0.5, box=f(4), keypoints=f(17, 3), reliability=f(12), global_orient=f(3), body_pose=f(69), betas=f(10),
            crop=f(3), weak_camera=f(3), translation=None if intrinsics is None else np.array([0, 0, 3], np.float32), joints=f(24, 3),
            vertices=f(30, 3), projected_keypoints=f(17, 2), axes="ray" if intrinsics is None else "camera", camera=intrinsics)
        return Bodies([body() for _ in range(int(image[0, 0, 0]) % 8)])

sys.exit(main(sys.argv[1:], estimator_factory=lambda parameters: Estimator()))
"""
REAL = "import sys; from hmr_ros.ros.live import main; sys.exit(main(sys.argv[1:]))"


def memory_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


class Soak:
    """Publishes, listens and counts; ``problems`` are lines about outputs that may not be."""

    def __init__(self, seed: int, photo: np.ndarray | None):
        import rclpy
        from hmr_ros.msg import BodyArray
        from lifecycle_msgs.srv import ChangeState
        from sensor_msgs.msg import CameraInfo, Image

        from hmr_ros.ros.process import Spinner

        self.rng, self.photo = np.random.default_rng(seed), photo
        self.node = rclpy.create_node("soak")
        self.images, self.infos = self.node.create_publisher(Image, "image", 5), self.node.create_publisher(CameraInfo, "camera_info", 5)
        self.depths = self.node.create_publisher(Image, "depth", 5)
        self.change = self.node.create_client(ChangeState, "hmr/change_state")
        self.sent: set[tuple[int, int]] = set()
        self.problems: list[str] = []
        self.outputs = self.size = 0
        self.guests: list = []
        self.node.create_subscription(BodyArray, "bodies", self._on_bodies, 50)
        self.spinner = Spinner(self.node)

    def _on_bodies(self, message) -> None:
        self.outputs += 1
        if (message.header.stamp.sec, message.header.stamp.nanosec) not in self.sent:
            self.problems.append(f"stamp {message.header.stamp} is none of the inputs'")
        for body in message.bodies:
            for name in ("box", "joints", "vertices", "global_orient", "body_pose", "betas", "keypoints", "projected_keypoints", "reliability"):
                if not np.isfinite(np.asarray(getattr(body, name), np.float64)).all():
                    self.problems.append(f"{name} is not finite")

    def frame(self, number: int) -> None:
        """Publish one image and what belongs to it, right or wrong."""
        from std_msgs.msg import Header

        from hmr_ros.geometry import pinhole
        from hmr_ros.ros.inputs import image_to_message, intrinsics_to_message

        rng = self.rng
        if number % 150 == 0:
            self.size = int(rng.integers(len(SIZES)))
        height, width = SIZES[self.size]
        stamp = time.time_ns() - (int(2e9) if rng.random() < 0.02 else 0)
        header = Header(frame_id="eye")
        header.stamp.sec, header.stamp.nanosec = (0, 0) if rng.random() < 0.01 else divmod(stamp, 10**9)
        self.sent.add((header.stamp.sec, header.stamp.nanosec))
        image = np.zeros((height, width, 3), np.uint8)
        if self.photo is not None:
            image = self._people(height, width)
        image[0, 0, 0] = rng.integers(9)
        message = image_to_message(image, header)
        if rng.random() < 0.03:
            message.data = message.data[: int(rng.integers(0, len(message.data)))]
        if rng.random() < 0.02:
            message.encoding = str(rng.choice(["", "nv12", "16UC1", "bayer_rggb8"]))
        info = intrinsics_to_message(pinhole(width, height, 60), width, height, header)
        if rng.random() < 0.05:
            info.k = [float(v) for v in rng.choice([0.0, np.nan, -1.0, 1e300], 9)] if rng.random() < 0.5 else [0.0] * 9
        self.infos.publish(info)
        self.depths.publish(self._depth(header, height, width))
        self.images.publish(message)

    def _people(self, height: int, width: int) -> np.ndarray:
        """A number of copies of the photo side by side, at random."""
        import cv2

        count = int(self.rng.integers(0, 4))
        canvas = np.full((height, width, 3), 90, np.uint8)
        for i in range(count):
            part = np.s_[:, i * width // count : (i + 1) * width // count]
            canvas[part] = cv2.resize(self.photo, canvas[part].shape[1::-1])
        return canvas

    def _depth(self, header, height: int, width: int):
        from sensor_msgs.msg import Image

        values = self.rng.choice(np.array([np.nan, np.inf, -np.inf, 0, -1, 2.0, 3.0, 1e30], np.float32), (height, width))
        if self.rng.random() < 0.2:
            values = values[: height // 2]
        return Image(header=header, height=len(values), width=width, encoding="32FC1", step=4 * width, data=array("B", values.tobytes()))

    def visit(self) -> None:
        """Subscribers of the views come and go."""
        from sensor_msgs.msg import Image
        from visualization_msgs.msg import MarkerArray

        if self.guests and self.rng.random() < 0.5:
            self.node.destroy_subscription(self.guests.pop())
        elif len(self.guests) < 4:
            kind, topic = [(Image, "overlay"), (MarkerArray, "markers")][int(self.rng.integers(2))]
            self.guests.append(self.node.create_subscription(kind, topic, lambda _: None, 1, raw=True))

    def transition(self, number: int) -> None:
        from lifecycle_msgs.srv import ChangeState

        request = ChangeState.Request()
        request.transition.id = number
        future = self.change.call_async(request)
        deadline = time.monotonic() + 60
        while not future.done():
            if time.monotonic() > deadline:
                self.problems.append(f"transition {number} has no answer")
                return
            time.sleep(0.01)
        if not future.result().success:
            self.problems.append(f"transition {number} failed")

    def close(self) -> None:
        self.spinner.stop()
        self.node.destroy_node()


def soak(seconds: float, log: Path, fake: bool, seed: int = 0) -> dict:
    """Run it; what was counted, with ``problems``. rclpy must be initialised."""
    photo = None if fake else one_photo()
    with open(log, "wb") as out:
        code = FAKE if fake else REAL
        live = subprocess.Popen([sys.executable, "-P", "-c", code, "--ros-args", "-p", "use_depth:=true"], stdout=out, stderr=out)
    soak = Soak(seed, photo)
    try:
        while not soak.images.get_subscription_count() or not soak.change.service_is_ready():
            if live.poll() is not None:
                soak.problems.append("the node has ended before it began")
                break
            time.sleep(0.05)
        begin, cycle = time.monotonic(), min(CYCLE_S, seconds / 4)
        warm_up, next_cycle, warm, number = 0.4 * seconds, cycle, None, 0
        samples = []
        while (now := time.monotonic() - begin) < seconds and live.poll() is None:
            soak.frame(number)
            number += 1
            if number % 20 == 0:
                soak.visit()
            if number % 30 == 0 and now > warm_up:
                samples.append(memory_mb(live.pid))
            if now > next_cycle:
                next_cycle += cycle
                for transition in (4, 3):  # deactivate, activate
                    soak.transition(transition)
            time.sleep(max(0.0, begin + number / RATE - time.monotonic()))
        alive = live.poll() is None
        if not alive:
            soak.problems.append(f"the node has ended with {live.returncode}")
        # The least of a stretch: what is in flight does not count.
        third = max(len(samples) // 3, 1)
        warm, last = (min(samples[:third]), min(samples[-third:])) if samples else (0.0, 0.0)
        if last > GROWTH * warm + (5.0 if fake else 0.0):
            soak.problems.append(f"memory has grown from {warm:.1f} to {last:.1f} MB")
        if soak.outputs < seconds:
            soak.problems.append(f"only {soak.outputs} outputs")
        text = log.read_text(errors="replace")
        if "Traceback" in text or "a frame failed" in text:
            soak.problems.append("the node's log has a failure of its own: " + next(
                line for line in text.splitlines() if "Traceback" in line or "a frame failed" in line))  # fmt: skip
        return {"seconds": seconds, "images": number, "outputs": soak.outputs, "memory warm [MB]": warm, "memory at the end [MB]": last,
                "problems": sorted(set(soak.problems))}  # fmt: skip
    finally:
        soak.close()
        live.terminate()
        try:
            live.wait(10)
        except subprocess.TimeoutExpired:
            live.kill()
            live.wait()


def one_photo() -> np.ndarray:
    import cv2

    import hmr_ros

    folder = Path(hmr_ros.__file__).parent / "assets" / "demo"
    return cv2.imread(str(next(p for p in sorted(folder.iterdir()) if p.suffix in (".jpg", ".png"))))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fake", action="store_true", help="an estimator that costs nothing: the node alone")
    parser.add_argument("--log", type=Path, default=Path("soak.log"))
    options = parser.parse_args()
    import rclpy

    from hmr_ros.ros.process import start_ros

    os.environ.update(ROS_DOMAIN_ID=str(random.SystemRandom().randint(1, 101)), ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST")
    start_ros([])
    result = soak(options.seconds, options.log, options.fake, options.seed)
    rclpy.try_shutdown()
    print(json.dumps(result, indent=2))
    return 1 if result["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
