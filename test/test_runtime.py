"""`hmr_ros.runtime`: one function, two backends, the same numbers."""

import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from hmr_ros import runtime
from hmr_ros.runtime import openvino_backend
from hmr_ros.runtime.parity import FLOAT32, check_parity


class Outputs(NamedTuple):
    chain: torch.Tensor
    pooled: torch.Tensor


class Network(nn.Module):
    """Convolution, batch norm, a kinematic chain and a blend: the kinds of operation this package runs."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.GELU(), nn.Dropout(0.5))
        self.head = nn.Linear(8, 72)
        self.register_buffer("weights", torch.rand(24, 50))

    def forward(self, image, scale):
        pooled = self.features(image).mean((2, 3))
        steps = self.head(pooled).reshape(-1, 24, 3) * scale[:, None]
        joints = [steps[:, 0]]
        for i in range(1, 24):
            joints.append(joints[(i - 1) // 2] + steps[:, i])
        return Outputs(torch.einsum("jv,bjc->bvc", self.weights, torch.stack(joints, 1)), pooled)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    module = Network()
    module.features[1].running_mean.normal_()  # evaluation mode must use these
    return module


@pytest.fixture(scope="module", params=["openvino", "torch"])
def compiled(request, network):
    return runtime.compile(network, (torch.randn(1, 3, 32, 32), torch.ones(1, 1)), backend=request.param)


def inputs(batch, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((batch, 3, 32, 32)).astype(np.float32), rng.random((batch, 1)).astype(np.float32)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_both_backends_agree_with_the_module_for_every_batch_size(network, compiled, batch):
    arrays = inputs(batch)
    reference = network.eval()
    with torch.no_grad():
        expected = reference(*map(torch.from_numpy, arrays))
    results = compiled(*arrays)
    assert compiled.outputs == ("chain", "pooled") and compiled.inputs == ("image", "scale")
    for got, want in zip(results, expected):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, want.numpy(), atol=1e-5)  # float32, a few hundred additions


@pytest.mark.parametrize("batch", [1, 3])
def test_tensors_give_the_same_as_arrays(compiled, batch):
    arrays = inputs(batch)
    results = compiled.tensors(*map(torch.from_numpy, arrays))
    for tensor, array in zip(results, compiled(*arrays), strict=True):
        assert isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float32
        np.testing.assert_array_equal(tensor.numpy(), array)


def test_wrong_tensors_are_named(compiled):
    image, scale = map(torch.from_numpy, inputs(2))
    with pytest.raises(ValueError, match="takes 2 inputs"):
        compiled.tensors(image)
    with pytest.raises(ValueError, match=r"'image' has shape \(2, 1, 32, 32\)"):
        compiled.tensors(image[:, :1], scale)
    with pytest.raises(ValueError, match="'scale' is .*complex64"):
        compiled.tensors(image, scale.to(torch.complex64))
    np.testing.assert_allclose(compiled.tensors(image.double(), scale.requires_grad_())[1], compiled.tensors(image, scale)[1], atol=1e-6)


class HandsThrough(nn.Module):
    """Its results are an input, a weight, and one tensor twice."""

    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.ones(2, 4))

    def forward(self, x):
        y = x + 1
        return x, self.weight, y, y


def test_tensors_that_are_handed_through_are_copies():
    module = HandsThrough()
    model = runtime.compile(module, np.zeros((2, 4), np.float32), backend="torch")
    given = torch.zeros(2, 4)
    for result in model.tensors(given):
        result += 10
    assert not given.any()
    for result, want in zip(model.tensors(given), (0, 1, 1, 1), strict=True):
        assert (result == want).all()


@pytest.mark.parametrize("backend, precision, words", [
    ("torch", "fp16", "fp16 on CUDA only"), ("torch", "int8", "not int8"), ("openvino", "fp16", "not fp16"),
    ("auto", "fp16", "nothing here can run Network in fp16: .*NVIDIA GPU.*OpenVINO.*CUDA only"),
])  # fmt: skip
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_precision_that_is_not_there_is_refused_in_words(network, backend, precision, words):
    with pytest.raises(runtime.BackendUnavailable, match=words):
        runtime.compile(network, inputs(1), backend=backend, precision=precision)


def test_bfloat16_runs_inside_and_float32_outside(network):
    exact = runtime.compile(network, inputs(2), backend="torch")
    models = [runtime.compile(network, inputs(2), backend="torch", precision="bf16")]
    from hmr_ros.runtime.openvino_backend import ov

    if "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        models.append(runtime.compile(network, inputs(2), backend="openvino", precision="bf16"))
    else:
        with pytest.raises(runtime.BackendUnavailable, match="no bfloat16 units"):
            runtime.compile(network, inputs(2), backend="openvino", precision="bf16")
    for model in models:
        assert model.backend.endswith(" bf16")
        for got, want in zip(model(*inputs(3)), exact(*inputs(3)), strict=True):
            assert got.dtype == np.float32
            assert 1e-5 < np.abs(got - want).max() < 5e-2 * max(1, np.abs(want).max())


def test_int8_needs_nncf_and_calibration(network, monkeypatch):
    monkeypatch.setattr("hmr_ros.runtime.openvino_backend.find_spec", lambda name: None)
    with pytest.raises(runtime.BackendUnavailable, match="needs nncf.*pip install nncf"):
        runtime.compile(network, inputs(1), backend="openvino", precision="int8", calibration=[inputs(1)])
    monkeypatch.setattr("hmr_ros.runtime.openvino_backend.find_spec", lambda name: object())
    with pytest.raises(ValueError, match="needs calibration"):
        runtime.compile(network, inputs(1), backend="openvino", precision="int8")


def test_int8_is_close_to_float32(network):
    pytest.importorskip("nncf", reason="needs nncf")
    samples = [inputs(1, seed) for seed in range(50)]
    model = runtime.compile(network, inputs(2), backend="openvino", precision="int8", calibration=samples)
    exact = runtime.compile(network, inputs(2), backend="openvino")
    for got, want in zip(model(*inputs(3)), exact(*inputs(3)), strict=True):
        assert 0 < np.abs(got - want).max() < 0.1 * max(1, np.abs(want).max())


@pytest.mark.parametrize("options, words", [
    ({"precision": "fp8"}, "'fp8' is not one of"), ({"max_batch": 0}, "max_batch is 0"),
    ({"engine_options": {"optimization_level": 5}}, "are TensorRT's"), ({"calibration": []}, "calibration is for precision='int8'"),
])  # fmt: skip
def test_options_that_mean_nothing_here_are_refused(network, options, words):
    with pytest.raises(ValueError, match=words):
        runtime.compile(network, inputs(1), backend="torch", **options)


def test_results_belong_to_the_caller(compiled):
    first = compiled(*inputs(1, seed=1))
    kept = [r.copy() for r in first]
    second = compiled(*inputs(1, seed=2))
    for a, b, before in zip(first, second, kept):
        assert not np.shares_memory(a, b)
        np.testing.assert_array_equal(a, before)
        a[...] = 0  # writable


@pytest.mark.parametrize("backend", ["openvino", "torch"])
def test_an_input_handed_through_is_not_the_callers_memory(backend):
    model = runtime.compile(nn.Identity(), np.zeros((1, 4), np.float32), backend=backend)
    array = np.arange(4, dtype=np.float32)[None]
    (result,) = model(array)
    array[:] = -1
    np.testing.assert_array_equal(result, [[0, 1, 2, 3]])


def test_the_compiled_model_does_not_follow_or_change_the_module():
    module = nn.Linear(4, 4).train()
    arrays = np.ones((1, 4), np.float32)
    models = [runtime.compile(module, arrays, backend=b) for b in ("openvino", "torch")]
    before = [m(arrays)[0] for m in models]
    with torch.no_grad():
        module.weight.zero_()
    assert module.training and module.weight.requires_grad
    for model, want in zip(models, before):
        np.testing.assert_array_equal(model(arrays)[0], want)


def test_concurrent_calls_do_not_mix(compiled):
    expected = {seed: compiled(*inputs(1, seed)) for seed in range(4)}
    wrong = []

    def work(seed):
        for _ in range(25):
            wrong.extend(seed for got, want in zip(compiled(*inputs(1, seed)), expected[seed]) if not np.allclose(got, want, atol=1e-6))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in expected]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not wrong


def test_the_backend_is_named_with_version_and_device(compiled):
    library, version, device = compiled.backend.split(" ")
    assert library in ("openvino", "torch") and version[0].isdigit() and device.startswith("(")


def test_auto_takes_the_first_backend_that_is_there(network):
    model = runtime.compile(network, inputs(1))
    first = next(s for s in runtime.available_backends() if s.available)
    assert model.backend == first.detail and first.name == "openvino"


def test_auto_goes_on_to_torch_and_says_so_where_conversion_fails(caplog):
    class Branching(nn.Module):
        def forward(self, x):  # tracing freezes one branch; the comparison with torch notices
            return x * 2 if len(x) > 1 else x + 1

    model = runtime.compile(Branching(), np.zeros((1, 3), np.float32))
    assert model.backend.startswith("torch")
    assert "openvino" in caplog.text and "Branching" in caplog.text
    np.testing.assert_array_equal(model(np.zeros((1, 3), np.float32))[0], [[1, 1, 1]])
    with pytest.raises(RuntimeError, match="differs from torch"):
        runtime.compile(Branching(), np.zeros((1, 3), np.float32), backend="openvino")


class Answers(runtime.CompiledModel):
    """A backend that answers what it is told to, for inputs (N, 3)."""

    def __init__(self, change):
        super().__init__("network", "somewhere", [runtime.TensorSpec("x", (-1, 3), np.dtype(np.float32))], ["y"])
        self._change = change

    def _run(self, arrays):
        return (self._change(2 * arrays[0]).astype(np.float32),)


class Doubled(nn.Module):
    def forward(self, x):
        return (2 * x,)


@pytest.mark.parametrize("change, words", [
    (lambda y: y + 0.9e-3 * np.abs(y).max(), None),
    (lambda y: y + 1.1e-3 * np.abs(y).max(), r"y differs from torch by 0.0[0-9]+ \(batch of 4\), expected at most 0.022; use backend='torch'"),
    (lambda y: np.where(y > 0, np.nan, y), "differs from torch by nan"),
    (lambda y: y[:, :2], r"has shape \(4, 2\) for a batch of 4, torch gives \(4, 3\)"),
    (lambda y: y if len(y) > 1 else y + 1, r"differs from torch by 1 \(batch of 1\)"),
])  # fmt: skip
def test_what_differs_from_torch_by_more_than_the_stated_tolerance_is_refused(change, words):
    example = torch.arange(12, dtype=torch.float32).reshape(4, 3)  # the largest output is 22
    if words is None:
        return check_parity(Answers(change), Doubled(), [example])
    with pytest.raises(RuntimeError, match=words):
        check_parity(Answers(change), Doubled(), [example])
    assert FLOAT32 == 1e-3


def test_the_tolerance_of_small_outputs_is_absolute():
    example = torch.full((2, 3), 1e-3)
    check_parity(Answers(lambda y: y + 0.9e-3), Doubled(), [example])
    with pytest.raises(RuntimeError, match="expected at most 0.001"):
        check_parity(Answers(lambda y: y + 1.1e-3), Doubled(), [example])
    check_parity(Answers(lambda y: y + 1.1e-3), Doubled(), [example], tolerance=2e-3)


def test_an_explicit_backend_never_falls_back(network, monkeypatch):
    with pytest.raises(runtime.BackendUnavailable, match="TensorRT"):
        runtime.compile(network, inputs(1), backend="tensorrt")
    monkeypatch.setattr("hmr_ros.runtime.compiled.find_spec", lambda name: None)
    with pytest.raises(runtime.BackendUnavailable, match="pip install openvino"):
        runtime.compile(network, inputs(1), backend="openvino")
    with pytest.raises(runtime.BackendUnavailable):
        runtime.compile(network, inputs(1))
    with pytest.raises(ValueError, match="onnx"):
        runtime.compile(network, inputs(1), backend="onnx")


def test_wrong_inputs_are_named(compiled):
    image, scale = inputs(2)
    with pytest.raises(ValueError, match="takes 2 inputs"):
        compiled(image)
    with pytest.raises(ValueError, match=r"'image' has shape \(2, 1, 32, 32\)"):
        compiled(image[:, :1], scale)
    with pytest.raises(ValueError, match="'scale' is complex64"):
        compiled(image, scale.astype(np.complex64))
    np.testing.assert_allclose(compiled(image.astype(np.float64), scale)[1], compiled(image, scale)[1], atol=1e-6)


def test_a_model_file_runs_and_takes_a_fixed_shape(tmp_path):
    ov = pytest.importorskip("openvino")
    data = ov.opset13.parameter([-1, 3], np.float32, name="data")
    ov.save_model(ov.Model([ov.opset13.relu(data)], [data], "relu"), tmp_path / "relu.xml", compress_to_fp16=False)
    model = runtime.compile(tmp_path / "relu.xml")
    np.testing.assert_array_equal(model(np.array([[-1, 0, 2]], np.float32))[0], [[0, 0, 2]])
    fixed = runtime.compile(tmp_path / "relu.xml", shapes={model.inputs[0]: (2, 3)}, threads=1)
    assert fixed.input_specs[0].shape == (2, 3)
    with pytest.raises(ValueError, match="expected"):
        fixed(np.zeros((1, 3), np.float32))
    with pytest.raises(ValueError, match="shapes names"):
        runtime.compile(tmp_path / "relu.xml", shapes={"nothing": (1, 3)})


def test_a_layer_of_a_model_file_is_exposed_by_the_name_of_its_weight(tmp_path):
    ov = pytest.importorskip("openvino")
    op = ov.opset13
    data = op.parameter([1, 3], np.float32, name="data")
    weight = op.constant(np.array([[1, 2], [3, 4], [5, 6]], np.float32))
    weight.output(0).set_names({"head/weight"})
    ov.save_model(ov.Model([op.matmul(op.relu(data), weight, False, False)], [data], "net"), tmp_path / "net.xml", compress_to_fp16=False)
    values = np.array([[-1, 0, 2]], np.float32)
    answer, seen = runtime.compile(tmp_path / "net.xml", expose=("head/weight",))(values)
    np.testing.assert_array_equal(seen, [[0, 0, 2]])
    np.testing.assert_allclose(answer, [[10, 12]], rtol=1e-5)
    assert len(runtime.compile(tmp_path / "net.xml")(values)) == 1
    with pytest.raises(ValueError, match="no weight 'tail'"):
        runtime.compile(tmp_path / "net.xml", expose=("tail",))
    with pytest.raises(ValueError, match="expose and leave_out are for model files"):
        runtime.compile(torch.nn.Linear(2, 2), np.ones((1, 2), np.float32), expose=("weight",))


def test_an_output_of_a_model_file_that_nobody_wants_is_left_out(tmp_path):
    ov = pytest.importorskip("openvino")
    op = ov.opset13
    data = op.parameter([1, 2], np.float32, name="data")
    outputs = [op.relu(data), op.negative(data)]
    for name, output in zip(("positive", "negative"), outputs):
        output.output(0).set_names({name})
    ov.save_model(ov.Model(outputs, [data], "net"), tmp_path / "net.xml", compress_to_fp16=False)
    values = np.array([[-1, 2]], np.float32)
    (negative,) = runtime.compile(tmp_path / "net.xml", leave_out=("positive",))(values)
    np.testing.assert_array_equal(negative, [[1, -2]])
    with pytest.raises(ValueError, match="no output 'third' that could be left out, it has \\['positive', 'negative'\\]"):
        runtime.compile(tmp_path / "net.xml", leave_out=("third",))


def test_inputs_that_are_read_only_are_read():
    values = np.ones((2, 3), np.float32)
    compiled = runtime.compile(torch.nn.Linear(3, 1), values, backend="openvino")
    expected = compiled(values)[0]
    values.flags.writeable = False
    np.testing.assert_array_equal(compiled(values)[0], expected)


def test_a_model_file_is_refused_by_torch_and_a_missing_or_broken_one_by_name(tmp_path):
    broken = tmp_path / "broken.xml"
    broken.write_text("no model")
    with pytest.raises(ValueError, match="only OpenVINO"):
        runtime.compile(broken, backend="torch")
    with pytest.raises(FileNotFoundError, match="nowhere.xml"):
        runtime.compile(tmp_path / "nowhere.xml")
    with pytest.raises(ValueError, match="broken.xml"):
        runtime.compile(broken)


def test_importing_the_runtime_loads_no_framework():
    code = "import sys, hmr_ros.runtime; sys.exit(any(m in sys.modules for m in ('torch', 'openvino')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_openvino_is_used_without_its_reports_to_a_web_service():
    """A plain ``import openvino`` starts openvino_telemetry, and so would a conversion."""
    code = (
        "import openvino_telemetry\n"
        "def refuse(*a, **k): raise SystemExit('telemetry was started')\n"
        "openvino_telemetry.Telemetry.init = refuse\n"
        "import numpy as np, torch\n"
        "from hmr_ros import runtime\n"
        "runtime.compile(torch.nn.Linear(2, 2), np.ones((1, 2), np.float32), backend='openvino')\n"
    )
    pytest.importorskip("openvino_telemetry")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- "auto" with a GPU, which is not here -------------------------------------------------------------------------------


class _Backend:
    """Stands in for a backend's module: compiles only in ``precisions``."""

    def __init__(self, name, tried, precisions=(), error=None):
        self.name, self.tried, self.precisions, self.error = name, tried, precisions, error

    def compile_module(self, module, examples, options, name):
        self.tried.append((self.name, options.precision))
        if options.precision not in self.precisions:
            raise self.error or RuntimeError(f"{name} differs from torch")
        return SimpleNamespace(name=name, backend=f"{self.name} {options.precision}")


