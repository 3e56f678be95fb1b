"""hmr-ros adapt: what a recording tells of its camera, what is learned from it, and what the report says."""

import hashlib
import json
import shutil
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from rich.console import Console
from scipy.spatial.transform import Rotation

from hmr_ros.body.model import BodyModel
from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.camera import Camera, ray_axes
from hmr_ros.estimator import HumanMeshEstimator
from hmr_ros.files import load_checkpoint
from hmr_ros.geometry import matrix_from_rotvec, pinhole, square_crop
from hmr_ros.io.sources import open_moving
from hmr_ros.networks.checkpoints import EMBEDDED, EMBEDDED_CHECKPOINT, load_lifter
from hmr_ros.training.adaptation import adapt as adaptation
from hmr_ros.training.adaptation import mounting, reliability, scores, teacher
from hmr_ros.training.adaptation.finetune import as_before, blend, branch_outputs
from hmr_ros.training.adaptation.recordings import People, split
from hmr_ros.training.data.mapped import Rows
from hmr_ros.training.data.rendered.scene import SceneMaker
from hmr_ros.training.data.rendered.viewpoint import Viewpoint, ViewpointMaker, level
from hmr_ros.training.lifter.samples import DEPTHS, FLIPS, load_feature_maps, load_people, make_samples
from hmr_ros.training.lifter.tasks import evaluate, joint_errors

SIZE, CAMERA = (480, 640), Camera(pinhole(640, 480, 75.0))


@pytest.fixture(scope="module")
def maker():
    return SceneMaker("train")


def tilted(down: float, roll: float) -> np.ndarray:
    """Level camera axes → axes of one that looks ``down`` and is rolled, radians; independent of viewpoint.level."""
    return (Rotation.from_euler("z", roll) * Rotation.from_euler("x", down)).as_matrix()


# ---- the camera -------------------------------------------------------------------------------------------------------


@given(down=st.floats(-1.5, 1.5), roll=st.floats(-1.0, 1.0))
@settings(deadline=None, max_examples=50)
def test_level_axes_follow_from_the_vertical_alone(down, roll):
    turn = tilted(down, roll)
    found = level(turn @ [0.0, -1.0, 0.0])
    assert np.allclose(found, turn, atol=1e-6)  # the same up to a turn about the vertical, and that is none


def test_a_camera_that_looks_straight_down_has_level_axes_all_the_same():
    turn = level(np.array([0.0, 0.0, -1.0]))
    assert np.allclose(turn.T @ turn, np.eye(3)) and np.isclose(np.linalg.det(turn), 1) and np.allclose(turn @ [0, -1, 0], [0, 0, -1])


def test_the_vertical_is_where_most_bodies_stand():
    rng = np.random.default_rng(0)
    up = tilted(0.6, 0.1) @ [0, -1, 0]
    axes = np.concatenate([up + rng.normal(0, 0.08, (70, 3)), rng.normal(0, 1, (30, 3))])  # 30 lie, or are wrong
    assert np.degrees(np.arccos(mounting.vertical(axes) @ up)) < 3


