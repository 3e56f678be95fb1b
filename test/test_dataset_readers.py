"""The readers of original datasets, on small data written here in exactly the published formats."""

import os
import pickle
import sys
import types

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from published_formats import Call, picture, write_h36m, write_video

from hmr_ros.skeleton import COCO_KEYPOINTS
from hmr_ros.proxies.paper import hdnet
from hmr_ros.training.data.readers import amass, human36m, threedpw, up3d
from hmr_ros.training.data.readers.records import J14, Corrupt, DamagedFile


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
