"""`hmr-ros bench`: how fast the estimator, the unmodified live node and its messages are on this machine, and MediaPipe Pose on the same frames.

As NVIDIA's ros2_benchmark does it: frames are in memory before anything is timed, they are played at a fixed rate, the rate is raised until 5 % of the
frames are lost, and of several runs the best and the worst do not count.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from rich.console import Console

from hmr_ros import __version__
from hmr_ros.bench.clips import Clip, load_clip
from hmr_ros.bench.in_process import FIELD_OF_VIEW, FrameTime, TimedStream, describe_frames
from hmr_ros.bench.machine import IDLE_PERCENT, OthersWatch, ProcessUsage, machine, versions
from hmr_ros.bench.mediapipe import VERSION, MediaPipe, default_venv, prepare
from hmr_ros.bench.report import plot, tables, targets
from hmr_ros.bench.statistics import growth_kb_per_frame, highest_sustained_rate, mean_of_runs, percentiles_ms, without_best_and_worst
from hmr_ros.commands.demo import START_SECONDS, ChildFailed, Children, isolate
from hmr_ros.estimator import HumanMeshEstimator
from hmr_ros.files import make_folder, write_json
from hmr_ros.geometry import pinhole

NAMESPACE = "/hmr_bench"
SCHEMA = 1
WARM_UP_FRAMES = 20
BLOCK = 25  # frames in which two methods take turns
TURNS = 100  # frames of which estimator and node take turns, one by one
SEARCH_FRAMES = 40  # at least so many in each step of the rate search: 5 % of them are two frames
WARM_UP_SECONDS = 1.0  # of every run through the node
START_EVERY = 0.05  # seconds between frames while the node starts
ANSWER_SECONDS = 10.0
MESSAGE_CALLS = 300
MEMORY_SAMPLES = 100
PLACES = ("--out", "--json", "--mediapipe-venv")


@dataclass(frozen=True)
class Bench:
    """Time the estimator, the live node and its messages on this machine; close everything else first."""

    clips: tuple[str, ...] = ("one", "pedestrians")
    """one: a rendered person who moves; pedestrians: the embedded clip, five to seven people; or a video, a folder, a picture by its path."""
    modes: tuple[Literal["estimator", "node", "message-path"], ...] = ("estimator", "node", "message-path")
    """estimator: in this process; node: `hmr-ros live` in another, through the middleware; message-path: building and publishing alone."""
    runs: int = 5
    """How often everything is repeated; from three on, the best and the worst run do not count."""
    seconds: float = 5.0
    """Of the clip's time in each run."""
    rates: tuple[float, ...] = (10.0, 15.0, 30.0)
    """Hz at which frames are played into the node."""
    search: bool = True
    """Find the highest rate at which the node loses 5 % of the frames at most, first of all."""
    starts: int = 3
    """How often the node is started to see how long it takes until its first result, and once more without caches; 0: not at all."""
    size: tuple[int, int] = (640, 480)
    """Width and height into which frames are scaled; 0 0: as they are."""
    backend: str = "auto"
    """What runs the networks, see `hmr-ros live --help`."""
    threads: int = 0
    """CPU threads of the networks; 0: the backend's own choice."""
    compare: bool = False
    """Run MediaPipe Pose (full, tracking, segmentation) on the same frames, in turns; where it is missing it is installed into an environment of its own."""
    mediapipe_venv: Path | None = None
    """That environment; without it one in the user's cache."""
    soak: int = 0
    """Frames through the node, one after another, to see whether its memory grows; 0: none."""
    out: Path = Path("bench_out")
    """Where logs go."""
    json: Path | None = None
    """The result, with the plot beside it as .png; without it OUT/bench.json."""

    def __post_init__(self):
        for name, low in (("runs", 1), ("seconds", 0.2), ("threads", 0), ("starts", 0), ("soak", 0)):
            if getattr(self, name) < low:
                raise ValueError(f"--{name} is {getattr(self, name)}, expected at least {low}")
        if not all(0 < rate <= 240 for rate in self.rates):
            raise ValueError(f"--rates are {', '.join(f'{rate:g}' for rate in self.rates)}, expected more than 0 and at most 240 Hz each")
        if min(self.size) < 0 or (0 in self.size and max(self.size) > 0):
            raise ValueError(f"--size is {self.size[0]} {self.size[1]}, expected width and height in pixels, or 0 0")
        for name in ("clips", "modes"):
            if not getattr(self, name):
                raise ValueError(f"--{name} names none, expected at least one")


