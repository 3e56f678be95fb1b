"""``hmr-ros fit``: a body fitted to everybody's proxies, from which the regressor learns like from a teacher. Not the paper's.

A network that follows the losses of self-consistency stays far behind what they reach when one person's body is optimised
(docs/experiments/self_supervised.md). So bodies are fitted once, beginning where a trained regressor says, and the network learns them
directly, as in SPIN (Kolotouros et al. 2019). There are no labels in this: proxies are all that is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from reprlib import repr as brief

import torch
import tyro
from rich.console import Console
from rich.progress import track
from torch import Tensor

from hmr_ros.body.model import BodyModel
from hmr_ros.files import load_checkpoint, require_file, save_checkpoint
from hmr_ros.geometry import mirror_rotations, mirror_weak_camera, weak_perspective
from hmr_ros.networks.checkpoints import load_resnet18
from hmr_ros.networks.paper.net import Resnet18Regressor
from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.rasterizer import require
from hmr_ros.training.losses.body import body_loss
from hmr_ros.training.paper.coarse_body import CoarseBody
from hmr_ros.training.losses.consistency import LossConfig
from hmr_ros.training.loop import completed
from hmr_ros.training.paper.proxy_data import DepthKind, ProxyData, load, trimmed
from hmr_ros.training.paper.optimise import OptimiseConfig, optimise, regress

_SAVE_EVERY = 20  # batches


@dataclass(frozen=True)
class FitConfig:
    """Fit a body to everybody's proxies, beginning where a trained regressor says, for `hmr-ros train ... --fits`."""

    data: tuple[Path, ...]
    """Folders of proxies shards; the same ones, in the same order, are trained on."""
    init: Path
    """regressor.safetensors of `hmr-ros train`."""
    out: Path = Path("runs/fits.safetensors")
    """An unfinished file is continued."""
    depth: DepthKind = "depth"
    """What bodies are fitted to; the network that learns from them may see the other one."""
    loss: LossConfig = field(default_factory=lambda: LossConfig(alpha_depth=0.5, weighted=False, robust=0.15, pose=0.005))
    """Chosen on validation people: from a network of 95 mm PA-MPJPE, 79.8 without ``pose``, 73.8 with 0.01; from one of 90 mm, 72.4 with
    0.003, 73.6 with 0.01, 81.9 with 0.03. Depth is a robust term because no reliability is learned here."""
    optimise: OptimiseConfig = field(default_factory=lambda: OptimiseConfig(steps=40, lr=0.04))


@dataclass(frozen=True)
class Fits:
    """Bodies of N people."""

    rotations: Tensor  # (N, 24, 3, 3), the first into camera axes
    betas: Tensor  # (N, 10)
    camera: Tensor  # (N, 3) weak, of the crop

    def __len__(self) -> int:
        return len(self.betas)

    def __getitem__(self, rows) -> Fits:
        return Fits(self.rotations[rows], self.betas[rows], self.camera[rows])

    def to(self, device) -> Fits:
        return Fits(self.rotations.to(device), self.betas.to(device), self.camera.to(device))


def fit(config: FitConfig, console: Console = Console(markup=False)) -> Fits:
    """Fit, write ``config.out``, every few batches what there is so far; returns the bodies. ValueError where the file there is of
    other people or settings."""
    require(config.loss.rasterizer)
    people = trimmed(load(config.data, config.depth), config.out.parent)[0]
    asked = {"people": len(people), "joints_sha256": joints_sha256(people.joints), "depth": config.depth,
             "init_sha256": _sha256(config.init), "loss": asdict(config.loss), "optimise": asdict(config.optimise)}  # fmt: skip
    parts: list[Fits] = []
    if config.out.is_file():
        before, metadata = _read(config.out)
        metadata["loss"] = completed(metadata.get("loss", {}), config.loss)
        if metadata != asked:
            different = [name for name in asked if asked[name] != metadata.get(name)]
            raise ValueError(f"{config.out} holds fits of other {', '.join(different)}; name another --out, or remove it")
        parts = [before]
    regressor, body = load_resnet18(config.init)[0].eval(), CoarseBody(BodyModel.load(None))
    batches = torch.arange(sum(map(len, parts)), len(people)).split(config.optimise.batch)
    for count, rows in enumerate(track(batches, "fitting", console=console), start=1):
        parts.append(_fitted(regressor, body, people[rows], config))
        if count % _SAVE_EVERY == 0 or count == len(batches):
            parts = [_together(parts)]
            save_checkpoint(config.out, vars(parts[0]), {"network": "fits", **asked})
    console.print(f"{len(people)} bodies; {config.out}")
    return parts[0]


