"""``hmr-ros train``: the first checkpoint, a lifter trained with the truth of rendered people.

Reads what ``hmr-ros data rendered`` wrote, shows every person and its mirror image, and keeps the weights that do best on
the validation set. The self-supervised training of the paper belongs beside it and reads proxies only.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import track
from torch.nn import functional as F

import hmr_ros
from hmr_ros.body_model import BodyModel
from hmr_ros.checkpoint import save_checkpoint
from hmr_ros.geometry import fit_weak_camera, matrix_from_rotvec, sixd_from_matrix, to_crop
from hmr_ros.networks.features import FEATURE_COUNT, mirror_features, person_features
from hmr_ros.networks.lifter import BodyParameters, Lifter
from hmr_ros.proxies import PersonProxies
from hmr_ros.skeleton import COCO_MIRROR, LIMB_KEYPOINTS, SMPL_MIRROR
from hmr_ros.training.datasets import rendered
from hmr_ros.training.evaluate import mpjpe, pa_mpjpe
from hmr_ros.posed_keypoints import PosedKeypoints

_LIMBS = list(LIMB_KEYPOINTS)
_HIPS = [11, 12]


@dataclass(frozen=True)
class TrainConfig:
    """Train the lifter on rendered people."""

    data: tuple[Path, ...]
    """Folders written by `hmr-ros data rendered`, for training."""
    val: tuple[Path, ...]
    """Folders written by `hmr-ros data rendered --split val`: they choose the weights that are kept."""
    out: Path = Path("runs/lifter")
    """Where lifter.safetensors and metrics.json go."""
    epochs: int = 40
    batch: int = 256
    lr: float = 1e-3
    weight_decay: float = 1e-2
    width: int = 768
    blocks: int = 2
    dropout: float = 0.1
    weight_joints: float = 10.0
    """Of the root-relative 3D joints and keypoints, L1 in metres."""
    weight_rotations: float = 1.0
    """Of the rotation matrices, mean squared."""
    weight_betas: float = 0.02
    """Of the shape, mean squared."""
    weight_projection: float = 2.0
    """Of the keypoints seen by the weak camera, L1 in crop coordinates."""
    seed: int = 0


def train(config: TrainConfig, console: Console = Console()) -> dict:
    """Train, write ``lifter.safetensors`` and ``metrics.json`` to ``config.out``; returns the metrics."""
    torch.manual_seed(config.seed)
    body = BodyModel.load(None)
    skeleton = PosedKeypoints(body)
    started = time.monotonic()
    with console.status("reading rendered people"):
        samples = make_samples(load_people(config.data), skeleton, LOOKS, DEPTHS)
        held_out = make_samples(load_people(config.val), skeleton)
    console.print(f"{len(samples)} people to learn from, {len(held_out)} held out, {FEATURE_COUNT} features")

    lifter = Lifter(config.width, config.blocks, config.dropout)
    _set_statistics(lifter, samples)
    steps = config.epochs * (len(samples) // config.batch)
    if steps == 0:
        raise ValueError(f"{len(samples)} people are fewer than one batch of {config.batch}: make more, or lower --batch")
    optimizer = torch.optim.AdamW(lifter.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, total_steps=steps, pct_start=0.05)

    best, history = None, []
    for epoch in track(range(config.epochs), "training", console=console):
        lifter.train()
        losses = []
        for index in torch.randperm(len(samples)).split(config.batch):
            if len(index) < config.batch:
                break
            batch = samples[index]
            loss = _loss(lifter(batch.features), batch, skeleton, config)
            if not torch.isfinite(loss):
                raise FloatingPointError(f"loss is {loss.item()} in epoch {epoch}, batch of samples {index.tolist()[:8]}…")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(lifter.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        scores = evaluate(lifter, held_out, skeleton)
        history.append({"epoch": epoch, "loss": float(np.mean(losses)), **scores})
        if best is None or scores["pa_mpjpe"] < best["pa_mpjpe"]:
            best = history[-1]
            save_checkpoint(config.out / "lifter.safetensors", lifter.state_dict(), _metadata(config, samples, body, best))
    metrics = {"best": best, "history": history, "seconds": round(time.monotonic() - started, 1)}
    (config.out / "metrics.json").write_text(json.dumps(metrics, indent=1))
    console.print(
        f"best epoch {best['epoch']}: MPJPE {best['mpjpe']:.1f} mm, PA-MPJPE {best['pa_mpjpe']:.1f} mm on the held-out "
        f"people; {config.out / 'lifter.safetensors'}"
    )
    return metrics


@torch.no_grad()
def evaluate(lifter: Lifter, samples: Samples, skeleton: PosedKeypoints) -> dict[str, float]:
    """MPJPE and PA-MPJPE (mm; 12 limb joints, root at the hips' midpoint) and shape error on ``samples``."""
    lifter.eval()
    prediction = lifter(samples.features)
    pred, truth = (
        _from_hips(skeleton(p.rotations, p.betas)[1])[:, _LIMBS].numpy() for p in (prediction, samples)
    )
    return {
        "mpjpe": float(mpjpe(pred, truth).mean()),
        "pa_mpjpe": float(pa_mpjpe(pred, truth).mean()),
        "betas_rms": float((prediction.betas - samples.betas).square().mean().sqrt()),
    }


def _loss(prediction: BodyParameters, truth: Samples, skeleton: PosedKeypoints, config: TrainConfig) -> torch.Tensor:
    joints, keypoints = skeleton(prediction.rotations, prediction.betas)
    true_joints, true_keypoints = skeleton(truth.rotations, truth.betas)
    scale, shift = prediction.weak_camera[:, None, :1], prediction.weak_camera[:, None, 1:]
    seen = scale * (keypoints[..., :2] + shift)
    return (
        config.weight_joints * F.l1_loss(joints - joints[:, :1], true_joints - true_joints[:, :1])
        + config.weight_joints * F.l1_loss(_from_hips(keypoints), _from_hips(true_keypoints))
        + config.weight_rotations * F.mse_loss(prediction.rotations, truth.rotations)
        + config.weight_betas * F.mse_loss(prediction.betas, truth.betas)
        + config.weight_projection * F.l1_loss(seen, truth.keypoints_xy)
    )


def _from_hips(keypoints: torch.Tensor) -> torch.Tensor:
    return keypoints - keypoints[:, _HIPS].mean(1, keepdim=True)


def _set_statistics(lifter: Lifter, samples: Samples) -> None:
    """Centre the lifter's input and output on the training set."""
    lifter.feature_mean.copy_(samples.features.mean(0))
    lifter.feature_std.copy_(samples.features.std(0).clamp_min(1e-3))
    lifter.mean_rotations.copy_(sixd_from_matrix(samples.rotations).mean(0))
    camera = samples.weak_camera
    lifter.mean_camera.copy_(torch.cat([camera[:, :1].clamp_min(1e-3).log(), camera[:, 1:]], dim=1).mean(0))


def _metadata(config: TrainConfig, samples: Samples, body: BodyModel, scores: dict) -> dict:
    return {
        "network": "lifter",
        "options": {"width": config.width, "blocks": config.blocks, "dropout": config.dropout},
        "feature_count": FEATURE_COUNT,
        "body": {"name": body.name, "sha256": body.sha256},
        "training": asdict(config) | {
            "data": [folder.name for folder in config.data],
            "val": [folder.name for folder in config.val],
            "out": config.out.name,
            "people": len(samples),
        },
        "scores": scores,
        "version": hmr_ros.__version__,
    }


def main(argv: list[str]) -> int:
    train(tyro.cli(TrainConfig, args=argv, prog="hmr-ros train"))
    return 0
