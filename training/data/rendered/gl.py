"""Dressed people rendered by OpenGL: all of a scene together, lit by one lamp and by the photo behind them, standing on a ground.

The same outfits as the painter's (appearance.py), shaded in linear light: a lamp with soft shadows (a shadow map, percentage-closer filtering,
Reeves et al. 1987), ambient light as spherical harmonics of the photo (Ramamoorthi and Hanrahan 2001), screen-space ambient occlusion, and on the
ground the lamp's shadow and the contact's. Skin, hair and cloth have a fine structure in the rest pose. 4 samples a pixel.

Truth does not come from here: coverage and depth are the rasteriser's, of the same mesh. It runs on EGL without a display; without a GPU on Mesa's
llvmpipe. The same seed gives the same picture on the same driver; another driver rounds differently, so :meth:`GLRenderer.identity` names it.
Shaders are in shaders.py. Axes are the camera's: x right, y down, z forward.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.random import Generator

from hmr_ros.geometry import project_pinhole
from hmr_ros.rasterizer import rasterize, vertex_normals
from hmr_ros.training.data.rendered import shaders
from hmr_ros.training.data.rendered.appearance import Dresser, Outfit
from hmr_ros.training.data.rendered.garments import Mesh, Wardrobe
from hmr_ros.training.data.rendered.painting import Drawn, Light, RenderView
from hmr_ros.training.data.rendered.things import Hands, Thing

SAMPLES = 4  # a pixel
SHADOW_SIZE = 1024  # px of the shadow map
CONTACT_SIZE = 128  # px of the map of what stands on the ground
GROUND = 1.8  # metres around the feet on which shadows fall
NEAR = 0.1  # metres
THINGS = 1  # version of what people hold and stand behind: another one makes other pictures
GAMMA = 2.2
ATTRIBUTES = {"position": 3, "normal": 3, "rest": 3, "surface": 4, "fixed_material": 1}  # of a vertex: floats


class GLRenderer:
    """Needs ``moderngl`` (extra "gl") and EGL; RuntimeError says what is missing. Belongs to the thread that made it."""

    name = "gl"
    depth_tested = has_things = True

    def __init__(self, dresser: Dresser, faces: np.ndarray, without: frozenset[str] = frozenset()):
        self.dresser, self.faces, self.without = dresser, faces, without
        self.wardrobe, self.hands = Wardrobe(dresser, faces), Hands(dresser)
        self.context = make_context()
        version, common = "#version 330\n", shaders.COMMON
        program = lambda vertex, fragment: self.context.program(vertex_shader=version + common + vertex, fragment_shader=version + common + fragment)  # noqa: E731
        self._shadow = program(shaders.DEPTH_VERTEX, shaders.DEPTH_FRAGMENT)
        self._contact = program(shaders.DEPTH_VERTEX, shaders.HEIGHT_FRAGMENT)
        self._geometry = program(shaders.PERSON_VERTEX, shaders.GEOMETRY_FRAGMENT)
        self._occlusion = program(shaders.SCREEN_VERTEX, shaders.OCCLUSION_FRAGMENT)
        self._backdrop = program(shaders.SCREEN_VERTEX, shaders.BACKDROP_FRAGMENT)
        self._ground = program(shaders.GROUND_VERTEX, shaders.GROUND_FRAGMENT)
        self._person = program(shaders.PERSON_VERTEX, shaders.PERSON_FRAGMENT)
        self._shadow_map = self.context.depth_texture((SHADOW_SIZE, SHADOW_SIZE))
        self._shadow_map.compare_func = "<="
        self._shadow_map.repeat_x = self._shadow_map.repeat_y = False
        self._shadow_target = self.context.framebuffer(depth_attachment=self._shadow_map)
        self._heights = self.context.texture((CONTACT_SIZE, CONTACT_SIZE), 1, dtype="f4")
        self._heights.repeat_x = self._heights.repeat_y = False
        self._heights_target = self.context.framebuffer(self._heights, self.context.depth_renderbuffer((CONTACT_SIZE, CONTACT_SIZE)))
        self._screen = self.context.vertex_array(self._backdrop, [])
        self._targets: dict[tuple[int, int], Targets] = {}

    @staticmethod
    def identity() -> dict:
        """What its pictures depend on besides the generator: the driver, and what is drawn. RuntimeError where there is none."""
        context = make_context()
        info = dict(context.info)
        context.release()
        return {"renderer": GLRenderer.name, "things": THINGS, "driver": f"{info['GL_RENDERER']}, OpenGL {info['GL_VERSION']}"}

    def draw(self, rng: Generator, canvas: np.ndarray, bodies: list[np.ndarray], view: RenderView, standing: Sequence[Thing] = ()) -> Drawn:
        """As PaintedRenderer.draw: over ``canvas`` (H, W, 3) float32 BGR, in place."""
        looks, meshes, things = [], [], list(standing)
        for vertices in bodies:
            look, pieces = self.wardrobe.choose(rng, self.dresser.look(rng))
            looks.append(look.without(self.without))
            meshes.append(self.wardrobe.dress(vertices, looks[-1], [] if "cloth_shape" in self.without else pieces))
            held = self.hands.hold(rng, vertices, view.light.up)
            things += [] if "held" in self.without else held
        softness, radius = rng.uniform(0.006, 0.05), rng.uniform(0.08, 0.25)
        if meshes:
            self._render(canvas, [*meshes, *(thing.mesh for thing in things)], [*looks, *(thing.look for thing in things)],
                         [True] * len(meshes) + [thing.stands for thing in things], view, softness, radius)  # fmt: skip
        size = canvas.shape[:2]
        return Drawn([silhouette(mesh, view, size) for mesh in meshes], [silhouette(thing.mesh, view, size) for thing in things])

    # ---- passes ----------------------------------------------------------------------------------------------------------

    def _render(
        self, canvas: np.ndarray, meshes: list[Mesh], looks: list[Outfit], stands: list[bool], view: RenderView, softness: float, radius: float
    ) -> None:  # fmt: skip
        context, height, width = self.context, *canvas.shape[:2]
        if (width, height) not in self._targets:
            self._targets = {(width, height): Targets(context, (width, height))}
        target = self._targets[width, height]
        target.photo.write(np.ascontiguousarray((canvas / 255) ** GAMMA, np.float32))
        everything = np.concatenate([mesh.vertices for mesh in meshes])
        towards_lamp = light_matrix(everything, view.light.direction)
        scene = {
            "lens": (*view.intrinsics[:2], view.intrinsics[2] + 0.5, view.intrinsics[3] + 0.5), "size": (width, height),
            "depth_range": (NEAR, float(everything[:, 2].max()) + 2 * GROUND), "lamp_direction": tuple(view.light.direction),
            "shadow_map": 1, "up": tuple(view.light.up), "towards_lamp": towards_lamp.T.ravel(), "softness": softness, "radius": radius,
            **lighting(canvas, view.light, view.exposure, even="light" in self.without),
        }  # fmt: skip
        for program in (self._shadow, self._contact, self._geometry, self._occlusion, self._backdrop, self._ground, self._person):
            assign(program, scene)
        buffers = [self._upload(mesh) for mesh in meshes]
        people = [self._vertex_array(self._person, buffer) for buffer in buffers]

        context.enable_only(context.DEPTH_TEST)
        self._shadow_target.clear(depth=1.0)
        self._shadow_target.use()
        assign(self._shadow, {"matrix": towards_lamp.T.ravel()})
        for buffer in buffers:
            self._vertex_array(self._shadow, buffer).render()

        target.geometry.clear()
        target.geometry.use()
        for buffer in buffers:
            self._vertex_array(self._geometry, buffer).render()

        context.enable_only(context.NOTHING)
        target.occlusion.use()
        target.surfaces.use(0)
        context.vertex_array(self._occlusion, []).render(context.TRIANGLES, 3)

        target.multisampled.clear()
        target.multisampled.use()
        target.photo.use(0)
        self._screen.render(context.TRIANGLES, 3)
        self._shadow_map.use(1)
        if "shadow" not in self.without:
            for mesh, buffer, on_ground in zip(meshes, buffers, stands):
                if on_ground:
                    self._shade_ground(mesh, buffer, view.light.up, target)
        context.enable_only(context.DEPTH_TEST)
        target.shade.use(0)
        self._shadow_map.use(1)
        for person, look in zip(people, looks):
            assign(self._person, self._outfit(look))
            person.render()
        context.copy_framebuffer(target.resolved, target.multisampled)
        picture = np.frombuffer(target.resolved.read(components=3, dtype="f4"), np.float32).reshape(height, width, 3)
        canvas[:] = 255 * np.clip(picture, 0, 1) ** (1 / GAMMA)
        for buffer in buffers:
            for part in buffer:
                part.release()

    def _vertex_array(self, program, buffers: tuple):
        """Only the attributes that the program reads: moderngl refuses others."""
        read = [(f"{count}f", name) if name in program else (f"{count}x4", None) for name, count in ATTRIBUTES.items()]
        content = (buffers[0], " ".join(form for form, _ in read), *(name for _, name in read if name))
        return self.context.vertex_array(program, [content], buffers[1])

    def _upload(self, mesh: Mesh) -> tuple:
        """Buffers of the vertices' attributes and of the faces."""
        rows = np.column_stack([mesh.vertices, vertex_normals(mesh.vertices, mesh.faces), mesh.rest, mesh.surface, mesh.material])
        return self.context.buffer(rows.astype(np.float32)), self.context.buffer(np.ascontiguousarray(mesh.faces, np.int32))

    def _shade_ground(self, mesh: Mesh, buffer: tuple, up: np.ndarray, target: Targets) -> None:
        """Multiply what is on the ground around a person's lowest point by what the person leaves of the light."""
        context, heights = self.context, mesh.vertices @ up
        lowest = float(heights.min())
        feet = mesh.vertices[heights < lowest + 0.12]
        centre = feet.mean(0) + (lowest - feet.mean(0) @ up) * up
        right = np.cross(up, [0.0, 0.0, 1.0] if abs(up[2]) < 0.9 else [1.0, 0.0, 0.0])
        right /= np.linalg.norm(right)
        axes = np.stack([right, np.cross(up, right)])
        from_below = np.zeros((4, 4))
        from_below[:2, :3], from_below[2, :3] = axes / GROUND, up / 2.0  # heights up to 2 m
        from_below[:3, 3] = -from_below[:3, :3] @ centre
        from_below[2, 3] -= 0.99
        from_below[3, 3] = 1
        self._heights_target.clear(red=9.0, depth=1.0)
        self._heights_target.use()
        context.enable_only(context.DEPTH_TEST)
        assign(self._contact, {"matrix": from_below.T.ravel(), "ground": (*up, lowest)})
        self._vertex_array(self._contact, buffer).render()
        target.multisampled.use()
        context.enable_only(context.BLEND)
        context.blend_func = context.ZERO, context.SRC_COLOR
        self._heights.use(0)
        assign(self._ground, {"centre": tuple(centre), "axes": np.concatenate([axes, up[None]]).ravel(), "reach": GROUND})
        context.vertex_array(self._ground, []).render(context.TRIANGLE_STRIP, 4)
        context.blend_func = context.DEFAULT_BLENDING

    def _outfit(self, look: Outfit) -> dict:
        """Uniforms of one person's clothes."""
        colours = (np.clip(look.colours, 0, 255) / 255) ** GAMMA
        return {
            "colours": colours.reshape(18, 3), "patterns": look.patterns, "frequencies": look.frequencies, "gloss": look.gloss, "cuts": look.cuts,
            "eyes": self.dresser.eyes, "neck": self.dresser.joints[12],
        }  # fmt: skip