def main(argv: list[str] | None = None) -> int:
    """0 when everything was measured, whether targets are reached or not; 1 where the live node fails. ValueError for what cannot be measured."""
    for number in (signal.SIGTERM, signal.SIGINT):  # leaving ends the children; SIGINT is ignored in whoever is started in the background
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    argv = list(sys.argv[1:] if argv is None else argv)
    options = tyro.cli(Bench, args=argv, prog="hmr-ros bench")
    console = Console(markup=False, highlight=False, soft_wrap=True)
    clips = [load_clip(name, options.size) for name in options.clips]
    if len({clip.name for clip in clips}) < len(clips):
        raise ValueError(f"--clips {' '.join(options.clips)} has a name twice, expected each once")
    make_folder(options.out)
    python = prepare((options.mediapipe_venv or default_venv()).expanduser(), console.print) if options.compare else None
    others = OthersWatch()
    result: dict = {
        "schema": SCHEMA, "command": command_line(argv), "date": date.today().isoformat(), "hmr_ros": __version__,
        "machine": machine(), "versions": versions() | ({"mediapipe": VERSION} if python else {}),
        "options": {name: value for name, value in asdict(options).items() if f"--{name.replace('_', '-')}" not in PLACES},
        "clips": {clip.name: clip.describe() for clip in clips},
    }  # fmt: skip
    estimator = HumanMeshEstimator.from_default(backend=options.backend, threads=options.threads or None)
    result["backend"] = estimator.backend
    try:
        if "estimator" in options.modes:
            result["estimator"] = {clip.name: time_estimator(estimator, clip, options, python, console) for clip in clips}
        if "node" in options.modes or "message-path" in options.modes:
            isolate(options.out)
            result |= with_ros(estimator, clips, options, console)
    except ChildFailed as failure:
        console.print(str(failure), style="red")
        return 1
    busy = others.percent()
    result["machine"] |= {"others_percent": round(busy, 1), "idle": busy <= IDLE_PERCENT, "remark": idle_remark(busy)}
    result["targets"] = targets(result)
    path = options.json or options.out / "bench.json"
    write_json(path, rounded(result))
    picture = plot(result, path.with_suffix(".png"))
    for table in tables(result):
        console.print(table)
    console.print(f"{result['machine']['remark']}\nwrote {path}" + (f" and {picture}" if picture else ""))
    return 0


def stage(console: Console, text: str):
    """A context that shows what is being done: a line that vanishes on a terminal, one that stays in a log."""
    if not console.is_terminal:
        console.print(text)
    return console.status(text)


def command_line(argv: list[str]) -> str:
    """What was called, without the places where things lie on this machine."""
    kept, skip = [], False
    for word in argv:
        name, _, value = word.partition("=")
        place = name in PLACES
        if not (skip or place):
            kept.append(word)
        skip = place and not value
    return shlex.join(["hmr-ros", "bench", *kept])


def idle_remark(busy: float) -> str:
    """One line for people: whether the machine had nothing else to do."""
    if busy <= IDLE_PERCENT:
        return f"The machine was otherwise idle: other processes took {busy:.0f} % of its processors."
    return f"The machine was NOT idle: other processes took {busy:.0f} % of its processors, so these times are too long; close them and run again."


