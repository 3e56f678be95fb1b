"""Features, the lifter, the mesh-free skeleton and checkpoints."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from hmr_ros.body.model import BodyModel
from hmr_ros.files import load_checkpoint, save_checkpoint
from hmr_ros.geometry import project_weak, rotation_about_z
from hmr_ros.networks.lifter.features import FEATURE_COUNT, FEATURE_LAYOUT, keypoints_in_features, person_features, turn_back
from hmr_ros.networks.lifter.regressor import LifterRegressor
from hmr_ros.networks.lifter.net import Lifter
from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.proxies import EMBEDDING_COUNT, FEATURE_MAP, BlazePoseRecord, PersonProxies, flipped
from hmr_ros.runtime import compile
from hmr_ros.skeleton import COCO_MIRROR, LIMB_KEYPOINTS, SMPL_MIRROR


@pytest.fixture(scope="module")
def body():
    return BodyModel.load(None)


def person(rng: np.random.Generator, size: int = 64) -> PersonProxies:
    """A person drawn at random around the middle of a 640x480 image."""
    crop = np.array([320, 240, 300], np.float32)
    keypoints = np.concatenate([rng.uniform(200, 350, (17, 2)), rng.uniform(0.3, 1, (17, 1))], 1).astype(np.float32)
    landmarks = np.concatenate([rng.uniform(200, 350, (33, 2)), rng.uniform(0, 1, (33, 2))], 1).astype(np.float32)
    world, roi = rng.normal(0, 0.3, (33, 3)).astype(np.float32), np.array([300, 260, 400, 0.3], np.float32)
    embedding, feature_map = rng.normal(size=EMBEDDING_COUNT).astype(np.float32), rng.normal(size=FEATURE_MAP).astype(np.float16)
    return PersonProxies(
        score=0.7, box=np.array([200, 100, 440, 380], np.float32), keypoints=keypoints, crop=crop, mask=np.ones((size, size), np.float32),
        depth=np.full((size, size), 4.0, np.float32), depth_source="coarse", confident=0.3,
        blazepose=BlazePoseRecord(landmarks, world, roi, embedding, feature_map),
    )  # fmt: skip


def with_record(p: PersonProxies, **changes) -> PersonProxies:
    return replace(p, blazepose=replace(p.blazepose, **changes))


def turned(p: PersonProxies, angle: float) -> PersonProxies:
    """The same person with the image turned about the crop's centre."""
    turn = rotation_about_z(angle)

    def pixels(points: np.ndarray) -> np.ndarray:
        points = points.copy()
        points[..., :2] = (points[..., :2] - p.crop[:2]) @ turn[:2, :2].T + p.crop[:2]
        return points

    record = p.blazepose
    roi = pixels(record.roi) + np.array([0, 0, 0, angle], np.float32)
    return with_record(replace(p, keypoints=pixels(p.keypoints)), landmarks=pixels(record.landmarks), world=record.world @ turn.T, roi=roi)


def parts(features: np.ndarray) -> dict[str, np.ndarray]:
    ends = np.cumsum([np.prod(shape) for _, shape in FEATURE_LAYOUT])
    return dict(zip([name for name, _ in FEATURE_LAYOUT], np.split(features, ends[:-1])))


@pytest.mark.parametrize("angle", [0.4, -1.7, np.pi])
def test_features_of_a_turned_person_differ_in_where_up_is_only(angle):
    someone = person(np.random.default_rng(0))
    before, after = (parts(person_features(p)) for p in (someone, turned(someone, angle)))
    up = before.pop("up"), after.pop("up")
    for name in before:
        np.testing.assert_allclose(after[name], before[name], atol=1e-5, err_msg=name)
    np.testing.assert_allclose(up[1], rotation_about_z(-angle)[:2, :2] @ up[0], atol=1e-6)
    upright = with_record(someone, roi=someone.blazepose.roi * [1, 1, 1, 0])
    np.testing.assert_allclose(parts(person_features(upright))["up"], [0, -1])


