"""The lifecycle node `hmr`: camera images in, bodies out, around the ROS-free estimator.

Topics (relative, remappable): subscribes `image` or `image/compressed`, `camera_info`, and, where asked to, `depth`; publishes `bodies`,
`body_model`, and, only while somebody listens, `markers` and `overlay`; /diagnostics once a second. Callbacks of the
executor do next to nothing: a worker thread converts, estimates and publishes, and takes the newest frame when it is free.
"""

from __future__ import annotations

import time
import traceback
from collections import deque
from typing import Callable

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from visualization_msgs.msg import MarkerArray

from hmr_ros.camera import Camera
from hmr_ros.drawing import compile_kernels, draw_overlay
from hmr_ros.estimate import Bodies
from hmr_ros.io.decode import depth_from_message
from hmr_ros.msg import BodyArray, BodyModel
from hmr_ros.ros import messages
from hmr_ros.ros.inputs import NO_POSITIONS, ImageConverter, camera_from_message, camera_remarks, image_remarks, image_to_message
from hmr_ros.ros.markers import MarkerSerializer
from hmr_ros.ros.newest_frame import NewestFrameWorker
from hmr_ros.ros.parameters import LiveParameters, declare_parameters, read_parameters, unknown_parameters
from hmr_ros.ros.stamped_buffer import StampedBuffer

DEPTH_TOLERANCE_NS = 20_000_000  # between an image and the depth image that is taken for it
DEPTH_WAIT_S = 0.05  # for a depth image that is not here yet: drivers align it after the image is out
THROTTLE_S = 5.0  # one line of a repeated complaint in this time
STOP_SECONDS = 1.5  # wait for the frame in work at most so long; launch sends SIGTERM five seconds after SIGINT
SILENCE_S = 3.0  # without images for so long, /diagnostics warns; images without CameraInfo for so long, the log does
RESULTS = QoSProfile(depth=5, reliability=QoSReliabilityPolicy.RELIABLE)  # RViz asks for reliable
LATCHED = QoSProfile(
    depth=1, reliability=QoSReliabilityPolicy.RELIABLE, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL
)
NEWEST = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)


def default_estimator(parameters: LiveParameters):
    """The estimator that the parameters ask for; loads all models."""
    from hmr_ros import HumanMeshEstimator
    from hmr_ros.proxies.paper.config import ProxyFiles

    return HumanMeshEstimator.from_default(
        backend=parameters.backend,
        precision=parameters.precision,
        max_people=parameters.max_people,
        body_model=parameters.body_model or None,
        threads=parameters.threads or None,
        flip_averaging=parameters.flip_averaging,
        regressor=parameters.regressor,
        checkpoint=parameters.checkpoint or None,
        extractor=parameters.extractor,
        proxy_files=ProxyFiles(parameters.keypoint_rcnn or None, parameters.depth_network or None),
    )


def stream_config(parameters: LiveParameters):
    """What the stream shall do with people over time."""
    from hmr_ros.stream import StreamConfig

    return StreamConfig(
        max_people=parameters.max_tracked_people,
        min_score=parameters.min_score,
        smooth_pose=parameters.smooth_pose,
        smooth_translation=parameters.smooth_translation,
        steady_shape=parameters.steady_shape,
    )


