"""Position and stature against synthetic truth: bodies of known size at known places, before pinhole and distorted cameras."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from hmr_ros.body.model import BodyModel
from hmr_ros.body.posed_kernel import Skeleton
from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.camera import Camera, ray_axes
from hmr_ros.geometry import Intrinsics, fit_weak_camera, rotvec_from_matrix, square_crop, to_crop
from hmr_ros.metric_kernel import ROUNDS, place_in_image
from hmr_ros.metric import MetricFrame
from hmr_ros.rasterizer import rasterize
from hmr_ros.runtime import compile

SIZE = (480, 640)
K = Intrinsics(430.0, 430.0, 321.0, 238.0)
CAMERAS = {
    "pinhole": Camera(K),
    "wide": Camera(Intrinsics(300.0, 300.0, 320.0, 240.0)),
    "plumb_bob": Camera(K, "plumb_bob", (-0.28, 0.08, 5e-4, -3e-4, 0.0)),
    "rational_polynomial": Camera(K, "rational_polynomial", (0.5, -0.2, 1e-4, 2e-4, 0.01, 0.8, -0.1, 0.02)),
    "equidistant": Camera(Intrinsics(330.0, 330.0, 320.0, 240.0), "equidistant", (0.01, -0.002, 0.0, 0.0)),
}


@pytest.fixture(scope="module")
def model():
    return BodyModel.load(None)


@pytest.fixture(scope="module")
def frame(model):
    body = compile(model, (torch.eye(3).repeat(1, 24, 1, 1), torch.zeros(1, 10)), backend="openvino")
    return MetricFrame(Skeleton(PosedKeypoints(model)), model, body)


class Person:
    """Somebody ``stature`` metres tall with the pelvis at ``place``, seen without error but for the size, which a regressor guesses."""

    def __init__(self, frame, model, camera, place, stature=None, seed=0, yaw=0.4):
        rng = np.random.default_rng(seed)
        rotvec = rng.normal(0, 0.15, (24, 3))
        rotations = Rotation.from_rotvec(rotvec).as_matrix()
        rotations[0] = Rotation.from_rotvec([np.pi, 0, 0]).as_matrix() @ Rotation.from_rotvec([0, yaw, 0]).as_matrix()
        self.rotations, self.camera, self.place = rotations.astype(np.float32), camera, np.array(place, float)
        self.mean_betas = np.zeros((1, 10), np.float32)
        direction = frame.stature
        self.betas = direction.correct(self.mean_betas, np.array([stature or direction.mean]))
        self.stature = float(direction(self.betas)[0])
        out = model(torch.from_numpy(self.rotations[None]), torch.from_numpy(self.betas))
        pelvis = out.joints[0, :1].numpy()
        self.vertices, self.points = ((part[0].numpy() - pelvis + self.place) for part in (out.vertices, out.keypoints))
        self.keypoints = camera.project(self.points)
        low, high = self.keypoints.min(0), self.keypoints.max(0)
        self.crop = square_crop(np.concatenate([low, high]))
        # What an exact regressor of the mean stature says: turned into ray axes, with the best weak-perspective camera.
        turn = ray_axes(camera, self.crop[None, :2])[0]
        self.in_ray_axes = self.rotations.copy()
        self.in_ray_axes[0] = turn @ self.rotations[0]
        guessed = PosedKeypoints(model)(torch.from_numpy(self.in_ray_axes[None]), torch.from_numpy(self.mean_betas))[1].numpy()
        self.weak = fit_weak_camera(guessed, to_crop(self.keypoints[None], self.crop[None]), np.ones((1, 17)))

    def depth(self, faces, wall=8.0):
        """(H, W) metres along the optical axis."""
        pixels = np.column_stack([self.camera.project(self.vertices), self.vertices[:, 2]])
        depth = rasterize(pixels, faces, SIZE, perspective=True).depth
        return np.where(depth > 0, depth, np.float32(wall))

    def placed(self, frame, depth=None, statures=None, confidence=None):
        confidence = np.ones((1, 17)) if confidence is None else confidence[None]
        return frame(self.in_ray_axes[None], self.mean_betas, self.weak, self.keypoints[None], confidence, self.crop[None],
                     self.camera, depth, statures)  # fmt: skip


PLACES = [(0, 0, 2.5), (0.9, -0.2, 2.2), (-1.6, 0.3, 3.5), (0.3, 0.4, 1.4)]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", CAMERAS)
def test_orientation_and_position_are_the_true_ones_whatever_the_lens(frame, model, name, place):
    person = Person(frame, model, CAMERAS[name], place)
    placed = person.placed(frame)
    turned = placed.rotations[0, 0] @ person.rotations[0].T
    assert np.linalg.norm(rotvec_from_matrix(turned)) < 1e-3
    assert np.array_equal(placed.rotations[0, 1:], person.rotations[1:])
    assert np.linalg.norm(placed.pelvis[0] - person.place) < 0.003 * person.place[2]
    assert not placed.from_depth[0] and np.isnan(placed.stature[0])


def test_the_pelvis_is_no_worse_for_an_off_axis_person(frame, model):
    """Half a field of view off the axis a weak-perspective camera in camera axes would turn the body by 30 degrees."""
    person = Person(frame, model, CAMERAS["wide"], (1.9, 0, 3.2))
    assert np.degrees(np.arctan2(1.9, 3.2)) > 30
    assert np.linalg.norm(person.placed(frame).pelvis[0] - person.place) < 0.01


@pytest.mark.parametrize("stature", [1.5, 1.95])
@pytest.mark.parametrize("place", PLACES)
def test_depth_tells_distance_and_stature(frame, model, place, stature):
    person = Person(frame, model, CAMERAS["pinhole"], place, stature)
    guessed = person.placed(frame).pelvis[0]
    assert abs(guessed[2] - place[2]) > 0.07 * place[2]  # from apparent size alone
    placed = person.placed(frame, person.depth(model.faces))
    assert placed.from_depth[0]
    assert np.linalg.norm(placed.pelvis[0] - place) < 0.03 + 0.01 * place[2]
    assert placed.stature[0] == pytest.approx(stature, abs=0.04)
    tall = frame.stature(placed.betas)[0]
    mean = frame.stature.mean
    assert 0.5 < (tall - mean) / (stature - mean) < 1.0  # corrected, and shrunk towards what the picture says


@pytest.mark.parametrize("stature", [1.5, 1.95])
def test_a_known_stature_tells_the_distance_without_depth(frame, model, stature):
    person = Person(frame, model, CAMERAS["plumb_bob"], (0.5, 0, 3), stature)
    placed = person.placed(frame, statures=np.array([stature]))
    assert np.linalg.norm(placed.pelvis[0] - person.place) < 0.05  # 0.37 m without
    assert frame.stature(placed.betas)[0] == pytest.approx(stature, abs=1e-3)
    assert not placed.from_depth[0]


def holes(depth, rng):
    return np.where(rng.random(depth.shape) < 0.4, 0, depth)


def not_numbers(depth, rng):
    return np.where(rng.random(depth.shape) < 0.4, rng.choice([np.nan, np.inf, -1.0], depth.shape), depth)


def outliers(depth, rng):
    return np.where(rng.random(depth.shape) < 0.1, rng.uniform(0.3, 10, depth.shape), depth)


def coarse_outliers(depth, rng):
    """A tenth of the picture, in blocks that no median over a few pixels removes."""
    blocks = rng.random((24, 32)) < 0.1
    return np.where(blocks.repeat(20, 0).repeat(20, 1), rng.uniform(0.3, 10), depth)


def table(depth, rng):
    """Something that stands before the legs, half the way to the camera."""
    depth = depth.copy()
    depth[300:] = np.minimum(depth[300:], 1.3)
    return depth


def chair(depth, rng):
    """Something close before a third of the body."""
    depth = depth.copy()
    depth[330:] = np.minimum(depth[330:], 2.3)
    return depth


@pytest.mark.parametrize("fault", [holes, not_numbers, outliers, coarse_outliers, table, chair])
def test_depth_survives_what_depth_cameras_do(frame, model, fault):
    person = Person(frame, model, CAMERAS["pinhole"], (0.2, 0.1, 2.8), 1.9)
    depth = fault(person.depth(model.faces), np.random.default_rng(3)).astype(np.float32)
    placed = person.placed(frame, depth)
    assert placed.from_depth[0]
    assert np.linalg.norm(placed.pelvis[0] - person.place) < 0.03 + 0.01 * 2.8


@pytest.mark.parametrize("depth", [np.zeros(SIZE, np.float32), np.full(SIZE, np.nan, np.float32), np.full(SIZE, 0.4, np.float32)])
def test_depth_that_tells_nothing_leaves_the_apparent_size(frame, model, depth):
    person = Person(frame, model, CAMERAS["pinhole"], (0.2, 0.1, 2.8))
    placed = person.placed(frame, depth)
    assert not placed.from_depth[0]
    assert np.allclose(placed.pelvis, person.placed(frame).pelvis)


def test_wrong_detections_lose_their_weight(frame, model):
    person = Person(frame, model, CAMERAS["pinhole"], (0.2, 0.1, 2.8))
    person.keypoints[[9, 15]] += (150, -120)
    assert np.linalg.norm(person.placed(frame).pelvis[0] - person.place) < 0.05


def test_without_a_confident_joint_the_weak_perspective_camera_decides(frame, model):
    person = Person(frame, model, CAMERAS["pinhole"], (0.2, 0.1, 2.8))
    person.keypoints[:] = 0
    placed = person.placed(frame, confidence=np.zeros(17))
    assert np.linalg.norm(placed.pelvis[0] - person.place) < 0.05


def test_the_weak_perspective_camera_still_sees_the_corrected_body(frame, model):
    person = Person(frame, model, CAMERAS["pinhole"], (0.4, 0.1, 2.8), 1.95)
    placed = person.placed(frame, person.depth(model.faces))
    skeleton, rotations = PosedKeypoints(model), torch.from_numpy(person.in_ray_axes[None])

    def seen(betas, weak):
        return weak[:, None, :1] * (skeleton(rotations, torch.from_numpy(betas))[1].numpy()[..., :2] + weak[:, None, 1:])

    # The tall are no scaled copies of the short: joints agree to 2 % of the crop's side, against 7 % with the old camera.
    assert np.abs(seen(placed.betas, placed.weak_cameras) - seen(person.mean_betas, person.weak)).max() < 0.04
    assert np.abs(seen(placed.betas, person.weak) - seen(person.mean_betas, person.weak)).max() > 0.07


def test_many_people_are_placed_as_each_alone(frame, model):
    people = [Person(frame, model, CAMERAS["pinhole"], place, seed=i) for i, place in enumerate(PLACES)]
    together = frame(*(np.concatenate([getattr(p, name) if getattr(p, name).ndim > shape else getattr(p, name)[None] for p in people])
                       for name, shape in (("in_ray_axes", 3), ("mean_betas", 1), ("weak", 1), ("keypoints", 2))),
                     np.ones((4, 17)), np.stack([p.crop for p in people]), CAMERAS["pinhole"])  # fmt: skip
    for i, person in enumerate(people):
        np.testing.assert_allclose(together.pelvis[i], person.placed(frame).pelvis[0], atol=1e-4)


def test_regressed_joints_that_the_lens_does_not_see_leave_the_detected_ones(frame, model):
    """A wild weak-perspective camera, far outside what the distortion model covers, must not cost anybody his frame."""
    camera = Camera(K, "plumb_bob", (-0.35, 0.0, 0, 0, 0))
    wild, tame = (Person(frame, model, camera, (0.2, 0.1, 2.8), seed=seed) for seed in (0, 1))
    wild.weak = wild.weak + np.array([[0, 40, 0]], np.float32)
    people = wild, tame
    placed = frame(np.stack([p.in_ray_axes for p in people]), np.zeros((2, 10), np.float32), np.concatenate([p.weak for p in people]),
                   np.stack([p.keypoints for p in people]), np.ones((2, 17)), np.stack([p.crop for p in people]), camera)  # fmt: skip
    for pelvis, person in zip(placed.pelvis, people):
        assert np.linalg.norm(pelvis - person.place) < 0.05


def test_the_place_is_the_reweighted_least_squares_solution():
    """By lstsq, a row for each coordinate; the first round sees the second half of the targets alone, where they have weight."""
    rng, outlier = np.random.default_rng(3), 0.15
    points, places = rng.normal(0, 0.5, (4, 34, 3)), np.array([[0.3, -0.2, 3.0], [0, 0, 1.2], [-1, 0.5, 6.0], [0.1, 0, 2.0]])
    targets = (points[..., :2] + places[:, None, :2]) / np.maximum(points[..., 2:] + places[:, None, 2:], 0.05) + rng.normal(0, 0.03, (4, 34, 2))
    weights = rng.uniform(0, 1, (4, 34)) * (rng.random((4, 34)) > 0.2)
    weights[3, 17:] = 0
    for n, found in enumerate(place_in_image(points, targets, weights, 17, outlier)):
        z, say = 1.0, weights[n] * (np.arange(34) >= (17 if weights[n, 17:].any() else 0))
        for _ in range(ROUNDS):
            root = np.sqrt(say)[:, None] / np.maximum(points[n, :, 2:] + z, 0.05)
            rows = np.concatenate([np.tile(np.eye(2), (34, 1, 1)), -targets[n][..., None]], -1) * root[..., None]
            right = (targets[n] * points[n, :, 2:] - points[n, :, :2]) * root
            place = np.linalg.lstsq(rows.reshape(-1, 3), right.reshape(-1), rcond=None)[0]
            z = max(place[2], 0.1)
            off = (points[n, :, :2] + place[:2]) / np.maximum(points[n, :, 2:] + z, 0.05) - targets[n]
            say = weights[n] / (1 + (off**2).sum(1) * (z / outlier) ** 2) ** 2
        assert np.allclose(found, [*place[:2], z], atol=1e-6)
