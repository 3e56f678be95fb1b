"""The paper's own proxies: Keypoint R-CNN against torchvision's, the depth network, maps from files, and the method from end to end.

Weights are random: COCO's and Depth Anything's cannot be had here. What detections and depth are worth is not tested.
"""

import json
import logging
import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from keypoint_rcnn_weights import SIDES, pictures, random_state
from safetensors.torch import load_file, save_file

from hmr_ros import HumanMeshEstimator
from hmr_ros.cli import main
from hmr_ros.files import load_checkpoint
from hmr_ros.geometry import crop_matrix
from hmr_ros.networks.checkpoints import load_regressor
from hmr_ros.body.model import BodyModel
from hmr_ros.networks.paper.net import RegressorConfig
from hmr_ros.proxies import registry
from hmr_ros.proxies.depth import trim_depth
from hmr_ros.proxies.movenet import MoveNet
from hmr_ros.proxies.paper import monocular_depth, roi
from hmr_ros.proxies.paper.config import PaperConfig, ProxyFiles
from hmr_ros.proxies.paper.extractor import PaperExtractor, limb_mask
from hmr_ros.proxies.paper.keypoint_rcnn import COCO_V1, KeypointRCNN, find_weights
from hmr_ros.proxies.paper.network import KeypointRCNNNetwork, load_network
from hmr_ros.training.data import shard_work, shards
from hmr_ros.training.data.extract.extract import ExtractConfig, extract
from hmr_ros.training.paper.train import PRESETS, WEIGHTS, train

