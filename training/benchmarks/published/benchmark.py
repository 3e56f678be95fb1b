"""``hmr-ros eval 3dpw`` and ``hmr-ros eval h36m``: the estimator on published benchmarks that the user brings.

Readers are in data/readers/, what the figures mean in protocols.py, who is who in matching.py. Predicted vertices are
compared with the truth in camera axes: turned there by the viewing ray's rotation where the data set tells the camera. HMR and SPIN
compare them in the axes of the ray as they come; that figure stands beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from rich.console import Console, Group
from rich.progress import track
from rich.table import Table

import hmr_ros
from hmr_ros.body.model import BodyModel
from hmr_ros.estimator import HumanMeshEstimator
from hmr_ros.networks.checkpoints import EMBEDDED_CHECKPOINT, load_lifter
from hmr_ros.camera import ray_axes
from hmr_ros.files import write_json
from hmr_ros.geometry import matrix_from_6d
from hmr_ros.io.report import ReadReport
from hmr_ros.training.data.extract.frames import FileReader
from hmr_ros.training.data.readers import human36m, spin, threedpw, vibe
from hmr_ros.training.data.readers.records import Corrupt, Frame, Reading, Record
from hmr_ros.training.benchmarks.published.matching import match
from hmr_ros.training.benchmarks.published.protocols import PROTOCOLS, ProtocolName, counts, errors, ground_truth, regress_joints
from hmr_ros.training.benchmarks.published.smpl_models import find_models, load_regressor

Benchmark = Literal["3dpw", "h36m"]
TITLES = {"3dpw": "3DPW, test split", "h36m": "Human3.6M, Protocol 2"}
PUBLISHED = {"3dpw": (159.4, 89.5), "h36m": (None, 85.4)}  # Tables 2 and 3 of the paper: MPJPE, PA-MPJPE


@dataclass(frozen=True)
class PoseEvalConfig:
    """Score the estimator on 3DPW's test split or Human3.6M's Protocol 2: MPJPE and PA-MPJPE in mm, 14 joints.

    Protocols. spin: gendered ground truth, root is the regressed pelvis, frames with a valid camera. vibe: neutral ground
    truth, root between the hips, people with more than 6 visible limb joints. paper: the paper does not define its own and
    is counted as spin's. People whom the detector misses count as the mean pose; those found are scored apart as well.
    """

    data: Path
    """The dataset as it is downloaded (docs/benchmarks.md shows the layout)."""
    smpl: Path
    """Folder with SMPL_NEUTRAL, and SMPL_MALE and SMPL_FEMALE where the ground truth is gendered (.pkl or .npz)."""
    joint_regressor: Path
    """J_regressor_h36m.npy."""
    protocol: tuple[ProtocolName, ...] = ()
    """One or more of spin, vibe, paper; default: spin and vibe, or the one that the annotations allow."""
    annotations: Path | None = None
    """SPIN's .npz or VIBE's .pt, instead of the dataset's own ground truth."""
    checkpoint: Path | None = None
    """Another one than the embedded checkpoint."""
    backend: Literal["auto", "openvino", "torch"] = "auto"
    limit: int | None = None
    """Only so many pictures, evenly spread."""
    json: Path | None = None
    """File for all figures, and for everybody missed or unreadable by name."""


def main_3dpw(argv: list[str]) -> int:
    return _main("3dpw", argv)


def main_h36m(argv: list[str]) -> int:
    return _main("h36m", argv)


def _main(benchmark: Benchmark, argv: list[str]) -> int:
    config = tyro.cli(PoseEvalConfig, args=argv, prog=f"hmr-ros eval {benchmark}")
    return run(benchmark, config, Console(markup=False))["reading"]["exit_code"]


