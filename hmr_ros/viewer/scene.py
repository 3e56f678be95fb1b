"""One visitor's scene: bodies in the camera's optical frame (y down), the camera with its picture, the ground.

Only what changes is sent: a person's mesh keeps its place in the scene from shot to shot.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import viser

from hmr_ros.estimate import BodyEstimate
from hmr_ros.palette import RGB, joint_colours, person_colour, person_number, reliability_colour
from hmr_ros.skeleton import SMPL_BONES, SMPL_JOINTS
from hmr_ros.viewer.meshes import MeshMaker
from hmr_ros.viewer.shots import Shot

HEAD = SMPL_JOINTS.index("head")
FEET = [SMPL_JOINTS.index(name) for name in ("left_foot", "right_foot")]
ANKLES = [SMPL_JOINTS.index(name) for name in ("left_ankle", "right_ankle")]
SOLE_M = 0.06  # of the foot's joint above the ground
BONE_RADIUS_M, ABOVE_HEAD_M = 0.022, 0.32
THROUGH_MESH = 0.45  # opacity of a mesh whose bones are shown
BESIDE_M, IN_FRONT_M = 1.0, 3.0  # where people without a position are shown: in a row
PICTURE_M = 0.35  # from the camera to its picture, for people nearby
UNKNOWN_CAMERA = (500.0, 500.0, 320.0, 240.0, 640, 480)
GROUND_BODIES = 200  # the ground is where so many bodies stood last
LEVEL = np.array([0.0, -1.0, 0.0])  # up, for a camera that is held level


@dataclass(frozen=True)
class Look:
    """What a visitor has chosen to see."""

    meshes: bool = True
    skeletons: bool = True
    picture: bool = True
    ground: bool = True
    by_reliability: bool = False


class Ground:
    """The plane that people stand on, from those who were seen: most of them stand upright. Up is the median of their directions from ankles to
    head, its height the median of their lower foot. The camera may be tilted."""

    def __init__(self):
        self._ups: deque[np.ndarray] = deque(maxlen=GROUND_BODIES)
        self._feet: deque[np.ndarray] = deque(maxlen=GROUND_BODIES)

    @property
    def known(self) -> bool:
        return bool(self._feet)

    def add(self, joints: np.ndarray) -> None:
        """(24, 3) of one body in the camera frame."""
        self._ups.append(joints[HEAD] - joints[ANKLES].mean(0))
        self._feet.append(joints[FEET])

    def plane(self) -> tuple[np.ndarray, np.ndarray]:
        """A point of it, below the people, and its unit normal."""
        up = np.median(self._ups, axis=0)
        up = up / np.linalg.norm(up) if np.linalg.norm(up) > 0.3 else LEVEL  # people who lie or are bent tell nothing
        feet = np.array(self._feet)
        below = np.median(feet.mean(1), axis=0)
        height = np.median((feet @ up).min(1)) - SOLE_M
        return below + (height - below @ up) * up, up


class BodyScene:
    """Draws shots into ``scene``, a visitor's own. People have the colours of the overlay and of RViz. ``picture_m``: from the camera to its
    picture, metres."""

    def __init__(self, scene: viser.SceneApi, make_mesh: MeshMaker):
        self._scene, self._make_mesh = scene, make_mesh
        self._people: dict[str, dict[str, viser.SceneNodeHandle]] = {}
        self.picture_m = PICTURE_M
        self._frustum: viser.CameraFrustumHandle | None = None
        self._frustum_of: dict[str, float] | None = None
        self._ground = Ground()
        self._grid = scene.add_grid(
            "/ground", 20.0, 20.0, plane="xy", cell_size=1.0, section_size=5.0, position=(0.0, 1.2, 4.0), wxyz=_turned_z(LEVEL[None])[0],
            cell_color=(205, 205, 210), section_color=(165, 165, 175), shadow_opacity=0.0,
        )  # fmt: skip

    @property
    def up(self) -> np.ndarray:
        """The ground's normal."""
        return self._ground.plane()[1] if self._ground.known else LEVEL

    def draw(self, shot: Shot, look: Look) -> None:
        """``shot`` in place of what was there."""
        shown = {}
        for place, body in enumerate(shot.bodies):
            beside = np.array([BESIDE_M * place, 0.0, IN_FRONT_M])
            shown[body.id or f"#{place}"] = person_number(body.id, place), body, beside if body.translation is None else body.translation
        for person in set(self._people) - set(shown):
            for handle in self._people.pop(person).values():
                handle.remove()
        for person, (number, body, place) in shown.items():
            self._draw_person(person, number, body, np.asarray(place, np.float64), look)
        self._draw_camera(shot, look)
        self._grid.visible = look.ground
        if self._ground.known:
            self._grid.position, up = self._ground.plane()
            self._grid.wxyz = _turned_z(up[None])[0]

    def _draw_person(self, person: str, number: int, body: BodyEstimate, place: np.ndarray, look: Look) -> None:
        handles = self._people.setdefault(person, {})
        colour = reliability_colour(float(np.mean(body.reliability))) if look.by_reliability else person_colour(number)
        self._ground.add(body.joints + place)
        mesh = self._make_mesh(body) if look.meshes else None
        self._draw_mesh(f"/people/{person}/mesh", handles, mesh, place, colour, THROUGH_MESH if look.skeletons else None)
        self._draw_bones(f"/people/{person}/bones", handles, body, place, look.skeletons)
        above = body.joints[HEAD] + place - (0, ABOVE_HEAD_M, 0)
        if "label" not in handles:
            handles["label"] = self._scene.add_label(f"/people/{person}/id", person, anchor="bottom-center")
        handles["label"].position = above

    def _draw_bones(self, name: str, handles: dict, body: BodyEstimate, place: np.ndarray, visible: bool) -> None:
        """Each half of a bone in the colour of its joint's reliability."""
        ends = body.joints[np.array(SMPL_BONES)].astype(np.float64)  # (23, 2, 3)
        halves = (ends[:, ::-1] - ends) / 2  # from each end to the middle
        lengths = np.linalg.norm(halves, axis=-1).reshape(-1)
        turned = _turned_z(halves.reshape(-1, 3))
        scales = np.column_stack([np.full((len(lengths), 2), BONE_RADIUS_M), lengths])
        colours = np.array(joint_colours(body.reliability), np.uint8)[np.array(SMPL_BONES).reshape(-1)]
        if "bones" not in handles:
            handles["bones"] = self._scene.add_batched_meshes_simple(
                name, *_ROD, turned, ends.reshape(-1, 3), batched_scales=scales, batched_colors=colours, cast_shadow=False, receive_shadow=False,
                lod="off", flat_shading=True,
            )  # fmt: skip
        bones = handles["bones"]
        bones.batched_wxyzs, bones.batched_positions, bones.batched_scales = turned, ends.reshape(-1, 3), scales
        bones.batched_colors, bones.position, bones.visible = colours, place, visible

    def _draw_mesh(self, name: str, handles: dict, mesh, place: np.ndarray, colour: RGB, opacity: float | None) -> None:
        handle = handles.get("mesh")
        if mesh is None:
            if handle is not None:
                handle.visible = False
            return
        vertices, faces = mesh
        if handle is None or len(handle.vertices) != len(vertices) or handle.opacity != opacity:  # how it is blended is settled at the start
            handles["mesh"] = self._scene.add_mesh_simple(name, vertices, faces, color=colour, opacity=opacity, position=place, cast_shadow=False,
                                                          receive_shadow=False)  # fmt: skip
            return
        handle.vertices, handle.color, handle.position, handle.visible = np.asarray(vertices, np.float32), colour, place, True

    def _draw_camera(self, shot: Shot, look: Look) -> None:
        """The principal point is taken for the picture's centre, and the lens for one without distortion."""
        picture = shot.picture() if look.picture else None
        _, fy, _, _, width, height = shot.camera or UNKNOWN_CAMERA
        if shot.camera is None and picture is not None:
            width = height * picture.shape[1] / picture.shape[0]
        frustum = {"fov": 2 * np.arctan(height / (2 * fy)), "aspect": width / height, "scale": self.picture_m}
        if self._frustum is None or self._frustum_of != frustum:
            self._frustum = self._scene.add_camera_frustum("/camera", **frustum, color=(90, 90, 100), cast_shadow=False, receive_shadow=False,
                                                           thickness=0.006)  # fmt: skip
            self._frustum_of = frustum
        self._frustum.image = picture


def _rod(sides: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and faces of a prism of radius 1 along z, from 0 to 1, without its ends."""
    angles = 2 * np.pi * np.arange(sides) / sides
    circle = np.column_stack([np.cos(angles), np.sin(angles)])
    vertices = np.concatenate([np.column_stack([circle, np.full(sides, z)]) for z in (0.0, 1.0)]).astype(np.float32)
    near = np.arange(sides)
    after = (near + 1) % sides
    faces = np.concatenate([np.column_stack([near, after, after + sides]), np.column_stack([near, after + sides, near + sides])])
    return vertices, faces.astype(np.uint32)


_ROD = _rod()


def _turned_z(directions: np.ndarray) -> np.ndarray:
    """Quaternions (N, 4) wxyz that turn +z into ``directions`` (N, 3) the shortest way; the identity for those of length 0."""
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    x, y, z = np.where(lengths > 0, directions / np.maximum(lengths, 1e-12), (0.0, 0.0, 1.0)).T
    wxyz = np.column_stack([1 + z, -y, x, np.zeros_like(z)])
    wxyz[wxyz[:, 0] < 1e-9] = (0.0, 1.0, 0.0, 0.0)  # straight back
    return wxyz / np.linalg.norm(wxyz, axis=1, keepdims=True)
