"""`hmr-ros bench`: its statistics on stamps that are known, its clips, MediaPipe's process, and short real runs. No time is asserted."""

import json
import os
import shlex
import signal
import stat
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmr_ros.bench import mediapipe, report
from hmr_ros.bench.clips import Clip, load_clip
from hmr_ros.bench.in_process import FrameTime, describe_frames
from hmr_ros.bench.machine import OthersWatch, ProcessUsage, machine, versions
from hmr_ros.bench.statistics import (
    LOST_LIMIT, Run, cost_of_one_more, growth_kb_per_frame, highest_sustained_rate, mean_of_runs, percentiles_ms, without_best_and_worst,
)  # fmt: skip
from hmr_ros.commands.bench import Bench, command_line, describe_estimator, idle_remark, main, rounded
from hmr_ros.runtime import CompiledModel, compile
from hmr_ros.runtime.timing import time_networks

PATIENCE = 300.0


# ---- statistics ------------------------------------------------------------------------------------------------------


def test_a_run_is_described_by_its_stamps():
    sent = np.arange(20) * 0.1
    latency = np.full(20, 0.05)
    latency[10] = 0.07
    latency[[3, 4]] = np.nan
    summary = Run(sent, sent + latency, 0.95, 80.0, 900.0).summary()
    assert summary["frames"] == 20 and summary["answered"] == 18 and summary["lost_percent"] == pytest.approx(10)
    assert summary["played_hz"] == pytest.approx(10) and summary["throughput_hz"] == pytest.approx(9)
    assert summary["latency_p50_ms"] == pytest.approx(50) and summary["latency_p99_ms"] == pytest.approx(np.percentile([50] * 17 + [70], 99))
    steps = [100] * 14 + [300, 120, 80]  # ms between answers: the two lost ones make a gap, the late one is 20 ms late
    assert summary["jitter_ms"] == pytest.approx(np.std(steps))
    assert (summary["received_percent"], summary["cpu_percent"], summary["memory_mb"]) == (95, 80, 900)


def test_a_run_without_answers_has_no_latency_and_a_json_file():
    summary = Run(np.array([0.0, 0.1]), np.full(2, np.nan)).summary()
    assert summary["lost_percent"] == 100 and summary["throughput_hz"] == 0
    assert summary["latency_p50_ms"] is None and summary["jitter_ms"] is None
    json.dumps(summary, allow_nan=False)


def test_answers_out_of_order_belong_to_their_own_frames():
    """Matched by stamp: an answer that overtakes another does not change either latency."""
    summary = Run(np.array([0.0, 0.1, 0.2]), np.array([0.35, 0.15, 0.25])).summary()
    assert summary["latency_p50_ms"] == pytest.approx(50) and summary["jitter_ms"] == pytest.approx(0, abs=1e-9)


def test_the_best_and_the_worst_run_do_not_count():
    runs = [{"p50": p50, "n": n, "cpu": None} for n, p50 in enumerate([5.0, 1.0, None, 4.0, 3.0])]
    assert [run["n"] for run in without_best_and_worst(runs, "p50")] == [4, 3, 0]  # 1.0 is the best, one without an answer the worst
    assert mean_of_runs(runs, "p50") == {"p50": 4.0, "n": pytest.approx(7 / 3), "cpu": None}
    assert len(without_best_and_worst(runs[:2], "p50")) == 2


@settings(max_examples=200, deadline=None)
@given(capacity=st.floats(0.3, 200), start=st.floats(0.01, 1000), tolerance=st.floats(0.01, 0.2))
def test_the_rate_search_finds_the_capacity_of_a_node(capacity, start, tolerance):
    """A node that answers ``capacity`` frames a second and loses the others sustains capacity / 0.95."""
    rate, tried = highest_sustained_rate(lambda rate: max(0.0, 1 - capacity / rate), start, tolerance, lowest=0.25, highest=240)
    limit = capacity / (1 - LOST_LIMIT)
    assert limit / (1 + tolerance) * (1 - 1e-9) <= rate <= limit * (1 + 1e-9)
    assert len(tried) < 40 and rate in [hz for hz, _ in tried]


def test_the_rate_search_ends_at_its_borders():
    assert highest_sustained_rate(lambda rate: 0.0, 10, highest=100)[0] == 100
    rate, tried = highest_sustained_rate(lambda rate: 1.0, 10, lowest=1)
    assert rate is None and tried[-1] == (1, 1.0)


