"""The embedded files: accounted for, unaltered, and what their descriptions say they are."""

import hashlib
import json
from functools import reduce
from importlib.resources import files
from operator import mul
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hmr_ros import runtime

ASSETS = Path(str(files("hmr_ros"))) / "assets"
NOTICE = Path(__file__).resolve().parents[1] / "NOTICE"
MANIFEST = json.loads((ASSETS / "manifest.json").read_text())
NOSE, LEFT_EYE, RIGHT_EYE, LEFT_SHOULDER, RIGHT_SHOULDER = 0, 1, 2, 5, 6  # COCO-17


def payload():
    """Every asset that is data: all files but texts about them."""
    return [p for p in ASSETS.rglob("*") if p.is_file() and p.suffix not in (".json", ".md", ".py", ".pyc")]


def test_every_asset_has_an_origin_a_licence_and_its_hash():
    assert {p.relative_to(ASSETS).as_posix() for p in payload()} == set(MANIFEST)
    for name, entry in MANIFEST.items():
        assert entry["origin"] and entry["licence"] and entry["tool"], name
        digest = hashlib.sha256((ASSETS / name).read_bytes()).hexdigest()
        assert digest == entry["sha256"], f"{name} changed: run tools/update_manifest.py and look at NOTICE"


def test_every_asset_is_in_notice():
    text = NOTICE.read_text()
    assert not [name for name in MANIFEST if Path(name).name not in text]


def test_assets_stay_small_and_name_no_machine():
    assert sum(p.stat().st_size for p in payload()) < 56e6  # the limit of what is embedded
    assert (ASSETS / "lifter.safetensors").stat().st_size < 25e6
    assert (ASSETS / "pose_prior.safetensors").stat().st_size < 7.2e6
    for path in [p for p in ASSETS.rglob("*") if p.suffix in (".xml", ".json", ".md")]:
        text = path.read_text()
        assert not [root for root in ("/home/", "/tmp/", "/root/", "/work/") if root in text], path.name


# --- demo media ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def portrait():
    return cv2.imread(str(ASSETS / "demo" / "astronaut.jpg"))


@pytest.fixture(scope="module")
def frames():
    capture = cv2.VideoCapture(str(ASSETS / "demo" / "pedestrians.mp4"))
    result = []
    while True:
        ok, frame = capture.read()
        if not ok:
            return result
        result.append(frame)


def test_the_demo_media_decode_completely(portrait, frames):
    assert portrait.shape == (512, 512, 3)
    assert len(frames) == 90 and {f.shape for f in frames} == {(576, 768, 3)}
    assert np.abs(frames[0].astype(int) - frames[-1]).max() > 100  # it moves


# --- networks -----------------------------------------------------------------------------------------------------------------------


def movenet(image, height, width):
    """Raw MoveNet on an image stretched to the input: (6, 17, 3) x, y in image pixels, score; (6,) person scores."""
    network = runtime.compile(ASSETS / "movenet_multipose.xml", shapes={"input": (1, height, width, 3)})
    (out,) = network(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)[None, ..., ::-1].astype(np.float32))
    assert out.shape == (1, 6, 56)
    keypoints = out[0, :, :51].reshape(6, 17, 3)[..., [1, 0, 2]]
    return keypoints * [image.shape[1], image.shape[0], 1], out[0, :, 55]


def test_movenet_finds_the_face_and_the_persons_own_left(portrait):
    keypoints, scores = movenet(portrait, 256, 256)
    person = keypoints[scores.argmax()]
    assert scores.max() > 0.4 and np.sort(scores)[-2] < 0.1  # one person, nobody else
    np.testing.assert_allclose(person[NOSE, :2], (224, 121), atol=15)  # the tip of the nose in the picture
    assert person[LEFT_EYE, 0] > person[RIGHT_EYE, 0] + 20  # facing us: her left is on our right
    assert person[LEFT_SHOULDER, 0] > person[RIGHT_SHOULDER, 0] + 100


def test_movenet_takes_other_sizes_and_sees_small_people_at_512(frames):
    _, scores = movenet(frames[60], 384, 512)
    assert (scores > 0.25).sum() >= 4


def test_movenet_is_blind_in_the_dark():
    assert movenet(np.zeros((256, 256, 3), np.uint8), 256, 256)[1].max() < 0.1


def test_blazepose_agrees_with_movenet_on_a_face(portrait):
    network = runtime.compile(ASSETS / "pose_landmark_full.tflite")
    rgb = cv2.resize(portrait, (256, 256), interpolation=cv2.INTER_AREA)[None, ..., ::-1] / np.float32(255)
    landmarks, flag, mask, heatmaps, world = network(rgb)
    assert [a.shape for a in (landmarks, flag, mask, heatmaps, world)] == [(1, 195), (1, 1), (1, 256, 256, 1), (1, 64, 64, 39), (1, 117)]
    keypoints, scores = movenet(portrait, 256, 256)
    face = landmarks.reshape(39, 5)[[0, 2, 5], :2] * 2  # nose, eyes, in pixels of the photo
    np.testing.assert_allclose(face, keypoints[scores.argmax(), :3, :2], atol=15)
    assert 0.5 < flag[0, 0] <= 1  # a probability
    assert mask[0, 128, 110, 0] > 0 > mask[0, 10, 250, 0]  # logits: her neck, the sky
    np.testing.assert_allclose(world.reshape(39, 3)[[23, 24]].mean(0), 0, atol=0.02)  # metres about the hips


