"""The benchmark on rendered people: scores that count everybody, a fair MediaPipe, a whole run on a handful of pictures."""

import json

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

import hmr_ros
from hmr_ros.body.model import BodyModel
from hmr_ros.files import save_checkpoint
from hmr_ros.geometry import to_crop
from hmr_ros.networks.lifter.features import FEATURE_LAYOUT
from hmr_ros.networks.lifter.regressor import LifterRegressor
from hmr_ros.networks.lifter.net import Lifter
from hmr_ros.skeleton import LIMB_NAMES
from hmr_ros.training.benchmarks.rendered import mediapipe_correction, benchmark as rendered_benchmark, methods as rendered_methods
from hmr_ros.training.data.rendered import dataset as rendered
from hmr_ros.training.metrics import auroc, mpjpe
from hmr_ros.training.benchmarks.rendered.methods import METHODS, Methods, Prediction
from hmr_ros.training.benchmarks.rendered.scores import Truth, calibration, projection, reliability, score, shape_errors, yaw_to_viewer


@pytest.fixture(scope="module")
def body():
    return BodyModel.load(None)


@pytest.fixture(scope="module")
def truth(people):
    """Held-out people, the last three of them as if the detectors had missed them."""
    return Truth(with_missed(rendered.load(people / "val"), 3))


def with_missed(data, count):
    """The same rows, the last ``count`` of the found made missed ones (and those already missed left out)."""
    found = {name: rows for name, rows in data.items() if not name.startswith("missed_")}
    kept = {name: rows[:-count] for name, rows in found.items()}
    return kept | {f"missed_{name}": rows[-count:] for name, rows in found.items()}


def perfect(truth):
    """What the truth itself would have predicted of the found."""
    n = truth.count_found
    return Prediction(truth.limbs[:n], truth.seen, truth.betas[:n], np.ones((n, 12), np.float32))


# ---- scores ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_auroc_is_the_share_of_pairs_in_the_right_order(rows):
    scores, positive = np.array([s for s, _ in rows]) / 5, np.array([p for _, p in rows])
    if positive.all() or not positive.any():
        with pytest.raises(ValueError, match="needs both"):
            auroc(scores, positive)
        return
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
    assert auroc(scores, positive) == pytest.approx(np.mean(pairs))


def test_the_missed_count_as_the_mean_pose(truth, body):
    mean = np.random.default_rng(0).normal(0, 0.3, (12, 3)).astype(np.float32)
    figures = score(perfect(truth), mean, truth, body)
    of_missed = mpjpe(np.repeat(mean[None], 3, 0), truth.limbs[-3:])
    assert figures["parts"]["found"]["mpjpe"] == 0 and figures["parts"]["found"]["people"] == truth.count_found
    assert figures["parts"]["all"]["mpjpe"] == pytest.approx(of_missed.sum() / truth.count, rel=1e-5)
    assert sum(truth.missed_by_category().values()) == 3
    # They have no joint in the right place, and the mean shape.
    visible = truth.visible
    expected = 100 * visible[: truth.count_found].sum() / visible.sum()
    assert figures["projection"]["pck_5"] == pytest.approx(expected) and expected < 100
    assert figures["projection"]["mean_error_percent"] == 0
    assert figures["shape_mm"] > 0


def test_every_part_of_a_score_is_over_its_own_people(truth, body):
    figures = score(perfect(truth), np.zeros((12, 3), np.float32), truth, body)
    for kind in ("views", "categories", "yaw"):
        groups = figures[kind] if kind == "yaw" else figures[kind].values()
        assert sum(group["people"] for group in groups) == truth.count
        total = sum(group["people"] * group["mpjpe"] for group in groups if group["people"])
        assert total / truth.count == pytest.approx(figures["parts"]["all"]["mpjpe"])
    by_joint = np.mean([row["mpjpe"] for row in figures["joints"].values()])
    assert by_joint == pytest.approx(figures["parts"]["all"]["mpjpe"], rel=1e-5)


def test_projection_is_measured_in_the_person_s_diagonals(truth):
    box = truth.found["box"]
    pixels = 0.07 * np.hypot(*(box[:, 2:] - box[:, :2]).T)[:, None, None] * np.array([0.6, 0.8])
    seen = to_crop(truth.found["keypoints2d"][:, 5:] + pixels, truth.found["crop"])
    moved = projection(Prediction(perfect(truth).limbs, seen), truth)
    assert moved["mean_error_percent"] == pytest.approx(7, rel=1e-4)
    assert moved["pck_5"] == 0 and moved["pck_10"] > 50


def test_shape_errors_are_those_of_the_posed_body(truth, body):
    """Against vertices of the T-pose that the body model itself makes, put together at the pelvis."""
    prediction = perfect(truth)
    wrong = Prediction(prediction.limbs, prediction.seen, prediction.betas + 0.5)
    with torch.inference_mode():
        t_pose = torch.eye(3).repeat(2, 24, 1, 1)
        betas = torch.from_numpy(np.stack([wrong.betas[0], truth.betas[0]]))
        vertices, joints, _ = body(t_pose, betas)
    off = (vertices[0] - joints[0, 0]) - (vertices[1] - joints[1, 0])
    assert shape_errors(wrong, truth, body)[0] == pytest.approx(1000 * off.norm(dim=-1).mean().item(), rel=1e-3)