@settings(max_examples=50, deadline=None)
@given(cost=st.floats(0.001, 0.1), base=st.floats(0.01, 1), counts=st.lists(st.integers(1, 8), min_size=10, max_size=60))
def test_one_person_more_costs_the_slope(cost, base, counts):
    found = cost_of_one_more(counts, [base + cost * count for count in counts])
    assert found is None if len(set(counts)) < 2 else found == pytest.approx(cost, rel=1e-6)


def test_a_detection_pass_now_and_then_is_no_cost_of_a_person():
    people, seconds = [5] * 20 + [6] * 20 + [0] * 5, [0.2] * 20 + [0.23] * 20 + [1.0] * 5
    seconds[::8] = [2.0] * len(seconds[::8])
    assert cost_of_one_more(people, seconds) == pytest.approx(0.03)


def test_growth_is_that_of_the_second_half():
    frames = list(range(0, 1000, 10))
    starts_up = [900 - 300 * np.exp(-frame / 50) for frame in frames]
    assert abs(growth_kb_per_frame(frames, starts_up)) < 0.05
    assert growth_kb_per_frame(frames, [900 + frame * 80 / 1024 for frame in frames]) == pytest.approx(80)


def test_frames_are_described_with_the_networks_part():
    times = [FrameTime(0.04, {"a": 0.02, "b": 0.01}, 1, 1), FrameTime(0.06, {"a": 0.02}, 2, 1)]
    found = describe_frames(times)
    assert found["p50_ms"] == pytest.approx(50) and found["networks_p50_ms"] == pytest.approx(25) and found["networks_percent"] == pytest.approx(50)
    assert found["networks_mean_ms"] == {"a": pytest.approx(20), "b": pytest.approx(5)}
    assert (found["people_detected"], found["people_with_a_body"]) == (1.5, 1) and found["further_person_ms"] == pytest.approx(20)


def test_the_ratio_to_mediapipe_is_of_medians_of_the_same_runs():
    ours = [[FrameTime(seconds, {}, 1, 1)] * 3 for seconds in (0.09, 0.03, 0.01)]
    theirs = [[0.05] * 3, [0.06] * 3, [0.02] * 3]
    found = describe_estimator(ours, theirs)
    assert found["runs_kept"] == [1] and found["mediapipe"]["p50_ms"] == pytest.approx(60) and found["ratio_to_mediapipe"] == pytest.approx(0.5)
    assert found["runs_ratio_to_mediapipe"] == pytest.approx([1.8, 0.5, 0.5])
    assert "mediapipe" not in describe_estimator(ours, None)


# ---- clips -----------------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(count=st.integers(1, 12), number=st.integers(0, 10**6))
def test_a_clip_goes_there_and_back_without_a_jump(count, number):
    clip = Clip("c", [np.zeros((2, 2, 3), np.uint8)] * count, 10.0, (2, 2))
    assert 0 <= clip.index(number) < count and abs(clip.index(number + 1) - clip.index(number)) == (count > 1)
    assert [clip.index(i) for i in range(count)] == list(range(count))


def test_the_embedded_clips_are_played_at_640x480():
    one, pedestrians = load_clip("one"), load_clip("pedestrians")
    assert one.size == pedestrians.size == (640, 480) and (one.rate, pedestrians.rate) == (30, 10)
    assert one.original == (640, 480) and pedestrians.original == load_clip("pedestrians", (0, 0)).size == (768, 576)
    assert len(one.frames) == 150 and len(one.describe()["sha256_of_frames"]) == 64


def test_a_clip_that_is_none_is_refused_in_words(tmp_path):
    with pytest.raises(ValueError, match="clip nobody is not there, expected one, pedestrians, or the path of a video"):
        load_clip("nobody")
    for name, size in (("a", (40, 30)), ("b", (30, 40))):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.zeros((*size, 3), np.uint8))
    with pytest.raises(ValueError, match="has frames of .* expected one size"):
        load_clip(str(tmp_path))
    (tmp_path / "bag").mkdir()
    (tmp_path / "bag" / "metadata.yaml").touch()
    with pytest.raises(ValueError, match="is a bag, expected one, pedestrians"):
        load_clip(str(tmp_path / "bag"))


# ---- what is timed ---------------------------------------------------------------------------------------------------


class Fake(CompiledModel):
    def _run(self, arrays):
        if self.name == "broken":
            raise ValueError("broken")
        return ()


def test_networks_are_timed_by_name_and_only_within_the_block():
    a, b, broken = (Fake(name, "none", (), ()) for name in ("a", "b", "broken"))
    untouched = CompiledModel.__call__
    with pytest.raises(ValueError), time_networks() as seconds:
        a(), a(), b()
        broken()
    assert CompiledModel.__call__ is untouched
    a()
    assert set(seconds) == {"a", "b", "broken"} and all(value > 0 for value in seconds.values())


