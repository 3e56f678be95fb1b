"""Motion capture as SMPL axis-angle poses: the material for rendered people and for the pose prior.

Two packages carry clean motion capture. Bullet's humanoid motions are joint rotations already and only change basis; holosoma's
climbing sequences are joint positions and need inverse kinematics, done here by optimisation over all frames at once.

    pip download --no-deps pybullet==3.2.7 holosoma-retargeting==0.1.0
    python tools/derive_poses.py --bullet pybullet-3.2.7-*.whl --holosoma holosoma_retargeting-0.1.0-*.whl --out hmr_ros/assets/poses.npz

The file: ``poses`` (N, 72) float16, radians, global orientation then the 23 joints in SMPL's order, y up, a person with zero rotation
faces +z with the left hand at +x (headings are as recorded); ``clip`` (N,) index into ``clip_names``; ``fps`` per clip. Frames of a clip
are consecutive. Left and right are the person's.
"""
from __future__ import annotations

import argparse
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation

SMPL = ("pelvis left_hip right_hip spine1 left_knee right_knee spine2 left_ankle right_ankle spine3 left_foot right_foot neck left_collar "
        "right_collar head left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist left_hand right_hand").split()
PARENTS = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]
JOINT = {name: i for i, name in enumerate(SMPL)}

THUMB = (.03, -.01, .03)  # a point beside the left wrist, in front of it when the palm faces down: it tells the forearm's twist

# --- Bullet: joint rotations --------------------------------------------------------------------------------------------------------

TO_SMPL = np.array([[0, 0, -1], [0, 1, 0], [1, 0, 0]], float)  # Bullet's humanoid faces +x, y up, its right at +z
BULLET_FILES = "pybullet_data/data/motions/"
BULLET_COLUMNS = {"root": 4, "chest": 8, "neck": 12, "right_hip": 16, "right_knee": 20, "right_ankle": 21, "right_shoulder": 25,
                  "right_elbow": 29, "left_hip": 30, "left_knee": 34, "left_ankle": 35, "left_shoulder": 39, "left_elbow": 43}
HINGES = ("right_knee", "right_elbow", "left_knee", "left_elbow")


def bullet_poses(frames: np.ndarray) -> np.ndarray:
    """Frames (N, 44): dt, root position, root and joint quaternions (w, x, y, z), hinge angles → poses (N, 72)."""
    def rotation(name):
        column = BULLET_COLUMNS[name]
        if name in HINGES:
            local = Rotation.from_rotvec(frames[:, column, None] * [0, 0, 1.0])
        else:
            local = Rotation.from_quat(frames[:, [column + 1, column + 2, column + 3, column]])
        return Rotation.from_matrix(TO_SMPL @ local.as_matrix() @ TO_SMPL.T)

    poses = np.zeros((len(frames), 24, 3))
    poses[:, JOINT["pelvis"]] = rotation("root").as_rotvec()
    for name in ("spine1", "spine2", "spine3"):  # one chest joint there, three here
        poses[:, JOINT[name]] = rotation("chest").as_rotvec() / 3
    for name in ("neck", "head"):
        poses[:, JOINT[name]] = rotation("neck").as_rotvec() / 2
    for side, sign in (("left", -1), ("right", 1)):
        for part in ("hip", "knee", "ankle"):
            poses[:, JOINT[f"{side}_{part}"]] = rotation(f"{side}_{part}").as_rotvec()
        hanging = Rotation.from_euler("z", sign * 90, degrees=True)  # from the T-pose to Bullet's rest pose with hanging arms
        poses[:, JOINT[f"{side}_shoulder"]] = (rotation(f"{side}_shoulder") * hanging).as_rotvec()
        poses[:, JOINT[f"{side}_elbow"]] = (hanging.inv() * rotation(f"{side}_elbow") * hanging).as_rotvec()
    return poses.reshape(-1, 72)


def bullet_clips(wheel: Path):
    """All humanoid motions of pybullet_data: yields (name, fps, poses)."""
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            short = name.rpartition(BULLET_FILES)[2]
            if BULLET_FILES not in name or not short.endswith(".txt") or "laikago" in short:
                continue
            frames = np.array(json.loads(archive.read(name))["Frames"], float)
            if frames.shape[1] != 44:
                raise ValueError(f"{name}: {frames.shape[1]} columns, a humanoid motion has 44")
            clip = short.removesuffix(".txt").replace("humanoid3d_", "").replace("/", "_")
            yield f"bullet/{clip}", 1 / frames[0, 0], bullet_poses(frames)


# --- holosoma: joint positions ------------------------------------------------------------------------------------------------------