def test_what_is_regressed_in_turned_axes_lies_on_the_turned_joints(body):
    """A body seen in turned axes, turned back, projects to the same pixels turned about the crop's centre."""
    rng, angle = np.random.default_rng(1), 0.8
    rotations = Rotation.random(24, random_state=1).as_matrix()[None].astype(np.float32)
    betas, camera = rng.normal(size=(1, 10)).astype(np.float32), np.array([[0.7, 0.1, -0.3]], np.float32)
    skeleton = PosedKeypoints(body)
    crop = np.array([320, 240, 300], np.float32)

    def pixels(rotations, camera):
        return project_weak(skeleton(torch.from_numpy(rotations), torch.from_numpy(betas))[1][0].numpy(), camera[0], crop)

    pelvis = skeleton.pelvis(torch.from_numpy(betas)).numpy()
    np.testing.assert_allclose(pelvis, skeleton(torch.from_numpy(rotations), torch.from_numpy(betas))[0][:, 0], atol=1e-6)
    back = turn_back(rotations, camera, pelvis, np.array([angle]))
    expected = (pixels(rotations, camera) - crop[:2]) @ rotation_about_z(angle)[:2, :2].T + crop[:2]
    np.testing.assert_allclose(pixels(*back), expected, atol=1e-2)


class Views:
    """Three people, the second of whom has a flipped view, and a lifter that outputs the right parameters for every view."""

    PELVIS = np.array([0, -0.2, 0.03], np.float32)
    FLIP = np.array([-1, 1, 1], np.float32)
    LIMBS = [COCO_MIRROR[k] - 5 for k in LIMB_KEYPOINTS]

    def __init__(self):
        rng = np.random.default_rng(2)
        self.rotations = Rotation.random(72, random_state=2).as_matrix().reshape(3, 24, 3, 3).astype(np.float32)
        self.cameras = np.column_stack([rng.uniform(0.5, 1, 3), rng.normal(0, 0.3, (3, 2))]).astype(np.float32)
        self.betas, self.reliability = rng.normal(size=(3, 10)).astype(np.float32), rng.uniform(size=(3, 12)).astype(np.float32)
        self.people = [with_record(person(rng), roi=np.array([300, 260, 400, angle], np.float32)) for angle in (0.5, -0.5, 1.2)]
        one = self.people[1]
        roi, feature_map = one.blazepose.roi * np.array([1, 1, 1, -0.8], np.float32), one.blazepose.feature_map[..., ::-1]
        mirrored = flipped(one, replace(one.blazepose, roi=roi, feature_map=feature_map))
        self.people[1] = replace(one, mirrored=mirrored)
        self.second = [self.rotations[1], self.betas[1], self.cameras[1], self.reliability[1]]  # the output for the flipped view, flipped back

    def regress(self):
        return LifterRegressor(self._lifter, lambda betas: np.broadcast_to(self.PELVIS, (len(betas), 3)))(self.people)

    def _lifter(self, features, feature_maps):
        rotations, betas, camera, reliability = self.second
        views = [*self.people, self.people[1].mirrored]
        assert np.array_equal(features, np.stack([person_features(view) for view in views]))
        assert feature_maps.dtype == np.float32 and np.array_equal(feature_maps, np.stack([view.blazepose.feature_map for view in views]))
        reflected = rotations[list(SMPL_MIRROR)] * (self.FLIP[:, None] * self.FLIP)
        values = zip(
            [*self.rotations, reflected], [*self.betas, betas], [*self.cameras, camera * [1, -1, 1]],
            [*self.reliability, reliability[self.LIMBS]], views,
        )  # fmt: skip
        return tuple(np.stack(column).astype(np.float32) for column in zip(*(self._turned(*row) for row in values)))

    def _turned(self, rotations, betas, camera, reliability, view):
        """Into the axes of the view's features."""
        turn = rotation_about_z(-view.blazepose.roi[3])
        shift = turn[:2, :2] @ (self.PELVIS[:2] + camera[1:]) - self.PELVIS[:2]
        return np.concatenate([[turn @ rotations[0]], rotations[1:]]), betas, np.append(camera[:1], shift), reliability


