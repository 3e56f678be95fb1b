"""What the networks and the whole path on the device cost, and how far they are from float32 on the CPU: torch, CUDA graphs and TensorRT, in
fp32 and fp16, for 1, 4 and 8 people. Run it on your GPU; docs/gpu.md says which figures are missing.

    python benchmarks/gpu.py [--device cpu] [--json FILE]

Each network alone, tensors on the device before and after; "numpy" is the same call with arrays, copies included. Then the path, from an image
on the host to bodies there: a pass of detection, following, regression, refinement, bodies; its difference is that of the joints, in metres,
to the path of numpy and OpenVINO. The first TensorRT run builds engines, which takes minutes and is not timed.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table

from hmr_ros import runtime
from hmr_ros.camera import as_camera
from hmr_ros.commands.export import NETWORKS, ExportConfig, Network, networks
from hmr_ros.estimator import HumanMeshEstimator
from hmr_ros.files import write_json
from hmr_ros.geometry import pinhole
from hmr_ros.proxies.on_device.extractor import DeviceExtractor
from hmr_ros.runtime.parity import compared, difference
from hmr_ros.runtime.torch_backend import Flat, reduced

PEOPLE = 1, 4, 8
WARM_UP = 20  # calls; also for the GPU's clock


@dataclass(frozen=True)
class Config:
    device: Literal["cuda", "cpu"] = "cuda"
    calls: int = 200
    networks: tuple[str, ...] = ()
    """Some of them; without it all."""
    path: bool = True
    """The whole path, too."""
    checkpoint: Path | None = None
    body_model: Path | None = None
    json: Path | None = None


def main() -> int:
    config = tyro.cli(Config)
    if config.device == "cuda" and not torch.cuda.is_available():
        print(
            f"no CUDA device: torch {torch.__version__} finds none. Missing stay latency and parity for {', '.join(map(str, PEOPLE))} people of "
            f"{', '.join(config.networks or NETWORKS)}{' and the whole path' if config.path else ''}; --device cpu times the CPU's backends",
            file=sys.stderr,
        )
        return 2
    if config.device == "cpu" and torch.cuda.is_available():
        print("there is a GPU, which torch would use: CUDA_VISIBLE_DEVICES= python benchmarks/gpu.py --device cpu", file=sys.stderr)
        return 2
    ways = [("torch", "fp32"), ("torch", "fp16"), ("torch CUDA graph", "fp32"), ("torch CUDA graph", "fp16"), ("tensorrt", "fp32"), ("tensorrt", "fp16")]
    if config.device == "cpu":
        ways = [("torch", "fp32"), ("openvino", "fp32"), ("torch", "bf16"), ("openvino", "bf16"), ("tensorrt", "fp32")]
    console, rows = Console(soft_wrap=True, highlight=False), []
    given = ExportConfig("onnx", checkpoint=config.checkpoint, body_model=config.body_model, networks=config.networks)
    for name, network in networks(given):
        for way, precision in ways:
            with console.status(f"{name}: {way} {precision}"):
                rows += [{"network": name, "way": way, "precision": precision, **row} for row in measure(network, way, precision, config)]
    for way, precision in ways if config.path else ():
        if way in ("torch", "tensorrt") and precision != "bf16":
            with console.status(f"path: {way} {precision}"):
                rows += [{"way": way, "precision": precision, **row} for row in measure_path(way, precision, config)]
    console.print(table_of(rows))
    for reason in dict.fromkeys(row["missing"] for row in rows if "missing" in row):
        console.print(f"missing: {reason}")
    if config.json:
        write_json(config.json, {**machine(config.device), "date": date.today().isoformat(), "calls": config.calls, "rows": rows})
        print(f"written to {config.json}")
    return 0


def measure(network: Network, way: str, precision: str, config: Config) -> Iterator[dict]:
    """A row for each number of people, or one that says why there is none."""
    module, examples, *_ = network
    if network.detector and precision == "bf16":
        return  # detectors do not run in it
    try:
        if way != "torch CUDA graph":
            compiled = runtime.compile(module, examples, backend=way, precision=precision, max_batch=network.max_batch or max(PEOPLE))
    except (runtime.BackendUnavailable, RuntimeError) as error:
        yield {"missing": str(error)}
        return
    for people in PEOPLE if network.max_batch is None else (network.max_batch,):
        inputs = [torch.cat([e] * people)[:people].to(config.device) for e in examples]
        with torch.inference_mode():
            want = [w.numpy() for w in Flat(module)(*(i.cpu() for i in inputs))]
        call = graphed(reduced(Flat(module), precision).to(config.device), inputs) if way == "torch CUDA graph" else compiled.tensors
        got = [o.float().cpu().numpy() for o in call(*inputs)]
        row = {"people": people, "difference": max(difference(compared(module, got), compared(module, want)))}
        row |= percentiles(lambda: call(*inputs), config)
        if way != "torch CUDA graph":
            arrays = [i.cpu().numpy() for i in inputs]
            row["numpy_p50_ms"] = percentiles(lambda: compiled(*arrays), config)["p50_ms"]
        yield row


def measure_path(backend: str, precision: str, config: Config) -> Iterator[dict]:
    """Rows for a pass of detection, and for everything after it with each number of people, or one that says why there is none."""
    given = {"checkpoint": config.checkpoint, "body_model": config.body_model}
    try:
        estimator = HumanMeshEstimator.from_default(backend, precision=precision, max_people=max(PEOPLE), **given)
    except (runtime.BackendUnavailable, RuntimeError) as error:
        yield {"network": "path", "missing": str(error)}
        return
    if config.device == "cpu":  # the registry makes it where there is a GPU
        estimator.extractor = DeviceExtractor(backend=backend, precision=precision, max_people=max(PEOPLE))
    extractor, camera, image = estimator.extractor, as_camera(pinhole(768, 576, 60)), pedestrians()
    reference = HumanMeshEstimator.from_default("openvino", **given)
    found, expected = extractor(image), reference(image, intrinsics=camera.intrinsics)
    bodies = estimator.estimate(found, camera)
    if len(bodies) != len(expected):
        yield {"network": "path", "missing": f"{backend} {precision} gives {len(bodies)} bodies, openvino {len(expected)}: no parity to speak of"}
        return
    off = max(float(np.abs(body.joints - other.joints).max()) for body, other in zip(bodies, expected))
    yield {"network": "path: detection", "people": len(found), **percentiles(lambda: extractor(image), config)}
    for people in PEOPLE:
        some = [person for person in found if person.torso_is_seen]
        some = (some * people)[:people]
        unknown = np.full(people, np.nan)
        _, parameters = estimator.regress(some)
        refined = estimator.refine(some, parameters)

        def frame(some=some):
            return estimator.estimate([person for person in extractor.follow_all(image, some) if person is not None], camera)

        steps = {
            "following": lambda: extractor.follow_all(image, some), "regression": lambda: estimator.regress(some),
            "refinement": lambda: estimator.refine(some, parameters), "bodies": lambda: estimator.bodies(some, refined, camera, None, unknown),
        }  # fmt: skip
        for step, call in steps.items():
            yield {"network": f"path: {step}", "people": people, **percentiles(call, config)}
        yield {"network": "path: a followed frame", "people": people, "difference": off, **percentiles(frame, config)}


def pedestrians() -> np.ndarray:
    """A frame of several people, BGR."""
    capture = cv2.VideoCapture(str(files("hmr_ros") / "assets" / "demo" / "pedestrians.mp4"))
    for _ in range(61):
        read, image = capture.read()
    if not read:
        raise RuntimeError("OpenCV cannot read hmr_ros/assets/demo/pedestrians.mp4; install opencv-python-headless, whose wheels have ffmpeg")
    return image


def graphed(module: torch.nn.Module, inputs: Sequence[torch.Tensor]) -> Callable[..., Sequence[torch.Tensor]]:
    """The module for these shapes as a CUDA graph; results are overwritten by the next call."""
    fixed = [i.clone() for i in inputs]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.inference_mode(), torch.cuda.stream(stream):
        for _ in range(3):  # libraries choose their kernels and allocate
            module(*fixed)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.cuda.graph(graph):
        outputs = module(*fixed)

    def call(*given: torch.Tensor) -> Sequence[torch.Tensor]:
        with torch.inference_mode():
            for slot, tensor in zip(fixed, given):
                slot.copy_(tensor)
            graph.replay()
        return outputs

    return call


def percentiles(call: Callable, config: Config) -> dict[str, float]:
    times = []
    for _ in range(WARM_UP + config.calls):
        begin = time.perf_counter()
        call()
        if config.device == "cuda":
            torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - begin))
    return {f"p{q}_ms": round(float(np.percentile(times[WARM_UP:], q)), 3) for q in (50, 95)}


def machine(device: str) -> dict:
    versions = {status.name: status.detail for status in runtime.available_backends()}
    name = torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    return {"device": name, "torch": torch.__version__, "cuda": torch.version.cuda, "backends": versions}


def table_of(rows: list[dict]) -> Table:
    table = Table("network", "way", "precision", "people", "p50 ms", "p95 ms", "numpy p50 ms", "difference")
    for row in rows:
        head = row["network"], row["way"], row["precision"]
        if "missing" in row:
            table.add_row(*head, *["-"] * 4, "missing")
        else:
            numpy = f"{row['numpy_p50_ms']:.2f}" if "numpy_p50_ms" in row else "-"
            off = f"{row['difference']:.1e}" if "difference" in row else "-"
            table.add_row(*head, str(row["people"]), f"{row['p50_ms']:.2f}", f"{row['p95_ms']:.2f}", numpy, off)
    return table


if __name__ == "__main__":
    sys.exit(main())
