"""The installed package: messages, commands, executables, dependencies and assets are all there and agree."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import types
from importlib.metadata import requires, version
from pathlib import Path

import pytest

import hmr_ros
from hmr_ros import cli
from hmr_ros.commands import doctor

ROOT = Path(__file__).resolve().parents[1]
INSTALLED = Path(hmr_ros.__file__).resolve().parent
PREFIX = next(p for p in INSTALLED.parents if (p / "share" / "hmr_ros" / "package.xml").is_file())
ENVIRONMENT = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "HMR_DEBUG")}


def run(*command, **kwargs):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120,
                          env=ENVIRONMENT | kwargs.pop("env", {}), **kwargs)  # fmt: skip


# --- messages ------------------------------------------------------------------------------------------------------


def test_messages_carry_the_arrays_of_the_design():
    from hmr_ros.msg import Body, BodyArray, BodyModel

    lengths = dict(box=4, global_orient=3, body_pose=69, betas=10, crop=3, weak_camera=3, joints=72, keypoints=51,
                   projected_keypoints=34, reliability=12, vertices=0)  # fmt: skip
    body = Body()
    assert {name: len(getattr(body, name)) for name in lengths} == lengths
    assert not body.has_translation
    assert set(BodyArray.get_fields_and_field_types()) == {"header", "axes", "reliability_source", "depth_state", "detected", "bodies"}
    assert {"name", "hash", "faces", "joint_names", "parents"} <= set(BodyModel.get_fields_and_field_types())


def test_messages_survive_serialisation():
    from array import array

    import numpy as np
    from rclpy.serialization import deserialize_message, serialize_message

    from hmr_ros.msg import Body, BodyArray

    body = Body(id="a1b2c", score=0.75, has_translation=True, joints=np.arange(72, dtype=np.float32))
    body.vertices = array("f", range(3 * 6890))
    body.translation.z = 2.5
    sent = BodyArray(reliability_source="learned", bodies=[body])
    sent.header.frame_id = "camera_optical_frame"
    received = deserialize_message(serialize_message(sent), BodyArray)
    assert received == sent
    assert received.bodies[0].vertices[-1] == 3 * 6890 - 1


# --- commands ------------------------------------------------------------------------------------------------------


def test_importing_the_package_loads_neither_torch_nor_rclpy():
    code = "import sys, hmr_ros, hmr_ros.cli; print(sorted({'torch', 'rclpy', 'numpy', 'tyro'} & set(sys.modules)))"
    assert run(sys.executable, "-P", "-c", code).stdout.strip() == "[]"


def test_the_facade_is_found_on_first_use_and_other_names_are_refused():
    assert hmr_ros.HumanMeshEstimator.__name__ == "HumanMeshEstimator"
    assert "BodyEstimate" in dir(hmr_ros)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = hmr_ros.no_such_name


EXPLAIN = """
import contextlib, io, json
from hmr_ros import cli

for command in cli.COMMANDS:
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        try:
            code = cli.main([*command.split(), "--help"])
        except SystemExit as end:
            code = end.code or 0
    print(json.dumps([command, code, told.getvalue()]))