def test_blazepose_gives_its_embedding_and_its_feature_map(portrait):
    from hmr_ros.proxies import EMBEDDING_COUNT, FEATURE_MAP
    from hmr_ros.proxies.embedded import EmbeddedExtractor

    extractor = EmbeddedExtractor()
    person, other = (extractor(image)[0].blazepose for image in (portrait, portrait[:, ::-1].copy()))
    assert person.embedding.shape == other.embedding.shape == (EMBEDDING_COUNT,)
    assert np.isfinite(person.embedding).all() and person.embedding.std() > 0.1
    assert np.corrcoef(person.embedding, other.embedding)[0, 1] < 0.95  # another picture is another vector
    # Halfway the network still knows what is where: a flipped feature map is rather that of the flipped picture.
    assert person.feature_map.shape == other.feature_map.shape == FEATURE_MAP
    strength, flipped = (np.abs(one.feature_map).mean(0) for one in (person, other))
    assert np.corrcoef(strength.ravel(), flipped[:, ::-1].ravel())[0, 1] > np.corrcoef(strength.ravel(), flipped.ravel())[0, 1] + 0.1


# --- poses --------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def poses():
    with np.load(ASSETS / "poses.npz") as data:
        return dict(data)


def clip(poses, name):
    index = list(poses["clip_names"]).index(name)
    return poses["poses"][poses["clip"] == index].astype(np.float64).reshape(-1, 24, 3)


def test_poses_are_canonical_and_their_clips_consecutive(poses):
    values = poses["poses"].astype(np.float32)
    assert values.shape[1] == 72 and len(values) > 4000 and np.isfinite(values).all()
    assert np.linalg.norm(values.reshape(-1, 24, 3), axis=-1).max() < np.pi + 2e-3  # float16's rounding
    assert np.all(np.diff(poses["clip"]) >= 0) and set(poses["clip"]) == set(range(len(poses["clip_names"])))
    assert len(poses["fps"]) == len(poses["clip_names"]) and (poses["fps"] > 10).all()
    assert len(np.unique(values, axis=0)) > 0.95 * len(values)


def test_walkers_are_upright_swing_opposite_arms_and_bend_their_knees_backwards(poses):
    walk = clip(poses, "bullet/walk")
    root = Rotation.from_rotvec(walk[:, 0])
    assert root.apply([0, 1, 0])[:, 1].min() > 0.9
    knees = walk[:, [4, 5]]
    assert knees[..., 0].mean() > 0.2 and np.abs(knees[..., 1:]).max() < 0.02

    def forward(chain, bone):  # how far in front of the body, in the pelvis' frame
        return reduce(mul, [Rotation.from_rotvec(walk[:, j]) for j in chain]).apply(bone)[:, 2]

    left_leg, left_arm = forward([1], [0, -1, 0]), forward([3, 6, 9, 13, 16], [1, 0, 0])
    right_arm = forward([3, 6, 9, 14, 17], [-1, 0, 0])
    assert np.corrcoef(left_leg, left_arm)[0, 1] < -0.5 < 0.5 < np.corrcoef(left_leg, right_arm)[0, 1]


def test_elbows_and_knees_are_hinges_in_recovered_rotations(poses):
    names = [n for n in poses["clip_names"] if n.startswith("holosoma/")]
    recovered = np.concatenate([clip(poses, n) for n in names])
    assert np.quantile(recovered[:, [4, 5], 0], 0.02) > -0.1  # no knee bends forwards
    assert np.quantile(np.abs(recovered[:, [4, 5], 1:]), 0.99) < 0.35
    flexion = recovered[:, [18, 19], 1] * [-1, 1]
    assert np.quantile(flexion, 0.02) > -0.1 and np.quantile(np.abs(recovered[:, [18, 19], 2]), 0.99) < 0.35
    standing = recovered[np.linalg.norm(recovered[:, [1, 2]], axis=-1).max(1) < 0.3]
    assert len(standing) > 100 and Rotation.from_rotvec(standing[:, 0]).apply([0, 1, 0])[:, 1].min() > 0.8


def test_arms_hang_down_rather_than_up(poses):
    """The T-pose is the zero pose: hanging arms mean the left shoulder turned by about -90 degrees about z."""
    standing = clip(poses, "bullet/walk")
    assert Rotation.from_rotvec(standing[:, 16]).apply([1, 0, 0])[:, 1].max() < -0.6
    assert Rotation.from_rotvec(standing[:, 17]).apply([-1, 0, 0])[:, 1].max() < -0.6
