"""The TensorRT backend without a GPU: everything but the engine itself is real. `Programs` stands in for it: it saves and runs exported
programs on the CPU. What needs a GPU is marked `gpu`."""

import copy
import inspect
import json
import logging
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hmr_ros import cli, runtime
from hmr_ros.commands.export import NETWORKS, ExportConfig
from hmr_ros.runtime import engine_cache, tensorrt_backend
from hmr_ros.runtime.compiled import Options
from hmr_ros.runtime.engine_cache import engines_folder
from hmr_ros.runtime.tensorrt_backend import Library, checked, compile_module, ingredients_of

RECORDED = json.loads((Path(__file__).parent / "torch_tensorrt_signature.json").read_text())
NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
TENSORRT = pytest.mark.skipif(find_spec("torch_tensorrt") is None, reason="needs torch-tensorrt")


class Programs:
    """A `Builder` whose engines are the exported programs themselves, on the CPU."""

    device = torch.device("cpu")

    def __init__(self):
        self.built, self.runs = [], []
        self.found = {"torch": "2.14.0", "torch_tensorrt": "2.14.0", "tensorrt": "11.1.0", "compute_capability": "8.7", "gpu": "Orin"}

    def versions(self):
        return self.found

    def build(self, program, examples, batches, options, path):
        assert all(example.device == self.device for example in examples)
        self.built.append((batches, options))
        torch.export.save(program, path)

    def load(self, path):
        return torch.export.load(path).module()

    def run(self, engine, tensors, graph):
        self.runs.append((len(tensors[0]), graph))
        return engine(*tensors)


class Network(nn.Module):
    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.layer = nn.Linear(4, 6)
        self.register_buffer("scale", torch.full((6,), 2.0))

    def forward(self, x, shift):
        y = self.layer(x).relu() * self.scale
        return y + shift, y.sum(1)


class Sibling(Network):
    """Other code on the same weights."""


def inputs(rows, seed=0):
    dice = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 4, generator=dice), torch.randn(rows, 6, generator=dice)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "hmr_ros" / "engines"


def compiled_by(builder, module=None, examples=None, name="network", **options):
    return compile_module(module or Network(), examples or inputs(1), Options(**options), name, builder)


# --- what an engine computes, for every batch ------------------------------------------------------------------------


@pytest.mark.parametrize("precision, tolerance", [("fp32", 1e-6), ("fp16", 1e-2)])
@pytest.mark.parametrize("rows", [0, 1, 2, 7, 8, 9, 17])
def test_any_number_of_people_is_run_in_engines_of_at_most_max_batch(rows, precision, tolerance):
    builder = Programs()
    model = compiled_by(builder, precision=precision)
    builder.runs.clear()
    given = inputs(rows, seed=1)
    with torch.no_grad():
        expected = Network()(*given)
    for results in (model(*(g.numpy() for g in given)), model.tensors(*given)):
        for got, want in zip(results, expected, strict=True):
            assert got.shape == want.shape and str(got.dtype).endswith("float32")
            np.testing.assert_allclose(got, want, atol=tolerance)
    sizes = {0: [1], 1: [1], 2: [2], 7: [7], 8: [8], 9: [8, 1], 17: [8, 8, 1]}[rows]
    assert builder.runs == 2 * [(size, size == 1) for size in sizes]  # the static engine alone runs as a CUDA graph
    assert model.backend == "tensorrt 11.1.0 (cpu)" + ("" if precision == "fp32" else " fp16")


def test_a_single_engine_is_enough_for_one_person_at_a_time():
    builder = Programs()
    model = compiled_by(builder, max_batch=1)
    assert [batches for batches, _ in builder.built] == [range(1, 2)]
    given = inputs(3)
    with torch.no_grad():
        np.testing.assert_allclose(model.tensors(*given)[0], Network()(*given)[0], atol=1e-6)


def test_batches_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match=r"batches of \[2, 1\], expected one size"):
        compiled_by(Programs()).tensors(inputs(2)[0], inputs(1)[1])


def test_int8_and_fixed_shapes_are_refused_in_words():
    with pytest.raises(runtime.BackendUnavailable, match="not int8"):
        compiled_by(Programs(), precision="int8")
    with pytest.raises(ValueError, match="give max_batch"):
        compiled_by(Programs(), shapes={"x": (1, 4)})