def standing(maker: SceneMaker, down: float, roll: float, height: float, count: int = 40) -> tuple[People, teacher.Labels]:
    """People on a floor, with their true bodies as labels; one track of one recording."""
    rng, turn, placed = np.random.default_rng(1), tilted(down, roll), []
    while len(placed) < count:
        sampled, betas = maker.poses.sample(rng), np.clip(rng.normal(0, 1, 10), -2, 2)
        person = maker.stand(sampled.rotvec, betas, turn, height, (rng.uniform(-0.5, 0.5), rng.uniform(1.5, 3)), CAMERA.intrinsics, SIZE)
        placed += [person] if person.vertices[:, 2].min() > 0.3 else []
    truths = [person.truth for person in placed]
    crops = np.stack([square_crop(truth.box) for truth in truths]).astype(np.float32)
    axes = ray_axes(CAMERA, crops[:, :2])
    rotations = np.stack([matrix_from_rotvec(truth.pose) for truth in truths]).astype(np.float32)
    rotations[:, 0] = axes @ rotations[:, 0]
    # A body turns about its pelvis' rest place: in other axes its origin lies elsewhere, the pelvis does not.
    pelvis = np.stack([truth.joints[0] + truth.translation for truth in truths])
    betas = np.stack([truth.betas for truth in truths])
    rest = PosedKeypoints(maker.body).pelvis(torch.from_numpy(betas)).numpy()
    place = np.einsum("nij,nj->ni", axes, pelvis) - rest
    stamp = np.arange(count) / 10
    keypoints = np.stack([truth.keypoints for truth in truths])
    rows = {"crop": crops, "stamp": stamp, "image_size": np.tile(SIZE, (count, 1)), "index": np.arange(count), "seen": np.arange(count),
            "keypoints": np.concatenate([keypoints, np.ones((count, 17, 1))], axis=2)}  # fmt: skip
    people = People(rows, Rows([np.empty((0, 1))]), np.zeros(count, int), np.zeros(count, int), (CAMERA,))
    return people, teacher.Labels(rotations, betas, place.astype(np.float32), keypoints, np.ones(count, bool), {})


@pytest.mark.parametrize("down, roll, height", [(0.85, 0.05, 2.8), (-0.35, 0.0, 0.25), (0.1, -0.2, 1.2)])
def test_true_bodies_tell_how_the_camera_is_mounted_and_where_people_stand(maker, down, roll, height):
    people, labels = standing(maker, down, roll, height)
    plate = np.random.default_rng(2).integers(0, 255, (*SIZE, 3)).astype(np.uint8)
    noisy = [np.clip(plate * gain + np.random.default_rng(i).normal(0, 5, plate.shape), 0, 255).astype(np.uint8) for i, gain in enumerate([1, 0.8, 0.9, 1, 0.95])]
    view = mounting.estimate(people, labels, PosedKeypoints(maker.body), noisy)
    turn = tilted(down, roll)
    assert np.degrees(np.arccos(view.up @ turn @ [0, -1, 0])) < 4  # everyday poses: some sit, some bend down
    assert view.height == pytest.approx(height, abs=0.15) and np.degrees(abs(view.looking_down - down)) < 4
    true = np.stack([person for person in view.places])
    assert len(true) == len(people) and 1.2 < np.median(true[:, 1]) < 3.2 and abs(np.median(true[:, 0])) < 0.5
    assert len(view.plates) == 1 and 3 < view.noise < 9 and np.median(np.abs(view.plates[0].astype(int) - plate)) < 25
    upright = Rotation.from_rotvec(view.poses[:, 0]).apply([0.0, 1.0, 0.0])
    assert np.median(upright[:, 1]) > 0.9  # row 0 stands in the upright world


def test_the_vertical_is_that_of_the_picture_where_all_bodies_lean(maker):
    people, labels = standing(maker, -0.35, 0.0, 0.25, count=120)
    lean = Rotation.from_rotvec([np.radians(8), 0, 0]).as_matrix().astype(np.float32)  # as a lifter does that has seen level cameras only
    labels.rotations[:, 0] = lean @ labels.rotations[:, 0]
    people.rows["keypoints"][..., :2] += np.random.default_rng(5).normal(0, 2, (len(people), 17, 2))
    view = mounting.estimate(people, labels, PosedKeypoints(maker.body), [])
    assert view.height == pytest.approx(0.25, abs=0.1) and abs(np.degrees(view.looking_down + 0.35)) < 2
    upright = Rotation.from_rotvec(view.poses[:, 0]).apply([0.0, 1.0, 0.0])
    assert np.degrees(np.arccos(np.median(upright[:, 1]))) < 8  # they stand upright before the camera that people are rendered for
    people.rows["keypoints"][..., 2] = 0.1  # without sure ankles the bodies are all there is
    assert abs(np.degrees(mounting.estimate(people, labels, PosedKeypoints(maker.body), []).looking_down + 0.35)) > 4


