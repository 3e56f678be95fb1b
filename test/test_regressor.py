"""The paper's regressor: what it puts out, where it starts, and that estimator and runtimes take it as it is."""

from importlib.resources import files

import cv2
import numpy as np
import pytest
import torch
from smplx.lbs import batch_rodrigues

from hmr_ros.body.model import BodyModel
from hmr_ros.files import load_checkpoint, save_checkpoint
from hmr_ros.estimator import HumanMeshEstimator
from hmr_ros.networks.checkpoints import EMBEDDED, EMBEDDED_CHECKPOINT, load_regressor, load_resnet18
from hmr_ros.networks.paper.maps import MAP_SIZE, centred_depth
from hmr_ros.networks.paper.prior import EMBEDDED_PRIOR, load_pose_prior
from hmr_ros.networks.paper.net import RegressorConfig, Resnet18Regressor, start_heading
from hmr_ros.networks.paper.regressor import MapsRegressor, depth_size_of
from hmr_ros.proxies import PersonProxies
from hmr_ros.proxies.heatmaps import gaussian_heatmaps
from hmr_ros.rasterizer import rasterize
from hmr_ros.runtime import compile
from hmr_ros.training.paper.train import save_regressor

SMALL = {"size": 32, "width": 8}
UPRIGHT = torch.diag(torch.tensor([1.0, -1, -1]))


@pytest.fixture(scope="module")
def body():
    return BodyModel.load(None)


def network(**options):
    """A small regressor with outputs of its own: no layer begins near zero, as those of an untrained one do."""
    torch.manual_seed(0)
    regressor = Resnet18Regressor(RegressorConfig(**SMALL | options), load_pose_prior()).eval()
    torch.nn.init.normal_(regressor.head[-1].weight, std=0.3)
    for block in regressor.stages:
        torch.nn.init.ones_(block.layers[-1].weight)
    return regressor


@pytest.fixture(scope="module")
def checkpoint(body, tmp_path_factory):
    """Of a network as training begins with it."""
    path = tmp_path_factory.mktemp("checkpoint") / "regressor.safetensors"
    torch.manual_seed(0)
    save_regressor(path, Resnet18Regressor(RegressorConfig(**SMALL), load_pose_prior()), body, {})
    return path


def standing(body, yaw, betas=None):
    """Joints (1, 17, 3) and depth (1, 64, 64) of a body in the rest pose that is turned by ``yaw`` degrees."""
    turned = UPRIGHT @ batch_rodrigues(torch.deg2rad(torch.tensor([[0.0, yaw, 0.0]])))[0]
    rotations = torch.eye(3).repeat(1, 24, 1, 1)
    rotations[0, 0] = turned
    with torch.no_grad():
        posed = body(rotations, torch.zeros(1, 10) if betas is None else betas)
    vertices, keypoints = posed.vertices[0], posed.keypoints[0]
    middle = (vertices.amax(0) + vertices.amin(0)) / 2
    scale = 0.9 * 2 / (vertices.amax(0) - vertices.amin(0))[:2].max()
    pixels = torch.cat([(scale * (vertices - middle)[:, :2] + 1) * 32 - 0.5, vertices[:, 2:] + 4], dim=1)
    depth = rasterize(pixels.numpy(), body.faces, (MAP_SIZE, MAP_SIZE)).depth
    joints = torch.cat([scale * (keypoints - middle)[:, :2], torch.ones(17, 1)], dim=1)
    return joints[None], torch.from_numpy(depth)[None]


def batch(body):
    some = [standing(body, yaw) for yaw in (0, 60, 170)]
    return tuple(torch.cat(parts) for parts in zip(*some))


@pytest.mark.parametrize("rotation, count", [("axis_angle", 48), ("6d", 51)])
def test_the_outputs_are_the_papers_and_every_rotation_is_one(rotation, count, body):
    joints, depth = batch(body)
    regressor = network(rotation=rotation)
    with torch.no_grad():
        output = regressor.encode(joints, depth)
        rotations, betas, camera, reliability = regressor(joints, depth)
    assert (rotations.shape, betas.shape, camera.shape, reliability.shape) == ((3, 24, 3, 3), (3, 10), (3, 3), (3, 12))
    assert torch.allclose(rotations @ rotations.mT, torch.eye(3).expand_as(rotations), atol=1e-4)
    assert (torch.linalg.det(rotations) > 0.99).all() and (camera[:, 0] > 0).all()
    assert (reliability > 0).all() and (reliability < 1).all()
    assert output.shape == (3, count) and not torch.allclose(output[0], output[1])  # it depends on its input


