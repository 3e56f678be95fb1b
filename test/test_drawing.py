"""Overlays: the mesh lies where its vertices project, near people hide far ones, and the side view is a side view."""

import numpy as np
import pytest
import torch

from hmr_ros.body.model import BodyModel
from hmr_ros.drawing import BACKDROP, draw_keypoints, draw_overlay, draw_side_view, side_by_side
from hmr_ros.estimate import BodyEstimate
from hmr_ros.geometry import matrix_from_rotvec, project_weak
from hmr_ros.palette import LEFT, PEOPLE, RIGHT, bgr
from hmr_ros.skeleton import COCO_KEYPOINTS

HEIGHT, WIDTH = 240, 320


@pytest.fixture(scope="module")
def model():
    return BodyModel.load(None)


def estimate(model, crop=(160, 120, 200), weak_camera=(0.9, 0.0, 0.1), translation=None, pose=None) -> BodyEstimate:
    """A body that faces the camera."""
    rotvec = np.zeros((24, 3), np.float32)
    rotvec[0] = np.pi, 0, 0
    rotvec[1:] = 0 if pose is None else pose
    output = model.forward(torch.from_numpy(matrix_from_rotvec(rotvec))[None], torch.zeros(1, 10))
    crop, weak_camera = np.array(crop, np.float32), np.array(weak_camera, np.float32)
    return BodyEstimate(
        score=0.9,
        box=np.zeros(4, np.float32),
        keypoints=np.zeros((17, 3), np.float32),
        reliability=np.ones(12, np.float32),
        global_orient=rotvec[0],
        body_pose=rotvec[1:].reshape(-1),
        betas=np.zeros(10, np.float32),
        crop=crop,
        weak_camera=weak_camera,
        translation=None if translation is None else np.array(translation, np.float32),
        joints=output.joints[0].detach().numpy(),
        vertices=output.vertices[0].detach().numpy(),
        projected_keypoints=project_weak(output.keypoints[0].detach().numpy(), weak_camera, crop),
    )


def grey(level: int = 90) -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), level, np.uint8)


def extent(mask: np.ndarray) -> np.ndarray:
    y, x = np.nonzero(mask)
    return np.array([x.min(), y.min(), x.max(), y.max()])


def hue_of(pixel: np.ndarray) -> int:
    """Which colour of the palette a drawn pixel comes from, by its direction in colour space."""
    colours = np.array([bgr(colour) for colour in PEOPLE], float)
    directions = colours / np.linalg.norm(colours, axis=1, keepdims=True)
    return int((directions @ pixel.astype(float)).argmax())


def test_the_silhouette_lies_where_the_vertices_project(model):
    body = estimate(model)
    drawn = (draw_overlay(grey(), [body], model.faces) != grey()).any(-1)
    pixels = project_weak(body.vertices, body.weak_camera, body.crop)
    expected = np.array([*pixels.min(0), *pixels.max(0)])
    assert np.abs(extent(drawn) - expected).max() <= 1.0  # half a pixel of rounding, half of sampling
    inside = np.rint(body.projected_keypoints).astype(int)
    assert drawn[inside[:, 1], inside[:, 0]].all()


def test_edges_are_smooth_and_the_picture_shows_through(model):
    body = estimate(model)
    on_black, on_white = (draw_overlay(grey(v), [body], model.faces, opacity=1.0)[..., 0].astype(int) for v in (0, 255))
    through = on_white - on_black  # 0 on the body, 255 beside it
    assert ((through > 10) & (through < 245)).sum() > 200  # partly covered pixels along the outline
    y, x = 120, 160
    see_through = [draw_overlay(grey(level), [body], model.faces)[y, x].astype(int) for level in (0, 255)]
    np.testing.assert_allclose(see_through[1] - see_through[0], 255 * 0.2, atol=2)


@pytest.mark.parametrize("swapped", [False, True])
def test_the_nearer_person_is_in_front_by_translation(model, swapped):
    near, far = estimate(model, translation=(0, 0, 2)), estimate(model, translation=(0, 0, 3))
    bodies = [far, near] if swapped else [near, far]
    overlay = draw_overlay(grey(), bodies, model.faces, opacity=1.0)
    assert hue_of(overlay[120, 160]) == bodies.index(near)


