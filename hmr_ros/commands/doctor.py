"""``hmr-ros doctor``: what this installation found, what it lacks, and what to do about it.

Every part is really tried, not only looked up: modules are imported, a message goes through its type support, an image
through cv_bridge, assets are hashed. Nothing is changed, and nothing here decides what the node uses.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import hmr_ros
from hmr_ros.files import write_json

ASSETS = Path(hmr_ros.__file__).resolve().parent / "assets"
OTHER_PACKAGES = {"tf2_msgs": "frames body_<id> on /tf", "tf2_ros": "the node's target_frame, and depth of another camera by tf2",
                  "vision_msgs": "the topic detections", "hri_msgs": "ROS4HRI's topics below /humans/bodies"}  # fmt: skip
APT = {"tf2_ros": "tf2_ros_py"}  # module → package
ESTIMATOR, NODE, OPTION = "estimator", "live node", "option"  # what needs a part
_MARK = {True: "[green]ok[/]", False: "[red]missing[/]"}


@dataclass
class Arguments:
    """What is installed, what is missing, and what to do about it. Exit code 0: the embedded estimator can run."""

    json: Path | None = None
    """Write the findings to this file as well."""
    body_model: Path | None = None
    """SMPL's own file (.pkl or .npz), looked at beside the embedded body."""


@dataclass
class Finding:
    """One part: what needs it, whether it works, what was found, and the remedy where it does not work."""

    part: str
    needed_by: str
    ok: bool
    found: str
    remedy: str = ""


def main(argv: list[str]) -> int:
    """Print the table of findings; 0 when everything the embedded estimator needs is there, else 1."""
    import tyro

    arguments = tyro.cli(Arguments, args=argv, prog="hmr-ros doctor")
    findings = list(examine(arguments.body_model))
    works = {need: all(f.ok for f in findings if f.needed_by in needs) for need, needs in
             ((ESTIMATOR, (ESTIMATOR,)), (NODE, (ESTIMATOR, NODE)))}  # fmt: skip
    show(findings, works)
    if arguments.json:
        report = {"version": hmr_ros.__version__, "estimator": works[ESTIMATOR], "live_node": works[NODE]}
        report["findings"] = [asdict(finding) for finding in findings]
        write_json(arguments.json, report)
    return 0 if works[ESTIMATOR] else 1


