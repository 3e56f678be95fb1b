"""3DPW and Human3.6M: the figures against independent references, and whole runs on a few rendered pictures."""

import contextlib
import functools
import io
import json
import pickle
import types

import cdflib.cdfwrite
import cv2
import joblib
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from hmr_ros import cli
from hmr_ros.camera import Camera
from hmr_ros.body.model import EMBEDDED_BODY, BodyModel
from hmr_ros.estimate import BodyEstimate
from hmr_ros.geometry import matrix_from_rotvec
from hmr_ros.skeleton import SMPL_JOINTS
from hmr_ros.body.smpl_file import read_smpl_file
from hmr_ros.training.benchmarks.published import benchmark as pose_benchmarks
from hmr_ros.training.data.rendered.poses import SPLITS
from hmr_ros.training.data.readers import human36m
from hmr_ros.training.data.readers.records import Frame, Record
from hmr_ros.training.data.rendered.scene import SceneConfig, SceneMaker
from hmr_ros.training.benchmarks.published.matching import match
from hmr_ros.training.benchmarks.published.protocols import PROTOCOLS, counts, errors, ground_truth, regress_joints
from hmr_ros.training.benchmarks.published.smpl_models import find_models, load_regressor

VERTICES = 6890
# Human3.6M's 17 joints as SMPL's joints that lie near them.
H36M_AS_SMPL = (
    "pelvis", "left_hip", "left_knee", "left_ankle", "right_hip", "right_knee", "right_ankle", "spine2", "neck", "head",
    "head", "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist",
)  # fmt: skip


@pytest.fixture(scope="module")
def smpl(tmp_path_factory):
    """A folder of what the user brings: three models of SMPL's size (the embedded body, some vertices twice) and more."""
    folder = tmp_path_factory.mktemp("smpl")
    arrays = read_smpl_file(EMBEDDED_BODY)
    count = len(arrays["v_template"])
    source = np.r_[np.arange(count), np.arange(VERTICES - count)]
    once = np.arange(VERTICES) < count
    model = {
        "v_template": arrays["v_template"][source], "shapedirs": arrays["shapedirs"][source],
        "weights": arrays["weights"][source],
        "J_regressor": arrays["J_regressor"][:, source] * once, "f": arrays["f"], "kintree_table": arrays["kintree_table"],
    }  # fmt: skip
    for gender, size in (("NEUTRAL", 1.0), ("MALE", 1.1), ("FEMALE", 0.9)):
        np.savez(folder / f"SMPL_{gender}.npz", **model | {"v_template": size * model["v_template"]})
    np.save(folder / "J_regressor_coco.npy", arrays["keypoint_regressor"][:, source] * once)
    rows = [SMPL_JOINTS.index(name) for name in H36M_AS_SMPL]
    regressor = model["J_regressor"][rows]
    regressor[10, 0] += 0.01  # so that the head's top is a joint of its own
    np.save(folder / "J_regressor_h36m.npy", regressor)
    return folder


@pytest.fixture(scope="module")
def bodies(smpl):
    return {gender: BodyModel.load(path) for gender, path in find_models(smpl, ("neutral", "male", "female")).items()}


@pytest.fixture(scope="module")
def regressor(smpl, bodies):
    return load_regressor(smpl / "J_regressor_h36m.npy", bodies["neutral"])


# ---- what the figures mean ------------------------------------------------------------------------------------------