class Targets:
    """Textures and framebuffers of one picture size (W, H)."""

    def __init__(self, context, size: tuple[int, int]):
        self.photo = context.texture(size, 3, dtype="f4")
        self.surfaces = context.texture(size, 4, dtype="f4")  # normal and depth of what the pixel's centre sees
        self.shade = context.texture(size, 1, dtype="f2")
        for texture in (self.photo, self.surfaces, self.shade):
            texture.repeat_x = texture.repeat_y = False
        self.geometry = context.framebuffer(self.surfaces, context.depth_renderbuffer(size))
        self.occlusion = context.framebuffer(self.shade)
        self.multisampled = context.framebuffer(
            context.renderbuffer(size, 4, samples=SAMPLES, dtype="f2"), context.depth_renderbuffer(size, samples=SAMPLES)
        )
        self.resolved = context.framebuffer(context.renderbuffer(size, 4, dtype="f2"))


def make_context():
    """An OpenGL 3.3 context without a window. RuntimeError where moderngl or EGL is missing."""
    try:
        import moderngl
    except ImportError as error:
        raise RuntimeError("the renderer gl needs the Python package moderngl, which is missing: pip install '.[gl]'") from error
    os.environ.setdefault("LP_NUM_THREADS", "1")  # llvmpipe: a worker has one core, as its detectors do
    try:
        context = moderngl.create_context(standalone=True, backend="egl", require=330)
    except Exception as error:  # moderngl raises bare Exceptions
        raise RuntimeError(
            f"the renderer gl needs OpenGL 3.3 on EGL, which this machine does not give ({error}): install a driver, or Mesa's for the CPU, "
            "apt-get install libegl1 libgl1-mesa-dri"
        ) from error
    context.gc_mode = "auto"  # objects are released with their Python objects; by default moderngl keeps them as long as the context
    return context


