"""The whole ROS-free chain on real pictures: people, nobody, almost nothing, and depth that matters."""

from dataclasses import replace
from importlib.resources import files

import cv2
import numpy as np
import pytest

from hmr_ros import Bodies, HumanMeshEstimator
from hmr_ros.camera import Camera
from hmr_ros.geometry import Intrinsics, matrix_from_rotvec, project_pinhole
from hmr_ros.proxies.depth import RELATIVE_ORIGIN

DEMO = files("hmr_ros") / "assets" / "demo"


@pytest.fixture(scope="module")
def estimator():
    return HumanMeshEstimator.from_default(precision="fp32")  # the same on every CPU


@pytest.fixture(scope="module")
def portrait():
    (path,) = [p for p in DEMO.iterdir() if p.suffix == ".jpg"]
    return cv2.imread(str(path))


@pytest.fixture(scope="module")
def street():
    """A frame of pedestrians seen from above, several of them."""
    (path,) = [p for p in DEMO.iterdir() if p.suffix in (".mp4", ".avi")]
    capture = cv2.VideoCapture(str(path))
    frames = []
    while len(frames) < 12:
        ok, frame = capture.read()
        assert ok, f"{path} has fewer than 12 frames"
        frames.append(frame)
    return frames


def assert_sound(bodies, image, estimator):
    vertices = len(estimator.body_model.smpl.v_template)
    shapes = {
        "box": (4,), "keypoints": (17, 3), "reliability": (12,), "global_orient": (3,), "body_pose": (69,),
        "betas": (10,), "crop": (3,), "weak_camera": (3,), "joints": (24, 3), "vertices": (vertices, 3),
        "projected_keypoints": (17, 2),
    }  # fmt: skip
    for body in bodies:
        for name, shape in shapes.items():
            value = getattr(body, name)
            assert value.shape == shape and value.dtype == np.float32 and np.isfinite(value).all(), name
        assert 0 <= body.score <= 1 and (0 <= body.reliability).all() and (body.reliability <= 1).all()
        assert np.linalg.norm(body.body_pose.reshape(23, 3), axis=1).max() <= np.pi + 1e-5
        assert body.weak_camera[0] > 0
        x0, y0, x1, y1 = body.box
        assert 0 <= x0 < x1 <= image.shape[1] and 0 <= y0 < y1 <= image.shape[0]


def test_a_portrait_cut_by_the_border_gives_one_body_where_the_person_is(estimator, portrait):
    bodies = estimator(portrait)
    assert len(bodies) == 1
    assert_sound(bodies, portrait, estimator)
    (body,) = bodies
    assert body.reprojection_error(slice(0, 13)) < 0.05  # down to the hips; the knee that MoveNet sees on her helmet is none
    # The head of the mesh covers the face, which lies around (225, 110) of the 512² picture.
    scale = portrait.shape[0] / 512
    assert np.linalg.norm(body.projected_keypoints[0] / scale - [225, 115]) < 40
    # She faces the camera: her left shoulder is on the picture's right.
    assert body.projected_keypoints[5, 0] > body.projected_keypoints[6, 0]
    assert estimator.reliability_source == "learned"
    # Her legs are not in the picture: the estimate knows less of them than of her arms (COCO 5..10 and 13..16).
    assert body.reliability[8:].mean() < 0.7 * body.reliability[:6].mean()


def test_pedestrians_get_a_mesh_each_upright_and_on_their_joints(estimator, street):
    bodies = estimator(street[0])
    assert len(bodies) >= 3
    assert_sound(bodies, street[0], estimator)
    errors = [body.reprojection_error() for body in bodies]
    assert np.mean(errors) < 0.06
    for body in bodies:
        assert body.joints[15, 1] < body.joints[0, 1] < max(body.joints[7, 1], body.joints[8, 1])  # y points down


def test_nobody_is_seen_where_nobody_is(estimator):
    rng = np.random.default_rng(0)
    wall = cv2.GaussianBlur(rng.integers(0, 255, (480, 640, 3), dtype=np.uint8), (0, 0), 12)
    for image in (wall, np.zeros((480, 640, 3), np.uint8), np.zeros((1, 1, 3), np.uint8), np.zeros((3, 900, 3), np.uint8)):
        assert estimator(image) == []
        assert (estimator(image).detected, estimator(image).reason()) == (0, "nobody is detected")