def run(benchmark: Benchmark, config: PoseEvalConfig, console: Console) -> dict:
    """Score what ``config`` names; prints a table, writes the JSON and returns what goes into it."""
    protocols = _protocols(benchmark, config)
    genders = ["neutral"]
    if benchmark == "3dpw" and any(PROTOCOLS[name].gendered for name in protocols):
        genders += ["male", "female"]
    models = find_models(config.smpl, genders)
    bodies = {gender: BodyModel.load(path) for gender, path in models.items()}
    regressor = load_regressor(config.joint_regressor, bodies["neutral"])
    for gender, body in bodies.items():
        if len(body.smpl.v_template) != regressor.shape[1]:
            raise ValueError(
                f"{models[gender]} has {len(body.smpl.v_template)} vertices, the neutral model {regressor.shape[1]}"
            )
    with console.status("reading the annotations"):
        reading = _read(benchmark, config)
    wanted = [record for record in reading.records if any(counts(record, PROTOCOLS[name]) for name in protocols)]
    wanted = _limited(wanted, config.limit)
    if not wanted:
        raise ValueError(_nobody(reading, protocols))

    estimator = HumanMeshEstimator.from_default(config.backend, models["neutral"], config.checkpoint, regressor="lifter", precision="fp32")
    predicted, in_ray_axes, unreadable = predict(wanted, estimator, regressor, console)
    readable = np.array([record.frame.name not in {part.name for part in unreadable} for record in wanted])
    wanted, predicted, in_ray_axes = [record for record, ok in zip(wanted, readable) if ok], predicted[readable], in_ray_axes[readable]
    if not wanted:
        raise ValueError(f"none of the {len(readable)} people's pictures could be read; the first: {unreadable[0].reason}")
    mean = regress_joints(mean_pose(bodies["neutral"], config.checkpoint), regressor)[0]
    result = {
        "benchmark": benchmark,
        "title": TITLES[benchmark],
        "data": str(config.data),
        "annotations": "the dataset's own" if config.annotations is None else config.annotations.name,
        "limit": config.limit,
        "pictures": len({record.frame for record in wanted}),
        "version": hmr_ros.__version__,
        "checkpoint": _identity(config.checkpoint or EMBEDDED_CHECKPOINT),
        "bodies": {gender: {"name": body.name, "sha256": body.sha256} for gender, body in bodies.items()},
        "joint_regressor": _identity(config.joint_regressor),
        "backend": estimator.backend,
        "axes": _axes(wanted),
        "protocols": {},
        "corrupt": [part._asdict() for part in (*reading.corrupt, *unreadable)],
    }
    for name in protocols:
        chosen = [row for row, record in enumerate(wanted) if counts(record, PROTOCOLS[name])]
        truth = ground_truth([wanted[row] for row in chosen], bodies, regressor, PROTOCOLS[name]) if chosen else None
        result["protocols"][name] = {"definition": PROTOCOLS[name].summary, "people": len(chosen)}
        if truth is not None:
            names = [wanted[row].name for row in chosen]
            result["protocols"][name] |= score(predicted[chosen], mean, *truth, name, names)
            if any(wanted[row].camera is not None for row in chosen):
                by_ray = score(in_ray_axes[chosen], mean, *truth, name, names)
                result["protocols"][name]["ray_axes"] = {who: by_ray[who] for who in ("everybody", "found")}
    pictures = len({record.frame for record in wanted})
    report = ReadReport(promised=pictures, read=pictures - len(unreadable))
    for part in (*reading.corrupt, *unreadable):
        report.skip(part.name, part.reason)
    result["reading"] = report.as_json()
    if config.json:
        write_json(config.json, result)
    console.print(tables(result))
    return result


def score(
    predicted: np.ndarray,
    mean: np.ndarray,
    joints: np.ndarray,
    roots: np.ndarray,
    protocol: ProtocolName,
    names: Sequence[str],
) -> dict:
    """Figures of one protocol. predicted (N, 17, 3), NaN for whom the detector missed; mean (17, 3) stands in for those."""
    found = np.isfinite(predicted).all((1, 2))
    instead = np.broadcast_to(mean, predicted.shape)
    everybody = errors(np.where(found[:, None, None], predicted, instead), joints, roots, PROTOCOLS[protocol])
    of_mean = errors(instead, joints, roots, PROTOCOLS[protocol])
    return {
        "everybody": _means(everybody),
        "found": _means([part[found] for part in everybody]) | {"people": int(found.sum())},
        "mean_pose": _means(of_mean),
        "missed": [name for name, ok in zip(names, found) if not ok],
    }


def predict(
    records: Sequence[Record], estimator: HumanMeshEstimator, regressor: np.ndarray, console: Console
) -> tuple[np.ndarray, np.ndarray, list[Corrupt]]:
    """Joints (N, 17, 3) of each record's body in camera axes where its camera is known, else in ray axes; the same in ray axes; NaN where
    it was not found; and the pictures that could not be read."""
    by_frame: dict[Frame, list[int]] = {}
    for row, record in enumerate(records):
        by_frame.setdefault(record.frame, []).append(row)
    frames = sorted(by_frame, key=lambda frame: (str(frame.path), frame.index))
    predicted, unreadable = np.full((len(records), 17, 3), np.nan, np.float32), []
    in_ray_axes = predicted.copy()
    for frame, picture in track(_pictures(frames), "pictures", total=len(frames), console=console):
        if isinstance(picture, str):
            unreadable.append(Corrupt(frame.name, picture))
            continue
        rows = by_frame[frame]
        camera = records[rows[0]].camera
        bodies = estimator(picture, intrinsics=camera)
        for row, index in zip(rows, match([records[row] for row in rows], bodies)):
            if index is not None:
                predicted[row] = regress_joints(bodies[index].vertices[None], regressor)[0]
                turn = np.eye(3) if camera is None else ray_axes(camera, bodies[index].crop[None, :2])[0]
                in_ray_axes[row] = predicted[row] @ turn.T
    return predicted, in_ray_axes, unreadable


def _axes(records: Sequence[Record]) -> str:
    known = sum(record.camera is not None for record in records)
    return "camera" if known == len(records) else "ray" if not known else f"camera for {known} of {len(records)} people, ray for the others"