def assign(program, values: dict) -> None:
    """Set the uniforms that the program has."""
    for name, value in values.items():
        if name in program:
            if isinstance(value, np.ndarray):
                kind = np.int32 if value.dtype.kind == "i" else np.float32
                program[name].write(np.ascontiguousarray(value, kind).tobytes())
            else:
                program[name].value = value


def light_matrix(points: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """(4, 4) camera axes → clip space of a lamp at infinity that sees all of points (N, 3); depth grows away from it."""
    helper = np.array([1.0, 0, 0]) if abs(direction[0]) < 0.9 else np.array([0, 1.0, 0])
    right = np.cross(helper, direction) / np.linalg.norm(np.cross(helper, direction))
    axes = np.stack([right, np.cross(direction, right), -direction])
    seen = points @ axes.T
    low, high = seen.min(0) - 0.1, seen.max(0) + 0.1
    high[2] += 2 * GROUND  # the ground behind them
    half = (high - low) / 2
    half[:2] = half[:2].max()
    matrix = np.eye(4)
    matrix[:3, :3] = axes / half[:, None]
    matrix[:3, 3] = -(low + high) / 2 / half
    return matrix


def lighting(canvas: np.ndarray, light: Light, exposure: float, even: bool) -> dict:
    """Uniforms of the light, linear BGR: the lamp, ambient light of sky and ground, and its directions, as in the photo (H, W, 3; 0..255)."""
    lamp, sky, ground = (np.asarray(colour, np.float64) for colour in (light.lamp, light.sky, light.ground))
    share = lamp.mean() / max((lamp + (sky + ground) / 2).mean(), 1e-6)
    total = 0.9 * exposure**GAMMA
    ambient = (sky + ground).mean() / 2
    harmonics = np.zeros((9, 3))
    harmonics[0] = 1
    if not even:
        harmonics = photo_harmonics(canvas)
    return {
        "lamp": tuple(1.7 * total * share * lamp / max(lamp.mean(), 1e-6)), "sky": tuple(total * (1 - share) * sky / ambient),
        "ground_light": tuple(total * (1 - share) * ground / ambient), "harmonics": harmonics, "lamp_share": 0.0 if even else float(share),
    }  # fmt: skip


def photo_harmonics(canvas: np.ndarray) -> np.ndarray:
    """(9, 3) coefficients of irradiance from directions, mean 1: as if the photo stood around the people, in front and behind.

    Its columns cover 180 degrees, its rows 144; order 1, y, z, x, xy, yz, 3z²-1, xz, x²-y². Half of the colour is taken away: nobody knows what the
    camera did to it.
    """
    small = (cv2.resize(canvas, (16, 12), interpolation=cv2.INTER_AREA) / 255) ** GAMMA
    small = 0.5 * small + 0.5 * small.mean(2, keepdims=True)
    azimuth = (np.arange(16) + 0.5) / 16 * np.pi - np.pi / 2
    elevation = ((np.arange(12) + 0.5) / 12 - 0.5) * 0.8 * np.pi  # y is down, as rows are
    elevation, azimuth = np.meshgrid(elevation, azimuth, indexing="ij")
    total, weights = np.zeros((9, 3)), 0.0
    for side in (1, -1):
        x, y, z = np.sin(azimuth) * np.cos(elevation), np.sin(elevation), side * np.cos(azimuth) * np.cos(elevation)
        basis = np.stack([np.ones_like(x), y, z, x, x * y, y * z, 3 * z * z - 1, x * z, x * x - y * y])
        total += np.einsum("khw,hwc,hw->kc", basis, small, np.cos(elevation))
        weights += np.cos(elevation).sum()
    # Norms of the basis on the sphere and the cosine lobe's factors (1, 2/3, 1/4), relative to the constant term.
    scale = np.array([1, *[3 * 2 / 3] * 3, *[15 / 4] * 2, 5 / 4 / 4, 15 / 4, 15 / 4 / 4])
    total *= scale[:, None] / weights
    return total / max(total[0].mean(), 1e-6)


def silhouette(mesh: Mesh, view: RenderView, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Coverage (H, W), 0 or 1, and depth (H, W) metres, inf where nobody is, by the rasteriser."""
    pixels = np.column_stack([project_pinhole(mesh.vertices, view.intrinsics), mesh.vertices[:, 2]]).astype(np.float32)
    raster = rasterize(pixels, mesh.faces, size, perspective=True)
    covered = raster.face >= 0
    return covered.astype(np.float32), np.where(covered, raster.depth, np.inf).astype(np.float32)
