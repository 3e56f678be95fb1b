"""Proxy extractors by name, each with an identity that shards and the checkpoints trained from them carry.

To add one: a class in a module of this package with ``name``, ``Config`` (a frozen dataclass of its thresholds and options, with
``flip``, ``size`` and ``confident``), ``FILES`` (what it loads from hmr_ros/assets), a constructor (threads, config) or
(threads, config, backend, precision, max_people), of which the last ones may be missing, and its entry below. One that loads files of the
user as well has a class method ``identify(files, config)``, and its constructor takes (threads, config, files, backend). The identity knows no backend: whatever runs an extractor's networks, its
proxies are the same but for rounding.
"""

from __future__ import annotations

import hashlib
import inspect
from dataclasses import asdict, replace
from functools import cache
from importlib import import_module
from importlib.resources import files

from hmr_ros.proxies.paper.config import ProxyFiles
from hmr_ros.proxies.person import ProxyExtractor
from hmr_ros.proxies.torch_modules import run_as_files
from hmr_ros.runtime import MAX_BATCH, gpu_is_there

EXTRACTORS = {"embedded": "hmr_ros.proxies.embedded:EmbeddedExtractor", "paper": "hmr_ros.proxies.paper.extractor:PaperExtractor"}
# What runs in their place where the networks run on a GPU: a subclass with the same identity.
ON_A_GPU = {"embedded": "hmr_ros.proxies.on_device.extractor:DeviceExtractor"}
DEFAULT = "embedded"


def make_extractor(
    name: str = DEFAULT, threads: int | None = None, flip: bool = False, size: int = 0, files: ProxyFiles = ProxyFiles(), backend: str = "auto",
    precision: str = "fp32", max_people: int = MAX_BATCH,
) -> ProxyExtractor:  # fmt: skip
    """A registered extractor with its networks loaded. ``threads``: of the CPU, None: the runtime's choice. ``flip``: people also get
    their proxies of the flipped image, for flip test-time augmentation. ``size``: px, mask and depth are no smaller, 0: as large as usual.
    ``files``: what the user brings. ``backend``, ``precision``, ``max_people``: what runs its networks and how (runtime.compile), where it has a
    choice. ValueError for another name, and for files that the extractor does not read."""
    kind = _class(name, on_gpu=gpu_is_there() and not run_as_files(backend))
    config = _config(kind, flip, size)
    if _takes_files(kind, files):
        return kind(threads, config, files, backend)
    taken = inspect.signature(kind).parameters
    options = {key: value for key, value in (("backend", backend), ("precision", precision), ("max_people", max_people)) if key in taken}
    return kind(threads, config, **options)


def identity(name: str = DEFAULT, flip: bool = False, size: int = 0, files: ProxyFiles = ProxyFiles()) -> dict:
    """Identity of what ``make_extractor`` would make, without loading its networks; where depth comes from maps in files, it says so."""
    kind = _class(name)
    config = _config(kind, flip, size)
    known = kind.identify(files, config) if _takes_files(kind, files) else identity_of(kind, config)
    return known if files.depth_maps is None else known | {"depth_maps": "hdnet"}


def identity_of(kind: type, config) -> dict:
    """What proxies depend on, JSON-able: the extractor's name, its files' SHA-256, its options."""
    return {"name": kind.name, "files": {file: _sha256(file) for file in kind.FILES}, "options": asdict(config)}


def confident(recorded: dict | None) -> float:
    """The confidence above which keypoints of an identity's proxies count as seen. None: of proxies older than identities, which are
    all the embedded extractor's."""
    return _class(DEFAULT).Config().confident if recorded is None else recorded["options"]["confident"]


def depth_source(recorded: dict | None) -> str:
    """``PersonProxies.depth_source`` of an identity's proxies, without a depth camera. None: of proxies older than identities."""
    options = (recorded or {}).get("options")
    return str((recorded or {}).get("depth_maps") or (options if isinstance(options, dict) else {}).get("depth", "coarse"))


def _takes_files(kind: type, files: ProxyFiles) -> bool:
    if hasattr(kind, "identify"):
        return True
    given = [name for name in ("keypoint_rcnn", "depth_network") if getattr(files, name) is not None]
    if given:
        raise ValueError(f"extractor {kind.name} does not read {given[0]} {getattr(files, given[0])}; take the extractor paper, or leave it out")
    return False


def _config(kind: type, flip: bool, size: int):
    config = kind.Config(flip=flip)
    return replace(config, size=max(config.size, size))


def _class(name: str, on_gpu: bool = False) -> type:
    if name not in EXTRACTORS:
        raise ValueError(f"extractor is {name!r}, expected one of {', '.join(EXTRACTORS)}")
    module, _, kind = (EXTRACTORS | ON_A_GPU if on_gpu else EXTRACTORS)[name].partition(":")
    return getattr(import_module(module), kind)


@cache
def _sha256(file: str) -> str:
    return hashlib.sha256((files("hmr_ros") / "assets" / file).read_bytes()).hexdigest()
