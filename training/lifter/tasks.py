"""The two tasks of ``hmr-ros train lifter``: the regressor, and then its reliability on the calibration split."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F

from hmr_ros.networks.lifter.features import keypoints_in_features
from hmr_ros.networks.lifter.net import BETAS, RIGHT, BodyParameters, Lifter
from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.refinement import Refiner
from hmr_ros.skeleton import LIMB_KEYPOINTS
from hmr_ros.training.data.mapped import Rows, RowWriter
from hmr_ros.training.loop import Learner, Task, generator, one_cycle, order, seed_of
from hmr_ros.training.losses.body import body_loss
from hmr_ros.training.processes import everyones
from hmr_ros.training.metrics import COCO_HIPS, auroc, mpjpe, pa_mpjpe, root_aligned
from hmr_ros.training.lifter.samples import DEPTHS, FLIPS, Samples

if TYPE_CHECKING:
    from hmr_ros.training.lifter.train import LifterConfig

VIEWS = len(FLIPS) * len(DEPTHS)
_LIMBS = list(LIMB_KEYPOINTS)


class RegressorTask(Task):
    """Every member is a learner, with rows of its own. Row v * n + i is view v of person i."""

    label = "regressor"

    def __init__(
        self, config: LifterConfig, fabric: Fabric, lifter: Lifter, learned: Samples, held_out: Samples, skeleton: PosedKeypoints
    ):
        self.config, self.lifter, self.learned, self.held_out, self.skeleton = config, lifter, learned, held_out, skeleton
        self.fabric, self.device, self.posed = fabric, fabric.device, copy.deepcopy(skeleton).to(fabric.device)
        self.people = len(learned) // VIEWS
        self.per_epoch = self.people // config.batch
        self.steps = config.epochs * self.per_epoch
        ema = torch.optim.swa_utils.get_ema_multi_avg_fn(config.average)
        self.average = torch.optim.swa_utils.AveragedModel(lifter.members, multi_avg_fn=ema, use_buffers=False)
        self.modules = {"members": lifter.members, "average": self.average}
        self.learners = []
        for member in lifter.members:
            optimizer = torch.optim.AdamW(member.parameters(), lr=config.lr, weight_decay=config.weight_decay)
            self.learners.append(Learner(member, optimizer, one_cycle(optimizer, config.lr, self.steps, warm_up=0.05)))

    def rows(self, step: int, learner: int) -> Tensor:
        """One view of every person in an epoch, in random order; what does not fill a batch is left for another epoch."""
        config, (epoch, place) = self.config, divmod(step, self.per_epoch)
        people = order(self.people, seed_of(config.seed, epoch, learner))[place * config.batch : (place + 1) * config.batch]
        return people + self.people * torch.randint(VIEWS, (len(people),), generator=generator(config.seed, step, learner))

    def losses(self, learner: int, network: nn.Module, rows: Tensor, step: int) -> dict[str, Tensor]:
        some, config = self.learned[rows], self.config
        features, rotations, betas, xy = (
            value.to(self.device) for value in (some.features, some.rotations, some.betas, some.keypoints_xy)
        )
        feature_map = some.feature_map.to(self.device) if learner < config.image_features else None
        output = network(self.lifter.normalized(features), feature_map)
        weights = config.weight_joints, config.weight_rotations, config.weight_betas, config.weight_projection
        predicted = self.lifter.parameters_of(output.float())
        return {"loss": body_loss(predicted, (rotations, betas), xy, self.posed, *weights)}

    def whose(self, rows: Tensor) -> str:
        return f"people {self.learned[rows].person.tolist()} of {', '.join(map(str, self.config.data))}"

    def after_step(self) -> None:
        self.average.update_parameters(self.lifter.members)

    def evaluate(self) -> dict[str, float]:
        members, self.lifter.members = self.lifter.members, self.average.module
        scores = evaluate(self.lifter, self.held_out, self.skeleton, self.fabric)
        self.lifter.members = members
        return scores


def evaluate(lifter: Lifter, samples: Samples, skeleton: PosedKeypoints, fabric: Fabric | None = None) -> dict[str, float]:
    """Means of ``errors``; of betas the root of the mean square."""
    values = errors(lifter, samples, skeleton, fabric)
    return {name: float(np.sqrt(some.mean()) if name == "betas_rms" else some.mean()) for name, some in values.items()}


def errors(lifter: Lifter, samples: Samples, skeleton: PosedKeypoints, fabric: Fabric | None = None) -> dict[str, np.ndarray]:
    """``body_errors`` of each sample (N,). With a ``fabric`` each process takes a part, and everybody gets all."""
    return body_errors(predictions(lifter, samples, fabric), skeleton, fabric)


def body_errors(pairs: Iterable, skeleton: PosedKeypoints, fabric: Fabric | None = None) -> dict[str, np.ndarray]:
    """MPJPE and PA-MPJPE (mm; 12 limb joints, root at the hips' midpoint) of each body (N,), and the mean square of the betas' error. ``pairs``: some
    true and some predicted bodies at a time, with ``rotations`` and ``betas``."""
    limbs, betas = ([], []), []
    for some, predicted in pairs:
        for part, body in zip(limbs, (predicted, some)):
            part.append(root_aligned(skeleton(body.rotations, body.betas)[1], COCO_HIPS)[:, _LIMBS].numpy())
        betas.append(predicted.betas - some.betas)
    predicted, truth, betas = (sum(parts, []) for parts in zip(*everyones((*limbs, betas), fabric)))
    predicted, truth = np.concatenate(predicted), np.concatenate(truth)
    return {"mpjpe": mpjpe(predicted, truth), "pa_mpjpe": pa_mpjpe(predicted, truth), "betas_rms": torch.cat(betas).square().mean(1).numpy()}


@torch.no_grad()
def predictions(lifter: Lifter, samples: Samples, fabric: Fabric | None = None) -> Iterator[tuple[Samples, BodyParameters]]:
    """Some of the samples (with a ``fabric``, of this process's part) at a time, and the lifter's prediction for them, both on the CPU."""
    lifter.eval()
    for some in samples.parts(fabric):
        inputs = (value.to(lifter.feature_mean.device) for value in (some.features, some.feature_map))
        yield some, BodyParameters(*(value.cpu() for value in lifter(*inputs)))


@torch.no_grad()
def shrink_betas(lifter: Lifter, calibration: Samples, fabric: Fabric | None = None) -> None:
    """Scale each shape coefficient, in place, to its regression slope on people whom the regressor has not seen: pictures show
    little of shape, the losses on joints make much of it, and an overstated shape is worse than the mean one."""
    own = [(p.betas, some.betas) for some, p in predictions(lifter, calibration, fabric)]
    predicted, truth = (torch.cat(parts) for parts in zip(*sum(everyones(own, fabric), [])))
    slope = ((predicted * truth).sum(0) / predicted.square().sum(0).clamp_min(1e-9)).clamp(0, 1).to(lifter.feature_mean.device)
    for member in lifter.members:
        for parameter in member.head.parameters():
            parameter[BETAS] *= slope.reshape(-1, *[1] * (parameter.ndim - 1))


class _Best(nn.Module):
    """The reliability network of the epoch with the lowest cross-entropy on the held-out people so far."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = copy.deepcopy(network)
        self.register_buffer("entropy", torch.tensor(torch.inf, dtype=torch.float64))

    def offer(self, network: nn.Module, entropy: float) -> None:
        if entropy < self.entropy:
            self.network.load_state_dict(network.state_dict())
            self.entropy.fill_(entropy)


class ReliabilityTask(Task):
    """Cross-entropy of the joints' being within 100 mm, on the calibration split; the regressor stays as it is. A row is a view."""

    label, rows_are = "reliability", "views"

    def __init__(
        self, config: LifterConfig, fabric: Fabric, lifter: Lifter, calibration: Samples, held_out: Samples, skeleton: PosedKeypoints
    ):
        self.config, self.device, self.network = config, fabric.device, lifter.reliability
        self.right = joint_errors(lifter, calibration, skeleton, fabric) < RIGHT
        self.held_out_error = joint_errors(lifter, held_out, skeleton, fabric)
        self.inputs, self.held_out = (_reliability_inputs(lifter, some, config.out, fabric) for some in (calibration, held_out))
        self.batch = min(config.batch, len(calibration))
        self.per_epoch = len(calibration) // self.batch
        self.steps = config.reliability_epochs * self.per_epoch
        self.best = _Best(lifter.reliability)
        self.modules = {"reliability": lifter.reliability, "best": self.best}
        optimizer = torch.optim.AdamW(lifter.reliability.parameters(), lr=1e-3, weight_decay=config.weight_decay)
        self.learners = [Learner(lifter.reliability, optimizer, one_cycle(optimizer, 1e-3, self.steps, warm_up=0.3), None)]

    def rows(self, step: int, learner: int) -> Tensor:
        epoch, place = divmod(step, self.per_epoch)
        return order(len(self.right), seed_of(self.config.seed, epoch))[place * self.batch : (place + 1) * self.batch]

    def losses(self, learner: int, network: nn.Module, rows: Tensor, step: int) -> dict[str, Tensor]:
        inputs, right = torch.from_numpy(self.inputs[rows]), self.right[rows].float()
        return {"loss": F.binary_cross_entropy_with_logits(network(inputs.to(self.device)), right.to(self.device))}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        self.network.eval()
        error, right = self.held_out_error, self.held_out_error < RIGHT
        parts = torch.arange(len(error)).split(1024)
        reliability = torch.cat([self.network(torch.from_numpy(self.held_out[rows]).to(self.device)).sigmoid().cpu() for rows in parts])
        entropy = float(F.binary_cross_entropy(reliability, right.float()))
        self.best.offer(self.network, entropy)
        worst = error > float(np.quantile(error.numpy(), 0.8))
        return {
            "reliability_entropy": entropy,
            "auroc": float(auroc(-reliability.numpy().ravel(), worst.numpy().ravel())),
            "right_share": float(right.float().mean()),
        }

    def scores(self, history: list[dict[str, float]]) -> dict[str, float]:
        """Of the epoch whose network is kept."""
        best = min(history, key=lambda entry: entry["reliability_entropy"])
        return {name: best[name] for name in ("reliability_entropy", "auroc", "right_share")}


@torch.no_grad()
def _reliability_inputs(lifter: Lifter, samples: Samples, folder: Path, fabric: Fabric) -> Rows:
    """What the reliability network sees of samples (N, inputs), on disk in ``folder``."""
    lifter.eval()
    writer = RowWriter(folder, fabric)
    for some in samples.parts(fabric):
        inputs = (value.to(lifter.feature_mean.device) for value in (some.features, some.feature_map))
        writer.append(inputs=lifter.outputs(*inputs)[1].cpu().numpy())
    return writer.rows()["inputs"]


def joint_errors(lifter: Lifter, samples: Samples, skeleton: PosedKeypoints, fabric: Fabric | None = None) -> Tensor:
    """3D error of the 12 limb joints (N, 12) in metres, relative to the hips' midpoint, refined as in the estimator."""
    refine = Refiner(skeleton)
    errors = []
    for some, predicted in predictions(lifter, samples, fabric):
        rotations, betas, cameras, _ = (value.numpy() for value in predicted)
        targets, confidence = keypoints_in_features(some.features.numpy())
        refined, _ = refine(rotations, betas, cameras, targets, confidence)
        joints = skeleton(torch.from_numpy(refined), torch.from_numpy(betas))[1]
        truth = skeleton(some.rotations, some.betas)[1]
        errors.append((root_aligned(joints, COCO_HIPS) - root_aligned(truth, COCO_HIPS))[:, _LIMBS].norm(dim=-1))
    return torch.cat(sum(everyones(errors, fabric), []))
