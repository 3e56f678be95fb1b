"""What the live node costs on top of the bare estimator: image out → BodyArray in, against the same call in this process.

The two take turns, image by image, so that a busy machine hits both alike; both are fresh streams with the same settings
that see the same frames with the same stamps. The target is at most 10 ms in the median at 640x480.

    python benchmarks/node_overhead.py [--frames N] [--image FILE] [--threads N] [--markers] [--json FILE]
"""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from os import environ
from pathlib import Path

import cv2
import numpy as np
import tyro

TARGET_MS = 10.0
LOST_AFTER_S = 10.0


@dataclass(frozen=True)
class Overhead:
    frames: int = 60
    """Timed frames; ten more come first, untimed."""
    image: Path | None = None
    """Picture with people; without it the embedded photo."""
    threads: int = 0
    """For the networks of both; 0: the backend's own choice."""
    backend: str = "auto"
    """For both."""
    markers: bool = False
    """Let somebody listen to the markers as well."""
    json: Path | None = None
    """Write the result there, too."""


def main() -> int:
    options = tyro.cli(Overhead)
    environ.update(ROS_DOMAIN_ID=str(random.SystemRandom().randint(1, 101)), ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST")
    import rclpy
    from rclpy.qos import QoSProfile
    from sensor_msgs.msg import CameraInfo, Image
    from std_msgs.msg import Header
    from visualization_msgs.msg import MarkerArray

    import hmr_ros
    from hmr_ros import HumanMeshEstimator
    from hmr_ros.files import write_json
    from hmr_ros.geometry import pinhole
    from hmr_ros.msg import BodyArray
    from hmr_ros.ros.inputs import image_to_message, intrinsics_to_message
    from hmr_ros.ros.process import Spinner, start_ros

    photo = options.image or Path(hmr_ros.__file__).parent / "assets" / "demo" / "astronaut.jpg"
    image = letterbox(cv2.imread(str(photo)), 640, 480)
    intrinsics = pinhole(640, 480, 60.0)

    start_ros([])
    code = "import sys; from hmr_ros.ros.live import main; sys.exit(main(sys.argv[1:]))"
    arguments = ["-p", f"threads:={options.threads}", "-p", f"backend:={options.backend}"]
    live = subprocess.Popen([sys.executable, "-P", "-c", code, "--ros-args", *arguments])
    node = rclpy.create_node("overhead")
    images = node.create_publisher(Image, "image", 5)
    infos = node.create_publisher(CameraInfo, "camera_info", 5)
    answered, answers = threading.Event(), {}

    def on_bodies(message):
        now = time.perf_counter()
        answers[message.header.stamp.sec, message.header.stamp.nanosec] = (now, len(message.bodies))
        answered.set()

    node.create_subscription(BodyArray, "bodies", on_bodies, QoSProfile(depth=10))
    if options.markers:
        node.create_subscription(MarkerArray, "markers", lambda raw: None, QoSProfile(depth=10), raw=True)
    spinner = Spinner(node)

    def through_the_node(header) -> tuple[float, int]:
        """(seconds from publish to reception, people), building the message not counted; NaN for a lost frame."""
        message = image_to_message(image, header)
        infos.publish(intrinsics_to_message(intrinsics, 640, 480, header))
        answered.clear()
        begin = time.perf_counter()
        images.publish(message)
        key = header.stamp.sec, header.stamp.nanosec
        while key not in answers and answered.wait(LOST_AFTER_S):
            answered.clear()
        received, people = answers.get(key, (float("nan"), 0))
        return received - begin, people

    estimator = HumanMeshEstimator.from_default(backend=options.backend, threads=options.threads or None)
    stream = estimator.stream()
    while not images.get_subscription_count() and live.poll() is None:
        time.sleep(0.05)
    time.sleep(1.0)
    bare, whole, people = [], [], (0, 0)
    try:
        for i in range(10 + options.frames):
            header = Header(frame_id="camera")
            header.stamp.sec, header.stamp.nanosec = 1_700_000_000 + i // 10, i % 10 * 100_000_000  # a 10 Hz camera
            stamp = header.stamp.sec + 1e-9 * header.stamp.nanosec
            begin = time.perf_counter()
            bodies = stream(image, stamp, intrinsics=intrinsics)
            alone = time.perf_counter() - begin
            beside, seen = through_the_node(header)
            people = (len(bodies), seen)
            if i >= 10:
                bare.append(alone)
                whole.append(beside)
    finally:
        live.terminate()
        code = live.wait(20)
        spinner.stop()
        node.destroy_node()
        rclpy.try_shutdown()

    bare_ms, whole_ms = 1e3 * np.array(bare), 1e3 * np.array(whole)
    lost = int(np.isnan(whole_ms).sum())
    kept = ~np.isnan(whole_ms)
    result = {
        "image": f"{photo.name}, 640x480",
        "people bare / through the node": people,
        "backend": estimator.backend,
        "frames": options.frames,
        "lost": lost,
        "bare estimator p50 [ms]": round(float(np.median(bare_ms)), 2),
        "bare estimator p95 [ms]": round(float(np.percentile(bare_ms, 95)), 2),
        "image to BodyArray p50 [ms]": round(float(np.median(whole_ms[kept])), 2),
        "image to BodyArray p95 [ms]": round(float(np.percentile(whole_ms[kept], 95)), 2),
        "overhead p50 [ms]": round(float(np.median((whole_ms - bare_ms)[kept])), 2),
        "overhead of the medians [ms]": round(float(np.median(whole_ms[kept]) - np.median(bare_ms)), 2),
        "node's exit code": code,
    }
    for name, value in result.items():
        print(f"{name:32} {value}")
    if options.json:
        write_json(options.json, result)
    good = result["overhead p50 [ms]"] <= TARGET_MS and lost == 0
    print(f"target: at most {TARGET_MS:g} ms in the median: {'reached' if good else 'MISSED'}")
    return 0 if good else 1


def letterbox(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Scale into the frame, on black."""
    scale = min(width / image.shape[1], height / image.shape[0])
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[:height, :width]
    frame = np.zeros((height, width, 3), np.uint8)
    y, x = (height - small.shape[0]) // 2, (width - small.shape[1]) // 2
    frame[y : y + small.shape[0], x : x + small.shape[1]] = small
    return frame


if __name__ == "__main__":
    sys.exit(main())