class LiveNode(LifecycleNode):
    """`configure` loads the models, `activate` subscribes and starts the worker; the other transitions undo it.

    ``estimator_factory`` makes the estimator from the parameters (tests and other estimators come in here).
    """

    def __init__(self, estimator_factory: Callable[[LiveParameters], object] = default_estimator, **node_arguments):
        super().__init__("hmr", **node_arguments)
        declare_parameters(self)
        for line in unknown_parameters(self):
            self.get_logger().warning(line)
        self._estimator_factory = estimator_factory
        self._estimator = None
        self._settings = read_parameters(self)
        self._worker: NewestFrameWorker | None = None
        self._subscriptions_of_activation: list = []
        self._publishers_of_configuration: list = []

    # ---- transitions: every set-up has its mirror image -------------------------------------------------------------

    def start(self) -> bool:
        """Configure and activate; False, after an error in the log, if either fails."""
        return (
            self.trigger_configure() == TransitionCallbackReturn.SUCCESS
            and self.trigger_activate() == TransitionCallbackReturn.SUCCESS
        )

    def end(self) -> None:
        """Shut down from whatever state the node is in."""
        try:
            self.trigger_shutdown()
        except RuntimeError:  # rclpy's answer where there is nothing left to shut down
            pass

    def on_configure(self, state) -> TransitionCallbackReturn:
        try:
            self._configure()
        except Exception as error:  # rclpy would swallow it without a word
            self.get_logger().error(f"configure failed: {type(error).__name__}: {error}")
            self.get_logger().debug(traceback.format_exc())
            self._unconfigure()
            return TransitionCallbackReturn.FAILURE
        return super().on_configure(state)

    def on_activate(self, state) -> TransitionCallbackReturn:
        try:
            return self._activate(state)
        except Exception as error:  # rclpy would swallow it without a word
            self.get_logger().error(f"activate failed: {type(error).__name__}: {error}")
            self.get_logger().debug(traceback.format_exc())
            return TransitionCallbackReturn.ERROR

    def _activate(self, state) -> TransitionCallbackReturn:
        result = super().on_activate(state)  # from here on the publishers publish
        self._body_model.publish(messages.body_model_message(self._estimator.body_model))
        self._frames_out = self._malformed = self._failed = self._reported = 0
        self._latencies: deque[float] = deque(maxlen=200)
        self._people = Bodies()
        self._camera_info: CameraInfo | None = None
        self._warned: set[str] = set()
        self._depth_images = StampedBuffer()
        self._last_image = time.monotonic()
        self._first_image: float | None = None
        self._stream = self._estimator.stream(stream_config(self._settings))
        self._worker = NewestFrameWorker(self._process, self._report_failure)
        self._subscribe()
        return result

    def on_deactivate(self, state) -> TransitionCallbackReturn:
        self._stop_work()
        return super().on_deactivate(state)

    def on_cleanup(self, state) -> TransitionCallbackReturn:
        self._unconfigure()
        return super().on_cleanup(state)

    def on_shutdown(self, state) -> TransitionCallbackReturn:
        self._stop_work()
        self._unconfigure()
        return super().on_shutdown(state)

    def on_error(self, state) -> TransitionCallbackReturn:
        self._stop_work()
        self._unconfigure()
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        parameters = self._settings = read_parameters(self)
        begin = time.monotonic()
        self._estimator = self._estimator_factory(parameters)
        self._to_image = ImageConverter(bit_depth=parameters.bit_depth)
        self._bodies = self.create_lifecycle_publisher(BodyArray, "bodies", RESULTS)
        self._body_model = self.create_lifecycle_publisher(BodyModel, "body_model", LATCHED)
        self._markers = self.create_lifecycle_publisher(MarkerArray, "markers", RESULTS)
        self._overlay = self.create_lifecycle_publisher(Image, "overlay", RESULTS)
        self._publishers_of_configuration = [self._bodies, self._body_model, self._markers, self._overlay]
        compile_kernels()  # the first overlay shall not stop the worker for seconds
        self._marker_serializer = MarkerSerializer(self._estimator.body_model.faces)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._diagnostics_timer = self.create_timer(1.0, self._publish_diagnostics)
        self.get_logger().info(
            f"models loaded in {time.monotonic() - begin:.1f} s: backend {self._estimator.backend}, body model "
            f"{self._estimator.body_model.name}, reliability from {self._estimator.reliability_source}; images converted "
            f"by {self._to_image}"
        )

    def _unconfigure(self) -> None:
        if self._publishers_of_configuration:
            self.destroy_timer(self._diagnostics_timer)
            self.destroy_publisher(self._diagnostics)
        for publisher in self._publishers_of_configuration:
            self.destroy_lifecycle_publisher(publisher)
        self._publishers_of_configuration = []
        self._estimator = None

    def _subscribe(self) -> None:
        if self._settings.image_transport == "compressed":
            image_type, topic = CompressedImage, self._compressed_topic()
        else:
            image_type, topic = Image, self.resolve_topic_name("image")
        reliability = {"best_effort": QoSReliabilityPolicy.BEST_EFFORT, "reliable": QoSReliabilityPolicy.RELIABLE}
        qos = QoSProfile(depth=1, reliability=reliability[self._settings.image_reliability])
        self._subscriptions_of_activation = [
            self.create_subscription(image_type, topic, self._on_image, qos),
            self.create_subscription(CameraInfo, "camera_info", self._on_camera_info, NEWEST),
        ]
        if self._settings.use_depth:
            self._subscriptions_of_activation.append(self.create_subscription(Image, "depth", self._on_depth, NEWEST))
        self.get_logger().info(f"waiting for images on {topic}")

    def _compressed_topic(self) -> str:
        """`image/compressed` where it is remapped itself, otherwise beside wherever `image` is, as image_transport does."""
        remapped = self.resolve_topic_name("image/compressed")
        if remapped != self.resolve_topic_name("image/compressed", only_expand=True):
            return remapped
        return self.resolve_topic_name("image") + "/compressed"

    def _stop_work(self) -> None:
        for subscription in self._subscriptions_of_activation:
            self.destroy_subscription(subscription)
        self._subscriptions_of_activation = []
        if self._worker is not None:
            if not self._worker.stop(STOP_SECONDS):
                self.get_logger().warning(f"a frame is still in work after {STOP_SECONDS:g} s; it is left alone")
            self._worker = None

    # ---- frames -----------------------------------------------------------------------------------------------------

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._camera_info = message

    def _on_depth(self, message: Image) -> None:
        self._depth_images.put(_nanoseconds(message.header.stamp), message)

    def _on_image(self, message: Image | CompressedImage) -> None:
        self._last_image = time.monotonic()
        if self._worker is not None:
            self._worker.submit((message, self._last_image))

    def _process(self, frame) -> None:
        """In the worker: one image becomes one BodyArray, then markers and overlay for those who listen."""
        message, arrival = frame
        if self._first_image is None:
            self._first_image = arrival
        try:
            image = self._to_image(message)
        except ValueError as error:
            self._malformed += 1
            self.get_logger().error(str(error), throttle_duration_sec=THROTTLE_S)
            return
        for remark in image_remarks(message, image, self._settings.bit_depth):
            self._warn_once(remark)
        header = message.header
        stamp = header.stamp.sec + 1e-9 * header.stamp.nanosec
        camera, depth = self._camera(image, arrival), self._depth(header.stamp, image)
        bodies = self._publishable(self._stream(image, stamp, depth=depth, intrinsics=camera, stature=self._settings.stature or None))
        self._bodies.publish(messages.body_array_message(
            bodies, header, self._estimator.reliability_source, self.get_parameter("publish_vertices").value,
            axes="ray" if camera is None else "camera",
            depth_state="off" if not self._settings.use_depth else "missing" if depth is None else "used",
        ))  # fmt: skip
        self._people = bodies
        self._frames_out += 1
        self._latencies.append(time.monotonic() - arrival)
        if self._markers.get_subscription_count():
            if any(body.translation is None for body in bodies):
                self._warn_once("markers need the camera's intrinsics: publish sensor_msgs/CameraInfo on camera_info")
            self._markers.publish(self._marker_serializer(header, bodies))
        if self._overlay.get_subscription_count():
            overlay = draw_overlay(image, bodies, self._estimator.body_model.faces)
            self._overlay.publish(image_to_message(overlay, header))

    def _publishable(self, bodies: list) -> Bodies:
        """Those that are finite; the others count among those without a body."""
        bodies = bodies if isinstance(bodies, Bodies) else Bodies(bodies)
        finite = [body for body in bodies if messages.finite(body)]
        if len(finite) < len(bodies):
            self.get_logger().error(
                f"{len(bodies) - len(finite)} of {len(bodies)} bodies have numbers that are not finite and are left out",
                throttle_duration_sec=THROTTLE_S,
            )
        lost = len(bodies) - len(finite)
        return Bodies(finite, bodies.too_few_joints, bodies.not_finite + lost, bodies.mesh_misses, bodies.detected)

    def _camera(self, image: np.ndarray, arrival: float) -> Camera | None:
        info = self._camera_info
        if info is None:
            if arrival - self._first_image > SILENCE_S:
                self._warn_once(f"images come without CameraInfo on {self.resolve_topic_name('camera_info')}: {NO_POSITIONS}; remap camera_info "
                                "to the topic beside the image, or calibrate the camera")  # fmt: skip
            return None
        height, width = image.shape[:2]
        try:
            camera = camera_from_message(info, width, height, self._settings.rectified)
        except ValueError as error:
            self.get_logger().warning(f"{NO_POSITIONS}: {error}", throttle_duration_sec=THROTTLE_S)
            return None
        for remark in camera_remarks(info, width, height, self._settings.rectified):
            self._warn_once(remark)
        return camera

    def _depth(self, stamp, image: np.ndarray) -> np.ndarray | None:
        """Metres (H, W) of the depth image that belongs to an image; None, after a warning, where there is none that can be used."""
        if not self._settings.use_depth:
            return None
        message = self._depth_images.nearest(_nanoseconds(stamp), DEPTH_TOLERANCE_NS, DEPTH_WAIT_S)
        if message is None:
            self.get_logger().warning(
                f"no depth image within {DEPTH_TOLERANCE_NS * 1e-6:.0f} ms of the image on {self.resolve_topic_name('depth')}: distance "
                "from apparent size", throttle_duration_sec=THROTTLE_S,
            )  # fmt: skip
            return None
        try:
            depth = depth_from_message(message)
            if depth.shape != image.shape[:2]:
                raise ValueError(f"depth image has {depth.shape[1]}x{depth.shape[0]} pixels, the image {image.shape[1]}x{image.shape[0]}; "
                                 "subscribe depth that is aligned with the image")  # fmt: skip
        except ValueError as error:
            self.get_logger().warning(f"depth is not used: {error}", throttle_duration_sec=THROTTLE_S)
            return None
        return depth

    def _report_failure(self, error: Exception) -> None:
        """A frame failed for a reason of our own: say where, and go on with the next one."""
        self._failed += 1
        where = traceback.extract_tb(error.__traceback__)[-1]
        self.get_logger().error(
            f"a frame failed with {type(error).__name__}: {error} ({where.filename}:{where.lineno})",
            throttle_duration_sec=THROTTLE_S,
        )

    def _warn_once(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            self.get_logger().warning(text)

    # ---- diagnostics ------------------------------------------------------------------------------------------------

    def _publish_diagnostics(self) -> None:
        status = DiagnosticStatus(name=f"{self.get_fully_qualified_name().lstrip('/')}: live", hardware_id="")
        values = {"backend": self._estimator.backend, "body model": self._estimator.body_model.name,
                  "reliability": self._estimator.reliability_source}  # fmt: skip
        if self._worker is None:
            status.level, status.message = DiagnosticStatus.OK, "inactive"
        else:
            silence, people = time.monotonic() - self._last_image, self._people
            values |= {"frames in": self._worker.submitted, "frames out": self._frames_out,
                       "frames dropped": self._worker.dropped, "frames malformed": self._malformed,
                       "frames failed": self._failed, "people": len(people), "people detected": people.detected,
                       "people without a body: too few joints": people.too_few_joints,
                       "people without a body: mesh misses the joints": people.mesh_misses,
                       "people without a body: not finite": people.not_finite}  # fmt: skip
            latencies = list(self._latencies)
            if latencies:
                p50, p95 = 1e3 * np.percentile(latencies, [50, 95])
                values |= {"latency p50 [ms]": f"{p50:.1f}", "latency p95 [ms]": f"{p95:.1f}"}
            if silence > SILENCE_S:
                status.level, status.message = DiagnosticStatus.WARN, f"no image for {silence:.0f} s"
            elif self._malformed + self._failed > self._reported:
                status.level, status.message = DiagnosticStatus.WARN, "some images could not be used, see the log"
            else:
                status.level, status.message = DiagnosticStatus.OK, "running"
            self._reported = self._malformed + self._failed
        status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def _nanoseconds(stamp) -> int:
    return 10**9 * stamp.sec + stamp.nanosec
