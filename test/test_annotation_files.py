"""The readers of SPIN's and VIBE's annotation files, on small data written here in exactly the published formats."""

import os

import joblib
import numpy as np
import pytest

from published_formats import Call, picture, write_h36m, write_video

from hmr_ros.body import inert_pickle
from hmr_ros.skeleton import COCO_KEYPOINTS
from hmr_ros.training.data.readers import human36m, spin, vibe
from hmr_ros.training.data.readers.records import H36M_TO_J14, J14, DamagedFile


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


def test_the_14_joints_are_the_h36m_joints_they_are_said_to_be():
    h36m = (
        "pelvis", "left_hip", "left_knee", "left_ankle", "right_hip", "right_knee", "right_ankle", "spine", "neck", "jaw",
        "head_top", "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist",
    )  # fmt: skip
    assert tuple(h36m[row] for row in H36M_TO_J14) == J14
