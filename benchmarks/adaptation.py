"""Does `hmr-ros adapt` help a camera that training does not know? Measured on rendered recordings, whose truth it never sees.

    hmr-ros data rendered --out runs/ceiling --scene ceiling --count 2000 --seed 11 --save-images 2000 --backgrounds runs/backgrounds
    hmr-ros adapt runs/ceiling/images --out runs/adapt_ceiling --rate 10 --fov 85 --backgrounds runs/backgrounds
    python benchmarks/adaptation.py --runs runs/adapt_ceiling --recordings runs/ceiling/images --test runs/test --backgrounds runs/backgrounds \
        --json results.json

Scores are of the lifter without refinement, on the held-out end of the recording and on the frozen test split; learning is repeated with every seed, from the
same pictures. "true labels" learns from the recording with its truth: no pseudo-label
can be better.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console

from hmr_ros.camera import ray_axes
from hmr_ros.files import write_json
from hmr_ros.geometry import matrix_from_rotvec, rotvec_from_matrix
from hmr_ros.networks.lifter.net import Lifter
from hmr_ros.training.adaptation.adapt import AdaptConfig, Material, gather, learn
from hmr_ros.training.adaptation.recordings import People
from hmr_ros.training.data import shards
from hmr_ros.training.lifter.samples import DEPTHS, FLIPS, Samples, load_feature_maps, load_people, make_samples
from hmr_ros.training.lifter.tasks import errors

TRUTH = ("ray_orient", "pose", "betas", "keypoints2d", "ray_rotation")


@dataclass(frozen=True)
class Config:
    """Score adapted lifters against the truth of rendered recordings."""

    runs: tuple[Path, ...]
    """Finished folders of `hmr-ros adapt`."""
    recordings: tuple[Path, ...]
    """The pictures that each was made from, in the same order; the truth lies in the folder above."""
    test: Path
    """The frozen test split."""
    json: Path
    backgrounds: Path | None = None
    """That the runs were given."""
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int | None = None
    """Of learning; default: the run's."""
    true_labels: bool = False
    """Learn from the truth as well, as the bound."""


def main() -> None:
    config = tyro.cli(Config)
    console, results = Console(markup=False, highlight=False, soft_wrap=True), {}
    test = None
    for out, recording in zip(config.runs, config.recordings, strict=True):
        settings = json.loads((out / "report.json").read_text())["settings"]
        known = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items() if name not in
                 ("recordings", "checkpoint", "backgrounds", "replay_data")}  # fmt: skip
        adapt = AdaptConfig((recording,), out, **known, backgrounds=config.backgrounds, workers=1)
        adapt = replace(adapt, replay_data=(out / "replay",) if not settings["replay_data"] else tuple(map(Path, settings["replay_data"])))
        adapt = replace(adapt, steps=config.steps or adapt.steps)
        material = gather(adapt, console)
        truth = _truth(recording.parent)
        held = _samples(material.held.people, truth, material, ("plain",), DEPTHS[:1])
        if test is None:
            test = make_samples(load_people((config.test,)), load_feature_maps((config.test,)), material.skeleton)
        rows = {"before": _scores(material.before, held, test, material)}
        console.print(f"{out.name}: before {rows['before']}")
        for seed in config.seeds:
            with tempfile.TemporaryDirectory(dir=out) as folder:
                lifter, share = learn(replace(adapt, seed=seed, out=Path(folder)), material, console)
            rows[f"seed {seed}"] = _scores(lifter, held, test, material) | {"blend": share}
            console.print(f"{out.name}: seed {seed} {rows[f'seed {seed}']}")
        if config.true_labels:
            labelled = _samples(material.first.people, truth, material, FLIPS, DEPTHS[:1])
            bound = material._replace(learned=material.learned | {"recording": material.regressor.ready(labelled)})
            with tempfile.TemporaryDirectory(dir=out) as folder:
                lifter, share = learn(replace(adapt, seed=config.seeds[0], out=Path(folder)), bound, console)
            rows["true labels"] = _scores(lifter, held, test, material) | {"blend": share}
            console.print(f"{out.name}: true labels {rows['true labels']}")
        results[out.name] = {"about": material.about, "settings": settings, "rows": rows}
        write_json(config.json, results)


def _truth(folder: Path) -> dict[str, np.ndarray]:
    """Of everybody in the recording, found by `data rendered` or not."""
    data = shards.load(folder)
    parts = {name: [data[name], *([data[f"missed_{name}"]] if f"missed_{name}" in data else [])] for name in ("index", "pose", "betas", "keypoints2d")}
    return {name: np.concatenate(some) for name, some in parts.items()}


def _samples(people: People, truth: dict[str, np.ndarray], material: Material, flips, depths) -> Samples:
    """Detections that are somebody's, with that person's truth."""
    rows, matched, whose = people.rows, [], []
    for row in range(len(people)):
        here = np.flatnonzero(truth["index"] == rows["index"][row])
        sure = rows["keypoints"][row, :, 2] > 0.2
        if not len(here) or not sure.any():
            continue
        off = np.median(np.linalg.norm(truth["keypoints2d"][here][:, sure] - rows["keypoints"][row, sure, :2], axis=-1), axis=1)
        if off.min() < shards.MATCH * np.linalg.norm(rows["box"][row, 2:] - rows["box"][row, :2]):
            matched.append(row)
            whose.append(here[off.argmin()])
    part = people[np.array(matched)]
    pose = truth["pose"][whose]
    axes = ray_axes(people.cameras[0], part.rows["crop"][:, :2])
    orient = rotvec_from_matrix(axes @ matrix_from_rotvec(pose[:, 0]))
    true = {"ray_orient": orient, "pose": pose, "betas": truth["betas"][whose], "keypoints2d": truth["keypoints2d"][whose]}
    return make_samples(part.rows | true, people.maps, material.skeleton, flips, depths)


def _scores(lifter: Lifter, held: Samples, test: Samples, material: Material) -> dict:
    found = {}
    for name, samples in (("held_out", held), ("frozen_test", test)):
        found[name] = {kind: round(float(values.mean()), 2) for kind, values in errors(lifter, samples, material.skeleton).items() if kind != "betas_rms"}
    return found


if __name__ == "__main__":
    main()
