"""The readers of published datasets, on small data written here in exactly the published formats."""

import os
import pickle
import sys
import types

import cdflib.cdfwrite
import cv2
import joblib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hmr_ros import inert_pickle
from hmr_ros.skeleton import COCO_KEYPOINTS
from hmr_ros.training.datasets import amass, hdnet, human36m, spin, threedpw, up3d, vibe
from hmr_ros.training.datasets.records import H36M_TO_J14, J14, Corrupt, DamagedFile


def picture(path, shape=(48, 64, 3)):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full(shape, 127, np.uint8))


class Call:
    """Pickled, it is a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


# ---- 3DPW -----------------------------------------------------------------------------------------------------------


def sequence(frames=3, people=2, seed=0, name="downtown_arguing_00"):
    """One of 3DPW's pickles: Python 2 strings, lists of arrays per person, world axes."""
    rng = np.random.default_rng(seed)
    cameras = np.tile(np.eye(4), (frames, 1, 1))
    cameras[:, :3, :3] = Rotation.random(frames, random_state=seed).as_matrix()
    cameras[:, :3, 3] = [0, 0, 4]
    openpose = rng.uniform(10, 300, (people, frames, 3, 18))
    openpose[:, :, 2] = 0.8
    return {
        "sequence": name,
        "poses": list(rng.normal(0, 0.4, (people, frames, 72))),
        "betas": list(rng.normal(0, 1, (people, 300))),  # some have more than 10
        "trans": list(rng.normal(0, 0.1, (people, frames, 3))),
        "poses_60Hz": list(rng.normal(0, 0.4, (people, 2 * frames, 72))),
        "genders": ["m", "f"][:people],
        "poses2d": list(openpose),
        "jointPositions": list(rng.normal(0, 0.3, (people, frames, 72))),
        "img_frame_ids": np.arange(frames) * 2,
        "cam_poses": cameras,
        "campose_valid": [np.array([True] * (frames - 1) + [person == 0]) for person in range(people)],
        "cam_intrinsics": np.array([[500.0, 0, 32], [0, 500, 24], [0, 0, 1]]),
        "texture_maps": [set()],  # whatever is not needed is not looked into
    }


def write_3dpw(root, split="test", **sequences):
    (root / "sequenceFiles" / split).mkdir(parents=True, exist_ok=True)
    for name, content in sequences.items():
        raw = content if isinstance(content, bytes) else pickle.dumps(content, protocol=2)
        (root / "sequenceFiles" / split / f"{name}.pkl").write_bytes(raw)
        for index in range(3):
            picture(root / "imageFiles" / name / f"image_{index:05d}.jpg")


def test_3dpw_people_come_in_camera_axes(tmp_path):
    content = sequence()
    write_3dpw(tmp_path, some_00=content)
    reading = threedpw.read(tmp_path, "test")
    assert not reading.corrupt and [record.name for record in reading.records] == [
        f"some_00/image_{index:05d}/{person}" for person in (0, 1) for index in range(3)
    ]
    record = reading.records[4]  # person 1, frame 1
    assert record.frame.path.is_file() and record.frame.name == "some_00/image_00001"
    world = Rotation.from_rotvec(content["poses"][1][1][:3])
    in_camera = Rotation.from_matrix(content["cam_poses"][1, :3, :3]) * world
    assert (in_camera.inv() * Rotation.from_rotvec(record.pose[0])).magnitude() < 1e-5
    np.testing.assert_allclose(record.pose[1:].ravel(), content["poses"][1][1][3:], rtol=1e-6)
    np.testing.assert_allclose(record.betas, content["betas"][1][:10], rtol=1e-6)
    assert record.gender == "female" and [r.valid for r in reading.records] == [True] * 5 + [False]
    x, y, sure = content["poses2d"][1][1]
    assert record.keypoints[COCO_KEYPOINTS.index("left_wrist")] == pytest.approx([x[7], y[7], sure[7]])
    assert record.keypoints[COCO_KEYPOINTS.index("right_ear")] == pytest.approx([x[16], y[16], sure[16]])
    assert record.box == pytest.approx([x.min(), y.min(), x.max(), y.max()])