def reference_errors(predicted, truth17, pelvis_joint):
    """One person after the other, joint by joint: MPJPE, and PA-MPJPE by Horn's quaternions (an eigenvector, no SVD)."""
    order = [6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10]
    plain, aligned = [], []
    for p17, t17 in zip(predicted.astype(float), truth17.astype(float)):
        p, t = p17[order], t17[order]
        p_root, t_root = (p17[0], t17[0]) if pelvis_joint else ((p[2] + p[3]) / 2, (t[2] + t[3]) / 2)
        plain.append(np.mean([np.sqrt(sum(((a - p_root) - (b - t_root)) ** 2)) for a, b in zip(p, t)]))
        a, b = p - p.mean(0), t - t.mean(0)
        s = sum(np.outer(x, y) for x, y in zip(a, b))
        n = np.array([
            [s[0, 0] + s[1, 1] + s[2, 2], s[1, 2] - s[2, 1], s[2, 0] - s[0, 2], s[0, 1] - s[1, 0]],
            [s[1, 2] - s[2, 1], s[0, 0] - s[1, 1] - s[2, 2], s[0, 1] + s[1, 0], s[2, 0] + s[0, 2]],
            [s[2, 0] - s[0, 2], s[0, 1] + s[1, 0], s[1, 1] - s[0, 0] - s[2, 2], s[1, 2] + s[2, 1]],
            [s[0, 1] - s[1, 0], s[2, 0] + s[0, 2], s[1, 2] + s[2, 1], s[2, 2] - s[0, 0] - s[1, 1]],
        ])  # fmt: skip
        w, x, y, z = np.linalg.eigh(n)[1][:, -1]
        turned = Rotation.from_quat([x, y, z, w]).apply(a)
        scale = (turned * b).sum() / (a * a).sum()
        aligned.append(np.mean([np.linalg.norm(q) for q in scale * turned - b]))
    return 1000 * np.array(plain), 1000 * np.array(aligned)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_errors_agree_with_an_independent_reference(name):
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 0.4, (20, 17, 3))
    predicted = truth + rng.normal(0, 0.1, truth.shape)
    predicted[::2] = predicted[::2] @ Rotation.random(random_state=1).as_matrix() * 1.3 + [0.1, -3, 5]
    predicted[5] = -truth[5]  # a mirror image must not be aligned as one
    protocol = PROTOCOLS[name]
    roots = truth[:, 0] if protocol.pelvis_joint else (truth[:, 1] + truth[:, 4]) / 2
    joints = truth[:, [6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10]]
    found = errors(predicted, joints, roots, protocol)
    expected = reference_errors(predicted, truth, name != "vibe")
    for ours, theirs in zip(found, expected):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert found[1][5] > 100


def test_the_protocols_put_different_points_at_the_origin():
    """By hand: only the pelvis is off, by 14 cm, or only one hip."""
    truth = np.random.default_rng(2).normal(0, 0.3, (1, 17, 3))
    joints = truth[:, [6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10]]
    pelvis, hips = truth[:, 0], (truth[:, 1] + truth[:, 4]) / 2
    moved = truth.copy()
    moved[0, 0, 0] += 0.14
    assert errors(moved, joints, pelvis, PROTOCOLS["spin"])[0] == pytest.approx(140)
    assert errors(moved, joints, hips, PROTOCOLS["vibe"])[0] == pytest.approx(0, abs=1e-9)
    moved = truth.copy()
    moved[0, 1, 1] += 0.14  # the left hip: the origin moves by half of it, 13 joints are 70 mm off and the hip too
    assert errors(moved, joints, hips, PROTOCOLS["vibe"])[0] == pytest.approx(70)
    assert errors(moved, joints, pelvis, PROTOCOLS["spin"])[0] == pytest.approx(10)
    assert errors(2 * truth + 7, joints, pelvis, PROTOCOLS["spin"])[1] == pytest.approx(0, abs=1e-6)