def test_it_starts_upright_and_faces_the_camera(body):
    joints, depth = standing(body, 120)
    for rotation, count in (("axis_angle", 48), ("6d", 51)):
        regressor = network(rotation=rotation, start="frontal")
        rotations, betas, camera = regressor.decode(torch.zeros(1, count), joints, depth)
        with torch.no_grad():
            keypoints = body(rotations, betas).keypoints[0]
        assert torch.allclose(rotations[0, 0], UPRIGHT, atol=1e-5)
        assert keypoints[:5, 1].mean() < keypoints[[11, 12], 1].mean() < keypoints[[15, 16], 1].mean()  # y is down
        assert keypoints[0, 2] < keypoints[[3, 4], 2].mean()  # the nose is nearest
        assert keypoints[5, 0] > keypoints[6, 0]  # one's left is the picture's right
        assert torch.equal(betas, torch.zeros(1, 10)) and camera.tolist() == [[1, 0, 0]]
    heading = network(start="proxies").decode(torch.zeros(1, 48), joints, depth)[0][0, 0] @ torch.tensor([0.0, 0, 1])
    assert (heading @ UPRIGHT @ batch_rodrigues(torch.deg2rad(torch.tensor([[0.0, 120.0, 0.0]])))[0] @ torch.tensor([0.0, 0, 1])) > 0.9


@pytest.mark.parametrize("yaw", [0, 45, -45, 90, -90, 135, -135, 180])
@pytest.mark.parametrize("heavy", [-1.0, 1.5])
def test_joints_and_depth_tell_where_a_body_heads(yaw, heavy, body):
    joints, depth = standing(body, yaw, torch.tensor([[0.5, heavy] + 8 * [0.0]]))
    found = np.degrees(start_heading(joints, depth).item())
    assert abs((found - yaw + 180) % 360 - 180) < 25
    if abs(yaw) != 90:  # exactly from the side only the face decides: the near half hides the far one
        joints[:, :5] = 0
        found = np.degrees(start_heading(joints, depth).item())
        assert abs((found - yaw + 180) % 360 - 180) < 25


@pytest.mark.parametrize("numbers", [0, 32])
def test_a_joint_that_is_not_seen_has_no_heatmap_and_says_nothing(numbers, body):
    joints, depth = standing(body, 30)
    joints[0, 9, 2] = 0
    pixels = torch.cat([(joints[..., :2] + 1) * 16 - 0.5, joints[..., 2:]], dim=-1)
    maps = gaussian_heatmaps(pixels, 32, 0.5)
    assert maps[0, 9].abs().max() == 0 and (maps[0, [8, 10]].amax((1, 2)) > 0.3).all()
    elsewhere = joints.clone()
    elsewhere[0, 9, :2] = torch.tensor([0.3, -0.7])
    regressor = network(numbers=numbers)
    with torch.no_grad():
        for one, other in zip(regressor(joints, depth), regressor(elsewhere, depth)):
            assert torch.equal(one, other)


def test_depth_enters_relative_to_its_median_and_not_at_all_where_unknown():
    depth = torch.zeros(2, 4, 4)
    depth[0, 0] = torch.tensor([3.0, 4.0, 4.5, 30.0])
    seen = centred_depth(depth)
    assert seen[0, 0].tolist() == [-2, 0, 1, 3] and not seen[0, 1:].any() and not seen[1].any()
    assert torch.equal(centred_depth(torch.where(depth > 0, depth + 2, depth)), seen)


@pytest.mark.parametrize("numbers", [0, 32])
def test_without_depth_input_depth_has_no_say_in_the_body(numbers, body):
    joints, depth = batch(body)
    blind, seeing = network(depth_input=False, numbers=numbers), network(numbers=numbers)
    with torch.no_grad():
        one, two = blind(joints, depth), blind(joints, depth.flip(1))
        assert all(torch.equal(a, b) for a, b in zip(one[:3], two[:3]))
        assert not torch.allclose(seeing.encode(joints, depth), seeing.encode(joints, depth.flip(1)))


