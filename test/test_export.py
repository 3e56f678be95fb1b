"""`hmr-ros export` and what it rests on: every network leaves torch, for one person and for any number, with the same numbers."""

import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from hmr_ros import cli, runtime
from hmr_ros.commands import export as command
from hmr_ros.commands.export import NETWORKS, ExportConfig
from hmr_ros.networks.checkpoints import EMBEDDED, load_lifter
from hmr_ros.proxies.torch_modules.compiled import detector_precision
from hmr_ros.runtime.exported import export, run_onnx, save_onnx
from hmr_ros.runtime.parity import compared, difference, tolerance
from hmr_ros.runtime.torch_backend import Flat, Reduced, input_names, reduced

ONNX = pytest.mark.skipif(find_spec("onnxscript") is None or find_spec("onnxruntime") is None, reason="needs onnx, onnxscript and onnxruntime")


pytestmark = pytest.mark.usefixtures("one_thread")

EXACT = 1e-5  # of float32, operations in another order
ONE_SIZE = [name for name in NETWORKS if name not in ("movenet_384", "movenet_512")]  # MoveNet's sizes are one module


@pytest.fixture(scope="module", params=ONE_SIZE)
def network(request):
    return NETWORKS[request.param](ExportConfig("onnx"))


def rows(network, count):
    """So many people, no two alike."""
    dice = torch.Generator().manual_seed(count)
    return [torch.cat([e] * count)[:count] * (1 + 0.05 * torch.rand(count, *[1] * (e.ndim - 1), generator=dice)) for e in network.examples]


def expected(network, inputs):
    with torch.inference_mode():
        return [value.numpy() for value in Flat(network.module)(*inputs)]


def distance(network, got, inputs):
    """The largest difference to torch, as parity sees it."""
    return max(difference(compared(network.module, got), compared(network.module, expected(network, inputs))))


def exact(network):
    """BlazePose's activations grow to hundreds on the way, and sums in another order with them."""
    return 20 * EXACT if network.detector else EXACT


@pytest.mark.parametrize("batches, counts", [(range(1, 2), [1]), (range(2, 9), [2, 5, 8])], ids=["one", "several"])
def test_torch_export_takes_every_network(network, batches, counts):
    program = export(Flat(network.module), input_names(network.module, len(network.examples)), network.examples, batches).module()
    for count in counts:
        inputs = rows(network, count)
        with torch.inference_mode():
            results = [r.numpy() for r in program(*inputs)]
        assert distance(network, results, inputs) <= exact(network)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_reduced_precision_keeps_every_network_within_its_tolerance(network, precision):
    """fp16 goes through torch's CPU kernels here; a GPU rounds in the same places and sums in another order. A CPU with avx512_fp16 also sums in
    half precision: BlazePose is then off by 0.030, elsewhere by less than 0.025."""
    if network.detector and precision == "bf16":
        assert detector_precision("bf16") == "fp32"  # it is not asked for
        return
    module = reduced(Flat(network.module), precision)
    inputs = rows(network, 2)
    with torch.inference_mode():
        results = module(*inputs)
    assert all(r.dtype == torch.float32 for r in results)
    found = distance(network, [r.numpy() for r in results], inputs)
    left = 1 if network.detector else 2  # half of the tolerance
    assert 0 < found <= tolerance(network.module, precision) / left  # something was reduced
    assert all(p.dtype in (torch.float32, torch.int64) for p in network.module.state_dict().values())


def test_the_parts_a_module_names_are_reduced_and_nothing_else():
    module = NETWORKS["resnet18"](ExportConfig("onnx")).module
    narrow = Reduced(Flat(module), torch.float16)
    types = {name.split(".")[2]: value.dtype for name, value in narrow.state_dict().items() if value.is_floating_point()}
    assert {name for name, dtype in types.items() if dtype == torch.float16} == {"stem", "stages", "head"} == set(module.reduced_precision)


@ONNX
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_onnx_runtime_agrees_with_torch_for_any_number_of_people(network, precision, tmp_path):
    path = tmp_path / "network.onnx"
    save_onnx(network.module, network.examples, path, precision)
    for count in (1, 2) if network.detector else (1, 2, 6):
        inputs = rows(network, count)
        found = distance(network, run_onnx(path, [i.numpy() for i in inputs]), inputs)
        assert found <= (exact(network) if precision == "fp32" else tolerance(network.module, "fp16"))