def test_ground_truth_is_of_the_persons_gender_or_neutral(bodies, regressor):
    rng = np.random.default_rng(3)
    records = [
        Record(str(index), Frame("f", "f.jpg"), pose=rng.normal(0, 0.4, (24, 3)).astype(np.float32),
               betas=rng.normal(0, 1, 10).astype(np.float32), gender=gender)
        for index, gender in enumerate(("female", "male", "female"))
    ]  # fmt: skip
    for name in ("spin", "vibe", "paper"):
        joints, roots = ground_truth(records, bodies, regressor, PROTOCOLS[name], batch=2)
        for record, some, root in zip(records, joints, roots):
            body = bodies["neutral" if name == "vibe" else record.gender]
            with torch.no_grad():
                vertices = body(
                    torch.from_numpy(matrix_from_rotvec(record.pose))[None], torch.from_numpy(record.betas)[None]
                )[0][0]
            own = regressor.astype(float) @ vertices.numpy()
            np.testing.assert_allclose(some, own[[6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10]], atol=1e-5)
            np.testing.assert_allclose(root, (own[1] + own[4]) / 2 if name == "vibe" else own[0], atol=1e-5)


def test_who_counts():
    def person(visible, valid=True):
        keypoints = np.zeros((17, 3))
        keypoints[:5, 2] = 1  # faces do not count
        keypoints[5 : 5 + visible, 2] = 0.31
        return Record("", Frame("f", "f.jpg"), keypoints=keypoints, valid=valid)

    assert [counts(person(n), PROTOCOLS["vibe"]) for n in (0, 6, 7, 12)] == [False, False, True, True]
    assert counts(person(7, valid=False), PROTOCOLS["vibe"]) and not counts(person(12, valid=False), PROTOCOLS["spin"])
    assert counts(person(0), PROTOCOLS["spin"]) and counts(Record("", Frame("f", "f.jpg")), PROTOCOLS["vibe"])


def test_missed_people_count_as_the_mean_pose():
    rng = np.random.default_rng(4)
    truth, mean = rng.normal(0, 0.4, (4, 17, 3)), rng.normal(0, 0.4, (17, 3))
    joints, roots = truth[:, [6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10]], truth[:, 0]
    predicted = truth.copy()
    predicted[[1, 3]] = np.nan
    figures = pose_benchmarks.score(predicted, mean, joints, roots, "spin", ["a", "b", "c", "d"])
    of_mean = reference_errors(np.repeat(mean[None], 4, 0), truth, True)
    assert figures["missed"] == ["b", "d"] and figures["found"]["people"] == 2
    assert figures["found"]["mpjpe"] == pytest.approx(0, abs=1e-9)
    for key, part in zip(("mpjpe", "pa_mpjpe"), of_mean):
        assert figures["mean_pose"][key] == pytest.approx(part.mean())
        assert figures["everybody"][key] == pytest.approx((part[1] + part[3]) / 4)
    nobody = pose_benchmarks.score(np.full((4, 17, 3), np.nan), mean, joints, roots, "spin", list("abcd"))
    assert nobody["found"] == {"mpjpe": None, "pa_mpjpe": None, "people": 0}


# ---- who is who -----------------------------------------------------------------------------------------------------


def detected(box, keypoints=None, score=0.5):
    values = dict.fromkeys(BodyEstimate.__dataclass_fields__)
    keypoints = np.zeros((17, 3)) if keypoints is None else keypoints
    return BodyEstimate(**values | {"box": np.array(box, float), "keypoints": keypoints, "score": score})


def annotated(box, keypoints=None):
    return Record("", Frame("f", "f.jpg"), None if box is None else np.array(box, float), keypoints)


def skeleton(x, y, height=100.0):
    return np.column_stack([np.full(17, x), y + np.linspace(0, height, 17), np.ones(17)])


def test_people_are_matched_by_their_joints_where_boxes_overlap():
    box = [0, 0, 120, 100]
    left, right = skeleton(40, 0), skeleton(70, 0)
    people = [annotated(box, right), annotated(box, left)]
    assert match(people, [detected(box, left + [2, 1, 0]), detected(box, right)]) == [1, 0]
    assert match(people, [detected(box, left + [2, 1, 0])]) == [None, 0]
    assert match(people, []) == [None, None]
    assert match([annotated(box, left)], [detected(box, skeleton(140, 0))]) == [None]  # somebody else