def test_two_views_that_agree_change_nothing():
    views = Views()
    for got, expected in zip(views.regress(), (views.rotations, views.betas, views.cameras, views.reliability)):
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_two_views_that_differ_are_averaged():
    views = Views()
    turn = Rotation.from_rotvec([0, 0, 0.4]).as_matrix()
    views.second = [turn @ views.rotations[1], views.betas[1] + 1, views.cameras[1] + 0.2, views.reliability[1] / 2]
    rotations, betas, cameras, reliability = views.regress()
    half = Rotation.from_rotvec([0, 0, 0.2]).as_matrix()
    np.testing.assert_allclose(rotations[1], half @ views.rotations[1], atol=1e-5)
    np.testing.assert_allclose(betas[1], views.betas[1] + 0.5, atol=1e-5)
    np.testing.assert_allclose(cameras[1], views.cameras[1] + 0.1, atol=1e-5)
    np.testing.assert_allclose(reliability[1], 0.75 * views.reliability[1], atol=1e-5)
    np.testing.assert_allclose(rotations[[0, 2]], views.rotations[[0, 2]], atol=1e-5)  # who has one view is left alone


@pytest.mark.parametrize("sure", [0.1, 2.0])
def test_of_two_views_that_take_front_for_back_the_more_reliable_one_counts(sure):
    views = Views()
    around = np.concatenate([[Rotation.from_rotvec([0, np.pi, 0]).as_matrix() @ views.rotations[1, 0]], views.rotations[1, 1:]])
    views.second = [around, views.betas[1] + 1, views.cameras[1], sure * views.reliability[1]]
    rotations, betas, _, reliability = views.regress()
    chosen = 1 if sure > 1 else 0
    np.testing.assert_allclose(rotations[1], (views.rotations[1], around)[chosen], atol=1e-5)
    np.testing.assert_allclose(betas[1], views.betas[1] + chosen, atol=1e-5)
    np.testing.assert_allclose(reliability[1], views.reliability[1] * (sure if chosen else 1), atol=1e-5)


def test_a_view_whose_output_is_not_finite_spoils_nobody():
    views = Views()
    views.second[0] = np.full((24, 3, 3), np.nan)
    np.testing.assert_allclose(views.regress()[0], views.rotations, atol=1e-5)
    views.second[0], views.rotations[1] = views.rotations[1].copy(), np.nan  # the plain view: left for the estimator to leave out
    rotations = views.regress()[0]
    assert np.isnan(rotations[1]).any() and np.isfinite(rotations[[0, 2]]).all()


@pytest.mark.parametrize("without", ["feature_map", "blazepose"])
def test_people_without_a_feature_map_are_refused_by_name(without):
    views = Views()
    views.people[2] = with_record(views.people[2], feature_map=None) if without == "feature_map" else replace(views.people[2], blazepose=None)
    with pytest.raises(ValueError, match=r"feature_map is None, expected \(88, 16, 16\)"):
        views.regress()


def test_flipped_twice_is_the_person():
    someone = person(np.random.default_rng(3))
    twice = flipped(flipped(someone))
    for name in ("box", "keypoints", "mask", "depth"):
        np.testing.assert_allclose(getattr(twice, name), getattr(someone, name), atol=1e-4)
    once = flipped(someone)
    np.testing.assert_allclose(once.keypoints[5, 0], 2 * someone.crop[0] - someone.keypoints[6, 0], atol=1e-4)


def test_detected_joints_are_found_again_in_the_features():
    someone = person(np.random.default_rng(4))
    someone.keypoints[7, 2] = someone.confident / 2
    upright = with_record(someone, roi=someone.blazepose.roi * np.array([1, 1, 1, 0], np.float32))
    xy, confidence = keypoints_in_features(person_features(upright)[None])
    np.testing.assert_allclose(xy[0] * 150 + upright.crop[:2], someone.keypoints[:, :2], atol=1e-3)
    assert confidence[0, 7] == 0 and np.allclose(np.delete(confidence[0], 7), np.delete(someone.keypoints[:, 2], 7))


def test_features_do_not_know_where_in_the_image_the_person_is():
    someone = person(np.random.default_rng(0))
    shift = np.array([57, -31], np.float32)
    far = np.append(shift, [0, 0]).astype(np.float32)
    record = someone.blazepose
    moved = with_record(
        replace(someone, keypoints=someone.keypoints + far[:3], crop=someone.crop + far[:3]),
        landmarks=record.landmarks + far, roi=record.roi + far,
    )  # fmt: skip
    assert np.allclose(person_features(moved), person_features(someone), atol=1e-5)