def test_3dpw_people_without_detected_joints_have_the_box_of_their_body(tmp_path):
    content = sequence()
    content["poses2d"][0][1] = 0
    write_3dpw(tmp_path, some_00=content)
    record = threedpw.read(tmp_path).records[1]
    assert not record.keypoints.any()
    camera, seen = content["cam_poses"][1], []
    for joint in content["jointPositions"][0][1].reshape(24, 3):
        x, y, z = camera[:3, :3] @ joint + camera[:3, 3]
        seen.append((500 * x / z + 32, 500 * y / z + 24))
    assert record.box == pytest.approx([*np.min(seen, 0), *np.max(seen, 0)], rel=1e-4)


def test_3dpw_pictures_are_listed_by_sequence(tmp_path):
    write_3dpw(tmp_path, "train", b_00=sequence(), a_00=sequence())
    found = threedpw.frames(tmp_path, "train")
    assert [frame.name for frame in found][:4] == [
        "a_00/image_00000",
        "a_00/image_00001",
        "a_00/image_00002",
        "b_00/image_00000",
    ]
    assert all(frame.path.is_file() and frame.index == 0 for frame in found)


def test_3dpw_names_what_it_cannot_read(tmp_path):
    marker = tmp_path / "executed"
    no_camera = {key: value for key, value in sequence().items() if key != "cam_poses"}
    odd = sequence()
    odd["poses"][0][1, 5] = np.nan
    odd["genders"][1] = "x"
    evil = pickle.dumps({"poses": Call(os.system, f"touch {marker}")}, protocol=2)
    write_3dpw(
        tmp_path, good_00=sequence(), lacks_00=no_camera, odd_00=odd, evil_00=evil, torn_00=pickle.dumps(sequence())[:500]
    )
    reading = threedpw.read(tmp_path)
    assert len(reading.records) == 6 + 2
    reasons = dict(reading.corrupt)
    assert set(reasons) == {"evil_00", "lacks_00", "odd_00/image_00001/0", "odd_00, person 1", "torn_00"}
    assert "nothing was executed" in reasons["evil_00"] and not marker.exists()
    assert (
        "lacks cam_poses; found sequence, poses" in reasons["lacks_00"] and "expected m or f" in reasons["odd_00, person 1"]
    )


def test_3dpw_says_what_is_missing_and_where_to_ask(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"sequenceFiles/test is missing; expected layout: .*imageFiles.*virtualhumans.mpi-inf"
    ):
        threedpw.read(tmp_path)
    with pytest.raises(ValueError, match="no split 'val'; choose one of train, validation, test"):
        threedpw.frames(tmp_path, "val")  # not silently another one
    write_3dpw(tmp_path, some_00=sequence())
    (tmp_path / "imageFiles" / "some_00").rename(tmp_path / "away")
    with pytest.raises(FileNotFoundError, match="imageFiles/some_00 is missing"):
        threedpw.frames(tmp_path, "test")


# ---- Human3.6M ------------------------------------------------------------------------------------------------------


def write_video(path, count, size=(64, 48)):
    """Each frame's grey value is 2 for each frame before it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 50, size)
    for index in range(count):
        writer.write(np.full((size[1], size[0], 3), 2 * index, np.uint8))
    writer.release()


def write_cdf(path, millimetres):
    """As Human3.6M writes it: one record of a variable Pose, (frames, 96)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = cdflib.cdfwrite.CDF(path)
    file.write_var(
        {"Variable": "Pose", "Data_Type": 45, "Num_Elements": 1, "Rec_Vary": True, "Dim_Sizes": list(millimetres.shape)},
        var_data=millimetres[None].astype(np.float64),
    )
    file.close()


