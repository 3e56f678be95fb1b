"""Regressors out of checkpoints: the networks alone, for training, or compiled and ready for people's proxies."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import Path
from reprlib import repr as brief

import torch

from hmr_ros.body.betas_map import BetasMap
from hmr_ros.body.model import BodyModel
from hmr_ros.body.posed_kernel import Skeleton
from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.files import load_checkpoint
from hmr_ros.networks.lifter.features import FEATURE_COUNT, FEATURE_LAYOUT
from hmr_ros.networks.lifter.net import Lifter
from hmr_ros.networks.lifter.on_device import DeviceLifter
from hmr_ros.networks.lifter.regressor import LifterRegressor
from hmr_ros.networks.paper.net import RegressorConfig, Resnet18Regressor
from hmr_ros.networks.paper.prior import EMBEDDED_PRIOR, load_pose_prior
from hmr_ros.networks.paper.regressor import MapsRegressor, depth_size_of
from hmr_ros.networks.regressor import Regressor
from hmr_ros.networks.weights import body_of, entry, with_weights
from hmr_ros.proxies import FEATURE_MAP
from hmr_ros.proxies.registry import depth_source
from hmr_ros.runtime import MAX_BATCH, compile

DEFAULT = "lifter"
EMBEDDED = {name: files("hmr_ros") / "assets" / f"{name}.safetensors" for name in ("lifter", "resnet18")}
EMBEDDED_CHECKPOINT = EMBEDDED[DEFAULT]
# Names in lifters of earlier versions → today's: of options, parts of the feature layout, modules in tensors' names
_RENAMED = {"looking": "image_features", "appearance": "embedding", "region": "roi", "look": "branch", "answer": "mlp"}
HIPS_DEPTH = 4.0  # metres, of relative depth
LARGEST_MAPS = 2048  # pixels a side of the resnet18's input; the paper's has 256
_WRITTEN_BY = {"lifter": "hmr-ros train lifter", "resnet18": "hmr-ros train"}


def load_regressor(
    kind: str | None = None,
    path: str | Path | None = None,
    *,
    body_model: BodyModel,
    backend: str = "auto",
    threads: int | None = None,
    precision: str = "fp32",
    max_batch: int = MAX_BATCH,
) -> Regressor:
    """A regressor that gives parameters of ``body_model``.

    kind: "lifter" or "resnet18"; "auto", "" or None: what the checkpoint holds. path: a checkpoint; None: the embedded one of the kind, by
    default the lifter's. backend, threads, precision, max_batch: what runs it and how (runtime.compile). Raises FileNotFoundError or ValueError that name what is
    wrong with the file, the kind or the backend.
    """
    kind = None if kind == "auto" else kind
    if kind and kind not in EMBEDDED:
        raise ValueError(f"regressor is {kind!r}, expected one of {', '.join(EMBEDDED)}")
    if path is None:
        path = EMBEDDED[kind or DEFAULT]
    tensors, metadata = load_checkpoint(path)
    found = _network_of(metadata, path)
    _require(path, found, kind or found)
    options = {"backend": backend, "threads": threads, "precision": precision, "max_batch": max_batch}
    body = body_of(metadata, path)
    known = {"betas_map": BetasMap.between(body, body_model), "body": body}
    if found == "lifter":
        network = _lifter(path, tensors, metadata).eval()
        compiled = compile(network, example_inputs(network), **options)
        skeleton = PosedKeypoints(body_model)
        return LifterRegressor(
            compiled, Skeleton(skeleton).pelvis, backend=compiled.backend, on_device=DeviceLifter(compiled, skeleton, known["betas_map"]), **known,
        )  # fmt: skip
    network = _resnet18(path, tensors, metadata).eval()
    compiled = compile(network, example_inputs(network), **options)
    return MapsRegressor(
        compiled, depth_size_of(network.config.size), backend=compiled.backend, depth_sources=_depth_sources(metadata), **known
    )


def network_in(path: str | Path) -> str:
    """"lifter" or "resnet18": what a checkpoint holds. Raises ValueError for another network."""
    return _network_of(load_checkpoint(path)[1], path)


def _network_of(metadata: dict, path) -> str:
    found = metadata.get("network")
    if not isinstance(found, str) or found not in EMBEDDED:
        raise ValueError(f"{path} holds network {found!r}, expected one of {', '.join(EMBEDDED)}")
    return found


def example_inputs(network: Lifter | Resnet18Regressor) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs of two people, random but always the same and in the range of real ones: what compiled networks are compared with torch on."""
    dice = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(2, *shape, generator=dice)

    if isinstance(network, Lifter):
        return network.feature_mean.cpu() + network.feature_std.cpu() * normal(FEATURE_COUNT), normal(*FEATURE_MAP)
    size = depth_size_of(network.config.size)
    joints = torch.cat([0.4 * normal(17, 2), normal(17, 1).sigmoid()], dim=-1)
    return joints, HIPS_DEPTH + 0.2 * normal(size, size)


