"""The OpenGL renderer: people where the rasteriser says that they are, lit from where the lamp is, with shadows on the other side."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hmr_ros.geometry import pinhole, project_pinhole
from hmr_ros.training.data.rendered import dataset as rendered
from hmr_ros.training.data.rendered.gl import GLRenderer, make_context
from hmr_ros.training.data.rendered.painting import Light, RenderView
from hmr_ros.training.data.rendered.scene import SceneMaker

GREEN = (0.0, 200.0, 0.0)
SIZE = (200, 160)  # H, W
INTRINSICS = pinhole(SIZE[1], SIZE[0], 45.0)


@pytest.fixture(scope="module")
def maker():
    try:
        make_context().release()
    except RuntimeError as error:  # no EGL or no moderngl; what the renderer does with them may fail, but not be skipped
        pytest.skip(str(error))
    return SceneMaker("train", renderer="gl")


def standing(maker, yaw=0.0, x=0.0, z=3.2):
    """The mean body with hanging arms, upright before a level camera, (V, 3) in its axes."""
    pose = np.zeros((24, 3))
    pose[0] = (Rotation.from_rotvec([np.pi, 0, 0]) * Rotation.from_rotvec([0, yaw, 0])).as_rotvec()
    pose[16], pose[17] = (0, 0, -1.2), (0, 0, 1.2)
    return (maker.forward(pose, np.zeros(10))[0] + [x, 0.25, z]).astype(np.float32)


def light_from(*direction, lamp=1.0):
    direction = np.array(direction) / np.linalg.norm(direction)
    return Light(direction, np.full(3, lamp), np.full(3, 0.15), np.full(3, 0.15), np.array([0.0, -1.0, 0.0]))


def draw(maker, bodies, light=None, colour=GREEN, without=frozenset(), seed=0):
    canvas = np.full((*SIZE, 3), colour, np.float32)
    maker.renderer.without = frozenset(without)
    layers, _ = maker.renderer.draw(np.random.default_rng(seed), canvas, bodies, RenderView(INTRINSICS, light or light_from(0, -1, -1), 1.0))
    return canvas, layers


def test_people_are_seen_where_the_rasteriser_sees_them(maker):
    canvas, [(coverage, depth)] = draw(maker, [standing(maker, yaw=0.7, z=2.6)], without={"shadow"})
    drawn = np.abs(canvas - GREEN).max(2) > 50
    both = drawn & (coverage > 0.5)
    assert both.sum() / (drawn | (coverage > 0.5)).sum() > 0.95  # what is left are half-covered pixels of the border
    assert 2.2 < depth[coverage > 0.5].min() < depth[coverage > 0.5].max() < 3.0
    assert np.isinf(depth[coverage == 0]).all()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read in /proc")
def test_memory_does_not_grow_with_the_pictures(maker):
    """Buffers, vertex arrays and the targets of another size are given back: 11 GB after 500 pictures ended a run."""

    def megabytes_after(pictures: int) -> float:
        for i in range(pictures):
            canvas = np.zeros((480 + 160 * (i % 2), 640 - 160 * (i % 2), 3), np.float32)
            maker.renderer.draw(np.random.default_rng(0), canvas, [standing(maker)], RenderView(pinhole(640, 480, 45.0), light_from(0, -1, -1), 1.0))
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

    assert -megabytes_after(6) + megabytes_after(10) < 100


@pytest.mark.parametrize("side", [-1, 1])
def test_light_from_a_side_brightens_that_side(maker, side):
    canvas, [(coverage, _)] = draw(maker, [standing(maker)], light_from(side, 0, -0.2), without={"shadow", "patterns", "clothes"})
    brightness, columns = canvas.mean(2), np.arange(SIZE[1])[None].repeat(SIZE[0], 0)
    middle = columns[coverage > 0.5].mean()
    near, far = (brightness[(coverage > 0.5) & (part * (columns - middle) > 3)].mean() for part in (side, -side))
    assert near > 1.3 * far


@pytest.mark.parametrize("side", [-1, 1])
def test_the_shadow_falls_on_the_other_side_of_the_person(maker, side):
    body = standing(maker)
    canvas, [(coverage, _)] = draw(maker, [body], light_from(side, -1, 0), colour=(150, 150, 150))
    border = cv2.dilate(coverage, np.ones((3, 3)))  # half-covered pixels
    dark = np.where(border > 0, 0, np.clip(150 - canvas.mean(2), 0, None))
    feet = project_pinhole(body[body[:, 1] > body[:, 1].max() - 0.05], INTRINSICS).mean(0)
    assert dark.max() > 30 and dark[: SIZE[0] // 2].max() < 3  # on the ground, nowhere else
    assert -side * ((dark.sum(0) @ np.arange(SIZE[1])) / dark.sum() - feet[0]) > 8
    plain, _ = draw(maker, [body], light_from(side, -1, 0), colour=(150, 150, 150), without={"shadow"})
    assert np.abs(plain - 150)[border == 0].max() < 1


def test_somebody_in_the_shadow_of_another_is_darker(maker):
    alone, [(coverage, _)] = draw(maker, [standing(maker, z=4.0)], light_from(0, -0.1, -1), without={"shadow"})
    beside, layers = draw(maker, [standing(maker, z=4.0), standing(maker, x=1.1, z=3.0)], light_from(1.1, -0.05, -1), without={"shadow"})
    seen = (coverage > 0) & (layers[1][0] == 0)
    assert beside[seen].mean() < 0.75 * alone[seen].mean()


def test_the_same_seed_is_the_same_picture_and_the_driver_is_part_of_the_data_sets_identity(maker):
    body = standing(maker)
    first, again, other = (draw(maker, [body], seed=seed)[0] for seed in (3, 3, 4))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    maker.renderer.without = frozenset()
    pictures = [rendered.picture(maker, 5, "train", 2) for _ in range(2)]
    assert np.array_equal(pictures[0].image, pictures[1].image) and np.array_equal(pictures[0].depth, pictures[1].depth)
    assert GLRenderer.identity()["renderer"] == "gl" and GLRenderer.identity()["driver"]


def test_truth_is_the_painters(maker):
    """Who stands where does not depend on who draws them."""
    maker.renderer.without = frozenset()
    painted, shaded = (rendered.picture(source, 0, "train", 4) for source in (SceneMaker("train"), maker))
    for one, other in zip(painted.people, shaded.people, strict=True):
        np.testing.assert_array_equal(one.pose, other.pose)
        np.testing.assert_array_equal(one.keypoints, other.keypoints)


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "moderngl", None)
    with pytest.raises(RuntimeError, match=r"moderngl, which is missing: pip install '\.\[gl\]'"):
        make_context()
    with pytest.raises(ValueError, match="'mitsuba' is unknown; expected one of painter, gl"):
        SceneMaker("train", renderer="mitsuba")


def test_without_egl_the_driver_is_named(monkeypatch):
    moderngl = pytest.importorskip("moderngl")

    def refuse(**_):
        raise Exception("eglInitialize failed")

    monkeypatch.setattr(moderngl, "create_context", refuse)
    with pytest.raises(RuntimeError, match=r"EGL, which this machine does not give \(eglInitialize failed\).*libgl1-mesa-dri"):
        make_context()