# --- the cache -------------------------------------------------------------------------------------------------------


def test_the_second_start_builds_nothing_whatever_does_not_matter(cache, caplog):
    caplog.set_level(logging.INFO)
    builder = Programs()
    compiled_by(builder)
    assert [batches for batches, _ in builder.built] == [range(1, 2), range(2, 9)]
    assert "building an engine" in caplog.text and len(list(cache.iterdir())) == 1
    builder.built.clear()
    for other in ({"name": "another name"}, {"examples": inputs(1, seed=3)}, {"examples": inputs(5)}, {"threads": 2},
                  {"module": Network().train()}, {"engine": {}}):  # fmt: skip
        compiled_by(builder, **other)
    assert not builder.built and len(list(cache.iterdir())) == 1


def _weights():
    module = Network()
    with torch.no_grad():
        module.layer.weight[0, 0] += 1e-6
    return module


def _buffer():
    module = Network()
    module.scale[0] = 3
    return module


@pytest.mark.parametrize("change", [
    {"module": _weights}, {"module": _buffer}, {"module": Sibling}, {"module": lambda: nn.ModuleDict({"layer": Network().layer})},
    {"examples": (torch.zeros(1, 5), torch.zeros(1, 6))}, {"examples": (torch.zeros(1, 4, dtype=torch.float64), torch.zeros(1, 6))},
    {"precision": "fp16"}, {"precision": "bf16"}, {"max_batch": 4}, {"engine": {"optimization_level": 5}},
    *({"found": name} for name in ("torch", "torch_tensorrt", "tensorrt", "compute_capability", "gpu")), {"version": "9.9"},
], ids=lambda change: next(iter(change)))  # fmt: skip
def test_the_key_changes_with_everything_an_engine_depends_on(change, monkeypatch):
    def key(module=Network, examples=inputs(1), found=None, version=None, **options):
        builder = Programs()
        if found:
            builder.found[found] = "another"
        if version:
            monkeypatch.setattr("hmr_ros.__version__", version)
        return engine_cache.key_of(ingredients_of(module(), examples, Options(**options), builder))

    plain = key()
    assert plain == key() and key(**change) != plain


def test_the_key_does_not_depend_on_the_order_of_options():
    first, second = ({"optimization_level": 5, "max_aux_streams": 1}, {"max_aux_streams": 1, "optimization_level": 5})
    keys = {engine_cache.key_of(ingredients_of(Network(), inputs(1), Options(engine=o), Programs())) for o in (first, second)}
    assert len(keys) == 1


def _truncate(folder):
    path = folder / "one.pt2"
    path.write_bytes(path.read_bytes()[:-100])


def _flip(folder):
    data = bytearray((folder / "many.pt2").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "many.pt2").write_bytes(data)


def _foreign(folder):
    record = json.loads((folder / "engine.json").read_text())
    record["ingredients"]["compute_capability"] = "12.0"
    (folder / "engine.json").write_text(json.dumps(record))


def _another_network(folder):
    """A whole and well-described engine that computes something else: parity is checked on loading, too."""
    compiled_by(Programs(), Network(seed=5))
    (other,) = set(folder.parent.iterdir()) - {folder}
    record = json.loads((folder / "engine.json").read_text())
    record["files"] = json.loads((other / "engine.json").read_text())["files"]
    for file in record["files"]:
        shutil.copy(other / file, folder / file)
    (folder / "engine.json").write_text(json.dumps(record))
    shutil.rmtree(other)


def _file_instead_of_folder(folder):
    shutil.rmtree(folder)
    folder.write_text("no engine")