@pytest.mark.parametrize("backend", ["openvino", "torch"])
def test_networks_are_timed_once_on_arrays_and_on_tensors(backend, monkeypatch):
    torch = pytest.importorskip("torch")
    pytest.importorskip(backend)
    model = compile(torch.nn.Linear(3, 2), torch.zeros(2, 3), backend=backend, name="linear")
    clock = iter(range(100))
    monkeypatch.setattr("hmr_ros.runtime.timing.time.perf_counter", lambda: next(clock))  # every reading is a second later
    for call in (lambda: model(np.zeros((1, 3), np.float32)), lambda: model.tensors(torch.zeros(1, 3))):
        with time_networks() as seconds:
            call()
        assert dict(seconds) == {"linear": 1}  # the one within the other has read no clock


def test_a_process_and_the_machine_are_read():
    usage = ProcessUsage(os.getpid())
    before = usage.cpu_seconds()
    while usage.cpu_seconds() - before < 0.05:
        sum(range(10**5))
    assert 10 < usage.memory_mb() < 10**5
    assert machine()["cores"] >= 1 and {"python", "numpy", "torch"} <= set(versions())


def test_the_processors_that_others_take_are_told_from_our_own(monkeypatch):
    readings = iter([(100.0, 40.0, 10.0), (200.0, 120.0, 60.0)])  # of 100 s, 80 busy, 50 of them ours
    monkeypatch.setattr(OthersWatch, "_read", staticmethod(lambda: next(readings)))
    assert OthersWatch().percent() == pytest.approx(30)
    assert "NOT idle" in idle_remark(30) and "otherwise idle" in idle_remark(2)


# ---- MediaPipe -------------------------------------------------------------------------------------------------------


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_an_environment_without_mediapipe_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty has no bin/python, expected .* MediaPipe 0.10.14; .* pip install --quiet mediapipe==0.10.14 'numpy<2'"):
        mediapipe.prepare(tmp_path / "empty")
    script(tmp_path / "other" / "bin" / "python", "print('0.9.0')")
    with pytest.raises(ValueError, match="other has 0.9.0, expected MediaPipe 0.10.14: .*pip install"):
        mediapipe.prepare(tmp_path / "other")


def test_every_command_that_installs_is_shown_and_its_failure_too(tmp_path, monkeypatch):
    failing = [[sys.executable, "-c", "import sys; sys.exit('no such package')"]]
    monkeypatch.setattr(mediapipe, "install_commands", lambda venv: failing)
    shown = []
    with pytest.raises(ValueError, match="cannot be installed into .*venv .no such package., .*--mediapipe-venv"):
        mediapipe.prepare(tmp_path / "venv", shown.append)
    assert shown == [shlex.join(failing[0])]


def test_without_a_comparison_nothing_is_installed(tmp_path, monkeypatch):
    monkeypatch.setattr("hmr_ros.commands.bench.prepare", lambda *_: pytest.fail("MediaPipe was asked for"))
    monkeypatch.setattr("hmr_ros.commands.bench.HumanMeshEstimator.from_default", lambda **_: (_ for _ in ()).throw(ValueError("far enough")))
    with pytest.raises(ValueError, match="far enough"):
        main(["--clips", "one", "--out", str(tmp_path / "out")])


def test_mediapipes_process_gets_the_frames_in_rgb_and_in_our_order(tmp_path):
    frames = [np.full((4, 6, 3), (1, 2, 10 + i), np.uint8) for i in range(3)]
    python = script(tmp_path / "python", """
import json, sys
import numpy as np
frames = np.load(sys.argv[-1])
print("a line of a library", flush=True)
print("ready 0", flush=True)
for line in sys.stdin:
    print("times", json.dumps([float(frames[i, 0, 0, 0]) for i in json.loads(line)]), 1.0, flush=True)
""".replace("import json", f"import sys; sys.path[:0] = {sys.path!r}\nimport json"))
    with mediapipe.MediaPipe(python, Clip("c", frames, 10.0, (6, 4)), tmp_path) as beside:
        assert beside.block(4) == [10, 11, 12, 11] and beside.block(2) == [10, 11]
        assert beside.found == [1, 1]
    assert not list(tmp_path.glob("*.npy"))


def test_a_mediapipe_that_ends_is_shown_with_its_last_words(tmp_path):
    python = script(tmp_path / "python", "import sys; sys.exit('no model file')")
    clip = Clip("c", [np.zeros((4, 6, 3), np.uint8)], 10.0, (6, 4))
    with pytest.raises(ValueError, match=r"MediaPipe ended with exit code 1: no model file \(.*mediapipe.log\)"):
        mediapipe.MediaPipe(python, clip, tmp_path).__enter__()


