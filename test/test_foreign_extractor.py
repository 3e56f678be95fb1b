"""Whoever brings keypoints and depth of his own gets bodies by the paper's regressor, in the estimator and in the live node."""

import textwrap
from pathlib import Path

import numpy as np
import pytest
from foreign_extractor import PLACES, RenderedTruth, heading, make_estimator
from scipy.spatial.transform import Rotation

from hmr_ros.body.model import BodyModel
from hmr_ros.geometry import pinhole
from hmr_ros.networks.checkpoints import load_regressor
from hmr_ros.training.data import shards

IMAGE = np.full((480, 640, 3), 90, np.uint8)


@pytest.fixture(scope="module")
def estimator():
    return make_estimator()


def assert_those_who_stand_there(bodies):
    """One at each place, facing where he faces, with the mesh on his joints."""
    assert len(bodies) == len(PLACES)
    for place in PLACES:
        body = min(bodies, key=lambda body: abs(body.crop[0] - place[0]))
        orient = Rotation.from_rotvec(np.asarray(body.global_orient)).apply([0, 0, 1.0])
        assert orient @ heading(place) > np.cos(np.radians(45))
        off = np.linalg.norm(np.reshape(body.projected_keypoints, (17, 2)) - np.reshape(body.keypoints, (17, 3))[:, :2], axis=1)
        assert off.mean() < 0.06 * np.hypot(*(body.box[2:] - body.box[:2]))


def test_core_proxies_become_bodies(estimator):
    assert estimator.reliability_source == "agreement" and "truth" in estimator.backend
    assert_those_who_stand_there(estimator(IMAGE))
    assert estimator(np.zeros_like(IMAGE)) == []
    placed = estimator(IMAGE, intrinsics=pinhole(640, 480, 60))
    assert [body.axes for body in placed] == ["camera", "camera"]
    assert all(1 < body.translation[2] < 6 for body in placed)


def test_a_stream_follows_people_of_a_foreign_extractor(estimator):
    stream = estimator.stream()
    for i in range(12):
        assert_those_who_stand_there(stream(IMAGE, 1 + 0.1 * i))
    assert stream(np.zeros_like(IMAGE), 2.25) == []


def test_the_lifter_refuses_them_and_says_what_to_do(estimator):
    lifter = load_regressor("lifter", body_model=estimator.body_model, backend="openvino")
    with pytest.raises(ValueError, match="lifter requires blazepose.*RenderedTruth gives the core"):
        type(estimator)(estimator.extractor, lifter, estimator.body_model, estimator._body)
    with pytest.raises(ValueError, match="feature_map is None"):
        lifter(estimator.extractor.people)


def test_their_shards_train_the_papers_regressor_alone(tmp_path):
    """Rows hold the core and nothing that the extractor does not give."""
    extractor = RenderedTruth(BodyModel.load(None))
    rows = {}
    for person in extractor(IMAGE):
        shards.add_row(rows, shards.proxy_row(0, IMAGE.shape[:2], person))
    shards.save_proxies(tmp_path, 0, range(1), rows)
    loaded = shards.load_proxies(tmp_path)
    assert {"keypoints", "crop", "depth", "box"} <= set(loaded) and not {"mask", "landmarks", "appearance", "agreed"} & set(loaded)
    assert len(loaded["keypoints"]) == 2 and (np.asarray(loaded["depth"]) > 0).any()
    with pytest.raises(ValueError, match="mask is None.*use an extractor with masks"):
        shards.proxy_row(0, IMAGE.shape[:2], extractor(IMAGE)[0], np.ones(IMAGE.shape[:2], np.float32))


# ---- in the live node -----------------------------------------------------------------------------------------------

pytest.importorskip("rclpy")
from hmr_ros.ros.inputs import image_to_message  # noqa: E402
from live_processes import peer, ros, start, wait_for  # noqa: E402, F401

NODE = textwrap.dedent(
    f"""
    import sys
    sys.path.insert(0, {str(Path(__file__).parent)!r})
    from foreign_extractor import make_estimator
    from hmr_ros.ros.live import main
    sys.exit(main(sys.argv[1:], estimator_factory=make_estimator))
    """
)


def test_the_live_node_runs_with_a_foreign_extractor(peer, start):  # noqa: F811
    live = start(code=NODE)
    wait_for(lambda: peer.models or live.process.poll() is not None, live)
    message = peer.ask(lambda header: image_to_message(IMAGE, header))
    assert message.reliability_source == "agreement"
    assert_those_who_stand_there(message.bodies)
    assert live.end() == 0 and "Traceback" not in live.text()
