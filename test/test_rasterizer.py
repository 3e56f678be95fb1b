"""The z-buffer against a brute-force reference, its point query against the z-buffer, and the gradients of its depth."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hmr_ros.rasterizer import depth_at, front_faces, rasterize, vertex_normals, visible_face

SIZE = (20, 24)  # H, W


def random_mesh(seed: int, triangles: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    vertices = rng.uniform((-8, -8, 0.5), (SIZE[1] + 8, SIZE[0] + 8, 5), (3 * triangles, 3)).astype(np.float32)
    return vertices, np.arange(3 * triangles, dtype=np.int32).reshape(-1, 3)


def brute_force(vertices, faces, points, perspective):
    """For each point: depth of the nearest face, and whether it is too close to an edge to say (rounding)."""
    corners = vertices[faces].astype(np.float64)  # (F, 3, 3)
    a, b, c = (corners[:, i, :2][None] - points[:, None] for i in range(3))

    def cross(p, q):
        return p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0]

    weights = np.stack([cross(b, c), cross(c, a), cross(a, b)], -1)  # (P, F, 3)
    weights = weights / weights.sum(-1, keepdims=True)
    z = corners[None, :, :, 2]
    depth = 1 / (weights / z).sum(-1) if perspective else (weights * z).sum(-1)
    inside = (weights >= 0).all(-1)
    doubtful = (np.abs(weights).min(-1) < 1e-5).any(-1)
    return np.where(inside, depth, np.inf).min(-1), doubtful


def pixel_centres() -> np.ndarray:
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    return np.stack([x.ravel(), y.ravel()], -1).astype(np.float64)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.booleans())
def test_every_pixel_sees_the_nearest_face_that_covers_its_centre(seed, triangles, perspective):
    vertices, faces = random_mesh(seed, triangles)
    raster = rasterize(vertices, faces, SIZE, perspective=perspective)
    expected, doubtful = brute_force(vertices, faces, pixel_centres(), perspective)
    expected, sure = expected.reshape(SIZE), ~doubtful.reshape(SIZE)
    assert np.array_equal((raster.face >= 0)[sure], np.isfinite(expected)[sure])
    seen = sure & np.isfinite(expected)
    np.testing.assert_allclose(raster.depth[seen], expected[seen], rtol=1e-5)  # float32 output
    assert (raster.depth[raster.face < 0] == 0).all()
    np.testing.assert_allclose(raster.barycentric.sum(-1)[raster.face >= 0], 1, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 200), st.booleans())
def test_points_see_what_pixels_see(seed, triangles, perspective):
    vertices, faces = random_mesh(seed, triangles)
    points = pixel_centres().astype(np.float32)
    raster = rasterize(vertices, faces, SIZE, perspective=perspective)
    seen = visible_face(points, vertices, faces, perspective=perspective)
    assert seen.dtype == np.int32
    assert np.array_equal(seen, raster.face.ravel())
    depth = depth_at(torch.tensor(points), seen, torch.tensor(vertices), faces, perspective=perspective)
    np.testing.assert_allclose(depth.numpy(), raster.depth.ravel(), rtol=1e-6)  # both float32 of a float64 depth


def test_the_nearer_of_two_squares_hides_the_other_whatever_their_order():
    square = np.array([[2, 2], [17, 2], [17, 17], [2, 17]], np.float32)
    near, far = np.column_stack([square, np.full(4, 1.0)]), np.column_stack([square + 3, np.full(4, 2.0)])
    faces = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    one = rasterize(np.concatenate([near, far]), faces, SIZE)
    other = rasterize(np.concatenate([far, near]), faces, SIZE)
    assert one.depth[10, 10] == other.depth[10, 10] == 1.0
    assert one.depth[19, 19] == other.depth[19, 19] == 2.0
    assert one.face[10, 10] in (0, 1) and other.face[10, 10] in (2, 3)


def test_neighbouring_triangles_leave_no_gap():
    corners = np.array([[0.3, 0.2, 1], [22.1, 1.7, 1], [20.9, 18.2, 1], [1.4, 17.9, 1]])
    centre = corners.mean(0)
    vertices = np.vstack([corners, centre])
    faces = np.array([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]])
    covered = rasterize(vertices, faces, SIZE).face >= 0
    assert covered[3:17, 3:20].all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38, -1e9])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_broken_vertex_costs_its_faces_and_nothing_else(bad, axis):
    vertices, _ = random_mesh(3, 2)
    vertices[3:] = [[2, 2, 1], [20, 2, 1], [2, 18, 1]]
    vertices[0, axis] = bad
    faces = np.array([[0, 1, 2], [3, 4, 5], [3, 4, 99], [-1, 4, 5]])
    for perspective in (False, True):
        raster = rasterize(vertices, faces, SIZE, perspective=perspective)
        assert set(np.unique(raster.face)) <= ({-1, 1} if axis < 2 or not np.isfinite(bad) else {-1, 0, 1})
        assert 1 in raster.face
        assert np.isfinite(raster.barycentric).all()
        seen = visible_face(np.array([[5, 5], [np.nan, 1], [1e30, -1e30]], np.float32), vertices, faces, perspective)
        assert seen[0] in (0, 1) and seen[1] == -1 and seen[2] == -1


def test_faces_behind_the_camera_are_left_out():
    vertices = np.array([[2, 2, -1], [20, 2, 1], [2, 18, 1], [2, 2, 0], [20, 2, 0], [2, 18, 0]], np.float32)
    assert (rasterize(vertices, np.array([[0, 1, 2], [3, 4, 5]]), SIZE, perspective=True).face == -1).all()


def test_nothing_to_draw_and_nothing_to_ask():
    raster = rasterize(np.zeros((0, 3)), np.zeros((0, 3), int), SIZE)
    assert (raster.face == -1).all()
    assert rasterize(np.zeros((0, 3)), np.zeros((0, 3), int), (0, 5)).face.shape == (0, 5)
    assert visible_face(np.zeros((0, 2)), np.zeros((3, 3)), np.array([[0, 1, 2]])).shape == (0,)


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"\(4, 2\)"):
        rasterize(np.zeros((4, 2)), np.zeros((1, 3), int), SIZE)
    with pytest.raises(ValueError, match="batched"):
        visible_face(np.zeros((5, 2)), np.zeros((1, 3, 3)), np.array([[0, 1, 2]]))


@pytest.mark.parametrize("perspective", [False, True])
def test_depth_has_exact_gradients(perspective):
    vertices, faces = random_mesh(11, 6)
    vertices = torch.tensor(np.stack([vertices, vertices + [0.3, -0.2, 0.5]]), dtype=torch.float64)
    points = torch.tensor(np.random.default_rng(0).uniform(2, 18, (2, 15, 2)))
    seen = visible_face(points, vertices, faces, perspective=perspective)
    assert (seen >= 0).sum() >= 10 and seen.shape == (2, 15)
    vertices.requires_grad_()
    points.requires_grad_()
    assert torch.autograd.gradcheck(lambda p, v: depth_at(p, seen, v, faces, perspective=perspective), (points, vertices))


def test_a_point_that_sees_nothing_has_no_depth_and_no_gradient():
    vertices = torch.tensor([[0.0, 0, 1], [10, 0, 2], [0, 10, 3]], requires_grad=True)
    points = torch.tensor([[2.0, 2.0], [50.0, 50.0]])
    faces = np.array([[0, 1, 2]])
    seen = visible_face(points, vertices, faces)
    assert isinstance(seen, torch.Tensor) and seen.tolist() == [0, -1]
    depth = depth_at(points, seen, vertices, faces)
    torch.testing.assert_close(depth, torch.tensor([1.6, 0.0]))
    depth.sum().backward()
    torch.testing.assert_close(vertices.grad[:, 2], torch.tensor([0.6, 0.2, 0.2]))


def grazed(width: float, dtype=torch.float32):
    """A slanting face one metre deep and about `width` px wide, a point in its middle."""
    corners = [[50.0, 50, 2], [61.3 + width, 57.9 - width, 3], [72.6, 65.8, 2]]
    vertices = torch.tensor(corners, dtype=dtype, requires_grad=True)
    point = vertices.detach()[:, :2].double().mean(0, keepdim=True).to(dtype).requires_grad_()
    return point, vertices, np.array([[0, 1, 2]])


@pytest.mark.parametrize("perspective", [False, True])
@pytest.mark.parametrize("width", [1.0, 1e-2, 1e-4])
def test_a_grazed_face_has_the_depth_of_its_inside_and_finite_gradients(width, perspective):
    point, vertices, faces = grazed(width)
    depth = depth_at(point, torch.tensor([0]), vertices, faces, perspective=perspective)
    assert depth.dtype == torch.float32 and 2 < depth.item() < 3
    in_double = depth_at(point.double(), torch.tensor([0]), vertices.double(), faces, perspective=perspective)
    assert depth.item() == pytest.approx(in_double.item(), rel=1e-6)  # nothing cancels
    depth.sum().backward()
    assert vertices.grad.isfinite().all() and point.grad.isfinite().all()
    assert point.grad.norm() > 0.5 / width  # the slope: exact, hence large


@pytest.mark.parametrize("perspective", [False, True])
def test_faces_beyond_the_steepest_slope_push_along_the_ray_only(perspective):
    for width, moves_sideways in ((1e-3, False), (1.0, True)):  # slopes above 500 and below 2 m/px
        point, vertices, faces = grazed(width)
        arguments = (point, torch.tensor([0]), vertices, faces)
        exact = depth_at(*arguments, perspective=perspective)
        capped = depth_at(*arguments, perspective=perspective, steepest=5.0)
        assert torch.equal(capped, exact)
        of_points, of_vertices = torch.autograd.grad(capped.sum(), (point, vertices))
        assert of_points.any() == of_vertices[:, :2].any() == moves_sideways
        torch.testing.assert_close(of_vertices[:, 2], torch.autograd.grad(exact.sum(), vertices)[0][:, 2])


@pytest.mark.parametrize("perspective", [False, True])
def test_the_slope_that_is_compared_is_the_length_of_the_points_gradient(perspective):
    point, vertices, faces = grazed(7.0, torch.float64)
    depth = depth_at(point, torch.tensor([0]), vertices, faces, perspective=perspective)
    slope = torch.autograd.grad(depth.sum(), point)[0].norm().item()
    for factor, moves_sideways in ((0.999, False), (1.001, True)):
        depth = depth_at(point, torch.tensor([0]), vertices, faces, perspective=perspective, steepest=slope * factor)
        assert torch.autograd.grad(depth.sum(), point)[0].any() == moves_sideways


@pytest.mark.parametrize("perspective", [False, True])
def test_broken_vertices_of_other_faces_do_not_reach_the_gradient(perspective):
    vertices = torch.tensor([[torch.nan, 0, 1], [10, 0, 2], [0, 10, -3], [0, 0, 1], [10, 0, 2], [0, 10, 3]])
    vertices.requires_grad_()
    points = torch.tensor([[2.0, 2.0], [50.0, 50.0], [torch.nan, 1.0]], requires_grad=True)
    faces = np.array([[0, 1, 2], [3, 4, 5]])
    seen = visible_face(points, vertices, faces, perspective=perspective)
    assert seen.tolist() == [1, -1, -1]
    depth_at(points, seen, vertices, faces, perspective=perspective).sum().backward()
    assert vertices.grad.isfinite().all() and points.grad.isfinite().all() and not vertices.grad[:3].any()


def ball(count: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Unit ball, open at the poles only by a pinhole; faces counter-clockwise seen from outside."""
    polar, around = np.meshgrid(
        np.linspace(1e-3, np.pi - 1e-3, count), np.linspace(0, 2 * np.pi, count, endpoint=False), indexing="ij"
    )
    points = np.stack([np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar)], -1)
    index = np.arange(count * count).reshape(count, count)
    here, right = index[:-1], np.roll(index, -1, axis=1)[:-1]
    below, beside = index[1:], np.roll(index, -1, axis=1)[1:]
    halves = np.stack([here, below, right], -1), np.stack([right, below, beside], -1)
    return points.reshape(-1, 3), np.concatenate([half.reshape(-1, 3) for half in halves])


def test_normals_of_a_ball_point_outwards():
    points, faces = ball()
    normals = vertex_normals(points, faces)
    assert (normals * points).sum(-1)[np.abs(points[:, 2]) < 0.95].min() > 0.98


def test_front_faces_of_a_ball_are_all_that_is_seen():
    points, faces = ball()
    turned = points[:, [2, 0, 1]]  # pinholes at the sides
    pixels = turned * [8, 8, 1] + [12, 10, 3]
    front = front_faces(pixels, faces)
    assert 0.4 * len(faces) < len(front) < 0.6 * len(faces)
    every, fronts = rasterize(pixels, faces, SIZE), rasterize(pixels, front, SIZE)
    assert np.array_equal(every.face >= 0, fronts.face >= 0)
    np.testing.assert_allclose(every.depth, fronts.depth, atol=1e-5)
    assert every.depth[10, 12] == pytest.approx(2.0, abs=0.02)  # the near side