def test_people_are_matched_by_their_boxes_where_no_joints_are_known():
    upright, square = [40, 0, 70, 100], [5, 0, 105, 100]  # the same person: a tight box, SPIN's square
    assert match([annotated(square)], [detected([300, 0, 330, 100]), detected(upright)]) == [1]
    assert match([annotated(square)], [detected([300, 0, 330, 100])]) == [None]
    alone = annotated(None)  # Human3.6M
    assert match([alone], [detected(upright, score=0.2), detected(square, score=0.9)]) == [1]


# ---- what the user brings -------------------------------------------------------------------------------------------


def test_models_are_found_by_their_usual_names(tmp_path):
    for name in (
        "basicModel_f_lbs_10_207_0_v1.0.0.pkl",
        "basicmodel_m_lbs_10_207_0_v1.1.0.pkl",
        "SMPL_NEUTRAL.npz",
        "notes.txt",
    ):
        (tmp_path / name).write_bytes(b"")
    found = find_models(tmp_path, ("neutral", "female", "male"))
    assert {gender: path.name[:12] for gender, path in found.items()} == {
        "neutral": "SMPL_NEUTRAL", "female": "basicModel_f", "male": "basicmodel_m",
    }  # fmt: skip
    (tmp_path / "SMPL_NEUTRAL.npz").unlink()
    with pytest.raises(FileNotFoundError, match="lacks SMPL_NEUTRAL.pkl .*ask for them at https://smpl.is.tue.mpg.de"):
        find_models(tmp_path, ("neutral", "male"))
    with pytest.raises(FileNotFoundError, match="lacks SMPL_MALE.pkl"):
        find_models(tmp_path / "nowhere", ("male",))


def test_a_wrong_regressor_is_refused(tmp_path, bodies, regressor):
    path = tmp_path / "J.npy"
    with pytest.raises(FileNotFoundError, match=r"expected J_regressor_h36m.npy \(17, 6890\); .*nkolot/SPIN"):
        load_regressor(path, bodies["neutral"])
    for wrong, message in (
        (regressor[:, :-1], r"shape \(17, 6889\)"),
        (2 * regressor, "must sum to 1"),
        (regressor * np.nan, "finite"),
    ):
        np.save(path, wrong)
        with pytest.raises(ValueError, match=message):
            load_regressor(path, bodies["neutral"])
    path.write_text("<html>")
    with pytest.raises(ValueError, match="no readable .npy"):
        load_regressor(path, bodies["neutral"])


# ---- whole runs -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def loaded_once():
    """The same networks for every run: loading them takes longer than looking at the pictures."""
    with pytest.MonkeyPatch.context() as patch:
        load = functools.cache(pose_benchmarks.HumanMeshEstimator.from_default)
        patch.setattr(pose_benchmarks, "HumanMeshEstimator", types.SimpleNamespace(from_default=load))
        yield


@pytest.fixture(scope="module")
def scenes():
    """Three rendered people, each alone and wholly in the picture."""
    maker = SceneMaker("val", None, SceneConfig(sizes=((480, 640),), people=(1.0,), field_of_view=(1.0, 1.0), cut=0.0, occluded=0.0,
                                                 height_in_image=(0.5, 0.7)))
    return [maker.make(np.random.default_rng([5, SPLITS.index("val"), index])) for index in range(3)]


def matrix_of(intrinsics):
    fx, fy, cx, cy = intrinsics
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])


