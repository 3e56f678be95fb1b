"""`hmr-ros demo`: the real graph on one machine. A replay process publishes images, the live node answers in another,
and this one listens, draws the answers over the images and prints what it measured.

It has a ROS domain of its own, not visible beyond this machine, so that it never disturbs a robot.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, track
from rich.table import Table

from hmr_ros.files import atomic_write, make_folder, write_json, write_picture
from hmr_ros.io.report import ReadReport, printable
from hmr_ros.io.sources import Source, open_source, unique_stems
from hmr_ros.io.videos import VideoWriter
from hmr_ros.ros.process import Spinner, StopEvent, start_ros, stop_event

NAMESPACE = "/hmr_demo"
PICTURE_FRAMES = 12  # a picture is shown so often, at the 4 Hz of io/sources.py
FOLDER_RATE = 1.0  # Hz: slow enough that every picture gets its answer, and none is taken for the next frame of a video
START_SECONDS = 180.0  # for loading the models
VIEWER_SECONDS = 60.0
LAST_ANSWER_SECONDS = 3.0
LOG_LINES = 15


@dataclass(frozen=True)
class Demo:
    """See it work: replay and live node together, an overlay picture or video, and a table of what was measured."""

    source: str | None = None
    """Picture, video, folder of pictures or index of a camera; without it the embedded picture and video."""
    out: Path = Path("demo_out")
    """Where overlays and logs go."""
    seconds: float = 20.0
    """Time limit for each source; folders are shown at 1 Hz, videos at their own rate, up to here."""
    backend: str = "auto"
    """What runs the networks, see `hmr-ros live --help`."""
    regressor: Literal["auto", "lifter", "resnet18"] = "auto"
    """auto: what the checkpoint holds, without one the lifter; resnet18: the paper's, trained without labels."""
    checkpoint: Path | None = None
    """A checkpoint of `hmr-ros train` instead of the embedded one."""
    view: bool = False
    """Show the bodies in a browser as well (`hmr-ros view`), and keep them there until Ctrl-C."""
    json: Path | None = None
    """File for what was measured, and for what was promised, read, skipped and ignored of every source."""

    def __post_init__(self):
        if not 0 < self.seconds <= 3600:
            raise ValueError(f"--seconds is {self.seconds}, expected more than 0 and at most 3600")


class ChildFailed(Exception):
    """A process of the demo ended or hung; the message says which, and holds the end of its log."""


def main(argv: list[str] | None = None) -> int:
    """0 if meshes were received and the source was read whole, 1 if not, 130 after Ctrl-C. ValueError for a source that cannot be shown."""
    stop = stop_event()
    options = tyro.cli(Demo, args=argv, prog="hmr-ros demo")
    sources = [open_source(s) for s in ([options.source] if options.source else embedded_media())]
    if any(source.kind == "bag" for source in sources):
        raise ValueError(f"{options.source} is a bag, expected a picture, folder, video or camera; for a bag start "
                         "`hmr-ros live` and `hmr-ros replay`")  # fmt: skip
    make_folder(options.out)
    isolate(options.out)
    console = Console(markup=False)
    with Children(options.out) as children:
        try:
            rows = show(sources, options, children, console, stop)
        except ChildFailed as failure:
            console.print(str(failure), style="red", markup=False, highlight=False, soft_wrap=True)
            return 1
        if stop.is_set():
            return 130
        code = report(rows, options, console)
        if options.view:
            console.print(f"the viewer stays at {children.address} until Ctrl-C", highlight=False, soft_wrap=True)
            stop.wait()
    return code


