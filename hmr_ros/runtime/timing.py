"""How long the networks themselves take: for benchmarks, which compare it with the time of a whole frame."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from hmr_ros.runtime.compiled import CompiledModel


@contextmanager
def time_networks() -> Iterator[dict[str, float]]:
    """Seconds spent in the calls of every `CompiledModel` of this process while the block runs, by the model's name.

    Calls in other threads count as well. Not to be nested. Outside the block calls cost nothing more.
    """
    seconds: dict[str, float] = defaultdict(float)
    call = CompiledModel.__call__

    def timed(self, *arrays):
        begin = time.perf_counter()
        try:
            return call(self, *arrays)
        finally:
            seconds[self.name] += time.perf_counter() - begin

    CompiledModel.__call__ = timed
    try:
        yield seconds
    finally:
        CompiledModel.__call__ = call