HOLOSOMA_STEP = 4  # the package's own reader takes every fourth frame of the 120 Hz recording
HOLOSOMA_FPS = 30.0
HOLOSOMA_FINGERS = [f"{finger}{i}" for finger in ("Thumb", "Index", "Middle", "Ring", "Pinky") for i in (1, 2, 3)]
HOLOSOMA_ARM = ["Shoulder", "Arm", "ForeArm", "Hand"] + [f"Hand{name}" for name in HOLOSOMA_FINGERS]
HOLOSOMA_LEG = ["UpLeg", "Leg", "Foot", "ToeBase"]
HOLOSOMA_JOINTS = (["Hips", "Spine", "Spine1", "Neck", "Head"] + [side + part for side in ("Left", "Right") for part in HOLOSOMA_ARM]
                   + [side + part for side in ("Left", "Right") for part in HOLOSOMA_LEG] + ["LeftFootMod", "RightFootMod"])
# SMPL joint → recorded joint, weight of its position error. The torsos of the two skeletons differ; limbs do not.
TARGETS = {"spine3": ("Spine1", 0.2), "neck": ("Neck", 1.0), "head": ("Head", 1.0)}
TARGETS |= {f"{side.lower()}_{ours}": (side + theirs, weight) for side in ("Left", "Right") for ours, theirs, weight in (
    ("hip", "UpLeg", 2.0), ("knee", "Leg", 1.0), ("ankle", "Foot", 1.0), ("foot", "ToeBase", 1.0), ("collar", "Shoulder", 0.1),
    ("shoulder", "Arm", 1.0), ("elbow", "ForeArm", 1.0), ("wrist", "Hand", 1.0), ("hand", "HandMiddle1", 1.0))}


def mirror(values):
    return np.asarray(values) * [-1, 1, 1]


def rest_offsets(body: Path) -> np.ndarray:
    """(24, 3) metres from each joint's parent to it in the T-pose of a body in SMPL's format; the root's is zero."""
    with np.load(body) as data:
        joints = data["J_regressor"].astype(float) @ data["v_template"]
    return joints - np.concatenate([joints[:1], joints[PARENTS[1:]]])


def rotation_matrices(axis_angle: torch.Tensor) -> torch.Tensor:
    """(..., 3) → (..., 3, 3), Rodrigues' formula, smooth at zero."""
    squared = (axis_angle ** 2).sum(-1)[..., None, None]
    angle = (squared + 1e-12).sqrt()
    x, y, z = axis_angle.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*axis_angle.shape, 3)
    return torch.eye(3, dtype=axis_angle.dtype) + torch.sin(angle) / angle * cross + (1 - torch.cos(angle)) / angle ** 2 * cross @ cross


def forward_kinematics(rotations: torch.Tensor, offsets: torch.Tensor, root: torch.Tensor):
    """Rotations (N, 24, 3, 3) relative to the parent, offsets (24, 3), root (N, 3) → joint positions (N, 24, 3), orientations (N, 24, 3, 3)."""
    orientations, positions = [rotations[:, 0]], [root]
    for i in range(1, 24):
        parent = PARENTS[i]
        positions.append(positions[parent] + orientations[parent] @ offsets[i])
        orientations.append(orientations[parent] @ rotations[:, i])
    return torch.stack(positions, 1), torch.stack(orientations, 1)