def test_yaw_is_zero_for_who_faces_the_viewer():
    """The body's own axes have y up and z forward; the viewer's x right, y down, z forward."""
    facing = Rotation.from_rotvec([np.pi, 0, 0])
    left, back = (Rotation.from_rotvec([0, angle, 0]) * facing for angle in (np.pi / 2, np.pi))
    yaw = yaw_to_viewer(np.stack([r.as_rotvec() for r in (facing, left, back)]))
    assert yaw[0] == pytest.approx(0, abs=1e-4) and abs(yaw[1]) == pytest.approx(90) and abs(yaw[2]) == pytest.approx(180)
    assert np.sign(yaw[1]) == np.sign(left.apply([0, 0, 1])[0])  # positive looks to the image's right


def test_calibration_of_who_knows_exactly_and_of_who_boasts():
    rng = np.random.default_rng(0)
    predicted = rng.random(20000)
    observed = rng.random(20000) < predicted
    assert calibration(predicted, observed)["ece"] < 0.02
    boasting = calibration(np.ones(20000), observed)
    assert boasting["ece"] == pytest.approx(0.5, abs=0.02) and len(boasting["calibration"]) == 1
    assert sum(row["joints"] for row in calibration(predicted, observed)["calibration"]) == 20000


def test_reliability_that_knows_the_errors_is_told_from_one_that_does_not(truth):
    rng = np.random.default_rng(0)
    exact = perfect(truth)
    limbs = exact.limbs + rng.normal(0, 1, exact.limbs.shape) * rng.uniform(0, 0.2, (*exact.limbs.shape[:2], 1))
    error = np.linalg.norm(limbs - exact.limbs, axis=-1)
    knows = reliability(Prediction(limbs, exact.seen, reliability=1 / (1 + error)), truth)["reliability"]
    guesses = reliability(Prediction(limbs, exact.seen, reliability=rng.random(error.shape)), truth)["reliability"]
    assert knows["auroc_worst_3d"] == knows["auroc_worst_3d_mean_over_joints"] == 1
    assert guesses["auroc_worst_3d"] == pytest.approx(0.5, abs=0.2)


# ---- MediaPipe's correction -----------------------------------------------------------------------------------------


def test_the_correction_recovers_a_planted_map_and_turns_with_the_person():
    rng = np.random.default_rng(1)
    world = rng.normal(0, 0.5, (4000, 33, 3))
    planted = mediapipe_correction.RAW + rng.normal(0, 0.1, (12, 33))
    weights = mediapipe_correction.fit_weights(world, planted @ world)
    np.testing.assert_allclose(weights, planted, atol=1e-3)
    turn = Rotation.random(random_state=2).as_matrix()
    np.testing.assert_allclose(weights @ (world[:5] @ turn.T), (weights @ world[:5]) @ turn.T, atol=1e-9)
    # What the data do not say stays as MediaPipe's own joint.
    np.testing.assert_allclose(mediapipe_correction.fit_weights(0 * world, planted @ world), mediapipe_correction.RAW)


def test_the_correction_is_fitted_on_the_training_split_only(people, tmp_path):
    path = tmp_path / "correction.json"
    assert rendered_benchmark.main(["--fit-correction", str(people / "train"), "--correction", str(path)]) == 0
    fitted = mediapipe_correction.load(path)
    assert fitted["weights"].shape == (12, 33) and fitted["provenance"]["folder"] == "train"
    errors = fitted["provenance"]["mpjpe_on_these_people"]
    assert errors["corrected"] < errors["raw"]
    with pytest.raises(ValueError, match="expected 'train'"):
        mediapipe_correction.fit(people / "val")
    path.write_text('{"weights": [[1, 2]], "joints": []}')
    with pytest.raises(ValueError, match="fit it again"):
        mediapipe_correction.load(path)


def test_the_committed_correction_is_one():
    committed = mediapipe_correction.load()
    assert committed["joints"] == list(LIMB_NAMES) and committed["provenance"]["split"] == "train"
    assert committed["provenance"]["people"] > 5000


# ---- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, body):
    """A lifter that knows nothing."""
    torch.manual_seed(0)
    options = {"width": 32, "blocks": 1, "dropout": 0.1, "embedding": True}
    metadata = {"network": "lifter", "options": options, "feature_layout": FEATURE_LAYOUT, "version": hmr_ros.__version__}
    path = tmp_path_factory.mktemp("checkpoint") / "lifter.safetensors"
    save_checkpoint(path, Lifter(**options).state_dict(), metadata | {"body": {"name": body.name, "sha256": body.sha256}})
    return path


