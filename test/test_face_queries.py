"""The backends of visible_face against each other, against a ray tracer's answers, and on people who hide each other."""

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hmr_ros.rasterizer import torch_queries
from hmr_ros.body.model import BodyModel
from hmr_ros.geometry import matrix_from_rotvec
from hmr_ros.rasterizer import BACKENDS, depth_at, rasterize, require, visible_face
from hmr_ros.rasterizer.torch_queries import pixels_to_ndc

GOLDEN = Path(__file__).parent / "data" / "golden_depth.npz"  # by tools/make_golden_depth.py
without_pytorch3d = pytest.mark.skipif(
    importlib.util.find_spec("pytorch3d") is None, reason="pytorch3d is not installed; PyPI has no build for this torch"
)
without_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(scope="module")
def golden():
    """A person in a fixed pose, and what Embree's rays say of 300 points in each projection."""
    data, body = np.load(GOLDEN), BodyModel.load(None)
    assert body.sha256 == str(data["body_sha256"]), "another embedded body: run tools/make_golden_depth.py again"
    rotations = torch.from_numpy(matrix_from_rotvec(data["pose"])).float()[None]
    vertices = body(rotations, torch.from_numpy(data["betas"])[None]).vertices[0]
    views = {}
    for name, distance in (("weak", 0.0), ("perspective", float(data["distance"]))):
        z = vertices[:, 2:] + distance
        scale = float(data["scale"]) if name == "weak" else float(data["focal"]) / z
        pixels = torch.cat([vertices[:, :2] * scale + torch.tensor(data["centre"]).float(), z], 1)
        points, face, depth = (torch.from_numpy(data[f"{name}_{key}"]) for key in ("points", "face", "depth"))
        views[name] = SimpleNamespace(pixels=pixels, points=points, face=face.int(), depth=depth)
    return SimpleNamespace(body=body, vertices=vertices, **views)


@pytest.mark.parametrize("view", ["weak", "perspective"])
@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_points_see_what_a_ray_tracer_says(golden, view, backend):
    asked = getattr(golden, view)
    seen = visible_face(asked.points, asked.pixels, golden.body.faces, view == "perspective", backend=backend)
    assert 180 < (asked.face >= 0).sum() < 260
    # Faces are a few pixels wide and rounding moves edges by 1e-5 px: of 300 random points none lies that close.
    assert torch.equal(seen, asked.face)
    depth = depth_at(asked.points, seen, asked.pixels, golden.body.faces, view == "perspective")
    # Float32 of rays and vertices, 1e-6 of 3 m, is multiplied by the steepness of grazed faces: hence two tolerances.
    error = (depth - asked.depth).abs()
    assert error.max() < 1e-4 and error.median() < 2e-6


# Few distinct coordinates make what random ones never do: shared edges, points on edges and corners, equal depths, faces
# without area or listed twice. Some values are broken, far out, or at the near plane.
pixel = st.sampled_from([0.0, 1.0, 2.0, 3.0, 3.0, 5.0, 8.0, 2.5, -7.25, 1e6, 2e6, float("nan"), float("inf")])
metres = st.sampled_from([1.0, 1.0, 1.0, 2.0, 3.0, 0.5, 1e-3, 0.0, -1.0, float("nan"), float("-inf")])


@settings(max_examples=150, deadline=None)
@given(
    vertices=st.lists(st.tuples(pixel, pixel, metres), min_size=1, max_size=10),
    faces=st.lists(st.tuples(*[st.integers(-1, 10)] * 3), max_size=25),
    points=st.lists(st.tuples(pixel, pixel), max_size=12),
    perspective=st.booleans(),
    near=st.sampled_from([1e-3, 0.5, 1.0]),
)
def test_torch_and_numba_agree_on_degenerate_meshes(vertices, faces, points, perspective, near):
    vertices, points = np.array(vertices, np.float32), np.array(points, np.float32).reshape(-1, 2)
    faces = np.array(faces, np.int32).reshape(-1, 3)
    numba, by_torch = (visible_face(points, vertices, faces, perspective, near, b) for b in ("numba", "torch"))
    assert isinstance(by_torch, np.ndarray) and by_torch.dtype == np.int32
    assert np.array_equal(numba, by_torch)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.booleans(), st.sampled_from([2**23, 300, 1]))