def frames_from(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Right-handed orthonormal frames (N, 3, 3): column 0 along ``first``, column 1 in the half plane of ``second``."""
    x = first / np.linalg.norm(first, axis=-1, keepdims=True)
    y = second - (second * x).sum(-1, keepdims=True) * x
    y /= np.linalg.norm(y, axis=-1, keepdims=True)
    return np.stack([x, y, np.cross(x, y)], -1)


def initial_pose(target: dict[str, np.ndarray]) -> np.ndarray:
    """A first guess (N, 24, 3) from bone directions: trunk from hips and shoulders, limbs from the plane in which they bend."""
    hips = target["left_hip"] - target["right_hip"]
    middle = (target["left_hip"] + target["right_hip"]) / 2
    pelvis = frames_from(hips, target["spine3"] - middle)
    chest = frames_from(target["left_shoulder"] - target["right_shoulder"], target["neck"] - target["spine3"])
    pose = np.zeros((len(hips), 24, 3))
    pose[:, JOINT["pelvis"]] = Rotation.from_matrix(pelvis).as_rotvec()
    bend = Rotation.from_matrix(np.swapaxes(pelvis, 1, 2) @ chest).as_rotvec() / 3
    for name in ("spine1", "spine2", "spine3"):
        pose[:, JOINT[name]] = bend
    for side, sign in (("left", 1.0), ("right", -1.0)):
        for parent, chain, bone, hinge in ((pelvis, ("hip", "knee", "ankle"), (0, -1, 0), (1, 0, 0)),
                                           (chest, ("shoulder", "elbow", "wrist"), (sign, 0, 0), (0, -sign, 0))):
            a, b, c = (target[f"{side}_{part}"] for part in chain)
            into_parent = np.swapaxes(parent, 1, 2)
            upper, lower = ((into_parent @ (q - p)[..., None])[..., 0] for p, q in ((a, b), (b, c)))
            upper, lower = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (upper, lower))
            swing = np.stack([Rotation.align_vectors(u[None], np.array(bone)[None])[0].apply(hinge) for u in upper])
            axis = np.cross(upper, lower) + 0.1 * swing  # a straight limb has no plane: there the least rotation decides
            rest = frames_from(np.array([bone], float), np.array([hinge], float))
            rotation = frames_from(upper, axis) @ np.swapaxes(rest, 1, 2)
            pose[:, JOINT[f"{side}_{chain[0]}"]] = Rotation.from_matrix(rotation).as_rotvec()
            angle = np.arccos(np.clip((upper * lower).sum(-1), -1, 1))
            pose[:, JOINT[f"{side}_{chain[1]}"]] = angle[:, None] * np.array(hinge)
    return pose


def inverse_kinematics(positions: np.ndarray, rest: np.ndarray, iterations: int) -> tuple[np.ndarray, np.ndarray]:
    """Recorded positions (N, 53, 3), metres, z up, and a skeleton's rest offsets (24, 3) → poses (N, 24, 3) and error per frame (N,), metres.

    Minimises position errors plus what anatomy says about the freedom that positions leave: elbows and knees are hinges, the spine bends
    evenly, collars and head move little, and neighbouring frames are alike. Lengths of the bones are fitted, one set for the sequence.
    """
    positions = positions[..., [1, 2, 0]]  # z up → y up, a rotation
    named = {name: positions[:, i] for i, name in enumerate(HOLOSOMA_JOINTS)}
    target = {ours: named[theirs] for ours, (theirs, _) in TARGETS.items()}
    base = rest.copy()
    for name in target:  # limb bones exist in both skeletons: keep our direction, take their length
        parent = SMPL[PARENTS[JOINT[name]]]
        if parent in target and name not in ("neck", "left_collar", "right_collar"):
            base[JOINT[name]] *= np.linalg.norm(target[name] - target[parent], axis=-1).mean() / np.linalg.norm(base[JOINT[name]])

    guess = initial_pose(target)
    orient0 = rotation_matrices(torch.tensor(guess[:, 0], dtype=torch.float32))
    middle = (target["left_hip"] + target["right_hip"]) / 2
    f32 = lambda a: torch.tensor(np.asarray(a), dtype=torch.float32)  # noqa: E731
    delta = torch.zeros(len(guess), 3, requires_grad=True)
    body = f32(guess[:, 1:]).requires_grad_()
    root = (f32(middle) - orient0 @ f32(base[1] * [0, 1, 1])).requires_grad_()
    trunk = [JOINT[n] for n in ("left_hip", "spine1", "spine2", "spine3", "neck", "left_collar", "left_shoulder")]
    free = torch.zeros(len(trunk), 3, requires_grad=True)
    thumbs = f32([THUMB, mirror(THUMB)]).requires_grad_()
    flip = f32([-1, 1, 1])

    indices = torch.tensor([JOINT[n] for n in target])
    goal = torch.stack([f32(target[n]) for n in target], 1)
    weight = f32([w for _, w in TARGETS.values()])
    thumb_goal = torch.stack([f32(named["LeftHandThumb2"]), f32(named["RightHandThumb2"])], 1)
    sign = f32([1, -1])

    def parts(*names):
        return [JOINT[n] - 1 for n in names]

    def losses():
        offsets = f32(base).clone()
        offsets[trunk] = offsets[trunk] + free
        for left in ("left_hip", "left_collar", "left_shoulder"):
            offsets[JOINT[left.replace("left", "right")]] = offsets[JOINT[left]] * flip
        rotations = torch.cat([(orient0 @ rotation_matrices(delta))[:, None], rotation_matrices(body)], 1)
        joints, orientations = forward_kinematics(rotations, offsets, root)
        error = ((joints[:, indices] - goal) ** 2).sum(-1)
        wrists = parts("left_wrist", "right_wrist")
        hands = torch.stack([joints[:, w + 1] + orientations[:, w + 1] @ t for w, t in zip(wrists, thumbs)], 1)
        knee, elbow = body[:, parts("left_knee", "right_knee")], body[:, parts("left_elbow", "right_elbow")]
        spine = body[:, parts("spine1", "spine2", "spine3")]
        flexion = -elbow[..., 1] * sign  # positive when the elbow bends the way elbows bend
        anatomy = (2e-4 * (body ** 2).sum((1, 2)) + 5e-3 * (knee[..., 1:] ** 2).sum((1, 2)) + 5e-3 * (elbow[..., 2] ** 2).sum(1)
                   + 5e-4 * (elbow[..., 0] ** 2).sum(1) + 2e-2 * (torch.relu(-knee[..., 0]) ** 2 + torch.relu(-flexion) ** 2).sum(1)
                   + 5e-3 * ((spine - spine.mean(1, keepdim=True)) ** 2).sum((1, 2))
                   + 2e-3 * (body[:, parts("left_collar", "right_collar", "neck", "head")] ** 2).sum((1, 2))
                   + 1e-3 * (body[:, wrists] ** 2).sum((1, 2)) + 1e-3 * (body[:, parts("left_ankle", "right_ankle")][..., 1:] ** 2).sum((1, 2)))
        smooth = 3e-3 * ((body[1:] - body[:-1]) ** 2).sum((1, 2)).mean()
        sizes = 0.05 * len(body) * ((free ** 2).sum() / 3 + ((thumbs - f32([THUMB, mirror(THUMB)])) ** 2).sum()) / len(body)
        total = (error * weight).sum(1).mean() + 0.5 * ((hands - thumb_goal) ** 2).sum((1, 2)).mean() + anatomy.mean() + smooth + sizes
        return total, error, rotations

    optimizer = torch.optim.Adam([delta, body, root, free, thumbs], lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations, eta_min=5e-4)
    for _ in range(iterations):
        optimizer.zero_grad()
        total, error, rotations = losses()
        total.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        _, error, rotations = losses()
    limbs = [i for i, n in enumerate(target) if TARGETS[n][1] >= 1]
    pose = Rotation.from_matrix(rotations.reshape(-1, 3, 3).double().numpy()).as_rotvec().reshape(-1, 24, 3)
    pose[:, [JOINT["left_hand"], JOINT["right_hand"]]] = 0
    return pose, error[:, limbs].sqrt().mean(1).numpy()


def holosoma_clips(wheel: Path, rest: np.ndarray, iterations: int, worst: float = 0.05):
    """The climbing sequences: yields (name, fps, poses). Frames whose joints stay off by more than ``worst`` metres on average are left out."""
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(n for n in archive.namelist() if "/climb/" in n and n.endswith(".npy")):
            positions = np.load(io.BytesIO(archive.read(name)))[::HOLOSOMA_STEP]
            poses, error = inverse_kinematics(positions.astype(float), rest, iterations)
            keep = error < worst
            clip = name.split("/")[-2].replace("mocap_climb_", "climb_")
            print(f"holosoma/{clip}: {len(poses)} frames, joint error mean {error.mean() * 1000:.1f} mm, 99 % {np.quantile(error, .99) * 1000:.1f} mm, kept {keep.sum()}")
            yield f"holosoma/{clip}", HOLOSOMA_FPS, poses[keep].reshape(-1, 72)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bullet", type=Path, required=True, help="wheel of pybullet")
    parser.add_argument("--holosoma", type=Path, help="wheel of holosoma-retargeting")
    parser.add_argument("--body", type=Path, default=Path("hmr_ros/assets/body.npz"), help="its skeleton is posed")
    parser.add_argument("--iterations", type=int, default=400)
    parser.add_argument("--out", type=Path, default=Path("hmr_ros/assets/poses.npz"))
    args = parser.parse_args()
    torch.manual_seed(0)
    clips = list(bullet_clips(args.bullet))
    if args.holosoma:
        clips += holosoma_clips(args.holosoma, rest_offsets(args.body), args.iterations)
    poses = np.concatenate([p for _, _, p in clips])
    angles = np.linalg.norm(poses.reshape(-1, 24, 3), axis=-1)
    if not np.isfinite(poses).all() or angles.max() > np.pi + 1e-3:
        raise ValueError(f"poses are not canonical: largest angle {angles.max()}")
    np.savez_compressed(args.out, poses=poses.astype(np.float16), clip=np.repeat(np.arange(len(clips)), [len(p) for _, _, p in clips]).astype(np.int16),
                        clip_names=np.array([n for n, _, _ in clips]), fps=np.array([f for _, f, _ in clips], np.float32), joint_names=np.array(SMPL))
    print(f"{args.out}: {len(poses)} poses of {len(clips)} clips, {args.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
