"""``hmr-ros image PATH... --out DIR``: bodies of the people in pictures, directories and videos, without ROS.

For each input ``<stem>.overlay.png`` (or ``.mp4``), ``<stem>.bodies.npz`` and ``<stem>.json``. What an input is, its content decides.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Literal

import cv2
import numpy as np
import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import track

from hmr_ros.drawing import side_by_side
from hmr_ros.estimate import BodyEstimate
from hmr_ros.estimator import HumanMeshEstimator
from hmr_ros.files import atomic_write, make_folder, write_json, write_picture
from hmr_ros.geometry import Intrinsics, pinhole
from hmr_ros.inputs import check_input
from hmr_ros.io.content import find_media
from hmr_ros.io.report import ReadReport, printable
from hmr_ros.io.sequences import SequenceFile
from hmr_ros.io.sources import nothing_in, open_moving, read_file, unique_stems
from hmr_ros.io.videos import VideoFile, VideoWriter
from hmr_ros.motion.motion import motion_of
from hmr_ros.proxies.paper import hdnet
from hmr_ros.proxies.paper.config import ProxyFiles


@dataclass(frozen=True)
class ImageConfig:
    """Estimate the bodies of the people in pictures, directories of them, and videos."""

    paths: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Pictures, directories, videos."""
    out: Path = Path("hmr_out")
    """Where the overlays, .npz and .json files go."""
    backend: Literal["auto", "openvino", "torch", "tensorrt"] = "auto"
    body_model: Path | None = None
    """SMPL's .pkl or .npz; without it the embedded body."""
    checkpoint: Path | None = None
    """Another checkpoint than the embedded one."""
    regressor: Literal["auto", "lifter", "resnet18"] = "auto"
    """auto: what the checkpoint holds, without one the lifter; resnet18: the paper's, trained without labels."""
    extractor: Literal["embedded", "paper"] = "embedded"
    """embedded: MoveNet and BlazePose; paper: Keypoint R-CNN and a depth network, with weights that you bring, for the regressor resnet18."""
    proxies: Annotated[ProxyFiles, tyro.conf.arg(name="")] = ProxyFiles()
    flip_averaging: bool = False
    """Flip test-time augmentation: better, for one more BlazePose pass a person."""
    fov: float | None = None
    """Horizontal field of view in degrees: bodies in the camera's frame, with metric translations."""
    stature: float | None = None
    """Metres, where the people's is known: makes distances more accurate."""
    json: Path | None = None
    """File for what was promised, read, skipped and ignored of every input."""


def main(argv: list[str]) -> int:
    """0: everything was read; 1: something was lost or skipped, the rest was made; 2: nothing could be read."""
    config = tyro.cli(ImageConfig, args=argv, prog="hmr-ros image")
    console = Console(markup=False, highlight=False, soft_wrap=True)
    report = ReadReport("inputs")
    inputs = _inputs(config.paths, report)
    make_folder(config.out)
    with console.status("loading the networks"):
        estimator = HumanMeshEstimator.from_default(
            config.backend, config.body_model, config.checkpoint,
            flip_averaging=config.flip_averaging, regressor=config.regressor, extractor=config.extractor, proxy_files=config.proxies,
        )  # fmt: skip
    console.print(f"body model {estimator.body_model.name}; {estimator.backend}")
    reports = {}
    for path, stem in zip(inputs, unique_stems(inputs)):
        try:
            moving = open_moving(path)
            if moving is None:
                line, reading = _process_image(path, config.out / stem, estimator, config)
            else:
                line, reading = _process_video(moving, config.out / stem, estimator, config)
        except (ValueError, OSError) as error:
            report.skip(path, error)
            console.print(f"{printable(path)}: {error}", style="red")
            continue
        report.read += 1
        report.damaged += reading.exit_code != 0
        reports[printable(path)] = reading.as_json()
        console.print(f"{printable(path)}: {line} → {printable(config.out / stem)}.*")
        if reading.exit_code or reading.notes:
            console.print(f"{printable(path)}: {reading.line()}", style="red" if reading.exit_code else "yellow")
    if report.exit_code or report.ignored:
        console.print(report.line(), style="red" if report.exit_code else "yellow")
    if config.json:
        write_json(config.json, report.as_json() | {"inputs": reports})
    return report.exit_code


def _inputs(paths: tuple[Path, ...], report: ReadReport) -> list[Path]:
    """Every picture and video named, directories opened (not their subdirectories). ``report`` counts them, and what else was found."""
    if not paths:
        raise ValueError("no input: name at least one picture, directory or video")
    inputs: list[Path] = []
    for path in paths:
        if path.is_dir():
            before = len(report.skipped) + len(report.ignored)
            media = [medium.path for medium in find_media(path, report)]
            if not media and len(report.skipped) + len(report.ignored) == before:
                raise ValueError(nothing_in(path, report, "pictures or videos"))
            inputs += media
        elif path.exists():
            inputs.append(path)
        else:
            found = "is a dangling link" if path.is_symlink() else "does not exist"
            raise FileNotFoundError(f"{printable(path)} {found}")
    report.promised = len(inputs)
    return inputs