def test_everybody_with_a_body_needs_no_reason(estimator, street):
    bodies = estimator(street[0])
    assert isinstance(bodies, list) and (bodies.detected, bodies.reason()) == (len(bodies), "")


def test_an_empty_result_tells_somebody_without_a_body_from_nobody(estimator, street):
    """Both were an empty list: a robot took somebody of whom too little is seen for an empty room."""
    person = max(estimator.extractor(street[0]), key=lambda p: p.score)
    faint = person.keypoints.copy()
    faint[5:, 2] = 0.1
    faint = replace(person, keypoints=faint)
    scrambled = replace(person, keypoints=person.keypoints[np.random.default_rng(0).permutation(17)])
    for people, counts, reason in (
        ([], (0, 0, 0), "nobody is detected"),
        ([faint], (1, 1, 0), "1 of 1 person has no body: too few confident joints"),
        ([scrambled, person], (2, 0, 1), "1 of 2 people has no body: the mesh misses the detected joints"),
        ([faint, person, scrambled], (3, 1, 1),
         "2 of 3 people have no body: 1 with too few confident joints, 1 whose mesh misses the detected joints"),
    ):  # fmt: skip
        bodies = estimator.estimate(people)
        assert (bodies.detected, bodies.too_few_joints, bodies.mesh_misses) == counts and bodies.not_finite == 0
        assert bodies.reason() == reason and len(bodies) == sum(someone is person for someone in people)


def test_a_count_without_causes_gives_a_reason_without_causes():
    """As out of a message, which has the count alone."""
    assert Bodies(detected=2).reason() == "2 of 2 people have no body"


@pytest.mark.parametrize(
    "image, found",
    [
        (np.zeros((4, 4), np.uint8), "(4, 4)"),
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((0, 4, 3), np.uint8), "empty"),
        (None, "NoneType"),
    ],
)
def test_what_is_no_image_is_refused_by_name(estimator, image, found):
    with pytest.raises(ValueError, match="image") as error:
        estimator(image)
    assert found in str(error.value)


def test_depth_of_another_size_is_refused(estimator, portrait):
    with pytest.raises(ValueError, match="align it"):
        estimator(portrait, depth=np.ones((3, 3), np.float32))


def test_depth_in_millimetres_is_refused(estimator, portrait):
    with pytest.raises(ValueError, match="divide millimetres by 1000"):
        estimator(portrait, depth=np.ones(portrait.shape[:2], np.uint16))


@pytest.mark.parametrize("intrinsics", [np.eye(3), (0, 600, 10, 10), (600, 600, np.nan, 10), (600, 600)])
def test_what_are_no_intrinsics_is_refused(estimator, portrait, intrinsics):
    with pytest.raises(ValueError, match="expected Intrinsics"):
        estimator(portrait, intrinsics=intrinsics)


def test_without_intrinsics_there_is_no_translation_and_axes_are_those_of_the_ray(estimator, portrait):
    (body,) = estimator(portrait)
    assert (body.translation, body.translation_source, body.position_covariance, body.axes, body.camera) == (None, None, None, "ray", None)


def test_with_intrinsics_the_body_stands_where_the_camera_sees_it(estimator, portrait):
    intrinsics = Intrinsics(600.0, 600.0, 255.5, 255.5)
    (body,), (without,) = estimator(portrait, intrinsics=intrinsics), estimator(portrait)
    assert body.axes == "camera" and body.translation_source == "apparent size"
    assert 0.3 < body.translation[2] < 5
    variances, directions = np.linalg.eigh(body.position_covariance)
    ray = (body.joints[0] + body.translation) / np.linalg.norm(body.joints[0] + body.translation)
    assert abs(directions[:, 2] @ ray) > 0.999 and 0.01 < np.sqrt(variances[0]) < 0.1 < np.sqrt(variances[2]) < 0.3 * np.linalg.norm(body.translation)
    (told,) = estimator(portrait, intrinsics=intrinsics, stature=1.7)
    assert told.translation_source == "known stature" and np.linalg.eigvalsh(told.position_covariance)[0] > 0
    pixels = project_pinhole(body.vertices + body.translation, intrinsics)  # the formula, not the record's own method
    assert np.allclose(pixels, body.pixels(body.vertices), atol=0.5)
    diagonal = np.linalg.norm(body.box[2:] - body.box[:2])
    between = np.linalg.norm(pixels - without.pixels(without.vertices), axis=1).mean()
    assert between < 0.05 * diagonal  # a metre away perspective differs from weak perspective, but not by much
    assert body.reprojection_error() < without.reprojection_error() + 0.02


