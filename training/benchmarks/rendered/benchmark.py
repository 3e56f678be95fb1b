"""``hmr-ros eval rendered``: how good the pose is on rendered people with exact truth, beside what it must beat.

Scores are over everybody in the pictures, found or missed, 12 limb joints, root at the hips' midpoint. What is compared
is in methods.py, what is measured in scores.py, what is shown in report.py and sheets.py.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import tyro
from rich.console import Console

import hmr_ros
from hmr_ros.body.model import BodyModel
from hmr_ros.networks.checkpoints import EMBEDDED_CHECKPOINT, load_lifter
from hmr_ros.files import make_folder, write_json
from hmr_ros.training.benchmarks.rendered import mediapipe_correction
from hmr_ros.training.data.rendered import dataset as rendered
from hmr_ros.training.benchmarks.rendered.methods import METHODS, MethodName, Methods, Prediction
from hmr_ros.training.benchmarks.rendered.report import save_plots, tables
from hmr_ros.training.benchmarks.rendered.scores import Truth, reliability, score
from hmr_ros.training.benchmarks.rendered.sheets import save_sheets

DEFINITIONS = {
    "mpjpe": "mm, 12 limb joints, hips' midpoint at the origin; pa_mpjpe: after the best similarity",
    "people": "found and missed; who was missed counts as the mean pose in every method; meshes that the estimator would not show "
    "(no torso seen, or off the detected joints by more than judgement.py's limits) are scored as they are",
    "axes": "the camera's, into which predictions are turned by the viewing ray's rotation, as the estimator does it; `ours_ray_axes` leaves that out",
    "views": "heading against the viewing ray: front below 45 degrees, back above 135, else side",
    "projection": "truly visible limb joints against the true 2D joints, in percent of the detected box's diagonal; those "
    "of missed people count as beyond any threshold, the mean distance is over the found; methods without a camera have the "
    "one that fits the detected joints best",
    "shape_mm": "mean distance of the T-pose's vertices, bodies put together at the pelvis joint",
    "reliability": "of the found people's joints in `ours`; worst_3d: the largest fifth of all errors, or of each joint's; "
    "detected_wrong: the detected joint is off by more than a tenth of the diagonal; right: within right_within_m in 3D",
}


@dataclass(frozen=True)
class EvalConfig:
    """Score the pose on rendered people with exact truth, beside MediaPipe, SMPLify-like optimisation and the mean pose."""

    data: Path | None = None
    """Folder written by `hmr-ros data rendered`; the numbers to compare are those of `--frozen`."""
    checkpoint: Path | None = None
    """Another one than the embedded checkpoint."""
    methods: tuple[MethodName, ...] = get_args(MethodName)
    """What to compare."""
    json: Path | None = None
    """File for all figures."""
    out: Path | None = None
    """Folder for plots, and for sheets of the best and worst people."""
    backgrounds: Path | None = None
    """The photos the data were made with: sheets need them, to make the pictures again."""
    correction: Path | None = None
    """Linear correction of MediaPipe's joints, instead of the committed one; with --fit-correction, where to write it."""
    fit_correction: Path | None = None
    """Fit that correction on this folder of the training split first, and write it."""


def run(config: EvalConfig, console: Console) -> dict:
    """Score everything that ``config`` names and write what it asks for; returns what goes into the JSON."""
    body = BodyModel.load(None)
    if not config.methods:
        raise ValueError(f"--methods names none, expected some of {', '.join(METHODS)}")
    checkpoint = Path(str(config.checkpoint or EMBEDDED_CHECKPOINT))
    lifter, trained_with = load_lifter(checkpoint)
    if not body.shares_betas_with(trained_with["sha256"]):
        raise ValueError(
            f"{checkpoint} was trained with body {trained_with['name']} ({trained_with['sha256'][:8]}), rendered people are "
            f"{body.name} ({body.sha256[:8]}); train it again with this version: hmr-ros train lifter"
        )
    data = rendered.load(config.data)
    truth, correction = Truth(data), mediapipe_correction.load(config.correction)
    methods = Methods(truth.found, rendered.load_activations(config.data), lifter, body, correction["weights"])
    mean_limbs = methods.mean_pose().limbs[0]
    result = {
        "data": _describe(config.data, data, truth),
        "checkpoint": {"file": checkpoint.name, "sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest()},
        "correction": correction["provenance"],
        "version": hmr_ros.__version__,
        "definitions": DEFINITIONS,
        "methods": {},
    }
    ours: Prediction | None = None
    for name in dict.fromkeys(config.methods):
        started = time.perf_counter()
        with console.status(METHODS[name].label):
            prediction = methods(name)
        seconds = round(time.perf_counter() - started, 1)
        described = {"label": METHODS[name].label, "what": METHODS[name].what, "seconds": seconds}
        result["methods"][name] = described | score(prediction, mean_limbs, truth, body)
        if name == "ours":
            ours = prediction
            result["reliability"] = reliability(prediction, truth)
    _check_finite(result)
    if config.json:
        write_json(config.json, result)
    console.print(tables(result))
    if config.out:
        make_folder(config.out)
        save_plots(result, config.out)
        if ours is None:
            console.print("no sheets of people: they show the method `ours`, which is not among --methods")
        else:
            console.print(save_sheets(ours, truth, body, config.data, config.backgrounds, config.out))
    return result


def main(argv: list[str]) -> int:
    config = tyro.cli(EvalConfig, args=argv, prog="hmr-ros eval rendered")
    console = Console(markup=False)
    if config.data is None and config.fit_correction is None:
        raise ValueError("nothing to do: name a folder written by `hmr-ros data rendered` as --data")
    if config.fit_correction is not None:
        if config.correction is None:
            raise ValueError("--fit-correction needs --correction FILE to write to, as training/benchmarks/rendered/mediapipe_correction.json")
        correction = mediapipe_correction.fit(config.fit_correction)
        mediapipe_correction.save(correction, config.correction)
        console.print(f"{config.correction}: {correction['provenance']}")
    if config.data is not None:
        run(config, console)
    return 0


def _describe(folder: Path, data: dict[str, np.ndarray], truth: Truth) -> dict:
    manifest = json.loads((folder / "manifest.json").read_text()) if (folder / "manifest.json").is_file() else {}
    identity = ("split", "seed", "images", "truth_sha256", "backgrounds_sha256")
    return {
        "folder": folder.name,
        **{name: manifest[name] for name in identity if name in manifest},
        "is_frozen_test": bool(manifest) and _is_frozen(manifest),
        "people": truth.count,
        "found": truth.count_found,
        "missed": truth.count - truth.count_found,
        "missed_by_category": truth.missed_by_category(),
    }


def _is_frozen(manifest: dict) -> bool:
    try:
        return not rendered.compare_with_frozen(manifest)
    except KeyError:  # the manifest is of an older version
        return False


def _check_finite(value, name: str = "") -> None:
    """FloatingPointError that names the figure which is not a number."""
    if isinstance(value, dict):
        for key, part in value.items():
            _check_finite(part, f"{name}.{key}")
    elif isinstance(value, list):
        for number, part in enumerate(value):
            _check_finite(part, f"{name}[{number}]")
    elif isinstance(value, float) and not np.isfinite(value):
        raise FloatingPointError(f"{name.lstrip('.')} is {value}, expected a finite number: is the checkpoint broken?")