@pytest.mark.parametrize("down, roll, height", [(0.85, 0.05, 2.8), (-0.35, 0.0, 0.25), (0.1, -0.2, 1.2)])
def test_upright_poles_on_a_floor_tell_the_camera_exactly(down, roll, height):
    rng, turn = np.random.default_rng(0), tilted(down, roll)
    place, lengths = np.column_stack([rng.uniform(-1, 1, 60), rng.uniform(2, 4, 60)]), rng.uniform(1.2, 1.5, 60)
    ends = [np.column_stack([place[:, 0], height - above, place[:, 1]]) @ turn.T for above in (np.full(60, mounting.ANKLE), mounting.ANKLE + lengths)]
    feet, shoulders = (points[:, :2] / points[:, 2:] for points in ends)
    up, found = mounting.poles(feet, shoulders, lengths, tilted(down + 0.1, roll - 0.1) @ [0, -1, 0], 1.5 * height)
    assert np.allclose(up, turn @ [0, -1, 0], atol=1e-4) and found == pytest.approx(height, rel=1e-3)


def test_a_camera_that_moves_has_no_background(maker):
    people, labels = standing(maker, 0.1, 0.0, 1.2, count=8)
    rng = np.random.default_rng(3)
    frames = [cv2.resize(rng.integers(0, 255, (12, 16, 3)).astype(np.uint8), SIZE[::-1]) for _ in range(6)]
    assert mounting.estimate(people, labels, PosedKeypoints(maker.body), frames).plates.shape == (0, *SIZE, 3)


def test_no_sure_body_is_refused_in_words(maker):
    people, labels = standing(maker, 0.1, 0.0, 1.2, count=8)
    labels = labels._replace(kept=np.zeros(8, bool), left_out={"detectors disagree": 8})
    with pytest.raises(ValueError, match="no body of 8 detections is sure enough.*detectors disagree.*record people nearer"):
        mounting.estimate(people, labels, PosedKeypoints(maker.body), [])


def a_viewpoint(maker: SceneMaker, down=0.5, height=2.0) -> Viewpoint:
    rng = np.random.default_rng(4)
    poses = np.stack([maker.poses.sample(rng).rotvec for _ in range(5)])
    places = rng.uniform((-0.5, 2), (0.5, 3), (20, 2)).astype(np.float32)
    plate = np.full((1, *SIZE, 3), 90, np.uint8)
    return Viewpoint(CAMERA.intrinsics, SIZE, tilted(down, 0.0) @ [0, -1, 0], height, places, poses, plate, 4.0)


def test_people_are_rendered_on_the_floor_before_the_camera(maker, tmp_path):
    view = a_viewpoint(maker)
    view.save(tmp_path / "view.npz")
    loaded = Viewpoint.load(tmp_path / "view.npz")
    scenes = [ViewpointMaker(loaded, maker).make(np.random.default_rng(seed)) for seed in range(6)]
    assert np.array_equal(scenes[0].image, ViewpointMaker(view, maker).make(np.random.default_rng(0)).image)  # the generator alone decides
    shown = [person for scene in scenes for person in scene.people]
    assert len(shown) >= 5
    for person in shown:
        vertices, _, keypoints = maker.forward(person.pose, person.betas)
        lowest = ((vertices + person.translation) @ view.up).min()
        assert lowest == pytest.approx(-view.height, abs=1e-3)  # metres below the camera
        seen = (keypoints + person.translation) @ np.array([[CAMERA.intrinsics.fx, 0, 0], [0, CAMERA.intrinsics.fy, 0], [CAMERA.intrinsics.cx, CAMERA.intrinsics.cy, 1]])
        assert np.allclose(seen[:, :2] / seen[:, 2:], person.keypoints, atol=0.1)
        assert 1.0 < (person.translation @ view.turn)[2] < 4.2  # near where somebody stood


# ---- the held-out part ------------------------------------------------------------------------------------------------