@pytest.mark.parametrize("fp16_holds", [True, False])
def test_auto_takes_torch_on_a_gpu_before_openvino_and_says_why_it_is_not_tensorrt(fp16_holds, network, monkeypatch, caplog):
    caplog.set_level("INFO")
    tried, missing = [], runtime.BackendUnavailable("backend 'tensorrt' needs torch-tensorrt, which is not installed")
    backends = {
        "tensorrt": _Backend("tensorrt", tried, (), missing), "torch": _Backend("torch", tried, ("fp16", "fp32") if fp16_holds else ("fp32",)),
        "openvino": _Backend("openvino", tried, ("fp32",)),
    }  # fmt: skip
    monkeypatch.setattr("hmr_ros.runtime.compiled.gpu_is_there", lambda: True)
    monkeypatch.setattr("hmr_ros.runtime.compiled._backend", backends.__getitem__)
    compiled = runtime.compile(network, inputs(1), precision="auto")
    assert compiled.backend == ("torch fp16" if fp16_holds else "torch fp32")
    assert tried == [("tensorrt", "fp16"), ("tensorrt", "fp32"), ("torch", "fp16"), ("torch", "fp32")][: 3 if fp16_holds else 4]
    (line,) = [record.getMessage() for record in caplog.records if "runs on" in record.getMessage()]
    assert line.count("which is not installed") == 1 and ("torch could not compile it in fp16" in line) is not fp16_holds
    assert ("differs from torch" in caplog.text) is not fp16_holds  # parity is what fp16 missed
    tried.clear()
    assert runtime.compile(network, inputs(1)).backend == "torch fp32" and ("torch", "fp16") not in tried  # fp32 was asked for


