"""``hmr-ros ablate``: the paper's Table 1 on rendered people, purely self-supervised, several seeds, with what stands beside it.

Every variant is a training run (train.py) of its own folder, so that a stopped table goes on where it was; scores are made with
the truth afterwards, once, and kept as JSON beside the weights. Rows and faults of the proxies are data here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from hmr_ros.body.model import BodyModel
from hmr_ros.networks.checkpoints import EMBEDDED_CHECKPOINT, load_lifter, load_resnet18
from hmr_ros.files import write_json
from hmr_ros.geometry import matrix_from_6d
from hmr_ros.networks.paper.net import Resnet18Regressor
from hmr_ros.networks.paper.reliability import Inputs
from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.skeleton import LIMB_KEYPOINTS
from hmr_ros.training.paper.coarse_body import CoarseBody
from hmr_ros.training.data.rendered import dataset as rendered
from hmr_ros.training.loop import require_same
from hmr_ros.training.metrics import auroc, mpjpe, pa_mpjpe
from hmr_ros.training.paper.proxy_data import HARSH, Corruption, ProxyData, of_rows
from hmr_ros.training.paper.reliability_ceiling import ceiling
from hmr_ros.training.benchmarks.rendered.methods import Prediction, posed
from hmr_ros.training.benchmarks.rendered.scores import WORST, WRONG_2D, Truth, complete
from hmr_ros.training.paper.optimise import OptimiseConfig, decoded, optimise, regress
from hmr_ros.training.paper.train import PRESETS, WEIGHTS, SelfSupervisedConfig, prepare, train

_LIMBS = list(LIMB_KEYPOINTS)

Variant = Literal["ours", "no_uncertainty", "no_uncertainty_no_trimming", "no_uncertainty_no_sampling", "no_depth_input", "joints_only"]


def _unweighted(config: SelfSupervisedConfig) -> SelfSupervisedConfig:
    return replace(config, loss=replace(config.loss, weighted=False))


def _without_depth_input(config: SelfSupervisedConfig) -> SelfSupervisedConfig:
    return replace(config, regressor=replace(config.regressor, depth_input=False))


def _joints_only(config: SelfSupervisedConfig) -> SelfSupervisedConfig:
    config = _without_depth_input(config)
    return replace(config, loss=replace(config.loss, alpha_depth=0.0))


# Table 1's rows in its order, with the paper's figures on 3DPW (MPJPE, PA-MPJPE), and the joints alone.
VARIANTS: dict[str, tuple[str, Callable[[SelfSupervisedConfig], SelfSupervisedConfig], tuple[float, float] | None]] = {
    "ours": ("ours", lambda config: config, (159.4, 89.5)),
    "no_uncertainty": ("- uncertainty", _unweighted, (166.9, 93.4)),
    "no_uncertainty_no_trimming": (
        "- uncertainty - T_IQR", lambda config: replace(_unweighted(config), trim=False), (208.2, 113.5),
    ),
    "no_uncertainty_no_sampling": (
        "- uncertainty - sampling",
        lambda config: replace(config, loss=replace(config.loss, weighted=False, points="pixels")), (182.6, 99.2),
    ),
    "no_depth_input": ("- depth input", _without_depth_input, (165.9, 97.6)),
    "joints_only": ("joints only", _joints_only, None),
}  # fmt: skip
CONDITIONS = {"clean": Corruption(), "harsh": HARSH}


@dataclass(frozen=True)
class AblateConfig:
    """Train the paper's variants without labels and compare them on rendered people with exact truth."""

    data: tuple[Path, ...]
    """Folders of `hmr-ros data rendered`, training split; proxies only are read."""
    test: Path
    """Folder of the test split (`--frozen` for the numbers in the docs), with its truth."""
    out: Path = Path("runs/ablation")
    """One folder a run; a stopped table goes on there."""
    variants: tuple[Variant, ...] = tuple(VARIANTS)
    seeds: int = 3
    condition: Literal["clean", "harsh"] = "harsh"
    """Faults added to the proxies, of training and test alike: none, or those of training/paper/proxy_data.py's HARSH."""
    depth: Literal["depth", "sensor_depth"] = "sensor_depth"
    """The extractor's coarse depth, or the simulated depth camera's, which like the paper's shows the surface."""
    preset: Literal["ablation", "extended", "tiny", "paper"] = "ablation"
    steps: int | None = None
    """Instead of the preset's."""
    refine: tuple[Variant, ...] = ("ours",)
    """Variants that are refined by their own losses as well; with `ours`, the same losses are optimised from the mean pose."""
    refinement: OptimiseConfig = field(default_factory=OptimiseConfig)
    json: Path | None = None
    """File for all figures."""


