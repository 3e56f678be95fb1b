"""`hmr-ros live`: the process around the live node. It starts, spins and ends; LiveNode does the work."""

from __future__ import annotations

import argparse
import logging
import sys

from hmr_ros.ros.process import Spinner, ignore_signals, leave_at_once, map_large_arrays, start_ros, stop_event, without_ros_arguments


def main(argv: list[str] | None = None, estimator_factory=None) -> int:
    """Run the live node until SIGINT or SIGTERM (exit code 0); 1 if it cannot be started.

    ``estimator_factory`` makes another estimator than the default one from the node's LiveParameters.
    """
    map_large_arrays()
    stop = stop_event()  # before the slow imports: Ctrl-C is no error at any time
    argv = list(sys.argv[1:] if argv is None else argv)
    import rclpy

    parse_arguments(without_ros_arguments(argv))
    start_ros(argv)
    from hmr_ros.ros.node import LiveNode, default_estimator

    try:
        node = LiveNode(estimator_factory or default_estimator)
    except Exception as error:  # parameters of the wrong type or value, names that are not valid
        print(f"hmr-ros live: {error}", file=sys.stderr)
        rclpy.try_shutdown()
        return 1
    started = []
    autostart = node.get_parameter("autostart").value

    def first() -> None:
        if autostart:
            started.append(node.start())
            if not started[0]:
                stop.set()

    logging.getLogger("hmr_ros").addHandler(RosLogHandler(node.get_logger()))
    spinner = Spinner(node, first=first, done=stop)
    stop.wait()
    ignore_signals()
    if not spinner.stop():
        leave_at_once(0)
    if not node.end():  # Python would end its thread inside native code, which aborts
        leave_at_once(0)
    node.destroy_node()
    rclpy.try_shutdown()
    if spinner.failed is not None:
        raise spinner.failed
    return 1 if started == [False] else 0


class RosLogHandler(logging.Handler):
    """What the ROS-free part of the package logs (a backend that fell back, say) becomes a line of the node."""

    def __init__(self, logger):
        super().__init__(logging.WARNING)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            self._logger.error(record.getMessage())
        else:
            self._logger.warning(record.getMessage())


def parse_arguments(arguments: list[str]) -> None:
    """There are only ROS arguments; this prints the help and refuses anything else."""
    from hmr_ros.ros.parameters import describe_parameters

    parser = argparse.ArgumentParser(
        prog="hmr-ros live",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="The live node `hmr`: subscribes image (or image/compressed) and camera_info, publishes bodies,\n"
        "body_model, markers, overlay and /diagnostics.",
        usage="hmr-ros live [--ros-args -r image:=/camera/image_raw -p NAME:=VALUE --params-file FILE ...]",
        epilog=f"parameters (-p NAME:=VALUE):\n{describe_parameters()}",
    )
    parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