def _fitted(regressor: Resnet18Regressor, body: CoarseBody, people: ProxyData, config: FitConfig) -> Fits:
    start = regress(regressor, people)[0]
    outputs = optimise(regressor, body, people, start, None, config.loss, config.optimise)
    with torch.no_grad():
        return Fits(*regressor.decode(outputs, people.joints, people.depth))


def load_fits(paths: Sequence[Path], people: ProxyData) -> Fits:
    """The fits of just these people's joints, out of one file or of several that follow each other as the people's folders do.
    ValueError where they are others', or not all are there."""
    parts, first = [], 0
    for path in paths:
        fits, metadata = _read(path)
        if metadata["joints_sha256"] != joints_sha256(people.joints[first : first + metadata["people"]]):
            raise ValueError(f"{path} holds fits of {metadata['people']} other people than those of --data from the {first + 1}. on; name "
                             "the folders that hmr-ros fit was given, in its order")  # fmt: skip
        if len(fits) != metadata["people"]:
            raise ValueError(f"{path} holds {len(fits)} of {metadata['people']} people: hmr-ros fit was stopped; run it again to go on")
        parts.append(fits)
        first += len(fits)
    if first != len(people):
        raise ValueError(f"--fits holds {first} people, --data {len(people)}: fit the other folders, too, and name their file as well")
    return _together(parts)


def _together(parts: list[Fits]) -> Fits:
    return Fits(*(torch.cat([getattr(part, name) for part in parts]) for name in Fits.__dataclass_fields__))


def mirrored_fits(fits: Fits, which: Tensor) -> Fits:
    """Those people (N,) bool as a mirror shows them; the body's shapes are symmetric."""
    rotations = torch.where(which[:, None, None, None], mirror_rotations(fits.rotations), fits.rotations)
    return Fits(rotations, fits.betas, torch.where(which[:, None], mirror_weak_camera(fits.camera), fits.camera))


def fit_loss(outputs: tuple[Tensor, Tensor, Tensor], fits: Fits, skeleton: PosedKeypoints) -> Tensor:
    """Distance () of bodies (rotations, betas, weak camera) from the fitted ones, weighted as for the lifter."""
    with torch.no_grad():
        xy = weak_perspective(skeleton(fits.rotations, fits.betas)[1], fits.camera)
    return body_loss(outputs, (fits.rotations, fits.betas), xy, skeleton, joints=10.0, rotations=1.0, betas=0.2, projection=2.0)


def joints_sha256(joints: Tensor) -> str:
    """Whose fits they are, by their joints (N, 17, 3); not by their depth, so that what a depth camera showed can teach a network
    that sees colour alone."""
    return hashlib.sha256(joints.numpy().tobytes()).hexdigest()


def _sha256(path: Path) -> str:
    return hashlib.sha256(require_file(path, "--init", "a regressor.safetensors, as `hmr-ros train` writes it").read_bytes()).hexdigest()


def _read(path: Path) -> tuple[Fits, dict]:
    tensors, metadata = load_checkpoint(path)
    if metadata.pop("network", None) != "fits":
        raise ValueError(f"{path} is not a file of `hmr-ros fit`")
    if tensors.keys() != {"rotations", "betas", "camera"}:
        raise ValueError(f"{path} holds {brief(sorted(tensors))}, expected rotations, betas and camera, as `hmr-ros fit` writes them")
    return Fits(**tensors), metadata


def main(argv: list[str]) -> int:
    fit(tyro.cli(FitConfig, args=argv, prog="hmr-ros fit"))
    return 0