def test_torch_and_numba_agree_on_batches_however_they_are_cut(seed, triangles, perspective, pairs):
    rng = np.random.default_rng(seed)
    vertices = rng.uniform((-8, -8, 0.5), (32, 28, 5), (3, 2 * triangles, 3)).astype(np.float32)
    faces = rng.integers(0, 2 * triangles, (triangles, 3))
    points = rng.uniform(-2, 26, (3, 40, 2)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_queries, "PAIRS", pairs)
        by_torch = visible_face(points, vertices, faces, perspective, backend="torch")
    assert np.array_equal(visible_face(points, vertices, faces, perspective, backend="numba"), by_torch)


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_at_equal_depth_the_face_listed_first_is_seen(backend):
    """The diagonal belongs to two triangles, and one of them is listed twice."""
    square = np.array([[0, 0, 1], [4, 0, 1], [4, 4, 1], [0, 4, 1]], np.float32)
    faces = np.array([[0, 2, 3], [0, 1, 2], [0, 1, 2]])
    on_diagonal, above, below = [2, 2], [3, 1], [1, 3]
    points = np.array([on_diagonal, above, below], np.float32)
    assert visible_face(points, square, faces, backend=backend).tolist() == [0, 1, 0]
    assert visible_face(points, square, faces[::-1], backend=backend).tolist() == [0, 0, 2]


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize("perspective", [False, True])
def test_of_two_people_the_nearer_hides_the_other(golden, backend, perspective):
    """Two copies, one 40 px aside and a metre behind: where both cover a point the nearer is seen, elsewhere the other."""
    front = golden.perspective.pixels
    behind = front + torch.tensor([40.0, 0.0, 1.0])
    faces = torch.from_numpy(golden.body.faces).int()
    count = len(faces)
    points = front[::35, :2] + torch.tensor([20.0, 0.0])

    def ask(pixels, faces):
        return visible_face(points, pixels, faces, perspective, backend=backend)

    alone, other = ask(front, faces), ask(behind, faces)
    both = (alone >= 0) & (other >= 0)
    assert both.sum() > 30 and ((alone < 0) & (other >= 0)).sum() > 30
    pair = torch.cat([front, behind]), torch.cat([faces, faces + len(front)])
    swapped = torch.cat([behind, front]), pair[1]
    expected = torch.where(alone >= 0, alone, torch.where(other >= 0, other + count, -1))
    assert torch.equal(ask(*pair), expected)
    expected = torch.where(alone >= 0, alone + count, other)
    assert torch.equal(ask(*swapped), expected)


def test_a_large_batch_is_answered_body_by_body_also_from_many_threads(golden):
    """Bodies shifted by their place in the batch: 37 are shared unevenly among threads; four callers at once."""
    shift = torch.arange(37.0)[:, None, None]
    pixels = golden.weak.pixels + shift * torch.tensor([3.0, 1.0, 0.1])
    points = golden.weak.points[:50] + shift * torch.tensor([3.0, 1.0])
    one_by_one = torch.stack([visible_face(p, v, golden.body.faces) for p, v in zip(points, pixels, strict=True)])
    assert (one_by_one >= 0).float().mean() > 0.5
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: visible_face(points, pixels, golden.body.faces), range(4)))
    assert all(torch.equal(answer, one_by_one) for answer in answers)


def test_backends_are_chosen_by_name(golden):
    points, pixels = golden.weak.points[:5], golden.weak.pixels
    with pytest.raises(ValueError, match="'opengl' is unknown; expected one of auto, numba, torch, pytorch3d"):
        visible_face(points, pixels, golden.body.faces, backend="opengl")
    for backend in BACKENDS[:3]:
        seen = visible_face(points, pixels.requires_grad_(), golden.body.faces, backend=backend)
        assert seen.dtype == torch.int32 and not seen.requires_grad
    pixels.requires_grad_(False)
    if importlib.util.find_spec("pytorch3d") is None:
        for ask in (lambda: visible_face(points, pixels, golden.body.faces, backend="pytorch3d"), lambda: require("pytorch3d")):
            with pytest.raises(ImportError, match="needs pytorch3d, built for the torch in use.*INSTALL.md"):
                ask()
    for backend in BACKENDS[:3]:
        require(backend)


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_nothing_to_see_in_any_backend(backend):
    faces = np.array([[0, 1, 2]])
    for shape_p, shape_v, f in (((0, 2), (3, 3), faces), ((2, 5, 2), (2, 3, 3), faces[:0]), ((0, 5, 2), (0, 3, 3), faces),
                                ((4, 2), (0, 3), faces)):  # fmt: skip
        seen = visible_face(np.zeros(shape_p), np.zeros(shape_v), f, backend=backend)
        assert seen.shape == shape_p[:-1] and (seen == -1).all()


