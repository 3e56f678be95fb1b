"""MediaPipe Pose beside us, for comparison: its own environment, its own process, the same frames.

MediaPipe 0.10.14 carries detector and full landmark network in its wheel, needs numpy below 2 and Python 3.8 to 3.12. Nothing is installed unless a
comparison is asked for.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np

from hmr_ros.bench.clips import Clip
from hmr_ros.files import require_file

VERSION = "0.10.14"
REQUIREMENTS = (f"mediapipe=={VERSION}", "numpy<2")
WORKER = Path(__file__).with_name("mediapipe_worker.py")
LOG_LINES = 5


def default_venv() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hmr_ros" / f"mediapipe-{VERSION}"


def install_commands(venv: Path) -> list[list[str]]:
    """What makes the environment."""
    return [[sys.executable, "-m", "venv", str(venv)], [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", *REQUIREMENTS]]


def prepare(venv: Path, say=print) -> Path:
    """The environment's Python, after the environment was made where it is missing; ``say`` gets every command that does so.

    Raises ValueError where the folder is something else, or MediaPipe cannot be installed into it.
    """
    python = venv / "bin" / "python"
    by_hand = " && ".join(map(shlex.join, install_commands(venv)))
    if not venv.exists():
        for command in install_commands(venv):
            say(shlex.join(command))
            done = subprocess.run(command, capture_output=True, text=True, env=environment())
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["no output"])[-1]
                raise ValueError(f"MediaPipe {VERSION} cannot be installed into {venv} ({last}), which needs Python 3.8 to 3.12 and the package index; "
                                 f"delete that folder and try `{by_hand}`, or name an environment that has it by --mediapipe-venv")  # fmt: skip
    if not python.exists():
        raise ValueError(f"{venv} has no bin/python, expected a virtual environment with MediaPipe {VERSION}; delete it, or make one by `{by_hand}`")
    code = "import importlib.metadata as m; print(m.version('mediapipe'))"
    done = subprocess.run([str(python), "-I", "-c", code], capture_output=True, text=True, env=environment())
    if done.stdout.strip() != VERSION:
        found = done.stdout.strip() or "no MediaPipe"
        raise ValueError(f"{venv} has {found}, expected MediaPipe {VERSION}: {shlex.join(install_commands(venv)[1])}")
    return python


def environment() -> dict[str, str]:
    """Ours without what belongs to our own Python and ROS."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "VIRTUAL_ENV")}


class MediaPipe:
    """MediaPipe Pose in a process of its own, over a clip; a context. Every block goes on where the one before stopped."""

    def __init__(self, python: Path, clip: Clip, folder: Path):
        """``folder`` gets the log, and the frames while the process starts."""
        self._python, self._clip, self._folder = require_file(python, "Python", "that of MediaPipe's environment"), clip, folder
        self._number = 0
        self.found: list[float] = []  # of every block, the share of frames with a person

    def __enter__(self) -> MediaPipe:
        frames, self._log = self._folder / "mediapipe_frames.npy", self._folder / "mediapipe.log"
        np.save(frames, np.stack([frame[..., ::-1] for frame in self._clip.frames]))
        try:
            with open(self._log, "wb") as log:
                self._process = subprocess.Popen([str(self._python), "-I", str(WORKER), str(frames)], stdin=subprocess.PIPE,
                                                 stdout=subprocess.PIPE, stderr=log, text=True, env=environment())  # fmt: skip
            self._answer("ready")
        finally:
            frames.unlink()
        return self

    def block(self, count: int) -> list[float]:
        """Seconds of each of the next ``count`` frames."""
        numbers = [self._clip.index(number) for number in range(self._number, self._number + count)]
        self._number += count
        try:
            self._process.stdin.write(json.dumps(numbers) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended; the answer will say so
        seconds, found = self._answer("times").rsplit(" ", 1)
        self.found.append(float(found))
        return json.loads(seconds)

    def _answer(self, word: str) -> str:
        for line in self._process.stdout:
            if line.startswith(word + " "):
                return line[len(word) + 1 :].strip()
        tail = " | ".join(self._log.read_text(errors="replace").strip().splitlines()[-LOG_LINES:])
        raise ValueError(f"MediaPipe ended with exit code {self._process.wait()}: {tail or 'no output'} ({self._log})")

    def __exit__(self, *_) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
