"""Clothes as shapes of their own: shells of the rest pose (hmr_ros/assets/garments.npz), cut to size, that move with a body's surface.

A shell's vertex hangs on body vertices around it in the rest pose: each of these has a frame (normal and a neighbour's direction), and the vertex
moves with the weighted mean of their rigid motions, which is linear blend skinning with the surface for bones. So a garment follows any pose and
shape without knowing either. For skirts and hair the weights are spread over the shell: between the legs, both count.

Units metres, rest pose as in appearance.py (y up, facing +z). What is worn is drawn by :meth:`Wardrobe.choose`; colours and patterns are the
outfit's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import resources
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from scipy.sparse import csr_matrix, diags
from scipy.spatial import cKDTree

from hmr_ros.rasterizer import vertex_normals
from hmr_ros.training.data.rendered.appearance import BOTTOM, HAIR, SHOE, TOP, Dresser, Outfit

SPREAD = {"tights": 2, "skirt": 30, "hair": 12}  # how often weights are averaged with those of neighbouring vertices
UNDER = -0.006  # metres: how far the body draws back below a garment, so that it does not come through
UNDER_CROTCH = -0.025  # the same where the legs part, which spread further than trousers do
ANKLE = 0.06  # metres above the ankle joint at which trousers end at the earliest


class Mesh(NamedTuple):
    """Triangles of one person or one piece; G vertices."""

    vertices: np.ndarray  # (G, 3) metres, camera frame
    faces: np.ndarray  # (F, 3)
    rest: np.ndarray  # (G, 3) the same points in the rest pose
    surface: np.ndarray  # (G, 4) hair, head, and the outfit's two fields of noise
    material: np.ndarray  # (G,) of appearance.py, or -1: what the rest pose says


@dataclass(frozen=True)
class Piece:
    """One garment: a shell between two heights."""

    shell: str
    material: int
    top: float  # m, height in the rest pose at which it begins
    bottom: float  # and ends
    sleeve: float  # |x| at which it ends
    neckline: float  # radius around the neck that it leaves free
    loose: float  # m off the shell
    flare: float  # share by which it is looser a metre further down


class Wardrobe:
    """The shells, bound to one body model's rest pose."""

    def __init__(self, dresser: Dresser, faces: np.ndarray):
        self.dresser, self.faces = dresser, faces
        self._neighbour = np.zeros(len(dresser.rest), np.int64)
        self._neighbour[faces[:, 0]], self._neighbour[faces[:, 1]], self._neighbour[faces[:, 2]] = faces[:, 1], faces[:, 2], faces[:, 0]
        self._rest_frames = self._frames(dresser.rest)
        with (resources.files("hmr_ros") / "assets" / "garments.npz").open("rb") as file, np.load(file, allow_pickle=False) as data:
            shells = {name: (data[f"{name}_vertices"], data[f"{name}_faces"].astype(np.int32)) for name in SPREAD}
        self.shells = {name: (vertices, faces, self._bind(vertices, faces, SPREAD[name])) for name, (vertices, faces) in shells.items()}

    def choose(self, rng: Generator, look: Outfit) -> tuple[Outfit, list[Piece]]:
        """Garments for an outfit, and the outfit with the body's own paint changed to what is seen below them."""
        sleeve, waist, hem, shoe, _, neckline, long_hair, sleeveless = look.cuts
        cuts, colours, patterns, pieces = look.cuts.copy(), look.colours.copy(), look.patterns.copy(), []
        neck, ankle, knee, floor = self.dresser.joints[12, 1], self.dresser.joints[7, 1], self.dresser.joints[4, 1], self.dresser.floor
        loose_top, loose_bottom = rng.choice([0.002, 0.012, 0.028], 2, p=[0.3, 0.45, 0.25]) * rng.uniform(0.6, 1.3, 2)
        kind = rng.choice(["trousers", "skirt", "dress", "coat", "tight"], p=[0.6, 0.1, 0.08, 0.07, 0.15])
        short = rng.uniform(knee - 0.25, knee + 0.3)  # where skirts, dresses and coats end
        over = rng.uniform(-0.02, 0.14)  # how far a shirt hangs over what is below
        if kind in ("skirt", "dress"):
            cuts[2] = waist - 0.12  # legs are bare below it
            if rng.random() < 0.3:
                cuts[2] = hem  # or in tights
        if kind in ("dress", "coat"):
            material = TOP
            if kind == "dress":
                colours[BOTTOM], patterns[BOTTOM] = colours[TOP], patterns[TOP]
            if kind == "coat":
                sleeve, loose_top, loose_bottom = max(sleeve, self.dresser.joints[20, 0] - 0.05), max(loose_top, 0.015), 0.002
                cuts[0] = sleeve
        else:
            material = BOTTOM
        if kind in ("skirt", "dress", "coat"):
            over_legs = loose_bottom + (0.03 if kind == "coat" else 0.01)
            pieces.append(Piece("skirt", material, waist + 0.04, short, 9.0, 0.0, over_legs, rng.uniform(0, 2.0)))
        if kind in ("trousers", "coat"):
            bottom = max(hem, ankle + rng.uniform(-0.02, ANKLE), floor + 0.06)
            pieces.append(Piece("tights", BOTTOM, waist + 0.03, bottom, 9.0, 0.0, loose_bottom, rng.uniform(-0.6, 1.0)))
        if kind != "tight" or rng.random() < 0.5:
            bottom = waist - (over if kind in ("trousers", "tight") else 0.02)
            loose = loose_top + 0.004 + 0.3 * loose_bottom * (over > 0)
            pieces.append(Piece("tights", TOP, neck + 0.1, bottom, sleeve, neckline, loose, rng.uniform(0, 0.8)))
        if shoe > floor:  # not barefoot
            pieces.append(Piece("tights", SHOE, max(shoe, ankle - 0.02), floor - 1.0, 9.0, 0.0, rng.uniform(0.004, 0.012), 0.0))
        if long_hair < 5:
            cuts[6] = 9.0
            pieces.append(Piece("hair", HAIR, 9.0, long_hair - 0.05, 9.0, 0.0, rng.uniform(0.0, 0.012), 0.0))
        return replace(look, cuts=cuts, colours=colours, patterns=patterns, offsets=self._below(look, pieces)), pieces

    def dress(self, vertices: np.ndarray, look: Outfit, pieces: list[Piece]) -> Mesh:
        """Body (V, 3; camera frame) and garments as one mesh."""
        normals = vertex_normals(vertices, self.faces)
        body = (vertices + normals * look.offsets[:, None]).astype(np.float32)
        surface = np.column_stack([self.dresser.hair, self.dresser.head, look.fields]).astype(np.float32)
        meshes = [Mesh(body, self.faces, self.dresser.rest, surface, np.full(len(body), -1, np.float32))]
        if pieces:
            turn = self._frames(vertices) @ self._rest_frames.transpose(0, 2, 1)
            shift = vertices - np.einsum("vab,vb->va", turn, self.dresser.rest)
            motion = np.concatenate([turn.reshape(-1, 9), shift], axis=1)
            meshes += [self._hang(piece, motion, surface) for piece in pieces]
        offsets = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
        columns = list(zip(*meshes))
        faces = np.concatenate([mesh.faces + offset for mesh, offset in zip(meshes, offsets)])
        joined = [np.concatenate(columns[i]).astype(np.float32) for i in (0, 2, 3, 4)]
        return Mesh(joined[0], faces.astype(np.int32), *joined[1:])

    # ---- shells ----------------------------------------------------------------------------------------------------------

    def _frames(self, vertices: np.ndarray) -> np.ndarray:
        """(V, 3, 3) columns: towards a neighbour, across, normal."""
        normal = vertex_normals(vertices, self.faces)
        towards = vertices[self._neighbour] - vertices
        towards = towards - (towards * normal).sum(1, keepdims=True) * normal
        towards /= np.linalg.norm(towards, axis=1, keepdims=True).clip(1e-9)
        return np.stack([towards, np.cross(normal, towards), normal], axis=2)

    def _bind(self, vertices: np.ndarray, faces: np.ndarray, spread: int) -> csr_matrix:
        """(G, V) weights, rows sum to 1: of the eight nearest body vertices, then averaged over neighbours on the shell ``spread`` times."""
        distance, nearest = cKDTree(self.dresser.rest).query(vertices, 8)
        weight = 1 / (distance + 0.004) ** 2
        rows = np.repeat(np.arange(len(vertices)), 8)
        binding = csr_matrix(((weight / weight.sum(1, keepdims=True)).ravel(), (rows, nearest.ravel())), (len(vertices), len(self.dresser.rest)))
        edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
        edges = np.concatenate([edges, edges[:, ::-1], np.arange(len(vertices))[:, None].repeat(2, 1)])
        around = csr_matrix((np.ones(len(edges)), edges.T), (len(vertices), len(vertices)))
        around = diags(1 / np.asarray(around.sum(1)).ravel()) @ around
        for _ in range(spread):
            binding = around @ binding
        return binding.astype(np.float32).tocsr()

    def _hang(self, piece: Piece, motion: np.ndarray, surface: np.ndarray) -> Mesh:
        """A shell on a moved body (motion (V, 12): turn and shift of each vertex), cut to size."""
        vertices, faces, binding = self.shells[piece.shell]
        moved = binding @ motion
        posed = np.einsum("gab,gb->ga", moved[:, :9].reshape(-1, 3, 3), vertices) + moved[:, 9:]
        fields = binding @ surface[:, 2:]
        off = piece.loose * np.maximum(1 + piece.flare * (piece.top - vertices[:, 1]), 0.3) * (1 + 0.3 * fields[:, 1])
        off += 0.002 * fields[:, 1] * (piece.material in (TOP, BOTTOM))
        if piece.material == TOP:  # cloth lies on the shoulders and hangs free below
            off *= np.clip((piece.top - 0.05 - vertices[:, 1]) / 0.25, 0.25, 1)
        posed = posed + vertex_normals(posed, faces) * off[:, None]
        hair = np.full(len(vertices), float(piece.material == HAIR))
        rows = np.column_stack([posed, vertices, hair, np.zeros(len(vertices)), fields, np.full(len(vertices), piece.material)])
        for keep in self._borders(piece):
            rows, faces = cut(rows, faces, keep(rows[:, 3:6]))
        return Mesh(rows[:, :3], faces, rows[:, 3:6], rows[:, 6:10], rows[:, 10])

    def _borders(self, piece: Piece) -> list:
        """Functions of the rest pose (N, 3) that are positive where the piece is."""
        neck = self.dresser.joints[12] + [0, 0, 0.03]
        borders = [lambda p: p[:, 1] - piece.bottom]
        if piece.shell == "hair":  # the face is free: a fringe above the eyes, the rest behind the ears
            eye = self.dresser.eyes.mean(0)
            borders.append(lambda p: np.maximum(p[:, 1] - eye[1] - 0.035, eye[2] - 0.055 - p[:, 2]))
        if piece.top < 5:
            borders.append(lambda p: piece.top - p[:, 1])
        if piece.sleeve < 5:
            borders.append(lambda p: piece.sleeve - np.abs(p[:, 0]))
        if piece.neckline > 0:
            borders.append(lambda p: np.linalg.norm(p - neck, axis=1) - piece.neckline)
        return borders

    def _below(self, look: Outfit, pieces: list[Piece]) -> np.ndarray:
        """(V,) how far the body's surface moves: back below garments, not at all elsewhere but for hair, shoes and what has no garment."""
        rest, offsets = self.dresser.rest, look.offsets.copy()
        uncovered_top = not any(piece.material == TOP and piece.shell == "tights" for piece in pieces)
        uncovered_bottom = not any(piece.material == BOTTOM or piece.shell == "skirt" for piece in pieces)
        head = np.maximum(self.dresser.head, self.dresser.hair) > 0.5
        painted = (rest[:, 1] > look.cuts[1]) & uncovered_top | (rest[:, 1] <= look.cuts[1]) & uncovered_bottom
        offsets[~head & ~painted] = np.where(rest[:, 1] < max(look.cuts[3], self.dresser.floor + 0.08), 0.006, 0.0)[~head & ~painted]
        parting = self.dresser.joints[[1, 2]].mean(0) - [0, 0.1, 0]
        under = UNDER + (UNDER_CROTCH - UNDER) * np.exp(-0.5 * np.square((rest - parting) / 0.05).sum(1))
        for piece in pieces:
            if piece.shell != "hair" and piece.material != SHOE:
                inside = np.min([border(rest) for border in self._borders(piece)], axis=0)
                offsets = np.where(head, offsets, offsets + (under - offsets) * np.clip(inside / 0.02, 0, 1))
        return offsets.astype(np.float32)


