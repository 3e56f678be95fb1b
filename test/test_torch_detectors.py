"""MoveNet and BlazePose as torch modules equal the model files on OpenVINO, on real people, however they are executed."""

import warnings
from importlib.resources import files

import cv2
import numpy as np
import pytest
import torch

from hmr_ros import runtime
from hmr_ros.estimator import HumanMeshEstimator
from hmr_ros.proxies import blazepose, registry
from hmr_ros.proxies.config import EmbeddedConfig
from hmr_ros.proxies.crops import upright_roi
from hmr_ros.proxies.embedded import EmbeddedExtractor
from hmr_ros.proxies.movenet import decoded
from hmr_ros.proxies.torch_modules import BlazePoseNet, MoveNetMultiPose, file_precision, weights
from hmr_ros.runtime import openvino_backend

pytestmark = pytest.mark.usefixtures("one_thread")

ASSETS = files("hmr_ros") / "assets"
PIXEL = 0.05  # of the network's input: the largest difference of a keypoint
SCORE = 1e-3  # of confidences, mask and presence; of inner activations, relative to the largest
BATCH = torch.export.Dim("batch", min=1, max=8)


@pytest.fixture(scope="module")
def pictures():
    """The portrait and two frames of pedestrians, BGR."""
    capture = cv2.VideoCapture(str(ASSETS / "demo" / "pedestrians.mp4"))
    frames = [capture.read()[1] for _ in range(61)]
    return cv2.imread(str(ASSETS / "demo" / "astronaut.jpg")), frames[30], frames[60]


@pytest.fixture(scope="module")
def extractor():
    """The embedded one as it is by default."""
    return EmbeddedExtractor()


@pytest.fixture(scope="module")
def rois(extractor, pictures):
    """(N, 256, 256, 3) RGB, 0..1: of everybody whom MoveNet finds, at most two a picture."""
    found = []
    for picture in pictures:
        for person in extractor.movenet(picture)[:2]:
            to_image, _ = upright_roi(person.keypoints, person.box, 256, EmbeddedConfig())
            found.append(cv2.warpAffine(picture, to_image, (256, 256), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP))
    assert len(found) == 5
    return np.stack(found)[..., ::-1].astype(np.float32) / 255


@pytest.fixture(scope="module")
def blazepose_net():
    return BlazePoseNet.load()


@pytest.fixture(scope="module")
def movenet_net():
    return MoveNetMultiPose.load()


def on(module):
    """The module as a function on arrays."""

    def run(array):
        with torch.no_grad():
            outputs = module(torch.from_numpy(array))
        return [outputs.numpy()] if isinstance(outputs, torch.Tensor) else [output.numpy() for output in outputs]

    return run


def traced(module, example):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("error", torch.jit.TracerWarning)  # nothing is frozen
        return torch.jit.trace(module, example, check_trace=False)


def exported(module, example, shapes):
    return torch.export.export(module, (example,), dynamic_shapes=(shapes,)).module()


# --- the files in bf16, the default of the live estimator on CPUs that have it --------------------------------------------------------


@pytest.mark.parametrize("there, asked, expected", [
    (True, "auto", "bf16"), (False, "auto", "fp32"), (True, "fp32", "fp32"), (True, "bf16", "bf16"), (False, "bf16", "bf16"), (True, "fp16", "fp32"),
])  # fmt: skip
def test_the_files_run_in_bf16_where_it_is_asked_for_or_at_hand(there, asked, expected, monkeypatch):
    monkeypatch.setattr("hmr_ros.proxies.torch_modules.compiled.cpu_is_faster_in_bf16", lambda: there)
    assert file_precision(asked) == expected


