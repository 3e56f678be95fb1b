"""Packaging for pip: the same CMakeLists.txt that colcon runs builds the messages and lays out lib/ and share/.

The wheel then holds the Python modules with the generated ``hmr_ros.msg``, and, as wheel data, what ROS tools look
for below the environment's prefix: the message libraries, ``lib/hmr_ros/`` and ``share/hmr_ros/``. That is the layout
of the ros-* wheels, so that the package works in a virtual environment without a ROS installation.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent

RUNTIME = [
    "numpy>=1.22",  # numba's floor; our own would be the 1.21 of Ubuntu 22.04
    "scipy>=1.8",
    "torch>=2.6",
    "openvino>=2024.4",
    "opencv-python-headless>=4.5.4",  # a robot's python3-opencv provides cv2 as well
    "fsspec>=2023.1",  # recordings and shards behind URLs; torch needs it anyway
    "av>=12",  # videos; OpenCV counts frames wrongly and stops at the first damage
    "pillow>=9",  # animations and TIFFs of several pages, page by page
    "smplx>=0.1.28",
    "roma>=1.4",  # rotations of batches in torch: refinement on a GPU
    "numba>=0.59",
    "safetensors>=0.4",
    "rich>=11",
    "tyro>=0.8",
    "matplotlib>=3.5",  # plots of hmr-ros eval; imported when they are made
]
ROS = [
    "ros-rclpy",
    "ros-rmw-fastrtps-cpp",
    "ros-common-interfaces",
    "ros-lifecycle-msgs",
    "ros-rosidl-default-runtime",
]
# The ROS 2 wheels exist for this platform; elsewhere rclpy and the message packages come from a ROS installation.
ROS_WHEELS = "sys_platform == 'linux' and platform_machine == 'x86_64' and python_version >= '3.11'"
EXTRAS = {
    "ros": ROS,
    "training": ["lightning-fabric>=2.4", "tensorboard>=2.14"],  # hmr-ros train: devices and processes; curves and pictures
    "bags": ["rosbags>=0.11.7", "ruamel.yaml>=0.17", "lz4>=3", "backports.zstd>=1; python_version < '3.14'"],
    "view": ["viser>=1.1,<2", "websockets>=13"],  # hmr-ros view: meshes in a browser; imported when it runs
    "paper": ["transformers>=4.50"],  # Depth Anything V2 for `extractor: paper`; imported when its folder is named
    "gl": ["moderngl>=5.10"],  # hmr-ros data rendered --renderer gl; imported when it is asked for
    "ray": ["ray>=2.40,<3"],  # hmr-ros extract --engine ray; imported when it is asked for
    "benchmarks": ["cdflib>=1,<2"],  # Human3.6M's positions; imported when they are read
    "export": ["onnx>=1.16", "onnxruntime>=1.18", "onnxscript>=0.3"],  # hmr-ros export --backend onnx: writes, and compares with torch
    "fuzz": ["atheris>=2.3"],  # make fuzz
    "dev": ["lightning-fabric>=2.4", "tensorboard>=2.14", "pytest>=7", "pytest-xdist>=3", "hypothesis>=6", "rosbags>=0.11.7", "ruamel.yaml>=0.17", "lz4>=3", "backports.zstd>=1; python_version < '3.14'", "catkin-pkg",
            "viser>=1.1,<2", "websockets>=13", "cdflib>=1,<2", "joblib>=1.2,<2", "moderngl>=5.10", "transformers>=4.50",
            "onnx>=1.16", "onnxruntime>=1.18", "onnxscript>=0.3", "ray>=2.40,<3"],
}


class BinaryDistribution(Distribution):
    """Its wheel is tied to platform and Python: the generated messages are extension modules."""

    def has_ext_modules(self):
        return True


class BuildWithCMake(build_py):
    """The wheel's content is what CMakeLists.txt installs: Python modules, assets and messages, lib/ and share/."""

    def run(self):
        if self.editable_mode:
            raise SystemExit("hmr_ros cannot be installed editable: its messages are generated beside the modules. "
                             "`make setup` or `pip install .` takes a few seconds once the messages are built.")  # fmt: skip
        stage = install_with_cmake()
        modules = next(stage.glob("lib/python*/*-packages")) / "hmr_ros"
        target = Path(self.build_lib) / "hmr_ros"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(modules, target, ignore=shutil.ignore_patterns("*.c", "__pycache__"))
        for top in ("lib", "share", "include"):
            for path in sorted((stage / top).rglob("*")):
                if path.is_file() and modules.parent not in path.parents:
                    self.distribution.data_files.append((str(path.parent.relative_to(stage)), [str(path.relative_to(ROOT))]))

    def get_outputs(self, include_bytecode=1):
        return [str(p) for p in Path(self.build_lib).rglob("*") if p.is_file()]


