"""``hmr-ros train on-ray``: any ``hmr-ros train`` command on the machines of a Ray cluster, one torchrun on each.

Ray finds the machines and starts torchrun there; torchrun starts a process for each device, and torch makes them one run (DDP). Nothing of
the training knows of Ray. --data and --out are folders that all machines share. When a process or a machine is lost the command ends with an
error, and the same command goes on from the last checkpoint.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass

import tyro
from rich.console import Console

from hmr_ros.training.data.ray_work import installed_package


@dataclass(frozen=True)
class OnRay:
    """Run `hmr-ros train ...` on several machines of a Ray cluster. What follows -- is that command, without --devices and --nodes."""

    nodes: int
    """Machines."""
    devices: int = 1
    """Processes on each: as many as it has GPUs, or 1."""
    cpus: int = 1
    """CPUs that Ray sets aside for each process."""
    gpus: int = 0
    """GPUs that Ray sets aside for each process; 1 where there are some."""
    address: str = "auto"
    """Of the cluster: host:6379, or auto on one of its machines."""


def main(argv: list[str]) -> int:
    own, separator, command = _split(argv)
    options = tyro.cli(OnRay, args=own, prog="hmr-ros train on-ray")
    if not separator or command[:1] != ["train"]:
        raise ValueError(f"no `hmr-ros train` command after --, found {' '.join(command) or 'nothing'}; expected for example: "
                         "hmr-ros train on-ray --nodes 2 -- train lifter --data DIR --val DIR --out DIR")  # fmt: skip
    return run(options, command)


def _split(argv: list[str]) -> tuple[list[str], bool, list[str]]:
    place = argv.index("--") if "--" in argv else len(argv)
    return argv[:place], place < len(argv), argv[place + 1 :]


def run(options: OnRay, command: list[str]) -> int:
    """Start torchrun on ``options.nodes`` machines and wait for them; returns the first exit code that is not 0."""
    for name in ("nodes", "devices", "cpus"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name} is {getattr(options, name)}, expected at least 1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    with installed_package():
        ray.init(address=options.address, logging_level="ERROR")
    try:
        bundle = {"CPU": options.devices * options.cpus} | ({"GPU": options.devices * options.gpus} if options.gpus else {})
        group = ray.util.placement_group([bundle] * options.nodes, strategy="STRICT_SPREAD")
        with Console(stderr=True).status(f"waiting for {options.nodes} machines with {bundle} each"):
            ray.get(group.ready())
        place = [
            ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=i) for i in range(options.nodes)
        ]
        machine = ray.remote(num_cpus=bundle["CPU"], num_gpus=bundle.get("GPU", 0), max_restarts=0)(_Machine)
        machines = [machine.options(scheduling_strategy=some).remote() for some in place]
        first = ray.get(machines[0].address.remote())
        waiting = [some.train.remote(first, rank, options, command) for rank, some in enumerate(machines)]
        while waiting:
            done, waiting = ray.wait(waiting)
            if code := ray.get(done[0]):
                return code  # the others wait for a process that is gone; they end with their actors
        return 0
    finally:
        ray.shutdown()


class _Machine:
    def address(self) -> str:
        """Host and a free port of this machine, where processes find each other."""
        import ray

        with socket.socket() as free:
            free.bind(("", 0))
            return f"{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"

    def train(self, first: str, rank: int, options: OnRay, command: list[str]) -> int:
        host, port = first.rsplit(":", 1)
        torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nnodes={options.nodes}", f"--node-rank={rank}",
                    f"--nproc-per-node={options.devices}", f"--master-addr={host}", f"--master-port={port}", "-m", "hmr_ros.cli"]  # fmt: skip
        arguments = *command, "--devices", str(options.devices), "--nodes", str(options.nodes)
        return subprocess.call([*torchrun, *arguments], preexec_fn=_end_with_parent)


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: torchrun then ends its processes