def test_unseen_joints_do_not_leak_their_position():
    someone = person(np.random.default_rng(0))
    someone.keypoints[9, 2] = 0
    before = person_features(someone)
    someone.keypoints[9, :2] = [1e4, -1e4]
    assert np.array_equal(person_features(someone), before)


def test_the_skeleton_without_a_mesh_agrees_with_the_mesh(body):
    rotations = torch.from_numpy(Rotation.random(3 * 24, random_state=0).as_matrix().reshape(3, 24, 3, 3)).float()
    betas = torch.randn(3, 10, generator=torch.Generator().manual_seed(0))
    joints, keypoints = PosedKeypoints(body)(rotations, betas)
    full = body(rotations, betas)
    assert torch.allclose(joints, full.joints, atol=1e-5) and torch.allclose(keypoints, full.keypoints, atol=1e-5)


def test_lifter_gives_rotations_and_a_positive_scale_for_any_input():
    lifter = Lifter(width=32, blocks=1, image_features=1).eval()
    extreme = torch.cat([torch.zeros(1, FEATURE_COUNT), 1e6 * torch.randn(3, FEATURE_COUNT)])
    rotations, betas, camera, reliability = lifter(extreme, 1e6 * torch.randn(4, *FEATURE_MAP))
    assert reliability.shape == (4, 12) and (0 <= reliability).all() and (reliability <= 1).all()
    identity = rotations @ rotations.transpose(-1, -2)
    assert torch.allclose(identity, torch.eye(3).expand_as(identity), atol=1e-4)
    assert (camera[:, 0] > 0).all() and torch.isfinite(betas).all()


def test_the_lifter_runs_the_same_on_openvino_and_torch():
    torch.manual_seed(0)
    lifter = Lifter(width=64, blocks=1, image_features=1).eval()
    for member in lifter.members:
        torch.nn.init.normal_(member.head.weight, std=0.05)
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=(3, *shape)).astype(np.float32) for shape in ((FEATURE_COUNT,), FEATURE_MAP)]
    example = tuple(torch.zeros(1, *value.shape[1:]) for value in inputs)
    outputs = [compile(lifter, example, backend=b)(*inputs) for b in ("torch", "openvino")]
    blind = lifter(*map(torch.from_numpy, (inputs[0], np.zeros_like(inputs[1]))))
    assert not np.allclose(blind.rotations.detach(), outputs[0][0], atol=1e-3)  # the image-feature branch counts
    for one, other in zip(*outputs):
        assert one.shape == other.shape and np.abs(one - other).max() < 1e-4


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    tensors = {"a": torch.arange(6.0).reshape(2, 3).T}
    save_checkpoint(tmp_path / "deep" / "x.safetensors", tensors, {"network": "lifter", "n": [1, 2]})
    loaded, metadata = load_checkpoint(tmp_path / "deep" / "x.safetensors")
    assert torch.equal(loaded["a"], tensors["a"]) and metadata == {"network": "lifter", "n": [1, 2]}
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["x.safetensors"]
    (tmp_path / "plain").touch()  # a robot's other users may read it as they may any file
    assert (tmp_path / "deep" / "x.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_what_is_not_a_checkpoint_is_refused_by_name(tmp_path):
    from safetensors.torch import save_file

    from hmr_ros.networks.checkpoints import load_lifter

    with pytest.raises(FileNotFoundError, match="hmr-ros train"):
        load_checkpoint(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(ValueError, match="not a safetensors file"):
        load_checkpoint(tmp_path / "text.safetensors")
    save_file({"a": torch.zeros(1)}, str(tmp_path / "other.safetensors"))
    with pytest.raises(ValueError, match="no 'hmr_ros' metadata"):
        load_checkpoint(tmp_path / "other.safetensors")
    save_checkpoint(tmp_path / "resnet.safetensors", {"a": torch.zeros(1)}, {"network": "resnet18"})
    with pytest.raises(ValueError, match="'resnet18'"):
        load_lifter(tmp_path / "resnet.safetensors")
    save_checkpoint(tmp_path / "old.safetensors", {"a": torch.zeros(1)}, {"network": "lifter", "feature_count": 402})
    with pytest.raises(ValueError, match="of an earlier version.*train it again"):
        load_lifter(tmp_path / "old.safetensors")
