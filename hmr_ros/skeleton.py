"""Joint orders, bones and left/right pairs, as data: the one place that knows them.

Two skeletons meet in this package: the detectors speak COCO-17, the body model speaks SMPL-24. "Left" is always the
person's left. Nothing here computes anything.
"""

COCO_KEYPOINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear",
    "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
    "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip

SMPL_JOINTS = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle",
    "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head", "left_shoulder",
    "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hand", "right_hand",
)  # fmt: skip
SMPL_PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
SMPL_BONES = tuple((parent, joint) for joint, parent in enumerate(SMPL_PARENTS) if parent >= 0)

# The twelve joints that carry a reliability: COCO without the head (paper, "Uncertainty-aware module").
LIMB_KEYPOINTS = tuple(range(5, 17))
LIMB_NAMES = COCO_KEYPOINTS[5:]
SMPL_FROM_LIMBS = tuple(LIMB_NAMES.index(name) if name in LIMB_NAMES else None for name in SMPL_JOINTS)  # None: no reliability of its own
TORSO_KEYPOINTS = (5, 6, 11, 12)
LIMB_CHAINS = ((5, 7, 9), (6, 8, 10), (11, 13, 15), (12, 14, 16))  # arms from the shoulder, legs from the hip

# The ten bones along which depth is sampled, as left/right pairs; in drawing order too. (The paper's reliability is fed with them.)
COCO_BONES = (
    (5, 7), (6, 8), (7, 9), (8, 10), (11, 13), (12, 14), (13, 15), (14, 16), (5, 11), (6, 12),
)  # fmt: skip
# Two more segments that close the torso: depth is sampled along them as well, and overlays draw them.
COCO_TORSO = ((5, 6), (11, 12))

COCO_MIRROR = (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15)
SMPL_MIRROR = (0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22)

# Where the COCO-17 keypoints stand among the 33 BlazePose landmarks (MediaPipe's published order).
COCO_FROM_BLAZEPOSE = (0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28)

# Spread of COCO annotations around the true joint, relative to sqrt(box area): the COCO keypoint evaluation's sigmas.
COCO_SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089,
    0.089,
)  # fmt: skip
