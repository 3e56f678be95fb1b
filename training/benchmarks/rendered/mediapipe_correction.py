"""MediaPipe's world landmarks → our joints, by one linear map: a fair reading, because its joints are not quite COCO's.

Each of the 12 limb joints is a linear combination of the 33 landmarks with scalar weights, the same for x, y and z, so that
the map turns with the person. Weights are ridge regression on the training split towards the landmark of the same name.
The fitted map is committed as mediapipe_correction.json; `hmr-ros eval rendered --fit-correction DIR` fits it again.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import numpy as np

from hmr_ros.files import atomic_write
from hmr_ros.skeleton import COCO_FROM_BLAZEPOSE, LIMB_KEYPOINTS, LIMB_NAMES
from hmr_ros.training.data.shards import truth_path
from hmr_ros.training.metrics import LIMB_HIPS, mpjpe, root_aligned

RAW = np.eye(33)[[COCO_FROM_BLAZEPOSE[joint] for joint in LIMB_KEYPOINTS]]  # (12, 33): joints are landmarks of their name
RIDGE = 1e-4  # m² a person: pull of the weights towards RAW, against the landmarks' mean products


def fit_weights(world: np.ndarray, truth: np.ndarray, ridge: float = RIDGE) -> np.ndarray:
    """Weights (12, 33) so that weights @ world (N, 33, 3) comes near truth (N, 12, 3), metres, both relative to the hips."""
    landmarks = np.swapaxes(world, 1, 2).reshape(-1, 33).astype(np.float64)
    joints = np.swapaxes(truth, 1, 2).reshape(-1, 12).astype(np.float64)
    normal = landmarks.T @ landmarks / len(world) + ridge * np.eye(33)
    return RAW + np.linalg.solve(normal, landmarks.T @ (joints - landmarks @ RAW.T) / len(world)).T


def fit(folder: Path) -> dict:
    """Weights fitted on a folder written by `hmr-ros data rendered`, with where they come from.

    The folder may still grow: shards without their partner are left out. People whose landmarks are somebody else's have no
    say. Raises FileNotFoundError without shards, ValueError where they are not of the training split.
    """
    config = json.loads((folder / "config.json").read_text()) if (folder / "config.json").is_file() else {}
    if config.get("split", "train") != "train":
        raise ValueError(f"{folder} is of the split {config['split']!r}, expected 'train': never fit to held-out people")
    pairs = [(path, truth_path(folder, int(path.stem.split("-")[1]))) for path in sorted(folder.glob("proxies-*.npz"))]
    pairs = [pair for pair in pairs if pair[1].is_file()]
    if not pairs:
        raise FileNotFoundError(f"no proxies-*.npz with truth-*.npz in {folder}; make them with `hmr-ros data rendered`")
    worlds, truths = [], []
    for proxies_file, truth_file in pairs:
        with np.load(proxies_file) as proxies, np.load(truth_file) as truth:
            agreed = proxies["agreed"]
            worlds.append(proxies["world"][agreed])
            truths.append(truth["keypoints3d"][agreed][:, list(LIMB_KEYPOINTS)])
    world, truth = np.concatenate(worlds), root_aligned(np.concatenate(truths), LIMB_HIPS)
    weights = fit_weights(world, truth)
    errors = {
        name: float(mpjpe(root_aligned(w @ world, LIMB_HIPS), truth).mean()) for name, w in (("raw", RAW), ("corrected", weights))
    }
    return {
        "joints": list(LIMB_NAMES),
        "weights": np.round(weights, 5).tolist(),
        "provenance": {
            "made_by": "hmr-ros eval rendered --fit-correction",
            "folder": folder.name,
            "split": "train",
            "seed": config.get("seed"),
            "shards": len(pairs),
            "people": len(world),
            "ridge": RIDGE,
            "mpjpe_on_these_people": {name: round(error, 2) for name, error in errors.items()},
        },
    }


def save(correction: dict, path: Path) -> None:
    """One joint's weights a line, atomically."""
    rows = ",\n  ".join(json.dumps(row) for row in correction["weights"])
    rest = json.dumps({name: value for name, value in correction.items() if name != "weights"}, indent=1)
    with atomic_write(path) as partial:
        partial.write_text(f'{rest[:-2]},\n "weights": [\n  {rows}\n ]\n}}\n')


def load(path: Path | None = None) -> dict:
    """The committed map, or the one in a file; ``weights`` as an array (12, 33). ValueError for any other file."""
    file = path or resources.files("hmr_ros.training") / "benchmarks" / "rendered" / "mediapipe_correction.json"
    correction = json.loads(file.read_text())
    weights = np.array(correction.get("weights", []), np.float32)
    if weights.shape != RAW.shape or correction.get("joints") != list(LIMB_NAMES):
        raise ValueError(
            f"{file} holds weights {weights.shape} for joints {correction.get('joints')}, expected {RAW.shape} for "
            f"{list(LIMB_NAMES)}; fit it again with --fit-correction"
        )
    return correction | {"weights": weights}
