"""The ``hmr-ros`` command: a table of sub-commands, each imported only when it is called.

A sub-command is a function ``main(argv: list[str]) -> int`` that parses its own arguments from a typed dataclass;
what it returns is the exit code. Errors a user can act on are one line on stderr and exit code 2; ``HMR_DEBUG=1``
shows the traceback as well.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback

from hmr_ros import __version__

# command, one word or two: (module:function, help)
COMMANDS = {
    "image": ("hmr_ros.commands.image:main", "pictures, folders, videos: overlay, parameters and mesh into files"),
    "live": ("hmr_ros.ros.live:main", "the ROS 2 node: camera topic in, bodies out (takes --ros-args)"),
    "replay": ("hmr_ros.ros.replay:main", "publish a picture, video or bag as a camera would (takes --ros-args)"),
    "bodies": ("hmr_ros.commands.bodies:main", "recorded bodies as .npz, .bvh and AMASS-style .npz, a track a person"),
    "view": ("hmr_ros.commands.view:main", "bodies in a browser, live or from a recording (takes --ros-args)"),
    "record": ("hmr_ros.ros.record:main", "results and camera topics into a bag that every ROS 2 tool opens (takes --ros-args)"),
    "demo": ("hmr_ros.commands.demo:main", "replay and live node together: see it work, with a table of results"),
    "bench": ("hmr_ros.commands.bench:main", "time the estimator, the node and its messages, beside MediaPipe if you like"),
    "data rendered": ("hmr_ros.training.data.rendered.dataset:main", "make training data: rendered people with their truth"),
    "data unpack": ("hmr_ros.training.data.unpack:main", "rewrite shards of earlier versions, so that they are read from disk batch by batch"),
    "extract": ("hmr_ros.training.data.extract.extract:main", "make training data from pictures, a video, a bag or a dataset"),
    "train": ("hmr_ros.training.paper.train:main", "train the paper's networks, without labels"),
    "train lifter": ("hmr_ros.training.lifter.train:main", "train the default regressor on rendered people's truth"),
    "train prior": ("hmr_ros.training.prior.train:main", "train the pose prior that the paper's regressor speaks through"),
    "train on-ray": ("hmr_ros.training.on_ray:main", "run any of these on several machines of a Ray cluster"),
    "fit": ("hmr_ros.training.paper.fits:main", "fit a body to everybody's proxies, as teachers for train --fits"),
    "adapt": ("hmr_ros.training.adaptation.adapt:main", "make the default regressor better for your own camera, from recordings without labels"),
    "ablate": ("hmr_ros.training.paper.ablation:main", "train and compare the paper's variants on rendered people"),
    "figures": ("hmr_ros.training.paper.figures:main", "make the figures 2 to 5 of the paper again, from rendered and real people"),
    "eval rendered": ("hmr_ros.training.benchmarks.rendered.benchmark:main", "score the pose on rendered people, beside other methods"),
    "eval 3dpw": ("hmr_ros.training.benchmarks.published.benchmark:main_3dpw", "score the estimator on 3DPW, which you bring"),
    "eval h36m": ("hmr_ros.training.benchmarks.published.benchmark:main_h36m", "score the estimator on Human3.6M, Protocol 2, which you bring"),
    "export": ("hmr_ros.commands.export:main", "build the networks ahead: TensorRT engines, OpenVINO or ONNX files"),
    "doctor": ("hmr_ros.commands.doctor:main", "what is installed, what is missing, what to do about it"),
}

# How to get what an installation may lack; anything else is installed by its own name.
INSTALL = {
    "hmr_ros.msg": "the messages are not built: install the package by `pip install .` or `colcon build`; a bare checkout "
    "on sys.path does not have them",
    "hmr_ros.training": "install the package by `pip install .` or `colcon build`; a bare checkout does not have it",
    "rclpy": "source a ROS 2 installation, or `pip install ros-rclpy ros-rmw-fastrtps-cpp ros-common-interfaces "
    "ros-lifecycle-msgs` (Linux, x86-64)",
    "cv2": "`pip install opencv-python-headless`, on a robot the package python3-opencv",
    "onnxscript": "ONNX files are written with it: `pip install onnx onnxscript`",
    "cdflib": "it reads Human3.6M's positions: `pip install cdflib`, or this package's extra [benchmarks]",
    "ray": "`pip install 'ray>=2.40,<3'`, or the package by `pip install '.[ray]'`",
    "launch": "comes with a ROS 2 installation: source it",
    "launch_ros": "comes with a ROS 2 installation: source it",
    "cv_bridge": "comes with a ROS 2 installation: source it",
}
for _training_package in ("lightning_fabric", "tensorboard"):
    INSTALL[_training_package] = "`pip install lightning-fabric tensorboard`, or the package by `pip install '.[training]'`"
for _message_package in ("std", "sensor", "geometry", "visualization", "diagnostic", "lifecycle"):
    INSTALL[f"{_message_package}_msgs"] = INSTALL["rclpy"]


def main(argv: list[str] | None = None) -> int:
    """Run ``hmr-ros ARGV...`` and return its exit code: 0 done, 2 wrong use or a failure that the user can mend."""
    argv = list(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # what it cannot decode, our own line says
    for stream in (sys.stdout, sys.stderr):  # a file's name that is not UTF-8 must not end a command
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if argv else 2
    if argv[0] in ("--version", "version"):
        print(f"hmr-ros {__version__}")
        return 0

    command, rest = split_command(argv)
    if command is None:
        group = [name for name in COMMANDS if name.startswith(f"{argv[0]} ")]
        if group and rest and rest[0] in ("-h", "--help"):
            print(usage(argv[0]))
            return 0
        print(f"hmr-ros: no command {' '.join(argv[: 2 if group else 1])!r}\n\n{usage(argv[0] if group else '')}", file=sys.stderr)
        return 2

    module, function = COMMANDS[command][0].split(":")
    try:
        return int(getattr(importlib.import_module(module), function)(rest) or 0)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ImportError as error:
        return fail(command, missing_module(error))
    except (ValueError, OSError, FloatingPointError) as error:
        return fail(command, " ".join(str(error).split()) or type(error).__name__)


def split_command(argv: list[str]) -> tuple[str | None, list[str]]:
    """The command that argv begins with, of two words or one, and the arguments after it; None where there is none."""
    for words in (2, 1):
        name = " ".join(argv[:words])
        if name in COMMANDS:
            return name, argv[words:]
    return None, argv[1:]


def usage(group: str = "") -> str:
    """The table of commands, or of those whose first word is `group`."""
    names = [name for name in COMMANDS if not group or name.split()[0] == group]
    width = max(map(len, names)) + 3
    lines = [f"  {name:<{width}}{COMMANDS[name][1]}" for name in names]
    head = "3D human pose and shape from a camera image, live in ROS 2.\n\nusage: hmr-ros COMMAND [ARGUMENTS]\n\ncommands:"
    tail = "\n`hmr-ros COMMAND --help` shows the arguments of a command; HMR_DEBUG=1 the traceback of an error."
    return "\n".join([head, *lines, tail])


def missing_module(error: ImportError) -> str:
    """One line that names the module that could not be imported and says how to get it."""
    name = error.name or ""
    parts = name.split(".")
    for known in (".".join(parts[:n]) for n in range(len(parts), 0, -1)):
        if known in INSTALL:
            return f"{known} cannot be imported ({error}): {INSTALL[known]}"
    if isinstance(error, ModuleNotFoundError) and parts[0] != "hmr_ros":
        return f"the Python package {parts[0]} is missing: `pip install {parts[0]}`"
    return f"{error} (is the installation complete? `hmr-ros doctor` looks)"


def fail(command: str, message: str) -> int:
    """Report an error on stderr in one line, after its traceback where HMR_DEBUG is set; returns exit code 2."""
    if os.environ.get("HMR_DEBUG", "0") not in ("", "0"):
        traceback.print_exc()
    print(f"hmr-ros {command}: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
