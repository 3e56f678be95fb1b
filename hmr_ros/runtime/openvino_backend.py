"""OpenVINO behind `CompiledModel`: torch modules through its PyTorch front end, model files as they are; on the CPU, in float32 unless told.

``import openvino`` and ``openvino.convert_model`` report to a web service unless the user has opted out (openvino_telemetry). A robot's
software makes no such calls: this module, the only one that imports OpenVINO, does it without the reporter and uses the front end directly.
"""

from __future__ import annotations

import sys
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from hmr_ros.runtime.compiled import BackendUnavailable, CompiledModel, Options, TensorSpec


def _import_quietly():
    """OpenVINO falls back to a silent stub where its reporter cannot be imported; a None in sys.modules makes it so."""
    reporter = "openvino_telemetry"
    before = sys.modules.get(reporter)
    sys.modules[reporter] = None
    try:
        import openvino
    finally:
        if before is None:
            del sys.modules[reporter]
        else:
            sys.modules[reporter] = before
    return openvino


ov = _import_quietly()


@cache
def _core() -> ov.Core:
    return ov.Core()


def describe() -> str:
    return f"openvino {'.'.join(ov.get_version().split('-')[0].split('.')[:2])} (CPU)"


class OpenVINOModel(CompiledModel):
    """One infer request behind a lock: concurrent calls wait for each other instead of sharing the cores."""

    def __init__(self, model: ov.Model, options: Options, name: str, outputs: Sequence[str]):
        # The precision is asked for: on CPUs with bfloat16 units OpenVINO would choose that, and results would depend on the machine.
        # An int8 model carries its own quantised layers; what is left of it runs in float32.
        config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "bf16" if options.precision == "bf16" else "f32"}
        if options.threads:
            config["INFERENCE_NUM_THREADS"] = options.threads
        self._request = _core().compile_model(model, "CPU", config).create_infer_request()
        self._lock = threading.Lock()
        backend = describe() + ("" if options.precision == "fp32" else f" {options.precision}")
        super().__init__(name, backend, [_spec(port, i) for i, port in enumerate(model.inputs)], outputs)

    def _run(self, arrays: list[np.ndarray]) -> tuple[np.ndarray, ...]:
        with self._lock:
            for i, array in enumerate(arrays):
                self._request.set_input_tensor(i, ov.Tensor(array, shared_memory=array.flags.writeable))  # it shares no memory that is read-only
            self._request.infer(share_outputs=True)  # what it returns by itself takes it longer than small networks
            return tuple(self._request.get_output_tensor(i).data.copy() for i in range(len(self.outputs)))


def _spec(port: ov.Output, index: int) -> TensorSpec:
    shape = tuple(d.get_length() if d.is_static else -1 for d in port.partial_shape)
    return TensorSpec(_name(port, f"input_{index}"), shape, np.dtype(port.element_type.to_dtype()))


def _name(port: ov.Output, default: str) -> str:
    return port.any_name if port.names else default


def _reshape(model: ov.Model, shapes: Mapping[str, Sequence[int]] | None, name: str) -> None:
    if not shapes:
        return
    known = [_name(port, f"input_{i}") for i, port in enumerate(model.inputs)]
    unknown = set(shapes) - set(known)
    if unknown:
        raise ValueError(f"{name}: shapes names {sorted(unknown)}, the inputs are {known}")
    model.reshape({known.index(key): ov.PartialShape(list(shape)) for key, shape in shapes.items()})


def compile_file(path: Path, options: Options, expose: Sequence[str], leave_out: Sequence[str], name: str) -> OpenVINOModel:
    _require_precision(options, name)
    try:
        model = _core().read_model(path)
    except RuntimeError as error:
        raise ValueError(f"OpenVINO cannot read {path}: {error}") from error
    for weight in expose:
        _expose_input(model, weight, name)
    for output in leave_out:
        _leave_out(model, output, name)
    _reshape(model, options.shapes, name)
    if options.precision == "int8":
        model = _quantised(model, options)
    return OpenVINOModel(model, options, name, [_name(port, f"output_{i}") for i, port in enumerate(model.outputs)])


def precisions() -> tuple[str, ...]:
    """In which this CPU computes."""
    return ("fp32", "bf16") if "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else ("fp32",)


@cache
def bf16_is_faster() -> bool:
    """A small convolutional network, of the layers that the detectors are made of, takes at most 0.9 of its float32 time in bfloat16. It takes
    a tenth of a second to know. An AMD EPYC runs BlazePose in 0.7 of the time, an Intel Xeon without AMX in 1.4 times the time."""
    if "bf16" not in precisions():
        return False
    from openvino import opset13 as op

    weights = np.random.default_rng(0)
    image = x = op.parameter([1, 64, 32, 32], np.float32)
    for _ in range(4):  # depthwise, pointwise
        x = op.relu(op.group_convolution(x, op.constant(weights.normal(0, 0.3, (64, 1, 1, 3, 3)).astype(np.float32)), [1, 1], [1, 1], [1, 1], [1, 1]))
        x = op.relu(op.convolution(x, op.constant(weights.normal(0, 0.1, (64, 64, 1, 1)).astype(np.float32)), [1, 1], [0, 0], [0, 0], [1, 1]))
    model, array = ov.Model([x], [image]), np.ones((1, 64, 32, 32), np.float32)
    networks = {precision: OpenVINOModel(model, Options(None, 1, precision, 1), "probe", ["output"]) for precision in ("fp32", "bf16")}
    took = {precision: [] for precision in networks}
    for _ in range(20):  # in turns, and the best of each: other work on the machine meets both
        for precision, network in networks.items():
            begin = time.perf_counter()
            network._run([array])
            took[precision].append(time.perf_counter() - begin)
    return min(took["bf16"]) < 0.9 * min(took["fp32"])


