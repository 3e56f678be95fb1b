"""Which CameraInfo belongs to an image, and for how long."""

import pytest

pytest.importorskip("rclpy")
from std_msgs.msg import Header  # noqa: E402

from hmr_ros.geometry import pinhole  # noqa: E402
from hmr_ros.ros.camera_state import CameraState  # noqa: E402
from hmr_ros.ros.inputs import intrinsics_to_message  # noqa: E402


def header(seconds, frame_id="eye"):
    made = Header(frame_id=frame_id)
    made.stamp.sec, made.stamp.nanosec = int(seconds), round(seconds % 1 * 1e9)
    return made


def info(seconds, fov=60.0, frame_id="eye"):
    return intrinsics_to_message(pinhole(64, 48, fov), 64, 48, header(seconds, frame_id))


def focal(state, seconds, arrival, frame_id="eye"):
    camera = state.camera(header(seconds, frame_id), 64, 48, arrival)
    return None if camera is None else camera.intrinsics.fx


F60, F30 = pinhole(64, 48, 60).fx, pinhole(64, 48, 30).fx


def test_each_image_gets_the_info_of_its_own_stamp():
    state = CameraState(timeout=2.0)
    assert focal(state, 100, 0) is None and state.state == "none received" and not state.problem
    state.put(info(100.0), 0.0)
    state.put(info(100.1, 30.0), 0.1)  # zooming
    assert focal(state, 100.0, 0.11) == pytest.approx(F60) and focal(state, 100.1, 0.12) == pytest.approx(F30)
    assert state.state == "current"


@pytest.mark.parametrize("seconds, arrival, words", [(105, 5.0, "none has come for 5.0 s"), (130, 0.5, "30.0 s apart")])
def test_after_a_restart_of_the_driver_old_intrinsics_are_not_used(seconds, arrival, words):
    state = CameraState(timeout=2.0)
    state.put(info(100), 0.0)
    assert focal(state, seconds, arrival) is None
    assert state.state == "expired" and words in state.problem and "camera_info_timeout" in state.problem
    state.put(info(seconds, 30.0), arrival)
    assert focal(state, seconds, arrival) == pytest.approx(F30) and not state.problem
    state.timeout = 0.0
    assert focal(state, 10 * seconds, 1e4) == pytest.approx(F30)


def test_infos_of_another_frame_are_not_used_and_those_of_none_are():
    state = CameraState(timeout=2.0)
    state.put(info(100, frame_id="other"), 0.0)
    assert focal(state, 100, 0.0) is None and 'frame_id "other", the image "eye"' in state.problem
    assert focal(state, 100, 0.0, frame_id="") == pytest.approx(F60)


def test_a_latched_info_lives_as_long_as_its_publisher():
    state = CameraState(timeout=2.0)
    state.put(info(5), 0.0, latched=True)
    state.put(info(5), 0.0)  # the same, heard by the other subscription
    assert focal(state, 1000, 900.0) == pytest.approx(F60) and state.state == "latched"
    state.forget_latched()
    assert focal(state, 1000, 900.0) is None and state.empty


def test_infos_without_a_stamp_are_tied_by_arrival():
    state = CameraState(timeout=2.0)
    state.put(info(0), 10.0)
    assert focal(state, 100, 11.0) == pytest.approx(F60) and focal(state, 100, 13.0) is None


def test_an_info_of_zeros_is_an_uncalibrated_camera():
    state = CameraState(timeout=2.0)
    zeros = info(100)
    zeros.k = [0.0] * 9
    state.put(zeros, 0.0)
    assert focal(state, 100, 0.0) is None and state.state == "uncalibrated" and not state.problem and state.remarks