def run(config: AblateConfig, console: Console) -> dict:
    """Train what is missing, score what is not scored, write ``config.json``; returns what goes into it."""
    unknown = set(config.refine) - set(config.variants)
    if unknown and config.refine != ("ours",):
        raise ValueError(f"--refine names {', '.join(sorted(unknown))}, expected some of --variants")
    benchmark = Benchmark(rendered.load(config.test), config.depth)
    base = replace(PRESETS[config.preset][1], data=config.data, depth=config.depth, corruption=CONDITIONS[config.condition])
    if config.steps:
        base = replace(base, steps=config.steps)
    result: dict = {
        "settings": json.loads(json.dumps(asdict(base), default=lambda value: getattr(value, "name", str(value)))),
        "condition": config.condition, "refinement": asdict(config.refinement), "test": config.test.name,
        "proxies": benchmark.faults(replace(base, trim=True)), "mean_pose": benchmark.mean_pose(), "variants": {},
    }  # fmt: skip
    for name in config.variants:
        label, change, paper = VARIANTS[name]
        runs = []
        for seed in range(config.seeds):
            variant = replace(change(base), seed=seed, out=config.out / config.condition / f"{name}-{seed}")
            runs.append(_scored(variant, label, benchmark, name in config.refine, name == "ours", config, console))
        paper_figures = {"paper_3dpw": {"mpjpe": paper[0], "pa_mpjpe": paper[1]}} if paper else {}
        result["variants"][name] = {"label": label, "runs": runs, **spread(runs), **paper_figures}
    if config.json:
        write_json(config.json, result)
    console.print(table(result))
    return result


def _scored(
    config: SelfSupervisedConfig, label: str, benchmark: Benchmark, refine: bool, plain: bool, ablate: AblateConfig, console: Console
) -> dict:
    """One run's figures: from its folder where they are of the same people and refinement, else scored again, after training it
    where that was not done. ValueError where the folder is of a run with other settings."""
    path = config.out / "scores.json"
    asked = {"people_sha256": benchmark.sha256, "refinement": asdict(ablate.refinement) if refine else None}
    before = json.loads(path.read_text()) if path.is_file() else {}
    if before:
        require_same(config)
        if before.get("asked") == asked:
            return before
    console.print(f"{label}, seed {config.seed}")
    trained = before.get("training") or train(config, console)
    figures = {"asked": asked, "training": trained, **benchmark.score(config, refine, refine and plain, ablate.refinement)}
    write_json(path, figures)
    return figures


class Benchmark:
    """Rendered people with their truth; missed ones count as the mean pose, as in ``hmr-ros eval rendered``."""

    def __init__(self, data: dict[str, np.ndarray], depth: str):
        self.truth = Truth(data)
        self.proxies = of_rows(self.truth.found, depth)
        parts = self.truth.limbs, self.proxies.joints.numpy(), self.proxies.depth.numpy()
        self.sha256 = hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()
        self.body_model = BodyModel.load(None)
        self.body, self.skeleton = CoarseBody(self.body_model), PosedKeypoints(self.body_model)
        mean = matrix_from_6d(load_lifter(EMBEDDED_CHECKPOINT)[0].mean_rotations)[None].numpy()  # every benchmark's mean pose
        self.mean = posed(self.skeleton, mean, np.zeros((1, 10), np.float32), np.array([[1.0, 0, 0]], np.float32)).limbs[0]

    def people(self, config: SelfSupervisedConfig) -> ProxyData:
        """The found, with the faults and the trimming of a training configuration."""
        return prepare(config, self.proxies)[0]

    def faults(self, config: SelfSupervisedConfig) -> dict:
        """What is wrong with the proxies: shares of trimmed pixels, of joints off by more than a tenth of the diagonal."""
        people, quality = prepare(config, self.proxies)
        off = np.linalg.norm(people.joints[:, _LIMBS, :2].numpy() - self.truth.seen, axis=-1) / self.truth.diagonal[:, None]
        sure = people.joints[:, _LIMBS, 2].numpy() > 0
        return {**quality, "wrong_joints_share": float((off > WRONG_2D)[sure].mean()), "confident_joints_share": float(sure.mean())}

    def mean_pose(self) -> dict:
        return self._errors(Prediction(np.repeat(self.mean[None], self.truth.count_found, 0), self.truth.seen))[0]

    def errors_of(self, regressor: Resnet18Regressor, people: ProxyData, outputs=None) -> dict:
        """MPJPE and PA-MPJPE of what a regressor says of ``people``, the found with whatever depth and trimming, or of other
        numbers ``outputs`` (N, 48)."""
        return self._of(regressor, people, regress(regressor, people)[0] if outputs is None else outputs)[0]

    def score(self, config: SelfSupervisedConfig, refine: bool, plain: bool, steps: OptimiseConfig) -> dict:
        """Figures of a trained run: the network alone, refined, and (``plain``) optimisation from the mean pose."""
        regressor = load_resnet18(config.out / WEIGHTS)[0]
        people = self.people(config)
        outputs, reliability = regress(regressor, people)
        figures, errors = self._of(regressor, people, outputs)
        figures |= self._aurocs(people, reliability, errors) if config.loss.weighted and config.loss.alpha_depth else {}
        if refine:
            weights = reliability if config.loss.weighted else None
            refined = optimise(regressor, self.body, people, outputs, weights, config.loss, steps)
            figures["refined"] = self._of(regressor, people, refined)[0]
            if plain:
                start = 0 * outputs
                fitted = optimise(regressor, self.body, people, start, None, config.loss, steps)
                figures["optimised_from_mean_pose"] = self._of(regressor, people, fitted)[0]
        return figures

    def _of(self, regressor: Resnet18Regressor, people: ProxyData, outputs) -> tuple[dict, np.ndarray]:
        return self._errors(posed(self.skeleton, *decoded(regressor, people, outputs)))

    def _errors(self, prediction: Prediction) -> tuple[dict, np.ndarray]:
        """MPJPE and PA-MPJPE over everybody and over the found; joint errors of the found in metres."""
        limbs = prediction.limbs
        everybody = complete(prediction, self.mean, self.truth.count - self.truth.count_found)
        plain, aligned = mpjpe(everybody, self.truth.limbs), pa_mpjpe(everybody, self.truth.limbs)
        parts = {name: self.truth.parts[name] for name in ("all", "found", "mocap", "everyday")}
        figures = {name: {"mpjpe": float(plain[mask].mean()), "pa_mpjpe": float(aligned[mask].mean())} for name, mask in parts.items()}
        return figures, np.linalg.norm(limbs - self.truth.limbs[: len(limbs)], axis=-1)

    def _aurocs(self, people: ProxyData, reliability, errors: np.ndarray) -> dict:
        """Does reliability tell the worst fifth of the joints, and those detected at the wrong place? Beside the detector, and
        what the inputs allow with labels."""
        worst = errors > np.quantile(errors, 1 - WORST)
        off = np.linalg.norm(people.joints[:, _LIMBS, :2].numpy() - self.truth.seen, axis=-1) / self.truth.diagonal[:, None]
        w, confidence = reliability.numpy(), people.joints[:, _LIMBS, 2].numpy()
        return {
            "reliability": {"mean": float(w.mean()), "std": float(w.std()), "between_people": float(w.std(0).mean())},
            "auroc": {
                name: {"worst_3d": float(auroc(-values.ravel(), worst.ravel())),
                       "detected_wrong": float(auroc(-values.ravel(), (off > WRONG_2D).ravel()))}
                for name, values in (("reliability", w), ("detector_confidence", confidence))
            },
            "auroc_ceiling_worst_3d": {inputs: ceiling(people, worst, inputs) for inputs in get_args(Inputs)},
        }  # fmt: skip