def test_whoever_stands_off_the_axis_is_turned_by_the_ray(estimator, portrait):
    """The same picture at the right of a wide one: the same crop, seen under an angle."""
    wide = np.zeros((512, 1536, 3), np.uint8)
    wide[:, 1024:] = portrait
    focal = 600.0
    (by_ray,), (aside,) = estimator(wide), estimator(wide, intrinsics=Intrinsics(focal, focal, 255.5, 255.5))
    angle = np.degrees(np.arctan2(aside.crop[0] - 255.5, focal))
    assert angle > 50
    turned = matrix_from_rotvec(aside.global_orient) @ matrix_from_rotvec(by_ray.global_orient).T
    assert np.degrees(np.arctan2(turned[0, 2], turned[2, 2])) == pytest.approx(angle, abs=1)
    assert np.array_equal(aside.body_pose, by_ray.body_pose)


def test_a_distorted_image_gives_the_body_of_the_undistorted_one(estimator, portrait):
    camera = Camera(Intrinsics(600.0, 600.0, 255.5, 255.5), "plumb_bob", (-0.12, 0.02, 0.0, 0.0, 0.0))
    grid = np.stack(np.meshgrid(np.arange(512.0), np.arange(512.0)), -1)
    directions, known = camera.directions(grid)
    maps = (directions * 600 + 255.5).astype(np.float32)
    image = cv2.remap(portrait, maps, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    assert known.all()
    (plain,), (lens,) = estimator(portrait, intrinsics=camera.intrinsics), estimator(image, intrinsics=camera)
    assert np.linalg.norm(lens.translation - plain.translation) < 0.12 * plain.translation[2]
    assert lens.reprojection_error() < plain.reprojection_error() + 0.02
    assert np.linalg.norm(lens.projected_keypoints[:13] - camera.project(
        np.concatenate([(plain.projected_keypoints[:13] - 255.5) / 600, np.ones((13, 1))], 1)), axis=1).mean() < 25  # fmt: skip


def test_depth_changes_the_result(estimator, street):
    """A depth camera that sees one arm half a metre nearer bends the estimate, and towards the camera."""
    image = street[0]
    body = max(estimator(image), key=lambda b: b.score)
    flat = np.full(image.shape[:2], RELATIVE_ORIGIN, np.float32)
    near = flat.copy()
    (x0, y0), (x1, y1) = body.keypoints[[5, 9], :2].min(0) - 8, body.keypoints[[5, 9], :2].max(0) + 8
    near[int(max(y0, 0)) : int(y1), int(max(x0, 0)) : int(x1)] -= 0.5
    with_flat = _same(body, estimator(image, depth=flat))
    with_near = _same(body, estimator(image, depth=near))
    assert np.abs(with_flat.body_pose - with_near.body_pose).max() > 0.02
    assert np.array_equal(with_flat.keypoints, with_near.keypoints)


def test_unknown_depth_does_no_harm(estimator, street):
    empty = np.full(street[0].shape[:2], np.nan, np.float32)
    bodies = estimator(street[0], depth=empty)
    assert len(bodies) == len(estimator(street[0]))
    assert_sound(bodies, street[0], estimator)


def test_the_estimator_remembers_nothing(estimator, portrait, street):
    before = estimator(portrait)
    estimator(street[0])
    (again,) = estimator(portrait)
    assert np.array_equal(before[0].vertices, again.vertices)


def test_a_stream_follows_the_people_of_a_video(estimator, street):
    stream = estimator.stream()
    for i, frame in enumerate(street):
        followed, detected = stream(frame, stamp=0.1 * i), estimator(frame)
        assert followed.detected == sum(track.shown for track in stream.tracks)  # newcomers are shown once there is evidence
        assert_sound(followed, frame, estimator)
        assert abs(len(followed) - len(detected)) <= 2
        errors = [body.reprojection_error() for body in followed]
        assert np.mean(errors) < 0.07


def test_a_stream_keeps_to_a_person_whom_the_border_cuts(estimator, portrait):
    """Following landmarks that were invented below the border made her sit down, half as large, within a second."""
    stream, (alone,) = estimator.stream(), estimator(portrait)
    for i in range(6):
        (body,) = stream(portrait, 0.25 * i)
        assert np.linalg.norm(body.projected_keypoints[:7] - alone.projected_keypoints[:7], axis=1).max() < 15


def test_a_stream_survives_stamps_that_jump_and_scenes_that_change(estimator, portrait, street):
    stream = estimator.stream()
    assert len(stream(portrait, 10.0)) == 1
    assert len(stream(street[0], 3.0)) >= 3
    assert len(stream(portrait, 3.1)) == 1  # another picture of another size, at once
    assert len(stream(street[0], 3.2)) >= 3
    nobody = stream(np.zeros((480, 640, 3), np.uint8), 100.0)
    assert nobody == [] and nobody.reason() == "nobody is detected"
    assert len(stream(portrait, 100.1)) == 1


def test_a_stream_whose_stamps_stand_still_looks_for_people_in_every_frame(estimator, portrait, street):
    """A driver that leaves the stamps at zero: following for ever would never find anybody new."""
    stream = estimator.stream()
    assert len(stream(portrait, 0.0)) == 1
    assert len(stream(street[0], 0.0)) == len(estimator(street[0]))


def test_no_mesh_rather_than_a_wrong_one(estimator, street):
    """Joints that contradict each other: no body lies on them, so none is shown; too few of them show none either."""
    person = max(estimator.extractor(street[0]), key=lambda p: p.score)
    assert len(estimator.estimate([person])) == 1
    scrambled = person.keypoints[np.random.default_rng(0).permutation(17)]
    assert estimator.estimate([replace(person, keypoints=scrambled)]) == []
    faint = person.keypoints.copy()
    faint[5:, 2] = 0.1
    assert estimator.estimate([replace(person, keypoints=faint)]) == []


def test_non_finite_predictions_cost_one_body_and_not_the_others(estimator, street, caplog, monkeypatch):
    people = estimator.extractor(street[0])
    network = estimator.regressor._network

    def broken(features, feature_maps):
        outputs = [output.copy() for output in network(features, feature_maps)]
        outputs[0][0, 3] = np.nan
        return outputs

    whole = estimator.estimate(people)
    monkeypatch.setattr(estimator.regressor, "_network", broken)
    rest = estimator.estimate(people)
    assert len(rest) == len(whole) - 1 and "1 of" in caplog.text
    assert (rest.detected, rest.not_finite) == (whole.detected, 1) and rest.reason().endswith("its numbers are not finite")
    assert_sound(rest, street[0], estimator)


def test_openvino_and_torch_see_the_same_body(estimator, portrait):
    (ours,), (theirs,) = estimator(portrait), HumanMeshEstimator.from_default(backend="torch")(portrait)
    assert np.abs(ours.vertices - theirs.vertices).max() < 1e-3
    assert np.abs(ours.projected_keypoints - theirs.projected_keypoints).max() < 0.5


def test_another_body_keeps_the_pose_and_translates_the_shape(estimator, portrait, tmp_path):
    """As with a user's SMPL: another file, whose shape coefficients mean something else."""
    path = tmp_path / "other.npz"
    with np.load(files("hmr_ros") / "assets" / "body.npz") as embedded:
        arrays = {name: embedded[name] for name in embedded if name not in ("metadata", "vertex_region", "vertex_mirror")}
    arrays["shapedirs"] = -arrays["shapedirs"][..., ::-1]
    np.savez(path, **arrays)
    other = HumanMeshEstimator.from_default(body_model=path, precision="fp32")
    assert other.body_model.name == "other" and other.body_model.sha256 != estimator.body_model.sha256
    (ours,), (theirs,) = estimator(portrait), other(portrait)
    assert np.allclose(theirs.body_pose, ours.body_pose, atol=0.05)
    assert np.allclose(theirs.betas[9], -ours.betas[0], atol=0.3)  # stature is the last coefficient there, upside down
    height = [np.ptp(body.vertices[:, 1]) for body in (ours, theirs)]
    assert height[0] == pytest.approx(height[1], rel=0.02)


def _same(body, others):
    """The one among ``others`` whose box is nearest."""
    return min(others, key=lambda other: np.abs(other.box - body.box).max())