def show(findings: list[Finding], works: dict[str, bool]) -> None:
    """The findings as a table, the remedies below it, and one line for the estimator and the live node each."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    console = Console(soft_wrap=not sys.stdout.isatty())
    table = Table("", "part", "needed by", Column("found", overflow="fold"), box=None, pad_edge=False)
    for finding in findings:
        mark = "[yellow]absent[/]" if finding.needed_by == OPTION and not finding.ok else _MARK[finding.ok]
        table.add_row(mark, escape(finding.part), finding.needed_by, escape(finding.found))
    console.print(table)
    lacking = [finding for finding in findings if not finding.ok]
    if lacking:
        console.print("\nWhat to do:")
    for finding in lacking:
        console.print(f"  [bold]{escape(finding.part)}[/]: {escape(finding.remedy)}", highlight=False)
    console.print()
    for need, good in works.items():
        console.print(f"The {need} {'[green]can run[/].' if good else '[red]cannot run[/], see above.'}")


def examine(body_model: Path | None = None) -> Iterator[Finding]:
    """All findings, the most basic ones first; no check's failure hides another one's result."""
    yield from _python()
    yield from assets()
    yield _try("body model (embedded)", ESTIMATOR, lambda: _body(None), "install the package again: its assets are incomplete")
    if body_model is not None:
        remedy = "give --body-model SMPL's own .pkl, or an .npz with the same fields"
        yield _try(f"body model {body_model.name}", ESTIMATOR, lambda: _body(body_model), remedy)
    yield from _backends()
    yield _module("viser", "viser", OPTION, "needed for `hmr-ros view` only: pip install viser websockets, or this package's extra [view]")
    yield from _ros()


def assets(folder: Path = ASSETS) -> Iterator[Finding]:
    """Every file in the assets folder against manifest.json, and every file that the manifest promises."""
    again = "install the package again from a complete checkout"
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        yield Finding("assets/manifest.json", ESTIMATOR, False, str(error), again)
        return
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p != path}
    for name in sorted(present | set(manifest)):
        part = f"assets/{name}"
        if name not in present:
            yield Finding(part, ESTIMATOR, False, "the file is not there", again)
            continue
        digest = sha256(folder / name)
        if name not in manifest:
            remedy = "add its sha256, origin and licence to hmr_ros/assets/manifest.json, or remove the file"
            yield Finding(part, OPTION, False, f"sha256 {digest[:12]}, not listed in manifest.json", remedy)
        elif digest != manifest[name]["sha256"]:
            found = f"sha256 {digest[:12]} differs from the manifest's {manifest[name]['sha256'][:12]}"
            yield Finding(part, ESTIMATOR, False, found, again)
        else:
            licence = manifest[name].get("licence") or manifest[name].get("license", "licence not given")
            yield Finding(part, ESTIMATOR, True, f"sha256 {digest[:12]}, {licence}")


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def _python() -> Iterator[Finding]:
    suits = sys.version_info >= (3, 10)
    found = f"{platform.python_version()} in {sys.prefix}, {os.cpu_count()} CPU cores"
    yield Finding("Python", ESTIMATOR, suits, found, "Python 3.10 or newer is needed")
    yield Finding("hmr_ros", ESTIMATOR, True, f"{hmr_ros.__version__} in {Path(hmr_ros.__file__).parent}")
    for module, name in (("numpy", "numpy"), ("scipy", "scipy"), ("cv2", "opencv-python-headless"), ("numba", "numba"),
                         ("smplx", "smplx"), ("safetensors", "safetensors"), ("av", "av"), ("PIL", "pillow")):  # fmt: skip
        yield _module(module, name, ESTIMATOR, f"pip install {name}")


def _body(path: Path | None) -> str:
    from hmr_ros.body.model import BodyModel

    body = BodyModel.load(path)
    vertices = int(body.faces.max()) + 1
    return f"{body.name}, {vertices} vertices, {len(body.faces)} faces, sha256 {body.sha256[:12]}"


def _backends() -> Iterator[Finding]:
    yield _module("torch", "torch", ESTIMATOR, "pip install torch")
    yield _try("CUDA", OPTION, _cuda, "needs an NVIDIA GPU, its driver, and a CUDA build of torch; without it the CPU does the work")
    yield _try("OpenVINO", ESTIMATOR, _openvino, "pip install openvino")
    yield _try("torch_tensorrt", OPTION, _tensorrt, "needed for backend tensorrt only; docs/gpu.md says how to install it")
    remedy = "needed for --rasterizer pytorch3d only: github.com/facebookresearch/pytorch3d/blob/main/INSTALL.md"
    yield _module("pytorch3d", "pytorch3d", OPTION, remedy)


def _cuda() -> str:
    import torch

    if not torch.cuda.is_available():
        built = torch.version.cuda
        raise RuntimeError(f"torch {torch.__version__} " + (f"is built for CUDA {built}, and finds no GPU" if built else "is a CPU build"))
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return f"{torch.version.cuda}: {', '.join(names)}"


def _openvino() -> str:
    from hmr_ros.runtime.openvino_backend import ov

    return f"{ov.__version__.split('-')[0]}, devices {', '.join(ov.Core().available_devices)}"


def _tensorrt() -> str:
    from hmr_ros.runtime import available_backends

    status = next(s for s in available_backends() if s.name == "tensorrt")
    if not status.available:
        raise RuntimeError(status.detail)
    from hmr_ros.runtime.engine_cache import engines_folder

    folder = engines_folder()
    built = len(list(folder.glob("*/engine.json"))) if folder.is_dir() else 0
    return f"{status.detail}, torch-tensorrt {_version('torch-tensorrt')}, {built} engines in {folder}"


def _ros() -> Iterator[Finding]:
    from hmr_ros.cli import INSTALL

    yield _try("rclpy", NODE, _rclpy, INSTALL["rclpy"])
    yield _try("hmr_ros.msg", NODE, _messages, INSTALL["hmr_ros.msg"])
    for package in ("sensor_msgs", "visualization_msgs", "diagnostic_msgs", "lifecycle_msgs"):
        if not (finding := _module(f"{package}.msg", f"ros-{package.replace('_', '-')}", NODE, INSTALL["rclpy"])).ok:
            yield finding
    remedy = "comes with a ROS 2 installation; without a working one our own conversion is used, with the same result"
    yield _try("cv_bridge", OPTION, _cv_bridge, remedy)
    yield _try("share/hmr_ros", OPTION, _share, "ROS tools find packages by AMENT_PREFIX_PATH: source the workspace, or in a "
               "virtual environment `export AMENT_PREFIX_PATH=$VIRTUAL_ENV`")  # fmt: skip
    for name, purpose in OTHER_PACKAGES.items():
        yield _module(name, name, OPTION, f"needed for {purpose} only: apt install ros-$ROS_DISTRO-{APT.get(name, name).replace('_', '-')}")
    for name in ("launch", "launch_ros"):
        remedy = "needed for the launch files only, comes with a ROS 2 installation; `hmr-ros live` and `replay` need none"
        yield _module(name, name, OPTION, remedy)


def _rclpy() -> str:
    import rclpy
    from rclpy.utilities import get_rmw_implementation_identifier

    wheel = _version("ros-rclpy")
    distribution = f"ROS {os.environ['ROS_DISTRO']}" if os.environ.get("ROS_DISTRO") else f"ros-rclpy {wheel}"
    return f"{distribution} in {Path(rclpy.__file__).parent}, {get_rmw_implementation_identifier()}"


def _messages() -> str:
    from rclpy.serialization import deserialize_message, serialize_message

    from hmr_ros.msg import Body, BodyArray

    sent = BodyArray(reliability_source="learned", bodies=[Body(id="a1b2c", score=0.5)])
    received = deserialize_message(serialize_message(sent), BodyArray)
    if received != sent:
        raise RuntimeError("a BodyArray does not survive serialisation: the messages were built for other ROS libraries")
    return "BodyArray, Body, BodyModel; serialisation works"


def _cv_bridge() -> str:
    if importlib.util.find_spec("cv_bridge") is None:
        raise RuntimeError("not installed")
    from hmr_ros.ros.inputs import ImageConverter

    converter = ImageConverter()
    if not converter.bridged:
        raise RuntimeError(f"installed, but it does not convert a test image (numpy {_version('numpy')})")
    return str(converter)


def _share() -> str:
    from ament_index_python.packages import get_package_share_directory

    return get_package_share_directory("hmr_ros")


def _module(module: str, distribution: str, needed_by: str, remedy: str) -> Finding:
    def found() -> str:
        if importlib.util.find_spec(module.split(".")[0]) is None:
            raise RuntimeError("not installed")
        loaded = importlib.import_module(module)
        return str(getattr(loaded, "__version__", None) or _version(distribution))

    return _try(module.split(".")[0], needed_by, found, remedy)


def _try(part: str, needed_by: str, check: Callable[[], str], remedy: str) -> Finding:
    try:
        return Finding(part, needed_by, True, check())
    except Exception as error:  # a broken installation may raise anything; what it says is the finding
        text = " ".join(str(error).split()) or type(error).__name__
        return Finding(part, needed_by, False, text if len(text) < 200 else text[:197] + "...", remedy)


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "version unknown"
