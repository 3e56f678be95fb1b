"""``hmr-ros train lifter``: the lifter and its reliability, with the truth of rendered people.

Reads what ``hmr-ros data rendered`` wrote. First the regressor learns, from one view a person and epoch (as first seen or in
a mirror, with the coarse depth or a depth camera's), and its averaged weights are kept. Then its reliability learns to tell
right joints from wrong ones on the tenth of the people whom the regressor has not seen: on those it has, it errs too little.
The paper's self-supervised training, train.py, reads proxies only.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import track
from torch.nn import functional as F

import hmr_ros
from hmr_ros.body.model import BodyModel
from hmr_ros.files import load_checkpoint, save_checkpoint
from hmr_ros.estimator import load_lifter
from hmr_ros.geometry import sixd_from_matrix
from hmr_ros.networks.lifter.features import FEATURE_COUNT, FEATURE_LAYOUT, keypoints_in_features
from hmr_ros.networks.lifter.net import BETAS, RIGHT, BodyParameters, Lifter
from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.refinement import Refiner
from hmr_ros.skeleton import LIMB_KEYPOINTS
from hmr_ros.training.losses.body import body_loss, from_hips
from hmr_ros.training.metrics import auroc, mpjpe, pa_mpjpe
from hmr_ros.training.lifter.samples import DEPTHS, LOOKS, Samples, load_looks, load_people, make_samples
from hmr_ros.training.loop import one_cycle

_LIMBS = list(LIMB_KEYPOINTS)
_JUDGED = 10  # of so many pictures one is kept from the regressor, for its reliability


@dataclass(frozen=True)
class TrainConfig:
    """Train the lifter and its reliability on rendered people."""

    data: tuple[Path, ...]
    """Folders written by `hmr-ros data rendered`, for training."""
    val: tuple[Path, ...]
    """Folders written by `hmr-ros data rendered --split val`: their scores are shown and logged."""
    out: Path = Path("runs/lifter")
    """Where lifter.safetensors and metrics.json go."""
    init: Path | None = None
    """Go on from this lifter.safetensors with other people: its size and its statistics of the data count."""
    people: int | None = None
    """Learn from the first so many people only (their reliability from a tenth as many more)."""
    leave_out_everyday: bool = False
    """Learn from recorded motion only: how well do everyday situations do that were never seen?"""
    epochs: int = 30
    """An epoch shows one view of everybody."""
    batch: int = 256
    lr: float = 1e-3
    weight_decay: float = 0.05
    average: float = 0.998
    """Of the weights, exponential moving average a step: what is evaluated and kept."""
    width: int = 640
    blocks: int = 2
    dropout: float = 0.1
    members: int = 2
    """Networks that learn side by side, each in its own order, and are averaged."""
    looking: int = 2
    """So many of them look at the landmark network's activations, too, through a convolutional network of their own."""
    appearance: bool = True
    """Use the landmark network's last activations beside what it says."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Of those convolutional networks; bf16-mixed is three times as fast where the CPU has units for it, and far slower elsewhere."""
    weight_joints: float = 10.0
    """Of the root-relative 3D joints and keypoints, L1 in metres."""
    weight_rotations: float = 1.0
    """Of the rotation matrices, mean squared."""
    weight_betas: float = 0.2
    """Of the shape, mean squared."""
    weight_projection: float = 2.0
    """Of the keypoints seen by the weak camera, L1 in crop coordinates."""
    reliability_epochs: int = 20
    seed: int = 0