def spread(runs: list[dict], kinds: tuple[str, ...] = ("network", "refined", "optimised_from_mean_pose")) -> dict:
    """Mean and standard deviation over seeds of every figure that all runs have."""
    result = {}
    for kind in kinds:
        sources = [run if kind == "network" else run.get(kind) for run in runs]
        if all(sources):
            values = {part: {score: [source[part][score] for source in sources] for score in ("mpjpe", "pa_mpjpe")}
                      for part in ("all", "found", "mocap", "everyday")}  # fmt: skip
            result[kind] = {
                part: {score: {"mean": float(np.mean(some)), "std": float(np.std(some, ddof=1)) if len(some) > 1 else 0.0}
                       for score, some in scores.items()} for part, scores in values.items()
            }  # fmt: skip
    return result


def table(result: dict) -> Table:
    """Everybody, millimetres, mean ± standard deviation over seeds; the paper's figures (3DPW) in their own columns."""
    faults = result["proxies"]
    shown = Table(title=f"{result['condition']}: {100 * faults['pixels_trimmed_share']:.1f} % of the pixels trimmed, "
                        f"{100 * faults['wrong_joints_share']:.1f} % of the joints wrong")  # fmt: skip
    for column in ("variant", "MPJPE", "PA-MPJPE", "paper: MPJPE", "paper: PA-MPJPE"):
        shown.add_column(column, justify="left" if column == "variant" else "right")
    mean = result["mean_pose"]["all"]
    shown.add_row("mean pose", f"{mean['mpjpe']:.1f}", f"{mean['pa_mpjpe']:.1f}", "", "")
    names = {"network": "", "refined": ", refined", "optimised_from_mean_pose": "'s losses, optimised from the mean pose"}
    for variant in result["variants"].values():
        for kind, suffix in names.items():
            if kind in variant:
                scores = [f"{score['mean']:.1f} ± {score['std']:.1f}" for score in variant[kind]["all"].values()]
                paper = variant.get("paper_3dpw", {}) if kind == "network" else {}
                shown.add_row(variant["label"] + suffix, *scores, *(str(paper.get(n, "")) for n in ("mpjpe", "pa_mpjpe")))
    return shown


def main(argv: list[str]) -> int:
    run(tyro.cli(AblateConfig, args=argv, prog="hmr-ros ablate"), Console(markup=False))
    return 0
