"""``hmr-ros export``: every torch network of the pipeline built ahead, as TensorRT engines, OpenVINO or ONNX files, each compared with torch.

A further network is a function and a line in `NETWORKS`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import nn

from hmr_ros import runtime
from hmr_ros.body.model import BodyModel
from hmr_ros.files import make_folder
from hmr_ros.geometry import matrix_from_6d
from hmr_ros.networks.checkpoints import EMBEDDED, example_inputs, load_lifter, load_resnet18, network_in
from hmr_ros.proxies.torch_modules import BlazePoseNet
from hmr_ros.proxies.torch_modules.compiled import MOVENET_SIDES, detector_precision, example_image, example_rois, movenet_trunk
from hmr_ros.runtime.parity import compared, difference, tolerance
from hmr_ros.runtime.torch_backend import Flat


@dataclass(frozen=True)
class ExportConfig:
    """Build the networks ahead, for a robot's image: TensorRT engines for this GPU, OpenVINO's IR, or ONNX; each compared with torch."""

    backend: Literal["tensorrt", "openvino", "onnx"]
    out: Path | None = None
    """Folder of the files. With tensorrt: what the robot will have as XDG_CACHE_HOME; without it, this user's cache."""
    checkpoint: Path | None = None
    """Another checkpoint than the embedded one, for the regressor that it holds."""
    body_model: Path | None = None
    """SMPL's .pkl or .npz; without it the embedded body."""
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """Between float32 inputs and outputs. auto: as the node by default, fp16 with tensorrt, files in fp32; fp16: with openvino the weights in
    the file alone; bf16: tensorrt only, and the detectors stay in fp32."""
    max_people: int = runtime.MAX_BATCH
    """Of the largest TensorRT engine; the node's parameter max_people must be the same. Files take any number."""
    networks: tuple[str, ...] = ()
    """Names of some of the networks; without it all."""


class Network(NamedTuple):
    """What is exported: a module and its inputs, batch first, of at least two people where it sees people."""

    module: nn.Module
    examples: tuple[torch.Tensor, ...]
    max_batch: int | None = None  # rows of its largest TensorRT engine; None: max_people
    detector: bool = False  # runs in the detectors' precision


class Built(NamedTuple):
    bytes: int | None  # of the files; None: they were there
    difference: float | None  # largest, relative, to torch; None: nothing here could run it


def _lifter(config: ExportConfig) -> Network:
    module = load_lifter(_checkpoint("lifter", config))[0].eval()
    return Network(module, example_inputs(module))


def _resnet18(config: ExportConfig) -> Network:
    module = load_resnet18(_checkpoint("resnet18", config))[0].eval()
    return Network(module, example_inputs(module))


def _checkpoint(kind: str, config: ExportConfig) -> Path:
    given = config.checkpoint
    return given if given is not None and network_in(given) == kind else EMBEDDED[kind]


def _body(config: ExportConfig) -> Network:
    dice = torch.Generator().manual_seed(0)
    rotations = matrix_from_6d(torch.randn(2, 24, 6, generator=dice))
    return Network(BodyModel.load(config.body_model), (rotations, torch.randn(2, 10, generator=dice)))


def _blazepose(config: ExportConfig) -> Network:
    return Network(BlazePoseNet.load(), (example_rois(),), detector=True)


def _movenet(side: int) -> Callable[[ExportConfig], Network]:
    """The trunk; ``torch_modules.decode`` makes people of its maps."""
    return lambda config: Network(movenet_trunk(), (example_image(side),), max_batch=1, detector=True)


# name: what loads it. Add a network of your own here; everything below, the tests and `make engines` go through this table.
NETWORKS: dict[str, Callable[[ExportConfig], Network]] = {
    "lifter": _lifter, "resnet18": _resnet18, "body": _body, "blazepose": _blazepose,
    **{f"movenet_{side}": _movenet(side) for side in MOVENET_SIDES},
}  # fmt: skip


def networks(config: ExportConfig) -> Iterator[tuple[str, Network]]:
    """The networks asked for, one loaded after the other. Raises ValueError for a name that is none."""
    unknown = [name for name in config.networks if name not in NETWORKS]
    if unknown:
        raise ValueError(f"--networks {' '.join(unknown)}: no such network, expected some of {', '.join(NETWORKS)}")
    for name in config.networks or NETWORKS:
        yield name, NETWORKS[name](config)