def _depth_sources(metadata: dict) -> frozenset[str]:
    """Of the depth that a resnet18 was trained on (``PersonProxies.depth_source``), by the extractors that its checkpoint names."""
    training = metadata.get("training")
    training = training if isinstance(training, dict) else {}
    config, extractors = training.get("config"), training.get("extractors")
    if isinstance(config, dict) and config.get("depth") == "sensor_depth":
        return frozenset({"sensor"})
    known = [extractor for extractor in extractors or () if isinstance(extractor, dict)] if isinstance(extractors, list) else []
    return frozenset(map(depth_source, known or [None]))


def load_lifter(path: str | Path) -> tuple[Lifter, dict]:
    """The lifter in a checkpoint and the ``body`` it was trained with ({"name", "sha256"}).

    Raises ValueError where the checkpoint holds another network or another feature layout.
    """
    tensors, metadata = load_checkpoint(path)
    _require(path, metadata.get("network"), "lifter")
    return _lifter(path, tensors, metadata), body_of(metadata, path)


def load_resnet18(path: str | Path) -> tuple[Resnet18Regressor, dict]:
    """The paper's regressor in a checkpoint and the ``body`` it was trained with. Raises as :func:`load_lifter`."""
    tensors, metadata = load_checkpoint(path)
    _require(path, metadata.get("network"), "resnet18")
    return _resnet18(path, tensors, metadata), body_of(metadata, path)


def _require(path, found: str | None, expected: str) -> None:
    if found != expected:
        raise ValueError(f"{path} holds network {found!r}, expected {expected!r}, as {_WRITTEN_BY[expected]} writes it")


def lifter_options(path: str | Path) -> dict:
    """The options of the :class:`Lifter` in a checkpoint, by today's names."""
    return _today(entry(load_checkpoint(path)[1], "options", dict, path))


def _today(values: dict) -> dict:
    return {_RENAMED.get(name, name): value for name, value in values.items()}


def _lifter(path, tensors: dict, metadata: dict) -> Lifter:
    expected = {name: list(shape) for name, shape in FEATURE_LAYOUT}
    found = metadata.get("feature_layout")
    if not isinstance(found, (dict, list)) or not _same_layout(found, expected):
        raise ValueError(
            f"{path} was trained with other features ({brief(found) if found else 'of an earlier version'}), expected {expected}; train it "
            "again with this version: hmr-ros train lifter"
        )
    options = _today(entry(metadata, "options", dict, path))
    for name in ("members", "blocks"):  # each has weights of its own
        if name in options and not (isinstance(options[name], int) and 0 <= options[name] <= len(tensors)):
            raise ValueError(f"checkpoint {path} says it has {brief(options[name])} {name}, but holds {len(tensors)} tensors; copy it again")
    weights = {".".join(_RENAMED.get(part, part) for part in name.split(".")): tensor for name, tensor in tensors.items()}
    return with_weights(lambda: Lifter(**options), weights, path)


def _same_layout(found: dict | list, expected: dict) -> bool:
    try:
        return list(_today(dict(found)).items()) == list(expected.items())
    except (TypeError, ValueError):  # a list that is none of pairs
        return False


def _resnet18(path, tensors: dict, metadata: dict) -> Resnet18Regressor:
    expected = metadata.get("pose_prior_sha256")  # of the embedded prior, where the file leaves its decoder to it
    if expected:
        found = hashlib.sha256(EMBEDDED_PRIOR.read_bytes()).hexdigest()
        if found != expected:
            raise ValueError(f"{path} needs the pose prior {expected[:8]}, but {EMBEDDED_PRIOR} is {found[:8]}: they belong to different "
                             "versions of hmr_ros; install one of them whole")  # fmt: skip
        tensors |= {f"pose_decoder.{name}": value for name, value in load_pose_prior().decoder.state_dict().items()}
    options = entry(metadata, "options", dict, path)
    size = options.get("size", RegressorConfig.size)
    if not (isinstance(size, int) and 1 <= size <= LARGEST_MAPS):  # the only option that no tensor's shape follows
        raise ValueError(f"checkpoint {path} says its heatmaps have {brief(size)} pixels, expected at most {LARGEST_MAPS}; copy it again")
    return with_weights(lambda: Resnet18Regressor(RegressorConfig(**options)), tensors, path)