@pytest.mark.slow
@pytest.mark.skipif(not mediapipe.default_venv().exists(), reason="MediaPipe's environment is not there; hmr-ros bench --compare makes it")
def test_the_real_mediapipe_sees_the_person(tmp_path):
    with mediapipe.MediaPipe(mediapipe.prepare(mediapipe.default_venv()), load_clip("one"), tmp_path) as beside:
        assert len(beside.block(5)) == 5 and beside.found == [1]


# ---- results ---------------------------------------------------------------------------------------------------------


def frame(p50, **more):
    return {"p50_ms": p50, "p95_ms": 1.5 * p50, "p99_ms": 3 * p50, "networks_p50_ms": 0.9 * p50, "networks_percent": 90.0, "people_detected": 1.0,
            "people_with_a_body": 1.0, "further_person_ms": None, **more}  # fmt: skip


def rate(p50):
    return {**{f"latency_{name}_ms": p50 for name in ("p50", "p95", "p99")}, "throughput_hz": 10.0, "lost_percent": 0.0, "jitter_ms": None,
            "cpu_percent": 90.0, "memory_mb": 900.0}  # fmt: skip


RESULT = {
    "estimator": {
        "one": frame(30, mediapipe=percentiles_ms([0.04]), ratio_to_mediapipe=0.75),
        "pedestrians": frame(130, people_detected=6.0, mediapipe=percentiles_ms([0.04]), ratio_to_mediapipe=3.3),
    },
    "node": {"one": {"in_turns": {"node": percentiles_ms([0.033]), "added_p50_ms": 3.0}, "rates": {"10": rate(35), "30": rate(None)}, "highest_sustained_hz": 25.0}},
    "message_path": {"BodyArray of one body with vertices": percentiles_ms([0.0005]), "markers of one body": percentiles_ms([0.003])},
    "cold_start": {"warm_caches_s": 5.0},
}  # fmt: skip


def test_targets_are_judged_where_they_were_measured():
    found = {row["name"].partition(",")[0]: row for row in report.targets(RESULT)}
    reached = {name: row["reached"] for name, row in found.items()}
    assert reached == {
        "one person: ratio to MediaPipe Pose": False, "one person: ratio to the networks' own time": True, "pedestrians: median of a frame": True,
        "pedestrians: p95 over the median": True, "each further person: ratio to MediaPipe Pose's frame": True,
        "one person: the node over the estimator": True, "a body with vertices built and published": True, "markers of one body built and published": False,
        "start of the node to its first result": True,
    }  # fmt: skip
    assert found["each further person: ratio to MediaPipe Pose's frame"]["value"] == pytest.approx((130 - 30) / 5 / 40)
    assert report.targets({}) == []


@pytest.mark.parametrize("modes", [("estimator", "node", "message_path"), ("estimator",), ("node",), ("message_path",)])
def test_tables_and_plot_show_what_there_is(tmp_path, modes):
    result = {mode: RESULT[mode] for mode in modes}
    result["targets"] = report.targets(result)
    assert all(table.columns for table in report.tables(result))
    path = report.plot(result, tmp_path / "bench.png")
    assert (path is not None) == (modes != ("message_path",)) == (tmp_path / "bench.png").exists()
    if path:
        assert cv2.imread(str(path)).shape[1] == (990 if len(modes) > 1 else 495)


def test_numbers_are_rounded_for_people():
    assert rounded({"a": (1234.56789, 0.000123456, 3), "b": [None, True, "x"]}) == {"a": [1234.568, 0.0001235, 3], "b": [None, True, "x"]}


def test_the_command_in_the_result_names_no_place_of_this_machine():
    argv = ["--compare", "--out", "somewhere", "--runs", "3", "--mediapipe-venv=there", "--json", "a b.json", "--clips", "one", "my walk.mp4"]
    assert command_line(argv) == "hmr-ros bench --compare --runs 3 --clips one 'my walk.mp4'"


@pytest.mark.parametrize("options, words", [
    ({"runs": 0}, "--runs is 0, expected at least 1"), ({"seconds": 0.0}, "--seconds is 0.0, expected at least 0.2"),
    ({"rates": (10.0, 0.0)}, "--rates are 10, 0, expected more than 0"), ({"size": (0, 480)}, "--size is 0 480, expected width and height"),
    ({"modes": ()}, "--modes names none, expected at least one"),
])  # fmt: skip
def test_options_that_cannot_be_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Bench(**options)