GOLDEN = np.load(Path(__file__).parent / "data" / "golden_keypoint_rcnn.npz")
SMALL = PaperConfig(**SIDES, window_side=128, min_score=0.05, min_side=0)  # 0.05: torchvision's box_score_thresh
PHOTO = Path(str(files("hmr_ros") / "assets" / "demo" / "astronaut.jpg"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    state = random_state({name: tuple(value.shape) for name, value in KeypointRCNNNetwork().state_dict().items()})
    path = tmp_path_factory.mktemp("weights") / "keypoint_rcnn.pth"
    torch.save({name: torch.from_numpy(value) for name, value in state.items()}, path)
    return path


@pytest.fixture(scope="module")
def photo():
    return cv2.imread(str(PHOTO))


@pytest.fixture(scope="module")
def seen(photo):
    """The person in the photo, as MoveNet detects her."""
    return MoveNet()(photo)[0]


def tiny_depth_network(folder: Path, kind: str) -> Path:
    """Depth Anything V2's architecture, 56 px and 24 wide, with random weights."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    torch.manual_seed(14)
    backbone = Dinov2Config(
        hidden_size=24, num_hidden_layers=4, num_attention_heads=2, image_size=56, patch_size=14, reshape_hidden_states=False,
        apply_layernorm=True, out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    model = DepthAnythingForDepthEstimation(DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=24, neck_hidden_sizes=[8, 8, 16, 16], fusion_hidden_size=8, head_in_index=-1,
        head_hidden_size=8, depth_estimation_type=kind, max_depth=20 if kind == "metric" else 1,
    ))  # fmt: skip
    with torch.no_grad():  # the head of random weights gives numbers around 1e-8
        for name, value in model.named_parameters():
            if value.ndim > 1 and not name.startswith("backbone"):
                value.mul_(8)
        model.head.conv3.bias.fill_(0.5)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def depth_networks(tmp_path_factory):
    return {kind: tiny_depth_network(tmp_path_factory.mktemp(kind), kind) for kind in ("relative", "metric")}


@pytest.fixture(scope="module")
def extractors(weights, depth_networks):
    """By the kind of the depth network, "" without one; with the detector that the photo's people come from put in later."""
    folders = {"": None, **depth_networks}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hmr_ros.proxies.paper.extractor.KeypointRCNN", lambda *_, **__: KEYPOINT_RCNN)
        return {kind: PaperExtractor(1, PaperConfig(flip=True), ProxyFiles(weights, folder), "torch") for kind, folder in folders.items()}


class KeypointRCNNOf:
    """Detects who is told."""

    backend, people = "nothing", ()

    def __call__(self, image):
        return list(self.people)

    def in_window(self, image, window):
        self.window = window
        return list(self.people)


KEYPOINT_RCNN = KeypointRCNNOf()


# ---- Keypoint R-CNN -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_keypoint_rcnn_gives_what_torchvision_gives(weights, backend):
    """Of its own model with the same random weights: its boxes, scores, keypoints and logits to 1e-4, in two pictures."""
    detector = KeypointRCNN(weights, backend=backend, threads=1, config=SMALL)
    for i, picture in enumerate(pictures()):
        people = detector(picture)
        boxes, scores, keypoints, logits = (GOLDEN[f"{name}_{i}"] for name in ("boxes", "scores", "keypoints", "keypoints_scores"))
        assert len(people) == len(boxes) > 10 and np.ptp(scores) > 0.1 and np.ptp(keypoints[..., 0]) > 20
        np.testing.assert_allclose([person.box + 0.5 for person in people], boxes, atol=1e-4)
        np.testing.assert_allclose([person.score for person in people], scores, atol=1e-4)
        np.testing.assert_allclose([person.keypoints[:, :2] + 0.5 for person in people], keypoints[..., :2], atol=1e-4)
        confidence = 1 / (1 + np.exp(-(logits - SMALL.logit_middle) / SMALL.logit_spread))
        np.testing.assert_allclose([person.keypoints[:, 2] for person in people], confidence, atol=1e-4)


def test_it_detects_the_same_people_in_a_window_of_the_image_where_they_are_in_the_image(weights):
    """A window as large as its input is not resized: what is detected there stands where it does in the image."""
    detector = KeypointRCNN(weights, backend="torch", threads=1, config=SMALL)
    image = np.zeros((220, 260, 3), np.uint8)
    image[50 : 50 + 120, 60 : 60 + 128] = pictures()[0][:, :128]
    found = detector.in_window(image, np.float32([60 + 63.5, 50 + 63.5, 128]))
    alone = detector.in_window(image[50:178, 60:188], np.float32([63.5, 63.5, 128]))
    assert len(found) == len(alone) > 3
    for here, there in zip(found, alone):
        np.testing.assert_allclose(here.keypoints - there.keypoints, np.tile([60, 50, 0], (17, 1)), atol=1e-2)
        np.testing.assert_allclose(here.box - there.box, [60, 50, 60, 50], atol=1e-2)


def test_roi_align_reads_linear_features_exactly_and_takes_the_level_of_the_box():
    """The mean of samples of a plane is its value in the cell's centre, whose coordinates are known."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    features = [torch.stack([x, y]), *(torch.full((2, 64 >> i, 64 >> i), 100.0 * i) for i in (1, 2, 3))]
    boxes = torch.tensor([[20.0, 40, 76, 68], [0.0, 0, 224, 224]])
    cells = roi.pooled(features, boxes, 7)
    centres = (torch.arange(7) + 0.5) / 7
    torch.testing.assert_close(cells[0, 0], (20 + 56 * centres).expand(7, 7) / 4)
    torch.testing.assert_close(cells[0, 1], ((40 + 28 * centres) / 4)[:, None].expand(7, 7))
    torch.testing.assert_close(cells[1], torch.full((2, 7, 7), 200.0))


def test_files_of_older_torchvision_load_and_those_of_something_else_are_named(weights, tmp_path):
    state = torch.load(weights, weights_only=True)
    old = {re.sub(r"(_blocks\.\d)\.0\.", r"\1.", name).replace("rpn.head.conv.0.0", "rpn.head.conv"): value for name, value in state.items()}
    assert old.keys() != state.keys()
    torch.save(old, tmp_path / "old.pth")
    loaded = load_network(tmp_path / "old.pth").state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())
    state.pop("roi_heads.keypoint_predictor.kps_score_lowres.bias")
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="other.pth holds other weights.*kps_score_lowres.bias.*keypointrcnn_resnet50_fpn"):
        load_network(tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(ValueError, match="text.pth is no file of weights"):
        load_network(tmp_path / "text.pth")


def test_the_published_weights_run_with_torchvisions_epsilon(weights):
    """torchvision sets it to 0 for COCO_V1, and only there."""
    assert {load_network(weights, sha).backbone["body"].bn1.eps for sha in ("", "9f466800")} == {1e-5}
    assert load_network(weights, COCO_V1[-12:-4] + "00").backbone["body"].bn1.eps == 0


def test_missing_weights_are_one_line_that_says_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"{COCO_V1} are not in .*checkpoints.*python -c .*get_state_dict.*--keypoint-rcnn") as error:
        HumanMeshEstimator.from_default(regressor="resnet18", extractor="paper")
    assert "\n" not in str(error.value)
    with pytest.raises(FileNotFoundError, match="nowhere.pth: no such file"):
        registry.identity("paper", files=ProxyFiles(tmp_path / "nowhere.pth"))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / COCO_V1).write_bytes(b"weights")
    assert find_weights() == tmp_path / "checkpoints" / COCO_V1
    with pytest.raises(ValueError, match="extractor embedded does not read keypoint_rcnn"):
        registry.make_extractor("embedded", files=ProxyFiles(tmp_path / "some.pth"))


def test_its_identity_names_every_file_and_where_depth_comes_from(weights, depth_networks):
    plain = registry.identity("paper", files=ProxyFiles(weights))
    deep = registry.identity("paper", files=ProxyFiles(weights, depth_networks["relative"]))
    assert json.loads(json.dumps(deep)) == deep
    assert set(plain["files"]) == {"pose_landmark_full.tflite", "keypoint_rcnn"} and set(deep["files"]) - set(plain["files"]) == {"depth_network"}
    assert (registry.depth_source(plain), registry.depth_source(deep), registry.depth_source(None)) == ("coarse", "monocular", "coarse")
    mapped = registry.identity("embedded", files=ProxyFiles(depth_maps=Path("maps")))
    assert registry.depth_source(mapped) == "hdnet" and registry.identity("embedded") == {k: v for k, v in mapped.items() if k != "depth_maps"}
    assert registry.confident(plain) == 0.5


# ---- depth ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["relative", "metric"])
def test_the_depth_network_exports_and_every_backend_gives_the_same(depth_networks, photo, kind):
    networks = [monocular_depth.DepthAnything(depth_networks[kind], backend, 1) for backend in ("torch", "openvino")]
    crop = np.float32([230, 200, 300])
    one, other = (network(photo, crop, 64) for network in networks)
    assert one.shape == (64, 64) and networks[0].relative is (kind == "relative") and networks[0].side == 56
    assert np.ptp(one) > 1e-3 * abs(one).max() and (one > 0).any()
    np.testing.assert_allclose(one, other, atol=1e-3 * abs(one).max())
    example = torch.rand(1, 3, 56, 56)
    exported = torch.export.export(networks[0].network, (example,)).module()
    torch.testing.assert_close(exported(example), networks[0].network(example))


def test_another_depth_network_or_one_without_all_of_its_weights_is_refused(depth_networks, tmp_path):
    with pytest.raises(FileNotFoundError, match="is no folder and not in Hugging Face's cache; expected a folder of Depth Anything V2"):
        monocular_depth.find_network("nobody/has-this-network")
    with pytest.raises(FileNotFoundError, match="holds no model.safetensors"):
        monocular_depth.find_network(tmp_path)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((depth_networks["relative"] / name).read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    tensors.pop("head.conv3.weight")
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="lacks 1 weights, the first is head.conv3.weight"):
        monocular_depth.DepthAnything(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be loaded"):
        monocular_depth.DepthAnything(tmp_path)


def test_disparity_gets_the_scale_and_shift_of_a_coarse_depth_even_where_a_limb_of_it_is_wrong():
    rows, columns = np.mgrid[:64, :64]
    truth = (4 + 0.4 * np.sin(rows / 9) + 0.2 * np.cos(columns / 7)).astype(np.float32)
    mask = (np.hypot(rows - 32, columns - 32) < 28).astype(np.float32)
    reference = np.where(mask > 0, truth, 0)
    reference[20:30, 20:34] += 0.8  # an arm that BlazePose puts behind the body
    depth = monocular_depth.fitted(37.0 / truth + 5, reference, mask)
    np.testing.assert_allclose(depth[mask > 0], truth[mask > 0], atol=0.02)
    assert (depth[mask == 0] == 0).all()
    assert monocular_depth.fitted(truth, reference, mask) is None  # grows where disparity must fall
    assert monocular_depth.fitted(37.0 / truth, np.zeros_like(truth), mask) is None


def test_without_a_coarse_depth_the_hips_stand_at_4_metres_and_depth_is_known_up_to_scale():
    truth = np.linspace(2, 3, 64, dtype=np.float32)[:, None].repeat(64, 1)
    mask = np.zeros((64, 64), np.float32)
    mask[8:60, 10:50] = 1
    depth = monocular_depth.up_to_scale(5.0 / truth, np.array([[20.2, 40.0], [40.0, 40.3]]), mask)
    np.testing.assert_allclose(depth[mask > 0], (4 * truth / truth[40, 0])[mask > 0], rtol=1e-5)
    assert (depth[mask == 0] == 0).all()
    middle = monocular_depth.up_to_scale(5.0 / truth, np.zeros((0, 2)), mask)
    assert np.median(middle[mask > 0]) == pytest.approx(4, abs=0.05)
    assert not monocular_depth.up_to_scale(np.zeros_like(truth), np.zeros((0, 2)), mask).any()


@pytest.mark.parametrize("kind, source", [("", "coarse"), ("relative", "monocular"), ("metric", "monocular")])
def test_a_persons_depth_is_cut_out_by_the_mask_and_trimmed(extractors, photo, seen, kind, source):
    extractor, KEYPOINT_RCNN.people = extractors[kind], (seen,)
    (person,) = extractor(photo)
    assert person.depth_source == source and person.depth.shape == person.mask.shape == (256, 256) and person.blazepose is None
    valid = person.depth > 0
    assert valid.sum() > 1000 and not (valid & (person.mask <= 0.5)).any()
    np.testing.assert_array_equal(trim_depth(person.depth), person.depth)
    np.testing.assert_array_equal(person.mirrored.depth, person.depth[:, ::-1])
    np.testing.assert_array_equal(person.keypoints, seen.keypoints)
    assert extractor.identity()["options"]["depth"] == source and extractor.provides == {"mask"}


def test_a_depth_cameras_image_comes_before_the_network(extractors, photo, seen):
    KEYPOINT_RCNN.people = (seen,)
    (person,) = extractors["relative"](photo, np.full(photo.shape[:2], 2.5, np.float32))
    assert person.depth_source == "sensor" and np.unique(person.depth).tolist() == [0, 2.5]


def test_a_relative_network_without_blazepose_is_cut_out_by_the_limbs(extractors, photo, seen):
    """Where BlazePose sees somebody else there is neither its mask nor its coarse depth."""
    extractor = extractors["relative"]
    elsewhere = replace(seen, keypoints=seen.keypoints + np.float32([0.4 * seen.diagonal, 0, 0]), box=seen.box + [0.4 * seen.diagonal, 0] * 2)
    sure = elsewhere.keypoints.copy()
    sure[:, 2] = 0.9
    KEYPOINT_RCNN.people = (replace(elsewhere, keypoints=sure),)
    (person,) = extractor(photo)
    np.testing.assert_array_equal(person.mask, limb_mask(KEYPOINT_RCNN.people[0], person.crop, extractor.config))
    assert set(np.unique(person.mask)) == {0, 1} and person.depth_source == "monocular"
    (alone,) = extractors[""](photo)
    assert alone.depth_source == "none" and not alone.depth.any()


def test_the_limbs_hull_covers_the_keypoints_and_the_box_stands_in_for_a_torso_that_is_not_known(seen):
    keypoints = np.float32([[50, 20, 1], [52, 18, 1], [48, 18, 1], [54, 20, 1], [46, 20, 1], [65, 45, 1], [35, 45, 1], [75, 70, 1], [25, 70, 1],
                            [80, 95, 1], [20, 95, 1], [60, 100, 1], [40, 100, 1], [60, 140, 1], [40, 140, 1], [62, 180, 1], [38, 180, 1]])  # fmt: skip
    person, crop, config = replace(seen, keypoints=keypoints, box=np.float32([10, 5, 90, 190])), np.float32([50, 100, 220]), PaperConfig()
    mask, to_crop = limb_mask(person, crop, config), crop_matrix(crop, config.size)
    column, row = np.rint(keypoints[:, :2] @ to_crop[:, :2].T + to_crop[:, 2]).astype(int).T
    assert mask[row, column].all() and 0.1 < mask.mean() < 0.3 and not mask[:, :30].any()
    keypoints[5:13, 2] = 0
    box = limb_mask(person, crop, config)
    assert box.mean() == pytest.approx(80 * 185 / 220**2, rel=0.03)


def test_a_known_person_is_found_again_by_the_detector_in_a_square_around_him(extractors, photo, seen):
    extractor, KEYPOINT_RCNN.people = extractors[""], (seen,)
    (person,) = extractor(photo)
    moved = extractor.follow(photo, person)
    np.testing.assert_allclose(KEYPOINT_RCNN.window, [*person.crop[:2], extractor.config.neighbourhood * person.crop[2]])
    np.testing.assert_array_equal(moved.keypoints, person.keypoints)
    KEYPOINT_RCNN.people = (replace(seen, keypoints=seen.keypoints + np.float32([900, 0, 0]), box=seen.box + [900, 0, 900, 0]),)
    assert extractor.follow(photo, person) is None
    KEYPOINT_RCNN.people = ()
    assert extractor.follow(photo, person) is None


# ---- maps from files ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def maps(photo, tmp_path_factory):
    """Of the photo, at half its resolution: depth grows to the right."""
    folder = tmp_path_factory.mktemp("maps")
    height, width = (side // 2 for side in photo.shape[:2])
    np.save(folder / "astronaut.npy", np.tile(np.linspace(3, 5, width, dtype=np.float32), (height, 1)))
    return folder


def test_extract_takes_depth_from_maps_and_says_so(maps, photo, tmp_path):
    manifest = extract(ExtractConfig(PHOTO, tmp_path, workers=1, proxies=ProxyFiles(depth_maps=maps)))
    rows = shards.load_proxies(tmp_path)
    assert registry.depth_source(shard_work.extractor_of(tmp_path)) == "hdnet" and manifest["people"] == 1
    depth, crop = rows["depth"][0].astype(np.float32), rows["crop"][0]
    valid = depth > 0
    column = crop[0] + ((np.nonzero(valid)[1] + 0.5) / depth.shape[1] - 0.5) * crop[2]
    assert valid.sum() > 200
    np.testing.assert_allclose(depth[valid], 3 + 2 * column / photo.shape[1], atol=0.03)
    (tmp_path / "none").mkdir()
    with pytest.raises(FileNotFoundError, match="astronaut.txt is missing; expected layout"):
        extract(ExtractConfig(PHOTO, tmp_path / "other", workers=1, proxies=ProxyFiles(depth_maps=tmp_path / "none")))


def test_image_takes_depth_from_maps_and_refuses_one_of_another_aspect(maps, photo, tmp_path, capsys):
    def run(folder, out):
        arguments = ["--out", str(tmp_path / out), "--regressor", "resnet18", "--backend", "torch"]
        return main(["image", str(PHOTO), *arguments, *(["--depth-maps", str(folder)] if folder else [])])

    assert run(maps, "with") == 0 and run(None, "without") == 0
    poses = [np.load(tmp_path / out / "astronaut.bodies.npz")["body_pose"] for out in ("with", "without")]
    assert poses[0].shape == poses[1].shape == (1, 69) and np.abs(poses[0] - poses[1]).max() > 1e-3
    capsys.readouterr()
    np.save(tmp_path / "astronaut.npy", np.ones((64, 128), np.float32))
    assert run(tmp_path, "wrong") == 2
    assert "depth map has 128x64 pixels, the picture 512x512" in " ".join(capsys.readouterr().out.split())


# ---- the method -----------------------------------------------------------------------------------------------------


def test_the_method_from_pictures_to_bodies(weights, depth_networks, tmp_path, monkeypatch, caplog):
    """Keypoint R-CNN's joints and a learned depth at 256 x 256 → shards → ResNet-18, reliability, frozen prior → bodies."""
    monkeypatch.setattr(registry, "_config", lambda kind, flip, size: replace(SMALL, min_score=0.06, flip=flip, size=max(256, size)))
    source, out, brought = tmp_path / "pictures", tmp_path / "shards", ProxyFiles(weights, depth_networks["relative"])
    source.mkdir()
    for i, picture in enumerate(pictures()):
        cv2.imwrite(str(source / f"{i}.png"), picture)
    manifest = extract(ExtractConfig(source, out, workers=1, depth_size=256, extractor="paper", proxies=brought))
    assert manifest["people"] >= 4 and registry.depth_source(manifest["extractor"]) == "monocular"
    rows = shards.load_proxies(out)
    assert rows["depth"].shape[1:] == (256, 256) and (rows["depth"] > 0).any()

    config = replace(PRESETS["paper"][1], data=(out,), out=tmp_path / "run", regressor=RegressorConfig(width=16), batch=4, steps=2,
                     accelerator="cpu")  # fmt: skip
    assert np.isfinite(train(config)["total"])
    recorded = load_checkpoint(tmp_path / "run" / WEIGHTS)[1]["training"]["extractors"]
    assert recorded == [json.loads(json.dumps(manifest["extractor"]))]

    estimator = HumanMeshEstimator.from_default("torch", checkpoint=tmp_path / "run" / WEIGHTS, extractor="paper", proxy_files=brought)
    with caplog.at_level(logging.WARNING):
        bodies = estimator(pictures()[0])
    assert bodies.detected > 0 and (bodies or bodies.reason())
    assert "depth" not in caplog.text  # it is what the regressor was trained on
    assert all(np.isfinite(body.vertices).all() and body.crop[2] > 0 for body in bodies)
    people = estimator.extractor(pictures()[0])
    rows_with, parameters = estimator.regress(people)
    assert len(rows_with) > 0 and parameters.rotations.shape == (len(rows_with), 24, 3, 3)


def test_depth_of_another_kind_than_in_training_warns_once(extractors, photo, seen, caplog):
    embedded = load_regressor("resnet18", body_model=BodyModel.load(None), backend="torch")
    assert embedded.depth_sources == {"coarse"}
    KEYPOINT_RCNN.people = (seen,)
    people = extractors["relative"](photo)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            embedded(extractors[""](photo))
        assert caplog.text == ""
        for _ in range(2):
            embedded(people)
    assert caplog.text.count("was trained on coarse depth, and this is monocular depth") == 1


def test_the_lifter_refuses_the_papers_proxies_and_says_what_to_take(extractors):
    estimator = HumanMeshEstimator.from_default("torch", regressor="resnet18")
    lifter = load_regressor("lifter", body_model=estimator.body_model, backend="torch")
    with pytest.raises(ValueError, match="lifter requires blazepose.*PaperExtractor gives mask.*or the regressor resnet18"):
        HumanMeshEstimator(extractors[""], lifter, estimator.body_model, estimator._body)
