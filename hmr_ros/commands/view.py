"""``hmr-ros view [RECORDING]``: bodies in a browser, live from the topics of a node or from a recording."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from hmr_ros.commands.bodies import read_motion
from hmr_ros.io.bag_pictures import BagPictures
from hmr_ros.io.bags import is_bag
from hmr_ros.io.report import ReadReport, printable
from hmr_ros.motion.motion import Motion
from hmr_ros.ros.process import ignore_signals, stop_event, without_ros_arguments
from hmr_ros.viewer.meshes import MeshMaker
from hmr_ros.viewer.shots import History, RecordedPictures, shots_of


@dataclass(frozen=True)
class View:
    """Show bodies in a browser: live from `bodies`, `body_model`, `image` and `camera_info` (remap with --ros-args -r bodies:=...), or a
    recording."""

    recording: Annotated[str | None, tyro.conf.Positional] = None
    """The .npz of `hmr-ros bodies` or `hmr-ros image`, or a bag with BodyArrays; without it live."""
    host: str = "127.0.0.1"
    """Address to listen on: this machine only. 0.0.0.0: everybody in the network sees the camera's pictures, without a password."""
    port: int = 8080
    """Port; the next free one is taken where it is in use."""
    body_model: Path | None = None
    """SMPL's file, where the bodies are its and come without vertices; without it the embedded body."""
    history: int = 300
    """How many moments the slider goes back, live."""
    rate: float = 15.0
    """Moments a second that are kept and shown, live, at most."""
    compressed: bool = False
    """Subscribe image/compressed instead of image."""
    image_topic: str = ""
    """Where a bag's pictures come from; without it from the topic with most of the bodies' stamps."""

    def __post_init__(self):
        for name, low, high in (("port", 0, 65535), ("history", 1, 100_000), ("rate", 0.1, 1000)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"--{name} is {getattr(self, name)}, expected {low} to {high}")


def main(argv: list[str]) -> int:
    """0 after Ctrl-C. ValueError for a recording that is none."""
    stop = stop_event()
    options = tyro.cli(View, args=without_ros_arguments(argv) if "--ros-args" in argv else argv, prog="hmr-ros view")
    make_mesh = MeshMaker(options.body_model)
    return _show_recording(options, make_mesh, stop) if options.recording else _show_live(options, argv, make_mesh, stop)


def _show_recording(options: View, make_mesh: MeshMaker, stop) -> int:
    from hmr_ros.viewer.server import Viewer

    motion, report = read_motion(Path(options.recording))
    if not len(motion.rows["id"]):
        raise ValueError(f"{printable(options.recording)} has no bodies in {len(motion.times)} images, expected at least one")
    make_mesh.expect(motion.body_model, motion.sha256)
    make_mesh.load()
    if report.exit_code:
        print(f"{printable(options.recording)}: {report.line()}", file=sys.stderr)
    with ExitStack() as stack:
        recorded, told = None, ""
        if is_bag(Path(options.recording)):
            bag = stack.enter_context(_bag_pictures(options, motion))
            recorded, motion = RecordedPictures(bag.at), replace(motion, camera=bag.camera or motion.camera)
            told = f"{bag.count} of them with a picture of {printable(bag.topic.name)}" if bag.topic else "no pictures of them"
        elif options.image_topic:
            raise ValueError(f"--image-topic is {printable(options.image_topic)}, but {printable(options.recording)} is no bag: it holds no pictures")
        shots = shots_of(motion, recorded)
        status = f"{printable(Path(options.recording).name)}: {len(shots)} moments, {motion.rate:.1f} a second" + f"; {told}" * bool(told)

        def words() -> str:
            return "\n\n".join(filter(None, (status, make_mesh.missing, recorded and recorded.problem)))

        return _serve(Viewer(lambda: shots, False, make_mesh, words, options.host, options.port), options, stop)


def _bag_pictures(options: View, motion: Motion) -> BagPictures:
    report = ReadReport()
    pictures = BagPictures(options.recording, motion.times.tolist(), options.image_topic, report)
    if report.skipped:
        print(f"{printable(options.recording)}: {report.line()}", file=sys.stderr)
    return pictures


def _show_live(options: View, argv: list[str], make_mesh: MeshMaker, stop) -> int:
    import time

    import rclpy

    from hmr_ros.ros.process import Spinner, start_ros
    from hmr_ros.ros.view_source import ViewSource
    from hmr_ros.viewer.server import Viewer

    start_ros(argv)
    history = History(options.history)
    source = ViewSource(history, make_mesh, options.rate, options.compressed)
    spinner = Spinner(source, done=stop)

    def status() -> str:
        told = f"{history.rate(time.monotonic()):.1f} shown a second; {source.words()}"
        return "\n\n".join(filter(None, (told, make_mesh.missing)))

    viewer = None
    try:
        viewer = Viewer(history.shots, True, make_mesh, status, options.host, options.port)
        return _serve(viewer, options, stop)
    finally:
        ignore_signals()
        spinner.stop()
        source.destroy_node()
        rclpy.try_shutdown()
        if spinner.failed is not None:
            raise spinner.failed


def _serve(viewer, options: View, stop) -> int:
    from hmr_ros.viewer.server import LOOPBACK

    print(f"open {viewer.address}", flush=True)
    if options.host not in LOOPBACK:
        print(f"listening on {options.host}: whoever reaches this machine sees the camera's pictures, without a password", file=sys.stderr, flush=True)
    try:
        while not stop.wait(0.5):
            if viewer.failed is not None:
                raise viewer.failed
    finally:
        viewer.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