def install_with_cmake():
    """Configure, build and install by CMakeLists.txt; returns the staged prefix below build/.

    The build folder belongs to one Python and one set of ROS wheels and is brought up to date on the next call.
    """
    wheels, site_packages = find_wheels()
    key = f"{sys.executable} {wheels}"
    build = ROOT / "build" / f"cmake-cp{sys.version_info[0]}{sys.version_info[1]}"
    stage = build / "prefix"
    stamp = build / "environment.txt"
    digest = hashlib.sha256(key.encode()).hexdigest()
    if not stamp.is_file() or stamp.read_text() != digest:
        shutil.rmtree(build, ignore_errors=True)
        build.mkdir(parents=True)
        stamp.write_text(digest)
    shutil.rmtree(stage, ignore_errors=True)

    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AMENT_", "COLCON_", "CMAKE_", "ROS_"))}
    environment.update(
        PYTHONPATH=str(site_packages),
        AMENT_PREFIX_PATH=str(wheels),
        CMAKE_PREFIX_PATH=str(wheels),
        PATH=os.pathsep.join([str(wheels / "bin"), os.environ.get("PATH", os.defpath)]),
        _ROS_WHEELS_BOOTSTRAP_COMPLETE="1",  # the generators need no libraries, hence no second start of Python
    )
    commands = [
        ["cmake", "-S", str(ROOT), "-B", str(build), "-G", "Ninja", "--no-warn-unused-cli",
         f"-DCMAKE_INSTALL_PREFIX={stage}", f"-DPython3_EXECUTABLE={sys.executable}", "-DBUILD_TESTING=OFF"],
        ["cmake", "--build", str(build), "--target", "install"],
    ]  # fmt: skip
    for command in commands:
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise SystemExit(f"{done.stdout}\nhmr_ros: building the messages failed in `{' '.join(command)}`. "
                             "It needs a C++ compiler and the headers of this Python.")  # fmt: skip
    return stage


def find_wheels():
    """Prefix and site-packages of the ROS wheels: pip's build environment, or without isolation the environment itself."""
    import rosidl_generator_py

    package = Path(rosidl_generator_py.__file__).resolve().parent
    for prefix in package.parents:
        if (prefix / "share" / "rosidl_cmake").is_dir():
            return prefix, package.parent
    raise SystemExit(f"hmr_ros: no ROS prefix (share/rosidl_cmake) above {package}")


setup(
    name="hmr_ros",
    version="0.1.0",
    description="3D human pose and shape from a camera image, live in ROS 2, with the reliability of each joint",
    long_description=(ROOT / "README.md").read_text() if (ROOT / "README.md").is_file() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=["hmr_ros", "hmr_ros.training"],
    package_dir={"hmr_ros": "hmr_ros", "hmr_ros.training": "training"},
    data_files=[],
    install_requires=RUNTIME + [f"{name}; {ROS_WHEELS}" for name in ROS],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["hmr-ros = hmr_ros.cli:main"]},
    distclass=BinaryDistribution,
    cmdclass={"build_py": BuildWithCMake},
    zip_safe=False,
)
