"""Scores of single self-supervised runs, longer and wider than `hmr-ros ablate` affords for every variant and seed.

    hmr-ros train ablation --data runs/train ... --depth sensor_depth --regressor.width 32 --regressor.size 48 --lr 1e-3 \\
        --precision bf16-mixed --steps 8000 --out runs/long/ours
    python benchmarks/longer_training.py --runs "ours, 8,000 steps" runs/long/ours --test runs/test --json benchmarks/results/ablation_longer.json

Runs of the same name are seeds, also of several calls (a folder scored again replaces its earlier score): their mean and standard
deviation are written beside them. MPJPE and PA-MPJPE in mm, missed
people as the mean pose; where depth was learned from, refined by the run's own losses as well, and by those of `hmr-ros fit`; and
what the same losses make of the mean pose.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

import tyro
from rich.console import Console

from hmr_ros.files import load_checkpoint, write_json
from hmr_ros.networks.checkpoints import load_resnet18
from hmr_ros.networks.paper.net import RegressorConfig
from hmr_ros.training.paper.ablation import Benchmark, spread
from hmr_ros.training.data.rendered import dataset as rendered
from hmr_ros.training.paper.fits import FitConfig
from hmr_ros.training.losses.consistency import LossConfig
from hmr_ros.training.paper.proxy_data import Corruption
from hmr_ros.training.paper.optimise import OptimiseConfig, optimise, regress
from hmr_ros.training.paper.train import WEIGHTS, SelfSupervisedConfig


KINDS = ("network", "refined", "fitted", "optimised_from_mean_pose", "fitted_from_mean_pose")


@dataclass(frozen=True)
class LongerConfig:
    runs: tuple[tuple[str, Path], ...]
    """What to call it, and the folder of a run of `hmr-ros train`; several of one name are its seeds."""
    test: Path
    """Folder of rendered people with their truth."""
    refinement: OptimiseConfig = field(default_factory=OptimiseConfig)
    json: Path | None = None
    """Runs that it holds are kept."""


def settings_of(folder: Path) -> SelfSupervisedConfig:
    """What a run was trained with, its folder where it lies now."""
    said = load_checkpoint(folder / WEIGHTS)[1]["training"]["config"]
    parts = {"loss": LossConfig, "regressor": RegressorConfig, "corruption": Corruption}
    return SelfSupervisedConfig(**said | {name: kind(**said[name]) for name, kind in parts.items()} | {"out": folder})


def fitted(benchmark: Benchmark, run: SelfSupervisedConfig) -> dict:
    """What the losses of ``hmr-ros fit`` make of what the run's network says, and of the mean pose."""
    regressor, people, how = load_resnet18(run.out / WEIGHTS)[0], benchmark.people(run), FitConfig(data=(), init=run.out)
    said = regress(regressor, people)[0]

    def from_(start):
        return benchmark.errors_of(regressor, people, optimise(regressor, benchmark.body, people, start, None, how.loss, how.optimise))

    return {"fitted": from_(said), "fitted_from_mean_pose": from_(0 * said),
            "fitted_by": {"loss": asdict(how.loss), "optimise": asdict(how.optimise)}}  # fmt: skip


def main(config: LongerConfig) -> None:
    console = Console()
    people = rendered.load(config.test)
    benchmark = cache(lambda depth: Benchmark(people, depth))
    rows = json.loads(config.json.read_text()) if config.json and config.json.is_file() else {}
    for label, folder in config.runs:
        run = settings_of(folder)
        with_depth = run.loss.alpha_depth > 0
        scores = {"training": load_checkpoint(folder / WEIGHTS)[1]["training"]}
        scores |= benchmark(run.depth).score(run, refine=with_depth, plain=with_depth, steps=config.refinement)
        if with_depth:
            scores |= fitted(benchmark(run.depth), run)
        console.print(label, scores["all"], *(scores[kind]["all"] for kind in KINDS if kind in scores))
        runs = [old for old in rows.get(label, {}).get("runs", []) if old["training"]["config"]["out"] != scores["training"]["config"]["out"]]
        runs = sorted([*runs, scores], key=lambda one: one["training"]["config"]["seed"])
        rows[label] = {"runs": runs, **spread(runs, KINDS)}
        if config.json:
            write_json(config.json, rows)


if __name__ == "__main__":
    main(tyro.cli(LongerConfig))