def rounded(value):
    """The same with floats of four significant digits, or three decimals where that is more."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) and abs(value) < 10 else round(value, 3) if isinstance(value, float) else value


# ---- in this process -------------------------------------------------------------------------------------------------


def time_estimator(estimator: HumanMeshEstimator, clip: Clip, options: Bench, python: Path | None, console: Console) -> dict:
    """The stream over the clip, in steady state; MediaPipe takes turns with it, block by block, so that a busy machine hits both alike."""
    ours, theirs = [], []
    frames = max(round(options.seconds * clip.rate), 1)
    with ExitStack() as stack:
        stream = TimedStream(estimator, clip)
        beside = stack.enter_context(MediaPipe(python, clip, options.out)) if python else None
        stream.block(WARM_UP_FRAMES)
        if beside:
            beside.block(WARM_UP_FRAMES)
        for number in range(options.runs):
            with stage(console, f"estimator, {clip.name}: run {number + 1} of {options.runs}"):
                run, other = [], []
                for begin in range(0, frames, BLOCK):
                    count = min(BLOCK, frames - begin)
                    run += stream.block(count)
                    other += beside.block(count) if beside else []
                ours.append(run)
                theirs.append(other)
    return describe_estimator(ours, theirs if python else None) | ({"mediapipe_found_percent": 100 * float(np.mean(beside.found))} if beside else {})


def describe_estimator(ours: list[list[FrameTime]], theirs: list[list[float]] | None) -> dict:
    """All frames of the runs that count, every run's median, and the ratio to MediaPipe's."""
    medians = [{"number": i, "p50_ms": percentiles_ms([t.seconds for t in run])["p50_ms"]} for i, run in enumerate(ours)]
    kept = sorted(run["number"] for run in without_best_and_worst(medians, "p50_ms"))
    result = describe_frames([t for number in kept for t in ours[number]]) | {"runs_p50_ms": [run["p50_ms"] for run in medians], "runs_kept": kept}
    if theirs is None:
        return result
    other = percentiles_ms([seconds for number in kept for seconds in theirs[number]])
    ratios = [run["p50_ms"] / percentiles_ms(seconds)["p50_ms"] for run, seconds in zip(medians, theirs)]
    return result | {"mediapipe": other, "ratio_to_mediapipe": result["p50_ms"] / other["p50_ms"], "runs_ratio_to_mediapipe": ratios}


# ---- through the middleware ------------------------------------------------------------------------------------------


def with_ros(estimator: HumanMeshEstimator, clips: list[Clip], options: Bench, console: Console) -> dict:
    import rclpy

    from hmr_ros.ros.process import Spinner, start_ros

    start_ros(["--ros-args", "-r", f"__ns:={NAMESPACE}"])
    result: dict = {}
    try:
        if "message-path" in options.modes:
            with stage(console, "message path"):
                result["message_path"] = time_messages(estimator, clips)
        if "node" in options.modes:
            from hmr_ros.ros.player import Player

            player = Player()
            spinner = Spinner(player)
            try:
                if options.starts:
                    result["cold_start"] = time_starts(player, clips[0], options, console)
                with live_node(options) as (children, process):
                    while not (player.ready.wait(0.05) and player.connected()):
                        children.check("live")
                    result["node"] = {clip.name: time_node(player, process, estimator, clip, options, console) for clip in clips}
                    if options.soak:
                        result["soak"] = soak(player, process, clips[0], options, console)
                    children.check("live")
            finally:
                spinner.stop()
                player.destroy_node()
            if spinner.failed is not None:
                raise spinner.failed
    finally:
        rclpy.try_shutdown()
    return result


def time_messages(estimator: HumanMeshEstimator, clips: list[Clip]) -> dict:
    """Percentiles for the bodies of the first frame in which somebody is, of the clip with most of them."""
    from hmr_ros.ros.message_path import time_message_path

    found = [estimator(clip.frames[0], intrinsics=pinhole(*clip.size, FIELD_OF_VIEW)) for clip in clips]
    bodies = max(found, key=len)
    if not bodies:
        raise ValueError("message-path needs somebody in the first frame of a clip, and nobody is there; take another clip")
    return {name: percentiles_ms(times) for name, times in time_message_path(bodies, estimator.body_model.faces, MESSAGE_CALLS).items()}


@contextmanager
def live_node(options: Bench) -> Iterator[tuple[Children, ProcessUsage]]:
    """`hmr-ros live` in a process of its own, with its default parameters."""
    with Children(options.out) as children:
        parameters = ["-p", f"backend:={options.backend}", "-p", f"threads:={options.threads}"]
        child = children.start("live", ["--ros-args", "-r", f"__ns:={NAMESPACE}", *parameters])
        yield children, ProcessUsage(child.pid)


def time_starts(player, clip: Clip, options: Bench, console: Console) -> dict:
    """Seconds from starting the process to its first BodyArray; first with empty caches of compiled code, then with those that are there."""
    player.load(clip, pinhole(*clip.size, FIELD_OF_VIEW))
    with stage(console, "cold start, without caches"), tempfile.TemporaryDirectory() as empty:
        with changed_environment(PYTHONPYCACHEPREFIX=f"{empty}/python", NUMBA_CACHE_DIR=f"{empty}/numba", XDG_CACHE_HOME=f"{empty}/cache"):
            without_caches = seconds_to_first_answer(player, options)
    warm = []
    for number in range(options.starts):
        with stage(console, f"cold start, {number + 1} of {options.starts}"):
            warm.append(seconds_to_first_answer(player, options))
    return {"without_caches_s": without_caches, "warm_caches_s": float(np.median(warm)), "all_warm_caches_s": warm}


def seconds_to_first_answer(player, options: Bench) -> float:
    player.forget()
    begin = time.perf_counter()
    with live_node(options) as (children, _):
        number = 0
        while (answered := player.any_answer(0)) is None:
            children.check("live")
            if time.perf_counter() - begin > START_SECONDS:
                children.fail("live", f"did not answer within {START_SECONDS:g} s")
            player.publish(number, time.time_ns())
            number += 1
            time.sleep(max(0.0, begin + number * START_EVERY - time.perf_counter()))
    player.ready.clear()
    return answered - begin


@contextmanager
def changed_environment(**values: str) -> Iterator[None]:
    """Variables for the children that are started in the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)


