"""``hmr-ros image PATH... --out DIR``: bodies of the people in pictures, directories and videos, without ROS.

For each input ``<stem>.overlay.png`` (or ``.mp4``), ``<stem>.bodies.npz`` and ``<stem>.json``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Literal

import cv2
import numpy as np
import tyro
from rich.console import Console
from rich.progress import track

from hmr_ros.drawing import side_by_side
from hmr_ros.estimate import BodyEstimate
from hmr_ros.estimator import HumanMeshEstimator
from hmr_ros.files import atomic_write, write_json
from hmr_ros.geometry import Intrinsics, pinhole
from hmr_ros.io.decode import read_picture
from hmr_ros.io.sources import PICTURE_SUFFIXES, VIDEO_SUFFIXES, files_in, open_source, unique_stems


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
    flip_averaging: bool = False
    """Flip test-time augmentation: better, for one more BlazePose pass a person."""
    fov: float | None = None
    """Horizontal field of view in degrees: bodies in the camera's frame, with metric translations."""
    stature: float | None = None
    """Metres, where the people's is known: makes distances more accurate."""


def main(argv: list[str]) -> int:
    config = tyro.cli(ImageConfig, args=argv, prog="hmr-ros image")
    console = Console()
    inputs = _inputs(config.paths)
    config.out.mkdir(parents=True, exist_ok=True)
    with console.status("loading the networks"):
        estimator = HumanMeshEstimator.from_default(
            config.backend, config.body_model, config.checkpoint,
            flip_averaging=config.flip_averaging, regressor=config.regressor,
        )  # fmt: skip
    console.print(f"body model {estimator.body_model.name}; {estimator.backend}")
    failed = 0
    for path, stem in zip(inputs, unique_stems(inputs)):
        process = _process_image if path.suffix.lower() in PICTURE_SUFFIXES else _process_video
        try:
            people, summary = process(path, config.out / stem, estimator, config)
        except (ValueError, OSError) as error:
            failed += 1
            console.print(f"[red]{path}: {error}", highlight=False)
            continue
        seen = f"{people} {'body' if people == 1 else 'bodies'}" if people else "nobody is seen"
        console.print(f"{path}: {seen}{summary} → {config.out / stem}.*", highlight=False)
    return 1 if failed else 0


def _inputs(paths: tuple[Path, ...]) -> list[Path]:
    """Every picture and video named, directories opened (not their subdirectories)."""
    if not paths:
        raise ValueError("no input: name at least one picture, directory or video")
    inputs: list[Path] = []
    for path in paths:
        if path.is_dir():
            inputs += files_in(path, PICTURE_SUFFIXES + VIDEO_SUFFIXES)
        elif path.is_file():
            inputs.append(path)
        else:
            raise FileNotFoundError(f"{path} does not exist")
    return inputs


def _process_image(path: Path, out: Path, estimator: HumanMeshEstimator, config: ImageConfig) -> tuple[int, str]:
    image = read_picture(path)
    bodies = estimator(image, intrinsics=_intrinsics(image, config.fov), stature=config.stature)
    with atomic_write(f"{out}.overlay.png") as partial:
        if not cv2.imwrite(str(partial), side_by_side(image, bodies, estimator.body_model.faces)):
            raise ValueError(f"OpenCV cannot write {out}.overlay.png")
    with atomic_write(f"{out}.bodies.npz") as partial:
        np.savez_compressed(partial, **_stack(bodies, with_vertices=True), faces=estimator.body_model.faces)
    write_json(f"{out}.json", _header(path, image, estimator) | {"bodies": [_as_json(body) for body in bodies]}, allow_nan=True)
    return len(bodies), _summary(bodies)


def _process_video(path: Path, out: Path, estimator: HumanMeshEstimator, config: ImageConfig) -> tuple[int, str]:
    """Like a picture, frame by frame; the .npz leaves the vertices out (the parameters give them back)."""
    source = open_source(str(path))
    stream = estimator.stream()
    bodies: list[BodyEstimate] = []
    frame_of_body: list[int] = []
    frames: list[dict] = []
    writer = None
    with atomic_write(f"{out}.overlay.mp4") as partial:
        for index, frame in enumerate(track(source.pictures(), path.name, total=source.length)):
            found = stream(frame, index / source.rate, intrinsics=_intrinsics(frame, config.fov), stature=config.stature)
            picture = side_by_side(frame, found, estimator.body_model.faces)
            if writer is None:
                size = (picture.shape[1], picture.shape[0])
                writer = cv2.VideoWriter(str(partial), cv2.VideoWriter.fourcc(*"mp4v"), source.rate, size)
                header = _header(path, frame, estimator) | {"frames_per_second": source.rate}
                if not writer.isOpened():
                    raise ValueError(f"OpenCV cannot write an mp4 of {size[0]}x{size[1]} to {out.parent}")
            writer.write(picture)
            bodies += [replace(body, vertices=body.vertices[:0].copy()) for body in found]  # meshes would fill the memory
            frame_of_body += [index] * len(found)
            frames.append({"frame": index, "bodies": [_as_json(body) for body in found]})
        if writer is None:
            raise ValueError("not a readable video: no frame could be decoded")
        writer.release()
    arrays = _stack(bodies, with_vertices=False) | {"frame": np.array(frame_of_body, np.int32)}
    with atomic_write(f"{out}.bodies.npz") as partial:
        np.savez_compressed(partial, **arrays)
    write_json(f"{out}.json", header | {"frames": frames}, allow_nan=True)
    return len(bodies), f" in {len(frames)} frames" + _summary(bodies)


def _intrinsics(image: np.ndarray, fov: float | None) -> Intrinsics | None:
    return None if fov is None else pinhole(image.shape[1], image.shape[0], fov)


def _header(path: Path, image: np.ndarray, estimator: HumanMeshEstimator) -> dict:
    return {
        "source": path.name,
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
