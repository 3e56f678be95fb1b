"""One synthetic picture with its exact truth: dressed people before a background, seen by a perspective camera.

``SceneMaker.make(rng)`` depends on the generator only, so that picture i of a data set can be made again at any time.
Truth is in the camera frame of design.md (x right, y down, z forward, metres); joints and keypoints are relative to the
body model's origin, and ``translation`` puts that origin into the camera frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, get_args

import cv2
import numpy as np
import torch
from numpy.random import Generator
from scipy.spatial.transform import Rotation

from hmr_ros.body.model import BodyModel
from hmr_ros.geometry import Intrinsics, project_pinhole
from hmr_ros.skeleton import TORSO_KEYPOINTS
from hmr_ros.training.data.rendered.appearance import Dresser
from hmr_ros.training.data.rendered.backgrounds import Backgrounds
from hmr_ros.training.data.rendered.painting import Drawn, PaintedRenderer, RenderView, bounds, even_light, random_light
from hmr_ros.training.data.rendered.effects import measure_depth, object_mask, photograph, photograph_roughly
from hmr_ros.training.data.rendered.poses import PoseSampler
from hmr_ros.training.data.rendered.robot_cameras import RobotCameras, RobotView
from hmr_ros.training.data.rendered.things import Thing, stand_before

FACING = np.diag([1.0, -1.0, -1.0])  # the upright world (y up, z towards the viewer) in the axes of a level camera

RendererName = Literal["painter", "gl"]
RENDERERS: tuple[RendererName, ...] = get_args(RendererName)
CamerasName = Literal["any", "robot"]

# What a picture is made of and what can be left out of it, to see how much it matters (benchmarks/domain_gap.py).
INGREDIENTS = ("patterns", "clothes", "cloth_shape", "light", "shadow", "blur", "colour", "noise", "jpeg", "held")

OVERLAP = 0.45  # of the smaller of two people's boxes, at most

# How deep inside the (clothed) body each COCO keypoint lies at most when nothing else hides it, metres.
FLESH = np.array([0.05] * 5 + [0.14] * 2 + [0.1] * 2 + [0.09] * 2 + [0.2] * 2 + [0.12] * 2 + [0.11] * 2)


@dataclass(frozen=True)
class SceneConfig:
    """What is drawn how often. Shares in [0, 1], angles in radians, lengths in metres."""

    everyday: float = 0.6  # share of everyday situations; the others are recorded motion
    sizes: tuple[tuple[int, int], ...] = ((480, 640), (640, 480), (512, 512))  # (H, W) px
    people: tuple[float, ...] = (0.8, 0.14, 0.06)  # share of pictures with 1, 2, 3 people
    field_of_view: tuple[float, float] = (0.7, 1.4)  # of the longer side, radians: 40° to 80°
    distance: tuple[float, float] = (1.2, 6.0)
    height_in_image: tuple[float, float] = (0.3, 0.95)  # of a full view
    cut: float = 0.3  # share of people cut by the image border
    height_when_cut: tuple[float, float] = (0.9, 4.5)  # in image heights, drawn evenly in its logarithm: up to portraits
    nearest_when_cut: float = 0.5  # metres
    occluded: float = 0.2  # share of pictures with an object in front of somebody
    beta0_sigma: float = 0.6  # stature: narrow, because it carries most of the variance

    def __post_init__(self):
        for name in ("everyday", "cut", "occluded"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"scene.{name} is {getattr(self, name)}, expected a share between 0 and 1")
        for name in ("field_of_view", "distance", "height_in_image", "height_when_cut"):
            low, high = getattr(self, name)
            if not 0 < low <= high or name == "field_of_view" and high >= np.pi:
                what = "two angles in radians below pi" if name == "field_of_view" else "two numbers above 0"
                raise ValueError(f"scene.{name} is {low:g} to {high:g}, expected {what}, the smaller one first")
        if min(self.people, default=-1) < 0 or not np.isclose(sum(self.people), 1):
            raise ValueError(f"scene.people is {self.people}, expected shares of pictures with 1, 2, ... people that sum to 1")
        if min(map(min, self.sizes), default=0) < 64:
            raise ValueError(f"scene.sizes is {self.sizes}, expected one or more (height, width) of at least 64 pixels")
        if self.nearest_when_cut <= 0 or self.beta0_sigma < 0:
            raise ValueError(f"scene.nearest_when_cut {self.nearest_when_cut} and beta0_sigma {self.beta0_sigma} must be positive")


@dataclass(frozen=True)
class PersonTruth:
    """Everything known about one person; N = 24 joints, K = 17 keypoints; float32."""

    pose: np.ndarray  # (24, 3) axis-angle; row 0 turns the body model into camera axes
    betas: np.ndarray  # (10,)
    translation: np.ndarray  # (3,)
    joints: np.ndarray  # (24, 3)
    keypoints3d: np.ndarray  # (17, 3)
    keypoints: np.ndarray  # (17, 2) px
    visible: np.ndarray  # (17,) bool: inside the image and not hidden by anything
    visible_fraction: float  # of the person's silhouette, also of what is outside the image
    box: np.ndarray  # (4,) xyxy px of all vertices, not clipped
    category: str  # of the pose
    clip: str  # of the pose
    cut: bool  # by the image border
    occluded: bool  # an object was put in front


@dataclass(frozen=True)
class Scene:
    """A picture and its truth."""

    image: np.ndarray  # (H, W, 3) uint8 BGR
    depth: np.ndarray  # (H, W) float32 metres: what an aligned depth camera would say, 0 = unknown
    intrinsics: Intrinsics
    people: list[PersonTruth]
    stamp: float | None = None  # seconds, of a frame of a recording (new_cameras.py)


@dataclass(frozen=True)
class PlacedPerson:
    """A body where it stands."""

    truth: PersonTruth
    vertices: np.ndarray  # (V, 3) camera frame


class Renderer(Protocol):
    """What dresses and draws people: PaintedRenderer (painting.py) or GLRenderer (gl.py)."""

    name: str
    depth_tested: bool  # people who are tangled up are seen as they lie in depth; else the nearer person covers the other
    has_things: bool  # people hold things and stand behind things (things.py)

    @staticmethod
    def identity() -> dict:
        """What the pictures depend on besides the generator; part of a data set's identity."""
        ...

    def draw(self, rng: Generator, canvas: np.ndarray, bodies: list[np.ndarray], view: RenderView, standing: Sequence[Thing] = ()) -> Drawn:
        """See PaintedRenderer.draw."""
        ...


