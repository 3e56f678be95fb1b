"""Covariance of positions: its ellipsoid against the camera's geometry, its size against errors of people who were kept out of the calibration."""

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hmr_ros import uncertainty
from hmr_ros.camera import Camera
from hmr_ros.estimate import BodyEstimate
from hmr_ros.geometry import Intrinsics

ERRORS = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "position_errors.csv"
SOURCES = ("depth", "known stature", "apparent size")
CAMERAS = [Camera(Intrinsics(430.0, 430.0, 321.0, 238.0)), Camera(Intrinsics(330.0, 330.0, 320.0, 240.0), "equidistant", (0.01, -0.002, 0.0, 0.0))]
OFF_AXIS = (1.9, -0.4, 3.2)


def somebody(pelvis=OFF_AXIS, source="apparent size", reliability=1.0, orient=(3.0, 0.3, -0.2)) -> BodyEstimate:
    """Whose pelvis is at ``pelvis``, metres; the body model's origin is elsewhere."""
    joints = np.tile(np.array([0.02, 0.25, -0.03], np.float32), (24, 1))
    zeros = {name: np.zeros(size, np.float32) for name, size in (("box", 4), ("body_pose", 69), ("betas", 10), ("crop", 3), ("weak_camera", 3))}
    return BodyEstimate(
        score=1.0, **zeros, keypoints=np.zeros((17, 3), np.float32), projected_keypoints=np.zeros((17, 2), np.float32), vertices=np.zeros((0, 3), np.float32),
        reliability=np.full(12, reliability, np.float32), global_orient=np.array(orient, np.float32), joints=joints, translation=np.float32(pelvis) - joints[0],
        axes="camera", translation_source=source,
    )  # fmt: skip


def sigmas(covariance: np.ndarray, step) -> float:
    """How many standard deviations a step from the mean is."""
    return float(np.sqrt(step @ np.linalg.solve(covariance, step)))


@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize("source", SOURCES)
def test_the_longest_axis_of_the_ellipsoid_is_seen_as_one_point(camera, source):
    """What the camera cannot tell is how far away somebody is: along that axis nothing moves in the image, across it everything does."""
    person = somebody(source=source)
    variances, directions = np.linalg.eigh(uncertainty.position_covariance(person))
    pelvis = person.joints[0] + person.translation
    steps = [np.linalg.norm(camera.project(pelvis + 0.3 * v) - camera.project(pelvis)) for v in directions.T]
    assert steps[2] < 0.01 and min(steps[:2]) > 20
    assert variances[0] == pytest.approx(variances[1])


def test_a_body_of_another_size_at_another_distance_is_as_many_standard_deviations_away_as_its_stature():
    covariance = uncertainty.position_covariance(somebody())
    pelvis = np.array(OFF_AXIS)
    assert sigmas(covariance, uncertainty.APPARENT_SIZE.sure * pelvis) == pytest.approx(1, rel=1e-4)
    for across in ((3.2, 0, -1.9), (0, 3.2, 0.4)):
        assert abs(np.dot(across, pelvis)) < 1e-9
        step = np.array(across) / np.linalg.norm(across)
        assert sigmas(covariance, uncertainty.ACROSS.sure * step) == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("pelvis", [(0, 0, 0.3), (0.3, 0.2, 2.0), OFF_AXIS, (-20, 3, 40.0)])
def test_covariances_are_finite_and_positive_definite_and_grow_with_doubt(source, pelvis):
    last = 0.0
    for reliability in (1.0, 0.7, 0.3, 0.0):
        covariance = uncertainty.position_covariance(somebody(pelvis, source, reliability))
        assert covariance.shape == (3, 3) and np.isfinite(covariance).all() and np.array_equal(covariance, covariance.T)
        smallest = np.linalg.eigvalsh(covariance)[0]
        assert smallest > max(last, 1e-5)
        last = smallest


def test_distance_matters_where_it_is_a_guess_of_size():
    def along(source, distance):
        return uncertainty.standard_deviations(source, distance, np.full(12, 0.8))[0]

    assert [along(source, 4.0) / along(source, 2.0) for source in SOURCES] == pytest.approx([1, 2, 2])
    assert along("depth", 3.0) < along("known stature", 3.0) < along("apparent size", 3.0)


def test_a_turn_about_the_trunk_is_the_least_certain():
    person = somebody(reliability=0.8)
    person = BodyEstimate(**{**vars(person), "position_covariance": uncertainty.position_covariance(person)})
    covariance = uncertainty.pose_covariance(person)
    assert np.array_equal(covariance[:3, :3], person.position_covariance) and not covariance[:3, 3:].any()
    left, trunk, forward = Rotation.from_rotvec(person.global_orient).apply(np.eye(3))
    for axis, spread in zip((left, trunk, forward), uncertainty.TURN):
        assert sigmas(covariance[3:, 3:], spread(person.reliability) * axis) == pytest.approx(1, rel=1e-4)
    assert np.abs(np.linalg.eigh(covariance[3:, 3:])[1][:, 2] @ trunk) > 0.999


# ---- people of the test split, of whom the numbers know nothing ------------------------------------------------------------------


def held_out(setting: str) -> dict[str, np.ndarray]:
    """Columns of benchmarks/results/position_errors.csv."""
    with ERRORS.open() as file:
        rows = [row for row in csv.DictReader(file) if row["setting"] == setting and row["source"] == {"image": "apparent size", "stature": "known stature"}.get(setting, setting)]
    return {name: np.array([row[name] for row in rows]) if name in ("setting", "source") else np.array([float(row[name]) for row in rows]) for name in rows[0]}


def away(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Errors in standard deviations, along the ray (N,) and across it (2N,)."""
    known = [uncertainty.standard_deviations(*values) for values in zip(rows["source"], rows["distance"], rows["reliability"])]
    along, across = np.array(known).T
    return {"along": np.abs(rows["along"]) / along, "across": np.abs(np.concatenate([rows["across_x"] / across, rows["across_y"] / across]))}


@pytest.mark.parametrize("setting", ["image", "stature", "depth"])
def test_errors_of_other_people_are_as_large_as_the_covariance_says(setting):
    rows = held_out(setting)
    assert len(rows["along"]) > 500
    for axis, deviations in away(rows).items():
        assert 0.62 < np.mean(deviations < 1) < 0.80, axis  # 0.68 of a normal distribution
        assert 0.92 < np.mean(deviations < 2) < 0.98, axis  # 0.95
        assert 0.85 < np.sqrt(np.mean(deviations**2)) < 1.2, axis


@pytest.mark.parametrize("setting", ["image", "stature", "depth"])
@pytest.mark.parametrize("name", ["distance", "reliability"])
def test_it_holds_near_and_far_and_for_whoever_is_hard_to_see(setting, name):
    rows = held_out(setting)
    for part in np.array_split(np.argsort(rows[name]), 3):
        for axis, deviations in away({key: values[part] for key, values in rows.items()}).items():
            assert 0.87 < np.mean(deviations < 2) < 0.995, (axis, rows[name][part].min())
            assert 0.75 < np.sqrt(np.mean(deviations**2)) < 1.4, (axis, rows[name][part].min())