@pytest.mark.parametrize("damage, words", [
    (_truncate, "one.pt2 is not what was built"), (_flip, "many.pt2 is not what was built"),
    (lambda folder: (folder / "many.pt2").unlink(), "many.pt2 is missing"), (lambda folder: (folder / "engine.json").unlink(), "engine.json is missing"),
    (lambda folder: (folder / "engine.json").write_text("{"), "cannot be used"), (lambda folder: (folder / "engine.json").write_text("[]"), "cannot be used"),
    (_foreign, "built from something else"), (_another_network, "differs from torch"), (_file_instead_of_folder, "engine.json is missing"),
])  # fmt: skip
def test_a_broken_or_foreign_engine_is_built_again_with_a_warning(damage, words, cache, caplog):
    builder = Programs()
    compiled_by(builder)
    (folder,) = cache.iterdir()
    damage(folder)
    builder.built.clear()
    model = compiled_by(builder)
    (warning,) = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert words in warning and str(folder) in warning and "\n" not in warning
    assert len(builder.built) == 2
    given = inputs(3)
    with torch.no_grad():
        np.testing.assert_allclose(model.tensors(*given)[0], Network()(*given)[0], atol=1e-6)
    builder.built.clear()
    compiled_by(builder)
    assert not builder.built and list(cache.iterdir()) == [folder]


def test_an_interrupted_build_leaves_nothing(cache):
    class Interrupted(Programs):
        def build(self, program, examples, batches, options, path):
            if self.built:
                raise KeyboardInterrupt
            super().build(program, examples, batches, options, path)

    with pytest.raises(KeyboardInterrupt):
        compiled_by(Interrupted())
    assert not list(cache.iterdir())


class Wrong(Programs):
    def run(self, engine, tensors, graph):
        first, second = super().run(engine, tensors, graph)
        return first + (0.1 if graph else 0), second


def test_an_engine_that_misses_parity_is_an_error_and_does_not_stay(cache):
    with pytest.raises(RuntimeError, match=r"output_0 differs from torch by 0.1 \(batch of 1\), expected at most .*; use backend='torch'"):
        compiled_by(Wrong())
    assert not list(cache.iterdir())


def test_engines_lie_in_the_users_cache_and_never_in_a_temporary_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/somebody")
    for value, folder in ((str(tmp_path), tmp_path), ("relative", Path("/home/somebody/.cache")), ("", Path("/home/somebody/.cache"))):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert engines_folder() == folder / "hmr_ros" / "engines"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert engines_folder() == Path("/home/somebody/.cache/hmr_ros/engines")


def test_a_cache_folder_that_cannot_be_made_is_named(cache):
    cache.parent.parent.write_text("a file")
    with pytest.raises(OSError, match="cache"):
        compiled_by(Programs())


# --- through compile() and the commands --------------------------------------------------------------------------------


def test_auto_prefers_tensorrt_and_goes_on_where_its_engine_is_wrong(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(tensorrt_backend, "Library", Programs)
    assert runtime.compile(Network(), inputs(1)).backend.startswith("tensorrt")
    monkeypatch.setattr(tensorrt_backend, "Library", Wrong)
    model = runtime.compile(Sibling(), inputs(1))
    assert model.backend.startswith("openvino") and "tensorrt could not compile Sibling" in caplog.text
    with pytest.raises(RuntimeError, match="differs from torch"):
        runtime.compile(Sibling(), inputs(1), backend="tensorrt")


@NO_GPU
def test_auto_says_why_it_is_not_tensorrt(caplog):
    caplog.set_level(logging.INFO)
    model = runtime.compile(Network(), inputs(1))
    (line,) = [r.getMessage() for r in caplog.records if "runs on" in r.getMessage()]
    assert model.backend in line and "TensorRT needs an NVIDIA GPU" in line and "\n" not in line
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


@NO_GPU
@pytest.mark.parametrize("command", [["image", "nobody.jpg"], ["export"]])
def test_without_a_gpu_the_commands_say_so_in_one_line(command, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nobody.jpg").write_bytes((Path(cli.__file__).parent / "assets" / "demo" / "astronaut.jpg").read_bytes())
    assert cli.main([*command, "--backend", "tensorrt", "--out", "out"]) == 2
    err = capfd.readouterr().err
    assert "TensorRT needs an NVIDIA GPU" in err and "use 'openvino' or 'torch'" in err and err.count("\n") == 1


class Hollow(Programs):
    """Its engines compute nothing: real ones of every network take minutes. What is left is which are built, and which are found."""

    def build(self, program, examples, batches, options, path):
        self.built.append((batches, options))
        path.write_text("engine")

    def load(self, path):
        return None


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_exported_engines_are_what_the_estimator_loads(precision, monkeypatch, tmp_path, capsys):
    builder = Hollow()
    monkeypatch.setattr(tensorrt_backend, "Library", lambda: builder)
    monkeypatch.setattr(tensorrt_backend, "export", lambda *arguments: None)
    monkeypatch.setattr(tensorrt_backend, "check_parity", lambda *arguments: None)
    monkeypatch.setattr("hmr_ros.commands.export._difference", lambda *arguments: 0.0)
    names = [name for name in NETWORKS if name != "resnet18"]
    arguments = ["--backend", "tensorrt", "--networks", *names, "--precision", precision, "--max-people", "3"]
    assert cli.main(["export", *arguments, "--out", str(tmp_path / "image")]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in names)
    assert [batches for batches, _ in builder.built] == 3 * [range(1, 2), range(2, 4)] + 3 * [range(1, 2)]  # MoveNet sees one image at a time
    builder.built.clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "image"))
    from hmr_ros import HumanMeshEstimator

    estimator = HumanMeshEstimator.from_default(backend="tensorrt", precision=precision, max_people=3)
    assert not builder.built  # of regressor, body and detectors
    regressor, detectors = estimator.backend.split("; ")
    assert f"tensorrt 11.1.0 (cpu) {precision}" in regressor
    assert ("fp16" in detectors) == (precision == "fp16") and "bf16" not in detectors


