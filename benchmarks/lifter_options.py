"""What the lifter gains from data, inputs and size: one training run a row, in one table, the failures included.

    python benchmarks/lifter_options.py --data runs/train runs/train_large --val runs/val --json benchmarks/results/lifter_options.json

Scores are those of the validation set (hmr-ros train lifter's own: 12 limb joints, root at the hips' midpoint, without refinement).
Rows that the JSON file already holds are not run again, so that the table can be made in pieces. Rotations, losses and another landmark
network are compared on other people, in benchmarks/results/lifter_networks.json, which has rows "amount" of its own to compare with.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from smplx.lbs import batch_rodrigues
from torch import nn

from hmr_ros.files import write_json
from hmr_ros.networks.lifter.features import FEATURE_LAYOUT
from hmr_ros.networks.lifter.net import OUTPUTS, Lifter
from hmr_ros.training.lifter import train as training


class TokenLifter(Lifter):
    """A small transformer instead of the MLP: a token for each joint, landmark, bone and quarter of the BlazePose embedding."""

    def __init__(self, width: int, blocks: int, dropout: float, members: int, embedding: bool, image_features: int):
        super().__init__(width, blocks, dropout, 0, embedding, image_features)
        self.members = nn.ModuleList(
            _TokenMember(_Tokens(width, blocks, dropout), nn.Linear(width, OUTPUTS)) for _ in range(members)
        )


class _TokenMember(nn.Sequential):
    head = property(lambda self: self[-1])

    def forward(self, x: torch.Tensor, feature_map: torch.Tensor) -> torch.Tensor:
        return super().forward(x)


class _Tokens(nn.Module):
    GROUPS = {("keypoints_xy", "keypoints_confidence"): 17, ("landmarks_xy", "landmarks_confidence", "world"): 33,
              ("bone_depth", "bone_depth_valid"): 12, ("up", "roi", "agreed"): 1, ("embedding",): 4}  # fmt: skip

    def __init__(self, width: int, blocks: int, dropout: float):
        super().__init__()
        sizes = {name: int(torch.tensor(shape).prod()) for name, shape in FEATURE_LAYOUT}
        ends = torch.tensor([0, *sizes.values()]).cumsum(0).tolist()
        self.spans = {name: slice(*ends[i : i + 2]) for i, name in enumerate(sizes)}
        self.embed = nn.ModuleList(
            nn.Linear(sum(sizes[name] for name in names) // count, width) for names, count in self.GROUPS.items()
        )
        self.place = nn.Parameter(0.02 * torch.randn(sum(self.GROUPS.values()), width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout, "gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, blocks, enable_nested_tensor=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = []
        for (names, count), embed in zip(self.GROUPS.items(), self.embed):
            values = [x[:, self.spans[name]] for name in names]
            if names == ("embedding",):  # 288 channels of 2 x 2 places: a token a place
                values = [values[0].reshape(len(x), 288, 4).transpose(1, 2)]
            tokens.append(embed(torch.cat([value.reshape(len(x), count, -1) for value in values], -1)))
        return self.encoder(torch.cat(tokens, 1) + self.place).mean(1)


class AxisAngleLifter(Lifter):
    """Rotations as axis-angle from the mean pose's instead of 6D; of a joint's six numbers half are left over."""

    def parameters_of(self, output: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        mean, *others = super().parameters_of(torch.cat([torch.zeros_like(output[:, : 24 * 6]), output[:, 24 * 6 :]], dim=1))
        vectors = output[:, : 24 * 6].reshape(-1, 6)[:, :3]
        return mean @ batch_rodrigues(vectors).reshape(-1, 24, 3, 3), *others


def not_turned(load: Callable) -> Callable:
    """People in the image's axes instead of their own: what turning them upright is worth."""

    def load_level(folders):
        level = [1, 1, 1, 0]
        data = load(folders)
        return data | {name: np.asarray(data[name]) * np.array(level, np.float32) for name in ("region", "mirrored_region")}

    return load_level


@dataclass(frozen=True)
class Config:
    data: tuple[Path, ...]
    val: tuple[Path, ...]
    json: Path
    people: int = 8000
    """For the rows that compare other things than the amount of data."""
    epochs: int = 40
    rows: tuple[str, ...] = ()
    """Only the rows whose names begin so; default all."""
    suffix: str = ""
    """Appended to the rows' names: what is special about these data, another landmark network, say."""


def rows(config: Config) -> dict[str, tuple[dict, dict]]:
    """Name → (options of hmr-ros train lifter, what is replaced in its module)."""
    some = {"people": config.people}
    table: dict[str, tuple[dict, dict]] = {
        f"amount: {count} people": ({"people": count}, {}) for count in (2000, 4000, 8000, 16000, 32000)
    }
    table["amount: all people"] = ({}, {})
    return table | {
        "inputs: without appearance": (some | {"embedding": False}, {}),
        "inputs: activations halfway as well": (some | {"image_features": 1}, {}),
        "inputs: not turned upright": (some, {"load_people": not_turned(training.load_people)}),
        "size: width 256": (some | {"width": 256}, {}),
        "size: width 1024": (some | {"width": 1024}, {}),
        "size: three members": (some | {"members": 3}, {}),
        "size: 4 blocks": (some | {"blocks": 4}, {}),
        "regularisation: dropout 0.3": (some | {"dropout": 0.3}, {}),
        "regularisation: no averaging of weights": (some | {"average": 0.0}, {}),
        "loss: betas x 0.1": (some | {"weight_betas": 0.02}, {}),
        "loss: without rotations": (some | {"weight_rotations": 0.0}, {}),
        "loss: rotations x 5": (some | {"weight_rotations": 5.0}, {}),
        "rotations: axis-angle": (some, {"Lifter": AxisAngleLifter}),
        "network: transformer, 3 layers of 96": (some | {"width": 96, "blocks": 3}, {"Lifter": TokenLifter}),
    }


def main() -> None:
    config = tyro.cli(Config)
    done = json.loads(config.json.read_text()) if config.json.is_file() else {}
    base = training.LifterConfig(data=config.data, val=config.val, epochs=config.epochs, reliability_epochs=5, width=512, members=1, image_features=0)
    training.load_people, training.load_feature_maps = cache(training.load_people), cache(training.load_feature_maps)  # rows read the same folders
    original = {name: getattr(training, name) for name in ("load_people", "Lifter")}
    for name, (options, replaced) in rows(config).items():
        if name + config.suffix in done or not name.startswith(config.rows or ("",)):
            continue
        for attribute, value in {**original, **replaced}.items():
            setattr(training, attribute, value)
        with tempfile.TemporaryDirectory() as out:
            metrics = training.train(replace(base, out=Path(out), **options), Console(stderr=True))
        done[name + config.suffix] = {**metrics["scores"], "people": metrics["people"], "seconds": metrics["seconds"], "options": options}
        write_json(config.json, done)
    table = Table("", "people", "MPJPE", "PA-MPJPE", "AUROC", "training loss", "s")
    for name, row in done.items():
        numbers = [f"{row[key]:.1f}" for key in ("mpjpe", "pa_mpjpe")]
        table.add_row(name, str(row["people"]), *numbers, f"{row['auroc']:.3f}", f"{row['loss']:.3f}", f"{row['seconds']:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
