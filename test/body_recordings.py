"""Recordings of people with known poses for tests: estimates of a posed body model, and bags of BodyArrays."""

from dataclasses import replace

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from scipy.spatial.transform import Rotation

from hmr_ros.estimate import BodyEstimate
from hmr_ros.geometry import pinhole

RATE, START = 20.0, 1_700_000_000.0
WIDTH, HEIGHT = 640, 480
INTRINSICS = pinhole(WIDTH, HEIGHT, 60)
FACING = Rotation.from_euler("x", 180, degrees=True)  # upright in the camera's optical frame, facing it


def posed(model, seed, frames=12, identity="a1b2c", place=(0.2, 0.3, 3.0)):
    """Somebody who moves smoothly from one random pose to another: ``frames`` estimates in camera axes, with one shape."""
    import torch

    rng = np.random.default_rng(seed)
    ends = [0.5 * rng.normal(size=(23, 3)) for _ in range(2)]
    betas = rng.normal(size=10).astype(np.float32) * ([0.3] + [0.5] * 9)
    bodies = []
    for i in range(frames):
        share = i / max(frames - 1, 1)
        pose = (1 - share) * ends[0] + share * ends[1]
        orient = (FACING * Rotation.from_rotvec([0.1 * share, 2.0 * share, 0.1])).as_rotvec()
        rotvec = Rotation.from_rotvec(np.concatenate([orient[None], pose]))
        with torch.no_grad():
            output = model(torch.from_numpy(rotvec.as_matrix()[None]).float(), torch.from_numpy(betas[None]).float())
        vertices, joints = output.vertices[0].numpy(), output.joints[0].numpy()
        translation = np.array(place, np.float32) + [0.5 * share, 0, 0.2 * share]
        pixels = (output.keypoints[0].numpy() + translation) @ np.array([[INTRINSICS.fx, 0, 0], [0, INTRINSICS.fy, 0], [INTRINSICS.cx, INTRINSICS.cy, 1]])
        pixels = (pixels[:, :2] / pixels[:, 2:]).astype(np.float32)
        rotvec = rotvec.as_rotvec().astype(np.float32)
        bodies.append(BodyEstimate(
            id=identity, score=0.9, box=np.float32([*pixels.min(0), *pixels.max(0)]), keypoints=np.column_stack([pixels, np.ones(17)]).astype(np.float32),
            reliability=np.linspace(0, 1, 12).astype(np.float32), global_orient=rotvec[0], body_pose=rotvec[1:].ravel(), betas=betas.astype(np.float32),
            crop=np.float32([320, 240, 400]), weak_camera=np.float32([1, 0, 0]), translation=translation.astype(np.float32), joints=joints,
            vertices=vertices, projected_keypoints=pixels, axes="camera", translation_source="depth",
        ))  # fmt: skip
    return bodies


def without_mesh(body):
    return replace(body, vertices=body.vertices[:0])


def write_bodies(folder, model, people, plugin="mcap", vertices=False, with_info=True, picture=None):
    """A rosbag2 as `ros2 bag record` makes it: messages of rclpy. ``people``: tracks of :func:`posed`, image by image. ``picture``: (H, W, 3) BGR,
    recorded with each of them."""
    from hmr_ros.io.body_bags import typestore
    from hmr_ros.ros.inputs import image_to_message, intrinsics_to_message
    from hmr_ros.ros.messages import body_array_message, body_model_message
    from rclpy.serialization import serialize_message
    from std_msgs.msg import Header

    store = typestore()
    writer = Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP if plugin == "mcap" else StoragePlugin.SQLITE3)
    with writer:
        arrays = writer.add_connection("/bodies", "hmr_ros/msg/BodyArray", typestore=store)
        models = writer.add_connection("/body_model", "hmr_ros/msg/BodyModel", typestore=store)
        infos = writer.add_connection("/camera_info", "sensor_msgs/msg/CameraInfo", typestore=store)
        images = None if picture is None else writer.add_connection("/image", "sensor_msgs/msg/Image", typestore=store)
        writer.write(models, int(START * 1e9), serialize_message(body_model_message(model)))
        for i, bodies in enumerate(zip(*people, strict=True)):
            nanoseconds = int(START) * 10**9 + round(i * 1e9 / RATE)
            header = Header(frame_id="camera")
            header.stamp.sec, header.stamp.nanosec = divmod(nanoseconds, 10**9)
            if with_info:
                writer.write(infos, nanoseconds, serialize_message(intrinsics_to_message(INTRINSICS, WIDTH, HEIGHT, header)))
            if images is not None:
                writer.write(images, nanoseconds, serialize_message(image_to_message(picture, header)))
            message = body_array_message(list(bodies), header, "learned", vertices, axes="camera", depth_state="used")
            writer.write(arrays, nanoseconds, serialize_message(message))
    return folder