"""


@pytest.fixture(scope="module")
def explained():
    """Exit code and text of every command's --help; in one process, since each would import torch anew."""
    done = run(sys.executable, "-P", "-c", EXPLAIN)
    assert done.returncode == 0, done.stderr
    return {command: (code, text) for command, code, text in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_exists_and_explains_itself(command, explained):
    code, text = explained[command]
    assert code == 0, text
    assert f"hmr-ros {command}" in text and "--" in text


def test_help_lists_every_command_and_a_wrong_command_is_an_error(capsys):
    assert cli.main(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in cli.COMMANDS)
    assert cli.main([]) == 2
    assert cli.main(["imagine"]) == 2
    assert "'imagine'" in capsys.readouterr().err
    assert cli.main(["data", "nothing"]) == 2
    assert "data rendered" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error, words",
    [
        (ValueError("alpha is 7,\n expected 0 to 1"), "alpha is 7, expected 0 to 1"),
        (FileNotFoundError(2, "No such file", "a.png"), "a.png"),
        (ModuleNotFoundError("No module named 'rclpy'", name="rclpy"), "source a ROS 2"),
        (ModuleNotFoundError("No module named 'hmr_ros.msg'", name="hmr_ros.msg"), "colcon build"),
        (ModuleNotFoundError("No module named 'viser'", name="viser"), "pip install viser"),
    ],
)
def test_an_error_the_user_can_mend_is_one_line_and_exit_code_2(error, words, monkeypatch, capsys):
    def fails(argv):
        raise error

    monkeypatch.setitem(sys.modules, "failing_command", types.SimpleNamespace(main=fails))
    monkeypatch.setitem(cli.COMMANDS, "fails", ("failing_command:main", "fails"))
    monkeypatch.delenv("HMR_DEBUG", raising=False)
    assert cli.main(["fails"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and told.startswith("hmr-ros fails: ") and words in told
    monkeypatch.setenv("HMR_DEBUG", "1")
    assert cli.main(["fails"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_command_gets_its_arguments_and_gives_the_exit_code(monkeypatch):
    monkeypatch.setitem(sys.modules, "some_command", types.SimpleNamespace(main=lambda argv: len(argv)))
    monkeypatch.setitem(cli.COMMANDS, "some", ("some_command:main", "counts"))
    assert cli.main(["some", "--ros-args", "-r", "image:=camera"]) == 3


# --- executables ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["live", "replay", "hmr-ros"])
def test_executables_stand_where_ros2_run_looks_and_start_from_any_folder(name):
    executable = PREFIX / "lib" / "hmr_ros" / name
    assert os.access(executable, os.X_OK)
    done = run(executable, "--help", cwd=ROOT)  # the checkout's hmr_ros must not get in the way
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_command_is_on_the_path_of_the_environment():
    command = shutil.which("hmr-ros", path=str(PREFIX / "bin"))
    assert command, f"no hmr-ros in {PREFIX / 'bin'}"
    assert hmr_ros.__version__ in run(command, "--version").stdout


def test_a_launcher_in_a_workspace_uses_the_python_on_the_path(tmp_path):
    launcher = tmp_path / "install" / "hmr_ros" / "lib" / "hmr_ros" / "hmr-ros"
    launcher.parent.mkdir(parents=True)
    shutil.copy(PREFIX / "lib" / "hmr_ros" / "hmr-ros", launcher)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    assert hmr_ros.__version__ in run(launcher, "--version", env={"PATH": path}).stdout


def test_share_holds_what_ros_tools_look_for():
    share = PREFIX / "share"
    assert (share / "ament_index" / "resource_index" / "packages" / "hmr_ros").is_file()
    for folder in ("launch", "config", "msg"):
        here = {p.name for p in (ROOT / folder).iterdir() if p.is_file() and p.suffix != ".pyc"}
        assert here and here <= {p.name for p in (share / "hmr_ros" / folder).iterdir()}


# --- dependencies --------------------------------------------------------------------------------------------------

ROSDEP = {"numpy": "python3-numpy", "cv2": "python3-opencv", "scipy": "python3-scipy", "yaml": "python3-yaml",
          "matplotlib": "python3-matplotlib", "rich": "python3-rich", "PIL": "python3-pil"}  # fmt: skip
PIP = {"cv2": "opencv-python-headless", "yaml": "pyyaml", "PIL": "pillow", "ruamel": "ruamel.yaml",
       "backports": "backports.zstd"}  # fmt: skip
OPTIONAL = {"tf2_ros", "torch_tensorrt", "xacro", "pytorch3d", "tensorrt", "nncf", "mediapipe"}  # where they are found, the last in an environment of its own


def imported_modules(*folders):
    """Top-level names of everything imported below the folders of the checkout."""
    names = set()
    for path in (p for folder in folders for p in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(), str(path))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"hmr_ros", "__future__", "compression"}  # the last is in the library from 3.14 on


def canonical(requirement):
    return re.match(r"[\w.-]+", requirement).group().lower().replace("_", "-")


def direct_dependencies():
    """All but those of `make fuzz`, which has an environment of its own."""
    return {canonical(r) for r in requires("hmr_ros") if not re.search(r'extra == .fuzz.', r)}


def test_package_xml_is_valid_and_lists_every_run_time_import_that_rosdep_has():
    from catkin_pkg.package import parse_package

    package = parse_package(str(ROOT / "package.xml"), warnings=(warnings := []))
    assert not warnings
    listed = {d.name for d in package.exec_depends}
    assert {"rclpy", "cv_bridge", "sensor_msgs_py", "visualization_msgs", "diagnostic_msgs", "lifecycle_msgs", "launch_ros",
            "rosidl_default_runtime", "python3-numpy", "python3-opencv"} <= listed  # fmt: skip
    for module in imported_modules("hmr_ros", "training", "launch"):
        key = ROSDEP.get(module, module)
        known_to_pip = PIP.get(module, module.replace("_", "-")) in direct_dependencies()
        assert key in listed or (known_to_pip and module not in ROSDEP) or module in OPTIONAL, f"{module}: not in package.xml or setup.py"


def test_setup_py_lists_every_import_that_pip_has():
    comes_with_ros = imported_modules("hmr_ros", "training") & {"rclpy", "cv_bridge", "launch", "launch_ros", "ament_index_python"}
    for module in imported_modules("hmr_ros", "training") - comes_with_ros - OPTIONAL:
        if not re.fullmatch(r"\w+_(msgs|srvs|interfaces)(_py)?", module):
            assert PIP.get(module, module.replace("_", "-")) in direct_dependencies(), f"{module}: not in setup.py"


def test_constraints_pin_every_direct_dependency_to_the_installed_version():
    lines = [line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    pins = dict(line.split("==") for line in lines if line)
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    for name in direct_dependencies() | {canonical(r) for r in build}:
        assert name in pins, f"{name}: not in constraints.txt"
        assert version(name).split("+")[0] == pins[name]


def test_the_version_is_the_same_everywhere():
    from catkin_pkg.package import parse_package

    assert version("hmr_ros") == hmr_ros.__version__ == parse_package(str(ROOT / "package.xml")).version


# --- assets and doctor ---------------------------------------------------------------------------------------------


def test_every_asset_is_installed_and_listed_with_its_hash_origin_and_licence():
    folder = INSTALLED / "assets"
    manifest = json.loads((folder / "manifest.json").read_text())
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {"manifest.json"}
    assert files == set(manifest)
    source = ROOT / "hmr_ros" / "assets"
    assert files == {p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file()} - {"manifest.json"}
    for name, entry in manifest.items():
        assert doctor.sha256(folder / name) == entry["sha256"], name
        assert entry["origin"] and entry["licence"], name


def test_doctor_tells_a_missing_a_changed_and_an_unlisted_asset_apart(tmp_path):
    (tmp_path / "good").write_bytes(b"good")
    (tmp_path / "changed").write_bytes(b"changed")
    (tmp_path / "unlisted").write_bytes(b"unlisted")
    good = doctor.sha256(tmp_path / "good")
    entry = {"sha256": good, "origin": "here", "licence": "CC0-1.0"}
    (tmp_path / "manifest.json").write_text(json.dumps({"good": entry, "changed": entry, "gone": entry}))
    findings = {f.part: f for f in doctor.assets(tmp_path)}
    assert {part: f.ok for part, f in findings.items()} == {
        "assets/good": True, "assets/changed": False, "assets/gone": False, "assets/unlisted": False}  # fmt: skip
    assert "differs" in findings["assets/changed"].found
    assert "not there" in findings["assets/gone"].found
    assert "not listed" in findings["assets/unlisted"].found
    assert all(f.remedy for f in findings.values() if not f.ok)

    (tmp_path / "manifest.json").unlink()
    (only,) = doctor.assets(tmp_path)
    assert not only.ok and only.needed_by == doctor.ESTIMATOR


def test_doctor_finds_the_embedded_chain_complete(tmp_path):
    report = tmp_path / "doctor.json"
    done = run(PREFIX / "bin" / "hmr-ros", "doctor", "--json", report, env={"AMENT_PREFIX_PATH": str(PREFIX)})
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(report.read_text())
    assert told["version"] == hmr_ros.__version__ and told["estimator"]
    found = {f["part"]: f for f in told["findings"]}
    assert found["body model (embedded)"]["ok"] and "sha256" in found["body model (embedded)"]["found"]
    assert {"torch", "OpenVINO", "CUDA", "torch_tensorrt", "rclpy", "hmr_ros.msg", "cv_bridge", "launch", "viser", "tf2_msgs", "tf2_ros", "vision_msgs",
            "hri_msgs"} <= set(found)  # fmt: skip
    assert all(found[name]["needed_by"] == doctor.OPTION for name in (*doctor.OTHER_PACKAGES, "viser"))
    assert found["share/hmr_ros"]["ok"]
    assert all(f["remedy"] for f in told["findings"] if not f["ok"])


def test_doctor_fails_where_the_body_model_given_cannot_be_read(tmp_path):
    (tmp_path / "SMPL_NEUTRAL.npz").write_bytes(b"no archive")
    done = run(PREFIX / "bin" / "hmr-ros", "doctor", "--body-model", tmp_path / "SMPL_NEUTRAL.npz")
    assert done.returncode == 1
    assert "SMPL_NEUTRAL.npz" in done.stdout