def write_h36m(root, positions, subjects=("S9", "S11"), cameras=("60457274",), videos=12):
    for subject in subjects:
        for camera in cameras:
            name = f"Walking 1.{camera}"
            write_video(root / subject / "Videos" / f"{name}.mp4", videos)
            write_cdf(root / subject / "MyPoseFeatures" / "D3_Positions_mono" / f"{name}.cdf", positions)


@pytest.fixture
def positions():
    return np.random.default_rng(4).normal(0, 500, (13, 96)) + np.tile([0, 0, 5000], 32)


def test_h36m_every_fifth_frame_of_the_front_camera(tmp_path, positions):
    write_h36m(tmp_path, positions, cameras=("54138969", "60457274"))
    write_video(tmp_path / "S9" / "Videos" / "_ALL.60457274.mp4", 3)
    reading = human36m.read(tmp_path, "test")
    names = [f"{subject}_Walking_1.60457274_{index + 1:06d}" for subject in ("S9", "S11") for index in (0, 5, 10)]
    assert [record.name for record in reading.records] == names and not reading.corrupt
    assert [(frame.name, frame.index) for frame in human36m.frames(tmp_path, "test")] == list(zip(names, [0, 5, 10] * 2))
    second = positions[5].reshape(32, 3) / 1000
    joints = dict(zip(J14, reading.records[1].joints))
    # Human3.6M's own numbers: right leg 1-3, left 6-8, left arm 17-19, right 25-27, head 15.
    expected = {"right_hip": 1, "right_ankle": 3, "left_knee": 7, "left_shoulder": 17, "right_wrist": 27, "head_top": 15}
    for name, number in expected.items():
        np.testing.assert_allclose(joints[name], second[number], rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(reading.records[1].root, second[11], rtol=1e-6)


def test_h36m_training_takes_every_camera(tmp_path, positions):
    write_h36m(tmp_path, positions, human36m.SUBJECTS["train"], ("54138969", "60457274"), videos=4)
    assert len(human36m.frames(tmp_path, "train")) == 10


def test_h36m_names_what_it_cannot_read(tmp_path, positions):
    broken = positions.copy()
    broken[5, 7] = np.nan
    write_h36m(tmp_path, broken)
    (tmp_path / "S11" / "Videos" / "Walking 1.60457274.mp4").write_bytes(b"no video")
    write_video(tmp_path / "S9" / "Videos" / "Eating.60457274.mp4", 6)
    (tmp_path / "S9" / "MyPoseFeatures" / "D3_Positions_mono" / "Eating.60457274.cdf").write_bytes(b"no cdf" * 100)
    reading = human36m.read(tmp_path)
    assert len(reading.records) == 2
    assert [part.name for part in reading.corrupt] == [
        "S9/Eating.60457274",
        "S9_Walking_1.60457274_000006",
        "S11/Walking 1.60457274",
    ]
    assert "no readable CDF" in reading.corrupt[0].reason and "not a readable video" in reading.corrupt[2].reason
    with pytest.raises(DamagedFile, match="Human3.6M: .*Walking 1.60457274.mp4: not a readable video"):
        human36m.frames(tmp_path, "test")
    corrupt = []
    assert len(human36m.frames(tmp_path, "test", corrupt)) == 3 + 2 and len(corrupt) == 1


def test_h36m_says_what_is_missing_and_where_to_ask(tmp_path, positions):
    with pytest.raises(FileNotFoundError, match=r"S9/Videos is missing; .*D3_Positions_mono.*vision.imar.ro"):
        human36m.frames(tmp_path, "test")
    write_h36m(tmp_path, positions)
    (tmp_path / "S9" / "MyPoseFeatures" / "D3_Positions_mono" / "Walking 1.60457274.cdf").unlink()
    with pytest.raises(FileNotFoundError, match=r"D3_Positions_mono/Walking 1.60457274.cdf is missing"):
        human36m.read(tmp_path)


def test_h36m_without_cdflib_says_how_to_get_it(monkeypatch):
    from hmr_ros import cli

    monkeypatch.setitem(sys.modules, "cdflib", None)
    with pytest.raises(ImportError) as caught:
        human36m.read_positions(None)
    assert "pip install cdflib" in cli.missing_module(caught.value)


# ---- UP-3D ----------------------------------------------------------------------------------------------------------


class Ch:
    """What a pickled chumpy array consists of."""

    __module__ = "chumpy.ch"

    def __init__(self, x):
        self.x = x


def write_up3d(root, monkeypatch, count=3):
    rng = np.random.default_rng(5)
    module = types.ModuleType("chumpy.ch")
    module.Ch = Ch
    monkeypatch.setitem(sys.modules, "chumpy", types.ModuleType("chumpy"))
    monkeypatch.setitem(sys.modules, "chumpy.ch", module)
    written = []
    for index in range(count):
        name = f"{index:05d}"
        picture(root / f"{name}_image.png")
        joints = np.concatenate([rng.uniform(0, 48, (2, 14)), np.ones((1, 14))])
        np.save(root / f"{name}_joints.npy", joints)
        body = {
            "pose": rng.normal(size=72),
            "betas": Ch(rng.normal(size=10)),
            "trans": np.zeros(3),
            "rt": np.zeros(3),
            "f": 1000.0,
        }
        (root / f"{name}_body.pkl").write_bytes(pickle.dumps(body, protocol=2))
        written.append((joints, body))
    (root / "trainval.txt").write_text("".join(f"/{index:05d}_image.png\n" for index in range(count)))
    return written


def test_up3d_pictures_joints_and_fits(tmp_path, monkeypatch):
    written = write_up3d(tmp_path, monkeypatch)
    assert [frame.name for frame in up3d.frames(tmp_path, "train")] == ["00000", "00001", "00002"]
    reading = up3d.read(tmp_path)
    assert not reading.corrupt
    joints, body = written[2]
    record = reading.records[2]
    np.testing.assert_allclose(record.pose.ravel(), body["pose"], rtol=1e-6)
    np.testing.assert_allclose(record.betas, body["betas"].x, rtol=1e-6)
    assert record.keypoints[COCO_KEYPOINTS.index("right_ankle"), :2] == pytest.approx(joints[:2, 0])
    assert record.keypoints[COCO_KEYPOINTS.index("left_wrist"), :2] == pytest.approx(joints[:2, 11])
    assert not record.keypoints[:5].any() and record.gender == "neutral"


def test_up3d_names_what_it_cannot_read(tmp_path, monkeypatch):
    write_up3d(tmp_path, monkeypatch, 4)
    np.save(tmp_path / "00001_joints.npy", np.zeros((3, 91)))
    (tmp_path / "00002_body.pkl").write_bytes(b"\x80\x02}q\x01.")
    (tmp_path / "00003_image.png").unlink()
    reading = up3d.read(tmp_path)
    assert [record.name for record in reading.records] == ["00000"]
    assert reading.corrupt == [
        Corrupt("00001", "00001_joints.npy has shape (3, 91), expected (3, 14)"),
        Corrupt("00002", "00002_body.pkl lacks pose, betas; found nothing"),
        Corrupt("00003", "00003_image.png is missing"),
    ]
    with pytest.raises(FileNotFoundError, match="00003_image.png is missing"):
        up3d.frames(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"trainval.txt is missing; expected layout: .*_joints.npy.*classner/up"):
        up3d.read(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="no split 'test'"):
        up3d.frames(tmp_path, "test")


# ---- AMASS ----------------------------------------------------------------------------------------------------------


def test_amass_clips_have_y_up_flat_hands_and_ten_frames_a_second(tmp_path):
    rng = np.random.default_rng(6)
    folder = tmp_path / "ACCAD" / "Female1Walking_c3d"
    folder.mkdir(parents=True)
    poses = rng.normal(0, 0.5, (25, 156))
    common = {"gender": "female", "betas": np.zeros(16), "trans": np.zeros((25, 3)), "dmpls": np.zeros((25, 8))}
    np.savez(folder / "B1_poses.npz", poses=poses, mocap_framerate=120.0, **common)
    np.savez(folder / "B2_poses.npz", poses=poses[:, :72], mocap_frame_rate=30.0)
    np.savez(folder / "shape.npz", betas=np.zeros(16))
    found = amass.clips(tmp_path)
    assert list(found) == ["ACCAD/Female1Walking_c3d/B1_poses", "ACCAD/Female1Walking_c3d/B2_poses"]
    first, second = found.values()
    assert first.shape == (3, 24, 3) and first.dtype == np.float32 and second.shape == (9, 24, 3)
    np.testing.assert_allclose(first[2, 1:22].ravel(), poses[24, 3:66], rtol=1e-6)
    assert not first[:, 22:].any()
    # Up is z there and y here: the body's own vertical must keep its height above the ground.
    up = np.array([0.0, 1, 0])
    there, here = Rotation.from_rotvec(poses[12, :3]).apply(up), Rotation.from_rotvec(first[1, 0]).apply(up)
    assert here == pytest.approx([there[0], there[2], -there[1]], abs=1e-6)


def test_amass_names_what_it_cannot_read(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"_poses.npz is missing; expected layout: .*amass.is.tue.mpg.de"):
        amass.clips(tmp_path)
    np.savez(tmp_path / "good_poses.npz", poses=np.zeros((5, 156)), mocap_framerate=60)
    np.savez(tmp_path / "thin_poses.npz", poses=np.zeros((5, 30)), mocap_framerate=60)
    np.savez(tmp_path / "timeless_poses.npz", poses=np.zeros((5, 156)))
    (tmp_path / "torn_poses.npz").write_bytes((tmp_path / "good_poses.npz").read_bytes()[:100])
    with pytest.raises(ValueError, match="AMASS: .*thin_poses.npz: poses has shape"):
        amass.clips(tmp_path)
    corrupt = []
    assert list(amass.clips(tmp_path, corrupt=corrupt)) == ["good_poses"]
    assert [part.name for part in corrupt] == ["thin_poses", "timeless_poses", "torn_poses"]


# ---- SPIN -----------------------------------------------------------------------------------------------------------


def spin_3dpw(count=4):
    rng = np.random.default_rng(7)
    return {
        "imgname": [f"imageFiles/some_00/image_{index // 2:05d}.jpg" for index in range(count)],
        "center": rng.uniform(100, 200, (count, 2)).tolist(),
        "scale": rng.uniform(0.5, 2, count),
        "pose": rng.normal(size=(count, 72)),
        "shape": rng.normal(size=(count, 10)),
        "gender": ["m", "f"] * (count // 2),
    }


def test_spin_3dpw(tmp_path):
    rows = spin_3dpw()
    np.savez(tmp_path / "3dpw_test.npz", **rows)
    reading = spin.read(tmp_path / "3dpw_test.npz", tmp_path)
    assert [record.name for record in reading.records] == [
        f"some_00/image_0000{index // 2}/{index % 2}" for index in range(4)
    ]
    record = reading.records[3]
    assert record.frame.path == tmp_path / "imageFiles/some_00/image_00001.jpg" and record.gender == "female"
    np.testing.assert_allclose(record.pose.ravel(), rows["pose"][3], rtol=1e-6)
    np.testing.assert_allclose(record.betas, rows["shape"][3], rtol=1e-6)
    (x, y), half = rows["center"][3], 100 * rows["scale"][3]
    assert record.box == pytest.approx([x - half, y - half, x + half, y + half])


def test_spin_h36m_finds_the_frame_in_the_original_video(tmp_path):
    joints = np.concatenate([np.random.default_rng(8).normal(size=(2, 24, 3)), np.ones((2, 24, 1))], -1)
    joints[:, 14, :3] = 0  # the pelvis, which SPIN puts at the origin
    names = ["images/S9_Walking_1.60457274_000001.jpg", "images/S9_Walking_1.60457274_000006.jpg"]
    np.savez(tmp_path / "h36m.npz", imgname=np.array(names, "S"), center=np.zeros((2, 2)), scale=np.ones(2), S=joints)
    write_video(tmp_path / "S9" / "Videos" / "Walking 1.60457274.mp4", 6)
    picture(tmp_path / names[0])
    first, second = spin.read(tmp_path / "h36m.npz", tmp_path).records
    assert first.frame == ("S9_Walking_1.60457274_000001", tmp_path / names[0], 0)
    assert second.frame.path.suffix == ".mp4" and second.frame.index == 5
    np.testing.assert_allclose(second.joints[:13], joints[1, :13, :3], rtol=1e-6)
    np.testing.assert_allclose(second.joints[13], joints[1, 18, :3], rtol=1e-6)
    np.testing.assert_array_equal(second.root, 0)


def test_spin_and_the_original_agree_on_h36m(tmp_path, positions):
    """What SPIN's preparation makes of a frame is what the reader of the original makes of it, but for the origin."""
    write_h36m(tmp_path, positions, videos=1)
    of_17 = positions[0].reshape(32, 3)[[11, 6, 7, 8, 1, 2, 3, 12, 24, 14, 15, 17, 18, 19, 25, 26, 27]] / 1000
    rows = np.zeros((1, 24, 4))
    rows[0, [14, 3, 4, 5, 2, 1, 0, 16, 12, 17, 18, 9, 10, 11, 8, 7, 6]] = np.concatenate(
        [of_17 - of_17[0], np.ones((17, 1))], 1
    )
    picture_name = ["images/S9_Walking_1.60457274_000001.jpg"]
    np.savez(tmp_path / "h36m.npz", imgname=picture_name, center=np.zeros((1, 2)), scale=np.ones(1), S=rows)
    spins, own = spin.read(tmp_path / "h36m.npz", tmp_path).records[0], human36m.read(tmp_path).records[0]
    np.testing.assert_allclose(spins.joints, own.joints - own.root, atol=1e-6)
    assert spins.frame == own.frame


def test_spin_names_what_it_cannot_read(tmp_path):
    rows = spin_3dpw()
    rows["pose"][1, 3] = np.inf
    rows["gender"][2] = "n"
    np.savez(tmp_path / "3dpw_test.npz", **rows)
    reading = spin.read(tmp_path / "3dpw_test.npz", tmp_path)
    assert len(reading.records) == 2
    assert reading.corrupt[0] == ("some_00/image_00000/1", "pose has values that are not finite")
    assert reading.corrupt[1].name == "some_00/image_00001/0" and "expected m or f" in reading.corrupt[1].reason
    with pytest.raises(FileNotFoundError, match="nowhere.npz is missing; expected layout: .*nkolot/SPIN"):
        spin.read(tmp_path / "nowhere.npz", tmp_path)
    np.savez(tmp_path / "short.npz", **spin_3dpw() | {"scale": np.ones(3)})
    with pytest.raises(ValueError, match="4 pictures, but other numbers of {'scale': 3}"):
        spin.read(tmp_path / "short.npz", tmp_path)
    np.savez(tmp_path / "coco.npz", imgname=["a.jpg"], center=np.zeros((1, 2)), scale=[1.0], part=np.zeros((1, 24, 3)))
    with pytest.raises(ValueError, match="neither pose and shape nor S"):
        spin.read(tmp_path / "coco.npz", tmp_path)


# ---- VIBE -----------------------------------------------------------------------------------------------------------


def vibe_rows(count=4, joints=14):
    rng = np.random.default_rng(9)
    return {
        "vid_name": np.array(["some_00_1"] * count),
        "frame_id": np.arange(count),
        "joints3D": rng.normal(size=(count, joints, 3)).astype(np.float32),
        "joints2D": np.concatenate([rng.uniform(0, 300, (count, 14, 2)), np.ones((count, 14, 1))], -1),
        "shape": rng.normal(size=(count, 10)).astype(np.float32),
        "pose": rng.normal(size=(count, 72)).astype(np.float32),
        "bbox": np.array([[150.0, 100, 60, 80]] * count),
        "img_name": np.array([f"data/3dpw/imageFiles/some_00/image_{index:05d}.jpg" for index in range(count)]),
        "features": rng.normal(size=(count, 2048)).astype(np.float32),
        "valid": np.array([1, 1, 0, 1][:count]),
    }


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("joints", [14, 49])
def test_vibe_files_of_joblib(tmp_path, protocol, joints):
    rows = vibe_rows(joints=joints)
    joblib.dump(rows, tmp_path / "3dpw_test_db.pt", protocol=protocol)
    reading = vibe.read(tmp_path / "3dpw_test_db.pt", tmp_path)
    assert not reading.corrupt and len(reading.records) == 4
    record = reading.records[2]
    assert record.name == "some_00_1/00002" and not record.valid
    assert record.frame == ("some_00/image_00002", tmp_path / "imageFiles/some_00/image_00002.jpg", 0)
    np.testing.assert_array_equal(record.joints, rows["joints3D"][2] if joints == 14 else rows["joints3D"][2, 25:39])
    np.testing.assert_array_equal(record.pose.ravel(), rows["pose"][2])
    assert record.box == pytest.approx([120, 60, 180, 140]) and record.root is None
    assert record.keypoints[COCO_KEYPOINTS.index("right_knee")] == pytest.approx(rows["joints2D"][2, 1])


@pytest.mark.parametrize("padded", [True, False])
def test_joblib_files_are_read_as_joblib_reads_them(tmp_path, monkeypatch, padded):
    """Fortran order, odd sizes, arrays of Python strings; VIBE's joblib of 2020 did not pad its arrays."""
    if not padded:
        make = joblib.numpy_pickle.NumpyPickler._create_array_wrapper

        def without_padding(self, array):
            wrapper = make(self, array)
            vars(wrapper).pop("numpy_array_alignment_bytes", None)
            return wrapper

        monkeypatch.setattr(joblib.numpy_pickle.NumpyPickler, "_create_array_wrapper", without_padding)
    content = {"a": np.arange(7, dtype=np.uint8), "b": np.asfortranarray(np.arange(12.0).reshape(3, 4)), "c": "text",
               "d": np.array(["x", "yy"], object), "e": np.zeros((0, 3)), "f": [np.float32(2.5), (1, None)]}  # fmt: skip
    joblib.dump(content, tmp_path / "some.pt")
    with (tmp_path / "some.pt").open("rb") as file:
        found = inert_pickle.plain(inert_pickle.load_joblib(file))
    expected = joblib.load(tmp_path / "some.pt")
    assert list(found) == list(expected) and found["c"] == "text" and list(found["d"]) == ["x", "yy"]
    for key in "abe":
        np.testing.assert_array_equal(found[key], expected[key])
    assert found["f"] == [2.5, (1, None)]


def test_vibe_files_execute_nothing(tmp_path):
    marker = tmp_path / "executed"
    for name, content in (
        ("plain", {"vid_name": Call(os.system, f"touch {marker}")}),
        ("objects", {"vid_name": np.array([Call(os.system, f"touch {marker}")], object)}),
    ):
        joblib.dump(content, tmp_path / f"{name}.pt")
        with pytest.raises(DamagedFile, match=f"{name}.pt: .*posix.system.*nothing was executed"):
            vibe.read(tmp_path / f"{name}.pt", tmp_path)
    assert not marker.exists()
    joblib.load(tmp_path / "plain.pt")
    assert marker.exists(), "the attack would not have worked anyway"


def test_vibe_names_what_it_cannot_read(tmp_path):
    rows = vibe_rows()
    rows["joints3D"][1, 0, 0] = np.nan
    rows["bbox"][3, 2] = 0
    joblib.dump(rows, tmp_path / "db.pt")
    reading = vibe.read(tmp_path / "db.pt", tmp_path)
    assert [part.name for part in reading.corrupt] == ["some_00_1/00001", "some_00_1/00003"] and len(reading.records) == 2
    with pytest.raises(FileNotFoundError, match="nowhere.pt is missing; expected layout: .*mkocabas/VIBE"):
        vibe.read(tmp_path / "nowhere.pt", tmp_path)
    joblib.dump(rows, tmp_path / "small.pt", compress=3)
    with pytest.raises(ValueError, match="not as an uncompressed joblib file"):
        vibe.read(tmp_path / "small.pt", tmp_path)
    (tmp_path / "torn.pt").write_bytes((tmp_path / "db.pt").read_bytes()[:30000])
    with pytest.raises(ValueError, match="torn.pt: not a readable joblib file .*ends within an array"):
        vibe.read(tmp_path / "torn.pt", tmp_path)


# ---- HDNet ----------------------------------------------------------------------------------------------------------


def hdnet_map():
    depth = np.zeros((256, 256))
    depth[64:192, 96:160] = 4 + np.random.default_rng(1).normal(0, 0.1, (128, 64))
    return depth


def test_hdnet_depth_as_its_inference_writes_it(tmp_path):
    depth = hdnet_map()
    (tmp_path / "seq").mkdir()
    with (tmp_path / "seq" / "image_00000.txt").open("wb") as file:
        for line in depth:
            np.savetxt(file, line[None], fmt="%.5f")
    found = hdnet.read(hdnet.find(tmp_path, "seq/image_00000"))
    assert found.dtype == np.float32 and np.array_equal(found > 0, depth > 0)
    np.testing.assert_allclose(found, depth, atol=1e-5)
    np.savetxt(tmp_path / "comma.txt", depth, delimiter=",", fmt="%.5f")
    np.testing.assert_array_equal(hdnet.read(tmp_path / "comma.txt"), found)
    np.save(tmp_path / "array.npy", np.where(depth > 0, depth, np.nan))
    np.testing.assert_allclose(hdnet.read(hdnet.find(tmp_path, "array")), found, atol=1e-5)


def test_hdnet_depth_is_resized_and_laid_into_the_picture_without_mixing_with_nothing():
    depth = hdnet_map().astype(np.float32)
    small = hdnet.resized(depth, 64)
    assert small.shape == (64, 64) and (small > 0).mean() == pytest.approx((depth > 0).mean(), abs=0.01)
    assert np.isin(small, depth).all()
    # The crop is centred at (200, 100) and twice as small as the map: the person's centre is there, 64 x 32 px large.
    whole = hdnet.in_picture(depth, np.array([200, 100, 128]), 240, 320)
    rows, columns = np.nonzero(whole)
    assert whole.shape == (240, 320) and np.isin(whole, depth).all()
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == pytest.approx((68, 131, 184, 215), abs=1)
    with pytest.raises(ValueError, match="expected a square"):
        hdnet.in_picture(depth[:100], np.array([200, 100, 128]), 240, 320)


@pytest.mark.parametrize("text", ["1 2 3\n4 5\n", "<html>", "", "1 2 3\n"])
def test_hdnet_refuses_what_is_no_depth_map(tmp_path, text):
    (tmp_path / "bad.txt").write_text(text)
    with pytest.raises(ValueError, match="bad.txt"):
        hdnet.read(tmp_path / "bad.txt")
    with pytest.raises(
        FileNotFoundError, match=r"other.txt is missing; expected layout: .*HDNet_Inference.py.*HDNet_TikTok"
    ):
        hdnet.find(tmp_path, "other")


def test_the_14_joints_are_the_h36m_joints_they_are_said_to_be():
    h36m = (
        "pelvis", "left_hip", "left_knee", "left_ankle", "right_hip", "right_knee", "right_ankle", "spine", "neck", "jaw",
        "head_top", "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist",
    )  # fmt: skip
    assert tuple(h36m[row] for row in H36M_TO_J14) == J14