def main(argv: list[str]) -> int:
    """0: all were built and agree with torch; errors are raised. Prints the table."""
    config = tyro.cli(ExportConfig, args=argv, prog="hmr-ros export")
    if config.out is None and config.backend != "tensorrt":
        raise ValueError(f"--out is missing: the folder for the {config.backend} files")
    if config.precision == "bf16" and config.backend != "tensorrt":
        raise ValueError(f"--precision bf16 is for tensorrt; {config.backend} files hold fp32 or fp16")
    if config.precision == "auto" and config.backend != "tensorrt":
        config = replace(config, precision="fp32")
    if config.out is not None:
        make_folder(config.out)
    console = Console(markup=False, highlight=False, soft_wrap=True)
    table = Table("network", "inputs", "weights", "size", "differs from torch by")
    for name, network in networks(config):
        with console.status(f"{name}: building"):
            built = _BUILDERS[config.backend](name, network, config)
        inputs = ", ".join("x".join(["N", *map(str, example.shape[1:])]) for example in network.examples)
        weights = sum(t.numel() for t in (*network.module.parameters(), *network.module.buffers()))
        worst = "not compared: pip install onnxruntime" if built.difference is None else f"{built.difference:.1e}"
        size = "from the cache" if built.bytes is None else f"{built.bytes / 1e6:.1f} MB"
        table.add_row(name, inputs, f"{weights / 1e6:.2f} M", size, worst)
    console.print(table)
    return 0


def _tensorrt(name: str, network: Network, config: ExportConfig) -> Built:
    if config.out is not None:
        os.environ["XDG_CACHE_HOME"] = str(config.out.resolve())
    from hmr_ros.runtime.engine_cache import engines_folder

    before = set(engines_folder().glob("*"))
    precision = detector_precision(config.precision) if network.detector else config.precision
    options = {"backend": "tensorrt", "precision": precision, "max_batch": network.max_batch or config.max_people}
    compiled = runtime.compile(network.module, network.examples, **options)  # its class is its name, as in the estimator
    added = [file.stat().st_size for folder in set(engines_folder().glob("*")) - before for file in folder.glob("*.pt2")]
    return Built(sum(added) if added else None, _difference(network, compiled))


def _openvino(name: str, network: Network, config: ExportConfig) -> Built:
    from hmr_ros.runtime.openvino_backend import save

    path = config.out / f"{name}.xml"
    save(network.module, network.examples, path, half_weights=config.precision == "fp16")
    found = _agree(name, network, runtime.compile(path, backend="openvino"), config.precision)
    return Built(path.stat().st_size + path.with_suffix(".bin").stat().st_size, found)


def _onnx(name: str, network: Network, config: ExportConfig) -> Built:
    from hmr_ros.runtime.exported import run_onnx, save_onnx

    path = config.out / f"{name}.onnx"
    with tempfile.TemporaryDirectory(dir=config.out, prefix=".export.") as folder:
        fresh = Path(folder) / path.name
        save_onnx(network.module, network.examples, fresh, config.precision)
        try:
            found = _agree(name, network, lambda *arrays: run_onnx(fresh, arrays), config.precision)
        except ImportError:
            found = None
        os.replace(fresh, path)
    return Built(path.stat().st_size, found)


def _difference(network: Network, function: Callable) -> float:
    """The largest, relative, over all outputs, for one person and for all of the examples."""
    flat, largest = Flat(network.module), 0.0
    for batch in (1, len(network.examples[0])):
        inputs = [example[:batch] for example in network.examples]
        with torch.inference_mode():
            want = [value.numpy() for value in flat(*inputs)]
        got = function(*(i.numpy() for i in inputs))
        largest = max(largest, *difference(compared(flat, got), compared(flat, want)))
    return largest


def _agree(name: str, network: Network, function: Callable, precision: str) -> float:
    found, allowed = _difference(network, function), tolerance(network.module, precision)
    if not found <= allowed:  # true of NaN, too
        raise ValueError(f"{name} in {precision} differs from torch by {found:.2g}, expected at most {allowed:.2g}; use fp32")
    return found


_BUILDERS = {"tensorrt": _tensorrt, "openvino": _openvino, "onnx": _onnx}
