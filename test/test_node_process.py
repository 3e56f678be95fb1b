"""The live node as a process: signals, transitions, parameters and arguments. Over Fast DDS."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy")
import cv2  # noqa: E402
from lifecycle_msgs.srv import ChangeState, GetState  # noqa: E402
from live_processes import FAKE, PATIENCE, REAL, call, peer, picture, ros, start, wait_for  # noqa: E402, F401  peer, ros and start are fixtures

from hmr_ros.ros.inputs import image_to_message  # noqa: E402
from hmr_ros.ros.qos import NEWEST  # noqa: E402


@pytest.mark.parametrize(
    "signals", [[signal.SIGINT], [signal.SIGINT] * 2, [signal.SIGTERM], [signal.SIGINT, signal.SIGTERM, signal.SIGINT]]
)
def test_signals_end_the_node_in_peace(peer, start, signals):
    live = start()
    peer.ask(lambda header: image_to_message(picture(), header))
    assert live.end(*signals) == 0, live.text()
    assert "Traceback" not in live.text() and "Error" not in live.text()


NATIVE = FAKE.replace(
    "people, without = int",
    "import torch; torch.set_num_threads(1); [torch.ones(2000, 2000) @ torch.ones(2000, 2000) for _ in range(60)]; people, without = int",
)


def test_a_frame_in_native_code_does_not_abort_the_node_that_ends(peer, start):
    """Python ends the worker's thread where it comes back from C++, which calls std::terminate: exit code 134, as in the node's first frame."""
    live = start(code=NATIVE)
    wait_for(lambda: peer.models, live)
    wait_for(lambda: peer.images.get_subscription_count(), live)
    for _ in range(3):
        peer.images.publish(image_to_message(picture(), peer.header()))
        time.sleep(0.3)
    assert live.end(signal.SIGINT) == 0, live.text()
    assert "a frame is still in work" in live.text() and "Traceback" not in live.text()


def test_ctrl_c_while_the_models_load(start):
    live = start(loading=1.0)
    wait_for(lambda: b"hmr_ros" in Path(f"/proc/{live.process.pid}/cmdline").read_bytes(), live)
    wait_for(lambda: is_handling_sigint(live.process.pid), live)
    assert live.end(signal.SIGINT, signal.SIGINT) == 0, live.text()
    assert "Traceback" not in live.text()


def test_signals_in_a_hail_do_not_hang_the_process():
    """A threading.Event in the place of StopEvent deadlocks here: a signal interrupts the handler of another."""
    code = """
        import os, time
        from hmr_ros.ros.process import stop_event

        stop = stop_event()
        print("ready", flush=True)
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            stop.wait(0.01)
        print("done", flush=True)
        os._exit(0)
    """
    command = [sys.executable, "-P", "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        deadline = time.monotonic() + 20
        while process.poll() is None and time.monotonic() < deadline:
            for number in (signal.SIGINT, signal.SIGTERM):
                process.send_signal(number)
        process.kill()
        assert process.stdout.read() == "done\n"


def is_handling_sigint(pid):
    """Whether the process catches SIGTERM, which Python itself does not: our handlers are in place."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt"))
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def test_lifecycle_there_and_back(peer, start):
    live = start("--ros-args", "-p", "autostart:=false")
    change = peer.node.create_client(ChangeState, "hmr/change_state")
    state = peer.node.create_client(GetState, "hmr/get_state")
    assert not call(change, ChangeState.Request(), live).success  # no such transition; from now on answers arrive

    def go(transition):
        request = ChangeState.Request()
        request.transition.label = transition
        request.transition.id = {"configure": 1, "cleanup": 2, "activate": 3, "deactivate": 4}.get(transition, 0)
        if transition == "shutdown":
            request.transition.id = {"unconfigured": 5, "inactive": 6, "active": 7}[label()]
        assert call(change, request, live, again=PATIENCE).success, live.text()

    def label():
        return call(state, GetState.Request(), live).current_state.label

    def subscribed():
        return peer.images.get_subscription_count()

    assert label() == "unconfigured" and not peer.models and not subscribed()
    for _ in range(2):  # set up, torn down, and set up again
        go("configure")
        assert label() == "inactive" and not subscribed()
        for _ in range(2):
            go("activate")
            assert len(peer.ask(lambda header: image_to_message(picture(), header)).bodies) == 1
            wait_for(lambda: peer.models, live)
            go("deactivate")
            wait_for(lambda: not subscribed(), live)
        go("cleanup")
        assert label() == "unconfigured"
        wait_for(lambda: peer.node.count_publishers("bodies") == 0, live)
    go("configure")
    go("activate")
    peer.ask(lambda header: image_to_message(picture(), header))
    go("shutdown")
    assert label() == "finalized"
    wait_for(lambda: not subscribed(), live)
    assert live.end() == 0 and "Traceback" not in live.text()