def test_the_branch_is_told_what_convolutions_would_have_to_read(body):
    """With the maps' part silenced, it alone responds to a moved wrist, and a person who stands a metre farther is the same to it."""
    joints, depth = standing(body, 30)
    regressor = network(numbers=32)
    torch.nn.init.zeros_(regressor.head[0].weight[:, : -regressor.config.numbers])
    moved = joints.clone()
    moved[0, 9, 0] += 0.05
    with torch.no_grad():
        output = regressor.encode(joints, depth)
        assert not torch.allclose(regressor.encode(moved, depth), output, atol=1e-3)
        assert torch.allclose(regressor.encode(joints, torch.where(depth > 0, depth + 1, depth)), output, atol=1e-4)


@pytest.mark.parametrize(
    "options", [{}, {"rotation": "6d", "reliability": "extended"}, {"depth_input": False}, {"numbers": 32}]
)
def test_openvino_and_torch_agree(options, body):
    regressor, given = network(**options), [value.numpy() for value in batch(body)]
    example = (torch.zeros(1, 17, 3), torch.zeros(1, MAP_SIZE, MAP_SIZE))
    outputs = [compile(regressor, example, backend=backend)(*given) for backend in ("openvino", "torch")]
    with torch.no_grad():
        expected = regressor(*map(torch.from_numpy, given))
    for one, other, plain in zip(*outputs, expected):
        np.testing.assert_allclose(one, other, atol=2e-3)
        np.testing.assert_allclose(other, plain.numpy(), atol=1e-4)


@pytest.mark.parametrize("options", [{"reliability": "extended"}, {"numbers": 32}])
def test_whatever_comes_in_numbers_come_out(options, body):
    joints, depth = standing(body, 10)
    regressor = network(**options)
    rng = torch.Generator().manual_seed(0)
    odd = {
        "nothing": (0 * joints, 0 * depth), "far away": (1e4 * joints, depth), "all at one place": (0 * joints + 1, depth),
        "deep": (joints, 1e6 * depth), "behind": (joints, -depth), "unknown depth": (joints, depth + torch.nan),
        "noise": (torch.randn(1, 17, 3, generator=rng), 10 * torch.randn(1, 64, 64, generator=rng)),
    }  # fmt: skip
    for name, given in odd.items():
        with torch.no_grad():
            assert all(torch.isfinite(value).all() for value in regressor(*given)), name


@pytest.fixture(scope="module")
def picture():
    return cv2.imread(str(files("hmr_ros") / "assets" / "demo" / "astronaut.jpg"))


def test_the_estimator_makes_bodies_with_it(checkpoint, picture, body):
    estimator = HumanMeshEstimator.from_default(backend="torch", regressor="resnet18", checkpoint=checkpoint, flip_averaging=True)
    assert estimator.reliability_source == "agreement"
    people = estimator(picture)
    assert len(people) == 1
    (person,) = people
    for name in ("vertices", "joints", "betas", "global_orient", "body_pose", "weak_camera", "projected_keypoints"):
        assert np.isfinite(getattr(person, name)).all(), name
    assert person.vertices.shape == (len(body.smpl.v_template), 3) and person.reliability.shape == (12,)
    assert (person.reliability >= 0).all() and (person.reliability <= 1).all()


@pytest.mark.parametrize("kind", ["auto", None, ""])
def test_a_checkpoint_says_itself_which_regressor_it_is(kind, checkpoint):
    estimator = HumanMeshEstimator.from_default(backend="torch", checkpoint=checkpoint, regressor=kind)
    assert (estimator.regressor.name, estimator.reliability_source) == ("resnet18", "agreement")
    assert estimator.regressor.body["sha256"] == estimator.body_model.sha256
    assert load_regressor(kind, body_model=estimator.body_model, backend="torch").name == "lifter"


def core_only(size: int) -> PersonProxies:
    depth = np.random.default_rng(0).uniform(2, 4, (size, size)).astype(np.float32)
    keypoints = np.column_stack([np.random.default_rng(1).uniform(100, 200, (17, 2)), np.full(17, 0.9)]).astype(np.float32)
    box, crop = np.array([100, 100, 200, 200], np.float32), np.array([150, 150, 120], np.float32)
    return PersonProxies(0.9, box, keypoints, crop, None, depth, "monocular", confident=0.3)