def test_bf16_moves_keypoints_by_less_than_people_differ_on_them(extractor, pictures):
    """Median 0.5 px of BlazePose's 256; of a person's diagonal less than half a percent."""
    if "bf16" not in openvino_backend.precisions():
        with pytest.raises(runtime.BackendUnavailable, match="no bfloat16 units"):
            EmbeddedExtractor(precision="bf16", backend="openvino")
        pytest.skip("this CPU has no bfloat16 units")
    quick = EmbeddedExtractor(precision="bf16")
    assert quick.backend.endswith(" bf16") and not extractor.backend.endswith(" bf16")
    moved = []
    for picture in pictures:
        exact, rounded = extractor(picture), quick(picture)
        assert len(exact) == len(rounded) > 0
        for a, b in zip(exact, rounded):
            seen = (a.keypoints[:, 2] > 0.5) & (b.keypoints[:, 2] > 0.5)
            diagonal = np.linalg.norm(a.box[2:] - a.box[:2])
            moved.extend(np.linalg.norm(a.keypoints[seen, :2] - b.keypoints[seen, :2], axis=1) / diagonal)
    assert 0 < np.median(moved) < 5e-3 and len(moved) > 50


# --- BlazePose ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def blazepose_expected(rois):
    """The file's outputs for each RoI by itself, with the two inner activations."""
    network = runtime.compile(ASSETS / "pose_landmark_full.tflite", expose=(blazepose._HEAD, blazepose._MIDDLE))
    return [np.concatenate(output) for output in zip(*(network(roi[None]) for roi in rois))]


def assert_blazepose_equal(outputs, expected):
    assert [output.shape for output in outputs] == [output.shape for output in expected]
    landmarks, presence, mask, heatmaps, world, embedding, feature_map = zip(outputs, expected)
    got, want = (values.reshape(-1, 39, 5) for values in landmarks)
    np.testing.assert_allclose(got[..., :3], want[..., :3], atol=PIXEL)
    for got, want in ((got[..., 3:], want[..., 3:]), mask, heatmaps):
        np.testing.assert_allclose(sigmoid(got), sigmoid(want), atol=SCORE)
    np.testing.assert_allclose(*presence, atol=SCORE)
    np.testing.assert_allclose(*world, atol=1e-4)  # metres
    for got, want in (embedding, feature_map):
        np.testing.assert_allclose(got, want, atol=SCORE * np.abs(want).max())


def sigmoid(x):
    return 1 / (1 + np.exp(-np.clip(x.astype(np.float64), -30, 30)))


def test_blazepose_as_a_torch_module_equals_the_file_for_all_people_at_once(blazepose_net, rois, blazepose_expected):
    assert_blazepose_equal(on(blazepose_net)(rois), blazepose_expected)


def test_blazepose_is_traced_for_any_number_of_people(blazepose_net, rois, blazepose_expected):
    network = on(traced(blazepose_net, torch.from_numpy(rois[:2])))
    assert_blazepose_equal(network(rois[:1]), [output[:1] for output in blazepose_expected])
    assert_blazepose_equal(network(rois), blazepose_expected)


def test_blazepose_is_exported_for_one_person_and_for_any_number(blazepose_net, rois, blazepose_expected):
    alone = on(exported(blazepose_net, torch.from_numpy(rois[:1]), None))
    assert_blazepose_equal(alone(rois[1:2]), [output[1:2] for output in blazepose_expected])
    several = on(exported(blazepose_net, torch.from_numpy(rois[:2]), {0: BATCH}))
    for count in (1, len(rois)):
        assert_blazepose_equal(several(rois[:count]), [output[:count] for output in blazepose_expected])


def test_blazepose_as_a_torch_module_runs_on_openvino(blazepose_net, rois, blazepose_expected):
    network = runtime.compile(blazepose_net, rois[:1], backend="openvino")
    assert_blazepose_equal(network(rois), blazepose_expected)


# --- MoveNet ------------------------------------------------------------------------------------------------------------------------

SIZES = [(256, 256), (512, 512), (192, 256)]


def movenet_file(height, width):
    return runtime.compile(ASSETS / "movenet_multipose.xml", shapes={"input": (1, height, width, 3)})


def resized(pictures, height, width):
    """(N, height, width, 3) RGB, 0..255."""
    small = [cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA) for picture in pictures]
    return np.stack(small)[..., ::-1].astype(np.float32)


@pytest.fixture(scope="module")
def movenet_expected(pictures):
    """By size of the input, the file's people in each picture."""
    found = {}
    for size in SIZES:
        network = movenet_file(*size)
        found[size] = np.concatenate([network(image[None])[0] for image in resized(pictures, *size)])
    return found