@pytest.mark.parametrize("argument, words", [("backend:=cuda", 'backend is "cuda", expected one of auto'),
                                             ("threads:=-1", "threads"), ("threads:=many", "threads")])  # fmt: skip
def test_impossible_parameters_end_the_node_with_a_reason(start, argument, words):
    live = start("--ros-args", "-p", argument)
    assert live.process.wait(PATIENCE) == 1
    assert words in live.text() and "Traceback" not in live.text()


def test_a_mistyped_parameter_is_named(start):
    live = start("--ros-args", "-p", "bakend:=torch", "-p", "use_sim_time:=false")
    wait_for(lambda: "parameter bakend is not known and has no effect; do you mean backend?" in live.text(), live)
    assert "use_sim_time is not known" not in live.text()
    assert live.end() == 0


@pytest.mark.parametrize("arguments, words", [(["-p", "backend"], "backend"), (["--params-file", "no/such.yaml"], "such.yaml")])
@pytest.mark.parametrize("command", ["live", "replay"])
def test_ros_arguments_that_do_not_work_are_one_line(command, arguments, words, tmp_path):
    source = [str(tmp_path)] if command == "replay" else []
    cv2.imwrite(str(tmp_path / "x.png"), picture())
    run = subprocess.run([sys.executable, "-P", "-m", "hmr_ros.cli", command, *source, "--ros-args", *arguments],
                         capture_output=True, text=True, timeout=PATIENCE)  # fmt: skip
    assert run.returncode == 2 and words in run.stderr and "Traceback" not in run.stderr


def test_an_estimator_that_cannot_start_a_stream_ends_the_node_with_a_reason(start):
    live = start(code=FAKE.replace("return self.answer", "raise RuntimeError('no stream today')"))
    assert live.process.wait(PATIENCE) == 1
    assert "activate failed: RuntimeError: no stream today" in live.text() and "Traceback" not in live.text()


def test_an_estimator_that_cannot_be_loaded_ends_the_node_with_a_reason(start):
    live = start(code=FAKE.replace("return Estimator()", "raise FileNotFoundError('no weights at all')"))
    assert live.process.wait(PATIENCE) == 1
    assert "FileNotFoundError: no weights at all" in live.text() and "Traceback" not in live.text()


def test_arguments_that_are_not_ros_arguments_are_refused(start):
    live = start("--backend", "torch")
    assert live.process.wait(PATIENCE) == 2 and "unrecognized arguments" in live.text()


def test_a_stature_and_a_checkpoint_reach_the_estimator(start, tmp_path):
    live = start("--ros-args", "-p", f"checkpoint:={tmp_path / 'mine.safetensors'}", code=REAL)
    live.wait_for_text("mine.safetensors: no such file")
    assert live.process.wait(PATIENCE) == 1
    live = start("--ros-args", "-p", "stature:=3.0", code=REAL)
    live.wait_for_text("stature")
    assert live.process.wait(PATIENCE) == 1


def test_publishing_here_sets_the_fast_dds_profile_unless_one_is_chosen(monkeypatch):
    from hmr_ros.ros.process import PROFILE_VARIABLES, fastdds_profile

    for name in PROFILE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    profile = next(iter(fastdds_profile().values()))
    assert "<segment_size>16777216<" in Path(profile).read_text()
    monkeypatch.setenv(PROFILE_VARIABLES[1], "/mine.xml")
    assert fastdds_profile() == {}
    assert NEWEST.depth == 1


def test_the_memory_of_an_image_is_kept_and_that_of_larger_arrays_is_given_back():
    """Page faults of an array that is filled and forgotten, again and again."""
    code = (
        "from resource import RUSAGE_SELF, getrusage; from hmr_ros.ros.process import map_large_arrays; map_large_arrays()\n"
        "def faults(size):\n"
        "    b'1' * size\n"
        "    before = getrusage(RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(20): b'1' * size\n"
        "    return (getrusage(RUSAGE_SELF).ru_minflt - before) / 20\n"
        "print(faults(3 * 1280 * 720), faults(2**23))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    image, larger = map(float, subprocess.run([sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True, check=True).stdout.split())
    assert image < 10 and larger > 1000, f"{image} and {larger} page faults, expected none, and one for each of 2048 pages"
