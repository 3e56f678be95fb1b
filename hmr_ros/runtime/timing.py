"""How long the networks themselves take: for benchmarks, which compare it with the time of a whole frame."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from hmr_ros.runtime.compiled import CompiledModel


@contextmanager
def time_networks() -> Iterator[dict[str, float]]:
    """Seconds spent in every `CompiledModel` of this process while the block runs, by the model's name; on arrays or on tensors, whose results are
    waited for where they are on a GPU.

    Calls in other threads count as well, a call within a call once. Not to be nested. Outside the block calls cost nothing more.
    """
    seconds: dict[str, float] = defaultdict(float)
    thread = threading.local()

    def timed(call):
        def method(self, *inputs):
            if getattr(thread, "inside", False):
                return call(self, *inputs)
            thread.inside, begin = True, time.perf_counter()
            try:
                results = call(self, *inputs)
                for result in results:
                    if getattr(result, "is_cuda", False):
                        import torch

                        torch.cuda.synchronize(result.device)
                return results
            finally:
                thread.inside = False
                seconds[self.name] += time.perf_counter() - begin

        return method

    originals = [(kind, name, vars(kind)[name]) for kind in _kinds(CompiledModel) for name in ("__call__", "tensors") if name in vars(kind)]
    for kind, name, call in originals:
        setattr(kind, name, timed(call))
    try:
        yield seconds
    finally:
        for kind, name, call in originals:
            setattr(kind, name, call)


def _kinds(kind: type) -> list[type]:
    return [kind, *(below for child in kind.__subclasses__() for below in _kinds(child))]
