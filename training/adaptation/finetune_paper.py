"""How the paper's regressor is adapted: its own training (paper/train.py: self-consistency, and bodies to learn as from a teacher) goes on from the
checkpoint, with the loss that it was trained with, on the same three sources as the lifter's (finetune.py)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor

from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.files import load_checkpoint, make_folder, save_checkpoint
from hmr_ros.geometry import fit_weak_camera, matrix_from_rotvec, to_crop
from hmr_ros.networks.checkpoints import load_resnet18
from hmr_ros.networks.paper.net import Resnet18Regressor
from hmr_ros.training.adaptation.finetune import FinetuneConfig, Mix
from hmr_ros.training.data.mapped import Rows
from hmr_ros.training.lifter.samples import DEPTHS
from hmr_ros.training.lifter.tasks import body_errors
from hmr_ros.training.loop import generator, launch, run
from hmr_ros.training.losses.consistency import LossConfig
from hmr_ros.training.paper.fits import Fits, joints_sha256
from hmr_ros.training.paper.proxy_data import ProxyData, of_rows, trimmed
from hmr_ros.training.paper.train import PRESETS, WEIGHTS, SelfSupervisedConfig, SelfSupervision

_BATCH = 64


@dataclass(frozen=True)
class PaperViews:
    """N people, and bodies of theirs in ray axes."""

    people: ProxyData
    bodies: Fits
    person: Tensor  # (N,) row of the data set

    def __len__(self) -> int:
        return len(self.people)


class PaperTask(SelfSupervision):
    """`hmr-ros train --fits` on people of several sources. Row v * N + i is person i of N, mirrored where v is 1."""

    label = "adaptation"

    def __init__(self, config: SelfSupervisedConfig, fabric: Fabric, sources: dict[str, PaperViews], shares: Sequence[float]):
        self.mix = Mix(config.batch, shares, {name: len(views) for name, views in sources.items()})
        used = [sources[name] for name, *_ in self.mix.parts]
        people = ProxyData(*(torch.cat([torch.as_tensor(getattr(views.people, name)) for views in used]) for name in ("joints", "depth")))
        bodies = Fits(*(torch.cat([getattr(views.bodies, name) for views in used]) for name in ("rotations", "betas", "camera")))
        make_folder(config.out)
        save_checkpoint(config.fits[0], vars(bodies), {"network": "fits", "people": len(people), "joints_sha256": joints_sha256(people.joints)})
        super().__init__(config, fabric, people, {"people": len(people)})
        self.per_epoch = self.steps  # rows are drawn, so there is none

    def rows(self, step: int, learner: int) -> Tensor:
        dice = generator(self.config.seed, step, learner)
        people = self.mix.draw(dice)
        return people + len(self.data) * (torch.rand(len(people), generator=dice) < 0.5)


class AdaptableResnet18:
    """The paper's regressor, for `hmr-ros adapt` (adaptable.py)."""

    weights = WEIGHTS

    def __init__(self, checkpoint: Path):
        self.checkpoint = checkpoint
        self.before, self.body = load_resnet18(checkpoint)
        training = load_checkpoint(checkpoint)[1].get("training") or {}
        while training.get("before"):  # it was adapted
            training = training["before"]
        config = training.get("config") or {}
        if config.get("depth", "depth") != "depth":
            raise ValueError(f"{checkpoint} was trained on {config['depth']}, expected depth: `hmr-ros adapt` knows the extractor's coarse depth only")
        known = {name: value for name, value in (config.get("loss") or {}).items() if name in LossConfig.__dataclass_fields__}
        self.loss = replace(LossConfig(**known) if known else PRESETS["extended"][1].loss, beta_from_epoch=0)

    def views(self, data: dict, maps: Rows, skeleton: PosedKeypoints, people: np.ndarray, depths: Sequence[str] = DEPTHS) -> PaperViews:
        rows = {name: np.asarray(data[name][people]) for name in ("keypoints", "crop", "depth", "ray_orient", "pose", "betas", "keypoints2d")}
        pose = np.concatenate([rows["ray_orient"][:, None], rows["pose"][:, 1:]], axis=1)
        rotations, betas = (torch.from_numpy(np.asarray(values, np.float32)) for values in (matrix_from_rotvec(pose), rows["betas"]))
        with torch.no_grad():
            keypoints = skeleton(rotations, betas)[1].numpy()
        xy = to_crop(rows["keypoints2d"], rows["crop"])
        camera = torch.from_numpy(np.asarray(fit_weak_camera(keypoints, xy, np.ones(xy.shape[:2])), np.float32))
        return PaperViews(trimmed(of_rows(rows))[0], Fits(rotations, betas, camera), torch.from_numpy(np.asarray(people)))

    held_out = views

    def as_before(self, views: PaperViews) -> PaperViews:
        bodies = [body for _, body in _predictions(self.before, views)]
        return replace(views, bodies=Fits(*(torch.cat([getattr(body, name) for body in bodies]) for name in ("rotations", "betas", "camera"))))

    def ready(self, views: PaperViews) -> PaperViews:
        return views

    def learn(self, config: FinetuneConfig, sources: dict[str, PaperViews], skeleton: PosedKeypoints, console: Console) -> Resnet18Regressor:
        settings = SelfSupervisedConfig(out=config.out, init=self.checkpoint, fits=(config.out / "bodies.safetensors",), loss=self.loss, steps=config.steps,
                                        lr=config.lr, schedule="one_cycle", batch=_BATCH, precision=config.precision, seed=config.seed)  # fmt: skip
        fabric = launch(settings, WEIGHTS)
        task = PaperTask(settings, fabric, sources, config.shares)
        run(task, settings, fabric, console)
        return task.regressor.cpu()

    def errors(self, network: Resnet18Regressor, views: PaperViews, skeleton: PosedKeypoints) -> dict[str, np.ndarray]:
        return body_errors(_predictions(network, views), skeleton)

    def calibrate(self, network, known, held, skeleton, worse) -> None:
        """Its reliability says how far the proxies agree: no probability, and learned by self-consistency."""

    def halved(self, network: Resnet18Regressor) -> dict[str, Tensor]:
        return {name: value.half() if value.ndim > 1 else value for name, value in network.state_dict().items()}


@torch.no_grad()
def _predictions(network: Resnet18Regressor, views: PaperViews) -> Iterator[tuple[Fits, Fits]]:
    """True and predicted bodies, some at a time."""
    network.eval()
    for rows in torch.arange(len(views)).split(256):
        some = views.people[rows]
        yield views.bodies[rows], Fits(*network.decode(network.encode(some.joints, some.depth), some.joints, some.depth))
