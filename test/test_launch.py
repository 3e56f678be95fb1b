"""Both launch files, run by ROS 2's own launch and launch_ros where they import (a robot has them, the wheels do not)."""

import importlib.util
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("launch_ros", reason="launch_ros is not here: it comes with a ROS 2 installation, not with the wheels")
from launch import LaunchDescription  # noqa: E402
from launch.actions import DeclareLaunchArgument  # noqa: E402

from hmr_ros.ros.node import LiveParameters  # noqa: E402
from hmr_ros.ros.process import share_file  # noqa: E402

PATIENCE = 120.0  # loading the models on a busy machine included
RUN = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
file, *arguments = sys.argv[1:]
service = LaunchService()
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(
    PythonLaunchDescriptionSource(file), launch_arguments=[a.split(":=", 1) for a in arguments])]))
sys.exit(service.run())
"""


def description(name) -> LaunchDescription:
    spec = importlib.util.spec_from_loader(name, loader=None)
    module = importlib.util.module_from_spec(spec)
    path = share_file(f"launch/{name}.launch.py")
    module.__file__ = str(path)
    exec(compile(path.read_text(), str(path), "exec"), module.__dict__)
    return module.generate_launch_description()


def declared(name):
    return {a.name: a for a in description(name).entities if isinstance(a, DeclareLaunchArgument)}


@pytest.fixture
def launch(tmp_path):
    """Starts ``launch FILE ARGUMENTS`` as the leader of a process group, as a terminal would."""
    environment = dict(os.environ, ROS_LOG_DIR=str(tmp_path), PYTHONUNBUFFERED="1")
    environment.setdefault("AMENT_PREFIX_PATH", sys.prefix)
    log = tmp_path / "launch.log"
    started = []

    def launch(name, *arguments):
        file = str(share_file(f"launch/{name}.launch.py"))
        with open(log, "wb") as out:
            process = subprocess.Popen([sys.executable, "-P", "-c", RUN, file, *arguments], stdout=out, stderr=out,
                                       env=environment, start_new_session=True)  # fmt: skip
        started.append(process)
        return process, log

    yield launch
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for_text(words, process, log):
    deadline = time.monotonic() + PATIENCE
    while words not in log.read_text():
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


@pytest.mark.parametrize("name", ["live", "replay"])
def test_arguments_are_described_and_overrides_are_parameters(name):
    arguments = declared(name)
    assert all(len(argument.description) > 10 for argument in arguments.values())
    if name == "live":
        assert set(vars(LiveParameters())) - {"autostart", "use_depth"} <= set(arguments)


@pytest.mark.parametrize("argument, words", [
    ("rviz:=true", "rviz:=true needs the ROS package rviz2, which is not installed"), ("camera:=v4l2", "needs the ROS package v4l2_camera"),
    ("rectified:=yes", "rectified:=yes, expected true or false"),
])  # fmt: skip
def test_what_cannot_be_is_refused_before_the_node_starts(launch, argument, words):
    process, log = launch("live", argument)
    assert process.wait(PATIENCE) == 1, log.read_text()
    assert words in log.read_text() and "process started" not in log.read_text()


@pytest.mark.slow
def test_ctrl_c_twice_ends_the_live_launch_cleanly(launch):
    process, log = launch("live", "image:=/eye/image_raw", "namespace:=robot", "max_rate:=20", "log_level:=info", "use_sim_time:=false")
    wait_for_text("waiting for images on /eye/image_raw", process, log)
    os.killpg(process.pid, signal.SIGINT)  # the terminal's signal reaches the node itself, and launch sends another
    assert process.wait(PATIENCE) == 0, log.read_text()
    assert "process has finished cleanly" in log.read_text() and "Traceback" not in log.read_text()


@pytest.mark.slow
def test_replay_launch_ends_with_its_source(launch, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((48, 64, 3), np.uint8))
    process, log = launch("replay", f"source:={tmp_path / 'a.png'}", "namespace:=eye")
    assert process.wait(PATIENCE) == 0, log.read_text()
    text = log.read_text()
    assert "waiting for images on /eye/image" in text and "published 1 images" in text
    assert text.count("process has finished cleanly") == 2 and "Traceback" not in text