@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 128), (128, 96)])
def test_pixels_in_pytorch3ds_coordinates(height, width):
    """Its documented formula for centres, -range/2 + (range i + range/2) / S: x counted from the right, y from below."""

    def pix_to_non_square_ndc(i, s1, s2):  # pytorch3d 0.7, renderer/mesh/rasterize_meshes.py
        ndc_range = 2.0 * s1 / s2 if s1 > s2 else 2.0
        return -ndc_range / 2 + (ndc_range * i + ndc_range / 2) / s1

    y, x = np.mgrid[:height, :width]
    expected = np.stack(
        [pix_to_non_square_ndc(width - 1 - x, width, height), pix_to_non_square_ndc(height - 1 - y, height, width)], -1
    )
    ndc = pixels_to_ndc(torch.tensor(np.stack([x, y], -1), dtype=torch.float64), (height, width))
    np.testing.assert_allclose(ndc.numpy(), expected, atol=1e-12)


@without_pytorch3d
@pytest.mark.parametrize("view", ["weak", "perspective"])
def test_pytorch3d_sees_the_same_to_its_rounding(golden, view):
    asked = getattr(golden, view)
    seen = visible_face(asked.points, asked.pixels, golden.body.faces, view == "perspective", backend="pytorch3d")
    # The window is about 230 px high, so points are rounded by up to 0.1 px, and faces are a few px wide.
    assert (seen == asked.face).float().mean() > 0.85
    depth = depth_at(asked.points, seen, asked.pixels, golden.body.faces, view == "perspective")
    both = (seen >= 0) & (asked.face >= 0)
    assert (depth - asked.depth)[both].abs().quantile(0.9) < 2e-3


@pytest.mark.parametrize("view", ["weak", "perspective"])
@pytest.mark.parametrize("backend", ["torch", pytest.param("pytorch3d", marks=without_pytorch3d)])
def test_pictures_are_the_same_by_points(golden, view, backend):
    faces, pixels = golden.body.faces, getattr(golden, view).pixels.numpy().copy()
    low = pixels[:, :2].min(0)
    pixels[:, :2] = (pixels[:, :2] - low) * 48 / np.ptp(pixels[:, 1])  # the whole person, 48 px high
    ours, theirs = (rasterize(pixels, faces, (52, 50), view == "perspective", backend=b) for b in ("numba", backend))
    same, seen = ours.face == theirs.face, (ours.face >= 0) & (theirs.face >= 0)
    assert same.all() if backend == "torch" else same.mean() > 0.85
    np.testing.assert_allclose(theirs.depth[same], ours.depth[same], atol=1e-6)
    np.testing.assert_allclose(theirs.barycentric[same], ours.barycentric[same], atol=1e-5)
    assert seen.sum() > 300 and np.quantile(np.abs(theirs.depth - ours.depth)[seen], 0.9) < 5e-3
    assert theirs.face.dtype == ours.face.dtype and theirs.depth.dtype == theirs.barycentric.dtype == np.float32


@pytest.mark.gpu
@without_cuda
@pytest.mark.parametrize("view", ["weak", "perspective"])
def test_cuda_tensors_are_answered_on_their_device(golden, view):
    asked = getattr(golden, view)
    seen = visible_face(asked.points.cuda(), asked.pixels.cuda(), golden.body.faces, view == "perspective")
    assert seen.is_cuda and torch.equal(seen.cpu(), asked.face)
    depth = depth_at(asked.points.cuda(), seen, asked.pixels.cuda(), golden.body.faces, view == "perspective")
    assert (depth.cpu() - asked.depth).abs().max() < 1e-4
