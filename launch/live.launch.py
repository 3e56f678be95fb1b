"""camera topic → body meshes: the live node alone; the camera driver is yours.

ros2 launch hmr_ros live.launch.py image:=/camera/image_raw camera_info:=/camera/camera_info rviz:=true
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from hmr_ros.ros.process import fastdds_profile, share_file

ARGUMENTS = {
    "image": ("image", "topic of the camera's images; with image_transport compressed the topic it stands beside"),
    "camera_info": ("camera_info", "topic of their sensor_msgs/CameraInfo, for metric translations and markers"),
    "depth": ("", "topic of depth images aligned with them, for measured distances; empty: use_depth as in params_file"),
    "namespace": ("", "namespace of the node and its topics"),
    "params_file": (str(share_file("config/live.yaml")), "parameter file of the node"),
    "image_transport": ("", "raw or compressed; empty: as in params_file"),
    "backend": ("", "auto, torch, openvino or tensorrt; empty: as in params_file"),
    "body_model": ("", "path of an SMPL file; empty: as in params_file"),
    "regressor": ("", "auto, lifter or resnet18; empty: as in params_file"),
    "extractor": ("", "embedded or paper; empty: as in params_file"),
    "keypoint_rcnn": ("", "path of Keypoint R-CNN's weights, for the extractor paper; empty: as in params_file"),
    "depth_network": ("", "folder of Depth Anything V2, for the extractor paper; empty: as in params_file"),
    "checkpoint": ("", "path of a checkpoint of `hmr-ros train`; empty: as in params_file"),
    "rviz": ("false", "start RViz (package rviz2) with meshes and overlay, too"),
    "rviz_frame": ("camera", "RViz's fixed frame: the frame_id of the images, where no tf knows it"),
}
OVERRIDES = (  # an argument that is given wins over the file
    "image_transport", "backend", "body_model", "regressor", "extractor", "keypoint_rcnn", "depth_network", "checkpoint",
)  # fmt: skip


def live(context):
    """The node; only overrides that were given become parameters, so that the file keeps its say."""
    values = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    overrides = {name: values[name] for name in OVERRIDES if values[name]} | ({"use_depth": True} if values["depth"] else {})
    return [
        Node(
            package="hmr_ros",
            executable="live",
            namespace=values["namespace"],
            parameters=[values["params_file"], overrides],
            remappings=[(name, values[name]) for name in ("image", "camera_info", "depth") if values[name]],
            output="screen",
        )
    ]


def generate_launch_description():
    """Arguments, the Fast DDS profile for large messages, the node, RViz."""
    return LaunchDescription(
        [DeclareLaunchArgument(name, default_value=default, description=text) for name, (default, text) in ARGUMENTS.items()]
        + [SetEnvironmentVariable(name, value) for name, value in fastdds_profile().items()]
        + [
            OpaqueFunction(function=live),
            Node(
                package="rviz2",
                executable="rviz2",
                namespace=LaunchConfiguration("namespace"),
                arguments=["-d", str(share_file("config/hmr.rviz")), "-f", LaunchConfiguration("rviz_frame")],
                condition=IfCondition(LaunchConfiguration("rviz")),
            ),
        ]
    )