def test_an_explicit_backend_may_choose_its_precision_alone(network):
    compiled = runtime.compile(network, inputs(1), backend="openvino", precision="auto")
    assert compiled.backend.startswith("openvino") and "fp16" not in compiled.backend


@pytest.mark.parametrize("allows, there, holds, expected", [
    (True, True, True, ["bf16"]), (True, True, False, ["bf16", "fp32"]), (True, False, True, ["fp32"]), (False, True, True, ["fp32"]),
])  # fmt: skip
def test_auto_takes_bf16_on_a_cpu_where_module_cpu_and_parity_allow_it(allows, there, holds, expected, network, monkeypatch):
    tried = []
    openvino = _Backend("openvino", tried, ("bf16", "fp32") if holds else ("fp32",))
    monkeypatch.setattr("hmr_ros.runtime.compiled._backend", {"openvino": openvino}.__getitem__)
    monkeypatch.setattr("hmr_ros.runtime.compiled.cpu_is_faster_in_bf16", lambda: there)
    monkeypatch.setattr(type(network), "bf16_on_a_cpu", allows, raising=False)
    assert runtime.compile(network, inputs(1), backend="openvino", precision="auto").backend == f"openvino {expected[-1]}"
    assert [precision for _, precision in tried] == expected


@pytest.mark.parametrize("bf16, fp32, expected", [(1.0, 1.4, True), (1.0, 1.05, False), (1.5, 1.0, False)])
def test_bf16_counts_as_faster_where_convolutions_take_less_time_in_it(bf16, fp32, expected, monkeypatch):
    """An Intel Xeon with avx512_bf16 and no AMX takes 1.4 times as long in bf16."""
    clock = SimpleNamespace(now=0.0)

    def run(network, arrays):
        assert arrays[0].shape == (1, 64, 32, 32)
        clock.now += bf16 if network.backend.endswith("bf16") else fp32

    monkeypatch.setattr(openvino_backend, "precisions", lambda: ("fp32", "bf16"))
    monkeypatch.setattr(openvino_backend, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr(openvino_backend.OpenVINOModel, "_run", run)
    assert openvino_backend.bf16_is_faster.__wrapped__() is expected


def test_bf16_is_not_measured_where_there_is_none(monkeypatch):
    monkeypatch.setattr(openvino_backend, "precisions", lambda: ("fp32",))
    monkeypatch.setattr(openvino_backend, "OpenVINOModel", None)
    assert openvino_backend.bf16_is_faster.__wrapped__() is False


def test_with_a_gpu_the_detectors_of_auto_are_torch_modules(monkeypatch):
    from hmr_ros.proxies import torch_modules

    assert [torch_modules.run_as_files(backend) for backend in ("openvino", "torch", "tensorrt")] == [True, False, False]
    for there in (True, False):
        monkeypatch.setattr(torch_modules, "gpu_is_there", lambda: there)
        assert torch_modules.run_as_files("auto") is not there
