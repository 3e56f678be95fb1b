"""Making a folder of shards on Ray: on this machine or on a cluster, whatever is killed meanwhile.

Plain actors, not Ray Data: a task is a shard, what it gives is files, and which of them are there already is what makes a run resumable;
Ray Data would want Arrow, and none of this would come from it. An actor holds the models and has one task at a time, so that nothing
piles up. It stages the files of its shard where they belong (shard_folder.py) and returns their names; this process, the only one to do
so, commits them: each shard once, also where an actor that was thought dead goes on. A killed run is continued by the same command.
"""

from __future__ import annotations

import os
import socket
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from hmr_ros.io.remote import shown
from hmr_ros.training.data import shard_work
from hmr_ros.training.data.shard_folder import ShardFolder

_OBJECT_STORE = 100 << 20  # bytes on this machine: tasks and names go through it, pictures and shards do not
_DEATHS = 3  # of workers in a row, or at one shard: the fault is not a passing one

Staged = dict[str, str]  # a file's name: the name under which it is staged


@dataclass(frozen=True)
class Cluster:
    """``workers`` actors, of one CPU each, at a Ray cluster's ``address``; without one on this machine alone."""

    workers: int
    address: str = ""


class ShardActor:
    """Makes shards in a process of its own; only names leave it."""

    def open(self, open_maker: Callable[[], Callable[..., dict[str, bytes]]], location: str, config: bytes) -> None:
        """Load the models. ValueError where the folder at ``location`` is not the driver's, whose config.json is ``config``."""
        shard_work.use_one_thread()
        self._folder = ShardFolder(location)
        if "config.json" not in self._folder.names() or self._folder.read("config.json") != config:
            raise ValueError(f"{shown(location)} on {socket.gethostname()} is not the folder that this run writes to; on a cluster --out must be a "
                             "folder that all machines share, or a URL")  # fmt: skip
        self._make = open_maker()

    def make(self, *task) -> Staged:
        files = self._make(*task, lambda: None)
        return {name: self._folder.stage(name, content) for name, content in files.items()}


def make_shards(
    open_maker: Callable[[], Callable[..., dict[str, bytes]]], location: Path | str, tasks: list[shard_work.Task], total: int,
    cluster: Cluster, label: str,
) -> None:  # fmt: skip
    """As shard_work.make_shards, but a maker returns the files of its shard by name, the last of which makes it complete.

    Raises ModuleNotFoundError without Ray, ConnectionError where no cluster is at the address, what a maker raises, and OSError when
    workers keep being killed; committed shards are kept.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report its use to its makers
    os.environ.setdefault("RAY_worker_niceness", "0")  # its workers would yield to everything else on this machine
    import ray

    with shard_work.progress(tasks, total, label) as show:
        if not tasks:
            return
        _connect(ray, cluster)
        try:
            _Pool(ray, open_maker, ShardFolder(location), min(cluster.workers, len(tasks))).run(tasks, show)
        finally:
            ray.shutdown()


@contextmanager
def installed_package() -> Iterator[None]:
    """For ray.init: its workers import from the folder that is then the working folder before all others, a checkout perhaps, which is
    not the installed package."""
    here = os.getcwd()
    os.chdir("/")
    try:
        yield
    finally:
        os.chdir(here)


def _connect(ray, cluster: Cluster) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}  # errors come as exceptions; the bar stays whole
    try:
        with installed_package():
            if cluster.address:
                ray.init(address=cluster.address, **quiet)
            else:
                ray.init(address="local", num_cpus=cluster.workers, include_dashboard=False, object_store_memory=_OBJECT_STORE, **quiet)
    except ConnectionError as error:
        raise ConnectionError(f"no Ray cluster can be joined at --address {cluster.address} ({error}); start one there by `ray start --head`, "
                              "with the same RAY_AUTH_MODE and token as here") from error  # fmt: skip
    except Exception as error:  # Ray's own has no class where its processes do not come up within 30 s
        if type(error) is not Exception:
            raise
        raise OSError(f"Ray did not start ({error}) Its logs are in /tmp/ray/session_latest/logs; on a busy machine run the same command again") from error


class _Pool:
    """Actors, each with one call that has not returned."""

    def __init__(self, ray, open_maker, folder: ShardFolder, size: int):
        self._ray, self._folder, self._size = ray, folder, size
        self._opening = ray.put(open_maker), folder.location, folder.read("config.json")
        self._actor = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(ShardActor)
        self._calls: dict = {}  # reference of a call that has not returned: (actor, its task, or None while it loads the models)
        self._deaths: Counter = Counter()  # by shard; None: while the models were loaded

    def run(self, tasks: list[shard_work.Task], show: Callable[[int], None]) -> None:
        waiting, made = deque(tasks), 0
        for _ in range(self._size):
            self._start()
        while self._calls and (waiting or any(task for _, task in self._calls.values())):
            for call in self._ray.wait(list(self._calls), timeout=0.5)[0]:
                actor, task = self._calls.pop(call)
                try:
                    staged = self._ray.get(call)
                except self._ray.exceptions.RayTaskError as error:
                    raise error.cause from None
                except self._ray.exceptions.RayError as error:
                    self._bury(actor, task, error)
                    if task:
                        waiting.appendleft(task)
                    self._start()
                    continue
                self._deaths[None] = 0
                if task:
                    for name, hidden in staged.items():
                        self._folder.commit(name, hidden)
                    made += len(task[1])
                if waiting:
                    task = waiting.popleft()
                    self._calls[actor.make.remote(*task)] = actor, task
            show(made)

    def _start(self) -> None:
        actor = self._actor.remote()
        self._calls[actor.open.remote(*self._opening)] = actor, None

    def _bury(self, actor, task, error: Exception) -> None:
        """OSError where it was one too many."""
        self._ray.kill(actor)  # if only its machine could not be reached
        shard = task and task[0]
        self._deaths[shard] += 1
        if self._deaths[shard] == _DEATHS:
            what = "while the models were loaded" if task is None else f"at shard {shard}"
            raise OSError(f"{_DEATHS} workers ended unexpectedly {what}, perhaps for want of memory ({str(error).splitlines()[0]}); run the "
                          "same command again, with fewer --workers: whole shards are kept") from error  # fmt: skip