def report(rows: list[Row], options: Demo, console: Console) -> int:
    """Print what was measured and write it to --json; the exit code."""
    console.print(table(rows))
    for row in rows:
        for path in row.files:
            console.print(f"wrote {printable(path)}", markup=False, highlight=False, soft_wrap=True)
        if row.reading["exit_code"] or row.reading["ignored"]:
            console.print(f"{printable(row.name)}: {row.reading['line']}", style="yellow", highlight=False, soft_wrap=True)
    if options.json:
        write_json(options.json, {"sources": [asdict(row) | {"files": [printable(path) for path in row.files]} for row in rows]})
    if not any(row.meshes for row in rows):
        console.print("no mesh was received", style="red", highlight=False)
        return 1
    return int(any(row.reading["exit_code"] for row in rows))


def embedded_media() -> list[str]:
    """The pictures and then the videos that come with the package."""
    folder = Path(__file__).resolve().parents[1] / "assets" / "demo"
    media = [p for p in folder.iterdir() if p.suffix in (".jpg", ".png", ".mp4", ".avi")] if folder.is_dir() else []
    if not media:
        raise ValueError(f"no pictures or videos in {folder}: install the package again or name a --source")
    return [str(p) for p in sorted(media, key=lambda p: (p.suffix in (".mp4", ".avi"), p.name))]


def isolate(out: Path) -> None:
    """A ROS domain of our own, on this machine only, with the logs beside the results; inherited by the children."""
    os.environ["ROS_DOMAIN_ID"] = str(random.SystemRandom().randint(1, 101))
    os.environ["ROS_LOG_DIR"] = str(out / "log")
    if os.environ.get("ROS_DISTRO") == "humble":
        os.environ["ROS_LOCALHOST_ONLY"] = "1"
    else:
        os.environ.pop("ROS_LOCALHOST_ONLY", None)  # it would override the next line, with a warning
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"


# ---- processes ------------------------------------------------------------------------------------------------------