def _process_image(path: Path, out: Path, estimator: HumanMeshEstimator, config: ImageConfig) -> tuple[str, ReadReport]:
    """What is said of it, and how it was read."""
    reading = ReadReport(promised=1)
    image = read_file(path, reading)
    reading.read = 1
    if config.proxies.depth_maps is None:
        bodies = estimator(image, intrinsics=_intrinsics(image, config.fov), stature=config.stature)
    else:
        camera = check_input(image, None, _intrinsics(image, config.fov), config.stature)
        people = hdnet.with_map_of(config.proxies.depth_maps, path.name, estimator.extractor(image), image.shape[:2])
        bodies = estimator.estimate(people, camera, statures=config.stature and np.full(len(people), config.stature))
    write_picture(f"{out}.overlay.png", side_by_side(image, bodies, estimator.body_model.faces))
    with atomic_write(f"{out}.bodies.npz") as partial:
        np.savez_compressed(partial, **_stack(bodies, with_vertices=True), faces=estimator.body_model.faces)
    content = {"reading": reading.as_json(), "detected": bodies.detected, "without_body": bodies.reason(),
               "bodies": [_as_json(body) for body in bodies]}  # fmt: skip
    write_json(f"{out}.json", _header(path, image, estimator) | content, allow_nan=True)
    return _counted(len(bodies), "") + _summary(bodies) + (f"; {bodies.reason()}" if bodies.reason() else ""), reading


def _process_video(
    moving: VideoFile | SequenceFile, out: Path, estimator: HumanMeshEstimator, config: ImageConfig
) -> tuple[str, ReadReport]:
    """Like a picture, frame by frame; the .npz leaves the vertices out (the parameters give them back)."""
    if config.proxies.depth_maps is not None:
        raise ValueError(f"--depth-maps {config.proxies.depth_maps} has a map a picture, and this is a video: extract its frames first")
    reading = ReadReport("frames")
    stream = estimator.stream()
    bodies: list[BodyEstimate] = []
    per_frame: list[tuple[int, float, list[BodyEstimate]]] = []
    frames: list[dict] = []
    size = header = None
    name = printable(moving.path.name)
    with atomic_write(f"{out}.overlay.mp4") as partial, VideoWriter(partial, moving.rate) as writer:
        for frame in track(moving.frames(reading), escape(name), total=moving.length):
            picture = frame.picture
            if header is None:
                header = _header(moving.path, picture, estimator) | {"frames_per_second": moving.rate}
            found = stream(picture, frame.time, intrinsics=_intrinsics(picture, config.fov), stature=config.stature)
            overlay = side_by_side(picture, found, estimator.body_model.faces)
            size = size or (overlay.shape[1], overlay.shape[0])
            writer.write(overlay if overlay.shape[1::-1] == size else cv2.resize(overlay, size))  # a stream may change its resolution
            light = [replace(body, vertices=body.vertices[:0].copy()) for body in found]  # meshes would fill the memory
            bodies += light
            per_frame.append((frame.index, frame.time, light))
            frames.append({"frame": frame.index, "time": frame.time, "detected": found.detected, "without_body": found.reason(),
                           "bodies": [_as_json(body) for body in found]})  # fmt: skip
    camera = None if size is None or config.fov is None else (*_intrinsics(picture, config.fov), picture.shape[1], picture.shape[0])
    motion = motion_of(per_frame, estimator.body_model.name, estimator.body_model.sha256, estimator.reliability_source, camera)
    arrays = _stack(bodies, with_vertices=False) | motion.arrays()
    with atomic_write(f"{out}.bodies.npz") as partial:
        np.savez_compressed(partial, **arrays)
    write_json(f"{out}.json", header | {"reading": reading.as_json(), "frames": frames}, allow_nan=True)
    reasons = Counter(frame["without_body"] for frame in frames if frame["without_body"])
    why = "".join(f"; {count} frames: {reason}" for reason, count in reasons.most_common(3))
    return _counted(len(bodies), f" in {len(frames)} frames") + _summary(bodies) + why, reading


def _counted(number: int, where: str) -> str:
    return f"{number or 'no'} {'body' if number == 1 else 'bodies'}{where}"


def _intrinsics(image: np.ndarray, fov: float | None) -> Intrinsics | None:
    return None if fov is None else pinhole(image.shape[1], image.shape[0], fov)


def _header(path: Path, image: np.ndarray, estimator: HumanMeshEstimator) -> dict:
    return {
        "source": printable(path.name),
        "height": image.shape[0],
        "width": image.shape[1],
        "body_model": {"name": estimator.body_model.name, "sha256": estimator.body_model.sha256},
        "backend": estimator.backend,
        "reliability_source": estimator.reliability_source,
    }


def _as_json(body: BodyEstimate) -> dict:
    """Everything but the mesh, which is in the .npz."""
    values = {f.name: getattr(body, f.name) for f in fields(body) if f.name not in ("vertices", "camera")}
    plain = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items()}
    return plain | {"reprojection_error": body.reprojection_error()}


def _stack(bodies: list[BodyEstimate], with_vertices: bool) -> dict[str, np.ndarray]:
    """Fields of N bodies as arrays (N, ...); ``translation`` only where it is known."""
    left_out = {"camera"} if with_vertices else {"camera", "vertices"}
    if not bodies:
        return {"score": np.zeros(0, np.float32)}
    known = [f.name for f in fields(BodyEstimate) if f.name not in left_out and getattr(bodies[0], f.name) is not None]
    arrays = {name: np.stack([np.asarray(getattr(body, name)) for body in bodies]) for name in known}
    return {name: array if array.dtype.kind == "U" else array.astype(np.float32) for name, array in arrays.items()}


def _summary(bodies: list[BodyEstimate]) -> str:
    errors = [error for body in bodies if (error := body.reprojection_error()) is not None]
    return f", joints {100 * np.mean(errors):.1f} % of the person's diagonal from the detected ones" if errors else ""
