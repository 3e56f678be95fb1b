"""hmr-ros adapt --rig: joints that several calibrated cameras see, against those of bodies whose every joint is known."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

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
from hmr_ros.geometry import Intrinsics, matrix_from_rotvec, pinhole
from hmr_ros.networks.checkpoints import EMBEDDED_CHECKPOINT, load_lifter
from hmr_ros.networks.regressor import BodyParameters
from hmr_ros.proxies import registry
from hmr_ros.skeleton import COCO_FROM_BLAZEPOSE, COCO_MIRROR
from hmr_ros.training.adaptation import adapt as adaptation
from hmr_ros.training.adaptation import report, teacher
from hmr_ros.training.adaptation.recordings import People, split
from hmr_ros.training.adaptation.rig import Mount
from hmr_ros.training.adaptation.triangulation import ALLOWED, linear, triangulated
from hmr_ros.training.data.mapped import Rows
from hmr_ros.training.metrics import COCO_HIPS, mpjpe, root_aligned
from hmr_ros.training.data.rendered.clips import recorded, turned
from hmr_ros.training.data.rendered.scene import FACING, SceneConfig, SceneMaker

SIZE, RATE, FRAMES = (480, 640), 10.0, 40
LENSES = (
    Camera(pinhole(640, 480, 75.0)), Camera(Intrinsics(430.0, 432.0, 325.0, 236.0), "plumb_bob", (-0.25, 0.06, 0.001, -0.001)),
    Camera(pinhole(640, 480, 80.0)), Camera(pinhole(640, 480, 70.0)),
)  # fmt: skip
PLACES = np.array([[3.2, 1.6, 3.0], [-3.0, 2.2, 2.8], [-3.1, 1.2, -2.9], [2.8, 1.9, -3.3]])  # of the cameras: corners of a room, y up
CROSSING = (1.2, -1.2)  # metres: from where to where one of two people walks, the other the opposite way


def looking(place: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Rotation (3, 3) from the optical frame of a camera at ``place`` that looks ``at`` a point into a world with y up."""
    forward = (at - place) / np.linalg.norm(at - place)
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    return np.column_stack([right, np.cross(forward, right), forward])


RIG = tuple(Mount(name, looking(place, np.array([0, 0.9, 0])), place) for name, place in zip(("door", "window", "desk", "shelf"), PLACES))


