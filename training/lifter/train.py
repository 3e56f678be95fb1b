"""``hmr-ros train lifter``: the lifter and its reliability, with the truth of rendered people.

Reads what ``hmr-ros data rendered`` wrote. First the regressor is trained, on one view a person and epoch (plain or mirrored, with
the coarse depth or a depth camera's), and its averaged weights are kept. Then its reliability is trained to tell joints within
100 mm from others, on a calibration split, a tenth of the people, that the regressor has not seen: on those it has seen, its errors
are too small. training/loop.py runs both. The paper's self-supervised training, paper/train.py, reads proxies only.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from lightning_fabric import Fabric
from rich.console import Console

import hmr_ros
from hmr_ros.body.model import BodyModel
from hmr_ros.files import save_checkpoint, write_json
from hmr_ros.io.remote import name_of
from hmr_ros.networks.checkpoints import lifter_options, load_lifter
from hmr_ros.geometry import sixd_from_matrix
from hmr_ros.networks.lifter.features import FEATURE_COUNT, FEATURE_LAYOUT
from hmr_ros.networks.lifter.net import Lifter
from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.training.data import shard_work
from hmr_ros.training.loop import LoopConfig, launch, require_same, run
from hmr_ros.training.lifter.samples import DEPTHS, FLIPS, Samples, load_feature_maps, load_people, make_samples
from hmr_ros.training.processes import everyones
from hmr_ros.training.lifter.tasks import VIEWS, RegressorTask, ReliabilityTask, shrink_betas

WEIGHTS = "lifter.safetensors"
_CALIBRATION = 10  # of so many pictures one is kept from the regressor, for its reliability


@dataclass(frozen=True, kw_only=True)
class LifterConfig(LoopConfig):
    """Train the lifter and its reliability on rendered people."""

    data: tuple[str | Path, ...]
    """Folders written by `hmr-ros data rendered`, or their URLs, for training."""
    val: tuple[str | Path, ...]
    """Folders written by `hmr-ros data rendered --split val`: their scores are shown and logged."""
    out: Path = Path("runs/lifter")
    """Where lifter.safetensors, metrics.json, resume.pt and TensorBoard's events go; an unfinished run in it is continued."""
    init: Path | None = None
    """Start from this lifter.safetensors with other people: its size and its statistics of the data count."""
    people: int | None = None
    """Learn from the first so many people only (their reliability from a tenth as many more)."""
    leave_out_everyday: bool = False
    """Learn from recorded motion only: how well do everyday situations do that were never seen?"""
    epochs: int = 30
    """An epoch shows one view of every person."""
    batch: int = 256
    """Over all processes."""
    lr: float = 1e-3
    weight_decay: float = 0.05
    average: float = 0.998
    """Of the weights, exponential moving average a step: what is evaluated and kept."""
    width: int = 640
    blocks: int = 2
    dropout: float = 0.1
    members: int = 2
    """Networks that are trained side by side, each in its own order, and averaged."""
    image_features: Annotated[int, tyro.conf.arg(aliases=("--looking",))] = 2
    """Number of members with the image-feature branch, a convolutional network on BlazePose's feature map."""
    embedding: Annotated[bool, tyro.conf.arg(aliases=("--appearance",))] = True
    """Use BlazePose's embedding beside its landmarks."""
    weight_joints: float = 10.0
    """Of the root-relative 3D joints and keypoints, L1 in metres."""
    weight_rotations: float = 1.0
    """Of the rotation matrices, mean squared."""
    weight_betas: float = 0.2
    """Of the shape, mean squared."""
    weight_projection: float = 2.0
    """Of the keypoints projected by the weak-perspective camera, L1 in crop coordinates."""
    reliability_epochs: int = 20


def train(config: LifterConfig, console: Console = Console(markup=False)) -> dict:
    """Train, write ``lifter.safetensors`` and ``metrics.json`` to ``config.out``; returns the metrics.

    Raises ValueError for a setting or folder that does not fit, FloatingPointError with the people of the batch where the loss is
    not finite.
    """
    fabric = launch(config, WEIGHTS, ("epochs", "reliability_epochs", "members", "width", "blocks"))
    if not 0 <= config.image_features <= config.members:
        raise ValueError(f"image_features is {config.image_features}, expected 0 to all {config.members} members")
    if not 0 < config.lr:
        raise ValueError(f"lr is {config.lr}, expected more than 0")
    weights, path = config.out / WEIGHTS, config.out / "metrics.json"
    if weights.exists():
        require_same(config)
        console.print(f"{weights} is finished")
        return json.loads(path.read_text())
    torch.manual_seed(config.seed)
    body = BodyModel.load(None)
    skeleton = PosedKeypoints(body)
    with console.status("reading rendered people"):
        learned, calibration = _people(config, skeleton, fabric)
        held_out = make_samples(load_people(config.val), load_feature_maps(config.val), skeleton, folder=config.out, fabric=fabric)
    people = len(learned) // VIEWS
    if fabric.is_global_zero:
        console.print(f"{people} people to learn from, {len(calibration) // VIEWS} in the calibration split, {len(held_out)} held out, "
                      f"{FEATURE_COUNT} features")  # fmt: skip
    if config.init:
        options, lifter = _continued(config, body)
    else:
        options, lifter = config, Lifter(**_options(config))
        _set_statistics(lifter, learned, fabric)
    lifter.to(fabric.device)
    regressor = RegressorTask(options, fabric, lifter, learned, held_out, skeleton)
    first = run(regressor, config, fabric, console)
    lifter.members = regressor.average.module
    shrink_betas(lifter, calibration, fabric)
    reliability = ReliabilityTask(options, fabric, lifter, calibration, held_out, skeleton)
    second = run(reliability, replace(config, out=config.out / "reliability"), fabric, console)
    lifter.reliability.load_state_dict(reliability.best.network.state_dict())
    scores = first.history[-1] | reliability.scores(second.history)
    metrics = {"scores": scores, "people": people, "history": first.history, "seconds": round(first.seconds + second.seconds, 1)}
    if fabric.is_global_zero:
        write_json(path, metrics, allow_nan=True)
        save_checkpoint(weights, halved(lifter), _metadata(options, people, body, scores))
        console.print(
            f"MPJPE {scores['mpjpe']:.1f} mm, PA-MPJPE {scores['pa_mpjpe']:.1f} mm, AUROC of the reliability "
            f"{scores['auroc']:.3f} on the held-out people; {weights}"
        )
    fabric.barrier()  # the files are there, in whatever process this returns
    return metrics