@pytest.fixture(scope="module")
def pw3d(tmp_path_factory, scenes):
    """A 3DPW of one sequence: the pictures above, whose world is turned against the cameras; somebody more is not there."""
    root = tmp_path_factory.mktemp("3dpw")
    (root / "sequenceFiles" / "test").mkdir(parents=True)
    folder = root / "imageFiles" / "fake_00"
    folder.mkdir(parents=True)
    count = len(scenes)
    cameras = np.tile(np.eye(4), (count, 1, 1))
    cameras[:, :3, :3] = Rotation.random(count, random_state=3).as_matrix()
    poses, openpose, betas = np.zeros((2, count, 72)), np.zeros((2, count, 3, 18)), np.zeros((2, 10))
    order = [0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3]  # OpenPose's 18 as COCO's, without the neck
    for index, scene in enumerate(scenes):
        cv2.imwrite(str(folder / f"image_{index:05d}.jpg"), scene.image)
        person = scene.people[0]
        world = Rotation.from_matrix(cameras[index, :3, :3]).inv() * Rotation.from_rotvec(person.pose[0])
        poses[0, index] = np.concatenate([world.as_rotvec(), person.pose[1:].ravel()])
        for joint, coco in enumerate(order):
            if coco is not None:
                openpose[0, index, :, joint] = [*person.keypoints[coco], 0.9]
        openpose[1, index, :2] = np.random.default_rng(index).uniform(0, 20, (2, 18))
        openpose[1, index, 2] = 0.9
    content = {
        "sequence": "fake_00", "poses": list(poses), "betas": list(betas), "genders": ["m", "f"], "poses2d": list(openpose),
        "cam_poses": cameras, "campose_valid": [np.array([1, 1, 1]), np.array([1, 0, 0])], "cam_intrinsics": matrix_of(scenes[0].intrinsics),
        "img_frame_ids": np.arange(count), "trans": [np.zeros((count, 3))] * 2,
    }  # fmt: skip
    (root / "sequenceFiles" / "test" / "fake_00.pkl").write_bytes(pickle.dumps(content, protocol=2))
    return root


def run_3dpw(smpl, data, path, *more):
    arguments = ["--data", data, "--smpl", smpl, "--joint-regressor", smpl / "J_regressor_h36m.npy", "--json", path, *more]
    code = cli.main(["eval", "3dpw", *map(str, arguments)])
    return code, json.loads(path.read_text()) if path.is_file() else None