class Room:
    """Two people who walk past each other, what cameras detect of them, and where their joints are."""

    def __init__(self, skeleton: PosedKeypoints, ends=CROSSING, rig=RIG):
        self.skeleton, self.rig = skeleton, rig
        rng = np.random.default_rng(0)
        self.times = np.arange(FRAMES) / RATE
        self.poses, self.places, self.betas = [], [], rng.normal(0, 0.7, (2, 10)).astype(np.float32)
        for number in range(2):
            start, end = (-ends[0], -ends[1]) if number else ends
            yaw = np.pi / 2 if end > start else -np.pi / 2
            self.poses.append(matrix_from_rotvec(turned(recorded("bullet/walk", RATE, FRAMES, start=2.0 * number), yaw)).astype(np.float32))
            self.places.append(np.column_stack([np.linspace(start, end, FRAMES), np.full(FRAMES, 0.95), np.full(FRAMES, 0.5 * number - 0.25)]))

    def joints(self, number: int, times: np.ndarray) -> np.ndarray:
        """(T, 17, 3) in the world at any time."""
        with torch.no_grad():
            points = self.skeleton(torch.from_numpy(self.poses[number]), torch.from_numpy(self.betas[number]).expand(FRAMES, -1))[1].numpy()
        points = (points + self.places[number][:, None]).reshape(FRAMES, -1)
        return np.stack([np.interp(times, self.times, column) for column in points.T], axis=1).reshape(-1, 17, 3)

    def filmed(self, cameras=(0, 1, 2, 3), noise=3.5, late=0.0, wrong=0.0, shows=None) -> tuple[People, np.ndarray, np.ndarray]:
        """Detections by some cameras, their true joints (N, 17, 3) in camera axes, and who they are (N,). ``late``: seconds between the frames of
        one camera and the next; ``wrong``: the share of the first camera's joints that lie anywhere; ``shows``: camera → who is seen by it."""
        rng, parts, truth, who, track = np.random.default_rng(1), [], [], [], 0
        for number, camera in enumerate(cameras):
            times = self.times[:-2] + number * late
            for actor in (0, 1) if shows is None else shows[camera]:
                true = (self.joints(actor, times) - self.rig[camera].position) @ self.rig[camera].rotation
                pixels = LENSES[camera].project(true) + rng.normal(0, noise, (len(times), 17, 2))
                if number == 0:
                    far = rng.random(pixels.shape[:2]) < wrong
                    pixels[far] += rng.choice([-1, 1], (far.sum(), 2)) * rng.uniform(50, 150, (far.sum(), 2))
                    turned_round = rng.random(len(times)) < wrong / 2  # left is taken for right
                    pixels[turned_round] = pixels[turned_round][:, list(COCO_MIRROR)]
                confidence = np.where(rng.random(pixels.shape[:2]) < 0.1, 0.05, 0.9)
                low, high = pixels.min(1), pixels.max(1)
                known = np.argmax(np.array(COCO_FROM_BLAZEPOSE)[None] == np.arange(33)[:, None], axis=1)
                middle = true[:, 11:13].mean(1, keepdims=True)
                parts.append({
                    "stamp": times, "keypoints": np.concatenate([pixels, confidence[..., None]], -1).astype(np.float32), "box": np.concatenate([low, high], 1),
                    "crop": np.column_stack([(low + high) / 2, 1.25 * (high - low).max(1)]).astype(np.float32), "image_size": np.tile(SIZE, (len(times), 1)),
                    "index": np.arange(len(times)), "landmarks": pixels[:, known].astype(np.float32), "world": (true - middle)[:, known].astype(np.float32),
                    "track": np.full(len(times), track), "recording": np.full(len(times), number), "agreed": np.ones(len(times), bool),
                })  # fmt: skip
                truth.append(true), who.append(np.full(len(times), actor))
                track += 1
        rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        track, recording = rows.pop("track"), rows.pop("recording")
        people = People(rows, Rows([np.empty((0, 1))]), track, recording, tuple(LENSES[camera] for camera in cameras))
        return people, np.concatenate(truth), np.concatenate(who)


@pytest.fixture(scope="module")
def skeleton():
    return PosedKeypoints(BodyModel.load(None))


def off(points, truth) -> np.ndarray:
    """Millimetres of every joint that is triangulated."""
    apart = 1000 * np.linalg.norm(points - truth, axis=-1)
    return apart[np.isfinite(apart)]


def rig_of(*cameras) -> list[Mount]:
    return [RIG[camera] for camera in cameras]


