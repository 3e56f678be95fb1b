"""The extractor for a GPU on the CPU: the same people as by numpy and OpenCV on real pictures, and each of its steps by itself."""

from dataclasses import replace
from importlib.resources import files

import cv2
import numpy as np
import pytest
import torch

from hmr_ros.body.model import BodyModel
from hmr_ros.estimator import HumanMeshEstimator
from hmr_ros.camera import Camera
from hmr_ros.geometry import crop_matrix, pinhole
from hmr_ros.networks.lifter.on_device import device_inputs, device_turn_back
from hmr_ros.networks.lifter.features import FEATURE_LAYOUT, person_features, turn_back
from hmr_ros.networks.checkpoints import load_regressor
from hmr_ros.networks.paper.maps import device_maps, person_maps
from hmr_ros.proxies import registry
from hmr_ros.proxies.depth import coarse_depth, sensor_depth
from hmr_ros.proxies.embedded import EmbeddedExtractor
from hmr_ros.proxies.on_device.depth_maps import coarse_depths, sensor_depths
from hmr_ros.proxies.on_device.extractor import DeviceExtractor
from hmr_ros.proxies.on_device.warps import inverse, resize, warp_affine

pytestmark = pytest.mark.usefixtures("one_thread")

ASSETS = files("hmr_ros") / "assets"
EXACT_WARPS = int(cv2.__version__.split(".")[0]) >= 5


@pytest.fixture(scope="module")
def pictures():
    """The portrait and two frames of pedestrians, one a tenth of a second after the other, BGR."""
    capture = cv2.VideoCapture(str(ASSETS / "demo" / "pedestrians.mp4"))
    frames = [capture.read()[1] for _ in range(61)]
    return cv2.imread(str(ASSETS / "demo" / "astronaut.jpg")), frames[59], frames[60]


@pytest.fixture(scope="module")
def numpy_path():
    return EmbeddedExtractor(backend="torch")


@pytest.fixture(scope="module")
def on_device():
    return DeviceExtractor(backend="torch")


@pytest.fixture(scope="module")
def both(numpy_path, on_device, pictures):
    """Of each picture: people by the numpy path, people by the device's."""
    return [(numpy_path(picture), on_device(picture)) for picture in pictures]