@pytest.fixture(scope="module")
def original(smpl, pw3d, tmp_path_factory):
    """The figures of the original files, and what the command printed."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code, result = run_3dpw(smpl, pw3d, tmp_path_factory.mktemp("original") / "out.json")
    assert code == 0
    return result, out.getvalue()


def test_a_whole_run_on_3dpw(original):
    result, told = original
    spin, vibe = result["protocols"]["spin"], result["protocols"]["vibe"]
    assert set(result["protocols"]) == {"spin", "vibe"} and not result["corrupt"] and result["pictures"] == 3
    assert (spin["people"], spin["found"]["people"]) == (4, 3) and spin["missed"] == ["fake_00/image_00000/1"]
    assert (vibe["people"], vibe["found"]["people"]) == (6, 3) and len(vibe["missed"]) == 3
    for row in (spin, vibe):
        # What is found is far better than the mean pose, which is only so if axes, joints and people are put together right.
        assert 10 < row["found"]["pa_mpjpe"] < row["found"]["mpjpe"] < 150 < 1.5 * row["mean_pose"]["mpjpe"]
        assert row["found"]["mpjpe"] < row["everybody"]["mpjpe"] < 1500
        assert row["found"]["mpjpe"] < 0.6 * row["mean_pose"]["mpjpe"]
        assert row["ray_axes"]["everybody"]["pa_mpjpe"] == pytest.approx(row["everybody"]["pa_mpjpe"], abs=1e-3)  # only turned
        assert row["ray_axes"]["everybody"]["mpjpe"] != pytest.approx(row["everybody"]["mpjpe"], abs=1e-2)
    assert result["axes"] == "camera"
    assert spin["found"]["mpjpe"] != vibe["found"]["mpjpe"]  # the male model is larger than the neutral one
    assert set(result["bodies"]) == {"neutral", "male", "female"}
    for text in ("3DPW, test split", "SPIN's: gendered", "VIBE's: neutral", "159.4", "nothing was unreadable"):
        assert text in told, text


def test_unreadable_pictures_are_named_and_a_part_is_said_to_be_one(smpl, pw3d, tmp_path, capsys):
    data = tmp_path / "data"
    (data / "imageFiles" / "fake_00").mkdir(parents=True)
    (data / "sequenceFiles").symlink_to(pw3d / "sequenceFiles")
    for index in (0, 2):
        name = f"imageFiles/fake_00/image_{index:05d}.jpg"
        (data / name).write_bytes((pw3d / name).read_bytes() if index else b"no picture")
    code, result = run_3dpw(smpl, data, tmp_path / "out.json", "--protocol", "paper", "--limit", 3)
    told = capsys.readouterr()
    assert code == 1, told.err  # two of three pictures are lost
    assert [part["name"] for part in result["corrupt"]] == ["fake_00/image_00000", "fake_00/image_00001"]
    assert "cannot be decoded" in result["corrupt"][0]["reason"] and "No such file" in result["corrupt"][1]["reason"]
    assert result["protocols"]["paper"]["people"] == 1 and list(result["protocols"]) == ["paper"]
    words = " ".join(told.out.split())
    assert "2 unreadable and left out: fake_00/image_00000" in words and "only a part" in words
    assert "the paper does not define its own" in words


def test_annotations_of_spin_and_vibe_give_the_same_figures(original, smpl, pw3d, scenes, bodies, regressor, tmp_path):
    """SPIN's .npz and VIBE's .pt made here of the same people: the figures must be those of the original files, in the
    ray's axes: these annotations tell no camera."""
    people = [scene.people[0] for scene in scenes]
    names = [f"imageFiles/fake_00/image_{index:05d}.jpg" for index in range(3)]
    poses, sides = np.stack([p.pose.ravel() for p in people]), np.array([max(p.box[2:] - p.box[:2]) for p in people])
    centres = np.stack([(p.box[:2] + p.box[2:]) / 2 for p in people])
    np.savez(tmp_path / "3dpw_test.npz", imgname=names, center=centres, scale=1.2 * sides / 200, pose=poses,
             shape=np.zeros((3, 10)), gender=["m"] * 3)  # fmt: skip
    _, spins = run_3dpw(smpl, pw3d, tmp_path / "spin.json", "--annotations", tmp_path / "3dpw_test.npz")
    assert list(spins["protocols"]) == ["spin"]
    for key in ("mpjpe", "pa_mpjpe"):
        assert spins["protocols"]["spin"]["found"][key] == pytest.approx(
            original[0]["protocols"]["spin"]["ray_axes"]["found"][key], rel=1e-4
        )
    records = [Record("", Frame("f", "f.jpg"), pose=p.pose, betas=np.zeros(10, np.float32)) for p in people]
    joints, _ = ground_truth(records, bodies, regressor, PROTOCOLS["vibe"])
    lsp = [16, 14, 12, 11, 13, 15, 10, 8, 6, 5, 7, 9]
    joints2d = np.stack(
        [np.concatenate([np.column_stack([p.keypoints[lsp], np.ones(12)]), np.zeros((2, 3))]) for p in people]
    )
    rows = {
        "vid_name": np.array(["fake_00_0"] * 3), "frame_id": np.arange(3), "joints3D": joints, "joints2D": joints2d,
        "shape": np.zeros((3, 10)), "pose": poses, "bbox": np.column_stack([centres, sides, sides]),
        "img_name": np.array([f"/home/somebody/3DPW/{name}" for name in names]), "valid": np.ones(3),
    }  # fmt: skip
    joblib.dump(rows, tmp_path / "3dpw_test_db.pt")
    _, vibes = run_3dpw(smpl, pw3d, tmp_path / "vibe.json", "--annotations", tmp_path / "3dpw_test_db.pt")
    assert list(vibes["protocols"]) == ["vibe"] and vibes["protocols"]["vibe"]["people"] == 3
    for key in ("mpjpe", "pa_mpjpe"):
        assert vibes["protocols"]["vibe"]["found"][key] == pytest.approx(
            original[0]["protocols"]["vibe"]["ray_axes"]["found"][key], rel=1e-4
        )