class Eager(Programs):
    """Its engines are the modules themselves: quicker than exported programs, and the wiring around them is the same."""

    def build(self, program, examples, batches, options, path):
        self.built.append((batches, options))
        torch.save(program, path)

    def load(self, path):
        return torch.load(path, weights_only=False)


def test_from_image_to_pose_people_stay_on_the_device_of_the_engines(monkeypatch):
    """As on a robot with TensorRT, but for the device, which is the CPU."""
    import cv2

    from hmr_ros import HumanMeshEstimator
    from hmr_ros.proxies import registry
    from hmr_ros.proxies.on_device.extractor import DeviceExtractor

    builder = Eager()
    monkeypatch.setattr(tensorrt_backend, "Library", lambda: builder)
    monkeypatch.setattr(tensorrt_backend, "export", lambda module, *others: module)
    monkeypatch.setattr(tensorrt_backend, "check_parity", lambda *arguments: None)
    monkeypatch.setattr(registry, "gpu_is_there", lambda: True)
    estimator = HumanMeshEstimator.from_default(backend="tensorrt", max_people=3, precision="fp32")
    assert isinstance(estimator.extractor, DeviceExtractor) and estimator.backend.count("tensorrt 11.1.0 (cpu)") == 2
    builder.runs.clear()
    capture = cv2.VideoCapture(str(Path(cli.__file__).parent / "assets" / "demo" / "pedestrians.mp4"))
    bodies = estimator(capture.read()[1])
    assert len(bodies) >= 4
    assert (3, False) in builder.runs and max(rows for rows, _ in builder.runs) == 3  # people in batches of max_people
    people = estimator.extractor.follow_all(capture.read()[1], estimator.extractor(capture.read()[1]))
    _, parameters = estimator.regress([person for person in people if person is not None])
    assert all(isinstance(values, torch.Tensor) for values in parameters)


# --- what is missing, in words ------------------------------------------------------------------------------------------


@NO_GPU
def test_without_a_gpu_that_is_what_is_said():
    with pytest.raises(runtime.BackendUnavailable, match="TensorRT needs an NVIDIA GPU.*use 'openvino' or 'torch'"):
        Library()
    status = next(s for s in runtime.available_backends() if s.name == "tensorrt")
    assert not status.available and "NVIDIA GPU" in status.detail


def test_without_torch_tensorrt_the_page_that_helps_is_named(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(tensorrt_backend, "find_spec", lambda name: None)
    with pytest.raises(runtime.BackendUnavailable, match="torch-tensorrt, which is not installed: docs/gpu.md"):
        Library()


def test_missing_libraries_are_quoted(monkeypatch, tmp_path):
    (tmp_path / "torch_tensorrt.py").write_text("raise OSError('libnvinfer.so.11:\\n cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "torch_tensorrt", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    with pytest.raises(runtime.BackendUnavailable, match="does not load .libnvinfer.so.11: cannot open.*TensorRT's libraries") as caught:
        Library()
    assert "\n" not in str(caught.value)


# --- keywords, against torch-tensorrt's own signatures -------------------------------------------------------------------


def swallowing(name, record=None):
    """A function with the recorded signature, and **kwargs like the original."""

    def function(*args, **keywords):
        record.append((name, args, keywords))

    kinds = [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY) for n in RECORDED["keywords"][name]]
    function.__signature__ = inspect.Signature([*kinds, inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)])
    return function