def test_warps_are_those_of_opencv(pictures):
    picture = pictures[0]
    affines = [np.array([[c, -s, x], [s, c, y]], np.float32) for c, s, x, y in ((1.3, 0.4, -60, -40), (0.31, 0, 200, 80), (3, -1, 100, 250))]
    got = warp_affine(torch.from_numpy(picture).float().permute(2, 0, 1)[None], torch.from_numpy(np.stack(affines)), 256)
    for result, affine in zip(got.permute(0, 2, 3, 1).numpy(), affines, strict=True):
        want = cv2.warpAffine(picture, affine, (256, 256), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        off = np.abs(result - want)
        assert (want == 0).all(-1).any() or affine[0, 0] < 1  # the border was seen
        assert off.max() <= (0.51 if EXACT_WARPS else 6)  # OpenCV rounds to 8 bits, before version 5 places to 1/32 px, too


@pytest.mark.parametrize("height, width", [(256, 192), (100, 399), (256, 256), (700, 811)])
def test_resizing_is_that_of_opencv(pictures, height, width):
    picture = pictures[0]
    way = cv2.INTER_AREA if height < picture.shape[0] else cv2.INTER_LINEAR
    want = cv2.resize(picture, (width, height), interpolation=way)
    bound = 0.51 if way == cv2.INTER_AREA else 0.8  # rounded to 8 bits; weights of INTER_LINEAR are rounded, too
    np.testing.assert_allclose(resize(torch.from_numpy(picture).float(), height, width).numpy(), want, atol=bound)


def test_the_device_finds_the_same_people(both):
    assert [len(theirs) for _, theirs in both] == [len(ours) for ours, _ in both] and sum(len(ours) for ours, _ in both) >= 9
    for ours, theirs in both:
        for want, got in zip(ours, theirs):
            assert_same_person(got, want)


def assert_same_person(got, want, factor=1):
    """To a thousandth of the RoI, 0.25 px of BlazePose's input: where a pixel of it is rounded up instead of down, both networks see it."""
    pixel = factor * (1e-3 * want.blazepose.roi[2] + 0.05)
    assert got.blazepose.agreed == want.blazepose.agreed and got.depth_source == want.depth_source
    np.testing.assert_allclose(got.keypoints[:, :2], want.keypoints[:, :2], atol=pixel)
    np.testing.assert_allclose(got.keypoints[:, 2], want.keypoints[:, 2], atol=0.005 * factor)
    np.testing.assert_allclose(got.box, want.box, atol=pixel)
    np.testing.assert_allclose(got.crop, want.crop, atol=2 * pixel)
    np.testing.assert_allclose(got.blazepose.landmarks[:, :2], want.blazepose.landmarks[:, :2], atol=2 * pixel)
    np.testing.assert_allclose(got.blazepose.world, want.blazepose.world, atol=0.005 * factor)  # metres
    np.testing.assert_allclose(got.blazepose.roi, want.blazepose.roi, atol=2 * pixel)
    assert np.abs(got.mask - want.mask).mean() < 0.002 * factor
    known = (got.depth > 0) & (want.depth > 0)
    assert ((got.depth > 0) == (want.depth > 0)).mean() > 0.985 and known.sum() > 500
    assert np.abs(got.depth - want.depth)[known].mean() < 0.003 * factor  # metres
    for array, tensor in zip((got.depth, got.blazepose.embedding, got.blazepose.feature_map), got.tensors, strict=True):
        np.testing.assert_array_equal(array, tensor)


def test_everybody_is_followed_in_one_batch_as_one_by_one(numpy_path, on_device, both, pictures):
    people = both[1][1]
    got = on_device.follow_all(pictures[2], people)
    want = [numpy_path.follow(pictures[2], person) for person in people]
    assert [person is None for person in got] == [person is None for person in want] and len(people) >= 4
    for one, other in zip(got, want):
        if one is not None:
            assert_same_person(one, other, factor=10)  # OpenCV enlarges the window in which somebody is found again in integers
    assert_same_person(on_device.follow(pictures[2], people[0]), want[0])


def test_a_depth_image_and_the_flipped_roi_go_the_same_way(numpy_path, on_device, pictures, monkeypatch):
    depth = np.full(pictures[0].shape[:2], 2.0, np.float32) + np.linspace(0, 1, 512, dtype=np.float32)[:, None]
    depth[200:230] = np.nan
    for extractor in (numpy_path, on_device):
        monkeypatch.setattr(extractor, "config", type(extractor.config)(flip=True))
    (want,), (got,) = numpy_path(pictures[0], depth), on_device(pictures[0], depth)
    assert_same_person(got, want)
    mirrored, expected = got.mirrored, want.mirrored
    assert mirrored.tensors is None and isinstance(mirrored.blazepose.embedding, np.ndarray)
    np.testing.assert_allclose(mirrored.blazepose.landmarks[:, :2], expected.blazepose.landmarks[:, :2], atol=1e-3 * expected.blazepose.roi[2] + 0.05)
    np.testing.assert_allclose(mirrored.blazepose.world, expected.blazepose.world, atol=0.01)


def test_depth_maps_of_all_people_are_those_of_each(both):
    people = [person for ours, _ in both for person in ours]
    to_crop = [crop_matrix(person.crop, 128) for person in people]
    points = [p.blazepose.landmarks[:, :2] @ m[:, :2].T + m[:, 2] for p, m in zip(people, to_crop)]
    world, masks = [p.blazepose.world for p in people], [p.mask for p in people]
    confidence = [p.blazepose.landmarks[:, 2:].prod(1) for p in people]
    got = coarse_depths(*(torch.from_numpy(np.stack(values)).float() for values in (points, world, confidence, masks)))
    for one, *rest in zip(got.numpy(), points, world, confidence, masks, strict=True):
        np.testing.assert_allclose(one, coarse_depth(*rest), atol=1e-4)  # float32 against float64
    depth = np.random.default_rng(0).uniform(1, 3, (576, 768)).astype(np.float32)
    depth[:50] = np.inf
    from_crop = torch.from_numpy(inverse(np.stack(to_crop)))
    got = sensor_depths(torch.from_numpy(depth), from_crop, torch.from_numpy(np.stack(masks)))
    for one, person in zip(got.numpy(), people, strict=True):
        assert (one == sensor_depth(depth, person.crop, person.mask)).mean() > 0.98  # OpenCV rounds places to 1/32 px before


def test_features_of_all_people_are_those_of_each(both):
    people = [person for _, theirs in both for person in theirs]
    features, feature_maps, angles = device_inputs(people)
    first = 0
    for name, shape in FEATURE_LAYOUT:
        part = slice(first, first := first + int(np.prod(shape)))
        want = np.stack([person_features(person)[part] for person in people])
        np.testing.assert_allclose(features[:, part], want, atol=2e-5, err_msg=name)
    np.testing.assert_array_equal(feature_maps, np.stack([person.blazepose.feature_map for person in people]))
    dice = np.random.default_rng(0)
    parts = [dice.normal(size=(len(people), *shape)).astype(np.float32) for shape in ((24, 3, 3), (3,), (3,))]
    for got, want in zip(device_turn_back(*map(torch.from_numpy, parts), angles), turn_back(*parts, angles.numpy()), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("size", [64, 100, 128])
def test_maps_of_all_people_are_those_of_each(both, size):
    people = [person for _, theirs in both for person in theirs]
    for got, want in zip(device_maps(people, size), person_maps(people, size), strict=True):
        np.testing.assert_array_equal(got, want)


def test_the_papers_regressor_takes_them_where_they_are(both):
    people = both[2][1]
    regress = load_regressor("resnet18", body_model=BodyModel.load(None), backend="torch")
    got = regress(people)
    want = regress([replace(person, tensors=None) for person in people])
    for tensor, array in zip(got, want, strict=True):
        assert isinstance(tensor, torch.Tensor) and isinstance(array, np.ndarray)
        np.testing.assert_allclose(tensor, array, atol=1e-5)


@pytest.fixture(scope="module")
def estimator():
    """With the extractor for a GPU, and the batched refinement that tensors there take."""
    estimator = HumanMeshEstimator.from_default(backend="torch")
    estimator.extractor = DeviceExtractor(backend="torch")
    return estimator


def test_bodies_are_those_of_the_numpy_path(estimator, both, pictures, monkeypatch):
    monkeypatch.setattr(estimator, "_refine", estimator._refine._batched)
    camera = pinhole(768, 576, 60)
    got = estimator(pictures[2], intrinsics=camera)
    rows, parameters = estimator.regress(both[2][1])
    assert isinstance(parameters.rotations, torch.Tensor) and len(rows) == len(got)
    monkeypatch.undo()
    want = estimator.estimate(both[2][0], Camera(camera))
    assert len(got) == len(want) >= 4
    for one, other in zip(got, want):
        np.testing.assert_allclose(one.joints, other.joints, atol=5e-3)  # metres
        np.testing.assert_allclose(one.vertices, other.vertices, atol=5e-3)
        np.testing.assert_allclose(one.translation, other.translation, rtol=5e-3)
        np.testing.assert_allclose(one.reliability, other.reliability, atol=0.01)
        np.testing.assert_allclose(one.projected_keypoints, other.projected_keypoints, atol=0.5)


def test_a_stream_follows_people_on_the_device(estimator, pictures):
    stream = estimator.stream()
    stamps = (0.0, 0.4, 0.8, 0.9, 1.0, 1.1, 1.2)  # a pass in the first frame, another one spread over the last
    counts = [len(stream(pictures[1 + i % 2], stamp)) for i, stamp in enumerate(stamps)]
    assert min(counts) >= 3 and stream._complete_pass > 0.5
    assert all(track.proxies.tensors is not None for track in stream.tracks)


def test_a_body_that_is_not_finite_is_left_out_on_the_device_too(estimator, both, monkeypatch):
    people = both[2][1]
    whole = estimator.regressor(people)
    broken = whole._replace(betas=whole.betas.clone())
    broken.betas[1, 3] = torch.nan
    monkeypatch.setattr(estimator.regressor, "_on_device", lambda people: broken)
    seen = [person for person in people if person.torso_is_seen]
    assert len(seen) == len(people)
    rows, parameters = estimator.regress(people)
    assert 1 not in rows and len(parameters.rotations) == len(people) - 1


def test_with_a_gpu_the_registry_makes_the_extractor_for_it(monkeypatch):
    monkeypatch.setattr(registry, "gpu_is_there", lambda: True)
    for backend, kind in (("torch", DeviceExtractor), ("openvino", EmbeddedExtractor)):
        assert type(registry.make_extractor(backend=backend)) is kind
    assert registry.identity_of(DeviceExtractor, EmbeddedExtractor.Config()) == registry.identity()


# --- on a GPU, which was not here -------------------------------------------------------------------------------------------------------

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@GPU
@pytest.mark.gpu
@pytest.mark.parametrize("precision, factor", [("fp32", 20), ("fp16", 50)])  # TF32 and fp16 move landmarks by half a pixel of the RoI
def test_on_a_gpu_the_same_people_are_found_and_followed(precision, factor, both, pictures):
    extractor = registry.make_extractor(backend="torch", precision=precision)
    assert type(extractor) is DeviceExtractor and extractor.device.type == "cuda"
    for picture, (want, _) in zip(pictures, both):
        got = extractor(picture)
        assert len(got) == len(want) and all(value.is_cuda for person in got for value in person.tensors)
        for one, other in zip(got, want):
            np.testing.assert_allclose(one.keypoints[:, :2], other.keypoints[:, :2], atol=factor * 1e-3 * other.blazepose.roi[2])
    assert sum(person is not None for person in extractor.follow_all(pictures[2], extractor(pictures[1]))) >= 4


@GPU
@pytest.mark.gpu
def test_on_a_gpu_auto_runs_everything_there(pictures):
    estimator = HumanMeshEstimator.from_default()
    assert estimator.backend.count("cuda") == 2 and isinstance(estimator.extractor, DeviceExtractor)
    _, parameters = estimator.regress(estimator.extractor(pictures[2]))
    assert parameters.rotations.is_cuda
    got, want = estimator(pictures[2]), HumanMeshEstimator.from_default("openvino", precision="fp32")(pictures[2])
    assert len(got) == len(want)
    for one, other in zip(got, want):
        np.testing.assert_allclose(one.joints, other.joints, atol=0.03)  # metres; fp16