def test_a_whole_run_writes_finite_figures_plots_and_sheets(people, checkpoint, tmp_path, capsys):
    path = tmp_path / "figures.json"
    arguments = ["--data", str(people / "val"), "--checkpoint", str(checkpoint), "--json", str(path), "--out", str(tmp_path)]
    assert rendered_benchmark.main(arguments) == 0
    result = json.loads(path.read_text(), parse_constant=lambda text: pytest.fail(f"{text} in the JSON"))
    assert set(result["methods"]) == set(METHODS)
    manifest = json.loads((people / "val" / "manifest.json").read_text())
    assert (result["data"]["people"], result["data"]["found"]) == (manifest["people"], manifest["detected"])
    for name, figures in result["methods"].items():
        assert figures["parts"]["all"]["people"] == manifest["people"]
        assert 0 < figures["parts"]["all"]["pa_mpjpe"] <= figures["parts"]["all"]["mpjpe"] < 1500, name
        assert (figures["shape_mm"] is None) == name.startswith("mediapipe")
        assert 0 <= figures["projection"]["pck_5"] <= figures["projection"]["pck_10"] <= 100
    # Each does something of its own. Of a lifter that knows nothing 3 and 30 steps of refinement differ by 0.01 mm, in MPJPE by less than float32 holds.
    different = {json.dumps([figures["parts"], figures["projection"]]) for figures in result["methods"].values()}
    assert len(different) == len(METHODS)
    assert set(result["reliability"]) >= {"reliability", "detector_confidence", "right_share"}
    # A lifter that knows nothing is further off than what it is fed with.
    assert result["methods"]["mediapipe"]["parts"]["found"]["mpjpe"] < result["methods"]["ours"]["parts"]["found"]["mpjpe"]
    for name in ("yaw.png", "categories.png", "calibration.png", "best.png", "worst.png"):
        assert cv2.imread(str(tmp_path / name)).std() > 10, name
    told = capsys.readouterr().out
    assert "SMPLify-like" in told and f"{manifest['missed']} missed" in told and "our input too" in told


def test_variants_of_ours_see_what_their_names_say(truth, people, body, monkeypatch):
    seen = []

    class Recording(LifterRegressor):
        def __call__(self, some):
            seen[:] = some
            return super().__call__(some)

    monkeypatch.setattr(rendered_methods, "LifterRegressor", Recording)
    activations = rendered.load_activations(people / "val")
    methods = Methods(truth.found, activations, Lifter(width=16, blocks=1), body, mediapipe_correction.RAW)
    plain = methods("ours")
    assert all(person.mirrored is None for person in seen)
    np.testing.assert_array_equal(seen[1].depth, truth.found["depth"][1])
    np.testing.assert_array_equal(seen[1].blazepose.feature_map, activations[1, 0])
    methods("ours_flip")
    np.testing.assert_array_equal(seen[1].mirrored.blazepose.feature_map, activations[1, 1])
    np.testing.assert_array_equal(seen[1].mirrored.blazepose.world, truth.found["mirrored_world"][1])
    methods("ours_depth_camera")
    np.testing.assert_array_equal(seen[1].depth, truth.found["sensor_depth"][1])
    # Refinement brings the joints nearer to the detected ones, the longer the nearer.
    sure = methods.confidence[:, 5:] > 0
    predictions = (methods("ours_unrefined"), plain, methods("ours_30_steps"))
    off = [np.linalg.norm(some.seen - methods.targets[:, 5:], axis=-1)[sure].mean() for some in predictions]
    assert off[2] < off[1] < off[0]


def test_methods_can_be_chosen_and_sheets_need_ours(people, checkpoint, tmp_path, capsys):
    arguments = ["--data", str(people / "val"), "--checkpoint", str(checkpoint), "--out", str(tmp_path)]
    assert rendered_benchmark.main([*arguments, "--methods", "mean_pose", "mediapipe"]) == 0
    assert not (tmp_path / "best.png").exists() and "no sheets" in capsys.readouterr().out


def test_wrong_use_is_refused_in_words(people, checkpoint, tmp_path):
    with pytest.raises(ValueError, match="--data"):
        rendered_benchmark.main([])
    with pytest.raises(ValueError, match="--correction"):
        rendered_benchmark.main(["--fit-correction", str(people / "train")])
    with pytest.raises(FileNotFoundError, match="hmr-ros data rendered"):
        rendered_benchmark.main(["--data", str(tmp_path), "--checkpoint", str(checkpoint)])


def test_pictures_with_other_people_than_the_data_are_not_shown(people, checkpoint, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for path in (people / "val").glob("*-*.np[yz]"):
        (data / path.name).write_bytes(path.read_bytes())
    config = json.loads((people / "val" / "config.json").read_text())
    (data / "config.json").write_text(json.dumps(config | {"seed": config["seed"] + 1}))
    arguments = ["--data", str(data), "--checkpoint", str(checkpoint), "--out", str(tmp_path), "--methods", "ours"]
    with pytest.raises(ValueError, match="cannot be made again"):
        rendered_benchmark.main(arguments)
    (data / "config.json").write_text(json.dumps(config | {"backgrounds": 3}))
    with pytest.raises(ValueError, match="not the photos"):
        rendered_benchmark.main([*arguments, "--backgrounds", str(tmp_path)])