def fitted(room: Room, people: People, rig: Sequence[Mount], who: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Joints (N, 17, 3) in camera axes of the bodies that the teacher fits, from what a mediocre lifter would have said."""
    rng, axes = np.random.default_rng(2), np.concatenate([ray_axes(camera, people.rows["crop"][people.recording == number, :2])
                                                          for number, camera in enumerate(people.cameras)])  # fmt: skip
    frame, betas = people.rows["index"], room.betas[who]
    to_ray = axes @ np.stack([rig[number].rotation.T for number in people.recording])
    rotations = np.stack([room.poses[actor][i] for actor, i in zip(who, frame)])
    rotations[:, 0] = to_ray @ rotations[:, 0]
    rotations = (matrix_from_rotvec(rng.normal(0, 0.2, (len(who), 24, 3))) @ rotations).astype(np.float32)
    rest = room.skeleton.pelvis(torch.from_numpy(betas)).numpy()
    there = np.stack([room.places[actor][i] for actor, i in zip(who, frame)]) + rest - np.stack([rig[number].position for number in people.recording])
    place = np.einsum("nij,nj->ni", to_ray, there) - rest
    place[:, 2] *= 1.15  # as of somebody taken for taller
    focal = np.array([camera.intrinsics.fx for camera in people.cameras])[people.recording]
    cameras = np.column_stack([2 * focal / place[:, 2] / people.rows["crop"][:, 2], place[:, :2]]).astype(np.float32)
    regressed = BodyParameters(rotations, 0 * betas, cameras, np.full((len(who), 12), 0.7, np.float32))
    rotations, betas, place, _ = teacher._Fit(room.skeleton, people, regressed, points, teacher.TeacherConfig()).run()
    with torch.no_grad():
        joints = room.skeleton(torch.from_numpy(rotations), torch.from_numpy(betas))[1].numpy()
    return (joints + place[:, None]) @ axes


def alone(people: People) -> np.ndarray:
    return np.full((len(people), 17, 3), np.nan, np.float32)


# ---- points -----------------------------------------------------------------------------------------------------------


@given(places=st.lists(st.tuples(*[st.floats(-4, 4)] * 3), min_size=2, max_size=5), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=50)
def test_a_point_is_where_rays_without_noise_cross(places, seed):
    rng = np.random.default_rng(seed)
    places = np.array(places) + rng.normal(0, 0.3, (len(places), 3))
    turns = [looking(place, rng.normal(0, 0.3, 3) + [0, 9, 0]) for place in places]  # they look about upwards, from anywhere below
    poses = np.stack([Mount("", turn, place).pose for turn, place in zip(turns, places)])
    points = rng.uniform(-2, 2, (7, 3)) + [0, 9, 0]
    there = np.einsum("vij,nj->nvi", poses[..., :3], points) + poses[..., 3]
    weights = rng.uniform(0.3, 1, there.shape[:2])
    found, information = linear(there[..., :2] / there[..., 2:], weights, poses)
    sharp = information > 1e-3
    assert np.allclose(found[sharp], points[sharp], atol=1e-4)


def test_joints_are_where_they_are(skeleton):
    room = Room(skeleton)
    people, truth, _ = room.filmed(noise=0)
    found = triangulated(people, RIG)
    assert np.isfinite(found.points[..., 0]).mean() > 0.97 and off(found.points, truth).max() < 0.1  # lens distortion included
    people, truth, _ = room.filmed(noise=0, late=0.03)  # frames at other times, between which people move by 2 cm, and their hands by more
    assert np.percentile(off(triangulated(people, RIG).points, truth), 95) < 10
    people, truth, _ = room.filmed(noise=3.5)  # 3.7 cm at 4.5 m: four views of a joint make it 3.8 cm in space
    found = triangulated(people, RIG)
    assert np.median(off(found.points, truth)) < 42 and np.percentile(off(found.points, truth), 95) < 95
    assert found.known.all() and (0.02 < found.errors).all() and (found.errors < 0.04).all()


def test_wrong_joints_of_one_view_are_outvoted(skeleton):
    people, truth, _ = Room(skeleton).filmed(wrong=0.3)  # and in 15 % of its frames left is right
    found = triangulated(people, RIG)
    assert np.median(off(found.points, truth)) < 50 and np.percentile(off(found.points, truth), 95) < 110
    # Of the camera whose joints are wrong, too: where the others see them.
    theirs, known = people.recording == 0, np.isfinite(found.points[..., 0])
    seen = LENSES[0].project(truth[theirs])
    wrong = np.linalg.norm(people.rows["keypoints"][theirs, :, :2] - seen, axis=-1) > 40
    corrected = off(found.points[theirs][wrong], truth[theirs][wrong])
    assert wrong.mean() > 0.3 and known[theirs][wrong].mean() > 0.55 and np.median(corrected) < 60


# ---- who is who -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cameras", [(0, 1, 2, 3), (0, 1), (3, 2, 1)])
def test_people_who_cross_are_told_apart_by_cameras_that_expose_at_other_times(skeleton, cameras):
    people, truth, who = Room(skeleton).filmed(cameras, late=0.03)
    partners = triangulated(people, rig_of(*cameras)).partners
    of_track = np.array([who[people.track == track][0] for track in range(people.track.max() + 1)])
    assert (partners >= 0).mean() > 0.9
    for camera in range(len(cameras)):
        seen = partners[:, camera] >= 0
        assert (of_track[partners[seen, camera]] == who[seen]).all() and (partners[people.recording == camera, camera] == people.track[people.recording == camera]).all()


def test_tracks_that_are_cut_or_exchanged_do_not_mislead(skeleton):
    people, truth, who = Room(skeleton).filmed()
    tracks = people.track.copy()
    late = (people.recording == 0) & (people.rows["index"] > FRAMES // 2)
    tracks[late] = 1 - tracks[late]  # the tracker of one camera takes them for each other, that of the next begins new tracks
    late = (people.recording == 1) & (people.rows["index"] > FRAMES // 3)
    tracks[late] += 100
    order = np.lexsort((people.stamp, tracks))
    found = triangulated(replace(people, track=tracks)[order], RIG)
    assert found.known.mean() > 0.9 and np.percentile(off(found.points, truth[order]), 95) < 110


def test_whom_only_one_camera_sees_has_no_partner(skeleton):
    people, truth, who = Room(skeleton).filmed((0, 1), shows={0: (0, 1), 1: (1,)})
    found = triangulated(people, rig_of(0, 1))
    assert not found.known[who == 0].any() and found.known[who == 1].all()
    assert np.median(off(found.points, truth)) < 60


def test_cameras_that_share_nobody_change_nothing(skeleton, one_thread):
    room = Room(skeleton)
    people, _, who = room.filmed((0, 1), shows={0: (0,), 1: (1,)})
    away = [RIG[0], RIG[1]._replace(position=RIG[1].position + [40, 0, 0])]  # the next building
    found = triangulated(people, away)
    assert not found.known.any() and np.isnan(found.points).all() and np.isnan(found.errors).all()
    some = people[np.flatnonzero(people.rows["index"] < 8)]
    some_who = who[people.rows["index"] < 8]
    assert np.array_equal(fitted(room, some, away, some_who, triangulated(some, away).points), fitted(room, some, away, some_who, alone(some)))
    assert len(triangulated(people, ()).points) == len(people)  # without a rig
    assert not triangulated(people[np.flatnonzero(people.recording == 1)], away).known.any()  # nobody at all before the other


# ---- bodies -----------------------------------------------------------------------------------------------------------


def test_bodies_taught_by_several_cameras_are_nearer_to_the_truth(skeleton, one_thread):
    room = Room(skeleton)
    people, truth, who = room.filmed((0, 1, 3), wrong=0.2, shows={0: (0, 1), 1: (0,), 3: (0,)})
    first = people.rows["index"] < 20
    people, truth, who = people[np.flatnonzero(first)], truth[first], who[first]
    rig = rig_of(0, 1, 3)
    found = triangulated(people, rig)
    assert found.known[who == 0].mean() > 0.9 and not found.known[who == 1].any()
    bodies = [fitted(room, people, rig, who, points) for points in (alone(people), found.points)]
    where = [mpjpe(joints, truth) for joints in bodies]
    pose = [mpjpe(*(root_aligned(joints, COCO_HIPS) for joints in (some, truth))) for some in bodies]
    shared = who == 0
    assert where[0][shared].mean() > 400 and where[1][shared].mean() < 40  # mm, in the camera's frame: no longer as far away as somebody taller
    assert pose[1][shared].mean() < 0.6 * pose[0][shared].mean() and pose[1][shared].mean() < 35
    assert np.allclose(where[0][~shared], where[1][~shared], rtol=0.02)  # who is seen by one camera stays as he was


# ---- rigs that are wrong ----------------------------------------------------------------------------------------------


def spoilt(rig, which: int, **change) -> list[Mount]:
    return [mount._replace(**{name: value(mount) for name, value in change.items()}) if number == which else mount for number, mount in enumerate(rig)]


def turned_by(degrees: float, axis):
    return lambda mount: Rotation.from_rotvec(np.radians(degrees) * np.array(axis)).as_matrix() @ mount.rotation


ALL = {
    "two cameras exchanged": lambda rig: [rig[1], rig[0], *rig[2:]],
    "turned by 2 degrees": lambda rig: spoilt(rig, 1, rotation=turned_by(2, [0, 1, 0])),
    "nodding by 5 degrees": lambda rig: spoilt(rig, 1, rotation=turned_by(5, [1, 0, 0])),
    "turned by 90 degrees": lambda rig: spoilt(rig, 1, rotation=turned_by(90, [0, 1, 0])),
    "0.3 m aside": lambda rig: spoilt(rig, 1, position=lambda mount: mount.position + [0.3, 0, 0]),
    "twice the lengths": lambda rig: [mount._replace(position=2 * mount.position) for mount in rig],
    "half the lengths": lambda rig: [mount._replace(position=0.5 * mount.position) for mount in rig],
    "rotations the other way round": lambda rig: [mount._replace(rotation=mount.rotation.T) for mount in rig],
}


@pytest.mark.parametrize("name", ALL)
def test_a_rig_that_is_wrong_is_found_out_and_its_cameras_named(skeleton, name):
    people, _, _ = Room(skeleton).filmed()
    with pytest.raises(ValueError, match=r"the rig does not fit the people before (door|window|desk|shelf) and \w+: .*by (at least )?0\.\d\d m .*expected at most "
                                         rf"{ALLOWED} m.*Check its rotations"):  # fmt: skip
        triangulated(people, ALL[name](RIG))


def test_two_cameras_cannot_see_an_error_in_the_plane_of_both(skeleton):
    people, truth, _ = Room(skeleton).filmed((0, 1))  # a limit, and what it costs: docs/adapt.md
    found = triangulated(people, spoilt(rig_of(0, 1), 1, rotation=turned_by(5, [0, 1, 0])))
    assert 150 < np.median(off(found.points, truth)) < 250


def test_a_clock_that_is_off_is_found_out(skeleton):
    people, _, _ = Room(skeleton).filmed()
    people.rows["stamp"] += 0.6 * (people.recording == 2)
    with pytest.raises(ValueError, match="the rig does not fit the people before .*(desk|shelf).*their clocks"):
        triangulated(people, RIG)


def test_poses_that_are_written_the_other_way_round_are_recognised(skeleton):
    people, _, _ = Room(skeleton).filmed((0, 1))
    inverse = [mount._replace(rotation=mount.rotation.T, position=-mount.rotation.T @ mount.position) for mount in rig_of(0, 1)]
    with pytest.raises(ValueError, match="fits nobody before door, window, but the inverse of its poses does"):
        triangulated(people, inverse)
    to_optical = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # axes of an optical frame in one with x forward, z up
    with pytest.raises(ValueError, match="x forward and z up: give those of the optical frames"):
        triangulated(people, [mount._replace(rotation=mount.rotation @ to_optical.T) for mount in rig_of(0, 1)])


def test_a_camera_that_contradicts_two_others_is_named(skeleton):
    places = [np.array([4 * np.cos(angle), 0.95, 4 * np.sin(angle)]) for angle in (0.3, 2.4, 4.5)]  # as high as people: rays of two cameras always meet
    level = [Mount(name, looking(place, np.array([0, 0.95, 0])), place) for name, place in zip("abc", places)]
    people, _, _ = Room(skeleton, rig=level).filmed((0, 1, 2), noise=2)
    assert triangulated(people, level).known.mean() > 0.9
    with pytest.raises(ValueError, match="people before [abc]: joints that the other cameras agree on re-project 0.*expected at most"):
        triangulated(people, spoilt(level, 1, rotation=turned_by(2.5, [0, 1, 0])))
    with pytest.raises(ValueError, match="does not fit"):
        triangulated(people, spoilt(level, 1, rotation=turned_by(10, [0, 1, 0])))


# ---- the command ------------------------------------------------------------------------------------------------------


def test_recordings_of_one_scene_are_split_at_one_time():
    stamp, recording = np.concatenate([np.arange(40) / 10, np.arange(25) / 10]), np.repeat([0, 1], [40, 25])
    people = People({"stamp": stamp}, Rows([np.empty((0, 1))]), recording, recording, (LENSES[0],) * 2)
    first, last = split(people, 0.5, 0.0, together=True)
    assert first.stamp.max() < 1.95 <= last.stamp.min() and set(first.recording) == set(last.recording) == {0, 1}
    with pytest.raises(ValueError, match="nobody of recording 1 is in the part to adapt to"):
        split(People({"stamp": stamp + 2 * recording}, people.maps, recording, recording, people.cameras), 0.6, 0.0, together=True)


def test_rendered_people_before_four_cameras_are_triangulated_and_fitted(tmp_path, one_thread, monkeypatch):
    monkeypatch.setattr(registry, "make_extractor", cache(registry.make_extractor))  # the same networks for all cameras
    maker, frames = SceneMaker("test", config=SceneConfig(occluded=0.0)), 3
    size, lens, down, height, away = (480, 640), pinhole(640, 480, 75.0), 0.25, 1.7, 3.2
    poses, betas = turned(recorded("bullet/walk", RATE, frames, start=1.0), np.linspace(0, 0.3, frames)), np.random.default_rng(3).normal(0, 0.7, 10)
    tilt, cameras, truth = Rotation.from_euler("x", down).as_matrix(), [], []
    for number, yaw in enumerate(np.radians([0, 80, 170, 265])):
        level = Rotation.from_euler("y", yaw).as_matrix()  # axes of a level camera → world, y down, floor at 0
        place = level @ [0, -height, -away]
        cameras.append({"translation": place.tolist(), "rotation": (level @ tilt.T).tolist(), "clock": -number / RATE})  # each begins to record a frame before the one before
        room, folder = maker.backgrounds.sample(np.random.default_rng(number), size), tmp_path / f"camera-{number}"
        folder.mkdir()
        for frame in range(frames):
            pose = poses[frame].copy()
            pose[0] = (Rotation.from_matrix(FACING @ level.T @ FACING) * Rotation.from_rotvec(pose[0])).as_rotvec()
            right, _, far = level.T @ (np.array([0.1 * frame, 0, 0]) - place)
            person = maker.stand(pose, betas, tilt, height, (right, far), lens, size)
            truth.append(person.truth.keypoints3d + person.truth.translation)
            cv2.imwrite(str(folder / f"{number + frame:03d}.png"), maker.draw(np.random.default_rng(7), size, lens, tilt, [person], room=room)[0])
        for frame in range(number):
            cv2.imwrite(str(folder / f"{frame:03d}.png"), room)
    (tmp_path / "rig.json").write_text(json.dumps({"cameras": cameras}))
    config = adaptation.AdaptConfig(tuple(sorted(tmp_path.glob("camera-*"))), tmp_path / "out", rate=RATE, fov=75.0, workers=1, rig=tmp_path / "rig.json")
    people, _ = adaptation._extracted(config, Console(quiet=True))
    assert len(people) == len(truth) == 12 and np.ptp(people.stamp) == pytest.approx((frames - 1) / RATE)
    found = triangulated(people, adaptation._rig(config))
    assert np.median(off(found.points, np.stack(truth))) < 40
    facts = adaptation._taught(adaptation._rig(config), people, found)
    assert [fact["triangulated"] for fact in facts] == [3] * 4 and all(5 < fact["reprojection_mm"] < 35 for fact in facts)
    assert report.of_rig(facts[0]).startswith("camera 0: 3 of 3 detections to learn from are triangulated, joints re-project ")
    skeleton, axes = PosedKeypoints(maker.body), teacher.Rays(people).axes
    where = []
    for points in (alone(people), found.points):
        labels = teacher.teach(load_lifter(str(EMBEDDED_CHECKPOINT))[0], skeleton, people, points)
        with torch.no_grad():
            joints = skeleton(torch.from_numpy(labels.rotations), torch.from_numpy(labels.betas))[1].numpy()
        where.append([mpjpe(*(root_aligned(some, COCO_HIPS) for some in ((joints + labels.place[:, None]) @ axes, np.stack(truth)))).mean(),
                      mpjpe((joints + labels.place[:, None]) @ axes, np.stack(truth)).mean()])  # fmt: skip
    assert where[1][0] < 0.7 * where[0][0] and where[1][1] < 50  # mm