@given(counts=st.lists(st.integers(20, 60), min_size=1, max_size=3), share=st.floats(0.2, 0.5), gap=st.floats(0, 0.5))
@settings(deadline=None, max_examples=30)
def test_parts_share_no_time_and_leave_a_gap(counts, share, gap):
    stamp = np.concatenate([np.arange(count) / 10 for count in counts])
    recording = np.repeat(np.arange(len(counts)), counts)
    people = People({"stamp": stamp}, Rows([np.empty((0, 1))]), np.arange(len(stamp)), recording, (CAMERA,) * len(counts))
    first, last = split(people, share, gap)
    for number in range(len(counts)):
        before, after = (part.stamp[part.recording == number] for part in (first, last))
        assert len(before) and len(after) and after.min() - before.max() >= gap - 1e-9


def test_a_short_recording_is_refused_in_words():
    people = People({"stamp": np.arange(5) / 10}, Rows([np.empty((0, 1))]), np.zeros(5, int), np.zeros(5, int), (CAMERA,))
    with pytest.raises(ValueError, match="0 detections to adapt to and 2 held out, of 0.4 s.*record longer, or lower --gap"):
        split(people, 0.3, 2.0)


def test_a_change_is_better_only_beyond_chance():
    rng = np.random.default_rng(5)
    before, tracks = rng.uniform(50, 150, 400), np.repeat(np.arange(20), 20)
    assert scores.compare(before, 0.9 * before + rng.normal(0, 5, 400), tracks).verdict == "better"
    assert scores.compare(before, before + rng.normal(0, 20, 400), tracks).verdict == "no difference"
    worse = scores.compare(before, 1.1 * before, tracks)
    assert worse.verdict == "worse" and worse.change == pytest.approx(0.1) and worse.groups == 20
    # One track that got far better among many that stayed: no interval without 0.
    lucky = np.where(tracks == 0, 0.1, 1.0) * before
    assert scores.compare(before, lucky, tracks).verdict == "no difference"
    assert scores.compare(np.full(3, np.nan), np.ones(3), np.arange(3)) is None


def change(verdict: str) -> scores.Change:
    low, high = {"better": (-0.1, -0.05), "worse": (0.02, 0.1), "no difference": (-0.02, 0.02)}[verdict]
    return scores.Change(1, 1, (low + high) / 2, low, high, 10)


@pytest.mark.parametrize("recording, camera, others, expected", [
    ("better", "better", "no difference", "keep"), ("no difference", "better", "no difference", "keep"),
    ("better", "better", "worse", "worse"), ("worse", "better", "no difference", "worse"),
    ("no difference", "no difference", "better", "no difference"),
])  # fmt: skip
def test_a_verdict_needs_a_gain_and_allows_no_loss(recording, camera, others, expected):
    result, why = scores.verdict({"fit": change(recording)}, {"mpjpe": change(camera)}, {"mpjpe": change(others)})
    assert result == expected and why


def test_no_more_is_kept_of_what_was_learned_than_other_cameras_allow(people, one_thread):
    skeleton, before = PosedKeypoints(BodyModel.load(None)), load_lifter(str(EMBEDDED_CHECKPOINT))[0]
    others = make_samples(load_people((people / "val",)), load_feature_maps((people / "val",)), skeleton)
    lifter = load_lifter(str(EMBEDDED_CHECKPOINT))[0]
    pose = lambda some: {name: value for name, value in evaluate(some, others, skeleton).items() if name != "betas_rms"}
    assert blend(lifter, before, pose, 0.01) == 1.0  # nothing was learned, nothing is lost
    for member in lifter.members:
        torch.nn.init.zeros_(member.head.weight), torch.nn.init.zeros_(member.head.bias)
    share = blend(lifter, before, pose, 0.01)
    start, end = (evaluate(some, others, skeleton) for some in (before, lifter))
    assert share < 0.5 and all(end[name] <= 1.0101 * start[name] for name in ("mpjpe", "pa_mpjpe"))