@pytest.mark.parametrize("old", ["enabled_precisions", "use_explicit_typing", "max_batch_size"])
def test_keywords_that_the_library_would_swallow_are_refused(old):
    with pytest.raises(TypeError, match=f"does not know {old} and would ignore it; expected some of .*require_full_compilation"):
        checked(swallowing("dynamo.compile"), require_full_compilation=True, **{old: 1})


@pytest.mark.parametrize("batches", [range(1, 2), range(2, 9)])
def test_every_keyword_of_a_build_is_one_that_torch_tensorrt_knows(batches, tmp_path, cache):
    """`Library.build` itself, with functions of the recorded signatures in the library's place."""
    calls = []
    library = object.__new__(Library)
    library.device = torch.device("cpu")
    library._dynamo = type("dynamo", (), {"compile": staticmethod(swallowing("dynamo.compile", calls))})
    library._trt = type("trt", (), {"save": staticmethod(swallowing("save", calls)), "Input": staticmethod(lambda **k: k)})
    library._tensorrt = type("tensorrt", (), {"__version__": "11.1.0"})
    library.build("program", inputs(2), batches, {**tensorrt_backend.BUILD_OPTIONS, "optimization_level": 5}, tmp_path / "one.pt2")
    (compile_call, save_call) = calls
    assert compile_call[2]["require_full_compilation"] and compile_call[2]["optimization_level"] == 5
    assert Path(compile_call[2]["timing_cache_path"]).parent == cache  # and not the library's default in /tmp
    assert save_call[2]["output_format"] == "exported_program"
    for given in compile_call[2]["arg_inputs"]:
        assert set(given) <= set(RECORDED["keywords"]["Input"])
        assert given.get("shape", given.get("max_shape"))[0] == batches[-1] and given.get("shape", given.get("min_shape"))[0] == batches[0]
    with pytest.raises(TypeError, match="enabled_precisions"):
        library.build("program", inputs(2), batches, {"enabled_precisions": {torch.half}}, tmp_path / "one.pt2")


@TENSORRT
def test_the_recorded_signatures_are_those_of_the_installed_library():
    try:
        import torch_tensorrt
    except Exception as error:
        pytest.skip(f"torch-tensorrt does not load here: {error}")
    if not RECORDED["origin"].startswith(f"torch_tensorrt-{torch_tensorrt.__version__.split('+')[0]}-"):
        pytest.skip(f"recorded from {RECORDED['origin']}, installed is {torch_tensorrt.__version__}")
    functions = {"dynamo.compile": torch_tensorrt.dynamo.compile, "save": torch_tensorrt.save, "load": torch_tensorrt.load}
    for name, function in functions.items():
        known = [p.name for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
        assert known == RECORDED["keywords"][name], name


# --- on a GPU --------------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@GPU
@TENSORRT
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_engines_agree_with_torch_when_built_and_when_loaded(name, precision):
    module, examples = NETWORKS[name](ExportConfig("tensorrt"))
    for _ in range(2):
        model = runtime.compile(module, examples, backend="tensorrt", precision=precision)  # compares itself
    results = model.tensors(*(torch.cat([e] * 5)[:9] for e in examples))
    assert all(r.is_cuda and len(r) == 9 for r in results)


@pytest.mark.gpu
@GPU
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_torch_on_cuda_agrees_with_the_cpu(name, precision):
    module, examples = NETWORKS[name](ExportConfig("onnx"))
    model = runtime.compile(module, examples, backend="torch", precision=precision)  # compares itself
    assert all(r.is_cuda for r in model.tensors(*examples))


def test_copies_are_made_before_anything_is_changed():
    module = Network()
    before = copy.deepcopy(module.state_dict())
    compiled_by(Programs(), module, precision="fp16")
    for name, value in module.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
