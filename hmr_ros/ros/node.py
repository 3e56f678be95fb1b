"""The lifecycle node `hmr`: camera images in, bodies out, around the ROS-free estimator.

Topics (relative, remappable): subscribes `image` or `image/compressed`, `camera_info`, and, where asked to, `depth` and `depth_camera_info`;
publishes `bodies`, `body_model`, and, only while somebody listens, `markers` and the lighter views (views.py); /diagnostics once a second; and what
other packages understand, where they are installed (other_packages.py).
The service `enable` stops and starts the work of an active node. Callbacks of the executor do next to nothing: a worker thread converts, estimates and publishes,
and takes the newest frame when it is free.
"""

from __future__ import annotations

import dataclasses
import re
import time
import traceback
from collections.abc import Callable

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.logging import LoggingSeverity
from std_msgs.msg import Header
from std_srvs.srv import SetBool
from visualization_msgs.msg import MarkerArray

from hmr_ros.camera import Camera
from hmr_ros.drawing import compile_kernels
from hmr_ros.estimate import Bodies
from hmr_ros.io.decode import refuse_too_many_pixels
from hmr_ros.msg import BodyArray, BodyModel
from hmr_ros.ros import messages
from hmr_ros.ros.depth_input import TOLERANCE_NS
from hmr_ros.ros.diagnostics import OK, Statistics, diagnostic_array, judge
from hmr_ros.ros.inputs import ImageConverter, image_remarks
from hmr_ros.ros.markers import MarkerSerializer
from hmr_ros.ros.newest_frame import NewestFrameWorker
from hmr_ros.ros.other_packages import OtherPackages
from hmr_ros.ros.parameters import LiveParameters, declare_parameters, read_parameters, unknown_parameters
from hmr_ros.ros.qos import LATCHED, RESULTS, beside, overridable
from hmr_ros.ros.stamps import FollowingClock, nanoseconds
from hmr_ros.ros.subscriptions import Subscriptions
from hmr_ros.ros.target_frame import TargetFrame
from hmr_ros.ros.transforms import Tf2Lookup, required_lookup
from hmr_ros.ros.views import Views

THROTTLE_S = 5.0  # one line of a repeated complaint in this time
STOP_SECONDS = 1.5  # wait for the frame in work at most so long; launch sends SIGTERM five seconds after SIGINT


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
        real_time=True,
    )