def assert_movenet_equal(people, expected, size):
    """The people above MoveNet's noise, in the same order."""
    assert people.shape == expected.shape
    seen = expected[..., 55] > EmbeddedConfig().noise_score
    assert seen.any(axis=1).all() and seen.sum() >= 3
    got, want = people[seen], expected[seen]
    keypoints, wanted = (rows[:, :51].reshape(-1, 17, 3) for rows in (got, want))
    np.testing.assert_allclose(keypoints[..., :2] * size, wanted[..., :2] * np.array(size), atol=PIXEL)
    np.testing.assert_allclose(got[:, 51:55] * np.tile(size, 2), want[:, 51:55] * np.tile(size, 2), atol=PIXEL)
    np.testing.assert_allclose(keypoints[..., 2], wanted[..., 2], atol=SCORE)
    np.testing.assert_allclose(people[..., 55], expected[..., 55], atol=SCORE)  # of nobody, too


@pytest.mark.parametrize("size", SIZES)
def test_movenet_as_a_torch_module_equals_the_file_for_all_pictures_at_once(movenet_net, pictures, movenet_expected, size):
    (people,) = on(movenet_net)(resized(pictures, *size))
    assert_movenet_equal(people, movenet_expected[size], size)


def test_movenet_is_exported_and_traced_for_any_number_of_pictures_of_any_size(movenet_net, pictures, movenet_expected):
    example, (height, width) = torch.from_numpy(resized(pictures[:2], 64, 96)), SIZES[2]
    rows, columns = torch.export.Dim("rows", min=1, max=32), torch.export.Dim("columns", min=1, max=32)
    upright = resized(pictures[2:], width, height)  # the shorter side is not that of the example
    (expected_upright,) = movenet_file(width, height)(upright)
    for network in (exported(movenet_net, example, {0: BATCH, 1: 32 * rows, 2: 32 * columns}), traced(movenet_net, example)):
        (people,) = on(network)(resized(pictures, height, width))
        assert_movenet_equal(people, movenet_expected[SIZES[2]], SIZES[2])
        (people,) = on(network)(upright)
        assert_movenet_equal(people, expected_upright, (width, height))


def test_movenet_as_a_torch_module_runs_on_openvino_and_may_be_decoded_afterwards(movenet_net, pictures, movenet_expected):
    images, size = resized(pictures, 256, 256), (256, 256)
    (people,) = runtime.compile(movenet_net, images[:1], backend="openvino")(images)
    assert_movenet_equal(people, movenet_expected[size], size)
    trunk = runtime.compile(movenet_net.trunk, images[:1], backend="torch")
    assert_movenet_equal(decoded(trunk)(images), movenet_expected[size], size)


# --- weights and wiring -------------------------------------------------------------------------------------------------------------


def test_an_index_of_weights_refuses_another_file(tmp_path, monkeypatch):
    name = "pose_landmark_full.tflite"
    data = bytearray((ASSETS / name).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / name).write_bytes(data)
    (tmp_path / "proxies").symlink_to(files("hmr_ros") / "proxies")
    monkeypatch.setattr(weights, "files", lambda package: tmp_path)
    with pytest.raises(ValueError, match=f"{name} has SHA-256 .*: the file is damaged or another one; install hmr_ros again"):
        BlazePoseNet.load()


def test_a_backend_that_was_asked_for_runs_the_detectors_too_and_sees_the_same_people(extractor, pictures):
    estimator = HumanMeshEstimator.from_default(backend="torch")
    ours, theirs = extractor, estimator.extractor
    assert ours.backend.startswith("openvino") and theirs.backend.startswith("torch") and "openvino" not in estimator.backend
    assert ours.identity() == theirs.identity() == registry.identity()
    expected, people = ours(pictures[2]), theirs(pictures[2])
    assert len(people) == len(expected) >= 4
    # Keypoints of both networks; the networks alone are compared above. RoIs follow MoveNet's keypoints, and warping rounds to 1/32 px.
    for got, want in zip(people, expected):
        np.testing.assert_allclose(got.keypoints[:, :2], want.keypoints[:, :2], atol=PIXEL)
        np.testing.assert_allclose(got.keypoints[:, 2], want.keypoints[:, 2], atol=0.01)
