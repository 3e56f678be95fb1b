"""bag, video or pictures → body meshes: a replay beside the live node, until the source ends.

ros2 launch hmr_ros replay.launch.py source:=walk.mp4 loop:=true rviz:=true
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from hmr_ros.ros.process import fastdds_profile

LIVE = str(Path(__file__).resolve().with_name("live.launch.py"))
ARGUMENTS = {
    "rate": ("0", "images a second; 0: the source's own rate"),
    "loop": ("false", "begin again at the end of the source"),
    "start": ("0", "begin so many seconds after the beginning of the source"),
    "depth_topic": ("", "depth topic inside the bag, published where live.launch.py subscribes depth"),
    "clock": ("false", "publish the stamps of the images as /clock; with use_sim_time:=true the node follows them"),
    "topic": ("", "image topic inside the bag, where it has several"),
    "fov": ("60", "horizontal field of view in degrees, where the source has no camera_info"),
}


def replay(context):
    """The replay; its end is the end of everything. It publishes where live.launch.py subscribes."""
    names = ("source", "namespace", "image", "camera_info", "depth", "depth_camera_info", *ARGUMENTS)
    values = {name: LaunchConfiguration(name).perform(context) for name in names}
    arguments = [values["source"], "--rate", values["rate"], "--fov", values["fov"], "--start", values["start"]]
    arguments += ["--depth-topic", values["depth_topic"]] if values["depth_topic"] else []
    arguments += ["--topic", values["topic"]] if values["topic"] else []
    arguments += ["--loop"] if values["loop"].lower() in ("true", "1") else []
    arguments += ["--clock"] if values["clock"].lower() in ("true", "1") else []
    return [
        Node(
            package="hmr_ros",
            executable="replay",
            namespace=values["namespace"],
            arguments=arguments,
            remappings=[
                ("image", values["image"]),
                ("image/compressed", f"{values['image']}/compressed"),
                ("camera_info", values["camera_info"]),
                *([("depth", values["depth"]), ("depth/compressedDepth", f"{values['depth']}/compressedDepth")] if values["depth"] else []),
                *([("depth_camera_info", values["depth_camera_info"])] if values["depth_camera_info"] else []),
            ],
            output="screen",
            on_exit=Shutdown(reason="the source has ended"),
        )
    ]


def generate_launch_description():
    """live.launch.py with all its arguments, and the replay."""
    return LaunchDescription(
        [DeclareLaunchArgument("source", description="bag, video, picture, folder of pictures or index of a camera")]
        + [DeclareLaunchArgument(name, default_value=default, description=text) for name, (default, text) in ARGUMENTS.items()]
        + [SetEnvironmentVariable(name, value) for name, value in fastdds_profile().items()]
        + [IncludeLaunchDescription(PythonLaunchDescriptionSource(LIVE)), OpaqueFunction(function=replay)]
    )