@pytest.mark.parametrize("size, expected", [(32, 64), (64, 64), (128, 128), (256, 256)])
def test_depth_reaches_the_network_at_its_own_resolution(size, expected):
    given = []

    def spy(joints, depth):
        given.append(depth)
        return np.zeros((1, 24, 3, 3)), np.zeros((1, 10)), np.ones((1, 3)), np.zeros((1, 12))

    person = core_only(256)
    MapsRegressor(spy, depth_size_of(size))([person])
    assert given[0].shape == (1, expected, expected)
    step = 256 // expected  # pixels are picked, not blended
    np.testing.assert_array_equal(given[0][0], person.depth[::step, ::step])


@pytest.mark.parametrize("size", [32, 128])
def test_a_network_of_any_size_is_compiled_for_depth_of_its_own(size, tmp_path, body):
    path = tmp_path / "regressor.safetensors"
    save_regressor(path, Resnet18Regressor(RegressorConfig(**SMALL | {"size": size}), load_pose_prior()), body, {})
    regressor = load_regressor(path=path, body_model=body, backend="torch")
    parameters = regressor([core_only(128), core_only(128)])
    assert regressor.depth_size == max(size, 64) and all(np.isfinite(values).all() for values in parameters)


def test_the_extractor_gives_depth_as_fine_as_the_network_reads_it(tmp_path, body):
    path = tmp_path / "regressor.safetensors"
    save_regressor(path, Resnet18Regressor(RegressorConfig(**SMALL | {"size": 256}), load_pose_prior()), body, {})
    estimator = HumanMeshEstimator.from_default(backend="torch", checkpoint=path)
    assert estimator.regressor.depth_size == 256 == estimator.extractor.config.size


def test_an_extractor_that_does_not_fit_the_regressor_is_refused(body):
    class CoreOnly:
        backend, provides = "none", frozenset()

    rest_pose = (torch.eye(3).repeat(1, 24, 1, 1), torch.zeros(1, 10))
    mesh = compile(body, rest_pose, backend="torch")
    with pytest.raises(ValueError, match="lifter requires blazepose of everybody, but CoreOnly gives the core .*the regressor resnet18"):
        HumanMeshEstimator(CoreOnly(), load_regressor("lifter", body_model=body, backend="torch"), body, mesh)
    HumanMeshEstimator(CoreOnly(), load_regressor("resnet18", body_model=body, backend="torch"), body, mesh)


def test_the_reliability_of_the_embedded_one_tells_joints_apart(picture):
    """One that was 1 to five digits everywhere, whatever its input, was embedded once."""
    (person,) = HumanMeshEstimator.from_default(backend="torch", regressor="resnet18")(picture)
    assert person.reliability.std() > 0.03 and 0.05 < person.reliability.mean() < 0.95


def test_the_embedded_one_has_its_decoder_from_the_embedded_prior(tmp_path):
    regressor = load_resnet18(EMBEDDED["resnet18"])[0]
    expected = load_pose_prior().decoder.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in regressor.pose_decoder.state_dict().items())
    tensors, metadata = load_checkpoint(EMBEDDED["resnet18"])
    assert not any(name.startswith("pose_decoder") for name in tensors)
    save_checkpoint(tmp_path / "of_another_version.safetensors", tensors, metadata | {"pose_prior_sha256": "0123456789abcdef"})
    with pytest.raises(ValueError, match="needs the pose prior 01234567, but .*pose_prior.safetensors is [0-9a-f]{8}"):
        load_resnet18(tmp_path / "of_another_version.safetensors")


def test_what_is_no_such_regressor_is_refused_by_name(checkpoint, tmp_path):
    with pytest.raises(ValueError, match="'resnet50', expected one of lifter, resnet18"):
        HumanMeshEstimator.from_default(regressor="resnet50")
    with pytest.raises(ValueError, match="holds network 'lifter', expected 'resnet18'"):
        HumanMeshEstimator.from_default(regressor="resnet18", checkpoint=str(EMBEDDED_CHECKPOINT))
    with pytest.raises(ValueError, match="holds network 'resnet18', expected 'lifter'"):
        HumanMeshEstimator.from_default(regressor="lifter", checkpoint=checkpoint)
    with pytest.raises(ValueError, match="holds network 'pose_prior', expected one of lifter, resnet18"):
        HumanMeshEstimator.from_default(checkpoint=str(EMBEDDED_PRIOR))
    with pytest.raises(FileNotFoundError, match="nothing.safetensors"):
        HumanMeshEstimator.from_default(regressor="resnet18", checkpoint=tmp_path / "nothing.safetensors")
    with pytest.raises(ValueError, match="'none', expected one of paper, extended"):
        Resnet18Regressor(RegressorConfig(reliability="none"))