def _require_precision(options: Options, name: str) -> None:
    """Raise where this CPU or this installation does not have the precision."""
    if options.precision == "fp16":
        raise BackendUnavailable(f"{name}: OpenVINO on a CPU runs fp32, bf16 or int8, not fp16; take one of them, or fp16 on a GPU")
    if options.precision == "bf16" and "bf16" not in precisions():
        raise BackendUnavailable(f"{name}: this CPU has no bfloat16 units, and would emulate bf16 far more slowly than fp32; use precision='fp32'")
    if options.precision == "int8":
        if find_spec("nncf") is None:
            raise BackendUnavailable(f"{name}: precision int8 needs nncf to quantise the network, and it is not installed: pip install nncf")
        if options.calibration is None:
            raise ValueError(f"{name}: precision int8 needs calibration, some hundred typical inputs; found none")


def _quantised(model: ov.Model, options: Options) -> ov.Model:
    """Post-training quantisation by nncf: ranges of activations from the calibration inputs.

    The ranges hold every sample. By default nncf takes the mean of the samples' largest values, and cuts off half of a small input.
    """
    import nncf
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    samples = [dict(enumerate(np.asarray(array) for array in arrays)) for arrays in options.calibration]
    ranges = nncf.AdvancedQuantizationParameters(activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX)
    return nncf.quantize(model, nncf.Dataset(samples), subset_size=len(samples), advanced_parameters=ranges)


def _expose_input(model: ov.Model, weight: str, name: str) -> None:
    """Add an output: the data that meets this weight in its layer."""
    ports = [port for node in model.get_ops() for port in node.outputs() if weight in port.get_names()]
    if not ports:
        raise ValueError(f"{name} has no weight {weight!r} whose layer could be exposed")
    (target,) = ports[0].get_target_inputs()  # a weight belongs to one layer
    layer = target.get_node()
    (data,) = (i for i in range(layer.get_input_size()) if i != target.get_index())
    model.add_outputs(layer.input_value(data))


def _leave_out(model: ov.Model, output: str, name: str) -> None:
    """Remove an output, and with it what only this output needs."""
    found = [port for port in model.outputs if output in port.names]
    if not found:
        raise ValueError(f"{name} has no output {output!r} that could be left out, it has {[_name(port, '?') for port in model.outputs]}")
    model.remove_result(found[0].get_node())


def convert(module, examples) -> tuple[ov.Model, list[str]]:
    """A torch module → OpenVINO's model with its inputs' names and a free batch, and its outputs' names."""
    try:
        import torch
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

        from hmr_ros.runtime.torch_backend import Flat, input_names, input_specs
    except ImportError as error:
        raise BackendUnavailable(f"OpenVINO needs torch and its PyTorch front end to read a module ({error}): pip install openvino torch") from error

    specs = input_specs(input_names(module, len(examples)), examples)
    flat = Flat(module)
    with torch.inference_mode():
        outputs = [n for n, _ in flat.named(*examples)]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer's remarks on shapes and on its own deprecation
        traced = torch.jit.trace(flat, examples, strict=True, check_trace=False)
        decoder = TorchScriptPythonDecoder(traced, example_input=examples, shared_memory=False)
        frontend = FrontEndManager().load_by_framework("pytorch")
        model = frontend.convert(frontend.load(decoder))
    for port, spec in zip(model.inputs, specs):
        port.tensor.set_names({spec.name})
        port.node.set_element_type(ov.Type(spec.dtype))
        port.node.set_partial_shape(ov.PartialShape(list(spec.shape)))
    model.validate_nodes_and_infer_types()
    return model, outputs


def save(module, examples, path: Path, half_weights: bool = False) -> None:
    """A torch module as OpenVINO's IR, ``path`` (.xml) and a .bin beside it. half_weights: float16 in the file, float32 when it runs."""
    from hmr_ros.runtime.torch_backend import as_tensors, at_least_two

    ov.save_model(convert(module, at_least_two(as_tensors(examples)))[0], path, compress_to_fp16=half_weights)


def compile_module(module, examples, options: Options, name: str) -> OpenVINOModel:
    _require_precision(options, name)
    try:
        from hmr_ros.runtime.parity import TOLERANCES, check_parity
        from hmr_ros.runtime.torch_backend import Flat, as_tensors, at_least_two
    except ImportError as error:
        raise BackendUnavailable(f"OpenVINO needs torch to read a module ({error}): pip install torch") from error

    examples = at_least_two(as_tensors(examples))
    model, outputs = convert(module, examples)
    _reshape(model, options.shapes, name)
    if options.precision == "int8":
        model = _quantised(model, options)
    compiled = OpenVINOModel(model, options, name, outputs)
    if not options.shapes:
        check_parity(compiled, Flat(module), examples, TOLERANCES[options.precision])
    return compiled