def mean_pose(body: BodyModel, checkpoint: Path | None = None) -> np.ndarray:
    """Vertices (1, V, 3) of the checkpoint's mean pose, upright and facing as its training people did on average."""
    lifter, _ = load_lifter(checkpoint or EMBEDDED_CHECKPOINT)
    with torch.inference_mode():
        return body(matrix_from_6d(lifter.mean_rotations)[None], torch.zeros(1, 10)).vertices.numpy()


def tables(result: dict) -> Group:
    """The figures of ``run``, to print."""
    title = f"{result['title']}: mm, 14 joints; {result['pictures']} pictures, annotations: {result['annotations']}"
    if result["limit"] is not None:
        title += f"; only a part of the benchmark (--limit {result['limit']})"
    table = Table(title=title, title_justify="left")
    for column in ("protocol", "who"):
        table.add_column(column, no_wrap=True)
    for column in ("people", "MPJPE", "PA-MPJPE"):
        table.add_column(column, justify="right", no_wrap=True)
    lines = []
    for name, row in result["protocols"].items():
        lines.append(f"{name}: {row['definition']}")
        if not row["people"]:
            table.add_row(name, "nobody", "0", "-", "-")
            continue
        missed = len(row["missed"])
        table.add_row(name, f"everybody, {missed} missed as the mean pose", str(row["people"]), *_both(row["everybody"]))
        if "ray_axes" in row:
            table.add_row(name, "everybody, in the ray's axes (as SPIN)", str(row["people"]), *_both(row["ray_axes"]["everybody"]))
        table.add_row(name, "found by the detector", str(row["found"]["people"]), *_both(row["found"]))
        table.add_row(name, "mean pose for everybody", str(row["people"]), *_both(row["mean_pose"]))
        table.add_section()
    published = dict(zip(("mpjpe", "pa_mpjpe"), PUBLISHED[result["benchmark"]]))
    table.add_row("unknown", "published by the paper", "", *_both(published))
    corrupt = result["corrupt"]
    if corrupt:
        shown = "; ".join(f"{part['name']}: {part['reason']}" for part in corrupt[:5])
        more = f"; and {len(corrupt) - 5} more (--json names all)" if len(corrupt) > 5 else ""
        lines.append(f"{len(corrupt)} unreadable and left out: {shown}{more}")
    else:
        lines.append("nothing was unreadable")
    return Group(table, *lines)


def _protocols(benchmark: Benchmark, config: PoseEvalConfig) -> tuple[ProtocolName, ...]:
    """Those asked for, or all that the annotations allow. ValueError for what they cannot tell."""
    allowed: tuple[ProtocolName, ...] = ("spin", "vibe", "paper")
    why = ""
    if config.annotations is not None and config.annotations.suffix != ".npz":
        allowed, why = ("vibe",), "VIBE's files hold neither genders nor a pelvis"
    elif config.annotations is not None and benchmark == "3dpw":
        allowed, why = ("spin", "paper"), "SPIN's files do not say which joints are visible"
    refused = [name for name in config.protocol if name not in allowed]
    if refused:
        raise ValueError(
            f"{config.annotations}: no protocol {', '.join(refused)} with these annotations: {why}; use {allowed[0]}"
        )
    return tuple(dict.fromkeys(config.protocol)) or tuple(name for name in allowed if name != "paper")


def _read(benchmark: Benchmark, config: PoseEvalConfig) -> Reading:
    if config.annotations is None:
        return {"3dpw": threedpw, "h36m": human36m}[benchmark].read(config.data, "test")
    reader = spin if config.annotations.suffix == ".npz" else vibe
    return reader.read(config.annotations, config.data)


def _limited(records: list[Record], limit: int | None) -> list[Record]:
    if limit is None:
        return records
    if limit < 1:
        raise ValueError(f"--limit is {limit}, expected a number of pictures above 0")
    frames = list(dict.fromkeys(record.frame for record in records))
    chosen = {frames[index] for index in np.linspace(0, len(frames) - 1, min(limit, len(frames))).round().astype(int)}
    return [record for record in records if record.frame in chosen]


def _nobody(reading: Reading, protocols: Sequence[str]) -> str:
    text = f"nobody to score: {len(reading.records)} people read, none counts in {', '.join(protocols)}"
    if reading.corrupt:
        text += f"; {len(reading.corrupt)} unreadable, the first: {reading.corrupt[0].name}: {reading.corrupt[0].reason}"
    return text


def _pictures(frames: Sequence[Frame]) -> Iterator[tuple[Frame, np.ndarray | str]]:
    """Each frame's picture, or why there is none; videos are decoded once, in order."""
    read = FileReader()
    for frame in frames:
        try:
            yield frame, read(frame).image
        except (ValueError, OSError) as error:
            yield frame, str(error)


def _identity(path) -> dict:
    path = Path(str(path))
    return {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _means(both: Sequence[np.ndarray]) -> dict[str, float | None]:
    return {key: float(part.mean()) if len(part) else None for key, part in zip(("mpjpe", "pa_mpjpe"), both)}


def _both(row: dict) -> list[str]:
    return ["-" if row[key] is None else f"{row[key]:.1f}" for key in ("mpjpe", "pa_mpjpe")]