def train(config: TrainConfig, console: Console = Console()) -> dict:
    """Train, write ``lifter.safetensors`` and ``metrics.json`` to ``config.out``; returns the metrics."""
    for name in ("epochs", "reliability_epochs", "members", "batch", "width", "blocks"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} is {getattr(config, name)}, expected at least 1")
    if not 0 <= config.looking <= config.members:
        raise ValueError(f"looking is {config.looking}, expected 0 to all {config.members} members")
    if not 0 < config.lr:
        raise ValueError(f"lr is {config.lr}, expected more than 0")
    weights = config.out / "lifter.safetensors"
    if weights.exists():
        raise FileExistsError(f"{weights} exists; name another --out, or remove it")
    torch.manual_seed(config.seed)
    body = BodyModel.load(None)
    skeleton = PosedKeypoints(body)
    started = time.monotonic()
    with console.status("reading rendered people"):
        learned, judged = _people(config, skeleton)
        held_out = make_samples(load_people(config.val), load_looks(config.val), skeleton)
    console.print(
        f"{len(learned) // _VIEWS} people to learn from, {len(judged) // _VIEWS} to learn reliability from, "
        f"{len(held_out)} held out, {FEATURE_COUNT} features"
    )
    if config.init:
        config, lifter = _continued(config, body)
    else:
        lifter = Lifter(**_options(config))
        _set_statistics(lifter, learned)
    history = _train_regressor(lifter, learned, held_out, skeleton, config, console)
    _shrink_betas(lifter, judged)
    reliability = _train_reliability(lifter, judged, held_out, skeleton, config, console)
    scores = history[-1] | reliability
    metrics = {"scores": scores, "people": len(learned) // _VIEWS, "history": history, "seconds": round(time.monotonic() - started, 1)}
    save_checkpoint(weights, _halved(lifter), _metadata(config, len(learned) // _VIEWS, body, scores))
    (config.out / "metrics.json").write_text(json.dumps(metrics, indent=1))
    console.print(
        f"MPJPE {scores['mpjpe']:.1f} mm, PA-MPJPE {scores['pa_mpjpe']:.1f} mm, AUROC of the reliability "
        f"{scores['auroc']:.3f} on the held-out people; {weights}"
    )
    return metrics


# ---- people ---------------------------------------------------------------------------------------------------------

_VIEWS = len(LOOKS) * len(DEPTHS)


def _people(config: TrainConfig, skeleton: PosedKeypoints) -> tuple[Samples, Samples]:
    """Views of those to learn from and of those to judge on, view by view: row v * n + i is view v of person i."""
    data = load_people(config.data)
    chosen = data["category"] == "mocap" if config.leave_out_everyday else np.ones(len(data["category"]), bool)
    judged = data["index"] % _JUDGED == _JUDGED - 1
    if config.people:
        chosen &= np.cumsum(chosen & ~judged) <= config.people
    parts = [{name: rows[chosen & part] for name, rows in data.items()} for part in (~judged, judged)]
    if len(parts[0]["index"]) < config.batch or not len(parts[1]["index"]):
        raise ValueError(
            f"{len(parts[0]['index'])} people to learn from and {len(parts[1]['index'])} to judge on are fewer than one batch "
            f"of {config.batch} and one person: make more, or lower --batch"
        )
    looks = load_looks(config.data)
    learned, judged = (make_samples(part, looks, skeleton, LOOKS, DEPTHS) for part in parts)
    return learned, judged


def _batches(samples: Samples, size: int) -> list[Samples]:
    """One view of everybody, at random, in random order; what does not fill a batch is left for another epoch."""
    people = len(samples) // _VIEWS
    rows = torch.randperm(people) + people * torch.randint(_VIEWS, (people,))
    return [samples[index] for index in rows.split(size) if len(index) == size]


# ---- the regressor --------------------------------------------------------------------------------------------------


def _train_regressor(
    lifter: Lifter, learned: Samples, held_out: Samples, skeleton: PosedKeypoints, config: TrainConfig, console: Console
) -> list[dict]:
    """Train in place and leave the averaged weights; returns losses and scores by epoch."""
    steps = config.epochs * (len(learned) // _VIEWS // config.batch)
    optimizer = torch.optim.AdamW(lifter.members.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    schedule = one_cycle(optimizer, config.lr, steps, warm_up=0.05)
    average = torch.optim.swa_utils.AveragedModel(
        lifter.members, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(config.average), use_buffers=False
    )
    history = []
    for epoch in track(range(config.epochs), "regressor", console=console):
        lifter.train()
        losses = []
        for batches in zip(*(_batches(learned, config.batch) for _ in lifter.members)):
            optimizer.zero_grad(set_to_none=True)
            for member, batch in zip(lifter.members, batches):
                with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16-mixed"):
                    said = member(lifter.normalized(batch.features), batch.activations)
                loss = _loss(lifter.parameters_of(said.float()), batch, skeleton, config)
                if not torch.isfinite(loss):
                    raise FloatingPointError(f"loss is {loss.item()} in epoch {epoch}, people {batch.person.tolist()[:8]}…")
                loss.backward()
                torch.nn.utils.clip_grad_norm_(member.parameters(), 1.0)
                losses.append(loss.item())
            optimizer.step()
            schedule.step()
            average.update_parameters(lifter.members)
        learning, lifter.members = lifter.members, average.module
        history.append({"epoch": epoch, "loss": float(np.mean(losses)), **evaluate(lifter, held_out, skeleton)})
        lifter.members = learning
        if (epoch + 1) % max(1, config.epochs // 10) == 0:
            scores = ", ".join(f"{name} {value:.3f}" for name, value in history[-1].items() if name != "epoch")
            console.print(f"epoch {epoch + 1}: {scores}", highlight=False)
    lifter.members = average.module
    return history


def _loss(said: tuple[torch.Tensor, ...], truth: Samples, skeleton: PosedKeypoints, config: TrainConfig) -> torch.Tensor:
    weights = config.weight_joints, config.weight_rotations, config.weight_betas, config.weight_projection
    return body_loss(said, (truth.rotations, truth.betas), truth.keypoints_xy, skeleton, *weights)


@torch.no_grad()
def evaluate(lifter: Lifter, samples: Samples, skeleton: PosedKeypoints) -> dict[str, float]:
    """MPJPE and PA-MPJPE (mm; 12 limb joints, root at the hips' midpoint) and shape error on ``samples``."""
    prediction = BodyParameters(*map(torch.cat, zip(*_answers(lifter, samples))))
    pred, truth = (
        from_hips(skeleton(p.rotations, p.betas)[1])[:, _LIMBS].numpy() for p in (prediction, samples)
    )
    return {
        "mpjpe": float(mpjpe(pred, truth).mean()),
        "pa_mpjpe": float(pa_mpjpe(pred, truth).mean()),
        "betas_rms": float((prediction.betas - samples.betas).square().mean().sqrt()),
    }


@torch.no_grad()
def _shrink_betas(lifter: Lifter, judged: Samples) -> None:
    """Scale each shape coefficient, in place, to what it is worth on people whom the regressor has not seen: pictures say little
    about shape, the losses on joints make much of it, and an overstated shape is worse than the mean one."""
    said = torch.cat([answer.betas for answer in _answers(lifter, judged)])
    worth = ((said * judged.betas).sum(0) / said.square().sum(0).clamp_min(1e-9)).clamp(0, 1)
    for member in lifter.members:
        for parameter in member.head.parameters():
            parameter[BETAS] *= worth.reshape(-1, *[1] * (parameter.ndim - 1))


# ---- its reliability ------------------------------------------------------------------------------------------------


def _train_reliability(
    lifter: Lifter, judged: Samples, held_out: Samples, skeleton: PosedKeypoints, config: TrainConfig, console: Console
) -> dict[str, float]:
    """Train the reliability in place, by cross-entropy; the epoch with the lowest on the held-out people is kept."""
    right, held_out_error = joint_errors(lifter, judged, skeleton) < RIGHT, joint_errors(lifter, held_out, skeleton)
    held_out_right = held_out_error < RIGHT
    optimizer = torch.optim.AdamW(lifter.reliability.parameters(), lr=1e-3, weight_decay=config.weight_decay)
    with torch.no_grad():
        # The regressor stays as it is.
        seen, held_out_seen = (torch.cat([lifter.said(some.features, some.activations)[1] for some in _parts(s)]) for s in (judged, held_out))
    size = min(config.batch, len(judged))
    batches = len(judged) // size
    schedule = one_cycle(optimizer, 1e-3, config.reliability_epochs * batches, warm_up=0.3)
    best, kept = None, None
    for _ in track(range(config.reliability_epochs), "reliability", console=console):
        for index in torch.randperm(len(judged)).split(size)[:batches]:
            lifter.reliability.train()
            loss = F.binary_cross_entropy_with_logits(lifter.reliability(seen[index]), right[index].float())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
        lifter.eval()
        with torch.no_grad():
            reliability = lifter.reliability(held_out_seen).sigmoid()
        entropy = float(F.binary_cross_entropy(reliability, held_out_right.float()))
        if best is None or entropy < best["reliability_entropy"]:
            worst = held_out_error > held_out_error.flatten().quantile(0.8)
            best = {
                "reliability_entropy": entropy,
                "auroc": auroc(-reliability.numpy().ravel(), worst.numpy().ravel()),
                "right_share": float(held_out_right.float().mean()),
            }
            kept = {name: value.clone() for name, value in lifter.reliability.state_dict().items()}
    lifter.reliability.load_state_dict(kept)
    return best


@torch.no_grad()
def joint_errors(lifter: Lifter, samples: Samples, skeleton: PosedKeypoints) -> torch.Tensor:
    """3D error of the 12 limb joints (N, 12) in metres, relative to the hips' midpoint, refined as in the estimator."""
    refine = Refiner(skeleton)
    errors = []
    for some, answer in zip(_parts(samples), _answers(lifter, samples)):
        rotations, betas, cameras, _ = (value.numpy() for value in answer)
        targets, confidence = keypoints_in_features(some.features.numpy())
        refined, _ = refine(rotations, betas, cameras, targets, confidence)
        pred = skeleton(torch.from_numpy(refined), torch.from_numpy(betas))[1]
        truth = skeleton(some.rotations, some.betas)[1]
        errors.append((from_hips(pred) - from_hips(truth))[:, _LIMBS].norm(dim=-1))
    return torch.cat(errors)


def _parts(samples: Samples) -> Iterator[Samples]:
    return (samples[rows] for rows in torch.arange(len(samples)).split(1024))


@torch.no_grad()
def _answers(lifter: Lifter, samples: Samples) -> list[BodyParameters]:
    lifter.eval()
    return [lifter(some.features, some.activations) for some in _parts(samples)]


# ---- the checkpoint -------------------------------------------------------------------------------------------------


def _continued(config: TrainConfig, body: BodyModel) -> tuple[TrainConfig, Lifter]:
    """The lifter of ``config.init``, and the configuration with its options. ValueError where it was trained with another body."""
    lifter, trained_with = load_lifter(config.init)
    if trained_with["sha256"] != body.sha256:
        raise ValueError(f"{config.init} was trained with body {trained_with['name']} ({trained_with['sha256'][:8]}), expected "
                         f"{body.name} ({body.sha256[:8]}): its shape coefficients mean something else")  # fmt: skip
    options = load_checkpoint(config.init)[1]["options"]
    return replace(config, **options), lifter


def _set_statistics(lifter: Lifter, samples: Samples) -> None:
    """Centre the lifter's input and output on the training set."""
    lifter.feature_mean.copy_(samples.features.mean(0))
    lifter.feature_std.copy_(samples.features.std(0).clamp_min(1e-3))
    lifter.mean_rotations.copy_(sixd_from_matrix(samples.rotations).mean(0))
    camera = samples.weak_camera
    lifter.mean_camera.copy_(torch.cat([camera[:, :1].clamp_min(1e-3).log(), camera[:, 1:]], dim=1).mean(0))


def _halved(lifter: Lifter) -> dict[str, torch.Tensor]:
    """Weight matrices as float16: half the file for a tenth of a millimetre; statistics and biases stay float32."""
    return {name: tensor.half() if tensor.ndim in (2, 4) and tensor.numel() > 4096 else tensor for name, tensor in lifter.state_dict().items()}


def _options(config: TrainConfig) -> dict:
    return {name: getattr(config, name) for name in ("width", "blocks", "dropout", "members", "appearance", "looking")}


def _metadata(config: TrainConfig, people: int, body: BodyModel, scores: dict) -> dict:
    return {
        "network": "lifter",
        "options": _options(config),
        "feature_layout": FEATURE_LAYOUT,
        "body": {"name": body.name, "sha256": body.sha256},
        "training": asdict(config) | {
            "data": [folder.name for folder in config.data],
            "val": [folder.name for folder in config.val],
            "out": config.out.name,
            "init": config.init and config.init.name,
            "people": people,
        },
        "scores": scores,
        "version": hmr_ros.__version__,
    }


def main(argv: list[str]) -> int:
    train(tyro.cli(TrainConfig, args=argv, prog="hmr-ros train lifter"))
    return 0
