"""Clothes as shapes of their own: cut with clean borders, and worn where the body is, in any pose."""

import numpy as np
import pytest

from hmr_ros.training.data.rendered.appearance import BOTTOM, TOP
from hmr_ros.training.data.rendered.garments import Piece, Wardrobe, cut
from hmr_ros.training.data.rendered.scene import SceneMaker


@pytest.fixture(scope="module")
def maker():
    return SceneMaker("train")


@pytest.fixture(scope="module")
def wardrobe(maker):
    return Wardrobe(maker.dresser, maker.faces)


def worn(wardrobe, maker, vertices, pieces, seed=0):
    look = maker.dresser.look(np.random.default_rng(seed))
    mesh = wardrobe.dress(vertices.astype(np.float32), look, pieces)
    return mesh, mesh.vertices[len(vertices):]


def test_a_cut_has_a_clean_border_and_keeps_the_area_on_its_side():
    x, y = np.meshgrid(np.arange(5.0), np.arange(5.0))
    rows = np.stack([x.ravel(), y.ravel(), np.zeros(25)], 1)
    quads = np.array([[i, i + 1, i + 6, i + 5] for i in range(20) if i % 5 < 4])
    faces = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    for height in (1.3, 2.5, 3.9):
        kept, left = cut(rows, faces, height - rows[:, 1])
        a, b, c = (kept[left[:, i], :2] for i in range(3))
        signed = ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2
        assert (signed > 0).all()  # still counter-clockwise
        np.testing.assert_allclose(signed.sum(), 4 * height)
        assert kept[left, 1].max() == pytest.approx(height)


def test_garments_cover_the_body_in_the_rest_pose_and_move_rigidly_with_it(maker, wardrobe):
    pieces = [Piece("tights", BOTTOM, 0.0, -0.5, 9.0, 0.0, 0.01, 0.0), Piece("tights", TOP, 0.6, -0.1, 0.4, 0.08, 0.01, 0.0)]
    rest = maker.dresser.rest
    mesh, clothes = worn(wardrobe, maker, rest, pieces)
    hips = np.abs(mesh.rest[len(rest):, 1] + 0.05) < 0.02
    widest = np.ptp(rest[(np.abs(rest[:, 1] + 0.05) < 0.02) & (np.abs(rest[:, 0]) < 0.3), 0])
    assert widest < np.ptp(clothes[hips, 0]) < widest + 0.08
    turn = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])
    _, moved = worn(wardrobe, maker, rest @ turn.T + [1, 2, 3], pieces)
    np.testing.assert_allclose(moved, clothes @ turn.T + [1, 2, 3], atol=1e-4)


def test_trousers_follow_a_bent_knee_and_a_skirt_stays_between_the_legs(maker, wardrobe):
    pose = np.zeros((24, 3))
    pose[4], pose[1] = (1.5, 0, 0), (-1.5, 0, 0)  # the left thigh forwards, the shin down
    posed = maker.forward(pose, np.zeros(10))[0]
    mesh, trousers = worn(wardrobe, maker, posed, [Piece("tights", BOTTOM, 0.0, -0.7, 9.0, 0.0, 0.005, 0.0)])
    used = np.unique(mesh.faces[mesh.faces.min(1) >= len(posed)]) - len(posed)
    distance = np.array([np.linalg.norm(posed - point, axis=1).min() for point in trousers[used][::7]])
    assert np.median(distance) < 0.025 and distance.max() < 0.1
    _, skirt = worn(wardrobe, maker, posed, [Piece("skirt", BOTTOM, 0.0, -0.5, 9.0, 0.0, 0.0, 0.0)])
    assert np.isfinite(skirt).all() and np.linalg.norm(skirt, axis=1).max() < 1.1


def test_every_outfit_can_be_worn(maker, wardrobe):
    shells = set()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        look, pieces = wardrobe.choose(rng, maker.dresser.look(rng))
        mesh = wardrobe.dress(maker.dresser.rest, look, pieces)
        assert np.isfinite(mesh.vertices).all() and mesh.faces.max() < len(mesh.vertices)
        assert np.abs(mesh.vertices).max() < 1.2
        shells |= {piece.shell for piece in pieces}
    assert shells == {"tights", "skirt", "hair"}
