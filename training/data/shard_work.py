"""Making a folder of shards in several processes: claimed by one data set, resumable after any kill, with progress.

What goes into a shard is the caller's. Shards are written whole or not at all and are skipped when they exist, so a killed
run goes on where it stopped; workers end when whoever asked for the shards is gone.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Callable

import cv2
import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from hmr_ros.io.remote import local, shown
from hmr_ros.proxies import registry
from hmr_ros.training.data.shard_folder import ShardFolder

Task = tuple  # shard number, range of pictures, and what else its maker needs
Maker = Callable[..., None]  # called with the members of a task and ``tick``, which it calls after every picture


def spans(count: int, shard_size: int) -> list[tuple[int, range]]:
    """(shard number, its pictures) for all of ``count`` pictures."""
    starts = range(0, count, shard_size)
    return [(shard, range(start, min(start + shard_size, count))) for shard, start in enumerate(starts)]


def claim(location: Path | str, identity: dict) -> ShardFolder:
    """Make the folder and write ``identity`` (what the content of shards depends on) to its config.json.

    Raises ValueError when the folder holds another data set, or files of one that is not known.
    """
    folder = ShardFolder(location)
    names = folder.names()
    begun = any(fnmatch(name, "proxies-*.npz") for name in names)
    if "config.json" in names:
        new = json.loads(json.dumps(identity))  # lists, as they are read back
        old = _with_extractor(json.loads(folder.read("config.json")), new.get("extractor"))
        changed = [name for name in sorted({*new, *old}) if new.get(name) != old.get(name)]
        if changed and begun:
            raise ValueError(f"{shown(location)} holds another data set (different: {', '.join(changed)}); choose another --out")
    elif begun:
        raise ValueError(f"{shown(location)} holds shards but no config.json that says of what; choose another --out")
    folder.write_json("config.json", identity)
    return folder


def extractor_of(folder: Path | str) -> dict | None:
    """Identity of the extractor that made a folder's shards (proxies/registry.py); None where the folder is older than identities."""
    path = local(folder) / "config.json"
    return json.loads(path.read_text()).get("extractor") if path.is_file() else None


def extractors_of(folders: Iterable[Path | str]) -> list[dict]:
    """The different identities recorded in folders of shards: what checkpoints trained from them carry."""
    found = []
    for folder in folders:
        extractor = extractor_of(folder)
        if extractor is not None and extractor not in found:
            found.append(extractor)
    return found


def _with_extractor(config: dict, extractor: dict | None) -> dict:
    """A folder's ``config`` as it would be written today: folders older than identities are the embedded extractor's; some have the
    hashes of its files as ``detectors``."""
    if extractor is None or "extractor" in config:
        return config
    hashes = config.pop("detectors", extractor["files"])
    same = extractor["name"] == registry.DEFAULT and hashes == extractor["files"]
    return config | {"extractor": extractor if same else {"name": registry.DEFAULT, "files": hashes}}


def finish(location: Path | str, manifest: dict) -> None:
    """Write manifest.json once every shard is there, and remove what killed runs left half-written."""
    folder = ShardFolder(location)
    folder.remove_staged()
    folder.write_json("manifest.json", manifest)


def make_shards(open_maker: Callable[[], Maker], tasks: list[Task], total: int, workers: int, label: str) -> None:
    """Do ``tasks``, the missing ones of ``total`` pictures, while a bar shows the progress and the pictures a second.

    ``open_maker`` (to be pickled: a partial of a function of a module) is called once a process and returns what makes a
    shard. Tasks are begun in their order. One worker is this process. Raises what a maker raises, and OSError when a worker
    is killed; whole shards are kept.
    """
    with progress(tasks, total, label) as show:
        if tasks and workers == 1:
            _make_here(open_maker, tasks, show)
        elif tasks:
            _make_in_processes(open_maker, tasks, min(workers, len(tasks)), show)


@contextmanager
def progress(tasks: list[Task], total: int, label: str) -> Iterator[Callable[[int], None]]:
    """A bar for the missing ``tasks`` of ``total`` pictures; gives a function that is told how many pictures of them are made."""
    done = total - sum(len(task[1]) for task in tasks)
    columns = (
        TextColumn(escape(label)),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TextColumn("{task.fields[rate]:.1f} /s"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True, markup=False)) as bars:
        bar = bars.add_task("", total=total, completed=done, rate=0.0)

        def show(made: int) -> None:
            elapsed = bars.tasks[bar].elapsed or 1e-9
            bars.update(bar, completed=done + made, rate=made / elapsed)

        yield show


def _make_here(open_maker, tasks: list[Task], show) -> None:
    made = 0

    def tick() -> None:
        nonlocal made
        made += 1
        show(made)

    threads = torch.get_num_threads(), cv2.getNumThreads()
    use_one_thread()
    try:
        make = open_maker()
        for task in tasks:
            make(*task, tick)
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])


def use_one_thread() -> None:
    """One a process is fastest, and sums come out the same to the last bit however many processes share the work."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _make_in_processes(open_maker, tasks: list[Task], workers: int, show) -> None:
    context = multiprocessing.get_context("spawn")  # OpenVINO and torch do not survive a fork
    made, stop = context.Value("q", 0), context.Event()
    with ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(open_maker, made, stop)) as pool:
        pending = {pool.submit(_work, *task) for task in tasks}
        try:
            while pending:
                finished, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
                show(made.value)
                for future in finished:
                    future.result()
        except BrokenProcessPool as error:
            raise OSError(
                "a worker ended unexpectedly, perhaps for want of memory; run the same command again, with fewer --workers: "
                "whole shards are kept"
            ) from error
        except BaseException:
            stop.set()  # nobody wants the rest
            for future in pending:
                future.cancel()
            raise


class _Stopped(Exception):
    """The run is over: an error elsewhere, or Ctrl-C."""


_worker: tuple | Exception | None = None  # of this process: maker, shared counter, shared stop; or why there is none


def _start_worker(open_maker, made, stop) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which tells us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    use_one_thread()
    try:
        _worker = (open_maker(), made, stop)
    except Exception as error:  # raised where it can be told; an error here would only break the pool
        _worker = error


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)  # who asked for the pictures is gone, by SIGKILL perhaps: nobody waits for them


def _work(*task) -> None:
    if isinstance(_worker, Exception):
        raise _worker
    make, made, stop = _worker

    def tick() -> None:
        if stop.is_set():
            raise _Stopped
        with made.get_lock():
            made.value += 1

    make(*task, tick)
