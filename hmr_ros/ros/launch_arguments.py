"""What the launch files share and no ROS is needed for: launch arguments made of the node's parameters, camera drivers, packages that must be there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

from hmr_ros.ros.parameters import LiveParameters

NOT_HERE = {"autostart", "use_depth"}  # the launch configures the node by itself; the argument `depth` says use_depth
FLAGS = {"true": True, "1": True, "false": False, "0": False}


class CameraDriver(NamedTuple):
    """A camera's node, and its topics under the node's name (which is "camera")."""

    package: str
    executable: str
    image: str
    camera_info: str


CAMERAS = {
    "v4l2": CameraDriver("v4l2_camera", "v4l2_camera_node", "image_raw", "camera_info"),
    "usb": CameraDriver("usb_cam", "usb_cam_node_exe", "image_raw", "camera_info"),
    "realsense": CameraDriver("realsense2_camera", "realsense2_camera_node", "camera/color/image_raw", "camera/color/camera_info"),
}


def parameter_arguments() -> dict[str, tuple[str, str]]:
    """Name → (default, description) of a launch argument for every parameter; empty: as in params_file."""
    arguments = {}
    for field in dataclasses.fields(LiveParameters):
        if field.name not in NOT_HERE:
            choices = f" [{'|'.join(field.metadata['choices'])}]" if field.metadata["choices"] else ""
            arguments[field.name] = ("", f"{field.metadata['description']}{choices}; empty: as in params_file")
    return arguments


def parameter_values(texts: dict[str, str]) -> dict[str, bool | int | float | str]:
    """The arguments that were given (not empty), as values of the parameters' types. ValueError for a text that is none."""
    defaults = dataclasses.asdict(LiveParameters())
    values = {}
    for name, text in texts.items():
        if text and name in defaults:
            values[name] = typed(name, text, type(defaults[name]))
    return values


def typed(name: str, text: str, kind: type) -> bool | int | float | str:
    """``text`` of the argument ``name`` as bool, int, float or str. ValueError otherwise."""
    if kind is bool:
        if text.lower() not in FLAGS:
            raise ValueError(f'{name}:={text}, expected true or false')
        return FLAGS[text.lower()]
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{name}:={text}, expected a number ({kind.__name__})") from None


def camera_driver(name: str, has_package: Callable[[str], bool]) -> CameraDriver | None:
    """The driver of ``camera:=name``; None for "none". ValueError for another one, and where its package is not installed."""
    if name == "none":
        return None
    if name not in CAMERAS:
        raise ValueError(f"camera:={name}, expected none, {', '.join(CAMERAS)}")
    require_package(CAMERAS[name].package, f"camera:={name}", has_package)
    return CAMERAS[name]


def require_package(package: str, what: str, has_package: Callable[[str], bool]) -> None:
    """ValueError where ``what`` needs a ROS package that is not installed: before anything is started."""
    if not has_package(package):
        raise ValueError(f"{what} needs the ROS package {package}, which is not installed; apt install ros-$ROS_DISTRO-{package.replace('_', '-')}")


def is_installed(package: str) -> bool:
    """Whether the ament index knows a package."""
    from ament_index_python.packages import PackageNotFoundError, get_package_prefix

    try:
        get_package_prefix(package)
    except PackageNotFoundError:
        return False
    return True