@pytest.mark.parametrize("swapped", [False, True])
def test_the_larger_person_is_in_front_without_intrinsics(model, swapped):
    large, small = estimate(model, crop=(160, 120, 240)), estimate(model, crop=(160, 120, 150), translation=(0, 0, 0.1))
    bodies = [small, large] if swapped else [large, small]  # one translation alone cannot be compared and is ignored
    overlay = draw_overlay(grey(), bodies, model.faces, opacity=1.0)
    assert hue_of(overlay[125, 160]) == bodies.index(large)


def test_nobody_gives_an_equal_copy_and_the_input_is_never_written(model):
    image = grey()
    copy = draw_overlay(image, [], model.faces)
    assert copy is not image and np.array_equal(copy, image)
    draw_overlay(image, [estimate(model)], model.faces)
    draw_keypoints(image, np.full((17, 3), 50.0))
    assert np.array_equal(image, grey())


@pytest.mark.parametrize("crop", [(-900, 120, 200), (160, 9000, 200), (1e7, 1e7, 10), (160, 120, 20000)])
def test_people_outside_the_picture_or_larger_than_it_do_no_harm(model, crop):
    body = estimate(model, crop=crop)
    assert side_by_side(grey(), [body], model.faces).shape == (HEIGHT, 2 * WIDTH, 3)


def test_the_side_view_shows_a_stretched_arm_where_the_front_hides_it(model):
    pose = np.zeros((23, 3), np.float32)
    pose[15] = 0, -np.pi / 2, 0  # left shoulder: the arm of the T-pose swings to the front
    pose[16] = 0, 0, 1.3  # right shoulder: the arm hangs
    body = estimate(model, pose=pose)
    view = draw_side_view([body], model.faces, (HEIGHT, WIDTH))
    assert view.shape == (HEIGHT, WIDTH, 3)
    shown = (np.abs(view.astype(int) - BACKDROP).max(-1) > 60)[:150]  # without the ground line
    pixels = project_weak(body.vertices, body.weak_camera, body.crop)
    trunk = pixels[:, 0].min() / 2 + pixels[:, 0].max() / 2
    per_metre = body.weak_camera[0] * body.crop[2] / 2
    left, _, right, _ = extent(shown)
    assert right - left == pytest.approx(np.ptp(body.vertices[:, 2]) * per_metre, abs=2.5)
    assert (left + right) / 2 == pytest.approx(trunk, abs=2.5)  # each at its place
    legs = np.nonzero(shown[135])[0].mean()
    assert legs > (left + right) / 2 + 15  # who faces the camera looks to the left: the arm is there, the legs are not


def test_left_is_blue_right_is_orange_and_doubt_is_not_drawn():
    keypoints = np.zeros((17, 3), np.float32)
    for side, x in (("left", 200), ("right", 100)):
        keypoints[COCO_KEYPOINTS.index(f"{side}_shoulder")] = x, 60, 0.9
        keypoints[COCO_KEYPOINTS.index(f"{side}_elbow")] = x, 120, 0.9
    keypoints[COCO_KEYPOINTS.index("left_wrist")] = 200, 200, 0.1
    keypoints[COCO_KEYPOINTS.index("right_wrist")] = np.nan, 200, 0.9
    drawn = draw_keypoints(grey(), keypoints, min_confidence=0.3)
    np.testing.assert_allclose(drawn[90, 200], bgr(LEFT), atol=15)  # a thin anti-aliased line
    np.testing.assert_allclose(drawn[90, 100], bgr(RIGHT), atol=15)
    assert np.array_equal(drawn[160:], grey()[160:])
    assert np.array_equal(draw_keypoints(grey(), np.stack([keypoints, np.zeros((17, 3))]), 0.3), drawn)


def test_a_body_keeps_its_colour_when_another_one_is_added(model):
    first = estimate(model, crop=(80, 120, 140))
    second = estimate(model, crop=(240, 120, 140))
    alone = draw_overlay(grey(), [first], model.faces)
    together = draw_overlay(grey(), [first, second], model.faces)
    assert np.array_equal(alone[:, :150], together[:, :150])


def test_everybody_has_a_colour_of_their_own(model):
    people = [estimate(model, crop=(x, 120, 60)) for x in range(30, 310, 40)]
    overlay = draw_overlay(grey(), people, model.faces, opacity=1.0)
    places = [np.rint(body.projected_keypoints[[5, 6, 11, 12]].mean(0)).astype(int) for body in people]
    assert [hue_of(overlay[y, x]) for x, y in places] == list(range(len(PEOPLE)))
