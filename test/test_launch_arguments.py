"""Launch arguments against the one declaration of the parameters, without launch; and what must be there before anything is started."""

import ast
import dataclasses

import pytest

pytest.importorskip("rclpy")
from hmr_ros.ros.launch_arguments import CAMERAS, NOT_HERE, camera_driver, parameter_arguments, parameter_values, require_package  # noqa: E402
from hmr_ros.ros.parameters import LiveParameters, too_late  # noqa: E402
from hmr_ros.ros.process import share_file  # noqa: E402


def test_every_parameter_is_a_launch_argument_but_those_that_make_no_sense():
    assert set(parameter_arguments()) == {f.name for f in dataclasses.fields(LiveParameters)} - NOT_HERE
    assert {"rectified", "regressor", "checkpoint", "threads", "publish_vertices", "image_reliability", "log_level", "max_rate"} <= set(parameter_arguments())


def test_the_launch_files_own_arguments_are_no_parameters():
    (table,) = [node.value for node in ast.parse(share_file("launch/live.launch.py").read_text()).body
                if isinstance(node, ast.Assign) and node.targets[0].id == "ARGUMENTS"]  # fmt: skip
    assert not {key.value for key in table.keys} & set(parameter_arguments())


def test_texts_become_values_of_the_parameters_types():
    given = {"rectified": "True", "threads": "4", "max_rate": "12.5", "checkpoint": "1e3", "backend": "", "image": "/eye"}
    assert parameter_values(given) == {"rectified": True, "threads": 4, "max_rate": 12.5, "checkpoint": "1e3"}
    assert LiveParameters(**parameter_values(given)).threads == 4


@pytest.mark.parametrize("given, words", [({"rectified": "yes"}, "rectified:=yes, expected true or false"), ({"threads": "many"}, "threads:=many")])
def test_texts_that_are_none_are_refused(given, words):
    with pytest.raises(ValueError, match=words):
        parameter_values(given)


def test_a_camera_or_rviz_without_its_package_is_refused_before_anything_starts():
    assert camera_driver("none", lambda _: False) is None
    for name, driver in CAMERAS.items():
        assert camera_driver(name, lambda package: package == driver.package) == driver
        with pytest.raises(ValueError, match=f"camera:={name} needs the ROS package {driver.package}, which is not installed; apt install"):
            camera_driver(name, lambda _: False)
    with pytest.raises(ValueError, match="camera:=gopro, expected none, v4l2"):
        camera_driver("gopro", lambda _: True)
    with pytest.raises(ValueError, match="rviz:=true needs the ROS package rviz2"):
        require_package("rviz2", "rviz:=true", lambda _: False)


@pytest.mark.parametrize("name, state, words", [
    ("backend", "active", "deactivate and clean it up"), ("backend", "inactive", "clean it up first"), ("backend", "unconfigured", ""),
    ("use_depth", "active", "deactivate it first"), ("use_depth", "inactive", ""), ("max_rate", "active", ""), ("use_sim_time", "active", ""),
])  # fmt: skip
def test_a_parameter_that_comes_too_late_is_refused_with_what_to_do(name, state, words):
    reason = too_late(name, state)
    assert words in reason and bool(reason) == bool(words)
