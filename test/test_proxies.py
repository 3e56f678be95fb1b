"""Trimming, heatmaps and depth samples, against the paper's formulas written out anew."""

from dataclasses import replace
from importlib.resources import files

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hmr_ros.proxies.depth import DEPTH_BONES, coarse_depth, depth_along_bones, sensor_depth, trim_depth
from hmr_ros.proxies.config import EmbeddedConfig
from hmr_ros.proxies.embedded import EmbeddedExtractor
from hmr_ros.proxies.heatmaps import gaussian_heatmaps
from hmr_ros.skeleton import COCO_FROM_BLAZEPOSE


def trim_by_the_book(depth):
    """Equations 1-3 with Python lists: the reference."""
    values = sorted(v for v in depth.ravel().tolist() if np.isfinite(v) and v > 0)
    n = len(values)
    out = np.where(np.isfinite(depth) & (depth > 0), depth, 0)
    if n < 4:
        return out
    q1, q3 = np.median(values[: n // 2]), np.median(values[n - n // 2 :])
    lower, upper = q1 - 1.5 * (q3 - q1), q3 + 1.5 * (q3 - q1)
    result = out.copy()
    result[out > upper] = upper
    result[(out > 0) & (out < lower)] = lower
    return result


depths = arrays(
    np.float64,
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    elements=st.one_of(st.floats(-2, 10), st.just(0.0), st.just(np.nan), st.just(np.inf)),
)


@given(depths)
def test_trimming_follows_the_equations(depth):
    assert np.allclose(trim_depth(depth), trim_by_the_book(depth), rtol=1e-12)


@given(st.integers(0, 2**32 - 1))
def test_each_map_of_a_batch_is_trimmed_by_itself(seed):
    maps = np.random.default_rng(seed).gamma(2, 2, (2, 3, 5, 4)).astype(np.float32)
    batch = trim_depth(torch.from_numpy(maps))
    for i in np.ndindex(2, 3):
        assert np.allclose(batch[i].numpy(), trim_by_the_book(maps[i]), rtol=1e-5)


def test_trimming_tames_an_outlier_and_keeps_its_input():
    depth = np.full((8, 8), 4.0, np.float32) + np.linspace(0, 0.3, 64, dtype=np.float32).reshape(8, 8)
    depth[0, 0], depth[0, 1], depth[1, 0] = 30.0, 0.2, 0.0
    before = depth.copy()
    trimmed = trim_depth(depth)
    assert 4 < trimmed[0, 0] < 5 and 3.5 < trimmed[0, 1] < 4.1 and trimmed[1, 0] == 0
    assert np.array_equal(depth, before)
    assert np.array_equal(trimmed[2:], depth[2:])


def test_trimming_refuses_a_row():
    with pytest.raises(ValueError, match=r"expected \(\.\.\., H, W\)"):
        trim_depth(np.ones(4))


@given(st.floats(0, 31), st.floats(0, 31), st.floats(0.5, 6))
def test_a_heatmap_is_the_gaussian_around_its_joint(x, y, sigma):
    (heatmap,) = gaussian_heatmaps(np.array([[x, y, 1.0]]), 32, sigma)
    grid_y, grid_x = np.mgrid[:32, :32]
    expected = np.exp(-((grid_x - x) ** 2 + (grid_y - y) ** 2) / (2 * sigma**2))
    assert np.allclose(heatmap, expected, atol=1e-5)


def test_heatmaps_peak_at_one_in_row_y_column_x():
    (heatmap,) = gaussian_heatmaps(np.array([[20.0, 5.0, 0.4]]), 32)
    assert heatmap.shape == (32, 32) and heatmap[5, 20] == 1 == heatmap.max()


@pytest.mark.parametrize("absent", [[0, 0, 0], [3, 3, -1], [np.nan, 3, 1], [3, np.inf, 1]])
def test_an_absent_joint_is_a_zero_map(absent):
    joints = np.array([[[16, 16, 1], absent]], np.float32)
    heatmaps = gaussian_heatmaps(joints, 32)
    assert heatmaps.shape == (1, 2, 32, 32) and heatmaps[0, 0].max() == 1 and not heatmaps[0, 1].any()
    assert np.allclose(gaussian_heatmaps(torch.from_numpy(joints), 32).numpy(), heatmaps)


def standing_person():
    """33 landmarks of a simple standing figure in a 64² mask, with z: the left arm reaches 0.4 m towards the camera."""
    coco = np.array(
        [[32, 8], [33, 7], [31, 7], [35, 8], [29, 8], [40, 16], [24, 16], [44, 24], [20, 24], [46, 32], [18, 32],
         [37, 34], [27, 34], [37, 46], [27, 46], [37, 58], [27, 58]], np.float32
    )  # fmt: skip
    points = np.full((33, 2), 32, np.float32)
    points[list(COCO_FROM_BLAZEPOSE)] = coco
    points[[17, 19, 21]], points[[18, 20, 22]] = coco[9], coco[10]
    points[[29, 31]], points[[30, 32]] = coco[15], coco[16]
    world = np.zeros((33, 3), np.float32)
    world[:, :2] = (points - [32, 34]) / 32
    world[[13], 2], world[[15, 17, 19, 21], 2] = -0.2, -0.4
    return points, world, coco


def test_coarse_depth_follows_the_landmarks_and_stays_in_the_mask():
    points, world, coco = standing_person()
    mask = np.zeros((64, 64), np.float32)
    mask[4:62, 14:50] = 1
    depth = coarse_depth(points, world, np.ones(33), mask)
    assert (depth > 0).sum() == mask.sum() and not depth[mask == 0].any()
    left, right = (depth[int(y), int(x)] for x, y in (coco[9], coco[10]))
    assert right - left == pytest.approx(0.4, abs=0.05)
    assert 3.8 < depth[34, 32] < 4.0  # the belly's surface is nearer than the hips


@pytest.mark.parametrize("size", [64, 100, 128, 256])
def test_coarse_depth_fills_masks_of_any_size_alike(size):
    points, world, _ = standing_person()
    mask = np.zeros((size, size), np.float32)
    mask[size // 8 : -size // 16, size // 4 : -size // 4] = 1
    depth = coarse_depth(points * size / 64, world, np.ones(33), mask)
    assert np.array_equal(depth > 0, mask > 0)
    assert depth[size * 34 // 64, size // 2] == pytest.approx(3.9, abs=0.05)


def test_an_empty_mask_has_no_depth():
    points, world, _ = standing_person()
    assert not coarse_depth(points, world, np.ones(33), np.zeros((64, 64), np.float32)).any()


def test_sensor_depth_is_cut_out_of_the_image_by_the_mask():
    image = np.full((100, 200), 9.0, np.float32)
    image[20:80, 60:120] = 2.5
    image[50, 90] = np.nan
    mask = np.ones((60, 60), np.float32)
    mask[:, :30] = 0
    cut = sensor_depth(image, np.array([89.5, 49.5, 60], np.float32), mask)
    assert not cut[:, :31].any() and cut[30, 31] == 2.5
    assert np.isfinite(cut).all() and set(np.unique(cut)) == {0.0, 2.5}


def test_depth_along_bones_is_relative_to_the_torso():
    _, _, coco = standing_person()
    joints = np.concatenate([(coco + 0.5) / 32 - 1, np.ones((17, 1))], 1).astype(np.float32)
    depth = np.full((64, 64), 3.0, np.float32)
    depth[22:27, 42:47] = 2.6  # the left elbow
    values, valid = depth_along_bones(joints, depth)
    assert valid.all()
    upper_arm = values[DEPTH_BONES.index((5, 7))]
    assert upper_arm[0] == 0 and upper_arm[-1] == pytest.approx(-0.4, abs=1e-5)
    absolute, _ = depth_along_bones(joints, depth + 1.7)
    assert np.allclose(absolute, values, atol=1e-6)


def test_depth_along_bones_reads_the_half_precision_of_shards():
    joints = np.column_stack([np.random.default_rng(1).uniform(-0.8, 0.8, (17, 2)), np.ones(17)]).astype(np.float32)
    depth = np.random.default_rng(2).uniform(2, 4, (64, 64)).astype(np.float16)
    for half, full in zip(depth_along_bones(joints, depth), depth_along_bones(joints, depth.astype(np.float32)), strict=True):
        assert np.array_equal(half, full)


def test_depth_along_bones_knows_what_it_does_not_know():
    _, _, coco = standing_person()
    joints = np.concatenate([(coco + 0.5) / 32 - 1, np.ones((17, 1))], 1).astype(np.float32)
    joints[9, 2] = 0  # the left wrist was not seen
    values, valid = depth_along_bones(joints, np.full((64, 64), 3.0, np.float32))
    assert not valid[DEPTH_BONES.index((7, 9))].any() and valid[DEPTH_BONES.index((8, 10))].all()
    values, valid = depth_along_bones(joints, np.zeros((64, 64), np.float32))
    assert not valid.any() and not values.any()


# ---- the embedded extractor -------------------------------------------------------------------------------------------


def test_proxies_of_the_flipped_roi_are_those_of_the_flipped_image():
    """Of a leaning person."""
    photo = cv2.imread(str(files("hmr_ros") / "assets" / "demo" / "astronaut.jpg"))
    height, width = photo.shape[:2]
    lean = cv2.getRotationMatrix2D((width / 2, height / 2), 25, 0.8)
    image = cv2.warpAffine(photo, lean, (width, height), borderMode=cv2.BORDER_REPLICATE)
    (person,) = EmbeddedExtractor(config=EmbeddedConfig(flip=True))(image)
    (other,) = EmbeddedExtractor()(np.ascontiguousarray(image[:, ::-1]))
    assert person.mirrored is not None and other.mirrored is None
    one, flipped, mirrored = person.blazepose, other.blazepose, person.mirrored.blazepose
    shift = 2 * person.crop[0] - (width - 1)  # from the flipped picture to the person mirrored about its crop
    size = person.crop[2]
    sure = flipped.landmarks[:, 2:].prod(1) > 0.5
    assert sure.sum() >= 12
    off = mirrored.landmarks[sure, :2] - flipped.landmarks[sure, :2] - [shift, 0]
    assert np.median(np.abs(off)) < 0.02 * size  # the RoIs are not quite the same, and hips at the border are guesses
    assert np.median(np.abs(mirrored.world[sure] - flipped.world[sure])) < 0.04
    np.testing.assert_allclose(mirrored.roi[3], flipped.roi[3], atol=0.15)
    assert abs(one.roi[3]) > 0.2 and np.sign(one.roi[3]) == -np.sign(mirrored.roi[3])
    np.testing.assert_allclose(person.mirrored.keypoints[5:7, 0], 2 * person.crop[0] - person.keypoints[[6, 5], 0], atol=1e-3)
    assert np.corrcoef(mirrored.embedding, flipped.embedding)[0, 1] > 0.9


def test_unsure_detections_need_the_landmark_network_to_agree(monkeypatch):
    photo = cv2.imread(str(files("hmr_ros") / "assets" / "demo" / "astronaut.jpg"))
    extractor = EmbeddedExtractor()
    (found,) = extractor.movenet(photo)
    unsure = replace(found, score=0.16)
    elsewhere = replace(unsure, keypoints=unsure.keypoints + np.array([0.3 * unsure.diagonal, 0, 0], np.float32))
    monkeypatch.setattr(extractor, "movenet", lambda *_: [unsure])
    assert [person.score for person in extractor(photo)] == [pytest.approx(0.16)]
    monkeypatch.setattr(extractor, "movenet", lambda *_: [elsewhere])
    assert extractor(photo) == []