def test_a_whole_run_on_human36m(smpl, scenes, bodies, regressor, tmp_path, capsys, monkeypatch):
    """Videos of rendered people, and the positions of their joints in Human3.6M's places."""
    with torch.no_grad():
        rotations = torch.from_numpy(matrix_from_rotvec(np.stack([s.people[0].pose for s in scenes])))
        joints = regress_joints(bodies["neutral"](rotations, torch.zeros(3, 10)).vertices.numpy(), regressor)
    monkeypatch.setattr(human36m, "CAMERA", Camera(scenes[0].intrinsics))
    for subject, scene, own in zip(("S9", "S11"), scenes, joints):
        video = tmp_path / subject / "Videos" / "Directions.60457274.mp4"
        video.parent.mkdir(parents=True)
        writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"mp4v"), 50, scene.image.shape[1::-1])
        positions = np.zeros((6, 32, 3))
        positions[:, [11, 6, 7, 8, 1, 2, 3, 12, 24, 14, 15, 17, 18, 19, 25, 26, 27]] = 1000 * own + [0, 0, 4000]
        for index in range(6):
            writer.write(scene.image if index % 5 == 0 else np.zeros_like(scene.image))  # the others must not be looked at
        writer.release()
        folder = video.parents[1] / "MyPoseFeatures" / "D3_Positions_mono"
        folder.mkdir(parents=True)
        cdf = cdflib.cdfwrite.CDF(folder / "Directions.60457274.cdf")
        pose = {"Variable": "Pose", "Data_Type": 45, "Num_Elements": 1, "Rec_Vary": True, "Dim_Sizes": [6, 96]}
        cdf.write_var(pose, var_data=positions.reshape(1, 6, 96))
        cdf.close()
    path = tmp_path / "out.json"
    arguments = ["--data", tmp_path, "--smpl", smpl, "--joint-regressor", smpl / "J_regressor_h36m.npy", "--json", path]
    code = cli.main(["eval", "h36m", *map(str, arguments)])
    told = capsys.readouterr()
    assert code == 0, told.err
    result = json.loads(path.read_text())
    assert set(result["bodies"]) == {"neutral"} and result["pictures"] == 4
    for row in result["protocols"].values():
        assert row["people"] == row["found"]["people"] == 4
        assert row["found"]["pa_mpjpe"] < row["found"]["mpjpe"] < 0.6 * row["mean_pose"]["mpjpe"]
    assert "Human3.6M, Protocol 2" in told.out and "85.4" in told.out


def test_wrong_use_is_refused_in_words(smpl, pw3d, tmp_path, capsys):
    def told(*more, data=pw3d, folder=smpl, regressor=smpl / "J_regressor_h36m.npy"):
        code = cli.main(
            ["eval", "3dpw", *map(str, ["--data", data, "--smpl", folder, "--joint-regressor", regressor, *more])]
        )
        assert code == 2
        return capsys.readouterr().err

    assert "neither genders nor a pelvis; use vibe" in told("--annotations", "db.pt", "--protocol", "spin")
    assert "which joints are visible; use spin" in told("--annotations", "3dpw_test.npz", "--protocol", "spin", "vibe")
    assert "db.pt is missing" in told("--annotations", tmp_path / "db.pt")
    assert "sequenceFiles/test is missing" in told(data=tmp_path)
    assert "lacks SMPL_NEUTRAL.pkl" in told(folder=tmp_path)
    assert "J.npy: no such file" in told(regressor=tmp_path / "J.npy")
    assert "--limit is 0" in told("--limit", 0)
