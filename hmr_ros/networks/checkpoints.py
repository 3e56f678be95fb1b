"""Regressors out of checkpoints: the networks alone, for training, or compiled and ready for people's proxies."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import Path

import torch

from hmr_ros.body.betas_map import BetasMap
from hmr_ros.body.model import BodyModel
from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.files import load_checkpoint
from hmr_ros.networks.lifter.features import FEATURE_COUNT, FEATURE_LAYOUT
from hmr_ros.networks.lifter.net import Lifter
from hmr_ros.networks.lifter.regressor import LifterRegressor
from hmr_ros.networks.paper.net import RegressorConfig, Resnet18Regressor
from hmr_ros.networks.paper.prior import EMBEDDED_PRIOR, load_pose_prior
from hmr_ros.networks.paper.regressor import MapsRegressor, depth_size_of
from hmr_ros.networks.regressor import Regressor
from hmr_ros.proxies import FEATURE_MAP
from hmr_ros.runtime import compile

DEFAULT = "lifter"
EMBEDDED = {name: files("hmr_ros") / "assets" / f"{name}.safetensors" for name in ("lifter", "resnet18")}
EMBEDDED_CHECKPOINT = EMBEDDED[DEFAULT]
# Names in lifters of earlier versions → today's: of options, parts of the feature layout, modules in tensors' names
_RENAMED = {"looking": "image_features", "appearance": "embedding", "region": "roi", "look": "branch", "answer": "mlp"}
_WRITTEN_BY = {"lifter": "hmr-ros train lifter", "resnet18": "hmr-ros train"}


def load_regressor(
    kind: str | None = None,
    path: str | Path | None = None,
    *,
    body_model: BodyModel,
    backend: str = "auto",
    threads: int | None = None,
) -> Regressor:
    """A regressor that gives parameters of ``body_model``.

    kind: "lifter" or "resnet18"; "auto", "" or None: what the checkpoint holds. path: a checkpoint; None: the embedded one of the kind, by
    default the lifter's. backend, threads: what runs it (runtime.compile). Raises FileNotFoundError or ValueError that name what is
    wrong with the file, the kind or the backend.
    """
    kind = None if kind == "auto" else kind
    if kind and kind not in EMBEDDED:
        raise ValueError(f"regressor is {kind!r}, expected one of {', '.join(EMBEDDED)}")
    if path is None:
        path = EMBEDDED[kind or DEFAULT]
    tensors, metadata = load_checkpoint(path)
    found = metadata.get("network")
    if found not in EMBEDDED:
        raise ValueError(f"{path} holds network {found!r}, expected one of {', '.join(EMBEDDED)}")
    _require(path, found, kind or found)
    options = {"backend": backend, "threads": threads}
    known = {"betas_map": BetasMap.between(metadata["body"], body_model), "body": metadata["body"]}
    if found == "lifter":
        network = _lifter(path, tensors, metadata).eval()
        compiled = compile(network, (torch.zeros(1, FEATURE_COUNT), torch.zeros(1, *FEATURE_MAP)), **options)
        skeleton = PosedKeypoints(body_model)
        return LifterRegressor(
            compiled, lambda betas: skeleton.pelvis(torch.from_numpy(betas)).numpy(), backend=compiled.backend, **known
        )
    network = _resnet18(path, tensors, metadata).eval()
    size = depth_size_of(network.config.size)
    compiled = compile(network, (torch.zeros(1, 17, 3), torch.zeros(1, size, size)), **options)
    return MapsRegressor(compiled, size, backend=compiled.backend, **known)


def load_lifter(path: str | Path) -> tuple[Lifter, dict]:
    """The lifter in a checkpoint and the ``body`` it was trained with ({"name", "sha256"}).

    Raises ValueError where the checkpoint holds another network or another feature layout.
    """
    tensors, metadata = load_checkpoint(path)
    _require(path, metadata.get("network"), "lifter")
    return _lifter(path, tensors, metadata), metadata["body"]


def load_resnet18(path: str | Path) -> tuple[Resnet18Regressor, dict]:
    """The paper's regressor in a checkpoint and the ``body`` it was trained with. Raises as :func:`load_lifter`."""
    tensors, metadata = load_checkpoint(path)
    _require(path, metadata.get("network"), "resnet18")
    return _resnet18(path, tensors, metadata), metadata["body"]


def _require(path, found: str | None, expected: str) -> None:
    if found != expected:
        raise ValueError(f"{path} holds network {found!r}, expected {expected!r}, as {_WRITTEN_BY[expected]} writes it")


def lifter_options(path: str | Path) -> dict:
    """The options of the :class:`Lifter` in a checkpoint, by today's names."""
    return _today(load_checkpoint(path)[1]["options"])


def _today(values: dict) -> dict:
    return {_RENAMED.get(name, name): value for name, value in values.items()}


def _lifter(path, tensors: dict, metadata: dict) -> Lifter:
    expected = {name: list(shape) for name, shape in FEATURE_LAYOUT}
    found = metadata.get("feature_layout")
    if found is None or list(_today(dict(found)).items()) != list(expected.items()):
        raise ValueError(
            f"{path} was trained with other features ({found or 'of an earlier version'}), expected {expected}; train it again with this "
            "version: hmr-ros train lifter"
        )
    lifter = Lifter(**_today(metadata["options"]))
    lifter.load_state_dict({".".join(_RENAMED.get(part, part) for part in name.split(".")): tensor for name, tensor in tensors.items()})
    return lifter


def _resnet18(path, tensors: dict, metadata: dict) -> Resnet18Regressor:
    expected = metadata.get("pose_prior_sha256")  # of the embedded prior, where the file leaves its decoder to it
    if expected:
        found = hashlib.sha256(EMBEDDED_PRIOR.read_bytes()).hexdigest()
        if found != expected:
            raise ValueError(f"{path} needs the pose prior {expected[:8]}, but {EMBEDDED_PRIOR} is {found[:8]}: they belong to different "
                             "versions of hmr_ros; install one of them whole")  # fmt: skip
        tensors |= {f"pose_decoder.{name}": value for name, value in load_pose_prior().decoder.state_dict().items()}
    regressor = Resnet18Regressor(RegressorConfig(**metadata["options"]))
    regressor.load_state_dict(tensors)
    return regressor
