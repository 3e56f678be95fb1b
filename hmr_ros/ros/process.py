"""How a ROS process of this package starts and ends: signals, the Fast DDS profile, and spinning beside them.

rclpy's own signal handling raises KeyboardInterrupt wherever the main thread happens to be, and a second Ctrl-C (launch
and the terminal both send one) lands in the clean-up. Here signals only set an event: the main thread waits for it, the
executor spins in another thread, and nothing is interrupted half way.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import threading

from hmr_ros.files import share_file

PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")  # Fast DDS 3, Fast DDS 2
FAST_DDS_2 = ("humble", "iron", "jazzy")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
LARGE = 2**22  # bytes: more than an image of 1280 x 720, of which every message needs three: mapped, each would be faulted in page by page,
# which takes ten times as long as all the rest of receiving one of 640 x 480 (2.2 instead of 0.2 ms)
KEPT = 2**26  # bytes that the heap keeps free at its end, for the same reason
JOIN_SECONDS = 3.0  # launch sends SIGTERM five seconds after the first SIGINT


class StopEvent:
    """``is_set``, ``set`` and ``wait`` of a threading.Event that signals can set: a pipe that is readable once it is set.

    A threading.Event would hang: it holds a lock in ``set`` and ``wait``, which a signal may interrupt to call ``set``;
    and a signal that the kernel gives to one of the middleware's threads does not wake the main thread from its wait.
    """

    def __init__(self):
        self._reader, self.writer = os.pipe()
        os.set_blocking(self.writer, False)

    def set(self) -> None:
        try:
            os.write(self.writer, b"\0")
        except BlockingIOError:  # the pipe is full: set often enough
            pass

    def is_set(self) -> bool:
        return self.wait(0)

    def wait(self, timeout: float | None = None) -> bool:
        return bool(select.select([self._reader], [], [], timeout)[0])


def stop_event() -> StopEvent:
    """An event that SIGINT and SIGTERM set, however often they come. Call it first, in the main thread."""
    stop = StopEvent()
    # The wake-up descriptor is written in the C handler, in whatever thread that runs; in Python nothing is left to do.
    signal.set_wakeup_fd(stop.writer, warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    return stop


def map_large_arrays() -> None:
    """Arrays from ``LARGE`` bytes on get pages of their own, which go back to the system: images among long-lived small objects would
    tear holes into the heap, and a node's memory would grow for hours. glibc only, where the user has not set it (mallopt(3))."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        mallopt(M_MMAP_THRESHOLD, LARGE)
        mallopt(M_TRIM_THRESHOLD, KEPT)


def ignore_signals() -> None:
    """For a process that ends: a late signal must not kill it on its last metres, where Python has no handlers left."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def fastdds_profile() -> dict[str, str]:
    """Environment that makes Fast DDS use config/fastdds.xml; empty if the user chose a profile.

    The PUBLISHER of large messages needs it: replay for the images, live for the meshes.
    """
    if any(os.environ.get(name) for name in PROFILE_VARIABLES):
        return {}
    old = os.environ.get("ROS_DISTRO") in FAST_DDS_2  # the new ones complain about the old name
    return {PROFILE_VARIABLES[old]: str(share_file("config/fastdds.xml"))}


def without_ros_arguments(arguments: list[str]) -> list[str]:
    """What is left for us once --ros-args and the like are taken out. ValueError where rclpy does not understand them."""
    from rclpy.utilities import remove_ros_args

    given = {_utf8(text): text for text in arguments}
    try:
        return [given[text] for text in remove_ros_args(["", *map(_utf8, arguments)])[1:]]
    except RuntimeError as error:
        raise ValueError(str(error)) from error


def _utf8(text: str) -> str:
    """Of an argument with other bytes, such as a file's name, which rclpy does not take."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def start_ros(arguments: list[str]) -> None:
    """``rclpy.init`` with the Fast DDS profile and without rclpy's signal handlers.

    ValueError for ROS arguments that do not work, such as a parameter file that is not there.
    """
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    os.environ.update(fastdds_profile())
    try:
        rclpy.init(args=[_utf8(text) for text in arguments], signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:
        raise ValueError(str(error)) from error


class Spinner:
    """Spins nodes in a thread of its own, after ``first`` has run there; ``failed`` holds what ended it, if anything."""

    def __init__(self, *nodes, first=None, done: StopEvent | None = None):
        from rclpy.executors import SingleThreadedExecutor

        self.failed: BaseException | None = None
        self._executor = SingleThreadedExecutor()
        for node in nodes:
            self._executor.add_node(node)
        self._first, self._done = first, done
        self._thread = threading.Thread(target=self._run, name="executor", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        from rclpy.executors import ExternalShutdownException, ShutdownException

        try:
            if self._first:
                self._first()
            self._executor.spin()
        except (ExternalShutdownException, ShutdownException):
            pass
        except BaseException as error:  # handed to the main thread, which reports it
            self.failed = error
        finally:
            if self._done:
                self._done.set()

    def stop(self) -> bool:
        """End the thread; False if it is busy in native code (building an engine) and had to be left alone."""
        self._executor.shutdown(timeout_sec=0)
        self._thread.join(JOIN_SECONDS)
        return not self._thread.is_alive()


def leave_at_once(code: int) -> None:
    """End the process without waiting for threads that native code holds."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