class LiveNode(LifecycleNode):
    """`configure` loads the models, `activate` subscribes and starts the worker; the other transitions undo it.

    ``estimator_factory`` makes the estimator from the parameters (tests and other estimators come in here).
    """

    def __init__(self, estimator_factory: Callable[[LiveParameters], object] = default_estimator, **node_arguments):
        super().__init__("hmr", **node_arguments)
        self._estimator = None
        self._worker: NewestFrameWorker | None = None
        self._left_alone: NewestFrameWorker | None = None
        self._active = False
        declare_parameters(self, self._state_name, self._on_new_parameters)
        for line in unknown_parameters(self):
            self.get_logger().warning(line)
        self._estimator_factory = estimator_factory
        self._settings = read_parameters(self)
        self._set_log_level()
        self._inputs: Subscriptions | None = None
        self._enabled = True
        self._enable = self.create_service(SetBool, f"{self.get_name()}/enable", self._on_enable)
        self._publishers_of_configuration: list = []
        self._others: OtherPackages | None = None
        self._tf2: Tf2Lookup | None = None

    # ---- transitions: every set-up has its mirror image -------------------------------------------------------------

    def start(self) -> bool:
        """Configure and activate; False, after an error in the log, if either fails."""
        return (
            self.trigger_configure() == TransitionCallbackReturn.SUCCESS
            and self.trigger_activate() == TransitionCallbackReturn.SUCCESS
        )

    def end(self) -> bool:
        """Shut down from whatever state the node is in; False if a frame is in work that had to be left alone."""
        try:
            self.trigger_shutdown()
        except RuntimeError:  # rclpy's answer where there is nothing left to shut down
            pass
        return self._left_alone is None or self._left_alone.stop(0)

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
        self._settings = read_parameters(self)
        self._active = True
        result = super().on_activate(state)  # from here on the publishers publish
        self._body_model.publish(messages.body_model_message(self._estimator.body_model))
        if self._enabled:
            self._start_work()
        return result

    def _start_work(self) -> None:
        """Nothing of before counts: people may be anywhere, and another camera may be there."""
        self._statistics = Statistics()
        self._warned: set[str] = set()
        self._target = TargetFrame(self._settings.target_frame, self._tf2) if self._tf2 is not None else None
        self._following = FollowingClock()
        self._stream = self._estimator.stream(stream_config(self._settings))
        self._worker = NewestFrameWorker(self._process, self._report_failure)
        self._inputs = Subscriptions(self, lambda: self._settings, self._submit, self._warn_once)
        self.get_logger().info(f"waiting for images on {self._inputs.image_topic}")

    def on_deactivate(self, state) -> TransitionCallbackReturn:
        self._active = False
        self._stop_work()
        return super().on_deactivate(state)

    def on_cleanup(self, state) -> TransitionCallbackReturn:
        self._unconfigure()
        return super().on_cleanup(state)

    def on_shutdown(self, state) -> TransitionCallbackReturn:
        self._active = False
        self._stop_work()
        self._unconfigure()
        return super().on_shutdown(state)

    def on_error(self, state) -> TransitionCallbackReturn:
        self._active = False
        self._stop_work()
        self._unconfigure()
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        parameters = self._settings = read_parameters(self)
        begin = time.monotonic()
        self._tf2 = required_lookup(self, "target_frame", parameters.target_frame) if parameters.target_frame else None
        self._others = OtherPackages(self, parameters)
        self._estimator = self._estimator_factory(parameters)
        self._to_image = ImageConverter(bit_depth=parameters.bit_depth)
        self._bodies = self.create_lifecycle_publisher(BodyArray, "bodies", **overridable(RESULTS))
        self._body_model = self.create_lifecycle_publisher(BodyModel, "body_model", **overridable(LATCHED))
        self._markers = self.create_lifecycle_publisher(MarkerArray, "markers", **overridable(RESULTS))
        self._views = Views(lambda kind, topic: self.create_lifecycle_publisher(kind, topic, **overridable(RESULTS)), self._estimator.body_model.faces,
                            beside(self, "overlay", "compressed"))  # fmt: skip
        self._publishers_of_configuration = [self._bodies, self._body_model, self._markers, *self._views.publishers]
        if self._others.names:
            self.get_logger().info(f"also publishes {', '.join(self._others.names)}")
        compile_kernels()  # the first overlay shall not stop the worker for seconds
        self._marker_serializer = MarkerSerializer(self._estimator.body_model.faces)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._diagnostics_timer = self.create_timer(1.0, self._publish_diagnostics, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self.get_logger().info(
            f"models loaded in {time.monotonic() - begin:.1f} s: backend {self._estimator.backend}, body model "
            f"{self._estimator.body_model.name}, reliability from {self._estimator.reliability_source}; images converted "
            f"by {self._to_image}"
        )

    def _unconfigure(self) -> None:
        if self._publishers_of_configuration:
            self.destroy_timer(self._diagnostics_timer)
            self.destroy_publisher(self._diagnostics)
        for publisher in self._publishers_of_configuration + (self._others.publishers if self._others else []):
            self.destroy_lifecycle_publisher(publisher)
        self._publishers_of_configuration = []
        if self._others is not None:
            self._others.destroy()
            self._others = None
        if self._tf2 is not None:
            self._tf2.close()
            self._tf2 = None
        self._estimator = None

    def _stop_work(self) -> None:
        if self._inputs is not None:
            self._inputs.destroy()
            self._inputs = None
        if self._worker is not None:
            if not self._worker.stop(STOP_SECONDS):
                self.get_logger().warning(f"a frame is still in work after {STOP_SECONDS:g} s; it is left alone")
                self._left_alone = self._worker
            self._worker = None
            self._others.nobody()

    # ---- changes while it runs ----------------------------------------------------------------------------------------

    def _state_name(self) -> str:
        return "active" if self._active else "unconfigured" if self._estimator is None else "inactive"

    def _on_new_parameters(self, values: dict) -> None:
        self._settings = dataclasses.replace(self._settings, **values)
        if "log_level" in values:
            self._set_log_level()

    def _set_log_level(self) -> None:
        self.get_logger().set_level(LoggingSeverity[self._settings.log_level.upper()])

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        """Work or rest while active; what was asked for stands over deactivation, too."""
        self._enabled = request.data
        if self._active and self._enabled and self._worker is None:
            self._start_work()
        elif not self._enabled:
            self._stop_work()
        response.success = True
        response.message = f"{'enabled' if self._enabled else 'disabled'}; the node is {self._state_name()}"
        return response

    # ---- frames -----------------------------------------------------------------------------------------------------

    def _submit(self, message, arrival: float) -> None:
        if self._worker is not None:
            self._worker.submit((message, arrival))

    def _process(self, frame) -> None:
        """In the worker: one image becomes one BodyArray, then markers and overlay for those who listen."""
        message, arrival = frame
        statistics, settings, subscriptions = self._statistics, self._settings, self._inputs
        if subscriptions is None:
            return
        header = message.header
        statistics.took("wait", time.monotonic() - arrival)
        try:
            with statistics.stage("convert"):
                refuse_too_many_pixels(message, settings.max_pixels)
                self._to_image.bit_depth = settings.bit_depth
                image = self._to_image(message)
        except ValueError as error:
            statistics.malformed += 1
            self.get_logger().error(str(error), throttle_duration_sec=THROTTLE_S)
            return
        for remark in image_remarks(message, image, settings.bit_depth):
            self._warn_once(remark)
        statistics.frame_id = header.frame_id
        camera = self._camera(subscriptions, header, image, arrival)
        with statistics.stage("depth"):
            depth = self._depth(subscriptions, header, image, camera)
        stamp = self._following(nanoseconds(header.stamp), arrival)
        if self._following.remark:
            self._warn_once(self._following.remark)
        with statistics.stage("estimate"):
            bodies = self._publishable(self._stream(image, stamp, depth=depth, intrinsics=camera, stature=settings.stature or None))
        axes, shown_header, shown = "ray" if camera is None else "camera", header, bodies
        if axes == "camera" and self._target is not None:
            axes, shown_header, shown = self._in_target_frame(header, bodies)
        with statistics.stage("publish"):
            self._bodies.publish(messages.body_array_message(
                shown, shown_header, self._estimator.reliability_source, settings.publish_vertices, axes=axes,
                depth_state="off" if subscriptions.depth is None else "missing" if depth is None else "used",
            ))  # fmt: skip
        statistics.people = shown
        statistics.published += 1
        statistics.with_depth += depth is not None
        statistics.took("latency", time.monotonic() - arrival)
        self._others.publish(shown_header, shown, header, image)
        if self._markers.get_subscription_count():
            if any(body.translation is None for body in bodies):
                self._warn_once("markers need the camera's intrinsics: publish sensor_msgs/CameraInfo on camera_info")
            self._markers.publish(self._marker_serializer(shown_header, shown))
        self._views.publish(header, image, bodies, shown_header, shown)

    def _in_target_frame(self, header, bodies: Bodies) -> tuple[str, Header, Bodies]:
        """Axes, header and bodies as they are published; nobody, after a warning, where tf2 does not know how the frames lie."""
        if header.frame_id == self._target.name:
            return "camera", header, bodies
        with self._statistics.stage("tf"):
            moved = self._target(bodies, header.frame_id, nanoseconds(header.stamp))
        if self._target.problem:
            self._warn_once(self._target.problem)
        return "target", Header(stamp=header.stamp, frame_id=self._target.name), moved

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

    def _camera(self, subscriptions: Subscriptions, header, image: np.ndarray, arrival: float) -> Camera | None:
        """The camera of an image; None, after a line in the log, where there is none. Without any CameraInfo it is Subscriptions that warns."""
        cameras = subscriptions.cameras
        camera = cameras.camera(header, image.shape[1], image.shape[0], arrival)
        if cameras.problem:
            self.get_logger().warning(cameras.problem, throttle_duration_sec=THROTTLE_S)
        for remark in cameras.remarks:
            self._warn_once(remark)
        self._statistics.camera_info = cameras.state
        return camera

    def _depth(self, subscriptions: Subscriptions, header, image: np.ndarray, camera: Camera | None) -> np.ndarray | None:
        """Metres (H, W) of the depth image that belongs to an image; None, after a warning, where there is none that can be used."""
        if subscriptions.depth is None:
            return None
        try:
            depth = subscriptions.depth.metres(header, (image.shape[1], image.shape[0]), camera, self._settings.max_pixels)
        except ValueError as error:
            self._warn_once(f"depth is not used: {error}")
            return None
        if depth is None:
            self.get_logger().warning(
                f"no depth image within {TOLERANCE_NS * 1e-6:.0f} ms of the image on {self.resolve_topic_name('depth')}: distance "
                "from apparent size", throttle_duration_sec=THROTTLE_S,
            )  # fmt: skip
        return depth

    def _report_failure(self, error: Exception) -> None:
        """A frame failed for a reason of our own: say where, and go on with the next one."""
        self._statistics.failed += 1
        where = traceback.extract_tb(error.__traceback__)[-1]
        self.get_logger().error(
            f"a frame failed with {type(error).__name__}: {error} ({where.filename}:{where.lineno})",
            throttle_duration_sec=THROTTLE_S,
        )

    def _warn_once(self, text: str) -> None:
        """The same words with other numbers are the same warning."""
        words = re.sub(r"\d+", "", text)
        if words not in self._warned:
            self._warned.add(words)
            self.get_logger().warning(text)

    # ---- diagnostics ------------------------------------------------------------------------------------------------

    def _publish_diagnostics(self) -> None:
        level, text, hardware_id = OK, self._state_name() if self._enabled else "disabled", ""
        values = {"backend": self._estimator.backend, "body model": self._estimator.body_model.name,
                  "reliability": self._estimator.reliability_source, "also published": ", ".join(self._others.names)}  # fmt: skip
        statistics, subscriptions, worker = getattr(self, "_statistics", None), self._inputs, self._worker
        if subscriptions is not None and worker is not None:
            remarks = subscriptions.check() + ([self._following.remark] if self._following.remark else [])
            remarks += [self._target.problem] if self._target is not None and self._target.problem else []
            if self.get_parameter("use_sim_time").value and not self.get_clock().now().nanoseconds:
                remarks.append("use_sim_time is true, but nothing comes on /clock")
                self._warn_once(f"{remarks[-1]}: /diagnostics has no time; start the simulator, hmr-ros replay --clock, or set it to false")
            window = statistics.window(subscriptions.received, worker.dropped)
            level, text = judge(statistics, window, self._settings, time.monotonic() - subscriptions.last_image, remarks)
            hardware_id = statistics.frame_id
            values |= {"frames in": subscriptions.received, "frames dropped": worker.dropped, "frames spared by max_rate": subscriptions.spared,
                       "frames lost before the node": subscriptions.gaps.lost}  # fmt: skip
            values |= statistics.values() | window.values(subscriptions.depth is not None)
            if subscriptions.depth is not None:
                values["depth"] = subscriptions.depth.state
            if (lost := getattr(self._stream, "people_lost", None)) is not None:
                values["people lost"] = lost
        name = f"{self.get_fully_qualified_name().lstrip('/')}: live"
        self._diagnostics.publish(diagnostic_array(self.get_clock().now().to_msg(), name, hardware_id, level, text, values))