def _people(config: LifterConfig, skeleton: PosedKeypoints, fabric: Fabric) -> tuple[Samples, Samples]:
    """Views of the training and of the calibration split, view by view: row v * n + i is view v of person i."""
    data = load_people(config.data)
    index = np.asarray(data["index"])
    chosen = np.asarray(data["category"]) == "mocap" if config.leave_out_everyday else np.ones(len(index), bool)
    calibration = index % _CALIBRATION == _CALIBRATION - 1
    if config.people:
        chosen &= np.cumsum(chosen & ~calibration) <= config.people
    parts = [np.flatnonzero(chosen & part) for part in (~calibration, calibration)]
    if len(parts[0]) < config.batch or not len(parts[1]):
        raise ValueError(
            f"{len(parts[0])} people to learn from and {len(parts[1])} in the calibration split are fewer than one batch of "
            f"{config.batch} and one person: make more, or lower --batch"
        )
    maps = load_feature_maps(config.data)
    learned, calibration = (make_samples(data, maps, skeleton, FLIPS, DEPTHS, part, config.out, fabric) for part in parts)
    return learned, calibration


# ---- the checkpoint -------------------------------------------------------------------------------------------------


def _continued(config: LifterConfig, body: BodyModel) -> tuple[LifterConfig, Lifter]:
    """The lifter of ``config.init``, and the configuration with its options. ValueError where it was trained with another body."""
    lifter, trained_with = load_lifter(config.init)
    if not body.shares_betas_with(trained_with["sha256"]):
        raise ValueError(f"{config.init} was trained with body {trained_with['name']} ({trained_with['sha256'][:8]}), expected "
                         f"{body.name} ({body.sha256[:8]}): its shape coefficients mean something else")  # fmt: skip
    return replace(config, **lifter_options(config.init)), lifter


def _set_statistics(lifter: Lifter, samples: Samples, fabric: Fabric) -> None:
    """Centre the lifter's input and output on the training set."""
    sums, count = [0.0] * 4, len(samples)
    for some in samples.parts(fabric):
        features, camera = some.features.double(), some.weak_camera
        log_camera = torch.cat([camera[:, :1].clamp_min(1e-3).log(), camera[:, 1:]], dim=1)
        parts = features, features.square(), sixd_from_matrix(some.rotations), log_camera
        sums = [total + part.double().sum(0) for total, part in zip(sums, parts)]
    mean, square, rotations, camera = (sum(parts) / count for parts in zip(*everyones(sums, fabric)))
    lifter.feature_mean.copy_(mean)
    lifter.feature_std.copy_(((square - mean.square()) * count / (count - 1)).clamp_min(0).sqrt().clamp_min(1e-3))
    lifter.mean_rotations.copy_(rotations)
    lifter.mean_camera.copy_(camera)


def halved(lifter: Lifter) -> dict[str, torch.Tensor]:
    """Weight matrices as float16: half the file for a tenth of a millimetre; statistics and biases stay float32."""
    return {name: tensor.half() if tensor.ndim in (2, 4) and tensor.numel() > 4096 else tensor for name, tensor in lifter.state_dict().items()}


def _options(config: LifterConfig) -> dict:
    """Of ``Lifter``, as its checkpoints have them."""
    return {name: getattr(config, name) for name in ("width", "blocks", "dropout", "members", "embedding", "image_features")}


def _metadata(config: LifterConfig, people: int, body: BodyModel, scores: dict) -> dict:
    return {
        "network": "lifter",
        "options": _options(config),
        "feature_layout": FEATURE_LAYOUT,
        "body": {"name": body.name, "sha256": body.sha256},
        "training": asdict(config) | {
            "data": [name_of(folder) for folder in config.data],
            "val": [name_of(folder) for folder in config.val],
            "out": config.out.name,
            "init": config.init and config.init.name,
            "people": people,
        },
        "extractors": shard_work.extractors_of(config.data),
        "scores": scores,
        "version": hmr_ros.__version__,
    }


def main(argv: list[str]) -> int:
    train(tyro.cli(LifterConfig, args=argv, prog="hmr-ros train lifter"))
    return 0
