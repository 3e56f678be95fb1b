"""Builds TensorRT engines of ONNX files without a GPU, by TensorRT for RTX, and says what came out: `make engines` runs it.

It shows that TensorRT parses every network and finds kernels for all of it; an engine's numerics and speed need a GPU (benchmarks/gpu.py).
Runs in an environment of its own, with tensorrt_rtx and nothing else: python tools/build_engines.py FOLDER RESULT.json, where FOLDER holds
fp32/NAME.onnx and fp16/NAME.onnx as `hmr-ros export --backend onnx` writes them.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from datetime import date
from pathlib import Path

import tensorrt_rtx as trt

BATCHES = 1, 4, 8  # smallest, usual, largest


class Log(trt.ILogger):
    """Keeps errors for the message; warnings are of no use here."""

    def __init__(self):
        super().__init__()
        self.errors: list[str] = []

    def log(self, severity, message):
        if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
            self.errors.append(message)


def build(path: Path) -> dict:
    """One engine for batches of 1 to 8. Types are the file's own. Raises RuntimeError with what TensorRT says."""
    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(path.read_bytes()):
        raise RuntimeError(f"{path}: {'; '.join(parser.get_error(i).desc() for i in range(parser.num_errors))}")
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    for i in range(network.num_inputs):
        port = network.get_input(i)
        if port.shape[0] != -1 or -1 in tuple(port.shape)[1:]:
            raise RuntimeError(f"{path}: input {port.name} has shape {tuple(port.shape)}, expected a free batch and nothing else free")
        profile.set_shape(port.name, *[(batch, *tuple(port.shape)[1:]) for batch in BATCHES])
    config.add_optimization_profile(profile)
    begin = time.monotonic()
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise RuntimeError(f"{path}: {'; '.join(log.errors) or 'TensorRT built nothing and does not say why'}")
    return {"layers": network.num_layers, "seconds": round(time.monotonic() - begin, 2), "bytes": engine.nbytes}


def main(folder: Path, result: Path) -> None:
    rows = []
    for path in sorted(folder.glob("fp*/*.onnx"), key=lambda p: (p.stem, p.parent.name != "fp32")):
        row = {"network": path.stem, "precision": path.parent.name, "onnx_bytes": path.stat().st_size, **build(path)}
        print(f"{row['network']:<12}{row['precision']:<6}{row['layers']:>6} layers {row['bytes'] / 1e6:>7.1f} MB {row['seconds']:>7.1f} s", flush=True)
        rows.append(row)
    if not rows:
        raise SystemExit(f"{folder} holds no fp32/NAME.onnx or fp16/NAME.onnx: `hmr-ros export --backend onnx` writes them")
    machine = f"{platform.machine()}, no GPU needed"
    content = {"tensorrt_rtx": trt.__version__, "batches": BATCHES, "date": date.today().isoformat(), "machine": machine, "engines": rows}
    result.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