def test_replayed_people_ask_for_nothing_new_of_the_lifter_that_spoke_of_them(people, one_thread):
    skeleton, lifter = PosedKeypoints(BodyModel.load(None)), load_lifter(str(EMBEDDED_CHECKPOINT))[0]
    others = make_samples(load_people((people / "val",)), load_feature_maps((people / "val",)), skeleton, FLIPS, DEPTHS)
    assert evaluate(lifter, others, skeleton)["mpjpe"] > 30
    assert evaluate(lifter, as_before(lifter, others), skeleton)["mpjpe"] < 0.01
    outputs = branch_outputs(lifter, others)
    assert [len(some) for some in outputs] == [len(others)] * len(lifter.members)
    row = len(others) // 2 + 1  # a mirrored view
    with torch.no_grad():
        expected = lifter.eval().members[0].branch(others[[row]].feature_map)
    assert torch.allclose(outputs[0][row].float(), expected[0], atol=2e-2)


# ---- the reliability --------------------------------------------------------------------------------------------------


def test_slope_and_offset_are_those_that_joints_were_drawn_with():
    rng = np.random.default_rng(6)
    logits = rng.normal(1, 2, (2000, 12))
    right = rng.random(logits.shape) < 1 / (1 + np.exp(-(0.5 * logits - 1)))
    rated = reliability.Rated(torch.from_numpy(logits), torch.from_numpy(np.where(right, 0.05, 0.2)))
    assert reliability.platt(rated) == pytest.approx((0.5, -1), abs=0.05)
    certain = reliability.platt(rated._replace(errors=torch.zeros(2000, 12)))  # a joint is never wrong
    assert np.isfinite(certain).all()


def gap(lifter, samples, skeleton) -> float:
    """Mean difference between the lifter's reliability and the share of joints within 100 mm, over quarters of the joints; independent of scores.calibration."""
    with torch.no_grad():
        said = lifter.eval()(samples.features, samples.feature_map).reliability.numpy().ravel()
    right = joint_errors(lifter, samples, skeleton).numpy().ravel() < 0.1
    return float(np.mean([abs(said[part].mean() - right[part].mean()) for part in np.array_split(np.argsort(said), 4)]))


@pytest.fixture(scope="module")
def seen(people):
    """Rendered people to calibrate on, and others."""
    skeleton = PosedKeypoints(BodyModel.load(None))
    return skeleton, *(make_samples(load_people((people / part,)), load_feature_maps((people / part,)), skeleton) for part in ("train", "val"))


def test_a_reliability_that_is_too_sure_is_calibrated(seen, one_thread):
    skeleton, known, others = seen
    before, lifter = (load_lifter(str(EMBEDDED_CHECKPOINT))[0] for _ in range(2))
    with torch.no_grad():  # surer of everything, and more so of what it is sure of
        lifter.reliability[-1].weight.mul_(3), lifter.reliability[-1].bias.mul_(3).add_(2)
    start = gap(lifter, others, skeleton)
    found = reliability.calibrate(lifter, before, {"viewpoint": known}, {"viewpoint": others, "replay": others}, skeleton, 0.01)
    assert found["kept"] == "calibrated" and start > 0.15 and gap(lifter, others, skeleton) < 0.5 * start
    scores = found["scores"]["viewpoint"]
    assert scores["after"]["ece"] < 0.6 * scores["as_it_was"]["ece"] and scores["after"]["auroc"] == pytest.approx(scores["as_it_was"]["auroc"], abs=1e-3)
    assert scores["before"]["auroc"] == pytest.approx(scores["after"]["auroc"], abs=1e-3)  # the same network, bent
    assert reliability.rate(lifter, others, skeleton).scores() == pytest.approx(scores["after"], abs=1e-4)  # the lifter says what is reported
    assert all(torch.equal(one, other) for one, other in zip(lifter.members.parameters(), before.members.parameters()))