@pytest.mark.parametrize("clips, words", [(("one", "nobody"), "clip nobody is not there"), (("one", "one"), "has a name twice")])
def test_clips_that_cannot_be_are_refused_before_anything_is_written(tmp_path, clips, words):
    with pytest.raises(ValueError, match=words):
        main(["--clips", *clips, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_live_node_too(tmp_path, number, processes_of_session, wait_until):
    pytest.importorskip("rclpy")
    code = ("import sys, time; from pathlib import Path; from hmr_ros.commands import bench, demo\n"
            "def wait(*_):\n"
            "    with bench.live_node(bench.Bench(out=Path(sys.argv[1]))): print('started', flush=True); time.sleep(60)\n"
            "bench.load_clip = wait; demo.isolate(Path(sys.argv[1]))\n"
            "from hmr_ros.cli import main; sys.exit(main(['bench', '--clips', 'one', '--out', sys.argv[1]]))")  # fmt: skip
    process = subprocess.Popen([sys.executable, "-P", "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, start_new_session=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))  # as a job in the background inherits it
    assert process.stdout.readline() == "started\n" and len(processes_of_session(process.pid)) >= 2
    process.send_signal(number)
    assert process.wait(30) == 128 + number
    wait_until(lambda: processes_of_session(process.pid) == [], 10)


# ---- real runs -------------------------------------------------------------------------------------------------------


def bench(folder, *arguments):
    command = [sys.executable, "-P", "-c", "import sys; from hmr_ros.cli import main; sys.exit(main(sys.argv[1:]))", "bench",
               "--clips", "one", "--runs", "1", "--out", str(folder), *arguments]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=dict(os.environ, COLUMNS="160"))
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "bench.json").read_text()), done.stdout


def check_head(result):
    assert set(result) >= {"schema", "command", "date", "hmr_ros", "machine", "versions", "options", "clips", "backend", "targets"}
    assert result["schema"] == 1 and result["command"].startswith("hmr-ros bench --clips one") and result["clips"]["one"]["size"] == [640, 480]
    assert {"cpu", "cores", "memory_gib", "others_percent", "idle", "remark"} <= set(result["machine"])


def test_ten_frames_of_the_estimator(tmp_path):
    result, told = bench(tmp_path, "--modes", "estimator", "--seconds", "0.34")
    check_head(result)
    found = result["estimator"]["one"]
    assert found["frames"] == 10 and found["people_detected"] == found["people_with_a_body"] == 1
    assert 0 < found["p50_ms"] <= found["p95_ms"] <= found["p99_ms"] and 0 < found["networks_percent"] < 100
    assert {"pose_landmark_full", "Lifter"} <= set(found["networks_mean_ms"])
    assert "node" not in result and "mediapipe" not in result["versions"]
    assert cv2.imread(str(tmp_path / "bench.png")) is not None and "ratio to the networks' own time" in told


@pytest.mark.slow
def test_twenty_frames_through_the_live_node(tmp_path):
    pytest.importorskip("rclpy")
    arguments = ("--modes", "node", "message-path", "--rates", "2", "--seconds", "10", "--no-search", "--starts", "1", "--soak", "20")
    result, told = bench(tmp_path, *arguments)
    check_head(result)
    node = result["node"]["one"]
    run = node["rates"]["2"]
    assert run["frames"] == 20 and run["answered"] >= 15 and run["lost_percent"] == 5 * (20 - run["answered"])
    assert 0 < run["latency_p50_ms"] <= run["latency_p95_ms"] and run["received_percent"] > 70 and run["cpu_percent"] > 0 and run["memory_mb"] > 100
    assert node["in_turns"]["lost"] <= 10 and node["in_turns"]["node"]["p50_ms"] > 0
    assert 0 < result["cold_start"]["warm_caches_s"] and 0 < result["cold_start"]["without_caches_s"]
    assert len(result["soak"]["memory_mb"]) == 21 and result["soak"]["lost"] <= 2
    assert result["message_path"]["markers of one body"]["p50_ms"] > 0
    assert "highest rate" in told and (tmp_path / "live.log").read_text().count("waiting for images") == 1


@pytest.mark.slow
def test_a_live_node_that_cannot_start_is_shown_with_its_last_words(tmp_path, monkeypatch):
    pytest.importorskip("rclpy")
    from hmr_ros.commands.bench import live_node
    from hmr_ros.commands.demo import ChildFailed

    expected = '(?s)the live process ended with exit code 1.*backend is "nonsense"'
    with pytest.raises(ChildFailed, match=expected), live_node(Bench(backend="nonsense", out=tmp_path)) as (children, _):
        while True:
            children.check("live")
            time.sleep(0.1)
