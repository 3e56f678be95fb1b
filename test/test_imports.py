"""Imports point one way, ROS stays below hmr_ros/ros, and names are not given twice: read from the sources, nothing is imported."""

import ast
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Each part of hmr_ros may import those of its own line that stand before it, and everything of the lines above.
LAYERS = (
    "skeleton rotations geometry camera depth_registration files palette estimate uncertainty judgement inputs",
    "body rasterizer runtime io motion",
    "proxies metric_kernel metric",
    "networks",
    "refinement tracking smoothing_kernel smoothing stream estimator drawing bench viewer",
    "ros",
    "cli commands",
)
TRAINING_NEVER_IMPORTS = {"ros", "cli", "commands"}  # hmr_ros.training uses everything else
ROS_PARTS = {"ros"}  # these may import ROS anywhere
ROS_WHEN_THEY_RUN = {"commands"}  # these only inside functions: the package works without ROS
ROS_PACKAGES = {
    "rclpy", "cv_bridge", "launch", "launch_ros", "ament_index_python", "rcl_interfaces", "builtin_interfaces", "std_msgs", "sensor_msgs",
    "geometry_msgs", "visualization_msgs", "diagnostic_msgs", "lifecycle_msgs", "std_srvs", "rosgraph_msgs", "tf2_ros",
    "tf2_msgs", "hri_msgs", "vision_msgs",
}  # fmt: skip
OLDEST_PYTHON = (3, 10)  # of ROS 2 Humble


class Import(NamedTuple):
    """``part`` of hmr_ros that imports ("training", "body", ...), what, where, and whether inside a function."""

    part: str
    module: str
    place: str
    in_function: bool


def sources(folders=("hmr_ros", "training")):
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def imports(text: str, part: str, file: str) -> list[Import]:
    """Every import of a source text; those for type checkers alone do not count."""
    found = []

    def visit(node, in_function):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            return [visit(child, in_function) for child in node.orelse]
        if isinstance(node, ast.Import):
            found.extend(Import(part, alias.name, f"{file}:{node.lineno}", in_function) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno} has a relative import, expected the whole name"
            found.extend(Import(part, f"{node.module}.{alias.name}", f"{file}:{node.lineno}", in_function) for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child, in_function or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)))

    visit(ast.parse(text), False)
    return found


def all_imports() -> list[Import]:
    found = []
    for path in sources():
        file = path.relative_to(ROOT)
        part = "training" if file.parts[0] == "training" else file.parts[1].removesuffix(".py")
        found += imports(path.read_text(), part, str(file))
    return found


def wrong_way(found: list[Import]) -> list[str]:
    """Imports of a part of hmr_ros that stands below the one that imports it."""
    below = {part: (i, j) for i, line in enumerate(LAYERS) for j, part in enumerate(line.split())}
    wrong = []
    for part, module, place, _ in found:
        names = module.split(".")
        if names[0] != "hmr_ros" or len(names) < 2 or part == "__init__" or names[1] == part:
            continue
        if part == "training":
            allowed = names[1] not in TRAINING_NEVER_IMPORTS
        elif names[1] in below:
            allowed = below[names[1]] < below[part]
        else:  # hmr_ros.msg, generated; __version__ and the like; never the training
            allowed = names[1] in ("HumanMeshEstimator", "BodyEstimate", "__version__", "msg")
        if not allowed:
            wrong.append(f"{place}: {part} imports {module}")
    return wrong


def ros_out_of_place(found: list[Import]) -> list[str]:
    wrong = []
    for part, module, place, in_function in found:
        if module.split(".")[0] in ROS_PACKAGES or module.startswith("hmr_ros.msg"):
            if part not in ROS_PARTS and not (part in ROS_WHEN_THEY_RUN and in_function):
                wrong.append(f"{place}: {part} imports {module}")
    return wrong


def test_every_part_has_its_layer():
    package = ROOT / "hmr_ros"
    parts = {path.stem for path in package.glob("*.py")} | {path.parent.name for path in package.glob("*/__init__.py")}
    assert parts - {"__init__"} == set(" ".join(LAYERS).split())


def test_imports_point_one_way():
    assert wrong_way(all_imports()) == []


def test_ros_stays_below_ros():
    assert ros_out_of_place(all_imports()) == []


@pytest.mark.parametrize("part, text", [
    ("runtime", "from hmr_ros.networks.paper.net import Resnet18Regressor"),
    ("io", "from hmr_ros import proxies"),
    ("body", "def load():\n    from hmr_ros.networks import checkpoints"),
    ("geometry", "import hmr_ros.camera"),
    ("estimator", "from hmr_ros.ros.parameters import LiveParameters"),
    ("drawing", "from hmr_ros.training.metrics import mpjpe"),
    ("training", "from hmr_ros.ros.inputs import image_to_message"),
])  # fmt: skip
def test_an_import_the_wrong_way_is_found(part, text):
    (line,) = wrong_way(imports(text, part, "file.py"))
    assert line.startswith("file.py:") and f"{part} imports hmr_ros." in line


def test_imports_for_type_checkers_and_those_of_ones_own_part_are_none():
    text = ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from hmr_ros.estimator import HumanMeshEstimator\n"
            "from hmr_ros.geometry import to_crop\nfrom hmr_ros.stream import Stream\nfrom hmr_ros import __version__")  # fmt: skip
    assert wrong_way(imports(text, "stream", "file.py")) == []


@pytest.mark.parametrize("part, text, wrong", [
    ("io", "from sensor_msgs.msg import Image", True), ("estimator", "def f():\n    import rclpy", True),
    ("training", "from hmr_ros.msg import BodyArray", True), ("commands", "import rclpy", True),
    ("commands", "def main():\n    import rclpy", False), ("ros", "import rclpy", False),
])  # fmt: skip
def test_an_import_of_ros_out_of_place_is_found(part, text, wrong):
    assert bool(ros_out_of_place(imports(text, part, "file.py"))) is wrong


def test_importing_the_package_loads_neither_torch_nor_ros():
    code = "import sys, hmr_ros; print({'torch', 'rclpy', 'numba', 'cv2', 'openvino'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "set()\n"), done.stderr


@pytest.mark.parametrize("path", sources(("hmr_ros", "training", "launch")), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_sources_are_written_for_the_oldest_python(path):
    ast.parse(path.read_text(), feature_version=OLDEST_PYTHON)


def test_a_newer_grammar_would_be_refused():
    with pytest.raises(SyntaxError):
        ast.parse("try:\n    pass\nexcept* ValueError:\n    pass", feature_version=OLDEST_PYTHON)


def test_no_two_classes_have_one_name():
    places = defaultdict(set)
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].add(path.relative_to(ROOT).as_posix())
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def test_no_file_is_called_picture_or_pictures_twice():
    named = [path for path in sources() if path.stem.removesuffix("s") == "picture"]
    assert len(named) <= 1
