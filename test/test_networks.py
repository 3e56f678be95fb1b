"""Features, the lifter, the mesh-free skeleton and checkpoints."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from hmr_ros.body_model import BodyModel
from hmr_ros.checkpoint import load_checkpoint, save_checkpoint
from hmr_ros.networks.features import FEATURE_COUNT, mirror_features, person_features
from hmr_ros.networks.lifter import Lifter
from hmr_ros.proxies import PersonProxies
from hmr_ros.runtime import compile
from hmr_ros.skeleton import BLAZEPOSE_MIRROR, COCO_MIRROR
from hmr_ros.posed_keypoints import PosedKeypoints


@pytest.fixture(scope="module")
def body():
    return BodyModel.load(None)


def person(rng: np.random.Generator, size: int = 64) -> PersonProxies:
    """A person drawn at random around the middle of a 640x480 image."""
    crop = np.array([320, 240, 300], np.float32)
    keypoints = np.concatenate([rng.uniform(200, 350, (17, 2)), rng.uniform(0.3, 1, (17, 1))], 1).astype(np.float32)
    landmarks = np.concatenate([rng.uniform(200, 350, (33, 2)), rng.uniform(0, 1, (33, 2))], 1).astype(np.float32)
    return PersonProxies(
        score=0.7, box=np.array([200, 100, 440, 380], np.float32), keypoints=keypoints, crop=crop, landmarks=landmarks,
        world=rng.normal(0, 0.3, (33, 3)).astype(np.float32), mask=np.ones((size, size), np.float32),
        depth=rng.uniform(3.5, 4.5, (size, size)).astype(np.float32),
    )  # fmt: skip


def in_a_mirror(p: PersonProxies) -> PersonProxies:
    """The same person with the image flipped left to right around the crop's centre."""
    flip = np.array([-1, 1, 1], np.float32)
    keypoints, landmarks = p.keypoints[list(COCO_MIRROR)].copy(), p.landmarks[list(BLAZEPOSE_MIRROR)].copy()
    keypoints[:, 0], landmarks[:, 0] = 2 * p.crop[0] - keypoints[:, 0], 2 * p.crop[0] - landmarks[:, 0]
    return PersonProxies(
        p.score, p.box, keypoints, p.crop, landmarks, p.world[list(BLAZEPOSE_MIRROR)] * flip,
        p.mask[:, ::-1].copy(), p.depth[:, ::-1].copy(),
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_mirrored_features_are_the_features_of_the_mirrored_person(seed):
    someone = person(np.random.default_rng(seed))
    assert np.allclose(mirror_features(person_features(someone)), person_features(in_a_mirror(someone)), atol=1e-5)


def test_features_do_not_know_where_in_the_image_the_person_is():
    someone = person(np.random.default_rng(0))
    shift = np.array([57, -31], np.float32)
    moved = {**vars(someone), "keypoints": someone.keypoints + np.append(shift, 0).astype(np.float32)}
    moved |= {"crop": someone.crop + np.append(shift, 0).astype(np.float32)}
    moved |= {"landmarks": someone.landmarks + np.append(shift, [0, 0]).astype(np.float32)}
    assert np.allclose(person_features(PersonProxies(**moved)), person_features(someone), atol=1e-5)


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
    lifter = Lifter(width=32, blocks=1).eval()
    extreme = torch.cat([torch.zeros(1, FEATURE_COUNT), 1e6 * torch.randn(3, FEATURE_COUNT)])
    rotations, betas, camera = lifter(extreme)
    identity = rotations @ rotations.transpose(-1, -2)
    assert torch.allclose(identity, torch.eye(3).expand_as(identity), atol=1e-4)
    assert (camera[:, 0] > 0).all() and torch.isfinite(betas).all()


def test_the_lifter_runs_the_same_on_openvino_and_torch():
    torch.manual_seed(0)
    lifter = Lifter(width=64, blocks=1).eval()
    torch.nn.init.normal_(lifter.head.weight, std=0.05)
    features = np.random.default_rng(0).normal(size=(3, FEATURE_COUNT)).astype(np.float32)
    answers = [compile(lifter, (torch.zeros(1, FEATURE_COUNT),), backend=b)(features) for b in ("torch", "openvino")]
    for one, other in zip(*answers):
        assert one.shape == other.shape and np.abs(one - other).max() < 1e-4


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    tensors = {"a": torch.arange(6.0).reshape(2, 3).T}
    save_checkpoint(tmp_path / "deep" / "x.safetensors", tensors, {"network": "lifter", "n": [1, 2]})
    loaded, metadata = load_checkpoint(tmp_path / "deep" / "x.safetensors")
    assert torch.equal(loaded["a"], tensors["a"]) and metadata == {"network": "lifter", "n": [1, 2]}
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["x.safetensors"]


def test_what_is_not_a_checkpoint_is_refused_by_name(tmp_path):
    from safetensors.torch import save_file

    from hmr_ros.estimator import load_lifter

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