def renderer_class(name: str) -> type[Renderer]:
    """The renderer of this name; ValueError for another one."""
    if name == "gl":
        from hmr_ros.training.data.rendered.gl import GLRenderer

        return GLRenderer
    if name != "painter":
        raise ValueError(f"the renderer {name!r} is unknown; expected one of {', '.join(RENDERERS)}")
    return PaintedRenderer


class SceneMaker:
    """Draws scenes of one split."""

    def __init__(
        self,
        split: str = "train",
        backgrounds: Path | None = None,
        config: SceneConfig | None = None,
        poses: PoseSampler | None = None,
        without: frozenset[str] = frozenset(),
        renderer: RendererName = "painter",
        rough: bool = False,
        cameras: CamerasName = "any",
    ):
        """``without``: which of INGREDIENTS are left out; the generator is read as ever, so that everything else stays the same.

        ``renderer``: "painter" or "gl" (gl.py; RuntimeError where OpenGL is missing). ``rough``: a robot's small camera
        (effects.photograph_roughly). ``cameras``: "any", people as large as ``config`` says, or "robot", mounted on a robot among people
        (robot_cameras.py).
        """
        self.robot = {"any": None, "robot": RobotCameras()}[cameras]
        self._photograph = photograph_roughly if rough else photograph
        if unknown := without - set(INGREDIENTS):
            raise ValueError(f"without {', '.join(sorted(unknown))}: expected names among {', '.join(INGREDIENTS)}")
        self.without = without
        self.config = config or SceneConfig()
        self.body = BodyModel.load(None)
        self.faces = np.ascontiguousarray(self.body.faces, np.int32)
        self.poses = poses or PoseSampler(split, self.config.everyday)
        self.backgrounds = Backgrounds(backgrounds, split)
        rest = self.forward(np.zeros((24, 3)), np.zeros(10))
        regions = [self.body.region_names[label] for label in self.body.vertex_regions]
        self.dresser = Dresser(*rest, hair=np.equal(regions, "hair"), head=np.equal(regions, "head"))
        self.renderer: Renderer = renderer_class(renderer)(self.dresser, self.faces, without)

    def make(self, rng: Generator) -> Scene:
        config = self.config
        height, width = config.sizes[rng.integers(len(config.sizes))]
        if self.robot:
            return self._make_robots(rng, (height, width), self.robot)
        focal = 0.5 * max(height, width) / np.tan(0.5 * rng.uniform(*config.field_of_view))
        intrinsics = Intrinsics(
            focal, focal, (width - 1) / 2 + rng.normal(0, 0.01 * width), (height - 1) / 2 + rng.normal(0, 0.01 * height)
        )
        camera = _camera_rotation(rng)
        placed: list[PlacedPerson] = []
        for _ in range(1 + rng.choice(len(config.people), p=config.people)):
            person = self._place(rng, (height, width), intrinsics, camera, placed)
            if person is not None:
                placed.append(person)
        image, depth, truths = self.draw(rng, (height, width), intrinsics, camera, placed)
        return Scene(image, depth, intrinsics, truths)

    def _make_robots(self, rng: Generator, size: tuple[int, int], cameras: RobotCameras) -> Scene:
        """What a robot sees of the people around it."""
        view, placed = cameras.view(rng, size), []
        for _ in range(1 + rng.choice(len(cameras.people), p=cameras.people)):
            person = self._place(rng, size, view.intrinsics, view.rotation, placed, view)
            if person is not None:
                placed.append(person)
        image, depth, truths = self.draw(rng, size, view.intrinsics, view.rotation, placed)
        return Scene(image, depth, view.intrinsics, truths)

    def forward(self, pose: np.ndarray, betas: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Vertices (V, 3), joints (24, 3), keypoints (17, 3) of one body."""
        rotations = torch.from_numpy(Rotation.from_rotvec(pose).as_matrix()[None].astype(np.float32))
        with torch.inference_mode():
            output = self.body.forward(rotations, torch.from_numpy(np.asarray(betas, np.float32)[None]))
        return output.vertices[0].numpy(), output.joints[0].numpy(), output.keypoints[0].numpy()

    def _place(
        self, rng: Generator, size: tuple[int, int], intrinsics: Intrinsics, camera: np.ndarray, others: list[PlacedPerson],
        robot: RobotView | None = None,
    ) -> PlacedPerson | None:  # fmt: skip
        """Put one more person where the picture has room, on the floor before a ``robot``; None where it has not."""
        sampled = self.poses.sample(rng)
        pose = sampled.rotvec.astype(np.float64)
        pose[0] = Rotation.from_matrix(camera @ FACING @ Rotation.from_rotvec(pose[0]).as_matrix()).as_rotvec()
        betas = np.clip(rng.normal(0, 1, 10), -2.5, 2.5)
        betas[0] *= self.config.beta0_sigma
        vertices, joints, keypoints = self.forward(pose, betas)
        for _ in range(8):
            if robot:
                translation = robot.place(rng, vertices, first=not others)
            else:
                translation = self._translation(rng, size, intrinsics, vertices, bool(rng.random() < self.config.cut))
            absolute = vertices + translation
            if absolute[:, 2].min() < 0.25:
                continue
            pixels = project_pinhole(absolute, intrinsics).astype(np.float32)
            box = np.concatenate(bounds(pixels))
            if robot and not _in_sight(keypoints + translation, size, intrinsics):
                continue
            if all(apart(box, translation, other, robot.cameras.overlap if robot else OVERLAP) for other in others):
                break
        else:
            return None
        return self._placed(pose, betas, translation, (vertices, joints, keypoints), intrinsics, size, sampled.category, sampled.clip)

    def stand(
        self, pose: np.ndarray, betas: np.ndarray, camera: np.ndarray, height: float, place: tuple[float, float], intrinsics: Intrinsics,
        size: tuple[int, int], category: str = "", clip: str = "",
    ) -> PlacedPerson:  # fmt: skip
        """A body on the floor. ``pose`` (24, 3) with row 0 in the upright world; ``camera`` (3, 3) turns a level camera's axes into the
        camera's, which is ``height`` metres above the floor; ``place``: metres to its right and away from it, along the floor."""
        pose = np.array(pose, np.float64)
        pose[0] = (Rotation.from_matrix(camera @ FACING) * Rotation.from_rotvec(pose[0])).as_rotvec()
        body = self.forward(pose, betas)
        up = camera @ FACING @ np.array([0.0, 1.0, 0.0])
        floor = float((body[0] @ up).min())
        translation = np.array([place[0], 0, 0]) + place[1] * (camera @ np.array([0.0, 0.0, 1.0])) - (floor + height) * up
        return self._placed(pose, betas, translation, body, intrinsics, size, category, clip)

    @staticmethod
    def _placed(pose, betas, translation, body, intrinsics: Intrinsics, size: tuple[int, int], category: str, clip: str) -> PlacedPerson:
        vertices, joints, keypoints = body
        absolute = vertices + translation
        absolute[:, 2] = np.maximum(absolute[:, 2], 0.05)
        box = np.concatenate(bounds(project_pinhole(absolute, intrinsics).astype(np.float32)))
        truth = PersonTruth(
            pose=pose.astype(np.float32), betas=betas.astype(np.float32), translation=translation.astype(np.float32), joints=joints,
            keypoints3d=keypoints, keypoints=project_pinhole(keypoints + translation, intrinsics).astype(np.float32), visible=np.zeros(17, bool),
            visible_fraction=0.0, box=box.astype(np.float32), category=category, clip=clip,
            cut=bool((box[:2] < -2).any() or box[2] > size[1] + 1 or box[3] > size[0] + 1), occluded=False,
        )  # fmt: skip
        return PlacedPerson(truth, absolute.astype(np.float32))

    def _translation(
        self, rng: Generator, size: tuple[int, int], intrinsics: Intrinsics, vertices: np.ndarray, cut: bool
    ) -> np.ndarray:
        """Distance from the share of the picture that the person shall fill, then a place in the picture."""
        height, width = size
        low, high = bounds(vertices)
        extent, middle = high - low, (low + high) / 2
        largest = max(extent[1] / height, extent[0] / width)  # metres a pixel when the body fills the picture
        if not cut:
            share = rng.uniform(*self.config.height_in_image)
            distance = np.clip(intrinsics.fx * largest / share, *self.config.distance)
            share = intrinsics.fx * largest / distance
            room = np.maximum(1 - share * (extent[:2] / (width, height)) / largest, 0)
            centre = np.array([0.5, 0.5]) + rng.uniform(-0.5, 0.5, 2) * room
        else:
            fill = np.exp(rng.uniform(*np.log(self.config.height_when_cut)))
            distance = np.clip(intrinsics.fx * largest / fill, self.config.nearest_when_cut, self.config.distance[1])
            half = 0.5 * extent[:2] * intrinsics.fx / distance / (width, height)
            if rng.random() < 0.75:  # the border cuts the legs
                head_margin = rng.uniform(-0.05, 0.3) * min(1.0, 2 / fill)
                centre = np.array([rng.uniform(0.3, 0.7), head_margin + half[1]])
            else:  # the border cuts a side
                side = rng.choice([-1, 1])
                centre = np.array([0.5 + side * (0.5 - half[0] * rng.uniform(0.1, 0.8)), rng.uniform(0.4, 0.6)])
        depth = distance - low[2] if not cut else distance
        u, v = centre * (width, height)
        ray = np.array([(u - intrinsics.cx) / intrinsics.fx, (v - intrinsics.cy) / intrinsics.fy])
        return np.array([*(ray * (depth + middle[2]) - middle[:2]), depth])

    # ---- drawing ----------------------------------------------------------------------------------------------------

    def draw(
        self, rng: Generator, size: tuple[int, int], intrinsics: Intrinsics, camera: np.ndarray, placed: list[PlacedPerson],
        objects: bool = True, room: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray, list[PersonTruth]]:  # fmt: skip
        """Picture (H, W, 3) uint8 BGR, depth (H, W) metres and what is left to see of everybody, before a background.

        ``camera`` (3, 3) turns a level camera's axes into the camera's. ``objects``: something may stand in front of somebody. ``room``
        (H, W, 3) uint8 BGR stands behind them; by default it is drawn.
        """
        canvas = (self.backgrounds.sample(rng, size) if room is None else room).astype(np.float32)
        mean = np.array(cv2.mean(canvas)[:3]) + 1
        exposure = float(np.clip((mean.mean() / 110) ** 0.5 * rng.uniform(0.85, 1.25), 0.7, 1.6))
        up = camera @ FACING @ np.array([0.0, 1.0, 0.0])
        light = random_light(rng, up, tint=np.clip(mean / mean.mean(), 0.6, 1.6))
        light = even_light(light) if "light" in self.without else light
        order = sorted(range(len(placed)), key=lambda i: -placed[i].truth.translation[2])  # the farthest first
        occluded, standing = self.config.occluded if placed and objects else 0.0, {}
        if self.renderer.has_things:  # half of what stands in front is a shape, the other half a flat piece of a photo
            occluded /= 2
            if rng.random() < occluded:
                index = int(rng.integers(len(placed)))
                if (thing := stand_before(rng, placed[index].vertices, up, intrinsics)) is not None:
                    standing[index] = thing
        view = RenderView(intrinsics, light, exposure)
        layers, things = self.renderer.draw(rng, canvas, [placed[i].vertices for i in order], view, list(standing.values()))
        nearest = np.full(size, np.inf, np.float32)
        owner = np.full(size, -1, np.int32)
        silhouettes = np.zeros(len(placed))
        for index, (coverage, distance) in zip(order, layers, strict=True):
            covered = coverage > 0.5
            silhouettes[index] = covered.sum()
            if self.renderer.depth_tested:
                covered &= distance < nearest
            owner[covered] = index
            nearest[covered] = distance[covered]
        solid = np.zeros(size, bool)
        for coverage, distance in things:
            solid |= (before := (coverage > 0.5) & (distance < nearest))
            owner[before], nearest[before] = -1, distance[before]
        hidden_behind_object = -1
        if placed and objects and rng.random() < occluded:
            hidden_behind_object = int(rng.integers(len(placed)))
            texture = self.backgrounds.sample(rng, size, plain=True)
            mask = object_mask(rng, size, placed[hidden_behind_object].truth.box)
            canvas += mask[..., None] * (texture * (exposure * rng.uniform(0.6, 1.1)) - canvas)
            owner[mask > 0.5], solid[mask > 0.5] = -1, False
        truths = []
        for index, person in enumerate(placed):
            truth = person.truth
            x, y = project_pinhole(person.vertices[::7], intrinsics).T
            inside = ((x > -0.5) & (y > -0.5) & (x < size[1] - 0.5) & (y < size[0] - 0.5)).mean()
            seen = (owner == index).sum() / max(silhouettes[index], 1)
            truths.append(
                replace(
                    truth,
                    visible=self._visible(truth, index, owner, nearest),
                    visible_fraction=float(inside * seen),
                    occluded=index == hidden_behind_object or index in standing,
                )
            )
        return self._photograph(rng, canvas, self.without), measure_depth(rng, np.where((owner >= 0) | solid, nearest, np.inf)), truths

    def _visible(self, truth: PersonTruth, index: int, owner: np.ndarray, nearest: np.ndarray) -> np.ndarray:
        """(17,) bool: the pixel (or a neighbour) shows this person, no further in front than flesh is thick."""
        visible = np.zeros(17, bool)
        depths = truth.keypoints3d[:, 2] + truth.translation[2]
        places = np.rint(np.clip(truth.keypoints, -1e6, 1e6)).astype(int)
        for k, ((x, y), depth) in enumerate(zip(places, depths, strict=True)):
            if 0 <= x < owner.shape[1] and 0 <= y < owner.shape[0]:
                patch = slice(max(y - 1, 0), y + 2), slice(max(x - 1, 0), x + 2)
                near = (owner[patch] == index) & (depth < nearest[patch] + FLESH[k])
                visible[k] = near.any()
        return visible


def _in_sight(keypoints: np.ndarray, size: tuple[int, int], intrinsics: Intrinsics) -> bool:
    """Of a body's keypoints (17, 3; camera axes), two of the torso and six in all lie in the picture."""
    x, y = project_pinhole(keypoints, intrinsics).T
    inside = (keypoints[:, 2] > 0.1) & (x > 0) & (y > 0) & (x < size[1] - 1) & (y < size[0] - 1)
    return bool(inside[list(TORSO_KEYPOINTS)].sum() >= 2 and inside.sum() >= 6)


def apart(box: np.ndarray, translation: np.ndarray, other: PlacedPerson, overlap_at_most: float) -> bool:
    """Two people do not stand in each other, and leave some of each other to be seen: at most this share of the smaller box is shared."""
    if np.linalg.norm((translation - other.truth.translation)[[0, 2]]) < 0.6:
        return False
    overlap = np.minimum(box[2:], other.truth.box[2:]) - np.maximum(box[:2], other.truth.box[:2])
    areas = [np.prod(b[2:] - b[:2]) for b in (box, other.truth.box)]
    return float(np.prod(np.maximum(overlap, 0))) < overlap_at_most * min(areas)


def _camera_rotation(rng: Generator) -> np.ndarray:
    """Level camera axes → camera axes (3, 3): mostly a little downwards, some up from a low robot, some from above."""
    kind = rng.random()
    pitch = rng.normal(0.08, 0.1) if kind < 0.65 else rng.uniform(-0.35, 0) if kind < 0.82 else rng.uniform(0.15, 0.6)
    roll = rng.normal(0, 0.05)
    return (Rotation.from_rotvec([0, 0, roll]) * Rotation.from_rotvec([pitch, 0, 0])).as_matrix()