@ONNX
def test_an_onnx_file_says_what_goes_in_and_out(tmp_path):
    import onnx

    network = NETWORKS["lifter"](ExportConfig("onnx"))
    save_onnx(network.module, network.examples, tmp_path / "lifter.onnx")
    graph = onnx.load(tmp_path / "lifter.onnx").graph
    assert [port.name for port in graph.input] == ["features", "feature_map"]
    assert [port.name for port in graph.output] == ["rotations", "betas", "weak_camera", "reliability"]
    for port in (*graph.input, *graph.output):
        first, *rest = port.type.tensor_type.shape.dim
        assert first.dim_param and all(d.dim_value for d in rest) and port.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert [path.name for path in tmp_path.iterdir()] == ["lifter.onnx"]  # weights inside


@pytest.mark.parametrize("precision, bound", [("fp32", 1e-5), ("fp16", 1e-2)])
def test_openvino_files_are_written_and_run(precision, bound, tmp_path, capsys):
    assert cli.main(["export", "--backend", "openvino", "--out", str(tmp_path), "--precision", precision, "--networks", "body", "lifter"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"body .*Nx24x3x3, Nx10", told) and "lifter" in told and "resnet18" not in told
    network = NETWORKS["body"](ExportConfig("openvino"))
    compiled = runtime.compile(tmp_path / "body.xml")
    assert compiled.inputs == ("rotations", "betas")
    inputs = rows(network, 4)
    assert max(difference(compiled(*(i.numpy() for i in inputs)), expected(network, inputs))) <= bound
    weights = (tmp_path / "lifter.bin").stat().st_size / sum(t.nbytes for t in load_lifter(EMBEDDED["lifter"])[0].state_dict().values())
    assert weights == pytest.approx(1.0 if precision == "fp32" else 0.5, abs=0.05)


@ONNX
def test_the_command_writes_onnx_files_and_compares_them(tmp_path, capsys):
    assert cli.main(["export", "--backend", "onnx", "--out", str(tmp_path / "new"), "--networks", "body"]) == 0
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["body.onnx"]
    assert re.search(r"body .* \d\.\de-0[67]", capsys.readouterr().out)


@ONNX
def test_a_file_that_differs_from_torch_is_not_left_behind(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("hmr_ros.runtime.exported.run_onnx", lambda path, arrays: [a + 1 for a in run_onnx(path, arrays)])
    assert cli.main(["export", "--backend", "onnx", "--out", str(tmp_path), "--networks", "body"]) == 2
    err = capsys.readouterr().err
    assert "body in fp32 differs from torch by 1, expected at most 0.001" in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@ONNX
def test_without_onnx_runtime_files_are_written_and_said_to_be_uncompared(tmp_path, capsys, monkeypatch):
    def missing(path, arrays):
        raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")

    monkeypatch.setenv("COLUMNS", "200")  # the table's lines stay whole
    monkeypatch.setattr("hmr_ros.runtime.exported.run_onnx", missing)
    assert cli.main(["export", "--backend", "onnx", "--out", str(tmp_path), "--networks", "body"]) == 0
    assert (tmp_path / "body.onnx").is_file() and "not compared: pip install onnxruntime" in capsys.readouterr().out


def test_a_checkpoint_replaces_the_network_that_it_holds(tmp_path):
    copy = tmp_path / "mine.safetensors"
    copy.write_bytes(Path(str(EMBEDDED["lifter"])).read_bytes())
    config = ExportConfig("onnx", checkpoint=copy)
    assert command._checkpoint("lifter", config) == copy and command._checkpoint("resnet18", config) == EMBEDDED["resnet18"]


@pytest.mark.parametrize("arguments, words", [
    (["--backend", "openvino"], "--out is missing"),
    (["--backend", "onnx", "--out", "{}", "--precision", "bf16"], "bf16 is for tensorrt"),
    (["--backend", "openvino", "--out", "{}", "--networks", "hands"], "no such network, expected some of lifter"),
    (["--backend", "openvino", "--out", "{}", "--checkpoint", "nowhere.safetensors"], "nowhere.safetensors"),
    (["--backend", "openvino", "--out", "{}", "--body-model", "nowhere.npz", "--networks", "body"], "nowhere.npz"),
])  # fmt: skip
def test_what_cannot_be_exported_is_said_in_one_line(arguments, words, tmp_path, capsys):
    assert cli.main(["export", *(a.format(tmp_path) for a in arguments)]) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1


def test_a_further_network_is_one_line_in_the_table(tmp_path, capsys, monkeypatch):
    double = command.Network(torch.nn.Linear(3, 2).eval(), (torch.ones(2, 3),))
    monkeypatch.setitem(NETWORKS, "double", lambda config: double)
    assert cli.main(["export", "--backend", "openvino", "--out", str(tmp_path), "--networks", "double"]) == 0
    assert "Nx3" in capsys.readouterr().out
    got = runtime.compile(tmp_path / "double.xml")(np.ones((1, 3), np.float32))[0]
    np.testing.assert_allclose(got, double.module(torch.ones(1, 3)).detach(), atol=1e-6)
