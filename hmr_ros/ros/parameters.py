"""The parameters of the live node, declared once: type, default, range and description.

config/live.yaml and the launch arguments are checked against this in a test, `hmr-ros live --help` is printed from it.
"""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass, field

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor


def _parameter(default, description: str, *, choices: tuple = (), span: tuple | None = None, fixed: bool = False):
    details = {"description": description, "choices": choices, "span": span, "fixed": fixed}
    return field(default=default, metadata=details)


@dataclass(frozen=True)
class LiveParameters:
    """All parameters of `hmr`. Unless a description says otherwise a new value takes effect in the next `configure`."""

    autostart: bool = _parameter(True, "configure and activate without being asked", fixed=True)
    image_transport: str = _parameter(
        "raw", "raw: sensor_msgs/Image on `image`; compressed: jpeg, png or tiff on `image/compressed`",
        choices=("raw", "compressed"),
    )  # fmt: skip
    image_reliability: str = _parameter(
        "best_effort", "quality of service of the image subscription; best_effort hears every publisher",
        choices=("best_effort", "reliable"),
    )  # fmt: skip
    rectified: bool = _parameter(False, "the images are rectified: intrinsics from CameraInfo.p, no distortion; false: k and d")
    bit_depth: int = _parameter(
        16, "bits of the camera where images have 16-bit values (mono16, rgb16, bayer_rggb16 and others): 2^bit_depth - 1 is white", span=(8, 16)
    )
    use_depth: bool = _parameter(
        False, "subscribe depth images aligned with the images on `depth` (16UC1 in mm or 32FC1 in m): distance, stature, depth proxy"
    )
    stature: float = _parameter(
        0.0, "metres, where everybody's is known: distance from apparent size is then more accurate; 0: unknown", span=(0.0, 2.5)
    )
    backend: str = _parameter(
        "auto", "what runs networks and body; auto takes TensorRT where it is there, else OpenVINO, else torch",
        choices=("auto", "torch", "openvino", "tensorrt"),
    )  # fmt: skip
    precision: str = _parameter(
        "fp32", "of the regressor and the body; fp16: tensorrt, and torch on CUDA; bf16: these, and openvino where the CPU has it",
        choices=("fp32", "fp16", "bf16"),
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
    max_tracked_people: int = _parameter(0, "people who are followed at a time, those who were there before first; 0: everybody", span=(0, 1000))
    min_score: float = _parameter(0.0, "of the detection of somebody new; 0: whoever is detected", span=(0.0, 1.0))
    smooth_pose: bool = _parameter(True, "One-Euro filter of pose and orientation over time; false: each image by itself")
    smooth_translation: bool = _parameter(True, "the same of position and weak-perspective camera")
    steady_shape: bool = _parameter(True, "one shape for each person, which converges; false: betas of each image by itself")
    publish_vertices: bool = _parameter(
        True, "send the mesh in every Body (80 kB a person); without it joints and parameters only. Takes effect at once"
    )

    def __post_init__(self):
        for f in dataclasses.fields(self):
            problem = problem_with(f.name, getattr(self, f.name))
            if problem:
                raise ValueError(problem)


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
    return ""


def declare_parameters(node) -> None:
    """Declare all of them on ``node`` and refuse impossible values, at the start and later."""
    from rcl_interfaces.msg import SetParametersResult

    def check(parameters) -> SetParametersResult:
        problems = [problem for p in parameters if (problem := problem_with(p.name, p.value))]
        return SetParametersResult(successful=not problems, reason="; ".join(problems))

    node.add_on_set_parameters_callback(check)
    for f in dataclasses.fields(LiveParameters):
        choices, span = f.metadata["choices"], f.metadata["span"]
        node.declare_parameter(f.name, f.default, ParameterDescriptor(
            description=f.metadata["description"],
            additional_constraints=f"one of {', '.join(choices)}" if choices else "",
            integer_range=[IntegerRange(from_value=span[0], to_value=span[1], step=1)] if span and isinstance(f.default, int) else [],
            floating_point_range=[FloatingPointRange(from_value=span[0], to_value=span[1])] if span and isinstance(f.default, float) else [],
            read_only=f.metadata["fixed"],
        ))  # fmt: skip


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
        lines.append(f"  {f.name}:={default}{choices}\n      {f.metadata['description']}")
    return "\n".join(lines)
