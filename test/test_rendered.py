"""Synthetic people: poses within what joints can do, pictures that depend on their number only, truth that is true."""

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from hmr_ros.body.model import BodyModel
from hmr_ros.geometry import matrix_from_rotvec, mirror_rotvec
from hmr_ros.skeleton import COCO_MIRROR, SMPL_MIRROR
from hmr_ros.training.data.rendered import dataset as rendered
from hmr_ros.training.data import shard_work, shards
from hmr_ros.training.data.rendered.backgrounds import Backgrounds, split_of_file
from hmr_ros.training.data.rendered.effects import disc, photograph_roughly, streak
from hmr_ros.training.data.rendered.everyday import EVERYDAY, JOINT
from hmr_ros.training.data.rendered.new_cameras import PRESETS, VISIT, RecordingMaker
from hmr_ros.training.data.rendered.poses import (
    SPLITS,
    PoseSampler,
    SampledPose,
    embedded_clips,
    interpolate,
    limit_joints,
    split_of_clip,
    without_heading,
)
from hmr_ros.training.data.rendered.scene import SceneConfig, SceneMaker

TINY = {"count": 6, "shard_size": 3, "seed": 5, "workers": 1}


@pytest.fixture(scope="module")
def body():
    return BodyModel.load(None)


@pytest.fixture(scope="module")
def maker():
    return SceneMaker("train")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Six pictures before made-up rooms, seen by the real detectors."""
    out = tmp_path_factory.mktemp("rendered")
    manifest = rendered.generate(rendered.RenderedConfig(out=out, save_images=2, **TINY))
    return out, manifest


def forward(body, rotvec, betas=None):
    rotations = torch.from_numpy(matrix_from_rotvec(np.asarray(rotvec))[None])
    betas = torch.zeros(1, 10) if betas is None else torch.from_numpy(betas)[None]
    with torch.inference_mode():
        output = body.forward(rotations, betas)
    return output.joints[0].numpy(), output.keypoints[0].numpy()


# ---- poses ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("category", EVERYDAY)
def test_everyday_poses_are_finite_and_stay_within_joint_limits(category):
    for seed in range(20):
        pose = limit_joints(EVERYDAY[category][0](np.random.default_rng(seed)))
        assert pose.shape == (24, 3) and np.isfinite(pose).all()
        assert pose[JOINT["left_elbow"], 1] < 0 < pose[JOINT["right_elbow"], 1]
        assert 0 < pose[JOINT["left_knee"], 0] <= 2.5 and 0 < pose[JOINT["right_knee"], 0] <= 2.5


def test_elbows_and_knees_bend_forwards_and_backwards_as_people_do(body):
    pose = np.zeros((24, 3))
    for joint in ("left_elbow", "right_elbow", "left_knee", "right_knee"):
        pose[JOINT[joint]] = {"elbow": [0, 1.2, 0], "knee": [1.2, 0, 0]}[joint.split("_")[1]]
    pose[JOINT["left_elbow"]] *= -1
    kept = limit_joints(pose)
    np.testing.assert_array_equal(kept, pose)
    joints, _ = forward(body, kept)
    assert joints[JOINT["left_wrist"], 2] > joints[JOINT["left_elbow"], 2] + 0.1  # the body faces +z
    assert joints[JOINT["right_wrist"], 2] > joints[JOINT["right_elbow"], 2] + 0.1
    assert joints[JOINT["left_ankle"], 2] < joints[JOINT["left_knee"], 2] - 0.1
    broken = limit_joints(-pose)
    straight = broken[[JOINT["left_elbow"], JOINT["left_knee"]]]
    assert np.linalg.norm(straight, axis=1).max() < 0.05  # not bent the wrong way


def test_named_situations_are_what_their_names_say(body):
    def drop(category, upper, lower):
        poses = np.stack([EVERYDAY[category][0](np.random.default_rng(seed)) for seed in range(15)])
        with torch.inference_mode():
            joints = body.forward(torch.from_numpy(matrix_from_rotvec(poses)), torch.zeros(15, 10)).joints
        return float((joints[:, JOINT[upper], 1] - joints[:, JOINT[lower], 1]).median())

    assert drop("standing", "pelvis", "left_ankle") > 0.7
    assert drop("crouching", "pelvis", "left_ankle") < 0.5
    assert drop("sitting", "pelvis", "left_knee") < 0.25
    assert drop("arms_raised", "left_wrist", "left_shoulder") > 0.1
    assert drop("standing", "left_shoulder", "left_wrist") > 0.35
    assert drop("bending", "neck", "pelvis") < 0.75 * drop("standing", "neck", "pelvis")


@pytest.mark.parametrize("split", SPLITS)
def test_mirrored_poses_give_mirrored_bodies(body, split):
    sampler = PoseSampler(split)
    for seed in range(3):
        pose = sampler.sample(np.random.default_rng(seed)).rotvec
        mirrored = mirror_rotvec(pose, SMPL_MIRROR)
        np.testing.assert_allclose(mirror_rotvec(mirrored, SMPL_MIRROR), pose)
        joints, keypoints = forward(body, pose)
        other_joints, other_keypoints = forward(body, mirrored)
        flip = np.array([-1, 1, 1])
        np.testing.assert_allclose(other_joints, joints[list(SMPL_MIRROR)] * flip, atol=2e-3)  # the body is symmetric to 2 mm
        np.testing.assert_allclose(other_keypoints, keypoints[list(COCO_MIRROR)] * flip, atol=2e-3)


def test_recorded_clips_belong_to_one_split_each():
    names = set(embedded_clips())
    parts = {split: set(PoseSampler(split).clips) for split in SPLITS}
    assert all(parts.values())
    assert set.union(*parts.values()) == names
    assert sum(len(part) for part in parts.values()) == len(names)
    assert all(split_of_clip(name) == split for split, part in parts.items() for name in part)
    with pytest.raises(ValueError, match="'dev'"):
        PoseSampler("dev")


def test_all_views_occur_and_the_front_most_often():
    sampler = PoseSampler("train")
    yaw = []
    for seed in range(400):
        forward_axis = Rotation.from_rotvec(sampler.sample(np.random.default_rng(seed)).rotvec[0]).apply([0, 0, 1])
        yaw.append(np.degrees(np.arctan2(forward_axis[0], forward_axis[2])))
    quarters = np.histogram(np.abs(yaw), [0, 60, 120, 180])[0] / len(yaw)
    assert quarters[0] > 0.5 and quarters.min() > 0.12  # 40 % + a third of the rest


def test_interpolation_ends_at_its_frames_and_heading_can_be_taken_away():
    first, second = np.random.default_rng(0).normal(0, 0.5, (2, 24, 3))
    np.testing.assert_allclose(interpolate(first, second, 0), first, atol=1e-9)
    np.testing.assert_allclose(interpolate(first, second, 1), second, atol=1e-9)
    turned = (Rotation.from_rotvec([0, 1.1, 0]) * Rotation.from_rotvec([0.3, 0, 0])).as_rotvec()
    np.testing.assert_allclose(without_heading(turned), [0.3, 0, 0], atol=1e-9)


# ---- pictures -------------------------------------------------------------------------------------------------------


def test_a_picture_depends_on_seed_split_and_number_only(maker):
    first = rendered.picture(maker, 3, "train", 17)
    rendered.picture(maker, 3, "train", 18)
    again = rendered.picture(SceneMaker("train"), 3, "train", 17)
    assert np.array_equal(first.image, again.image)
    assert all(np.array_equal(a.pose, b.pose) for a, b in zip(first.people, again.people, strict=True))
    others = [rendered.picture(maker, *key).image for key in ((4, "train", 17), (3, "val", 17), (3, "train", 16))]
    assert not any(np.array_equal(first.image, other) for other in others)


def test_truth_agrees_with_the_body_model_and_with_the_picture(maker, body):
    people = 0
    for index in range(8):
        scene = rendered.picture(maker, 0, "train", index)
        height, width = scene.image.shape[:2]
        assert scene.image.dtype == np.uint8
        for person in scene.people:
            people += 1
            joints, keypoints = forward(body, person.pose, person.betas)
            np.testing.assert_allclose(person.joints, joints, atol=1e-4)
            np.testing.assert_allclose(person.keypoints3d, keypoints, atol=1e-4)
            x, y, z = (keypoints + person.translation).T
            fx, fy, cx, cy = scene.intrinsics
            np.testing.assert_allclose(person.keypoints, np.stack([fx * x / z + cx, fy * y / z + cy], 1), atol=0.1)
            inside = (person.keypoints > -1).all(1) & (person.keypoints < (width, height)).all(1)
            assert not (person.visible & ~inside).any()
            assert 0 <= person.visible_fraction <= 1
            assert 0.25 < person.translation[2] < 8
    assert people >= 8


@pytest.mark.parametrize("yaw, nose_is_seen", [(0.0, True), (np.pi, False)])
def test_who_shows_the_back_does_not_show_the_nose(yaw, nose_is_seen):
    class Standing:
        def sample(self, rng):
            pose = np.zeros((24, 3), np.float32)
            pose[0] = 0, yaw, 0
            return SampledPose(pose, "standing", "")

    maker = SceneMaker("train", config=SceneConfig(people=(1.0, 0.0, 0.0), cut=0.0, occluded=0.0), poses=Standing())
    shoulders, eye = [5, 6], 1
    for index in range(4):
        (person,) = rendered.picture(maker, 1, "train", index).people
        assert person.visible[0] == person.visible[eye] == nose_is_seen
        assert person.visible[shoulders].all()  # inside the flesh, but nothing else hides them
        assert person.visible_fraction > 0.99 and not person.cut and not person.occluded


def test_photos_are_split_and_an_unsuitable_folder_is_named(tmp_path):
    import cv2

    for i in range(10):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((90, 120, 3), 20 * i, np.uint8))
    files = {split: Backgrounds(tmp_path, split).files for split in SPLITS}
    assert [len(files[split]) for split in SPLITS] == [8, 1, 1]
    assert [split_of_file(i) for i in (8, 9, 18)] == ["val", "test", "val"]
    picture = Backgrounds(tmp_path, "val", procedural=0).sample(np.random.default_rng(0), (48, 64), plain=True)
    assert picture.shape == (48, 64, 3) and abs(int(picture.mean()) - 160) <= 1
    with pytest.raises(ValueError, match="none of them for the split 'val'"):
        for i in range(3, 10):
            (tmp_path / f"{i}.png").unlink()
        Backgrounds(tmp_path, "val")
    for folder, words in ((tmp_path / "nowhere", "nowhere, does not exist"), (tmp_path, "3 photos, none")):
        with pytest.raises(ValueError, match=words):
            rendered.generate(rendered.RenderedConfig(out=tmp_path / "out", backgrounds=folder, **{**TINY, "split": "val"}))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("settings", [
    {"field_of_view": (40, 80)}, {"everyday": 3}, {"distance": (6, 1)}, {"people": (1, 1)}, {"people": ()}, {"sizes": ((0, 0),)},
])  # fmt: skip
def test_scenes_that_cannot_be_are_refused(settings):
    with pytest.raises(ValueError, match=f"scene.{next(iter(settings))} is .* expected"):
        SceneConfig(**settings)


def test_a_small_camera_smears_along_its_motion_and_is_noisier_where_it_is_brighter():
    line = streak(8.0, np.pi / 2)
    assert line.sum() == pytest.approx(1) and np.ptp(np.nonzero(line > 0.05)[0]) >= 6 and np.ptp(np.nonzero(line > 0.05)[1]) <= 1
    assert disc(2.0).sum() == pytest.approx(1) and disc(2.0)[2, 2] == disc(2.0).max()
    canvas = np.full((120, 160, 3), 20, np.float32)
    canvas[:, 80:] = 200
    only = frozenset({"blur", "colour", "jpeg"})
    shots = [photograph_roughly(np.random.default_rng(seed), canvas, only).astype(float) for seed in range(12)]
    linear = [(shot / 255) ** 2.2 for shot in shots]
    assert np.mean([half[:, 90:].std() for half in linear]) > 2 * np.mean([half[:, :70].std() for half in linear])
    clean = photograph_roughly(np.random.default_rng(0), canvas, only | {"noise"})
    assert np.abs(clean - canvas).max() < 1
    first, again = (photograph_roughly(np.random.default_rng(3), canvas) for _ in range(2))
    assert np.array_equal(first, again)


# ---- data sets ------------------------------------------------------------------------------------------------------


def test_a_tiny_data_set_has_matching_rows(tiny, body):
    out, manifest = tiny
    data = rendered.load(out)
    found = len(data["index"])
    assert found >= 3 and manifest["detected"] == found
    assert manifest["people"] == found + len(data.get("missed_index", ()))
    assert manifest["images"] == 6 and json.loads((out / "manifest.json").read_text()) == manifest
    assert sorted(p.name for p in (out / "images").iterdir()) == ["000000.jpg", "000001.jpg"]
    distance = np.linalg.norm(data["keypoints"][..., :2] - data["keypoints2d"], axis=-1)
    diagonal = np.linalg.norm(np.ptp(data["keypoints2d"], axis=1), axis=-1)
    seen = data["visible"] & (data["keypoints"][..., 2] > 0.2)
    assert np.median((distance / diagonal[:, None])[seen]) < 0.05  # real detectors look at the person that truth names
    # ray axes: joints come from the ray orientation, and the ray through the crop's centre is their z
    for row in range(found):
        rotvec = data["pose"][row].copy()
        rotvec[0] = data["ray_orient"][row]
        joints, keypoints = forward(body, rotvec, data["betas"][row])
        np.testing.assert_allclose(data["joints"][row], joints, atol=1e-4)
        np.testing.assert_allclose(data["keypoints3d"][row], keypoints, atol=1e-4)
        fx, fy, cx, cy = data["intrinsics"][row]
        cu, cv, _ = data["crop"][row]
        ray = data["ray_rotation"][row] @ [(cu - cx) / fx, (cv - cy) / fy, 1]
        np.testing.assert_allclose(ray[:2], 0, atol=1e-5)


def test_an_interrupted_run_is_completed_with_the_same_bytes(tiny):
    out, _ = tiny
    before = {path.name: path.read_bytes() for path in out.glob("*.np[yz]")}
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("*.npz")}
    assert sorted(before) == [f"{kind}-0000{i}.np{'y' if kind == 'activations' else 'z'}" for kind in ("activations", "proxies", "truth") for i in (0, 1)]
    (out / "proxies-00001.npz").unlink()  # killed between the files of a shard
    rendered.generate(rendered.RenderedConfig(out=out, save_images=2, **TINY))
    after = {path.name: path.read_bytes() for path in out.glob("*.np[yz]")}
    assert after == before
    assert (out / "truth-00000.npz").stat().st_mtime_ns == times["truth-00000.npz"]  # complete shards are left alone
    assert not list(out.glob(".*.partial.*"))


def test_a_killed_run_leaves_no_process_behind_and_is_completed(tiny, tmp_path, wait_until, processes_of_session):
    """SIGKILL while two workers render: they notice, nothing half-written counts, and the next run adds what is missing."""
    code = (
        "from pathlib import Path; from hmr_ros.training.data.rendered import dataset as rendered\n"
        f"if __name__ == '__main__': rendered.generate(rendered.RenderedConfig(out=Path({str(tmp_path)!r}), count=40, shard_size=3, seed=5))"
    )
    script = tmp_path.parent / "generate.py"
    script.write_text(code)
    process = subprocess.Popen([sys.executable, "-P", script], stderr=subprocess.DEVNULL, start_new_session=True)
    wait_until(lambda: list(tmp_path.glob("proxies-*.npz")))
    process.kill()
    process.wait()
    wait_until(lambda: not processes_of_session(process.pid))
    manifest = rendered.generate(rendered.RenderedConfig(out=tmp_path, **TINY))
    assert manifest == tiny[1]
    for path in tiny[0].glob("*.np[yz]"):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_the_frozen_test_split_is_what_its_manifest_says():
    """The committed manifest gives a configuration whose first people are these: the generator has not changed."""
    frozen = rendered.frozen_test()
    config = rendered.frozen_config(rendered.RenderedConfig(out=Path("nowhere"), workers=3))
    assert (config.count, config.split, config.workers) == (2000, "test", 3)
    assert config.scene == SceneConfig(**{name: getattr(config.scene, name) for name in vars(config.scene)})
    assert frozen["people"] == frozen["detected"] + frozen["missed"]
    assert 0.2 < frozen["shares"]["mocap"] < 0.6 and frozen["shares"]["several"] > 0.2 and frozen["shares"]["occluded"] > 0.1
    assert rendered.compare_with_frozen(frozen) == ""
    assert "truth_sha256" in rendered.compare_with_frozen({**frozen, "truth_sha256": "another"})
    # Who is in a picture does not depend on what is behind them, so that made-up rooms do for a look at the first ones.
    maker = SceneMaker(config.split, config=config.scene)
    people = [
        rendered.fingerprint(i, p.category, p.clip, p.pose, p.betas)
        for i in range(rendered.FIRST)
        for p in rendered.picture(maker, config.seed, config.split, i).people
    ]
    assert rendered.digest_of(people) == frozen["first_truth_sha256"]


def test_two_processes_make_the_same_data_as_one(tiny, tmp_path):
    out, _ = tiny
    rendered.generate(rendered.RenderedConfig(out=tmp_path, **{**TINY, "workers": 2}))
    one, two = rendered.load(out), rendered.load(tmp_path)
    assert one.keys() == two.keys()
    for name in one:
        assert np.array_equal(one[name], two[name]), name
    assert np.array_equal(rendered.load_activations(out), rendered.load_activations(tmp_path))


def test_truth_is_never_needed_for_proxies(tiny, tmp_path):
    out, _ = tiny
    for path in out.glob("proxies-*.npz"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    proxies = rendered.load_proxies(tmp_path)
    assert not {"pose", "betas", "joints", "keypoints2d", "keypoints3d", "translation", "visible"} & set(proxies)
    with pytest.raises(FileNotFoundError, match="truth"):
        rendered.load(tmp_path)
    for path in out.glob("truth-*.npz"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match="0 activations"):
        rendered.load_activations(tmp_path)


def test_another_data_set_in_the_same_folder_is_refused(tiny):
    out, _ = tiny
    with pytest.raises(ValueError, match="seed"):
        rendered.generate(rendered.RenderedConfig(out=out, **{**TINY, "seed": 6}))
    with pytest.raises(ValueError, match="workers 0"):
        rendered.generate(rendered.RenderedConfig(out=out, **{**TINY, "workers": 0}))


def test_a_folder_without_shards_is_free_and_a_maker_that_fails_says_why(tmp_path):
    shard_work.claim(tmp_path, {"seed": 1})
    shard_work.claim(tmp_path, {"seed": 2})  # nothing was made of the first
    with pytest.raises(ValueError, match="invalid literal for int.*no maker"):
        shard_work.make_shards(partial(int, "no maker"), [(0, range(2)), (1, range(2, 4))], 4, 2, "nothing")


def test_detections_go_to_the_person_they_are_of(maker):
    from hmr_ros.proxies import PersonProxies

    scene = next(s for s in (rendered.picture(maker, 2, "train", i) for i in range(60)) if len(s.people) >= 2)
    first, second = scene.people[:2]
    blank = np.zeros((4, 4), np.float32)

    def detection(person, shift=0.0):
        keypoints = np.column_stack([person.keypoints + shift, np.full(17, 0.8)]).astype(np.float32)
        return PersonProxies(0.9, person.box, keypoints, np.ones(3), blank, blank, "none", confident=0.3)

    detected = [detection(second), detection(first, shift=3.0)]
    assert sorted(shards.match(detected, [first, second])) == [(0, 1), (1, 0)]
    nowhere = replace(detection(first), keypoints=detection(first, shift=1e4).keypoints)
    assert shards.match([nowhere], [first, second]) == []
    assert shards.match([], scene.people) == [] and shards.match(detected, []) == []


@pytest.mark.parametrize("preset", PRESETS)
def test_a_recording_is_seen_by_its_mounted_camera_frame_by_frame(preset, body):
    """Independent of the renderer's pinhole: floor, field of view and steps between frames, from the truth of the frames alone."""
    maker, camera = RecordingMaker(preset, seed=4), PRESETS[preset]
    scenes = [maker.make(index) for index in (0, 1, 2 * VISIT)]
    first, second, other = (scene.people[0] for scene in scenes)
    np.testing.assert_array_equal(maker.make(1).image, scenes[1].image)  # of preset, seed and number alone
    assert [scene.stamp for scene in scenes] == pytest.approx([0, 0.1, 2 * (0.1 * VISIT + 3)])
    np.testing.assert_array_equal(first.betas, second.betas)
    assert not np.array_equal(first.betas, other.betas)
    down = np.array([0, np.cos(camera.looking_down), np.sin(camera.looking_down)])  # of a camera that looks down by so much
    for person in (first, second, other):
        rotations, betas = torch.from_numpy(matrix_from_rotvec(person.pose)[None]), torch.from_numpy(person.betas)[None]
        with torch.inference_mode():
            vertices = body.forward(rotations, betas).vertices[0].numpy() + person.translation
        assert (vertices @ down).max() == pytest.approx(camera.height, abs=1e-3)  # metres from the optical centre to the floor
    half = np.degrees(np.arctan((camera.size[1] / 2) / scenes[0].intrinsics.fx))
    assert 2 * half == pytest.approx(camera.field_of_view, abs=0.01)
    assert 0 < np.linalg.norm((first.joints + first.translation) - (second.joints + second.translation), axis=1).max() < 1.0  # in 0.1 s
    assert scenes[0].image.mean() < 100 and not np.array_equal(scenes[0].image, scenes[1].image)