def time_node(player, process: ProcessUsage, estimator: HumanMeshEstimator, clip: Clip, options: Bench, console: Console) -> dict:
    """What the node adds to the estimator, its highest sustained rate, and runs at fixed rates."""
    player.load(clip, pinhole(*clip.size, FIELD_OF_VIEW))
    with stage(console, f"node, {clip.name}: in turns with the estimator"):
        turns = take_turns(player, estimator, clip)
    result: dict = {"in_turns": turns}

    def play(rate: float, seconds: float, what: str):
        with stage(console, f"node, {clip.name}: {rate:.1f} Hz, {what}"):
            return player.play(rate, seconds, WARM_UP_SECONDS, process)

    if options.search:
        expected = 1e3 / turns["node"]["p50_ms"] if turns["node"]["p50_ms"] else 1.0
        rate, tried = highest_sustained_rate(lambda rate: play(rate, max(options.seconds, SEARCH_FRAMES / rate), "search").lost, expected)
        result["highest_sustained_hz"] = rate
        result["rate_search"] = [{"hz": hz, "lost_percent": 100 * lost} for hz, lost in tried]
    result["rates"] = {}
    for rate in options.rates:
        runs = [play(rate, options.seconds, f"run {number + 1} of {options.runs}").summary() for number in range(options.runs)]
        result["rates"][f"{rate:g}"] = mean_of_runs(runs, "latency_p50_ms") | {"runs_latency_p50_ms": [run["latency_p50_ms"] for run in runs]}
    return result


def take_turns(player, estimator: HumanMeshEstimator, clip: Clip) -> dict:
    """Frame by frame first the estimator in this process, then the same frame through the node, both as streams with the same stamps."""
    stream, alone, whole = TimedStream(estimator, clip), [], []
    begin_ns = time.time_ns()
    for number in range(WARM_UP_FRAMES + TURNS):
        alone += [t.seconds for t in stream.block(1)]
        stamp = begin_ns + round(number * 1e9 / clip.rate)
        sent = player.publish(number, stamp)
        answered = player.answer(stamp, ANSWER_SECONDS)
        whole.append(np.nan if answered is None else answered[0] - sent)
    alone, whole = np.array(alone[WARM_UP_FRAMES:]), np.array(whole[WARM_UP_FRAMES:])
    came = ~np.isnan(whole)
    return {
        "frames": TURNS,
        "lost": int((~came).sum()),
        "estimator": percentiles_ms(alone[came]),
        "node": percentiles_ms(whole[came]),
        "added_p50_ms": 1e3 * float(np.median((whole - alone)[came])) if came.any() else None,
    }


def soak(player, process: ProcessUsage, clip: Clip, options: Bench, console: Console) -> dict:
    """Frames through the node, each sent when the one before is answered; resident memory on the way."""
    player.load(clip, pinhole(*clip.size, FIELD_OF_VIEW))
    every = max(options.soak // MEMORY_SAMPLES, 1)
    begin_ns, lost, frames, memory = time.time_ns(), 0, [0], [process.memory_mb()]
    with stage(console, "soak") as status:
        for number in range(1, options.soak + 1):
            stamp = begin_ns + round(number * 1e9 / clip.rate)
            player.publish(number, stamp)
            lost += player.answer(stamp, ANSWER_SECONDS) is None
            if number % every == 0:
                frames.append(number)
                memory.append(process.memory_mb())
                status.update(f"soak: {number} of {options.soak} frames, {memory[-1]:.0f} MB")
    growth = growth_kb_per_frame(frames, memory) if len(frames) > 3 else None
    return {"clip": clip.name, "frames": options.soak, "lost": lost, "growth_kb_per_frame": growth, "at_frame": frames, "memory_mb": memory}


if __name__ == "__main__":
    sys.exit(main())