def test_a_calibration_that_does_not_help_others_is_not_kept(seen, one_thread):
    skeleton, known, others = seen
    wrong = replace(known, rotations=known.rotations.roll(1, 0))  # as if the lifter were wrong about everybody
    before, lifter = (load_lifter(str(EMBEDDED_CHECKPOINT))[0] for _ in range(2))
    found = reliability.calibrate(lifter, before, {"viewpoint": wrong}, {"viewpoint": others, "replay": others}, skeleton, 0.01)
    assert found["kept"] == "as it was" and found["slope"] != 1 and found["scores"]["viewpoint"]["after"] == found["scores"]["viewpoint"]["before"]
    assert all(torch.equal(one, other) for one, other in zip(lifter.state_dict().values(), before.state_dict().values()))


# ---- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def adapted(people, tmp_path_factory):
    """One small run on a clip of one moving person."""
    root = tmp_path_factory.mktemp("adapted")
    (root / "pictures").mkdir()
    for frame in open_moving(Path(str(files("hmr_ros") / "assets" / "bench" / "one.mp4"))).frames():
        if frame.index >= 90:
            break
        if frame.index % 3 == 0:
            cv2.imwrite(str(root / "pictures" / f"{frame.index:04d}.png"), frame.picture)
    config = adaptation.AdaptConfig(
        (root / "pictures",), root / "out", rate=10.0, gap=0.3, pictures=20, replay_data=(people / "train",), steps=6, shares=(0.4, 0.3, 0.3), workers=1,
        fov=60.0,
    )  # fmt: skip
    return config, adaptation.adapt(config, Console(quiet=True))


def test_a_recording_becomes_a_checkpoint_and_a_report(adapted, one_thread):
    config, result = adapted
    assert set(result["changes"]) == {"recording", "viewpoint", "replay"} and {"reprojection", "fit", "jitter"} <= set(result["changes"]["recording"])
    figures = [value for some in result["changes"].values() for change in some.values() for name, value in change.items() if name != "verdict"]
    assert np.isfinite(figures).all() and result["verdict"]["result"] in ("keep", "no difference", "worse")
    assert result["tracks"] == {"learned": 1, "held_out": 1} and result["detections"]["sure"] > 5
    page = (config.out / "report.html").read_text()
    assert result["verdict"]["why"] in page and page.count("<img") >= 2 and "http" not in page  # one file that asks nobody for anything
    metadata = load_checkpoint(config.out / "lifter.safetensors")[1]
    rated = result["reliability"]["scores"]
    assert rated.keys() == {"viewpoint", "replay"} and "calibration error (ECE)" in page and result["reliability"]["kept"] in ("calibrated", "as it was")
    assert metadata["scores"]["viewpoint_reliability_ece"] == rated["viewpoint"]["after"]["ece"]
    embedded = hashlib.sha256(EMBEDDED_CHECKPOINT.read_bytes()).hexdigest()
    assert metadata["training"]["adapted_from"]["sha256"] == embedded == result["checkpoint"]["sha256"]
    estimator = HumanMeshEstimator.from_default("torch", checkpoint=config.out / "lifter.safetensors")
    image = cv2.imread(str(next((config.recordings[0]).glob("*.png"))))
    (body,) = estimator(image)
    (same,) = HumanMeshEstimator.from_default("torch")(image)
    assert 0 < np.abs(body.joints - same.joints).max() < 0.3


