"""camera topic → body meshes: the live node, and a camera driver and RViz where they are asked for and installed.

ros2 launch hmr_ros live.launch.py image:=/camera/image_raw camera_info:=/camera/camera_info rviz:=true
ros2 launch hmr_ros live.launch.py camera:=v4l2
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from hmr_ros.ros.launch_arguments import camera_driver, is_installed, parameter_arguments, parameter_values, require_package, typed
from hmr_ros.ros.process import fastdds_profile, share_file

ARGUMENTS = {
    "image": ("image", "topic of the camera's images; with image_transport compressed the topic it stands beside"),
    "camera_info": ("camera_info", "topic of their sensor_msgs/CameraInfo, for metric translations and markers"),
    "depth": ("", "topic of depth images, for measured distances; empty: use_depth as in params_file"),
    "depth_camera_info": ("", "topic of the depth camera's CameraInfo, where depth is not aligned with the images"),
    "camera": ("none", "driver to start: none, v4l2, usb or realsense, with its own defaults; image and camera_info are then its topics"),
    "namespace": ("", "namespace of the node and its topics"),
    "params_file": (str(share_file("config/live.yaml")), "parameter file of the node"),
    "use_sim_time": ("", "true: the clock is /clock, as of a simulator; empty: as in params_file"),
    "rviz": ("false", "start RViz (package rviz2) with meshes and overlay, too"),
    "rviz_frame": ("camera", "RViz's fixed frame: the frame_id of the images, where no tf knows it"),
}
TOPICS = ("image", "camera_info", "depth", "depth_camera_info")


def live(context):
    """All that is started; what is missing is found before. Only overrides that were given become parameters, so that the file keeps its say."""
    values = {name: LaunchConfiguration(name).perform(context) for name in (*ARGUMENTS, *parameter_arguments())}
    driver = camera_driver(values["camera"], is_installed)
    rviz = typed("rviz", values["rviz"], bool)
    if rviz:
        require_package("rviz2", "rviz:=true", is_installed)
    overrides = parameter_values(values) | ({"use_depth": True} if values["depth"] else {})
    clock = {"use_sim_time": typed("use_sim_time", values["use_sim_time"], bool)} if values["use_sim_time"] else {}
    overrides = {name: ParameterValue(value, value_type=str) if isinstance(value, str) else value for name, value in overrides.items()}
    nodes = [
        Node(
            package="hmr_ros",
            executable="live",
            namespace=values["namespace"],
            parameters=[values["params_file"], overrides | clock],
            remappings=[(name, values[name]) for name in TOPICS if values[name]],
            output="screen",
        )
    ]
    if driver is not None:
        nodes.append(Node(
            package=driver.package, executable=driver.executable, name="camera", namespace=values["namespace"], output="screen",
            parameters=[clock], remappings=[(driver.image, values["image"]), (driver.camera_info, values["camera_info"])],
        ))  # fmt: skip
    if rviz:
        nodes.append(Node(
            package="rviz2", executable="rviz2", namespace=values["namespace"], parameters=[clock],
            arguments=["-d", str(share_file("config/hmr.rviz")), "-f", values["rviz_frame"]],
        ))  # fmt: skip
    return nodes


def generate_launch_description():
    """Arguments, the Fast DDS profile for large messages, the nodes."""
    arguments = ARGUMENTS | parameter_arguments()
    return LaunchDescription(
        [DeclareLaunchArgument(name, default_value=default, description=text) for name, (default, text) in arguments.items()]
        + [SetEnvironmentVariable(name, value) for name, value in fastdds_profile().items()]
        + [OpaqueFunction(function=live)]
    )