class Children:
    """The processes of the demo, each with a log file in ``out``; leaving the context ends them all."""

    def __init__(self, out: Path):
        self._out = out
        self.address = ""  # of the viewer
        self._running: dict[str, subprocess.Popen] = {}

    def start(self, name: str, arguments: list[str]) -> subprocess.Popen:
        """Start ``hmr-ros NAME ARGUMENTS...``."""
        # Through -c with a clean path: a checkout in the working directory must not stand in for the installed package.
        code = ("import sys; sys.path[:] = [p for p in sys.path if p]; "
                "from hmr_ros.cli import main; sys.exit(main(sys.argv[1:]))")  # fmt: skip
        with open(self._out / f"{name}.log", "wb") as log:
            child = subprocess.Popen([sys.executable, "-c", code, name, *arguments], stdin=subprocess.DEVNULL, stdout=log,
                                     stderr=subprocess.STDOUT)  # fmt: skip
        self._running[name] = child
        return child

    def start_viewer(self, ros: list[str]) -> str:
        """Start ``hmr-ros view`` on a free port; its address."""
        self.start("view", ["--port", "0", *ros])
        deadline = time.monotonic() + VIEWER_SECONDS
        while not (found := re.search(r"^open (http\S+)$", (self._out / "view.log").read_text(errors="replace"), re.M)):
            self.check("view")
            if time.monotonic() > deadline:
                self.fail("view", f"has no address after {VIEWER_SECONDS:g} s")
            time.sleep(0.1)
        self.address = found[1]
        return self.address

    def check(self, name: str, may_end: tuple[int, ...] = ()) -> None:
        """ChildFailed if the child ``name`` has ended, unless by one of the exit codes ``may_end``."""
        code = self._running[name].poll()
        if code is not None and code not in may_end:
            self.fail(name, f"ended with exit code {code}")

    def fail(self, name: str, what: str) -> None:
        path = self._out / f"{name}.log"
        tail = path.read_text(errors="replace").splitlines()[-LOG_LINES:]
        raise ChildFailed("\n".join([f"the {name} process {what}; the end of {path}:", *tail]))

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *_) -> None:
        for number, seconds in ((signal.SIGINT, 6.0), (signal.SIGTERM, 2.0), (signal.SIGKILL, 5.0)):
            alive = [child for child in self._running.values() if child.poll() is None]
            for child in alive:
                child.send_signal(number)
            deadline = time.monotonic() + seconds
            for child in alive:
                try:
                    child.wait(max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    pass


# ---- the show -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """What was measured of one source; latencies in seconds, re-projection as (share of the diagonal, px) a body."""

    name: str
    frames_in: int
    frames_out: int
    people: list[int]
    meshes: int
    latencies: list[float]
    reprojection: list[tuple[float, float]]
    files: list[Path]
    reading: dict  # ReadReport.as_json() of the replay, and its line


def show(sources: list[Source], options: Demo, children: Children, console: Console, stop: StopEvent) -> list[Row]:
    """Start the live node, replay every source, draw the answers."""
    import rclpy

    ros = ["--ros-args", "-r", f"__ns:={NAMESPACE}"]
    # Reliable, so that it also works where shared memory is too small for images and they travel in pieces.
    parameters = ["-p", "image_reliability:=reliable", "-p", f"backend:={options.backend}", "-p", f"regressor:={options.regressor}"]
    if options.checkpoint:
        parameters += ["-p", f"checkpoint:={options.checkpoint.resolve()}"]
    children.start("live", [*ros, *parameters])
    if options.view:
        console.print(f"viewer: {children.start_viewer(ros)}", highlight=False, soft_wrap=True)
    start_ros([])
    from hmr_ros.ros.collector import Collector

    collector = Collector(namespace=NAMESPACE)
    spinner = Spinner(collector)
    rows = []
    try:
        with console.status("live node: loading the models"):
            wait_until(collector.ready.is_set, START_SECONDS, stop, children)
        for source in sources:
            if stop.is_set():
                break
            session, reading = play(source, options, collector, children, console, ros, stop)
            rows.append(write(source, session, reading, collector.model, options.out))
    finally:
        spinner.stop()
        collector.destroy_node()
        rclpy.try_shutdown()
    if spinner.failed is not None:
        raise spinner.failed
    return rows


def wait_until(condition, seconds: float, stop: StopEvent, children: Children) -> None:
    """Until ``condition()`` or ``stop``; ChildFailed if the live node ends or the time is over."""
    deadline = time.monotonic() + seconds
    while not condition() and not stop.wait(0.05):
        children.check("live")
        if time.monotonic() > deadline:
            children.fail("live", f"did not become active within {seconds:g} s")


def play(source, options: Demo, collector, children: Children, console: Console, ros: list[str], stop):
    """Replay ``source`` from another process until its end; returns the collector's session and what became of the source."""
    session = collector.begin()
    limits = {"picture": ["--loop", "--max-frames", str(PICTURE_FRAMES)], "folder": ["--rate", str(FOLDER_RATE)]}
    told = options.out / "replay.json"
    told.unlink(missing_ok=True)
    arguments = [source.name, "--json", str(told), "--subscribers", "3" if options.view else "2", "--max-seconds", str(options.seconds), *limits.get(source.kind, [])]
    begin = time.monotonic()
    child = children.start("replay", [*arguments, *ros])
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"), TimeElapsedColumn()
    with Progress(*columns, console=console) as progress:
        total = {"picture": PICTURE_FRAMES, "folder": len(source.files), "video": (source.length or 0)}.get(source.kind)
        limit = int(options.seconds * (FOLDER_RATE if source.kind == "folder" else source.rate))
        task = progress.add_task(escape(printable(source.stem)), total=min(total or limit, limit), count="")
        while child.poll() is None and not stop.wait(0.1):
            children.check("live")
            answered = len(session.answers)
            progress.update(task, completed=session.images, count=f"{session.images} images, {answered} answered")
            if time.monotonic() - begin > options.seconds + 60:
                children.fail("replay", "does not end")
        if not stop.is_set():
            children.check("replay", may_end=(0, 1) if told.exists() else (0,))
        deadline = time.monotonic() + LAST_ANSWER_SECONDS
        while collector.waiting() and time.monotonic() < deadline and not stop.wait(0.05):
            children.check("live")
        answered = len(session.answers)
        progress.update(task, total=session.images, completed=session.images,
                        count=f"{session.images} images, {answered} answered")  # fmt: skip
    return session, json.loads(told.read_text()) if told.exists() else ReadReport(promised=None).as_json()


# ---- results --------------------------------------------------------------------------------------------------------


def write(source: Source, session, reading: dict, model, out: Path) -> Row:
    """Draw the answers over their images into ``out``; one row of the table."""
    from hmr_ros.drawing import draw_overlay

    faces = np.reshape(np.frombuffer(model.faces, np.uint32), (-1, 3)).astype(np.int32)
    answers = session.answers
    files: list[Path] = []
    if source.kind in ("video", "camera") and answers:
        path = out / f"{source.stem}.overlay.mp4"
        span = answers[-1].stamp - answers[0].stamp
        rate = (len(answers) - 1) / span if span > 0 else source.rate
        height, width = answers[0].image().shape[:2]
        with atomic_write(path) as partial, VideoWriter(partial, rate) as writer:
            for answer in track(answers, escape(f"drawing {printable(path.name)}")):
                overlay = draw_overlay(answer.image(), answer.bodies, faces)
                writer.write(overlay if overlay.shape[:2] == (height, width) else cv2.resize(overlay, (width, height)))
        files = [path]
    elif answers:
        shown = [file for file, _ in source.decoded()] if source.kind == "folder" else source.files
        newest = {answer.index % len(shown): answer for answer in answers}
        stems = unique_stems(shown)
        for number, answer in sorted(newest.items()):
            path = out / f"{stems[number]}.overlay.png"
            write_picture(path, draw_overlay(answer.image(), answer.bodies, faces))
            files.append(path)
    bodies = [body for answer in answers for body in answer.bodies]
    errors = [(body.reprojection_error(), float(np.hypot(*(body.box[2:] - body.box[:2])))) for body in bodies]
    return Row(
        name=source.stem,
        frames_in=session.images,
        frames_out=len(answers),
        people=[len(answer.bodies) for answer in answers],
        meshes=sum(len(body.vertices) > 0 for body in bodies),
        latencies=[answer.latency for answer in answers],
        reprojection=[(share, share * diagonal) for share, diagonal in errors if share is not None],
        files=files,
        reading=reading,
    )


def table(rows: list[Row]) -> Table:
    """A column for each source: frames, people, latency, re-projection error."""
    result = Table(title="camera image → ROS 2 → body meshes")
    result.add_column("")
    for row in rows:
        result.add_column(row.name, justify="right", overflow="fold")
    measures = {
        "frames in": lambda r: str(r.frames_in),
        "frames out": lambda r: str(r.frames_out),
        "frames dropped": lambda r: str(r.frames_in - r.frames_out),
        "people in a frame, mean / most": lambda r: f"{np.mean(r.people):.1f} / {max(r.people)}" if r.people else "-",
        "latency p50 / p95, ms": lambda r: percentiles(r.latencies),
        "mean re-projection error, % of diagonal": lambda r: mean_of(r.reprojection, 0, 100),
        "mean re-projection error, px": lambda r: mean_of(r.reprojection, 1, 1),
    }
    for title, measure in measures.items():
        result.add_row(title, *map(measure, rows))
    return result


def percentiles(latencies: list[float]) -> str:
    return "{:.0f} / {:.0f}".format(*(1e3 * np.percentile(latencies, [50, 95]))) if latencies else "-"


def mean_of(pairs: list[tuple[float, float]], which: int, factor: float) -> str:
    return f"{factor * np.mean([pair[which] for pair in pairs]):.1f}" if pairs else "-"


if __name__ == "__main__":
    sys.exit(main())
