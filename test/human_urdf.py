"""ROS4HRI's human URDF as numbers, for tests: joints, axes and limbs of ros4hri/human_description (urdf/human-tpl.xacro, 2024), and its forward kinematics."""

import numpy as np
from scipy.spatial.transform import Rotation

# joint → (parent link, child link, axis in the parent's axes); zero pose: all links' axes are those of the body, x forward, y left, z up.
JOINTS = {"waist": ("body", "torso", (0, 1, 0)), "r_head": ("torso", "r_head", (1, 0, 0)), "y_head": ("r_head", "y_head", (0, 0, 1)),
          "p_head": ("y_head", "head", (0, -1, 0))}  # fmt: skip
for side, reflect in (("l", 1), ("r", -1)):
    JOINTS |= {
        f"{side}_y_shoulder": ("torso", f"{side}_y_shoulder", (0, 0, -reflect)),
        f"{side}_p_shoulder": (f"{side}_y_shoulder", f"{side}_p_shoulder", (reflect, 0, 0)),
        f"{side}_r_shoulder": (f"{side}_p_shoulder", f"{side}_shoulder", (0, 0, reflect)),
        f"{side}_elbow": (f"{side}_shoulder", f"{side}_elbow", (0, -1, 0)),
        f"{side}_y_hip": ("body", f"{side}_y_hip", (0, 0, -1)),
        f"{side}_p_hip": (f"{side}_y_hip", f"{side}_p_hip", (reflect, 0, 0)),
        f"{side}_r_hip": (f"{side}_p_hip", f"{side}_hip", (0, -1, 0)),
        f"{side}_knee": (f"{side}_hip", f"{side}_knee", (0, -1, 0)),
    }  # fmt: skip
LIMB = np.array([0.0, 0.0, -1.0])  # along which a link of an arm or a leg lies


def links(angles):
    """Joint → radians, as robot_state_publisher reads them; gives link → orientation (3, 3) in the body's frame."""
    turned = {"body": np.eye(3)}
    for joint, (parent, child, axis) in JOINTS.items():
        turned[child] = turned[parent] @ Rotation.from_rotvec(angles[joint] * np.array(axis, float)).as_matrix()
    return turned
