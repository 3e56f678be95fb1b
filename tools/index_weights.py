"""Index of a detector's weights: where its torch module finds them in the model file that OpenVINO reads.

    python tools/index_weights.py              # writes hmr_ros/proxies/torch_modules/*.json
    python tools/index_weights.py --check      # compares only; exit code 1 where an index and its model file differ

OpenVINO reads the model file. Its convolutions, in the file's order, and those of the torch module, in the module's order, are matched by
shape; the float16 numbers of each are looked up in the file's bytes. An index stays only where the module's outputs on a picture then equal
OpenVINO's, so a wrong match cannot pass.
"""
from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from hmr_ros.proxies.torch_modules import BlazePoseNet, MoveNetMultiPose  # noqa: E402
from hmr_ros.proxies.torch_modules.weights import axes  # noqa: E402
from hmr_ros.runtime.openvino_backend import ov  # noqa: E402

ASSETS, INDICES = ROOT / "hmr_ros" / "assets", ROOT / "hmr_ros" / "proxies" / "torch_modules"
# module, model file, file of its weights, order of axes in there
DETECTORS = {
    "movenet_multipose": (MoveNetMultiPose, ".xml", ".bin", {"convolution": "OIHW", "depthwise": "OIHW"}),
    "pose_landmark_full": (BlazePoseNet, ".tflite", ".tflite", {"convolution": "OHWI", "depthwise": "IHWO"}),
}


def value(port) -> np.ndarray:
    """What a constant part of the graph computes."""
    return next(iter(ov.compile_model(ov.Model([port], []), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([]).values()))


def layers_of(model) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """(weights (O, I, H, W), bias or None) of each convolution, in the order of the graph that OpenVINO has read."""
    found = [node for node in model.get_ops() if node.get_type_name() in ("Convolution", "GroupConvolution")]
    found.sort(key=lambda node: int(re.search(r"\d+$", node.get_friendly_name()).group()))
    layers = []
    for node in found:
        weights = value(node.input_value(1))
        consumers = list(node.output(0).get_target_inputs())
        bias = None
        if len(consumers) == 1 and consumers[0].get_node().get_type_name() == "Add":
            bias = value(consumers[0].get_node().input_value(1 - consumers[0].get_index())).ravel()
        layers.append((weights.reshape(weights.shape[0], *weights.shape[-3:]), bias))
    return layers


def find(array: np.ndarray, data: bytes) -> int:
    """Where the array's numbers stand as float16. Equal numbers may stand in two places; either will do."""
    half = array.astype(np.float16)
    if not np.array_equal(half.astype(np.float32), array):
        raise ValueError(f"weights of shape {array.shape} are not float16 in the file")
    offset = data.find(half.tobytes())
    if offset < 0:
        raise ValueError(f"weights of shape {array.shape} are not in the file in this order of axes")
    return offset


def index(name: str) -> dict:
    make, model_suffix, suffix, order = DETECTORS[name]
    model = ov.Core().read_model(ASSETS / f"{name}{model_suffix}")
    file = f"{name}{suffix}"
    data = (ASSETS / file).read_bytes()
    layers, offsets = layers_of(model), {}
    for key, convolution in make().named_modules():
        if not isinstance(convolution, nn.Conv2d):
            continue
        shape = tuple(convolution.weight.shape)
        biased = convolution.bias is not None
        weights, bias = layers.pop(next(i for i, (w, b) in enumerate(layers) if w.shape == shape and (b is not None) == biased))
        stored = weights.transpose(axes(order["depthwise" if shape[1] == 1 else "convolution"]))
        offsets[f"{key}.weight"] = find(stored, data)
        if bias is not None:
            offsets[f"{key}.bias"] = find(bias, data)
    if layers:
        raise ValueError(f"{name}: {len(layers)} convolutions of the model file are not in the torch module")
    return {"file": file, "sha256": hashlib.sha256(data).hexdigest(), "axes": order, "offsets": offsets}


def check(name: str) -> None:
    """Outputs on the embedded portrait against OpenVINO's."""
    make, suffix, *_ = DETECTORS[name]
    picture = cv2.imread(str(ASSETS / "demo" / "astronaut.jpg"))
    image = cv2.resize(picture, (256, 256), interpolation=cv2.INTER_AREA)[None, ..., ::-1].astype(np.float32)
    if make is BlazePoseNet:
        image /= 255
    request = ov.compile_model(str(ASSETS / f"{name}{suffix}"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(image)
    expected = [request[i] for i in range(len(request))]
    with torch.inference_mode():
        outputs = make.load()(torch.from_numpy(image.copy()))
    outputs = [outputs] if isinstance(outputs, torch.Tensor) else outputs
    for i, (got, want) in enumerate(zip(outputs, expected)):
        if make is MoveNetMultiPose:  # people, but not what it finds in the background
            got, want = got[:, :1], want[:, :1]
        worst = np.abs(got.numpy() - want).max() / max(1.0, np.abs(want).max())
        print(f"{name}: output {i} {tuple(got.shape)} differs by {worst:.1e} of its largest value")
        if not worst < 1e-4:
            raise ValueError(f"{name}: the torch module does not compute what the model file computes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args()
    for name in DETECTORS:
        path, text = INDICES / f"{name}.json", json.dumps(index(name), indent=0) + "\n"
        before = path.read_text() if path.is_file() else None
        if args.check and before != text:
            sys.exit(f"{path.name} is not the index of the model file beside it: run tools/index_weights.py")
        path.write_text(text)
        try:
            check(name)
        except Exception:
            path.unlink() if before is None else path.write_text(before)
            raise


if __name__ == "__main__":
    main()
