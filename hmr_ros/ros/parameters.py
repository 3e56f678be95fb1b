"""The parameters of the live node, declared once: type, default, range and description.

The launch arguments and `hmr-ros live --help` are made from this, config/live.yaml is checked against it in a test. Each parameter says when
a new value takes effect: "now", or only where the node is not yet active ("activate") or configured ("configure"); it is refused otherwise.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor


def _parameter(default, description: str, *, choices: tuple = (), span: tuple | None = None, effect: str = "configure"):
    """``effect``: of a new value, "now", in the next "activate", the next "configure", or at the "start" of the process alone."""
    details = {"description": description, "choices": choices, "span": span, "effect": effect}
    return field(default=default, metadata=details)


@dataclass(frozen=True)
class LiveParameters:
    """All parameters of `hmr`."""

    autostart: bool = _parameter(True, "configure and activate without being asked", effect="start")
    image_transport: str = _parameter(
        "raw", "raw: sensor_msgs/Image on `image`; compressed: jpeg, png or tiff on `image/compressed`",
        choices=("raw", "compressed"), effect="activate",
    )  # fmt: skip
    image_reliability: str = _parameter(
        "best_effort", "quality of service of the image subscription; best_effort hears every publisher",
        choices=("best_effort", "reliable"), effect="activate",
    )  # fmt: skip
    rectified: bool = _parameter(False, "the images are rectified: intrinsics from CameraInfo.p, no distortion; false: k and d", effect="activate")
    bit_depth: int = _parameter(
        16, "bits of the camera where images have 16-bit values (mono16, rgb16, bayer_rggb16 and others): 2^bit_depth - 1 is white", span=(8, 16),
        effect="now",
    )  # fmt: skip
    max_pixels: int = _parameter(
        50_000_000, "images of more pixels are refused, compressed ones before they are decoded; 0: none", span=(0, 2**31 - 1), effect="now"
    )
    max_rate: float = _parameter(0.0, "frames a second that are processed at most, to spare the processor; 0: as many as it can", span=(0.0, 1000.0), effect="now")
    camera_info_timeout: float = _parameter(
        2.0, "seconds for which a CameraInfo is used after its stamp and its arrival, unless it is latched; 0: for ever", span=(0.0, 1e6), effect="now"
    )
    use_depth: bool = _parameter(
        False, "subscribe depth images on `depth` (16UC1 in mm or 32FC1 in m): distance, stature, depth proxy", effect="activate"
    )
    depth_transport: str = _parameter(
        "raw", "raw: sensor_msgs/Image on `depth`; compressedDepth: sensor_msgs/CompressedImage on `depth/compressedDepth`",
        choices=("raw", "compressedDepth"), effect="activate",
    )  # fmt: skip
    depth_to_image: str = _parameter(
        "", "how depth lies to the image: \"aligned\", or the depth camera's pose in the image camera's frame, \"x y z qx qy qz qw\"; empty: "
        "aligned where frame_id and size are equal, otherwise by tf2", effect="activate",
    )  # fmt: skip
    stature: float = _parameter(
        0.0, "metres, where everybody's is known: distance from apparent size is then more accurate; 0: unknown", span=(0.0, 2.5),
        effect="now",
    )  # fmt: skip
    backend: str = _parameter(
        "auto", "what runs networks and body; auto takes TensorRT where it is there, else torch on a GPU, else OpenVINO, else torch",
        choices=("auto", "torch", "openvino", "tensorrt"),
    )  # fmt: skip
    precision: str = _parameter(
        "auto", "auto: fp16 on a GPU, else fp32, detectors and lifter bf16 where the CPU is faster in it; fp16: tensorrt, torch on CUDA; bf16: and openvino",
        choices=("auto", "fp32", "fp16", "bf16"),
    )  # fmt: skip
    max_people: int = _parameter(8, "people in one call of a TensorRT engine; more are run in several calls", span=(1, 64))
    body_model: str = _parameter("", "path of an SMPL file (.npz or .pkl); empty: the embedded body")
    regressor: str = _parameter(
        "auto", "auto: what the checkpoint holds, without one the lifter, trained with rendered people's truth; resnet18: the paper's",
        choices=("auto", "lifter", "resnet18"),
    )  # fmt: skip
    extractor: str = _parameter(
        "embedded", "embedded: MoveNet and BlazePose; paper: Keypoint R-CNN and a depth network, for the regressor resnet18",
        choices=("embedded", "paper"),
    )  # fmt: skip
    keypoint_rcnn: str = _parameter("", "path of Keypoint R-CNN's weights for the extractor paper; empty: those in torch.hub's cache")
    depth_network: str = _parameter(
        "", "folder of Depth Anything V2, or its name in Hugging Face's cache, for the extractor paper; empty: BlazePose's coarse depth"
    )
    checkpoint: str = _parameter("", "path of a regressor.safetensors or lifter.safetensors trained here; empty: the embedded one")
    flip_averaging: bool = _parameter(
        False, "flip test-time augmentation: better, for one more BlazePose pass a person"
    )
    threads: int = _parameter(0, "CPU threads for the networks; 0: the backend's own choice", span=(0, 256))
    max_tracked_people: int = _parameter(0, "people who are followed at a time, those who were there before first; 0: everybody", span=(0, 1000), effect="activate")
    min_score: float = _parameter(0.0, "of the detection of somebody new; 0: whoever is detected", span=(0.0, 1.0), effect="activate")
    smooth_pose: bool = _parameter(True, "One-Euro filter of pose and orientation over time; false: each image by itself", effect="activate")
    smooth_translation: bool = _parameter(True, "the same of position and weak-perspective camera", effect="activate")
    steady_shape: bool = _parameter(True, "one shape for each person, which converges; false: betas of each image by itself", effect="activate")
    publish_vertices: bool = _parameter(
        True, "send the mesh in every Body (80 kB a person); without it joints and parameters only", effect="now"
    )
    target_frame: str = _parameter(
        "", "frame in which bodies are published, such as odom or map, by tf2_ros at the stamp of the image; where tf2 does not know it nobody is published; "
        "empty: the camera's",
    )  # fmt: skip
    broadcast_tf: str = _parameter(
        "auto", "frames body_<id> on /tf; auto: where tf2_msgs is installed; always: refused where it is not", choices=("auto", "always", "never")
    )
    publish_hri: str = _parameter(
        "auto", "ROS4HRI's topics below /humans/bodies; auto: where hri_msgs is installed; always: refused where it is not", choices=("auto", "always", "never")
    )
    log_level: str = _parameter("info", "of the node's own lines", choices=("debug", "info", "warn", "error", "fatal"), effect="now")
    warn_silence: float = _parameter(3.0, "seconds without an image, or without CameraInfo: a warning in log and /diagnostics", span=(0.1, 1e6), effect="now")
    error_silence: float = _parameter(10.0, "seconds without an image: an error in /diagnostics; 0: never", span=(0.0, 1e6), effect="now")
    warn_drop_share: float = _parameter(0.5, "share of the frames that are dropped: a warning in /diagnostics; 0: never", span=(0.0, 1.0), effect="now")
    error_drop_share: float = _parameter(0.95, "the same for an error; 0: never", span=(0.0, 1.0), effect="now")
    warn_latency: float = _parameter(0.5, "seconds from image to bodies, 95th percentile: a warning in /diagnostics; 0: never", span=(0.0, 1e3), effect="now")
    error_latency: float = _parameter(2.0, "the same for an error; 0: never", span=(0.0, 1e3), effect="now")

    def __post_init__(self):
        for f in dataclasses.fields(self):
            problem = problem_with(f.name, getattr(self, f.name))
            if problem:
                raise ValueError(problem)


NAMES = frozenset(f.name for f in dataclasses.fields(LiveParameters))
EFFECTS = {"now": "at once", "activate": "in the next `activate`", "configure": "in the next `configure`", "start": "at the start only"}


def depth_transform(text: str) -> tuple[float, ...] | None:
    """Seven numbers of ``depth_to_image``; None for "" and "aligned". ValueError for anything else."""
    if text in ("", "aligned"):
        return None
    try:
        numbers = tuple(float(word) for word in text.split())
    except ValueError:
        numbers = ()
    if len(numbers) != 7 or not all(math.isfinite(n) for n in numbers) or abs(math.hypot(*numbers[3:]) - 1) > 0.01:
        raise ValueError(f'parameter depth_to_image is "{text}", expected "", "aligned" or "x y z qx qy qz qw" with a quaternion of length 1')
    return numbers


def problem_with(name: str, value) -> str:
    """Why ``value`` cannot be the parameter ``name``, in words; empty if it can, or if it is no parameter of ours."""
    f = next((f for f in dataclasses.fields(LiveParameters) if f.name == name), None)
    if f is None:
        return ""
    if type(value) is not type(f.default):
        return f"parameter {name} is {value!r}, expected a {type(f.default).__name__}"
    choices, span = f.metadata["choices"], f.metadata["span"]
    if choices and value not in choices:
        return f'parameter {name} is "{value}", expected one of {", ".join(choices)}'
    if span and not span[0] <= value <= span[1]:
        return f"parameter {name} is {value}, expected {span[0]} to {span[1]}"
    if name == "depth_to_image":
        try:
            depth_transform(value)
        except ValueError as error:
            return str(error)
    return ""


def too_late(name: str, state: str) -> str:
    """Why a new value of the parameter ``name`` has no effect in ``state`` ("unconfigured", "inactive" or "active"); empty where it has."""
    f = next((f for f in dataclasses.fields(LiveParameters) if f.name == name), None)
    effect = f.metadata["effect"] if f else "now"
    if effect == "activate" and state == "active":
        return f"parameter {name} takes effect in `activate`, the node is active: deactivate it first"
    if effect == "configure" and state != "unconfigured":
        first = "deactivate and clean it up" if state == "active" else "clean it up"
        return f"parameter {name} takes effect in `configure`, the node is {state}: {first} first"
    return ""


def declare_parameters(node, state: Callable[[], str], changed: Callable[[dict], None]) -> None:
    """Declare all of them on ``node`` and refuse impossible values, at the start and later, and those that come too late in its ``state()``.

    ``changed`` gets names and values that were accepted later.
    """
    from rcl_interfaces.msg import SetParametersResult

    declared = False

    def check(parameters) -> SetParametersResult:
        new = [p for p in parameters if not declared or (p.name in NAMES and p.value != node.get_parameter(p.name).value)]
        problems = [problem for p in new if (problem := problem_with(p.name, p.value) or (declared and too_late(p.name, state())))]
        if declared and not problems:
            changed({p.name: p.value for p in new})
        return SetParametersResult(successful=not problems, reason="; ".join(problems))

    node.add_on_set_parameters_callback(check)
    for f in dataclasses.fields(LiveParameters):
        choices, span = f.metadata["choices"], f.metadata["span"]
        node.declare_parameter(f.name, f.default, ParameterDescriptor(
            description=f"{f.metadata['description']} (takes effect: {EFFECTS[f.metadata['effect']]})",
            additional_constraints=f"one of {', '.join(choices)}" if choices else "",
            integer_range=[IntegerRange(from_value=span[0], to_value=span[1], step=1)] if span and isinstance(f.default, int) else [],
            floating_point_range=[FloatingPointRange(from_value=span[0], to_value=span[1])] if span and isinstance(f.default, float) else [],
            read_only=f.metadata["effect"] == "start",
        ))  # fmt: skip
    declared = True


def unknown_parameters(node) -> list[str]:
    """A line for each parameter that somebody set on ``node`` and it does not have: mistyped, perhaps."""
    known = [f.name for f in dataclasses.fields(LiveParameters)]
    lines = []
    for name in getattr(node, "_parameter_overrides", {}):  # rclpy has no public name for what was asked for
        if not node.has_parameter(name) and not name.startswith("qos_overrides."):
            near = difflib.get_close_matches(name, known, n=1)
            lines.append(f"parameter {name} is not known and has no effect" + (f"; do you mean {near[0]}?" if near else ""))
    return lines


def read_parameters(node) -> LiveParameters:
    """The values of ``node`` now."""
    return LiveParameters(**{f.name: node.get_parameter(f.name).value for f in dataclasses.fields(LiveParameters)})


def describe_parameters() -> str:
    """A line for each parameter, for help texts."""
    lines = []
    for f in dataclasses.fields(LiveParameters):
        default = '""' if f.default == "" else str(f.default).lower() if isinstance(f.default, bool) else f.default
        choices = f" [{'|'.join(f.metadata['choices'])}]" if f.metadata["choices"] else ""
        lines.append(f"  {f.name}:={default}{choices}\n      {f.metadata['description']}; {EFFECTS[f.metadata['effect']]}")
    return "\n".join(lines)