def test_a_finished_run_is_not_made_again_and_never_written_over(adapted):
    config, result = adapted
    before = (config.out / "lifter.safetensors").stat().st_mtime_ns
    assert adaptation.adapt(config, Console(quiet=True)) == json.loads((config.out / "report.json").read_text())
    assert (config.out / "lifter.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="run with other settings .lr.*name another --out"):
        adaptation.adapt(replace(config, lr=1e-5), Console(quiet=True))


def test_the_papers_regressor_is_adapted_by_the_same_steps(adapted, tmp_path, one_thread):
    config, lifted = adapted
    for name in ("recording-0", "rendered-0"):  # no regressor is needed for these
        shutil.copytree(config.out / name, tmp_path / "out" / name)
    shutil.copy(config.out / "viewpoint-0.npz", tmp_path / "out")
    result = adaptation.adapt(replace(config, out=tmp_path / "out", regressor="resnet18"), Console(quiet=True))
    assert result["detections"]["learned"] == lifted["detections"]["learned"] and result["changes"].keys() == lifted["changes"].keys()
    assert result["reliability"] is None and 0 < result["changes"]["replay"]["mpjpe"]["before"] != lifted["changes"]["replay"]["mpjpe"]["before"]
    embedded, path = EMBEDDED["resnet18"], tmp_path / "out" / result["checkpoint"]["adapted"]
    assert result["checkpoint"]["sha256"] == hashlib.sha256(embedded.read_bytes()).hexdigest()
    image = cv2.imread(str(next(config.recordings[0].glob("*.png"))))
    (body,), (same,) = (HumanMeshEstimator.from_default("torch", checkpoint=checkpoint)(image) for checkpoint in (path, embedded))
    assert 0 < np.abs(body.joints - same.joints).max() < 0.5
    with pytest.raises(ValueError, match="--regressor is lifter, but .*holds a resnet18; leave --regressor out"):
        adaptation.adapt(replace(config, out=tmp_path / "other", regressor="lifter", checkpoint=path), Console(quiet=True))


@pytest.mark.parametrize("option, words", [
    ({"recordings": ()}, "no recordings"), ({"pictures": 3}, "--pictures is 3, expected at least 20"), ({"held_out": 1.5}, "--held-out is 1.5"),
    ({"fov": 300.0}, "--fov is 300"), ({"shares": (0, 0, 0)}, "--shares"),
])  # fmt: skip
def test_settings_that_make_no_sense_are_refused(adapted, tmp_path, option, words):
    with pytest.raises(ValueError, match=words):
        adaptation.adapt(replace(adapted[0], out=tmp_path / "out", **option), Console(quiet=True))
    assert not (tmp_path / "out").exists()


def test_a_bag_tells_its_camera_and_a_video_is_asked_for_it(tmp_path):
    pytest.importorskip("rosbags")
    import bag_files as bags

    lens = (0.1, -0.05, 0.001, 0.0, 0.0)
    with bags.Writer(tmp_path / "bag", version=9, storage_plugin=bags.StoragePlugin.MCAP) as writer:
        images = writer.add_connection("/eye/image", bags.IMAGE, typestore=bags.STORE)
        infos = writer.add_connection("/eye/camera_info", bags.INFO, typestore=bags.STORE)
        region = bags.STORE.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
        matrix = np.array([500.0, 0, 320, 0, 510, 240, 0, 0, 1])
        info = bags.STORE.types[bags.INFO](bags.header(bags.STORE, bags.START), 480, 640, "plumb_bob", np.array(lens), matrix, np.eye(3).ravel(),
                                           np.zeros(12), 0, 0, region)  # fmt: skip
        writer.write(images, bags.START, bytes(bags.STORE.serialize_cdr(bags.image(0, bags.START, (480, 640)), bags.IMAGE)))
        writer.write(infos, bags.START, bytes(bags.STORE.serialize_cdr(info, bags.INFO)))
    folder = tmp_path / "out" / "recording-0"
    folder.mkdir(parents=True)
    config = adaptation.AdaptConfig((tmp_path / "bag",), tmp_path / "out", fov=90.0)
    for kind, expected in (("bag", Camera((500.0, 510.0, 320.0, 240.0), "plumb_bob", lens)), ("video", 90.0)):
        (folder / "manifest.json").write_text(json.dumps({"kind": kind}))
        camera = adaptation._camera(config, 0, Console(quiet=True))
        assert camera == expected
    with open(tmp_path / "log", "w") as log:
        assert adaptation._camera(replace(config, fov=None), 0, Console(file=log, width=400)) == 60
    assert "no CameraInfo: a horizontal field of view of 60 degrees is assumed" in (tmp_path / "log").read_text()