def cut(rows: np.ndarray, faces: np.ndarray, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The part of a mesh where ``keep`` (N,) is positive, with a clean border: triangles across it are split, and their rows (N, D) interpolated."""
    inside = keep > 0
    count = inside[faces].sum(1)
    whole, crossed = faces[count == 3], faces[(count == 1) | (count == 2)]
    if not len(crossed):
        return rows, whole
    alone = np.where(inside[crossed].sum(1) == 1, inside[crossed].argmax(1), (~inside[crossed]).argmax(1))
    turned = np.take_along_axis(crossed, (alone[:, None] + np.arange(3)) % 3, 1)  # the vertex that is alone on its side comes first
    new = []
    for other in (1, 2):
        a, b = turned[:, 0], turned[:, other]
        share = (keep[a] / (keep[a] - keep[b]))[:, None]
        new.append(rows[a] * (1 - share) + rows[b] * share)
    first = len(rows) + np.arange(len(turned))
    second = first + len(turned)
    kept = inside[turned[:, 0]]
    corners = np.stack([turned[:, 0], first, second], 1)[kept]
    left = ~kept
    quads = np.concatenate([np.stack([first, turned[:, 1], turned[:, 2]], 1)[left], np.stack([first, turned[:, 2], second], 1)[left]])
    return np.concatenate([rows, *new]), np.concatenate([whole, corners, quads])
